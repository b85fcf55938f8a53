import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import type { TdxKnobs } from "../../../lab/devices/dcap/device.ts"
import { Genuine } from "../genuine.ts"
import type { ExpectedReportData } from "../report-data.ts"
import { assertRefuses, testBitFlips, testFuzz, testTruncations } from "../testing/parser-laws.ts"
import type { TdxClaims } from "./claims.ts"
import { verifyTdxQuote } from "./verify.ts"

const authority = makeLabAuthority({ keys: makeLabKeys() })
const reportData = Uint8Array.from({ length: 64 }, (_, at) => at)
const expectation = { roots: [authority.root], time: labTime, reportData }

function verify(quote: Uint8Array, expected: ExpectedReportData = reportData): Genuine<TdxClaims> {
  return verifyTdxQuote({ quote, collateral: authority.tdxCollateral }, { ...expectation, reportData: expected })
}

function claims(knobs: TdxKnobs = {}): TdxClaims {
  return verify(makeTdxQuote(authority, reportData, knobs)).claims
}

test("verifyTdxQuote() gives what the report of each version says", () => {
  for (const [version, body] of [
    [4, "1.0"],
    [5, "1.0"],
    [5, "1.5"],
  ] as const) {
    // prettier-ignore
    const genuine = verify(makeTdxQuote(authority, reportData, { version, body, trailingBytes: 3 }))
    assert.ok(genuine instanceof Genuine)
    const { dcap, ...own } = genuine.claims
    assert.equal(dcap.tcb.status, "UpToDate")
    assert.equal(dcap.tcb.tdxModule?.status, "UpToDate")
    assert.deepEqual(own, {
      kind: "tdx",
      quoteVersion: version,
      body,
      mrTd: "4d".repeat(48),
      rtmrs: ["a0".repeat(48), "a1".repeat(48), "a2".repeat(48), "00".repeat(48)],
      mrConfigId: "00".repeat(48),
      mrOwner: "00".repeat(48),
      mrOwnerConfig: "00".repeat(48),
      ...(body === "1.5" ? { mrServiceTd: "00".repeat(48), teeTcbSvn2: `050107${"00".repeat(13)}` } : {}),
      debug: false,
      septVeDisable: true,
      migratable: false,
      attributes: ["SEPT_VE_DISABLE"],
      xfam: "e702060000000000",
      mrSeam: "5e".repeat(48),
      mrSignerSeam: "00".repeat(48),
      seamAttributes: "00".repeat(8),
      teeTcbSvn: `050107${"00".repeat(13)}`,
      reportData: Buffer.from(reportData).toString("hex"),
      isReportDataChecked: true,
      trailingBytes: 3,
    })
  }
})

test("verifyTdxQuote() states attributes as claims: every bit of the group TUD means debug", () => {
  for (const [tdAttributes, name] of [
    ["0100001000000000", "DEBUG"],
    ["1000001000000000", "HGS_PLUS_PROF"],
    ["2000001000000000", "PERF_PROF"],
    ["4000001000000000", "PMT_PROF"],
  ] as const) {
    // prettier-ignore
    const found = claims({ report: { tdAttributes } })
    assert.equal(found.debug, true, name)
    assert.deepEqual(found.attributes, [name, "SEPT_VE_DISABLE"])
  }
  const all = claims({ report: { tdAttributes: "000001e8000000c0" } })
  assert.deepEqual(all.attributes, ["ICSSD", "LASS", "MIGRATABLE", "PKS", "KL", "TPA", "PERFMON"])
  assert.deepEqual([all.debug, all.septVeDisable, all.migratable], [false, false, true])
})

test("verifyTdxQuote() refuses each reserved attribute and each XFAM that breaks the fixed bits", () => {
  const field = (bits: bigint): string => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(bits)
    return bytes.toString("hex")
  }
  const known = new Set([0, 4, 5, 6, 16, 27, 28, 29, 30, 31, 62, 63])
  const features = new Set([0, 1, 2, 5, 6, 7, 8, 9, 11, 12, 14, 15, 17, 18])
  for (let bit = 0; bit < 64; bit++) {
    const attributes = (): unknown => claims({ report: { tdAttributes: field(1n << BigInt(bit)) } })
    if (known.has(bit)) attributes()
    else assertRefuses(attributes, `attribute ${bit}`, "malformed")
    const xfam = (): unknown => claims({ report: { xfam: field((1n << BigInt(bit)) | 3n) } })
    if (features.has(bit)) xfam()
    else assertRefuses(xfam, `XFAM ${bit}`, "malformed")
  }
  for (const bits of [0n, 1n, 2n, 0x6dbe5n]) assertRefuses(() => claims({ report: { xfam: field(bits) } }), `XFAM ${bits}`, "malformed")
})

test("verifyTdxQuote() compares the report data exactly, or says that it did not", () => {
  const quote = makeTdxQuote(authority, reportData)
  for (const at of [0, 31, 32, 63]) {
    const wrong = Uint8Array.from(reportData)
    wrong[at] = (wrong[at] ?? 0) ^ 1
    assertRefuses(() => verify(quote, wrong), `byte ${at}`, "wrong-nonce")
  }
  assert.equal(verify(quote, "as-signed").claims.isReportDataChecked, false)
  for (const length of [0, 32, 48, 63, 65]) assert.throws(() => verify(quote, new Uint8Array(length)), TypeError)
})

// Certification data is signed by nobody; the certificates in it are tried in dcap/signed.test.ts.
const outside = new Uint8Array(36)
/** Type and size of the certification data, which nobody signs either. */
const tail = concatBytes(Uint8Array.of(1, 0, outside.length, 0, 0, 0), outside)
for (const [name, knobs] of [
  ["version 4", { version: 4 }],
  ["version 5, TDX 1.5", { version: 5, body: "1.5" }],
] as const) {
  // prettier-ignore
  const plain = makeTdxQuote(authority, reportData, { ...knobs, certification: () => ({ type: 1, data: outside }) })
  testBitFlips(`verifyTdxQuote() of ${name}`, plain.slice(0, plain.length - tail.length), (bytes) =>
    verifyTdxQuote({ quote: concatBytes(bytes, tail), collateral: { pckChain: authority.pckChain } }, expectation),
  )
}
const samples = [makeTdxQuote(authority, reportData), makeTdxQuote(authority, reportData, { version: 5, body: "1.5" })]
for (const sample of samples) testTruncations("verifyTdxQuote()", sample, (bytes) => verify(bytes))
testFuzz("verifyTdxQuote()", samples, (bytes) => verify(bytes))
