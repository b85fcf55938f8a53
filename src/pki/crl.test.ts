import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { basicConstraintsOf, keyUsageOf, makeCertificate, makeKeyPair, makeRevocationList } from "./authority.testing.ts"
import type { ListInput } from "./authority.testing.ts"
import { parseCertificate } from "./certificate.ts"
import { checkNotRevoked, parseRevocationList, verifyRevocationList } from "./crl.ts"
import { derElement, derOid, tags } from "./der.ts"

const key = makeKeyPair()
const other = makeKeyPair()
const time = Date.parse("2025-01-01T00:00:00Z")
const make = (usage: number): ReturnType<typeof parseCertificate> =>
  parseCertificate(
    makeCertificate({ subject: "ca", issuer: "ca", key, issuerKey: key, serial: 5, extensions: [basicConstraintsOf(true), keyUsageOf(usage)] }),
  )
const issuer = make(0x06)
const input: ListInput = { issuer: "ca", issuerKey: key, serials: [5, 6] }

function verify(change: Partial<ListInput>, at = time): void {
  verifyRevocationList(parseRevocationList(makeRevocationList({ ...input, ...change })), issuer, at)
}

test("parseRevocationList() reads dates and serial numbers", () => {
  const list = parseRevocationList(makeRevocationList(input))
  assert.deepEqual([...list.revoked], ["05", "06"])
  assert.equal(list.thisUpdate, Date.parse("2024-01-01T00:00:00Z"))
  assert.equal(list.nextUpdate, Date.parse("2026-01-01T00:00:00Z"))
  assert.equal(parseRevocationList(makeRevocationList({ ...input, serials: [] })).revoked.size, 0)
})

test("verifyRevocationList() accepts a list of the issuer within its dates, both ends included", () => {
  verify({})
  verify({ thisUpdate: "2025-01-01T00:00:00Z", nextUpdate: "2025-01-01T00:00:00Z" })
})

test("verifyRevocationList() refuses lists that are early, old, of another issuer or of another key", () => {
  assert.throws(() => verify({ thisUpdate: "2025-01-01T00:00:01Z" }), { code: "expired" })
  assert.throws(() => verify({ nextUpdate: "2024-12-31T23:59:59Z" }), { code: "expired" })
  assert.throws(() => verify({ issuer: "other" }), { code: "wrong-certificate" })
  assert.throws(() => verify({ issuerKey: other }), { code: "wrong-signature" })
})

test("verifyRevocationList() refuses partial lists and unknown critical extensions, and reads over others", () => {
  const extension = { oid: "2.5.29.28", value: derElement(tags.sequence) }
  assert.throws(() => verify({ extensions: [{ ...extension, critical: true }] }), { code: "wrong-certificate" })
  verify({ extensions: [extension] })
  assert.throws(() => verify({ entryExtensions: [{ ...extension, critical: true }] }), { code: "wrong-certificate" })
  verify({ entryExtensions: [extension] })
})

test("verifyRevocationList() refuses an issuer whose key may not sign lists, and unknown algorithms", () => {
  const list = parseRevocationList(makeRevocationList(input))
  assert.throws(() => verifyRevocationList(list, make(0x04), time), { code: "wrong-certificate" })
  assert.throws(() => verifyRevocationList({ ...list, signatureAlgorithm: { scheme: undefined, oid: "1.2" } }, issuer, time), {
    code: "weak-algorithm",
  })
})

test("checkNotRevoked() goes by issuer and serial number", () => {
  const list = parseRevocationList(makeRevocationList(input))
  assert.throws(() => checkNotRevoked(issuer, issuer, time, [list], false), { code: "revoked" })
  const free = parseRevocationList(makeRevocationList({ ...input, serials: [6] }))
  checkNotRevoked(issuer, issuer, time, [free], true)
  const foreign = parseRevocationList(makeRevocationList({ ...input, issuer: "other" }))
  checkNotRevoked(issuer, issuer, time, [foreign], false)
  assert.throws(() => checkNotRevoked(issuer, issuer, time, [foreign], true), { code: "wrong-certificate" })
})

test("checkNotRevoked() believes no list that is not genuine or not in time, also where it names nobody", () => {
  const check = (change: Partial<ListInput>): void =>
    checkNotRevoked(issuer, issuer, time, [parseRevocationList(makeRevocationList({ ...input, serials: [], ...change }))], true)
  check({})
  assert.throws(() => check({ issuerKey: other }), { code: "wrong-signature" })
  assert.throws(() => check({ nextUpdate: "2024-12-31T23:59:59Z" }), { code: "expired" })
})

test("parseRevocationList() refuses other versions, algorithms that differ inside and outside, and lists without an end", () => {
  assert.throws(() => parseRevocationList(makeRevocationList({ ...input, version: 2 })), { code: "unsupported" })
  const outerAlgorithm = derElement(tags.sequence, derOid("1.2.840.10045.4.3.3"))
  assert.throws(() => parseRevocationList(makeRevocationList({ ...input, outerAlgorithm })), { code: "malformed" })
  const empty = derElement(tags.sequence)
  const time1 = derElement(tags.utcTime, encodeUtf8("250101000000Z"))
  const endless = derElement(tags.sequence, derElement(tags.sequence, empty, empty, time1), empty, derElement(tags.bitString, Uint8Array.of(0)))
  assert.throws(() => parseRevocationList(endless), { code: "truncated" })
  assert.throws(() => parseRevocationList(new Uint8Array(4 * 1024 * 1024 + 1)), { code: "too-large" })
})
