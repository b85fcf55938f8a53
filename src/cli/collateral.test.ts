/** Drives perun collateral as a child process, against a laboratory's copy of Intel's service. */
import assert from "node:assert/strict"
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { AmdAuthority, makeRsaKey } from "../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../lab/devices/amd-snp.ts"
import { encodeChain } from "../evidence/dcap/certificates.ts"
import { encodeDcapCollateral, parseDcapCollateral } from "../evidence/dcap/endorsements.ts"
import type { TeeEvidence } from "../evidence/tee/format.ts"
import { encodeVouchers } from "../evidence/tee/vouchers.ts"
import { demandStatus, type Ended, lastEvent } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-collateral-"))
after(() => rm(base, { recursive: true, force: true }))
const keys = makeLabKeys()
const authority = makeLabAuthority({ keys, time: Date.now() })
const old = makeLabAuthority({ keys, time: Date.now() - 60 * 86_400_000 })
const write = async (name: string, content: Uint8Array | string): Promise<string> => {
  const path = join(base, name)
  await writeFile(path, content)
  return path
}
const quote = await write("quote", makeTdxQuote(authority, new Uint8Array(64).fill(5, 0, 32)))
const bundle = await write("bundle.json", encodeDcapCollateral(authority.tdxCollateral))
const outdated = await write("outdated.json", encodeDcapCollateral(old.tdxCollateral))
const root = await write("root.pem", encodeChain([authority.root.certificate.der]))
const home = join(base, "home")

async function perun(status: number, ...args: readonly string[]): Promise<Ended> {
  return demandStatus([...args, "--laboratory-root", root], status, { PERUN_HOME: home })
}

test("what is fetched is verified, kept, written out for a manager, and found by evidence verify", async () => {
  const verify = ["evidence", "verify", quote, "--nonce", "05".repeat(32)]
  await perun(10, ...verify)
  const out = join(base, "out.json")
  const fetched = lastEvent((await perun(0, "collateral", "fetch", quote, "--from", bundle, "--out", out, "--json")).stdout)
  assert.deepEqual([fetched["kind"], fetched["isLaboratory"]], ["tdx", true])
  assert.deepEqual(parseDcapCollateral(await readFile(out)), authority.tdxCollateral)
  await perun(0, ...verify)
  assert.match((await perun(0, "collateral", "list")).stdout, /FMSPC b0c06f000000.*fresh/s)
  await perun(0, "collateral", "check")
})

test("what does not verify is not kept, and leaves what was there", async () => {
  const [name = ""] = await readdir(join(home, "collateral"))
  const before = await readFile(join(home, "collateral", name))
  await perun(10, "collateral", "fetch", quote, "--from", outdated)
  await perun(30, "collateral", "fetch", quote, "--from", await write("broken.json", "{}"))
  await perun(30, "collateral", "fetch", bundle, "--from", bundle)
  await demandStatus(["collateral", "fetch", quote, "--from", bundle], 10, { PERUN_HOME: home })
  assert.deepEqual(await readFile(join(home, "collateral", name)), before)
})

test("what AMD says of a chip is verified, kept, written out for a manager, and found by evidence verify", async () => {
  const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
  const chip = new SnpDevice(new AmdAuthority("Milan", { ark, ask, asvk: ask }))
  const day = 86_400_000
  const iso = (time: number): string => `${new Date(time).toISOString().substring(0, 19)}Z`
  const list = (from: number, to: number): Uint8Array =>
    chip.authority.revocationList({ thisUpdate: iso(Date.now() + from * day), nextUpdate: iso(Date.now() + to * day) })
  const endorsements = (crl: Uint8Array): TeeEvidence => {
    const { intermediates, ...rest } = chip.endorsements("vcek", {}, [crl])
    return { kind: "snp", report: chip.report(), endorsements: { ...rest, intermediates: [...intermediates, chip.root.certificate] } }
  }
  const report = await write("report", chip.report({ reportData: new Uint8Array(64).fill(5, 0, 32) }))
  const current = await write("amd.json", encodeVouchers(endorsements(list(-1, 30))))
  const stale = await write("amd-old.json", encodeVouchers(endorsements(list(-30, -1))))
  const arkFile = await write("ark.pem", encodeChain([chip.authority.ark]))
  const run = async (status: number, ...args: readonly string[]): Promise<Ended> =>
    demandStatus([...args, "--laboratory-root", arkFile], status, { PERUN_HOME: join(base, "home-amd") })
  const verify = ["evidence", "verify", report, "--nonce", "05".repeat(32)]
  await run(10, ...verify)
  await run(10, "collateral", "fetch", report, "--from", stale)
  await run(30, "collateral", "fetch", report, "--from", bundle)
  const out = join(base, "amd-out.json")
  const fetched = lastEvent((await run(0, "collateral", "fetch", report, "--from", current, "--out", out, "--json")).stdout)
  assert.deepEqual([fetched["kind"], fetched["isLaboratory"]], ["snp", true])
  assert.equal((await readFile(out, "utf8")).trim(), await readFile(current, "utf8"))
  await run(0, ...verify)
  await run(0, ...verify, "--collateral", current)
  await run(0, "collateral", "check")
})

test("without a way out the service cannot be reached, which is said in one line", async () => {
  const { stderr } = await perun(40, "collateral", "fetch", quote)
  assert.match(stderr, /--from/)
})

test("collateral check refuses what may not be used any more", async () => {
  const folder = join(home, "collateral")
  const [name = ""] = await readdir(folder)
  const text = await readFile(join(folder, name), "utf8")
  await writeFile(join(folder, name), text.replace(/"pckCrl":"(.{60})../, '"pckCrl":"$1zz'))
  const { stdout } = await perun(10, "collateral", "check")
  assert.match(stdout, /not usable/)
  await perun(0, "collateral", "list")
})
