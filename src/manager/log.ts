import type { KeyObject } from "node:crypto"
import { signCheckpoint } from "../log/checkpoint.ts"
import { tileWidth, encodeEntries, encodeTile, parseTilePath, widthInTree } from "../log/tiles.ts"
import { encodeBase64 } from "../bytes/text.ts"
import type { NoteKey } from "../log/note.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { receiptDigest, receiptLeaf } from "../protocol/receipts.ts"
import type { Store } from "./store.ts"

/** The manager's log as others see it: signed checkpoints, tiles, leaves. */
export class PublishedLog {
  readonly #store: Store
  readonly #key: NoteKey
  readonly #privateKey: KeyObject
  #latest: { readonly size: number; readonly text: string } | undefined
  /** By public key: the line that a witness gave for a tree of this size. */
  readonly #cosignatures = new Map<string, { readonly size: number; readonly line: string }>()

  constructor(store: Store, key: NoteKey, privateKey: KeyObject) {
    this.#store = store
    this.#key = key
    this.#privateKey = privateKey
  }

  /** The checkpoint of the log as it is now, with the cosignatures of those witnesses who have seen just this tree. Everything in it is durable. */
  checkpoint(): string {
    const { size } = this.#store.logHead
    const lines = [...this.#cosignatures.values()].flatMap((cosigned) => (cosigned.size === size ? [cosigned.line] : []))
    return `${this.checkpointBySelf()}${lines.join("")}`
  }

  /** A later tree's takes the place of an earlier one's. */
  keepCosignature({ publicKey }: NoteKey, cosigned: { readonly size: number; readonly line: string }): void {
    this.#cosignatures.set(encodeBase64(publicKey), cosigned)
  }

  /** The checkpoint as it goes to witnesses: by the manager's key alone. */
  checkpointBySelf(): string {
    const head = this.#store.logHead
    if (this.#latest?.size !== head.size) {
      const text = signCheckpoint({ origin: this.#key.name, ...head }, this.#privateKey, this.#key.publicKey)
      this.#latest = { size: head.size, text }
    }
    return this.#latest.text
  }

  /**
   * A tile (`0/x001/234.p/5`) or a bundle of leaves (`entries/000`), as C2SP tlog-tiles has it. A leaf names the digest of a receipt and says no more.
   * @throws {MalformedError} no path; {ProtocolError} `not-found` for what the tree does not have
   */
  tile(path: string): Uint8Array {
    const isEntries = path.startsWith("entries/")
    const { level, index, width } = parseTilePath(isEntries ? path.replace("entries", "0") : path)
    const from = index * tileWidth
    if (widthInTree({ level, index }, this.#store.logHead.size) < width) throw new ProtocolError("not-found", "the tree has no such tile")
    if (!isEntries) return encodeTile(this.#store.logHashes(level, from, from + width))
    const entries = this.#store.logEntries(from, from + width)
    return encodeEntries(entries.map((receipt, place) => receiptLeaf(from + place, receiptDigest(receipt))))
  }
}
