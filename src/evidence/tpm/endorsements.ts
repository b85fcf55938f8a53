import type { KeyObject } from "node:crypto"
import { digestOf } from "../../bytes/digest.ts"
import type { Digest } from "../../bytes/digest.ts"
import { MalformedError } from "../../bytes/error.ts"
import { readAll } from "../../bytes/reader.ts"
import type { ByteReader } from "../../bytes/reader.ts"
import { parseHex } from "../../bytes/text.ts"
import { certificateKey, extensionIds, parseCertificate, readNameContents } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { DerReader, bitStringOctets, contextTag, readDer, tags, within } from "../../pki/der.ts"
import { rsaPublicKey } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"

/** What vendors' endorsement certificates do other than the TCG EK Credential Profile 2.6 says. */
export const endorsementQuirks = {
  "nv-header": "a TCG_FULL_CERT header of 7 bytes stands in front, as read from the NV memory of a TPM 1.2; harmless",
  padding: "zero or 0xff bytes stand behind, as read from an NV area of fixed size; harmless",
  "oaep-key": "the key's type is RSAES-OAEP (TPM 1.2) instead of rsaEncryption",
  "no-key-usage": "the certificate has no key usage (TPM 1.2)",
} as const satisfies Record<string, string>

export type EndorsementQuirk = keyof typeof endorsementQuirks

/** Quirks that need nobody's leave. */
export const harmlessQuirks: readonly EndorsementQuirk[] = ["nv-header", "padding"]

/** What the subject alternative name of an endorsement certificate says about the TPM. */
export interface TpmDescription {
  /** Four letters of the vendor, e.g. `STM`, or the identifier as written where it is no text. */
  readonly manufacturer: string
  readonly model: string
  readonly version: string
}

export interface StoredCertificate {
  readonly certificate: Certificate
  readonly quirks: readonly EndorsementQuirk[]
}

/** TCG_PCCLIENT_STORED_CERT and TCG_FULL_CERT, TCG PC Client Specific Implementation Specification 1.21, 7.4. */
const storedCertTag = 0x1001
const fullCertType = 0
const fullCertTag = 0x1002

/**
 * Reads a certificate as TPMs store it: bare DER, or with a header in front, or with padding behind.
 * @throws {MalformedError} form
 */
export function parseStoredCertificate(stored: Uint8Array): StoredCertificate {
  const quirks: EndorsementQuirk[] = []
  const body = readAll("stored certificate", stored, (reader) => {
    if (reader.peekU8("tag") === tags.sequence) return reader.rest("certificate")
    quirks.push("nv-header")
    return readFullCertificate(reader)
  })
  const reader = new DerReader("Certificate", body)
  const { bytes } = reader.any("certificate")
  const padding = reader.rest("padding")
  const [filler] = padding
  if (filler !== undefined) {
    if ((filler !== 0x00 && filler !== 0xff) || padding.some((byte) => byte !== filler))
      throw new MalformedError("trailing-bytes", `${padding.length} bytes behind the certificate`, { path: "stored certificate" })
    quirks.push("padding")
  }
  return { certificate: parseCertificate(bytes), quirks }
}

function readFullCertificate(reader: ByteReader): Uint8Array {
  const tag = reader.u16be("stored tag")
  const type = reader.u8("certificate type")
  if (tag !== storedCertTag || type !== fullCertType) throw reader.error("malformed", "stored tag", "neither a certificate nor a TCG_FULL_CERT")
  const inner = reader.sub(reader.u16be("certificate size"), "full certificate")
  const innerTag = inner.u16be("tag")
  if (innerTag !== fullCertTag) throw inner.error("malformed", "tag", `0x${innerTag.toString(16)}, expected 0x1002`)
  const certificate = inner.rest("certificate")
  // NV areas are larger than what they hold.
  const behind = reader.rest("padding")
  if (behind.some((byte) => byte !== 0x00 && byte !== 0xff)) throw reader.error("malformed", "padding", "other bytes than zero and 0xff")
  return certificate
}

const rsaesOaep = "1.2.840.113549.1.1.7"

/**
 * The key that is certified, whatever its certificate calls the algorithm.
 * @throws {PkiError} `wrong-key`
 */
export function certifiedKey(certificate: Certificate): { readonly key: KeyObject; readonly quirks: readonly EndorsementQuirk[] } {
  const modulus = readDer("subjectPublicKeyInfo", certificate.spki, (outer) =>
    within(outer, tags.sequence, "value", (reader) => {
      const algorithm = reader.enter(tags.sequence, "algorithm").oid("algorithm")
      const bits = reader.element(tags.bitString, "subjectPublicKey")
      return algorithm === rsaesOaep ? readRsaKey(bitStringOctets(bits, "subjectPublicKey")) : undefined
    }),
  )
  if (modulus === undefined) return { key: certificateKey(certificate), quirks: [] }
  return { key: rsaPublicKey(modulus.n, modulus.e), quirks: ["oaep-key"] }
}

/** RSAPublicKey, RFC 8017 A.1.1; a zero byte in front of a number does not matter. */
function readRsaKey(bytes: Uint8Array): { readonly n: Uint8Array; readonly e: Uint8Array } {
  return readDer("RSAPublicKey", bytes, (outer) =>
    within(outer, tags.sequence, "key", (reader) => ({
      n: reader.element(tags.integer, "modulus").body,
      e: reader.element(tags.integer, "publicExponent").body,
    })),
  )
}

/**
 * SHA-256 over the SubjectPublicKeyInfo of a key in its one standard encoding: the name of an endorsement key, the same from a certificate and from a TPM.
 */
export function endorsementKeyDigest(key: KeyObject): Digest {
  return digestOf(new Uint8Array(key.export({ format: "der", type: "spki" })))
}

/** Attributes that the TCG EK Credential Profile 2.6, 3.2.9 puts into the directoryName. */
const tpmManufacturer = "2.23.133.2.1"
const tpmModel = "2.23.133.2.2"
const tpmVersion = "2.23.133.2.3"

/**
 * Reads the subject alternative name, which must be one directoryName with manufacturer, model and version.
 * @throws {EvidenceError} `wrong-certificate`
 */
export function readTpmDescription(certificate: Certificate): TpmDescription {
  const extension = certificate.extensions.get(extensionIds.subjectAlternativeName)
  if (extension === undefined) throw refuse("the certificate has no subject alternative name")
  const attributes = readDer("subjectAltName", extension.value, (outer) =>
    within(outer, tags.sequence, "names", (reader) => {
      if (reader.nextTag() !== contextTag(4, "constructed")) throw refuse("the subject alternative name is no directoryName")
      const found = within(reader, contextTag(4, "constructed"), "directoryName", (name) =>
        within(name, tags.sequence, "rdnSequence", readNameContents),
      )
      if (!reader.done) throw refuse("the subject alternative name holds more than one name")
      return found
    }),
  )
  const value = (oid: string): string => {
    const [found, ...more] = attributes.filter((attribute) => attribute.oid === oid)
    if (found === undefined || more.length > 0) throw refuse(`the subject alternative name does not hold ${oid} exactly once`)
    return found.value
  }
  return { manufacturer: readableManufacturer(value(tpmManufacturer)), model: value(tpmModel), version: value(tpmVersion) }
}

/** `id:53544D20` → `STM`. */
function readableManufacturer(text: string): string {
  const digits = /^id:([0-9A-Fa-f]{8})$/.exec(text)?.[1]
  if (digits === undefined) return text
  const letters = String.fromCharCode(...parseHex(digits.toLowerCase()).filter((byte) => byte !== 0)).trimEnd()
  return /^[A-Za-z0-9 ]+$/.test(letters) ? letters : text
}

function refuse(message: string): EvidenceError {
  return new EvidenceError("wrong-certificate", message, { path: "endorsement certificate" })
}
