import { createSecretKey } from "node:crypto"
import { readSync, writevSync } from "node:fs"
import { viewOf } from "../bytes/view.ts"
import { onDiskSync, SealingError } from "./errors.ts"
import { chunkBytes, copyParts, openChunks, releaseParts, sealChunks, sealedChunkBytes, sealedStreamBytes } from "./stream.ts"
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
 * and writing the output to one can be part of the task: then the calling thread need not touch the bytes, and a buffer is given only for what it wants to see.
 */
export interface ChunkTask extends Omit<ChunkRun, "key"> {
  /** From `derivePayloadKey`, 32 bytes. */
  readonly key: Uint8Array
  readonly action: "seal" | "open"
  readonly plainBytes: number
  /** The input, or where to put it on the way from `readFrom`. */
  readonly input?: Uint8Array | undefined
  /** Where the output goes, if not only to `writeTo`. */
  readonly output?: Uint8Array | undefined
  readonly readFrom?: FilePlace | undefined
  readonly writeTo?: FilePlace | undefined
}

/**
 * Does a task on the calling thread.
 * @throws {SealingError} as `openChunks`; `truncated` for a file that is too short
 * @throws {UnavailableError} `disk-full`, `permission-denied`
 */
export function runChunkTask(task: ChunkTask): void {
  const key = createSecretKey(task.key)
  // In steps that stay in a processor's own cache between reading, sealing and writing.
  for (let first = 0; first === 0 || first * chunkBytes < task.plainBytes; first += stepChunks) {
    const plain = { offset: first * chunkBytes, length: Math.min(stepChunks * chunkBytes, task.plainBytes - first * chunkBytes) }
    const sealed = { offset: first * sealedChunkBytes, length: sealedStreamBytes(plain.length) }
    const endsPayload = task.endsPayload && plain.offset + plain.length === task.plainBytes
    const run: ChunkRun = { key, firstChunk: task.firstChunk + first, endsPayload }
    switch (task.action) {
      case "seal":
        putStep(task, sealed, sealChunks(run, takeStep(task, plain)))
        break
      case "open":
        putStep(task, plain, openChunks(run, takeStep(task, sealed)))
        break
    }
  }
}

interface Stretch {
  readonly offset: number
  readonly length: number
}

function takeStep(task: ChunkTask, { offset, length }: Stretch): Uint8Array {
  const input = task.input === undefined ? scratch(length) : viewOf(task.input, offset, length)
  if (task.readFrom !== undefined) readPlace({ ...task.readFrom, offset: task.readFrom.offset + offset }, input)
  return input
}

function putStep(task: ChunkTask, { offset, length }: Stretch, parts: readonly Uint8Array[]): void {
  if (task.output !== undefined) copyParts(parts, viewOf(task.output, offset, length))
  if (task.writeTo !== undefined) writePlace({ ...task.writeTo, offset: task.writeTo.offset + offset }, parts)
  releaseParts(parts)
}

/** Memory of this thread, used by one step at a time. Not shared, which makes copying into it faster. */
function scratch(length: number): Uint8Array {
  scratchBuffer ??= new Uint8Array(stepChunks * sealedChunkBytes)
  return viewOf(scratchBuffer, 0, length)
}

let scratchBuffer: Uint8Array | undefined
/** 256 KiB in and as much out. */
const stepChunks = 4

function readPlace({ fd, path, offset }: FilePlace, into: Uint8Array): void {
  for (let done = 0; done < into.length;) {
    const bytesRead = onDiskSync(path, () => readSync(fd, into, done, into.length - done, offset + done))
    if (bytesRead === 0) throw new SealingError("truncated", `${path} ends at ${offset + done} bytes, needs ${offset + into.length}`)
    done += bytesRead
  }
}

/** Writes parts, one behind the other, to a place in a file. @throws {UnavailableError} `disk-full` */
export function writePlace({ fd, path, offset }: FilePlace, parts: readonly Uint8Array[]): void {
  let left = parts
  for (let at = offset; left.length > 0;) {
    const written = onDiskSync(path, () => writevSync(fd, left, at))
    at += written
    left = partsBehind(left, written)
  }
}

function partsBehind(parts: readonly Uint8Array[], written: number): readonly Uint8Array[] {
  let number = 0
  let rest = written
  for (; number < parts.length; number++) {
    const part = parts[number]
    if (part === undefined || rest < part.length) break
    rest -= part.length
  }
  const [cut, ...behind] = parts.slice(number)
  return cut === undefined ? [] : [viewOf(cut, rest, cut.length - rest), ...behind]
}
