import { parentPort } from "node:worker_threads"
import { runChunkTask } from "./chunk-task.ts"
import type { ChunkTask } from "./chunk-task.ts"
import { SealingError } from "./errors.ts"
import type { SealingCode } from "./errors.ts"

// The program of ChunkPool's threads; only for `new Worker`.

/** The answer to a task: done, refused with an error of ours, or broken. */
export interface ChunkAnswer {
  readonly refused?: { readonly code: SealingCode; readonly message: string }
  readonly broken?: string
}

function answer(task: ChunkTask): ChunkAnswer {
  try {
    runChunkTask(task)
    return {}
  } catch (error) {
    if (error instanceof SealingError) return { refused: { code: error.code, message: error.message } }
    return { broken: String(error) }
  }
}

const port = parentPort
port?.on("message", (task: ChunkTask) => port.postMessage(answer(task)))
