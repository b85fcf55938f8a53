import { PerunError, UnavailableError } from "../bytes/error.ts"

/**
 * Why sealed things cannot be opened, or files cannot be sealed. The meaning of each code stands here once; docs and screens take it from this table.
 * A full disk and missing rights are UnavailableError (`disk-full`, `permission-denied`).
 */
export const sealingCodes = {
  "wrong-key": "the identity does not open this, or is not the one that the manifest names",
  "wrong-manifest": "the manifest is not the one expected, its signature or owner is wrong, or it contradicts the sealed index",
  truncated: "bytes are missing at the end",
  "trailing-data": "bytes were added at the end",
  reordered: "a shard lies in the place of another",
  corrupt: "the bytes are not those that were sealed",
  missing: "a blob or a file that must be there is not",
  "unsafe-path": "a file name, or a kind of file, that is never packed or written: absolute, `..`, symbolic link, device, doubled",
  "source-changed": "a file changed while it was being sealed",
  "not-empty": "the destination exists and is not ours to replace",
  "too-large": "more than this version handles",
  unsupported: "an age recipient or stanza of a kind that is not handled, or kinds that must not stand together",
  malformed: "an age header, key or recipient whose form is wrong",
} as const satisfies Record<string, string>

export type SealingCode = keyof typeof sealingCodes

/** Sealed bytes that cannot be trusted or opened, or files that cannot be sealed. */
export class SealingError extends PerunError<SealingCode> {}

/**
 * Runs file system work and gives its failures our names: ENOSPC, EDQUOT and EFBIG become `disk-full`, EACCES, EPERM and EROFS `permission-denied`,
 * EIO, EMFILE and ENFILE `unavailable`, ENOENT `missing`, ENAMETOOLONG `unsafe-path`. Other errors pass through.
 * @throws {UnavailableError} `disk-full`, `permission-denied`, `unavailable`
 * @throws {SealingError} `missing`, `unsafe-path`
 */
export async function onDisk<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    throw diskError(path, cause)
  }
}

/** `onDisk` for synchronous calls. @throws as `onDisk` */
export function onDiskSync<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    throw diskError(path, cause)
  }
}

/** The error of ours for a failed system call, or the error itself. */
export function diskError(path: string, cause: unknown): unknown {
  switch (systemCode(cause)) {
    case "ENOSPC":
    case "EDQUOT":
    case "EFBIG":
      return new UnavailableError("disk-full", `no space left for ${path}`, { cause })
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new UnavailableError("permission-denied", `not allowed: ${path}`, { cause })
    case "ENOENT":
      return new SealingError("missing", `there is no ${path}`, { cause })
    case "ENAMETOOLONG":
      return new SealingError("unsafe-path", `the name is too long: ${path}`, { cause })
    case "EIO":
    case "EMFILE":
    case "ENFILE":
      return new UnavailableError("unavailable", `the system cannot read or write ${path}`, { cause })
    default:
      return cause
  }
}

/** `diskError` for opening a file that must not be a symbolic link. */
export function openError(path: string, cause: unknown): unknown {
  if (systemCode(cause) === "ELOOP") return new SealingError("unsafe-path", `${path} is a symbolic link`, { cause })
  return diskError(path, cause)
}

/** The name of a system error, e.g. `ENOENT`; undefined for other errors. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && "syscall" in error && typeof error.code === "string" ? error.code : undefined
}
