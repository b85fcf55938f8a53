import assert from "node:assert/strict"
import { test } from "node:test"
import { Decrypter, Encrypter, Stanza } from "age-encryption"
import { encodeUtf8, parseUtf8 } from "../bytes/text.ts"
import { encodeAgeHeader, generateFileKey, maxHeaderBytes, openAgeHeader, parseAgeHeader, rewrapHeader } from "./header.ts"
import { generateAgeIdentity, identityKind, recipientKind, recipientOf } from "./keys.ts"
import type { RecipientKind } from "./keys.ts"
import { withCode } from "./test-fixtures.ts"

async function newKey(kind: RecipientKind = "x25519"): Promise<{ identity: string; recipient: string }> {
  const identity = await generateAgeIdentity(kind)
  return { identity, recipient: await recipientOf(identity) }
}

function edit(header: Uint8Array, change: (text: string) => string): Uint8Array {
  return encodeUtf8(change(parseUtf8(header)))
}

for (const kind of ["x25519", "hybrid"] as const) {
  test(`encodeAgeHeader() and openAgeHeader() agree, with each other and with the library (${kind})`, async () => {
    const [a, b] = [await newKey(kind), await newKey(kind)]
    const fileKey = generateFileKey()
    const header = await encodeAgeHeader(fileKey, [a.recipient, b.recipient])
    const parsed = parseAgeHeader(header)
    assert.deepEqual(parsed.bytes, header)
    assert.equal(parsed.stanzas.length, 2)
    for (const { identity } of [a, b]) {
      assert.deepEqual(await openAgeHeader(parsed, identity), fileKey)
      const decrypter = new Decrypter()
      decrypter.addIdentity(identity)
      assert.deepEqual(await decrypter.decryptHeader(header), fileKey)
    }
    await assert.rejects(openAgeHeader(parsed, (await newKey(kind)).identity), withCode("wrong-key"))
  })
}

test("parseAgeHeader() looks at the header only", async () => {
  const header = await encodeAgeHeader(generateFileKey(), [(await newKey()).recipient])
  assert.deepEqual(parseAgeHeader(new Uint8Array([...header, 0, 10, 200])).bytes, header)
})

test("openAgeHeader() allows stanzas of unknown kinds", async () => {
  const { identity, recipient } = await newKey()
  const encrypter = new Encrypter()
  encrypter.addRecipient({
    wrapFileKey: () => [new Stanza(["joint-oiling", "4b", "?"], new Uint8Array(97).fill(3)), new Stanza(["x-grease"], new Uint8Array(48))],
  })
  encrypter.addRecipient(recipient)
  const header = parseAgeHeader(await encrypter.encrypt(new Uint8Array(0)))
  assert.deepEqual(
    header.stanzas.map(({ kind }) => kind),
    ["joint-oiling", "x-grease", "X25519"],
  )
  assert.equal((await openAgeHeader(header, identity)).length, 16)
})

test("openAgeHeader() refuses a header whose MAC is wrong", async () => {
  const { identity, recipient } = await newKey()
  const header = await encodeAgeHeader(generateFileKey(), [recipient])
  const added = edit(header, (text) => text.replace("\n--- ", "\n-> added x\n\n--- "))
  await assert.rejects(openAgeHeader(parseAgeHeader(added), identity), withCode("corrupt"))
  const bent = edit(header, (text) => text.replace(/--- (.)/, (_, first: string) => `--- ${first === "A" ? "B" : "A"}`))
  await assert.rejects(openAgeHeader(parseAgeHeader(bent), identity), withCode("corrupt"))
})

test("parseAgeHeader() refuses damaged headers", async () => {
  const header = await encodeAgeHeader(generateFileKey(), [(await newKey()).recipient])
  const cases: Readonly<Record<string, (text: string) => string>> = {
    "another version": (text) => text.replace("/v1", "/v2"),
    "no stanza": (text) => text.replace(/-> (?:.|\n)*?(?=---)/, ""),
    "empty argument": (text) => text.replace("-> X25519 ", "-> X25519  "),
    "padding in base64": (text) => text.replace(/\n--- (.*)\n/, "\n--- $1=\n"),
    "short MAC": (text) => text.replace(/\n--- .{4}/, "\n--- "),
    "carriage return": (text) => text.replace("\n", "\r\n"),
    "long body line": (text) => text.replace("\n--- ", `\n-> x\n${"A".repeat(68)}\n\n--- `),
    "no marker": (text) => text.replace("\n--- ", "\n-- "),
  }
  for (const [what, change] of Object.entries(cases)) assert.throws(() => parseAgeHeader(edit(header, change)), withCode("malformed"), what)
  for (const length of [0, 5, 30, header.length - 1])
    assert.throws(() => parseAgeHeader(header.subarray(0, length)), withCode("truncated"), `cut to ${length}`)
})

test("parseAgeHeader() refuses headers beyond the size limit", () => {
  const long = encodeUtf8(`age-encryption.org/v1\n${`-> x ${"y".repeat(100)}\n\n`.repeat(maxHeaderBytes / 100)}--- \n`)
  assert.throws(() => parseAgeHeader(long), withCode("too-large"))
  assert.throws(() => parseAgeHeader(encodeUtf8(`age-encryption.org/v1\n-> ${"x".repeat(maxHeaderBytes)}`)), withCode("too-large"))
})

test("kinds of recipients never stand together, in making and in reading", async () => {
  const [classical, hybrid] = [await newKey("x25519"), await newKey("hybrid")]
  await assert.rejects(encodeAgeHeader(generateFileKey(), [classical.recipient, hybrid.recipient]), withCode("unsupported"))
  const encrypter = new Encrypter()
  encrypter.addRecipient(classical.recipient)
  encrypter.addRecipient(hybrid.recipient)
  const mixed = await encrypter.encrypt(new Uint8Array(0))
  assert.throws(() => parseAgeHeader(mixed), withCode("unsupported"))
})

test("parseAgeHeader() refuses passphrases", async () => {
  const encrypter = new Encrypter()
  encrypter.setScryptWorkFactor(2)
  encrypter.setPassphrase("x")
  const file = await encrypter.encrypt(new Uint8Array(0))
  assert.throws(() => parseAgeHeader(file), withCode("unsupported"))
})

test("rewrapHeader() gives the same file key to other recipients", async () => {
  const [from, to] = [await newKey("x25519"), await newKey("hybrid")]
  const fileKey = generateFileKey()
  const header = await encodeAgeHeader(fileKey, [from.recipient])
  const rewrapped = parseAgeHeader(await rewrapHeader(header, from.identity, [to.recipient]))
  assert.deepEqual(await openAgeHeader(rewrapped, to.identity), fileKey)
  await assert.rejects(openAgeHeader(rewrapped, from.identity), withCode("wrong-key"))
  await assert.rejects(rewrapHeader(header, to.identity, [to.recipient]), withCode("wrong-key"))
})

test("keys of another form are refused, and the error does not quote a secret", async () => {
  const { identity, recipient } = await newKey("hybrid")
  assert.equal(identityKind(identity), "hybrid")
  assert.equal(recipientKind(recipient), "hybrid")
  for (const text of ["", "age1", identity, recipient.slice(0, -1), recipient.toUpperCase(), `${recipient}\n`]) {
    assert.throws(() => recipientKind(text), withCode("malformed"))
  }
  const last = identity.endsWith("Q") ? "P" : "Q"
  const mistyped = identity.slice(0, -1) + last
  const header = parseAgeHeader(await encodeAgeHeader(generateFileKey(), [recipient]))
  for (const attempt of [recipientOf(mistyped), openAgeHeader(header, mistyped)]) {
    const error = await attempt.then(
      () => assert.fail("accepted"),
      (reason: unknown) => reason,
    )
    withCode("malformed")(error)
    assert.ok(error instanceof Error && !error.message.includes(mistyped.slice(30, 50)) && error.cause === undefined)
  }
  await assert.rejects(encodeAgeHeader(generateFileKey(), [recipient.slice(0, -1) + (recipient.endsWith("q") ? "p" : "q")]), withCode("malformed"))
})
