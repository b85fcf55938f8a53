import { createHash } from "node:crypto"

/**
 * Remembers what collateral and certificates read as, by SHA-256 of their bytes, for a caller that verifies many quotes. It holds records, never verdicts: every
 * signature, date and list is checked anew each time. The caller owns it and says by owning it how long it lives.
 */
export class DcapReadings {
  readonly #entries = new Map<string, unknown>()

  /** The record of these bytes, read by `parse` where it is not known. `kind` keeps readers apart. */
  read<T>(kind: string, bytes: Uint8Array, parse: (bytes: Uint8Array) => T): T {
    const key = `${kind} ${createHash("sha256").update(bytes).digest("base64")}`
    const known = this.#entries.get(key)
    // Under one kind there is one reader, so the record is of its type.
    if (known !== undefined) return known as T
    const record = parse(bytes)
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size < maxEntries) break
      this.#entries.delete(oldest)
    }
    this.#entries.set(key, record)
    return record
  }
}

/** Some twenty platforms with all that is theirs. */
const maxEntries = 256
