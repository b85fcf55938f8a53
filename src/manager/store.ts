import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from "node:crypto"
import { bytesEqual, concatBytes } from "../bytes/compare.ts"
import { PerunError, UnavailableError } from "../bytes/error.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { ByteReader } from "../bytes/reader.ts"
import { encodeHex, encodeUtf8, parseHex } from "../bytes/text.ts"
import { LogError } from "../log/errors.ts"
import { CompactRange, consistencyProof, inclusionProof, leafHash, type TreeHead } from "../log/merkle.ts"
import { readerOfLevels, VerifiedTiles } from "../log/tiles.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { type Receipt, receiptSchema } from "../protocol/messages.ts"
import { receiptDigest, receiptLeaf } from "../protocol/receipts.ts"
import { parseMessage, parseShape } from "../protocol/wire.ts"
import { z } from "zod"
import { recordSchemas, type RecordOf, type Table } from "./records.ts"

/**
 * The manager's memory. All records live in this process; a journal makes each transaction durable before it counts. The journal's medium is not
 * trusted: every row is sealed to its table, key and version, and a sealed head row holds a keyed digest over the set of all rows, so a row that was
 * changed, swapped, put back to an older version, removed or added is found when the store is opened. A journal that was put back as a whole is not
 * found here; clients find it, for they remember how far the log went.
 *
 * Beside the tables stands a log to which steps only append (what happened, for ever). Its entries stay on the medium, sealed to their place; the head holds the
 * compact range of their Merkle tree, so that an entry is read when it is asked for and held against the tree then.
 */

/** One row as the journal keeps it. */
export interface SealedRow {
  readonly table: string
  readonly key: string
  readonly version: number
  /** nonce (12) ‖ ciphertext ‖ tag (16) */
  readonly sealed: Uint8Array
}

/** One entry of the log as the journal keeps it. */
export interface SealedEntry {
  readonly index: number
  /** nonce (12) ‖ ciphertext ‖ tag (16) */
  readonly sealed: Uint8Array
  /** Merkle leaf hash. */
  readonly hash: Uint8Array
}

/** Hash of a whole subtree of 256^level leaves, kept so that a proof reads few hashes. */
export interface LogNode {
  readonly level: number
  readonly index: number
  readonly hash: Uint8Array
}

/** What a transaction does to the medium, all of it or nothing. */
export interface JournalEntry {
  readonly head: Uint8Array
  readonly put: readonly SealedRow[]
  readonly remove: readonly { readonly table: string; readonly key: string }[]
  readonly append: readonly SealedEntry[]
  readonly nodes: readonly LogNode[]
}

/** A medium that keeps rows: SQLite, or another. Synchronous, so that no other request runs in the middle of a transaction. */
export interface Journal {
  /** All rows and the head; undefined head in an empty journal. */
  load(): { readonly head: Uint8Array | undefined; readonly rows: Iterable<SealedRow> }
  /** Makes an entry durable; when it throws, `loadHead` tells what happened. */
  commit(entry: JournalEntry): void
  loadHead(): Uint8Array | undefined
  /** Entries of the log from `from` on, before `to`, in order; fewer where some are missing. */
  entries(from: number, to: number): Iterable<SealedEntry>
  /** Number of entries that are there. */
  countEntries(): number
  /** Hashes of a level (0: leaves) from `from` on, before `to`, in order. */
  hashes(level: number, from: number, to: number): readonly Uint8Array[]
  close(): void
}

export interface StoreOptions {
  readonly journal: Journal
  /** 32 bytes. */
  readonly vaultKey: Uint8Array
  readonly randomBytes: (length: number) => Uint8Array
}

/** Reads and writes of one step; writes count when the step ends without an error. */
export interface Transaction {
  get<T extends Table>(table: T, key: string): RecordOf<T> | undefined
  list<T extends Table>(table: T): readonly RecordOf<T>[]
  /** Number of records in a table. */
  count(table: Table): number
  put<T extends Table>(table: T, key: string, record: RecordOf<T>): void
  remove(table: Table, key: string): void
  /** Adds an entry to the log, for ever. */
  append(receipt: Receipt): void
}

/** What a step wrote that others may want to hear of. */
export interface CommittedStep {
  /** What it added to the log. */
  readonly receipts: readonly Receipt[]
  /** Place of the first of them. */
  readonly firstIndex: number
  /** How long it took to make the step durable. */
  readonly milliseconds: number
}

interface Entry {
  readonly version: number
  readonly record: unknown
  /** Keyed digest of the sealed row, a member of the set digest. */
  readonly mark: Uint8Array
}

type Tables = ReadonlyMap<Table, Map<string, Entry>>

const headSchema = z.strictObject({
  /** Format of records and rows. */
  format: z.literal(2),
  /** Number of transactions so far. */
  sequence: z.int().min(0),
  /** Latest recorded time, milliseconds since 1970. */
  at: z.int().min(0),
  /** XOR of the marks of all rows. */
  set: z.string().regex(/^[0-9a-f]{64}$/),
  /** Compact range of the log's Merkle tree. */
  log: z.strictObject({ size: z.int().min(0), hashes: z.array(z.string().regex(/^[0-9a-f]{64}$/)).max(64) }),
})
type Head = z.output<typeof headSchema>

export class Store implements Disposable {
  readonly #journal: Journal
  readonly #sealKey: Uint8Array
  readonly #markKey: Uint8Array
  readonly #randomBytes: (length: number) => Uint8Array
  readonly #tables: Tables
  #head: Head
  /** As the head has it. */
  #range: CompactRange
  #broken = false
  #isInTransaction = false
  #heard: (step: CommittedStep) => void = () => undefined

  private constructor(options: StoreOptions, tables: Tables, head: Head, keys: StoreKeys) {
    this.#journal = options.journal
    this.#randomBytes = options.randomBytes
    this.#tables = tables
    this.#head = head
    this.#range = CompactRange.of(
      head.log.size,
      head.log.hashes.map((hash) => parseHex(hash)),
    )
    this.#sealKey = keys.seal
    this.#markKey = keys.mark
  }

  /** Writes the first head into an empty journal. @throws {ProtocolError} `already-exists` */
  static create(options: StoreOptions, atMilliseconds: number): Store {
    if (options.journal.loadHead() !== undefined) throw new ProtocolError("already-exists", "the store has content")
    const keys = deriveKeys(options.vaultKey)
    const head: Head = { format: 2, sequence: 0, at: atMilliseconds, set: "00".repeat(32), log: { size: 0, hashes: [] } }
    const sealed = sealBytes(keys.seal, options.randomBytes(12), headContext, canonicalJsonBytes(head))
    options.journal.commit({ head: sealed, put: [], remove: [], append: [], nodes: [] })
    return Store.open(options)
  }

  /**
   * Loads and verifies everything.
   * @throws {ProtocolError} `store-changed` when a row is not what was written, or the vault key is another; `not-found` for a store never created
   */
  static open(options: StoreOptions): Store {
    const keys = deriveKeys(options.vaultKey)
    const loaded = options.journal.load()
    if (loaded.head === undefined) throw new ProtocolError("not-found", "there is no store here; create one with manager init")
    const head = openHead(keys.seal, loaded.head)
    const tables = new Map(tableNames.map((table) => [table, new Map<string, Entry>()]))
    let set: Uint8Array = new Uint8Array(32)
    for (const row of loaded.rows) {
      const table = tables.get(row.table as Table)
      if (table === undefined) throw changed(row, "belongs to no table")
      if (table.has(row.key)) throw changed(row, "stands there twice")
      const mark = markOf(keys.mark, row)
      table.set(row.key, { version: row.version, record: openRecord(keys.seal, row), mark })
      set = xor(set, mark)
    }
    if (encodeHex(set) !== head.set) throw new ProtocolError("store-changed", "rows were added, removed or put back to an older state")
    const entries = options.journal.countEntries()
    if (entries !== head.log.size) throw new ProtocolError("store-changed", `the log has ${entries} entries, ${head.log.size} were written`)
    return new Store(options, tables, head, keys)
  }

  [Symbol.dispose](): void {
    this.#broken = true
    this.#journal.close()
  }

  /** From now on `heard` is told of every step that is durable; it must not throw, and must not use the store. */
  observe(heard: (step: CommittedStep) => void): void {
    this.#heard = heard
  }

  /** Whether its medium is out of order, or it was closed: nothing can be read or written until the manager is started again. */
  get isBroken(): boolean {
    return this.#broken
  }

  /** Number of entries of the log. */
  get logSize(): number {
    return this.#range.size
  }

  /** Latest recorded time, milliseconds since 1970. */
  get recordedMilliseconds(): number {
    return this.#head.at
  }

  get<T extends Table>(table: T, key: string): RecordOf<T> | undefined {
    return this.#table(table).get(key)?.record as RecordOf<T> | undefined
  }

  list<T extends Table>(table: T): readonly RecordOf<T>[] {
    return [...this.#table(table).values()].map((entry) => entry.record as RecordOf<T>)
  }

  *entries<T extends Table>(table: T): Generator<readonly [string, RecordOf<T>]> {
    for (const [key, entry] of this.#table(table)) yield [key, entry.record as RecordOf<T>]
  }

  count(table: Table): number {
    return this.#table(table).size
  }

  /** Size and root of the log's Merkle tree. */
  get logHead(): TreeHead {
    return { size: this.#range.size, root: this.#range.root() }
  }

  /**
   * Entries of the log from `from` on, before `to`, each held against the tree.
   * @throws {ProtocolError} `store-changed` naming the entry that is not what was written
   */
  logEntries(from: number, to: number): readonly Receipt[] {
    this.#refuseBroken()
    const end = Math.min(to, this.#range.size)
    if (from >= end) return []
    const hashes = this.#verified(() => this.#tiles.levels(this.#range)(0, from, end))
    const entries = [...this.#journal.entries(from, end)]
    return hashes.map((hash, place) => {
      const index = from + place
      const entry = entries[place]
      if (entry?.index !== index) throw new ProtocolError("store-changed", `entry ${index} of the log is missing`)
      return openEntry(this.#sealKey, entry, hash)
    })
  }

  /** The hashes that lead from an entry to the root of the tree as it is now. @throws as logEntries */
  logInclusion(index: number): readonly Uint8Array[] {
    this.#refuseBroken()
    return this.#verified(() => inclusionProof(index, this.#range.size, readerOfLevels(this.#tiles.levels(this.#range))))
  }

  /** That the tree as it is now goes on from that of `older` entries. @throws as logEntries; {LogError} `wrong-proof` for a size that the tree never had */
  logConsistency(older: number): readonly Uint8Array[] {
    this.#refuseBroken()
    const { size } = this.#range
    if (!(older >= 0 && older <= size)) throw new LogError("wrong-proof", `the log has ${size} entries, not ${older}`)
    return this.#verified(() => consistencyProof(older, size, readerOfLevels(this.#tiles.levels(this.#range))))
  }

  /** Hashes of one level of the tree, held against it. @throws as logEntries */
  logHashes(level: number, from: number, to: number): readonly Uint8Array[] {
    this.#refuseBroken()
    return this.#verified(() => this.#tiles.levels(this.#range)(level, from, to))
  }

  /** What it reads is held against the compact range, which the sealed head states. */
  readonly #tiles = new VerifiedTiles((level, from, to) =>
    this.#journal.hashes(level, from, Math.min(to, Math.floor(this.#range.size / 256 ** level))),
  )

  #verified<T>(read: () => T): T {
    try {
      return read()
    } catch (cause) {
      if (!(cause instanceof LogError)) throw cause
      throw new ProtocolError("store-changed", `the log is not what was written: ${cause.message}`, { cause })
    }
  }

  /**
   * Runs one step: all of its writes become durable together, or none. `step` must be synchronous and must not keep the transaction.
   * @throws what `step` throws, then nothing has changed; {UnavailableError} `disk-full`, `unavailable` when the medium fails
   */
  transact<R>(at: Date, step: (transaction: Transaction) => R): R {
    this.#refuseBroken()
    if (this.#isInTransaction) throw new TypeError("internal: transaction inside a transaction")
    this.#isInTransaction = true
    try {
      const changes = new Changes(this)
      const result = step(changes)
      if (!changes.isEmpty) this.#commit(changes, at)
      return result
    } finally {
      this.#isInTransaction = false
    }
  }

  #commit(changes: Changes, at: Date): void {
    const startedAt = performance.now()
    const put: { readonly row: SealedRow; readonly entry: Entry }[] = []
    const remove: { readonly table: Table; readonly key: string }[] = []
    let set = parseHex(this.#head.set)
    for (const { table, key, record } of changes.all()) {
      const before = this.#table(table).get(key)
      if (before !== undefined) set = xor(set, before.mark)
      if (record === undefined) {
        if (before !== undefined) remove.push({ table, key })
        continue
      }
      const version = (before?.version ?? 0) + 1
      const sealed = sealBytes(this.#sealKey, this.#randomBytes(12), rowContext(table, key, version), canonicalJsonBytes(record))
      const row: SealedRow = { table, key, version, sealed }
      const mark = markOf(this.#markKey, row)
      set = xor(set, mark)
      put.push({ row, entry: { version, record, mark } })
    }
    const firstIndex = this.#range.size
    const range = this.#range.copy()
    const append: SealedEntry[] = []
    const nodes: LogNode[] = []
    for (const receipt of changes.appended) {
      const index = range.size
      const hash = entryHash(index, receipt)
      append.push({ index, sealed: sealBytes(this.#sealKey, this.#randomBytes(12), entryContext(index), canonicalJsonBytes(receipt)), hash })
      range.append(hash, (height, place, whole) => {
        if (height > 0 && height % 8 === 0) nodes.push({ level: height / 8, index: place, hash: whole })
      })
    }
    const head: Head = {
      format: 2,
      sequence: this.#head.sequence + 1,
      at: Math.max(this.#head.at, at.getTime()),
      set: encodeHex(set),
      log: { size: range.size, hashes: range.hashes.map(encodeHex) },
    }
    const sealedHead = sealBytes(this.#sealKey, this.#randomBytes(12), headContext, canonicalJsonBytes(head))
    this.#commitEntry({ head: sealedHead, put: put.map(({ row }) => row), remove, append, nodes }, head)
    for (const { row, entry } of put) this.#table(row.table as Table).set(row.key, entry)
    for (const { table, key } of remove) this.#table(table).delete(key)
    this.#head = head
    this.#range = range
    this.#heard({ receipts: changes.appended, firstIndex, milliseconds: performance.now() - startedAt })
  }

  /** A commit that reports a failure may have happened all the same; the head on the medium is the judge. */
  #commitEntry(entry: JournalEntry, head: Head): void {
    try {
      this.#journal.commit(entry)
    } catch (cause) {
      const found = this.#sequenceOnMedium()
      if (found === head.sequence) return
      if (found !== this.#head.sequence) {
        this.#broken = true
        throw new UnavailableError("unavailable", "the store's medium is out of order; start again", { cause })
      }
      if (cause instanceof PerunError) throw cause
      throw new UnavailableError("unavailable", "the store cannot be written", { cause })
    }
  }

  #sequenceOnMedium(): number | undefined {
    try {
      const sealed = this.#journal.loadHead()
      return sealed === undefined ? undefined : openHead(this.#sealKey, sealed).sequence
    } catch {
      // Whatever it was, the medium cannot say what it holds; the caller stops using it.
      return undefined
    }
  }

  #table(table: Table): Map<string, Entry> {
    this.#refuseBroken()
    const found = this.#tables.get(table)
    if (found === undefined) throw new TypeError(`internal: no table ${table}`)
    return found
  }

  #refuseBroken(): void {
    if (this.#broken) throw new UnavailableError("unavailable", "the store is closed")
  }
}

/** The writes of one step, seen by its own reads before they count. */
class Changes implements Transaction {
  readonly #store: Store
  readonly #writes = new Map<Table, Map<string, unknown>>()
  readonly #appended: Receipt[] = []

  constructor(store: Store) {
    this.#store = store
  }

  get isEmpty(): boolean {
    return this.#writes.size === 0 && this.#appended.length === 0
  }

  get appended(): readonly Receipt[] {
    return this.#appended
  }

  get<T extends Table>(table: T, key: string): RecordOf<T> | undefined {
    const writes = this.#writes.get(table)
    if (writes?.has(key) === true) return writes.get(key) as RecordOf<T> | undefined
    return this.#store.get(table, key)
  }

  list<T extends Table>(table: T): readonly RecordOf<T>[] {
    const writes = this.#writes.get(table)
    if (writes === undefined) return this.#store.list(table)
    const merged = new Map(this.#store.entries(table))
    for (const [key, record] of writes) merged.set(key, record as RecordOf<T>)
    return [...merged.values()].filter((record) => record !== undefined)
  }

  count(table: Table): number {
    let count = this.#store.count(table)
    for (const [key, record] of this.#writes.get(table) ?? []) {
      const isThere = this.#store.get(table, key) !== undefined
      if (record !== undefined && !isThere) count++
      if (record === undefined && isThere) count--
    }
    return count
  }

  put<T extends Table>(table: T, key: string, record: RecordOf<T>): void {
    this.#write(table, key, parseShape(recordSchemas[table], record, table))
  }

  remove(table: Table, key: string): void {
    this.#write(table, key, undefined)
  }

  append(receipt: Receipt): void {
    this.#appended.push(parseShape(receiptSchema, receipt, "receipt"))
  }

  *all(): Generator<{ readonly table: Table; readonly key: string; readonly record: unknown }> {
    for (const [table, writes] of this.#writes) for (const [key, record] of writes) yield { table, key, record }
  }

  #write(table: Table, key: string, record: unknown): void {
    const writes = this.#writes.get(table) ?? new Map<string, unknown>()
    writes.set(key, record)
    this.#writes.set(table, writes)
  }
}

const tableNames = Object.keys(recordSchemas) as Table[]
const headContext = encodeUtf8("perun store head v2")

interface StoreKeys {
  readonly seal: Uint8Array
  readonly mark: Uint8Array
}

function deriveKeys(vaultKey: Uint8Array): StoreKeys {
  if (vaultKey.length !== 32) throw new TypeError(`vault key of ${vaultKey.length} bytes, must be 32`)
  const derive = (info: string): Uint8Array => new Uint8Array(hkdfSync("sha256", vaultKey, new Uint8Array(0), info, 32))
  return { seal: derive("perun store seal v1"), mark: derive("perun store mark v1") }
}

function rowContext(table: string, key: string, version: number): Uint8Array {
  return canonicalJsonBytes({ store: 1, table, key, version })
}

/** AES-256-GCM with a random nonce; one key seals far fewer than 2³² rows. */
function sealBytes(key: Uint8Array, nonce: Uint8Array, context: Uint8Array, plaintext: Uint8Array): Uint8Array {
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(context)
  return concatBytes(nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag())
}

function openBytes(key: Uint8Array, context: Uint8Array, sealed: Uint8Array): Uint8Array {
  const reader = new ByteReader("row", sealed)
  const nonce = reader.bytes(12, "nonce")
  const ciphertext = reader.bytes(reader.remaining - 16, "ciphertext")
  const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 }).setAAD(context)
  decipher.setAuthTag(reader.rest("tag"))
  return concatBytes(decipher.update(ciphertext), decipher.final())
}

function openHead(key: Uint8Array, sealed: Uint8Array): Head {
  try {
    return parseMessage(headSchema, openBytes(key, headContext, sealed))
  } catch (cause) {
    throw new ProtocolError("store-changed", "the head does not open: it was changed, or the vault key is another", { cause })
  }
}

function openRecord(key: Uint8Array, row: SealedRow): unknown {
  try {
    const plaintext = openBytes(key, rowContext(row.table, row.key, row.version), row.sealed)
    return parseMessage(recordSchemas[row.table as Table], plaintext, maxRecordBytes)
  } catch (cause) {
    throw changed(row, "does not open", cause)
  }
}

function entryContext(index: number): Uint8Array {
  return canonicalJsonBytes({ store: 1, log: index })
}

function entryHash(index: number, receipt: Receipt): Uint8Array {
  return leafHash(receiptLeaf(index, receiptDigest(receipt)))
}

/** An entry of a log that went another way, after the store was put back, opens too: what counts is that the tree has it. */
function openEntry(key: Uint8Array, { index, sealed }: SealedEntry, hash: Uint8Array): Receipt {
  let receipt: Receipt
  try {
    receipt = parseMessage(receiptSchema, openBytes(key, entryContext(index), sealed), maxRecordBytes)
  } catch (cause) {
    throw new ProtocolError("store-changed", `entry ${index} of the log does not open`, { cause })
  }
  if (!bytesEqual(entryHash(index, receipt), hash))
    throw new ProtocolError("store-changed", `entry ${index} of the log is not the one that was written`)
  return receipt
}

/** The largest record is a reference document. */
const maxRecordBytes = 64 * 1024 * 1024

function markOf(key: Uint8Array, row: SealedRow): Uint8Array {
  const mac = createHmac("sha256", key)
    .update(rowContext(row.table, row.key, row.version))
    .update(row.sealed)
  return new Uint8Array(mac.digest())
}

function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, index) => byte ^ (b[index] ?? 0))
}

function changed(row: SealedRow, what: string, cause?: unknown): ProtocolError {
  return new ProtocolError("store-changed", `row ${JSON.stringify(row.key)} of ${JSON.stringify(row.table)} ${what}`, { cause })
}
