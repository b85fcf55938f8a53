import { bytesEqual } from "../bytes/compare.ts"
import type { Digest } from "../bytes/digest.ts"
import { canonicalJson } from "../bytes/json.ts"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { EnrolmentChallenge, EnrolmentRequest, HostView } from "../protocol/messages.ts"
import { hostSight, isPartyOfHost } from "./admission.ts"
import { type HostCaller, type ManagerContext, newId, type StakeholderCaller, transact } from "./context.ts"
import type { PendingEnrolment } from "./judge.ts"
import { appendReceipt } from "./receipts.ts"
import type { HostRecord } from "./records.ts"
import { endRun } from "./run-end.ts"

/** Time for ActivateCredential on a slow TPM. */
const lifetimeMilliseconds = 120_000
/** Each holds some KB of certificates; what one network may begin is bounded beside. */
const maxPending = 1024
const maxHosts = 10_000

interface Waiting {
  readonly pending: PendingEnrolment
  readonly request: EnrolmentRequest
  readonly tlsKey: Digest
  readonly startedAt: number
}

/** Enrolments that wait for their answer. Not stored: after a restart the host begins again. */
export class EnrolmentBook {
  readonly #waiting = new Map<string, Waiting>()
  readonly #monotonic: () => number

  constructor(monotonic: () => number) {
    this.#monotonic = monotonic
  }

  /** @throws {ProtocolError} `too-many-requests` */
  add(id: string, pending: PendingEnrolment, request: EnrolmentRequest, tlsKey: Digest): void {
    const before = this.#monotonic() - lifetimeMilliseconds
    for (const [key, { startedAt }] of this.#waiting) if (startedAt <= before) this.#waiting.delete(key)
    if (this.#waiting.size >= maxPending) throw new ProtocolError("too-many-requests", "too many enrolments are open")
    this.#waiting.set(id, { pending, request, tlsKey, startedAt: this.#monotonic() })
  }

  /** Takes an enrolment out for good: right or wrong, there is one answer. @throws {ProtocolError} `not-found` */
  take(id: string, tlsKey: Digest): Waiting {
    const waiting = this.#waiting.get(id)
    if (waiting === undefined || waiting.tlsKey !== tlsKey || this.#monotonic() - waiting.startedAt >= lifetimeMilliseconds)
      throw new ProtocolError("not-found", "there is no such enrolment of this TLS key; begin again")
    this.#waiting.delete(id)
    return waiting
  }
}

/**
 * Verifies a TPM's endorsement and gives back a credential that only that TPM can open, and only while it holds the attestation key.
 * @throws {EvidenceError}, {MalformedError}; {ProtocolError} `already-exists`, `too-many-requests`
 */
export async function beginEnrolment(context: ManagerContext, caller: HostCaller, request: EnrolmentRequest): Promise<EnrolmentChallenge> {
  context.budgets.enrolments.spend(caller.address)
  const pending = await context.judge.beginEnrolment(request, context.time.now())
  refuseTaken(context.store.list("hosts"), request.host, pending)
  const enrolment = newId(context)
  context.enrolments.add(enrolment, pending, request, caller.tlsKey)
  return { enrolment, credentialBlob: encodeBase64(pending.credentialBlob), secret: encodeBase64(pending.encryptedSecret) }
}

/**
 * Takes the answer and writes the host's record, once and for ever. The same machine enrolling again changes nothing; a name or a TPM that is taken is
 * refused.
 * @throws {ProtocolError} `not-found`, `wrong-answer` (the enrolment is then forgotten), `already-exists`
 */
export function answerEnrolment(context: ManagerContext, caller: HostCaller, enrolment: string, secret: string): HostView {
  const { pending, request } = context.enrolments.take(enrolment, caller.tlsKey)
  if (!bytesEqual(parseBase64(secret, "secret"), pending.expectedSecret))
    throw new ProtocolError("wrong-answer", "the answer is not what the TPM would have found; begin again")
  return transact(context, (tx) => {
    refuseTaken(tx.list("hosts"), request.host, pending)
    const known = tx.get("hosts", request.host)
    if (known !== undefined) return viewHost(known)
    if (tx.count("hosts") >= maxHosts) throw new ProtocolError("limit-exceeded", `the manager keeps ${maxHosts} hosts already`)
    const record: HostRecord = {
      host: request.host,
      identity: pending.identity,
      akPublic: request.akPublic,
      ekCertificates: [...request.ekCertificates],
      enrolledAt: context.time.nowText(),
      retired: false,
    }
    tx.put("hosts", request.host, record)
    const isLaboratory = pending.identity.rootKind === "laboratory"
    appendReceipt(context, tx, { kind: "host-enrolled", host: request.host, ...(isLaboratory ? { laboratory: true } : {}) })
    return viewHost(record)
  })
}

/** One name, one TPM, one attestation key; each only once, and none again once it is retired. */
function refuseTaken(hosts: readonly HostRecord[], host: string, pending: PendingEnrolment): void {
  const named = hosts.find((record) => record.host === host)
  if (named !== undefined && (named.retired || !isSameIdentity(named, pending)))
    throw new ProtocolError("already-exists", `the name ${host} belongs to ${named.retired ? "a retired host" : "another TPM or attestation key"}`)
  const owner = hosts.find((record) => record.identity.endorsementKey === pending.identity.endorsementKey)
  if (owner === undefined || owner.host === host) return
  // Certificates of TPMs are public: under which name one is enrolled is for those who may see the host.
  throw new ProtocolError("already-exists", owner.retired ? "this TPM was retired, for good" : "this TPM is enrolled under another name")
}

function isSameIdentity(record: HostRecord, pending: PendingEnrolment): boolean {
  const facts = ({ endorsementKey, attestationKeyName }: HostRecord["identity"]): string => canonicalJson([endorsementKey, attestationKeyName])
  return facts(record.identity) === facts(pending.identity)
}

export function viewHost({ host, identity, enrolledAt, retired }: HostRecord): HostView {
  return { host, identity, enrolledAt, retired }
}

/**
 * Retires a host with its TPM for good and ends what runs on it. Any party of an active policy that lists its endorsement key may: who doubts a machine
 * must be able to stop it without asking those who do not.
 * @throws {ProtocolError} `not-found` where the caller does not see the host, `not-permitted`
 */
export function retireHost(context: ManagerContext, caller: StakeholderCaller, host: string): HostView {
  return transact(context, (tx) => {
    const record = tx.get("hosts", host)
    if (record === undefined || !hostSight(context, tx, caller)(record)) throw new ProtocolError("not-found", `there is no host ${host}`)
    if (!isPartyOfHost(context, tx, caller, record))
      throw new ProtocolError("not-permitted", "no active policy that lists this machine names the caller")
    if (record.retired) return viewHost(record)
    const retired = { ...record, retired: true }
    tx.put("hosts", host, retired)
    // Parties of several policies see this, and each policy has its own names.
    appendReceipt(context, tx, { kind: "host-retired", host, byKey: caller.key })
    for (const lease of tx.list("leases")) {
      const run = lease.host === host && lease.ended === undefined ? tx.get("runs", lease.run) : undefined
      if (run !== undefined) endRun(context, tx, run, { state: "ended", code: "lease-ended", reason: `host ${host} was retired` })
    }
    return viewHost(retired)
  })
}
