import assert from "node:assert/strict"
import { test } from "node:test"
import { parseHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import { algorithmIds, algorithmName, curveName } from "./algorithms.ts"
import {
  encodeAttest,
  encodeIdObject,
  encodePcrSelections,
  encodeTpmSignature,
  parseAttest,
  parseIdObject,
  parsePcrSelections,
  parseTpmSignature,
} from "./format.ts"
import type { Attest, TpmSignature } from "./format.ts"

const digest = new Uint8Array(32).fill(3)
const attest: Attest = {
  qualifiedSigner: new Uint8Array(34).fill(1),
  extraData: new Uint8Array(32).fill(2),
  clockInfo: { clock: 0x0102030405060708n, resetCount: 0xfffffffe, restartCount: 3, safe: true },
  firmwareVersion: 0xffeeddccbbaa9988n,
  attested: { type: "quote", selection: [{ bank: "sha256", pcrs: [0, 7, 8, 16, 23] }, { bank: "sha1", pcrs: [] }], pcrDigest: digest }, // prettier-ignore
}
const certify: Attest = { ...attest, attested: { type: "certify", name: digest, qualifiedName: digest } }
const creation: Attest = { ...attest, attested: { type: "creation", objectName: digest, creationHash: digest } }

testParserLaws({ name: "parseAttest", parse: parseAttest, encode: encodeAttest, samples: [attest, certify, creation].map(encodeAttest) })

const signatures: readonly TpmSignature[] = [
  { algorithm: "rsassa", hash: "sha256", signature: digest },
  { algorithm: "rsapss", hash: "sha384", signature: digest },
  { algorithm: "ecdsa", hash: "sha512", r: digest, s: new Uint8Array(31).fill(9) },
]
testParserLaws({ name: "parseTpmSignature", parse: parseTpmSignature, encode: encodeTpmSignature, samples: signatures.map(encodeTpmSignature) })
testParserLaws({
  name: "parsePcrSelections",
  parse: parsePcrSelections,
  encode: encodePcrSelections,
  samples: [[], [{ bank: "sm3_256", pcrs: [1] }], attest.attested.type === "quote" ? attest.attested.selection : []].map((list) =>
    encodePcrSelections(list as Parameters<typeof encodePcrSelections>[0]),
  ),
})
testParserLaws({
  name: "parseIdObject",
  parse: parseIdObject,
  encode: encodeIdObject,
  samples: [encodeIdObject({ integrityHmac: digest, encIdentity: new Uint8Array(34) })],
})

test("parseAttest() reads each field where the specification puts it", () => {
  const hex =
    "ff544347" +
    "8018" +
    "0002aabb" +
    "0001cc" +
    "0000000000000005" +
    "00000006" +
    "00000007" +
    "00" +
    "0000000000000009" +
    "00000001" +
    "000b" +
    "03" +
    "810040" +
    "0002ddee"
  assert.deepEqual(parseAttest(parseHex(hex)), {
    qualifiedSigner: Uint8Array.of(0xaa, 0xbb),
    extraData: Uint8Array.of(0xcc),
    clockInfo: { clock: 5n, resetCount: 6, restartCount: 7, safe: false },
    firmwareVersion: 9n,
    attested: { type: "quote", selection: [{ bank: "sha256", pcrs: [0, 7, 22] }], pcrDigest: Uint8Array.of(0xdd, 0xee) },
  })
})

test("parseAttest() knows certified and created objects by their types", () => {
  const clock = "0000000000000005" + "00000006" + "00000007" + "00"
  const typed = (type: string): string =>
    parseAttest(parseHex("ff544347" + type + "0000" + "0000" + clock + "0000000000000009" + "0001aa" + "0001bb")).attested.type
  assert.equal(typed("8017"), "certify")
  assert.equal(typed("801a"), "creation")
  assert.throws(() => typed("801b"), { code: "not-a-quote" })
})

/** The encoded quote with the bytes of one field replaced. */
function changed(find: string, put: string): Uint8Array {
  const hex = Buffer.from(encodeAttest(attest)).toString("hex")
  assert.ok(hex.includes(find))
  return parseHex(hex.replace(find, put))
}

test("parseAttest() refuses another magic, another type and a safe flag that is neither yes nor no", () => {
  assert.throws(() => parseAttest(changed("ff544347", "ff544348")), { code: "not-a-quote", path: "TPMS_ATTEST.magic" })
  for (const type of ["8014", "8016", "8019", "0000"])
    assert.throws(() => parseAttest(changed("8018", type)), { code: "not-a-quote", path: "TPMS_ATTEST.type" })
  assert.throws(() => parseAttest(changed("fffffffe0000000301", "fffffffe0000000302")), { code: "malformed", path: "TPMS_ATTEST.clockInfo.safe" })
})

test("parseAttest() caps names, extra data and digests", () => {
  const sized = (change: Partial<Attest>): unknown => parseAttest(encodeAttest({ ...attest, ...change }))
  sized({ qualifiedSigner: new Uint8Array(66) })
  assert.throws(() => sized({ qualifiedSigner: new Uint8Array(67) }), { code: "too-large" })
  sized({ extraData: new Uint8Array(66) })
  assert.throws(() => sized({ extraData: new Uint8Array(67) }), { code: "too-large" })
  sized({ attested: { type: "quote", selection: [], pcrDigest: new Uint8Array(64) } })
  assert.throws(() => sized({ attested: { type: "quote", selection: [], pcrDigest: new Uint8Array(65) } }), { code: "too-large" })
})

test("parseTpmSignature() caps values and refuses unknown algorithms and hashes", () => {
  parseTpmSignature(encodeTpmSignature({ algorithm: "rsassa", hash: "sha256", signature: new Uint8Array(512) }))
  assert.throws(() => parseTpmSignature(encodeTpmSignature({ algorithm: "rsassa", hash: "sha256", signature: new Uint8Array(513) })), {
    code: "too-large",
  })
  assert.throws(() => parseTpmSignature(encodeTpmSignature({ algorithm: "ecdsa", hash: "sha256", r: new Uint8Array(67), s: digest })), {
    code: "too-large",
  })
  parseTpmSignature(encodeTpmSignature({ algorithm: "ecdsa", hash: "sha256", r: new Uint8Array(66), s: new Uint8Array(66) }))
  assert.throws(() => parseTpmSignature(parseHex("0005000b0000")), { code: "unsupported", path: "TPMT_SIGNATURE.sigAlg" })
  assert.throws(() => parseTpmSignature(parseHex("001400120000")), { code: "unsupported" })
})

test("parsePcrSelections() refuses doubled banks, unknown banks, other bitmap sizes and too many banks", () => {
  assert.throws(() => parsePcrSelections(parseHex("00000002" + "000b03010000" + "000b03020000")), { code: "duplicate" })
  assert.throws(() => parsePcrSelections(parseHex("00000001" + "000603010000")), { code: "unsupported" })
  assert.throws(() => parsePcrSelections(parseHex("00000001" + "000b0401000000")), { code: "malformed" })
  assert.throws(() => parsePcrSelections(parseHex("00000001" + "000b020100")), { code: "malformed" })
  assert.throws(() => parsePcrSelections(new ByteWriter().u32be(16).take()), { code: "truncated" })
  assert.throws(() => parsePcrSelections(new ByteWriter().u32be(17).take()), { code: "too-large" })
})

test("parseIdObject() refuses sizes beyond any hash", () => {
  assert.throws(() => parseIdObject(new ByteWriter().u16be(133).take()), { code: "too-large" })
  assert.equal(parseIdObject(encodeIdObject({ integrityHmac: new Uint8Array(64), encIdentity: new Uint8Array(66) })).encIdentity.length, 66)
})

test("algorithmName() and curveName() are inverse to their tables and know nothing else", () => {
  for (const [name, id] of Object.entries(algorithmIds)) assert.equal(algorithmName(id), name)
  assert.equal(algorithmName(0), undefined)
  assert.equal(curveName(3), "P-256")
  assert.equal(curveName(4), "P-384")
  assert.equal(curveName(5), undefined)
})
