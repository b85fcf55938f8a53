import { truncateText } from "../bytes/text.ts"
import { own } from "../policy/document.ts"
import type { RunReport, RunState } from "../protocol/messages.ts"
import { problemsOfArtifact } from "./consent.ts"
import type { ManagerContext } from "./context.ts"
import { appendEvent, isOver } from "./events.ts"
import { appendReceipt } from "./receipts.ts"
import type { RunRecord } from "./records.ts"
import { readStanding } from "./standing.ts"
import type { Transaction } from "./store.ts"

export interface RunEnd {
  readonly state: Exclude<RunState, "queued" | "running">
  readonly reason?: string
  readonly report?: RunReport
  readonly by?: string
  /** Code that tells the agent why its lease is over. */
  readonly code?: string
}

/** Ends a run and its lease in one step. */
export function endRun(context: ManagerContext, tx: Transaction, run: RunRecord, end: RunEnd): RunRecord {
  const lease = run.lease === undefined ? undefined : tx.get("leases", run.lease)
  if (lease !== undefined && lease.ended === undefined) {
    tx.put("leases", lease.lease, { ...lease, ended: end.code ?? "lease-ended" })
    tx.remove("bootLogs", lease.lease)
  }
  const reason = end.reason === undefined ? {} : { reason: truncateText(end.reason, 500) }
  const ended: RunRecord = {
    ...run,
    state: end.state,
    endedAt: context.time.nowText(),
    ...reason,
    ...(end.report === undefined ? {} : { report: end.report }),
  }
  const host = run.host === undefined ? {} : { host: run.host }
  const record = appendEvent(context, tx, ended, { kind: "state", state: end.state, ...host, ...reason })
  tx.put("runs", run.run, record)
  appendReceipt(context, tx, {
    kind: end.report === undefined && lease !== undefined ? "lease-ended" : "run-finished",
    policy: run.policy,
    run: run.run,
    ...host,
    ...(end.by === undefined ? {} : { by: end.by }),
    code: end.code ?? end.state,
    ...(lease === undefined ? {} : { metrics: { count: run.metrics.count, digest: run.metrics.digest } }),
    ...(run.laboratory ? { laboratory: true } : {}),
  })
  return record
}

/** Ends every queued or running run whose policy is no longer active or whose inputs lost an owner's consent. */
export function endRunsWithoutConsent(context: ManagerContext, tx: Transaction): void {
  for (const run of tx.list("runs")) {
    if (isOver(run)) continue
    const standing = readStanding(context, tx, run.policy)
    const job = own(standing.policy.jobs, run.job)
    if (standing.state === "active" && job !== undefined) {
      const problems = Object.keys(job.inputs).flatMap((artifact) => problemsOfArtifact(context, tx, standing, artifact))
      if (problems.length === 0) continue
    }
    const state = run.state === "queued" ? "cancelled" : "ended"
    const code = standing.state === "withdrawn" || standing.state === "active" ? "policy-withdrawn" : "policy-inactive"
    endRun(context, tx, run, { state, code, reason: code === "policy-withdrawn" ? "consent was withdrawn" : `the policy is ${standing.state}` })
  }
}
