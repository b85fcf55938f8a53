import { availableParallelism } from "node:os"
import { setImmediate } from "node:timers/promises"
import { Worker } from "node:worker_threads"
import { errorOf } from "./chunk-answer.ts"
import type { ChunkAnswer } from "./chunk-answer.ts"
import { runChunkTask } from "./chunk-task.ts"
import type { ChunkTask } from "./chunk-task.ts"
import { chunkBytes, sealedChunkBytes } from "./stream.ts"

/** Chunks that travel in one message: 1 MiB, so that the cost of a message (some 20 µs) stays small beside the work (some 500 µs). */
export const batchChunks = 16

/** Shared buffers for one batch: `plain` holds its plaintext, `sealed` that and the tags. */
export interface BatchSlot {
  readonly plain: Uint8Array
  readonly sealed: Uint8Array
}

/**
 * Worker threads that seal and open chunks, and the shared buffers for it. Threads start with the first large file, so that a pool for small files costs
 * nothing. The calling thread works too, on what the threads have no hands for. Close it (`await using`): open threads keep the process alive, and closing wipes the buffers.
 */
export class ChunkPool implements AsyncDisposable {
  readonly #size: number
  readonly #workers: BusyWorker[] = []
  readonly #queue: Pending[] = []
  readonly #slots: BatchSlot[] = []
  #closed = false
  #helping = false

  /** `workers`: number of threads beside the calling one. Default: so many that there is one thread per processor. */
  constructor(workers: number = Math.min(availableParallelism() - 1, maxWorkers)) {
    if (!Number.isInteger(workers) || workers < 0 || workers > maxWorkers) throw new TypeError(`workers must be an integer from 0 to ${maxWorkers}`)
    this.#size = workers
  }

  /** How many batches are worth having under way at once. */
  get depth(): number {
    return this.#size === 0 ? 1 : this.#size * tasksPerWorker + 2
  }

  /** Buffers for one batch; give them back with `giveBack`. */
  takeSlot(): BatchSlot {
    return (
      this.#slots.pop() ?? {
        plain: new Uint8Array(new SharedArrayBuffer(batchChunks * chunkBytes)),
        sealed: new Uint8Array(new SharedArrayBuffer(batchChunks * sealedChunkBytes)),
      }
    )
  }

  giveBack(slot: BatchSlot): void {
    if (this.#closed) wipe(slot)
    else this.#slots.push(slot)
  }

  /** Starts the threads when so much work is worth it. */
  prepare(plaintextBytes: number): void {
    if (this.#closed || plaintextBytes < threadBytes) return
    while (this.#workers.length < this.#size) this.#start()
  }

  /**
   * Seals or opens one run of chunks; input and output must stay untouched until then.
   * @throws {SealingError} as `runChunkTask` @throws {UnavailableError} as `runChunkTask`
   */
  async run(task: ChunkTask): Promise<void> {
    if (this.#closed) throw new TypeError("the pool is closed")
    if (task.plainBytes <= smallBytes) return runChunkTask(task)
    return new Promise((resolve, reject) => {
      this.#queue.push({ task, resolve, reject })
      this.#feed()
      void this.#help()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    const workers = this.#workers.splice(0)
    for (const { reject } of this.#queue.splice(0)) reject(new Error("internal: the pool was closed before its work was done"))
    await Promise.all(workers.map((worker) => worker.thread.terminate()))
    for (const slot of this.#slots.splice(0)) wipe(slot)
  }

  #feed(): void {
    for (;;) {
      const next = this.#queue[0]
      const worker = this.#leastBusy()
      if (next === undefined || worker === undefined) return
      this.#queue.shift()
      worker.tasks.push(next)
      worker.thread.postMessage(next.task)
    }
  }

  /** Works on the calling thread on what the threads have no hands for; others on this thread have their turn between two batches. */
  async #help(): Promise<void> {
    if (this.#helping) return
    this.#helping = true
    for (;;) {
      await setImmediate()
      const next = this.#queue.shift()
      if (next === undefined) break
      try {
        runChunkTask(next.task)
        next.resolve()
      } catch (error) {
        next.reject(error)
      }
    }
    this.#helping = false
  }

  #leastBusy(): BusyWorker | undefined {
    let least: BusyWorker | undefined
    for (const worker of this.#workers) {
      if (worker.ready && worker.tasks.length < Math.min(tasksPerWorker, least?.tasks.length ?? tasksPerWorker)) least = worker
    }
    return least
  }

  #start(): void {
    const worker: BusyWorker = { thread: new Worker(new URL("./chunk-worker.ts", import.meta.url)), tasks: [], ready: false }
    worker.thread.on("message", (answer: ChunkAnswer) => {
      // A thread is ready once, and then answers its tasks in their order.
      const done = answer.is === "ready" ? undefined : worker.tasks.shift()
      worker.ready = true
      this.#feed()
      const error = errorOf(answer)
      if (error === undefined) done?.resolve()
      else done?.reject(error)
    })
    worker.thread.on("error", (cause) => this.#lose(worker, cause))
    worker.thread.on("exit", () => this.#lose(worker, new Error("worker thread ended")))
    this.#workers.push(worker)
  }

  #lose(worker: BusyWorker, cause: unknown): void {
    const at = this.#workers.indexOf(worker)
    if (at >= 0) this.#workers.splice(at, 1)
    // Whatever waits may belong to the same file: nothing of it can be completed.
    for (const { reject } of [...worker.tasks.splice(0), ...this.#queue.splice(0)]) reject(new Error("internal: a worker thread failed", { cause }))
  }
}

interface Pending {
  readonly task: ChunkTask
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

interface BusyWorker {
  readonly thread: Worker
  /** Sent and not yet answered, oldest first. */
  readonly tasks: Pending[]
  ready: boolean
}

function wipe(slot: BatchSlot): void {
  slot.plain.fill(0)
}

const maxWorkers = 64
// One to work on and one to go on with, so that a thread does not wait for the main thread's answer.
const tasksPerWorker = 2
// Below this a message to another thread costs more than the work.
const smallBytes = chunkBytes
// Below this the start of threads (some 50 ms) costs more than the work.
const threadBytes = 4_000_000
