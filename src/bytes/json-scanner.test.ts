import assert from "node:assert/strict"
import { test } from "node:test"
import fc from "fast-check"
import { JsonScanner } from "./json-scanner.ts"
import { encodeUtf8 } from "./text.ts"

function scan(text: string | Uint8Array, pieceBytes = 1): void {
  const bytes = typeof text === "string" ? encodeUtf8(text) : text
  const scanner = new JsonScanner()
  for (let at = 0; at < bytes.length; at += pieceBytes) scanner.push(bytes.slice(at, at + pieceBytes))
  scanner.end()
}

test("JsonScanner takes JSON texts of every kind, however they are cut", () => {
  const texts = [
    "null",
    " true ",
    "false",
    "0",
    "-1.5e+10",
    '""',
    '"a\\u00e9\\n\\"€"',
    "[]",
    "{}",
    "[1,[2,{}],[]]",
    '{"a":{"b":[1,"x"]},"a":1e400}\n',
  ]
  for (const text of texts) for (const piece of [1, 2, 1000]) scan(text, piece)
})

test("JsonScanner takes what JSON.stringify makes and refuses every start of it", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
      const text = JSON.stringify([value])
      scan(text)
      for (let length = 0; length < text.length; length++)
        assert.throws(() => scan(encodeUtf8(text).slice(0, length)), { name: "MalformedError" }, text.substring(0, length))
    }),
    { numRuns: 50, seed: 7 },
  )
})

test("JsonScanner agrees with JSON.parse on texts with a letter changed", () => {
  const base = '{"a":[1,-2.5e3,true,null,"x\\u0041\\n"],"b":{}}'
  const letters = '{}[]",:\\ue0-1+.tn \n'
  for (let at = 0; at < base.length; at++)
    for (const letter of letters) {
      const text = base.substring(0, at) + letter + base.substring(at + 1)
      let expected = true
      try {
        JSON.parse(text)
      } catch {
        expected = false
      }
      if (expected) scan(text, 3)
      else assert.throws(() => scan(text, 3), { code: "malformed" }, text)
    }
})

test("JsonScanner refuses what is no JSON, not UTF-8, too deep or has endless numbers", () => {
  for (const text of [
    "",
    " ",
    "{'a'",
    "[1,]",
    "{,}",
    "01",
    "1.",
    "+1",
    "NaN",
    "[1 2]",
    "{}{}",
    '"\n"',
    '"\\x"',
    '"\\u12g4"',
    "\ufeff1",
    "[}",
    "{]",
    "]",
  ])
    assert.throws(() => scan(text), { code: "malformed" }, text)
  assert.throws(() => scan(Uint8Array.of(0x22, 0xff, 0x22)), { code: "malformed" })
  assert.throws(() => scan(Uint8Array.of(0x22, 0xc3)), { code: "malformed" })
  scan("[".repeat(64) + "]".repeat(64))
  assert.throws(() => scan("[".repeat(65) + "]".repeat(65)), { code: "too-large" })
  assert.throws(() => scan("1".repeat(1025)), { code: "too-large" })
})
