import { closeSync, readdirSync, readFileSync, writeSync } from "node:fs"
import { performance } from "node:perf_hooks"
import { setTimeout as sleep } from "node:timers/promises"
import { MalformedError, PerunError, UnavailableError } from "../bytes/error.ts"
import type { TpmLocation } from "../evidence/tpm/client/transport.ts"
import { HostAgent, type Outcome } from "./agent.ts"
import { loadConfigDisk, loadConfigFile } from "./config.ts"
import { openDevices } from "./devices.ts"
import type { LeaseClock } from "./lease.ts"
import { logLine, type AgentLog } from "./log.ts"
import { placeOf } from "./run.ts"

/** How the agent is started, on a lab machine (no options) or by `perun agent run`. */
export interface AgentOptions {
  /** Configuration file; without one the disk with the serial `perun-config` is read. */
  readonly config?: string
  /** Where the TPM is, if not at the kernel's resource manager. */
  readonly tpm?: TpmLocation
  /** Ends after the first run or refusal, whatever the configuration says. */
  readonly once?: boolean
  readonly log?: AgentLog
  readonly stop: AbortSignal
}

/**
 * Runs the agent until it is stopped, or with `once` until the first run or refusal, whose outcome it returns.
 * @throws {PerunError} of any room where the agent cannot go on: no configuration, no TPM, somebody else in the manager's place
 */
export async function runAgent(options: AgentOptions): Promise<Outcome | undefined> {
  const log = options.log ?? writeLog
  const loaded = options.config === undefined ? await loadConfigDisk() : await loadConfigFile(options.config)
  const config = options.once === true ? { ...loaded, once: true } : loaded
  await using devices = await openDevices(config, options.tpm)
  log("started", { host: config.host, manager: config.manager.url, ...devices.names })
  const { attester } = devices
  const agent = new HostAgent(config, { attester, log, clock, random: Math.random }, options.stop)
  const outcome = await agent.work()
  log("stopped", outcome === undefined ? {} : { outcome })
  return outcome
}

/** Written at once, so that a console shows the last words of a program that is killed. */
function writeLog(...[event, facts]: Parameters<AgentLog>): void {
  writeSync(1, logLine(event, facts))
}

const clock: LeaseClock = {
  now: () => performance.now() / 1000,
  async sleep(seconds, signal) {
    try {
      await sleep(seconds * 1000, undefined, { signal })
    } catch (error) {
      if (!signal.aborted) throw error // An aborted sleep ends early, that is all.
    }
  },
}

/**
 * Descriptors that this program was started with would otherwise be open in the job too: bubblewrap passes on whatever is not marked close-on-exec.
 */
function closeInherited(): void {
  for (const name of readdirSync("/proc/self/fdinfo")) {
    const fd = Number(name)
    if (fd <= 2) continue
    try {
      const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${name}`, "utf8"))?.[1]
      if (flags !== undefined && (Number.parseInt(flags, 8) & closeOnExec) === 0) closeSync(fd)
    } catch {
      // It was the descriptor of the listing itself.
    }
  }
}

/** O_CLOEXEC. */
const closeOnExec = 0o2000000

/** Exit status as style.md has it; the command line has the same table for its own commands. */
function exitStatusOf(error: unknown): number {
  if (error instanceof MalformedError) return 30
  if (error instanceof UnavailableError) return error.code === "unsupported" ? 20 : 40
  if (error instanceof PerunError) return error.code === "configuration" ? 2 : 10
  return 1
}

async function main(): Promise<number> {
  process.umask(0o022)
  closeInherited()
  const stopping = new AbortController()
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stopping.abort())
  const [flag, path, ...rest] = process.argv.slice(2)
  if ((flag !== undefined && (flag !== "--config" || path === undefined)) || rest.length > 0) {
    process.stderr.write("usage: main.ts [--config FILE]\n")
    return 2
  }
  try {
    const outcome = await runAgent({ ...(path === undefined ? {} : { config: path }), stop: stopping.signal })
    if (outcome === undefined) return stopping.signal.aborted ? 130 : 0
    return outcome === "succeeded" ? 0 : 10
  } catch (error) {
    const known = error instanceof PerunError
    // The message of an error that is not ours might name a file of an input.
    writeLog("stopped", known ? { code: error.code, message: error.message } : { code: "internal", at: placeOf(error) })
    return exitStatusOf(error)
  }
}

if (import.meta.main) process.exitCode = await main()
