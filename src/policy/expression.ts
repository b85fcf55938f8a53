import { canonicalJson } from "../bytes/json.ts"
import type { Approval, ApprovalMember } from "./document.ts"

/** Who said what, and whom an open `require: all` means. */
export interface Voices {
  /** Names that have signed, each proved by a signature of their own. */
  readonly signed: ReadonlySet<string>
  /** Whom `require: all` without `of` means; at least one, else nothing is ever reached. */
  readonly everyone: readonly string[]
  /** Names that have objected; only `veto` asks for them. */
  readonly objected?: ReadonlySet<string>
}

/**
 * Whether an approval is reached. Equal members count once, and a threshold of n needs n members behind which at least n different parties stand, so that
 * no party counts twice by being nested.
 */
export function isReached(approval: Approval, voices: Voices): boolean {
  if ("veto" in approval) return approval.veto.every((name) => voices.objected?.has(name) !== true) && isReached(approval.of, voices)
  if ("require" in approval) {
    const members = distinctMembers(approval.of ?? voices.everyone)
    return members.length > 0 && members.every((member) => isMemberReached(member, voices))
  }
  const reached = distinctMembers(approval.of).filter((member) => isMemberReached(member, voices))
  const parties = new Set(reached.flatMap((member) => signersWithin(member, voices)))
  return approval.atLeast > 0 && reached.length >= approval.atLeast && parties.size >= approval.atLeast
}

/** Names whose signature could still bring the approval nearer: those not signed in the parts not reached. Empty once it is reached. */
export function namesMissing(approval: Approval, voices: Voices): readonly string[] {
  if (isReached(approval, voices)) return []
  if ("veto" in approval) return namesMissing(approval.of, voices)
  const members = "require" in approval ? (approval.of ?? voices.everyone) : approval.of
  const names = members.flatMap((member) => {
    if (typeof member !== "string") return namesMissing(member, voices)
    return voices.signed.has(member) ? [] : [member]
  })
  return [...new Set(names)]
}

/** All names that an approval mentions, those of `everyone` for an open `require: all`; vetoing ones too. Each once. */
export function namesIn(approval: Approval, everyone: readonly string[]): readonly string[] {
  if ("veto" in approval) return [...new Set([...approval.veto, ...namesIn(approval.of, everyone)])]
  const members = "require" in approval ? (approval.of ?? everyone) : approval.of
  return [...new Set(members.flatMap((member) => (typeof member === "string" ? [member] : namesIn(member, everyone))))]
}

/** Those of `owners` without whom the approval could be reached if everybody else signed. Exact, because more signatures never undo an approval. */
export function dispensable(approval: Approval, owners: readonly string[], everyone: readonly string[]): readonly string[] {
  const all = namesIn(approval, everyone)
  return owners.filter((owner) => isReached(approval, { signed: new Set(all.filter((name) => name !== owner)), everyone }))
}

/** Whether any set of signatures reaches it. */
export function isReachable(approval: Approval, everyone: readonly string[]): boolean {
  return isReached(approval, { signed: new Set(namesIn(approval, everyone)), everyone })
}

/** The approval in words: `all of a, b and at least 2 of c, d, e`. */
export function approvalText(approval: Approval, everyone: readonly string[]): string {
  if ("veto" in approval) return `${approvalText(approval.of, everyone)}, unless ${approval.veto.join(" or ")} objects`
  const members = "require" in approval ? (approval.of ?? everyone) : approval.of
  const list = members.map((member) => (typeof member === "string" ? member : `(${approvalText(member, everyone)})`)).join(", ")
  if ("atLeast" in approval) return `at least ${approval.atLeast} of ${list}`
  return members.length === 1 ? list : `all of ${list}`
}

function isMemberReached(member: ApprovalMember, voices: Voices): boolean {
  return typeof member === "string" ? voices.signed.has(member) : isReached(member, voices)
}

function signersWithin(member: ApprovalMember, voices: Voices): readonly string[] {
  if (typeof member === "string") return [member]
  return namesIn(member, voices.everyone).filter((name) => voices.signed.has(name))
}

function distinctMembers(members: readonly ApprovalMember[]): readonly ApprovalMember[] {
  return [...new Map(members.map((member) => [canonicalJson(member), member])).values()]
}
