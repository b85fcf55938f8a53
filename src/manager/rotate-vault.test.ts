import assert from "node:assert/strict"
import { randomBytes as nodeRandomBytes } from "node:crypto"
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { generateX25519Identity, identityToRecipient } from "age-encryption"
import { generateKeyPairSync } from "node:crypto"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { prepareRotation, rotateVault } from "./rotate-vault.ts"
import { initManager, openManager, randomBytes } from "./state.ts"
import type { SealingDevice } from "./tee-sealer.ts"
import { Store } from "./store.ts"
import { SqliteJournal } from "./sqlite-journal.ts"
import { loadVaultFile, openVault, type VaultOpeners, type VaultPlan } from "./vault.ts"

const base = await mkdtemp(join(tmpdir(), "perun-rotate-"))
after(() => rm(base, { recursive: true, force: true }))

const enclaveKey = new Uint8Array(nodeRandomBytes(16))
const enclave = (key = enclaveKey, to: SealingDevice["to"] = "mrenclave"): SealingDevice => ({ to, readKey: async () => key.slice() })
const holders = await Promise.all(
  ["ada", "bob"].map(async (name) => ({
    name,
    key: sshPublicKeyText(generateKeyPairSync("ed25519").privateKey),
    recipient: await identityToRecipient(await generateX25519Identity()),
  })),
)

let count = 0
/** A manager's folder with a log of its own. */
async function newFolder(): Promise<string> {
  const folder = join(base, `manager-${count++}`)
  await initManager({ folder, laboratoryRoots: [], vault: { kind: "key-file" } })
  const key = await openVault(await loadVaultFile(join(folder, "vault.json")), {})
  using store = Store.open({ journal: SqliteJournal.open(join(folder, "manager.db")), vaultKey: key, randomBytes })
  for (let step = 0; step < 3; step++)
    store.transact(new Date(), (tx) => {
      for (let number = 0; number < 500; number++)
        tx.append({ salt: String(step * 500 + number).padStart(32, "0"), at: "2026-11-22T12:00:00Z", kind: "run-queued" })
    })
  return folder
}

interface Found {
  readonly key: string
  readonly size: number
  readonly root: string
  readonly kinds: readonly string[]
}

/** What a manager that is started on the folder is and has. */
async function look(folder: string, openers: VaultOpeners = {}): Promise<Found> {
  const { key } = await openedDescription(folder, openers)
  const vaultKey = await openVault(await loadVaultFile(join(folder, "vault.json")), openers)
  using store = Store.open({ journal: SqliteJournal.open(join(folder, "manager.db")), vaultKey, randomBytes })
  const { size, root } = store.logHead
  return { key, size, root: Buffer.from(root).toString("hex"), kinds: store.logEntries(1499, size).map(({ kind }) => kind) }
}

async function openedDescription(folder: string, openers: VaultOpeners): Promise<{ readonly key: string }> {
  using opened = await openManager(folder, openers)
  return { key: opened.manager.description.key }
}

test("rotateVault() leaves the manager what it is, its log the same tree with one receipt more, and the old key without use", async () => {
  const folder = await newFolder()
  const before = await look(folder)
  const oldFile = await readFile(join(folder, "vault.json"))
  const { from, to } = await rotateVault(folder, { kind: "tee-sealing", device: enclave() }, {}, randomBytes)
  assert.deepEqual([from, to], [{ kind: "key-file" }, { kind: "tee-sealing", to: "mrenclave" }])
  const later = await look(folder, { sealingDevice: enclave() })
  assert.deepEqual([later.key, later.size], [before.key, before.size + 1])
  assert.deepEqual(later.kinds, ["run-queued", "vault-rotated"])
  await writeFile(join(folder, "vault.json"), oldFile)
  await assert.rejects(openManager(folder), { code: "store-changed" })
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.startsWith("rotated-")),
    [],
  )
})

test("rotateVault() goes from every kind to every kind", async () => {
  const folder = await newFolder()
  const { key } = await look(folder)
  const plans: readonly (readonly [VaultPlan, (fresh: Uint8Array) => VaultOpeners])[] = [
    [{ kind: "shares", threshold: 2, holders }, (rebuiltKey) => ({ rebuiltKey })],
    [{ kind: "tee-sealing", device: enclave(enclaveKey, "mrsigner") }, () => ({ sealingDevice: enclave(enclaveKey, "mrsigner") })],
    [{ kind: "key-file" }, () => ({})],
    [{ kind: "shares", threshold: 2, holders }, (rebuiltKey) => ({ rebuiltKey })],
    [{ kind: "shares", threshold: 2, holders }, (rebuiltKey) => ({ rebuiltKey })],
    [{ kind: "key-file" }, () => ({})],
  ]
  let openers: VaultOpeners = {}
  for (const [plan, openersOf] of plans) {
    const rotated = await rotateVault(folder, plan, openers, randomBytes)
    openers = openersOf(rotated.key.slice())
    assert.equal((await look(folder, openers)).key, key)
  }
})

test("a rotation that is broken off behind any step, or inside the writing, has happened or has not", async () => {
  const folder = await newFolder()
  const before = await look(folder)
  for (let done = 0; done <= 3; done++) {
    const copy = join(base, `broken-${done}`)
    await cp(folder, copy, { recursive: true })
    {
      using rotation = await prepareRotation(copy, { kind: "tee-sealing", device: enclave() }, {}, randomBytes)
      for (const step of rotation.steps.slice(0, done)) await step.run()
    }
    // The vault file decides: from its place on the new store counts.
    const isOver = done >= 2
    const after = await look(copy, { sealingDevice: enclave() })
    assert.deepEqual([after.key, after.size], [before.key, before.size + (isOver ? 1 : 0)], `behind ${done} steps`)
    assert.deepEqual(
      (await readdir(copy)).filter((name) => name.startsWith("rotated-")),
      [],
      "nothing is left over",
    )
  }
  const half = join(base, "half")
  await cp(folder, half, { recursive: true })
  await writeFile(join(half, `rotated-${"0".repeat(64)}.db`), "half a database")
  await writeFile(join(half, `rotated-${"0".repeat(64)}.db-wal`), "and its log")
  assert.deepEqual(await look(half), before)
  assert.deepEqual(
    (await readdir(half)).filter((name) => name.startsWith("rotated-")),
    [],
  )
})

test("rotateVault() refuses a folder whose manager runs, and a key that does not open it", async () => {
  const folder = await newFolder()
  {
    using _running = await openManager(folder)
    await assert.rejects(rotateVault(folder, { kind: "key-file" }, {}, randomBytes), { code: "unavailable" })
  }
  await rotateVault(folder, { kind: "tee-sealing", device: enclave() }, {}, randomBytes)
  await assert.rejects(rotateVault(folder, { kind: "key-file" }, {}, randomBytes), { code: "wrong-state" })
  const other = { sealingDevice: enclave(new Uint8Array(nodeRandomBytes(16))) }
  await assert.rejects(rotateVault(folder, { kind: "key-file" }, other, randomBytes), { code: "store-changed" })
  await assert.rejects(openManager(folder, { sealingDevice: enclave(enclaveKey, "mrsigner") }), { code: "wrong-state" })
})

test("openManager() refuses a vault file that was changed on the disk, though its key opens the store", async () => {
  const folder = await newFolder()
  await rotateVault(folder, { kind: "shares", threshold: 2, holders }, {}, randomBytes).then(async ({ key }) => {
    const path = join(folder, "vault.json")
    const file = JSON.parse(await readFile(path, "utf8")) as { shares: { custodians: { name: string }[] } }
    const [first] = file.shares.custodians
    assert.ok(first)
    first.name = "operator"
    await writeFile(path, JSON.stringify(file))
    await assert.rejects(openManager(folder, { rebuiltKey: key }), { code: "store-changed" })
  })
})
