import assert from "node:assert/strict"
import { randomBytes as nodeRandomBytes } from "node:crypto"
import { appendFile, cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { describeBackup, makeBackup, restoreBackup } from "./backup.ts"
import { BackupSchedule } from "./backup-schedule.ts"
import { BlobFolder } from "./blobs.ts"
import { SqliteJournal } from "./sqlite-journal.ts"
import { initManager, openManager } from "./state.ts"
import { Store } from "./store.ts"

const base = await mkdtemp(join(tmpdir(), "perun-backup-"))
after(() => rm(base, { recursive: true, force: true }))
let count = 0
const place = (): string => join(base, `place-${++count}`)
const now = new Date("2026-11-26T12:00:00Z")
const blob = new Uint8Array(nodeRandomBytes(100_000))

/** A manager's folder with a member, a blob and collateral. */
async function makeFolder(): Promise<string> {
  const folder = place()
  await initManager({ folder, laboratoryRoots: [], vault: { kind: "key-file" } })
  const blobs = await BlobFolder.open(join(folder, "blobs"))
  await blobs.put(
    digestOf(blob),
    (async function* () {
      yield blob
    })(),
    blob.length,
  )
  await writeFile(join(folder, "blobs", "incoming", "unfinished"), "half")
  await mkdir(join(folder, "collateral"))
  await writeFile(join(folder, "collateral", "tdx-x.json"), "{}")
  return folder
}

async function backUp(folder: string, out = place()): Promise<string> {
  using opened = await openManager(folder)
  await opened.backUp(out, now)
  return out
}

test("a backup of a running manager, restored, is the manager that it was", async () => {
  const folder = await makeFolder()
  const backup = await backUp(folder)
  assert.deepEqual((await readdir(backup)).toSorted(), ["backup.json", "blobs", "collateral", "manager.db", "manager.json", "members", "vault.json"])
  assert.equal((await stat(join(backup, "vault.json"))).mode & 0o077, 0)
  assert.equal((await stat(backup)).mode & 0o077, 0)
  const again = place()
  const summary = await restoreBackup(backup, again)
  assert.deepEqual(summary, await describeBackup(backup))
  assert.deepEqual([summary.at, summary.blobs], [now.toISOString(), 1])
  using before = await openManager(folder)
  using after = await openManager(again)
  assert.deepEqual(after.manager.description, before.manager.description)
  assert.deepEqual(new Uint8Array(await readFile(join(again, "blobs", digestOf(blob).replace("sha256:", "")))), blob)
  assert.deepEqual(await readdir(join(again, "blobs", "incoming")), [])
})

test("a backup is one moment, however much is written meanwhile", async () => {
  const folder = place()
  await initManager({ folder, laboratoryRoots: [], vault: { kind: "key-file" } })
  const vaultKey = new Uint8Array(32).fill(7)
  const random = (length: number): Uint8Array => new Uint8Array(nodeRandomBytes(length))
  await rm(join(folder, "manager.db"))
  const journal = SqliteJournal.create(join(folder, "manager.db"))
  using store = Store.create({ journal, vaultKey, randomBytes: random }, now.getTime())
  const write = (index: number): void =>
    store.transact(now, (tx) => {
      tx.put("references", String(index), { value: "x".repeat(20_000) })
      tx.put("references", "count", { value: index })
      tx.append({ salt: "0".repeat(32), at: now.toISOString(), kind: "host-enrolled", host: `host-${index}` })
    })
  for (let index = 1; index <= 200; index++) write(index)
  const out = place()
  const making = makeBackup(folder, out, journal, now)
  let isDone = false
  void making.finally(() => (isDone = true))
  let written = 200
  while (!isDone && written < 3000) {
    write(++written)
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { receipts } = await making
  assert.ok(written > 210, "it went on meanwhile")
  const restored = place()
  await restoreBackup(out, restored)
  using copy = Store.open({ journal: SqliteJournal.open(join(restored, "manager.db")), vaultKey, randomBytes: random })
  assert.equal(copy.logHead.size, receipts)
  assert.deepEqual(copy.get("references", "count"), { value: receipts })
  assert.equal(copy.count("references"), receipts + 1)
  assert.equal(store.logHead.size, written)
})

test("makeBackup() and restoreBackup() put nothing in the place of anything, and leave nothing behind", async () => {
  const folder = await makeFolder()
  const backup = await backUp(folder)
  const before = (await readdir(base)).toSorted()
  await assert.rejects(backUp(folder, backup), { code: "already-exists" })
  await assert.rejects(restoreBackup(backup, folder), { code: "already-exists" })
  const file = place()
  await writeFile(file, "")
  await assert.rejects(backUp(folder, file), { code: /already-exists|unavailable/ })
  await rm(file)
  await assert.rejects(restoreBackup(place(), place()), { code: "unavailable" })
  assert.deepEqual((await readdir(base)).toSorted(), before)
})

test("makeBackup() names ciphertext that the disk has changed", async () => {
  const folder = await makeFolder()
  await appendFile(join(folder, "blobs", digestOf(blob).replace("sha256:", "")), "x")
  const out = place()
  await assert.rejects(backUp(folder, out), { code: "wrong-digest", path: /blobs/ })
  await assert.rejects(stat(out), { code: "ENOENT" })
})

test("restoreBackup() refuses each file that is changed, cut or missing, and names it", async () => {
  const backup = await backUp(await makeFolder())
  const files = ["manager.db", "manager.json", "vault.json", "members", "collateral/tdx-x.json", `blobs/${digestOf(blob).replace("sha256:", "")}`]
  for (const name of files) {
    for (const [how, code] of [
      [async (path: string) => appendFile(path, " "), "malformed"],
      [async (path: string) => rm(path), "unavailable"],
    ] as const) {
      const copy = place()
      await cp(backup, copy, { recursive: true })
      await how(join(copy, name))
      const out = place()
      await assert.rejects(restoreBackup(copy, out), { code, path: join(copy, name) })
      await assert.rejects(stat(out), { code: "ENOENT" })
    }
  }
})

test("restoreBackup() refuses a list that leads elsewhere, lacks a part or names one twice", async () => {
  const backup = await backUp(await makeFolder())
  const manifest = JSON.parse(await readFile(join(backup, "backup.json"), "utf8")) as { files: { path: string }[] }
  const outside = { ...manifest.files[0], path: "../../etc/passwd" }
  for (const files of [
    [...manifest.files, outside],
    [...manifest.files, { ...outside, path: "blobs/../../x" }],
    [...manifest.files, { ...outside, path: "collateral/.hidden" }],
    manifest.files.filter(({ path }) => path !== "vault.json"),
    [...manifest.files, ...manifest.files],
  ]) {
    const copy = place()
    await cp(backup, copy, { recursive: true })
    await writeFile(join(copy, "backup.json"), JSON.stringify({ ...manifest, files }))
    await assert.rejects(restoreBackup(copy, place()), { name: "MalformedError" })
  }
})

test("BackupSchedule makes one when it is due, keeps so many, goes on from what is there, and tells of failures", async () => {
  const folder = place()
  const lines: string[] = []
  let time = now.getTime()
  let fault: Error | undefined
  let running = 0
  const start = (): BackupSchedule =>
    new BackupSchedule(
      { folder, everyMilliseconds: 3_600_000, keep: 2 },
      {
        make: async (out) => {
          running++
          assert.equal(running, 1, "one at a time")
          await new Promise((resolve) => setImmediate(resolve))
          running--
          if (fault !== undefined) throw fault
          await mkdir(out)
          return { at: "", receipts: 1, blobs: 0, bytes: 2 }
        },
        now: () => new Date(time),
        say: (line) => lines.push(line),
      },
    )
  const turn = async (schedule: BackupSchedule, minutes: number): Promise<readonly string[]> => {
    time += minutes * 60_000
    schedule.tick()
    schedule.tick()
    await schedule.idle()
    return (await readdir(folder)).toSorted()
  }
  const first = start()
  assert.deepEqual(await turn(first, 0), ["20261126T120000Z"])
  assert.match(lines.join(), /20261126T120000Z: 1 receipts/)
  assert.deepEqual(await turn(first, 59), ["20261126T120000Z"])
  assert.deepEqual(await turn(first, 1), ["20261126T120000Z", "20261126T130000Z"])
  assert.deepEqual(await turn(first, 60), ["20261126T130000Z", "20261126T140000Z"], "the oldest goes")
  await mkdir(join(folder, "20261126T143000Z.0123456789abcdef.new"))
  await mkdir(join(folder, "mine"))
  const second = start()
  assert.deepEqual(await turn(second, 30), ["20261126T130000Z", "20261126T140000Z", "mine"], "what a killed one left is cleared; none is due")
  fault = new Error("no space")
  assert.deepEqual(await turn(second, 30), ["20261126T130000Z", "20261126T140000Z", "mine"])
  assert.match(lines.at(-1) ?? "", /no backup was made .*no space.*tried again/)
  fault = undefined
  assert.deepEqual(await turn(second, 10), ["20261126T140000Z", "20261126T151000Z", "mine"], "after ten minutes, not an hour")
})

test("a restored vault of another manager does not open the store", async () => {
  const [one, other] = [await makeFolder(), await makeFolder()]
  const backup = await backUp(one)
  const again = place()
  await restoreBackup(backup, again)
  await cp(join(other, "vault.json"), join(again, "vault.json"))
  await assert.rejects(openManager(again), { code: "store-changed" })
})
