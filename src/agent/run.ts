import { rm, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import type { Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { viewOf } from "../bytes/view.ts"
import { own, type Job, type Output } from "../policy/document.ts"
import { type MetricValues, type OutputRequest, type RunReason, type RunReport, runReasons, wallSecondsGrain } from "../protocol/messages.ts"
import { documentSchema, parseShape } from "../protocol/wire.ts"
import { blobFileName, blobFolder, indexFileName, shardFileName } from "../sealing/blobs.ts"
import type { ArtifactKind, ManifestSigner, SignedManifest } from "../sealing/manifest.ts"
import { openArtifact } from "../sealing/open-artifact.ts"
import { sealArtifact } from "../sealing/seal-artifact.ts"
import type { ReleasedToJob, VerifiedGrant } from "./claim.ts"
import { AgentError } from "./error.ts"
import type { AgentLog } from "./log.ts"
import { MetricsFilter, MetricsFollower } from "./metrics.ts"
import { checkOutputFiles } from "./output-files.ts"
import { countRows } from "./rows.ts"
import { startSandbox, type JobEnd, type RunningJob } from "./sandbox.ts"
import { Scratch } from "./scratch.ts"
import { seccompFilter } from "./seccomp.ts"
import { conventionFiles, jobUser, metricsTarget, planWorkload } from "./workload.ts"

/** What a run needs of the manager. Each call tries again by itself while the lease lives, but for metrics, which are dropped. */
export interface RunExchange {
  /** Downloads a blob into a file and checks its digest. */
  getBlob(digest: Digest, path: string, sizeBytes: number, signal: AbortSignal): Promise<void>
  putBlob(digest: Digest, path: string, signal: AbortSignal): Promise<void>
  reportOutput(output: OutputRequest, signal: AbortSignal): Promise<void>
  reportMetrics(values: MetricValues, signal: AbortSignal): Promise<void>
}

export interface RunWorld {
  readonly exchange: RunExchange
  readonly log: AgentLog
  /** Folder for scratch; a tmpfs is mounted below it. */
  readonly scratchBase: string
  /** Signs the manifests of outputs. */
  readonly signer: ManifestSigner
  /** Seconds on a monotonic clock. */
  readonly now: () => number
}

/**
 * Runs a granted job: opens the inputs into memory, starts the program in the sandbox, passes its metrics on, checks and seals its outputs. Scratch is wiped in
 * every case. What is at fault with the job, its inputs or outputs is told in the report; a lease that ends (`lease` aborts) stops everything and throws its reason.
 */
export async function executeRun(grant: VerifiedGrant, released: ReleasedToJob, world: RunWorld, lease: AbortSignal): Promise<RunReport> {
  const run = new Run(grant, world, lease)
  try {
    return await run.execute(released)
  } catch (error) {
    lease.throwIfAborted()
    // Only our own words leave: messages of other rooms and of the system may name files of an input.
    const code = error instanceof PerunError ? error.code : "internal"
    const message = error instanceof AgentError ? error.message : "while the inputs were opened or the outputs sealed"
    world.log("trouble", { code, message, ...(code === "internal" ? { at: placeOf(error) } : {}) })
    return { status: "failed", reason: error instanceof AgentError || run.hasStarted ? "machine" : "inputs" }
  } finally {
    await run.wipe()
    world.log("scratch-wiped")
  }
}

class Run {
  readonly #grant: VerifiedGrant
  readonly #world: RunWorld
  readonly #lease: AbortSignal
  #scratch: Scratch | undefined
  #job: RunningJob | undefined

  constructor(grant: VerifiedGrant, world: RunWorld, lease: AbortSignal) {
    this.#grant = grant
    this.#world = world
    this.#lease = lease
  }

  get hasStarted(): boolean {
    return this.#job !== undefined
  }

  async execute({ identities, secrets }: ReleasedToJob): Promise<RunReport> {
    const scratch = await Scratch.create(this.#world.scratchBase, scratchBytes(this.#grant))
    this.#scratch = scratch
    const inputs = await this.#openInputs(scratch, identities)
    const rowsPerInput = await this.#countRows(inputs)
    const outputs = await this.#outputAreas(scratch)
    const end = await this.#runJob(scratch, inputs, outputs, secrets)
    // What the program can choose is told in a few words and large steps: reports and the console are read by those who may not see its data.
    const wallSeconds = Math.ceil(end.wallSeconds / wallSecondsGrain) * wallSecondsGrain
    this.#world.log("job-ended", { reason: end.reason, seconds: wallSeconds })
    await this.#sealLogs(scratch, end)
    const facts = { rowsPerInput, wallSeconds }
    if (end.reason !== "exit" || end.exitCode !== 0) return { status: "failed", reason: this.#whyFailed(end), ...this.#exitOf(end), ...facts }
    try {
      await this.#sealOutputs(scratch, outputs)
    } catch (error) {
      this.#lease.throwIfAborted()
      if (!(error instanceof AgentError)) throw error
      return { status: "failed", reason: isReason(error.code) ? error.code : "machine", ...facts }
    }
    return { status: "succeeded", ...facts }
  }

  async wipe(): Promise<void> {
    this.#job?.kill("stopped")
    await this.#job?.ended
    await this.#scratch?.wipe()
  }

  /** Folder of each opened input by name. */
  async #openInputs(scratch: Scratch, identities: ReadonlyMap<string, string>): Promise<Readonly<Record<string, string>>> {
    const folders: Record<string, string> = {}
    const inputs = await scratch.folder("inputs")
    for (const [name, signed] of this.#grant.inputs) {
      const identity = identities.get(name)
      if (identity === undefined) throw new TypeError(`internal: no key for ${name}`)
      const destination = join(inputs, name)
      const blobs = await scratch.folder("blobs")
      for (const { digest, sizeBytes } of [...signed.manifest.shards, signed.manifest.index])
        await this.#world.exchange.getBlob(digest, join(blobs, blobFileName(digest)), sizeBytes, this.#lease)
      await openArtifact({ signed, blobs: blobFolder(blobs), identity, destination, signal: this.#lease })
      await rm(blobs, { recursive: true })
      await scratch.giveForReading(destination, jobUser)
      folders[name] = destination
      this.#world.log("input-opened", { artifact: name, files: signed.manifest.files.count, bytes: signed.manifest.files.bytes })
    }
    return folders
  }

  async #countRows(inputs: Readonly<Record<string, string>>): Promise<Record<string, number>> {
    const rows: Record<string, number> = {}
    for (const [name, folder] of Object.entries(inputs)) {
      if (own(this.#grant.policy.artifacts, name)?.kind === "code") continue
      const count = await countRows(folder)
      if (count !== undefined) rows[name] = count
    }
    return rows
  }

  async #outputAreas(scratch: Scratch): Promise<Readonly<Record<string, string>>> {
    await scratch.folder("outputs")
    const areas: Record<string, string> = {}
    for (const [name, { maxBytes }] of Object.entries(this.#grant.job.outputs))
      // Room for pages and folders; what counts against the policy is checked at the end.
      areas[name] = await scratch.area(join("outputs", name), maxBytes * 1.1 + mebibyte, jobUser)
    return areas
  }

  async #runJob(
    scratch: Scratch,
    inputs: Readonly<Record<string, string>>,
    outputs: Readonly<Record<string, string>>,
    secrets: ReadonlyMap<string, Uint8Array>,
  ): Promise<JobEnd> {
    const { policy, job } = this.#grant
    const loose = await scratch.area("loose", looseBytes, jobUser)
    const temporary = await scratch.area("tmp", temporaryBytes, jobUser)
    const sharedMemory = await scratch.area("shm", Math.max(temporaryBytes, job.resources.memoryBytes / 2), jobUser)
    const conventions = await writeConventions(scratch)
    const filter = join(scratch.path, "filter")
    await writeFile(filter, seccompFilter(architecture()), { mode: 0o600 })
    const secretFiles = await writeSecrets(scratch, job, secrets)
    const plan = planWorkload(policy, job, { inputs, outputs, loose, temporary, sharedMemory, conventions, secretFiles }, secrets)
    const { memoryBytes, wallSeconds } = job.resources
    const captureBytes = job.logs === "none" ? 0 : Math.floor(job.logs.maxBytes / 2)

    this.#lease.throwIfAborted()
    const running = await startSandbox(plan, { memoryBytes, wallSeconds, maxProcesses, captureBytes }, filter)
    this.#job = running
    this.#world.log("job-started", { run: this.#grant.run, job: this.#grant.jobName })
    const stop = (): void => running.kill("stopped")
    this.#lease.addEventListener("abort", stop)
    // The lease may have ended while the program was being started.
    if (this.#lease.aborted) stop()
    try {
      const end = await this.#followMetrics(running, join(loose, metricsTarget.substring(dirname(metricsTarget).length)))
      this.#lease.throwIfAborted()
      return end
    } finally {
      this.#lease.removeEventListener("abort", stop)
    }
  }

  /** Passes metrics on until the job ends. A manager that is away costs the job its metrics, not its time. */
  async #followMetrics(running: RunningJob, path: string): Promise<JobEnd> {
    const { metrics } = this.#grant.job
    if (metrics === "none") return running.ended
    const filter = new MetricsFilter(metrics)
    const follower = new MetricsFollower(path, filter)
    let end: JobEnd | undefined
    let lost = 0
    while (end === undefined) {
      end = await Promise.race([running.ended, pauseMilliseconds(1000)])
      for (const values of await follower.poll(this.#world.now(), end !== undefined)) {
        if (this.#lease.aborted) break
        try {
          await this.#world.exchange.reportMetrics(values, this.#lease)
        } catch (error) {
          if (!(error instanceof PerunError) && !this.#lease.aborted) throw error
          lost++
        }
      }
    }
    const dropped = Object.entries(filter.dropped).filter(([, count]) => count > 0)
    if (lost > 0 || dropped.length > 0) this.#world.log("trouble", { code: "metrics-dropped", lost, ...Object.fromEntries(dropped) })
    return end
  }

  #whyFailed(end: JobEnd): RunReason {
    switch (end.reason) {
      case "wall-clock":
      case "memory":
        return end.reason
      case "sandbox":
        this.#world.log("trouble", { code: "sandbox-unavailable", message: sandboxComplaint(end) })
        return "sandbox"
      case "stopped":
      case "exit":
        return "job-failed"
    }
  }

  /** How a program ended is for the readers of its logs; where there are none it is not told. */
  #exitOf({ reason, exitCode }: JobEnd): { exit?: "error" | "signal" } {
    if (reason !== "exit" || this.#grant.job.logs === "none") return {}
    return { exit: exitCode === null || exitCode > shellSignalBase ? "signal" : "error" }
  }

  async #sealLogs(scratch: Scratch, end: JobEnd): Promise<void> {
    const { logs } = this.#grant.job
    if (logs === "none") return
    const folder = await scratch.folder("logs")
    const half = Math.floor(logs.maxBytes / 2)
    for (const [name, bytes] of Object.entries({ "stdout.txt": end.stdout, "stderr.txt": end.stderr }))
      await writeFile(join(folder, name), viewOf(bytes, 0, Math.min(bytes.length, half)))
    await this.#seal(scratch, "logs", folder, "log")
  }

  /** All are checked before the first leaves. */
  async #sealOutputs(scratch: Scratch, areas: Readonly<Record<string, string>>): Promise<void> {
    const outputs = Object.entries(this.#grant.job.outputs).map(([name, output]) => ({ name, output, folder: areaOf(areas, name) }))
    for (const { name, output, folder } of outputs) await checkOutputFiles(name, folder, output satisfies Output)
    for (const { name, folder } of outputs) await this.#seal(scratch, name, folder, "output")
  }

  async #seal(scratch: Scratch, name: string, source: string, kind: ArtifactKind): Promise<void> {
    const output = await scratch.folder("sealed", name)
    const { exchange, signer, log } = this.#world
    const key = { recipient: this.#grant.outputRecipient }
    const { signed, digest } = await sealArtifact({ source, output, kind, name, signer, key, executables: "drop", signal: this.#lease })
    const blobs = blobsOf(signed)
    for (const blob of blobs) await exchange.putBlob(blob.digest, join(output, blob.file), this.#lease)
    await exchange.reportOutput({ name, manifest: parseShape(documentSchema, signed) }, this.#lease)
    log("output-sealed", { name, manifest: digest, bytes: sum(blobs.map(({ sizeBytes }) => sizeBytes)) })
  }
}

/** Every blob that a manifest names, with the file in which `sealArtifact` left it. */
function blobsOf({ manifest }: SignedManifest): readonly { readonly digest: Digest; readonly sizeBytes: number; readonly file: string }[] {
  const { digest, sizeBytes } = manifest.index
  return [...manifest.shards.map((shard, number) => ({ ...shard, file: shardFileName(number) })), { digest, sizeBytes, file: indexFileName }]
}

/** Inputs in the open and, one at a time, sealed; outputs sealed; room for tar, folders and pages. */
function scratchBytes({ inputs, job }: VerifiedGrant): number {
  const sealed = [...inputs.values()].map(({ manifest }) => sum([...manifest.shards, manifest.index].map(({ sizeBytes }) => sizeBytes)))
  const opened = [...inputs.values()].map(({ manifest }) => manifest.files.bytes + manifest.files.count * pageBytes)
  const outputs = Object.values(job.outputs).map(({ maxBytes }) => maxBytes * 1.1 + mebibyte)
  const logs = job.logs === "none" ? 0 : 2 * job.logs.maxBytes
  return sum(opened) + Math.max(0, ...sealed) + sum(outputs) + logs + 16 * mebibyte
}

async function writeConventions(scratch: Scratch): Promise<string> {
  const folder = await scratch.folder("conventions")
  await scratch.folder("conventions", "config")
  for (const [name, text] of Object.entries(conventionFiles())) await writeFile(join(folder, name), text)
  await scratch.giveForReading(folder, jobUser)
  return folder
}

/** Files of those secrets that the job finds as files, by name: in memory like all scratch, readable by the job alone. */
async function writeSecrets(scratch: Scratch, job: Job, secrets: ReadonlyMap<string, Uint8Array>): Promise<Readonly<Record<string, string>>> {
  const files: Record<string, string> = {}
  const folder = await scratch.folder("secrets")
  for (const [name, use] of Object.entries(job.secrets ?? {})) {
    const value = secrets.get(name)
    if (value === undefined) throw new TypeError(`internal: no value for ${name}`)
    if (!("file" in use)) continue
    files[name] = join(folder, name)
    await writeFile(files[name], value, { mode: 0o600 })
  }
  await scratch.giveForReading(folder, jobUser)
  return files
}

/** Bubblewrap's own line, where nothing but that was written: a program's words never reach the console. */
function sandboxComplaint(end: JobEnd): string {
  const text = Buffer.from(end.stderrTail).toString("latin1")
  return /^(?:bwrap|sh): [^\n]{1,300}\n$/.test(text) ? text.trim() : "no reason given"
}

function areaOf(areas: Readonly<Record<string, string>>, name: string): string {
  const area = own(areas, name)
  if (area === undefined) throw new TypeError(`internal: no area for output ${name}`)
  return area
}

function architecture(): "x64" | "arm64" {
  if (process.arch === "x64" || process.arch === "arm64") return process.arch
  throw new AgentError("sandbox-unavailable", `no system call filter for ${process.arch}`)
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

/** Function, file and line where an error arose, without its message. */
export function placeOf(error: unknown): string {
  const frame = error instanceof Error ? /^ {4}at .*$/m.exec(error.stack ?? "")?.[0] : undefined
  return frame?.trim() ?? "an unknown place"
}

function isReason(code: string): code is RunReason {
  return Object.hasOwn(runReasons, code)
}

/** Exit codes above it tell of a signal, as the sandbox's first process passes them on. */
const shellSignalBase = 128

function pauseMilliseconds(milliseconds: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), milliseconds))
}

const mebibyte = 1024 * 1024
const pageBytes = 4096
/** For the metrics file and what a program leaves beside it. */
const looseBytes = 64 * mebibyte
const temporaryBytes = 256 * mebibyte
const maxProcesses = 1024
