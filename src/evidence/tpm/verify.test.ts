import assert from "node:assert/strict"
import { createPublicKey } from "node:crypto"
import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeUtf8, parseHex } from "../../bytes/text.ts"
import { Genuine } from "../genuine.ts"
import { testBitFlips } from "../testing/parser-laws.ts"
import { encodeAttest, parseAttest, parseTpmSignature } from "./format.ts"
import { tpmNameText } from "./keys.ts"
import { parsePublicArea, parseSizedPublicArea } from "./public-area.ts"
import { unverifiedQuoteClaims } from "./quote.ts"
import type { PcrValues, QuoteExpectation, QuoteKey } from "./quote.ts"
import { attestationAttributes, makeEccKey, makeQuote, makeRsaKey, signAttest, without } from "./software-tpm.testing.ts"
import { parseTpm2ToolsPcrs } from "./tpm2-tools.ts"
import { verifyQuote } from "./verify.ts"
import type { QuoteEvidence } from "./verify.ts"

const extraData = new Uint8Array(32).fill(7)
const zero = "00".repeat(32)
const one = "11".repeat(32)
const pcrs: PcrValues = new Map([["sha256", new Map([[0, zero], [10, one]])]]) // prettier-ignore
const selection = [{ bank: "sha256", pcrs: [0, 10] }]
const expectation: QuoteExpectation = { extraData, selection, pcrs }
const rsa = makeRsaKey()
const ecc = makeEccKey()
const rsaKey: QuoteKey = { kind: "attestation-key", area: rsa.area }
const good = makeQuote(rsa, { extraData, pcrs })

test("verifyQuote() gives the signed facts as claims", () => {
  const genuine = verifyQuote({ ...good, key: rsaKey }, expectation)
  assert.ok(genuine instanceof Genuine)
  const { claims } = genuine
  assert.deepEqual(claims.selection, selection)
  assert.deepEqual(claims.pcrs, pcrs)
  assert.deepEqual(claims.clockInfo, { clock: 1000n, resetCount: 1, restartCount: 0, safe: true })
  assert.equal(claims.firmwareVersion, 0x20191023n)
  assert.equal(claims.qualifiedSigner, `000b${zero}`)
  assert.equal(claims.scheme, "rsassa-sha256")
  assert.equal(claims.usesSha1, false)
  assert.equal(claims.keyName, tpmNameText(rsa.area))
})

test("verifyQuote() accepts ECDSA on both curves, RSA-PSS, and schemes that the key leaves open when it is bare", () => {
  const p384 = makeEccKey({ curve: "P-384", nameAlg: "sha384", scheme: { scheme: "ecdsa", hash: "sha384" } })
  const pss = makeRsaKey({ scheme: { scheme: "rsapss", hash: "sha256" } })
  verifyQuote({ ...makeQuote(ecc, { extraData, pcrs }), key: { kind: "attestation-key", area: ecc.area } }, expectation)
  const with384 = verifyQuote(
    { ...makeQuote(p384, { extraData, pcrs, hash: "sha384" }), key: { kind: "attestation-key", area: p384.area } },
    expectation,
  )
  assert.equal(with384.claims.scheme, "ecdsa-sha384")
  verifyQuote({ ...makeQuote(pss, { extraData, pcrs, algorithm: "rsapss" }), key: { kind: "attestation-key", area: pss.area } }, expectation)
  const bare = verifyQuote({ ...good, key: { kind: "bare-key", key: createPublicKey(rsa.privateKey) } }, expectation)
  assert.equal(bare.claims.keyName, undefined)
})

test("verifyQuote() accepts a bare signature value as a record", () => {
  verifyQuote({ attest: good.attest, signature: parseTpmSignature(good.signature), key: rsaKey }, expectation)
})

test("verifyQuote() accepts ECDSA numbers without their leading zero bytes", () => {
  const key: QuoteKey = { kind: "attestation-key", area: ecc.area }
  for (let clock = 0n; ; clock++) {
    const attest = encodeAttest({ ...parseAttest(good.attest), clockInfo: { clock, resetCount: 1, restartCount: 0, safe: true } })
    const signature = parseTpmSignature(signAttest(ecc, attest))
    if (signature.algorithm !== "ecdsa" || signature.r[0] !== 0) continue
    verifyQuote({ attest, signature: { ...signature, r: signature.r.slice(1) }, key }, expectation)
    verifyQuote({ attest, signature: { ...signature, r: concatBytes(new Uint8Array(1), signature.r) }, key }, expectation)
    const wide = { ...signature, r: concatBytes(Uint8Array.of(1), signature.r) }
    assert.throws(() => verifyQuote({ attest, signature: wide, key }, expectation), { code: "wrong-key" })
    break
  }
})

testBitFlips("verifyQuote() over TPMS_ATTEST", good.attest, (attest) => verifyQuote({ ...good, attest, key: rsaKey }, expectation))
testBitFlips("verifyQuote() over TPMT_SIGNATURE", good.signature, (signature) => verifyQuote({ ...good, signature, key: rsaKey }, expectation))

test("verifyQuote() refuses another key", () => {
  const other: QuoteKey = { kind: "attestation-key", area: makeRsaKey().area }
  assert.throws(() => verifyQuote({ ...good, key: other }, expectation), { code: "wrong-signature" })
  assert.throws(() => verifyQuote({ ...good, key: { kind: "attestation-key", area: ecc.area } }, expectation), { code: "wrong-key" })
  const p521 = { kind: "bare-key", key: createPublicKey({ key: p521Jwk, format: "jwk" }) } as const
  assert.throws(() => verifyQuote({ ...makeQuote(ecc, { extraData, pcrs }), key: p521 }, expectation), { code: "wrong-key" })
  assert.throws(() => verifyQuote({ ...good, key: { kind: "bare-key", key: createPublicKey(ecc.privateKey) } }, expectation), { code: "wrong-key" })
})

test("verifyQuote() refuses a scheme that is not the key's own", () => {
  const pss = makeQuote(rsa, { extraData, pcrs, algorithm: "rsapss" })
  assert.throws(() => verifyQuote({ ...pss, key: rsaKey }, expectation), { code: "wrong-key", path: "TPMT_SIGNATURE" })
  const sha384 = makeQuote(rsa, { extraData, pcrs, hash: "sha384" })
  assert.throws(() => verifyQuote({ ...sha384, key: rsaKey }, expectation), { code: "wrong-key", path: "TPMT_SIGNATURE" })
})

test("verifyQuote() refuses a key without the attributes of an attestation key", () => {
  const area = { ...rsa.area, attributes: new Set(attestationAttributes.filter((name) => name !== "restricted")) }
  assert.throws(() => verifyQuote({ ...good, key: { kind: "attestation-key", area } }, expectation), { code: "wrong-key" })
  const open = { kind: "attestation-key", area: without(rsa.area, "scheme") } as const
  assert.throws(() => verifyQuote({ ...good, key: open }, expectation), { code: "wrong-key" })
})

test("verifyQuote() refuses what is no quote", () => {
  const creation = makeQuote(rsa, { extraData, pcrs, attest: { attested: { type: "creation", objectName: extraData, creationHash: extraData } } })
  assert.throws(() => verifyQuote({ ...creation, key: rsaKey }, expectation), { code: "not-a-quote" })
  const outside = encodeUtf8("data that a TPM did not make")
  assert.throws(() => verifyQuote({ attest: outside, signature: signAttest(rsa, outside), key: rsaKey }, expectation), { code: "not-a-quote" })
})

test("verifyQuote() refuses another nonce, in value and in length", () => {
  for (const other of [new Uint8Array(32), new Uint8Array(0), extraData.slice(1), concatBytes(extraData, new Uint8Array(1))])
    assert.throws(() => verifyQuote({ ...good, key: rsaKey }, { ...expectation, extraData: other }), { code: "wrong-nonce" })
})

test("verifyQuote() takes the required selection exactly", () => {
  const verify = (wanted: QuoteExpectation["selection"], given: PcrValues = pcrs): unknown =>
    verifyQuote(
      { ...makeQuote(rsa, { extraData, pcrs: given }), key: rsaKey },
      { extraData, selection: wanted, pcrs: given, insecureAllowSha1: true },
    )
  verify([{ bank: "sha256", pcrs: [10, 0] }])
  for (const pcrList of [[0], [0, 10, 11], [0, 11], []]) assert.throws(() => verify([{ bank: "sha256", pcrs: pcrList }]), { code: "wrong-selection" })
  assert.throws(() => verify([{ bank: "sha384", pcrs: [0, 10] }]), { code: "wrong-selection" })
  const two: PcrValues = new Map([["sha1", new Map([[0, "00".repeat(20)]])], ["sha256", new Map([[0, zero]])]]) // prettier-ignore
  assert.throws(() => verify([{ bank: "sha256", pcrs: [0] }], two), { code: "wrong-selection" })
  verify([{ bank: "sha256", pcrs: [0] }, { bank: "sha1", pcrs: [0] }], two) // prettier-ignore
  verify("as-signed", two)
  // The same digits without the commas.
  const three: PcrValues = new Map([["sha256", new Map([[0, zero], [1, zero], [2, zero]])]]) // prettier-ignore
  assert.throws(() => verify([{ bank: "sha256", pcrs: [0, 12] }], three), { code: "wrong-selection" })
  const withEmpty: PcrValues = new Map([["sha1", new Map()], ["sha256", new Map([[0, zero]])]]) // prettier-ignore
  verify("as-signed", withEmpty)
  assert.throws(() => verify([{ bank: "sha256", pcrs: [0] }], withEmpty), { code: "wrong-selection" })
  assert.throws(() => verify("as-signed", new Map([["sha256", new Map()]])), { code: "wrong-selection" })
})

test("verifyQuote() refuses SHA-1 in bank or signature unless told, and says so in the claims", () => {
  const bank: PcrValues = new Map([["sha1", new Map([[0, "00".repeat(20)]])]])
  const expected: QuoteExpectation = { extraData, selection: "as-signed", pcrs: bank }
  const quote = makeQuote(rsa, { extraData, pcrs: bank })
  assert.throws(() => verifyQuote({ ...quote, key: rsaKey }, expected), { code: "weak-algorithm" })
  assert.equal(verifyQuote({ ...quote, key: rsaKey }, { ...expected, insecureAllowSha1: true }).claims.usesSha1, true)
  const both: PcrValues = new Map([["sha256", new Map([[0, zero]])], ["sha1", new Map([[0, "00".repeat(20)]])]]) // prettier-ignore
  assert.throws(() => verifyQuote({ ...makeQuote(rsa, { extraData, pcrs: both }), key: rsaKey }, { ...expected, pcrs: both }), {
    code: "weak-algorithm",
  })
  const weak = makeRsaKey({ scheme: { scheme: "rsassa", hash: "sha1" } })
  const weakQuote = { ...makeQuote(weak, { extraData, pcrs, hash: "sha1" }), key: { kind: "attestation-key", area: weak.area } as const }
  assert.throws(() => verifyQuote(weakQuote, expectation), { code: "weak-algorithm" })
  assert.equal(verifyQuote(weakQuote, { ...expectation, insecureAllowSha1: true }).claims.usesSha1, true)
  const pss = { attest: good.attest, signature: { algorithm: "rsapss", hash: "sha1", signature: new Uint8Array(256) } as const }
  const open: QuoteKey = { kind: "bare-key", key: createPublicKey(rsa.privateKey) }
  assert.throws(() => verifyQuote({ ...pss, key: open }, { ...expectation, insecureAllowSha1: true }), { code: "weak-algorithm" })
})

test("verifyQuote() refuses values that are missing, of wrong length, not hexadecimal, or not those that were quoted", () => {
  const verify = (values: readonly (readonly [number, string])[]): unknown =>
    verifyQuote({ ...good, key: rsaKey }, { ...expectation, pcrs: new Map([["sha256", new Map(values)]]) })
  const mismatch = { code: "pcr-mismatch" }
  assert.throws(() => verify([[0, zero]]), { code: "missing-piece" })
  assert.throws(() => verifyQuote({ ...good, key: rsaKey }, { ...expectation, pcrs: new Map() }), { code: "missing-piece" })
  assert.throws(() => verify([[0, zero], [10, zero]]), mismatch) // prettier-ignore
  // The same bytes, cut at another place: only the length check sees it.
  assert.throws(() => verify([[0, zero.slice(2)], [10, `00${one}`]]), mismatch) // prettier-ignore
  assert.throws(() => verify([[0, zero], [10, one.toUpperCase().replaceAll("1", "A")]]), { code: "malformed" }) // prettier-ignore
})

test("verifyQuote() refuses banks that it cannot compute", () => {
  const attest = encodeAttest({
    ...parseAttest(good.attest),
    attested: { type: "quote", selection: [{ bank: "sm3_256", pcrs: [0] }], pcrDigest: extraData },
  })
  const evidence = { attest, signature: signAttest(rsa, attest), key: rsaKey }
  assert.throws(() => verifyQuote(evidence, { ...expectation, selection: "as-signed" }), { code: "unsupported" })
})

test("unverifiedQuoteClaims() checks the contents, never gives Genuine, and says so in the scheme", () => {
  const claims = unverifiedQuoteClaims(good.attest, good.signature, expectation)
  assert.ok(!(claims instanceof Genuine))
  assert.equal(claims.scheme, "unverified-rsassa-sha256")
  assert.throws(() => unverifiedQuoteClaims(good.attest, good.signature, { ...expectation, extraData: new Uint8Array(32) }), { code: "wrong-nonce" })
})

const p521Jwk = {
  kty: "EC",
  crv: "P-521",
  x: "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
  y: "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
}

// Evidence of real machines.

const vectors = process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../../shared/vectors")
const skip = existsSync(vectors) ? false : "skipped: no vectors"

interface VectorFacts {
  readonly nonce: string
  readonly pcrDigest?: string
  readonly qualifiedSigner?: string
  readonly firmwareVersion?: string
}

function load(folder: string): { file: (name: string) => Uint8Array; facts: VectorFacts; pcrs: PcrValues } {
  const file = (name: string): Uint8Array => new Uint8Array(readFileSync(join(vectors, "tpm", folder, name)))
  const banks = JSON.parse(existsSync(join(vectors, "tpm", folder, "pcrs.json")) ? new TextDecoder().decode(file("pcrs.json")) : "{}") as Record<
    string,
    Record<string, string>
  >
  return {
    file,
    facts: JSON.parse(new TextDecoder().decode(file("expected.json"))) as VectorFacts,
    pcrs: new Map(Object.entries(banks).map(([bank, values]) => [bank, new Map(Object.entries(values).map(([pcr, value]) => [Number(pcr), value]))])),
  }
}

const pemCases = [
  "thinkpad-ecdsa-good",
  "thinkpad-log-pcr0-mismatch",
  "dell-r340-windows-wbcl",
  "supermicro-windows-two-banks",
  "dell-latitude-windows",
  "swtpm-trustee-evidence",
]

for (const folder of pemCases) {
  test(`verifyQuote() accepts ${folder}`, { skip }, () => {
    const { file, facts, pcrs: values } = load(folder)
    const key: QuoteKey = { kind: "bare-key", key: createPublicKey(new TextDecoder().decode(file("ak.pub.pem"))) }
    const evidence = { attest: file("quote.msg"), signature: file("quote.sig"), key }
    const expected: QuoteExpectation = { extraData: parseHex(facts.nonce), selection: "as-signed", pcrs: values, insecureAllowSha1: true }
    const { claims } = verifyQuote(evidence, expected)
    if (facts.pcrDigest !== undefined) assert.equal(claims.pcrDigest, facts.pcrDigest)
    if (facts.qualifiedSigner !== undefined) assert.equal(claims.qualifiedSigner, facts.qualifiedSigner)
    if (facts.firmwareVersion !== undefined) assert.equal(`0x${claims.firmwareVersion.toString(16)}`, facts.firmwareVersion)
    assert.throws(() => verifyQuote(evidence, { ...expected, extraData: new Uint8Array(32) }), { code: "wrong-nonce" })
  })
}

test("verifyQuote() accepts the three banks of gce-cos85-nonce9009", { skip }, () => {
  const { file, facts, pcrs: values } = load("gce-cos85-nonce9009")
  const key: QuoteKey = { kind: "attestation-key", area: parsePublicArea(file("ak.tpmt_public")) }
  for (const bank of ["sha1", "sha256", "sha384"]) {
    const evidence: QuoteEvidence = { attest: file(`quote-${bank}.msg`), signature: file(`quote-${bank}.sig`), key }
    const expected: QuoteExpectation = { extraData: parseHex(facts.nonce), selection: "as-signed", pcrs: values, insecureAllowSha1: bank === "sha1" }
    assert.equal(verifyQuote(evidence, expected).claims.selection[0]?.bank, bank)
    assert.throws(() => verifyQuote(evidence, { ...expected, extraData: new Uint8Array(0) }), { code: "wrong-nonce" })
  }
})

test("verifyQuote() accepts gce-windows-sha1-bank only where SHA-1 is allowed, and never its creation attestation", { skip }, () => {
  const { file, pcrs: values } = load("gce-windows-sha1-bank")
  const key: QuoteKey = { kind: "attestation-key", area: parsePublicArea(file("ak.tpmt_public")) }
  const expected: QuoteExpectation = { extraData: new Uint8Array(0), selection: "as-signed", pcrs: values }
  const evidence = { attest: file("quote.msg"), signature: file("quote.sig"), key }
  assert.throws(() => verifyQuote(evidence, expected), { code: "weak-algorithm" })
  verifyQuote(evidence, { ...expected, insecureAllowSha1: true })
  const creation = { attest: file("ak.creation-attest"), signature: file("ak.creation-sig"), key }
  assert.throws(() => verifyQuote(creation, { ...expected, insecureAllowSha1: true }), { code: "not-a-quote" })
})

test("verifyQuote() accepts swtpm-tpm2tools-files with the register file of tpm2-tools", { skip }, () => {
  const { file, facts } = load("swtpm-tpm2tools-files")
  const key: QuoteKey = { kind: "attestation-key", area: parseSizedPublicArea(file("ak.tpm2b_public")) }
  const expected: QuoteExpectation = {
    extraData: parseHex(facts.nonce),
    selection: [{ bank: "sha256", pcrs: [15, 16, 22] }],
    pcrs: parseTpm2ToolsPcrs(file("quote.pcrs")),
  }
  assert.equal(verifyQuote({ attest: file("quote.msg"), signature: file("quote.sig"), key }, expected).claims.pcrDigest, facts.pcrDigest)
})

test("unverifiedQuoteClaims() recomputes the digest of amd-three-banks-digest-only", { skip }, () => {
  const { file, facts, pcrs: values } = load("amd-three-banks-digest-only")
  const expected: QuoteExpectation = { extraData: parseHex(facts.nonce), selection: "as-signed", pcrs: values, insecureAllowSha1: true }
  const claims = unverifiedQuoteClaims(file("quote.msg"), file("quote.sig"), expected)
  assert.deepEqual([...claims.pcrs.keys()], ["sha256", "sha384", "sha1"])
})

test("verifyQuote() refuses windows-hello-certify-is-not-a-quote", { skip }, () => {
  const { file } = load("windows-hello-certify-is-not-a-quote")
  const certified = parsePublicArea(file("certified-key.tpmt_public"))
  const attest = parseAttest(file("attest.msg"))
  assert.equal(attest.attested.type === "certify" && Buffer.from(attest.attested.name).toString("hex"), tpmNameText(certified))
  const signature = { algorithm: "rsassa", hash: "sha1", signature: file("attest.sig.raw") } as const
  const evidence = { attest: file("attest.msg"), signature, key: { kind: "attestation-key", area: certified } as const }
  assert.throws(() => verifyQuote(evidence, { ...expectation, insecureAllowSha1: true }), { code: "not-a-quote" })
})
