/** A manager on a SEV-SNP guest, in an SGX enclave and in a confidential VM of Azure, of a laboratory, over HTTPS: its collectors, its operator's collateral file, and a client under a policy's demands. */
import assert from "node:assert/strict"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { AmdAuthority, makeRsaKey, serials } from "../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../lab/devices/amd-snp.ts"
import { makeRuntimeData, reportDataFor } from "../../lab/devices/azure-hcl.ts"
import { demandedRegisters, extendRegister, provisionAzureTpm } from "../../lab/devices/azure-swtpm.testing.ts"
import { AzureVm, azureSettings } from "../../lab/devices/azure-vm.testing.ts"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { gramineFiles, labSgxRequirement, labSnpRequirement, snpCertTable, snpGuestFiles } from "../../lab/devices/guest-files.ts"
import { storeCollateral, withCachedCollateral } from "../evidence/collateral/cache.ts"
import type { TeeDevices } from "../evidence/tee/collectors/collect.ts"
import type { TeeEvidence } from "../evidence/tee/format.ts"
import { teeRootsFor } from "../evidence/tee/roots.ts"
import { encodeVouchers } from "../evidence/tee/vouchers.ts"
import { noSoftwareTpm, noTpmTools, startSoftwareTpm, type SoftwareTpm } from "../evidence/tpm/client/swtpm.testing.ts"
import { endorsementKeyDigest } from "../evidence/tpm/endorsements.ts"
import { parseRevocationList } from "../pki/crl.ts"
import type { AzureRequirement, SnpRequirement, TeeRequirement } from "../policy/tee.ts"
import { connectVerified, verifyManager } from "../protocol/manager-connection.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity } from "../protocol/tls.ts"
import { openOwnTee } from "./own-tee.ts"
import { serveManager } from "./server.ts"
import { initManager } from "./state.ts"

const base = await mkdtemp(join(tmpdir(), "perun-own-tee-"))
after(() => rm(base, { recursive: true, force: true }))
const folder = join(base, "manager")
await initManager({ folder, laboratoryRoots: [], vault: { kind: "key-file" } })

const time = Date.parse("2025-06-01T00:00:00Z")
const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
const authority = new AmdAuthority("Milan", { ark, ask, asvk: ask })
const chip = new SnpDevice(authority)
const requirement = labSnpRequirement(chip)
const file = join(base, "collateral.json")

/** What AMD's service has for the chip, with this list. */
function collateralOf(device: SnpDevice, list = authority.revocationList()): TeeEvidence {
  const { intermediates, ...rest } = device.endorsements()
  const endorsements = { ...rest, intermediates: [...intermediates, device.root.certificate], revocationLists: [parseRevocationList(list)] }
  return { kind: "snp", report: device.report(), endorsements }
}

interface Start {
  readonly source?: "tsm" | "gramine" | "azure"
  readonly devices: TeeDevices
  readonly accept: readonly TeeRequirement[]
  readonly now?: number
}

/** Starts the manager, lets a client trust it by a policy's demands, and asks it something over the verified connection. */
async function trust({
  source = "tsm",
  devices,
  accept,
  now = time,
}: Start): Promise<{ readonly tee: string | undefined; readonly members: number }> {
  const ownTee = await openOwnTee(source, file, devices)
  await using running = await serveManager({ folder, host: "127.0.0.1", port: 0, ownTee })
  const tls = createTlsIdentity("perun client")
  const verified = await verifyManager(new URL(running.url), { accept }, tls, { now: new Date(now) })
  assert.equal(verified.accepted?.insecureLaboratory, true)
  using transport = connectVerified(verified, tls)
  const health = await transport.call(routes.health, {})
  return { tee: verified.description.evidence ?? undefined, members: health.ok ? health.members : -1 }
}

const snp = async (change: Partial<SnpRequirement> = {}, device = chip, now = time): ReturnType<typeof trust> =>
  trust({ devices: { files: snpGuestFiles(device, undefined) }, accept: [{ snp: { ...requirement, ...change } }], now })

test("a client trusts a manager on a SEV-SNP guest whose host hands out no certificates, by its operator's file", async () => {
  await writeFile(file, encodeVouchers(collateralOf(chip)))
  assert.deepEqual(await snp(), { tee: "snp", members: 0 })
})

test("the host's table counts for the key, the operator's file for the revocation list", async () => {
  await writeFile(file, encodeVouchers(collateralOf(chip)))
  const table = snpCertTable(chip.endorsements("vcek", {}, []), authority.ark)
  assert.equal((await trust({ devices: { files: snpGuestFiles(chip, table) }, accept: [{ snp: requirement }] })).tee, "snp")
  // Without the file nobody has looked whether the key is revoked, which no policy takes.
  const alone = await openOwnTee("tsm", undefined, { files: snpGuestFiles(chip, table) })
  await using running = await serveManager({ folder, host: "127.0.0.1", port: 0, ownTee: alone })
  const pending = verifyManager(new URL(running.url), { accept: [{ snp: requirement }] }, createTlsIdentity("client"), { now: new Date(time) })
  await assert.rejects(pending, { code: "wrong-manager", message: /tee-collateral-missing/ })
})

test("a client refuses a manager whose chip's issuer is on the revocation list", async () => {
  await writeFile(file, encodeVouchers(collateralOf(chip, authority.revocationList({ serials: [serials.ask] }))))
  await assert.rejects(snp(), { name: "EvidenceError", code: "revoked" })
})

test("a client refuses a manager with a revocation list that is past its nextUpdate or not yet in force", async () => {
  await writeFile(file, encodeVouchers(collateralOf(chip, authority.revocationList({ nextUpdate: "2025-05-31T23:59:59Z" }))))
  await assert.rejects(snp(), { name: "EvidenceError", code: "expired" })
  await writeFile(file, encodeVouchers(collateralOf(chip, authority.revocationList({ thisUpdate: "2025-06-01T00:00:01Z" }))))
  await assert.rejects(snp(), { name: "EvidenceError", code: "expired" })
})

test("a client refuses a manager on another chip, on older patch levels, of another guest and under another root", async () => {
  const old = new SnpDevice(authority, { tcb: { ...chip.tcb, microcode: 218 } })
  await writeFile(file, encodeVouchers(collateralOf(old)))
  await assert.rejects(snp({}, old), { code: "wrong-manager", message: /tee-tcb-not-accepted/ })
  const other = new SnpDevice(authority, { chip: "chip 1" })
  await writeFile(file, encodeVouchers(collateralOf(other)))
  await assert.rejects(snp({}, other), { code: "wrong-manager", message: /CHIP_ID.*tee-platform-not-listed/ })
  // Certificates of another chip, or of the chip before its update.
  await assert.rejects(snp(), { name: "EvidenceError" })
  await writeFile(file, encodeVouchers(collateralOf(chip)))
  await assert.rejects(snp({ measurement: ["4e".repeat(48)] }), { code: "wrong-manager", message: /MEASUREMENT/ })
  await assert.rejects(snp({ laboratoryRoots: [] }), { name: "EvidenceError", code: "wrong-signature" })
})

test("what the cache keeps of a chip is what a manager serves", async () => {
  const cache = join(base, "cache")
  const judge = { roots: (of: TeeEvidence) => teeRootsFor(of, requirement.laboratoryRoots), time }
  await storeCollateral(cache, collateralOf(chip), judge)
  const whole = await withCachedCollateral(cache, { kind: "snp", report: chip.report() }, judge)
  await writeFile(file, encodeVouchers(whole))
  assert.equal((await snp()).tee, "snp")
})

test("openOwnTee() says at once that the collateral is of another maker", async () => {
  await writeFile(file, encodeVouchers(collateralOf(chip)))
  await assert.rejects(openOwnTee("gramine", file, { files: gramineFiles(makeLabAuthority({ keys: makeLabKeys() })) }), { name: "MalformedError" })
})

test("a client trusts a manager in an SGX enclave under Gramine, and refuses another enclave, a revoked platform and old collateral", async () => {
  const keys = makeLabKeys()
  const intel = makeLabAuthority({ keys, time })
  const accept = [{ sgx: labSgxRequirement(intel) }]
  const sgx: TeeEvidence = { kind: "sgx", quote: new Uint8Array(0), collateral: intel.sgxCollateral }
  await writeFile(file, encodeVouchers(sgx))
  const devices = { files: gramineFiles(intel) }
  assert.equal((await trust({ source: "gramine", devices, accept })).tee, "sgx")
  await assert.rejects(trust({ source: "gramine", devices: { files: gramineFiles(intel, { report: { mrEnclave: "aa".repeat(32) } }) }, accept }), {
    code: "wrong-manager",
    message: /MRENCLAVE/,
  })
  await assert.rejects(trust({ source: "gramine", devices, accept, now: time + 60 * 86_400_000 }), { name: "EvidenceError", code: "expired" })
})

/** A confidential VM of a laboratory's Azure: the chip's report in the index of a software TPM, whose real commands the collector speaks. */
async function azureVm(swtpm: SoftwareTpm): Promise<AzureRequirement> {
  const good = new AzureVm(chip)
  const { attestationKey } = await provisionAzureTpm(swtpm, (key) => {
    const runtimeData = makeRuntimeData({ attestationKey: key, vmConfiguration: azureSettings })
    return { type: "snp", report: chip.report({ reportData: reportDataFor(runtimeData) }), runtimeData }
  })
  await extendRegister(swtpm, 11, "ab".repeat(32))
  return { ...good.requirement, pcrs: await demandedRegisters(swtpm), attestationKeys: [endorsementKeyDigest(attestationKey)] }
}

const noVirtualTpm = noSoftwareTpm === false ? noTpmTools : noSoftwareTpm

test("a client trusts a manager in a confidential VM of Azure, by paravisor, registers and settings", { skip: noVirtualTpm }, async () => {
  await using swtpm = await startSoftwareTpm()
  const azure = await azureVm(swtpm)
  await writeFile(file, encodeVouchers(collateralOf(chip)))
  const devices = { tpm: swtpm.location }
  const start = async (change: Partial<AzureRequirement>): ReturnType<typeof trust> =>
    trust({ source: "azure", devices, accept: [{ azure: { ...azure, ...change } }] })
  assert.deepEqual(await start({}), { tee: "azure-vtpm", members: 0 })
  await assert.rejects(start({ pcrs: { ...azure.pcrs, "4": ["cd".repeat(32)] } }), {
    code: "wrong-manager",
    message: /PCR4: .*tee-measurement-differs/,
  })
  await assert.rejects(start({ attestationKeys: [new AzureVm(chip).attestationKey] }), { code: "wrong-manager" })
  await assert.rejects(start({ vmUniqueId: ["00000000-0000-4000-8000-000000000001"] }), { code: "wrong-manager", message: /vmUniqueId/ })
  await assert.rejects(start({ tee: { snp: { ...requirement, measurement: ["4e".repeat(48)] } } }), { code: "wrong-manager", message: /MEASUREMENT/ })
  // A bare SEV-SNP guest is demanded, and the paravisor's report is not that of one.
  await assert.rejects(trust({ source: "azure", devices, accept: [{ snp: requirement }] }), {
    code: "wrong-manager",
    message: /tee-kind-not-accepted/,
  })
  // What booted since is seen at the next proof.
  await extendRegister(swtpm, 11, "cd".repeat(32))
  await assert.rejects(start({}), { code: "wrong-manager", message: /PCR11: / })
})
