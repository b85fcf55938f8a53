import { open, readFile } from "node:fs/promises"
import { concatBytes } from "../../bytes/compare.ts"
import { MalformedError, UnavailableError } from "../../bytes/error.ts"
import { ByteReader } from "../../bytes/reader.ts"
import { maxEventLogBytes, maxImaListBytes } from "../../evidence/bundle.ts"
import { readImaRecords } from "../../evidence/ima/format.ts"

/** Where the kernel shows what it measured. */
export interface KernelLogPaths {
  readonly bootLog: string
  readonly imaList: string
  readonly imaCount: string
}

export const kernelLogPaths: KernelLogPaths = {
  bootLog: "/sys/kernel/security/tpm0/binary_bios_measurements",
  imaList: "/sys/kernel/security/ima/binary_runtime_measurements",
  imaCount: "/sys/kernel/security/ima/runtime_measurements_count",
}

/** The firmware's event log, as it is. @throws {UnavailableError} `unsupported` where there is none, `permission-denied` */
export async function readBootLog(path: string): Promise<Uint8Array> {
  const bytes = await readKernelFile(path, "a measured boot log")
  if (bytes.length === 0) throw new UnavailableError("unsupported", `the firmware left no measured boot log: ${path} is empty`)
  if (bytes.length > maxEventLogBytes) throw tooLong(path, bytes.length, maxEventLogBytes)
  return bytes
}

/** A part of the IMA list. */
export interface ImaPart {
  /** Index of the first entry in `list`. */
  readonly from: number
  /** Binary entries from there to the end of the list, as the kernel gives them. */
  readonly list: Uint8Array
  /** Index behind the last entry. */
  readonly to: number
}

/**
 * Reads the IMA list from an entry on, without reading again what lies before it: entries are only ever added, so the offset at which each begins stays for the
 * whole boot. An entry is found by the offset that was remembered for it; that the entries read again begin where they began before, and that there are as many
 * as the kernel counts, is checked. Where it does not hold (the list of another boot or a list that was restarted by kexec) everything is read anew.
 */
export class ImaListReader {
  readonly #paths: Pick<KernelLogPaths, "imaList" | "imaCount">
  /** Byte offset at which each known entry begins, and the end of the last one: one more than there are entries. */
  #offsets: number[] = [0]

  constructor(paths: Pick<KernelLogPaths, "imaList" | "imaCount"> = kernelLogPaths) {
    this.#paths = paths
  }

  /**
   * @throws {UnavailableError} `unsupported` where the kernel has no IMA list, `permission-denied`, `unavailable` where the list has fewer entries than `from`
   * @throws {MalformedError} where the list is not of the form of this machine's kernels
   */
  async read(from: number): Promise<ImaPart> {
    try {
      return await this.#read(from)
    } catch (error) {
      if (!(error instanceof MalformedError) || this.#offsets.length === 1) throw error
      // What was remembered does not fit the list: a second look without it tells a broken list from a new one.
      this.#offsets = [0]
      return await this.#read(from)
    }
  }

  async #read(from: number): Promise<ImaPart> {
    const countBefore = await this.#readCount()
    const known = Math.min(from, this.#offsets.length - 1)
    const start = this.#offsets[known] ?? 0
    const bytes = await readTail(this.#paths.imaList, start)
    const offsets = this.#offsets.filter((_, index) => index <= known)
    for (const record of readImaRecords(bytes)) {
      const end = start + record.end
      const remembered = this.#offsets[offsets.length]
      if (remembered !== undefined && remembered !== end)
        throw new MalformedError("malformed", "does not end where it ended before", { path: `ima.${offsets.length - 1}` })
      offsets.push(end)
    }
    const to = offsets.length - 1
    if (to < countBefore) throw new MalformedError("truncated", `${to} entries, the kernel counts ${countBefore}`, { path: "ima" })
    this.#offsets = offsets
    if (from > to) throw new UnavailableError("unavailable", `the IMA list has ${to} entries, those from ${from} on were asked for`)
    const skipped = (offsets[from] ?? 0) - start
    const rest = new ByteReader("ima list", bytes)
    rest.bytes(skipped, "entries before")
    return { from, list: rest.rest("entries"), to }
  }

  /** Entries there were before the list was read: it must have at least as many. */
  async #readCount(): Promise<number> {
    const text = Buffer.from(await readKernelFile(this.#paths.imaCount, "an IMA measurement list"))
      .toString("latin1")
      .trim()
    if (!/^[0-9]{1,9}$/.test(text)) throw new UnavailableError("unsupported", `${this.#paths.imaCount} is not a number`)
    return Number(text)
  }
}

const chunkBytes = 262_144

/** Everything from an offset to the end. The kernel makes the list while it is read, so that its size is not known before. */
async function readTail(path: string, start: number): Promise<Uint8Array> {
  try {
    await using file = await open(path, "r")
    const chunks: Uint8Array[] = []
    for (let length = 0; ;) {
      const buffer = new Uint8Array(chunkBytes)
      const { bytesRead } = await file.read(buffer, 0, buffer.length, start + length)
      if (bytesRead === 0) return concatBytes(...chunks)
      chunks.push(new ByteReader(path, buffer).bytes(bytesRead, "chunk"))
      length += bytesRead
      if (length > maxImaListBytes) throw tooLong(path, length, maxImaListBytes)
    }
  } catch (cause) {
    throw unreadable(path, "an IMA measurement list", cause)
  }
}

async function readKernelFile(path: string, what: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await readFile(path))
  } catch (cause) {
    throw unreadable(path, what, cause)
  }
}

function unreadable(path: string, what: string, cause: unknown): UnavailableError {
  if (cause instanceof UnavailableError) return cause
  const word = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "unknown error"
  if (word === "EACCES" || word === "EPERM") return new UnavailableError("permission-denied", `${path} may not be read by this user`, { cause })
  if (word === "ENOENT" || word === "ENOTDIR")
    return new UnavailableError("unsupported", `this machine offers no ${what.replace(/^an? /, "")}: ${path} does not exist`, { cause })
  return new UnavailableError("unavailable", `${path} cannot be read: ${word}`, { cause })
}

function tooLong(path: string, found: number, maximum: number): UnavailableError {
  return new UnavailableError("unsupported", `${path} has ${found} bytes or more, at most ${maximum} fit into a bundle`)
}
