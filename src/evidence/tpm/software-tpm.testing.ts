import { constants, generateKeyPairSync, sign } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { concatBytes } from "../../bytes/compare.ts"
import { ByteReader } from "../../bytes/reader.ts"
import { parseBase64Url, parseHex } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { encodeAttest, encodeTpmSignature } from "./format.ts"
import type { Attest, PcrSelection } from "./format.ts"
import type { EccPublicArea, ObjectAttribute, RsaPublicArea } from "./public-area.ts"
import type { PcrValues } from "./quote.ts"

/** A laboratory device for tests: a key that signs whatever it is told to, which no TPM would. */

export const attestationAttributes: readonly ObjectAttribute[] = [
  "fixedTPM",
  "fixedParent",
  "sensitiveDataOrigin",
  "userWithAuth",
  "restricted",
  "sign",
]
export const endorsementAttributes: readonly ObjectAttribute[] = [
  "fixedTPM",
  "fixedParent",
  "sensitiveDataOrigin",
  "adminWithPolicy",
  "restricted",
  "decrypt",
]

export interface SoftwareKey<Area> {
  readonly area: Area
  readonly privateKey: KeyObject
}

export function makeRsaKey(overrides: Partial<RsaPublicArea> = {}, bits = 2048): SoftwareKey<RsaPublicArea> {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: bits })
  const area: RsaPublicArea = {
    type: "rsa",
    nameAlg: "sha256",
    attributes: new Set(attestationAttributes),
    authPolicy: new Uint8Array(0),
    scheme: { scheme: "rsassa", hash: "sha256" },
    keyBits: bits,
    exponent: 0,
    unique: parseBase64Url(publicKey.export({ format: "jwk" }).n ?? ""),
    ...overrides,
  }
  return { area, privateKey }
}

export function makeEccKey(overrides: Partial<EccPublicArea> = {}): SoftwareKey<EccPublicArea> {
  const curve = overrides.curve ?? "P-256"
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: curve })
  const jwk = publicKey.export({ format: "jwk" })
  const area: EccPublicArea = {
    type: "ecc",
    nameAlg: "sha256",
    attributes: new Set(attestationAttributes),
    authPolicy: new Uint8Array(0),
    scheme: { scheme: "ecdsa", hash: "sha256" },
    curve,
    x: parseBase64Url(jwk.x ?? ""),
    y: parseBase64Url(jwk.y ?? ""),
    ...overrides,
  }
  return { area, privateKey }
}

/** A copy of an area without one optional member (exactOptionalPropertyTypes forbids undefined). */
export function without<Area extends object, Key extends keyof Area>(area: Area, key: Key): Omit<Area, Key> {
  const { [key]: _, ...rest } = area
  return rest
}

export interface QuoteOptions {
  readonly extraData: Uint8Array
  readonly pcrs: PcrValues
  /** Hash for pcrDigest and signature. */
  readonly hash?: HashName
  readonly algorithm?: "rsassa" | "rsapss" | "ecdsa"
  /** Parts of the signed structure to replace. */
  readonly attest?: Partial<Attest>
}

/** TPMS_ATTEST and TPMT_SIGNATURE over the given registers. */
export function makeQuote(key: SoftwareKey<RsaPublicArea | EccPublicArea>, options: QuoteOptions): { attest: Uint8Array; signature: Uint8Array } {
  const algorithm = options.hash ?? "sha256"
  const selection = [...options.pcrs].map(([bank, values]): PcrSelection => ({ bank: bankOf(bank), pcrs: [...values.keys()] }))
  const attest = encodeAttest({
    qualifiedSigner: concatBytes(Uint8Array.of(0, 0x0b), new Uint8Array(32)),
    extraData: options.extraData,
    clockInfo: { clock: 1000n, resetCount: 1, restartCount: 0, safe: true },
    firmwareVersion: 0x20191023n,
    attested: {
      type: "quote",
      selection,
      pcrDigest: hash(algorithm, ...[...options.pcrs.values()].flatMap((values) => [...values.values()].map((value) => parseHex(value)))),
    },
    ...options.attest,
  })
  return { attest, signature: signAttest(key, attest, algorithm, options.algorithm) }
}

/** TPMT_SIGNATURE over any bytes. */
export function signAttest(
  key: SoftwareKey<RsaPublicArea | EccPublicArea>,
  attest: Uint8Array,
  algorithm: HashName = "sha256",
  scheme: "rsassa" | "rsapss" | "ecdsa" = key.area.type === "rsa" ? "rsassa" : "ecdsa",
): Uint8Array {
  if (scheme === "ecdsa") {
    const raw = new ByteReader("signature", new Uint8Array(sign(algorithm, attest, { key: key.privateKey, dsaEncoding: "ieee-p1363" })))
    const size = raw.remaining / 2
    return encodeTpmSignature({ algorithm: scheme, hash: algorithm, r: raw.bytes(size, "r"), s: raw.bytes(size, "s") })
  }
  const padding =
    scheme === "rsassa"
      ? { padding: constants.RSA_PKCS1_PADDING }
      : { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
  return encodeTpmSignature({
    algorithm: scheme,
    hash: algorithm,
    signature: new Uint8Array(sign(algorithm, attest, { key: key.privateKey, ...padding })),
  })
}

function bankOf(name: string): PcrSelection["bank"] {
  if (name === "sha1" || name === "sha256" || name === "sha384" || name === "sha512") return name
  throw new TypeError(`no bank ${name}`)
}
