import { bytesEqual } from "../bytes/compare.ts"
import type { Digest } from "../bytes/digest.ts"
import { UnavailableError } from "../bytes/error.ts"
import { encodeHex } from "../bytes/text.ts"
import {
  basicConstraints,
  certificateFingerprint,
  certificateKey,
  extendedKeyUsage,
  extensionIds,
  keyUsage,
  parseSignatureAlgorithm,
  subjectKeyIdentifier,
  type Certificate,
} from "./certificate.ts"
import { verifyChain } from "./chain.ts"
import { contextTag, derElement, readDer, tags, within, type DerReader } from "./der.ts"
import { PkiError, type PkiCode } from "./errors.ts"
import { hash, verifySignature, type HashName, type SignatureScheme } from "./signatures.ts"
import {
  parseTimestampResponse,
  readHashAlgorithm,
  timestampIds,
  type TimestampInfo,
  type TimestampRequest,
  type TimestampSigner,
  type TimestampToken,
} from "./timestamp-format.ts"

export interface TimestampExpectation {
  /** What was asked for. */
  readonly request: TimestampRequest
  /** The only roots that authorities may chain to. */
  readonly roots: readonly Certificate[]
  /** Policies of the authority under which it may have stamped, as object identifiers. */
  readonly policies: "any" | readonly string[]
  /** An authority that is less sure of its time says nothing of use. */
  readonly maxAccuracyMilliseconds: number
}

/** What an authority proved: that what was asked existed, and so that it answered, at its time. */
export interface VerifiedTimestamp {
  /** Milliseconds since 1970, by the authority's clock. */
  readonly genTime: number
  /** Deviation that the authority admits; undefined where it states none. */
  readonly accuracyMilliseconds: number | undefined
  readonly policy: string
  readonly serial: string
  /** Fingerprint of the root that it chains to. */
  readonly root: Digest
  readonly signer: Digest
}

/**
 * Verifies the answer of a time-stamping authority (RFC 3161, RFC 5816) to a request of ours. Narrower than the RFC: status granted only, the nonce must be there, exactly one
 * signer, the certificate that signs must be bound by ESSCertIDv2 and be for time-stamping alone. The chain is judged at genTime; revocation lists are not asked for.
 * @throws {MalformedError} form; {UnavailableError} `unavailable` the authority did not grant it
 * @throws {PkiError} `wrong-stamp` (another imprint, nonce, policy or type, or too vague), `wrong-signature`, `wrong-certificate`, `wrong-chain`, `expired`, `wrong-key`, `weak-algorithm`,
 * `unsupported`
 */
export function verifyTimestamp(response: Uint8Array, expectation: TimestampExpectation): VerifiedTimestamp {
  const { status, statusText, token } = parseTimestampResponse(response)
  if (status !== granted || token === undefined)
    throw new UnavailableError(
      "unavailable",
      `the time-stamping authority refused: status ${status}${statusText === "" ? "" : ` ${JSON.stringify(statusText)}`}`,
    )
  checkInfo(token, expectation)
  const [signer, ...more] = token.signers
  if (signer === undefined || more.length > 0)
    throw refuse("wrong-signature", `${token.signers.length} signers, exactly one is expected`, "signerInfos")
  const certificate = signerCertificate(token, signer)
  const digest = hashName(signer.digestAlgorithm, "signerInfo.digestAlgorithm")
  checkAttributes(token, signer, digest, certificate)
  verifySignature(schemeOf(signer, digest), certificateKey(certificate), signer.signedAttributes, signer.signature)
  checkRole(certificate)
  const { genTime, accuracyMilliseconds, policy, serial } = token.info
  checkName(token.info, certificate)
  const chain = verifyChain({
    leaf: certificate,
    intermediates: token.certificates.filter((other) => other !== certificate),
    roots: expectation.roots,
    time: genTime,
    extendedKeyUsage: timestampIds.timeStamping,
  })
  const root = chain.at(-1) ?? certificate
  return { genTime, accuracyMilliseconds, policy, serial, root: certificateFingerprint(root), signer: certificateFingerprint(certificate) }
}

/** PKIStatus granted. */
const granted = 0

function checkInfo({ contentType, info }: TimestampToken, { request, policies, maxAccuracyMilliseconds }: TimestampExpectation): void {
  if (contentType !== timestampIds.tstInfo) throw refuse("wrong-stamp", `signed content of type ${contentType}`, "eContentType")
  if (info.hashAlgorithm !== timestampIds.sha256 || !bytesEqual(info.imprint, request.imprint))
    throw refuse("wrong-stamp", "the stamp is over another digest than was asked for", "TSTInfo.messageImprint")
  if (info.nonce === undefined || !bytesEqual(info.nonce, request.nonce))
    throw refuse("wrong-stamp", "the nonce is not the one that was asked with: it may be an old answer", "TSTInfo.nonce")
  if (policies !== "any" && !policies.includes(info.policy))
    throw refuse("wrong-stamp", `found ${info.policy}, expected ${policies.join(" or ")}`, "TSTInfo.policy")
  if ((info.accuracyMilliseconds ?? 0) > maxAccuracyMilliseconds)
    throw refuse("wrong-stamp", `found ${info.accuracyMilliseconds} ms, expected at most ${maxAccuracyMilliseconds} ms`, "TSTInfo.accuracy")
  const [unknown] = info.criticalExtensions
  if (unknown !== undefined) throw refuse("unsupported", `critical extension ${unknown}`, "TSTInfo.extensions")
}

function signerCertificate({ certificates }: TimestampToken, { id }: TimestampSigner): Certificate {
  const found = certificates.find((certificate) =>
    "issuer" in id
      ? bytesEqual(certificate.issuer, id.issuer) && certificate.serial === id.serial
      : subjectKeyIdentifier(certificate) === id.subjectKeyId,
  )
  if (found === undefined) throw refuse("wrong-certificate", "the signer's certificate did not come along", "signerInfo.sid")
  return found
}

/** The signature is over the attributes: they must name content type, content and the very certificate that signs. RFC 5652, 11; RFC 5816. */
function checkAttributes(
  { content, contentType }: TimestampToken,
  { attributes }: TimestampSigner,
  digest: HashName,
  certificate: Certificate,
): void {
  const value = (name: "contentType" | "messageDigest" | "signingCertificateV2"): Uint8Array => {
    const found = attributes.get(timestampIds[name])
    if (found === undefined) throw refuse("wrong-signature", "is not among the signed attributes", `signedAttrs.${name}`)
    return found
  }
  if (readDer("signedAttrs", value("contentType"), (reader) => reader.oid("contentType")) !== contentType)
    throw refuse("wrong-signature", "is not that of the content", "signedAttrs.contentType")
  const signed = readDer("signedAttrs", value("messageDigest"), (reader) => reader.element(tags.octetString, "messageDigest").body)
  if (!bytesEqual(signed, hash(digest, content))) throw refuse("wrong-signature", "is not that of the content", "signedAttrs.messageDigest")
  readDer("signingCertificateV2", value("signingCertificateV2"), (outer) =>
    within(outer, tags.sequence, "value", (reader) => {
      within(reader, tags.sequence, "certs", (certs) => {
        // The first is that of the signer (RFC 5035, 4); others are of its issuers.
        within(certs, tags.sequence, "certId", (id) => checkCertId(id, certificate))
        while (!certs.done) certs.element(tags.sequence, "certId")
      })
      reader.optional(tags.sequence, "policies")
    }),
  )
}

/** ESSCertIDv2: hashAlgorithm (SHA-256 where it is left out), certHash, issuerSerial. */
function checkCertId(reader: DerReader, certificate: Certificate): void {
  const path = "signedAttrs.signingCertificateV2"
  const oid = reader.nextTag() === tags.sequence ? readHashAlgorithm(reader, "hashAlgorithm") : timestampIds.sha256
  const certHash = reader.element(tags.octetString, "certHash").body
  if (!bytesEqual(certHash, hash(hashName(oid, path), certificate.der)))
    throw refuse("wrong-certificate", "the signature is bound to another certificate", path)
  if (reader.done) return
  const names = derElement(tags.sequence, derElement(contextTag(4, "constructed"), certificate.issuer))
  within(reader, tags.sequence, "issuerSerial", (inner) => {
    const isSame = bytesEqual(inner.element(tags.sequence, "issuer").bytes, names)
    if (encodeHex(inner.element(tags.integer, "serialNumber").body) !== certificate.serial || !isSame)
      throw refuse("wrong-certificate", "the signature is bound to a certificate of another issuer or number", path)
  })
}

/** The key is for time stamps and nothing else: extended key usage critical, with the one purpose. RFC 3161, 2.3. */
function checkRole(certificate: Certificate): void {
  const path = "signer"
  const purposes = extendedKeyUsage(certificate) ?? []
  const isCritical = certificate.extensions.get(extensionIds.extendedKeyUsage)?.critical === true
  if (!isCritical || purposes.length !== 1 || purposes[0] !== timestampIds.timeStamping)
    throw refuse("wrong-certificate", "the certificate is not, critically, for time-stamping alone", path)
  if (basicConstraints(certificate)?.isCa === true) throw refuse("wrong-certificate", "the certificate is that of an authority over others", path)
  const usage = keyUsage(certificate)
  if (usage !== undefined && !usage.has("digitalSignature") && !usage.has("contentCommitment"))
    throw refuse("wrong-certificate", "the key may not sign", path)
}

/** Where the stamp names its authority, it is the certificate's. */
function checkName({ tsa }: TimestampInfo, certificate: Certificate): void {
  if (tsa !== undefined && !bytesEqual(tsa, derElement(contextTag(4, "constructed"), certificate.subject)))
    throw refuse("wrong-certificate", "is not the name of the certificate that signed", "TSTInfo.tsa")
}

const hashes: ReadonlyMap<string, HashName> = new Map([
  ["2.16.840.1.101.3.4.2.1", "sha256"],
  ["2.16.840.1.101.3.4.2.2", "sha384"],
  ["2.16.840.1.101.3.4.2.3", "sha512"],
])

function hashName(oid: string, path: string): HashName {
  const name = hashes.get(oid)
  if (name === undefined) throw refuse("weak-algorithm", `hash ${oid} is not on the allow list`, path)
  return name
}

/** rsaEncryption names no hash: that of the digest counts. RFC 3370, 3.2. Every other names its own, which must be the same. */
function schemeOf({ signatureAlgorithm }: TimestampSigner, digest: HashName): SignatureScheme {
  const { oid, scheme } = parseSignatureAlgorithm(signatureAlgorithm)
  const path = "signerInfo.signatureAlgorithm"
  if (oid === rsaEncryption && digest !== "sha1") return `rsassa-${digest}`
  if (scheme === undefined) throw refuse("weak-algorithm", `${oid} is not on the allow list`, path)
  if (!scheme.endsWith(`-${digest}`)) throw refuse("wrong-signature", `${scheme} does not fit a digest by ${digest}`, path)
  return scheme
}

const rsaEncryption = "1.2.840.113549.1.1.1"

function refuse(code: PkiCode, message: string, path: string): PkiError {
  return new PkiError(code, message, { path })
}
