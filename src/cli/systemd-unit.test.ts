/** Units are read by systemd itself, where it is installed. */
import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { after, test } from "node:test"
import { demandStatus, endOf, startCommand } from "./process.testing.ts"
import { agentUnit, managerUnit, quoteArgument } from "./systemd-unit.ts"

const base = await mkdtemp(join(tmpdir(), "perun-unit-"))
after(async () => rm(base, { recursive: true, force: true }))
const environment = { PERUN_HOME: join(base, "home") }
const noSystemd = spawnSync("systemd-analyze", ["--version"]).status === 0 ? false : "systemd-analyze is not installed (apt-get install systemd)"
const folder = join(base, "manager")
await demandStatus(["manager", "init", folder], 0, environment)

async function printed(...words: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await endOf(startCommand(words, environment))
  assert.equal(status, 0, stderr)
  return stdout
}

/** What systemd says of a unit: complaints, and its measure of how exposed the service is (0 to 10). */
async function judged(text: string): Promise<{ readonly complaints: string; readonly exposure: number }> {
  const path = join(base, "perun-test.service")
  // Programs need not be there; users neither.
  await writeFile(path, text)
  const verified = spawnSync("systemd-analyze", ["verify", path], { encoding: "utf8" })
  const complaints = `${verified.stdout}${verified.stderr}`
    .split("\n")
    .filter((line) => line.includes("perun-test"))
    .join("\n")
  const security = spawnSync("systemd-analyze", ["security", "--offline=true", path], { encoding: "utf8" })
  const [, level] = /Overall exposure level for perun-test\.service: ([0-9.]+)/.exec(security.stdout) ?? []
  return { complaints, exposure: Number(level) }
}

test("quoteArgument() keeps every argument whole and as it is", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["--listen", "--listen"],
    ["0.0.0.0:7443", "0.0.0.0:7443"],
    ["/srv/a b", '"/srv/a b"'],
    ["50%", "50%%"],
    ["$HOME", "$$HOME"],
    ['say "x\\y"', '"say \\"x\\\\y\\""'],
    ["", '""'],
    ["a;b", '"a;b"'],
  ]
  for (const [given, expected] of cases) assert.equal(quoteArgument(given), expected)
  for (const text of ["a\nExecStart=/bin/sh", "a\u0000"]) assert.throws(() => quoteArgument(text), RangeError)
})

test("manager unit: systemd reads it, and finds the service well shut in", { skip: noSystemd }, async () => {
  const words = ["--log", join(base, "log dir", "perun.log"), "--backups", join(base, "backups"), "--metrics", "127.0.0.1:9464"]
  const unit = await printed("manager", "unit", folder, "--", ...words)
  const { complaints, exposure } = await judged(unit)
  assert.equal(complaints, "")
  assert.ok(exposure < 2, `exposure ${exposure}`)
  assert.ok(unit.includes(`ReadWritePaths=${folder} ${join(base, "backups")} "${join(base, "log dir")}"\n`), unit)
  assert.match(unit, /^ExecStart=\S+\/perun manager serve \S+\/manager --log "/m)
  assert.match(unit, /^PrivateDevices=yes$/m)
  const low = await printed("manager", "unit", folder, "--user", "hospital", "--", "--listen", "0.0.0.0:443")
  assert.match(low, /^User=hospital$/m)
  assert.match(low, /^AmbientCapabilities=CAP_NET_BIND_SERVICE$/m)
  assert.equal((await judged(low)).complaints, "")
  // Without a log SIGHUP would end the manager.
  assert.match(unit, /^ExecReload=/m)
  assert.doesNotMatch(low, /^ExecReload=/m)
  const tpm = await printed("manager", "unit", folder, "--", "--tpm", "/dev/tpmrm0", "--tee", "tsm")
  assert.match(tpm, /^DevicePolicy=closed\nDeviceAllow=\/dev\/tpmrm0 rw$/m)
  assert.match(tpm, /^CapabilityBoundingSet=CAP_DAC_OVERRIDE$/m)
  assert.doesNotMatch(tpm, /ProtectKernelTunables|PrivateDevices/)
  assert.equal((await judged(tpm)).complaints, "")
  // A vault that is sealed to a TPM needs it though no word says so.
  const sealed = join(base, "sealed")
  await cp(folder, sealed, { recursive: true })
  await writeFile(join(sealed, "vault.json"), JSON.stringify({ perun: 1, kind: "tpm", sealed: "AAAA" }))
  assert.match(await printed("manager", "unit", sealed), /^DeviceAllow=\/dev\/tpmrm0 rw$/m)
})

test("manager unit makes paths absolute and tells wrong words now, not when the service starts", async () => {
  const unit = await printed("manager", "unit", relative(process.cwd(), folder), "--", "--backups=b", "--log", "x.log")
  assert.ok(unit.includes(` serve ${folder} `), unit)
  for (const path of ["b", "x.log"]) assert.ok(unit.includes(join(process.cwd(), path)))
  await demandStatus(["manager", "unit", folder, "--", "--no-such-option"], 2, environment)
  await demandStatus(["manager", "unit", folder, "--", "--listen", "nowhere"], 2, environment)
  await demandStatus(["manager", "unit", folder, "--", "--metrics", "9464"], 2, environment)
  await demandStatus(["manager", "unit", folder, "--", "--tee", "gramine"], 2, environment)
  await demandStatus(["manager", "unit", join(base, "none")], 40, environment)
  await demandStatus(["manager", "unit", folder, "--user", "root; rm", "--"], 2, environment)
  await demandStatus(["manager", "unit", folder, "--", "--log", "a\nb"], 2, environment)
})

test("agent unit: systemd reads it", { skip: noSystemd }, async () => {
  const unit = await printed("agent", "unit", "--config", "agent.json", "--tpm", "/dev/tpmrm0")
  assert.equal((await judged(unit)).complaints, "")
  assert.ok(unit.includes(`agent run --config ${join(process.cwd(), "agent.json")} --tpm /dev/tpmrm0\n`))
})

test("no unit lets a crash write keys to the disk", () => {
  const common = { description: "x", command: ["/x"], writable: [] }
  for (const unit of [
    agentUnit(common),
    managerUnit({ ...common, user: "perun", devices: [], writesConfigfs: false, bindsLowPort: false, reopensLog: false }),
  ])
    for (const line of ["LimitCORE=0", "UMask=0077", "NoNewPrivileges=yes"]) assert.ok(unit.split("\n").includes(line))
})
