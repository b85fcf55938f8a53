import assert from "node:assert/strict"
import { test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { assertRefuses, testParserLaws } from "../testing/parser-laws.ts"
import { encodeTdxQuote, encodeTdxSignedPart, parseTdxQuote } from "./format.ts"

const authority = makeLabAuthority({ keys: makeLabKeys() })
const reportData = Uint8Array.from({ length: 64 }, (_, at) => at)
const certification = (): { readonly type: number; readonly data: Uint8Array } => ({ type: 1, data: new Uint8Array(36) })
const quote4 = makeTdxQuote(authority, reportData, { certification })
const quote5 = makeTdxQuote(authority, reportData, { version: 5, body: "1.0", certification })
const quote15 = makeTdxQuote(authority, reportData, { version: 5, body: "1.5", certification })
const padded = makeTdxQuote(authority, reportData, { certification, trailingBytes: 70 })
const samples = [quote4, quote5, quote15]

testParserLaws({ name: "parseTdxQuote", parse: parseTdxQuote, samples, encode: encodeTdxQuote, refusesTrailing: false })

test("parseTdxQuote() counts zero bytes behind the quote and refuses others", () => {
  assert.equal(parseTdxQuote(padded).trailingBytes, 70)
  assert.deepEqual(encodeTdxQuote(parseTdxQuote(padded)), padded)
  for (const tail of [[1], [0, 0, 1], [0xff], [1, 0, 0]])
    assertRefuses(() => parseTdxQuote(Uint8Array.from([...quote4, ...tail])), `tail ${tail.join()}`, "trailing-bytes")
  assertRefuses(() => parseTdxQuote(new Uint8Array(65_537)), "64 KiB and one", "too-large")
  assertRefuses(() => parseTdxQuote(new Uint8Array(65_536)), "64 KiB", "unsupported")
})

function patched(quote: Uint8Array, at: number, ...bytes: readonly number[]): Uint8Array {
  const copy = Uint8Array.from(quote)
  copy.set(bytes, at)
  return copy
}

const wrapper = 48 + 584 + 4 + 128
const refusals: readonly (readonly [what: string, quote: Uint8Array, at: number, bytes: readonly number[], code: string])[] = [
  ["version 3", quote4, 0, [3], "unsupported"],
  ["version 6", quote4, 0, [6], "unsupported"],
  ["attestation key type 3", quote4, 2, [3], "unsupported"],
  ["TEE type SGX", quote4, 4, [0], "unsupported"],
  ["TEE type SGX in version 5", quote15, 4, [0], "unsupported"],
  ["an unknown TEE type", quote4, 4, [0x82], "unsupported"],
  ["reserved bytes 8 and 9", quote4, 8, [1], "malformed"],
  ["reserved bytes 10 and 11", quote4, 11, [1], "malformed"],
  ["another vendor", quote4, 27, [0], "unsupported"],
  ["an SGX body", quote15, 48, [1], "unsupported"],
  ["an unknown body", quote15, 48, [4], "unsupported"],
  ["a body of another type than its size", quote15, 48, [2], "malformed"],
  ["a body size of 649", quote15, 50, [0x89], "malformed"],
  ["certification data that is not wrapped", quote4, wrapper, [5], "unsupported"],
  ["a wrapper that is one byte longer", quote4, wrapper + 2, [((quote4[wrapper + 2] ?? 0) + 1) % 256], "truncated"],
  ["a wrapper that is one byte shorter", quote4, wrapper + 2, [((quote4[wrapper + 2] ?? 0) + 255) % 256], "truncated"],
  ["certification data of type 7", quote4, wrapper + 6 + 384 + 64 + 34, [7], "unsupported"],
]
for (const [what, quote, at, bytes, code] of refusals)
  test(`parseTdxQuote() refuses ${what}`, () => assertRefuses(() => parseTdxQuote(patched(quote, at, ...bytes)), what, code))

test("parseTdxQuote() refuses bytes behind the certification data, inside the wrapper and behind it", () => {
  const size = (at: number): number => new DataView(quote4.buffer, quote4.byteOffset).getUint32(at, true)
  const signatureSize = 48 + 584
  /** One byte more at the end, which the sizes at these places count. */
  const longer = (...places: readonly number[]): Uint8Array => {
    const bytes = Uint8Array.from([...quote4, 0])
    for (const at of places) new DataView(bytes.buffer).setUint32(at, size(at) + 1, true)
    return bytes
  }
  assert.equal(parseTdxQuote(longer()).trailingBytes, 1)
  assertRefuses(() => parseTdxQuote(longer(signatureSize)), "behind the wrapper", "trailing-bytes")
  assertRefuses(() => parseTdxQuote(longer(signatureSize, wrapper + 2)), "inside the wrapper", "trailing-bytes")
})

test("the body of version 5 has the type and size of the specification", () => {
  assert.deepEqual([...quote5.subarray(48, 54)], [2, 0, 0x48, 2, 0, 0])
  assert.deepEqual([...quote15.subarray(48, 54)], [3, 0, 0x88, 2, 0, 0])
  assert.equal(quote5.length, quote4.length + 6)
  assert.equal(quote15.length, quote5.length + 64)
  const { header, report } = parseTdxQuote(quote15)
  assert.deepEqual(encodeTdxSignedPart(header, report), quote15.slice(0, 48 + 6 + 648))
})

test("parseTdxQuote() reads each field where it stands", () => {
  const { header, report } = parseTdxQuote(quote15)
  assert.equal(header.version, 5)
  assert.equal(report.body, "1.5")
  assert.equal(report.mrTd, "4d".repeat(48))
  assert.equal(report.mrSeam, "5e".repeat(48))
  assert.deepEqual(report.rtmrs, ["a0".repeat(48), "a1".repeat(48), "a2".repeat(48), "00".repeat(48)])
  assert.equal(report.reportData, Buffer.from(reportData).toString("hex"))
  assert.equal(report.teeTcbSvn2, report.teeTcbSvn)
  assert.equal(report.mrServiceTd, "00".repeat(48))
  assert.equal(parseTdxQuote(quote5).report.mrServiceTd, undefined)
})
