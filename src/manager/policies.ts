import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { type StatementSignature, verifyStatement } from "../pki/statement.ts"
import { checkPolicy } from "../policy/check.ts"
import { parsePolicyValue, policyDigest, type Policy } from "../policy/document.ts"
import { PolicyError } from "../policy/errors.ts"
import { parseReferenceValue, referencesByDigest } from "../policy/reference.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { PolicyStatus, PolicyView, SubmitPolicyRequest } from "../protocol/messages.ts"
import { type Consent, receiptOfReport } from "./consent.ts"
import { demandReport } from "../protocol/check-report.ts"
import { demandProposer, policiesOf } from "./admission.ts"
import { type ManagerContext, pairKey, type Reader, type StakeholderCaller, transact } from "./context.ts"
import { partyOf, replacementsOf } from "./parties.ts"
import { appendReceipt } from "./receipts.ts"
import { destroyKeysAfterWithdrawal, destroyKeysOf } from "./erasure.ts"
import { makePolicySecrets } from "./secrets.ts"
import { demandRoomForDocuments, sizeOf } from "./documents.ts"
import { referencesOf } from "./reference-updates.ts"
import { endRunsWithoutConsent } from "./run-end.ts"
import { demandParty, demandStakeholder, derivationsOf, readStanding, signerOf, statusOf } from "./standing.ts"
import type { Transaction } from "./store.ts"

/** Most policies that one manager keeps; each holds up to 32 MB of references. */
const maxPolicies = 1000
/**
 * What one key may have proposed: waiting for signatures now, and ever, for nothing of it is removed; what all keys together may have stands in documents.ts.
 */
const quota = { waiting: 32, ever: 250, everBytes: 134_217_728 } as const

/**
 * Takes a proposed policy with its references, of a member or as the successor of a policy that names the caller. Proposing it again changes nothing.
 * @throws {PolicyError} `invalid-policy`, `invalid-reference`
 * @throws {ProtocolError} `policy-expired`, `not-permitted`, `wrong-manager`, `limit-exceeded`
 */
export function submitPolicy(context: ManagerContext, caller: StakeholderCaller, request: SubmitPolicyRequest): PolicyStatus {
  const policy = parsePolicyValue(request.policy)
  const digest = policyDigest(policy)
  if (digest !== digestOfJson(request.policy)) throw new TypeError("internal: parsing changed the policy")
  const submittedBy = demandStakeholder(policy, caller)
  demandOwnPolicy(context, policy)
  const now = context.time.now()
  if (now.getTime() >= Date.parse(policy.expires)) throw new ProtocolError("policy-expired", `the policy ended at ${policy.expires}`)
  const references = referencesByDigest(request.references.map(parseReferenceValue))
  const problems = checkPolicy(policy, { time: now, references, derivations: derivationsOf(context, context.store) })
  if (problems.length > 0) throw new PolicyError("invalid-policy", problems)
  return transact(context, (tx) => {
    if (tx.get("policies", digest) === undefined) {
      demandProposer(context, tx, caller, policy)
      if (tx.count("policies") >= maxPolicies) throw new ProtocolError("limit-exceeded", `the manager keeps ${maxPolicies} policies already`)
      const added = [...references].filter(([name]) => tx.get("references", name) === undefined)
      const storedBytes = [request.policy, ...added.map(([, reference]) => reference)].reduce((sum, document) => sum + sizeOf(document), 0)
      demandQuota(context, tx, caller, storedBytes)
      for (const [name, reference] of added) tx.put("references", name, toDocument(reference))
      tx.put("policies", digest, {
        digest,
        study: policy.study,
        document: request.policy,
        references: [...references.keys()],
        state: "proposed",
        submittedAt: context.time.nowText(),
        submittedBy,
        submitterKey: caller.key,
        storedBytes,
      })
      appendReceipt(context, tx, { kind: "policy-submitted", policy: digest, by: submittedBy })
    }
    return statusOf(readStanding(context, tx, digest))
  })
}

/** A policy that this manager cannot serve helps nobody; what its TEE proves is told by `demandOwnTee` before. */
function demandOwnPolicy({ description }: ManagerContext, { manager }: Policy): void {
  if ("accept" in manager) {
    if (description.evidence === null)
      throw new ProtocolError("wrong-manager", "the policy demands a manager that proves itself, and this one cannot", {
        path: "policy.manager.accept",
      })
  } else if (manager.insecureUnattested.key !== description.key)
    throw new ProtocolError("wrong-manager", "the policy names another manager", { path: "policy.manager.insecureUnattested.key" })
}

/** @throws {ProtocolError} `limit-exceeded` */
function demandQuota(context: ManagerContext, reader: Reader, caller: StakeholderCaller, storedBytes: number): void {
  const own = reader.list("policies").filter(({ submitterKey }) => submitterKey === caller.key)
  const waiting = own.filter(({ digest }) => readStanding(context, reader, digest).state === "proposed")
  if (waiting.length >= quota.waiting)
    throw new ProtocolError("limit-exceeded", `${waiting.length} policies of yours wait for signatures already; withdraw some, or let them expire`)
  if (own.length >= quota.ever) throw new ProtocolError("limit-exceeded", `the manager takes ${quota.ever} policies of one key, and has them`)
  const bytes = own.reduce((sum, record) => sum + record.storedBytes, storedBytes)
  if (bytes > quota.everBytes)
    throw new ProtocolError("limit-exceeded", `policies of yours with their references would take ${bytes} bytes, of ${quota.everBytes} for one key`)
  demandRoomForDocuments(reader, storedBytes)
}

/** References came in as documents and were parsed; what is kept is the parsed form, which has the same digest. */
function toDocument(reference: object): SubmitPolicyRequest["policy"] {
  return { ...reference }
}

/**
 * Takes a stakeholder's signature over the policy and makes the policy active when nothing more is missing. Any stakeholder may hand in the signature of
 * another: it proves itself.
 * @throws {PkiError} for a signature that does not verify
 * @throws {ProtocolError} `not-found`, `not-permitted`, `policy-withdrawn`, `policy-expired`, `check-missing`, `wrong-check`
 */
export function approvePolicy(context: ManagerContext, caller: StakeholderCaller, digest: Digest, { signature, report }: Consent): PolicyStatus {
  const { policy } = readStanding(context, context.store, digest)
  demandStakeholder(policy, caller)
  const stakeholder = signerOf(policy, "policy", digest, signature)
  demandReport(policy, stakeholder, digest, report)
  return transact(context, (tx) => {
    const standing = readStanding(context, tx, digest)
    if (standing.withdrawn.has(stakeholder) || standing.state === "withdrawn")
      throw new ProtocolError("policy-withdrawn", "a withdrawal is final; sign a successor instead")
    if (standing.state === "expired") throw new ProtocolError("policy-expired", `the policy ended at ${policy.expires}`)
    const key = pairKey(digest, stakeholder)
    if (tx.get("approvals", key) === undefined) {
      tx.put("approvals", key, { policy: digest, stakeholder, signature, at: context.time.nowText(), ...(report === undefined ? {} : { report }) })
      appendReceipt(context, tx, { kind: "policy-signed", policy: digest, by: stakeholder, ...receiptOfReport(report) })
    }
    activateIfComplete(context, tx, digest)
    return statusOf(readStanding(context, tx, digest))
  })
}

function activateIfComplete(context: ManagerContext, tx: Transaction, digest: Digest): void {
  const { record, state, succession, policy } = readStanding(context, tx, digest)
  if (state !== "proposed" || !succession.allowed) return
  if (policy.supersedes !== "none") {
    const predecessor = tx.get("policies", policy.supersedes)
    if (predecessor === undefined) throw new TypeError("internal: succession was allowed without its predecessor")
    tx.put("policies", predecessor.digest, { ...predecessor, state: "superseded" })
    appendReceipt(context, tx, { kind: "policy-superseded", policy: predecessor.digest })
    const replaced = replacementsOf(context.documents.policy(tx, predecessor.digest), policy, succession.recovered)
    for (const { party, formerKeys, keys } of replaced) {
      tx.put("replacements", pairKey(digest, party), { study: policy.study, policy: digest, party, formerKeys, keys, at: context.time.nowText() })
      appendReceipt(context, tx, { kind: "identity-replaced", policy: digest, by: party })
    }
  }
  tx.put("policies", digest, { ...record, state: "active", activatedAt: context.time.nowText() })
  makePolicySecrets(context, tx, digest, policy)
  appendReceipt(context, tx, { kind: "policy-activated", policy: digest })
  endRunsWithoutConsent(context, tx)
  if (policy.supersedes !== "none") destroyKeysOf(context, tx, policy.supersedes, "policy-superseded")
}

/** Lets proposals take their place whose last hindrance was the time in which lost keys could still object; called now and then. */
export function activateAfterNotice(context: ManagerContext): void {
  if (context.time.problem() !== undefined) return
  const { store, documents } = context
  const waiting = store.list("policies").filter(({ digest, state }) => state === "proposed" && documents.policy(store, digest).recovers !== undefined)
  const ready = waiting.filter(({ digest }) => {
    const { state, succession } = readStanding(context, store, digest)
    return state === "proposed" && succession.allowed
  })
  for (const { digest } of ready) transact(context, (tx) => activateIfComplete(context, tx, digest))
}

/**
 * Takes back a stakeholder's consent: a tombstone for ever. What ran on it ends at once, and its own keys under this policy are deleted.
 * @throws as approvePolicy
 */
export function withdrawPolicy(context: ManagerContext, caller: StakeholderCaller, digest: Digest, signature: StatementSignature): PolicyStatus {
  readStanding(context, context.store, digest)
  demandParty(context, context.store, digest, caller)
  const stakeholder = partyOf(context, context.store, digest, verifyStatement("withdraw", digest, signature))
  if (stakeholder === undefined)
    throw new ProtocolError("not-permitted", "the signing key is not one of this policy's stakeholders", { path: "signature.key" })
  return transact(context, (tx) => {
    const key = pairKey(digest, stakeholder)
    if (tx.get("withdrawals", key) === undefined) {
      tx.put("withdrawals", key, { policy: digest, stakeholder, signature, at: context.time.nowText() })
      appendReceipt(context, tx, { kind: "policy-withdrawn", policy: digest, by: stakeholder })
      endRunsWithoutConsent(context, tx)
      destroyKeysAfterWithdrawal(context, tx, digest)
    }
    return statusOf(readStanding(context, tx, digest))
  })
}

export function listPolicies(context: ManagerContext, caller: StakeholderCaller): { policies: PolicyStatus[] } {
  const { store } = context
  const standings = policiesOf(context, store, caller).map(({ digest }) => readStanding(context, store, digest))
  return { policies: standings.map(statusOf) }
}

/** @throws {ProtocolError} `not-found`, `not-permitted` */
export function viewPolicy(context: ManagerContext, caller: StakeholderCaller, digest: Digest): PolicyView {
  const { store } = context
  const standing = readStanding(context, store, digest)
  demandParty(context, store, digest, caller)
  return {
    ...statusOf(standing),
    policy: standing.record.document,
    references: standing.record.references.map((reference) => store.get("references", reference)).filter((document) => document !== undefined),
    approvals: [...standing.approvals],
    withdrawals: [...standing.withdrawals],
    deposits: store.list("deposits").flatMap((deposit) => (deposit.policy === digest ? [deposit.artifact] : [])),
    secrets: store.list("secrets").flatMap(({ policy, secret, salt }) => (policy === digest && salt !== undefined ? [secret] : [])),
    ...referencesOf(context, store, digest),
  }
}
