import assert from "node:assert/strict"
import { createPublicKey } from "node:crypto"
import { test } from "node:test"
import { AmdAuthority, makeRsaKey } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import { makeRuntimeData, makeTdReport, reportDataFor } from "../../../lab/devices/azure-hcl.ts"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { parseTdxQuote } from "../tdx/format.ts"
import { parseTpmSignature } from "../tpm/format.ts"
import { encodeSizedPublicArea } from "../tpm/public-area.ts"
import { makeQuote, makeRsaKey as makeTpmKey } from "../tpm/software-tpm.testing.ts"
import { azureEvidenceOf, encodeAzureVmEvidence, parseAzureVmEvidence, parsePcrValues, type AzureVmEvidence } from "./document.ts"
import { encodeHclReport } from "./format.ts"
import { verifyAzureVtpm, type AzureExpectation } from "./verify.ts"

const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
const device = new SnpDevice(new AmdAuthority("Milan", { ark, ask, asvk: ask }))
const intel = makeLabAuthority({ keys: makeLabKeys() })
const ak = makeTpmKey()
const runtimeData = makeRuntimeData({ attestationKey: createPublicKey(ak.privateKey) })
const extraData = new Uint8Array(32).fill(0x0c)
const pcrs = new Map([["sha256", new Map([[0, "00".repeat(32)], [7, "77".repeat(32)], [10, "aa".repeat(32)]])]]) // prettier-ignore
const quote = makeQuote(ak, { extraData, pcrs })
const akPublic = encodeSizedPublicArea(ak.area)
const expectation: Omit<AzureExpectation, "time"> = {
  quote: { extraData, selection: "as-signed", pcrs },
  snpRoots: [device.root],
  dcapRoots: [intel.root],
}

function hclReport(type: "snp" | "tdx", report: Uint8Array): Uint8Array {
  return encodeHclReport({ version: 2, hardware: { type, report }, runtimeData, paddingBytes: 100 })
}

const report = device.report({ reportData: reportDataFor(runtimeData) })
const endorsements = device.endorsements()
const snp: AzureVmEvidence = {
  kind: "azure-vtpm",
  hclReport: hclReport("snp", report),
  hardware: { kind: "snp", report, endorsements },
  quote,
  akPublic,
  pcrs,
}
const tdQuote = makeTdxQuote(intel, reportDataFor(runtimeData))
const tdx: AzureVmEvidence = {
  kind: "azure-vtpm",
  hclReport: hclReport("tdx", makeTdReport(parseTdxQuote(tdQuote).report)),
  hardware: { kind: "tdx", quote: tdQuote, collateral: intel.tdxCollateral },
  quote,
  pcrs,
}
const text = (evidence: AzureVmEvidence, change: object = {}): string => JSON.stringify({ ...encodeAzureVmEvidence(evidence), ...change })

test("parseAzureVmEvidence() reads what encodeAzureVmEvidence() wrote, and it verifies", () => {
  for (const [evidence, time] of [
    [snp, Date.parse("2025-06-01T00:00:00Z")],
    [tdx, labTime],
  ] as const) {
    // prettier-ignore
    const read = parseAzureVmEvidence(text(evidence))
    assert.deepEqual(read, evidence)
    assert.equal(verifyAzureVtpm(azureEvidenceOf(read), { ...expectation, time }).claims.hardware.kind, evidence.hardware.kind)
  }
  const bare = { ...quote, signature: parseTpmSignature(quote.signature) }
  assert.deepEqual(parseAzureVmEvidence(text({ ...snp, quote: bare })), snp)
  const { akPublic: _unused, ...keyless } = snp
  assert.equal(azureEvidenceOf(parseAzureVmEvidence(text(keyless))).akPublic, "not-given")
})

test("parseAzureVmEvidence() refuses what is not exactly the form", () => {
  const refusals: readonly (readonly [code: string, change: object])[] = [
    ["unknown-field", { more: 1 }],
    ["malformed", { perun: 2 }],
    ["malformed", { kind: "snp" }],
    ["malformed", { quote: { attest: "AA" } }],
    ["malformed", { hclReport: "AA==" + "=" }],
    ["malformed", { pcrs: { sha256: { "24": "00".repeat(32) } } }],
    ["malformed", { pcrs: { sha256: { "07": "00".repeat(32) } } }],
    ["malformed", { pcrs: { sha256: { "7": "00".repeat(20) } } }],
    ["malformed", { pcrs: { sha256: { "7": "AB".repeat(32) } } }],
    ["malformed", { pcrs: { md5: { "7": "00".repeat(16) } } }],
    ["too-large", { akPublic: "A".repeat(8192) }],
    // Hardware and the paravisor's report must be of one kind.
    ["wrong-binding", { hardware: encodeAzureVmEvidence(tdx).hardware }],
  ]
  for (const [code, change] of refusals)
    assert.throws(() => parseAzureVmEvidence(text(snp, change)), { code }, JSON.stringify(change).substring(0, 80))
  assert.throws(() => parseAzureVmEvidence(text(tdx, { hardware: { kind: "snp" } })), { code: "wrong-binding" })
  assert.throws(() => parseAzureVmEvidence('{"perun":1,"perun":1}'), { code: "duplicate" })
})

test("azureEvidenceOf() wants a certificate of the key that signed the hardware's report", () => {
  assert.throws(() => azureEvidenceOf({ ...snp, hardware: { kind: "snp", report } }), { code: "missing-piece" })
  // Intel's quote brings its certificates; what else is missing becomes a claim.
  const bare = azureEvidenceOf({ ...tdx, hardware: { kind: "tdx", quote: tdQuote } })
  const { hardware } = verifyAzureVtpm(bare, { ...expectation, time: labTime }).claims
  assert.ok(hardware.kind === "tdx" && hardware.dcap.missingCollateral.length === 4)
})

test("parsePcrValues() reads registers by bank and index", () => {
  assert.deepEqual(parsePcrValues(JSON.stringify({ sha256: { "0": "00".repeat(32), "7": "77".repeat(32), "10": "aa".repeat(32) } })), pcrs)
  assert.throws(() => parsePcrValues("[]"), { code: "malformed" })
})
