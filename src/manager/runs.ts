import type { Digest } from "../bytes/digest.ts"
import { truncateText } from "../bytes/text.ts"
import { own, type Job } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { type MetricValues, type RunReport, runReasons, type RunView, wallSecondsGrain } from "../protocol/messages.ts"
import { chainMetrics, checkMetrics, metricsSizeBytes, noMetrics } from "../protocol/metrics.ts"
import { demandInputs } from "./consent.ts"
import { type HostCaller, type ManagerContext, newId, type Reader, type StakeholderCaller, transact } from "./context.ts"
import { appendEvent, isOver } from "./events.ts"
import { demandLease } from "./leases.ts"
import { partyOf } from "./parties.ts"
import { appendReceipt } from "./receipts.ts"
import type { RunRecord } from "./records.ts"
import { endRun } from "./run-end.ts"
import { demandActive, demandStakeholder, readStanding } from "./standing.ts"

/** Runs that wait, over all policies and of one: no policy's parties fill the queue alone. */
const maxQueued = { all: 1000, ofPolicy: 100 } as const
/** Runs of one policy that were taken back before they started. They use up none of `maxRuns`, but each is kept with its events and receipts for ever. */
const maxTakenBack = 1000

/**
 * Queues a run of a job of an active policy whose inputs are all deposited.
 * @throws {ProtocolError} `not-found`, `not-permitted`, `policy-…`, `wrong-state` when keys are missing, `no-runs-left`, `limit-exceeded`
 */
export function queueRun(context: ManagerContext, caller: StakeholderCaller, digest: Digest, jobName: string): { run: string } {
  return transact(context, (tx) => {
    const standing = readStanding(context, tx, digest)
    const queuedBy = demandStakeholder(standing.policy, caller)
    const job = own(standing.policy.jobs, jobName)
    if (job === undefined) throw new ProtocolError("not-found", `the policy has no job ${jobName}`)
    demandActive(standing)
    demandInputs(context, tx, standing, job)
    demandRunsLeft(tx, digest, jobName, job)
    demandPlaceInQueue(tx, digest)
    const record: RunRecord = {
      run: newId(context),
      policy: digest,
      job: jobName,
      state: "queued",
      number: tx.count("runs"),
      queuedBy,
      queuedAt: context.time.nowText(),
      laboratory: false,
      refusals: [],
      recordedRefusals: { judged: 0, unproven: 0 },
      nextEvent: 0,
      metrics: { bytes: 0, minute: 0, inMinute: 0, count: 0, digest: noMetrics },
    }
    tx.put("runs", record.run, appendEvent(context, tx, record, { kind: "state", state: "queued" }))
    appendReceipt(context, tx, { kind: "run-queued", policy: digest, run: record.run, job: record.job, by: queuedBy })
    return { run: record.run }
  })
}

/** @throws {ProtocolError} `limit-exceeded` */
function demandPlaceInQueue(reader: Reader, digest: Digest): void {
  const queued = reader.list("runs").filter(({ state }) => state === "queued")
  if (queued.length >= maxQueued.all) throw new ProtocolError("limit-exceeded", `${queued.length} runs are waiting already`)
  const own = queued.filter(({ policy }) => policy === digest)
  if (own.length >= maxQueued.ofPolicy) throw new ProtocolError("limit-exceeded", `${own.length} runs of this policy are waiting already`)
  const takenBack = reader.list("runs").filter((run) => run.policy === digest && run.state === "cancelled" && run.startedAt === undefined)
  if (takenBack.length >= maxTakenBack)
    throw new ProtocolError("limit-exceeded", `${takenBack.length} runs of this policy were taken back before they started`)
}

/** Runs that were started, whatever became of them, and those that wait: together at most `maxRuns`. */
function demandRunsLeft(reader: Reader, digest: Digest, jobName: string, job: Job): void {
  const counted = reader
    .list("runs")
    .filter((run) => run.policy === digest && run.job === jobName && (run.startedAt !== undefined || run.state === "queued"))
  if (counted.length >= job.maxRuns) throw new ProtocolError("no-runs-left", `${counted.length} of ${job.maxRuns} runs are used or queued`)
}

/**
 * A queued run is cancelled at once. A running one loses its lease: the agent's next call tells it so, and its keys are gone with its scratch.
 * @throws {ProtocolError} `not-found`, `not-permitted`, `wrong-state` when it is over
 */
export function cancelRun(context: ManagerContext, caller: StakeholderCaller, runId: string): RunView {
  return transact(context, (tx) => {
    const run = demandRun(context, tx, caller, runId)
    const by = demandStakeholder(context.documents.policy(tx, run.policy), caller)
    if (run.state === "cancelled") return viewRun(context, tx, caller, run)
    if (isOver(run)) throw new ProtocolError("wrong-state", `the run is over: ${run.state}`)
    return viewRun(context, tx, caller, endRun(context, tx, run, { state: "cancelled", reason: `cancelled by ${by}`, by }))
  })
}

/**
 * The agent's last word on a run. Saying it again changes nothing.
 * @throws {ProtocolError} `lease-ended`, `not-found`, `wrong-report` for what the agent of a job of this policy does not say
 */
export function finishRun(context: ManagerContext, caller: HostCaller, runId: string, report: RunReport): void {
  transact(context, (tx) => {
    const run = tx.get("runs", runId)
    const lease = run?.lease === undefined ? undefined : tx.get("leases", run.lease)
    if (run?.report !== undefined && lease?.tlsKey === caller.tlsKey) return
    demandLease(context, tx, caller, { run: runId })
    if (run === undefined) throw new ProtocolError("not-found", `there is no run ${runId}`)
    demandReport(own(context.documents.policy(tx, run.policy).jobs, run.job), report)
    const state = report.status
    endRun(context, tx, run, { state, report, ...(report.status === "failed" ? { reason: runReasons[report.reason] } : {}), code: state })
  })
}

/** What the form of a report leaves open, the policy closes, so that nothing leaves a machine by a field that nobody reads. @throws {ProtocolError} `wrong-report` */
function demandReport(job: Job | undefined, report: RunReport): void {
  if (job === undefined) throw new TypeError("internal: run of a job that the policy lacks")
  if (report.status === "failed" && report.exit !== undefined && job.logs === "none")
    throw new ProtocolError("wrong-report", "the policy lets no logs leave, and so no way in which the program ended", { path: "exit" })
  for (const name of Object.keys(report.rowsPerInput ?? {}))
    if (!Object.hasOwn(job.inputs, name)) throw new ProtocolError("wrong-report", "the job has no such input", { path: `rowsPerInput.${name}` })
  const mostSeconds = job.resources.wallSeconds + 2 * wallSecondsGrain
  if (report.wallSeconds !== undefined && report.wallSeconds > mostSeconds)
    throw new ProtocolError("wrong-report", `the policy gives the job ${job.resources.wallSeconds} seconds`, { path: "wallSeconds" })
}

/**
 * Takes one report of metrics, within the policy's schema and caps.
 * @throws {ProtocolError} `lease-ended`, `wrong-metrics`, `limit-exceeded`, `too-many-requests`
 */
export function reportMetrics(context: ManagerContext, caller: HostCaller, runId: string, values: MetricValues): void {
  transact(context, (tx) => {
    const { run } = demandLease(context, tx, caller, { run: runId })
    const metrics = own(context.documents.policy(tx, run.policy).jobs, run.job)?.metrics ?? "none"
    if (metrics === "none") throw new ProtocolError("wrong-metrics", "the policy allows no metrics for this job")
    checkMetrics(metrics.schema, values)
    const bytes = run.metrics.bytes + metricsSizeBytes(values)
    if (bytes > metrics.maxBytes) throw new ProtocolError("limit-exceeded", `metrics of the run exceed ${metrics.maxBytes} bytes`)
    const minute = Math.floor(context.time.now().getTime() / 60_000)
    const inMinute = run.metrics.minute === minute ? run.metrics.inMinute + 1 : 1
    if (inMinute > metrics.maxPerMinute) throw new ProtocolError("too-many-requests", `more than ${metrics.maxPerMinute} reports in a minute`)
    const counted: RunRecord = {
      ...run,
      metrics: { bytes, minute, inMinute, count: run.metrics.count + 1, digest: chainMetrics(run.metrics.digest, values) },
    }
    tx.put("runs", run.run, appendEvent(context, tx, counted, { kind: "metrics", values }))
  })
}

/** A run that the caller may see. Others are not told apart from none. @throws {ProtocolError} `not-found` */
export function demandRun(context: ManagerContext, reader: Reader, caller: StakeholderCaller, runId: string): RunRecord {
  const run = reader.get("runs", runId)
  if (run === undefined || partyOf(context, reader, run.policy, caller.key) === undefined)
    throw new ProtocolError("not-found", `there is no run ${runId}`)
  return run
}

export function listRuns(context: ManagerContext, caller: StakeholderCaller, policy: Digest | undefined): { runs: RunView[] } {
  const { store } = context
  const runs = store
    .list("runs")
    .filter((run) => (policy === undefined || run.policy === policy) && partyOf(context, store, run.policy, caller.key) !== undefined)
  return { runs: runs.toSorted((a, b) => a.number - b.number).map((run) => shortened(viewRun(context, store, caller, run))) }
}

/**
 * A run as a list shows it: of its refusals the last one, with its first finding in few words. A machine that a policy lists and that is refused again and
 * again would otherwise make the lists of all who see its runs larger than they read.
 */
function shortened(view: RunView): RunView {
  const last = view.refusals.at(-1)
  if (last === undefined) return view
  const [first] = last.findings
  if (first === undefined) return { ...view, refusals: [last] }
  const cut = (text: string): string => truncateText(text, maxListedText, "…")
  const finding = { ...first, subject: cut(first.subject), found: cut(first.found), expected: cut(first.expected), advice: cut(first.advice) }
  return { ...view, refusals: [{ ...last, findings: [finding], moreFindings: last.moreFindings + last.findings.length - 1 }] }
}

/** With it 10,000 refused runs, the most of one list, stay below the 32 MB that a client reads. */
const maxListedText = 120

/** A run as one stakeholder sees it: how its program ended is for those who may read its logs. */
export function viewRun(context: ManagerContext, reader: Reader, caller: StakeholderCaller, record: RunRecord): RunView {
  const { number: _, nextEvent: __, metrics: ___, lease: ____, recordedRefusals: _____, report, ...view } = record
  const policy = context.documents.policy(reader, record.policy)
  const logs = own(policy.jobs, record.job)?.logs ?? "none"
  const isReader = logs !== "none" && logs.to.includes(partyOf(context, reader, record.policy, caller.key) ?? "")
  return {
    ...view,
    ...(report === undefined ? {} : { report: isReader ? report : withoutExit(report) }),
    outputs: reader.list("outputs").flatMap(({ run, output }) => (run === record.run ? [output] : [])),
  }
}

function withoutExit(report: RunReport): RunReport {
  if (report.status === "succeeded") return report
  const { exit: _, ...rest } = report
  return rest
}
