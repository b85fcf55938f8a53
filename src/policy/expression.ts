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
 * Whether an approval is reached. Equal members count once, and a threshold of n needs n members for which n different parties can speak, one for each,
 * so that no party counts twice by being nested.
 */
export function isReached(approval: Approval, voices: Voices): boolean {
  return partiesBehind(approval, voices) !== undefined
}

/**
 * Names whose signature could still bring the approval nearer: those not signed in the parts not reached, and in parts that are reached by a party who
 * speaks for another part already. Empty once it is reached, and where an objection stands that nobody's signature undoes. As long as any signatures could
 * reach it there is one, so whoever asks those named, and asks again, gets there.
 */
export function namesMissing(approval: Approval, voices: Voices): readonly string[] {
  if (isReached(approval, voices)) return []
  if ("veto" in approval) return hasVeto(approval.veto, voices) ? [] : namesMissing(approval.of, voices)
  const members = distinctMembers(membersOf(approval, voices.everyone))
  const isShared = speakers(members, voices) < members.filter((member) => partiesBehind(member, voices) !== undefined).length
  const names = members.flatMap((member) => {
    if (typeof member === "string") return [member]
    const ofMember = namesMissing(member, voices)
    return isShared && ofMember.length === 0 && isReached(member, voices) ? namesSigning(member, voices.everyone) : ofMember
  })
  return [...new Set(names)].filter((name) => !voices.signed.has(name))
}

/** All names that an approval mentions, those of `everyone` for an open `require: all`; vetoing ones too. Each once. */
export function namesIn(approval: Approval, everyone: readonly string[]): readonly string[] {
  if ("veto" in approval) return [...new Set([...approval.veto, ...namesIn(approval.of, everyone)])]
  return [...new Set(membersOf(approval, everyone).flatMap((member) => (typeof member === "string" ? [member] : namesIn(member, everyone))))]
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
  const members = membersOf(approval, everyone)
  const list = members.map((member) => (typeof member === "string" ? member : `(${approvalText(member, everyone)})`)).join(", ")
  if ("atLeast" in approval) return `at least ${approval.atLeast} of ${list}`
  return members.length === 1 ? list : `${approval.require} of ${list}`
}

/** The parties who brought a part about and may speak for it in a threshold; undefined where it is not reached. One pass over the expression. */
function partiesBehind(member: ApprovalMember, voices: Voices): ReadonlySet<string> | undefined {
  if (typeof member === "string") return voices.signed.has(member) ? new Set([member]) : undefined
  if ("veto" in member) return hasVeto(member.veto, voices) ? undefined : partiesBehind(member.of, voices)
  const behind = distinctMembers(membersOf(member, voices.everyone)).map((inner) => partiesBehind(inner, voices))
  const reached = behind.filter((parties) => parties !== undefined)
  return isEnough(member, reached, behind.length) ? new Set(reached.flatMap((parties) => [...parties])) : undefined
}

function isEnough(approval: Listed, reached: readonly ReadonlySet<string>[], members: number): boolean {
  if ("atLeast" in approval) return approval.atLeast > 0 && mostSpeakers(reached) >= approval.atLeast
  return reached.length > 0 && (approval.require === "any" || reached.length === members)
}

function hasVeto(veto: readonly string[], { objected }: Voices): boolean {
  return veto.some((name) => objected?.has(name) === true)
}

function speakers(members: readonly ApprovalMember[], voices: Voices): number {
  return mostSpeakers(members.map((member) => partiesBehind(member, voices)).filter((parties) => parties !== undefined))
}

/** For how many parts one party each can be found, none of them twice: a largest matching in a bipartite graph, by augmenting paths (Kuhn). */
function mostSpeakers(parts: readonly ReadonlySet<string>[]): number {
  const partOf = new Map<string, number>()
  const place = (part: number, seen: Set<string>): boolean => {
    for (const party of parts[part] ?? []) {
      if (seen.has(party)) continue
      seen.add(party)
      const held = partOf.get(party)
      if (held === undefined || place(held, seen)) {
        partOf.set(party, part)
        return true
      }
    }
    return false
  }
  return parts.filter((_, part) => place(part, new Set())).length
}

/** An approval with members, which is every form but a veto. */
type Listed = Exclude<Approval, { readonly veto: readonly string[] }>

function membersOf(approval: Listed, everyone: readonly string[]): readonly ApprovalMember[] {
  return approval.of ?? everyone
}

/** As `namesIn`, without those who may only object. */
function namesSigning(approval: Approval, everyone: readonly string[]): readonly string[] {
  if ("veto" in approval) return namesSigning(approval.of, everyone)
  return membersOf(approval, everyone).flatMap((member) => (typeof member === "string" ? [member] : namesSigning(member, everyone)))
}

function distinctMembers(members: readonly ApprovalMember[]): readonly ApprovalMember[] {
  return [...new Map(members.map((member) => [canonicalJson(member), member])).values()]
}
