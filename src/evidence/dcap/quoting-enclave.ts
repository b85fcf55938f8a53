import { bytesEqual, concatBytes } from "../../bytes/compare.ts"
import { readAll } from "../../bytes/reader.ts"
import { certificateKey } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { ecPublicKey, hash, verifySignature } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { asEvidence } from "../tpm/pki-errors.ts"
import { bytesOf, readEnclaveReport } from "./format.ts"
import type { EnclaveReport, QuoteSignature } from "./format.ts"
import { maskedEquals } from "./masked.ts"
import type { QeIdentity } from "./qe-identity.ts"
import type { LevelStatus } from "./tcb-info.ts"
import { findSvnLevel } from "./tcb-level.ts"

/** The checks between PCK certificate, quoting enclave and quote. */

/** Attribute DEBUG: everybody can read and change such an enclave. First byte of the flags. */
const debugBit = 0x02

/** @throws {MalformedError} form */
export function parseQeReport(signature: Pick<QuoteSignature, "qeReport">): EnclaveReport {
  return readAll("QE report", signature.qeReport, readEnclaveReport)
}

/** The platform signed the QE report with its PCK. @throws {EvidenceError} `wrong-signature`, `wrong-key` */
export function checkQeReportSignature(signature: Pick<QuoteSignature, "qeReport" | "qeReportSignature">, pck: Certificate): void {
  asEvidence("QE report", () =>
    verifySignature("ecdsa-sha256", certificateKey(pck), signature.qeReport, signature.qeReportSignature, { ecdsa: "raw" }),
  )
}

/**
 * The QE report names the attestation key: REPORT_DATA is SHA-256(attestation key ‖ authentication data) and 32 zero bytes.
 * @throws {EvidenceError} `wrong-binding`
 */
export function checkAttestationKeyBinding(
  signature: Pick<QuoteSignature, "attestationKey" | "qeAuthenticationData">,
  report: Pick<EnclaveReport, "reportData">,
): void {
  const digest = hash("sha256", signature.attestationKey, signature.qeAuthenticationData)
  if (!bytesEqual(bytesOf(report.reportData), concatBytes(digest, new Uint8Array(32))))
    throw new EvidenceError("wrong-binding", "the QE report does not name the attestation key", { path: "QE report.reportData" })
}

/** The attestation key signed header and body. @throws {EvidenceError} `wrong-signature`, `wrong-key` */
export function checkQuoteSignature(signed: Uint8Array, signature: Pick<QuoteSignature, "signature" | "attestationKey">): void {
  const [x, y] = readAll("attestation key", signature.attestationKey, (reader) => [reader.bytes(32, "x"), reader.bytes(32, "y")] as const)
  asEvidence("quote", () => verifySignature("ecdsa-sha256", ecPublicKey("P-256", x, y), signed, signature.signature, { ecdsa: "raw" }))
}

/** A quoting enclave in debug mode vouches for nothing, whatever else is known. @throws {EvidenceError} `wrong-identity` */
export function checkQeNotDebug(report: EnclaveReport): void {
  if (((bytesOf(report.attributes)[0] ?? debugBit) & debugBit) !== 0)
    throw new EvidenceError("wrong-identity", "the quoting enclave is in debug mode", { path: "QE report.attributes" })
}

/**
 * The quoting enclave is the one that Intel names; gives its level.
 * @throws {EvidenceError} `wrong-identity`, `no-tcb-level`, `revoked`
 */
export function checkQeIdentity(report: EnclaveReport, identity: QeIdentity): LevelStatus {
  const rows: readonly (readonly [name: string, isRight: boolean])[] = [
    ["MRSIGNER", report.mrSigner === identity.mrSigner],
    ["ISVPRODID", report.isvProdId === identity.isvProdId],
    ["MISCSELECT", maskedEquals(report.miscSelect, identity.miscSelectMask, identity.miscSelect)],
    ["ATTRIBUTES", maskedEquals(report.attributes, identity.attributesMask, identity.attributes)],
  ]
  for (const [name, isRight] of rows)
    if (!isRight) throw new EvidenceError("wrong-identity", `${name} is not that of the identity ${identity.id}`, { path: "QE report" })
  return findSvnLevel(identity.levels, report.isvSvn, "QE identity")
}
