import { type ChildProcess, spawn } from "node:child_process"
import { copyFile, mkdir, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { encodeUtf8 } from "../../src/bytes/text.ts"
import { exists } from "../cache.ts"
import { LabError } from "../error.ts"
import { diskSerials, type ImageKind, memoryMiB } from "../image/recipe.ts"
import { dyingWithUs } from "../process.ts"
import { chooseAccelerator } from "./accelerator.ts"
import { ConsoleFile } from "./console.ts"
import { findFirmware } from "./firmware.ts"
import { type Disk, type Forward, qemuArguments } from "./qemu.ts"
import type { LabTpm } from "./tpm.ts"

/** What a machine boots from; an `Image` is one. */
export interface Bootable {
  readonly kind: ImageKind
  readonly kernel: string
  readonly initrd: string
  readonly commandLine: string
  readonly disks: readonly Disk[]
}

export interface MachineOptions {
  readonly image: Bootable
  /** Used by this machine alone. */
  readonly tpm: LabTpm
  /** Where console, process ids and firmware variables go; made if it is not there. */
  readonly folder: string
  /** JSON text or bytes for the configuration disk: untrusted input for the agent. */
  readonly configuration?: string | Uint8Array
  /** An ext4 disk whose programs an administered machine runs before the agent. */
  readonly maintenanceDisk?: string
  readonly memoryMiB?: number
  /** Default `defaultProcessors`. */
  readonly processors?: number
  /** Default `host`. */
  readonly network?: "none" | "host"
  readonly forwards?: readonly Forward[]
  /** A Unix socket of this host to which the machine's connections to `channelAddress` lead, and nobody else's. */
  readonly channelSocket?: string
  /** Called with QEMU's arguments before QEMU starts: for who must know what it will read. */
  readonly onLaunch?: (qemuWords: readonly string[]) => Promise<void>
  readonly accelerator?: "kvm" | "tcg"
  /** Whether the machine goes on when this process ends, for `perun lab boot`; default false: it dies with it, also when it is killed. */
  readonly detached?: boolean
}

export const defaultProcessors = 2

/** How a machine ended: QEMU's exit status, 0 after the guest turned itself off, or the signal. */
export interface MachineEnd {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** Boots a machine; it is stopped when the value goes out of an `await using` scope. @throws {LabError} `machine-ended` when QEMU or the TPM does not start */
export async function bootMachine(options: MachineOptions): Promise<Machine> {
  const { image, tpm, folder } = options
  await mkdir(folder, { recursive: true })
  const accelerator = options.accelerator ?? (await chooseAccelerator())
  const firmware = await findFirmware()
  const firmwareVariables = join(folder, "firmware-variables.fd")
  await copyFile(firmware.variables, firmwareVariables)
  const consolePath = join(folder, "console")
  await rm(consolePath, { force: true })
  const disks = [...image.disks]
  if (options.configuration !== undefined) {
    const path = join(folder, "configuration.img")
    await writeFile(path, configurationDisk(options.configuration))
    disks.push({ path, serial: diskSerials.config })
  }
  if (options.maintenanceDisk !== undefined) disks.push({ path: options.maintenanceDisk, serial: diskSerials.maintenance })
  // A socket's path has at most 107 bytes, so it does not lie in the folder.
  const socketFolder = await mkdtemp(join(tmpdir(), "perun-machine-"))
  const tpmSocket = join(socketFolder, "tpm")
  const detached = options.detached ?? false
  const log = await open(join(folder, "host.log"), "w")
  try {
    const words = qemuArguments({
      accelerator,
      firmwareCode: firmware.code,
      firmwareVariables,
      kernel: image.kernel,
      initrd: image.initrd,
      commandLine: image.commandLine,
      disks,
      tpmSocket,
      consolePath,
      memoryMiB: options.memoryMiB ?? memoryMiB[image.kind],
      processors: options.processors ?? defaultProcessors,
      network: options.network ?? "host",
      forwards: options.forwards ?? [],
      ...(options.channelSocket === undefined ? {} : { channel: relayTo(options.channelSocket) }),
    })
    await options.onLaunch?.(words)
    const swtpm = await startTpm(tpm.folder, tpmSocket, log.fd, detached)
    const qemu = start("qemu-system-x86_64", words, log.fd, detached)
    const machine = new Machine(folder, consolePath, accelerator, qemu, swtpm)
    await machine.started()
    await writeFile(pidFile(folder), `${JSON.stringify({ qemu: qemu.pid, swtpm: swtpm.pid })}\n`)
    if (detached) machine.letGo()
    return machine
  } finally {
    // QEMU has its connection, or there is none: nobody needs the path any more, and no crash can leave it behind.
    await rm(socketFolder, { recursive: true, force: true })
    await log.close()
  }
}

/** A machine that runs or ran. */
export class Machine implements AsyncDisposable {
  readonly folder: string
  readonly consolePath: string
  readonly accelerator: "kvm" | "tcg"
  /** Settles when QEMU has ended, for whatever reason; never rejects. */
  readonly ended: Promise<MachineEnd>
  readonly #console: ConsoleFile
  readonly #qemu: ChildProcess
  readonly #swtpm: ChildProcess
  #end: MachineEnd | undefined

  constructor(folder: string, consolePath: string, accelerator: "kvm" | "tcg", qemu: ChildProcess, swtpm: ChildProcess) {
    this.folder = folder
    this.consolePath = consolePath
    this.accelerator = accelerator
    this.#console = new ConsoleFile(consolePath)
    this.#qemu = qemu
    this.#swtpm = swtpm
    const { promise, resolve } = Promise.withResolvers<MachineEnd>()
    qemu.on("error", () => resolve({ code: null, signal: null }))
    qemu.on("exit", (code, signal) => resolve({ code, signal }))
    this.ended = promise.then(async (end) => {
      this.#end = end
      swtpm.kill("SIGTERM")
      await rm(pidFile(folder), { force: true })
      return end
    })
  }

  get running(): boolean {
    return this.#end === undefined
  }

  /** Process id of QEMU. */
  get pid(): number | undefined {
    return this.#qemu.pid
  }

  async consoleText(): Promise<string> {
    return await this.#console.text()
  }

  /**
   * Waits until the console shows text or pattern, and gives what matched.
   * @throws {LabError} `console-timeout`, `machine-ended`; the message ends with the console's last lines
   */
  async waitForConsole(wanted: string | RegExp, options: { readonly timeoutSeconds: number }): Promise<string> {
    const deadline = performance.now() + options.timeoutSeconds * 1000
    const found = await this.#console.find(wanted, () => !this.running || performance.now() > deadline)
    if (found !== undefined) return found
    const what = typeof wanted === "string" ? wanted : wanted.source
    const tail = (await this.consoleText()).trimEnd().split("\n").slice(-8).join("\n")
    if (!this.running) throw new LabError("machine-ended", `the machine ended before its console showed "${what}"; last lines:\n${tail}`)
    throw new LabError("console-timeout", `no "${what}" on the console within ${options.timeoutSeconds} s; last lines:\n${tail}`)
  }

  /** Ends the machine as pulling the plug does, and waits for it. Its disks are throw-away layers, so nothing is lost that it was to keep. */
  async stop(): Promise<MachineEnd> {
    this.#qemu.kill("SIGTERM")
    const timer = setTimeout(() => this.#qemu.kill("SIGKILL"), stopGraceMs)
    try {
      return await this.ended
    } finally {
      clearTimeout(timer)
    }
  }

  /** The same at once. */
  async kill(): Promise<MachineEnd> {
    this.#qemu.kill("SIGKILL")
    return await this.ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** Resolves when QEMU has opened the console. */
  async started(): Promise<void> {
    const deadline = performance.now() + startTimeoutMs
    while (!(await exists(this.consolePath))) {
      if (this.running && performance.now() < deadline) {
        await sleep(20)
        continue
      }
      await this.kill()
      const log = await readFile(join(this.folder, "host.log"), "utf8").catch(() => "")
      throw new LabError("machine-ended", `QEMU did not start: ${log.trimEnd().split("\n").slice(-3).join("; ")}`)
    }
  }

  /** Lets this process end while the machine goes on. */
  letGo(): void {
    this.#qemu.unref()
    this.#swtpm.unref()
  }
}

/** Stops the machine of a folder, started by whatever process; false if none runs. */
export async function stopMachineOf(folder: string): Promise<boolean> {
  let stopped = false
  for (const pid of await processesOf(folder)) stopped = process.kill(pid, "SIGTERM") || stopped
  await rm(pidFile(folder), { force: true })
  return stopped
}

/** Whether the machine of a folder runs, started by whatever process. */
export async function machineRunsIn(folder: string): Promise<boolean> {
  return (await processesOf(folder)).length > 0
}

async function processesOf(folder: string): Promise<readonly number[]> {
  const text = await readFile(pidFile(folder), "utf8").catch(() => undefined)
  if (text === undefined) return []
  const pids = JSON.parse(text) as { readonly qemu?: number; readonly swtpm?: number }
  const running: number[] = []
  for (const pid of [pids.qemu, pids.swtpm]) if (pid !== undefined && (await isOurs(pid))) running.push(pid)
  return running
}

/** Whether a process of this number is one that the laboratory starts: the number may belong to another since. */
async function isOurs(pid: number): Promise<boolean> {
  const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "")
  return name.startsWith("qemu-system-x86") || name.startsWith("swtpm")
}

/** JSON text padded with NUL to whole sectors of 512 bytes, at least 4096. */
export function configurationDisk(configuration: string | Uint8Array): Uint8Array {
  const bytes = typeof configuration === "string" ? encodeUtf8(configuration) : configuration
  const disk = new Uint8Array(Math.max(4096, Math.ceil(bytes.length / 512) * 512))
  disk.set(bytes)
  return disk
}

/** Joins a connection of the machine to a socket of the host. */
function relayTo(socket: string): readonly string[] {
  const relay = fileURLToPath(new URL("channel-relay.ts", import.meta.url))
  // Whatever it printed would go into the machine's connection.
  return [process.execPath, "--no-warnings", relay, socket]
}

async function startTpm(state: string, socket: string, log: number, detached: boolean): Promise<ChildProcess> {
  const swtpm = start(
    "swtpm",
    ["socket", "--tpm2", "--tpmstate", `dir=${state}`, "--ctrl", `type=unixio,path=${socket}`, "--terminate"],
    log,
    detached,
  )
  const deadline = performance.now() + startTimeoutMs
  while (!(await exists(socket))) {
    if (swtpm.exitCode !== null || swtpm.signalCode !== null || performance.now() > deadline) {
      swtpm.kill("SIGKILL")
      throw new LabError("machine-ended", "the machine's TPM did not start")
    }
    await sleep(10)
  }
  return swtpm
}

function start(program: string, programArguments: readonly string[], log: number, detached: boolean): ChildProcess {
  const [command, words] = detached ? [program, [...programArguments]] : dyingWithUs(program, programArguments)
  // A session of its own: Ctrl-C at the terminal reaches us, and we stop it in order.
  const child = spawn(command, words, { stdio: ["ignore", log, log], detached: true })
  child.on("error", () => undefined) // Shows as an end without a status.
  return child
}

function pidFile(folder: string): string {
  return join(folder, "machine.json")
}

const startTimeoutMs = 20_000
const stopGraceMs = 3_000
