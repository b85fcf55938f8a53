import { join } from "node:path"
import type { Digest } from "../../src/bytes/digest.ts"
import { policyDigest } from "../../src/policy/document.ts"
import { LabError } from "../error.ts"
import type { Image } from "../image/build.ts"
import { makeMaintenanceDisk } from "../image/maintenance.ts"
import { type LabTpm, manufactureTpm } from "../machine/tpm.ts"
import type { ManagerProcess } from "./manager-process.ts"
import type { Party } from "./party.ts"
import { type ImageReferences, labMachine, smallPolicy } from "./policies.ts"
import { firstRefusal, type MachineTrial, type TrialOptions, type TrialResult, tryMachine } from "./watch-machines.ts"

export interface AttackImages {
  readonly sealed: Image
  /** `sealed` with one changed byte in a program, its hash tree and command line made to fit. */
  readonly tampered: Image
  readonly administered: Image
  readonly references: { readonly sealed: ImageReferences; readonly administered: ImageReferences }
}

export interface AttackSetting {
  readonly images: AttackImages
  readonly manager: ManagerProcess
  readonly clinic: Party
  readonly vendor: Party
  readonly manifests: { readonly records: Digest; readonly trainer: Digest }
  /** Names of the artifacts' folders with clinic and vendor. */
  readonly folders: { readonly records: string; readonly trainer: string }
  readonly laboratoryRoot: Digest
  readonly expires: string
  readonly folder: string
  readonly signal: AbortSignal
  /** Called whenever a machine was judged. */
  readonly onJudged: (result: TrialResult, judged: number, total: number) => void
  /** Leaves the unknown program and the relay out, for a short run. */
  readonly only?: readonly string[]
}

export interface AttackResult {
  readonly attack: string
  /** The one thing in which the machine differs from its control. */
  readonly difference: string
  readonly code: string
  readonly found: string
  readonly expected: string
  /** Codes of all findings that refused it. */
  readonly codes: readonly string[]
}

interface Attack {
  readonly attack: string
  readonly difference: string
  readonly machine: "appliance" | "administered"
  /** Code that must be among the refusals. */
  readonly code: string
  /** Codes that may be among them: other marks of the same difference. */
  readonly besides: readonly string[]
  readonly trial: Omit<MachineTrial, "tpm">
  /** Whether the policy lists the machine's TPM. */
  readonly listed: boolean
}

/** Attacks whose study is agreed on and whose runs are queued. */
export interface PreparedAttacks {
  /**
   * Boots the machines that must be refused, and beside them controls that must pass. Each attack differs from its control in exactly one thing: its
   * findings may name that one thing only.
   * @throws {LabError} `not-refused` when one was granted or refused for another reason, `not-granted` when a control was refused
   */
  boot(): Promise<readonly AttackResult[]>
}

/**
 * Agrees on a study of its own for machines that must be refused and their controls, and queues a run for each. To be called before other studies queue
 * runs: a machine that no policy lists is judged by the oldest one.
 */
export async function prepareAttacks(setting: AttackSetting): Promise<PreparedAttacks> {
  const { images, clinic, vendor, folder } = setting
  const unknownProgram = await makeMaintenanceDisk(join(folder, "maintenance.img"), { "unlisted-tool": unlistedTool })
  const attacks = attackTable(images, unknownProgram).filter(({ attack }) => setting.only?.includes(attack) ?? true)
  const controls = (["appliance", "administered"] as const).filter((machine) => attacks.some((attack) => attack.machine === machine))
  // The slow part of a TPM is its RSA key; they are made one after the other beside the machine that trains.
  const tpms = new Map<string, LabTpm>()
  for (const host of [...attacks.map(({ attack }) => attack), ...controls.map((machine) => `control-${machine}`)]) {
    tpms.set(host, await manufactureTpm(join(folder, "tpms", host)))
  }
  const tpmOf = (host: string): LabTpm => {
    const tpm = tpms.get(host)
    if (tpm === undefined) throw new TypeError(`no TPM for ${host}`)
    return tpm
  }
  const listed = (machine: Attack["machine"]): readonly LabTpm[] => [
    tpmOf(`control-${machine}`),
    ...attacks.filter((attack) => attack.machine === machine && attack.listed).map(({ attack }) => tpmOf(attack)),
  ]
  const requirement = {
    appliance: () => labMachine("sealed", images.references.sealed, listed("appliance"), setting.laboratoryRoot),
    administered: () => labMachine("administered", images.references.administered, listed("administered"), setting.laboratoryRoot),
  } as const
  const policy = smallPolicy({
    study: "refused-machines",
    manager: setting.manager,
    clinic,
    vendor,
    manifests: setting.manifests,
    machines: Object.fromEntries(controls.map((machine) => [machine, requirement[machine]()])),
    expires: setting.expires,
  })
  const references = controls.flatMap((machine) => Object.values(machine === "appliance" ? images.references.sealed : images.references.administered))
  await clinic.submit(policy, references)
  for (const party of [clinic, vendor]) await party.sign(policy)
  await clinic.depositFrom(policy, "records", setting.folders.records)
  await vendor.depositFrom(policy, "trainer", setting.folders.trainer)

  const digest = policyDigest(policy)
  const runs: string[] = []
  // One run for each machine, so that none waits for another; those of the refused ones stay queued.
  for (const { machine } of attacks) runs.push(await clinic.start(digest, `train-${machine}`))
  for (const machine of controls) runs.push(await clinic.start(digest, `train-${machine}`))

  return { boot: () => bootAttacks(setting, { attacks, controls, tpmOf, runs }) }
}

interface Prepared {
  readonly attacks: readonly Attack[]
  readonly controls: readonly Attack["machine"][]
  readonly tpmOf: (host: string) => LabTpm
  readonly runs: readonly string[]
}

async function bootAttacks(setting: AttackSetting, { attacks, controls, tpmOf, runs }: Prepared): Promise<readonly AttackResult[]> {
  const { images, clinic, folder } = setting
  const image = { appliance: images.sealed, administered: images.administered } as const
  const options: TrialOptions = {
    manager: setting.manager,
    watcher: clinic,
    folder: join(folder, "machines"),
    timeoutSeconds: 600,
    signal: setting.signal,
  }
  const trials: readonly MachineTrial[] = [
    ...attacks.map((attack) => ({ ...attack.trial, tpm: tpmOf(attack.attack) })),
    ...controls.map((machine) => ({ host: `control-${machine}`, image: image[machine], tpm: tpmOf(`control-${machine}`) })),
  ]
  const results = new Map<string, TrialResult>()
  const waiting = [...trials]
  const lane = async (): Promise<void> => {
    for (let trial = waiting.shift(); trial !== undefined; trial = waiting.shift()) {
      const result = await tryMachine(trial, runs, options)
      results.set(trial.host, result)
      setting.onJudged(result, results.size, trials.length)
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  for (const run of runs) if ((await clinic.run(run)).state === "queued") await clinic.cancel(run)
  for (const machine of controls) demandGranted(results.get(`control-${machine}`))
  return attacks.map((attack) => judge(attack, results.get(attack.attack)))
}

/** Machines that boot side by side: on two cores a third one only waits. */
const lanes = 2

function attackTable(images: AttackImages, unknownProgram: string): readonly Attack[] {
  return [
    {
      attack: "modified-binary",
      difference: "one byte of /usr/bin/bwrap; hash tree and command line rebuilt to fit",
      machine: "appliance",
      code: "boot-event-differs",
      // The log holds a digest of the other command line only, so that nothing on it is shown.
      besides: ["command-line-differs", "command-line-not-measured", "ima-policy-unmeasured"],
      trial: { host: "modified-binary", image: images.tampered },
      listed: true,
    },
    {
      attack: "relay",
      difference: "its TPM, which is genuine but not listed",
      machine: "appliance",
      code: "endorsement-key-not-listed",
      besides: [],
      trial: { host: "relay", image: images.sealed },
      listed: false,
    },
    {
      attack: "unknown-program",
      difference: "one program that was run before the claim",
      machine: "administered",
      code: "ima-unknown-file",
      besides: [],
      trial: { host: "unknown-program", image: images.administered, maintenanceDisk: unknownProgram },
      listed: true,
    },
  ]
}

function demandGranted(result: TrialResult | undefined): void {
  if (result?.outcome === "succeeded") return
  const why = result === undefined ? "it was not tried" : `it was refused: ${firstRefusal(result.refusal)?.code ?? result.refusal.code}`
  throw new LabError("not-granted", `the control ${result?.host ?? ""} did not pass: ${why}`)
}

function judge(attack: Attack, result: TrialResult | undefined): AttackResult {
  if (result?.outcome !== "refused") throw new LabError("not-refused", `the machine ${attack.attack} was not refused`)
  const refusals = result.refusal.findings.filter(({ effect }) => effect === "refusal")
  const codes = [...new Set(refusals.map(({ code }) => code))]
  const reason = refusals.find(({ code }) => code === attack.code)
  const foreign = codes.filter((code) => code !== attack.code && !attack.besides.includes(code))
  if (reason === undefined || foreign.length > 0) {
    throw new LabError("not-refused", `the machine ${attack.attack} was refused for another reason: ${codes.join(", ") || result.refusal.code}`)
  }
  return {
    attack: attack.attack,
    difference: attack.difference,
    code: attack.code,
    found: `${reason.subject}: ${reason.found}`,
    expected: reason.expected,
    codes,
  }
}

/** A harmless program that no reference lists: what counts is that it was run. */
const unlistedTool = "#!/bin/sh\n# An administrator's own tool.\nexit 0\n"
