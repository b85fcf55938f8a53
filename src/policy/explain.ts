import type { Digest } from "../bytes/digest.ts"
import type { Tally } from "./approval.ts"
import type { ReleaseTerms } from "./approval.ts"
import { votingOwners } from "./approval.ts"
import type { EnclaveMachine, HostLevel, Job, Level, Machine, Metrics, Policy } from "./document.ts"
import { inputOwners, laboratoryRootsOfMachine, own, policyDigest } from "./document.ts"
import { approvalText } from "./expression.ts"
import { timeWords } from "./manager-time.ts"
import { witnessesWords } from "./manager-witnesses.ts"
import { operatorNeeds } from "./manager-vault.ts"
import { delegations } from "./reference-updates.ts"
import { recoveryWords } from "./recovery.ts"
import { type Secret, useWords } from "./secrets.ts"
import { tableText } from "./table.ts"
import { laboratoryRootsOf, type TeeRequirement } from "./tee.ts"

/** What a policy means, for the people who sign it. Rows are data; `explanationText` writes them. */
export interface Explanation {
  readonly digest: Digest
  readonly study: string
  readonly purpose: string
  readonly expires: string
  readonly supersedes: "none" | Digest
  /** By whose clock `expires`, certificates and revocation lists are judged, in words. */
  readonly time: string
  /** Who must have seen the manager's log. */
  readonly witnesses: string
  /** Lines in capitals that every screen shows. */
  readonly warnings: readonly string[]
  readonly sights: readonly Sight[]
  readonly jobs: readonly JobRow[]
  readonly machines: readonly MachineRow[]
  readonly waivers: readonly WaiverRow[]
  /** Who may replace whose keys, in words. */
  readonly recoveries: readonly string[]
  /** Parties whose lost keys this policy replaces. */
  readonly recovers: readonly string[]
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

/** What one job takes in and gives out, in words. */
export interface JobRow {
  readonly job: string
  readonly machine: string
  readonly limits: string
  /** Program and arguments. */
  readonly runs: string
  readonly reads: readonly string[]
  /** Outputs, metrics and logs, each with who gets it and when; what there is none of is said too. */
  readonly gives: readonly string[]
}

export interface MachineRow {
  readonly machine: string
  readonly level: Level
  readonly trusts: string
  /** What each machine proves by measurement before it gets a key. */
  readonly proved: readonly string[]
  /** What nothing measures: the builder of the machine's image states it in the reference, and whoever signs trusts that builder. */
  readonly stated: readonly string[]
  readonly covers: readonly string[]
  readonly leaves: readonly string[]
  /** Who may change what it must be, alone, by this policy. */
  readonly updates: readonly string[]
}

export interface WaiverRow {
  readonly party: string
  readonly thing: string
  readonly words: string
}

export function explainPolicy(policy: Policy, tally?: Tally): Explanation {
  const delegated = delegations(policy)
  return {
    digest: policyDigest(policy),
    study: policy.study,
    purpose: policy.purpose,
    expires: policy.expires,
    supersedes: policy.supersedes,
    time: managerTimeWords(policy.manager),
    witnesses: "accept" in policy.manager ? witnessesWords(policy.manager.witnesses) : "nobody can be demanded of a manager that proves nothing",
    warnings: policyWarnings(policy),
    sights: policySights(policy),
    jobs: Object.entries(policy.jobs).map(([name, job]) => jobRow(policy, name, job)),
    machines: Object.entries(policy.machines).map(([name, machine]) => ({
      machine: name,
      level: machine.level,
      ...machineWords(machine),
      updates: delegated.flatMap((one) => (one.machine === name ? [one.words] : [])),
    })),
    waivers: policyWaivers(policy),
    recoveries: Object.entries(policy.stakeholders).flatMap(([name, { recovery }]) =>
      recovery === undefined ? [] : [recoveryWords(name, recovery, Object.keys(policy.stakeholders))],
    ),
    recovers: policy.recovers ?? [],
    approval: approvalText(policy.approval, Object.keys(policy.stakeholders)),
    ...(tally === undefined ? {} : { tally }),
  }
}

/** Lines that every screen shows as long as this policy is in use. */
export function policyWarnings(policy: Policy): readonly string[] {
  const laboratory = Object.entries(policy.machines).flatMap(([name, machine]) =>
    laboratoryRootsOfMachine(machine).length === 0
      ? []
      : [
          `INSECURE LABORATORY: machine ${name} may chain to a laboratory root, whose holder can imitate it and read everything, and may take what such machines made; what comes of it is for trials only`,
        ],
  )
  return [...managerWarnings(policy.manager), ...laboratory]
}

function managerWarnings(manager: Policy["manager"]): readonly string[] {
  if ("insecureUnattested" in manager)
    return ["UNATTESTED MANAGER: the manager proves nothing; whoever runs it can read the keys, and so every artifact"]
  if (laboratoryRootsOf(manager.accept).length === 0) return []
  return [
    "INSECURE LABORATORY: the manager may chain to a laboratory root, whose holder can imitate it and read the keys, and so every artifact; this policy is for trials only",
  ]
}

function managerTimeWords(manager: Policy["manager"]): string {
  if ("insecureUnattested" in manager) return "as the manager says, which proves nothing"
  return manager.time === undefined ? "from a clock that this policy has nobody check: the manager's host may set it" : timeWords(manager.time)
}

/** Party by thing: what each of them can see. Stakeholders first, then those who are no party and could see it all the same. */
export function policySights(policy: Policy): readonly Sight[] {
  const parties = Object.keys(policy.stakeholders)
  const artifacts = Object.keys(policy.artifacts).flatMap((artifact) => [
    ...parties.map((party) => artifactSight(policy, party, artifact)),
    ...managerSights(policy, `artifact ${artifact}`),
    ...machinesOf(policy, artifact).flatMap((machine) => hostSights(policy, machine, `artifact ${artifact}`)),
  ])
  const secrets = Object.entries(policy.secrets ?? {}).flatMap(([name, secret]) => {
    const thing = `secret ${name}`
    const machines = new Set(Object.values(policy.jobs).flatMap((job) => (Object.hasOwn(job.secrets ?? {}, name) ? [job.machine] : [])))
    return [
      ...parties.map((party) => secretSight(secret, party, thing)),
      ...managerSights(policy, thing),
      ...[...machines].flatMap((machine) => hostSights(policy, machine, thing)),
    ]
  })
  const results = Object.entries(policy.jobs).flatMap(([name, job]) => jobSights(policy, parties, name, job))
  return [...artifacts, ...secrets, ...results]
}

function artifactSight(policy: Policy, party: string, artifact: string): Sight {
  const thing = `artifact ${artifact}`
  if (own(policy.artifacts, artifact)?.owner === party) return { party, thing, sight: "owns", words: "owns it" }
  return { party, thing, sight: "never", words: "never" }
}

function secretSight(secret: Secret, party: string, thing: string): Sight {
  if ("owner" in secret && secret.owner === party) return { party, thing, sight: "owns", words: "brings it" }
  return { party, thing, sight: "never", words: "made" in secret ? "never: the manager draws it" : "never" }
}

function managerSights({ manager, stakeholders }: Policy, thing: string): readonly Sight[] {
  const party = "manager's operator"
  if ("insecureUnattested" in manager) return [{ party, thing, sight: "can-read", words: "can read it: UNATTESTED MANAGER" }]
  const nameOf = (key: string): string => Object.entries(stakeholders).find(([, { keys }]) => keys.includes(key))?.[0] ?? key
  const made = manager.vault === undefined ? [] : ["they made its folder outside its TEE and kept its keys"]
  const needs = [...operatorNeeds(manager.vault, nameOf), ...made].join(", or ")
  const operator: Sight = { party, thing, sight: "never", words: `never, unless ${needs}` }
  const maker: Sight = { party: "Microsoft", thing, sight: "can-read", words: `could read it on the manager ${paravisorSight}` }
  const near = hasParavisor(manager.accept) ? [operator, maker] : [operator]
  if (laboratoryRootsOf(manager.accept).length === 0) return near
  const words = "can read it by imitating the manager: INSECURE LABORATORY"
  return [...near, { party: "holder of the manager's laboratory root", thing, sight: "can-read", words }]
}

function machinesOf(policy: Policy, artifact: string): readonly string[] {
  return [...new Set(Object.values(policy.jobs).flatMap(({ inputs, machine }) => (Object.hasOwn(inputs, artifact) ? [machine] : [])))]
}

/** Those who are no party and are near the machine. */
function hostSights(policy: Policy, machineName: string, thing: string): readonly Sight[] {
  const machine = own(policy.machines, machineName)
  if (machine === undefined) return []
  const words = `can read it by imitating ${machineName}: INSECURE LABORATORY`
  const holder: Sight = { party: "holder of the laboratory root", thing, sight: "can-read", words }
  const maker: Sight = { party: "Microsoft", thing, sight: "can-read", words: `could read it on ${machineName} ${paravisorSight}` }
  return [
    administratorSight(machineName, machine.level, thing),
    ...(machine.level === "enclave" && hasParavisor(machine.accept) ? [maker] : []),
    ...(laboratoryRootsOfMachine(machine).length === 0 ? [] : [holder]),
  ]
}

function administratorSight(machineName: string, level: Level, thing: string): Sight {
  const party = `administrators of ${machineName}`
  switch (level) {
    case "administered":
      return { party, thing, sight: "can-read", words: administeredWords }
    case "sealed":
      return { party, thing, sight: "never", words: "never, unless they open the machine's case" }
    case "enclave":
      return { party, thing, sight: "never", words: "never, as far as the measured guest lets nobody in" }
  }
}

function jobSights(policy: Policy, parties: readonly string[], name: string, job: Job): readonly Sight[] {
  const outputs = Object.entries(job.outputs).flatMap(([output, terms]) =>
    parties.map((party) => releaseSight(policy, job, party, `output ${name}.${output}`, terms)),
  )
  const { logs, metrics } = job
  const ofLogs = logs === "none" ? [] : parties.map((party) => releaseSight(policy, job, party, `logs ${name}`, logs))
  const ofMetrics = metrics === "none" ? [] : parties.map((party) => metricsSight(party, `metrics ${name}`, metrics))
  const rows = [...outputs, ...ofLogs, ...ofMetrics]
  // Whoever can read the inputs can read what is made of them.
  const things = new Set(rows.map(({ thing }) => thing))
  return [...things].flatMap((thing) => [
    ...rows.filter((row) => row.thing === thing),
    ...managerSights(policy, thing),
    ...hostSights(policy, job.machine, thing),
  ])
}

function releaseSight(policy: Policy, job: Job, party: string, thing: string, terms: ReleaseTerms): Sight {
  if (!terms.to.includes(party)) return { party, thing, sight: "never", words: "never" }
  const derived = `derived from ${Object.keys(job.inputs).join(", ")}`
  return { party, thing, sight: terms.release === "none" ? "sees" : "after-vote", words: `${releaseWords(policy, job, terms)} (${derived})` }
}

function releaseWords(policy: Policy, job: Job, terms: ReleaseTerms): string {
  return terms.release === "none" ? "gets it without a vote" : `after the vote of ${approvalText(terms.release, votingOwners(policy, job, terms))}`
}

function metricsSight(party: string, thing: string, metrics: Metrics): Sight {
  if (!metrics.to.includes(party)) return { party, thing, sight: "never", words: "never" }
  return { party, thing, sight: "sees", words: `sees live, without a vote: ${metricsWords(metrics)}` }
}

function metricsWords({ schema, maxPerMinute, maxBytes }: Metrics): string {
  const fields = Object.entries(schema).map(([name, type]) =>
    type === "int" ? `${name} (a whole number)` : `${name} (a number with ${type.float} digits behind the point)`,
  )
  return `${fields.join(", ")}; at most ${maxPerMinute} reports a minute and ${maxBytes} bytes a run`
}

function jobRow(policy: Policy, name: string, job: Job): JobRow {
  const { logs, metrics, resources } = job
  const cards = resources.gpus === 0 ? "no graphics card" : `graphics cards (${resources.gpus}), which prove nothing about themselves`
  const left = (terms: ReleaseTerms & { readonly maxBytes: number }): string => {
    const when = terms.release === "none" ? "without a vote" : releaseWords(policy, job, terms)
    return `of at most ${terms.maxBytes} bytes to ${terms.to.join(", ")}, ${when}`
  }
  return {
    job: name,
    machine: job.machine,
    limits: `at most ${job.maxRuns} runs of ${resources.wallSeconds} seconds each, with ${cards}`,
    runs: job.run.join(" "),
    reads: [
      ...Object.keys(job.inputs).map((artifact) => {
        const declared = own(policy.artifacts, artifact)
        return declared === undefined ? artifact : `${artifact}, ${declared.kind} of ${declared.owner}`
      }),
      ...Object.entries(job.secrets ?? {}).map(([name, use]) => `secret ${name}, ${useWords(use)}`),
    ],
    gives: [
      ...Object.entries(job.outputs).map(([output, terms]) => `output ${output}: a ${terms.kind} ${left(terms)}`),
      metrics === "none" ? "no metrics" : `metrics while it runs: to ${metrics.to.join(", ")}, without a vote: ${metricsWords(metrics)}`,
      logs === "none" ? "no logs" : `logs, whatever the program writes, ${left(logs)}`,
      "nothing else: the program has no network",
    ],
  }
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
      `expires ${explanation.expires}, and nothing is released from then on; supersedes ${explanation.supersedes}`,
      `time ${explanation.time}`,
      `log seen by ${explanation.witnesses}`,
    ].join("\n"),
    `Who sees what\n${tableText(
      ["thing", "party", "what"],
      explanation.sights.map(({ thing, party, words }) => [thing, party, words]),
    )}`,
    `What the jobs do\n${explanation.jobs.map(jobText).join("\n")}`,
    `What the machines protect from\n${explanation.machines.map(machineText).join("\n")}`,
    `What a signature gives up\n${waiversText(explanation.waivers)}`,
    `Lost keys\n${recoveriesText(explanation)}`,
    `What can be taken back\n${withdrawalWords}`,
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

function jobText({ job, machine, limits, runs, reads, gives }: JobRow): string {
  return [
    `  ${job} on ${machine}: ${limits}`,
    `    runs: ${runs}`,
    ...reads.map((line) => `    reads: ${line}`),
    ...gives.map((line) => `    gives out: ${line}`),
  ].join("\n")
}

function machineText({ machine, level, trusts, proved, stated, covers, leaves, updates }: MachineRow): string {
  return [
    `  ${machine}: level ${level}; trusts ${trusts}`,
    ...proved.map((line) => `    proved by measurement: ${line}`),
    ...stated.map((line) => `    only stated by the image's builder: ${line}`),
    ...covers.map((line) => `    protects from: ${line}`),
    ...leaves.map((line) => `    does not protect from: ${line}`),
    ...updates.map((line) => `    delegated: ${line}`),
  ].join("\n")
}

function recoveriesText({ recoveries, recovers }: Explanation): string {
  return [
    ...recovers.map((name) => `  this policy REPLACES the lost keys of ${name}: make sure, not through the manager, that the new ones are theirs`),
    ...recoveries.map((words) => `  ${words}`),
    "  nobody else may replace a party's keys; a party that states a second key, and keeps it elsewhere, needs nobody",
  ].join("\n")
}

function waiversText(waivers: readonly WaiverRow[]): string {
  if (waivers.length === 0) return "  nothing"
  return waivers.map(({ party, thing, words }) => `  ${party}: ${thing}: ${words}`).join("\n")
}

const withdrawalWords = [
  "  each owner of an artifact can withdraw alone, at any time and for good: runs with it end, and what was made of it and has not left stays locked",
  "  what was released, and the numbers that were seen, cannot be called back; whoever got them can pass them on",
].join("\n")

const provedAtEveryLevel = [
  "which machine it is: its TPM's endorsement key is one of those listed in the policy",
  "firmware, boot loader, kernel, initial ram disk and kernel command line: exactly those of the boot reference",
  "each program that ran, and each file that root read where the IMA policy has it listed: in the IMA reference, and the IMA policy was the first to be loaded",
] as const

/** design.md section 2 asks for these words. */
const administeredWords = "they can read everything while a job runs"

type MachineWords = Omit<MachineRow, "machine" | "level" | "updates">

function machineWords(machine: Machine): MachineWords {
  return machine.level === "enclave" ? enclaveWords(machine) : levelWords[machine.level]
}

const teeNames = { tdx: "Intel TDX", sgx: "Intel SGX", snp: "AMD SEV-SNP", azure: "Azure confidential VM" } as const

/** Interposers on the memory bus: WireTap and TEE.fail (2025), Battering RAM (2025), BadRAM (2024). */
const interposerWords =
  "somebody with the machine in hand and a device between processor and memory, who has read and imitated SGX, TDX and SEV-SNP before (BadRAM, Battering RAM, WireTap, TEE.fail)"

/** Who is near a confidential VM of Azure beside its administrators. */
const paravisorSight = "by its paravisor, code of its own that it puts under the guest: it is measured, and trusted"

function hasParavisor(accept: readonly TeeRequirement[]): boolean {
  return accept.some((alternative) => "azure" in alternative)
}

/** Where the paravisor itself is not pinned, whoever signs it can put another in its place. */
function isParavisorOpen(alternative: TeeRequirement): boolean {
  if (!("azure" in alternative)) return false
  const { tee } = alternative.azure
  return ("snp" in tee ? tee.snp.measurement : tee.tdx.mrTd) === "any"
}

const paravisorLeaves = [
  "Microsoft: its paravisor runs at the highest privilege level of the guest (VMPL 0), sees all of its memory, holds the virtual TPM's keys and can sign any register; the processor's measurement is of the paravisor, and what the guest booted only the registers say",
  "whoever keeps the virtual TPM's state for the VM, where it persists: an older copy looks the same",
] as const

function enclaveWords({ accept, guest }: EnclaveMachine): MachineWords {
  const kinds = [...new Set(accept.flatMap((alternative) => Object.keys(alternative) as (keyof typeof teeNames)[]))].map((kind) => teeNames[kind])
  const onAzure = hasParavisor(accept)
  const isGuestProved = guest !== "none"
  const { sealed } = levelWords
  return {
    trusts: `the processor's maker, ${onAzure ? "Microsoft's paravisor and the virtual TPM in it, " : ""}and what was measured inside the TEE${isGuestProved ? ", and the builder of the guest's appliance image" : ""}`,
    proved: [
      `a TEE (${kinds.join(" or ")}) of a genuine processor, whose firmware is at a level that the policy accepts, without debug or migration`,
      "what the TEE was started with: exactly the measurements that the policy lists",
      ...(onAzure
        ? [
            "on Azure, which paravisor the processor started, and by the virtual TPM in it what the guest booted: exactly the registers that the policy lists",
          ]
        : []),
      ...(isGuestProved ? sealed.proved.map((line) => `inside, by a TPM that the TEE vouches for: ${line}`) : []),
    ],
    stated: isGuestProved ? sealed.stated : ["the measured program lets nobody in and nothing unmeasured run, does what it is for, and no more"],
    covers: [
      "the host's administrators, operating system and hypervisor",
      "another machine that answers in this one's place",
      "any other program than those measured",
      "the job's code sending data out by network or by anything but the declared outputs",
    ],
    leaves: [
      interposerWords,
      "side channels, and faults of the processor that its maker has not published yet",
      ...(isGuestProved
        ? [
            "a TPM that the host provides can be made to say wrong things about the guest by the host; what the TEE itself measured holds all the same",
          ]
        : ["administrators inside the guest, where the measured image lets any in"]),
      ...(onAzure ? paravisorLeaves : []),
      ...(accept.some(isParavisorOpen)
        ? ["a paravisor that nobody here knows: the policy names its signer only, who can put another in its place"]
        : []),
      "what the outputs and metrics themselves tell of the data",
    ],
  }
}

const levelWords: Readonly<Record<HostLevel, MachineWords>> = {
  administered: {
    trusts: "the host's system and firmware as measured, its TPM, and its administrators",
    proved: provedAtEveryLevel,
    stated: ["the kernel takes no second IMA policy in one boot", "the measured firmware, kernel and programs do what they are for, and no more"],
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
    trusts: "the builder of the appliance image, the TPM, and whoever has the machine in hand",
    proved: [
      ...provedAtEveryLevel,
      "kernel locked down for confidentiality, signed modules only, devices kept from memory that is not theirs (on processors and boards that can), and no unknown boot parameter",
      "the root hashes of the disks that programs come from, with which the initial ram disk verifies all that is read from them",
    ],
    stated: [
      "nobody can log in, at the console or by network",
      "only the agent can have the TPM speak for the machine",
      "no debugger, no swap, no core dumps, no suspend, no start of another kernel",
      "programs come from the verified disks only",
      "the kernel takes no second IMA policy in one boot",
      "the measured firmware, kernel and programs do what they are for, and no more",
    ],
    covers: [
      "another machine that answers in this one's place",
      "any other firmware, kernel, program or setting than those of the reference",
      "the host's administrators, as far as the image is what its builder states",
      "the job's code sending data out by network or by anything but the declared outputs",
    ],
    leaves: [
      "somebody with the machine in hand: memory and buses can be read",
      "faults in the measured firmware, kernel and programs, and in what graphics cards run",
      "what the outputs and metrics themselves tell of the data",
    ],
  },
}
