import type { KeyObject } from "node:crypto"
import { sha256 } from "../bytes/digest.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { parseAzureVmEvidence, type AzureVmEvidence } from "../evidence/azure/document.ts"
import { cmwIndicators, encodeCmwExtension, idPeCmw, parseCmwExtension, type CmwRecord } from "../evidence/cmw.ts"
import { EvidenceError } from "../evidence/errors.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { encodeTeeEvidence, type TeeEvidence, type TeeKind } from "../evidence/tee/format.ts"
import { withoutVouchers } from "../evidence/tee/vouchers.ts"
import { certificateKey, parseCertificateUpTo, spkiDigest, type Certificate } from "../pki/certificate.ts"
import { verifySignature } from "../pki/signatures.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { demandAccepted, verifyOwnTee, type AttestedDescription } from "./manager-attestation.ts"
import { verifyManagerDescription } from "./manager-description.ts"
import { signedManagerDescriptionSchema, type ManagerDescription, type SignedManagerDescription } from "./messages.ts"
import { selfSignedCertificate } from "./tls.ts"
import { parseMessage } from "./wire.ts"

/**
 * A manager's proof as its TLS certificate (RA-TLS): self-signed over the TLS key, with evidence of the TEE and the manager's description in the extension CMW of RFC 9999. Whoever
 * sees the handshake can judge it before it sends a byte. It covers no nonce of the reader's: how fresh it is follows from its dates, which the evidence covers. A relay does not get
 * past it, for the evidence covers the TLS key and the handshake proves that the peer holds it. Clients of ours demand the proof over a nonce all the same.
 */

/** Evidence of a TEE without what vouches for it: collateral and event logs outgrow a handshake, and come from a file or from `GET /v1/attestation`. */
type CertifiedEvidence =
  Pick<TeeEvidence & { kind: "sgx" | "tdx" }, "kind" | "quote"> | Pick<TeeEvidence & { kind: "snp" }, "kind" | "report"> | AzureVmEvidence

export interface CertificateTimes {
  /** Milliseconds since 1970, whole seconds. */
  readonly notBefore: number
  readonly notAfter: number
}

/**
 * Report data of the evidence in a certificate: SHA-256 over the RFC 8785 form of purpose, the certificate's dates and the whole description (the TLS key in it is the
 * certificate's), and 32 zero bytes. The purpose keeps it apart from `managerReportData`: neither passes for the other.
 */
export function certificateReportData(description: ManagerDescription, { notBefore, notAfter }: CertificateTimes): Uint8Array {
  const dates = { notBefore: new Date(notBefore).toISOString(), notAfter: new Date(notAfter).toISOString() }
  return sessionReportData(sha256(canonicalJsonBytes({ purpose: "manager-certificate", version: 1, ...dates, description })))
}

/** What kind of collection ours is, `__cmwc_t`. */
const collectionType = "urn:uuid:4f1f08ea-82f2-4f5d-931c-03a9646ebe1f"
/** Nobody has registered media types for these; the tree `x.` of RFC 6838 section 3.4 is for such. */
const teeTypes = {
  sgx: "application/x.perun.sgx-quote",
  tdx: "application/x.perun.tdx-quote",
  snp: "application/x.perun.snp-report",
  // A report, a quote and register values in one: our JSON.
  "azure-vtpm": "application/x.perun.azure-vtpm+json",
} as const satisfies Record<TeeKind, string>
const descriptionType = "application/x.perun.manager-description+json"

/**
 * Largest certificate, in bytes. OpenSSL takes 100 KiB of certificates from a peer unless told otherwise; a quote with its PCK chain has some 5 KiB, a padded one 8.
 */
export const maxManagerCertificateBytes = 61_440
const maxDescriptionBytes = 16_384
/** Longest life that a reader takes, in milliseconds. A manager's lasts an hour. */
const maxLifeMilliseconds = 86_400_000

export interface CertificateParts extends CertificateTimes {
  readonly manager: SignedManagerDescription
  /** Over `certificateReportData`. */
  readonly evidence: TeeEvidence
}

/**
 * The certificate (DER) that offers a manager's proof; leaves out what vouches for the evidence.
 * @throws {EvidenceError} `unsupported` for evidence that no handshake takes
 */
export function encodeManagerCertificate(tlsPrivateKey: KeyObject, { manager, evidence, notBefore, notAfter }: CertificateParts): Uint8Array {
  const bytes = certifiedBytes(evidence)
  const record = (type: string, value: Uint8Array): CmwRecord => ({ type, value, indicator: cmwIndicators.evidence })
  const extension = encodeCmwExtension({
    type: collectionType,
    records: { tee: record(teeTypes[evidence.kind], bytes), manager: record(descriptionType, canonicalJsonBytes(manager)) },
  })
  const der = selfSignedCertificate(tlsPrivateKey, { commonName: "perun manager", notBefore, notAfter, extensions: { [idPeCmw]: extension } })
  if (der.length > maxManagerCertificateBytes)
    throw new EvidenceError("unsupported", `a certificate of ${der.length} bytes, at most ${maxManagerCertificateBytes} fit a handshake`)
  return der
}

function certifiedBytes(evidence: TeeEvidence): Uint8Array {
  if (evidence.kind === "azure-vtpm") return canonicalJsonBytes(encodeTeeEvidence(withoutVouchers(evidence)))
  return evidence.kind === "snp" ? evidence.report : evidence.quote
}

export interface CertificateExpectation {
  readonly accept: readonly TeeRequirement[]
  /** Milliseconds since 1970. */
  readonly time: number
  /** Puts to the evidence what vouches for it; where it comes from does not matter, for it is signed by the processor's maker. */
  readonly supplement: (evidence: TeeEvidence) => TeeEvidence
}

/** A manager that its certificate vouches for. */
export interface CertifiedDescription extends AttestedDescription, CertificateTimes {}

/**
 * Verifies the certificate that a TLS 1.3 handshake ended at: its evidence is genuine, covers this certificate's key and dates and everything that the manager says of
 * itself, and meets one of `accept`. The caller must have the certificate from the handshake itself, which proves that the peer holds its key.
 * @throws {MalformedError}, {PkiError} `wrong-signature`; {EvidenceError} `missing-piece`, `surplus-piece`, `unsupported`, `wrong-certificate`, `expired`, `wrong-nonce`, and as verifyTee
 * @throws {ProtocolError} `wrong-tls-key`; `wrong-manager` with what differs
 */
export function verifyManagerCertificate(der: Uint8Array, { accept, time, supplement }: CertificateExpectation): CertifiedDescription {
  const certificate = parseCertificateUpTo(maxManagerCertificateBytes, der)
  checkSelfSignature(certificate)
  const { notBefore, notAfter } = certificate
  checkTimes({ notBefore, notAfter }, time)
  const { manager, evidence } = readExtension(certificate)
  // The evidence covers the key, so the description vouches for itself here.
  const description = verifyManagerDescription(manager, { managerKey: manager.description.key, peerTlsKey: spkiDigest(certificate) })
  const tee = verifyOwnTee(supplement(evidence), accept, certificateReportData(description, { notBefore, notAfter }), time)
  return { description, tee, accepted: demandAccepted(tee, accept), notBefore, notAfter }
}

/** The key of the certificate signed it. What it says is covered by the evidence as well; a broken signature shows a certificate that somebody changed. */
function checkSelfSignature(certificate: Certificate): void {
  const { scheme, oid } = certificate.signatureAlgorithm
  if (scheme === undefined) throw new EvidenceError("unsupported", `signature algorithm ${oid}`, { path: "certificate" })
  verifySignature(scheme, certificateKey(certificate), certificate.tbs, certificate.signature)
}

function checkTimes({ notBefore, notAfter }: CertificateTimes, time: number): void {
  const path = "certificate.validity"
  const words = `from ${new Date(notBefore).toISOString()} to ${new Date(notAfter).toISOString()}`
  if (time < notBefore || time > notAfter) throw new EvidenceError("expired", `valid ${words}`, { path })
  if (notAfter - notBefore > maxLifeMilliseconds) throw new EvidenceError("wrong-certificate", `valid ${words}, longer than a day`, { path })
}

function readExtension({ extensions }: Certificate): { readonly manager: SignedManagerDescription; readonly evidence: CertifiedEvidence } {
  // RFC 5280 section 4.2: what is critical and not understood is refused.
  const foreign = [...extensions].find(([oid, { critical }]) => critical && oid !== idPeCmw)
  if (foreign !== undefined) throw new EvidenceError("wrong-certificate", `critical extension ${foreign[0]}`, { path: "certificate.extensions" })
  const extension = extensions.get(idPeCmw)
  if (extension === undefined)
    throw new EvidenceError("missing-piece", "the certificate carries no evidence of its manager", { path: "certificate.extensions" })
  const { type, records } = parseCmwExtension(extension.value)
  if (type !== collectionType) throw new EvidenceError("unsupported", `found ${type}, expected ${collectionType}`, { path: "CMW.__cmwc_t" })
  const { tee, manager, ...others } = records
  const [surplus] = Object.keys(others)
  if (surplus !== undefined) throw new EvidenceError("surplus-piece", "a record that nobody asked for", { path: `CMW.${surplus}` })
  if (tee === undefined || manager === undefined) throw new EvidenceError("missing-piece", "wants the records tee and manager", { path: "CMW" })
  demandType(manager, descriptionType, "CMW.manager")
  return { manager: parseMessage(signedManagerDescriptionSchema, manager.value, maxDescriptionBytes), evidence: evidenceOf(tee) }
}

function evidenceOf(record: CmwRecord): CertifiedEvidence {
  const kind = (Object.keys(teeTypes) as TeeKind[]).find((name) => teeTypes[name] === record.type)
  if (kind === undefined) throw new EvidenceError("unsupported", `evidence of type ${record.type}`, { path: "CMW.tee" })
  demandType(record, teeTypes[kind], "CMW.tee")
  if (kind === "azure-vtpm") return parseAzureVmEvidence(record.value)
  return kind === "snp" ? { kind, report: record.value } : { kind, quote: record.value }
}

function demandType({ type, indicator }: CmwRecord, expected: string, path: string): void {
  if (type !== expected) throw new EvidenceError("unsupported", `found ${type}, expected ${expected}`, { path })
  if (indicator !== cmwIndicators.evidence) throw new EvidenceError("unsupported", `indicator ${indicator} is not that of evidence`, { path })
}
