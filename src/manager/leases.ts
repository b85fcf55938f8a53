import { own } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { demandInputs } from "./consent.ts"
import { type HostCaller, type ManagerContext, type Reader, transact } from "./context.ts"
import type { JudgedMachine } from "./judge.ts"
import type { LeaseRecord, RunRecord } from "./records.ts"
import { endRun } from "./run-end.ts"
import { demandActive, readStanding } from "./standing.ts"
import type { Transaction } from "./store.ts"

/**
 * What this process knows of leases beside the store: when each ends on the monotonic clock, and what its last evidence was judged to be. After a restart
 * the deadline is made from the stored wall time, which can only shorten a lease, and the machine is judged anew from its first log line.
 */
export class LeaseMemory {
  readonly #deadlines = new Map<string, number>()
  readonly #judged = new Map<string, JudgedMachine>()
  readonly #logSizes = new Map<string, number>()

  /** Milliseconds on the monotonic clock; undefined for a lease that is unknown here. */
  deadline(lease: string): number | undefined {
    return this.#deadlines.get(lease)
  }

  judged(lease: string): JudgedMachine | undefined {
    return this.#judged.get(lease)
  }

  /** Size of the log when the lease was given or renewed last, that receipt included; undefined after a restart. */
  logSize(lease: string): number | undefined {
    return this.#logSizes.get(lease)
  }

  extend(lease: string, deadlineMilliseconds: number, judged?: JudgedMachine, logSize?: number): void {
    this.#deadlines.set(lease, deadlineMilliseconds)
    if (logSize !== undefined) this.#logSizes.set(lease, logSize)
    if (judged !== undefined) this.#judged.set(lease, judged)
  }

  readonly #byKey = new Map<string, LeaseRecord["lease"][]>()
  readonly #byHost = new Map<string, LeaseRecord["lease"][]>()
  #indexed = 0

  /** Leases of a TLS key, running or over. Whose a lease is never changes, and none is ever removed: more of them is all that can be new. */
  ofKey(store: ManagerContext["store"], tlsKey: string): readonly LeaseRecord[] {
    return this.#found(store, this.#byKey, tlsKey)
  }

  /** Leases of a host, running or over. */
  ofHost(store: ManagerContext["store"], host: string): readonly LeaseRecord[] {
    return this.#found(store, this.#byHost, host)
  }

  #found(store: ManagerContext["store"], index: ReadonlyMap<string, readonly string[]>, key: string): readonly LeaseRecord[] {
    if (store.count("leases") !== this.#indexed) this.#index(store)
    return (index.get(key) ?? []).flatMap((lease) => store.get("leases", lease) ?? [])
  }

  #index(store: ManagerContext["store"]): void {
    const leases = store.list("leases")
    // The store keeps them in the order in which they came.
    for (const { lease, tlsKey, host } of leases.slice(this.#indexed))
      for (const [index, key] of [[this.#byKey, tlsKey] as const, [this.#byHost, host] as const]) {
        const known = index.get(key)
        if (known === undefined) index.set(key, [lease])
        else known.push(lease)
      }
    this.#indexed = leases.length
  }

  /** Drops what belongs to leases that are over. */
  keepOnly(running: ReadonlySet<string>): void {
    for (const lease of this.#deadlines.keys()) if (!running.has(lease)) this.#deadlines.delete(lease)
    for (const known of [this.#judged, this.#logSizes]) for (const lease of known.keys()) if (!running.has(lease)) known.delete(lease)
  }
}

/** Takes up the leases that were running when the manager stopped. */
export function restoreLeases(context: ManagerContext): void {
  const now = context.time.now().getTime()
  for (const lease of context.store.list("leases")) {
    if (lease.ended !== undefined) continue
    const left = Math.min(Math.max(0, Date.parse(lease.endsAt) - now), lease.seconds * 1000)
    context.leases.extend(lease.lease, context.time.monotonicMilliseconds() + left)
  }
}

/** Ends every lease whose time is over, and its run. Called now and then; what reads a lease checks its time itself. */
export function expireLeases(context: ManagerContext): void {
  const running = context.store.list("leases").filter((lease) => lease.ended === undefined)
  const over = running.filter((lease) => isTimeOver(context, lease))
  if (over.length > 0) transact(context, (tx) => over.forEach((lease) => endByTime(context, tx, lease)))
  context.leases.keepOnly(new Set(running.filter((lease) => !over.includes(lease)).map(({ lease }) => lease)))
}

function isTimeOver(context: ManagerContext, lease: LeaseRecord): boolean {
  return millisecondsLeft(context, lease) <= 0
}

/** Time that a lease has on the monotonic clock; 0 or less when it is over. */
export function millisecondsLeft(context: ManagerContext, { lease }: Pick<LeaseRecord, "lease">): number {
  const deadline = context.leases.deadline(lease)
  return deadline === undefined ? 0 : deadline - context.time.monotonicMilliseconds()
}

function endByTime(context: ManagerContext, tx: Transaction, lease: LeaseRecord): void {
  const run = tx.get("runs", lease.run)
  if (run === undefined) throw new TypeError("internal: lease without a run")
  endRun(context, tx, run, { state: "ended", code: "lease-ended", reason: "the lease was not renewed in time" })
}

export interface HeldLease {
  readonly lease: LeaseRecord
  readonly run: RunRecord
}

/**
 * The running lease under which a host calls: by its TLS key, and by run or lease.
 * @throws {ProtocolError} `not-found` for another's, `lease-ended` or the code that ended it
 */
export function demandLease(
  context: ManagerContext,
  reader: Reader,
  caller: HostCaller,
  which: { readonly run: string } | { readonly lease: string },
): HeldLease {
  const id = "lease" in which ? which.lease : reader.get("runs", which.run)?.lease
  const lease = id === undefined ? undefined : reader.get("leases", id)
  const run = lease === undefined ? undefined : reader.get("runs", lease.run)
  if (lease === undefined || run === undefined || lease.tlsKey !== caller.tlsKey)
    throw new ProtocolError("not-found", "there is no such lease of this TLS key")
  if (lease.ended !== undefined) throw endedError(lease.ended)
  if (isTimeOver(context, lease)) throw new ProtocolError("lease-ended", "the lease was not renewed in time")
  return { lease, run }
}

/** That a TLS key holds a lease, or held one. @throws {ProtocolError} `not-found` */
export function demandHolder(context: ManagerContext, caller: HostCaller): void {
  if (context.leases.ofKey(context.store, caller.tlsKey).length === 0) throw new ProtocolError("not-found", "there is no lease of this TLS key")
}

/** Any running lease of a TLS key; undefined when it has none. */
export function leaseOfKey(context: ManagerContext, caller: HostCaller): LeaseRecord | undefined {
  return context.leases.ofKey(context.store, caller.tlsKey).find((lease) => lease.ended === undefined && !isTimeOver(context, lease))
}

/** Whether a host works on a run now; it gets no second one. */
export function isBusy(context: ManagerContext, host: string): boolean {
  return context.leases.ofHost(context.store, host).some((lease) => lease.ended === undefined && !isTimeOver(context, lease))
}

function endedError(code: string): ProtocolError {
  switch (code) {
    case "policy-withdrawn":
      return new ProtocolError("policy-withdrawn", "the lease ended because consent was withdrawn")
    case "policy-inactive":
      return new ProtocolError("policy-inactive", "the lease ended because the policy is no longer active")
    default:
      return new ProtocolError("lease-ended", `the lease is over (${code})`)
  }
}

/** That a run may go on: policy active, consent to every input. @throws {ProtocolError}, {RefusedError} */
export function demandConsent(context: ManagerContext, reader: Reader, run: RunRecord): void {
  const standing = readStanding(context, reader, run.policy)
  demandActive(standing)
  const job = own(standing.policy.jobs, run.job)
  if (job === undefined) throw new TypeError("internal: run of a job that the policy lacks")
  demandInputs(context, reader, standing, job)
}
