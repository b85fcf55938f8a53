import { sha256 } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { encodeHex, encodeUtf8, parseUtf8, truncateText } from "../bytes/text.ts"
import { parseCertificate, readTime, type Certificate } from "./certificate.ts"
import { contextTag, derElement, DerReader, derOid, readDer, tags, within } from "./der.ts"

/**
 * Time-Stamp Protocol messages (RFC 3161, RFC 5816) and as much of Cryptographic Message Syntax (RFC 5652) as a time stamp token has: bytes ⇄ record, nothing is verified.
 */

export const timestampIds = {
  signedData: "1.2.840.113549.1.7.2",
  /** id-ct-TSTInfo */
  tstInfo: "1.2.840.113549.1.9.16.1.4",
  contentType: "1.2.840.113549.1.9.3",
  messageDigest: "1.2.840.113549.1.9.4",
  /** id-aa-signingCertificateV2 */
  signingCertificateV2: "1.2.840.113549.1.9.16.2.47",
  /** id-kp-timeStamping */
  timeStamping: "1.3.6.1.5.5.7.3.8",
  sha256: "2.16.840.1.101.3.4.2.1",
} as const

/** Tokens with their chains have some 5 KiB. */
export const maxTimestampBytes = 65_536
const maxCertificates = 16
const maxAttributes = 32
/** Characters of what the authority says that a message repeats. */
const maxStatusText = 200

/** Contents of a TimeStampReq. */
export interface TimestampRequest {
  /** SHA-256 that is stamped. */
  readonly imprint: Uint8Array
  /** Contents octets of the nonce's INTEGER: positive, in shortest form. */
  readonly nonce: Uint8Array
}

/** Bytes of a nonce. */
const nonceBytes = 16

/** A request over `content`, which never leaves, with a nonce of its own. `randomBytes` must be those of a cryptographic source. */
export function makeTimestampRequest(content: Uint8Array, randomBytes: (length: number) => Uint8Array): TimestampRequest {
  const nonce = Uint8Array.from(randomBytes(nonceBytes))
  // A first octet from 0x40 to 0x7f: a positive INTEGER in shortest form.
  nonce[0] = ((nonce[0] ?? 0) & 0x3f) | 0x40
  return { imprint: sha256(content), nonce }
}

/** TimeStampReq, version 1, with certReq: the token brings its certificates. RFC 3161, 2.4.1. */
export function encodeTimestampRequest({ imprint, nonce }: TimestampRequest): Uint8Array {
  const algorithm = derElement(tags.sequence, derOid(timestampIds.sha256), derElement(tags.null))
  return derElement(
    tags.sequence,
    derElement(tags.integer, Uint8Array.of(1)),
    derElement(tags.sequence, algorithm, derElement(tags.octetString, imprint)),
    derElement(tags.integer, nonce),
    derElement(tags.boolean, Uint8Array.of(0xff)),
  )
}

/** A TimeStampResp. RFC 3161, 2.4.2. */
export interface TimestampResponse {
  /** PKIStatus: 0 is granted. */
  readonly status: number
  /** What the authority says to people; not to be believed. */
  readonly statusText: string
  /** TimeStampToken; undefined where nothing was stamped. */
  readonly token: TimestampToken | undefined
}

export interface TimestampToken {
  /** TSTInfo, exactly as it stands in the OCTET STRING. */
  readonly content: Uint8Array
  readonly contentType: string
  readonly info: TimestampInfo
  readonly certificates: readonly Certificate[]
  readonly signers: readonly TimestampSigner[]
}

/** TSTInfo. */
export interface TimestampInfo {
  readonly policy: string
  /** Object identifier of the imprint's hash. */
  readonly hashAlgorithm: string
  readonly imprint: Uint8Array
  /** Contents of serialNumber; lower-case hexadecimal. */
  readonly serial: string
  /** Milliseconds since 1970. */
  readonly genTime: number
  /** Undefined where the authority states none. */
  readonly accuracyMilliseconds: number | undefined
  /** Contents octets of the INTEGER. */
  readonly nonce: Uint8Array | undefined
  /** GeneralName, whole element. */
  readonly tsa: Uint8Array | undefined
  /** Object identifiers of critical extensions. */
  readonly criticalExtensions: readonly string[]
}

/** SignerInfo. */
export interface TimestampSigner {
  readonly id: { readonly issuer: Uint8Array; readonly serial: string } | { readonly subjectKeyId: string }
  /** Object identifier. */
  readonly digestAlgorithm: string
  /** Signed attributes as the signature covers them, with the tag of SET OF. */
  readonly signedAttributes: Uint8Array
  /** Contents of each attribute's one value, whole element, by object identifier. */
  readonly attributes: ReadonlyMap<string, Uint8Array>
  /** AlgorithmIdentifier, whole element. */
  readonly signatureAlgorithm: Uint8Array
  readonly signature: Uint8Array
}

/** @throws {MalformedError} `malformed`, `truncated`, `trailing-bytes`, `too-large`, `duplicate` */
export function parseTimestampResponse(bytes: Uint8Array): TimestampResponse {
  if (bytes.length > maxTimestampBytes) throw new MalformedError("too-large", `${bytes.length} bytes`, { path: "TimeStampResp" })
  return readDer("TimeStampResp", Uint8Array.from(bytes), (outer) =>
    within(outer, tags.sequence, "response", (reader) => ({
      ...within(reader, tags.sequence, "status", readStatus),
      token: reader.done ? undefined : within(reader, tags.sequence, "timeStampToken", readToken),
    })),
  )
}

/** PKIStatusInfo. */
function readStatus(reader: DerReader): Pick<TimestampResponse, "status" | "statusText"> {
  const status = reader.smallInteger("status")
  const texts: string[] = []
  if (reader.nextTag() === tags.sequence)
    within(reader, tags.sequence, "statusString", (inner) => {
      while (!inner.done) texts.push(parseUtf8(inner.element(tags.utf8String, "text").body, "statusString"))
    })
  const failure = reader.optional(tags.bitString, "failInfo")
  if (status === 0 && failure !== undefined) throw malformed("status.failInfo", "stands beside a status of success")
  return { status, statusText: truncateText(texts.join("; "), maxStatusText) }
}

/** ContentInfo with SignedData. RFC 5652, 3 and 5.1. */
function readToken(reader: DerReader): TimestampToken {
  if (reader.oid("contentType") !== timestampIds.signedData) throw malformed("timeStampToken.contentType", "not signedData")
  return within(reader, contextTag(0, "constructed"), "content", (content) => within(content, tags.sequence, "signedData", readSignedData))
}

function readSignedData(reader: DerReader): TimestampToken {
  // Content of another type than id-data makes it version 3.
  if (reader.smallInteger("version") !== 3) throw malformed("signedData.version", "not 3")
  const digestAlgorithms = readDigestAlgorithms(reader)
  const { contentType, content } = within(reader, tags.sequence, "encapContentInfo", (inner) => ({
    contentType: inner.oid("eContentType"),
    content: within(inner, contextTag(0, "constructed"), "eContent", (explicit) => explicit.element(tags.octetString, "value").body),
  }))
  const certificates = readCertificates(reader.optional(contextTag(0, "constructed"), "certificates")?.body)
  // Lists that the authority sends along say what it wants said of itself; nobody here looks at them.
  reader.optional(contextTag(1, "constructed"), "crls")
  const signers: TimestampSigner[] = []
  within(reader, tags.set, "signerInfos", (set) => {
    while (!set.done) {
      if (signers.length >= maxCertificates) throw malformed("signerInfos", "too many")
      const signer = within(set, tags.sequence, "signerInfo", readSigner)
      // RFC 5652 5.1 lets a verifier refuse a digest that was not announced.
      if (!digestAlgorithms.has(signer.digestAlgorithm)) throw malformed("signedData.digestAlgorithms", "lack that of the signer")
      signers.push(signer)
    }
  })
  const info = readDer("TSTInfo", content, (outer) => within(outer, tags.sequence, "info", readInfo))
  return { contentType, content, info, certificates, signers }
}

function readDigestAlgorithms(reader: DerReader): ReadonlySet<string> {
  return within(reader, tags.set, "digestAlgorithms", (set) => {
    const algorithms = new Set<string>()
    while (!set.done) {
      if (algorithms.size >= maxAttributes) throw malformed("digestAlgorithms", "too many")
      algorithms.add(readHashAlgorithm(set, "digestAlgorithm"))
    }
    return algorithms
  })
}

function readCertificates(body: Uint8Array | undefined): readonly Certificate[] {
  const certificates: Certificate[] = []
  if (body === undefined) return certificates
  const reader = new DerReader("certificates", body)
  while (!reader.done) {
    if (certificates.length >= maxCertificates) throw malformed("certificates", "too many")
    certificates.push(parseCertificate(reader.element(tags.sequence, "certificate").bytes))
  }
  return certificates
}

/** SignerInfo. RFC 5652, 5.3. */
function readSigner(reader: DerReader): TimestampSigner {
  const version = reader.smallInteger("version")
  const id = readSignerId(reader)
  if (version !== ("issuer" in id ? 1 : 3)) throw malformed("signerInfo.version", "does not fit the signer's identifier")
  const digestAlgorithm = readHashAlgorithm(reader, "digestAlgorithm")
  const attributes = reader.element(contextTag(0, "constructed"), "signedAttrs")
  const signatureAlgorithm = reader.element(tags.sequence, "signatureAlgorithm").bytes
  const signature = reader.element(tags.octetString, "signature").body
  reader.optional(contextTag(1, "constructed"), "unsignedAttrs")
  return {
    id,
    digestAlgorithm,
    // RFC 5652 5.4: the IMPLICIT [0] tag is not what is signed.
    signedAttributes: derElement(tags.set, attributes.body),
    attributes: readAttributes(attributes.body),
    signatureAlgorithm,
    signature,
  }
}

function readSignerId(reader: DerReader): TimestampSigner["id"] {
  const keyId = reader.optional(contextTag(0, "primitive"), "subjectKeyIdentifier")
  if (keyId !== undefined) return { subjectKeyId: encodeHex(keyId.body) }
  return within(reader, tags.sequence, "issuerAndSerialNumber", (inner) => ({
    issuer: inner.element(tags.sequence, "issuer").bytes,
    serial: encodeHex(inner.element(tags.integer, "serialNumber").body),
  }))
}

function readAttributes(body: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const attributes = new Map<string, Uint8Array>()
  const reader = new DerReader("signedAttrs", body)
  while (!reader.done) {
    if (attributes.size >= maxAttributes) throw malformed("signedAttrs", "too many")
    within(reader, tags.sequence, "attribute", (attribute) => {
      const oid = attribute.oid("type")
      if (attributes.has(oid)) throw new MalformedError("duplicate", `attribute ${oid} stands twice`, { path: "signedAttrs" })
      // Narrower than RFC 5652: exactly one value; those that count here have no more.
      attributes.set(
        oid,
        within(attribute, tags.set, "values", (values) => values.any("value").bytes),
      )
    })
  }
  return attributes
}

function readInfo(reader: DerReader): TimestampInfo {
  if (reader.smallInteger("version") !== 1) throw malformed("TSTInfo.version", "not 1")
  const policy = reader.oid("policy")
  const { hashAlgorithm, imprint } = within(reader, tags.sequence, "messageImprint", (inner) => ({
    hashAlgorithm: readHashAlgorithm(inner, "hashAlgorithm"),
    imprint: inner.element(tags.octetString, "hashedMessage").body,
  }))
  const serial = encodeHex(reader.element(tags.integer, "serialNumber").body)
  const genTime = readGenTime(reader.element(tags.generalizedTime, "genTime").body)
  const accuracyMilliseconds = reader.nextTag() === tags.sequence ? within(reader, tags.sequence, "accuracy", readAccuracy) : undefined
  if (reader.nextTag() === tags.boolean) reader.boolean("ordering")
  const nonce = reader.optional(tags.integer, "nonce")?.body
  const tsa =
    reader.nextTag() === contextTag(0, "constructed")
      ? within(reader, contextTag(0, "constructed"), "tsa", (inner) => inner.any("name").bytes)
      : undefined
  const extensions = reader.optional(contextTag(1, "constructed"), "extensions")
  const criticalExtensions = extensions === undefined ? [] : readCritical(extensions.body)
  return { policy, hashAlgorithm, imprint, serial, genTime, accuracyMilliseconds, nonce, tsa, criticalExtensions }
}

/** GeneralizedTime with or without a fraction that does not end in zeros. RFC 3161, 2.4.2. */
function readGenTime(body: Uint8Array): number {
  const [, seconds = "", fraction = "0"] = /^(\d{14})(?:\.(\d{0,8}[1-9]))?Z$/.exec(parseUtf8(body, "TSTInfo.genTime")) ?? []
  const whole = readDer("TSTInfo", derElement(tags.generalizedTime, encodeUtf8(`${seconds}Z`)), (reader) => readTime(reader, "genTime"))
  return whole + Number(fraction.padEnd(3, "0").substring(0, 3))
}

/** Accuracy: seconds, [0] milliseconds, [1] microseconds; rounded up. */
function readAccuracy(reader: DerReader): number {
  const seconds = reader.nextTag() === tags.integer ? reader.smallInteger("seconds") : 0
  const millis = readThousandth(reader, 0, "millis")
  return seconds * 1000 + millis + Math.ceil(readThousandth(reader, 1, "micros") / 1000)
}

/** An IMPLICIT INTEGER from 1 to 999; 0 where it is not there. */
function readThousandth(reader: DerReader, number: number, field: string): number {
  const element = reader.optional(contextTag(number, "primitive"), field)
  if (element === undefined) return 0
  const value = readDer("accuracy", derElement(tags.integer, element.body), (inner) => inner.smallInteger(field))
  if (value < 1 || value > 999) throw malformed(`accuracy.${field}`, "not from 1 to 999")
  return value
}

function readCritical(body: Uint8Array): readonly string[] {
  const reader = new DerReader("extensions", body)
  const critical: string[] = []
  while (!reader.done)
    within(reader, tags.sequence, "extension", (extension) => {
      const oid = extension.oid("extnID")
      if (extension.nextTag() === tags.boolean && extension.boolean("critical")) critical.push(oid)
      extension.element(tags.octetString, "extnValue")
    })
  return critical
}

/** Object identifier of an AlgorithmIdentifier whose parameters are absent or NULL. */
export function readHashAlgorithm(reader: DerReader, field: string): string {
  return within(reader, tags.sequence, field, (inner) => {
    const oid = inner.oid("algorithm")
    if (!inner.done && inner.element(tags.null, "parameters").body.length > 0) throw malformed(`${field}.parameters`, "not NULL")
    return oid
  })
}

function malformed(path: string, message: string): MalformedError {
  return new MalformedError("malformed", message, { path })
}
