import assert from "node:assert/strict"
import { test } from "node:test"
import { checkReportData, quotedReportData, sessionReportData } from "./report-data.ts"
import { assertRefuses } from "./testing/parser-laws.ts"

test("sessionReportData() is the digest and 32 zero bytes, of a digest of 32 bytes alone", () => {
  const digest = Uint8Array.from({ length: 32 }, (_, at) => at + 1)
  assert.deepEqual(sessionReportData(digest), Uint8Array.from([...digest, ...new Uint8Array(32)]))
  for (const length of [0, 31, 33, 48, 64]) assert.throws(() => sessionReportData(new Uint8Array(length)), TypeError)
})

test("quotedReportData() is the digest of a session's report data, and refuses what a virtual TPM's quote would leave uncovered", () => {
  const digest = Uint8Array.from({ length: 32 }, (_, at) => at + 1)
  assert.deepEqual(quotedReportData(sessionReportData(digest)), digest)
  for (let at = 32; at < 64; at++) {
    const more = sessionReportData(digest)
    more[at] = 1
    assert.throws(() => quotedReportData(more), TypeError, `byte ${at}`)
  }
  for (const length of [0, 32, 63, 65]) assert.throws(() => quotedReportData(new Uint8Array(length)), TypeError)
})

test("checkReportData() takes 64 equal bytes and nothing else", () => {
  const data = sessionReportData(new Uint8Array(32).fill(7))
  checkReportData(data, Uint8Array.from(data), "report")
  checkReportData(data, "as-signed", "report")
  for (let at = 0; at < 64; at++) {
    const other = Uint8Array.from(data, (byte, place) => (place === at ? byte ^ 1 : byte))
    assertRefuses(() => checkReportData(data, other, "report"), `byte ${at}`, "wrong-nonce")
  }
  assert.throws(() => checkReportData(data, data.slice(0, 32), "report"), TypeError)
})
