import { constants } from "node:fs"
import { open } from "node:fs/promises"
import type { FileHandle } from "node:fs/promises"
import { viewOf } from "../bytes/view.ts"
import type { FilePlace } from "./chunk-task.ts"
import { onDisk, openError, SealingError } from "./errors.ts"

/** Bytes that can be read at any place: a file, an HTTP resource that answers ranges, memory. */
export interface RangeReader extends AsyncDisposable {
  /** Length in bytes; fixed for the life of the reader. */
  readonly sizeBytes: number
  /** Where the bytes lie when they are in an open file: then other threads read them there. */
  readonly file?: OpenFile | undefined
  /**
   * Fills `into` wholly with the bytes from `offset`, which lie inside. Several reads may be under way at once.
   * @throws {SealingError} `truncated` when the bytes are not there
   */
  read(offset: number, into: Uint8Array): Promise<void>
}

/** Where bytes go, in order. `bytes` may be reused as soon as the promise resolves. */
export interface ByteSink {
  write(bytes: Uint8Array): Promise<void>
  /** Keeps the place of the next bytes free, for other threads to write there; only where bytes go to a file. */
  reserve?(sizeBytes: number): FilePlace
}

export interface OpenFile {
  readonly fd: number
  /** Name for errors. */
  readonly path: string
}

/** Writes to an open file from its start. The caller closes the file. */
export class FileSink implements ByteSink {
  readonly #handle: FileHandle
  readonly #path: string
  #sizeBytes = 0

  constructor(handle: FileHandle, path: string) {
    this.#handle = handle
    this.#path = path
  }

  /** Bytes written or reserved. */
  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** @throws {UnavailableError} `disk-full` */
  async write(bytes: Uint8Array): Promise<void> {
    const { offset } = this.reserve(bytes.length)
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await onDisk(this.#path, () => this.#handle.write(bytes, done, bytes.length - done, offset + done))
      done += bytesWritten
    }
  }

  reserve(sizeBytes: number): FilePlace {
    const offset = this.#sizeBytes
    this.#sizeBytes += sizeBytes
    return { fd: this.#handle.fd, path: this.#path, offset }
  }
}

/** The first `lengthBytes` of a reader, fewer when it is shorter, copied. */
export async function readStart(reader: RangeReader, lengthBytes: number): Promise<Uint8Array> {
  return readRange(reader, 0, Math.min(lengthBytes, reader.sizeBytes))
}

/** Exactly `lengthBytes` from `offset`, copied. */
export async function readRange(reader: RangeReader, offset: number, lengthBytes: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(lengthBytes)
  await reader.read(offset, bytes)
  return bytes
}

/** A reader over bytes in memory. */
export function memoryReader(bytes: Uint8Array): RangeReader {
  return {
    sizeBytes: bytes.length,
    async read(offset, into) {
      if (offset + into.length > bytes.length) throw new SealingError("truncated", `needs ${into.length} bytes at ${offset}, found ${bytes.length}`)
      into.set(viewOf(bytes, offset, into.length))
    },
    async [Symbol.asyncDispose]() {},
  }
}

/**
 * A reader over a regular file; symbolic links are not followed.
 * @throws {SealingError} `missing`, `unsafe-path` for what is not a regular file
 */
export async function openFileReader(path: string): Promise<RangeReader> {
  const { handle, sizeBytes } = await openRegularFile(path)
  return {
    sizeBytes,
    file: { fd: handle.fd, path },
    async read(offset, into) {
      await readFully(handle, path, offset, into)
    },
    async [Symbol.asyncDispose]() {
      await handle.close()
    },
  }
}

/**
 * Opens a regular file for reading without following a symbolic link at its end.
 * @throws {SealingError} `missing`, `unsafe-path`
 */
export async function openRegularFile(path: string): Promise<{ readonly handle: FileHandle; readonly sizeBytes: number; readonly mtimeNs: bigint }> {
  let handle: FileHandle
  try {
    // O_NONBLOCK: a named pipe in the place of the file must not hold us up.
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    throw openError(path, cause)
  }
  try {
    const stat = await handle.stat({ bigint: true })
    if (!stat.isFile()) throw new SealingError("unsafe-path", `${path} is not a regular file`)
    return { handle, sizeBytes: Number(stat.size), mtimeNs: stat.mtimeNs }
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** Fills `into` from a file. @throws {SealingError} `truncated` when the file ends before */
export async function readFully(handle: FileHandle, path: string, offset: number, into: Uint8Array): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await onDisk(path, () => handle.read(into, done, into.length - done, offset + done))
    if (bytesRead === 0) throw new SealingError("truncated", `${path} ends at ${offset + done} bytes, needs ${offset + into.length}`)
    done += bytesRead
  }
}
