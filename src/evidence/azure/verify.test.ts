import assert from "node:assert/strict"
import { createPublicKey, generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { AmdAuthority, makeRsaKey } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import type { ReportFields } from "../../../lab/devices/amd-snp.ts"
import { makeRuntimeData, makeTdReport, reportDataFor } from "../../../lab/devices/azure-hcl.ts"
import type { RuntimeDataOptions } from "../../../lab/devices/azure-hcl.ts"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex } from "../../bytes/text.ts"
import type { TransportResponse } from "../dcap/endorsements.ts"
import { assertRefuses, testBitFlips, testFuzz, testParserLaws, testTruncations } from "../testing/parser-laws.ts"
import { parseTdxQuote } from "../tdx/format.ts"
import type { TdReport } from "../tdx/format.ts"
import { endorsementKeyDigest } from "../tpm/endorsements.ts"
import { makeEccKey, makeQuote, makeRsaKey as makeTpmKey } from "../tpm/software-tpm.testing.ts"
import type { QuoteExpectation } from "../tpm/quote.ts"
import type { AzureClaims } from "./claims.ts"
import { fetchThimEndorsements, parseThimEndorsements, thimAddress } from "./endorsements.ts"
import { encodeHclReport, parseHclReport } from "./format.ts"
import type { HclReport } from "./format.ts"
import { parseRuntimeData, unknownSettings } from "./runtime-data.ts"
import { verifyAzureVtpm } from "./verify.ts"
import type { AzureEvidence, AzureExpectation } from "./verify.ts"

const [arkKey, askKey] = await Promise.all([makeRsaKey(), makeRsaKey()])
const device = new SnpDevice(new AmdAuthority("Milan", { ark: arkKey, ask: askKey, asvk: askKey }))
const ak = makeTpmKey()
const attestationKey = createPublicKey(ak.privateKey)
const endorsementKey = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey
const nonce = new Uint8Array(32).fill(0x0c)
const pcrs = new Map([["sha256", new Map([[0, "00".repeat(32)], [7, "77".repeat(32)]])]]) // prettier-ignore
const quoteExpectation: QuoteExpectation = { extraData: nonce, selection: [{ bank: "sha256", pcrs: [0, 7] }], pcrs }
const expectation: AzureExpectation = { quote: quoteExpectation, snpRoots: [device.root], dcapRoots: [], time: Date.parse("2025-06-01T00:00:00Z") }
const quote = makeQuote(ak, { extraData: nonce, pcrs })

interface Knobs {
  readonly runtime?: Partial<RuntimeDataOptions>
  readonly report?: Partial<ReportFields>
  readonly hcl?: Partial<HclReport>
}

function hclReport({ runtime, report, hcl }: Knobs = {}): Uint8Array {
  const runtimeData = makeRuntimeData({ attestationKey, endorsementKey, ...runtime })
  const bytes = device.report({ reportData: reportDataFor(runtimeData), ...report })
  return encodeHclReport({ version: 2, hardware: { type: "snp", report: bytes }, runtimeData, paddingBytes: 100, ...hcl })
}

function evidenceOf(knobs: Knobs = {}): AzureEvidence {
  return { hclReport: hclReport(knobs), hardware: { type: "snp", endorsements: device.endorsements() }, quote, akPublic: "not-given" }
}

const good = evidenceOf()

function refuses(code: string, evidence: AzureEvidence, change: Partial<AzureExpectation> = {}): void {
  assert.throws(() => verifyAzureVtpm(evidence, { ...expectation, ...change }), { code })
}

test("verifyAzureVtpm() proves hardware, paravisor and quote, and states the rest", () => {
  const { claims } = verifyAzureVtpm(good, expectation)
  assert.equal(claims.kind, "azure-vtpm")
  assert.equal(claims.hardware.kind, "snp")
  assert.equal(claims.debug, false)
  assert.equal(claims.quote.keyName, undefined)
  assert.equal(claims.attestationKey, endorsementKeyDigest(attestationKey))
  assert.equal(claims.endorsementKey, endorsementKeyDigest(endorsementKey))
  assert.equal(claims.userData, "00".repeat(64))
  assert.equal(claims.vmConfiguration["secure-boot"], true)
  assert.deepEqual(claims.unknownSettings, [])
  assert.deepEqual(claims.quirks, [])
  assert.equal(claims.hclVersion, 2)
})

test("verifyAzureVtpm() states debug, user data, other settings and old forms", () => {
  const policy = { ...device.fields().policy, debug: true }
  const userData = "AB".repeat(64)
  const vmConfiguration = { "secure-boot": false, "new-setting": { a: [1] }, "another": "x" } // prettier-ignore
  const { claims } = verifyAzureVtpm(evidenceOf({ report: { policy }, runtime: { userData, vmConfiguration }, hcl: { version: 1 } }), expectation)
  assert.equal(claims.debug, true)
  assert.equal(claims.userData, "ab".repeat(64))
  assert.equal(claims.vmConfiguration["secure-boot"], false)
  assert.deepEqual(claims.unknownSettings, ["another", "new-setting"])
  assert.equal(claims.hclVersion, 1)
  const runtimeData = makeRuntimeData({ attestationKey, userData: undefined, jwk: { key_ops: ["encrypt"] } })
  const old = encodeHclReport({ version: 1, hardware: { type: "snp", report: device.report({ reportData: reportDataFor(runtimeData) }) }, runtimeData, paddingBytes: 0 }) // prettier-ignore
  const oldClaims = verifyAzureVtpm({ ...good, hclReport: old }, expectation).claims
  assert.deepEqual([oldClaims.userData, oldClaims.endorsementKey, oldClaims.quirks], [undefined, undefined, ["ak-for-encryption"]])
})

test("verifyAzureVtpm() refuses a report that the paravisor did not ask for", () => {
  for (const vmpl of [1, 2, 3]) refuses("wrong-binding", evidenceOf({ report: { vmpl } }))
})

test("verifyAzureVtpm() wants SHA-256 of the runtime data and zeros as report data", () => {
  const runtimeData = makeRuntimeData({ attestationKey, endorsementKey })
  const reportData = reportDataFor(runtimeData)
  reportData[63] = 1
  refuses("wrong-binding", evidenceOf({ report: { reportData } }))
  refuses("wrong-binding", evidenceOf({ hcl: { runtimeData: makeRuntimeData({ attestationKey }) } }))
  refuses("wrong-binding", evidenceOf({ report: { reportData: new Uint8Array(64) } }))
})

test("verifyAzureVtpm() refuses the quote of another key, nonce, selection and other registers", () => {
  const other = makeTpmKey()
  refuses("wrong-signature", { ...good, quote: makeQuote(other, { extraData: nonce, pcrs }) })
  refuses("wrong-nonce", good, { quote: { ...quoteExpectation, extraData: new Uint8Array(32) } })
  refuses("wrong-nonce", good, { quote: { ...quoteExpectation, extraData: nonce.slice(1) } })
  refuses("wrong-selection", good, { quote: { ...quoteExpectation, selection: [{ bank: "sha256", pcrs: [0] }] } })
  refuses("wrong-selection", good, { quote: { ...quoteExpectation, selection: [{ bank: "sha256", pcrs: [0, 4, 7] }] } })
  refuses("missing-piece", good, { quote: { ...quoteExpectation, pcrs: new Map([["sha256", new Map([[0, "00".repeat(32)]])]]) } })
  refuses("pcr-mismatch", good, { quote: { ...quoteExpectation, pcrs: new Map([["sha256", new Map([[0, "00".repeat(32)], [7, "78".repeat(32)]])]]) } }) // prettier-ignore
})

test("verifyAzureVtpm() holds the attestation key's public area against the runtime data, and its attributes", () => {
  assert.notEqual(verifyAzureVtpm({ ...good, akPublic: ak.area }, expectation).claims.quote.keyName, undefined)
  refuses("wrong-binding", { ...good, akPublic: makeTpmKey().area })
  refuses("wrong-binding", { ...good, akPublic: makeEccKey().area })
  const attributes = new Set([...ak.area.attributes].filter((name) => name !== "restricted"))
  refuses("wrong-key", { ...good, akPublic: { ...ak.area, attributes } })
})

test("verifyAzureVtpm() refuses hardware that is not genuine, whatever else holds", () => {
  const stranger = new SnpDevice(device.authority)
  refuses("wrong-signature", { ...good, hardware: { type: "snp", endorsements: stranger.endorsements() } })
  refuses("wrong-chain", good, { snpRoots: [] })
  refuses("expired", good, { time: Date.parse("2032-01-01T00:00:00Z") })
  refuses("wrong-binding", evidenceOf({ hcl: { hardware: { type: "tdx", report: new Uint8Array(1024) } } }))
})

// TDX.

const intel = makeLabAuthority({ keys: makeLabKeys() })
const tdxExpectation: AzureExpectation = { ...expectation, dcapRoots: [intel.root], time: labTime }

interface TdKnobs {
  /** What the TD report says otherwise than the quote. */
  readonly local?: Partial<TdReport>
  readonly quoted?: Partial<TdReport>
  readonly reportData?: Uint8Array
}

function tdEvidence({ local, quoted, reportData }: TdKnobs = {}): AzureEvidence {
  const runtimeData = makeRuntimeData({ attestationKey, endorsementKey })
  const tdQuote = makeTdxQuote(intel, reportData ?? reportDataFor(runtimeData), quoted === undefined ? {} : { report: quoted })
  const { report } = parseTdxQuote(tdQuote)
  const hardware = { type: "tdx", report: makeTdReport({ ...report, ...local }) } as const
  const hcl = encodeHclReport({ version: 2, hardware, runtimeData, paddingBytes: 0 })
  return { hclReport: hcl, hardware: { type: "tdx", quote: tdQuote, collateral: intel.tdxCollateral }, quote, akPublic: "not-given" }
}

test("verifyAzureVtpm() proves the chain over TDX, and states debug", () => {
  const { claims } = verifyAzureVtpm(tdEvidence(), tdxExpectation)
  assert.equal(claims.hardware.kind, "tdx")
  assert.equal(claims.debug, false)
  assert.equal(verifyAzureVtpm(tdEvidence({ quoted: { tdAttributes: "0100001000000000" } }), tdxExpectation).claims.debug, true)
})

const otherTd: Partial<TdReport> = {
  teeTcbSvn: "01".repeat(16),
  mrSeam: "01".repeat(48),
  mrSignerSeam: "01".repeat(48),
  tdAttributes: "0100001000000000",
  xfam: "0300000000000000",
  mrTd: "01".repeat(48),
  mrConfigId: "01".repeat(48),
  mrOwner: "01".repeat(48),
  mrOwnerConfig: "01".repeat(48),
  rtmrs: ["01".repeat(48), "a1".repeat(48), "a2".repeat(48), "00".repeat(48)],
}

for (const [field, value] of Object.entries(otherTd)) {
  test(`verifyAzureVtpm() refuses the quote of a TD whose ${field} is another than in the TD report`, () => {
    refuses("wrong-binding", tdEvidence({ local: { [field]: value } }), tdxExpectation)
  })
}

test("verifyAzureVtpm() refuses a TD report or a quote that do not cover the runtime data", () => {
  const { reportData } = parseTdxQuote(makeTdxQuote(intel, new Uint8Array(64))).report
  refuses("wrong-binding", tdEvidence({ local: { reportData } }), tdxExpectation)
  refuses("wrong-binding", tdEvidence({ reportData: new Uint8Array(64) }), tdxExpectation)
  const runtimeData = makeRuntimeData({ attestationKey, endorsementKey })
  refuses(
    "wrong-binding",
    tdEvidence({ reportData: new Uint8Array(64), local: { reportData: encodeHex(reportDataFor(runtimeData)) } }),
    tdxExpectation,
  )
})

test("verifyAzureVtpm() refuses a TD quote under another root, and endorsements of the other kind", () => {
  refuses("wrong-chain", tdEvidence(), { ...tdxExpectation, dcapRoots: [] })
  refuses("wrong-binding", { ...tdEvidence(), hardware: good.hardware }, tdxExpectation)
  refuses("wrong-binding", { ...good, hardware: tdEvidence().hardware }, tdxExpectation)
  assert.deepEqual(hardwareDcap(verifyAzureVtpm({ ...tdEvidence(), hardware: { ...tdHardware(), collateral: {} } }, tdxExpectation).claims), ["TCB info", "QE identity", "root CA CRL", "PCK CRL"]) // prettier-ignore
})

function tdHardware(): Extract<AzureEvidence["hardware"], { readonly type: "tdx" }> {
  const { hardware } = tdEvidence()
  if (hardware.type !== "tdx") throw new Error("no TDX hardware")
  return hardware
}

function hardwareDcap({ hardware }: AzureClaims): readonly string[] {
  return hardware.kind === "tdx" ? hardware.dcap.missingCollateral : []
}

const withoutPadding = hclReport({ hcl: { paddingBytes: 0 } })
// The bits of the hardware's report are flipped in the tests of its own verifier.
const [head, hardwareReport, tail] = [withoutPadding.slice(0, 32), withoutPadding.slice(32, 1216), withoutPadding.slice(1216)]
testBitFlips("verifyAzureVtpm() over the paravisor's report", concatBytes(head, tail), (bytes) =>
  verifyAzureVtpm({ ...good, hclReport: concatBytes(bytes.slice(0, 32), hardwareReport, bytes.slice(32)) }, expectation),
)
testTruncations("verifyAzureVtpm() over the paravisor's report", withoutPadding, (report) =>
  verifyAzureVtpm({ ...good, hclReport: report }, expectation),
)
testFuzz(
  "verifyAzureVtpm() over the paravisor's report",
  [good.hclReport],
  (report) => verifyAzureVtpm({ ...good, hclReport: report }, expectation),
  1000,
)
testFuzz("verifyAzureVtpm() over the quote", [quote.attest], (attest) => verifyAzureVtpm({ ...good, quote: { ...quote, attest } }, expectation), 500)
testBitFlips("verifyAzureVtpm() over the quote", quote.attest, (attest) => verifyAzureVtpm({ ...good, quote: { ...quote, attest } }, expectation))

// Format.

testParserLaws({
  name: "parseHclReport",
  parse: parseHclReport,
  encode: encodeHclReport,
  samples: [withoutPadding, encodeHclReport({ version: 1, hardware: { type: "tdx", report: new Uint8Array(1024).fill(1) }, runtimeData: new Uint8Array(10), paddingBytes: 0 })], // prettier-ignore
  // Zeros behind are the rest of the NV index.
  refusesTrailing: false,
  fuzzRuns: 5000,
})

test("parseHclReport() takes zeros behind the report, and nothing else", () => {
  assert.equal(parseHclReport(good.hclReport).paddingBytes, 100)
  const changed = Uint8Array.from(good.hclReport)
  changed[changed.length - 1] = 1
  assert.throws(() => parseHclReport(changed), { code: "malformed", path: "HCL_REPORT.padding" })
  assert.equal(parseHclReport(hclReport({ hcl: { paddingBytes: 8192 } })).paddingBytes, 8192)
  assert.throws(() => parseHclReport(hclReport({ hcl: { paddingBytes: 8193 } })), { code: "too-large" })
})

for (const [what, at, value, code] of [
  ["another signature", 0x00, 0x49, "malformed"],
  ["version 0", 0x04, 0, "unsupported"],
  ["version 3", 0x04, 3, "unsupported"],
  ["another report size", 0x08, 0xff, "malformed"],
  ["another request", 0x0c, 1, "unsupported"],
  ["an error status", 0x10, 1, "malformed"],
  ["reserved byte 0x14", 0x14, 1, "malformed"],
  ["reserved byte 0x1f", 0x1f, 1, "malformed"],
  ["another data size", 0x4c0, 0xff, "malformed"],
  ["another data version", 0x4c4, 2, "unsupported"],
  ["a VBS report", 0x4c8, 1, "unsupported"],
  ["an unknown hardware report", 0x4c8, 3, "unsupported"],
  ["SHA-384", 0x4cc, 2, "weak-algorithm"],
  ["no hash", 0x4cc, 0, "weak-algorithm"],
  ["another variable size", 0x4d0, 0xff, "malformed"],
] as const) {
  test(`parseHclReport() refuses ${what}`, () => {
    const changed = Uint8Array.from(good.hclReport)
    changed[at] = value
    assert.throws(() => parseHclReport(changed), { code })
  })
}

test("parseHclReport() refuses bytes behind a TD report, and too much runtime data", () => {
  const td = encodeHclReport({
    version: 2,
    hardware: { type: "tdx", report: new Uint8Array(1024) },
    runtimeData: new Uint8Array(8192),
    paddingBytes: 0,
  })
  parseHclReport(td)
  td[0x20 + 1183] = 1
  assert.throws(() => parseHclReport(td), { code: "malformed" })
  const large = { version: 2, hardware: { type: "tdx", report: new Uint8Array(1024) }, runtimeData: new Uint8Array(8193), paddingBytes: 0 } as const
  assert.throws(() => parseHclReport(encodeHclReport(large)), { code: "too-large" })
})

// Runtime data.

const runtimeCases: readonly (readonly [what: string, options: Partial<RuntimeDataOptions>, code: string])[] = [
  ["an unknown member", { document: { extra: 1 } }, "unknown-field"],
  ["no keys", { document: { keys: [] } }, "malformed"],
  ["another key's name", { jwk: { kid: "HCLXkPub" } }, "malformed"],
  ["an unknown member of a key", { jwk: { d: "AQAB" } }, "unknown-field"],
  ["another exponent", { jwk: { e: "Aw" } }, "malformed"],
  ["another kind of key", { jwk: { kty: "EC" } }, "malformed"],
  ["another use", { jwk: { key_ops: ["verify"] } }, "malformed"],
  ["two uses", { jwk: { key_ops: ["sign", "encrypt"] } }, "malformed"],
  ["a short modulus", { jwk: { n: "AQAB" } }, "malformed"],
  ["a modulus of 2047 bits", { jwk: { n: Buffer.from(new Uint8Array(256).fill(0x7f)).toString("base64url") } }, "malformed"],
  ["a modulus of 257 bytes", { jwk: { n: Buffer.from(new Uint8Array(257).fill(0x80)).toString("base64url") } }, "malformed"],
  ["a modulus of 255 bytes", { jwk: { n: Buffer.from(new Uint8Array(255).fill(0x80)).toString("base64url") } }, "malformed"],
  ["a padded modulus", { jwk: { n: `${"A".repeat(342)}==` } }, "malformed"],
  ["short user data", { userData: "00".repeat(63) }, "malformed"],
  ["user data that are not hexadecimal", { userData: "zz".repeat(64) }, "malformed"],
  ["user data that begin otherwise", { userData: `z${"0".repeat(127)}` }, "malformed"],
  ["user data that end otherwise", { userData: `${"0".repeat(127)}z` }, "malformed"],
  ["a time before all times", { vmConfiguration: { "current-time": -1 } }, "malformed"],
  ["a long thumbprint", { vmConfiguration: { "root-cert-thumbprint": "x".repeat(1025) } }, "malformed"],
  ["a long version", { vmConfiguration: { "tpm-version": "x".repeat(65) } }, "malformed"],
  ["a long sealing policy", { vmConfiguration: { "hardware-sealing-policy": "x".repeat(65) } }, "malformed"],
  ["a long hash", { vmConfiguration: { "key-release-context-hash": "x".repeat(1025) } }, "malformed"],
  ["a long provisioner", { vmConfiguration: { "vmgs-provisioner": { a: "x".repeat(1025) } } }, "malformed"],
  ["a long identifier", { vmConfiguration: { vmUniqueId: "x".repeat(1025) } }, "malformed"],
  ["secure boot as text", { vmConfiguration: { "secure-boot": "true" } }, "malformed"],
  ["no configuration", { document: { "vm-configuration": undefined } }, "malformed"],
]

for (const [what, options, code] of runtimeCases) {
  test(`parseRuntimeData() refuses ${what}`, () => {
    assert.throws(() => parseRuntimeData(makeRuntimeData({ attestationKey, ...options })), { code })
  })
}

test("parseRuntimeData() refuses duplicate keys, a doubled attestation key and text behind", () => {
  const text = new TextDecoder().decode(makeRuntimeData({ attestationKey, endorsementKey }))
  const refused = (changed: string, code: string): void => {
    assert.notEqual(changed, text)
    assert.throws(() => parseRuntimeData(new TextEncoder().encode(changed)), { code })
  }
  refused(text.replace('"kty":"RSA"', '"kty":"RSA","kty":"RSA"'), "duplicate")
  refused(text.replace('"secure-boot":true', '"secure-boot":true,"secure-boot":false'), "duplicate")
  refused(text.replace("HCLEkPub", "HCLAkPub"), "malformed")
  refused(`${text} x`, "malformed")
})

test("parseRuntimeData() takes every setting that is known, a key of exactly 2048 bits, and 8 KiB", () => {
  const vmConfiguration = {
    "current-time": 1_750_000_000,
    "root-cert-thumbprint": "",
    "tpm-version": "2.0",
    "hardware-sealing-policy": "none",
    "key-release-context-hash": "x",
    "vmgs-provisioner": { a: "b" },
  }
  const smallest = new Uint8Array(256)
  smallest.set([0x80])
  const jwk = { n: Buffer.from(smallest).toString("base64url"), key_ops: ["encrypt"] }
  const { attestationKey: key, vmConfiguration: found } = parseRuntimeData(makeRuntimeData({ attestationKey, vmConfiguration, jwk }))
  assert.deepEqual(key, { modulus: smallest, keyOps: "encrypt" })
  assert.deepEqual(unknownSettings(found), [])
  const text = new TextDecoder().decode(makeRuntimeData({ attestationKey }))
  const padded = (length: number): unknown => parseRuntimeData(new TextEncoder().encode(text.padEnd(length, " ")))
  padded(8192)
  assert.throws(() => padded(8193), { code: "too-large" })
})

testFuzz("parseRuntimeData()", [makeRuntimeData({ attestationKey, endorsementKey })], parseRuntimeData, 3000)

test("unknownSettings() names what this program does not know, in order", () => {
  assert.deepEqual(unknownSettings({ zeta: 1, "secure-boot": true, alpha: null }), ["alpha", "zeta"])
})

// THIM.

const pem = (der: Uint8Array): string => `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString("base64")}\n-----END CERTIFICATE-----\n`
const thim = {
  vcekCert: pem(device.endorsements().signer.der),
  tcbm: encodeHex(device.encodeTcb(device.tcb).toReversed()).toUpperCase(),
  certificateChain: pem(device.authority.ask) + pem(device.authority.ark),
  cacheControl: "86400",
}

test("parseThimEndorsements() gives endorsements that verify, and whose stated patch level is held against the report", () => {
  const endorsements = parseThimEndorsements(JSON.stringify(thim))
  verifyAzureVtpm({ ...good, hardware: { type: "snp", endorsements } }, expectation)
  const other = parseThimEndorsements(JSON.stringify({ ...thim, tcbm: "DB18000000000003" }))
  refuses("wrong-binding", { ...good, hardware: { type: "snp", endorsements: other } })
})

test("parseThimEndorsements() refuses other forms", () => {
  const refused = (change: object, code: string): void => assert.throws(() => parseThimEndorsements(JSON.stringify({ ...thim, ...change })), { code })
  refused({ extra: 1 }, "unknown-field")
  for (const tcbm of ["DB1800000000000", "DB180000000000030", "xDB18000000000003", "DB18000000000003\n"]) refused({ tcbm }, "malformed")
  refused({ tcbm: undefined }, "malformed")
  refused({ vcekCert: "" }, "malformed")
  refused({ vcekCert: thim.certificateChain }, "malformed")
  const padded = (length: number): unknown => parseThimEndorsements(JSON.stringify(thim).padEnd(length, " "))
  padded(32_768)
  assert.throws(() => padded(32_769), { code: "too-large" })
  assertRefuses(() => parseThimEndorsements(JSON.stringify({ ...thim, certificateChain: thim.certificateChain.replace("M", "!") })), "broken base64")
})

test("fetchThimEndorsements() asks the metadata service, and refuses other answers than 200", async () => {
  const asked: string[] = []
  const transport =
    (status: number) =>
    async (address: string): Promise<TransportResponse> => {
      asked.push(address)
      return { status, header: () => null, body: new TextEncoder().encode(JSON.stringify(thim)) }
    }
  assert.equal((await fetchThimEndorsements(transport(200))).intermediates.length, 2)
  assert.deepEqual(asked, [thimAddress])
  assert.equal(thimAddress, "http://169.254.169.254/metadata/THIM/amd/certification")
  await assert.rejects(fetchThimEndorsements(transport(429)), { code: "unavailable" })
})
