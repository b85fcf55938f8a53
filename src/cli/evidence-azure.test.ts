/** Drives perun evidence verify over confidential VMs of Azure, of the laboratory and recorded ones, and over what is no evidence at all; as a child process. */
import assert from "node:assert/strict"
import { createPublicKey, generateKeyPairSync } from "node:crypto"
import { existsSync } from "node:fs"
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { after, test } from "node:test"
import { AmdAuthority, makeRsaKey } from "../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../lab/devices/amd-snp.ts"
import { makeRuntimeData, makeTdReport, reportDataFor } from "../../lab/devices/azure-hcl.ts"
import { AzureVm } from "../../lab/devices/azure-vm.testing.ts"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { type AzureVmEvidence, encodeAzureVmEvidence } from "../evidence/azure/document.ts"
import { encodeHclReport } from "../evidence/azure/format.ts"
import { encodeChain } from "../evidence/dcap/certificates.ts"
import { encodeDcapCollateral } from "../evidence/dcap/endorsements.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { parseTdxQuote } from "../evidence/tdx/format.ts"
import { encodeVouchers } from "../evidence/tee/vouchers.ts"
import { encodeSizedPublicArea } from "../evidence/tpm/public-area.ts"
import { makeQuote, makeRsaKey as makeTpmKey } from "../evidence/tpm/software-tpm.testing.ts"
import { policy } from "../policy/fixtures.testing.ts"
import type { AzureRequirement } from "../policy/tee.ts"
import { demandStatus, type Ended, eventsOf, lastEvent } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-azure-"))
after(() => rm(base, { recursive: true, force: true }))
const environment = { PERUN_HOME: join(base, "home") }
const write = async (name: string, content: Uint8Array | string): Promise<string> => {
  const path = join(base, name)
  await writeFile(path, content)
  return path
}

const intel = makeLabAuthority({ keys: makeLabKeys(), time: Date.now() })
const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
const chip = new SnpDevice(new AmdAuthority("Milan", { ark, ask, asvk: ask }))
const ak = makeTpmKey()
const runtimeData = makeRuntimeData({ attestationKey: createPublicKey(ak.privateKey), vmConfiguration: { "new-setting": true } })
const nonce = "0c".repeat(32)
const pcrs = new Map([["sha256", new Map([[0, "00".repeat(32)], [7, "77".repeat(32)]])]]) // prettier-ignore
const quote = makeQuote(ak, { extraData: new Uint8Array(32).fill(0x0c), pcrs })
const akPublic = encodeSizedPublicArea(ak.area)

function tdEvidence(report: Parameters<typeof makeTdxQuote>[2] = {}): AzureVmEvidence {
  const tdQuote = makeTdxQuote(intel, reportDataFor(runtimeData), report)
  const hardware = { type: "tdx", report: makeTdReport(parseTdxQuote(tdQuote).report) } as const
  const hclReport = encodeHclReport({ version: 2, hardware, runtimeData, paddingBytes: 0 })
  return { kind: "azure-vtpm", hclReport, hardware: { kind: "tdx", quote: tdQuote, collateral: intel.tdxCollateral }, quote, akPublic, pcrs }
}

const snpReport = chip.report({ reportData: reportDataFor(runtimeData) })
const { intermediates, ...rest } = chip.endorsements()
const endorsements = { ...rest, intermediates: [...intermediates, chip.root.certificate] }
const snpHcl = encodeHclReport({ version: 2, hardware: { type: "snp", report: snpReport }, runtimeData, paddingBytes: 552 })
const snp: AzureVmEvidence = { kind: "azure-vtpm", hclReport: snpHcl, hardware: { kind: "snp", report: snpReport, endorsements }, quote, pcrs }
const snpTime = ["--at", "2025-06-01T00:00:00Z"]
const roots = await write("roots.pem", encodeChain([intel.root.certificate.der, chip.root.certificate.der]))
const json = (evidence: AzureVmEvidence, change: object = {}): string => JSON.stringify({ ...encodeAzureVmEvidence(evidence), ...change })
const td = await write("td.json", json(tdEvidence()))

async function verify(status: number, ...words: readonly string[]): Promise<Ended> {
  return demandStatus(["evidence", "verify", ...words, "--laboratory-root", roots], status, environment)
}

async function folder(name: string, files: Readonly<Record<string, Uint8Array | string>>): Promise<string> {
  await mkdir(join(base, name))
  for (const [file, content] of Object.entries(files)) await writeFile(join(base, name, file), content)
  return join(base, name)
}

const common = { "quote.msg": quote.attest, "quote.sig": quote.signature, "pcrs.json": JSON.stringify(encodeAzureVmEvidence(snp).pcrs) }
const tdFiles = { ...common, "hcl-report.bin": tdEvidence().hclReport, "td-quote.bin": tdQuoteOf(tdEvidence()), "ak.tpm2b-public": akPublic }

function tdQuoteOf({ hardware }: AzureVmEvidence): Uint8Array {
  assert.ok(hardware.kind === "tdx")
  return hardware.quote
}

test("evidence verify explains a confidential VM of Azure over TDX and SEV-SNP, from our JSON and from a folder", async () => {
  const akKey = createPublicKey(ak.privateKey).export({ format: "pem", type: "spki" }) as string
  const amdFiles = { "vcek.der": endorsements.signer.der, "ask.pem": encodeChain(endorsements.intermediates.map(({ der }) => der)) }
  const list = endorsements.revocationLists[0]
  assert.ok(list !== undefined)
  const cases: readonly (readonly string[])[] = [
    [td],
    [await folder("td", { ...tdFiles, "ak.pub.pem": akKey, "collateral.json": encodeDcapCollateral(intel.tdxCollateral) })],
    [await folder("td-json", { "evidence.json": json(tdEvidence()) })],
    [await write("snp.json", json(snp)), ...snpTime],
    [await folder("snp", { ...common, "hcl-report.bin": snpHcl, ...amdFiles, "crl.der": list.der }), ...snpTime],
  ]
  for (const words of cases) {
    const { stdout } = await verify(0, ...words, "--nonce", nonce)
    assert.match(stdout, /^INSECURE LABORATORY/m)
    assert.match(stdout, /that key quoted registers +proved +rsassa-sha256 over sha256 0,7/)
    assert.match(stdout, /the paravisor is honest +not proved/)
    assert.match(stdout, /what those settings mean +not proved +not known here: new-setting/)
    assert.match(stdout, /^genuine: Azure confidential VM.*valid until 20/m)
    assert.match(stdout, /^not proved: .*how the VM booted; the paravisor is honest$/m)
  }
  const event = lastEvent((await verify(0, td, "--nonce", nonce, "--json")).stdout)
  assert.deepEqual([event["ok"], event["kind"], event["fresh"], event["insecureLaboratory"]], [true, "azure-vtpm", true, true])
  assert.deepEqual((event["claims"] as { quote: { pcrs: unknown } }).quote.pcrs, { sha256: { "0": "00".repeat(32), "7": "77".repeat(32) } })
  const old = lastEvent((await verify(0, td, "--insecure-any-nonce", "--json")).stdout)
  assert.equal(old["fresh"], false)
})

test("evidence verify refuses of Azure another nonce, root, key, register or binding, debugging and missing collateral with status 10", async () => {
  const code = async (status: number, ...words: readonly string[]): Promise<unknown> =>
    lastEvent((await verify(status, ...words, "--nonce", nonce, "--json")).stdout)["code"]
  const other = makeTpmKey()
  const otherKey = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey.export({ format: "pem", type: "spki" }) as string
  const collateral = { "collateral.json": encodeDcapCollateral(intel.tdxCollateral) }
  await verify(10, td, "--nonce", "0d".repeat(32))
  await demandStatus(["evidence", "verify", td, "--nonce", nonce], 10, environment)
  const foreign = makeQuote(other, { extraData: new Uint8Array(32).fill(0x0c), pcrs })
  assert.equal(await code(10, await write("key.json", json({ ...snp, quote: foreign })), ...snpTime), "wrong-signature")
  const changed = json(snp, { pcrs: { sha256: { "0": "00".repeat(32), "7": "78".repeat(32) } } })
  assert.equal(await code(10, await write("pcr.json", changed), ...snpTime), "pcr-mismatch")
  assert.equal(await code(10, await folder("beside", { ...tdFiles, ...collateral, "ak.pub.pem": otherKey })), "wrong-binding")
  assert.equal(await code(30, await folder("beside-none", { ...tdFiles, ...collateral, "ak.pub.pem": "none" })), "malformed")
  const akOfOther = { ...tdEvidence(), akPublic: encodeSizedPublicArea(other.area) }
  assert.equal(await code(10, await write("area.json", json(akOfOther))), "wrong-binding")
  const debug = await write("debug.json", json(tdEvidence({ report: { tdAttributes: "0100001000000000" } })))
  assert.match((await verify(10, debug, "--nonce", nonce)).stderr, /debugging is on/)
  const bare = await folder("bare", tdFiles)
  assert.match((await verify(10, bare, "--nonce", nonce)).stderr, /not given: TCB info, QE identity, root CA CRL, PCK CRL/)
  await verify(0, bare, "--nonce", nonce, "--collateral", await write("collateral.json", encodeDcapCollateral(intel.tdxCollateral)))
  const bareSnp = await folder("bare-snp", { ...common, "hcl-report.bin": snpHcl })
  assert.equal(await code(10, bareSnp, ...snpTime), "missing-piece")
  const amd = await write("amd.json", encodeVouchers(snp.hardware))
  await verify(0, bareSnp, "--nonce", nonce, "--collateral", amd, ...snpTime)
  await verify(30, bareSnp, "--nonce", nonce, "--collateral", join(base, "collateral.json"), ...snpTime)
})

test("evidence verify takes of Azure no option that it would not look at, no two signatures and no half folder", async () => {
  const policyFile = await write("policy.json", JSON.stringify(policy))
  assert.match((await verify(2, td, "--nonce", nonce, "--policy", policyFile)).stderr, /demands no proof of its manager/)
  assert.match((await verify(2, td, "--nonce", nonce, "--quirk", "no-exit-boot-services")).stderr, /none is read/)
  assert.match((await verify(2, td, "--nonce", nonce, "--enrolled", policyFile)).stderr, /--enrolled is for evidence of a host/)
  await verify(2, td)
  await verify(30, await folder("two", { ...tdFiles, "quote.sig.raw": new Uint8Array(256) }), "--nonce", nonce)
  const { "quote.msg": _quote, ...half } = tdFiles
  assert.match((await verify(40, await folder("half", half), "--nonce", nonce)).stderr, /quote\.msg/)
})

test("evidence verify holds a confidential VM of Azure against a policy, and ends with 10 and what differs where it is another", async () => {
  const machine = new AzureVm(chip)
  const file = await write("vm.json", json(machine.evidence(sessionReportData(new Uint8Array(32).fill(0x0c)))))
  const demanding = async (name: string, change: Partial<AzureRequirement>): Promise<string> =>
    write(name, JSON.stringify({ ...policy, manager: { accept: [{ azure: { ...machine.requirement, ...change } }] } }))
  const good = await demanding("azure-policy.json", {})
  assert.match((await verify(0, file, "--nonce", nonce, ...snpTime, "--policy", good)).stdout, /^acceptable: it meets demand 1/m)
  const other = await demanding("azure-other.json", { pcrs: { ...machine.requirement.pcrs, "4": ["ee".repeat(32)] } })
  assert.match((await verify(10, file, "--nonce", nonce, ...snpTime, "--policy", other)).stdout, /tee-measurement-differs PCR4: found 04/)
  const event = lastEvent((await verify(10, file, "--nonce", nonce, ...snpTime, "--policy", other, "--json")).stdout)
  assert.deepEqual([event["ok"], event["code"]], [false, "refused"])
  // Whatever was signed is no answer to anybody.
  assert.match((await verify(10, file, "--insecure-any-nonce", ...snpTime, "--policy", good)).stdout, /tee-not-bound/)
})

test("evidence verify finds in the cache what vouches for Azure's hardware", async () => {
  const quoteFile = await write("td-quote.bin", tdQuoteOf(tdEvidence()))
  const home = { PERUN_HOME: join(base, "other-home") }
  const bare = await folder("cached", tdFiles)
  const collateral = await write("to-keep.json", encodeDcapCollateral(intel.tdxCollateral))
  await demandStatus(["collateral", "fetch", quoteFile, "--from", collateral, "--laboratory-root", roots], 0, home)
  await demandStatus(["evidence", "verify", bare, "--nonce", nonce, "--laboratory-root", roots], 0, home)
})

test("evidence verify says of what it does not know, in one line, what it would know", async () => {
  const unknown: readonly string[] = [
    await write("words.txt", "hello\n"),
    await write("empty", ""),
    await write("picture.png", Buffer.concat([Buffer.from("89504e470d0a1a0a", "hex"), Buffer.alloc(300, 7)])),
    await write("broken.json", '{"perun":1,'),
    await write("other.json", '{"kind":"something"}'),
    await write("list.json", "{}"),
    await folder("nothing", { "notes.txt": "x" }),
  ]
  for (const path of unknown) {
    const { stderr } = await verify(30, path, "--nonce", nonce)
    assert.match(stderr, /no evidence that is known here; known are: .*bundle.*SGX or TDX.*SEV-SNP.*Azure.*\.jwt/, path)
  }
  assert.match((await verify(30, await write("v.json", encodeDcapCollateral(intel.tdxCollateral)), "--nonce", nonce)).stderr, /--collateral/)
  assert.match((await verify(20, await write("gpu.json", '{"perun":1,"kind":"nvidia"}'), "--nonce", nonce)).stderr, /NVIDIA GPU/)
  assert.match((await verify(10, await write("hcl.bin", snpHcl), "--nonce", nonce)).stderr, /virtual TPM's quote/)
  await verify(30, await write("double.json", '{"perun":1,"perun":1}'), "--nonce", nonce)
})

const vectors = join(process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../shared/vectors"), "azure-vtpm")
const skip = existsSync(vectors) ? false : "skipped: no vectors"

test("evidence verify reads recorded confidential VMs of Azure as their folders lie", { skip }, async () => {
  // Without Intel's collateral or AMD's revocation list the answer is no, and says why.
  const cases: readonly (readonly [folder: string, status: number, at: string, words: RegExp])[] = [
    ["tdx-no-secure-boot-with-collateral", 0, "2026-03-05T13:50:07Z", /secure-boot false/],
    ["tdx-v1", 10, "2025-01-01T00:00:00Z", /not given: TCB info, QE identity/],
    ["snp-milan-v1", 10, "2026-01-01T00:00:00Z", /not given: AMD's revocation list/],
    ["snp-genoa-48-byte-nonce", 10, "2026-01-01T00:00:00Z", /not given: AMD's revocation list/],
    ["snp-milan-2026-live", 10, "2026-06-01T00:00:00Z", /not given: AMD's revocation list/],
  ]
  for (const [name, status, at, words] of cases) {
    const expected = JSON.parse(await readFile(join(vectors, name, "expected.json"), "utf8")) as { readonly nonce: string }
    const { stdout, stderr } = await demandStatus(
      ["evidence", "verify", join(vectors, name), "--nonce", expected.nonce, "--at", at],
      status,
      environment,
    )
    assert.match(stdout + stderr, words)
    assert.match(stdout, /^genuine: Azure/m)
  }
  await demandStatus(["evidence", "verify", join(vectors, "snp-hcl-report-with-foreign-vcek"), "--insecure-any-nonce"], 40, environment)
})

test("evidence conformance --json ends with one event, whether all agree or not", { skip }, async () => {
  const kinds = join(base, "azure-vtpm")
  await cp(join(vectors, "snp-milan-v1"), join(kinds, "snp-milan-v1"), { recursive: true })
  const run = async (status: number): Promise<readonly Readonly<Record<string, unknown>>[]> =>
    eventsOf((await demandStatus(["evidence", "conformance", kinds, "--json"], status, environment)).stdout)
  const agreed = await run(0)
  assert.deepEqual([agreed.length, agreed[0]?.["ok"], agreed[0]?.["cases"]], [1, true, 1])
  await cp(join(kinds, "snp-milan-v1"), join(kinds, "spoiled"), { recursive: true })
  const file = join(kinds, "spoiled", "expected.json")
  await writeFile(file, (await readFile(file, "utf8")).replace('"hclVersion": 1', '"hclVersion": 2').replace('"snp-milan-v1"', '"spoiled"'))
  const refused = await run(10)
  assert.deepEqual([refused.length, refused[0]?.["ok"], refused[0]?.["code"], refused[0]?.["cases"]], [1, false, "refused", 2])
  const rows = (refused[0]?.["rows"] ?? []) as readonly { readonly verdict: string }[]
  assert.deepEqual(rows.map(({ verdict }) => verdict).toSorted(), ["agrees", "differs"])
})
