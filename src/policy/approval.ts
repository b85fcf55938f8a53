import type { Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { verifyStatement } from "../pki/statement.ts"
import type { StatementPurpose, StatementSignature } from "../pki/statement.ts"
import type { Approval, Job, Policy } from "./document.ts"
import { artifactOwners, inputOwners, own, policyDigest } from "./document.ts"
import type { Derivations, Origin } from "./derivation.ts"
import { originsOfInputs, originsWithout } from "./derivation.ts"
import { isReached, namesMissing } from "./expression.ts"

/** Where a set of signatures stands against what a policy asks for. Made from the signatures each time; never stored as a truth of its own. */
export interface Tally {
  /** Reached, with every owner whose consent no quorum can replace. */
  readonly satisfied: boolean
  /** Stakeholders with a valid signature of their own, in the policy's order, each once. */
  readonly signed: readonly string[]
  /** Stakeholders whose signature could still bring it nearer. */
  readonly missing: readonly string[]
  /** Parties behind derived inputs that have yet to sign, by the names they had in the policies that those came from. */
  readonly originsMissing: readonly string[]
  /** Stakeholders that have taken their consent back. Theirs counts no more; that of an owner ends the whole for good. */
  readonly withdrawn: readonly string[]
  readonly invalid: readonly InvalidSignature[]
}

export interface InvalidSignature {
  /** Place in the list that was given, from 0. */
  readonly index: number
  readonly key: string
  /** `unknown-signer`: no stakeholder states the key. `ambiguous-signer`: more than one does, so it counts for none. Else the code of pki. */
  readonly code: string
  readonly message: string
}

/** Voices against: `withdrawn` has the owners with a tombstone on this policy's digest, `objected` those who made use of a veto. */
export interface Against {
  readonly withdrawn?: ReadonlySet<string>
  readonly objected?: ReadonlySet<string>
}

/**
 * Counts approvals of a policy: signatures over `perun policy <digest>`. Besides the policy's own expression every artifact's owner must have signed, and
 * none may have withdrawn. The first policy is no exception.
 */
export function tallyApprovals(policy: Policy, signatures: readonly StatementSignature[], against: Against = {}): Tally {
  return tallyStatements(
    policy,
    {
      purpose: "policy",
      digest: policyDigest(policy),
      approval: policy.approval,
      origins: [],
      everyone: Object.keys(policy.stakeholders),
      owners: artifactOwners(policy),
      blocking: artifactOwners(policy),
    },
    signatures,
    against,
  )
}

/** What a vote to release is about. Its digest (`digestOfJson`) is what is signed, as purpose `vote`. */
export interface ReleaseVote {
  readonly run: string
  readonly job: string
  /** Name of the output, or `logs`. */
  readonly output: string
  /** Digest of the sealed output's ciphertext or manifest. */
  readonly ciphertext: Digest
  readonly sizeBytes: number
  readonly policy: Digest
  /** Digest of the evidence on which the run got its keys. */
  readonly evidence: Digest
  /** Whether the machine's TPM chains to a laboratory root. */
  readonly laboratory: boolean
  readonly vote: "release"
}

/**
 * Counts votes on something that a job made. Whatever the expression says, every input's owner that has not waived it must have voted: what is derived
 * belongs to all of them. With `none` as release nothing more is needed.
 */
export function tallyRelease(
  policy: Policy,
  jobName: string,
  outputName: string,
  votes: { readonly digest: Digest; readonly signatures: readonly StatementSignature[] },
  derivations: Derivations,
  against: Against = {},
): Tally {
  const { job, terms } = demandTerms(policy, jobName, outputName)
  const owners = votingOwners(policy, job, terms)
  return tallyStatements(
    policy,
    {
      purpose: "vote",
      digest: votes.digest,
      approval: terms.release,
      everyone: owners,
      owners,
      origins: originsOfInputs(policy, job, derivations),
      blocking: inputOwners(policy, job),
    },
    votes.signatures,
    against,
  )
}

/** @throws {TypeError} where the policy has no such job or output: wrong use, for callers take both from the policy */
export function demandTerms(policy: Policy, jobName: string, outputName: string): { readonly job: Job; readonly terms: ReleaseTerms } {
  const job = own(policy.jobs, jobName)
  const terms = job === undefined ? undefined : releaseTerms(job, outputName)
  if (job === undefined || terms === undefined) throw new TypeError(`policy has no output ${outputName} of a job ${jobName}`)
  return { job, terms }
}

/** The terms on which an output, or `logs`, leaves; undefined where the job has no such thing. */
export function releaseTerms(job: Job, outputName: string): ReleaseTerms | undefined {
  if (outputName === "logs") return job.logs === "none" ? undefined : job.logs
  return own(job.outputs, outputName)
}

export interface ReleaseTerms {
  readonly to: readonly string[]
  readonly release: "none" | Approval
  readonly waive?: readonly string[]
}

/** Owners of the job's inputs that have kept their vote on this. */
export function votingOwners(policy: Policy, job: Job, terms: Pick<ReleaseTerms, "waive">): readonly string[] {
  const waived = new Set(terms.waive)
  return inputOwners(policy, job).filter((owner) => !waived.has(owner))
}

/**
 * Whether the owner of an artifact has itself signed this exact policy and not withdrawn: without it the artifact's key is not usable under the policy,
 * whatever a quorum says.
 */
export function ownerHasSigned(policy: Policy, artifactName: string, signatures: readonly StatementSignature[], against: Against = {}): boolean {
  const owner = own(policy.artifacts, artifactName)?.owner
  if (owner === undefined) return false
  const { signed } = signersOf(policy, "policy", policyDigest(policy), signatures)
  return signed.has(owner) && against.withdrawn?.has(owner) !== true
}

/** The stakeholder that a key speaks for in this policy; undefined where none or more than one states it. */
export function stakeholderOfKey(policy: Policy, key: string): string | undefined {
  const names = Object.entries(policy.stakeholders).flatMap(([name, { keys }]) => (keys.includes(key) ? [name] : []))
  return names.length === 1 ? names[0] : undefined
}

interface Question {
  readonly purpose: StatementPurpose
  readonly digest: Digest
  readonly approval: "none" | Approval
  readonly everyone: readonly string[]
  /** Each of these must have signed, whatever `approval` says. */
  readonly owners: readonly string[]
  /** Parties behind derived inputs: one of each one's keys must have signed. */
  readonly origins: readonly Origin[]
  /** The withdrawal of any of these ends it, also of one that has waived its vote: what is derived is locked too. */
  readonly blocking: readonly string[]
}

function tallyStatements(policy: Policy, question: Question, signatures: readonly StatementSignature[], against: Against): Tally {
  const { signed, keys, invalid } = signersOf(policy, question.purpose, question.digest, signatures)
  const withdrawn = against.withdrawn ?? new Set()
  const valid = new Set([...signed].filter((name) => !withdrawn.has(name)))
  const voices = { signed: valid, everyone: question.everyone, objected: new Set([...(against.objected ?? []), ...withdrawn]) }
  const reached = question.approval === "none" || isReached(question.approval, voices)
  const ownersMissing = question.owners.filter((owner) => !valid.has(owner))
  const missing = new Set([...(question.approval === "none" ? [] : namesMissing(question.approval, voices)), ...ownersMissing])
  const originsMissing = originsWithout(question.origins, keysWithout(keys, policy, withdrawn))
  const inOrder = Object.keys(policy.stakeholders)
  return {
    satisfied: reached && ownersMissing.length === 0 && originsMissing.length === 0 && !question.blocking.some((name) => withdrawn.has(name)),
    signed: inOrder.filter((name) => valid.has(name)),
    missing: inOrder.filter((name) => missing.has(name) && !withdrawn.has(name)),
    originsMissing: originsMissing.map(({ name }) => name),
    withdrawn: inOrder.filter((name) => withdrawn.has(name)),
    invalid,
  }
}

/** Those keys that no party which took its consent back states: under whatever name it signed, its signature counts no more. */
export function keysWithout(keys: ReadonlySet<string>, policy: Policy, withdrawn: ReadonlySet<string> = new Set()): ReadonlySet<string> {
  const ended = new Set([...withdrawn].flatMap((name) => own(policy.stakeholders, name)?.keys ?? []))
  return new Set([...keys].filter((key) => !ended.has(key)))
}

/**
 * Keys whose holders have signed `perun policy <digest>`, whether or not the policy states them. A key that a stakeholder merely lists proves nothing.
 */
export function signingKeys(purpose: StatementPurpose, digest: Digest, signatures: readonly StatementSignature[]): ReadonlySet<string> {
  return new Set(signatures.flatMap((signature) => keyOf(purpose, digest, signature).key ?? []))
}

interface Signers {
  /** Names with at least one valid signature. A key counts once, and so does a name with several keys. */
  readonly signed: ReadonlySet<string>
  /** The keys that signed. */
  readonly keys: ReadonlySet<string>
  readonly invalid: readonly InvalidSignature[]
}

function signersOf(policy: Policy, purpose: StatementPurpose, digest: Digest, signatures: readonly StatementSignature[]): Signers {
  const signed = new Set<string>()
  const keys = new Set<string>()
  const invalid: InvalidSignature[] = []
  for (const [index, signature] of signatures.entries()) {
    const { key, fault } = keyOf(purpose, digest, signature)
    if (key !== undefined) keys.add(key)
    const name = key === undefined ? undefined : stakeholderOfKey(policy, key)
    if (name !== undefined) signed.add(name)
    else invalid.push({ index, key: signature.key, ...(fault ?? notAStakeholder(policy, signature.key)) })
  }
  return { signed, keys, invalid }
}

/**
 * Good signatures by all that they are over: what was good stays good, and every call counts the same ones anew. Who may speak, and who took back what it said, is never kept.
 */
const verified = new Map<string, string>()
/** Some 2 MB. */
const maxVerified = 4096

type Fault = Pick<InvalidSignature, "code" | "message">

function keyOf(
  purpose: StatementPurpose,
  digest: Digest,
  signature: StatementSignature,
): { readonly key: string; readonly fault?: undefined } | { readonly key?: undefined; readonly fault: Fault } {
  const statement = JSON.stringify([purpose, digest, signature.format, signature.key, signature.signature])
  const known = verified.get(statement)
  if (known !== undefined) return { key: known }
  try {
    const key = verifyStatement(purpose, digest, signature)
    if (verified.size >= maxVerified) verified.clear()
    verified.set(statement, key)
    return { key }
  } catch (error) {
    // A bad signature is reported and never counted; it must not keep the good ones from counting.
    if (!(error instanceof PerunError)) throw error
    return { fault: { code: error.code, message: error.message } }
  }
}

function notAStakeholder(policy: Policy, key: string): Fault {
  const stating = Object.values(policy.stakeholders).filter(({ keys }) => keys.includes(key))
  if (stating.length > 1) return { code: "ambiguous-signer", message: "more than one stakeholder states this key, so it speaks for none" }
  return { code: "unknown-signer", message: "no stakeholder of this policy states this key" }
}
