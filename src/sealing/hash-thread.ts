import { createHash } from "node:crypto"
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import type { Digest } from "../bytes/digest.ts"

/** SHA-256 of bytes that come in order. */
export interface OrderedHash extends AsyncDisposable {
  /** Takes the next bytes, which must stay untouched until the promise resolves; the next call need not wait for that. */
  update(bytes: Uint8Array): Promise<void>
  /** Digest of everything since the beginning or the last digest; starts over. */
  digest(): Promise<Digest>
}

/**
 * A hash for so many bytes. Large amounts are hashed on a thread of their own: the hash of a file in clear and of its ciphertext each cost about as much as
 * the encryption, cannot be split, and would otherwise both weigh on the calling thread.
 */
export function openHash(totalBytes: number, workers: number = availableParallelism()): OrderedHash {
  return totalBytes > largeBytes && workers > 1 ? new HashThread() : new InlineHash()
}

/** What a hash thread is asked: more bytes, or the digest. */
export type HashRequest = { readonly bytes: Uint8Array } | "digest"

/** Its answers, in order: true for bytes taken, or a digest. */
export type HashAnswer = true | Digest

class InlineHash implements OrderedHash {
  #hash = createHash("sha256")

  async update(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes)
  }

  async digest(): Promise<Digest> {
    const hex = this.#hash.digest("hex")
    this.#hash = createHash("sha256")
    return `sha256:${hex}`
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

class HashThread implements OrderedHash {
  readonly #thread = new Worker(new URL("./hash-worker.ts", import.meta.url))
  readonly #waiting: { readonly resolve: (answer: HashAnswer) => void; readonly reject: (error: unknown) => void }[] = []
  #failure: Error | undefined

  constructor() {
    this.#thread.on("message", (answer: HashAnswer) => this.#waiting.shift()?.resolve(answer))
    this.#thread.on("error", (cause) => this.#fail(cause))
    this.#thread.on("exit", () => this.#fail(new Error("hash thread ended")))
  }

  async update(bytes: Uint8Array): Promise<void> {
    await this.#ask({ bytes })
  }

  async digest(): Promise<Digest> {
    const answer = await this.#ask("digest")
    if (answer === true) throw new Error("internal: the hash thread answered out of turn")
    return answer
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#thread.terminate()
  }

  #ask(request: HashRequest): Promise<HashAnswer> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#thread.postMessage(request)
    })
  }

  #fail(cause: unknown): void {
    this.#failure ??= new Error("internal: the hash thread failed", { cause })
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure)
  }
}

// Below this the start of a thread costs more than it brings.
const largeBytes = 32_000_000
