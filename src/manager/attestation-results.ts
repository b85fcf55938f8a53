import type { Digest } from "../bytes/digest.ts"
import type { TeeKind } from "../evidence/tee/format.ts"
import type { Decision, JudgedPiece } from "../policy/appraise.ts"
import { hostLevelOf, hostRequirementOf, own, type Machine } from "../policy/document.ts"
import { teeKindOf } from "../policy/tee.ts"
import { type Appraised, type AppraisedPiece, codesOf, trustOf } from "../policy/trust-vector.ts"
import { signAttestationResult } from "../protocol/attestation-result.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { ManagerContext, Reader, StakeholderCaller } from "./context.ts"
import { demandConsent, millisecondsLeft } from "./leases.ts"
import type { AppraisalRecord, HostRecord, RunRecord } from "./records.ts"
import { demandRun } from "./runs.ts"
import type { Transaction } from "./store.ts"

/** What one appraisal was about and found. */
export interface AppraisalFacts {
  /** As it stands after the appraisal. */
  readonly run: RunRecord
  /** Lease that was asked for. */
  readonly lease: string
  readonly host: HostRecord
  readonly evidence: Digest
  readonly found: Pick<Decision, "findings" | "pieces"> | NotGenuine
  readonly granted: boolean
  /** INSECURE LABORATORY, of the machine or of what it works on. */
  readonly laboratory: boolean
}

/** Evidence that is not genuine: the code of what was wrong, and of which kind the TEE in it calls itself. */
export interface NotGenuine {
  readonly notGenuine: string
  readonly tee?: TeeKind
}

/** Keeps what a result of this run's machine will say; in the same step as what the appraisal led to. One record for each run. */
export function recordAppraisal(context: ManagerContext, tx: Transaction, facts: AppraisalFacts): void {
  const { run, lease, evidence, found, granted, laboratory } = facts
  const isGenuine = !("notGenuine" in found)
  const outcome = granted ? "granted" : isGenuine ? "refused" : "not-genuine"
  if (!speaksForRun({ lease, outcome }, run, tx.get("appraisals", run.run))) return
  const appraised: Appraised = isGenuine ? found.findings : "not-genuine"
  const findings: readonly string[] = isGenuine ? codesOf(appraised) : [found.notGenuine]
  const submodules = Object.entries(trustOf(piecesOf(context, tx, facts), appraised)).map(([name, { vector, ...trust }]) => [
    name,
    { ...trust, vector: { ...vector }, findings: [...findings] },
  ])
  tx.put("appraisals", run.run, {
    run: run.run,
    lease,
    outcome,
    at: context.time.nowText(),
    evidence,
    laboratory,
    submodules: Object.fromEntries(submodules) as AppraisalRecord["submodules"],
  })
}

/**
 * Once a run has a machine only that machine's evidence counts. Before, evidence that is not genuine, which anybody can send, does not take the place of what a
 * machine proved.
 */
function speaksForRun(next: Pick<AppraisalRecord, "lease" | "outcome">, run: RunRecord, before: AppraisalRecord | undefined): boolean {
  if (run.lease !== undefined) return next.lease === run.lease
  return before === undefined || next.outcome !== "not-genuine" || before.outcome === "not-genuine"
}

/** The parts of the machine that were appraised. */
function piecesOf(context: ManagerContext, reader: Reader, { run, host, found }: AppraisalFacts): readonly AppraisedPiece[] {
  const policy = context.documents.policy(reader, run.policy)
  const machine = own(policy.machines, own(policy.jobs, run.job)?.machine ?? "")
  const references = context.documents.references(reader, policy)
  const requirement = machine === undefined ? undefined : hostRequirementOf(machine)
  const demanded = machine === undefined || requirement === undefined ? undefined : { ...requirement, level: hostLevelOf(machine) }
  const judged = "notGenuine" in found ? unjudgedPieces(machine, host, found) : found.pieces
  return judged.map((piece) => {
    const laboratory = piece.laboratoryRoot !== undefined
    return piece.kind === "tpm"
      ? { kind: "tpm", machine: demanded, references, laboratory }
      : { ...piece, requirement: piece.requirement, laboratory }
  })
}

/** What there would have been to judge. A machine counts as a laboratory's by what it enrolled with. */
function unjudgedPieces(machine: Machine | undefined, { identity }: HostRecord, { tee }: NotGenuine): readonly JudgedPiece[] {
  const laboratory = identity.rootKind === "laboratory" ? { laboratoryRoot: identity.root } : {}
  const tpm: readonly JudgedPiece[] = machine !== undefined && hostRequirementOf(machine) === undefined ? [] : [{ kind: "tpm", ...laboratory }]
  if (machine?.level !== "enclave") return tpm
  const kind = tee ?? machine.accept.map(teeKindOf)[0]
  return kind === undefined ? tpm : [...tpm, { kind, upToDate: false, ...laboratory }]
}

export interface ResultRequest {
  readonly nonce: string
  readonly audience: string
}

/**
 * An attestation result of the run's latest appraisal, for a party of its policy.
 * @throws {ProtocolError} `not-found` for others' runs, and where no machine was appraised yet; `lease-ended` where the machine's lease is over, so that nothing is
 * known of it now; `policy-…`
 */
export async function attestationResult(
  context: ManagerContext,
  caller: StakeholderCaller,
  runId: string,
  request: ResultRequest,
): Promise<{ result: string }> {
  const { store, description, keys } = context
  const run = demandRun(context, store, caller, runId)
  const appraisal = store.get("appraisals", run.run)
  if (appraisal === undefined) throw new ProtocolError("not-found", "no machine has shown evidence for this run yet")
  const facts = {
    ...request,
    ...timesOf(context, run, appraisal),
    appraisedAt: wholeSeconds(Date.parse(appraisal.at)),
    submodules: appraisal.submodules,
    policy: run.policy,
    manager: description.instance,
    run: run.run,
    job: run.job,
    evidence: appraisal.evidence,
    laboratory: appraisal.laboratory,
  }
  return { result: await signAttestationResult(facts, keys.resultKey) }
}

/** A refused machine gets nothing whatever the result says, so only the reader's patience bounds it. */
const refusalSeconds = 300

function timesOf(
  context: ManagerContext,
  run: RunRecord,
  { outcome, lease: leaseId }: AppraisalRecord,
): { readonly issuedAt: number; readonly expiresAt: number } {
  const now = context.time.now().getTime()
  const issuedAt = wholeSeconds(now)
  if (outcome !== "granted") return { issuedAt, expiresAt: issuedAt + refusalSeconds }
  const lease = context.store.get("leases", leaseId)
  if (lease === undefined) throw new TypeError("internal: an appraisal was granted without a lease")
  const left = lease.ended === undefined ? Math.min(millisecondsLeft(context, lease), Date.parse(lease.endsAt) - now) : 0
  const expiresAt = wholeSeconds(now + left)
  if (expiresAt <= issuedAt)
    throw new ProtocolError("lease-ended", "the machine's lease is over: nothing is known of it now (perun audit list shows what was)")
  demandConsent(context, context.store, run)
  return { issuedAt, expiresAt }
}

/** Down, so that no result outlives its lease. */
function wholeSeconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000)
}
