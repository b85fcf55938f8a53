import { openChunks, sealChunks } from "./stream.ts"
import type { ChunkRun } from "./stream.ts"

/** One run of chunks to seal or open. Buffers that travel to another thread lie in shared memory, so that nothing is copied. */
export interface ChunkTask extends ChunkRun {
  readonly action: "seal" | "open"
  readonly input: Uint8Array
  readonly output: Uint8Array
}

/** Does a task on the calling thread. @throws {SealingError} as `openChunks` */
export function runChunkTask(task: ChunkTask): void {
  switch (task.action) {
    case "seal":
      return sealChunks(task, task.input, task.output)
    case "open":
      return openChunks(task, task.input, task.output)
  }
}
