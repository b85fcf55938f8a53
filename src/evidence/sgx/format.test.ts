import assert from "node:assert/strict"
import { test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeSgxQuote } from "../../../lab/devices/dcap/device.ts"
import { assertRefuses, testParserLaws } from "../testing/parser-laws.ts"
import { encodeSgxQuote, parseSgxQuote } from "./format.ts"

const authority = makeLabAuthority({ keys: makeLabKeys() })
const reportData = Uint8Array.from({ length: 64 }, (_, at) => at)
const quote = makeSgxQuote(authority, reportData)
const short = makeSgxQuote(authority, reportData, { certification: () => ({ type: 1, data: new Uint8Array(36) }) })

testParserLaws({ name: "parseSgxQuote", parse: parseSgxQuote, samples: [quote, short], encode: encodeSgxQuote })

/** The quote with bytes replaced at an offset. */
function patched(at: number, ...bytes: readonly number[]): Uint8Array {
  const copy = Uint8Array.from(quote)
  copy.set(bytes, at)
  return copy
}

const refusals: readonly (readonly [what: string, at: number, bytes: readonly number[], code: string])[] = [
  ["version 2", 0, [2], "unsupported"],
  ["version 4", 0, [4], "unsupported"],
  ["attestation key type 3", 2, [3], "unsupported"],
  ["TEE type TDX", 4, [0x81], "unsupported"],
  ["another vendor", 12, [0x94], "unsupported"],
  ["certification data of type 4", 48 + 384 + 4 + 128 + 384 + 64 + 34, [4], "unsupported"],
  ["certification data of type 6", 48 + 384 + 4 + 128 + 384 + 64 + 34, [6], "unsupported"],
  ["a signature part of 4 GiB", 48 + 384, [0xff, 0xff, 0xff, 0xff], "too-large"],
  ["a signature part that is one byte longer", 48 + 384, [((quote[432] ?? 0) + 1) % 256], "truncated"],
  ["authentication data of 64 KiB", 48 + 384 + 4 + 128 + 384 + 64, [0xff, 0xff], "too-large"],
]
for (const [what, at, bytes, code] of refusals)
  test(`parseSgxQuote() refuses ${what}`, () => assertRefuses(() => parseSgxQuote(patched(at, ...bytes)), what, code))

test("parseSgxQuote() refuses a quote of more than 64 KiB before it reads one", () => {
  assertRefuses(() => parseSgxQuote(new Uint8Array(65_537)), "64 KiB and one", "too-large")
  assertRefuses(() => parseSgxQuote(new Uint8Array(65_536)), "64 KiB", "unsupported")
})

test("parseSgxQuote() bounds authentication and certification data", () => {
  const made = (authentication: number, certification: number): unknown =>
    parseSgxQuote(makeSgxQuote(authority, reportData, { qeAuthenticationData: new Uint8Array(authentication), certification: () => ({ type: 1, data: new Uint8Array(certification) }) })) // prettier-ignore
  made(1024, 16_384)
  assertRefuses(() => made(1025, 0), "authentication data", "too-large")
  assertRefuses(() => made(0, 16_385), "certification data", "too-large")
})

test("parseSgxQuote() refuses every reserved byte that is not zero", () => {
  for (const [start, length] of [
    [20, 12],
    [96, 32],
    [160, 32],
    [262, 42],
  ] as const)
    // prettier-ignore
    for (let at = start; at < start + length; at++) assertRefuses(() => parseSgxQuote(patched(48 + at, 1)), `byte ${at}`, "malformed")
})

test("parseSgxQuote() reads each field where it stands", () => {
  const { report, header, signature } = parseSgxQuote(quote)
  assert.equal(header.version, 3)
  assert.equal(header.qeSvn, 8)
  assert.equal(header.pceSvn, 13)
  assert.equal(report.isvProdId, 7)
  assert.equal(report.isvSvn, 3)
  assert.equal(report.mrEnclave, "e1".repeat(32))
  assert.equal(report.mrSigner, "51".repeat(32))
  assert.equal(report.reportData, Buffer.from(reportData).toString("hex"))
  assert.equal(signature.certification.type, 5)
  assert.deepEqual(signature.certification.data, authority.pckChain)
})
