import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { RefusalView, RunView, WireFinding } from "../../src/protocol/messages.ts"
import { LabError } from "../error.ts"
import type { Image } from "../image/build.ts"
import type { TdxProcessor } from "../devices/tdx-processor.ts"
import { bootMachine, type Machine } from "../machine/boot.ts"
import { startConfidentialMachine, teeUrlForGuests } from "../machine/confidential-machine.ts"
import type { LabTpm } from "../machine/tpm.ts"
import type { ManagerProcess } from "./manager-process.ts"
import type { Party } from "./party.ts"

/** A machine that is booted, asks for work once, and is then judged by what the manager did about it. */
export interface MachineTrial {
  /** Name under which the machine enrols. */
  readonly host: string
  readonly image: Image
  readonly tpm: LabTpm
  readonly maintenanceDisk?: string
  /** Default 2. */
  readonly processors?: number
  /** A TEE device that the machine carries. */
  readonly tee?: TrialTee
}

/** The device of a machine's own processor, or a socket behind which another machine's answers; with the machine's TPM, or alone. */
export interface TrialTee {
  readonly device: { readonly processor: TdxProcessor } | { readonly borrowedAt: string }
  readonly showsTpm: boolean
}

/** What became of a trial: the run that the machine did, or the refusal. */
export type TrialResult =
  | { readonly host: string; readonly outcome: "succeeded"; readonly run: RunView; readonly seconds: number }
  | { readonly host: string; readonly outcome: "refused"; readonly run: RunView; readonly refusal: RefusalView; readonly seconds: number }

export interface TrialOptions {
  readonly manager: ManagerProcess
  /** A party of the study, who may see its runs. */
  readonly watcher: Party
  /** Folder for the machines' consoles. */
  readonly folder: string
  readonly timeoutSeconds: number
  readonly signal: AbortSignal
}

/**
 * Boots a machine whose agent claims once, and waits until one of `runs` shows that it was granted and done, or refused.
 * @throws {LabError} `machine-ended`, `console-timeout` when nothing came of it; the message has the console's last lines
 */
export async function tryMachine(trial: MachineTrial, runs: readonly string[], options: TrialOptions): Promise<TrialResult> {
  const started = performance.now()
  const folder = join(options.folder, trial.host)
  await mkdir(folder, { recursive: true })
  await using cleanUp = new AsyncDisposableStack()
  const machine = await bootTrial(trial, folder, options.manager, cleanUp)
  const deadline = started + options.timeoutSeconds * 1000
  for (;;) {
    options.signal.throwIfAborted()
    // Asked before the runs are, so that what the machine did last is seen.
    const over = !machine.running || performance.now() > deadline
    const seconds = (performance.now() - started) / 1000
    for (const id of runs) {
      const run = await options.watcher.run(id)
      const refusal = run.refusals.find(({ host }) => host === trial.host)
      if (refusal !== undefined) return { host: trial.host, outcome: "refused", run, refusal, seconds }
      if (run.host === trial.host && run.state === "succeeded") return { host: trial.host, outcome: "succeeded", run, seconds }
      if (run.host === trial.host && run.endedAt !== undefined)
        throw new LabError("machine-ended", `the run of ${trial.host} ${run.state}: ${run.reason ?? ""}`)
    }
    if (over) {
      const tail = (await machine.consoleText()).trimEnd().split("\n").slice(-8).join("\n")
      throw new LabError(
        machine.running ? "console-timeout" : "machine-ended",
        `${trial.host} was neither granted nor refused; its console ends:\n${tail}`,
      )
    }
    await sleep(500)
  }
}

async function bootTrial(trial: MachineTrial, folder: string, manager: ManagerProcess, cleanUp: AsyncDisposableStack): Promise<Machine> {
  const { host, image, tpm, maintenanceDisk, processors, tee } = trial
  const options = {
    ...{ image, tpm, folder, configuration: agentConfiguration(host, manager, tee) },
    ...(maintenanceDisk === undefined ? {} : { maintenanceDisk }),
    ...(processors === undefined ? {} : { processors }),
  }
  if (tee === undefined) return cleanUp.use(await bootMachine(options))
  if ("borrowedAt" in tee.device) return cleanUp.use(await bootMachine({ ...options, channelSocket: tee.device.borrowedAt }))
  return cleanUp.use(await startConfidentialMachine({ ...options, processor: tee.device.processor })).machine
}

/** Configuration disk of a machine whose agent claims once. */
export function agentConfiguration(host: string, manager: ManagerProcess, tee?: Pick<TrialTee, "showsTpm">): string {
  const { urlForGuests: url, key, requirement } = manager
  const shown = tee === undefined ? {} : { tee: teeUrlForGuests, tpm: tee.showsTpm }
  return JSON.stringify({ perun: 1, host, manager: { url, key, accept: requirement.accept }, once: true, ...shown })
}

/** The first finding that refuses, which names the reason. */
export function firstRefusal({ findings }: RefusalView): WireFinding | undefined {
  return findings.find(({ effect }) => effect === "refusal")
}
