import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import { seededRandom } from "../testing/parser-laws.ts"
import { PerunError } from "../../bytes/error.ts"
import { binaryFromAscii } from "./ascii.ts"
import { parseImaList } from "./format.ts"
import { digestField, fields, file, makeList, nameField, signedFile, violation } from "./list-builder.testing.ts"
import type { EntryInput } from "./list-builder.testing.ts"

const digest = hash("sha256", encodeUtf8("x"))
const sha1 = hash("sha1", encodeUtf8("x"))
const legacyData = Uint8Array.from([...sha1, 6, 0, 0, 0, ...encodeUtf8("/init ")])
const samples: readonly (readonly [EntryInput, string])[] = [
  [file("/with two  spaces", "x"), `ima-ng sha256:${encodeHex(digest)} /with two  spaces`],
  [signedFile("/bin/a b", digest, Uint8Array.of(3, 2, 4)), `ima-sig sha256:${encodeHex(digest)} /bin/a b 030204`],
  [signedFile("boot_aggregate", digest, new Uint8Array(0)), `ima-sig sha256:${encodeHex(digest)} boot_aggregate `],
  [
    { template: "ima-sigv2", data: fields(digestField("verity:sha256", digest), nameField("/v"), new Uint8Array(0)) },
    `ima-sigv2 verity:sha256:${encodeHex(digest)} /v `,
  ],
  [
    { template: "ima-buf", data: fields(digestField("sha256", digest), nameField(".ima"), Uint8Array.of(0x30)) },
    `ima-buf sha256:${encodeHex(digest)} .ima 30`,
  ],
  [{ template: "ima", data: legacyData }, `ima ${encodeHex(sha1)} /init `],
  [{ template: "d|n-ng", data: fields(sha1, nameField("/old")) }, `d|n-ng ${encodeHex(sha1)} /old`],
]

test("binaryFromAscii() gives the binary form of each template", () => {
  const list = makeList(samples.map(([input]) => input))
  const digests = parseImaList(list).map((record) => encodeHex(record.templateDigest))
  const lines = samples.map(([, text], index) => `10 ${digests[index] ?? ""} ${text}`)
  assert.equal(encodeHex(binaryFromAscii(`${lines.join("\n")}\n`)), encodeHex(list))
  assert.equal(encodeHex(binaryFromAscii(lines.join("\n"))), encodeHex(list))
})

test("binaryFromAscii() reads violations and one-digit registers", () => {
  const list = makeList([{ ...violation("/x"), pcr: 9 }])
  assert.equal(encodeHex(binaryFromAscii(` 9 ${"00".repeat(20)} ima-ng sha256:${"00".repeat(32)} /x`)), encodeHex(list))
})

const zero = "00".repeat(20)
const wrong: readonly (readonly [string, string])[] = [
  ["an empty line", ""],
  ["a short template digest", `10 ${"00".repeat(19)} ima-ng sha1:${zero} /x`],
  ["no fields", `10 ${zero} ima-ng `],
  ["no name", `10 ${zero} ima-ng sha1:${zero}`],
  ["no third field", `10 ${zero} ima-sig sha1:${zero} /x`],
  ["digits that are none", `10 ${zero} ima-ng sha1:xyz /x`],
  ["a signature that is none", `10 ${zero} ima-sig sha1:${zero} /x 0`],
  ["an unknown template", `10 ${zero} ima-xyz sha1:${zero} /x`],
  ["a template of four fields", `10 ${zero} evm-sig sha1:${zero} /x 00`],
  ["something in front of the register", `x10 ${zero} ima-ng sha1:${zero} /x`],
  ["a carriage return behind", `10 ${zero} ima-ng sha1:${zero} /x\r`],
  ["a space in place of the digest", `10 ${zero} d|n-ng  /x`],
  ["a third field only", `10 ${zero} ima-sig sha1:${zero} 00`],
  ["a template of five fields", `10 ${zero} ima-modsig sha1:${zero} /x 00`],
  ["a third field without a text form here", `10 ${zero} d-ng|n-ng|evmsig sha1:${zero} /x 00`],
  ["a field without a text form here", `10 ${zero} d-ng|modsig sha1:${zero} 00`],
]
for (const [what, line] of wrong)
  test(`binaryFromAscii() refuses ${what}`, () => {
    assert.throws(() => binaryFromAscii(line), { code: "malformed" })
  })

test("binaryFromAscii() lets only our own errors out", () => {
  const text = samples.map(([, line]) => `10 ${zero} ${line}`).join("\n")
  const random = seededRandom(7)
  for (let run = 0; run < 3000; run++) {
    const at = random(text.length)
    const variant = text.substring(0, at) + String.fromCharCode(random(256)) + text.substring(at + random(4))
    try {
      binaryFromAscii(variant)
    } catch (error) {
      assert.ok(error instanceof PerunError, String(error))
    }
  }
})
