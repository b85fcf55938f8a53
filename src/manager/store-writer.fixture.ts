import { randomBytes } from "node:crypto"
import { writeSync } from "node:fs"
import { SqliteJournal } from "./sqlite-journal.ts"
import { Store } from "./store.ts"

/** For store.test.ts: writes pairs of records until it is killed, and says each number once it is durable. */
const [path] = process.argv.splice(2)
if (path === undefined) throw new TypeError("needs the path of a database")
const options = {
  journal: SqliteJournal.create(path),
  vaultKey: new Uint8Array(32).fill(7),
  randomBytes: (length: number) => new Uint8Array(randomBytes(length)),
}
const store = Store.create(options, 0)
for (let count = 0; ; count++) {
  store.transact(new Date(), (tx) => {
    tx.put("references", "left", { count })
    tx.put("references", "right", { count })
    if (count % 3 === 0) tx.remove("references", "right")
    tx.put("references", "right", { count })
    tx.append({ salt: String(count).padStart(32, "0"), at: "2026-11-22T12:00:00Z", kind: "run-queued" })
  })
  writeSync(1, `${count}\n`)
}
