import { hash, randomBytes } from "node:crypto"
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { CompactRange, leafHash, verifyConsistency, verifyInclusion } from "../src/log/merkle.ts"
import { SqliteJournal } from "../src/manager/sqlite-journal.ts"
import { Store } from "../src/manager/store.ts"
import type { Receipt } from "../src/protocol/messages.ts"
import { receiptDigest, receiptLeaf } from "../src/protocol/receipts.ts"
import type { BenchRow } from "./row.ts"

/** Entries of the log that is measured. */
const entryCount = 1_000_000
const perTransaction = 10_000
const single = 300
const proofs = 1000

/** The manager's log at 10^6 entries, on its own store and disk: append, proofs and their checks, against SHA-256 alone and against the disk's sync alone. */
export async function benchLog(): Promise<BenchRow[]> {
  const folder = mkdtempSync(join(tmpdir(), "perun-bench-log-"))
  try {
    return [...benchTree(), ...benchStore(folder)]
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function benchTree(): BenchRow[] {
  const leaf = leafOf(0)
  const bare = seconds(() => {
    // One leaf and, on the average, one node for each entry.
    const node = new Uint8Array(65)
    for (let index = 0; index < entryCount; index++) {
      hash("sha256", leaf, "buffer")
      hash("sha256", node, "buffer")
    }
  })
  const append = seconds(() => {
    const range = CompactRange.empty()
    for (let index = 0; index < entryCount; index++) range.append(leafHash(leaf))
  })
  return [
    {
      name: "Merkle tree: entry hashed and appended, 10^6 entries",
      value: entryCount / append,
      unit: "entries/s",
      ratio: bare / append,
      against: "SHA-256 of the same leaves and nodes",
    },
  ]
}

function benchStore(folder: string): BenchRow[] {
  using store = Store.create(
    { journal: SqliteJournal.create(join(folder, "manager.db")), vaultKey: new Uint8Array(randomBytes(32)), randomBytes: random },
    Date.now(),
  )
  const fill = seconds(() => {
    for (let from = 0; from < entryCount; from += perTransaction) append(store, from, perTransaction)
  })
  const older = store.logHead
  const alone = seconds(() => {
    for (let index = 0; index < single; index++) append(store, entryCount + index, 1)
  })
  const synced = syncSpeed(join(folder, "sync"))
  const head = store.logHead
  const indices = Array.from({ length: proofs }, (_, count) => Math.floor((count * head.size) / proofs))
  let found: { index: number; proof: readonly Uint8Array[] }[] = []
  const prove = seconds(() => {
    found = indices.map((index) => ({ index, proof: store.logInclusion(index) }))
  })
  const verify = seconds(() => {
    for (const { index, proof } of found) verifyInclusion({ ...head, index, leaf: leafHash(leafOf(index)), proof })
  })
  const bareSteps = seconds(() => {
    const node = new Uint8Array(65)
    for (const { proof } of found) for (let step = 0; step <= proof.length; step++) hash("sha256", node, "buffer")
  })
  let consistency: readonly Uint8Array[] = []
  const follow = seconds(() => {
    for (let count = 0; count < proofs; count++) consistency = store.logConsistency(older.size - count)
  })
  verifyConsistency({ size: older.size - proofs + 1, root: rootAt(store, older.size - proofs + 1) }, head, consistency)
  const [proveEach, verifyEach] = [prove / proofs, verify / proofs]
  return [
    { name: `store's log filled to 10^6 receipts, ${perTransaction} to a transaction`, value: entryCount / fill, unit: "entries/s" },
    {
      name: "one receipt appended durably, at 10^6",
      value: (alone / single) * 1000,
      unit: "ms",
      ratio: alone / single / synced,
      against: "4 KiB written and synced",
    },
    {
      name: "inclusion proof made, at 10^6, tiles held against the tree",
      value: proveEach * 1000,
      unit: "ms",
      ratio: proveEach / verifyEach,
      against: "its check",
    },
    {
      name: "inclusion proof checked, receipt hashed, at 10^6",
      value: verifyEach * 1_000_000,
      unit: "µs",
      ratio: verify / bareSteps,
      against: "SHA-256 of its steps",
    },
    { name: "consistency proof made, at 10^6", value: (follow / proofs) * 1000, unit: "ms", ratio: follow / prove, against: "an inclusion proof" },
  ]
}

/** Root of the tree as it was, from its leaves. */
function rootAt(store: Store, size: number): Uint8Array {
  const range = CompactRange.empty()
  for (let from = 0; from < size; from += 256) for (const leaf of store.logHashes(0, from, Math.min(from + 256, size))) range.append(leaf)
  return range.root()
}

function append(store: Store, from: number, count: number): void {
  store.transact(new Date(), (tx) => {
    for (let index = from; index < from + count; index++) tx.append(receiptOf(index))
  })
}

function leafOf(index: number): Uint8Array {
  return receiptLeaf(index, receiptDigest(receiptOf(index)))
}

function receiptOf(index: number): Receipt {
  const run = index.toString(16).padStart(32, "0")
  return { salt: run, at: "2026-11-22T12:00:00.000Z", kind: "run-queued", policy: `sha256:${"0".repeat(64)}`, run, by: "clinic" }
}

/** Seconds of one write of 4 KiB with its sync, the best of ten rounds of ten. */
function syncSpeed(path: string): number {
  const file = openSync(path, "w")
  const bytes = new Uint8Array(4096)
  try {
    return (
      Math.min(
        ...Array.from({ length: 10 }, () =>
          seconds(() => {
            for (let count = 0; count < 10; count++) {
              writeSync(file, bytes)
              fsyncSync(file)
            }
          }),
        ),
      ) / 10
    )
  } finally {
    closeSync(file)
  }
}

function random(length: number): Uint8Array {
  return new Uint8Array(randomBytes(length))
}

function seconds(work: () => void): number {
  const started = performance.now()
  work()
  return (performance.now() - started) / 1000
}
