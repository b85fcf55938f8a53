import type { HashName } from "../../pki/signatures.ts"

/** TPM_ALG_ID values that this program names. TPM 2.0 Library Part 2, 6.3 and the TCG Algorithm Registry. */
export const algorithmIds = {
  rsa: 0x0001,
  sha1: 0x0004,
  hmac: 0x0005,
  aes: 0x0006,
  keyedhash: 0x0008,
  xor: 0x000a,
  sha256: 0x000b,
  sha384: 0x000c,
  sha512: 0x000d,
  null: 0x0010,
  sm3_256: 0x0012,
  rsassa: 0x0014,
  rsaes: 0x0015,
  rsapss: 0x0016,
  oaep: 0x0017,
  ecdsa: 0x0018,
  ecdh: 0x0019,
  kdf1Sp800_56a: 0x0020,
  kdf1Sp800_108: 0x0022,
  ecc: 0x0023,
  symcipher: 0x0025,
  "sha3-256": 0x0027,
  "sha3-384": 0x0028,
  "sha3-512": 0x0029,
  cfb: 0x0043,
} as const

export type AlgorithmName = keyof typeof algorithmIds

const names: ReadonlyMap<number, AlgorithmName> = new Map(
  (Object.keys(algorithmIds) as AlgorithmName[]).map((name) => [algorithmIds[name], name] as const),
)

/** Name of an algorithm, undefined where the number is not in the table. */
export function algorithmName(id: number): AlgorithmName | undefined {
  return names.get(id)
}

/** Number of an algorithm by name. */
export function algorithmId(name: AlgorithmName): number {
  return algorithmIds[name]
}

/** Hashes that a PCR bank may use; only those that are HashName can be computed here. */
const bankNames = ["sha1", "sha256", "sha384", "sha512", "sm3_256", "sha3-256", "sha3-384", "sha3-512"] as const

export type BankName = (typeof bankNames)[number]

export function isBankName(name: string | undefined): name is BankName {
  return bankNames.some((bank) => bank === name)
}

export function isHashName(name: string | undefined): name is HashName {
  return name === "sha1" || name === "sha256" || name === "sha384" || name === "sha512"
}

/** TPM_ECC_CURVE values that keys may use, with the field size in bytes. TPM 2.0 Library Part 2, 6.4. */
export const curves = {
  "P-256": { id: 0x0003, fieldBytes: 32 },
  "P-384": { id: 0x0004, fieldBytes: 48 },
} as const

export type CurveName = keyof typeof curves

export function curveName(id: number): CurveName | undefined {
  return (Object.keys(curves) as CurveName[]).find((name) => curves[name].id === id)
}
