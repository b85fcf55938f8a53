import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import fc from "fast-check"
import { PerunError } from "../bytes/error.ts"
import { encodeNote, encodeVerifierKey, parseNote, parseVerifierKey, signNote, verifyNote } from "./note.ts"

// The example of golang.org/x/mod/sumdb/note.
const peter = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
const text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
const example = `${text}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n`

const { privateKey, publicKey } = generateKeyPairSync("ed25519")
const raw = new Uint8Array(publicKey.export({ format: "der", type: "spki" }).subarray(-32))
const own = { name: "example.com/log", type: 1, publicKey: raw } as const

test("the published example verifies, and its key's text form is the published one", () => {
  const key = parseVerifierKey(peter)
  assert.equal(encodeVerifierKey(key), peter)
  const note = parseNote(example)
  assert.equal(note.text, text)
  verifyNote(note, key)
  assert.equal(encodeNote(note), example)
})

test("signNote() makes what verifyNote() takes, beside signatures of others", () => {
  const note = parseNote(example)
  const signed = parseNote(encodeNote({ text, signatures: [...note.signatures, signNote(text, own.name, privateKey, raw)] }))
  verifyNote(signed, own)
  verifyNote(signed, parseVerifierKey(peter))
  assert.throws(() => verifyNote(note, own), { code: "wrong-checkpoint" })
})

test("a signature that says it is a known key's and is wrong refuses the note, whatever else is right", () => {
  const good = signNote(text, own.name, privateKey, raw)
  const bad = { ...good, signature: good.signature.map((byte, at) => (at === 5 ? byte ^ 1 : byte)) }
  assert.throws(() => verifyNote({ text, signatures: [good, bad] }, own), { code: "wrong-checkpoint" })
  assert.throws(() => verifyNote({ text, signatures: [] }, own), { code: "wrong-checkpoint" })
  assert.throws(() => verifyNote({ text, signatures: [{ ...good, name: "example.com/other" }] }, own), { code: "wrong-checkpoint" })
  assert.throws(() => verifyNote({ text: `${text}more\n`, signatures: [good] }, own), { code: "wrong-checkpoint" })
})

test("a key's text of another name, id, type or length is refused", () => {
  for (const wrong of [
    peter.replace("PeterNeumann", "Peterneumann"),
    peter.replace("c74f20a3", "c74f20a4"),
    peter.replace("c74f20a3", "C74F20A3"),
    peter.replace("+ARpc", "+AhpC"),
    peter.replace("+c74f20a3", ""),
    peter.slice(0, -4),
    `Peter Neumann${peter.substring(12)}`,
    "",
    "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
  ])
    assert.throws(() => parseVerifierKey(wrong), { code: "malformed" }, wrong)
})

test("notes of another form are refused", () => {
  const line = example.substring(text.length + 1)
  for (const [wrong, code] of [
    ["", "malformed"],
    [text, "malformed"],
    [`${text}\n`, "malformed"],
    [`${text}${line}`, "malformed"],
    [example.slice(0, -1), "truncated"],
    [example.replace("— P", "- P"), "malformed"],
    [example.replace("PeterNeumann", "Peter Neumann"), "malformed"],
    [example.replace("PeterNeumann", "Peter+Neumann"), "malformed"],
    [example.replace("answer", "ans\u0007wer"), "malformed"],
    [example.replace("answer", "ans\rwer"), "malformed"],
    [`${text}\n${line}\n`, "malformed"],
    [`${text}\n— PeterNeumann AAAA\n`, "truncated"],
    [`${text}\n${line.repeat(65)}`, "too-large"],
    [`${"x".repeat(70_000)}\n\n${line}`, "too-large"],
  ] as const)
    assert.throws(() => parseNote(wrong), { code }, JSON.stringify(wrong.substring(0, 60)))
  assert.equal(parseNote(`${text}\n${line.repeat(64)}`).signatures.length, 64)
})

test("every flipped bit and every truncation of the example is refused", () => {
  const key = parseVerifierKey(peter)
  const bytes = Buffer.from(example)
  const refused = (changed: Uint8Array): void =>
    assert.throws(
      () => verifyNote(parseNote(changed), key),
      (error) => error instanceof PerunError,
    )
  for (let length = 0; length < bytes.length; length++) refused(new Uint8Array(bytes.subarray(0, length)))
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const changed = new Uint8Array(bytes)
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    refused(changed)
  }
})

test("whatever comes in, only errors of ours come out", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ unit: "binary" }),
        fc.string().map((more) => `${text}\n— ${more}\n`),
        fc.uint8Array(),
      ),
      (input) => {
        for (const read of [() => parseNote(input), () => parseVerifierKey(String(input))])
          try {
            read()
          } catch (error) {
            assert.ok(error instanceof PerunError, String(error))
          }
      },
    ),
    { numRuns: 5000 },
  )
})
