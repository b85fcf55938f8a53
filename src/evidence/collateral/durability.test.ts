/** What becomes of the cache when something happens to it: writers that are killed, full disks, two at once, damaged files, a clock that is behind. */
import assert from "node:assert/strict"
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { labTime, makeLabAuthority, makeLabKeys, type LabAuthority } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { certificateFingerprint } from "../../pki/certificate.ts"
import { encodeTeeEvidence, type TeeEvidence } from "../tee/format.ts"
import type { TdxTeeEvidence } from "../tee/hardware.ts"
import { type CollateralJudge, judgeCollateral, storeCollateral, withCachedCollateral } from "./cache.ts"

const base = await mkdtemp(join(tmpdir(), "perun-collateral-durability-"))
after(() => rm(base, { recursive: true, force: true }))
const keys = makeLabKeys()
const dayMilliseconds = 86_400_000
const older = makeLabAuthority({ keys, time: labTime - dayMilliseconds })
const newer = makeLabAuthority({ keys, time: labTime })

function of(authority: LabAuthority): TdxTeeEvidence {
  return { kind: "tdx", quote: makeTdxQuote(authority, new Uint8Array(64)), collateral: authority.tdxCollateral }
}

const bare: TeeEvidence = { kind: "tdx", quote: makeTdxQuote(newer, new Uint8Array(64).fill(9)) }
const withOlder = { ...bare, collateral: older.tdxCollateral }
const withNewer = { ...bare, collateral: newer.tdxCollateral }

function judge(time = labTime): CollateralJudge {
  return { roots: () => ({ dcap: [older.root, newer.root], snp: [] }), time }
}

let count = 0
const newFolder = (): string => join(base, String(count++))
const json = async (authority: LabAuthority): Promise<string> => {
  const path = join(base, `evidence-${count++}.json`)
  await writeFile(path, JSON.stringify(encodeTeeEvidence(of(authority))))
  return path
}
const script = join(import.meta.dirname, "writer.testing.ts")
const writer = async (folder: string, authority: LabAuthority, ...more: readonly string[]): Promise<readonly string[]> => [
  ...["--disable-warning=ExperimentalWarning", script, folder, await json(authority)],
  ...[certificateFingerprint(authority.root.certificate), String(labTime), ...more],
]

test("a writer that is killed before any step of its writing leaves the old entry or the new one, and nothing that the next one stumbles over", async () => {
  const whole = spawnSync(process.execPath, await writer(newFolder(), newer), { encoding: "utf8" })
  assert.equal(whole.status, 0, whole.stderr)
  const steps = Number(whole.stdout)
  assert.ok(steps >= 8, whole.stdout)
  const found = new Set<string>()
  for (let step = 1; step <= steps; step++) {
    const folder = newFolder()
    await storeCollateral(folder, of(older), judge())
    const { signal } = spawnSync(process.execPath, await writer(folder, newer, String(step)))
    assert.equal(signal, "SIGKILL", `step ${step}`)
    const now: TeeEvidence = await withCachedCollateral(folder, bare, judge())
    const isNew = JSON.stringify(now) === JSON.stringify(withNewer)
    if (!isNew) assert.deepEqual(now, withOlder, `step ${step}`)
    found.add(isNew ? "new" : "old")
    assert.deepEqual(
      (await judgeCollateral(folder, judge())).map(({ state }) => state),
      ["fresh"],
      `step ${step}`,
    )
    await storeCollateral(folder, of(newer), judge())
    assert.deepEqual(await withCachedCollateral(folder, bare, judge()), withNewer, `step ${step}`)
  }
  // It died before the file got its name, and after.
  assert.deepEqual([...found].toSorted(), ["new", "old"])
})

test("storeCollateral() removes what killed writers left, but not the file of one that still writes", async () => {
  const folder = newFolder()
  await mkdir(folder)
  const [left, writing, foreign] = [".0123456789abcdef.tmp", ".fedcba9876543210.tmp", "notes.tmp"]
  for (const name of [left, writing, foreign]) await writeFile(join(folder, name), "{")
  const hoursAgo = new Date(Date.now() - 2 * 3_600_000)
  for (const name of [left, foreign]) await utimes(join(folder, name), hoursAgo, hoursAgo)
  const { name } = await storeCollateral(folder, of(newer), judge())
  assert.deepEqual((await readdir(folder)).toSorted(), [writing, foreign, name].toSorted())
})

test("on a full disk storeCollateral() says so, and the old entry stays whole", { skip: canMount() ? false : "needs root and tmpfs" }, async () => {
  const folder = newFolder()
  await mkdir(folder)
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder])
  try {
    const { name } = await storeCollateral(folder, of(older), judge())
    const ballast = spawnSync("dd", ["if=/dev/zero", `of=${join(folder, "ballast")}`, "bs=4k"], { encoding: "utf8" })
    assert.match(ballast.stderr, /No space left/)
    await assert.rejects(storeCollateral(folder, of(newer), judge()), { name: "UnavailableError", code: "disk-full" })
    assert.deepEqual((await readdir(folder)).toSorted(), ["ballast", name].toSorted())
    assert.deepEqual(await withCachedCollateral(folder, bare, judge()), withOlder)
    await rm(join(folder, "ballast"))
    await storeCollateral(folder, of(newer), judge())
    assert.deepEqual(await withCachedCollateral(folder, bare, judge()), withNewer)
  } finally {
    execFileSync("umount", [folder])
  }
})

function canMount(): boolean {
  const folder = execFileSync("mktemp", ["-d", join(base, "mount.XXXXXX")], { encoding: "utf8" }).trim()
  if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]).status !== 0) return false
  execFileSync("umount", [folder])
  return true
}

test("two processes that store at once leave one entry whole, and whoever reads meanwhile gets one of the two", async () => {
  const folder = newFolder()
  await storeCollateral(folder, of(older), judge())
  const commands = await Promise.all([older, newer].map((authority) => writer(folder, authority, "0", "40")))
  const writers = commands.map((command) => {
    const child = spawn(process.execPath, command, { stdio: "ignore" })
    return new Promise<number | null>((done) => child.on("close", done))
  })
  let running = true
  const ended = Promise.all(writers).finally(() => (running = false))
  const seen = new Set<string>()
  while (running) {
    const now = JSON.stringify(await withCachedCollateral(folder, bare, judge()))
    assert.ok([withOlder, withNewer].some((one) => JSON.stringify(one) === now))
    seen.add(now)
  }
  assert.deepEqual(await ended, [0, 0])
  assert.equal(seen.size, 2)
  assert.deepEqual(
    (await judgeCollateral(folder, judge())).map(({ state }) => state),
    ["fresh"],
  )
  assert.equal((await readdir(folder)).length, 1)
})

test("a damaged entry is as if it were not there, judgeCollateral() says why, and the next store repairs it", async () => {
  const folder = newFolder()
  const { name } = await storeCollateral(folder, of(newer), judge())
  const path = join(folder, name)
  const good = await readFile(path)
  const damages: readonly (readonly [code: string, content: Uint8Array | string])[] = [
    ["malformed", ""],
    ["malformed", good.subarray(0, good.length / 2)],
    ["malformed", Buffer.alloc(good.length)],
    ["malformed", Buffer.concat([good, good])],
    ["unknown-field", good.toString().replace("{", '{"more":1,')],
    ["duplicate", good.toString().replace("{", '{"perun":1,')],
    ["wrong-signature", good.toString().replace(/"quote":"(.{280})./, (_, head: string) => `"quote":"${head}Z`)],
  ]
  for (const [code, content] of damages) {
    await writeFile(path, content)
    assert.deepEqual(await withCachedCollateral(folder, bare, judge()), bare, code)
    const [judged] = await judgeCollateral(folder, judge())
    assert.ok(judged?.state === "unusable", code)
    assert.equal(judged.code, code)
  }
  await storeCollateral(folder, of(newer), judge())
  assert.deepEqual(await withCachedCollateral(folder, bare, judge()), withNewer)
})

test("an entry that cannot be read is an error with its path, not one that is missing", async () => {
  const folder = newFolder()
  const { name } = await storeCollateral(folder, of(newer), judge())
  const path = join(folder, name)
  await rm(path)
  await mkdir(path)
  await assert.rejects(withCachedCollateral(folder, bare, judge()), { name: "UnavailableError", path })
  const [judged] = await judgeCollateral(folder, judge())
  assert.ok(judged?.state === "unusable" && judged.code === "unavailable")
  assert.match(judged.message, /folder/)
  if (process.getuid?.() === 0) return
  await rm(path, { recursive: true })
  await storeCollateral(folder, of(newer), judge())
  await chmod(path, 0)
  await assert.rejects(withCachedCollateral(folder, bare, judge()), { code: "permission-denied", path })
})

test("a clock that is behind believes nothing that is not valid yet, and says from when it is", async () => {
  const folder = newFolder()
  await storeCollateral(folder, of(newer), judge())
  const behind = judge(labTime - 12 * dayMilliseconds)
  assert.deepEqual(await withCachedCollateral(folder, bare, behind), bare)
  const [judged] = await judgeCollateral(folder, behind)
  assert.ok(judged?.state === "unusable" && judged.code === "expired")
  assert.match(judged.message, /valid from .*judged at/)
  await assert.rejects(storeCollateral(newFolder(), of(newer), behind), { code: "expired" })
  // Before its platform's certificate there was no such evidence at all.
  await assert.rejects(withCachedCollateral(folder, bare, judge(0)), { code: "expired" })
})
