import { spawn, type ChildProcess } from "node:child_process"
import { existsSync } from "node:fs"
import type { Writable } from "node:stream"
import { open } from "node:fs/promises"
import { performance } from "node:perf_hooks"
import { concatBytes } from "../bytes/compare.ts"
import { viewOf } from "../bytes/view.ts"
import { AgentError } from "./error.ts"
import { openControlGroup, type ControlGroup } from "./cgroup.ts"
import { treeMemoryBytes } from "./process-tree.ts"

/** Numeric user and group of a job's processes, outside and inside the sandbox: never the agent's own, and nobody else's on the machine. */
export interface JobUser {
  readonly uid: number
  readonly gid: number
}

/** A folder or file of the machine and where the job sees it. */
export interface Bind {
  /** Absolute path on the machine. */
  readonly source: string
  /** Absolute path inside the sandbox. */
  readonly target: string
}

/** Everything that a job's processes can see; what is not named here does not exist for them. */
export interface SandboxPlan {
  /** Program and arguments; the program is looked up in the measured root. */
  readonly command: readonly string[]
  /** Where the program starts, a path inside the sandbox. */
  readonly workingDirectory: string
  /** The whole environment; nothing is inherited. */
  readonly environment: Readonly<Record<string, string>>
  readonly user: JobUser
  /** Read-only, e.g. opened inputs. */
  readonly inputs: readonly Bind[]
  /** Writable, each on a mount of its own with a size cap and noexec. */
  readonly outputs: readonly Bind[]
}

export interface SandboxLimits {
  /** Memory of all processes together. */
  readonly memoryBytes: number
  readonly wallSeconds: number
  readonly maxProcesses: number
  /** How much of each of stdout and stderr is kept; the rest is read and dropped. */
  readonly captureBytes: number
}

/** Why a job's processes ended; `sandbox`: bubblewrap could not set up what the plan asks for, and the program did not start. */
export type EndReason = "exit" | "wall-clock" | "memory" | "stopped" | "sandbox"

export interface JobEnd {
  readonly reason: EndReason
  /** 0 to 255, or null where a signal ended the job. */
  readonly exitCode: number | null
  /** First `captureBytes` of each stream. They never leave the machine unless the policy says so. */
  readonly stdout: Uint8Array
  readonly stderr: Uint8Array
  /** Last 64 KiB of stderr, for the redacted failure report. */
  readonly stderrTail: Uint8Array
  readonly wallSeconds: number
}

export interface RunningJob {
  /** Resolves once every process of the job is gone. Never rejects. */
  readonly ended: Promise<JobEnd>
  /** Ends every process of the job at once. */
  kill(reason: EndReason): void
}

/**
 * Options for bubblewrap (version 0.6 or later), without the command. Pure.
 * Order matters: later mounts lie over earlier ones, so that targets are sorted from the outside in.
 */
export function bubblewrapOptions(plan: SandboxPlan, fds: { readonly seccomp: number; readonly status: number }): string[] {
  const binds = [
    ...plan.inputs.map(({ source, target }) => ({ flag: "--ro-bind", source, target })),
    ...plan.outputs.map(({ source, target }) => ({ flag: "--bind", source, target })),
  ].sort((a, b) => a.target.length - b.target.length)
  return [
    ...["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"],
    ...["--uid", String(plan.user.uid), "--gid", String(plan.user.gid), "--hostname", "perun-job"],
    ...["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"],
    ...measuredRoot.flatMap((path) => ["--ro-bind-try", path, path]),
    ...rootLinks.flatMap(([target, name]) => ["--symlink", target, name]),
    ...["--proc", "/proc", "--dev", "/dev"],
    ...binds.flatMap(({ flag, source, target }) => [flag, source, target]),
    ...["--remount-ro", "/dev", "--remount-ro", "/"],
    ...Object.entries(plan.environment).flatMap(([name, value]) => ["--setenv", name, value]),
    ...["--chdir", plan.workingDirectory, "--seccomp", String(fds.seccomp), "--json-status-fd", String(fds.status)],
  ]
}

/**
 * Starts a job in the sandbox. `seccompFile` holds the filter of `seccompFilter`.
 * Needs root: the job's processes get `plan.user`, an empty set of groups and no capability, before bubblewrap makes their namespaces.
 * @throws {AgentError} `sandbox-unavailable`
 */
export async function startSandbox(plan: SandboxPlan, limits: SandboxLimits, seccompFile: string): Promise<RunningJob> {
  const bubblewrap = findBubblewrap()
  const group = await openControlGroup(limits)
  const filter = await open(seccompFile, "r")
  let child: ChildProcess
  try {
    // The shell waits for a line before it becomes bubblewrap, so that the control group holds every process from the first.
    const script = `ulimit -c 0 && ulimit -n 4096 && ulimit -p ${limits.maxProcesses} && echo 1000 >/proc/self/oom_score_adj && IFS= read -r go && exec "$@" </dev/null`
    // The options hold the environment, and with it secrets: they go through a pipe, for every user of a machine reads command lines.
    child = spawn("/bin/sh", ["-c", script, "sh", bubblewrap, "--args", "5", "--", ...plan.command], {
      cwd: "/",
      env: { PATH: "/usr/bin:/bin" },
      uid: plan.user.uid,
      gid: plan.user.gid,
      detached: true,
      stdio: ["pipe", "pipe", "pipe", filter.fd, "pipe", "pipe"],
    })
    const options = (child.stdio as readonly unknown[])[5] as Writable
    options.on("error", () => {
      // Bubblewrap ended before it read them; "close" reports how.
    })
    options.end(
      bubblewrapOptions(plan, { seccomp: 3, status: 4 })
        .map((option) => `${option}\0`)
        .join(""),
    )
  } finally {
    await filter.close()
  }
  return new SandboxProcess(child, limits, group)
}

/** @throws {AgentError} `sandbox-unavailable` */
export function findBubblewrap(): string {
  const found = ["/usr/bin/bwrap", "/bin/bwrap"].find((path) => existsSync(path))
  if (found === undefined) throw new AgentError("sandbox-unavailable", "bubblewrap (bwrap) is not installed")
  return found
}

class SandboxProcess implements RunningJob {
  readonly ended: Promise<JobEnd>
  readonly #child: ChildProcess
  readonly #group: ControlGroup | undefined
  #reason: EndReason = "exit"

  constructor(child: ChildProcess, limits: SandboxLimits, group: ControlGroup | undefined) {
    this.#child = child
    this.#group = group
    const started = performance.now()
    const stdout = new Capture(limits.captureBytes)
    const stderr = new Capture(limits.captureBytes)
    child.stdout?.on("data", (chunk: Uint8Array) => stdout.add(chunk))
    child.stderr?.on("data", (chunk: Uint8Array) => stderr.add(chunk))
    const status = new Capture(statusBytes)
    child.stdio[4]?.on("data", (chunk: Uint8Array) => status.add(chunk))
    // Looked at again and again, for one timer cannot be longer than 24 days.
    const watchdog = setInterval(() => {
      if (performance.now() - started > limits.wallSeconds * 1000) this.kill("wall-clock")
      else this.#watchMemory(limits.memoryBytes)
    }, watchdogMilliseconds)
    this.ended = new Promise((resolve) => {
      const finish = (exitCode: number | null): void => {
        clearInterval(watchdog)
        const reason = this.#reason !== "exit" ? this.#reason : reasonOfExit(status.text(), group)
        const end: JobEnd = {
          reason,
          exitCode: reason === "exit" ? exitCode : null,
          stdout: stdout.head(),
          stderr: stderr.head(),
          stderrTail: stderr.tail(),
          wallSeconds: (performance.now() - started) / 1000,
        }
        if (group === undefined) resolve(end)
        else void group.remove().finally(() => resolve(end))
      }
      child.once("error", () => finish(null))
      // "close" comes after the last process that holds a stream is gone.
      child.once("close", (code) => finish(code))
    })
    child.stdin?.on("error", () => {
      // The shell ended before it read the line; "close" reports how.
    })
    if (child.pid !== undefined) group?.add(child.pid)
    child.stdin?.end("go\n")
  }

  kill(reason: EndReason): void {
    if (this.#reason === "exit") this.#reason = reason
    this.#group?.kill()
    const pid = this.#child.pid
    if (pid === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null) return
    try {
      // Bubblewrap's first process in the pid namespace dies with it, and the kernel then ends everything in that namespace.
      process.kill(-pid, "SIGKILL")
    } catch {
      // Gone in the meantime.
    }
  }

  #watchMemory(memoryBytes: number): void {
    const pid = this.#child.pid
    if (pid !== undefined && treeMemoryBytes(pid) > memoryBytes) this.kill("memory")
  }
}

/** Bubblewrap reports an exit code on its status pipe only if the program started. */
function reasonOfExit(status: string, group: ControlGroup | undefined): EndReason {
  if (group?.wasOutOfMemory() ?? false) return "memory"
  return status.includes('"exit-code"') ? "exit" : "sandbox"
}

/** Keeps the first `limit` bytes and the last 64 KiB of a stream. */
class Capture {
  readonly #limit: number
  #head: Uint8Array = new Uint8Array()
  #tail: Uint8Array = new Uint8Array()

  constructor(limit: number) {
    this.#limit = limit
  }

  add(chunk: Uint8Array): void {
    const room = Math.min(this.#limit - this.#head.length, chunk.length)
    if (room > 0) this.#head = concatBytes(this.#head, viewOf(chunk, 0, room))
    const tail = concatBytes(this.#tail, chunk)
    const length = Math.min(tail.length, tailBytes)
    this.#tail = new Uint8Array(viewOf(tail, tail.length - length, length))
  }

  head(): Uint8Array {
    return this.#head
  }
  tail(): Uint8Array {
    return this.#tail
  }
  text(): string {
    return Buffer.from(this.#head).toString("latin1")
  }
}

const statusBytes = 4096
const tailBytes = 64 * 1024
/** Wall clock, and memory where there is no memory controller, are looked at this often: a job can pass its limits for that long. */
const watchdogMilliseconds = 250

/** What of the machine's own measured root a job sees, read-only. No /sys, no /run, no /var, no home. */
const measuredRoot = [
  "/usr",
  "/etc/alternatives",
  "/etc/ld.so.cache",
  "/etc/ld.so.conf",
  "/etc/ld.so.conf.d",
  "/etc/localtime",
  "/etc/python3",
  "/etc/python3.11",
  "/etc/python3.12",
  "/etc/python3.13",
] as const

/** A merged /usr, as on every Debian since 12 and Ubuntu since 20.04. */
const rootLinks = [
  ["usr/bin", "/bin"],
  ["usr/sbin", "/sbin"],
  ["usr/lib", "/lib"],
  ["usr/lib64", "/lib64"],
] as const
