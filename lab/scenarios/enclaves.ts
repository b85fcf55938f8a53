import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Digest } from "../../src/bytes/digest.ts"
import { parseDcapCollateral } from "../../src/evidence/dcap/endorsements.ts"
import { collectTee } from "../../src/evidence/tee/collectors/collect.ts"
import type { EnclaveMachine } from "../../src/policy/document.ts"
import { policyDigest } from "../../src/policy/document.ts"
import { TdxProcessor } from "../devices/tdx-processor.ts"
import { LabError } from "../error.ts"
import type { Image } from "../image/build.ts"
import { launchOfImage } from "../machine/launch.ts"
import { type LabTpm, manufactureTpm } from "../machine/tpm.ts"
import type { ManagerProcess } from "./manager-process.ts"
import type { Party } from "./party.ts"
import { type ImageReferences, labMachine, smallPolicy } from "./policies.ts"
import { type MachineTrial, type TrialResult, tryMachine } from "./watch-machines.ts"

export interface EnclaveSetting {
  /** A sealed small image, the same with one changed byte, and what the first must show. */
  readonly images: { readonly sealed: Image; readonly tampered: Image; readonly references: ImageReferences }
  /** It must let machines under `processor`'s root enrol. */
  readonly manager: ManagerProcess
  readonly processor: TdxProcessor
  readonly clinic: Party
  readonly vendor: Party
  readonly manifests: { readonly records: Digest; readonly trainer: Digest }
  readonly folders: { readonly records: string; readonly trainer: string }
  readonly laboratoryRoot: Digest
  readonly expires: string
  readonly folder: string
  readonly signal: AbortSignal
  readonly onJudged: (result: TrialResult) => void
}

/** Codes of what refused each machine that must be refused. */
export interface EnclaveResult {
  readonly refused: readonly { readonly machine: string; readonly codes: readonly string[] }[]
}

interface Scene {
  readonly trial: MachineTrial
  /** Codes that must refuse it, and no others; empty for a machine that must be granted. */
  readonly codes: readonly string[]
  /** Codes that may stand beside them: other marks of the same difference. */
  readonly besides: readonly string[]
}

/**
 * Machines of level `enclave`, on a laboratory's TDX device: a TD alone, and one whose guest proves itself by its TPM too, are given a job; a TD with another kernel
 * command line, and a machine that lets the device of an honest TD answer for it, are refused. INSECURE LABORATORY.
 * @throws {LabError} `not-granted`, `not-refused`
 */
export async function tryEnclaves(setting: EnclaveSetting): Promise<EnclaveResult> {
  const { images, manager, clinic, vendor, processor, folder } = setting
  const launch = await launchOfImage(images.sealed)
  await using cleanUp = new AsyncDisposableStack()
  // The device of an honest TD that another machine borrows, and by which the manager's operator learns what vouches for the platform. Made with mode 0700.
  const place = await mkdtemp(join(tmpdir(), "perun-honest-"))
  cleanUp.defer(async () => rm(place, { recursive: true, force: true }))
  const borrowedAt = join(place, "device")
  cleanUp.use(await processor.start(launch, borrowedAt))
  const evidence = await collectTee(`unix:${borrowedAt}`, new Uint8Array(64))
  if (evidence.kind !== "tdx") throw new TypeError("internal: a TDX device answers with a TD quote")
  await manager.keepCollateral({ ...evidence, collateral: parseDcapCollateral(processor.collateral) }, processor.rootFingerprint)

  const tpms = new Map<string, LabTpm>()
  for (const host of ["td", "td-guest", "changed-line", "borrowed-device"]) tpms.set(host, await manufactureTpm(join(folder, "tpms", host)))
  const tpmOf = (host: string): LabTpm => tpms.get(host) ?? fail(host)
  const scenes = scenesOf(setting, tpmOf, borrowedAt)

  const accept = [processor.requirementOf(launch)]
  const { level: _level, ...guest } = labMachine("sealed", images.references, [tpmOf("td-guest"), tpmOf("borrowed-device")], setting.laboratoryRoot)
  const machines: Readonly<Record<string, EnclaveMachine>> = {
    td: { level: "enclave", accept, guest: "none" },
    "td-guest": { level: "enclave", accept, guest },
  }
  const { manifests, expires } = setting
  const policy = smallPolicy({ ...{ manager, clinic, vendor, manifests, machines, expires }, study: "enclaves" })
  await clinic.submit(policy, Object.values(images.references))
  for (const party of [clinic, vendor]) await party.sign(policy)
  await clinic.depositFrom(policy, "records", setting.folders.records)
  await vendor.depositFrom(policy, "trainer", setting.folders.trainer)
  const digest = policyDigest(policy)
  const runs: string[] = []
  for (const machine of ["td", "td", "td-guest", "td-guest"]) runs.push(await clinic.start(digest, `train-${machine}`))

  const results = new Map<string, TrialResult>()
  const waiting = [...scenes]
  const options = { manager, watcher: clinic, folder: join(folder, "machines"), timeoutSeconds: 600, signal: setting.signal }
  const lane = async (): Promise<void> => {
    for (let scene = waiting.shift(); scene !== undefined; scene = waiting.shift()) {
      const result = await tryMachine(scene.trial, runs, options)
      results.set(scene.trial.host, result)
      setting.onJudged(result)
    }
  }
  // On two cores a third machine only waits.
  await Promise.all([lane(), lane()])
  for (const run of runs) if ((await clinic.run(run)).state === "queued") await clinic.cancel(run)
  return { refused: scenes.flatMap((scene) => refusalOf(scene, results.get(scene.trial.host))) }
}

function scenesOf({ images, processor }: EnclaveSetting, tpmOf: (host: string) => LabTpm, borrowedAt: string): readonly Scene[] {
  const own = { device: { processor } } as const
  const changed: Image = { ...images.sealed, commandLine: `${images.sealed.commandLine} perun.changed=1` }
  const trial = (host: string, image: Image, tee: MachineTrial["tee"]): MachineTrial => ({
    host,
    image,
    tpm: tpmOf(host),
    ...(tee === undefined ? {} : { tee }),
  })
  return [
    { trial: trial("td", images.sealed, { ...own, showsTpm: false }), codes: [], besides: [] },
    { trial: trial("td-guest", images.sealed, { ...own, showsTpm: true }), codes: [], besides: [] },
    { trial: trial("changed-line", changed, { ...own, showsTpm: false }), codes: ["tee-measurement-differs"], besides: [] },
    {
      trial: trial("borrowed-device", images.tampered, { device: { borrowedAt }, showsTpm: true }),
      codes: ["boot-event-differs"],
      besides: ["command-line-differs", "command-line-not-measured", "ima-policy-unmeasured"],
    },
  ]
}

function refusalOf({ trial: { host }, codes, besides }: Scene, result: TrialResult | undefined): EnclaveResult["refused"] {
  if (result === undefined) throw new LabError("not-granted", `${host} was not tried`)
  const found =
    result.outcome === "refused" ? [...new Set(result.refusal.findings.filter(({ effect }) => effect === "refusal").map(({ code }) => code))] : []
  if (codes.length === 0) {
    if (result.outcome === "refused") throw new LabError("not-granted", `${host} was refused: ${found.join(", ") || result.refusal.code}`)
    return []
  }
  if (result.outcome !== "refused") throw new LabError("not-refused", `${host} was given the keys`)
  const isRight = codes.every((code) => found.includes(code)) && found.every((code) => codes.includes(code) || besides.includes(code))
  if (!isRight) throw new LabError("not-refused", `${host} was refused for another reason: ${found.join(", ") || result.refusal.code}`)
  return [{ machine: host, codes: found }]
}

function fail(host: string): never {
  throw new TypeError(`no TPM for ${host}`)
}
