import type { KeyObject } from "node:crypto"
import { bytesEqual } from "../bytes/compare.ts"
import type { Digest } from "../bytes/digest.ts"
import { digestOf } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { ByteReader } from "../bytes/reader.ts"
import { encodeHex, parseUtf8 } from "../bytes/text.ts"
import type { DerElement, DerReader } from "./der.ts"
import { contextTag, parsePem, readDer, tags, within } from "./der.ts"
import { PkiError } from "./errors.ts"
import { spkiPublicKey } from "./signatures.ts"
import type { SignatureScheme } from "./signatures.ts"

/**
 * An X.509 certificate (RFC 5280), version 1 or 3, as read: what is signed is kept as the exact bytes, names are compared as bytes. Ours rather than a
 * library's, because the libraries at hand read BER loosely, hide the signed bytes, or cannot load the keys that TPM vendors certify.
 */
export interface Certificate {
  /** The whole certificate. */
  readonly der: Uint8Array
  /** TBSCertificate, exactly as signed. */
  readonly tbs: Uint8Array
  readonly version: 1 | 3
  /** Contents of the serial number, as written; lower-case hexadecimal. */
  readonly serial: string
  readonly signatureAlgorithm: SignatureAlgorithm
  readonly signature: Uint8Array
  /** Name, whole DER element. */
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  /** Milliseconds since 1970. */
  readonly notBefore: number
  readonly notAfter: number
  /** SubjectPublicKeyInfo, whole DER element. */
  readonly spki: Uint8Array
  readonly extensions: ReadonlyMap<string, CertificateExtension>
}

export interface CertificateExtension {
  readonly critical: boolean
  /** Contents of the OCTET STRING. */
  readonly value: Uint8Array
}

export interface SignatureAlgorithm {
  /** Undefined where the algorithm is not one of ours: such a signature never verifies, but the certificate can be read. */
  readonly scheme: SignatureScheme | undefined
  readonly oid: string
}

/** Object identifiers of the extensions that this program knows. RFC 5280 section 4.2.1. */
export const extensionIds = {
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAlternativeName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  certificatePolicies: "2.5.29.32",
  authorityKeyIdentifier: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
} as const

/** The largest certificates of vendors seen (with post-quantum keys left out) stay under 4 KiB. */
const maxCertificateBytes = 16_384
const maxExtensions = 64

/**
 * Reads one certificate in DER.
 * @throws {MalformedError} `malformed`, `truncated`, `trailing-bytes`, `too-large`, `duplicate` (extension)
 */
export function parseCertificate(der: Uint8Array): Certificate {
  return parseCertificateUpTo(maxCertificateBytes, der)
}

/** As parseCertificate, with a bound of the caller's: for certificates that carry more than a key. */
export function parseCertificateUpTo(maxBytes: number, der: Uint8Array): Certificate {
  if (der.length > maxBytes) throw new MalformedError("too-large", `${der.length} bytes`, { path: "Certificate" })
  // The fields are views of a copy that nobody else holds.
  const own = Uint8Array.from(der)
  return readDer("Certificate", own, (outer) => {
    const parts = within(outer, tags.sequence, "certificate", (reader) => ({
      tbs: reader.element(tags.sequence, "tbsCertificate").bytes,
      algorithm: reader.element(tags.sequence, "signatureAlgorithm").bytes,
      signature: reader.bitStringBytes("signatureValue"),
    }))
    const { algorithm, ...fields } = readTbs(parts.tbs)
    // RFC 5280 4.1.1.2: both must be the same, or the signed bytes would not cover the algorithm.
    if (!bytesEqual(algorithm, parts.algorithm))
      throw new MalformedError("malformed", "differs inside and outside", { path: "Certificate.signatureAlgorithm" })
    return {
      der: own,
      tbs: parts.tbs,
      signature: parts.signature,
      signatureAlgorithm: parseSignatureAlgorithm(algorithm),
      ...fields,
    }
  })
}

/** Every certificate of a PEM text, in order. @throws as parseCertificate */
export function parsePemCertificates(text: string): readonly Certificate[] {
  return parsePem(text, "CERTIFICATE").map(parseCertificate)
}

/** SHA-256 of the whole certificate: how roots are named. */
export function certificateFingerprint(certificate: Certificate): Digest {
  return digestOf(certificate.der)
}

/** SHA-256 of the SubjectPublicKeyInfo. */
export function spkiDigest(certificate: Certificate): Digest {
  return digestOf(certificate.spki)
}

/** Keys of certificates that are still held: loading one costs as much as a signature check. */
const loadedKeys = new WeakMap<Certificate, KeyObject>()

/** @throws {PkiError} `wrong-key` when the key cannot be loaded */
export function certificateKey(certificate: Certificate): KeyObject {
  const loaded = loadedKeys.get(certificate) ?? spkiPublicKey(certificate.spki)
  loadedKeys.set(certificate, loaded)
  return loaded
}

export interface BasicConstraints {
  readonly isCa: boolean
  readonly pathLength?: number
}

/** Basic constraints; undefined where the extension is absent. */
export function basicConstraints(certificate: Certificate): BasicConstraints | undefined {
  const extension = certificate.extensions.get(extensionIds.basicConstraints)
  if (extension === undefined) return undefined
  return readDer("basicConstraints", extension.value, (outer) =>
    within(outer, tags.sequence, "value", (reader) => {
      const isCa = reader.nextTag() === tags.boolean ? reader.boolean("cA") : false
      return reader.done ? { isCa } : { isCa, pathLength: reader.smallInteger("pathLenConstraint") }
    }),
  )
}

/** Bits of the key usage extension by name. RFC 5280 section 4.2.1.3. */
const keyUsageBits = [
  "digitalSignature",
  "contentCommitment",
  "keyEncipherment",
  "dataEncipherment",
  "keyAgreement",
  "keyCertSign",
  "cRLSign",
  "encipherOnly",
  "decipherOnly",
] as const

export type KeyUsage = (typeof keyUsageBits)[number]

/** Key usage; undefined where the extension is absent. */
export function keyUsage(certificate: Certificate): ReadonlySet<KeyUsage> | undefined {
  const extension = certificate.extensions.get(extensionIds.keyUsage)
  if (extension === undefined) return undefined
  return readDer("keyUsage", extension.value, (outer) => {
    const reader = new ByteReader("keyUsage", outer.element(tags.bitString, "value").body)
    if (reader.u8("unused bits") > 7) throw reader.error("malformed", "unused bits", "more than seven")
    const octets = reader.rest("bits")
    return new Set(keyUsageBits.filter((_, bit) => ((octets[Math.floor(bit / 8)] ?? 0) & (0x80 >> (bit % 8))) !== 0))
  })
}

/** Object identifiers of the extended key usage; undefined where the extension is absent. */
export function extendedKeyUsage(certificate: Certificate): readonly string[] | undefined {
  const extension = certificate.extensions.get(extensionIds.extendedKeyUsage)
  if (extension === undefined) return undefined
  return readDer("extKeyUsage", extension.value, (outer) =>
    within(outer, tags.sequence, "value", (reader) => {
      const ids: string[] = []
      while (!reader.done) ids.push(reader.oid("keyPurposeId"))
      return ids
    }),
  )
}

/** Key identifier of the subject, or of the issuer, where the certificate names one; lower-case hexadecimal. */
export function subjectKeyIdentifier(certificate: Certificate): string | undefined {
  const extension = certificate.extensions.get(extensionIds.subjectKeyIdentifier)
  if (extension === undefined) return undefined
  return readDer("subjectKeyIdentifier", extension.value, (reader) => encodeHex(reader.element(tags.octetString, "keyIdentifier").body))
}

export function authorityKeyIdentifier(certificate: Certificate): string | undefined {
  const extension = certificate.extensions.get(extensionIds.authorityKeyIdentifier)
  if (extension === undefined) return undefined
  return readDer("authorityKeyIdentifier", extension.value, (outer) =>
    within(outer, tags.sequence, "value", (reader) => {
      const id = reader.optional(contextTag(0, "primitive"), "keyIdentifier")
      while (!reader.done) reader.any("other")
      return id === undefined ? undefined : encodeHex(id.body)
    }),
  )
}

/** One attribute of a distinguished name; `value` is text for people, never to be judged by alone. */
export interface NameAttribute {
  readonly oid: string
  readonly value: string
}

/** Attributes of a Name (whole DER element), in order. @throws {MalformedError} */
export function parseName(name: Uint8Array): readonly NameAttribute[] {
  return readDer("Name", name, (outer) => within(outer, tags.sequence, "rdnSequence", readNameContents))
}

/** Attributes from the contents of an RDNSequence. */
export function readNameContents(reader: DerReader): readonly NameAttribute[] {
  const attributes: NameAttribute[] = []
  while (!reader.done) {
    within(reader, tags.set, "rdn", (rdn) => {
      while (!rdn.done) {
        attributes.push(within(rdn, tags.sequence, "attribute", (pair) => ({ oid: pair.oid("type"), value: readNameText(pair.any("value")) })))
      }
    })
  }
  return attributes
}

function readNameText(element: DerElement): string {
  const textTags: readonly number[] = [tags.utf8String, tags.printableString, tags.ia5String]
  return textTags.includes(element.tag) ? parseUtf8(element.body, "Name.value") : `#${encodeHex(element.bytes)}`
}

function readTbs(tbs: Uint8Array): Omit<Certificate, "der" | "tbs" | "signature" | "signatureAlgorithm"> & { readonly algorithm: Uint8Array } {
  return readDer("TBSCertificate", tbs, (outer) =>
    within(outer, tags.sequence, "tbs", (reader) => {
      const version = readVersion(reader)
      const fields = {
        version,
        serial: encodeHex(reader.element(tags.integer, "serialNumber").body),
        algorithm: reader.element(tags.sequence, "signature").bytes,
        issuer: reader.element(tags.sequence, "issuer").bytes,
        ...within(reader, tags.sequence, "validity", (validity) => ({
          notBefore: readTime(validity, "notBefore"),
          notAfter: readTime(validity, "notAfter"),
        })),
        subject: reader.element(tags.sequence, "subject").bytes,
        spki: reader.element(tags.sequence, "subjectPublicKeyInfo").bytes,
      }
      if (version === 1) return { ...fields, extensions: new Map<string, CertificateExtension>() }
      // Unique identifiers (RFC 5280 4.1.2.8) are never used; whoever has them is refused as malformed by the tag check.
      return { ...fields, extensions: reader.done ? new Map<string, CertificateExtension>() : readExtensions(reader, 3) }
    }),
  )
}

function readVersion(reader: DerReader): 1 | 3 {
  if (reader.nextTag() !== contextTag(0, "constructed")) return 1
  const number = within(reader, contextTag(0, "constructed"), "version", (inner) => inner.smallInteger("version"))
  if (number !== 2) throw new PkiError("unsupported", `certificate version ${number + 1}`, { path: "TBSCertificate.version" })
  return 3
}

/** Extensions in an explicit context element. Shared with revocation lists. */
export function readExtensions(reader: DerReader, number: number): ReadonlyMap<string, CertificateExtension> {
  return within(reader, contextTag(number, "constructed"), "extensions", readExtensionList)
}

export function readExtensionList(outer: DerReader): ReadonlyMap<string, CertificateExtension> {
  return within(outer, tags.sequence, "list", (reader) => {
    const extensions = new Map<string, CertificateExtension>()
    while (!reader.done) {
      const [oid, extension] = within(reader, tags.sequence, "extension", readExtension)
      if (extensions.has(oid)) throw new MalformedError("duplicate", `extension ${oid} stands twice`, { path: "extensions" })
      if (extensions.size >= maxExtensions) throw new MalformedError("too-large", `more than ${maxExtensions} extensions`, { path: "extensions" })
      extensions.set(oid, extension)
    }
    return extensions
  })
}

function readExtension(reader: DerReader): readonly [string, CertificateExtension] {
  const oid = reader.oid("extnID")
  const critical = reader.nextTag() === tags.boolean ? reader.boolean("critical") : false
  return [oid, { critical, value: reader.element(tags.octetString, "extnValue").body }]
}

/** UTCTime or GeneralizedTime in the only forms that RFC 5280 section 4.1.2.5 allows; milliseconds since 1970. */
export function readTime(reader: DerReader, field: string): number {
  const element = reader.any(field)
  const text = parseUtf8(element.body, field)
  const long =
    element.tag === tags.generalizedTime ? text : element.tag === tags.utcTime ? `${Number(text.substring(0, 2)) < 50 ? "20" : "19"}${text}` : ""
  if (!timeForm.test(long)) throw new MalformedError("malformed", "not a UTC time to the second", { path: field })
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = timeParts.map(([from, to]) => Number(long.substring(from, to)))
  const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second))
  date.setUTCFullYear(year, month - 1, day)
  // A part that does not exist runs over into the next.
  const isReal = date.getUTCMonth() === month - 1 && date.getUTCDate() === day && hour < 24 && minute < 60 && second < 60
  if (!isReal) throw new MalformedError("malformed", "no such time", { path: field })
  return date.getTime()
}

const timeForm = /^\d{14}Z$/
const timeParts = [[0, 4], [4, 6], [6, 8], [8, 10], [10, 12], [12, 14]] as const // prettier-ignore

const plainAlgorithms: ReadonlyMap<string, SignatureScheme> = new Map([
  ["1.2.840.113549.1.1.5", "rsassa-sha1"],
  ["1.2.840.113549.1.1.11", "rsassa-sha256"],
  ["1.2.840.113549.1.1.12", "rsassa-sha384"],
  ["1.2.840.113549.1.1.13", "rsassa-sha512"],
  ["1.2.840.10045.4.3.2", "ecdsa-sha256"],
  ["1.2.840.10045.4.3.3", "ecdsa-sha384"],
  ["1.2.840.10045.4.3.4", "ecdsa-sha512"],
  ["1.3.101.112", "ed25519"],
])

const rsaPssOid = "1.2.840.113549.1.1.10"

/** AlgorithmIdentifier (whole DER element) of a signature. */
export function parseSignatureAlgorithm(bytes: Uint8Array): SignatureAlgorithm {
  return readDer("AlgorithmIdentifier", bytes, (outer) =>
    within(outer, tags.sequence, "algorithm", (reader) => {
      const oid = reader.oid("algorithm")
      if (oid === rsaPssOid) return { oid, scheme: within(reader, tags.sequence, "parameters", readPssParameters) }
      return { oid, scheme: hasNoParameters(reader) ? plainAlgorithms.get(oid) : undefined }
    }),
  )
}

/** Absent or NULL; anything else is read over and means another algorithm than ours. */
function hasNoParameters(reader: DerReader): boolean {
  if (reader.done) return true
  const { tag, body } = reader.any("parameters")
  return tag === tags.null && body.length === 0
}

const mgf1Oid = "1.2.840.113549.1.1.8"

const pssHashes: ReadonlyMap<string, { readonly scheme: SignatureScheme; readonly saltBytes: number }> = new Map([
  ["2.16.840.1.101.3.4.2.1", { scheme: "rsapss-sha256", saltBytes: 32 }],
  ["2.16.840.1.101.3.4.2.2", { scheme: "rsapss-sha384", saltBytes: 48 }],
  ["2.16.840.1.101.3.4.2.3", { scheme: "rsapss-sha512", saltBytes: 64 }],
])

/** RSASSA-PSS-params (RFC 4055 section 3.1), with MGF1 over the same hash and a salt as long as the hash; undefined for all else. */
function readPssParameters(reader: DerReader): SignatureScheme | undefined {
  const hash = within(reader, contextTag(0, "constructed"), "hashAlgorithm", readHashAlgorithm)
  const mgfHash = within(reader, contextTag(1, "constructed"), "maskGenAlgorithm", (mgf) =>
    within(mgf, tags.sequence, "algorithm", (inner) => {
      const isMgf1 = inner.oid("algorithm") === mgf1Oid
      const oid = readHashAlgorithm(inner)
      return isMgf1 ? oid : undefined
    }),
  )
  const saltBytes = within(reader, contextTag(2, "constructed"), "saltLength", (salt) => salt.smallInteger("saltLength"))
  const trailer = reader.done ? 1 : within(reader, contextTag(3, "constructed"), "trailerField", (field) => field.smallInteger("trailerField"))
  const row = pssHashes.get(hash ?? "")
  return row !== undefined && mgfHash === hash && saltBytes === row.saltBytes && trailer === 1 ? row.scheme : undefined
}

function readHashAlgorithm(reader: DerReader): string | undefined {
  return within(reader, tags.sequence, "hash", (inner) => {
    const oid = inner.oid("algorithm")
    return hasNoParameters(inner) ? oid : undefined
  })
}
