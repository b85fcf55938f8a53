import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeSgxQuote } from "../../../lab/devices/dcap/device.ts"
import type { SgxKnobs } from "../../../lab/devices/dcap/device.ts"
import { Genuine } from "../genuine.ts"
import type { ExpectedReportData } from "../report-data.ts"
import { assertRefuses, testBitFlips, testFuzz, testTruncations } from "../testing/parser-laws.ts"
import type { SgxClaims } from "./claims.ts"
import { verifySgxQuote } from "./verify.ts"

const authority = makeLabAuthority({ keys: makeLabKeys() })
const reportData = Uint8Array.from({ length: 64 }, (_, at) => at)
const expectation = { roots: [authority.root], time: labTime, reportData }

function verify(quote: Uint8Array, expected: ExpectedReportData = reportData): Genuine<SgxClaims> {
  return verifySgxQuote({ quote, collateral: authority.sgxCollateral }, { ...expectation, reportData: expected })
}

function claims(knobs: SgxKnobs = {}): SgxClaims {
  return verify(makeSgxQuote(authority, reportData, knobs)).claims
}

test("verifySgxQuote() gives what the report says", () => {
  const genuine = verify(makeSgxQuote(authority, reportData))
  assert.ok(genuine instanceof Genuine)
  const { dcap, ...own } = genuine.claims
  assert.equal(dcap.tcb.status, "UpToDate")
  assert.deepEqual(own, {
    kind: "sgx",
    mrEnclave: "e1".repeat(32),
    mrSigner: "51".repeat(32),
    isvProdId: 7,
    isvSvn: 3,
    debug: false,
    attributes: ["INIT", "MODE64BIT"],
    xfrm: "e700000000000000",
    miscSelect: "00000000",
    cpuSvn: "09090202040100050000000000000000",
    configId: "00".repeat(64),
    configSvn: 0,
    isvExtProdId: "00".repeat(16),
    isvFamilyId: "00".repeat(16),
    reportData: Buffer.from(reportData).toString("hex"),
    isReportDataChecked: true,
  })
})

test("verifySgxQuote() states debug, key separation and product identifiers as claims", () => {
  assert.equal(claims({ report: { attributes: "0700000000000000e700000000000000" } }).debug, true)
  const kss = { attributes: "f504000000000000e700000000000000", configId: "c1".repeat(64), configSvn: 2, isvExtProdId: "e2".repeat(16), isvFamilyId: "f3".repeat(16) } // prettier-ignore
  const found = claims({ report: kss })
  assert.deepEqual(found.attributes, ["INIT", "MODE64BIT", "PROVISIONKEY", "EINITTOKEN_KEY", "CET", "KSS", "AEXNOTIFY"])
  assert.deepEqual([found.configId, found.configSvn, found.isvExtProdId, found.isvFamilyId], [kss.configId, 2, kss.isvExtProdId, kss.isvFamilyId])
})

test("verifySgxQuote() refuses each reserved attribute", () => {
  for (const bit of [3, 8, 9, ...Array.from({ length: 53 }, (_, at) => at + 11)]) {
    const flags = Buffer.alloc(8)
    flags.writeBigUInt64LE((1n << BigInt(bit)) | 5n)
    assertRefuses(() => claims({ report: { attributes: `${flags.toString("hex")}e700000000000000` } }), `bit ${bit}`, "malformed")
  }
})

test("verifySgxQuote() compares the report data exactly, or says that it did not", () => {
  const quote = makeSgxQuote(authority, reportData)
  for (const at of [0, 31, 32, 63]) {
    const wrong = Uint8Array.from(reportData)
    wrong[at] = (wrong[at] ?? 0) ^ 1
    assertRefuses(() => verify(quote, wrong), `byte ${at}`, "wrong-nonce")
  }
  assert.equal(verify(quote, "as-signed").claims.isReportDataChecked, false)
  for (const length of [0, 32, 63, 65]) assert.throws(() => verify(quote, new Uint8Array(length)), TypeError)
})

// Certification data is signed by nobody; the certificates in it are tried in dcap/signed.test.ts.
const outside = new Uint8Array(36)
/** Type and size of the certification data, which nobody signs either. */
const tail = concatBytes(Uint8Array.of(1, 0, outside.length, 0, 0, 0), outside)
const plain = makeSgxQuote(authority, reportData, { certification: () => ({ type: 1, data: outside }) })
testBitFlips("verifySgxQuote()", plain.slice(0, plain.length - tail.length), (bytes) =>
  verifySgxQuote({ quote: concatBytes(bytes, tail), collateral: { pckChain: authority.pckChain } }, expectation),
)
const quote = makeSgxQuote(authority, reportData)
testTruncations("verifySgxQuote()", quote, (bytes) => verify(bytes))
testFuzz("verifySgxQuote()", [quote, plain], (bytes) => verify(bytes))
