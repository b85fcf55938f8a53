import { existsSync } from "node:fs"
import { DatabaseSync, type StatementSync } from "node:sqlite"
import { UnavailableError } from "../bytes/error.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { Journal, JournalEntry, SealedRow } from "./store.ts"

/** Layout of the database; a database of another number is refused. */
const schemaVersion = 1

const schema = `
  CREATE TABLE rows (
    tbl TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tbl, key)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB NOT NULL) STRICT;
`

/**
 * A journal in one SQLite file: write-ahead log, every commit synced to the disk, one process at a time.
 * `create` makes a file that must not exist; `open` never creates one.
 */
export class SqliteJournal implements Journal {
  readonly #database: DatabaseSync
  readonly #put: StatementSync
  readonly #remove: StatementSync
  readonly #setHead: StatementSync
  readonly #getHead: StatementSync

  private constructor(database: DatabaseSync) {
    this.#database = database
    this.#put = database.prepare(
      "INSERT INTO rows (tbl, key, version, sealed) VALUES (?, ?, ?, ?) ON CONFLICT (tbl, key) DO UPDATE SET version = excluded.version, sealed = excluded.sealed",
    )
    this.#remove = database.prepare("DELETE FROM rows WHERE tbl = ? AND key = ?")
    this.#setHead = database.prepare("INSERT INTO head (id, sealed) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed")
    this.#getHead = database.prepare("SELECT sealed FROM head WHERE id = 1")
  }

  /** @throws {UnavailableError} `permission-denied`, `disk-full`, `unavailable` */
  static create(path: string): SqliteJournal {
    return onDatabase(path, () => {
      const database = connect(path)
      database.exec(`BEGIN EXCLUSIVE; ${schema} PRAGMA user_version = ${schemaVersion}; COMMIT`)
      return new SqliteJournal(database)
    })
  }

  /**
   * @throws {UnavailableError} `unavailable` when another process has it open
   * @throws {ProtocolError} `not-found`; `store-changed` when it is not a store of this version
   */
  static open(path: string): SqliteJournal {
    if (!existsSync(path)) throw new ProtocolError("not-found", "there is no store here; create one with manager init", { path })
    return onDatabase(path, () => {
      const database = connect(path)
      const version: unknown = database.prepare("PRAGMA user_version").get()?.["user_version"]
      if (version !== schemaVersion) {
        database.close()
        throw new ProtocolError("store-changed", `layout ${String(version)}, expected ${schemaVersion}`, { path })
      }
      return new SqliteJournal(database)
    })
  }

  load(): { readonly head: Uint8Array | undefined; readonly rows: Iterable<SealedRow> } {
    return { head: this.loadHead(), rows: this.#rows() }
  }

  loadHead(): Uint8Array | undefined {
    const sealed = this.#getHead.get()?.["sealed"]
    return sealed instanceof Uint8Array ? new Uint8Array(sealed) : undefined
  }

  commit(entry: JournalEntry): void {
    onDatabase("", () => {
      this.#database.exec("BEGIN IMMEDIATE")
      try {
        for (const { table, key, version, sealed } of entry.put) this.#put.run(table, key, version, sealed)
        for (const { table, key } of entry.remove) this.#remove.run(table, key)
        this.#setHead.run(entry.head)
        this.#database.exec("COMMIT")
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec("ROLLBACK")
        throw error
      }
    })
  }

  close(): void {
    if (this.#database.isOpen) this.#database.close()
  }

  *#rows(): Generator<SealedRow> {
    for (const row of this.#database.prepare("SELECT tbl, key, version, sealed FROM rows ORDER BY tbl, key").iterate()) {
      const { tbl, key, version, sealed } = row
      if (typeof tbl !== "string" || typeof key !== "string" || typeof version !== "number" || !(sealed instanceof Uint8Array))
        throw new ProtocolError("store-changed", "a row of another form")
      yield { table: tbl, key, version, sealed: new Uint8Array(sealed) }
    }
  }
}

function connect(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: 2000 })
  try {
    // EXCLUSIVE: a second manager on the same folder would undo single use. FULL: what was answered is on the disk.
    database.exec(
      "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA trusted_schema = OFF",
    )
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/** SQLite primary result codes that have a name of ours; https://sqlite.org/rescode.html */
const names: ReadonlyMap<number, ["disk-full" | "permission-denied" | "unavailable", string]> = new Map([
  [3, ["permission-denied", "access to the store is denied"]],
  [5, ["unavailable", "another process has the store open"]],
  [8, ["permission-denied", "the store cannot be written"]],
  [10, ["unavailable", "the disk does not answer properly"]],
  [13, ["disk-full", "no space left for the store"]],
  [14, ["unavailable", "the store cannot be opened"]],
])

function onDatabase<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (!(cause instanceof Error) || !("errcode" in cause) || typeof cause.errcode !== "number") throw cause
    const primary = cause.errcode & 0xff
    if (primary === 11 || primary === 26) throw new ProtocolError("store-changed", "the file is not a sound database", { path, cause })
    const [code, message] = names.get(primary) ?? ["unavailable", `the store failed (SQLite ${primary})`]
    throw new UnavailableError(code, message, { path, cause })
  }
}
