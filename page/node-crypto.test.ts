/** What stands in for node:crypto in a browser says what node:crypto says. */
import assert from "node:assert/strict"
import * as node from "node:crypto"
import { test } from "node:test"
import { Buffer as Stand } from "./buffer.ts"
import { createHash, createPublicKey, hash, timingSafeEqual, verify } from "./node-crypto.ts"

const message = new Uint8Array(node.randomBytes(200))

test("hashes", () => {
  for (const name of ["sha1", "sha256", "sha384", "sha512"] as const) {
    const state = createHash(name)
    state.update(message.subarray(0, 50))
    state.update(message.subarray(50))
    const expected = new Uint8Array(node.createHash(name).update(message).digest())
    assert.deepEqual(new Uint8Array(state.digest()), expected)
    assert.deepEqual(new Uint8Array(hash(name, message)), expected)
  }
})

test("ECDSA on P-256 and P-384, in DER, high and low s: right ones verify, and each flipped bit does not", () => {
  for (const [namedCurve, name] of [
    ["P-256", "sha256"],
    ["P-384", "sha384"],
  ] as const) {
    const { privateKey, publicKey } = node.generateKeyPairSync("ec", { namedCurve })
    const jwk = publicKey.export({ format: "jwk" }) as { kty: string; crv: string; x: string; y: string }
    const pem = String(publicKey.export({ format: "pem", type: "spki" }))
    const key = namedCurve === "P-256" ? createPublicKey(pem) : createPublicKey({ key: jwk, format: "jwk" })
    for (let count = 0; count < 8; count++) {
      const signature = new Uint8Array(node.sign(name, message, privateKey))
      assert.ok(verify(name, message, key, signature))
      assert.ok(!verify(name, message.subarray(1), key, signature))
      for (let bit = 0; bit < signature.length * 8; bit += 37) {
        const flipped = signature.map((byte, index) => (index === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte))
        assert.equal(verify(name, message, key, flipped), node.verify(name, message, publicKey, flipped), `bit ${bit}`)
      }
    }
  }
})

test("Ed25519: the key's forms, right signatures, flipped bits", () => {
  const { privateKey, publicKey } = node.generateKeyPairSync("ed25519")
  const jwk = publicKey.export({ format: "jwk" }) as { kty: string; crv: string; x: string }
  const key = createPublicKey({ key: jwk, format: "jwk" })
  assert.deepEqual(key.export({ format: "jwk" }), jwk)
  assert.deepEqual(new Uint8Array(key.export({ format: "der" }) as Uint8Array), new Uint8Array(publicKey.export({ format: "der", type: "spki" })))
  const signature = new Uint8Array(node.sign(null, message, privateKey))
  assert.ok(verify(null, message, key, signature))
  for (let bit = 0; bit < 512; bit++) {
    const flipped = signature.map((byte, index) => (index === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte))
    assert.ok(!verify(null, message, key, flipped), `bit ${bit}`)
  }
  assert.ok(!verify(null, message, key, signature.subarray(1)))
})

test("keys that are none, and kinds that no certificate has, are refused", () => {
  const { publicKey } = node.generateKeyPairSync("rsa", { modulusLength: 2048 })
  assert.throws(() => createPublicKey(String(publicKey.export({ format: "pem", type: "spki" }))))
  assert.throws(() => createPublicKey({ key: { kty: "EC", crv: "P-384", x: "AAAA", y: "AAAA" }, format: "jwk" }))
  assert.throws(() => createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: "AAAA" }, format: "jwk" }))
  assert.ok(timingSafeEqual(message, message.slice()))
  assert.ok(
    !timingSafeEqual(
      message,
      message.map((byte, index) => (index === 199 ? byte ^ 1 : byte)),
    ),
  )
})

test("text of bytes and back, as lenient as Node's", () => {
  const texts = ["", "00", "0", "0g", "ABcd", "zz", "AAAA", "AAA=", "AA==", "AA", "A", "A===", "AA=A", "-_-_", "+/+/", "AAAAA", "A A A A", "é"]
  for (const encoding of ["hex", "base64", "base64url"] as const) {
    for (const text of texts) {
      const [stand, real] = [Stand.from(text, encoding), Buffer.from(text, encoding)]
      // Callers write what they read back and compare: only what comes back letter for letter counts.
      const back = (bytes: Uint8Array): string => Stand.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength).toString(encoding)
      assert.equal(back(stand) === text, real.toString(encoding) === text, `${encoding} ${text}`)
      if (back(stand) === text) assert.deepEqual(new Uint8Array(stand), new Uint8Array(real))
    }
    const copy = message.slice()
    assert.equal(Stand.from(copy.buffer, 0, copy.length).toString(encoding), Buffer.from(copy).toString(encoding))
  }
  assert.equal(Stand.byteLength("é"), 2)
})
