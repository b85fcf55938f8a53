import type { Digest } from "../bytes/digest.ts"
import { verifyStatement, type StatementSignature } from "../pki/statement.ts"
import { stakeholderOfKey } from "../policy/approval.ts"
import type { Derivations } from "../policy/derivation.ts"
import { artifactOwners, own, type Policy } from "../policy/document.ts"
import { judgeSuccession, type Succession, successionCodes } from "../policy/successors.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { ApprovalRecord, PolicyState, PolicyStatus } from "../protocol/messages.ts"
import type { ManagerContext, Reader, StakeholderCaller } from "./context.ts"
import { partyOf, withReplacedKeys } from "./parties.ts"
import type { PolicyRecord, RecordOf } from "./records.ts"

/** A policy with everything that decides whether it may be used, read at one moment. */
export interface Standing {
  readonly record: PolicyRecord
  readonly policy: Policy
  readonly approvals: readonly ApprovalRecord[]
  readonly withdrawals: readonly ApprovalRecord[]
  readonly signatures: readonly StatementSignature[]
  readonly withdrawn: ReadonlySet<string>
  readonly state: PolicyState
  readonly succession: Succession
}

/** @throws {ProtocolError} `not-found` */
export function readStanding(context: ManagerContext, reader: Reader, digest: Digest): Standing {
  const policy = context.documents.policy(reader, digest)
  const record = reader.get("policies", digest)
  if (record === undefined) throw new ProtocolError("not-found", `there is no policy ${digest}`)
  const approvals = reader.list("approvals").flatMap((record) => (record.policy === digest ? [withoutPolicy(record)] : []))
  const withdrawals = reader.list("withdrawals").flatMap((record) => (record.policy === digest ? [withoutPolicy(record)] : []))
  const signatures = approvals.map(({ signature }) => signature)
  const withdrawn = new Set(withdrawals.map(({ stakeholder }) => stakeholder))
  const active = activePolicy(context, reader, record)
  const proposal = { since: new Date(record.submittedAt), now: context.time.now(), left: leftFrom(reader, policy) }
  const succession = judgeSuccession(policy, active, signatures, { withdrawn }, proposal)
  const state = stateOf(context, record, policy, succession, withdrawn)
  return { record, policy, approvals, withdrawals, signatures, withdrawn, state, succession }
}

/** Who has withdrawn from what a policy would replace. */
function leftFrom(reader: Reader, { recovers, supersedes }: Policy): ReadonlySet<string> {
  if (recovers === undefined) return new Set()
  return new Set(reader.list("withdrawals").flatMap(({ policy, stakeholder }) => (policy === supersedes ? [stakeholder] : [])))
}

function withoutPolicy({ stakeholder, signature, at, report }: RecordOf<"approvals">): ApprovalRecord {
  return { stakeholder, signature, at, ...(report === undefined ? {} : { report }) }
}

/**
 * Withdrawal is final: it shows before expiry, and both before what is stored. The withdrawal of an artifact's owner ends a policy; that of another
 * stakeholder ends it when the approval is not reached without it.
 */
function stateOf(context: ManagerContext, record: PolicyRecord, policy: Policy, succession: Succession, withdrawn: ReadonlySet<string>): PolicyState {
  if (record.state === "superseded") return "superseded"
  const lostOwner = artifactOwners(policy).some((owner) => withdrawn.has(owner))
  if (lostOwner || (record.state === "active" && withdrawn.size > 0 && !succession.tally.satisfied)) return "withdrawn"
  if (isPast(context, policy)) return "expired"
  return record.state
}

/** Whether a policy's time is over, whatever else became of it. */
export function isPast({ time }: Pick<ManagerContext, "time">, { expires }: Policy): boolean {
  return time.now().getTime() >= Date.parse(expires)
}

/** The policy that holds its study's place, other than the one itself. */
function activePolicy(context: ManagerContext, reader: Reader, record: PolicyRecord): Policy | "none" {
  const active = reader.list("policies").find((other) => other.state === "active" && other.study === record.study && other.digest !== record.digest)
  return active === undefined ? "none" : context.documents.policy(reader, active.digest)
}

/**
 * The one gate to everything that a policy allows.
 * @throws {ProtocolError} `policy-withdrawn`, `policy-expired`, `policy-inactive`
 */
export function demandActive(standing: Standing): void {
  demandNotSetBack(standing)
  switch (standing.state) {
    case "active":
      return
    case "withdrawn":
      throw new ProtocolError("policy-withdrawn", `consent was withdrawn by ${[...standing.withdrawn].join(", ")}`)
    case "expired":
      throw new ProtocolError("policy-expired", `the policy ended at ${standing.policy.expires}`)
    case "superseded":
      throw new ProtocolError("policy-inactive", "a successor took the policy's place")
    case "proposed":
      throw new ProtocolError("policy-inactive", `signatures are missing: ${standing.succession.tally.missing.join(", ")}`)
  }
}

/** @throws {ProtocolError} `store-set-back` */
export function demandNotSetBack({ record }: Standing): void {
  if (record.setBackAt !== undefined)
    throw new ProtocolError(
      "store-set-back",
      "the manager's store was set back since the policy was agreed on, and a withdrawal may be lost: sign a successor",
    )
}

/** The stakeholder that a caller is in a policy. @throws {ProtocolError} `not-permitted` */
export function demandStakeholder(policy: Policy, caller: StakeholderCaller): string {
  const name = stakeholderOfKey(policy, caller.key)
  if (name === undefined) throw new ProtocolError("not-permitted", "the caller's key is not one of this policy's stakeholders")
  return name
}

/** The party of a policy that a caller is, by its key or what became of it. @throws {ProtocolError} `not-permitted` */
export function demandParty(context: ManagerContext, reader: Reader, digest: Digest, caller: StakeholderCaller): string {
  const name = partyOf(context, reader, digest, caller.key)
  if (name === undefined) throw new ProtocolError("not-permitted", "the caller's key is not one of this policy's stakeholders")
  return name
}

/** The stakeholder whose key made a signature. @throws {PkiError}, {ProtocolError} `not-permitted` for a key of nobody here */
export function signerOf(policy: Policy, purpose: "policy" | "withdraw" | "vote", digest: Digest, signature: StatementSignature): string {
  const name = stakeholderOfKey(policy, verifyStatement(purpose, digest, signature))
  if (name === undefined)
    throw new ProtocolError("not-permitted", "the signing key is not one of this policy's stakeholders", { path: "signature.key" })
  return name
}

export function statusOf(standing: Standing): PolicyStatus {
  const { record, state, succession } = standing
  const isOpen = state === "proposed"
  return {
    digest: record.digest,
    study: record.study,
    state,
    missing: isOpen ? [...new Set([...succession.tally.missing, ...predecessorsMissing(succession)])] : [],
    blockers: isOpen ? succession.problems.map(({ code, names }) => `${successionCodes[code]}: ${names.join(", ")}`.substring(0, 500)) : [],
    submittedAt: record.submittedAt,
    ...(record.erasedAt === undefined ? {} : { erasedAt: record.erasedAt }),
  }
}

function predecessorsMissing(succession: Succession): readonly string[] {
  return succession.problems.flatMap(({ code, names }) => (code === "predecessor-approvals-missing" ? names : []))
}

/** Everything that jobs of this manager made, with the parties, policies and laboratories behind it. */
export function derivationsOf(context: ManagerContext, reader: Reader): Derivations {
  return new Map(reader.list("derivations").map((record) => [record.manifest, withReplacedKeys(context, reader, record)]))
}

/** Keys of those who withdrew from any policy that an artifact came from. */
export function withdrawnKeysBehind(context: ManagerContext, reader: Reader, manifest: Digest): ReadonlySet<string> {
  const policies = reader.get("derivations", manifest)?.policies ?? []
  const keys = reader.list("withdrawals").flatMap(({ policy, stakeholder }) => {
    if (!policies.includes(policy)) return []
    return [...(own(context.documents.policy(reader, policy).stakeholders, stakeholder)?.keys ?? [])]
  })
  return new Set(keys)
}
