import type { ByteReader } from "../../bytes/reader.ts"
import { readAll } from "../../bytes/reader.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import type { HashName } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { algorithmId, algorithmName, curveName, curves, isHashName } from "./algorithms.ts"
import type { AlgorithmName, CurveName } from "./algorithms.ts"

/** TPMA_OBJECT bits by name. TPM 2.0 Library Part 2, 8.3. */
export const objectAttributes = {
  fixedTPM: 1,
  stClear: 2,
  fixedParent: 4,
  sensitiveDataOrigin: 5,
  userWithAuth: 6,
  adminWithPolicy: 7,
  firmwareLimited: 8,
  svnLimited: 9,
  noDA: 10,
  encryptedDuplication: 11,
  restricted: 16,
  decrypt: 17,
  sign: 18,
  x509sign: 19,
} as const

export type ObjectAttribute = keyof typeof objectAttributes

/** TPMT_SYM_DEF_OBJECT: the cipher that a storage key protects its children with. */
export interface SymmetricDefinition {
  readonly algorithm: "aes"
  /** 128, 192 or 256. */
  readonly keyBits: number
  readonly mode: "cfb"
}

/** A scheme with its hash; undefined stands for TPM_ALG_NULL. */
export interface KeyScheme<Name extends AlgorithmName> {
  readonly scheme: Name
  readonly hash: HashName
}

interface PublicAreaBase {
  readonly nameAlg: HashName
  readonly attributes: ReadonlySet<ObjectAttribute>
  readonly authPolicy: Uint8Array
}

export interface RsaPublicArea extends PublicAreaBase {
  readonly type: "rsa"
  readonly symmetric?: SymmetricDefinition
  readonly scheme?: KeyScheme<"rsassa" | "rsapss" | "oaep">
  readonly keyBits: number
  /** As in the structure: 0 means 65537. */
  readonly exponent: number
  /** Modulus, big-endian; empty or all zero in a template. */
  readonly unique: Uint8Array
}

export interface EccPublicArea extends PublicAreaBase {
  readonly type: "ecc"
  readonly symmetric?: SymmetricDefinition
  readonly scheme?: KeyScheme<"ecdsa" | "ecdh">
  readonly curve: CurveName
  readonly kdf?: KeyScheme<"kdf1Sp800_56a" | "kdf1Sp800_108">
  /** Coordinates, big-endian; a TPM may leave out leading zero bytes; empty or all zero in a template. */
  readonly x: Uint8Array
  readonly y: Uint8Array
}

/** Sealed data and HMAC keys. */
export interface KeyedHashPublicArea extends PublicAreaBase {
  readonly type: "keyedhash"
  readonly scheme?: KeyScheme<"hmac">
  readonly unique: Uint8Array
}

/** TPMT_PUBLIC, TPM 2.0 Library Part 2, 12.2.4. Narrower than the specification: RSA, ECC and keyed hash only, no ECDAA, SM2, XOR. */
export type PublicArea = RsaPublicArea | EccPublicArea | KeyedHashPublicArea

/** SHA-512. */
const maxDigestBytes = 64
/** RSA 4096; no TPM has more. */
const maxRsaBytes = 512
const maxEccBytes = 66

/**
 * Reads a whole TPMT_PUBLIC.
 * @throws {MalformedError} form; @throws {EvidenceError} `unsupported` algorithms
 */
export function parsePublicArea(bytes: Uint8Array): PublicArea {
  return readAll("TPMT_PUBLIC", bytes, readPublicArea)
}

/** Reads a whole TPM2B_PUBLIC. @throws as parsePublicArea */
export function parseSizedPublicArea(bytes: Uint8Array): PublicArea {
  return readAll("TPM2B_PUBLIC", bytes, readSizedPublicArea)
}

/** Reads a TPM2B_PUBLIC; the size in front must fit exactly. */
export function readSizedPublicArea(reader: ByteReader): PublicArea {
  const inner = reader.sub(reader.u16be("size"), "publicArea")
  const area = readPublicArea(inner)
  inner.finish()
  return area
}

export function readPublicArea(reader: ByteReader): PublicArea {
  const type = algorithmName(reader.u16be("type"))
  const base = {
    nameAlg: readHash(reader, "nameAlg"),
    attributes: readAttributes(reader),
    authPolicy: readSized(reader, maxDigestBytes, "authPolicy"),
  }
  switch (type) {
    case "rsa":
      return {
        type,
        ...base,
        ...optional("symmetric", readSymmetric(reader)),
        ...optional("scheme", readScheme(reader, "scheme", ["rsassa", "rsapss", "oaep"])),
        keyBits: reader.u16be("keyBits"),
        exponent: reader.u32be("exponent"),
        unique: readSized(reader, maxRsaBytes, "unique"),
      }
    case "ecc":
      return {
        type,
        ...base,
        ...optional("symmetric", readSymmetric(reader)),
        ...optional("scheme", readScheme(reader, "scheme", ["ecdsa", "ecdh"])),
        curve: readCurve(reader),
        ...optional("kdf", readScheme(reader, "kdf", ["kdf1Sp800_56a", "kdf1Sp800_108"])),
        x: readSized(reader, maxEccBytes, "unique.x"),
        y: readSized(reader, maxEccBytes, "unique.y"),
      }
    case "keyedhash":
      return { type, ...base, ...optional("scheme", readScheme(reader, "scheme", ["hmac"])), unique: readSized(reader, maxDigestBytes, "unique") }
    default:
      throw new EvidenceError("unsupported", "object type is not rsa, ecc or keyedhash", { path: "TPMT_PUBLIC.type" })
  }
}

/** TPMT_PUBLIC as bytes: what a name is computed over. */
export function encodePublicArea(area: PublicArea): Uint8Array {
  const writer = new ByteWriter()
    .u16be(algorithmId(area.type))
    .u16be(algorithmId(area.nameAlg))
    .u32be(encodeAttributes(area.attributes))
    .sized16be(area.authPolicy)
  switch (area.type) {
    case "rsa":
      writeSymmetric(writer, area.symmetric)
      writeScheme(writer, area.scheme)
      return writer.u16be(area.keyBits).u32be(area.exponent).sized16be(area.unique).take()
    case "ecc":
      writeSymmetric(writer, area.symmetric)
      writeScheme(writer, area.scheme)
      writer.u16be(curves[area.curve].id)
      writeScheme(writer, area.kdf)
      return writer.sized16be(area.x).sized16be(area.y).take()
    case "keyedhash":
      writeScheme(writer, area.scheme)
      return writer.sized16be(area.unique).take()
  }
}

/** TPM2B_PUBLIC as bytes. */
export function encodeSizedPublicArea(area: PublicArea): Uint8Array {
  return new ByteWriter().sized16be(encodePublicArea(area)).take()
}

/** Reads a TPM2B of at most `maximum` bytes. */
export function readSized(reader: ByteReader, maximum: number, field: string): Uint8Array {
  return reader.boundedBytes(reader.u16be(`${field}.size`), maximum, field)
}

/** Reads a TPMI_ALG_HASH that can be computed here. @throws {EvidenceError} `unsupported` */
export function readHash(reader: ByteReader, field: string): HashName {
  const id = reader.u16be(field)
  const name = algorithmName(id)
  if (!isHashName(name)) throw new EvidenceError("unsupported", `hash algorithm 0x${id.toString(16)}`, { path: field })
  return name
}

function readAttributes(reader: ByteReader): ReadonlySet<ObjectAttribute> {
  const word = reader.u32be("objectAttributes")
  const found = (Object.keys(objectAttributes) as ObjectAttribute[]).filter((name) => (word & (1 << objectAttributes[name])) !== 0)
  const attributes = new Set(found)
  if (encodeAttributes(attributes) !== word) throw reader.error("malformed", "objectAttributes", `reserved bits set in 0x${word.toString(16)}`)
  return attributes
}

function encodeAttributes(attributes: ReadonlySet<ObjectAttribute>): number {
  return [...attributes].reduce((word, name) => word + 2 ** objectAttributes[name], 0)
}

function readSymmetric(reader: ByteReader): SymmetricDefinition | undefined {
  const algorithm = algorithmName(reader.u16be("symmetric"))
  if (algorithm === "null") return undefined
  const keyBits = algorithm === "aes" ? reader.u16be("symmetric.keyBits") : 0
  const mode = algorithm === "aes" ? algorithmName(reader.u16be("symmetric.mode")) : undefined
  if (algorithm !== "aes" || mode !== "cfb" || ![128, 192, 256].includes(keyBits))
    throw new EvidenceError("unsupported", "cipher is not AES in CFB mode", { path: "TPMT_PUBLIC.symmetric" })
  return { algorithm, keyBits, mode }
}

function writeSymmetric(writer: ByteWriter, symmetric: SymmetricDefinition | undefined): void {
  if (symmetric === undefined) writer.u16be(algorithmId("null"))
  else writer.u16be(algorithmId(symmetric.algorithm)).u16be(symmetric.keyBits).u16be(algorithmId(symmetric.mode))
}

function readScheme<Name extends AlgorithmName>(reader: ByteReader, field: string, allowed: readonly Name[]): KeyScheme<Name> | undefined {
  const id = reader.u16be(field)
  if (id === algorithmId("null")) return undefined
  const scheme = allowed.find((name) => algorithmId(name) === id)
  if (scheme === undefined) throw new EvidenceError("unsupported", `scheme 0x${id.toString(16)}`, { path: `TPMT_PUBLIC.${field}` })
  return { scheme, hash: readHash(reader, `${field}.hashAlg`) }
}

function writeScheme(writer: ByteWriter, scheme: KeyScheme<AlgorithmName> | undefined): void {
  if (scheme === undefined) writer.u16be(algorithmId("null"))
  else writer.u16be(algorithmId(scheme.scheme)).u16be(algorithmId(scheme.hash))
}

function readCurve(reader: ByteReader): CurveName {
  const id = reader.u16be("curveID")
  const curve = curveName(id)
  if (curve === undefined) throw new EvidenceError("unsupported", `curve 0x${id.toString(16)}`, { path: "TPMT_PUBLIC.curveID" })
  return curve
}

/** An optional member that is left out, not set to undefined (exactOptionalPropertyTypes). */
function optional<Key extends string, Value>(key: Key, value: Value | undefined): { readonly [K in Key]?: Value } {
  return value === undefined ? {} : ({ [key]: value } as { readonly [K in Key]?: Value })
}
