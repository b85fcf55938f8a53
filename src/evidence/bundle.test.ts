import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import { test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { encodeBase64, encodeHex, encodeUtf8 } from "../bytes/text.ts"
import { decodeHostBundle, hostBundleSchema, maxEventLogBytes, maxImaListBytes, maxQuoteBytes, parseHostBundle, sessionDigest } from "./bundle.ts"
import type { SessionFields } from "./bundle.ts"

const digest = digestOf(encodeUtf8("x"))
const fields: SessionFields = {
  purpose: "claim",
  version: 1,
  manager: "00".repeat(16),
  nonce: "11".repeat(32),
  hpkeKey: "AAAA",
  tlsKey: digest,
  akName: "000b",
  deviceEvidence: [],
  policy: digest,
  job: "train",
  run: "22".repeat(16),
  lease: "33".repeat(16),
}

test("sessionDigest() is SHA-256 over the canonical form, 32 bytes", () => {
  const text =
    `{"akName":"000b","deviceEvidence":[],"hpkeKey":"AAAA","job":"train","lease":"${fields.lease}","manager":"${fields.manager}",` +
    `"nonce":"${fields.nonce}","policy":"${digest}","purpose":"claim","run":"${fields.run}","tlsKey":"${digest}","version":1}`
  assert.equal(encodeHex(sessionDigest(fields)), createHash("sha256").update(text).digest("hex"))
})

const changes: Partial<SessionFields>[] = [
  { purpose: "renew" },
  { manager: "01".repeat(16) },
  { nonce: "12".repeat(32) },
  { hpkeKey: "AAAB" },
  { tlsKey: digestOf(encodeUtf8("y")) },
  { akName: "000c" },
  { deviceEvidence: [digest] },
  { policy: null },
  { job: "other" },
  { run: null },
  { lease: null },
]
for (const change of changes) {
  test(`sessionDigest() depends on ${Object.keys(change).join()}`, () => {
    assert.notDeepEqual(sessionDigest({ ...fields, ...change }), sessionDigest(fields))
  })
}

test("sessionDigest() leaves foreign members out", () => {
  assert.deepEqual(sessionDigest({ ...fields, extra: 1 } as SessionFields), sessionDigest(fields))
})

const bytes = Uint8Array.of(1, 2, 3)
const base64 = encodeBase64(bytes)
const bundle = {
  perun: 1,
  tpm: { quote: base64, signature: base64, akPublic: base64, eventLog: base64, ima: { from: 2, list: base64 } },
}

function parse(change: (copy: typeof bundle) => unknown): unknown {
  return parseHostBundle(JSON.stringify(change(structuredClone(bundle))))
}

test("parseHostBundle() decodes every part", () => {
  assert.deepEqual(parseHostBundle(JSON.stringify(bundle)), {
    quote: bytes,
    signature: bytes,
    akPublic: bytes,
    eventLog: bytes,
    ima: { from: 2, list: bytes },
  })
  const { eventLog: _, ...tpm } = bundle.tpm
  assert.equal(decodeHostBundle(hostBundleSchema.parse({ perun: 1, tpm })).eventLog, undefined)
})

test("parseHostBundle() refuses other versions, missing and unknown members, duplicates and loose base64", () => {
  assert.throws(() => parse((b) => ({ ...b, perun: 2 })), { code: "malformed", path: "bundle.perun" })
  assert.throws(() => parse((b) => ({ ...b, gpu: {} })), { code: "unknown-field" })
  assert.throws(() => parse((b) => ({ ...b, tpm: { ...b.tpm, pcrs: {} } })), { code: "unknown-field", path: "bundle.tpm" })
  assert.throws(() => parse((b) => ({ ...b, tpm: { ...b.tpm, ima: { list: base64 } } })), { code: "malformed", path: "bundle.tpm.ima.from" })
  assert.throws(() => parse((b) => ({ ...b, tpm: { ...b.tpm, ima: { from: -1, list: base64 } } })), { code: "malformed" })
  assert.throws(() => parse((b) => ({ ...b, tpm: { ...b.tpm, quote: "AQID\n" } })), { code: "malformed", path: "bundle.tpm.quote" })
  assert.throws(() => parseHostBundle(JSON.stringify(bundle).replace(`"perun":1`, `"perun":1,"perun":1`)), { code: "duplicate" })
})

test("parseHostBundle() takes parts of the greatest size", () => {
  assert.deepEqual([maxQuoteBytes, maxEventLogBytes, maxImaListBytes], [4096, 1_048_576, 67_108_864])
  const [quote, eventLog, list] = [maxQuoteBytes, maxEventLogBytes, maxImaListBytes].map((size) => encodeBase64(new Uint8Array(size)))
  const text = JSON.stringify({ perun: 1, tpm: { quote, signature: quote, akPublic: quote, eventLog, ima: { from: 0xffffffff, list } } })
  const parsed = parseHostBundle(text)
  assert.deepEqual([parsed.quote.length, parsed.eventLog?.length, parsed.ima.list.length], [maxQuoteBytes, maxEventLogBytes, maxImaListBytes])
  assert.throws(() => parseHostBundle(text + " ".repeat(65_536)), { code: "too-large" })
})

test("parseHostBundle() refuses parts that are too large", () => {
  const large = encodeBase64(new Uint8Array(maxQuoteBytes + 3))
  for (const part of ["quote", "signature", "akPublic"] as const)
    assert.throws(() => parse((b) => ({ ...b, tpm: { ...b.tpm, [part]: large } })), { code: "too-large", path: `bundle.tpm.${part}` })
  const withLog = { eventLog: encodeBase64(new Uint8Array(maxEventLogBytes + 3)) }
  assert.throws(() => parse((b) => ({ ...b, tpm: { ...b.tpm, ...withLog } })), { code: "too-large", path: "bundle.tpm.eventLog" })
})
