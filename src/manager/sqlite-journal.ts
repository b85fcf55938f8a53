import { existsSync } from "node:fs"
import { backup, DatabaseSync, type StatementSync } from "node:sqlite"
import { UnavailableError } from "../bytes/error.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { Journal, JournalEntry, SealedEntry, SealedRow } from "./store.ts"

/** Layout of the database; a database of another number is refused. */
const schemaVersion = 2

const schema = `
  CREATE TABLE rows (
    tbl TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tbl, key)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB NOT NULL) STRICT;
  CREATE TABLE log (idx INTEGER PRIMARY KEY, sealed BLOB NOT NULL, hash BLOB NOT NULL) STRICT;
  CREATE TABLE nodes (level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, idx)) STRICT, WITHOUT ROWID;
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
  readonly #append: StatementSync
  readonly #addNode: StatementSync
  readonly #getEntries: StatementSync
  readonly #countEntries: StatementSync
  readonly #getLeaves: StatementSync
  readonly #getNodes: StatementSync

  private constructor(database: DatabaseSync) {
    this.#database = database
    this.#put = database.prepare(
      "INSERT INTO rows (tbl, key, version, sealed) VALUES (?, ?, ?, ?) ON CONFLICT (tbl, key) DO UPDATE SET version = excluded.version, sealed = excluded.sealed",
    )
    this.#remove = database.prepare("DELETE FROM rows WHERE tbl = ? AND key = ?")
    this.#setHead = database.prepare("INSERT INTO head (id, sealed) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed")
    this.#getHead = database.prepare("SELECT sealed FROM head WHERE id = 1")
    this.#append = database.prepare("INSERT INTO log (idx, sealed, hash) VALUES (?, ?, ?)")
    this.#addNode = database.prepare("INSERT INTO nodes (level, idx, hash) VALUES (?, ?, ?)")
    this.#getEntries = database.prepare("SELECT idx, sealed, hash FROM log WHERE idx >= ? AND idx < ? ORDER BY idx")
    this.#countEntries = database.prepare("SELECT count(*) AS n FROM log")
    this.#getLeaves = database.prepare("SELECT hash FROM log WHERE idx >= ? AND idx < ? ORDER BY idx")
    this.#getNodes = database.prepare("SELECT hash FROM nodes WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx")
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
        for (const { index, sealed, hash } of entry.append) this.#append.run(index, sealed, hash)
        for (const { level, index, hash } of entry.nodes) this.#addNode.run(level, index, hash)
        this.#setHead.run(entry.head)
        this.#database.exec("COMMIT")
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec("ROLLBACK")
        throw error
      }
    })
  }

  entries(from: number, to: number): readonly SealedEntry[] {
    return onDatabase("", () =>
      this.#getEntries.all(from, to).map(({ idx, sealed, hash }) => {
        if (typeof idx !== "number" || !(sealed instanceof Uint8Array)) throw new ProtocolError("store-changed", "an entry of another form")
        return { index: idx, sealed: new Uint8Array(sealed), hash: blobOf(hash) }
      }),
    )
  }

  countEntries(): number {
    const count = onDatabase("", () => this.#countEntries.get()?.["n"])
    if (typeof count !== "number") throw new TypeError("internal: SQLite counts to a number")
    return count
  }

  hashes(level: number, from: number, to: number): readonly Uint8Array[] {
    const rows = onDatabase("", () => (level === 0 ? this.#getLeaves.all(from, to) : this.#getNodes.all(level, from, to)))
    return rows.map(({ hash }) => blobOf(hash))
  }

  /**
   * Copies the database as it is after some transaction into a file that must not exist; commits may go on meanwhile. Gives the number of the log's entries in the copy.
   * @throws {UnavailableError} `disk-full`, `permission-denied`, `unavailable`
   */
  async copyTo(path: string): Promise<number> {
    try {
      await backup(this.#database, path, { rate: 1000 })
    } catch (error) {
      // What the library throws when the copy fails has no place in `onDatabase`, which is synchronous.
      onDatabase(path, () => {
        throw error
      })
    }
    return onDatabase(path, () => {
      const copy = new DatabaseSync(path)
      try {
        // One file, with nothing beside it, as long as nobody opens it as a store.
        copy.exec("PRAGMA journal_mode = DELETE")
        return Number(copy.prepare("SELECT count(*) AS n FROM log").get()?.["n"])
      } finally {
        copy.close()
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

function blobOf(value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw new ProtocolError("store-changed", "a hash of another form")
  return new Uint8Array(value)
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
