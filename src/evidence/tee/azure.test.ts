/** Confidential VMs of Azure as one of the kinds of TEE: how they travel, what vouches for them, and that no other quote over the same session passes for theirs. */
import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { AmdAuthority, makeRsaKey } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import { AzureVm } from "../../../lab/devices/azure-vm.testing.ts"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { digestOf } from "../../bytes/digest.ts"
import { encodeUtf8 } from "../../bytes/text.ts"
import { certificateFingerprint } from "../../pki/certificate.ts"
import { innerNonce, sessionDigest, type SessionFields } from "../bundle.ts"
import { storeCollateral, withCachedCollateral } from "../collateral/cache.ts"
import { LabMachine } from "../host/machine.testing.ts"
import { hostPcrs, verifyHost } from "../host/verify.ts"
import { verifyMachine } from "../machine/verify.ts"
import { sessionReportData, type ExpectedReportData } from "../report-data.ts"
import { encodeSizedPublicArea } from "../tpm/public-area.ts"
import { tpmNameText } from "../tpm/keys.ts"
import type { AzureVmEvidence } from "../azure/document.ts"
import { encodeTeeEvidence, hardwareOf, parseTeeEvidence, withHardware } from "./format.ts"
import { teeIdentity } from "./identity.ts"
import { teeRootsFor, vendorTeeRoots } from "./roots.ts"
import { verifyTee, type GenuineTee } from "./verify.ts"
import { encodeVouchers, parseVouchers, supplementedBy, withoutVouchers, withVouchers } from "./vouchers.ts"

const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
const chip = new SnpDevice(new AmdAuthority("Milan", { ark, ask, asvk: ask }))
const intel = makeLabAuthority({ keys: makeLabKeys() })
const vms = { snp: new AzureVm(chip), tdx: new AzureVm(intel) }
const times = { snp: Date.parse("2025-06-01T00:00:00Z"), tdx: labTime }
const roots = [chip.root, intel.root].map(({ certificate }) => certificateFingerprint(certificate))
const base = await mkdtemp(join(tmpdir(), "perun-azure-tee-"))
after(() => rm(base, { recursive: true, force: true }))

const digest = digestOf(encodeUtf8("x"))
const session: SessionFields = {
  purpose: "claim",
  version: 1,
  manager: "00".repeat(16),
  nonce: "11".repeat(32),
  hpkeKey: "AAAA",
  tlsKey: digest,
  akName: null,
  deviceEvidence: [],
  policy: digest,
  job: "train",
  run: "22".repeat(16),
  lease: "33".repeat(16),
}
const reportData = sessionReportData(sessionDigest(session))

function verify(evidence: AzureVmEvidence, expected: ExpectedReportData = reportData): GenuineTee {
  const time = times[evidence.hardware.kind]
  return verifyTee(evidence, { reportData: expected, roots: teeRootsFor(evidence, roots), time, ccelQuirks: [] })
}

for (const [kind, vm] of Object.entries(vms) as ["snp" | "tdx", AzureVm][]) {
  const evidence = vm.evidence(reportData)

  test(`verifyTee() proves a confidential VM of Azure over ${kind}, as it was made and as it travelled`, () => {
    const genuine = verify(evidence)
    assert.ok(genuine.kind === "azure-vtpm")
    const { hardware, isNonceChecked } = genuine.tee.claims
    assert.deepEqual([hardware.kind, hardware.isReportDataChecked, isNonceChecked], [kind, true, true])
    const travelled = parseTeeEvidence(JSON.stringify(encodeTeeEvidence(evidence)))
    assert.deepEqual(travelled, evidence)
    assert.ok(travelled.kind === "azure-vtpm")
    assert.deepEqual(verify(travelled).tee.claims, genuine.tee.claims)
    const { tee, platform, rootKind, description } = teeIdentity(genuine)
    const [expected] = Object.values(vm.requirement.tee).map((one: { chips?: unknown; platforms?: unknown }) => one.chips ?? one.platforms)
    assert.deepEqual([tee, [platform], rootKind], ["azure-vtpm", expected, "laboratory"])
    assert.match(description, /^Azure confidential VM on (?:AMD|Intel)/)
  })

  test(`verifyTee() refuses a confidential VM over ${kind} for another session, and says where none was compared`, () => {
    assert.throws(() => verify(evidence, sessionReportData(new Uint8Array(32))), { code: "wrong-nonce" })
    assert.throws(() => verify(evidence, sessionReportData(sessionDigest({ ...session, purpose: "renew" }))), { code: "wrong-nonce" })
    const genuine = verify(evidence, "as-signed")
    assert.ok(genuine.kind === "azure-vtpm")
    assert.equal(genuine.tee.claims.isNonceChecked, false)
    // The quote has no room for more than the digest: whoever expects more must not be told yes.
    assert.throws(() => verify(evidence, new Uint8Array(64).fill(1)), TypeError)
  })

  test(`verifyTee() refuses a confidential VM over ${kind} under the vendors' roots alone`, () => {
    const expected = { reportData, roots: vendorTeeRoots(), time: times[kind], ccelQuirks: [] }
    assert.throws(() => verifyTee(evidence, expected), { code: kind === "snp" ? "wrong-signature" : "wrong-chain" })
    const other = roots[kind === "snp" ? 1 : 0]
    assert.ok(other !== undefined)
    assert.deepEqual(teeRootsFor(evidence, [other]), vendorTeeRoots())
  })

  test(`a TPM's quote over the very session digest is no evidence of a confidential VM over ${kind}, whatever key signs it`, () => {
    const host = new LabMachine()
    const { quote: attest, signature } = host.quote(sessionDigest(session))
    const pcrs = evidence.pcrs
    const hosts = { ...evidence, quote: { attest, signature }, pcrs }
    assert.throws(() => verify(hosts), { code: "wrong-key" })
    // With the host's own key beside it: the paravisor names another.
    assert.throws(() => verify({ ...hosts, akPublic: encodeSizedPublicArea(host.key.area) }), { code: "wrong-binding" })
    // Another confidential VM's virtual TPM, in this one's place.
    const other = new AzureVm(kind === "snp" ? chip : intel)
    assert.throws(() => verify(vm.evidence(reportData, { signer: other.ak })), { code: "wrong-signature" })
    assert.throws(() => verify({ ...evidence, quote: other.evidence(reportData).quote }), { code: "wrong-signature" })
    // A quote that the same virtual TPM made as the inner piece of a machine's evidence.
    assert.throws(() => verify(vm.evidence(reportData, { extraData: innerNonce(session) })), { code: "wrong-nonce" })
  })

  test(`the quote of a confidential VM over ${kind} is no evidence of a host, over the very session digest`, () => {
    const host = new LabMachine()
    const akName = tpmNameText(host.key.area)
    const enrolled = { endorsementKey: digest, root: digest, rootKind: "laboratory", description: "", attestationKeyName: akName } as const
    const extraData = sessionDigest(session)
    const good = host.quote(extraData)
    const expectation = { extraData, requiredPcrs: hostPcrs, quirks: [], identity: enrolled, previous: "none" } as const
    verifyHost(good, expectation)
    const { attest, signature } = evidence.quote
    assert.ok(signature instanceof Uint8Array && evidence.akPublic !== undefined)
    const borrowed = { ...good, quote: attest, signature }
    assert.throws(() => verifyHost(borrowed, expectation), { name: "EvidenceError" })
    const withKey = { ...borrowed, akPublic: evidence.akPublic ?? new Uint8Array(0) }
    assert.throws(() => verifyHost(withKey, expectation), { code: "wrong-selection" })
    const every = { bank: "sha256", pcrs: Array.from({ length: 16 }, (_, pcr) => pcr) } as const
    assert.throws(() => verifyHost(withKey, { ...expectation, requiredPcrs: every }), { code: "wrong-binding" })
    // And the sessions differ before any key is looked at: a host's names its attestation key, and covers its other pieces.
    const digests = [session, { ...session, akName }, { ...session, akName, deviceEvidence: [digest] }].map((fields) =>
      Buffer.from(sessionDigest(fields)).toString("hex"),
    )
    assert.equal(new Set([...digests, Buffer.from(innerNonce({ ...session, akName })).toString("hex")]).size, 4)
  })

  test(`verifyMachine() takes a confidential VM over ${kind} as the TEE of a bundle`, () => {
    const { deviceEvidence: _none, ...fields } = session
    const tee = (): { roots: ReturnType<typeof teeRootsFor>; time: number; ccelQuirks: [] } => ({
      roots: teeRootsFor(evidence, roots),
      time: times[kind],
      ccelQuirks: [],
    })
    const expectation = { demanded: "tee", session: fields, tee } as const
    const { claims } = verifyMachine({ tee: evidence }, expectation)
    assert.equal(claims.tee?.kind, "azure-vtpm")
    const old = vm.evidence(sessionReportData(sessionDigest({ ...session, nonce: "12".repeat(32) })))
    assert.throws(() => verifyMachine({ tee: old }, expectation), { code: "wrong-nonce" })
  })

  test(`what vouches for a confidential VM over ${kind} goes with its hardware, from a file and from the cache`, async () => {
    const bare = withoutVouchers(evidence)
    assert.deepEqual(Object.keys(hardwareOf(bare)).toSorted(), ["kind", kind === "snp" ? "report" : "quote"])
    assert.deepEqual({ ...bare, hardware: evidence.hardware }, evidence)
    const vouchers = parseVouchers(kind, encodeVouchers(evidence))
    for (const whole of [withVouchers(bare, vouchers), supplementedBy(bare, vouchers)]) assert.deepEqual(whole, evidence)
    const folder = join(base, kind)
    const judge = { roots: (of: Parameters<typeof teeRootsFor>[0]) => teeRootsFor(of, roots), time: times[kind] }
    const entry = await storeCollateral(folder, evidence, judge)
    assert.equal(entry.kind, kind)
    // Of another boot, and another VM on the same platform.
    for (const later of [vm, new AzureVm(kind === "snp" ? chip : intel)]) {
      const shown = withoutVouchers(later.evidence(sessionReportData(new Uint8Array(32).fill(9))))
      const whole = await withCachedCollateral(folder, shown, judge)
      assert.deepEqual(hardwareOf(whole), { ...hardwareOf(shown), ...hardwareOf(withVouchers(shown, vouchers)) })
    }
    const other = kind === "snp" ? vms.tdx : vms.snp
    assert.throws(() => withHardware(evidence, other.evidence(reportData).hardware), TypeError)
    assert.throws(() => withVouchers(bare, parseVouchers(kind === "snp" ? "tdx" : "snp", encodeVouchers(other.evidence(reportData)))), TypeError)
  })
}

test("parseTeeEvidence() reads of a confidential VM exactly its form", () => {
  const document = encodeTeeEvidence(vms.snp.evidence(reportData)) as Record<string, unknown>
  const text = (change: object): string => JSON.stringify({ ...document, ...change })
  assert.throws(() => parseTeeEvidence(text({ extra: 1 })), { code: "unknown-field" })
  assert.throws(() => parseTeeEvidence(text({ hclReport: undefined })), { code: "malformed" })
  assert.throws(() => parseTeeEvidence(text({ pcrs: { sha256: { "0": "00" } } })), { code: "malformed" })
  assert.throws(() => parseTeeEvidence(text({ hardware: encodeTeeEvidence(vms.tdx.evidence(reportData).hardware) })), { code: "unknown-field" })
  const td = encodeTeeEvidence(vms.tdx.evidence(reportData))
  assert.ok(td.kind === "azure-vtpm")
  assert.throws(() => parseTeeEvidence(text({ hardware: td.hardware })), { code: "wrong-binding" })
})
