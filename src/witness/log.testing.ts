import { generateKeyPairSync } from "node:crypto"
import { encodeUtf8 } from "../bytes/text.ts"
import { encodeWitnessRequest, signCheckpoint } from "../log/checkpoint.ts"
import { CompactRange, consistencyProof, leafHash } from "../log/merkle.ts"
import type { NoteKey } from "../log/note.ts"
import { ed25519PublicBytes } from "../pki/signatures.ts"

/** A log in memory, which can be cut and go another way. */
export class TestLog {
  readonly key: NoteKey
  readonly #privateKey = generateKeyPairSync("ed25519").privateKey
  readonly #leaves: Uint8Array[] = []

  constructor(origin = "perun/manager/00112233445566778899aabbccddeeff") {
    this.key = { name: origin, type: 1, publicKey: ed25519PublicBytes(this.#privateKey) }
  }

  append(...entries: readonly string[]): this {
    for (const entry of entries) this.#leaves.push(leafHash(encodeUtf8(entry)))
    return this
  }
  cut(size: number): this {
    this.#leaves.length = size
    return this
  }

  get size(): number {
    return this.#leaves.length
  }

  checkpoint(): string {
    const range = CompactRange.empty()
    for (const leaf of this.#leaves) range.append(leaf)
    return signCheckpoint({ origin: this.key.name, size: range.size, root: range.root() }, this.#privateKey, this.key.publicKey)
  }

  proof(older: number): readonly Uint8Array[] {
    if (older === 0 || older >= this.size) return []
    return consistencyProof(older, this.size, (height, index) => {
      const range = CompactRange.empty()
      for (const leaf of this.#leaves.slice(index * 2 ** height, (index + 1) * 2 ** height)) range.append(leaf)
      return range.root()
    })
  }

  request(oldSize: number): string {
    return encodeWitnessRequest({ oldSize, proof: this.proof(oldSize), checkpoint: this.checkpoint() })
  }
}
