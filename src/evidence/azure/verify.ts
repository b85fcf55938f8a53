import { bytesEqual, concatBytes } from "../../bytes/compare.ts"
import { sha256 } from "../../bytes/digest.ts"
import { encodeHex, parseHex } from "../../bytes/text.ts"
import { rsaPublicKey } from "../../pki/signatures.ts"
import type { DcapCollateral } from "../dcap/endorsements.ts"
import type { DcapReadings } from "../dcap/readings.ts"
import type { DcapRoot } from "../dcap/roots.ts"
import { EvidenceError } from "../errors.ts"
import { Genuine } from "../genuine.ts"
import type { SnpClaims } from "../snp/claims.ts"
import type { SnpEndorsements } from "../snp/endorsements.ts"
import { parseSnpReport } from "../snp/format.ts"
import type { SnpRoot } from "../snp/roots.ts"
import { verifySnpReport } from "../snp/verify.ts"
import type { TdxClaims } from "../tdx/claims.ts"
import { parseTdxQuote } from "../tdx/format.ts"
import { verifyTdxQuote } from "../tdx/verify.ts"
import { endorsementKeyDigest } from "../tpm/endorsements.ts"
import { parseAttest } from "../tpm/format.ts"
import type { TpmSignature } from "../tpm/format.ts"
import { asEvidence } from "../tpm/pki-errors.ts"
import type { PublicArea } from "../tpm/public-area.ts"
import type { QuoteExpectation, QuoteKey } from "../tpm/quote.ts"
import { verifyQuote } from "../tpm/verify.ts"
import type { AzureClaims } from "./claims.ts"
import { parseHclReport } from "./format.ts"
import type { HclReport } from "./format.ts"
import { parseRuntimeData, unknownSettings } from "./runtime-data.ts"
import type { RuntimeKey } from "./runtime-data.ts"
import { parseTdReport } from "./td-report.ts"

export type AzureHardware =
  | { readonly type: "snp"; readonly endorsements: SnpEndorsements }
  /** The quote that Azure's host made of the TD report. */
  | { readonly type: "tdx"; readonly quote: Uint8Array; readonly collateral: DcapCollateral }

export interface AzureEvidence {
  /** The paravisor's report, as read from NV index 0x01400001. */
  readonly hclReport: Uint8Array
  /** What stands behind the hardware's report. */
  readonly hardware: AzureHardware
  /** TPMS_ATTEST and TPMT_SIGNATURE (or a record of the bare value) of the virtual TPM's quote. */
  readonly quote: { readonly attest: Uint8Array; readonly signature: Uint8Array | TpmSignature }
  /** The attestation key in TPM form, whose attributes are then checked; `not-given` where only the paravisor's word is at hand. */
  readonly akPublic: PublicArea | "not-given"
}

export interface AzureExpectation {
  /** Nonce, selection and register values of the quote. `as-signed` takes whatever nonce it carries; the claims then say so, and no policy takes them. */
  readonly quote: Omit<QuoteExpectation, "extraData"> & { readonly extraData: Uint8Array | "as-signed" }
  readonly snpRoots: readonly SnpRoot[]
  readonly dcapRoots: readonly DcapRoot[]
  /** Milliseconds since 1970. */
  readonly time: number
  readonly readings?: DcapReadings
}

/**
 * Verifies the chain of a confidential VM of Azure: the hardware's report covers the paravisor's runtime data, these name the virtual TPM's attestation key, and that key
 * signed the quote.
 * @throws {MalformedError} form
 * @throws {EvidenceError} as verifySnpReport, verifyTdxQuote and verifyQuote; `wrong-binding` where the links do not fit, or the guest and not the paravisor asked for the report
 */
export function verifyAzureVtpm(evidence: AzureEvidence, expectation: AzureExpectation): Genuine<AzureClaims> {
  const report = parseHclReport(evidence.hclReport)
  const hardware = verifyHardware(report, evidence, expectation)
  const runtime = parseRuntimeData(report.runtimeData)
  const key = quoteKey(runtime.attestationKey, evidence.akPublic)
  const { extraData } = expectation.quote
  const isNonceChecked = extraData !== "as-signed"
  const nonce = isNonceChecked ? extraData : parseAttest(evidence.quote.attest).extraData
  const quote = verifyQuote({ ...evidence.quote, key }, { ...expectation.quote, extraData: nonce })
  return Genuine.afterVerification({
    kind: "azure-vtpm",
    hardware,
    debug: hardware.kind === "snp" ? hardware.policy.debug : hardware.debug,
    quote: quote.claims,
    isNonceChecked,
    attestationKey: endorsementKeyDigest(publicKey(runtime.attestationKey)),
    endorsementKey: runtime.endorsementKey === undefined ? undefined : endorsementKeyDigest(publicKey(runtime.endorsementKey)),
    vmConfiguration: runtime.vmConfiguration,
    unknownSettings: unknownSettings(runtime.vmConfiguration),
    userData: runtime.userData === undefined ? undefined : encodeHex(runtime.userData),
    hclVersion: report.version,
    quirks: runtime.attestationKey.keyOps === "sign" ? [] : ["ak-for-encryption"],
  })
}

/** The hardware's report is genuine, was asked for by the paravisor, and covers the runtime data. */
function verifyHardware(report: HclReport, { hardware }: AzureEvidence, expectation: AzureExpectation): AzureClaims["hardware"] {
  if (report.hardware.type !== hardware.type) {
    throw new EvidenceError("wrong-binding", `a ${report.hardware.type} report with endorsements for ${hardware.type}`, {
      path: "HCL_REPORT.reportType",
    })
  }
  switch (hardware.type) {
    case "snp":
      return verifySnp(report, hardware.endorsements, expectation)
    case "tdx":
      return verifyTdx(report, hardware.quote, hardware.collateral, expectation)
  }
}

function verifySnp(report: HclReport, endorsements: SnpEndorsements, { snpRoots, time }: AzureExpectation): SnpClaims {
  const reportData = reportDataFor(report)
  checkBinding(parseSnpReport(report.hardware.report).reportData, reportData)
  const { claims } = verifySnpReport({ report: report.hardware.report, endorsements }, { reportData, roots: snpRoots, time })
  // The guest's own reports are of lower levels: there it can put the hash of runtime data that it wrote itself.
  if (claims.vmpl !== 0)
    throw new EvidenceError("wrong-binding", `asked for at privilege level ${claims.vmpl}, not by the paravisor`, { path: "ATTESTATION_REPORT.VMPL" })
  return claims
}

/** What the TD report says too must be what the quote says; its MAC is for its own machine, so only the quote counts. */
function verifyTdx(report: HclReport, quote: Uint8Array, collateral: DcapCollateral, { dcapRoots, time, readings }: AzureExpectation): TdxClaims {
  const reportData = reportDataFor(report)
  const local = parseTdReport(report.hardware.report)
  checkBinding(parseHex(local.reportData), reportData)
  const { report: quoted } = parseTdxQuote(quote)
  for (const field of Object.keys(local) as (keyof typeof local)[]) {
    if (String(local[field]) !== String(quoted[field]))
      throw new EvidenceError("wrong-binding", `${String(quoted[field])} in the quote, ${String(local[field])} in the TD report`, {
        path: `quote.${field}`,
      })
  }
  return verifyTdxQuote({ quote, collateral }, { reportData, roots: dcapRoots, time, ...(readings === undefined ? {} : { readings }) }).claims
}

/** SHA-256 of the runtime data, and 32 zero bytes. */
function reportDataFor({ runtimeData }: HclReport): Uint8Array {
  return concatBytes(sha256(runtimeData), new Uint8Array(32))
}

function checkBinding(found: Uint8Array, expected: Uint8Array): void {
  if (!bytesEqual(found, expected)) {
    throw new EvidenceError("wrong-binding", `report data ${encodeHex(found)}, the runtime data give ${encodeHex(expected)}`, {
      path: "HCL_REPORT.variableData",
    })
  }
}

function quoteKey(key: RuntimeKey, area: PublicArea | "not-given"): QuoteKey {
  if (area === "not-given") return { kind: "bare-key", key: publicKey(key) }
  if (area.type !== "rsa" || !bytesEqual(area.unique, key.modulus))
    throw new EvidenceError("wrong-binding", "the public area is of another key than the paravisor names", { path: "TPMT_PUBLIC" })
  return { kind: "attestation-key", area }
}

function publicKey({ modulus }: RuntimeKey): ReturnType<typeof rsaPublicKey> {
  return asEvidence("runtimeData.keys", () => rsaPublicKey(modulus, Uint8Array.of(1, 0, 1)))
}
