import { mkdir, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { stringify } from "yaml"
import { exportTables } from "../../examples/breast-cancer/export-data.ts"
import { scoreModel } from "../../examples/breast-cancer/score.ts"
import type { Digest } from "../../src/bytes/digest.ts"
import { PerunError } from "../../src/bytes/error.ts"
import { type Cell, formatBytes, type Output } from "../../src/cli/output.ts"
import { fetchOutput } from "../../src/client/fetch-output.ts"
import { type Policy, policyDigest } from "../../src/policy/document.ts"
import { policySights } from "../../src/policy/explain.ts"
import type { OutputView, RunEvent } from "../../src/protocol/messages.ts"
import { routes } from "../../src/protocol/routes.ts"
import { cacheFolder } from "../cache.ts"
import { LabError } from "../error.ts"
import type { ManagerProcess } from "./manager-process.ts"
import { Party } from "./party.ts"
import type { ImageReferences } from "./policies.ts"

/** Path of the program in whose image an attacker changes one byte. */
export const tamperedProgram = "/usr/bin/bwrap"

/** The four of the demo. */
export interface Parties {
  readonly clinicA: Party
  readonly clinicB: Party
  readonly vendor: Party
  readonly consortium: Party
}

/** Makes the parties; the manager's operator admits those who will propose a policy. */
export async function makeParties(folder: string, manager: ManagerProcess): Promise<Parties> {
  const make = async (name: string): Promise<Party> => {
    const party = await Party.create(name, folder)
    await party.meet(manager)
    return party
  }
  const parties = {
    clinicA: await make("clinic-a"),
    clinicB: await make("clinic-b"),
    vendor: await make("vendor"),
    consortium: await make("consortium"),
  }
  // These two propose; the others are invited by being named.
  for (const { name, identity } of [parties.clinicA, parties.consortium]) await manager.admit({ key: identity.key, comment: name })
  return parties
}

export function allParties({ clinicA, clinicB, vendor, consortium }: Parties): readonly Party[] {
  return [clinicA, clinicB, vendor, consortium]
}

/** Manifests of what the parties sealed, and the consortium's test table, which nobody seals. */
export interface SealedParts {
  readonly recordsA: Digest
  readonly recordsB: Digest
  readonly trainer: Digest
  readonly smallTrainer: Digest
  readonly testTable: string
}

export async function sealAll(parties: Parties, folder: string, output: Output): Promise<SealedParts> {
  const { clinicA, clinicB, vendor, consortium } = parties
  const exported = join(folder, "tables")
  const tables = await exportTables(exported, join(cacheFolder(), "breast-cancer"))
  for (const party of [clinicA, clinicB, consortium]) await rename(join(exported, party.name), join(party.folder, "data"))
  await rm(exported, { recursive: true })

  const rows: (readonly Cell[])[] = []
  const seal = async (party: Party, artifact: string, kind: "dataset" | "code", source: string, words: string): Promise<Digest> => {
    const { signed, digest } = await party.seal(artifact, kind, source)
    const { shards, index } = signed.manifest
    const ciphertextBytes = shards.reduce((sum, shard) => sum + shard.sizeBytes, index.sizeBytes)
    rows.push([party.name, artifact, words, formatBytes(ciphertextBytes), digest])
    return digest
  }
  const examples = new URL("../../examples/breast-cancer/", import.meta.url).pathname
  const parts = {
    recordsA: await seal(clinicA, "records-a", "dataset", join(clinicA.folder, "data"), `${tables.clinicA.rows} patients`),
    recordsB: await seal(clinicB, "records-b", "dataset", join(clinicB.folder, "data"), `${tables.clinicB.rows} patients`),
    trainer: await seal(vendor, "trainer", "code", join(examples, "trainer"), "PyTorch program, unaware of Perun"),
    smallTrainer: await seal(vendor, "trainer-js", "code", join(examples, "trainer-js"), "the same in JavaScript, for small machines"),
    testTable: join(consortium.folder, "data", "test.csv"),
  }
  output.table(["party", "artifact", "what", "ciphertext", "manifest"], rows)
  output.line(`the consortium keeps ${tables.consortium.rows} patients apart to test the model`)
  return parts
}

/** Writes a policy and its references where people can read them, and `perun policy` too. */
export async function writePolicy(folder: string, policy: Policy, { boot, ima }: ImageReferences): Promise<void> {
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, "policy.yaml"), stringify(policy, { lineWidth: 160 }))
  await writeFile(join(folder, "boot-reference.json"), `${JSON.stringify(boot, null, 1)}\n`)
  await writeFile(join(folder, "ima-reference.json"), `${JSON.stringify(ima, null, 1)}\n`)
}

/** Everybody reads and signs; with one signature missing nothing can be started; then owners deposit their keys. */
export async function agree(policy: Policy, references: ImageReferences, parties: Parties, output: Output): Promise<void> {
  const { clinicA, clinicB, vendor, consortium } = parties
  const digest = policyDigest(policy)
  output.line(`policy ${digest}`)
  output.table(
    ["thing", ...Object.keys(policy.stakeholders)],
    sightRows(policy).map(([thing, ...cells]) => [thing ?? "", ...cells]),
  )
  await consortium.submit(policy, [references.boot, references.ima])
  for (const party of [clinicA, clinicB, consortium]) await party.sign(policy)
  const { missing } = await consortium.connection.call(routes.getPolicy, { params: { digest } })
  const early = await refusalOf(() => consortium.start(digest, "train"))
  output.line(
    `signed by ${[clinicA, clinicB, consortium].map(({ name }) => name).join(", ")}; missing: ${missing.join(", ")}. A run now: refused, ${early}`,
    "bad",
  )
  const { state } = await vendor.sign(policy)
  output.line(`signed by vendor too: the policy is ${state}`, "good")
  for (const [artifact, { owner }] of Object.entries(policy.artifacts)) {
    const party = allParties(parties).find(({ name }) => name === owner)
    if (party === undefined) throw new TypeError(`no party ${owner}`)
    await party.deposit(policy, artifact)
    output.line(`${owner} deposited the key of ${artifact}, bound to policy, manifest and manager`)
  }
}

/** One row per thing, one cell per party: sees, never, after the vote of. */
function sightRows(policy: Policy): readonly (readonly string[])[] {
  const parties = Object.keys(policy.stakeholders)
  const sights = policySights(policy)
  const things = [...new Set(sights.map(({ thing }) => thing))]
  const words = { owns: "owns", sees: "sees live", "after-vote": "after votes", never: "never", "can-read": "can read" } as const
  return things.map((thing) => [
    thing,
    ...parties.map((party) => {
      const sight = sights.find((other) => other.thing === thing && other.party === party)
      return sight === undefined ? "" : words[sight.sight]
    }),
  ])
}

/** Follows a run on the screen until it ends: a line per state and refusal, one live line for the metrics. Comes back when the run is over. */
export async function followRun(party: Party, run: string, epochs: number, output: Output, signal: AbortSignal): Promise<void> {
  const progress = output.progress()
  try {
    let lastEventId: string | undefined
    for (;;) {
      try {
        const position = lastEventId === undefined ? {} : { lastEventId }
        for await (const event of party.connection.transport.events(routes.watchRun, { params: { run }, signal, ...position })) {
          lastEventId = String(event.seq)
          output.event({ run, ...event })
          showRunEvent(event, epochs, output, progress)
        }
      } catch (error) {
        // The stream may break where the manager is busy; the run's own state decides whether there is more to come.
        if (signal.aborted || !(error instanceof PerunError)) throw error
      }
      if ((await party.run(run)).endedAt !== undefined) return
      await sleep(1000, undefined, { signal })
    }
  } finally {
    progress.end()
  }
}

function showRunEvent(event: RunEvent, epochs: number, output: Output, progress: ReturnType<Output["progress"]>): void {
  switch (event.kind) {
    case "state": {
      const tone = event.state === "succeeded" ? "good" : event.state === "queued" || event.state === "running" ? "plain" : "bad"
      return output.line(`gpu-host: run ${event.state}${event.reason === undefined ? "" : ` (${event.reason})`}`, tone)
    }
    case "metrics": {
      const { epoch = 0, loss = 0, accuracy = 0 } = event.values
      return progress.update(`epoch ${epoch}  loss ${loss.toFixed(4)}  accuracy ${accuracy.toFixed(4)} (training)`, epoch, epochs)
    }
    case "refused":
      for (const { code, subject, found, expected } of event.refusal.findings.filter(({ effect }) => effect === "refusal")) {
        output.line(`${event.refusal.host}: refused, ${code} ${subject}: found ${found}, expected ${expected}`, "bad")
      }
      return
    case "renewed":
      return output.line(`gpu-host: proved itself again, lease renewed for ${event.seconds} s`, "dim")
    case "output":
      return output.line(`gpu-host: output ${event.name} sealed to a key that only the vault holds`)
  }
}

/** Votes, refusals on the way, the consortium's model and its score on the test patients. Gives the accuracy, 0 to 1. */
export async function releaseModel(run: string, parties: Parties, testTable: string, output: Output): Promise<number> {
  const { clinicA, clinicB, vendor, consortium } = parties
  const [model, ...others] = await consortium.outputs(run)
  if (model === undefined || others.length > 0)
    throw new LabError("machine-ended", `the run left ${others.length + (model === undefined ? 0 : 1)} outputs, expected the model`)
  const attempts: (readonly Cell[])[] = []
  const attempt = async (party: Party, when: string): Promise<void> => {
    const code = await refusalOf(() => fetchModel(party, model))
    attempts.push([party.name, when, { text: `refused: ${code}`, tone: "bad" }])
  }
  await attempt(consortium, "before any vote")
  await clinicA.vote(model)
  await attempt(consortium, "after the vote of clinic-a alone")
  const { state } = await clinicB.vote(model)
  for (const party of [clinicA, clinicB, vendor]) await attempt(party, "after all votes")
  const destination = join(consortium.folder, "model")
  await fetchModel(consortium, model)
  attempts.push(["consortium", "after all votes", { text: `${state}: opened into ${destination}`, tone: "good" }])
  output.table(["who asks for the model", "when", "answer"], attempts)
  const score = await scoreModel(destination, testTable)
  output.line(
    `on ${score.rows} test patients: accuracy ${score.accuracy.toFixed(3)}, sensitivity ${score.sensitivity.toFixed(3)}, specificity ${score.specificity.toFixed(3)}`,
    "good",
  )
  return score.accuracy
}

async function fetchModel(party: Party, model: OutputView): Promise<void> {
  await fetchOutput(party.connection, { output: model.output, identity: party.identity.recipientIdentity, destination: join(party.folder, "model") })
}

/**
 * Code of the refusal of something that must be refused.
 * @throws {LabError} `not-refused` when it was done
 */
export async function refusalOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work()
  } catch (error) {
    if (error instanceof PerunError) return error.code
    throw error
  }
  throw new LabError("not-refused", "something was done that must be refused")
}
