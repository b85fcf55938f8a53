import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises"
import { UnavailableError } from "../../../bytes/error.ts"

/** The few operations on files that the kernel's and Gramine's attestation devices understand. Given to collectors, so that they can be held against recorded devices. */
export interface DeviceFiles {
  readonly makeFolder: (path: string) => Promise<void>
  readonly removeFolder: (path: string) => Promise<void>
  /** One write of all bytes. */
  readonly write: (path: string, bytes: Uint8Array) => Promise<void>
  readonly read: (path: string) => Promise<Uint8Array>
}

/** Those of this machine. */
export const hostFiles: DeviceFiles = {
  makeFolder: async (path) => {
    await mkdir(path)
  },
  removeFolder: rmdir,
  write: async (path, bytes) => writeFile(path, bytes, { flag: "r+" }),
  read: async (path) => new Uint8Array(await readFile(path)),
}

/** Word of a system error, e.g. `ENOENT`. */
export function systemWord(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "unknown error"
}

/**
 * A device's error as ours: what it means that a file of the device is missing or refused. `device` is for people: `a TDX or SEV-SNP guest (configfs-tsm)`.
 */
export function deviceError(path: string, device: string, cause: unknown): UnavailableError {
  const word = systemWord(cause)
  switch (word) {
    case "ENOENT":
    case "ENOTDIR":
    case "ENXIO":
    case "ENODEV":
      return new UnavailableError("unsupported", `this machine is not ${device}: ${path} does not exist`, { cause })
    case "EACCES":
    case "EPERM":
      return new UnavailableError("permission-denied", `${path} may not be used by this user`, { cause })
    default:
      return new UnavailableError("unavailable", `${path}: ${word}`, { cause })
  }
}
