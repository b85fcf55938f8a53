import { bytesEqual } from "../bytes/compare.ts"
import type { Digest } from "../bytes/digest.ts"
import { canonicalJson } from "../bytes/json.ts"
import { encodeBase64, encodeHex, parseBase64 } from "../bytes/text.ts"
import type { TeeIdentity } from "../evidence/tee/identity.ts"
import type { TpmIdentity } from "../evidence/tpm/claims.ts"
import { isTeeIdentity, type MachineIdentity } from "../policy/listing.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type {
  EnrolmentAnswer,
  EnrolmentChallenge,
  EnrolmentRequest,
  HostView,
  TeeEnrolmentRequest,
  TpmEnrolmentRequest,
} from "../protocol/messages.ts"
import { hostSight, isPartyOfHost } from "./admission.ts"
import { type HostCaller, type ManagerContext, newId, type StakeholderCaller, transact } from "./context.ts"
import type { PendingTpm } from "./judge.ts"
import { appendReceipt } from "./receipts.ts"
import { type HostRecord, recordSchemas } from "./records.ts"
import { endRun } from "./run-end.ts"
import type { Transaction } from "./store.ts"

/** Time for ActivateCredential on a slow TPM, or for a quote. */
const lifetimeMilliseconds = 120_000
/** Each holds some KB of certificates; what one network may begin is bounded beside. */
const maxPending = 1024
const maxHosts = 10_000

type Waiting = { readonly tlsKey: Digest; readonly startedAt: number } & (WaitingTpm | WaitingTee)

interface WaitingTpm {
  readonly request: TpmEnrolmentRequest
  readonly pending: PendingTpm
}

interface WaitingTee {
  readonly request: TeeEnrolmentRequest
  /** 32 bytes in hexadecimal. */
  readonly nonce: string
}

/** Enrolments that wait for their answer. Not stored: after a restart the host begins again. */
export class EnrolmentBook {
  readonly #waiting = new Map<string, Waiting>()
  readonly #monotonic: () => number

  constructor(monotonic: () => number) {
    this.#monotonic = monotonic
  }

  /** @throws {ProtocolError} `too-many-requests` */
  add(id: string, tlsKey: Digest, waiting: WaitingTpm | WaitingTee): void {
    const before = this.#monotonic() - lifetimeMilliseconds
    for (const [key, { startedAt }] of this.#waiting) if (startedAt <= before) this.#waiting.delete(key)
    if (this.#waiting.size >= maxPending) throw new ProtocolError("too-many-requests", "too many enrolments are open")
    this.#waiting.set(id, { ...waiting, tlsKey, startedAt: this.#monotonic() })
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
 * Begins an enrolment. Of a TPM the endorsement is verified, and the challenge is a credential that only that TPM can open, and only while it holds the attestation
 * key. Of a TEE nothing is known yet; the challenge is what its evidence must be over.
 * @throws {EvidenceError}, {MalformedError}; {ProtocolError} `already-exists`, `too-many-requests`
 */
export async function beginEnrolment(context: ManagerContext, caller: HostCaller, request: EnrolmentRequest): Promise<EnrolmentChallenge> {
  context.budgets.enrolments.spend(caller.address)
  const enrolment = newId(context)
  if ("piece" in request) {
    const nonce = encodeHex(context.randomBytes(32))
    context.enrolments.add(enrolment, caller.tlsKey, { request, nonce })
    return { enrolment, nonce, manager: context.description.instance }
  }
  const pending = await context.judge.beginEnrolment(request, context.time.now())
  refuseTaken(context.store.list("hosts"), request.host, pending.identity)
  context.enrolments.add(enrolment, caller.tlsKey, { request, pending })
  return { enrolment, credentialBlob: encodeBase64(pending.credentialBlob), secret: encodeBase64(pending.encryptedSecret) }
}

/**
 * Takes the answer and writes the host's record, once and for ever. The same machine enrolling again changes nothing; a name or a TPM that is taken is
 * refused, and so is a processor that was retired.
 * @throws {ProtocolError} `not-found`, `wrong-answer` (the enrolment is then forgotten), `already-exists`, `limit-exceeded`; {EvidenceError}, {MalformedError} of a TEE
 */
export async function answerEnrolment(context: ManagerContext, caller: HostCaller, enrolment: string, answer: EnrolmentAnswer): Promise<HostView> {
  const waiting = context.enrolments.take(enrolment, caller.tlsKey)
  return "nonce" in waiting ? enrolTee(context, caller, waiting, answer) : enrolTpm(context, waiting, answer)
}

function enrolTpm(context: ManagerContext, { request, pending }: WaitingTpm, answer: EnrolmentAnswer): HostView {
  if (!("secret" in answer)) throw new ProtocolError("wrong-answer", "the enrolment of a TPM is answered by the secret that it found; begin again")
  if (!bytesEqual(parseBase64(answer.secret, "secret"), pending.expectedSecret))
    throw new ProtocolError("wrong-answer", "the answer is not what the TPM would have found; begin again")
  const { host, akPublic, ekCertificates } = request
  return record(context, { host, identity: pending.identity, akPublic, ekCertificates: [...ekCertificates] })
}

async function enrolTee(context: ManagerContext, { tlsKey }: HostCaller, { request, nonce }: WaitingTee, answer: EnrolmentAnswer): Promise<HostView> {
  if (!("evidence" in answer)) throw new ProtocolError("wrong-answer", "the enrolment of a TEE is answered by its evidence; begin again")
  const { host } = request
  const facts = { manager: context.description.instance, nonce, tlsKey }
  const identity = await context.judge.identifyTee(answer.evidence, facts, context.time.now())
  return record(context, { host, identity })
}

type NewHost = Pick<HostRecord, "host" | "identity"> & { readonly akPublic?: string; readonly ekCertificates?: string[] }

function record(context: ManagerContext, facts: NewHost): HostView {
  return transact(context, (tx) => {
    const { host, identity } = facts
    refuseTaken(tx.list("hosts"), host, identity)
    const known = tx.get("hosts", host)
    if (known !== undefined) return viewHost(known)
    if (tx.count("hosts") >= maxHosts) throw new ProtocolError("limit-exceeded", `the manager keeps ${maxHosts} hosts already`)
    const enrolled = recordSchemas.hosts.parse({ ...facts, enrolledAt: context.time.nowText(), retired: false })
    tx.put("hosts", host, enrolled)
    const isLaboratory = identity.rootKind === "laboratory"
    appendReceipt(context, tx, { kind: "host-enrolled", host, ...(isLaboratory ? { laboratory: true } : {}) })
    return viewHost(enrolled)
  })
}

/**
 * One name, one machine; and none again once it is retired.
 * @throws {ProtocolError} `already-exists`, `limit-exceeded`
 */
export function refuseTaken(hosts: readonly HostRecord[], host: string, identity: MachineIdentity): void {
  const named = hosts.find((record) => record.host === host)
  if (named !== undefined && (named.retired || !isSameMachine(named.identity, identity)))
    throw new ProtocolError(
      "already-exists",
      `the name ${host} belongs to ${named.retired ? "a retired host" : "another machine or attestation key"}`,
    )
  if (named !== undefined) return
  if (isTeeIdentity(identity)) refuseTakenTee(hosts, identity)
  else refuseTakenTpm(hosts, identity)
}

/** One TPM, one attestation key; each only once. */
function refuseTakenTpm(hosts: readonly HostRecord[], { endorsementKey }: TpmIdentity): void {
  const owner = hosts.find(({ identity }) => !isTeeIdentity(identity) && identity.endorsementKey === endorsementKey)
  if (owner === undefined) return
  // Certificates of TPMs are public: under which name one is enrolled is for those who may see the host.
  throw new ProtocolError("already-exists", owner.retired ? "this TPM was retired, for good" : "this TPM is enrolled under another name")
}

/** A processor runs many TEEs, so it has many names, but not without end. One that does not say which it is can be retired by name only. */
function refuseTakenTee(hosts: readonly HostRecord[], identity: TeeIdentity): void {
  const same = hosts.filter((record) => isTeeIdentity(record.identity) && isSameMachine(record.identity, identity))
  if (identity.platform === null) {
    if (same.length >= maxTees.masked)
      throw new ProtocolError("limit-exceeded", `${same.length} machines that do not say which they are have enrolled`)
    return
  }
  if (same.some(({ retired }) => retired)) throw new ProtocolError("already-exists", "this processor was retired, for good")
  if (same.length >= maxTees.platform) throw new ProtocolError("limit-exceeded", `this processor has ${same.length} names already`)
}

/** Names of one processor, and of all that do not say which they are, so that none fills the list. */
const maxTees = { platform: 64, masked: 1024 } as const

function isSameMachine(known: MachineIdentity, found: MachineIdentity): boolean {
  return canonicalJson(facts(known)) === canonicalJson(facts(found))
}

function facts(identity: MachineIdentity): readonly (string | null)[] {
  if (isTeeIdentity(identity)) return [identity.tee, identity.root, identity.platform]
  return ["tpm", identity.endorsementKey, identity.attestationKeyName]
}

export function viewHost({ host, identity, enrolledAt, retired }: HostRecord): HostView {
  return { host, identity, enrolledAt, retired }
}

/**
 * Retires a host with its TPM or processor for good and ends what runs on it. Any party of an active policy that lists it may: who doubts a machine
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
    // A processor may have other names; a doubt about it is one about each of them.
    const names = tx
      .list("hosts")
      .filter((other) => other.host === host || (isKnownTee(record.identity) && isSameMachine(other.identity, record.identity)))
    for (const name of names.filter(({ retired }) => !retired)) retireName(context, tx, caller, name)
    return viewHost({ ...record, retired: true })
  })
}

function retireName(context: ManagerContext, tx: Transaction, caller: StakeholderCaller, record: HostRecord): void {
  const { host } = record
  tx.put("hosts", host, { ...record, retired: true })
  // Parties of several policies see this, and each policy has its own names.
  appendReceipt(context, tx, { kind: "host-retired", host, byKey: caller.key })
  for (const lease of tx.list("leases")) {
    const run = lease.host === host && lease.ended === undefined ? tx.get("runs", lease.run) : undefined
    if (run !== undefined) endRun(context, tx, run, { state: "ended", code: "lease-ended", reason: `host ${host} was retired` })
  }
}

function isKnownTee(identity: MachineIdentity): boolean {
  return isTeeIdentity(identity) && identity.platform !== null
}
