import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeBase64, encodeUtf8, parseBase64, parseUtf8 } from "../bytes/text.ts"
import { generateHpkeKeyPair, openMessage, sealMessage, type DepositContext } from "./hpke.ts"

const context: DepositContext = { purpose: "deposit", policy: "sha256:p", artifact: "records", manifest: "sha256:m", manager: "1" }
const plaintext = encodeUtf8("AGE-SECRET-KEY-PQ-1")
const pair = await generateHpkeKeyPair()
const sealed = await sealMessage(pair.publicKey, context, plaintext)

test("openMessage() returns what sealMessage() sealed", async () => {
  assert.equal(pair.publicKey.length, 1216)
  assert.equal(pair.privateKey.length, 32)
  assert.equal(parseUtf8(await openMessage(pair.privateKey, context, sealed)), "AGE-SECRET-KEY-PQ-1")
})

for (const [field, value] of Object.entries({ policy: "sha256:q", artifact: "other", manifest: "sha256:n", manager: "2" }))
  test(`openMessage() refuses a message of another ${field}`, async () => {
    await assert.rejects(openMessage(pair.privateKey, { ...context, [field]: value }, sealed), { code: "wrong-message" })
  })

test("openMessage() refuses another purpose in the same words", async () => {
  const release = { purpose: "release", session: "s", policy: "sha256:p", run: "r" } as const
  await assert.rejects(openMessage(pair.privateKey, release, sealed), { code: "wrong-message" })
})

test("openMessage() refuses another key", async () => {
  const other = await generateHpkeKeyPair()
  await assert.rejects(openMessage(other.privateKey, context, sealed), { code: "wrong-message" })
})

test("openMessage() refuses a changed ciphertext and a changed encapsulated key", async () => {
  for (const field of ["ciphertext", "enc"] as const) {
    const bytes = parseBase64(sealed[field])
    bytes[3] = (bytes[3] ?? 0) ^ 1
    await assert.rejects(openMessage(pair.privateKey, context, { ...sealed, [field]: encodeBase64(bytes) }), { code: "wrong-message" })
  }
})

test("openMessage() refuses an encapsulated key that is cut", async () => {
  await assert.rejects(openMessage(pair.privateKey, context, { ...sealed, enc: encodeBase64(new Uint8Array(10)) }), { code: "wrong-message" })
})

test("sealMessage() refuses a public key of a wrong size", async () => {
  await assert.rejects(sealMessage(new Uint8Array(32), context, plaintext), { code: "wrong-message" })
})
