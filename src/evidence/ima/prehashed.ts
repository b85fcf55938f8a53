import { constants, publicDecrypt } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { bytesEqual, concatBytes } from "../../bytes/compare.ts"
import { MalformedError } from "../../bytes/error.ts"
import { readAll } from "../../bytes/reader.ts"
import type { ByteReader } from "../../bytes/reader.ts"
import { encodeHex, parseBase64Url, parseHex } from "../../bytes/text.ts"
import type { HashName } from "../../pki/signatures.ts"

/**
 * Signatures over a digest that someone else computed: IMA lists hold digests of files, never the files, and node:crypto hashes what it verifies. RSA
 * goes through its public operation, ECDSA is computed here (FIPS 186-5 §6.4.2); everything is public, so time does not matter.
 */
export type PrehashedOutcome = "right" | "wrong" | "unfit-key"

/** RSASSA-PKCS1-v1_5 (RFC 8017 §8.2.2) or ECDSA with a DER signature, by the kind of the key. */
export function checkPrehashed(key: KeyObject, hashName: HashName, digest: Uint8Array, signature: Uint8Array): PrehashedOutcome {
  switch (key.asymmetricKeyType) {
    case "rsa":
      return checkRsa(key, hashName, digest, signature)
    case "ec":
      return checkEcdsa(key, digest, signature)
    default:
      return "unfit-key"
  }
}

function checkRsa(key: KeyObject, hashName: HashName, digest: Uint8Array, signature: Uint8Array): PrehashedOutcome {
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
  if (bits < minimumRsaBits || bits > maximumRsaBits) return "unfit-key"
  if (signature.length !== Math.ceil(bits / 8)) return "wrong"
  try {
    const recovered = publicDecrypt({ key, padding: constants.RSA_PKCS1_PADDING }, signature)
    return bytesEqual(recovered, concatBytes(parseHex(digestInfoPrefixes[hashName]), digest)) ? "right" : "wrong"
  } catch {
    // OpenSSL throws for a value beyond the modulus and for bad padding: both mean that this key did not sign.
    return "wrong"
  }
}

interface Curve {
  readonly p: bigint
  readonly a: bigint
  readonly order: bigint
  readonly generator: Point
  readonly bits: number
}

/** Jacobian coordinates; affine ones with z = 1. */
interface Point {
  readonly x: bigint
  readonly y: bigint
  readonly z: bigint
}

const infinity: Point = { x: 1n, y: 1n, z: 0n }

function checkEcdsa(key: KeyObject, digest: Uint8Array, signature: Uint8Array): PrehashedOutcome {
  const curve = curves.get(key.asymmetricKeyDetails?.namedCurve ?? "")
  if (curve === undefined) return "unfit-key"
  const rs = parseEcdsaSignature(signature)
  if (rs === undefined || rs.r <= 0n || rs.r >= curve.order || rs.s <= 0n || rs.s >= curve.order) return "wrong"
  const hashBits = digest.length * 8
  const e = hashBits > curve.bits ? integer(digest) >> BigInt(hashBits - curve.bits) : integer(digest)
  const w = inverse(rs.s, curve.order)
  const sum = addMultiples(curve, modulo(e * w, curve.order), publicPoint(key), modulo(rs.r * w, curve.order))
  if (sum.z === 0n) return "wrong"
  const x = sum.x * inverse(sum.z * sum.z, curve.p)
  return modulo(modulo(x, curve.p), curve.order) === rs.r ? "right" : "wrong"
}

function publicPoint(key: KeyObject): Point {
  const { x = "", y = "" } = key.export({ format: "jwk" })
  return { x: integer(parseBase64Url(x)), y: integer(parseBase64Url(y)), z: 1n }
}

/** SEQUENCE of two INTEGERs, RFC 3279 §2.2.3. */
function parseEcdsaSignature(signature: Uint8Array): { readonly r: bigint; readonly s: bigint } | undefined {
  try {
    return readAll("ECDSA-Sig-Value", signature, (reader) => {
      const sequence = readDer(reader, 0x30, "sequence")
      const values = { r: integer(readDer(sequence, 0x02, "r").rest("r")), s: integer(readDer(sequence, 0x02, "s").rest("s")) }
      sequence.finish()
      return values
    })
  } catch (error) {
    if (error instanceof MalformedError) return undefined
    throw error
  }
}

/** Contents of one DER element of the given tag, definite length. @throws {MalformedError} */
export function readDer(reader: ByteReader, tag: number, field: string): ByteReader {
  const found = reader.u8(field)
  if (found !== tag) throw reader.error("malformed", field, `DER tag 0x${found.toString(16)}, expected 0x${tag.toString(16)}`)
  return reader.sub(readDerLength(reader, field), field)
}

/** @throws {MalformedError} for indefinite and over-long lengths */
export function readDerLength(reader: ByteReader, field: string): number {
  const first = reader.u8(field)
  if (first < 0x80) return first
  const count = first - 0x80
  if (count === 0 || count > 3) throw reader.error("malformed", field, "indefinite or oversized DER length")
  let length = 0
  for (let place = 0; place < count; place++) length = length * 256 + reader.u8(field)
  return length
}

/** a·G + b·Q, bit by bit over both factors at once. */
function addMultiples(curve: Curve, a: bigint, q: Point, b: bigint): Point {
  const both = addPoints(curve, curve.generator, q)
  let result = infinity
  for (let bit = BigInt(curve.bits) - 1n; bit >= 0n; bit--) {
    result = doublePoint(curve, result)
    const [inA, inB] = [(a >> bit) & 1n, (b >> bit) & 1n]
    if (inA === 1n || inB === 1n) result = addPoints(curve, result, inA === 0n ? q : inB === 0n ? curve.generator : both)
  }
  return result
}

/** In Jacobian coordinates: x/z² and y/z³ are the affine ones, z is zero at infinity. IEEE P1363 A.10.4. */
function doublePoint({ p, a }: Curve, { x, y, z }: Point): Point {
  if (y === 0n || z === 0n) return infinity
  const yy = modulo(y * y, p)
  const zz = modulo(z * z, p)
  const s = modulo(4n * x * yy, p)
  const m = modulo(3n * x * x + a * zz * zz, p)
  const doubledX = modulo(m * m - 2n * s, p)
  return { x: doubledX, y: modulo(m * (s - doubledX) - 8n * yy * yy, p), z: modulo(2n * y * z, p) }
}

/** IEEE P1363 A.10.5. */
function addPoints(curve: Curve, one: Point, two: Point): Point {
  const { p } = curve
  if (one.z === 0n) return two
  if (two.z === 0n) return one
  const [zz1, zz2] = [modulo(one.z * one.z, p), modulo(two.z * two.z, p)]
  const [u1, u2] = [modulo(one.x * zz2, p), modulo(two.x * zz1, p)]
  const [s1, s2] = [modulo(one.y * zz2 * two.z, p), modulo(two.y * zz1 * one.z, p)]
  if (u1 === u2) return s1 === s2 ? doublePoint(curve, one) : infinity
  const h = u2 - u1
  const r = s2 - s1
  const hh = modulo(h * h, p)
  const v = modulo(u1 * hh, p)
  const hhh = modulo(h * hh, p)
  const x = modulo(r * r - hhh - 2n * v, p)
  return { x, y: modulo(r * (v - x) - s1 * hhh, p), z: modulo(h * one.z * two.z, p) }
}

/** Inverse modulo a prime, by the extended Euclidean algorithm. */
function inverse(value: bigint, prime: bigint): bigint {
  let [low, high] = [modulo(value, prime), prime]
  let [factor, previous] = [1n, 0n]
  while (low > 1n) {
    const quotient = high / low
    ;[low, high] = [high - quotient * low, low]
    ;[factor, previous] = [previous - quotient * factor, factor]
  }
  return modulo(factor, prime)
}

function modulo(value: bigint, modulus: bigint): bigint {
  const rest = value % modulus
  return rest < 0n ? rest + modulus : rest
}

function integer(bytes: Uint8Array): bigint {
  return bytes.length === 0 ? 0n : BigInt(`0x${encodeHex(bytes)}`)
}

const minimumRsaBits = 2048
const maximumRsaBits = 8192

/** DigestInfo up to the digest, RFC 8017 §9.2 note 1. */
const digestInfoPrefixes: Readonly<Record<HashName, string>> = {
  sha1: "3021300906052b0e03021a05000414",
  sha256: "3031300d060960864801650304020105000420",
  sha384: "3041300d060960864801650304020205000430",
  sha512: "3051300d060960864801650304020305000440",
}

/** SP 800-186 §3.2.1 (P-256, P-384, P-521) and SEC 2 §2.4.1 (secp256k1), by the names of OpenSSL. */
const curves: ReadonlyMap<string, Curve> = new Map([
  [
    "prime256v1",
    {
      bits: 256,
      p: 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn,
      a: -3n,
      order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
      generator: {
        x: 0x6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296n,
        y: 0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5n,
        z: 1n,
      },
    },
  ],
  [
    "secp384r1",
    {
      bits: 384,
      p: 0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffffn,
      a: -3n,
      order: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
      generator: {
        x: 0xaa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7n,
        y: 0x3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5fn,
        z: 1n,
      },
    },
  ],
  [
    "secp521r1",
    {
      bits: 521,
      p: 0x01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffn,
      a: -3n,
      order: 0x01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409n,
      generator: {
        x: 0x00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66n,
        y: 0x011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd16650n,
        z: 1n,
      },
    },
  ],
  [
    "secp256k1",
    {
      bits: 256,
      p: 0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2fn,
      a: 0n,
      order: 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n,
      generator: {
        x: 0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n,
        y: 0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n,
        z: 1n,
      },
    },
  ],
])
