import assert from "node:assert/strict"
import { mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { AmdAuthority, makeRsaKey, serials } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import { labTime, makeLabAuthority, makeLabKeys, type LabAuthority } from "../../../lab/devices/dcap/authority.ts"
import { makeSgxQuote, makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { certificateFingerprint } from "../../pki/certificate.ts"
import { parseRevocationList } from "../../pki/crl.ts"
import { encodeTeeEvidence, type TeeEvidence } from "../tee/format.ts"
import { teeRootsFor } from "../tee/roots.ts"
import { verifyTee } from "../tee/verify.ts"
import { withVouchers } from "../tee/vouchers.ts"
import { type CollateralJudge, judgeCollateral, refreshMilliseconds, storeCollateral, withCachedCollateral } from "./cache.ts"

const base = await mkdtemp(join(tmpdir(), "perun-collateral-"))
after(() => rm(base, { recursive: true, force: true }))
const keys = makeLabKeys()
const intel = makeLabAuthority({ keys })
const reportData = new Uint8Array(64)
const dayMilliseconds = 86_400_000

function tdx(authority: LabAuthority = intel, data = reportData): TeeEvidence {
  return { kind: "tdx", quote: makeTdxQuote(authority, data), collateral: authority.tdxCollateral }
}

function bare(evidence: TeeEvidence): TeeEvidence {
  assert.ok(evidence.kind === "tdx" || evidence.kind === "sgx")
  return { kind: evidence.kind, quote: evidence.quote }
}

function judge(time = labTime, ...authorities: readonly LabAuthority[]): CollateralJudge {
  const named = [intel, ...authorities].map(({ root }) => certificateFingerprint(root.certificate))
  return { roots: (evidence) => teeRootsFor(evidence, named), time }
}

let count = 0
const newFolder = (): string => join(base, String(count++))

test("storeCollateral() keeps verified collateral, which another quote of the platform then gets", async () => {
  const folder = newFolder()
  const entry = await storeCollateral(folder, tdx(), judge())
  assert.deepEqual([entry.name, entry.isLaboratory], ["tdx-b0c06f000000-platform-laboratory.json", true])
  const other = bare(tdx(intel, new Uint8Array(64).fill(9)))
  const whole = await withCachedCollateral(folder, other, judge())
  assert.deepEqual(whole, { ...other, collateral: intel.tdxCollateral })
  // What the evidence brings counts, and of another kind there is nothing.
  const complete = tdx()
  assert.equal(await withCachedCollateral(folder, complete, judge()), complete)
  const sgx: TeeEvidence = { kind: "sgx", quote: makeSgxQuote(intel, reportData) }
  assert.deepEqual(await withCachedCollateral(folder, sgx, judge()), sgx)
  assert.deepEqual(await withCachedCollateral(newFolder(), other, judge()), other)
})

test("storeCollateral() keeps nothing that does not verify as a whole", async () => {
  const folder = newFolder()
  const { rootCrl, pckCrl, tcbInfo, qeIdentity } = intel.tdxCollateral
  const forged = makeLabAuthority({ keys: { ...keys, tcbSigning: makeLabKeys().tcbSigning } })
  const cases: readonly (readonly [string, TeeEvidence])[] = [
    ["missing-piece", withVouchers(bare(tdx()), { pckCrl, tcbInfo, qeIdentity })],
    ["missing-piece", withVouchers(bare(tdx()), { rootCrl, pckCrl, tcbInfo })],
    ["missing-piece", bare(tdx())],
    ["wrong-binding", withVouchers(bare(tdx()), { ...intel.tdxCollateral, qeIdentity: intel.sgxCollateral.qeIdentity })],
    ["wrong-chain", withVouchers(bare(tdx()), { ...intel.tdxCollateral, tcbInfo: forged.tdxCollateral.tcbInfo })],
  ]
  for (const [code, evidence] of cases) await assert.rejects(storeCollateral(folder, evidence, judge()), { name: "EvidenceError", code })
  await assert.rejects(storeCollateral(folder, tdx(), judge(labTime + 60 * dayMilliseconds)), { code: "expired" })
  await assert.rejects(readdir(folder), { code: "ENOENT" })
})

test("withCachedCollateral() gives nothing past its time, revoked, changed or of another platform", async () => {
  const folder = newFolder()
  const { name } = await storeCollateral(folder, tdx(), judge())
  const other = bare(tdx())
  assert.deepEqual(await withCachedCollateral(folder, other, judge(labTime + 21 * dayMilliseconds)), other)
  const good = await readFile(join(folder, name), "utf8")
  await writeFile(join(folder, name), good.replace(/"rootCrl":"(.{40})../, '"rootCrl":"$1AA'))
  assert.deepEqual(await withCachedCollateral(folder, other, judge()), other)
  await writeFile(join(folder, name), good.substring(0, 1000))
  assert.deepEqual(await withCachedCollateral(folder, other, judge()), other)
  const elsewhere = makeLabAuthority({ keys, platform: { fmspc: "c0c06f000000" } })
  const foreign = await storeCollateral(folder, tdx(elsewhere), judge(labTime, elsewhere))
  await rename(join(folder, foreign.name), join(folder, name))
  const judged = await judgeCollateral(folder, judge(labTime, elsewhere))
  assert.deepEqual(
    judged.map((item) => (item.state === "unusable" ? item.code : item.state)),
    ["wrong-binding"],
  )
})

test("judgeCollateral() tells fresh, soon to be fetched again, and not usable", async () => {
  const folder = newFolder()
  assert.deepEqual(await judgeCollateral(folder, judge()), [])
  const { validUntil } = await storeCollateral(folder, tdx(), judge())
  const states = async (time: number): Promise<readonly string[]> => (await judgeCollateral(folder, judge(time))).map(({ state }) => state)
  assert.deepEqual(await states(validUntil - refreshMilliseconds), ["fresh"])
  assert.deepEqual(await states(validUntil - refreshMilliseconds + 1), ["refresh-soon"])
  assert.deepEqual(await states(validUntil), ["refresh-soon"])
  assert.deepEqual(await states(validUntil + 1000), ["unusable"])
  // A root that nobody names any more.
  const [unnamed] = await judgeCollateral(folder, { ...judge(), roots: (evidence) => teeRootsFor(evidence, []) })
  assert.ok(unnamed?.state === "unusable" && unnamed.code === "wrong-chain")
})

test("storeCollateral() keeps certificates and revocation list of an SNP chip", async () => {
  const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
  const device = new SnpDevice(new AmdAuthority("Milan", { ark, ask, asvk: ask }))
  const { intermediates, ...rest } = device.endorsements()
  const endorsements = { ...rest, intermediates: [...intermediates, device.root.certificate] }
  const evidence: TeeEvidence = { kind: "snp", report: device.report({ reportData }), endorsements }
  const root = certificateFingerprint(device.root.certificate)
  const amd: CollateralJudge = { roots: (of) => teeRootsFor(of, [root]), time: Date.parse("2025-06-01T00:00:00Z") }
  const folder = newFolder()
  const { name } = await storeCollateral(folder, evidence, amd)
  assert.match(name, /^snp-milan-vcek-[0-9a-f]{32}-4-0-24-219\.json$/)
  const without = withVouchers(evidence, { ...endorsements, revocationLists: [] })
  await assert.rejects(storeCollateral(folder, without, amd), { code: "missing-piece" })
})

test("withCachedCollateral() gives an SNP report what it lacks, verified anew, and nothing stale, revoked, or of another chip or patch level", async () => {
  const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
  const authority = new AmdAuthority("Milan", { ark, ask, asvk: ask })
  const device = new SnpDevice(authority)
  const { intermediates, ...rest } = device.endorsements()
  const endorsements = { ...rest, intermediates: [...intermediates, device.root.certificate] }
  const root = certificateFingerprint(device.root.certificate)
  const at = (time: string): CollateralJudge => ({ roots: (of) => teeRootsFor(of, [root]), time: Date.parse(time) })
  const now = at("2025-06-01T00:00:00Z")
  const folder = newFolder()
  const { name } = await storeCollateral(folder, { kind: "snp", report: device.report({ reportData }), endorsements }, now)
  for (const version of [2, 5] as const) {
    const evidence: TeeEvidence = { kind: "snp", report: device.report({ version, reportData: new Uint8Array(64).fill(7) }) }
    const whole = await withCachedCollateral(folder, evidence, now)
    assert.deepEqual(whole, { ...evidence, endorsements })
    const genuine = verifyTee(whole, { reportData: "as-signed", roots: now.roots(whole), time: now.time, ccelQuirks: [] })
    assert.ok(genuine.kind === "snp" && genuine.tee.claims.endorsement.isRevocationChecked)
  }
  // The host's own certificate stays, and gets the list.
  const bareReport: TeeEvidence = { kind: "snp", report: device.report({ reportData }) }
  const hosts = { ...bareReport, endorsements: { signer: endorsements.signer, intermediates, revocationLists: [] } }
  assert.deepEqual(await withCachedCollateral(folder, hosts, now), { ...hosts, endorsements })
  const own = { ...bareReport, endorsements }
  assert.equal(await withCachedCollateral(folder, own, now), own)
  // The list's nextUpdate is past.
  assert.equal(await withCachedCollateral(folder, bareReport, at("2025-12-01T00:00:01Z")), bareReport)
  for (const [chip, tcb] of [
    ["chip 1", device.tcb],
    ["chip 0", { ...device.tcb, microcode: 218 }],
  ] as const) {
    const other: TeeEvidence = { kind: "snp", report: new SnpDevice(authority, { chip, tcb }).report({ reportData }) }
    assert.equal(await withCachedCollateral(folder, other, now), other, chip)
  }
  // Another chip's entry under this one's name, and an entry that its list revokes.
  const foreign = new SnpDevice(authority, { chip: "chip 2" })
  const foreignEndorsements = { ...foreign.endorsements(), intermediates: endorsements.intermediates }
  const moved = await storeCollateral(folder, { kind: "snp", report: foreign.report({ reportData }), endorsements: foreignEndorsements }, now)
  await rename(join(folder, moved.name), join(folder, name))
  assert.equal(await withCachedCollateral(folder, bareReport, now), bareReport)
  const revoked = { ...endorsements, revocationLists: [parseRevocationList(authority.revocationList({ serials: [serials.ask] }))] }
  await writeFile(join(folder, name), JSON.stringify(encodeTeeEvidence({ ...bareReport, endorsements: revoked })))
  assert.equal(await withCachedCollateral(folder, bareReport, now), bareReport)
  await assert.rejects(storeCollateral(folder, { ...bareReport, endorsements: revoked }, now), { code: "revoked" })
  await assert.rejects(storeCollateral(folder, own, at("2025-12-01T00:00:01Z")), { code: "expired" })
})
