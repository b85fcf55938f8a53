import { randomBytes } from "node:crypto"
import { type FileHandle, link, mkdir, open, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import { concatBytes } from "./compare.ts"
import { MalformedError, PerunError, UnavailableError } from "./error.ts"

export interface DurableOptions {
  /** Permission bits, default 0o644; 0o600 for secrets. */
  readonly mode?: number
}

/**
 * Replaces a file so that after a crash either the old or the new content is there: temporary file beside it, fsync, rename, fsync of the folder.
 * @throws {UnavailableError} `disk-full`, `permission-denied`, `unavailable`
 */
export async function writeFileDurably(path: string, data: Uint8Array | string, options: DurableOptions = {}): Promise<void> {
  await throughTemporary(path, data, options, (temporary) => rename(temporary, path))
}

/**
 * Creates a file that must not exist, with all of its content or not at all.
 * @throws {AlreadyExistsError} when something is there
 * @throws {UnavailableError} as writeFileDurably
 */
export async function createFileDurably(path: string, data: Uint8Array | string, options: DurableOptions = {}): Promise<void> {
  await throughTemporary(path, data, options, (temporary) => link(temporary, path))
}

/** A file that was to be made is there already; nothing was changed. */
export class AlreadyExistsError extends PerunError<"already-exists"> {}

/** Flushes a folder, so that names made or removed in it survive a crash. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r")
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/**
 * Reads a whole file of at most `maxBytes`.
 * @throws {MalformedError} `too-large`
 * @throws {UnavailableError} `permission-denied`, `unavailable` (also when the file is not there)
 */
export async function readFileBounded(path: string, maxBytes: number): Promise<Uint8Array> {
  try {
    const file = await open(path, "r")
    try {
      const { size } = await file.stat()
      if (size > maxBytes) throw new MalformedError("too-large", `${size} bytes, at most ${maxBytes} are read`, { path })
      return await readAtMost(file, maxBytes, path)
    } finally {
      await file.close()
    }
  } catch (error) {
    throw fromSystemError(error, path)
  }
}

/** A device or pipe has no size, and a file may grow: what counts is what comes. */
async function readAtMost(file: FileHandle, maxBytes: number, path: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let size = 0
  // `end` is the last byte's place: one more than is allowed.
  for await (const chunk of file.createReadStream({ autoClose: false, end: maxBytes, highWaterMark: readBytes })) {
    parts.push(chunk as Uint8Array)
    size += (chunk as Uint8Array).length
  }
  if (size > maxBytes) throw new MalformedError("too-large", `more than ${maxBytes} bytes`, { path })
  return concatBytes(...parts)
}

const readBytes = 1024 * 1024

/** Turns an error of the operating system into one of ours; other errors come back as they are. */
export function fromSystemError(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || !("code" in error) || error instanceof PerunError) return error
  switch (error.code) {
    case "ENOSPC":
    case "EDQUOT":
      return new UnavailableError("disk-full", "no space left on the disk; nothing was replaced", { path, cause: error })
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new UnavailableError("permission-denied", "not permitted", { path, cause: error })
    case "EEXIST":
      return new AlreadyExistsError("already-exists", "is there already; nothing was changed", { path, cause: error })
    case "ENOENT":
    case "ENOTDIR":
      return new UnavailableError("unavailable", "no such file or folder", { path, cause: error })
    case "EISDIR":
      return new UnavailableError("unavailable", "is a folder, a file was expected", { path, cause: error })
    case "EIO":
      return new UnavailableError("unavailable", "the disk does not answer properly (EIO)", { path, cause: error })
    default:
      return error
  }
}

async function throughTemporary(
  path: string,
  data: Uint8Array | string,
  options: DurableOptions,
  place: (temporary: string) => Promise<void>,
): Promise<void> {
  const folder = dirname(path)
  const temporary = join(folder, `.${randomBytes(8).toString("hex")}.tmp`)
  try {
    await mkdir(folder, { recursive: true })
    const file = await open(temporary, "wx", options.mode ?? 0o644)
    try {
      await file.writeFile(data)
      await file.sync()
    } finally {
      await file.close()
    }
    await place(temporary)
    await syncFolder(folder)
  } catch (error) {
    throw fromSystemError(error, path)
  } finally {
    await rm(temporary, { force: true })
  }
}
