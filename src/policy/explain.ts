import type { Digest } from "../bytes/digest.ts"
import type { Tally } from "./approval.ts"
import type { ReleaseTerms } from "./approval.ts"
import { votingOwners } from "./approval.ts"
import type { Job, Level, Metrics, Policy } from "./document.ts"
import { inputOwners, own, policyDigest } from "./document.ts"
import { approvalText } from "./expression.ts"
import { tableText } from "./table.ts"

/** What a policy means, for the people who sign it. Rows are data; `explanationText` writes them. */
export interface Explanation {
  readonly digest: Digest
  readonly study: string
  readonly purpose: string
  readonly expires: string
  readonly supersedes: "none" | Digest
  /** Lines in capitals that every screen shows. */
  readonly warnings: readonly string[]
  readonly sights: readonly Sight[]
  readonly machines: readonly MachineRow[]
  readonly waivers: readonly WaiverRow[]
  /** Who must sign, in words. */
  readonly approval: string
  /** Where signatures stand; undefined where none were given to judge. */
  readonly tally?: Pick<Tally, "satisfied" | "signed" | "missing" | "withdrawn">
}

/** Who gets to see one thing, and when. */
export interface Sight {
  readonly party: string
  /** `artifact records-a`, `output train.model`, `metrics train`, `logs train`. */
  readonly thing: string
  readonly sight: "owns" | "sees" | "after-vote" | "never" | "can-read"
  /** In words. */
  readonly words: string
}

export interface MachineRow {
  readonly machine: string
  readonly level: Level
  readonly trusts: string
  readonly covers: readonly string[]
  readonly leaves: readonly string[]
}

export interface WaiverRow {
  readonly party: string
  readonly thing: string
  readonly words: string
}

export function explainPolicy(policy: Policy, tally?: Tally): Explanation {
  return {
    digest: policyDigest(policy),
    study: policy.study,
    purpose: policy.purpose,
    expires: policy.expires,
    supersedes: policy.supersedes,
    warnings: policyWarnings(policy),
    sights: policySights(policy),
    machines: Object.entries(policy.machines).map(([machine, { level }]) => ({ machine, level, ...levelWords[level] })),
    waivers: policyWaivers(policy),
    approval: approvalText(policy.approval, Object.keys(policy.stakeholders)),
    ...(tally === undefined ? {} : { tally }),
  }
}

/** Lines that every screen shows as long as this policy is in use. */
export function policyWarnings(policy: Policy): readonly string[] {
  const laboratory = Object.entries(policy.machines).flatMap(([name, { tpm }]) =>
    tpm.laboratoryRoots.length === 0
      ? []
      : [`INSECURE LABORATORY: machine ${name} may chain to a laboratory root, whose holder can imitate it; what comes of it is for trials only`],
  )
  return ["UNATTESTED MANAGER: the manager proves nothing; whoever runs it can read the keys, and so every artifact", ...laboratory]
}

/** Party by thing: what each of them can see. Stakeholders first, then those who are no party and could see it all the same. */
export function policySights(policy: Policy): readonly Sight[] {
  const parties = Object.keys(policy.stakeholders)
  const artifacts = Object.keys(policy.artifacts).flatMap((artifact) => [
    ...parties.map((party) => artifactSight(policy, party, artifact)),
    managerSight(`artifact ${artifact}`),
    ...hostSights(policy, artifact),
  ])
  const results = Object.entries(policy.jobs).flatMap(([name, job]) => jobSights(policy, parties, name, job))
  return [...artifacts, ...results]
}

function artifactSight(policy: Policy, party: string, artifact: string): Sight {
  const thing = `artifact ${artifact}`
  if (own(policy.artifacts, artifact)?.owner === party) return { party, thing, sight: "owns", words: "owns it" }
  return { party, thing, sight: "never", words: "never" }
}

function managerSight(thing: string): Sight {
  return { party: "manager's operator", thing, sight: "can-read", words: "can read it: UNATTESTED MANAGER" }
}

function hostSights(policy: Policy, artifact: string): readonly Sight[] {
  const machines = new Set(Object.values(policy.jobs).flatMap(({ inputs, machine }) => (Object.hasOwn(inputs, artifact) ? [machine] : [])))
  return [...machines].flatMap((name): readonly Sight[] => {
    const level = own(policy.machines, name)?.level
    const party = `administrators of ${name}`
    const thing = `artifact ${artifact}`
    switch (level) {
      case "administered":
        return [{ party, thing, sight: "can-read", words: administeredWords }]
      case "sealed":
        return [{ party, thing, sight: "never", words: "never, unless they open the machine's case" }]
      case undefined:
        return []
    }
  })
}

function jobSights(policy: Policy, parties: readonly string[], name: string, job: Job): readonly Sight[] {
  const outputs = Object.entries(job.outputs).flatMap(([output, terms]) =>
    parties.map((party) => releaseSight(policy, job, party, `output ${name}.${output}`, terms)),
  )
  const { logs, metrics } = job
  const ofLogs = logs === "none" ? [] : parties.map((party) => releaseSight(policy, job, party, `logs ${name}`, logs))
  const ofMetrics = metrics === "none" ? [] : parties.map((party) => metricsSight(party, `metrics ${name}`, metrics))
  return [...outputs, ...ofLogs, ...ofMetrics]
}

function releaseSight(policy: Policy, job: Job, party: string, thing: string, terms: ReleaseTerms): Sight {
  if (!terms.to.includes(party)) return { party, thing, sight: "never", words: "never" }
  const derived = `derived from ${Object.keys(job.inputs).join(", ")}`
  if (terms.release === "none") return { party, thing, sight: "sees", words: `gets it without a vote (${derived})` }
  const votes = approvalText(terms.release, votingOwners(policy, job, terms))
  return { party, thing, sight: "after-vote", words: `after the vote of ${votes} (${derived})` }
}

function metricsSight(party: string, thing: string, metrics: Metrics): Sight {
  if (!metrics.to.includes(party)) return { party, thing, sight: "never", words: "never" }
  const fields = Object.entries(metrics.schema).map(([name, type]) => (type === "int" ? `${name} (whole number)` : `${name} (${type.float} digits)`))
  const limits = `at most ${metrics.maxPerMinute} a minute and ${metrics.maxBytes} bytes a run`
  return { party, thing, sight: "sees", words: `sees live: ${fields.join(", ")}; ${limits}` }
}

function policyWaivers(policy: Policy): readonly WaiverRow[] {
  return Object.entries(policy.jobs).flatMap(([name, job]) => {
    const released: readonly (readonly [string, ReleaseTerms])[] = [
      ...Object.entries(job.outputs).map(([output, terms]) => [`output ${name}.${output}`, terms] as const),
      ...(job.logs === "none" ? [] : [[`logs ${name}`, job.logs] as const]),
    ]
    const waived = released.flatMap(([thing, { waive }]) =>
      (waive ?? []).map((party) => ({ party, thing, words: "gives up its vote by signing this policy" })),
    )
    const { metrics } = job
    if (metrics === "none") return waived
    const words = `consents to live numbers for ${metrics.to.join(", ")} by signing this policy`
    return [...waived, ...inputOwners(policy, job).map((party) => ({ party, thing: `metrics ${name}`, words }))]
  })
}

/** The explanation as text for a terminal. */
export function explanationText(explanation: Explanation): string {
  const { tally } = explanation
  const sections = [
    explanation.warnings.map((warning) => `!! ${warning}`).join("\n"),
    [
      `study ${explanation.study}: ${explanation.purpose}`,
      `digest ${explanation.digest}`,
      `expires ${explanation.expires}, supersedes ${explanation.supersedes}`,
    ].join("\n"),
    `Who sees what\n${tableText(
      ["thing", "party", "what"],
      explanation.sights.map(({ thing, party, words }) => [thing, party, words]),
    )}`,
    `What the machines protect from\n${explanation.machines.map(machineText).join("\n")}`,
    `What a signature gives up\n${waiversText(explanation.waivers)}`,
    `Signatures\n  needed: ${explanation.approval}${tally === undefined ? "" : `\n${tallyText(tally)}`}`,
  ]
  return `${sections.join("\n\n")}\n`
}

/** Whose signature is there and whose is missing. */
export function tallyText(tally: NonNullable<Explanation["tally"]>): string {
  const names = (list: readonly string[]): string => (list.length === 0 ? "nobody" : list.join(", "))
  return [
    `  signed:  ${names(tally.signed)}`,
    `  missing: ${names(tally.missing)}`,
    ...(tally.withdrawn.length === 0 ? [] : [`  withdrawn, for good: ${names(tally.withdrawn)}`]),
    tally.satisfied ? "  complete" : "  not complete: nothing is released",
  ].join("\n")
}

function machineText({ machine, level, trusts, covers, leaves }: MachineRow): string {
  return [
    `  ${machine}: level ${level}; trusts ${trusts}`,
    ...covers.map((line) => `    protects from: ${line}`),
    ...leaves.map((line) => `    does not protect from: ${line}`),
  ].join("\n")
}

function waiversText(waivers: readonly WaiverRow[]): string {
  if (waivers.length === 0) return "  nothing"
  return waivers.map(({ party, thing, words }) => `  ${party}: ${thing}: ${words}`).join("\n")
}

/** design.md section 2 asks for these words. */
const administeredWords = "they can read everything while a job runs"

const levelWords: Readonly<Record<Level, Omit<MachineRow, "machine" | "level">>> = {
  administered: {
    trusts: "the host's system and firmware as measured, its TPM, and its administrators",
    covers: [
      "another machine that answers in this one's place",
      "changed firmware, kernel, programs or settings before the keys are released, and new ones while the job runs",
      "the job's code sending data out by network or by anything but the declared outputs",
    ],
    leaves: [
      `the host's administrators: ${administeredWords}`,
      "somebody with the machine in hand: memory and buses can be read",
      "faults in the measured firmware, kernel and programs",
      "what the outputs and metrics themselves tell of the data",
    ],
  },
  sealed: {
    trusts: "the appliance image as measured, the TPM, and whoever has the machine in hand",
    covers: [
      "another machine that answers in this one's place",
      "any other firmware, kernel, program or setting than those of the reference",
      "the host's administrators: nobody can log in, trace, dump, suspend or swap",
      "the job's code sending data out by network or by anything but the declared outputs",
    ],
    leaves: [
      "somebody with the machine in hand: memory and buses can be read",
      "faults in the measured firmware, kernel and programs, and in what graphics cards run",
      "what the outputs and metrics themselves tell of the data",
    ],
  },
}
