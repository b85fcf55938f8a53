import { canonicalJson } from "../bytes/json.ts"
import type { Approval, Policy, Stakeholder } from "./document.ts"
import { own } from "./document.ts"
import { approvalText, isReached, namesMissing, type Voices } from "./expression.ts"

/**
 * How others may put new keys in the place of a party that has lost its own. The party agreed to it itself, by signing the policy that states it. The step is a successor policy that says
 * `recovers`, changes nothing else, and waits until those who still hold the former keys had time to object.
 */
export interface Recovery {
  /** Whose signatures it takes; the party itself is not among them. */
  readonly by: Approval
  /** How long the former keys can object, from the day on which the successor was proposed. */
  readonly noticeSeconds: number
}

/** What is known of a proposed policy beside its signatures. */
export interface Proposal {
  /** When everybody concerned could see it. */
  readonly since: Date
  readonly now: Date
  /** Parties of the predecessor that have withdrawn from that. */
  readonly left: ReadonlySet<string>
}

/** Why a party's keys cannot be replaced so. Meaning stands here once. */
export const recoveryCodes = {
  "recovery-not-agreed": "the party has not agreed to having its keys replaced, or has withdrawn",
  "recovery-wrong-key": "a party's new key is one that the predecessor states already",
  "recovery-changes-more": "a policy that replaces a party's keys must change nothing but these, its recipients and the manifests of its artifacts",
  "recovery-not-signed": "the party has not signed with its new key",
  "recovery-approvals-missing": "those whom the party trusted with this have not all signed",
  "recovery-notice": "the party's former keys can still object",
} as const satisfies Record<string, string>

export type RecoveryCode = keyof typeof recoveryCodes

export interface RecoveryProblem {
  readonly code: RecoveryCode
  /** Parties, fields or a time that it is about. */
  readonly names: readonly string[]
}

/** Who signed a successor: by the keys that the predecessor states, and by its own. */
export interface SuccessorVoices {
  readonly byPredecessor: Voices
  readonly bySuccessor: ReadonlySet<string>
}

/** Which parties may speak by their new keys towards the predecessor, and why others may not. */
export function judgeRecoveries(
  predecessor: Policy,
  successor: Policy,
  voices: SuccessorVoices,
  proposal: Proposal | undefined,
): { readonly recovered: readonly string[]; readonly problems: readonly RecoveryProblem[] } {
  const names = successor.recovers ?? []
  if (names.length === 0) return { recovered: [], problems: [] }
  const more = changesBeside(predecessor, successor, names)
  if (more.length > 0) return { recovered: [], problems: [{ code: "recovery-changes-more", names: more }] }
  const judged = names.map((name) => ({ name, problem: problemOf(name, predecessor, successor, voices, proposal) }))
  return {
    recovered: judged.flatMap(({ name, problem }) => (problem === undefined ? [name] : [])),
    problems: judged.flatMap(({ problem }) => problem ?? []),
  }
}

function problemOf(
  name: string,
  predecessor: Policy,
  successor: Policy,
  { byPredecessor, bySuccessor }: SuccessorVoices,
  proposal: Proposal | undefined,
): RecoveryProblem | undefined {
  const recovery = own(predecessor.stakeholders, name)?.recovery
  if (recovery === undefined || proposal?.left.has(name) === true) return { code: "recovery-not-agreed", names: [name] }
  const stated = new Set(Object.values(predecessor.stakeholders).flatMap(({ keys }) => keys))
  if (own(successor.stakeholders, name)?.keys.some((key) => stated.has(key)) !== false) return { code: "recovery-wrong-key", names: [name] }
  if (!bySuccessor.has(name)) return { code: "recovery-not-signed", names: [name] }
  const others = { ...byPredecessor, everyone: byPredecessor.everyone.filter((other) => other !== name) }
  if (!isReached(recovery.by, others)) return { code: "recovery-approvals-missing", names: namesMissing(recovery.by, others) }
  const ends = proposal === undefined ? undefined : noticeEnds(recovery, proposal.since)
  if (ends === undefined || proposal === undefined || proposal.now < ends)
    return { code: "recovery-notice", names: [name, ...(ends === undefined ? [] : [ends.toISOString()])] }
  return undefined
}

/** When the former keys' time to object is over. */
export function noticeEnds({ noticeSeconds }: Recovery, since: Date): Date {
  return new Date(since.getTime() + noticeSeconds * 1000)
}

/** Dotted paths that differ though no recovery of `names` lets them. */
function changesBeside(predecessor: Policy, successor: Policy, names: readonly string[]): readonly string[] {
  return differences(leveled(predecessor, names), leveled(successor, names), "")
}

/** A policy without what its step of recovery may change. */
function leveled(policy: Policy, names: readonly string[]): object {
  const { supersedes: _, recovers: __, stakeholders, artifacts, ...rest } = policy
  const parties = Object.entries(stakeholders).map(([name, party]) => [name, names.includes(name) ? withoutKeys(party) : party] as const)
  const things = Object.entries(artifacts).map(
    ([name, artifact]) => [name, names.includes(artifact.owner) ? { ...artifact, manifest: "" } : artifact] as const,
  )
  return { ...rest, stakeholders: Object.fromEntries(parties), artifacts: Object.fromEntries(things) }
}

function withoutKeys({ recipients, roles, recovery }: Stakeholder): object {
  return { recipients: recipients === undefined ? "none" : "some", roles, recovery: recovery ?? "none" }
}

function differences(before: object, after: object, path: string): readonly string[] {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((key) => {
    const [was, is] = [memberOf(before, key), memberOf(after, key)]
    const at = path === "" ? key : `${path}.${key}`
    if (was !== undefined && is !== undefined && canonicalJson(was) === canonicalJson(is)) return []
    return isObject(was) && isObject(is) ? differences(was, is, at) : [at]
  })
}

function memberOf(value: object, key: string): unknown {
  return Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** What a party gave up by agreeing to it, for those who read the policy. */
export function recoveryWords(name: string, { by, noticeSeconds }: Recovery, everyone: readonly string[]): string {
  const others = everyone.filter((other) => other !== name)
  return `${approvalText(by, others)} may put other keys in the place of ${name}'s and so speak for it, ${noticeWords(noticeSeconds)} after they proposed it, unless ${name}'s present keys object`
}

function noticeWords(seconds: number): string {
  if (seconds % 86_400 === 0) return `${seconds / 86_400} ${seconds === 86_400 ? "day" : "days"}`
  if (seconds % 3600 === 0) return `${seconds / 3600} ${seconds === 3600 ? "hour" : "hours"}`
  return `${seconds} seconds`
}
