import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { mkdir, rmdir } from "node:fs/promises"
import { setTimeout as sleep } from "node:timers/promises"

/** A control group (version 2) around one job. */
export interface ControlGroup {
  add(pid: number): void
  /** SIGKILL to every process in the group. */
  kill(): void
  /** True once the kernel ended a process of the group for want of memory. */
  wasOutOfMemory(): boolean
  remove(): Promise<void>
}

/**
 * Makes a group with memory and process limits; undefined where the machine has no version 2 hierarchy with a memory controller: the caller's watchdog and
 * resource limits then stand alone.
 */
export async function openControlGroup(limits: { readonly memoryBytes: number; readonly maxProcesses: number }): Promise<ControlGroup | undefined> {
  try {
    const controllers = readFileSync(`${root}/cgroup.controllers`, "utf8").trim().split(" ")
    if (!controllers.includes("memory") || !controllers.includes("pids")) return undefined
    writeFileSync(`${root}/cgroup.subtree_control`, "+memory +pids")
    const path = `${root}/perun-job`
    await rmdir(path).catch(() => undefined) // Left over by an agent that was killed; busy or absent shows in the next step.
    await mkdir(path, { recursive: true })
    writeFileSync(`${path}/memory.max`, String(limits.memoryBytes))
    writeFileSync(`${path}/memory.oom.group`, "1")
    writeFileSync(`${path}/pids.max`, String(limits.maxProcesses))
    if (existsSync(`${path}/memory.swap.max`)) writeFileSync(`${path}/memory.swap.max`, "0")
    return new Version2Group(path)
  } catch {
    // No such hierarchy, or it belongs to somebody else (a container): the watchdog takes over.
    return undefined
  }
}

class Version2Group implements ControlGroup {
  readonly #path: string

  constructor(path: string) {
    this.#path = path
  }

  add(pid: number): void {
    writeFileSync(`${this.#path}/cgroup.procs`, String(pid))
  }

  kill(): void {
    try {
      writeFileSync(`${this.#path}/cgroup.kill`, "1")
    } catch {
      // Before Linux 5.14, or the group is gone: the caller kills by process too.
    }
  }

  wasOutOfMemory(): boolean {
    try {
      return /^oom_kill [1-9]/m.test(readFileSync(`${this.#path}/memory.events`, "utf8"))
    } catch {
      return false // The group is gone.
    }
  }

  async remove(): Promise<void> {
    for (let tries = 0; tries < 20; tries++) {
      try {
        return await rmdir(this.#path)
      } catch {
        this.kill() // Processes are still ending.
        await sleep(50)
      }
    }
  }
}

const root = "/sys/fs/cgroup"
