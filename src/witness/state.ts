import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto"
import { mkdir, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { AlreadyExistsError, createFileDurably, fromSystemError, readFileBounded, syncFolder } from "../bytes/durable.ts"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { encodeHex, parseUtf8 } from "../bytes/text.ts"
import type { TreeHead } from "../log/merkle.ts"
import { isKeyName, type NoteKey } from "../log/note.ts"
import { ed25519PublicBytes } from "../pki/signatures.ts"

/** A log that the witness follows, and the largest tree of it that it has cosigned. */
export interface FollowedLog {
  /** The name is the log's origin. */
  readonly key: NoteKey
  /** Undefined before the first. */
  readonly seen: TreeHead | undefined
}

const schema = `
  CREATE TABLE logs (
    origin TEXT PRIMARY KEY,
    public_key BLOB NOT NULL,
    size INTEGER,
    root BLOB,
    CHECK ((size IS NULL) = (root IS NULL))
  ) STRICT, WITHOUT ROWID;
`
const schemaVersion = 1

/**
 * What a witness must never forget, in a folder: its key, and of every log the largest tree that it cosigned. Each step is synced to the disk before anything is signed; two
 * processes cannot have it open.
 */
export class WitnessState implements Disposable {
  readonly name: string
  readonly privateKey: KeyObject
  readonly #database: DatabaseSync

  private constructor(name: string, privateKey: KeyObject, database: DatabaseSync) {
    this.name = name
    this.privateKey = privateKey
    this.#database = database
  }

  /**
   * Makes a folder, which must not exist: all of it or nothing.
   * @throws {AlreadyExistsError}; {UnavailableError}; {MalformedError} for a name that no key may have
   */
  static async create(folder: string, name: string): Promise<NoteKey> {
    if (!isKeyName(name))
      throw new MalformedError("malformed", "a witness's name is not empty and has neither space nor plus, e.g. witness.example/perun", {
        path: "name",
      })
    const building = `${folder}.${encodeHex(randomBytes(8))}.new`
    try {
      await mkdir(building, { recursive: true, mode: 0o700 })
      const { privateKey } = generateKeyPairSync("ed25519")
      await createFileDurably(join(building, files.key), String(privateKey.export({ format: "pem", type: "pkcs8" })), { mode: 0o600 })
      await createFileDurably(join(building, files.name), `${name}\n`)
      const database = connect(join(building, files.database))
      database.exec(`BEGIN EXCLUSIVE; ${schema} PRAGMA user_version = ${schemaVersion}; COMMIT`)
      database.close()
      await rename(building, folder)
      await syncFolder(dirname(folder))
      return keyOf(name, privateKey)
    } catch (error) {
      if (error instanceof Error && "code" in error && (error.code === "ENOTEMPTY" || error.code === "EEXIST" || error.code === "ENOTDIR"))
        throw new AlreadyExistsError("already-exists", "there is something already; nothing was changed", { path: folder, cause: error })
      throw fromSystemError(error, folder)
    } finally {
      await rm(building, { recursive: true, force: true })
    }
  }

  /** @throws {UnavailableError} for a folder that is not there or that another process uses; {MalformedError} for one that is no witness's */
  static async open(folder: string): Promise<WitnessState> {
    const name = parseUtf8(await readFileBounded(join(folder, files.name), 1024), files.name).trimEnd()
    const pem = parseUtf8(await readFileBounded(join(folder, files.key), 4096), files.key)
    const malformed = (what: string): MalformedError => new MalformedError("malformed", what, { path: folder })
    let privateKey: KeyObject
    try {
      privateKey = createPrivateKey(pem)
    } catch {
      // The text is a secret, so what was wrong with it is not told.
      throw malformed(`${files.key} holds no key`)
    }
    if (privateKey.asymmetricKeyType !== "ed25519" || !isKeyName(name)) throw malformed("not the folder of a witness")
    const database = connect(join(folder, files.database))
    const version: unknown = database.prepare("PRAGMA user_version").get()?.["user_version"]
    if (version === schemaVersion) return new WitnessState(name, privateKey, database)
    database.close()
    throw malformed(`${files.database} is of layout ${String(version)}, expected ${schemaVersion}`)
  }

  /** The key that others know the witness by. */
  get key(): NoteKey {
    return keyOf(this.name, this.privateKey)
  }

  /** Follows a log from now on; one that is followed already stays as it is. @throws {AlreadyExistsError} for another key under the same origin */
  follow({ name: origin, publicKey }: NoteKey): "added" | "known" {
    return this.#step(() => {
      const known = this.log(origin)
      if (known === undefined) {
        this.#database.prepare("INSERT INTO logs (origin, public_key) VALUES (?, ?)").run(origin, publicKey)
        return "added"
      }
      if (Buffer.compare(known.key.publicKey, publicKey) === 0) return "known"
      throw new AlreadyExistsError("already-exists", `the witness follows ${origin} under another key, and one origin has one history`)
    })
  }

  log(origin: string): FollowedLog | undefined {
    const row = this.#database.prepare("SELECT origin, public_key, size, root FROM logs WHERE origin = ?").get(origin)
    return row === undefined ? undefined : logOf(row)
  }

  logs(): readonly FollowedLog[] {
    return this.#database.prepare("SELECT origin, public_key, size, root FROM logs ORDER BY origin").all().map(logOf)
  }

  /**
   * Writes down that a tree of a log is seen, if `judge` does not throw at what was seen before; durable when it returns. Nothing comes between the reading and the writing.
   * @throws what `judge` throws; {UnavailableError}
   */
  advance(origin: string, head: TreeHead, judge: (seen: TreeHead | undefined) => void): void {
    this.#step(() => {
      judge(this.log(origin)?.seen)
      this.#database.prepare("UPDATE logs SET size = ?, root = ? WHERE origin = ?").run(head.size, head.root, origin)
    })
  }

  [Symbol.dispose](): void {
    this.#database.close()
  }

  #step<T>(work: () => T): T {
    this.#database.exec("BEGIN IMMEDIATE")
    try {
      const result = work()
      this.#database.exec("COMMIT")
      return result
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK")
      throw error instanceof Error && "errcode" in error
        ? new UnavailableError("unavailable", `the witness's state cannot be written: ${error.message}`, { cause: error })
        : error
    }
  }
}

const files = { key: "key.pem", name: "name", database: "logs.db" } as const

function connect(path: string): DatabaseSync {
  try {
    const database = new DatabaseSync(path, { timeout: 1000 })
    // Exclusive: what one process has read another one must not move on behind it.
    database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE; COMMIT")
    return database
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : "unknown"
    throw new UnavailableError("unavailable", `cannot be opened (${why}); does a witness run on it?`, { path, cause })
  }
}

function logOf(row: Record<string, unknown>): FollowedLog {
  const { origin, public_key: publicKey, size, root } = row
  if (typeof origin !== "string" || !(publicKey instanceof Uint8Array)) throw new TypeError("internal: a row of another form")
  const seen = typeof size === "number" && root instanceof Uint8Array ? { size, root: Uint8Array.from(root) } : undefined
  return { key: { name: origin, type: 1, publicKey: Uint8Array.from(publicKey) }, seen }
}

function keyOf(name: string, privateKey: KeyObject): NoteKey {
  return { name, type: 4, publicKey: ed25519PublicBytes(privateKey) }
}
