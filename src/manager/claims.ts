import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { EvidenceError } from "../evidence/errors.ts"
import { MalformedError } from "../bytes/error.ts"
import { type BootSession, GrantedDecision, laboratoryRootsOfPieces } from "../policy/appraise.ts"
import { laboratoryRootsOfInputs } from "../policy/derivation.ts"
import { demandedPieces, own, type Machine, type Policy } from "../policy/document.ts"
import { finding, type Finding } from "../policy/findings.ts"
import { canShow, isTeeIdentity, listsMachine } from "../policy/listing.ts"
import { teeSessionFindings } from "../policy/tee-session.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { sealMessage, type SealedMessage } from "../protocol/hpke.ts"
import {
  type Challenge,
  type ChallengeRequest,
  type ClaimGrant,
  type ClaimRequest,
  maxFindings,
  maxFindingText,
  maxKeptFindings,
  type ReleasedKeys,
  type RenewRequest,
  type WireBundle,
  type WireFinding,
} from "../protocol/messages.ts"
import { RefusedError } from "../protocol/problem.ts"
import { generateAgeIdentity, recipientOf } from "../sealing/keys.ts"
import type { ChallengeFacts, IssuedChallenge } from "./challenges.ts"
import { type AppraisalFacts, recordAppraisal } from "./attestation-results.ts"
import { type HostCaller, type ManagerContext, newId, pairKey, type Reader, transact } from "./context.ts"
import { appendEvent } from "./events.ts"
import type { JudgedMachine, Judgement, SessionFacts } from "./judge.ts"
import { demandConsent, demandLease, isBusy } from "./leases.ts"
import { appendReceipt } from "./receipts.ts"
import type { HostRecord, LeaseRecord, RunRecord } from "./records.ts"
import { endRun } from "./run-end.ts"
import { candidatesFor, documentsOf, stillStands } from "./reference-updates.ts"
import { releasedSecrets } from "./secrets.ts"
import { derivationsOf, readStanding } from "./standing.ts"
import type { Transaction } from "./store.ts"
import { demandWitnesses } from "./witnesses.ts"

/** Refusals that a run shows; older ones are in the receipts. */
const shownRefusals = 32
/**
 * Refusals that a run writes into events and receipts, so that a machine that never gives up cannot fill the disk. Those whose evidence no enrolled TPM
 * signed are counted apart: anyone can send such, and must not silence what is said of machines that proved themselves.
 */
const maxRecordedRefusals = { judged: 200, unproven: 50 } as const

/**
 * A nonce for a claim of the next queued run, or for the renewal of a lease; undefined when there is no work.
 * @throws {ProtocolError} `not-enrolled`, `lease-ended`, `not-found`, `too-many-requests`; {LogError} `not-witnessed`
 */
export async function requestChallenge(context: ManagerContext, caller: HostCaller, request: ChallengeRequest): Promise<Challenge | undefined> {
  // Before anything is looked up: looking through the queue is work that a stranger could ask for without end.
  if (request.purpose === "claim") context.budgets.looks.spend(caller.address)
  const host = demandHost(context.store, request.host)
  const read = (): ChallengeFacts | undefined =>
    request.purpose === "claim" ? factsOfClaim(context, caller, host) : factsOfRenewal(context, caller, host, request.lease)
  const before = read()
  if (before === undefined) return undefined
  if (before.purpose === "claim") context.budgets.claims.spend(caller.address)
  // A lease goes on only under a log in which its last renewal was seen by others; here, where nothing is used up yet, so that the host may ask again.
  const hasWaited = await demandWitnesses(context, before.policy, before.purpose === "claim" ? undefined : context.leases.logSize(before.lease))
  const facts = hasWaited ? read() : before
  if (facts?.run !== before.run) throw new ProtocolError("wrong-state", "the run is another host's, or over, meanwhile; ask again")
  const issued = context.challenges.issue(facts, context.time.now())
  const { challenge, purpose, nonce, policy, job, run, lease } = issued
  const expiresAt = new Date(issued.expiresAt).toISOString()
  const pieces = demandedPieces(machineOf(context, context.store, issued))
  const imaFrom = issued.previous?.host?.ima.count ?? 0
  return { challenge, purpose, nonce, manager: context.description.instance, policy, job, run, lease, pieces, expiresAt, imaFrom }
}

function factsOfClaim(context: ManagerContext, caller: HostCaller, host: HostRecord): ChallengeFacts | undefined {
  if (isBusy(context, host.host)) return undefined
  const run = nextRun(context, host)
  if (run === undefined) return undefined
  const { policy, job } = run
  return { purpose: "claim", tlsKey: caller.tlsKey, host: host.host, policy, job, run: run.run, lease: newId(context), previous: undefined }
}

function factsOfRenewal(context: ManagerContext, caller: HostCaller, host: HostRecord, leaseId: string): ChallengeFacts {
  const { lease, run } = demandLease(context, context.store, caller, { lease: leaseId })
  if (lease.host !== host.host) throw new ProtocolError("not-found", "there is no such lease of this host")
  const { policy, job } = run
  // Where the reference that the machine was granted under was replaced, and the overlap is over, its whole boot is held against what stands now.
  const judged = context.leases.judged(lease.lease)
  const previous = judged !== undefined && stillStands(context, context.store, policy, job, judged.replaced) ? judged : undefined
  return { purpose: "renew", tlsKey: caller.tlsKey, host: host.host, policy, job, run: run.run, lease: lease.lease, previous }
}

/**
 * The oldest run whose machine lists this host; else the oldest whose evidence it can show, for a machine that nobody listed shall be refused by name and not wait for
 * ever.
 */
function nextRun(context: ManagerContext, host: HostRecord): RunRecord | undefined {
  const queued = context.store
    .list("runs")
    .filter((run) => run.state === "queued" && readStanding(context, context.store, run.policy).state === "active")
    .toSorted((a, b) => a.number - b.number)
    .map((run) => ({ run, machine: machineOf(context, context.store, run) }))
  const { identity } = host
  const next = queued.find(({ machine }) => listsMachine(machine, identity)) ?? queued.find(({ machine }) => canShow(machine, identity))
  return next?.run
}

/** What a run's machine must be. */
function machineOf(context: ManagerContext, reader: Reader, { policy: digest, job }: Pick<RunRecord, "policy" | "job">): Machine {
  const policy = context.documents.policy(reader, digest)
  const machine = own(policy.machines, own(policy.jobs, job)?.machine ?? "")
  if (machine === undefined) throw new TypeError("internal: run of a job or machine that the policy lacks")
  return machine
}

function demandHost(reader: Reader, name: string): HostRecord {
  const host = reader.get("hosts", name)
  if (host === undefined || host.retired) throw new ProtocolError("not-enrolled", `no host ${name} is enrolled`)
  return host
}

/**
 * Judges a machine and, only when it is granted, gives it the keys of exactly this run's inputs, sealed to its own key, with a lease. The same request
 * again gives the same answer while the lease runs, for the first may have been lost on its way.
 * @throws {ProtocolError} `challenge-…`, `not-enrolled`, `policy-…`, `wrong-state`; {EvidenceError}, {MalformedError} when the evidence is not genuine;
 * {RefusedError} `not-acceptable` with every finding; {LogError} `not-witnessed`
 */
export async function claimRun(context: ManagerContext, caller: HostCaller, request: ClaimRequest): Promise<ClaimGrant> {
  const evidence = digestOfJson(request.bundle)
  const same = pairKey(evidence, request.hpkeKey)
  const known = context.challenges.grantOf(request.challenge, caller.tlsKey, same)
  if (known !== undefined) {
    const given = await known
    await demandWitnesses(context, given.policy)
    demandLease(context, context.store, caller, { lease: given.lease.id })
    return given
  }
  const issued = context.challenges.take(request.challenge, { purpose: "claim", tlsKey: caller.tlsKey })
  const grant = judgeClaim(context, caller, request, issued, evidence)
  context.challenges.keepGrant(request.challenge, same, grant)
  const given = await grant
  // The keys stay here until others have seen the receipt of their release: of two managers that go on from one state only the first gets as far. The same request may ask again.
  const hasWaited = await demandWitnesses(context, given.policy)
  if (hasWaited) demandLease(context, context.store, caller, { lease: given.lease.id })
  return given
}

async function judgeClaim(
  context: ManagerContext,
  caller: HostCaller,
  request: ClaimRequest,
  issued: IssuedChallenge,
  evidence: Digest,
): Promise<ClaimGrant> {
  const host = demandHost(context.store, issued.host)
  demandClaimable(context, context.store, issued)
  const session = sessionOf(context, issued, host, request.hpkeKey)
  const granted = await judgeOrRecord(context, issued, host, request.bundle, evidence, () => judge(context, session, host, request, {}))
  const { decision, judged } = granted
  const output = await makeOutputKey()
  const released = await releaseKeys(context, decision, session, granted.session)
  const lease = transact(context, (tx) => {
    // Judging took time in which consent may have ended, the host may have been retired or another one have been faster.
    demandHost(tx, issued.host)
    const run = demandClaimable(context, tx, issued)
    return grant(context, tx, { issued, host, run, decision, evidence, output, caller, released, bundle: request.bundle })
  })
  context.leases.extend(lease.lease, context.time.monotonicMilliseconds() + lease.seconds * 1000, judged, context.store.logHead.size)
  return {
    policy: issued.policy,
    document: demandPolicyRecord(context, issued.policy),
    approvals: [...readStanding(context, context.store, issued.policy).approvals],
    job: issued.job,
    run: issued.run,
    lease: { id: lease.lease, seconds: lease.seconds },
    inputs: released.inputs,
    session: granted.session,
    sealedKeys: released.sealed,
    outputRecipient: output.recipient,
  }
}

/** The run is still queued, its policy active, every input's key there with its owners' consent. */
function demandClaimable(context: ManagerContext, reader: Reader, issued: IssuedChallenge): RunRecord {
  const run = reader.get("runs", issued.run)
  if (run === undefined || run.state !== "queued") throw new ProtocolError("wrong-state", `the run is ${run?.state ?? "gone"}; ask for another`)
  demandConsent(context, reader, run)
  return run
}

/** Every fact comes from the manager's own records; of the agent's only the key that the answer is sealed to. */
function sessionOf(context: ManagerContext, issued: IssuedChallenge, host: HostRecord, hpkeKey: string): SessionFacts {
  const { purpose, nonce, tlsKey, policy, job, run, lease } = issued
  return {
    purpose,
    manager: context.description.instance,
    nonce,
    hpkeKey,
    tlsKey,
    akName: isTeeIdentity(host.identity) ? null : host.identity.attestationKeyName,
    policy,
    job,
    run,
    lease,
  }
}

async function judge(
  context: ManagerContext,
  session: SessionFacts,
  host: HostRecord,
  request: ClaimRequest | RenewRequest,
  known: { readonly previous?: JudgedMachine | undefined; readonly bootLog?: string | undefined },
): Promise<Judgement> {
  const policy = context.documents.policy(context.store, session.policy)
  // A renewal goes on from what the machine was granted under, which stood when its challenge was issued.
  const { previous } = known
  const candidates = previous === undefined ? candidatesFor(context, context.store, session.policy, session.job) : [previous.replaced]
  return context.judge.judge({
    session,
    bundle: request.bundle,
    identity: host.identity,
    policy,
    references: context.documents.references(context.store, policy, documentsOf(candidates)),
    candidates,
    time: context.time.now(),
    previous,
    ...(known.bootLog === undefined ? {} : { knownBootLog: known.bootLog }),
  })
}

interface Granted {
  readonly decision: GrantedDecision
  readonly session: Digest
  readonly judged: JudgedMachine
}

/** Passes a granted judgement on; writes every other outcome down before it leaves as an error. */
async function judgeOrRecord(
  context: ManagerContext,
  issued: IssuedChallenge,
  host: HostRecord,
  bundle: WireBundle,
  evidence: Digest,
  work: () => Promise<Judgement>,
): Promise<Granted> {
  let refusal: RefusedError | EvidenceError | MalformedError
  let found: AppraisalFacts["found"]
  try {
    const { decision, session, judged } = await work()
    found = decision
    if (decision instanceof GrantedDecision && judged !== undefined) return { decision, session, judged }
    refusal = refusedError(decision.findings)
  } catch (error) {
    if (!(error instanceof EvidenceError || error instanceof MalformedError)) throw error
    refusal = error
    found = { notGenuine: error.code, ...(bundle.tee === undefined ? {} : { tee: bundle.tee.kind }) }
  }
  transact(context, (tx) => {
    const run = tx.get("runs", issued.run)
    const laboratory = host.identity.rootKind === "laboratory" || ("pieces" in found && laboratoryRootsOfPieces(found.pieces).length > 0)
    if (run !== undefined) recordAppraisal(context, tx, { run, lease: issued.lease, host, evidence, found, granted: false, laboratory })
    recordRefusal(context, tx, issued, host, evidence, refusal, laboratory)
  })
  throw refusal
}

export function refusedError(findings: readonly Finding[]): RefusedError {
  const first = findings.find(({ effect }) => effect === "refusal")
  const message = first === undefined ? "refused" : `${first.code}: ${first.subject}: found ${first.found}, expected ${first.expected}`
  return new RefusedError("not-acceptable", cut(message), wireFindings(findings))
}

/** Refusals first, and no more than travel well. */
function wireFindings(findings: readonly Finding[]): WireFinding[] {
  const ordered = findings.toSorted((a, b) => Number(b.effect === "refusal") - Number(a.effect === "refusal"))
  return ordered.slice(0, maxFindings).map((item) => ({
    code: item.code,
    effect: item.effect,
    subject: cut(item.subject),
    found: cut(item.found),
    expected: cut(item.expected),
    advice: cut(item.advice),
  }))
}

function cut(text: string, length = maxFindingText): string {
  return text.length > length ? `${text.substring(0, length - 1)}…` : text
}

function recordRefusal(
  context: ManagerContext,
  tx: Transaction,
  issued: IssuedChallenge,
  host: HostRecord,
  evidence: Digest,
  refusal: PerunError,
  laboratory: boolean,
): void {
  const run = tx.get("runs", issued.run)
  if (run === undefined) return
  const kind = refusal instanceof RefusedError ? "judged" : "unproven"
  if (run.recordedRefusals[kind] >= maxRecordedRefusals[kind]) return
  const { findings, moreFindings } = keptFindings(findingsOf(refusal))
  const shown = { at: context.time.nowText(), host: host.host, code: refusal.code, findings, moreFindings }
  const record: RunRecord = {
    ...run,
    refusals: [...run.refusals, shown].slice(-shownRefusals),
    recordedRefusals: { ...run.recordedRefusals, [kind]: run.recordedRefusals[kind] + 1 },
  }
  tx.put("runs", run.run, appendEvent(context, tx, record, { kind: "refused", refusal: shown }))
  appendReceipt(context, tx, {
    kind: "release-refused",
    policy: issued.policy,
    run: issued.run,
    host: host.host,
    evidence,
    code: refusal.code,
    findings,
    moreFindings,
    ...(laboratory ? { laboratory: true } : {}),
  })
}

/**
 * What is kept of a refusal's findings: a machine of another image has hundreds, and writes their texts. The first of each code come first, so that every
 * way in which it differs is there.
 */
function keptFindings(findings: readonly WireFinding[]): { readonly findings: WireFinding[]; readonly moreFindings: number } {
  const isFirst = findings.map(({ code }, index) => findings.findIndex((other) => other.code === code) === index)
  const ordered = [...findings.filter((_, index) => isFirst[index] === true), ...findings.filter((_, index) => isFirst[index] === false)]
  const kept = ordered.slice(0, maxKeptFindings).map(({ code, effect, ...texts }) => ({
    code,
    effect,
    subject: cut(texts.subject, maxKeptText),
    found: cut(texts.found, maxKeptText),
    expected: cut(texts.expected, maxKeptText),
    advice: cut(texts.advice, maxKeptText),
  }))
  return { findings: kept, moreFindings: findings.length - kept.length }
}

/** Longest text of a finding that is kept: a path of a file and two digests, with room. */
const maxKeptText = 500

/** Evidence that is not genuine has one finding: what was found wrong. */
function findingsOf(refusal: PerunError): WireFinding[] {
  if (refusal instanceof RefusedError) return [...refusal.findings]
  const { code, path, message } = refusal
  return [{ code, effect: "refusal", subject: cut(path), found: cut(message), expected: "genuine evidence", advice: "" }]
}

interface OutputKey {
  readonly identity: string
  readonly recipient: string
}

/** A fresh key for what the run makes; only the vault can open it. */
async function makeOutputKey(): Promise<OutputKey> {
  const identity = await generateAgeIdentity()
  return { identity, recipient: await recipientOf(identity) }
}

interface ReleasedInputs {
  readonly artifacts: string[]
  readonly secrets: string[]
  readonly inputs: ClaimGrant["inputs"]
  readonly sealed: SealedMessage
}

/** The one place where keys leave the vault: exactly those of the decided job's inputs, to exactly the attested key. */
async function releaseKeys(context: ManagerContext, decision: GrantedDecision, session: SessionFacts, carried: Digest): Promise<ReleasedInputs> {
  if (decision.policy !== session.policy || decision.job !== session.job) throw new TypeError("internal: decision of another policy or job")
  const policy: Policy = context.documents.policy(context.store, decision.policy)
  const job = own(policy.jobs, decision.job)
  if (job === undefined) throw new TypeError("internal: decision for a job that the policy lacks")
  const deposits = Object.keys(job.inputs).map((artifact) => {
    const deposit = context.store.get("deposits", pairKey(decision.policy, artifact))
    if (deposit === undefined) throw new ProtocolError("wrong-state", `the key of ${artifact} is not deposited`)
    return deposit
  })
  const secrets = releasedSecrets(context, decision.policy, policy, job)
  const keys: ReleasedKeys = { identities: Object.fromEntries(deposits.map(({ artifact, identity }) => [artifact, identity])), secrets }
  return {
    secrets: Object.keys(secrets),
    artifacts: deposits.map(({ artifact }) => artifact),
    inputs: deposits.map(({ artifact, manifest }) => ({ artifact, manifest })),
    sealed: await sealMessage(
      parseBase64(session.hpkeKey, "hpkeKey"),
      { purpose: "release", session: carried, policy: decision.policy, run: session.run },
      encodeUtf8(JSON.stringify(keys)),
    ),
  }
}

interface GrantFacts {
  readonly issued: IssuedChallenge
  readonly host: HostRecord
  readonly run: RunRecord
  readonly decision: GrantedDecision
  readonly evidence: Digest
  readonly output: OutputKey
  readonly caller: HostCaller
  readonly released: Pick<ReleasedInputs, "artifacts" | "secrets">
  readonly bundle: WireBundle
}

function grant(context: ManagerContext, tx: Transaction, facts: GrantFacts): LeaseRecord {
  const { issued, host, run, decision, evidence, output, caller, released, bundle } = facts
  if (isBusy(context, host.host)) throw new ProtocolError("wrong-state", `host ${host.host} works on another run`)
  const policy = context.documents.policy(tx, issued.policy)
  const job = own(policy.jobs, issued.job)
  if (job === undefined) throw new TypeError("internal: run of a job that the policy lacks")
  // What a laboratory made taints what is made of it, on whatever machine.
  const laboratory = decision.insecureLaboratory || laboratoryRootsOfInputs(policy, job, derivationsOf(context, tx)).length > 0
  const lease: LeaseRecord = {
    lease: issued.lease,
    run: issued.run,
    host: host.host,
    tlsKey: caller.tlsKey,
    seconds: job.lease.seconds,
    endsAt: endOf(context, job.lease.seconds),
    ...pinOf(decision),
    renewals: 0,
    laboratory,
    laboratoryRoots: [...decision.laboratoryRoots],
  }
  tx.put("leases", lease.lease, lease)
  if (bundle.tpm?.eventLog !== undefined) tx.put("bootLogs", lease.lease, { lease: lease.lease, eventLog: bundle.tpm.eventLog })
  tx.put("runKeys", run.run, { run: run.run, ...output })
  const started: RunRecord = {
    ...run,
    state: "running",
    startedAt: context.time.nowText(),
    host: host.host,
    lease: lease.lease,
    laboratory,
    evidence,
  }
  tx.put("runs", run.run, appendEvent(context, tx, started, { kind: "state", state: "running", host: host.host }))
  recordAppraisal(context, tx, { run: started, lease: lease.lease, host, evidence, found: decision, granted: true, laboratory })
  appendReceipt(context, tx, {
    kind: "key-released",
    policy: issued.policy,
    run: run.run,
    job: run.job,
    host: host.host,
    evidence,
    artifacts: released.artifacts,
    ...(released.secrets.length === 0 ? {} : { secrets: released.secrets }),
    ...(decision.findings.length === 0 ? {} : { findings: wireFindings(decision.findings) }),
    ...(laboratory ? { laboratory: true } : {}),
  })
  return lease
}

/** The machine that a lease is pinned to, by what it showed. */
type MachinePin = Pick<LeaseRecord, "boot" | "tee">

function pinOf({ session: { host, tee } }: GrantedDecision): MachinePin {
  return {
    ...(host === undefined ? {} : { boot: bootOf(host) }),
    ...(tee === undefined ? {} : { tee: { ...tee, measurements: { ...tee.measurements } } }),
  }
}

function bootOf({ endorsementKey, attestationKeyName, resetCount, restartCount, clock, ima }: BootSession): NonNullable<LeaseRecord["boot"]> {
  return { endorsementKey, attestationKeyName, resetCount, restartCount, clock: String(clock), imaCertified: ima.certifiedCount }
}

function endOf(context: ManagerContext, seconds: number): string {
  return new Date(context.time.now().getTime() + seconds * 1000).toISOString()
}

function demandPolicyRecord(context: ManagerContext, digest: Digest): ClaimGrant["document"] {
  const record = context.store.get("policies", digest)
  if (record === undefined) throw new TypeError("internal: a granted policy is gone")
  return record.document
}

/**
 * Renews a lease on new evidence of the same boot. Evidence that is refused, or consent that is gone, ends the lease and its run.
 * @throws as claimRun, and {ProtocolError} `lease-ended`
 */
export async function renewLease(context: ManagerContext, caller: HostCaller, leaseId: string, request: RenewRequest): Promise<{ seconds: number }> {
  const issued = context.challenges.take(request.challenge, { purpose: "renew", tlsKey: caller.tlsKey, lease: leaseId })
  const host = demandHost(context.store, issued.host)
  const { lease, run } = demandLease(context, context.store, caller, { lease: leaseId })
  demandConsent(context, context.store, run)
  const session = sessionOf(context, issued, host, request.hpkeKey)
  const { previous } = issued
  const evidence = digestOfJson(request.bundle)
  let granted: Granted
  try {
    granted = await judgeOrRecord(context, issued, host, request.bundle, evidence, async () => {
      // After the manager's restart the boot is judged from its start; its log is the one that the claim came with, unless the host sends it again.
      const bootLog = previous === undefined ? context.store.get("bootLogs", leaseId)?.eventLog : undefined
      const judgement = await judge(context, session, host, request, { previous, bootLog })
      return previous === undefined ? pinToMachine(judgement, lease) : judgement
    })
  } catch (error) {
    if (error instanceof PerunError) endRefused(context, leaseId, error)
    throw error
  }
  transact(context, (tx) => {
    const held = demandLease(context, tx, caller, { lease: leaseId })
    demandHost(tx, issued.host)
    demandConsent(context, tx, held.run)
    const { seconds } = held.lease
    const pin = pinOf(granted.decision)
    if (isBefore(pin.boot, held.lease.boot)) throw new ProtocolError("wrong-state", "newer evidence has renewed the lease meanwhile")
    const renewed = { ...held.lease, endsAt: endOf(context, seconds), ...pin, renewals: held.lease.renewals + 1 }
    tx.put("leases", leaseId, renewed)
    tx.put("runs", run.run, appendEvent(context, tx, held.run, { kind: "renewed", seconds }))
    const { decision: found } = granted
    recordAppraisal(context, tx, { run: held.run, lease: leaseId, host, evidence, found, granted: true, laboratory: held.lease.laboratory })
    const laboratory = held.lease.laboratory ? { laboratory: true } : {}
    appendReceipt(context, tx, { kind: "lease-renewed", policy: run.policy, run: run.run, host: host.host, evidence, ...laboratory })
  })
  context.leases.extend(leaseId, context.time.monotonicMilliseconds() + lease.seconds * 1000, granted.judged, context.store.logHead.size)
  return { seconds: lease.seconds }
}

/** Of two renewals that were judged at once the later evidence counts, or a measurement list would become shorter than it was. */
function isBefore(boot: LeaseRecord["boot"], known: LeaseRecord["boot"]): boolean {
  if (boot === undefined || known === undefined) return false
  return BigInt(boot.clock) < BigInt(known.clock) || boot.imaCertified < known.imaCertified
}

/** After the manager's restart no earlier decision is at hand, so the machine that the lease was given to is compared here, from its record. */
function pinToMachine(judgement: Judgement, pinned: LeaseRecord): Judgement {
  const { decision, session } = judgement
  if (!(decision instanceof GrantedDecision)) return judgement
  const now = pinOf(decision)
  const findings = [
    ...(pinned.boot === undefined ? [] : bootFindings(now.boot, pinned.boot)),
    ...(now.tee === undefined ? [] : teeSessionFindings(now.tee, pinned.tee)),
  ]
  if (findings.length === 0) return judgement
  const { policy, job, pieces } = decision
  return { decision: { outcome: "refused", policy, job, findings, pieces }, session, judged: undefined }
}

function bootFindings(now: LeaseRecord["boot"], boot: NonNullable<LeaseRecord["boot"]>): readonly Finding[] {
  if (now === undefined) return [finding("boot-session-changed", "TPM", "no evidence of one", "evidence of the TPM as before")]
  const findings = (["endorsementKey", "attestationKeyName", "resetCount", "restartCount"] as const)
    .filter((name) => now[name] !== boot[name])
    .map((name) => finding("boot-session-changed", name, String(now[name]), String(boot[name])))
  if (BigInt(now.clock) < BigInt(boot.clock)) findings.push(finding("boot-session-changed", "TPM clock", now.clock, `at least ${boot.clock}`))
  if (now.imaCertified < boot.imaCertified)
    findings.push(finding("ima-tail-not-certified", "measurement list", String(now.imaCertified), `at least ${boot.imaCertified}`))
  return findings
}

/** A machine that was refused once does not get its lease back, whatever it shows next. */
function endRefused(context: ManagerContext, leaseId: string, error: PerunError): void {
  const isRefusal = error instanceof RefusedError || error instanceof EvidenceError || error instanceof MalformedError
  if (!isRefusal) return
  transact(context, (tx) => {
    const lease = tx.get("leases", leaseId)
    const run = lease === undefined ? undefined : tx.get("runs", lease.run)
    if (lease === undefined || run === undefined || lease.ended !== undefined) return
    const first = error instanceof RefusedError ? error.findings.find(({ effect }) => effect === "refusal")?.code : undefined
    endRun(context, tx, run, { state: "ended", code: "lease-ended", reason: `renewal refused: ${first ?? error.code}` })
  })
}
