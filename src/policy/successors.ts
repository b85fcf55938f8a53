import type { StatementSignature } from "../pki/statement.ts"
import type { Against, Tally } from "./approval.ts"
import { keysWithout, ownerHasSigned, signingKeys, stakeholderOfKey, tallyApprovals } from "./approval.ts"
import type { Derivations } from "./derivation.ts"
import { foreignLaboratoryRoots, originsOfArtifact } from "./derivation.ts"
import type { Policy } from "./document.ts"
import { own, policyDigest } from "./document.ts"
import { isReached, namesMissing, type Voices } from "./expression.ts"
import { judgeRecoveries, type Proposal, recoveryCodes } from "./recovery.ts"

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
  "laboratory-not-accepted":
    "the artifact came from a laboratory machine, INSECURE LABORATORY, whose root the machine of a job that uses it does not accept",
  "unknown-artifact": "the policy has no such artifact",
  ...recoveryCodes,
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
  /** Parties whose keys it would replace, rightly. */
  readonly recovered: readonly string[]
}

/**
 * Judges whether a policy may become active: its own approval is reached, it supersedes exactly what is active (`none` for the first), and the
 * predecessor's own approval expression, with the predecessor's keys, is reached by signatures over this policy's digest, so that nobody can end a study
 * over the heads of its parties. A party that lost its keys speaks by its new ones where the predecessor lets the others say so (recovery.ts).
 */
export function judgeSuccession(
  policy: Policy,
  active: Policy | "none",
  signatures: readonly StatementSignature[],
  against: Against = {},
  proposal?: Proposal,
): Succession {
  const tally = tallyApprovals(policy, signatures, against)
  const problems: SuccessionProblem[] = []
  const activeDigest = active === "none" ? "none" : policyDigest(active)
  if (policy.supersedes !== activeDigest) problems.push({ code: "wrong-predecessor", names: [policy.supersedes, activeDigest] })
  if (active !== "none" && active.study !== policy.study) problems.push({ code: "other-study", names: [active.study, policy.study] })
  if (!tally.satisfied) problems.push({ code: "approvals-missing", names: tally.missing })
  const voices = active === "none" ? undefined : voicesOfPredecessor(active, policy, signatures, against)
  const recovery =
    active === "none" || voices === undefined
      ? noRecovery
      : judgeRecoveries(active, policy, { byPredecessor: voices, bySuccessor: new Set(tally.signed) }, proposal)
  problems.push(...recovery.problems)
  if (active !== "none" && voices !== undefined) {
    const all = { ...voices, signed: new Set([...voices.signed, ...recovery.recovered]) }
    if (!isReached(active.approval, all)) problems.push({ code: "predecessor-approvals-missing", names: namesMissing(active.approval, all) })
  }
  return { allowed: problems.length === 0, problems, tally, recovered: recovery.recovered }
}

const noRecovery = { recovered: [], problems: [] } as const

/**
 * Why an artifact may not be used under a policy; empty when it may. Its owner must itself have signed this exact policy; for a derived one so must every
 * owner behind it; none of them may have withdrawn; and a laboratory behind it must be accepted. `withdrawnKeys` are the keys of owners that withdrew from any policy the artifact came from.
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
  const allKeys = signingKeys("policy", policyDigest(policy), signatures)
  const signedKeys = keysWithout(allKeys, policy, against.withdrawn)
  for (const { name, keys } of originsOfArtifact(policy, artifactName, derivations)) {
    const hasWithdrawn = keys.some((key) => against.withdrawnKeys?.has(key) === true || (allKeys.has(key) && !signedKeys.has(key)))
    if (hasWithdrawn) problems.push({ code: "origin-owner-withdrawn", names: [name] })
    else if (!keys.some((key) => signedKeys.has(key))) problems.push({ code: "origin-owner-not-signed", names: [name] })
  }
  const users = Object.values(policy.jobs).filter(({ inputs }) => Object.hasOwn(inputs, artifactName))
  const roots = new Set(users.flatMap((job) => foreignLaboratoryRoots(policy, job, artifactName, derivations)))
  if (roots.size > 0) problems.push({ code: "laboratory-not-accepted", names: [...roots] })
  return problems
}

/**
 * The predecessor's parties agree by signatures of keys that the predecessor states for them. What the successor states about keys does not count, or its
 * author could list another party's key as its own. A party that has taken its signature under the successor back has not agreed.
 */
function voicesOfPredecessor(
  predecessor: Policy,
  successor: Policy,
  signatures: readonly StatementSignature[],
  { withdrawn = new Set() }: Against,
): Voices {
  const keys = keysWithout(signingKeys("policy", policyDigest(successor), signatures), successor, withdrawn)
  const named = (list: Iterable<string>): ReadonlySet<string> => new Set([...list].flatMap((key) => stakeholderOfKey(predecessor, key) ?? []))
  const against = [...withdrawn].flatMap((name) => own(successor.stakeholders, name)?.keys ?? [])
  return { signed: named(keys), everyone: Object.keys(predecessor.stakeholders), objected: named(against) }
}
