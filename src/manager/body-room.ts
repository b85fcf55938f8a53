import { ProtocolError } from "../protocol/errors.ts"
import { networkOf } from "./network-budget.ts"

/**
 * Memory for the bodies of requests, counted from the first byte until the request is answered. Many large bodies at once, sent slowly or never ended, would
 * fill the process; what finds no room is refused, and may come again. Each network has a part of it only.
 */
export class BodyRoom {
  readonly #limits: BodyLimits
  readonly #held = new Map<string, number>()
  #all = 0

  constructor(limits: BodyLimits) {
    this.#limits = limits
  }

  /** Bytes that are held now. */
  get heldBytes(): number {
    return this.#all
  }

  /** Place for one body from an address, empty at first; whoever disposes of it gives all of it back. */
  enter(address: string | undefined): BodyPlace {
    const network = networkOf(address)
    let own = 0
    const move = (bytes: number): void => {
      own += bytes
      this.#all += bytes
      const ofNetwork = (this.#held.get(network) ?? 0) + bytes
      if (ofNetwork === 0) this.#held.delete(network)
      else this.#held.set(network, ofNetwork)
    }
    return {
      take: (chunkBytes) => {
        const bytes = chunkBytes + chunkOverheadBytes
        const { allBytes, networkBytes } = this.#limits
        if (this.#all + bytes > allBytes || (this.#held.get(network) ?? 0) + bytes > networkBytes)
          throw new ProtocolError("too-many-requests", "requests that are being read take all the memory there is for them")
        move(bytes)
      },
      [Symbol.dispose]: () => move(-own),
    }
  }
}

export interface BodyLimits {
  /** All bodies together. */
  readonly allBytes: number
  /** Those from one network. */
  readonly networkBytes: number
}

export interface BodyPlace extends Disposable {
  /** Counts a chunk that has come. @throws {ProtocolError} `too-many-requests` */
  take(chunkBytes: number): void
}

/** What a chunk costs besides its bytes: a body may come in chunks of one. */
const chunkOverheadBytes = 512
