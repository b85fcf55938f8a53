import { readdirSync } from "node:fs"
import { readdir, rename, rm } from "node:fs/promises"
import { join } from "node:path"
import { bytesEqual } from "../bytes/compare.ts"
import { fromSystemError, syncFolder, writeFileDurably } from "../bytes/durable.ts"
import type { ManagerVault } from "../policy/manager-vault.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { ManagerTime, systemClock } from "./clock.ts"
import { folderPart } from "./folder.ts"
import { keysKey, vaultKeyOfRecord } from "./manager.ts"
import { appendReceipt } from "./receipts.ts"
import { recordSchemas, type RecordOf, type Table } from "./records.ts"
import { SqliteJournal } from "./sqlite-journal.ts"
import { Store, type Transaction } from "./store.ts"
import { describeVault, encodeVaultFile, loadVaultFile, makeVault, openVault, vaultDigest, type VaultOpeners, type VaultPlan } from "./vault.ts"

/**
 * Gives a manager's folder a new vault key. The whole store is written anew under it, into a file that bears the new vault file's digest; then the new vault
 * file takes the old one's place, and with this one rename the rotation has happened; then the new store takes the old one's place. Whatever ends the program in
 * between, the next start sees by the vault file which of the stores counts.
 */

/** One step of a rotation: whole before the next begins. */
export interface RotationStep {
  readonly name: "write-store" | "place-vault" | "place-store"
  run(): Promise<void>
}

/** A rotation that is ready to run; holds the store's lock until it is disposed. */
export interface Rotation extends Disposable {
  readonly from: ManagerVault
  readonly to: ManagerVault
  /** The new vault key, 32 bytes; secret. Whoever asked for the rotation wipes it. */
  readonly key: Uint8Array
  readonly steps: readonly RotationStep[]
}

/**
 * Opens the store by its old key and draws the new one; changes nothing.
 * @throws {UnavailableError} where a manager uses the folder; as openVault and makeVault; {ProtocolError} `store-changed`
 */
export async function prepareRotation(
  folder: string,
  plan: VaultPlan,
  openers: VaultOpeners,
  randomBytes: (length: number) => Uint8Array,
): Promise<Rotation> {
  const journal = await openJournal(folder)
  try {
    const file = await loadVaultFile(folderPart(folder, "vault"))
    const oldKey = await openVault(file, openers)
    const store = openStore(journal, oldKey, randomBytes)
    const keys = store.get("keys", keysKey)
    if (keys === undefined) throw new ProtocolError("store-changed", "the store holds no manager keys", { path: folder })
    const made = await makeVault(plan, keys.instance, randomBytes)
    const path = storePath(folder, vaultDigest(made.file))
    return {
      from: describeVault(file),
      to: describeVault(made.file),
      key: made.key,
      steps: [
        { name: "write-store", run: async () => orRemove(path, () => writeStore(path, store, made, randomBytes)) },
        { name: "place-vault", run: async () => writeFileDurably(folderPart(folder, "vault"), encodeVaultFile(made.file), { mode: 0o600 }) },
        {
          name: "place-store",
          run: async () => {
            store[Symbol.dispose]()
            await placeStore(folder, path)
          },
        },
      ],
      [Symbol.dispose]: () => store[Symbol.dispose](),
    }
  } catch (error) {
    journal.close()
    throw error
  }
}

/** Rotates, and gives the new vault key, which the caller wipes. @throws as prepareRotation; {UnavailableError} `disk-full` */
export async function rotateVault(
  folder: string,
  plan: VaultPlan,
  openers: VaultOpeners,
  randomBytes: (length: number) => Uint8Array,
): Promise<Omit<Rotation, "steps" | typeof Symbol.dispose>> {
  using rotation = await prepareRotation(folder, plan, openers, randomBytes)
  const { from, to, key, steps } = rotation
  try {
    for (const step of steps) await step.run()
  } catch (error) {
    key.fill(0)
    throw fromSystemError(error, folder)
  }
  return { from, to, key }
}

/**
 * Takes the folder's lock and opens its database, after a rotation that was broken off has been brought to its end, or undone.
 * @throws {UnavailableError} where a manager uses the folder; {ProtocolError} `not-found`, `store-changed`
 */
export async function openJournal(folder: string): Promise<SqliteJournal> {
  const journal = SqliteJournal.open(folderPart(folder, "database"))
  try {
    const left = (await readdir(folder)).filter((name) => leftover.test(name))
    if (left.length === 0) return journal
    const counting = storePath(folder, vaultDigest(await loadVaultFile(folderPart(folder, "vault"))))
    const isCommitted = left.some((name) => join(folder, name) === counting)
    for (const name of left) if (join(folder, name) !== counting) await rm(join(folder, name), { force: true })
    if (!isCommitted) return journal
    journal.close()
    await placeStore(folder, counting)
  } catch (error) {
    journal.close()
    throw fromSystemError(error, folder)
  }
  return SqliteJournal.open(folderPart(folder, "database"))
}

/** Whether a rotation was broken off in this folder; opening its journal ends or undoes it. */
export function isRotationLeft(folder: string): boolean {
  return readdirSync(folder).some((name) => leftover.test(name))
}

const leftover = /^rotated-[0-9a-f]{64}\.db(?:-wal|-shm|-journal)?$/

function storePath(folder: string, vault: string): string {
  return join(folder, `rotated-${vault.replace("sha256:", "")}.db`)
}

function openStore(journal: SqliteJournal, vaultKey: Uint8Array, randomBytes: (length: number) => Uint8Array): Store {
  try {
    return Store.open({ journal, vaultKey, randomBytes })
  } finally {
    vaultKey.fill(0)
  }
}

/** The store's whole content under the new key, and the receipt of it, in a database of its own that is closed when this returns. */
function writeStore(
  path: string,
  store: Store,
  { file, key }: Awaited<ReturnType<typeof makeVault>>,
  randomBytes: (length: number) => Uint8Array,
): void {
  const time = new ManagerTime(systemClock, () => store.recordedMilliseconds)
  const vault = describeVault(file)
  using fresh = Store.create({ journal: SqliteJournal.create(path), vaultKey: key, randomBytes }, store.recordedMilliseconds)
  // The same entries in the same places make the same tree: whoever remembers it finds it again.
  const { size, root } = store.logHead
  for (let from = 0; from < size; from += entriesAtOnce)
    fresh.transact(time.now(), (tx) => {
      for (const receipt of store.logEntries(from, from + entriesAtOnce)) tx.append(receipt)
    })
  if (!bytesEqual(fresh.logHead.root, root)) throw new TypeError("internal: the log's tree changed while it was written anew")
  fresh.transact(time.now(), (tx) => {
    for (const table of Object.keys(recordSchemas) as Table[]) copyTable(store, tx, table)
    tx.put("vault", vaultKeyOfRecord, { digest: vaultDigest(file) })
    appendReceipt({ randomBytes, time }, tx, {
      kind: "vault-rotated",
      vault: vault.kind,
      ...(vault.kind === "shares" ? { custodians: [...vault.custodians] } : {}),
    })
  })
}

/** Entries of the log that are in memory at once. */
const entriesAtOnce = 1000

/** A half-written store would keep a full disk full until the next start. */
async function orRemove(path: string, write: () => void): Promise<void> {
  try {
    write()
  } catch (error) {
    for (const suffix of ["", "-wal", "-shm"]) await rm(`${path}${suffix}`, { force: true })
    throw error
  }
}

function copyTable<T extends Table>(store: Store, tx: Transaction, table: T): void {
  for (const [key, record] of store.entries(table)) tx.put(table, key, record as RecordOf<T>)
}

/** SQLite removes the old database's log when it closes; should one be left, it goes first, for beside the new one it would be taken for that one's. */
async function placeStore(folder: string, path: string): Promise<void> {
  const database = folderPart(folder, "database")
  for (const suffix of ["-wal", "-shm"]) await rm(`${database}${suffix}`, { force: true })
  await rename(path, database)
  await syncFolder(folder)
}
