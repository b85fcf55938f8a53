import { constants, createHash, createPublicKey, sign, verify } from "node:crypto"
import type { JsonWebKey, KeyObject } from "node:crypto"
import { bytesEqual, concatBytes } from "../bytes/compare.ts"
import { encodeBase64, encodeBase64Url, parseBase64Url, parseHex } from "../bytes/text.ts"
import { derElement, tags } from "./der.ts"
import { PkiError } from "./errors.ts"

/**
 * The hash and signature calls that evidence and documents rest on, all in this file. Everything outside the tables below is refused: an algorithm is
 * allowed because it is listed, never because the library knows it.
 */

export type HashName = "sha1" | "sha256" | "sha384" | "sha512"

/** Size of a digest in bytes. */
export const hashSizes = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 } as const satisfies Record<HashName, number>

export function hash(name: HashName, ...parts: readonly Uint8Array[]): Uint8Array {
  const state = createHash(name)
  for (const part of parts) state.update(part)
  return new Uint8Array(state.digest())
}

/** Signature schemes by name; `rsapss` uses MGF1 with the same hash and a salt as long as the hash (TPM 2.0 Part 1 B.7, RFC 8446 4.2.3). */
const schemes = {
  "rsassa-sha1": { key: "rsa", hash: "sha1", padding: "pkcs1" },
  "rsassa-sha256": { key: "rsa", hash: "sha256", padding: "pkcs1" },
  "rsassa-sha384": { key: "rsa", hash: "sha384", padding: "pkcs1" },
  "rsassa-sha512": { key: "rsa", hash: "sha512", padding: "pkcs1" },
  "rsapss-sha256": { key: "rsa", hash: "sha256", padding: "pss" },
  "rsapss-sha384": { key: "rsa", hash: "sha384", padding: "pss" },
  "rsapss-sha512": { key: "rsa", hash: "sha512", padding: "pss" },
  "ecdsa-sha256": { key: "ec", hash: "sha256", padding: "none" },
  "ecdsa-sha384": { key: "ec", hash: "sha384", padding: "none" },
  "ecdsa-sha512": { key: "ec", hash: "sha512", padding: "none" },
  ed25519: { key: "ed25519", hash: null, padding: "none" },
} as const

export type SignatureScheme = keyof typeof schemes

export function isSignatureScheme(name: string): name is SignatureScheme {
  return Object.hasOwn(schemes, name)
}

export interface SignatureOptions {
  /** Form of an ECDSA signature: `der` (SEQUENCE of two INTEGERs, default) or `raw` (r ‖ s, each as long as the curve's field). */
  readonly ecdsa?: "der" | "raw"
  /** Lets `rsassa-sha1` pass; only for evidence that the caller's policy names as weak. */
  readonly insecureAllowSha1?: boolean
}

/**
 * Returns only when the signature is right.
 * @throws {PkiError} `weak-algorithm`, `wrong-key` (key kind does not fit the scheme, or is not on the allow list), `wrong-signature`
 */
export function verifySignature(
  scheme: SignatureScheme,
  key: KeyObject,
  message: Uint8Array,
  signature: Uint8Array,
  options: SignatureOptions = {},
): void {
  const row = schemes[scheme]
  if (row.hash === "sha1" && options.insecureAllowSha1 !== true) throw new PkiError("weak-algorithm", "signature over sha-1")
  checkVerificationKey(key)
  const { type } = keyKind(key)
  if (type !== row.key) throw new PkiError("wrong-key", `scheme ${scheme} does not fit a key of type ${type ?? "?"}`)
  const isRight =
    row.padding === "none"
      ? verify(row.hash, message, key, options.ecdsa === "raw" ? ecdsaDer(signature, key) : signature)
      : verify(row.hash, message, paddedInput(row.padding, key), signature)
  if (!isRight) throw new PkiError("wrong-signature", `${scheme} signature does not verify`)
}

/** Makes an Ed25519 signature (64 bytes) or an ECDSA signature in DER form. Private keys stay in their KeyObject. */
export function signBytes(scheme: "ed25519" | "ecdsa-sha256" | "ecdsa-sha384", key: KeyObject, message: Uint8Array): Uint8Array {
  const row = schemes[scheme]
  if (key.type !== "private" || key.asymmetricKeyType !== row.key) throw new TypeError(`scheme ${scheme} needs a private ${row.key} key`)
  return new Uint8Array(sign(row.hash, message, key))
}

/** Smallest RSA modulus, in bits, that counts as a signature or storage key (NIST SP 800-131A). */
const minimumRsaBits = 2048
/** Larger ones only cost time. */
const maximumRsaBits = 8192
const curves: ReadonlySet<string> = new Set(["prime256v1", "secp384r1", "secp521r1"])

/**
 * The allow list of keys: RSA of 2048 to 8192 bits with exponent 65537, P-256, P-384, P-521 (roots of some TPM vendors), Ed25519.
 * @throws {PkiError} `wrong-key`
 */
export function checkVerificationKey(key: KeyObject): void {
  const { type, details } = keyKind(key)
  switch (type) {
    case "rsa": {
      const bits = details?.modulusLength ?? 0
      if (bits < minimumRsaBits || bits > maximumRsaBits) throw new PkiError("wrong-key", `RSA key of ${bits} bits`)
      if (details?.publicExponent !== 65537n) throw new PkiError("wrong-key", "RSA key with an exponent other than 65537")
      return
    }
    case "ec":
      if (!curves.has(details?.namedCurve ?? "")) throw new PkiError("wrong-key", `elliptic curve ${details?.namedCurve ?? "without a name"}`)
      return
    case "ed25519":
      return
    default:
      throw new PkiError("wrong-key", `key of type ${type ?? "?"}`)
  }
}

/** Name of an elliptic curve key's curve, e.g. `prime256v1`; undefined for other keys. */
export function curveOf(key: KeyObject): string | undefined {
  return keyKind(key).details?.namedCurve
}

interface KeyKind {
  readonly type: KeyObject["asymmetricKeyType"]
  readonly details: KeyObject["asymmetricKeyDetails"]
}

/** What keys are: they never change, and asking costs as much as half a signature check. */
const keyKinds = new WeakMap<KeyObject, KeyKind>()

function keyKind(key: KeyObject): KeyKind {
  const kind = keyKinds.get(key) ?? { type: key.asymmetricKeyType, details: key.asymmetricKeyDetails }
  keyKinds.set(key, kind)
  return kind
}

/** RSA public key from modulus and exponent, both big-endian. @throws {PkiError} `wrong-key` */
export function rsaPublicKey(modulus: Uint8Array, exponent: Uint8Array): KeyObject {
  return keyFromJwk({ kty: "RSA", n: encodeBase64Url(modulus), e: encodeBase64Url(exponent) })
}

/** EC public key from affine coordinates, big-endian, each as long as the field. @throws {PkiError} `wrong-key` when the point is not on the curve */
export function ecPublicKey(curve: "P-256" | "P-384", x: Uint8Array, y: Uint8Array): KeyObject {
  if (curve === "P-256" && x.length === 32 && y.length === 32) return spkiPublicKey(concatBytes(p256SpkiPrefix, x, y))
  const key = keyFromJwk({ kty: "EC", crv: curve, x: encodeBase64Url(x), y: encodeBase64Url(y) })
  keyKinds.set(key, { type: "ec", details: { namedCurve: curve === "P-256" ? "prime256v1" : "secp384r1" } })
  return key
}

/** Ed25519 public key from its 32 bytes. @throws {PkiError} `wrong-key` */
export function ed25519PublicKey(raw: Uint8Array): KeyObject {
  return keyFromJwk({ kty: "OKP", crv: "Ed25519", x: encodeBase64Url(raw) })
}

/** The 32 bytes of an Ed25519 public key, or of the one that belongs to a private key. */
export function ed25519PublicBytes(key: KeyObject): Uint8Array {
  if (key.asymmetricKeyType !== "ed25519") throw new TypeError("not an Ed25519 key")
  const { x = "" } = (key.type === "private" ? createPublicKey(key) : key).export({ format: "jwk" })
  return parseBase64Url(x)
}

/** Public key from a SubjectPublicKeyInfo in DER. @throws {PkiError} `wrong-key` */
export function spkiPublicKey(der: Uint8Array): KeyObject {
  try {
    // The library takes twice as long to find out what it is given where that is no text.
    const key = createPublicKey(`-----BEGIN PUBLIC KEY-----\n${encodeBase64(der)}\n-----END PUBLIC KEY-----\n`)
    // What the bytes say need not be asked of the library, which takes as long to answer as to load the key.
    if (der.length === p256SpkiBytes && bytesEqual(der.subarray(0, p256SpkiPrefix.length), p256SpkiPrefix))
      keyKinds.set(key, { type: "ec", details: { namedCurve: "prime256v1" } })
    return key
  } catch (cause) {
    throw new PkiError("wrong-key", "public key cannot be loaded", { cause })
  }
}

/** SubjectPublicKeyInfo of an uncompressed P-256 point: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING { 04, x, y } }. RFC 5480. */
const p256SpkiPrefix = parseHex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
const p256SpkiBytes = p256SpkiPrefix.length + 64

function keyFromJwk(jwk: JsonWebKey): KeyObject {
  try {
    return createPublicKey({ key: jwk, format: "jwk" })
  } catch (cause) {
    throw new PkiError("wrong-key", "public key cannot be loaded", { cause })
  }
}

function paddedInput(padding: "pkcs1" | "pss", key: KeyObject): Parameters<typeof verify>[2] {
  return padding === "pkcs1"
    ? { key, padding: constants.RSA_PKCS1_PADDING }
    : { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
}

/** Bytes of an element of each curve's field. */
const fieldBytes: ReadonlyMap<string, number> = new Map([
  ["prime256v1", 32],
  ["secp384r1", 48],
  ["secp521r1", 66],
])

/** A signature r ‖ s as SEQUENCE of two INTEGERs: the library takes longer to do this, or to be asked for it, than for a third of the check. */
function ecdsaDer(raw: Uint8Array, key: KeyObject): Uint8Array {
  const size = fieldBytes.get(curveOf(key) ?? "")
  if (size === undefined || raw.length !== 2 * size) throw new PkiError("wrong-signature", `a signature of ${raw.length} bytes`)
  return derElement(tags.sequence, derElement(tags.integer, unsigned(raw.subarray(0, size))), derElement(tags.integer, unsigned(raw.subarray(size))))
}

/** Contents of the INTEGER with this big-endian value, in shortest form. */
function unsigned(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0)
  const digits = first < 0 ? Uint8Array.of(0) : bytes.subarray(first)
  return (digits[0] ?? 0) < 0x80 ? digits : concatBytes(Uint8Array.of(0), digits)
}
