import { stakeholderOfKey } from "../policy/approval.ts"
import type { Policy } from "../policy/document.ts"
import { listingOf } from "../policy/listing.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { ManagerContext, Reader, StakeholderCaller } from "./context.ts"
import type { HostRecord, PolicyRecord } from "./records.ts"
import { readStanding } from "./standing.ts"

/**
 * Who may speak to the manager, and what of it each sees. Members are admitted by the operator and may propose; whom a policy names is its party, and so
 * invited by whoever proposed it. Keys are not released by this: for that, signatures over a policy count.
 */

/** Whether the operator admits the caller. */
export function isMember(context: ManagerContext, caller: StakeholderCaller): boolean {
  return context.members.has(caller.key)
}

/** Policies that name the caller. */
export function policiesOf(context: ManagerContext, reader: Reader, caller: StakeholderCaller): readonly PolicyRecord[] {
  return reader.list("policies").filter(({ digest }) => stakeholderOfKey(context.documents.policy(reader, digest), caller.key) !== undefined)
}

/** What lets a caller use the manager at all: to be a member, or a party of any policy. @throws {ProtocolError} `not-permitted` */
export function demandKnown(context: ManagerContext, reader: Reader, caller: StakeholderCaller): void {
  if (isMember(context, caller) || policiesOf(context, reader, caller).length > 0) return
  throw new ProtocolError("not-permitted", "the caller is no member of this manager, and no policy names it")
}

/**
 * That the caller may propose a policy: members any, and parties of the policy that holds a study's place its successor.
 * @throws {ProtocolError} `not-permitted`
 */
export function demandProposer(context: ManagerContext, reader: Reader, caller: StakeholderCaller, policy: Policy): void {
  if (isMember(context, caller)) return
  const predecessor = policiesOf(context, reader, caller).find(({ digest }) => digest === policy.supersedes)
  if (predecessor?.state === "active" && predecessor.study === policy.study) return
  throw new ProtocolError(
    "not-permitted",
    "only members propose policies, and parties of a study's active policy its successor; the manager's operator admits members",
  )
}

/** Which hosts a caller sees: those that one of its policies lists, and to members those that no policy lists yet. */
export function hostSight(context: ManagerContext, reader: Reader, caller: StakeholderCaller): (host: HostRecord) => boolean {
  const policies = (records: readonly PolicyRecord[]): readonly Policy[] => records.map(({ digest }) => context.documents.policy(reader, digest))
  const isListed = listingOf(policies(reader.list("policies")))
  const isOwn = listingOf(policies(policiesOf(context, reader, caller)))
  const member = isMember(context, caller)
  return ({ identity }) => isOwn(identity) || (member && !isListed(identity))
}

/** Whether an active policy that names the caller lists a host. */
export function isPartyOfHost(context: ManagerContext, reader: Reader, caller: StakeholderCaller, host: HostRecord): boolean {
  return policiesOf(context, reader, caller).some(({ digest }) => {
    const { state, policy } = readStanding(context, reader, digest)
    return state === "active" && listingOf([policy])(host.identity)
  })
}
