import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex, parseHex } from "../../bytes/text.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import { checkAttestationKey, checkEndorsementKey } from "./attestation-key.ts"
import { padStart, publicKeyOf, tpmName } from "./keys.ts"
import { encodePublicArea, encodeSizedPublicArea, parsePublicArea, parseSizedPublicArea } from "./public-area.ts"
import type { KeyedHashPublicArea, ObjectAttribute, PublicArea, RsaPublicArea } from "./public-area.ts"
import { attestationAttributes, endorsementAttributes, makeEccKey, makeRsaKey, without } from "./software-tpm.testing.ts"

const rsa = makeRsaKey().area
const ecc = makeEccKey().area
const aes = { algorithm: "aes", keyBits: 128, mode: "cfb" } as const
const storage: RsaPublicArea = {
  ...without(rsa, "scheme"),
  attributes: new Set(endorsementAttributes),
  symmetric: aes,
  authPolicy: new Uint8Array(32),
}
const sealed: KeyedHashPublicArea = {
  type: "keyedhash",
  nameAlg: "sha256",
  attributes: new Set(["fixedTPM"]),
  authPolicy: new Uint8Array(0),
  unique: new Uint8Array(32).fill(1),
}
const withKdf = { ...ecc, scheme: { scheme: "ecdh", hash: "sha384" }, kdf: { scheme: "kdf1Sp800_56a", hash: "sha256" }, symmetric: aes } as const
const otherForms: readonly PublicArea[] = [
  { ...rsa, scheme: { scheme: "rsapss", hash: "sha512" } },
  { ...storage, scheme: { scheme: "oaep", hash: "sha256" }, symmetric: { ...aes, keyBits: 192 } },
  { ...withKdf, kdf: { scheme: "kdf1Sp800_108", hash: "sha256" }, symmetric: { ...aes, keyBits: 256 } },
]
const areas: readonly PublicArea[] = [rsa, ecc, storage, withKdf, sealed, ...otherForms, { ...sealed, scheme: { scheme: "hmac", hash: "sha256" } }]

testParserLaws({ name: "parsePublicArea", parse: parsePublicArea, encode: encodePublicArea, samples: areas.map(encodePublicArea), fuzzRuns: 500 })
testParserLaws({
  name: "parseSizedPublicArea",
  parse: parseSizedPublicArea,
  encode: encodeSizedPublicArea,
  samples: [encodeSizedPublicArea(ecc)],
  fuzzRuns: 500,
})

test("parsePublicArea() reads each field where the specification puts it", () => {
  const hex = "0001" + "000b" + "00050072" + "0001ff" + "0010" + "0014000b" + "0800" + "00000003" + "0002abcd"
  assert.deepEqual(parsePublicArea(parseHex(hex)), {
    type: "rsa",
    nameAlg: "sha256",
    attributes: new Set(["fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "restricted", "sign"]),
    authPolicy: Uint8Array.of(0xff),
    scheme: { scheme: "rsassa", hash: "sha256" },
    keyBits: 2048,
    exponent: 3,
    unique: Uint8Array.of(0xab, 0xcd),
  })
})

/** Fields as TPM 2.0 Library Part 2, 12.2.4, puts them. */
const written: readonly (readonly [string, string])[] = [
  ["an RSA storage key", "0001" + "000b" + "00030072" + "0000" + "0006" + "0080" + "0043" + "0010" + "0800" + "00000000" + "0002abcd"],
  [
    "an ECC key with a derivation",
    "0023" + "000c" + "00030072" + "0001ff" + "0006" + "0100" + "0043" + "0019000c" + "0004" + "0020000b" + "0001aa" + "0001bb",
  ],
  ["an ECC signing key", "0023" + "000b" + "00050072" + "0000" + "0010" + "0018000b" + "0003" + "0010" + "0001aa" + "0001bb"],
  ["an HMAC key", "0008" + "000b" + "00040072" + "0000" + "0005000b" + "0002abcd"],
  ["sealed data", "0008" + "000b" + "00000012" + "0000" + "0010" + "0002abcd"],
]
for (const [what, hex] of written)
  test(`encodePublicArea() writes each field of ${what} where the specification puts it`, () => {
    assert.equal(encodeHex(encodePublicArea(parsePublicArea(parseHex(hex)))), hex)
  })

test("parseSizedPublicArea() refuses a byte behind the area that the size takes in", () => {
  const area = encodePublicArea(ecc)
  assert.throws(() => parseSizedPublicArea(concatBytes(Uint8Array.of(0, area.length + 1), area, Uint8Array.of(0))), { code: "trailing-bytes" })
})

test("parsePublicArea() refuses reserved attribute bits, other types, ciphers, schemes, curves and hashes", () => {
  const refuses = (hex: string, code: string): void => assert.throws(() => parsePublicArea(parseHex(hex)), { code }, hex)
  for (const bits of ["00000001", "00000008", "00001000", "00100000", "80000000"]) refuses(`0008000b${bits}0000` + "0010" + "0000", "malformed")
  refuses("0025000b000000000000", "unsupported")
  refuses("00010012000000000000", "unsupported")
  refuses("0001000b000000000000" + "00060080" + "0042", "unsupported")
  refuses("0001000b000000000000" + "00060060" + "0043", "unsupported")
  refuses("0001000b000000000000" + "0013", "unsupported")
  refuses("0001000b000000000000" + "0010" + "0018000b", "unsupported")
  refuses("0023000b000000000000" + "0010" + "0018000b" + "0005", "unsupported")
  refuses("0001000b000000000000" + "0010" + "00140012", "unsupported")
})

test("parsePublicArea() caps its byte strings", () => {
  const refuses = (area: PublicArea): void => assert.throws(() => parsePublicArea(encodePublicArea(area)), { code: "too-large" })
  parsePublicArea(encodePublicArea({ ...rsa, unique: new Uint8Array(512), authPolicy: new Uint8Array(64) }))
  parsePublicArea(encodePublicArea({ ...ecc, x: new Uint8Array(66), y: new Uint8Array(66) }))
  refuses({ ...rsa, unique: new Uint8Array(513) })
  refuses({ ...rsa, authPolicy: new Uint8Array(65) })
  refuses({ ...ecc, x: new Uint8Array(67) })
  refuses({ ...ecc, y: new Uint8Array(67) })
  refuses({ ...sealed, unique: new Uint8Array(65) })
})

test("tpmName() is the name algorithm and the digest of the public area", () => {
  const digest = createHash("sha384")
    .update(encodePublicArea({ ...rsa, nameAlg: "sha384" }))
    .digest("hex")
  assert.equal(encodeHex(tpmName({ ...rsa, nameAlg: "sha384" })), `000c${digest}`)
})

test("publicKeyOf() gives the key and refuses what is none", () => {
  assert.equal(publicKeyOf(rsa).asymmetricKeyType, "rsa")
  assert.equal(publicKeyOf({ ...rsa, exponent: 65537 }).asymmetricKeyType, "rsa")
  assert.throws(() => publicKeyOf({ ...rsa, exponent: 3 }), { code: "wrong-key" })
  assert.throws(() => publicKeyOf({ ...rsa, keyBits: 3072 }), { code: "wrong-key" })
  assert.throws(() => publicKeyOf({ ...rsa, unique: new Uint8Array(0) }), { code: "wrong-key" })
  assert.throws(() => publicKeyOf({ ...ecc, x: ecc.y }), { code: "wrong-key" })
  assert.throws(() => publicKeyOf(sealed), { code: "wrong-key" })
})

test("padStart() widens, strips leading zeros only, and refuses what does not fit", () => {
  assert.deepEqual(padStart(Uint8Array.of(1), 2), Uint8Array.of(0, 1))
  assert.deepEqual(padStart(Uint8Array.of(0, 0, 1), 2), Uint8Array.of(0, 1))
  for (const number of [
    [1, 0, 1],
    [1, 0, 0, 1],
    [0, 1, 0, 1],
  ])
    // prettier-ignore
    assert.throws(() => padStart(Uint8Array.from(number), 2), { code: "wrong-key" })
})

function withAttributes<Area extends PublicArea>(
  area: Area,
  base: readonly ObjectAttribute[],
  change: { set?: ObjectAttribute; clear?: ObjectAttribute },
): Area {
  const attributes = new Set(base.filter((name) => name !== change.clear))
  if (change.set !== undefined) attributes.add(change.set)
  return { ...area, attributes }
}

test("checkAttestationKey() accepts RSA and ECC keys that fit", () => {
  assert.equal(checkAttestationKey(rsa).asymmetricKeyType, "rsa")
  assert.equal(checkAttestationKey(ecc).asymmetricKeyType, "ec")
})

for (const attribute of ["fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign"] as const) {
  test(`checkAttestationKey() refuses a key without ${attribute}`, () => {
    assert.throws(() => checkAttestationKey(withAttributes(rsa, attestationAttributes, { clear: attribute })), { code: "wrong-key" })
  })
}
for (const attribute of ["decrypt", "encryptedDuplication", "x509sign"] as const) {
  test(`checkAttestationKey() refuses a key with ${attribute}`, () => {
    assert.throws(() => checkAttestationKey(withAttributes(rsa, attestationAttributes, { set: attribute })), { code: "wrong-key" })
  })
}

test("checkAttestationKey() refuses SHA-1 names, small keys, keys without a scheme, with a cipher, and other kinds", () => {
  assert.throws(() => checkAttestationKey({ ...rsa, nameAlg: "sha1" }), { code: "weak-algorithm" })
  assert.throws(() => checkAttestationKey(makeRsaKey({}, 1024).area), { code: "wrong-key" })
  assert.throws(() => checkAttestationKey(without(rsa, "scheme")), { code: "wrong-key" })
  assert.throws(() => checkAttestationKey(without(ecc, "scheme")), { code: "wrong-key" })
  assert.throws(() => checkAttestationKey({ ...rsa, symmetric: aes }), { code: "wrong-key" })
  assert.throws(() => checkAttestationKey({ ...rsa, exponent: 3 }), { code: "wrong-key" })
  assert.throws(() => checkAttestationKey({ ...ecc, y: ecc.x }), { code: "wrong-key" })
  assert.throws(() => checkAttestationKey({ ...sealed, attributes: new Set(attestationAttributes) }), { code: "wrong-key" })
})

test("checkEndorsementKey() accepts a storage key that fits", () => {
  assert.equal(checkEndorsementKey(storage).asymmetricKeyType, "rsa")
})

for (const attribute of ["fixedTPM", "fixedParent", "sensitiveDataOrigin", "adminWithPolicy", "restricted", "decrypt"] as const) {
  test(`checkEndorsementKey() refuses a key without ${attribute}`, () => {
    assert.throws(() => checkEndorsementKey(withAttributes(storage, endorsementAttributes, { clear: attribute })), { code: "wrong-key" })
  })
}
for (const attribute of ["sign", "encryptedDuplication"] as const) {
  test(`checkEndorsementKey() refuses a key with ${attribute}`, () => {
    assert.throws(() => checkEndorsementKey(withAttributes(storage, endorsementAttributes, { set: attribute })), { code: "wrong-key" })
  })
}

test("checkEndorsementKey() refuses a key without a cipher and SHA-1 names", () => {
  assert.throws(() => checkEndorsementKey(without(storage, "symmetric")), { code: "wrong-key" })
  assert.throws(() => checkEndorsementKey({ ...storage, nameAlg: "sha1" }), { code: "weak-algorithm" })
})
