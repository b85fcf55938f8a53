import assert from "node:assert/strict"
import { constants, generateKeyPairSync, sign } from "node:crypto"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import {
  checkVerificationKey,
  ecPublicKey,
  ed25519PublicKey,
  hash,
  hashSizes,
  isSignatureScheme,
  rsaPublicKey,
  signBytes,
  spkiPublicKey,
  verifySignature,
} from "./signatures.ts"
import type { SignatureScheme } from "./signatures.ts"

const message = encodeUtf8("message")
const other = encodeUtf8("massage")
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const p256 = generateKeyPairSync("ec", { namedCurve: "P-256" })
const p384 = generateKeyPairSync("ec", { namedCurve: "P-384" })
const ed = generateKeyPairSync("ed25519")
const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }

const cases: readonly (readonly [SignatureScheme, typeof rsa, string | null, object])[] = [
  ["rsassa-sha256", rsa, "sha256", {}],
  ["rsassa-sha384", rsa, "sha384", {}],
  ["rsassa-sha512", rsa, "sha512", {}],
  ["rsapss-sha256", rsa, "sha256", pss],
  ["rsapss-sha384", rsa, "sha384", pss],
  ["rsapss-sha512", rsa, "sha512", pss],
  ["ecdsa-sha256", p256, "sha256", {}],
  ["ecdsa-sha384", p384, "sha384", {}],
  ["ecdsa-sha512", p384, "sha512", {}],
  ["ed25519", ed, null, {}],
]

for (const [scheme, pair, algorithm, options] of cases) {
  test(`verifySignature() ${scheme}: accepts the right signature, refuses another message, scheme and key kind`, () => {
    const signature = new Uint8Array(sign(algorithm, message, { key: pair.privateKey, ...options }))
    verifySignature(scheme, pair.publicKey, message, signature)
    assert.throws(() => verifySignature(scheme, pair.publicKey, other, signature), { code: "wrong-signature" })
    for (const [otherScheme, otherPair] of cases) {
      if (otherScheme === scheme) continue
      const code = pair.publicKey.asymmetricKeyType === otherPair.publicKey.asymmetricKeyType ? "wrong-signature" : "wrong-key"
      assert.throws(() => verifySignature(otherScheme, pair.publicKey, message, signature), { code }, otherScheme)
    }
  })
}

test("verifySignature() takes SHA-1 only when told", () => {
  const signature = new Uint8Array(sign("sha1", message, rsa.privateKey))
  assert.throws(() => verifySignature("rsassa-sha1", rsa.publicKey, message, signature), { code: "weak-algorithm" })
  verifySignature("rsassa-sha1", rsa.publicKey, message, signature, { insecureAllowSha1: true })
})

test("verifySignature() keeps the two forms of ECDSA apart", () => {
  const der = new Uint8Array(sign("sha256", message, p256.privateKey))
  const raw = new Uint8Array(sign("sha256", message, { key: p256.privateKey, dsaEncoding: "ieee-p1363" }))
  verifySignature("ecdsa-sha256", p256.publicKey, message, raw, { ecdsa: "raw" })
  assert.throws(() => verifySignature("ecdsa-sha256", p256.publicKey, message, der, { ecdsa: "raw" }), { code: "wrong-signature" })
  assert.throws(() => verifySignature("ecdsa-sha256", p256.publicKey, message, raw), { code: "wrong-signature" })
})

test("signBytes() makes what verifySignature() accepts, with private keys of the right kind only", () => {
  verifySignature("ed25519", ed.publicKey, message, signBytes("ed25519", ed.privateKey, message))
  verifySignature("ecdsa-sha256", p256.publicKey, message, signBytes("ecdsa-sha256", p256.privateKey, message))
  assert.throws(() => signBytes("ed25519", p256.privateKey, message), TypeError)
  assert.throws(() => signBytes("ed25519", ed.publicKey, message), TypeError)
})

test("checkVerificationKey() refuses small RSA, other exponents, curves and kinds", () => {
  for (const pair of [rsa, p256, p384, ed]) checkVerificationKey(pair.publicKey)
  const code = "wrong-key"
  assert.throws(() => checkVerificationKey(generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey), { code })
  assert.throws(() => checkVerificationKey(rsaPublicKey(new Uint8Array(256).fill(0xff), Uint8Array.of(3))), { code })
  assert.throws(() => checkVerificationKey(rsaPublicKey(new Uint8Array(1025).fill(0xff), Uint8Array.of(1, 0, 1))), { code })
  checkVerificationKey(rsaPublicKey(new Uint8Array(1024).fill(0xff), Uint8Array.of(1, 0, 1)))
  assert.throws(() => checkVerificationKey(generateKeyPairSync("ec", { namedCurve: "secp256k1" }).publicKey), { code })
  assert.throws(() => checkVerificationKey(generateKeyPairSync("x25519").publicKey), { code })
  assert.throws(() => verifySignature("rsassa-sha256", generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey, message, message), { code })
})

test("key builders refuse what is no key", () => {
  assert.throws(() => ecPublicKey("P-256", new Uint8Array(32), new Uint8Array(32)), { code: "wrong-key" })
  assert.throws(() => ed25519PublicKey(new Uint8Array(31)), { code: "wrong-key" })
  assert.throws(() => spkiPublicKey(message), { code: "wrong-key" })
  assert.equal(spkiPublicKey(new Uint8Array(ed.publicKey.export({ format: "der", type: "spki" }))).asymmetricKeyType, "ed25519")
})

test("hash() takes parts as one message; sizes are the table's", () => {
  for (const name of ["sha1", "sha256", "sha384", "sha512"] as const) {
    assert.deepEqual(hash(name, message.subarray(0, 3), message.subarray(3)), hash(name, message))
    assert.equal(hash(name, message).length, hashSizes[name])
  }
})

test("isSignatureScheme() knows the table only", () => {
  assert.ok(isSignatureScheme("rsassa-sha256"))
  assert.ok(!isSignatureScheme("rsassa-md5"))
  assert.ok(!isSignatureScheme("toString"))
})
