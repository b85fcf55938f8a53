import { mkdir, readdir, rm, writeFile } from "node:fs/promises"
import { join, resolve } from "node:path"
import { insecureLaboratory } from "../../src/cli/connect.ts"
import { UsageError } from "../../src/cli/exit.ts"
import type { Cell, Output } from "../../src/cli/output.ts"
import { policyDigest } from "../../src/policy/document.ts"
import { fetchReceipts } from "../../src/protocol/follow-log.ts"
import type { Receipt } from "../../src/protocol/messages.ts"
import { exists } from "../cache.ts"
import { LabError } from "../error.ts"
import { buildImage, type Image } from "../image/build.ts"
import { tamperImage } from "../image/tamper.ts"
import { labCa, manufactureTpm } from "../machine/tpm.ts"
import { imageReferences } from "../reference/image-references.ts"
import { prepareAttacks } from "./attacks.ts"
import { agree, allParties, followRun, makeParties, type Parties, releaseModel, sealAll, tamperedProgram, writePolicy } from "./demo-study.ts"
import { type ManagerProcess, startNewManager } from "./manager-process.ts"
import type { Party } from "./party.ts"
import { type ImageReferences, labMachine, trainingPolicy } from "./policies.ts"
import { firstRefusal, tryMachine } from "./watch-machines.ts"

export interface DemoOptions {
  /** Folder for everything that the demo makes; what an earlier demo left there is replaced. */
  readonly folder: string
  readonly output: Output
  readonly signal: AbortSignal
}

/** The demo's last JSON line. */
export interface DemoResult {
  readonly ok: boolean
  /** Part of the consortium's test patients whose diagnosis the model gives right, 0 to 1. */
  readonly accuracy: number
  readonly seconds: number
  readonly refused: readonly { readonly attack: string; readonly code: string; readonly found: string; readonly expected: string }[]
  readonly releases: readonly DemoRelease[]
  /** How the manager proved itself to every party, before anything was sent to it. */
  readonly manager: { readonly tee: string; readonly label: typeof insecureLaboratory }
  readonly laboratory: typeof insecureLaboratory
  /** Records that the training read, by input, as the agent counted them. */
  readonly rowsPerInput: Readonly<Record<string, number>>
  readonly folder: string
}

interface DemoRelease {
  readonly what: string
  readonly by: string
  readonly to: string
  /** Digest of the evidence, or whose votes. */
  readonly on: string
}

/** Least accuracy at which the demo calls itself a success. */
const wantedAccuracy = 0.93
const marker = ".perun-demo"
const epochs = 20

/**
 * The main job, end to end, with four parties and real machines: seal, sign, attest, train, release; and three machines that must be refused, beside their
 * controls.
 * @throws {LabError} when a machine or the manager does not do what it should
 */
export async function runDemo({ output, signal, ...options }: DemoOptions): Promise<DemoResult> {
  const started = performance.now()
  const folder = resolve(options.folder)
  await prepareFolder(folder)
  output.line(`${insecureLaboratory}: emulated machines with software TPMs, and a laboratory's TDX device for the manager.`, "warn")

  output.heading("1  Images and reference values")
  const images = await buildImages(output)

  output.heading("2  A policy manager")
  const ca = await labCa()
  await using manager = await startNewManager(join(folder, "manager"), [ca.rootDer])
  output.line(`${manager.url}, process ${manager.pid}, ${manager.key}`)
  showDemands(manager, output)

  output.heading("3  Four parties seal what is theirs")
  const parties = await makeParties(folder, manager)
  const sealed = await sealAll(parties, folder, output)
  const { clinicA, vendor, consortium } = parties

  output.heading("4  They agree")
  const tpm = await manufactureTpm(join(folder, "tpms", "gpu-host"))
  const expires = new Date(Date.now() + policyDays * 86_400_000).toISOString().replace(/\.\d+Z$/, "Z")
  const policy = trainingPolicy({
    ...{ manager, ...parties, manifests: sealed, expires },
    machine: labMachine("sealed", images.references.pytorch, [tpm], ca.fingerprint),
  })
  await writePolicy(join(folder, "policy"), policy, images.references.pytorch)
  await agree(policy, images.references.pytorch, parties, output)

  output.heading("5  The compute host proves itself and trains; beside it boot machines that must be refused")
  using machines = new AbortScope(signal)
  const attacks = await prepareAttacks({
    ...{ images, manager, clinic: clinicA, vendor, folder, expires },
    manifests: { records: sealed.recordsA, trainer: sealed.smallTrainer },
    folders: { records: "records-a", trainer: "trainer-js" },
    laboratoryRoot: ca.fingerprint,
    signal: machines.signal,
    onJudged: (result, judged, total) => {
      const words = result.outcome === "refused" ? `refused, ${firstRefusal(result.refusal)?.code ?? result.refusal.code}` : "passed, trained"
      output.line(`${result.host}: ${words} (${judged} of ${total} machines beside gpu-host)`, result.outcome === "refused" ? "bad" : "good")
    },
  })
  const run = await consortium.start(policyDigest(policy), "train")
  const training = tryMachine({ host: "gpu-host", image: images.pytorch, tpm }, [run], {
    ...{ manager, watcher: consortium, folder: join(folder, "machines"), timeoutSeconds: machineSeconds, signal: machines.signal },
  })
  const [trained, refused] = await machines.all([training, attacks.boot(), followRun(consortium, run, epochs, output, machines.signal)])
  if (trained.outcome === "refused") {
    const reason = firstRefusal(trained.refusal)
    throw new LabError(
      "not-granted",
      `the compute host was refused: ${reason?.code ?? trained.refusal.code} ${reason?.subject ?? ""}: found ${reason?.found ?? ""}`,
    )
  }
  const rowsPerInput = trained.run.report?.rowsPerInput ?? {}
  const rows = Object.entries(rowsPerInput).map(([name, count]) => `${name} ${count}`)
  output.line(`rows that the training read: ${rows.join(", ")}`)

  output.heading("6  The clinics vote; the model goes to the consortium and to nobody else")
  const accuracy = await releaseModel(run, parties, sealed.testTable, output)

  output.heading("7  Machines that were refused; each differs in one thing from a control that passed")
  output.table(
    ["machine", "differs in", "code", "found", "expected"],
    refused.map(({ attack, difference, code, found, expected }): readonly Cell[] => [
      attack,
      difference,
      { text: code, tone: "bad" },
      found,
      expected,
    ]),
  )

  output.heading("8  Who released what to whom, on which evidence")
  const releases = (await receiptsOf(parties)).flatMap(releaseOf)
  output.table(
    ["what", "by", "to", "on"],
    releases.map(({ what, by, to, on }) => [what, by, to, shortDigests(on)]),
  )
  output.line()
  output.table(["what", "where"], whereRows(folder, parties))
  const proof = managerProof(clinicA)
  for (const party of allParties(parties)) party.leave()

  const seconds = Math.round((performance.now() - started) / 100) / 10
  const ok = accuracy >= wantedAccuracy && refused.length === 3
  output.line()
  output.line(
    `accuracy ${accuracy.toFixed(3)} on the consortium's patients, ${refused.length} machines refused, ${seconds} s. ${insecureLaboratory}.`,
    ok ? "good" : "bad",
  )
  return {
    ...{ ok, accuracy, seconds, releases, rowsPerInput, folder },
    refused: refused.map(({ attack, code, found, expected }) => ({ attack, code, found, expected })),
    manager: proof,
    laboratory: insecureLaboratory,
  }
}

/** A machine that boots PyTorch in software emulation, with five others beside it, on two slow cores. */
const machineSeconds = 900
const policyDays = 90

/** Work side by side: when one part fails, the others are told to end and waited for, so that no machine outlives the scene. */
class AbortScope implements Disposable {
  readonly #controller = new AbortController()
  readonly signal: AbortSignal

  constructor(outer: AbortSignal) {
    this.signal = AbortSignal.any([outer, this.#controller.signal])
  }

  async all<T extends readonly unknown[]>(work: { readonly [K in keyof T]: Promise<T[K]> }): Promise<T> {
    const watched = work.map((part) =>
      part.catch((error: unknown) => {
        this.#controller.abort(error)
        throw error
      }),
    )
    const settled = await Promise.allSettled(watched)
    this.signal.throwIfAborted()
    return settled.map((part) => (part.status === "fulfilled" ? part.value : undefined)) as unknown as T
  }

  [Symbol.dispose](): void {
    this.#controller.abort()
  }
}

/** The demo's folder, empty. What is there is removed only if an earlier demo made it. */
async function prepareFolder(folder: string): Promise<void> {
  if ((await exists(folder)) && (await readdir(folder)).length > 0) {
    if (!(await exists(join(folder, marker)))) throw new UsageError(`${folder} is not empty and not of an earlier demo; choose another with --folder`)
    await rm(folder, { recursive: true, force: true })
  }
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, marker), "made by perun demo; replaced by the next one\n")
}

/** What every party's connection demands of the manager before it sends anything. */
function showDemands({ requirement }: ManagerProcess, output: Output): void {
  const rows = requirement.accept.flatMap((alternative): readonly (readonly Cell[])[] =>
    "tdx" in alternative
      ? [
          ["MRTD", "the Node binary of this checkout", shortHex(alternative.tdx.mrTd)],
          ["RTMR1", "the program's files", shortHex(alternative.tdx.rtmrs[1])],
          ["RTMR2", "the lock file of its packages", shortHex(alternative.tdx.rtmrs[2])],
          ["root", `the laboratory's: ${insecureLaboratory}`, shortDigests(alternative.tdx.laboratoryRoots.join(" "))],
        ]
      : [],
  )
  output.table(["the manager must prove", "which is", "value"], rows)
}

function shortHex(values: "any" | readonly string[]): string {
  return values === "any" ? values : values.map((value) => `${value.substring(0, 16)}…`).join(" or ")
}

function managerProof({ connection }: Party): DemoResult["manager"] {
  const { accepted } = connection.manager
  if (accepted === undefined || !accepted.insecureLaboratory) throw new TypeError("internal: the manager's proof is not that of the laboratory's TD")
  return { tee: accepted.kind, label: insecureLaboratory }
}

interface DemoImages {
  readonly pytorch: Image
  readonly sealed: Image
  readonly tampered: Image
  readonly administered: Image
  readonly references: { readonly pytorch: ImageReferences; readonly sealed: ImageReferences; readonly administered: ImageReferences }
}

async function buildImages(output: Output): Promise<DemoImages> {
  const progress = output.progress()
  const onProgress = ({ step, done, total }: { readonly step: string; readonly done: number; readonly total: number }): void =>
    progress.update(step, done, total)
  try {
    const sealed = await buildImage({ kind: "small", level: "sealed", onProgress })
    const administered = await buildImage({ kind: "small", level: "administered", onProgress })
    const pytorch = await buildImage({ kind: "pytorch", level: "sealed", onProgress })
    const tampered = await tamperImage(sealed, { path: tamperedProgram })
    const references = {
      pytorch: await imageReferences(pytorch),
      sealed: await imageReferences(sealed),
      administered: await imageReferences(administered),
    }
    progress.end()
    output.table(
      ["image", "level", "packages", "files in the IMA reference", "boot events", "digest"],
      [
        imageRow("pytorch", pytorch, references.pytorch),
        imageRow("small", sealed, references.sealed),
        imageRow("small", administered, references.administered),
      ],
    )
    return { pytorch, sealed, tampered, administered, references }
  } finally {
    progress.end()
  }
}

function imageRow(name: string, image: Image, { boot, ima }: ImageReferences): readonly Cell[] {
  const events = boot.registers.reduce((sum, register) => sum + ("events" in register ? register.events.length : 0), 0)
  return [name, image.level, image.packages.length, Object.keys(ima.files).length, events, image.digest]
}

/** All receipts: the whole log verified, as the one party that has part in both studies sees it. */
async function receiptsOf({ clinicA }: Parties): Promise<readonly Receipt[]> {
  const { receipts } = await fetchReceipts(clinicA.connection)
  return receipts.flatMap(({ receipt }) => receipt ?? [])
}

function releaseOf(receipt: Receipt): readonly DemoRelease[] {
  switch (receipt.kind) {
    case "key-released": {
      const what = `keys of ${(receipt.artifacts ?? []).join(", ")}`
      return [{ what, by: "manager, under the signed policy", to: receipt.host ?? "", on: `evidence ${receipt.evidence ?? ""}` }]
    }
    case "release-refused":
      return [{ what: "no key", by: "manager", to: receipt.host ?? "", on: `refused: ${receipt.code ?? ""}, evidence ${receipt.evidence ?? ""}` }]
    case "output-released":
      return [{ what: "model", by: "manager, after the votes of the owners", to: "consortium", on: `output ${receipt.output ?? ""}` }]
    default:
      return []
  }
}

function whereRows(folder: string, parties: Parties): readonly (readonly Cell[])[] {
  return [
    ["policy and reference values", join(folder, "policy")],
    ["model", join(parties.consortium.folder, "model")],
    [
      "parties (each a PERUN_HOME)",
      join(
        folder,
        `{${allParties(parties)
          .map(({ name }) => name)
          .join(",")}}`,
      ),
    ],
    ["consoles of the machines", join(folder, "machines", "*", "console")],
    ["manager's state (ciphertext, receipts)", join(folder, "manager")],
  ]
}

/** Digests as people compare them: the first 16 digits. The whole ones stand in the JSON line and in the receipts. */
function shortDigests(text: string): string {
  return text.replace(/\b([0-9a-f]{16})[0-9a-f]{48}\b/g, "$1…")
}
