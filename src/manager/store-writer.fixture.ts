import { randomBytes } from "node:crypto"
import { existsSync, writeSync } from "node:fs"
import { SqliteJournal } from "./sqlite-journal.ts"
import { Store } from "./store.ts"

/** For store.test.ts: opens a store, or makes it, goes on from what it holds, writes until it is killed, and says each number once it is durable. */
const [path] = process.argv.splice(2)
if (path === undefined) throw new TypeError("needs the path of a database")
const isNew = !existsSync(path)
const options = {
  journal: isNew ? SqliteJournal.create(path) : SqliteJournal.open(path),
  vaultKey: new Uint8Array(32).fill(7),
  randomBytes: (length: number) => new Uint8Array(randomBytes(length)),
}
const store = isNew ? Store.create(options, 0) : Store.open(options)
for (let count = Number(store.get("references", "left")?.["count"] ?? -1) + 1; ; count++) {
  store.transact(new Date(), (tx) => {
    tx.put("references", "left", { count })
    tx.put("references", "right", { count })
    if (count % 3 === 0) tx.remove("references", "right")
    tx.put("references", "right", { count })
    // Some rows come and go, some stay, and one is large enough for many pages.
    tx.put("references", `row-${count % 50}`, { count, text: "x".repeat(count % 7 === 0 ? 20_000 : 10) })
    if (count % 5 === 0) tx.remove("references", `row-${(count + 25) % 50}`)
    tx.append({ salt: String(count).padStart(32, "0"), at: "2026-11-22T12:00:00Z", kind: "run-queued" })
  })
  writeSync(1, `${count}\n`)
}
