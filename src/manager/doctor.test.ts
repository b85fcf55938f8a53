import assert from "node:assert/strict"
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { test } from "node:test"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { generateKeyPairSync } from "node:crypto"
import { makeBackup } from "./backup.ts"
import { type DoctorFinding, type DoctorWorld, examineManager } from "./doctor.ts"
import { leastFreeBytes } from "./readiness.ts"
import { openJournal, rotateVault } from "./rotate-vault.ts"
import { initManager, openManager, randomBytes } from "./state.ts"
import { makeParts, makeParty } from "./study.testing.ts"
import { LaboratoryTimeSource } from "./time-authority.testing.ts"

const base = mkdtempSync(join(tmpdir(), "perun-doctor-"))
process.once("exit", () => rmSync(base, { recursive: true, force: true }))
const { authority } = await makeParts()
const member = { key: sshPublicKeyText(generateKeyPairSync("ed25519").privateKey), comment: "clinic" }

/** What the kernel says on a machine without swap and core dumps. */
const proc = join(base, "proc")
mkdirSync(join(proc, "self"), { recursive: true })
const writeProc = (swaps: string, core: string, files: string): void => {
  writeFileSync(join(proc, "swaps"), `Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n${swaps}`)
  writeFileSync(
    join(proc, "self/limits"),
    `Limit                     Soft Limit           Hard Limit           Units     \nMax core file size        ${core}                    unlimited            bytes     \nMax open files            ${files}                 524288               files     \n`,
  )
}
writeProc("", "0", "65536")

let made = 0
async function folderOf(options: Partial<Parameters<typeof initManager>[0]> = {}): Promise<string> {
  const folder = join(base, `manager-${made++}`)
  await initManager({ folder, laboratoryRoots: [], members: [member], vault: { kind: "key-file" }, ...options })
  return folder
}

async function statesOf(folder: string, world: DoctorWorld = {}): Promise<Readonly<Record<string, string>>> {
  const findings = await examineManager(folder, { proc, ...world })
  return Object.fromEntries(findings.map(({ check, state }: DoctorFinding) => [check, state]))
}

const allGood = { node: "good", access: "good", vault: "warn", configuration: "good", members: "good", store: "good", disk: "good" }
const machineGood = { swap: "good", core: "good", files: "good" }

test("examineManager() finds a new manager well, and its key in a file weak", async () => {
  const { memory, ...states } = await statesOf(await folderOf())
  assert.deepEqual(states, { ...allGood, ...machineGood, backups: "note", time: "note" })
  assert.match(memory ?? "", /^(?:good|warn)$/)
})

test("each thing that is wrong has its finding, and no other changes", async () => {
  const rootsOf = await folderOf({ laboratoryRoots: [authority.root] })
  const nobody = await folderOf({ members: [] })
  const open = await folderOf()
  chmodSync(open, 0o750)
  const readableVault = await folderOf()
  chmodSync(join(readableVault, "vault.json"), 0o644)
  const noVault = await folderOf()
  writeFileSync(join(noVault, "vault.json"), "{")
  const noConfiguration = await folderOf()
  rmSync(join(noConfiguration, "manager.json"))
  const noStore = await folderOf()
  rmSync(join(noStore, "manager.db"))
  const badRoot = await folderOf()
  writeFileSync(join(badRoot, "manager.json"), '{"perun":1,"laboratoryRoots":["AAAA"]}')
  const badMembers = await folderOf()
  writeFileSync(join(badMembers, "members"), "no key\n")
  const changed = await folderOf()
  const database = new DatabaseSync(join(changed, "manager.db"))
  database.exec("UPDATE rows SET version = version + 1 WHERE tbl = 'keys'")
  database.close()
  const good = await folderOf()
  const stopped = new Date(Date.now() + 3_600_000)
  const cases: readonly (readonly [string, Readonly<Record<string, string>>, DoctorWorld?])[] = [
    [rootsOf, { configuration: "warn" }],
    [nobody, { members: "warn" }],
    [open, { access: "bad" }],
    [readableVault, { access: "bad" }],
    [noVault, { vault: "bad", store: "note" }],
    [noConfiguration, { configuration: "bad" }],
    [noStore, { store: "bad" }],
    [badRoot, { configuration: "bad" }],
    [badMembers, { members: "bad" }],
    [changed, { store: "bad" }],
    [good, { node: "bad" }, { nodeVersion: "22.1.0" }],
    [good, { disk: "bad" }, { freeBytes: () => leastFreeBytes - 1 }],
    [good, { time: "good" }, { timeSource: new LaboratoryTimeSource(() => Date.now()) }],
    [good, { time: "bad" }, { timeSource: new LaboratoryTimeSource(() => stopped.getTime()) }],
    [good, { backups: "bad" }, { backups: join(base, "none") }],
    [good, { backups: "bad" }, { backups: base }],
  ]
  const usual = await statesOf(good)
  for (const [folder, difference, world] of cases) {
    const { memory, ...states } = await statesOf(folder, world)
    assert.ok(memory !== undefined)
    const { memory: _, ...expected } = { ...usual, ...difference }
    assert.deepEqual(states, expected, `${folder} ${JSON.stringify(difference)}`)
  }
})

test("the newest backup is read and held against its list, and an old one is told", async () => {
  const folder = await folderOf()
  const backups = join(base, "backups")
  mkdirSync(backups)
  const now = new Date("2026-11-27T12:00:00Z")
  const newest = join(backups, "20261127T110000Z")
  const journal = await openJournal(folder)
  for (const out of [join(backups, "20261126T110000Z"), newest]) await makeBackup(folder, out, journal, new Date("2026-11-27T11:00:00Z"))
  journal.close()
  const state = async (at: Date): Promise<string | undefined> => (await statesOf(folder, { backups, now: () => at }))["backups"]
  assert.equal(await state(now), "good")
  assert.equal(await state(new Date("2026-11-29T11:30:00Z")), "warn")
  const database = readFileSync(join(newest, "manager.db"))
  database[5000] = (database[5000] ?? 0) ^ 1
  writeFileSync(join(newest, "manager.db"), database)
  assert.equal(await state(now), "bad")
  rmSync(join(newest, "manager.db"))
  assert.equal(await state(now), "bad")
})

test("a manager that runs, one whose key is elsewhere and one whose rotation was broken off are told from a broken one, and nothing is changed", async () => {
  const folder = await folderOf()
  using running = await openManager(folder)
  assert.ok(running.members.size === 1)
  const finding = async (of: string): Promise<DoctorFinding | undefined> =>
    (await examineManager(of, { proc })).find(({ check }) => check === "store")
  const used = await finding(folder)
  assert.deepEqual([used?.state, /in use/.test(used?.found ?? "")], ["note", true])
  const shared = await folderOf()
  const holders = await Promise.all(["ann", "ben"].map(async (name) => makeParty(name)))
  await rotateVault(shared, { kind: "shares", threshold: 2, holders }, {}, randomBytes)
  assert.deepEqual((await statesOf(shared))["vault"], "good")
  assert.match((await finding(shared))?.found ?? "", /its key is not here/)
  const broken = await folderOf()
  const left = join(broken, `rotated-${"0".repeat(64)}.db`)
  writeFileSync(left, "half")
  assert.match((await finding(broken))?.found ?? "", /broken off/)
  assert.equal(readFileSync(left, "utf8"), "half")
})

test("what the machine could do to secrets in memory is told", async () => {
  const folder = await folderOf()
  const machine = async (): Promise<Readonly<Record<string, string>>> => {
    const { swap = "", core = "", files = "" } = await statesOf(folder)
    return { swap, core, files }
  }
  writeProc("/dev/sda2                               partition\t1048572\t0\t-2\n", "unlimited", "1024")
  assert.deepEqual(await machine(), { swap: "warn", core: "warn", files: "warn" })
  writeProc("", "0", "65536")
  assert.deepEqual(await machine(), machineGood)
})

test("a folder that is not there is no finding", async () => {
  await assert.rejects(examineManager(join(base, "nothing"), { proc }), { code: "unavailable" })
})
