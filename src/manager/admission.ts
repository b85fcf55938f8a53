import type { Digest } from "../bytes/digest.ts"
import type { Policy } from "../policy/document.ts"
import { isTeeIdentity, listingOf, type MachineIdentity, namesMachine } from "../policy/listing.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { ManagerContext, Reader, StakeholderCaller } from "./context.ts"
import { partyOf } from "./parties.ts"
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
  return reader.list("policies").filter(({ digest }) => partyOf(context, reader, digest, caller.key) !== undefined)
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

/**
 * Which hosts a caller sees: those that one of its policies names or had a run on; those that one of its policies only allows (`any`), unless a policy of others names
 * them; and to members those that no policy lists yet.
 */
export function hostSight(context: ManagerContext, reader: Reader, caller: StakeholderCaller): (host: HostRecord) => boolean {
  const own = new Set(policiesOf(context, reader, caller).map(({ digest }) => digest))
  const records = reader.list("policies").map(({ digest }) => ({ isOwn: own.has(digest), policy: context.documents.policy(reader, digest) }))
  const policies = (isOwn: boolean): readonly Policy[] => records.filter((record) => record.isOwn === isOwn).map(({ policy }) => policy)
  const [isNamed, isAllowed, isNamedElsewhere, isListedElsewhere] = [
    listingOf(policies(true), namesMachine),
    listingOf(policies(true)),
    listingOf(policies(false), namesMachine),
    listingOf(policies(false)),
  ]
  const hasRun = hasHadRuns(reader, own)
  const member = isMember(context, caller)
  return (host) => {
    const { identity } = host
    if (isNamed(identity) || hasRun(host)) return true
    return isAllowed(identity) ? !isNamedElsewhere(identity) : member && !isListedElsewhere(identity)
  }
}

/** Whether an active policy that names the caller names a host, or has had a run on it: a policy that allows any machine makes none of them its parties' own. */
export function isPartyOfHost(context: ManagerContext, reader: Reader, caller: StakeholderCaller, host: HostRecord): boolean {
  return policiesOf(context, reader, caller).some(({ digest }) => {
    const { state, policy } = readStanding(context, reader, digest)
    if (state !== "active") return false
    return listingOf([policy], namesMachine)(host.identity) || hasHadRuns(reader, new Set([digest]))(host)
  })
}

/** Whether a run of these policies was on a host, under whichever name its processor has. */
function hasHadRuns(reader: Reader, policies: ReadonlySet<Digest>): (host: HostRecord) => boolean {
  const names = new Set(reader.list("runs").flatMap(({ policy, host }) => (host !== undefined && policies.has(policy) ? [host] : [])))
  const processors = new Set([...names].flatMap((name) => processorOf(reader.get("hosts", name)?.identity) ?? []))
  return ({ host, identity }) => names.has(host) || processors.has(processorOf(identity) ?? "")
}

/** Undefined for a TPM, which has one name, and for a TEE that does not say which processor it is. */
function processorOf(identity: MachineIdentity | undefined): string | undefined {
  if (identity === undefined || !isTeeIdentity(identity) || identity.platform === null) return undefined
  return `${identity.tee} ${identity.root} ${identity.platform}`
}
