import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { cp, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { encodeHex, parseBase64 } from "../bytes/text.ts"
import { vaultKinds, type VaultKind } from "../policy/manager-vault.ts"
import { custodians } from "./custodians.testing.ts"
import { keysKey } from "./manager.ts"
import { prepareRotation, rotateVault } from "./rotate-vault.ts"
import { rebuild } from "./shares.ts"
import { SqliteJournal } from "./sqlite-journal.ts"
import { initManager, openManager, randomBytes, vaultOfFolder } from "./state.ts"
import { Store } from "./store.ts"
import { openVault, vaultDigest, type TpmSealer, type VaultOpeners, type VaultPlan } from "./vault.ts"

const base = await mkdtemp(join(tmpdir(), "perun-rotate-"))
after(() => rm(base, { recursive: true, force: true }))
let count = 0
const newFolder = (): string => join(base, `manager-${++count}`)

const holders = await custodians("a", "b", "c")
const sealer: TpmSealer = { seal: async (secret) => secret.map((byte) => byte ^ 0x55), unseal: async (sealed) => sealed.map((byte) => byte ^ 0x55) }
const sealingDevice = { to: "mrenclave", readKey: async () => new Uint8Array(16).fill(3) } as const
const plans: Readonly<Record<VaultKind, VaultPlan>> = {
  "key-file": { kind: "key-file" },
  tpm: { kind: "tpm", sealer },
  "tee-sealing": { kind: "tee-sealing", device: sealingDevice },
  shares: { kind: "shares", threshold: 2, holders },
}

/** All that may be needed, the key from its shares included. */
async function openersOf(folder: string): Promise<VaultOpeners> {
  const file = await vaultOfFolder(folder)
  if (file.kind !== "shares") return { sealer, sealingDevice }
  const shares = await Promise.all(holders.slice(1).map(async ({ open }, index) => open(parseBase64(file.sealedShares[index + 1] ?? "", "share"))))
  return { rebuiltKey: await rebuild(shares) }
}

/** What a folder's store holds, by the key that its vault gives. */
async function contentOf(
  folder: string,
): Promise<{ readonly identity: unknown; readonly note: unknown; readonly log: readonly string[]; readonly root: string }> {
  const vaultKey = await openVault(await vaultOfFolder(folder), await openersOf(folder))
  using store = Store.open({ journal: SqliteJournal.open(join(folder, "manager.db")), vaultKey, randomBytes })
  const { size, root } = store.logHead
  return {
    identity: store.get("keys", keysKey),
    note: store.get("references", "note"),
    log: store.logEntries(0, size).map(({ kind }) => kind),
    root: encodeHex(root),
  }
}

async function filledFolder(plan: VaultPlan): Promise<string> {
  const folder = newFolder()
  await initManager({ folder, laboratoryRoots: [], vault: plan })
  const vaultKey = await openVault(await vaultOfFolder(folder), await openersOf(folder))
  using store = Store.open({ journal: SqliteJournal.open(join(folder, "manager.db")), vaultKey, randomBytes })
  for (let entry = 0; entry < 3; entry++)
    store.transact(new Date(), (tx) => {
      tx.put("references", "note", { entry })
      tx.append({ salt: encodeHex(randomBytes(16)), at: new Date().toISOString(), kind: "run-queued" })
    })
  return folder
}

for (const from of vaultKinds)
  for (const to of vaultKinds)
    test(`rotateVault() moves a vault from ${from} to ${to}, with everything that it keeps`, async () => {
      const folder = await filledFolder(plans[from])
      const before = await contentOf(folder)
      const old = await vaultOfFolder(folder)
      const oldKey = await openVault(old, await openersOf(folder))
      const rotated = await rotateVault(folder, plans[to], await openersOf(folder), randomBytes)
      assert.deepEqual([rotated.from.kind, rotated.to.kind], [from, to])
      const now = await contentOf(folder)
      assert.deepEqual([now.identity, now.note], [before.identity, before.note])
      assert.deepEqual(now.log, [...before.log, "vault-rotated"])
      const vaultKey = await openVault(await vaultOfFolder(folder), await openersOf(folder))
      assert.deepEqual(rotated.key, vaultKey)
      assert.notDeepEqual(vaultKey, oldKey)
      const journal = SqliteJournal.open(join(folder, "manager.db"))
      assert.throws(() => Store.open({ journal, vaultKey: oldKey, randomBytes }), { code: "store-changed" })
      journal.close()
      assert.deepEqual((await readdir(folder)).toSorted(), ["blobs", "manager.db", "manager.json", "members", "vault.json"])
      using opened = await openManager(folder, await openersOf(folder))
      assert.equal(opened.vault.kind, to)
    })

test("the receipt of a rotation names the new custodians, and the tree that others remember is still there", async () => {
  const folder = await filledFolder(plans["key-file"])
  const before = await contentOf(folder)
  const key = await openVault(await vaultOfFolder(folder), {})
  const remembered = SqliteJournal.open(join(folder, "manager.db"))
  using old = Store.open({ journal: remembered, vaultKey: key, randomBytes })
  assert.equal(encodeHex(old.logHead.root), before.root)
  old[Symbol.dispose]()
  await rotateVault(folder, plans.shares, {}, randomBytes)
  const vaultKey = await openVault(await vaultOfFolder(folder), await openersOf(folder))
  using store = Store.open({ journal: SqliteJournal.open(join(folder, "manager.db")), vaultKey, randomBytes })
  const { size } = store.logHead
  const [receipt] = store.logEntries(size - 1, size)
  assert.deepEqual(
    [receipt?.kind, receipt?.vault, receipt?.custodians],
    ["vault-rotated", "shares", holders.map(({ name, key: text }) => ({ name, key: text }))],
  )
  // Throws for a size whose tree is no longer the beginning of this one.
  assert.ok(store.logConsistency(size - 1).length > 0)
})

test("prepareRotation() wants the manager stopped, and changes nothing", async () => {
  const folder = await filledFolder(plans["key-file"])
  const before = await readFile(join(folder, "vault.json"), "utf8")
  {
    using opened = await openManager(folder)
    void opened
    await assert.rejects(prepareRotation(folder, plans["key-file"], {}, randomBytes), { code: "unavailable" })
  }
  {
    using rotation = await prepareRotation(folder, plans["key-file"], {}, randomBytes)
    assert.equal(rotation.steps.length, 3)
    await assert.rejects(openManager(folder), { code: "unavailable" })
  }
  assert.equal(await readFile(join(folder, "vault.json"), "utf8"), before)
})

const fixture = join(import.meta.dirname, "rotate-vault.fixture.ts")

/** Rotates in another process, which is killed after so many steps, or after a time. */
async function killed(folder: string, steps: number, milliseconds?: number): Promise<NodeJS.Signals | null> {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", fixture, folder, String(steps)], {
    stdio: ["ignore", "pipe", "inherit"],
  })
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.on("close", (_, signal) => resolve(signal)))
  if (milliseconds !== undefined) {
    await new Promise((resolve) => child.stdout.once("data", resolve))
    await sleep(milliseconds)
    child.kill("SIGKILL")
  }
  return ended
}

for (const [steps, isNew] of [
  [0, false],
  [1, false],
  [2, true],
  [3, true],
] as const)
  test(`a rotation that is killed after ${steps} of its 3 steps leaves the ${isNew ? "new" : "old"} key in force, and nothing else`, async () => {
    const folder = await filledFolder(plans["key-file"])
    const oldKey = await readFile(join(folder, "vault.json"), "utf8")
    assert.equal(await killed(folder, steps), steps < 3 ? "SIGKILL" : null)
    {
      using opened = await openManager(folder)
      assert.deepEqual(opened.vault, { kind: "key-file" })
    }
    const { log, note } = await contentOf(folder)
    assert.equal(log.includes("vault-rotated"), isNew)
    assert.deepEqual(note, { entry: 2 })
    assert.equal((await readFile(join(folder, "vault.json"), "utf8")) === oldKey, !isNew)
    assert.deepEqual((await readdir(folder)).toSorted(), ["blobs", "manager.db", "manager.json", "members", "vault.json"])
  })

test("a rotation that is killed at any time leaves a folder that opens", { timeout: 120_000 }, async () => {
  const folder = await filledFolder(plans["key-file"])
  for (let milliseconds = 0; milliseconds < 32; milliseconds += 4) {
    await killed(folder, 3, milliseconds)
    using opened = await openManager(folder)
    void opened
  }
  const { log, note } = await contentOf(folder)
  assert.deepEqual(note, { entry: 2 })
  assert.ok(log.filter((kind) => kind === "vault-rotated").length <= 8)
})

test("openManager() ends a rotation whose store was not yet in place, though the old store has unwritten pages", async () => {
  const folder = await filledFolder(plans["key-file"])
  const before = join(base, "before")
  await cp(folder, before, { recursive: true })
  await rotateVault(folder, plans["key-file"], {}, randomBytes)
  const digestName = `rotated-${(await digestNameOf(folder)).replace("sha256:", "")}.db`
  await rename(join(folder, "manager.db"), join(folder, digestName))
  await cp(join(before, "manager.db"), join(folder, "manager.db"))
  await writeFile(join(folder, "manager.db-wal"), "what was left of a log")
  assert.ok((await contentOfOpened(folder)).includes("vault-rotated"))
  // One that no vault file names is removed, whatever is in it.
  await writeFile(join(folder, `rotated-${"0".repeat(64)}.db`), "half written")
  assert.ok((await contentOfOpened(folder)).includes("vault-rotated"))
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.startsWith("rotated-")),
    [],
  )
})

async function digestNameOf(folder: string): Promise<string> {
  return vaultDigest(await vaultOfFolder(folder))
}

async function contentOfOpened(folder: string): Promise<readonly string[]> {
  {
    using opened = await openManager(folder)
    void opened
  }
  return (await contentOf(folder)).log
}

test("openManager() finds a vault file that was changed beside the store", async () => {
  const folder = await filledFolder(plans.shares)
  const openers = await openersOf(folder)
  const file = await vaultOfFolder(folder)
  assert.ok(file.kind === "shares")
  // A higher threshold than was split for would be claimed under evidence.
  const lie = { ...file, shares: { ...file.shares, threshold: 3 } }
  await writeFile(join(folder, "vault.json"), JSON.stringify(lie))
  await assert.rejects(openManager(folder, openers), { code: "store-changed", message: /vault\.json/ })
})
