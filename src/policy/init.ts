import type { Digest } from "../bytes/digest.ts"
import type { ArtifactKind, AttestedManager, Level, Role } from "./document.ts"
import { placeholder as missing } from "./marks.ts"
import type { TeeRequirement } from "./tee.ts"

/** What is known when a draft is begun; the rest is left to be filled in, and `policy check` names each place. */
export interface PolicyDraft {
  readonly study: string
  readonly purpose?: string
  readonly stakeholders: readonly {
    readonly name: string
    readonly key: string
    readonly recipient?: string
    readonly roles: readonly Role[]
  }[]
  /** A manager that is known by its key alone. */
  readonly managerKey?: string
  /** What the manager must prove; then it is not named by its key. */
  readonly managerAccept?: AttestedManager["accept"]
  readonly artifacts?: readonly { readonly name: string; readonly kind: ArtifactKind; readonly owner: string; readonly manifest?: Digest }[]
  readonly machine?: {
    readonly name?: string
    readonly level?: Level
    /** What the TEE of a machine of level `enclave` must prove. */
    readonly accept?: readonly TeeRequirement[]
    readonly endorsementKeys?: readonly Digest[]
    readonly laboratoryRoots?: readonly Digest[]
    readonly bootReference?: Digest
    readonly imaReference?: Digest
  }
  /** Program and arguments. */
  readonly run?: readonly string[]
  readonly expires?: string
  readonly supersedes?: Digest
}

/**
 * A policy draft in YAML, with a comment at each choice. One job that trains on all artifacts and gives a model to every consumer after the vote of all
 * owners. What is not known stands as `FILL-IN`, which `parsePolicy` refuses everywhere.
 */
export function policyTemplate(draft: PolicyDraft): string {
  const artifacts = draft.artifacts ?? []
  const owners = [...new Set(artifacts.map(({ owner }) => owner))]
  const named = artifacts.length === 0 ? [{ name: missing, kind: missing, owner: missing, manifest: missing }] : artifacts
  const consumers = draft.stakeholders.filter(({ roles }) => roles.includes("consumer")).map(({ name }) => name)
  const coders = draft.stakeholders.filter(({ roles }) => roles.includes("code")).map(({ name }) => name)
  const machine = draft.machine?.name ?? "gpu-host"
  const lines = [
    "# What may happen to whose artifact on what kind of machine. Each party reads it (perun policy explain), then signs it (perun policy sign).",
    "# Whatever is left out is an error; where anything or nothing is meant, it is written: any, none.",
    "perun: 1",
    `study: ${quoted(draft.study)}`,
    `purpose: ${quoted(draft.purpose ?? missing)} # one sentence: what it is for, and what leaves`,
    "stakeholders: # roles: data, code, model, consumer, auditor, checker",
    ...(draft.stakeholders.length === 0 ? [{ name: missing, key: missing, recipient: missing, roles: [missing] }] : draft.stakeholders).map(
      stakeholderLine,
    ),
    ...managerLines(draft),
    "artifacts: # kind: dataset, code, model, mock; manifest: as perun seal prints it",
    ...named.map(
      ({ name, kind, owner, manifest }) => `  ${name}: { kind: ${kind}, owner: ${quoted(owner)}, manifest: ${quoted(manifest ?? missing)} }`,
    ),
    "machines:",
    `  ${machine}:`,
    ...machineLines(draft.machine ?? {}),
    "jobs:",
    "  train:",
    `    machine: ${machine}`,
    "    runtime: measured-root",
    `    run: ${list(draft.run ?? [missing])}`,
    "    inputs: # where the program finds each artifact, read-only",
    ...named.map(({ name, kind }) => `      ${name}: ${inputFolder(name, kind)}`),
    "    outputs:",
    "      model:",
    "        path: /opt/ml/model",
    "        kind: model",
    "        maxBytes: 50000000",
    `        to: ${list(consumers.length === 0 ? [missing] : consumers)}`,
    "        # What is derived belongs to the owners of all inputs. An owner that needs no vote says so: waive: [name]",
    `        release: { require: all, of: ${list(owners.length === 0 ? [missing] : owners)} }`,
    ...metricLines(coders),
    "    logs: none # or { to: [...], release: ..., maxBytes: ... }",
    "    maxRuns: 3 # all runs under this policy together",
    "    network: none",
    "    resources: { gpus: 0, memoryBytes: 4000000000, wallSeconds: 3600 }",
    "    lease: { seconds: 60 } # without fresh proof for so long the job is stopped",
    "approval: { require: all } # every stakeholder; every owner's own signature is needed whatever stands here",
    `expires: ${quoted(draft.expires ?? missing)} # UTC, like 2027-06-30T00:00:00Z`,
    `supersedes: ${draft.supersedes === undefined ? "none" : quoted(draft.supersedes)}`,
  ]
  return `${lines.join("\n")}\n`
}

function machineLines(machine: NonNullable<PolicyDraft["machine"]>): readonly string[] {
  const { level = "sealed" } = machine
  const lines = [
    `    level: ${level} # enclave: the processor keeps the machine's owner out; sealed: an appliance that nobody can enter; administered: its administrators can read everything`,
  ]
  if (level !== "enclave") return [...lines, ...hostLines(machine).map((line) => `    ${line}`)]
  const hasGuest = [machine.endorsementKeys, machine.bootReference, machine.imaReference].some((known) => known !== undefined)
  const guest = hasGuest
    ? [
        "    guest: # a TPM inside, with the boot and the programs that it measured, judged as a sealed host's",
        ...hostLines(machine).map((line) => `      ${line}`),
      ]
    : ["    guest: none # what the TEE itself measured is all; or what a TPM inside it must show: { tpm: …, boot: …, ima: … }"]
  return [...lines, ...acceptLines(machine), ...guest]
}

function hostLines({ endorsementKeys, laboratoryRoots, bootReference, imaReference }: NonNullable<PolicyDraft["machine"]>): readonly string[] {
  return [
    "tpm:",
    `  endorsementKeys: ${list(endorsementKeys ?? [missing])} # which physical machines, as perun host list shows`,
    `  laboratoryRoots: ${list(laboratoryRoots ?? [])} # INSECURE LABORATORY when not empty`,
    "  startupLocality: any",
    "  clock: safe # any: also after a loss of power",
    `boot: { reference: ${quoted(bootReference ?? missing)} } # as perun reference build prints`,
    `ima: { reference: ${quoted(imaReference ?? missing)}, violations: deny }`,
  ]
}

function acceptLines({ accept, laboratoryRoots }: NonNullable<PolicyDraft["machine"]>): readonly string[] {
  const comment = "    accept: # the machine must prove one of these; perun evidence verify shows what a machine's evidence says"
  if (accept !== undefined) return [comment, ...accept.map((alternative) => `      - ${JSON.stringify(alternative)}`)]
  const measured = `[${quoted(missing)}]`
  return [
    comment,
    "      - tdx: # or sgx, snp, azure: docs/manager-proof.md has their fields",
    `          mrTd: ${measured} # firmware`,
    `          rtmrs: { "0": any, "1": ${measured}, "2": ${measured}, "3": any } # 1: boot loader, 2: kernel, command line, initial ram disk`,
    "          mrConfigId: any",
    "          mrOwner: any",
    "          mrOwnerConfig: any",
    "          mrSeam: any",
    "          septVeDisable: true",
    "          migration: false",
    "          eventLog: none # or { quirks: [] }: the log must explain the registers",
    "          debug: false",
    `          tcb: { status: [UpToDate], advisories: [], evaluationDataNumber: 0 }`,
    "          platforms: any # or the PPIDs of the physical machines that are meant",
    `          laboratoryRoots: ${list(laboratoryRoots ?? [])} # INSECURE LABORATORY when not empty`,
  ]
}

/** JSON is YAML too, and these values are long lists of digests that nobody types. */
function managerLines({ managerAccept, managerKey }: PolicyDraft): readonly string[] {
  if (managerAccept !== undefined)
    return ["# It must prove one of these before it gets anything.", `manager: { accept: ${JSON.stringify(managerAccept)} }`]
  return [
    "# Shown as UNATTESTED MANAGER everywhere: whoever runs it can read the keys.",
    `manager: { insecureUnattested: { key: ${quoted(managerKey ?? missing)} } }`,
  ]
}

function stakeholderLine({
  name,
  key,
  recipient,
  roles,
}: Omit<PolicyDraft["stakeholders"][number], "roles"> & { readonly roles: readonly string[] }): string {
  const recipients = recipient === undefined ? "" : `, recipients: ${list([recipient])}`
  return `  ${name}: { keys: ${list([key])}${recipients}, roles: [${roles.join(", ")}] }`
}

function metricLines(coders: readonly string[]): readonly string[] {
  if (coders.length === 0)
    return ["    metrics: none # or { to: [...], schema: { epoch: int, loss: { float: 4 } }, maxPerMinute: 60, maxBytes: 100000 }"]
  return [
    "    metrics: # live numbers; every owner consents to them by signing this policy",
    `      to: ${list(coders)}`,
    "      schema: { epoch: int, loss: { float: 4 }, accuracy: { float: 4 } } # float: digits behind the point",
    "      maxPerMinute: 600",
    "      maxBytes: 100000",
  ]
}

function inputFolder(name: string, kind: string): string {
  return kind === "code" ? `/opt/ml/code/${name}` : `/opt/ml/input/${name}`
}

/** A JSON string is a YAML string, whatever is in it. */
function quoted(text: string): string {
  return JSON.stringify(text)
}

function list(items: readonly string[]): string {
  return `[${items.map(quoted).join(", ")}]`
}
