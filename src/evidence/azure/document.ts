import * as z from "zod"
import { MalformedError } from "../../bytes/error.ts"
import { parseJson } from "../../bytes/json.ts"
import type { JsonValue } from "../../bytes/json.ts"
import { encodeBase64, parseBase64 } from "../../bytes/text.ts"
import { hashSizes } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { decodeEndorsements, decodeHardwareEvidence, encodeHardwareEvidence, hardwareEvidenceSchemas, maxTeeEvidenceBytes } from "../tee/hardware.ts"
import type { SnpTeeEvidence, TdxTeeEvidence } from "../tee/hardware.ts"
import { isHashName } from "../tpm/algorithms.ts"
import { encodeTpmSignature } from "../tpm/format.ts"
import type { TpmSignature } from "../tpm/format.ts"
import { parseSizedPublicArea } from "../tpm/public-area.ts"
import type { PcrValues } from "../tpm/quote.ts"
import { parseHclReport } from "./format.ts"
import type { AzureEvidence } from "./verify.ts"

/** Evidence of a confidential VM of Azure as it travels, decoded; nothing in it is verified. What vouches for the hardware may come with it or from the verifier's cache. */
export interface AzureVmEvidence {
  readonly kind: "azure-vtpm"
  /** The paravisor's report, as read from NV index 0x01400001. */
  readonly hclReport: Uint8Array
  /** The report of SEV-SNP that stands in the paravisor's report, or the quote that Azure's host made of the TD report in it. */
  readonly hardware: SnpTeeEvidence | TdxTeeEvidence
  /** TPMS_ATTEST, and TPMT_SIGNATURE or a record of the bare value. */
  readonly quote: { readonly attest: Uint8Array; readonly signature: Uint8Array | TpmSignature }
  /** TPM2B_PUBLIC of the attestation key; without it nothing says that the key signs quotes only. */
  readonly akPublic?: Uint8Array
  /** Values that the quoted registers had. */
  readonly pcrs: PcrValues
}

/** The NV index has 2600 bytes; newer paravisors write up to 4096, and zeros may follow. */
const maxHclReportBytes = 20_480
/** A TPMS_ATTEST stays under 300 bytes, an RSA-4096 signature under 600, a public area under 700. */
const maxQuoteBytes = 4096
/** SHA-1, SHA-256, SHA-384, SHA-512. */
const maxBanks = 4

const base64Text = (maxBytes: number): z.ZodString => z.string().max(Math.ceil(maxBytes / 3) * 4)
const { tdx: tdxSchema, snp: snpSchema } = hardwareEvidenceSchemas

/** Register values as JSON: bank → index → lower-case hexadecimal. */
const pcrsSchema = z
  .record(z.string(), z.record(z.string().regex(/^(?:1?[0-9]|2[0-3])$/), z.string().regex(/^(?:[0-9a-f]{2})+$/)))
  .refine((banks) => Object.keys(banks).length <= maxBanks && Object.entries(banks).every(([bank, values]) => isBank(bank, Object.values(values))), {
    error: "not registers of a known bank with digests of its size",
  })

function isBank(bank: string, values: readonly string[]): boolean {
  return isHashName(bank) && values.every((value) => value.length === 2 * hashSizes[bank])
}

/** The evidence as JSON; every byte string is canonical padded base64. */
export const azureVmSchema = z.strictObject({
  perun: z.literal(1),
  kind: z.literal("azure-vtpm"),
  hclReport: base64Text(maxHclReportBytes),
  hardware: z.discriminatedUnion("kind", [
    // The report itself stands in the paravisor's.
    z.strictObject({ kind: z.literal("snp"), endorsements: snpSchema.shape.endorsements }),
    z.strictObject({ kind: z.literal("tdx"), quote: tdxSchema.shape.quote, collateral: tdxSchema.shape.collateral }),
  ]),
  quote: z.strictObject({ attest: base64Text(maxQuoteBytes), signature: base64Text(maxQuoteBytes) }),
  akPublic: base64Text(maxQuoteBytes).exactOptional(),
  pcrs: pcrsSchema,
})

export type AzureVmDocument = z.infer<typeof azureVmSchema>

/**
 * Reads evidence of a confidential VM from JSON text.
 * @throws {MalformedError} `malformed`, `duplicate`, `unknown-field`, `too-large`, and what the paravisor's report, certificates and lists throw
 * @throws {EvidenceError} `wrong-binding`: a report of the other hardware; and as parseHclReport
 */
export function parseAzureVmEvidence(text: Uint8Array | string): AzureVmEvidence {
  return decodeAzureVmEvidence(check(azureVmSchema, parseJson(text, { maxBytes: maxTeeEvidenceBytes }), "evidence"))
}

/**
 * Decodes the byte strings of an evidence document.
 * @throws {MalformedError} what the paravisor's report, certificates and lists throw; {EvidenceError} `wrong-binding`: a report of the other hardware; and as parseHclReport
 */
export function decodeAzureVmEvidence({ hclReport, hardware, quote, akPublic, pcrs }: AzureVmDocument): AzureVmEvidence {
  const report = parseBase64(hclReport, "evidence.hclReport")
  return {
    kind: "azure-vtpm",
    hclReport: report,
    hardware: hardware.kind === "snp" ? decodeSnp(hardware, report) : decodeTdx(hardware, report),
    quote: { attest: parseBase64(quote.attest, "evidence.quote.attest"), signature: parseBase64(quote.signature, "evidence.quote.signature") },
    ...(akPublic === undefined ? {} : { akPublic: parseBase64(akPublic, "evidence.akPublic") }),
    pcrs: pcrValues(pcrs),
  }
}

export function encodeAzureVmEvidence({ hclReport, hardware, quote, akPublic, pcrs }: AzureVmEvidence): AzureVmDocument {
  const { signature } = quote
  return {
    perun: 1,
    kind: "azure-vtpm",
    hclReport: encodeBase64(hclReport),
    hardware: encodeHardware(hardware),
    quote: {
      attest: encodeBase64(quote.attest),
      signature: encodeBase64(signature instanceof Uint8Array ? signature : encodeTpmSignature(signature)),
    },
    ...(akPublic === undefined ? {} : { akPublic: encodeBase64(akPublic) }),
    pcrs: Object.fromEntries([...pcrs].map(([bank, values]) => [bank, Object.fromEntries(values)])),
  }
}

/**
 * Register values from a file of their own, pcrs.json: bank → index → lower-case hexadecimal.
 * @throws {MalformedError} `malformed`, `duplicate`, `too-large`
 */
export function parsePcrValues(text: Uint8Array | string): PcrValues {
  return pcrValues(check(pcrsSchema, parseJson(text, { maxBytes: maxPcrsBytes }), "pcrs"))
}

/** Four banks of 24 registers have some 12 KiB. */
const maxPcrsBytes = 65_536

/**
 * The report of SEV-SNP that a paravisor's report holds, as evidence of its own: to find what vouches for it.
 * @throws {MalformedError} as parseHclReport; {EvidenceError} `wrong-binding` where the hardware is another
 */
export function snpHardware(hclReport: Uint8Array): SnpTeeEvidence {
  return { kind: "snp", report: reportOf(hclReport, "snp") }
}

/**
 * What verifyAzureVtpm takes.
 * @throws {EvidenceError} `missing-piece`: a report of SEV-SNP without certificates; {MalformedError} the key's public area
 */
export function azureEvidenceOf({ hclReport, hardware, quote, akPublic }: AzureVmEvidence): AzureEvidence {
  const area = akPublic === undefined ? "not-given" : parseSizedPublicArea(akPublic)
  if (hardware.kind === "tdx")
    return { hclReport, hardware: { type: "tdx", quote: hardware.quote, collateral: hardware.collateral ?? {} }, quote, akPublic: area }
  if (hardware.endorsements === undefined)
    throw new EvidenceError("missing-piece", "no certificate of the key that signed the hardware's report", {
      path: "evidence.hardware.endorsements",
    })
  return { hclReport, hardware: { type: "snp", endorsements: hardware.endorsements }, quote, akPublic: area }
}

type HardwareDocument = AzureVmDocument["hardware"]

function decodeSnp({ endorsements }: Extract<HardwareDocument, { kind: "snp" }>, hclReport: Uint8Array): SnpTeeEvidence {
  return { ...snpHardware(hclReport), ...(endorsements === undefined ? {} : { endorsements: decodeEndorsements(endorsements) }) }
}

function decodeTdx(document: Extract<HardwareDocument, { kind: "tdx" }>, hclReport: Uint8Array): TdxTeeEvidence {
  reportOf(hclReport, "tdx")
  const decoded = decodeHardwareEvidence({ perun: 1, ...document })
  if (decoded.kind !== "tdx") throw new TypeError(`internal: ${decoded.kind} of a tdx document`)
  return decoded
}

function encodeHardware(hardware: AzureVmEvidence["hardware"]): HardwareDocument {
  const document = encodeHardwareEvidence(hardware)
  if (document.kind === "snp") return { kind: "snp", ...(document.endorsements === undefined ? {} : { endorsements: document.endorsements }) }
  if (document.kind !== "tdx") throw new TypeError("only SEV-SNP and TDX have paravisors")
  return { kind: "tdx", quote: document.quote, ...(document.collateral === undefined ? {} : { collateral: document.collateral }) }
}

function reportOf(hclReport: Uint8Array, type: "snp" | "tdx"): Uint8Array {
  const { hardware } = parseHclReport(hclReport)
  if (hardware.type === type) return hardware.report
  throw new EvidenceError("wrong-binding", `a ${hardware.type} report with what vouches for ${type}`, { path: "HCL_REPORT.reportType" })
}

function pcrValues(banks: z.infer<typeof pcrsSchema>): PcrValues {
  return new Map(
    Object.entries(banks).map(([bank, values]) => [bank, new Map(Object.entries(values).map(([index, value]) => [Number(index), value]))]),
  )
}

function check<T>(schema: z.ZodType<T>, value: JsonValue, path: string): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const code = issue?.code === "unrecognized_keys" ? "unknown-field" : issue?.code === "too_big" ? "too-large" : "malformed"
  throw new MalformedError(code, issue?.message.toLowerCase() ?? "another form", {
    path: [path, ...(issue?.path ?? [])].join("."),
    cause: parsed.error,
  })
}
