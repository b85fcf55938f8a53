import * as z from "zod"
import { MalformedError } from "../../bytes/error.ts"
import { parseJson } from "../../bytes/json.ts"
import { azureVmSchema, decodeAzureVmEvidence, encodeAzureVmEvidence, type AzureVmEvidence } from "../azure/document.ts"
import { decodeHardwareEvidence, encodeHardwareEvidence, hardwareEvidenceSchemas, maxTeeEvidenceBytes, type HardwareEvidence } from "./hardware.ts"

/** Evidence of one TEE, decoded; nothing in it is verified. `azure-vtpm`: a paravisor inside SEV-SNP or TDX, and the virtual TPM that it runs. */
export type TeeEvidence = HardwareEvidence | AzureVmEvidence

export type TeeKind = TeeEvidence["kind"]

export const teeKinds = ["sgx", "tdx", "snp", "azure-vtpm"] as const satisfies readonly TeeKind[]

/** The evidence as JSON; every byte string is canonical padded base64. */
export const teeEvidenceSchema = z.discriminatedUnion("kind", [
  hardwareEvidenceSchemas.sgx,
  hardwareEvidenceSchemas.tdx,
  hardwareEvidenceSchemas.snp,
  azureVmSchema,
])

export type TeeEvidenceDocument = z.infer<typeof teeEvidenceSchema>

/**
 * Reads TEE evidence from JSON text.
 * @throws {MalformedError} `malformed`, `duplicate`, `unknown-field`, `too-large`, and what certificates, lists and a paravisor's report throw
 * @throws {EvidenceError} as decodeTeeEvidence
 */
export function parseTeeEvidence(text: Uint8Array | string): TeeEvidence {
  const parsed = teeEvidenceSchema.safeParse(parseJson(text, { maxBytes: maxTeeEvidenceBytes }))
  if (parsed.success) return decodeTeeEvidence(parsed.data)
  const [issue] = parsed.error.issues
  const path = ["evidence", ...(issue?.path ?? [])].join(".")
  const code = issue?.code === "unrecognized_keys" ? "unknown-field" : issue?.code === "too_big" ? "too-large" : "malformed"
  throw new MalformedError(code, issue?.message.toLowerCase() ?? "not TEE evidence", { path, cause: parsed.error })
}

/**
 * Decodes the byte strings of an evidence document.
 * @throws {MalformedError}; {EvidenceError} of a paravisor's report, as decodeAzureVmEvidence
 */
export function decodeTeeEvidence(document: TeeEvidenceDocument): TeeEvidence {
  return document.kind === "azure-vtpm" ? decodeAzureVmEvidence(document) : decodeHardwareEvidence(document)
}

export function encodeTeeEvidence(evidence: TeeEvidence): TeeEvidenceDocument {
  return evidence.kind === "azure-vtpm" ? encodeAzureVmEvidence(evidence) : encodeHardwareEvidence(evidence)
}

/** What the processor signed: the evidence itself, or what stands under the paravisor's. Whatever vouches for a platform goes with this. */
export function hardwareOf(evidence: TeeEvidence): HardwareEvidence {
  return evidence.kind === "azure-vtpm" ? evidence.hardware : evidence
}

/** The same evidence over hardware that got what vouches for it. @throws {TypeError} hardware of another kind */
export function withHardware(evidence: HardwareEvidence, hardware: HardwareEvidence): HardwareEvidence
export function withHardware(evidence: AzureVmEvidence, hardware: HardwareEvidence): AzureVmEvidence
export function withHardware(evidence: TeeEvidence, hardware: HardwareEvidence): TeeEvidence
export function withHardware(evidence: TeeEvidence, hardware: HardwareEvidence): TeeEvidence {
  if (hardware.kind !== hardwareOf(evidence).kind) throw new TypeError(`${hardware.kind} for ${hardwareOf(evidence).kind}`)
  if (evidence.kind !== "azure-vtpm") return hardware
  if (hardware.kind === "sgx") throw new TypeError("internal: no paravisor runs in SGX")
  return { ...evidence, hardware }
}
