import type { Digest } from "../bytes/digest.ts"
import type { StatementSignature } from "../pki/statement.ts"
import type { Against, Tally } from "./approval.ts"
import { ownerHasSigned, releaseTerms, tallyApprovals } from "./approval.ts"
import type { Policy } from "./document.ts"
import { inputOwners, own, policyDigest } from "./document.ts"
import { isReached, namesMissing } from "./expression.ts"

/** Why a policy cannot take its study's place, or an artifact not be used under it. Meaning stands here once. */
export const successionCodes = {
  "wrong-predecessor": "the policy does not supersede the one that is active now",
  "other-study": "the predecessor belongs to another study",
  "approvals-missing": "the policy's own approval is not reached",
  "predecessor-approvals-missing": "those who approved the predecessor have not approved this one to replace it",
  "owner-not-signed": "the artifact's owner has not itself signed this exact policy",
  "owner-withdrawn": "the artifact's owner has withdrawn from this policy, for good",
  "origin-owner-not-signed": "an owner of what the artifact was derived from has not signed this exact policy and never waived it",
  "origin-owner-withdrawn": "an owner of what the artifact was derived from has withdrawn",
  "unknown-artifact": "the policy has no such artifact",
} as const satisfies Record<string, string>

export type SuccessionCode = keyof typeof successionCodes

export interface SuccessionProblem {
  readonly code: SuccessionCode
  /** Stakeholders or digests that it is about. */
  readonly names: readonly string[]
}

/** Whether a policy may become its study's active one. */
export interface Succession {
  readonly allowed: boolean
  readonly problems: readonly SuccessionProblem[]
  readonly tally: Tally
}

/**
 * Judges whether a policy may become active: its own approval is reached, it supersedes exactly what is active (`none` for the first), and the
 * predecessor's own approval expression, with the predecessor's keys, is reached by signatures over this policy's digest, so that nobody can end a study
 * over the heads of its parties.
 */
export function judgeSuccession(
  policy: Policy,
  active: Policy | "none",
  signatures: readonly StatementSignature[],
  against: Against = {},
): Succession {
  const tally = tallyApprovals(policy, signatures, against)
  const problems: SuccessionProblem[] = []
  const activeDigest = active === "none" ? "none" : policyDigest(active)
  if (policy.supersedes !== activeDigest) problems.push({ code: "wrong-predecessor", names: [policy.supersedes, activeDigest] })
  if (active !== "none" && active.study !== policy.study) problems.push({ code: "other-study", names: [active.study, policy.study] })
  if (!tally.satisfied) problems.push({ code: "approvals-missing", names: tally.missing })
  const reluctant = active === "none" ? [] : predecessorsMissing(active, policy, signatures, against)
  if (reluctant.length > 0) problems.push({ code: "predecessor-approvals-missing", names: reluctant })
  return { allowed: problems.length === 0, problems, tally }
}

/** Where a derived artifact came from: who owned the inputs of the job that made it and has kept its say. */
export interface Derivation {
  /** Name to keys: names change between policies, keys prove who it is. */
  readonly owners: Readonly<Record<string, readonly string[]>>
}

/** What was released, by the digest of its manifest. Kept by the manager for ever. */
export type Derivations = ReadonlyMap<Digest, Derivation>

/**
 * What to record for an output when it is made: all owners of the job's inputs that have not waived, and, where an input was itself derived, the owners
 * behind that one.
 */
export function derivationOf(policy: Policy, jobName: string, outputName: string, derivations: Derivations): Derivation {
  const job = own(policy.jobs, jobName)
  const terms = job === undefined ? undefined : releaseTerms(job, outputName)
  if (job === undefined || terms === undefined) throw new TypeError(`policy has no output ${outputName} of a job ${jobName}`)
  const owners: Record<string, readonly string[]> = {}
  for (const artifact of Object.keys(job.inputs)) {
    const manifest = own(policy.artifacts, artifact)?.manifest
    const inherited = manifest === undefined ? undefined : derivations.get(manifest)
    for (const [name, keys] of Object.entries(inherited?.owners ?? {})) owners[name] = keys
  }
  // A waiver gives up this policy's own say only, never what an earlier owner behind a derived input has kept.
  for (const name of inputOwners(policy, job))
    if (terms.waive?.includes(name) !== true) owners[name] = [...new Set([...(owners[name] ?? []), ...(own(policy.stakeholders, name)?.keys ?? [])])]
  return { owners }
}

/**
 * Why an artifact may not be used under a policy; empty when it may. Its owner must itself have signed this exact policy; for a derived one so must every
 * owner behind it; and none of them may have withdrawn. `withdrawnKeys` are the keys of owners that withdrew from any policy the artifact came from.
 */
export function artifactProblems(
  policy: Policy,
  artifactName: string,
  signatures: readonly StatementSignature[],
  derivations: Derivations,
  against: Against & { readonly withdrawnKeys?: ReadonlySet<string> } = {},
): readonly SuccessionProblem[] {
  const artifact = own(policy.artifacts, artifactName)
  if (artifact === undefined) return [{ code: "unknown-artifact", names: [artifactName] }]
  const problems: SuccessionProblem[] = []
  if (against.withdrawn?.has(artifact.owner) === true) problems.push({ code: "owner-withdrawn", names: [artifact.owner] })
  else if (!ownerHasSigned(policy, artifactName, signatures, against)) problems.push({ code: "owner-not-signed", names: [artifact.owner] })
  const signedKeys = validKeys(policy, signatures, against)
  for (const [name, keys] of Object.entries(derivations.get(artifact.manifest)?.owners ?? {})) {
    if (keys.some((key) => against.withdrawnKeys?.has(key) === true)) problems.push({ code: "origin-owner-withdrawn", names: [name] })
    else if (!keys.some((key) => signedKeys.has(key))) problems.push({ code: "origin-owner-not-signed", names: [name] })
  }
  return problems
}

/** Every key of every stakeholder that has validly signed; a stakeholder's keys speak for one party. */
function validKeys(policy: Policy, signatures: readonly StatementSignature[], against: Against): ReadonlySet<string> {
  const { signed } = tallyApprovals(policy, signatures, against)
  return new Set(signed.flatMap((name) => own(policy.stakeholders, name)?.keys ?? []))
}

function predecessorsMissing(predecessor: Policy, successor: Policy, signatures: readonly StatementSignature[], against: Against): readonly string[] {
  const signedKeys = validKeys(successor, signatures, against)
  const signed = Object.entries(predecessor.stakeholders).flatMap(([name, { keys }]) => (keys.some((key) => signedKeys.has(key)) ? [name] : []))
  const voices = { signed: new Set(signed), everyone: Object.keys(predecessor.stakeholders) }
  return isReached(predecessor.approval, voices) ? [] : namesMissing(predecessor.approval, voices)
}
