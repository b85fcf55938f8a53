import { UnavailableError } from "../bytes/error.ts"
import type { Journal, JournalEntry, LogNode, SealedEntry, SealedRow } from "./store.ts"

/** A journal in memory that fails on demand, before or after an entry took effect. */
export class MemoryJournal implements Journal {
  head: Uint8Array | undefined
  rows = new Map<string, SealedRow>()
  log: SealedEntry[] = []
  nodes: LogNode[] = []
  failNext: "before" | "after" | "between" | undefined
  isBlind = false

  load(): { readonly head: Uint8Array | undefined; readonly rows: Iterable<SealedRow> } {
    return { head: this.head, rows: [...this.rows.values()] }
  }
  loadHead(): Uint8Array | undefined {
    if (this.isBlind) throw new Error("the disk is gone")
    return this.head
  }
  commit(entry: JournalEntry): void {
    const fail = this.failNext
    this.failNext = undefined
    if (fail === "before") throw new UnavailableError("disk-full", "full")
    for (const row of entry.put) this.rows.set(`${row.table} ${row.key}`, row)
    if (fail === "between") throw new Error("power went away in the middle")
    for (const { table, key } of entry.remove) this.rows.delete(`${table} ${key}`)
    this.log.push(...entry.append)
    this.nodes.push(...entry.nodes)
    this.head = entry.head
    if (fail === "after") throw new Error("the answer was lost")
  }
  entries(from: number, to: number): readonly SealedEntry[] {
    return this.log.filter(({ index }) => index >= from && index < to)
  }
  countEntries(): number {
    return this.log.length
  }
  hashes(level: number, from: number, to: number): readonly Uint8Array[] {
    const all: readonly { readonly index: number; readonly hash: Uint8Array }[] =
      level === 0 ? this.log : this.nodes.filter((node) => node.level === level)
    return all.filter(({ index }) => index >= from && index < to).map(({ hash }) => hash)
  }
  close(): void {}
}
