import { execFile } from "node:child_process"
import { constants } from "node:fs"
import { chmod, chown, lstat, mkdir, open, readFile, readdir, realpath, stat } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { AgentError } from "./error.ts"
import type { JobUser } from "./sandbox.ts"

const run = promisify(execFile)

/**
 * Memory-backed place for a job's plaintext: a tmpfs at `<base>/scratch` with a size cap, noexec, nodev, nosuid, readable by root, through which the job's
 * user may pass to what it is given. Wiped and unmounted at the end; what an agent that was killed left behind is wiped at the next start.
 */
export class Scratch implements AsyncDisposable {
  readonly path: string
  readonly #base: string

  private constructor(base: string) {
    this.#base = base
    this.path = join(base, "scratch")
  }

  /** @throws {AgentError} `scratch-unavailable` without root, without tmpfs, or where memory could be swapped to disk */
  static async create(base: string, sizeBytes: number): Promise<Scratch> {
    await wipeScratch(base)
    await mkdir(base, { recursive: true })
    await refuseForeign(base)
    await chmod(base, 0o711)
    const scratch = new Scratch(base)
    await mountMemory(scratch.path, sizeBytes, 0o711)
    return scratch
  }

  /** A new folder for the agent to fill, which the job's user may later read but not change. */
  async folder(...names: readonly string[]): Promise<string> {
    const path = join(this.path, ...names)
    await mkdir(path, { recursive: true, mode: 0o711 })
    // Whatever the umask of this process is.
    await chmod(path, 0o711)
    return path
  }

  /** A writable place for the job on a mount of its own, so that filling it harms nothing else. */
  async area(name: string, sizeBytes: number, user: JobUser): Promise<string> {
    const path = join(this.path, name)
    await mountMemory(path, sizeBytes, 0o700, user)
    return path
  }

  /** Gives a filled folder to the job's group for reading: folders 0550, files 0440, owned by root. */
  async giveForReading(path: string, user: JobUser): Promise<void> {
    for (const entry of await walk(path)) {
      if (entry.kind === "other") throw new AgentError("output-kind", "an opened artifact holds something that is neither a file nor a folder")
      await chown(entry.path, 0, user.gid)
      await chmod(entry.path, entry.kind === "folder" ? 0o550 : 0o440)
    }
  }

  /** Overwrites and unmounts everything. Safe to call twice. */
  async wipe(): Promise<void> {
    await wipeScratch(this.#base)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.wipe()
  }
}

/**
 * Overwrites what can be overwritten under the scratch of `base` with zeros and unmounts all of it, whatever a job left there; does nothing where there is
 * none. Unmounting frees the memory; overwriting comes on top, so that no fault of it may keep a mount. No process of a job may be running.
 * @throws {AgentError} `scratch-unavailable` when a mount stays, after all the others are gone
 */
export async function wipeScratch(base: string): Promise<void> {
  // Mount points are listed by their real paths.
  const real = await realpath(base).catch(() => base)
  const mounts = (await mountPoints()).filter((path) => path === join(real, "scratch") || path.startsWith(join(real, "scratch") + "/"))
  const stuck: string[] = []
  // Inner mounts come after outer ones in mountinfo.
  for (const path of mounts.toReversed()) {
    await overwriteBelow(Buffer.from(path))
    try {
      await run("umount", [path]).catch(() => run("umount", ["--lazy", path]))
    } catch {
      stuck.push(path)
    }
  }
  if (stuck.length > 0) throw new AgentError("scratch-unavailable", `cannot unmount ${stuck.join(", ")}`)
}

/** Names as bytes, for a job may choose any; what cannot be reached or written (too deep, too long) is left to the unmounting. */
async function overwriteBelow(path: Buffer): Promise<void> {
  try {
    const status = await lstat(path)
    if (status.isFile()) return await overwrite(path, status.size, status.blocks * blockBytes)
    if (!status.isDirectory()) return
    for (const name of await readdir(path, { encoding: "buffer" })) await overwriteBelow(Buffer.concat([path, separator, name]))
  } catch {
    return // Freed with its mount.
  }
}

/** A folder, or a link to one, that another user could have put there or writes into is no place for plaintext. */
async function refuseForeign(base: string): Promise<void> {
  const own = process.getuid?.()
  const [name, target] = [await lstat(base), await stat(base)]
  if (name.uid !== own || target.uid !== own || !target.isDirectory() || (target.mode & 0o022) !== 0)
    throw new AgentError("scratch-unavailable", `${base} is not a folder of our own that nobody else writes`)
}

const separator = Buffer.from("/")
/** Unit of st_blocks. */
const blockBytes = 512

export interface WalkEntry {
  readonly path: string
  readonly kind: "file" | "folder" | "other"
  readonly sizeBytes: number
}

/** The folder itself and everything below it, folders before their content, names in order of code units. Links are never followed. */
export async function walk(path: string): Promise<WalkEntry[]> {
  const status = await lstat(path)
  const kind = status.isDirectory() ? "folder" : status.isFile() ? "file" : "other"
  const result: WalkEntry[] = [{ path, kind, sizeBytes: status.size }]
  if (kind === "folder") for (const name of (await readdir(path)).sort()) result.push(...(await walk(join(path, name))))
  return result
}

/** Mount points of this process's mount namespace, in the order of mounting. */
async function mountPoints(): Promise<string[]> {
  const table = await readFile("/proc/self/mountinfo", "utf8")
  return table
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => (line.split(" ")[4] ?? "").replaceAll(/\\(040|011|012|134)/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 8))))
}

async function mountMemory(path: string, sizeBytes: number, mode: number, user: JobUser = { uid: 0, gid: 0 }): Promise<void> {
  await mkdir(path, { recursive: true })
  const options = `size=${Math.ceil(sizeBytes)},mode=${mode.toString(8).padStart(4, "0")},uid=${user.uid},gid=${user.gid}`
  // Before Linux 6.4 tmpfs has no "noswap"; then there must be no swap at all, or plaintext could reach a disk.
  const swap = (await readFile("/proc/swaps", "utf8")).trim().split("\n").length > 1
  try {
    await run("mount", ["-t", "tmpfs", "-o", `noexec,nosuid,nodev,${swap ? "noswap," : ""}${options}`, "perun-scratch", path])
  } catch (cause) {
    const advice = swap ? "swap is on and this kernel cannot keep a tmpfs out of it: turn swap off" : "needs root and the mount program"
    throw new AgentError("scratch-unavailable", `cannot mount a tmpfs at ${path}; ${advice}`, { cause })
  }
}

async function overwrite(path: Buffer, sizeBytes: number, allocatedBytes: number): Promise<void> {
  // A sparse file has less than its size says; filling its holes would only exhaust the mount.
  if (allocatedBytes < sizeBytes) return
  const file = await open(path, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    for (let at = 0; at < sizeBytes; at += zeros.length) await file.write(zeros, 0, Math.min(zeros.length, sizeBytes - at), at)
  } finally {
    await file.close()
  }
}

const zeros = new Uint8Array(1024 * 1024)
