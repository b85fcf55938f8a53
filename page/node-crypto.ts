import { ed25519 } from "@noble/curves/ed25519.js"
import { p256, p384 } from "@noble/curves/nist.js"
import { sha1 } from "@noble/hashes/legacy.js"
import { sha256, sha384, sha512 } from "@noble/hashes/sha2.js"

/**
 * What the page's code calls of `node:crypto`, over audited code in JavaScript, for browsers have no such calls that answer at once. Only what a run certificate needs: SHA-1 and SHA-2, Ed25519, and
 * ECDSA on P-256 and P-384. Everything else throws.
 */

const hashes = { sha1, sha256, sha384, sha512 } as const
type HashName = keyof typeof hashes

export function createHash(name: HashName): { update(part: Uint8Array): unknown; digest(): Uint8Array } {
  return hashes[name].create()
}

export function hash(name: HashName, bytes: Uint8Array): Uint8Array {
  return hashes[name](bytes)
}

export function timingSafeEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.reduce((difference, byte, index) => difference | (byte ^ (b[index] ?? 0)), 0) === 0
}

export const constants = {} as const

export function sign(): never {
  throw new Error("the page signs nothing")
}

/** A public key as the callers look at it. */
interface PublicKey {
  readonly type: "public"
  readonly asymmetricKeyType: "ed25519" | "ec"
  readonly asymmetricKeyDetails: { readonly namedCurve?: string }
  /** Ed25519: 32 bytes; elliptic curves: 04 ‖ x ‖ y. */
  readonly raw: Uint8Array
  export(form: { readonly format: "der" | "jwk" }): Uint8Array | { readonly kty: string; readonly crv: string; readonly x: string }
}

interface Jwk {
  readonly kty: string
  readonly crv: string
  readonly x: string
  readonly y?: string
}

/** RFC 8410: SEQUENCE { SEQUENCE { id-Ed25519 }, BIT STRING }. */
const ed25519Prefix = bytesOf("302a300506032b6570032100")
/** RFC 5480: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING }, up to the point. */
const p256Prefix = bytesOf("3059301306072a8648ce3d020106082a8648ce3d030107034200")

const curves = { prime256v1: { code: p256, bytes: 32 }, secp384r1: { code: p384, bytes: 48 } } as const
type Curve = keyof typeof curves

export function createPublicKey(input: string | { readonly key: Jwk; readonly format: "jwk" }): PublicKey {
  if (typeof input === "string") return keyOfPem(input)
  const { kty, crv, x, y } = input.key
  if (kty === "OKP" && crv === "Ed25519") return edwardsKey(bytesOfBase64Url(x))
  if (kty === "EC" && crv === "P-384" && y !== undefined)
    return curveKey("secp384r1", Uint8Array.of(4, ...bytesOfBase64Url(x), ...bytesOfBase64Url(y)))
  throw new Error(`no key of type ${kty} ${crv} here`)
}

function keyOfPem(pem: string): PublicKey {
  const text = pem.replaceAll(/-----[A-Z ]+-----|\n/g, "")
  const der = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))
  if (der.length !== p256Prefix.length + 65 || !p256Prefix.every((byte, index) => der[index] === byte)) throw new Error("no key that is known here")
  return curveKey("prime256v1", der.slice(p256Prefix.length))
}

function edwardsKey(raw: Uint8Array): PublicKey {
  if (raw.length !== 32) throw new Error("not the length of a key")
  return {
    type: "public",
    asymmetricKeyType: "ed25519",
    asymmetricKeyDetails: {},
    raw,
    export: ({ format }) => (format === "der" ? Uint8Array.of(...ed25519Prefix, ...raw) : { kty: "OKP", crv: "Ed25519", x: base64UrlOf(raw) }),
  }
}

function curveKey(namedCurve: Curve, raw: Uint8Array): PublicKey {
  curves[namedCurve].code.Point.fromBytes(raw).assertValidity()
  return {
    type: "public",
    asymmetricKeyType: "ec",
    asymmetricKeyDetails: { namedCurve },
    raw,
    export: () => {
      throw new Error("keys on elliptic curves are not exported here")
    },
  }
}

export function verify(hashName: HashName | null, message: Uint8Array, key: PublicKey, signature: Uint8Array): boolean {
  try {
    if (hashName === null) return ed25519.verify(signature, message, key.raw, { zip215: false })
    const { code } = curves[key.asymmetricKeyDetails.namedCurve as Curve]
    return code.verify(signature, hashes[hashName](message), key.raw, { format: "der", prehash: false, lowS: false })
  } catch {
    // A signature of another form is none.
    return false
  }
}

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
}

function bytesOfBase64Url(text: string): Uint8Array {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0))
}

function base64UrlOf(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "")
}
