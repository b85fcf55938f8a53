import { z } from "zod"
import type { Digest } from "../bytes/digest.ts"
import { digestOfJson, isDigest } from "../bytes/digest.ts"
import type { DemandedPieces } from "../evidence/bundle.ts"
import { PolicyError } from "./errors.ts"
import type { Problem } from "./problem.ts"
import { problemsOfIssues } from "./issues.ts"
import type { Locate } from "./locate.ts"
import { nowhere } from "./locate.ts"
import { checkedTimeSchema, type CheckedTime } from "./manager-time.ts"
import { vaultDemandsSchema, type VaultDemand } from "./manager-vault.ts"
import { managerWitnessesSchema, type ManagerWitnesses } from "./manager-witnesses.ts"
import { problemsOfMarks } from "./marks.ts"
import type { Recovery } from "./recovery.ts"
import { type Secret, secretSchema, type SecretUse, secretUseSchema } from "./secrets.ts"
import { laboratoryRootsOf, teeRequirementSchema } from "./tee.ts"
import type { TeeRequirement } from "./tee.ts"
import { utcTime } from "./time.ts"

/** The contract: what may happen to whose artifact on what kind of machine. Identified by `policyDigest`. design.md section 4. */
export interface Policy {
  readonly perun: 1
  /** Name of the study. A manager keeps one active policy per study. */
  readonly study: string
  /** One sentence for people: what it is for, what leaves. */
  readonly purpose: string
  readonly stakeholders: Readonly<Record<string, Stakeholder>>
  readonly manager: ManagerRequirement
  readonly artifacts: Readonly<Record<string, Artifact>>
  /** Values that jobs are given besides; left out: none. */
  readonly secrets?: Readonly<Record<string, Secret>>
  readonly machines: Readonly<Record<string, Machine>>
  readonly jobs: Readonly<Record<string, Job>>
  /** Whose signatures make the policy active. `{ require: all }` means every stakeholder. */
  readonly approval: Approval
  /** UTC time, `YYYY-MM-DDThh:mm:ssZ`. From then on nothing is released. */
  readonly expires: string
  /** Digest of the predecessor, which must be the study's active policy when this one becomes active. */
  readonly supersedes: "none" | Digest
  /** Parties whose lost keys this policy replaces, as the predecessor lets it (recovery.ts). */
  readonly recovers?: readonly string[]
}

export type Role = (typeof roles)[number]

export interface Stakeholder {
  /** SSH public keys, `type base64` without comment; each may sign for the stakeholder. */
  readonly keys: readonly string[]
  /** age recipients that results for it are sealed to. */
  readonly recipients?: readonly string[]
  /** `checker` is a program, which signs with a report of what it checked (protocol/check-report.ts), and is nothing else. */
  readonly roles: readonly Role[]
  /** How others may replace its keys; left out: nobody ever. */
  readonly recovery?: Recovery
}

/** Whom the parties trust to hold the keys. */
export type ManagerRequirement = AttestedManager | UnattestedManager

/** Any manager that proves itself as one of these TEEs demands. Its keys are those that its evidence covers. */
export interface AttestedManager {
  readonly accept: readonly TeeRequirement[]
  /** Its clock must be checked so. Left out: time comes from whom the manager says, which may be its host alone. */
  readonly time?: CheckedTime
  /** Its vault key must come from one of these. Left out: nobody looks, and it may lie in a file on its disk. */
  readonly vault?: readonly VaultDemand[]
  /** Who must have seen its log before it gives anything out. Left out: nobody. */
  readonly witnesses?: ManagerWitnesses
}

export interface UnattestedManager {
  /** A manager that proves nothing, named by its key, `ssh-ed25519 base64`. Every screen shows UNATTESTED MANAGER. */
  readonly insecureUnattested: { readonly key: string }
}

export type ArtifactKind = (typeof artifactKinds)[number]

export interface Artifact {
  readonly kind: ArtifactKind
  /** Name of the stakeholder whose own signature binds the artifact's key to this policy. */
  readonly owner: string
  /** Digest of the artifact's manifest. */
  readonly manifest: Digest
}

export type Level = (typeof levels)[number]

/** What a machine must prove. Nothing here has a default. */
export type Machine = HostMachine | EnclaveMachine

/** A host that is attested by its TPM, its measured boot and its IMA list. */
export interface HostMachine extends HostRequirement {
  readonly level: HostLevel
}

/** How deep a host's TPM, boot and IMA list are judged. */
export type HostLevel = Exclude<Level, "enclave">

/** A TEE, which must meet one of the alternatives. */
export interface EnclaveMachine {
  readonly level: "enclave"
  readonly accept: readonly TeeRequirement[]
  /**
   * `none`: what the TEE itself measured is all. Else the guest inside must also prove its boot and its programs as a host of level `sealed` does, by a TPM that the
   * TEE's evidence covers.
   */
  readonly guest: "none" | HostRequirement
}

/** What TPM, measured boot and IMA list must show. */
export interface HostRequirement {
  readonly tpm: TpmRequirement
  readonly boot: {
    readonly reference: Digest
    /** Left out: only a successor policy changes the reference. */
    readonly updates?: BootUpdates
  }
  readonly ima: {
    readonly reference: Digest
    /** Left out: only a successor policy changes the reference. */
    readonly updates?: ReferenceUpdates
    /** What to do about entries whose file changed while it was measured: refuse, or allow in named path classes of the reference. */
    readonly violations: "deny" | { readonly allow: readonly string[] }
  }
}

/** Who may put another document in the place of a reference, alone, for all who sign this policy. */
export interface ReferenceUpdates {
  /** A stakeholder. */
  readonly by: string
  /** UTC time from which no update is taken any more; those taken before stay. */
  readonly until: string
  /** How long the document that was replaced is good beside the new one. Then machines of it get no key, and no lease of theirs is renewed. */
  readonly overlapSeconds: number
}

/** Of a boot reference only these registers' events, with the command lines and root hashes in them. */
export interface BootUpdates extends ReferenceUpdates {
  readonly registers: readonly number[]
}

export interface TpmRequirement {
  /** Which physical machines: SHA-256 of each endorsement key's SubjectPublicKeyInfo. `any` is not offered: it would let a foreign TPM answer. */
  readonly endorsementKeys: readonly Digest[]
  /** SHA-256 of laboratory root certificates (DER) that are accepted. What comes of such a machine is INSECURE LABORATORY. */
  readonly laboratoryRoots: readonly Digest[]
  readonly startupLocality: "any" | 0 | 3 | 4
  /** `safe`: the TPM's clock must not have been set back by a loss of power. */
  readonly clock: "safe" | "any"
}

export interface Job {
  /** Name of the machine requirement that a host must meet. */
  readonly machine: string
  /** `measured-root`: the program runs from the host's own measured root file system. */
  readonly runtime: "measured-root"
  /** Program and arguments; no shell. */
  readonly run: readonly string[]
  /** Artifact name to the absolute folder where the program finds it, read-only. */
  readonly inputs: Readonly<Record<string, string>>
  readonly outputs: Readonly<Record<string, Output>>
  readonly metrics: "none" | Metrics
  readonly logs: "none" | Logs
  readonly environment?: Readonly<Record<string, string>>
  /** Values that the policy's `secrets` name, and how the program is given each. */
  readonly secrets?: Readonly<Record<string, SecretUse>>
  /** How often the job may be started under this policy, all runs together. */
  readonly maxRuns: number
  readonly network: "none"
  readonly resources: Resources
  readonly lease: { readonly seconds: number }
}

export type OutputKind = (typeof outputKinds)[number]

/** A folder that the job writes and that leaves, sealed, after the votes. It belongs to the owners of all inputs. */
export interface Output {
  readonly path: string
  readonly kind: OutputKind
  readonly maxBytes: number
  /** Stakeholders that get it. */
  readonly to: readonly string[]
  /** Votes that release it. `none` only where every input's owner is in `waive`. */
  readonly release: "none" | Approval
  /** Owners of inputs who, by signing this policy, give up their vote on this output. */
  readonly waive?: readonly string[]
}

/** Numbers that flow while the job runs. Every owner consents to them by signing this very policy, for there is no vote on a live number. */
export interface Metrics {
  readonly to: readonly string[]
  readonly schema: Readonly<Record<string, MetricType>>
  readonly maxPerMinute: number
  /** All metrics of one run together. */
  readonly maxBytes: number
}

/** `int`, or a number rounded to so many digits behind the point. */
export type MetricType = "int" | { readonly float: number }

export interface Logs {
  readonly to: readonly string[]
  readonly release: "none" | Approval
  readonly waive?: readonly string[]
  readonly maxBytes: number
}

export interface Resources {
  readonly gpus: number
  readonly memoryBytes: number
  readonly wallSeconds: number
}

/**
 * Who must sign. Without `of`, `require: all` means everyone whom the place concerns: all stakeholders for a policy, all owners of the job's inputs
 * for a release; `require: any` names those of whom one is enough. `veto`: `of` must be reached and none of these may have objected.
 */
export type Approval =
  | { readonly require: "all"; readonly of?: readonly ApprovalMember[] }
  | { readonly require: "any"; readonly of: readonly ApprovalMember[] }
  | { readonly atLeast: number; readonly of: readonly ApprovalMember[] }
  | { readonly veto: readonly string[]; readonly of: Approval }

export type ApprovalMember = string | Approval

/**
 * `parsePolicy` for a value that a strict parser has already read, as in a request to the manager. The caller has capped its size.
 * @throws {PolicyError} `invalid-policy`
 */
export function parsePolicyValue(value: unknown): Policy {
  return readPolicy(value, nowhere)
}

/** The policy's name: SHA-256 of its RFC 8785 form. What every signature, deposit and release is bound to. */
export function policyDigest(policy: Policy): Digest {
  if (!parsed.has(policy)) return digestOfJson(policy)
  const known = digests.get(policy)
  if (known !== undefined) return known
  const digest = digestOfJson(policy)
  digests.set(policy, digest)
  return digest
}

/** What was parsed is frozen to its depth, so its digest stays right. */
const parsed = new WeakSet<Policy>()
const digests = new WeakMap<Policy, Digest>()

function frozen<T extends object>(value: T): T {
  for (const member of Object.values(value)) if (typeof member === "object" && member !== null) frozen(member as object)
  return Object.freeze(value)
}

/** Who keeps the keys, in a few words. */
export function managerText(manager: ManagerRequirement): string {
  if ("insecureUnattested" in manager) return manager.insecureUnattested.key
  return `any that proves itself as accepted (${manager.accept.map((alternative) => Object.keys(alternative).join()).join(" or ")})`
}

/** Member of a record by a name that may come from anywhere; never what the prototype has. */
export function own<T>(record: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined
}

/** Names of the stakeholders whose artifacts and secrets go into a job, in order of appearance, each once. These own what the job derives. */
export function inputOwners(policy: Policy, job: Job): readonly string[] {
  const owners = Object.keys(job.inputs).flatMap((artifact) => own(policy.artifacts, artifact)?.owner ?? [])
  const holders = Object.keys(job.secrets ?? {}).flatMap((secret) => secretOwner(own(policy.secrets ?? {}, secret)) ?? [])
  return [...new Set([...owners, ...holders])]
}

/** Names of all stakeholders that own an artifact or bring a secret, each once. */
export function artifactOwners(policy: Policy): readonly string[] {
  const holders = Object.values(policy.secrets ?? {}).flatMap((secret) => secretOwner(secret) ?? [])
  return [...new Set([...Object.values(policy.artifacts).map((artifact) => artifact.owner), ...holders])]
}

function secretOwner(secret: Secret | undefined): string | undefined {
  return secret !== undefined && "owner" in secret ? secret.owner : undefined
}

/** Digests of all reference documents that the policy names, each once. */
export function referencedDigests(policy: Policy): readonly Digest[] {
  const hosts = Object.values(policy.machines).flatMap((machine) => hostRequirementOf(machine) ?? [])
  return [...new Set(hosts.flatMap(({ boot, ima }) => [boot.reference, ima.reference]))]
}

/** What a machine's TPM must show; undefined for a TEE alone. */
export function hostRequirementOf(machine: Machine): HostRequirement | undefined {
  if (machine.level !== "enclave") return machine
  return machine.guest === "none" ? undefined : machine.guest
}

/** How deep a machine's TPM, boot and IMA list are judged, where it shows them: a guest inside a TEE as a sealed host. */
export function hostLevelOf(machine: Machine): HostLevel {
  return machine.level === "enclave" ? "sealed" : machine.level
}

/** Pieces of evidence that a machine must show: these and no others. */
export function demandedPieces(machine: Machine): DemandedPieces {
  if (machine.level !== "enclave") return "tpm"
  return machine.guest === "none" ? "tee" : "tee-with-tpm"
}

/** Laboratory roots that a machine may chain to, each once. */
export function laboratoryRootsOfMachine(machine: Machine): readonly Digest[] {
  const ofTee = machine.level === "enclave" ? laboratoryRootsOf(machine.accept) : []
  return [...new Set([...ofTee, ...(hostRequirementOf(machine)?.tpm.laboratoryRoots ?? [])])]
}

/** `parsePolicyValue` for a value that has a text. @throws {PolicyError} `invalid-policy` */
export function readPolicy(value: unknown, locate: Locate): Policy {
  const unsupported = unsupportedLevels(value, locate)
  const result = policySchema.safeParse(value, { reportInput: true })
  const marks = problemsOfMarks(value, locate)
  if (result.success && unsupported.length === 0 && marks.length === 0) {
    parsed.add(frozen(result.data))
    return result.data
  }
  // What a mark says of its place is more than what the form says of the mark.
  const placesAtFault = [...unsupported.map((problem) => problem.field.replace(/level$/, "")), ...marks.map(({ field }) => `${field}.`)]
  const issues = result.success ? [] : problemsOfIssues(result.error.issues, value, locate)
  // A machine of another level states other evidence; complaints about its shape would only hide the real one.
  const relevant = issues.filter((problem) => !placesAtFault.some((place) => `${problem.field}.`.startsWith(place)))
  throw new PolicyError("invalid-policy", [...unsupported, ...marks, ...relevant])
}

function unsupportedLevels(value: unknown, locate: Locate): readonly Problem[] {
  if (!isRecord(value) || !isRecord(value["machines"])) return []
  return Object.entries(value["machines"]).flatMap(([name, machine]): Problem[] => {
    const level = isRecord(machine) ? machine["level"] : undefined
    if (level !== "confidential") return []
    const path = ["machines", name, "level"]
    return [
      {
        code: "level-unsupported",
        field: path.join("."),
        ...locate(path),
        message: `level ${level} has no verifier in this version`,
        fix: `use one of ${levels.join(", ")}`,
      },
    ]
  })
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** A policy is read by people; a larger one is a mistake or an attack. */
export const maxPolicyBytes = 1024 * 1024

export const roles = ["data", "code", "model", "consumer", "auditor", "checker"] as const
export const artifactKinds = ["dataset", "code", "model", "mock"] as const
export const outputKinds = ["model", "dataset", "report"] as const
/** Levels that have a verifier. `confidential` is a known word and refused by name. */
export const levels = ["administered", "sealed", "enclave"] as const

const maxMembers = 256
/** Names and parts of one approval. It is evaluated at each step of a study, and one that fills a whole policy would take seconds each time. */
const maxApprovalMembers = 1024
/** Longest sentence, path or argument. */
const maxText = 4096
/** A post-quantum age recipient has some 2000 characters. */
const maxKeyText = 8192

const digest = z.custom<Digest>(isDigest, { error: 'expected "sha256:" and 64 lower-case hexadecimal digits' })
const name = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,62}$/, "expected a name of lower-case letters, digits and hyphens, a letter first, at most 63 characters")
  .refine((text) => text !== "constructor", "this name is not allowed")
const identifier = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]{0,63}$/, "expected letters, digits and underscores, no digit first, at most 64 characters")
const line = z
  .string()
  .min(1)
  .max(maxText)
  .regex(/^[^\p{C}\p{Zl}\p{Zp}]*$/u, "expected one line of visible text")
const argument = z
  .string()
  .max(maxText)
  .regex(/^(?:[^\p{C}\p{Zl}\p{Zp}]|[\t\n])*$/u, "expected visible text, tabs and line ends")
const sshKey = z
  .string()
  .max(maxKeyText)
  .regex(
    /^(?:ssh-ed25519|ecdsa-sha2-nistp256|sk-ssh-ed25519@openssh\.com) [A-Za-z0-9+/]+={0,2}$/,
    'expected an SSH public key without comment: "ssh-ed25519 AAAA...", ecdsa-sha2-nistp256 or sk-ssh-ed25519@openssh.com',
  )
const recipient = z
  .string()
  .max(maxKeyText)
  .regex(/^age1[a-z0-9]+$/, "expected an age recipient: age1…")
const count = z.int().min(1)
const names = z.array(name).min(1).max(maxMembers)

/** A map of at most `maxMembers`, for what is compared pairwise or shown to people. */
function recordOf<Value extends z.ZodType>(key: z.ZodString, value: Value): z.ZodRecord<z.ZodString, Value> {
  return z.record(key, value).refine((record) => Object.keys(record).length <= maxMembers, `at most ${maxMembers} members are allowed`)
}

const approval: z.ZodType<Approval> = z.lazy(() =>
  z.union([
    z.strictObject({ require: z.literal("all"), of: z.array(approvalMember).min(1).max(maxMembers).exactOptional() }),
    z.strictObject({ require: z.literal("any"), of: z.array(approvalMember).min(1).max(maxMembers) }),
    z.strictObject({ atLeast: count.max(maxMembers), of: z.array(approvalMember).min(1).max(maxMembers) }),
    z.strictObject({ veto: names, of: approval }),
  ]),
)
const approvalMember: z.ZodType<ApprovalMember> = z.lazy(() => z.union([name, approval]))
const wholeApproval = approval.refine(
  (whole) => memberCount(whole) <= maxApprovalMembers,
  `at most ${maxApprovalMembers} names and parts are allowed in all, however nested`,
)
const release = z.union([z.literal("none"), wholeApproval])

function memberCount(member: ApprovalMember): number {
  if (typeof member === "string") return 1
  const inner = "veto" in member ? [...member.veto, member.of] : (member.of ?? [])
  return inner.reduce((sum, one) => sum + memberCount(one), 1)
}

const stakeholder = z.strictObject({
  keys: z.array(sshKey).min(1).max(maxMembers),
  recipients: z.array(recipient).min(1).max(maxMembers).exactOptional(),
  roles: z.array(z.enum(roles)).min(1).max(roles.length),
  recovery: z.strictObject({ by: wholeApproval, noticeSeconds: z.int().min(3600).max(7_776_000) }).exactOptional(),
})

const artifact = z.strictObject({ kind: z.enum(artifactKinds), owner: name, manifest: digest })

/** At most thirty days: machines that take longer to follow need a policy of their own. */
const updates = { by: name, until: utcTime, overlapSeconds: z.int().min(0).max(2_592_000) }

const host = {
  tpm: z.strictObject({
    endorsementKeys: z.array(digest).min(1).max(maxMembers),
    laboratoryRoots: z.array(digest).max(maxMembers),
    startupLocality: z.union([z.literal("any"), z.literal(0), z.literal(3), z.literal(4)]),
    clock: z.enum(["safe", "any"]),
  }),
  boot: z.strictObject({
    reference: digest,
    updates: z.strictObject({ ...updates, registers: z.array(z.int().min(0).max(15)).min(1).max(16) }).exactOptional(),
  }),
  ima: z.strictObject({
    reference: digest,
    violations: z.union([z.literal("deny"), z.strictObject({ allow: names })]),
    updates: z.strictObject(updates).exactOptional(),
  }),
}
const machine: z.ZodType<Machine> = z.discriminatedUnion("level", [
  z.strictObject({ level: z.enum(["administered", "sealed"]), ...host }),
  z.strictObject({
    level: z.literal("enclave"),
    accept: z.array(teeRequirementSchema).min(1).max(maxMembers),
    guest: z.union([z.literal("none"), z.strictObject(host)]),
  }),
])

const output = z.strictObject({
  path: line,
  kind: z.enum(outputKinds),
  maxBytes: count,
  to: names,
  release,
  waive: names.exactOptional(),
})

const metrics = z.strictObject({
  to: names,
  schema: recordOf(identifier, z.union([z.literal("int"), z.strictObject({ float: z.int().min(0).max(9) })])),
  maxPerMinute: count.max(60_000),
  maxBytes: count,
})

const logs = z.strictObject({ to: names, release, waive: names.exactOptional(), maxBytes: count })

const job = z.strictObject({
  machine: name,
  runtime: z.literal("measured-root"),
  run: z.array(argument).min(1).max(maxMembers),
  inputs: recordOf(name, line),
  outputs: recordOf(name, output),
  metrics: z.union([z.literal("none"), metrics]),
  logs: z.union([z.literal("none"), logs]),
  environment: recordOf(identifier, argument).exactOptional(),
  secrets: recordOf(name, secretUseSchema(identifier, line, argument)).exactOptional(),
  maxRuns: count.max(1_000_000),
  network: z.literal("none"),
  resources: z.strictObject({ gpus: z.int().min(0).max(64), memoryBytes: count, wallSeconds: count }),
  lease: z.strictObject({ seconds: z.int().min(5).max(3600) }),
})

/** The form of `manager`, which a client's pin has too. */
export const managerRequirementSchema: z.ZodType<ManagerRequirement> = z.union([
  z.strictObject({ insecureUnattested: z.strictObject({ key: sshKey }) }),
  z.strictObject({
    accept: z.array(teeRequirementSchema).min(1).max(maxMembers),
    time: checkedTimeSchema.exactOptional(),
    vault: vaultDemandsSchema(sshKey).exactOptional(),
    witnesses: managerWitnessesSchema.exactOptional(),
  }),
])

/** The form of a policy, for `parsePolicy` and the OpenAPI document. */
export const policySchema: z.ZodType<Policy> = z.strictObject({
  perun: z.literal(1),
  study: name,
  purpose: line,
  stakeholders: recordOf(name, stakeholder),
  manager: managerRequirementSchema,
  artifacts: recordOf(name, artifact),
  secrets: recordOf(name, secretSchema(name)).exactOptional(),
  machines: recordOf(name, machine),
  jobs: recordOf(name, job),
  approval: wholeApproval,
  expires: utcTime,
  supersedes: z.union([z.literal("none"), digest]),
  recovers: names.exactOptional(),
})
