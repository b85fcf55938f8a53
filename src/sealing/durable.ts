import { randomBytes } from "node:crypto"
import { constants } from "node:fs"
import { open, rename, rm } from "node:fs/promises"
import type { FileHandle } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { encodeHex } from "../bytes/text.ts"
import { onDisk } from "./errors.ts"
import { FileSink } from "./ranges.ts"

/**
 * Writes a file so that it is there as a whole or not at all, also after a crash: temporary file beside it, fsync, rename, fsync of the folder. `write` gets
 * the open file. Replaces an older file of that name. On an error the temporary file is removed.
 * @throws {UnavailableError} `disk-full`, `permission-denied`; what `write` throws
 */
export async function writeDurably<T>(path: string, mode: number, write: (file: FileHandle) => Promise<T>): Promise<T> {
  const temporary = join(dirname(path), `.${basename(path)}.${encodeHex(new Uint8Array(randomBytes(6)))}.tmp`)
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
  const file = await onDisk(temporary, () => open(temporary, flags, mode))
  try {
    let result: T
    try {
      result = await write(file)
      await onDisk(temporary, () => file.sync())
    } finally {
      await file.close()
    }
    await onDisk(path, () => rename(temporary, path))
    await syncFolder(dirname(path))
    return result
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

/**
 * Has a long file written to the disk while it grows, so that the disk works beside the processor and the fsync at the end is short. Dispose of it before the
 * file is closed. What fails here fails again in that fsync, which reports it.
 */
export class EarlySync implements AsyncDisposable {
  readonly #file: FileHandle
  #newBytes = 0
  #under: Promise<void> | undefined

  constructor(file: FileHandle) {
    this.#file = file
  }

  /** So many bytes were written. */
  wrote(bytes: number): void {
    this.#newBytes += bytes
    if (this.#newBytes < earlySyncBytes || this.#under !== undefined) return
    this.#newBytes = 0
    this.#under = this.#file
      .datasync()
      .catch(() => undefined)
      .finally(() => (this.#under = undefined))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#under
  }
}

/** `writeDurably` for bytes in memory. */
export async function writeBytesDurably(path: string, mode: number, bytes: Uint8Array): Promise<void> {
  await writeDurably(path, mode, (file) => new FileSink(file, path).write(bytes))
}

/** Makes renames and removals in a folder last. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await onDisk(path, () => open(path, constants.O_RDONLY | constants.O_DIRECTORY))
  try {
    await onDisk(path, () => folder.sync())
  } finally {
    await folder.close()
  }
}

/** Names of temporary files that `writeDurably` makes; an interrupted process may leave one. */
export const temporaryName = /^\..+\.[0-9a-f]{12}\.tmp$/
/** Enough for a disk to be busy with; smaller files are written at their end. */
const earlySyncBytes = 16_000_000
