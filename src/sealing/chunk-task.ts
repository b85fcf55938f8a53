import { readSync, writeSync } from "node:fs"
import { onDiskSync, SealingError } from "./errors.ts"
import { openChunks, sealChunks } from "./stream.ts"
import type { ChunkRun } from "./stream.ts"

/** A place in an open file. Descriptors are those of the whole process, so that any thread may use them; the opener keeps the file open meanwhile. */
export interface FilePlace {
  readonly fd: number
  /** Name for errors. */
  readonly path: string
  readonly offset: number
}

/**
 * One run of chunks to seal or open. Buffers that travel to another thread lie in shared memory, so that nothing is copied. Reading the input from a file
 * and writing the output to one can be part of the task: then the calling thread need not touch the bytes at all.
 */
export interface ChunkTask extends ChunkRun {
  readonly action: "seal" | "open"
  readonly input: Uint8Array
  readonly output: Uint8Array
  /** Where `input` is filled from first. */
  readonly readFrom?: FilePlace | undefined
  /** Where `output` is written to at the end. */
  readonly writeTo?: FilePlace | undefined
}

/** Does a task on the calling thread. @throws {SealingError} as `openChunks`; `truncated` for a file that is too short @throws {UnavailableError} */
export function runChunkTask(task: ChunkTask): void {
  if (task.readFrom !== undefined) readPlace(task.readFrom, task.input)
  switch (task.action) {
    case "seal":
      sealChunks(task, task.input, task.output)
      break
    case "open":
      openChunks(task, task.input, task.output)
      break
  }
  if (task.writeTo !== undefined) writePlace(task.writeTo, task.output)
}

function readPlace({ fd, path, offset }: FilePlace, into: Uint8Array): void {
  for (let done = 0; done < into.length;) {
    const bytesRead = onDiskSync(path, () => readSync(fd, into, done, into.length - done, offset + done))
    if (bytesRead === 0) throw new SealingError("truncated", `${path} ends at ${offset + done} bytes, needs ${offset + into.length}`)
    done += bytesRead
  }
}

/** Writes all of `bytes` to a place in a file. @throws {UnavailableError} `disk-full` */
export function writePlace({ fd, path, offset }: FilePlace, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) {
    done += onDiskSync(path, () => writeSync(fd, bytes, done, bytes.length - done, offset + done))
  }
}
