import type { Digest } from "../bytes/digest.ts"
import type { ArtifactKind, AttestedManager, HostLevel, Role } from "./document.ts"
import { placeholder as missing } from "./marks.ts"

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
    readonly level?: HostLevel
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
    "stakeholders: # roles: data, code, model, consumer, auditor",
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
    `    level: ${draft.machine?.level ?? "sealed"} # sealed: an appliance that nobody can enter; administered: its administrators can read everything`,
    "    tpm:",
    `      endorsementKeys: ${list(draft.machine?.endorsementKeys ?? [missing])} # which physical machines, as perun host list shows`,
    `      laboratoryRoots: ${list(draft.machine?.laboratoryRoots ?? [])} # INSECURE LABORATORY when not empty`,
    "      startupLocality: any",
    "      clock: safe # any: also after a loss of power",
    `    boot: { reference: ${quoted(draft.machine?.bootReference ?? missing)} } # as perun reference build prints`,
    `    ima: { reference: ${quoted(draft.machine?.imaReference ?? missing)}, violations: deny }`,
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
