import { execFile } from "node:child_process"
import { constants } from "node:fs"
import { chmod, chown, lstat, mkdir, open, readFile, readdir } from "node:fs/promises"
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

/** Overwrites every file under the scratch of `base` with zeros and unmounts it; does nothing where there is none. No process of a job may be running. */
export async function wipeScratch(base: string): Promise<void> {
  const mounts = (await mountPoints()).filter((path) => path === join(base, "scratch") || path.startsWith(join(base, "scratch") + "/"))
  // Inner mounts come after outer ones in mountinfo.
  for (const path of mounts.toReversed()) {
    for (const entry of await walk(path)) if (entry.kind === "file") await overwrite(entry.path, entry.sizeBytes)
    await run("umount", [path]).catch(() => run("umount", ["--lazy", path]))
  }
}

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
    .map((line) => (line.split(" ")[4] ?? "").replaceAll("\\040", " "))
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

async function overwrite(path: string, sizeBytes: number): Promise<void> {
  const file = await open(path, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    for (let at = 0; at < sizeBytes; at += zeros.length) await file.write(zeros, 0, Math.min(zeros.length, sizeBytes - at), at)
  } finally {
    await file.close()
  }
}

const zeros = new Uint8Array(1024 * 1024)
