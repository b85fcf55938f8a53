import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { randomBytes, randomInt } from "node:crypto"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { after, test } from "node:test"
import { fileURLToPath } from "node:url"
import { emptyRoot, leafHash, type TreeHead, verifyConsistency, verifyInclusion } from "../log/merkle.ts"
import type { Receipt } from "../protocol/messages.ts"
import { receiptDigest, receiptLeaf } from "../protocol/receipts.ts"
import { SqliteJournal } from "./sqlite-journal.ts"
import { MemoryJournal } from "./journal.testing.ts"
import { Store, type Journal, type SealedEntry, type SealedRow } from "./store.ts"

const folder = await mkdtemp(join(tmpdir(), "perun-store-"))
after(() => rm(folder, { recursive: true }))

const vaultKey = new Uint8Array(randomBytes(32))
const random = (length: number): Uint8Array => new Uint8Array(randomBytes(length))
const at = new Date("2026-11-22T12:00:00Z")

function document(value: string): { value: string } {
  return { value }
}

function makeStore(journal: Journal = new MemoryJournal()): Store {
  return Store.create({ journal, vaultKey, randomBytes: random }, at.getTime())
}

function reopen(journal: Journal, key = vaultKey): Store {
  return Store.open({ journal, vaultKey: key, randomBytes: random })
}

test("transact() makes all writes of a step count together, also for its own reads", () => {
  const journal = new MemoryJournal()
  const store = makeStore(journal)
  store.transact(at, (tx) => {
    tx.put("references", "a", document("1"))
    tx.put("references", "b", document("2"))
    assert.deepEqual(tx.get("references", "a"), { value: "1" })
    assert.equal(tx.list("references").length, 2)
    assert.equal(store.get("references", "a"), undefined)
    tx.remove("references", "b")
    assert.equal(tx.list("references").length, 1)
  })
  const again = reopen(journal)
  assert.deepEqual(again.list("references"), [{ value: "1" }])
})

test("transact() leaves everything as it was when its step throws", () => {
  const journal = new MemoryJournal()
  const store = makeStore(journal)
  assert.throws(() =>
    store.transact(at, (tx) => {
      tx.put("references", "a", document("1"))
      throw new TypeError("no")
    }),
  )
  assert.equal(store.get("references", "a"), undefined)
  assert.equal(journal.rows.size, 0)
})

test("transact() refuses a record of another shape", () => {
  const store = makeStore()
  const wrong = JSON.parse(`{"run":"x","identity":1}`) as { run: string; identity: string; recipient: string }
  assert.throws(() => store.transact(at, (tx) => tx.put("runKeys", "x", wrong)), { code: "malformed" })
})

test("a commit that fails before it took effect changes nothing and the store goes on", () => {
  const journal = new MemoryJournal()
  const store = makeStore(journal)
  journal.failNext = "before"
  assert.throws(() => store.transact(at, (tx) => tx.put("references", "a", document("1"))), { code: "disk-full" })
  assert.equal(store.get("references", "a"), undefined)
  store.transact(at, (tx) => tx.put("references", "a", document("2")))
  assert.deepEqual(reopen(journal).get("references", "a"), { value: "2" })
})

test("a commit that fails after it took effect counts", () => {
  const journal = new MemoryJournal()
  const store = makeStore(journal)
  journal.failNext = "after"
  store.transact(at, (tx) => tx.put("references", "a", document("1")))
  assert.deepEqual(store.get("references", "a"), { value: "1" })
  store.transact(at, (tx) => tx.put("references", "a", document("2")))
  assert.deepEqual(reopen(journal).get("references", "a"), { value: "2" })
})

test("a store whose medium cannot say what it holds is used no more", () => {
  const journal = new MemoryJournal()
  const store = makeStore(journal)
  journal.failNext = "before"
  journal.isBlind = true
  assert.throws(() => store.transact(at, (tx) => tx.put("references", "a", document("1"))), { code: "unavailable" })
  journal.isBlind = false
  assert.throws(() => store.get("references", "a"), { code: "unavailable" })
  assert.equal(reopen(journal).get("references", "a"), undefined)
})

test("open() finds half a transaction", () => {
  const journal = new MemoryJournal()
  const store = makeStore(journal)
  journal.failNext = "between"
  assert.throws(() => store.transact(at, (tx) => tx.put("references", "a", document("1"))))
  assert.throws(() => reopen(journal), { code: "store-changed" })
})

const tamper: Record<string, (rows: Map<string, SealedRow>, old: Map<string, SealedRow>) => void> = {
  "a changed row": (rows) => {
    const row = rows.get("references a")
    assert.ok(row)
    rows.set("references a", { ...row, sealed: row.sealed.map((byte, index) => (index === 20 ? byte ^ 1 : byte)) })
  },
  "a cut row": (rows) => {
    const row = rows.get("references a")
    assert.ok(row)
    rows.set("references a", { ...row, sealed: row.sealed.slice(0, 5) })
  },
  "two rows that changed places": (rows) => {
    const [a, b] = [rows.get("references a"), rows.get("references b")]
    assert.ok(a && b)
    rows.set("references a", { ...a, sealed: b.sealed })
    rows.set("references b", { ...b, sealed: a.sealed })
  },
  "a row moved to another table": (rows) => {
    const row = rows.get("references a")
    assert.ok(row)
    rows.delete("references a")
    rows.set("deposits a", { ...row, table: "deposits" })
  },
  "a row put back to its older version": (rows, old) => {
    const row = old.get("references a")
    assert.ok(row)
    rows.set("references a", row)
  },
  "a removed row": (rows) => void rows.delete("references b"),
  "a row of an unknown table": (rows) => void rows.set("x", { table: "x", key: "x", version: 1, sealed: new Uint8Array(40) }),
  "a removed row that was put back": (rows, old) => {
    const row = old.get("references gone")
    assert.ok(row)
    rows.set("references gone", row)
  },
}
for (const [what, change] of Object.entries(tamper))
  test(`open() refuses ${what}`, () => {
    const journal = new MemoryJournal()
    const store = makeStore(journal)
    store.transact(at, (tx) => {
      tx.put("references", "a", document("1"))
      tx.put("references", "b", document("2"))
      tx.put("references", "gone", document("3"))
    })
    const old = new Map(journal.rows)
    store.transact(at, (tx) => {
      tx.put("references", "a", document("1 again"))
      tx.remove("references", "gone")
    })
    reopen(journal)
    change(journal.rows, old)
    assert.throws(() => reopen(journal), { code: "store-changed" })
  })

const entry = (number: number): Receipt => ({ salt: String(number).padStart(32, "0"), at: "2026-11-22T12:00:00Z", kind: "run-queued" })

/** A store with a log of so many entries, and rows that go with them. */
function withLog(count: number, journal = new MemoryJournal()): { readonly store: Store; readonly journal: MemoryJournal } {
  const store = makeStore(journal)
  for (let from = 0; from < count; from += 100)
    store.transact(at, (tx) => {
      for (let number = from; number < Math.min(count, from + 100); number++) tx.append(entry(number))
      tx.put("references", "count", document(String(from)))
    })
  return { store, journal }
}

test("append() adds to the log in the step that it belongs to; after a restart the same tree goes on", () => {
  const { store, journal } = withLog(300)
  assert.throws(() =>
    store.transact(at, (tx) => {
      tx.append(entry(300))
      throw new TypeError("no")
    }),
  )
  const again = reopen(journal)
  assert.deepEqual(again.logHead, store.logHead)
  assert.deepEqual(again.logEntries(298, 400), [entry(298), entry(299)])
  again.transact(at, (tx) => tx.append(entry(300)))
  verifyConsistency(store.logHead, again.logHead, again.logConsistency(300))
  for (const index of [0, 255, 256, 300]) {
    const leaf = leafHash(receiptLeaf(index, receiptDigest(entry(index))))
    verifyInclusion({ index, size: 301, leaf, proof: again.logInclusion(index), root: again.logHead.root })
  }
  assert.deepEqual(again.logEntries(301, 400), [])
  assert.throws(() => again.logConsistency(302), { code: "wrong-proof" })
})

test("a commit of entries that fails before or after it took effect leaves the tree as it is on the medium", () => {
  for (const when of ["before", "after"] as const) {
    const { store, journal } = withLog(3)
    journal.failNext = when
    const append = (): void => store.transact(at, (tx) => tx.append(entry(3)))
    if (when === "before") assert.throws(append)
    else append()
    assert.equal(store.logHead.size, when === "before" ? 3 : 4)
    assert.deepEqual(reopen(journal).logHead, store.logHead)
  }
  const { store, journal } = withLog(3)
  journal.failNext = "between"
  assert.throws(() => store.transact(at, (tx) => tx.append(entry(3))))
  assert.deepEqual(reopen(journal).logHead.size, 3)
})

const logTamper: Record<string, (journal: MemoryJournal, forked: MemoryJournal) => void> = {
  "an entry whose bytes were changed": ({ log }) =>
    changeEntry(log, 260, ({ sealed }) => ({ sealed: sealed.map((byte, place) => (place === 20 ? byte ^ 1 : byte)) })),
  "an entry that was cut": ({ log }) => changeEntry(log, 260, ({ sealed }) => ({ sealed: sealed.slice(0, 9) })),
  "two entries that changed places": ({ log }) => {
    const [a, b] = [log[260], log[261]]
    assert.ok(a && b)
    log[260] = { ...b, index: 260 }
    log[261] = { ...a, index: 261 }
  },
  "an entry of another history, under its own hash": ({ log }, forked) => changeEntry(log, 260, () => forked.log[260] ?? {}),
  "an entry of another history, under the hash of this one": ({ log }, forked) =>
    changeEntry(log, 260, () => ({ sealed: forked.log[260]?.sealed ?? new Uint8Array() })),
  "a hash that was changed": ({ log }) => changeEntry(log, 260, ({ hash }) => ({ hash: hash.map((byte) => byte ^ 1) })),
  "a subtree's hash that was changed": ({ nodes }) => {
    const node = nodes.find(({ level }) => level === 1)
    assert.ok(node)
    nodes[nodes.indexOf(node)] = { ...node, hash: node.hash.map((byte) => byte ^ 1) }
  },
  "a subtree's hash that is gone": (journal) => (journal.nodes = []),
}

function changeEntry(log: SealedEntry[], index: number, change: (entry: SealedEntry) => Partial<SealedEntry>): void {
  const before = log[index]
  assert.ok(before)
  log[index] = { ...before, ...change(before) }
}

for (const [what, change] of Object.entries(logTamper))
  test(`the log refuses ${what}, and names it`, () => {
    const { journal } = withLog(600)
    // Another history by the same manager, as after a database was put back.
    const fork = new MemoryJournal()
    const forked = Store.create({ journal: fork, vaultKey, randomBytes: random }, at.getTime())
    forked.transact(at, (tx) => {
      for (let number = 0; number < 600; number++) tx.append(entry(number + 1000))
    })
    change(journal, fork)
    const store = reopen(journal)
    assert.throws(() => [store.logEntries(250, 270), store.logInclusion(3), store.logConsistency(300)], { code: "store-changed", message: /log/ })
  })

test("open() refuses a log that lost an entry at its end, or has one more", () => {
  for (const change of [
    (log: SealedEntry[]) => void log.pop(),
    (log: SealedEntry[]) => void log.push({ index: 5, sealed: random(40), hash: random(32) }),
  ]) {
    const { journal } = withLog(5)
    change(journal.log)
    assert.throws(() => reopen(journal), { code: "store-changed" })
  }
})

test("open() refuses another vault key and an old head", () => {
  const journal = new MemoryJournal()
  const store = makeStore(journal)
  assert.throws(() => reopen(journal, new Uint8Array(32)), { code: "store-changed" })
  const old = journal.head
  store.transact(at, (tx) => tx.put("references", "a", document("1")))
  journal.head = old
  assert.throws(() => reopen(journal), { code: "store-changed" })
})

test("create() never replaces, open() never creates", () => {
  const journal = new MemoryJournal()
  assert.throws(() => reopen(journal), { code: "not-found" })
  makeStore(journal)
  assert.throws(() => makeStore(journal), { code: "already-exists" })
})

test("recorded time only goes forward", () => {
  const journal = new MemoryJournal()
  const store = makeStore(journal)
  const later = new Date(at.getTime() + 5000)
  store.transact(later, (tx) => tx.put("references", "a", document("1")))
  store.transact(at, (tx) => tx.put("references", "a", document("2")))
  assert.equal(reopen(journal).recordedMilliseconds, later.getTime())
})

test("SqliteJournal keeps what was committed, and one process has it", () => {
  const path = join(folder, "one.db")
  const journal = SqliteJournal.create(path)
  const store = makeStore(journal)
  store.transact(at, (tx) => tx.put("references", "a", document("1")))
  store.transact(at, (tx) => tx.put("references", "b", document("2")))
  store.transact(at, (tx) => tx.remove("references", "b"))
  const other = spawn(process.execPath, ["-e", `new (require("node:sqlite").DatabaseSync)(${JSON.stringify(path)}).exec("SELECT * FROM rows")`])
  return once(other, "exit").then(([status]) => {
    assert.notEqual(status, 0)
    store[Symbol.dispose]()
    const again = reopen(SqliteJournal.open(path))
    assert.deepEqual(again.list("references"), [{ value: "1" }])
    again[Symbol.dispose]()
  })
})

test("SqliteJournal refuses a database that is none, or of another layout", async () => {
  const path = join(folder, "other.db")
  const database = new DatabaseSync(path)
  database.exec("CREATE TABLE x (y)")
  database.close()
  assert.throws(() => SqliteJournal.open(path), { code: "store-changed" })
  assert.throws(() => SqliteJournal.open(join(folder, "no", "such", "folder.db")), { code: "not-found" })
})

/** `PERUN_KILLS=1000 node --test src/manager/store.test.ts` for long. */
const kills = Number(process.env["PERUN_KILLS"] ?? 12)

test(`one store, kill -9 at any moment, ${kills} times: what was acknowledged is there, nothing is half there, the log only grows`, async () => {
  const path = join(folder, "killed.db")
  let acknowledged = -1
  let seen: TreeHead = { size: 0, root: emptyRoot }
  for (let round = 0; round < kills; round++) {
    const child = spawn(process.execPath, [fileURLToPath(new URL("store-writer.fixture.ts", import.meta.url)), path], {
      stdio: ["ignore", "pipe", "inherit"],
    })
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text))
    // Every other one is killed while it opens or makes its first steps, the rest in the middle of writing.
    if (round % 2 === 0) while (!output.includes("\n")) await once(child.stdout, "data")
    await new Promise((resolve) => setTimeout(resolve, round % 2 === 0 ? randomInt(1, 120) : randomInt(100, 400)))
    child.kill("SIGKILL")
    await once(child, "close")
    acknowledged = Math.max(acknowledged, Number(output.split("\n").at(-2) ?? -1))
    const store = Store.open({ journal: SqliteJournal.open(path), vaultKey: new Uint8Array(32).fill(7), randomBytes: random })
    const [left, right] = [store.get("references", "left"), store.get("references", "right")]
    assert.deepEqual(left, right)
    const found = Number(left?.["count"] ?? -1)
    assert.ok(found >= acknowledged, `round ${round}: found ${found}, acknowledged ${acknowledged}`)
    for (let back = 0; back < Math.min(25, found + 1); back++)
      assert.equal(store.get("references", `row-${(found - back) % 50}`)?.["count"] ?? found - back, found - back)
    const head = store.logHead
    assert.equal(head.size, found + 1)
    verifyConsistency(seen, head, store.logConsistency(seen.size))
    assert.equal(store.logEntries(seen.size, head.size).length, head.size - seen.size)
    seen = head
    store[Symbol.dispose]()
  }
  assert.ok(seen.size > kills)
})
