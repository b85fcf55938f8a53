import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import type { RunEvent, RunReport } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { makeAgent, makeParts, type Party, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, stranger } = parts

async function metrics(study: TestStudy, agent: Parameters<TestStudy["renew"]>[0], run: string, values: Record<string, number>): Promise<void> {
  await study.call(routes.reportMetrics, agent, { params: { run }, body: { values } })
}

async function eventsFor(study: TestStudy, party: Party, run: string, lastEventId?: string): Promise<RunEvent[]> {
  const headers = lastEventId === undefined ? {} : { "last-event-id": lastEventId }
  const response = await study.fetch("GET", `/v1/runs/${run}/events`, study.as(party), undefined, headers)
  assert.equal(response.headers.get("content-type"), "text/event-stream")
  const text = await response.text()
  return [...text.matchAll(/^data: (.*)$/gm)].map((match) => routes.watchRun.response.parse(JSON.parse(match[1] ?? "")))
}

test("queueRun() is for stakeholders, known jobs, and as often as the policy allows", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  await assert.rejects(study.queue(digest, stranger), { code: "not-permitted" })
  const params = { digest, job: "other" }
  await assert.rejects(study.call(routes.queueRun, study.as(vendor), { params, body: {} }), { code: "not-found" })
  await study.queue(digest)
  const second = await study.queue(digest)
  await assert.rejects(study.queue(digest), { code: "no-runs-left" })
  // A run that was never started does not count once it is cancelled.
  await study.call(routes.cancelRun, study.as(clinic), { params: { run: second }, body: {} })
  await study.queue(digest)
})

test("a run that was started counts for ever", async () => {
  const study = await TestStudy.create(parts)
  const { digest, agent, run } = await study.running()
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "failed", reason: "job-failed" } })
  await study.queue(digest)
  await assert.rejects(study.queue(digest), { code: "no-runs-left" })
})

test("queueRun() ends where a party queues and takes back without end", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  const cancel = async (): Promise<unknown> =>
    study.call(routes.cancelRun, study.as(clinic), { params: { run: await study.queue(digest) }, body: {} })
  await cancel()
  const [record] = study.store.list("runs")
  assert.ok(record)
  study.store.transact(new Date(study.clock.wall), (tx) => {
    for (let index = 1; index < 999; index++) {
      const run = index.toString(16).padStart(32, "0")
      tx.put("runs", run, { ...record, run, number: index })
    }
  })
  await cancel()
  await assert.rejects(study.queue(digest), { code: "limit-exceeded" })
})

test("queueRun() ends where a thousand runs wait, whosever they are, and goes on when one is gone", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  await study.queue(digest)
  const [record] = study.store.list("runs")
  assert.ok(record)
  const others = Array.from({ length: 999 }, (_, index) => (index + 1).toString(16).padStart(32, "0"))
  study.store.transact(new Date(study.clock.wall), (tx) => {
    for (const [index, run] of others.entries())
      tx.put("runs", run, { ...record, run, number: index + 1, policy: digestOf(encodeUtf8(`policy ${index % 20}`)) })
  })
  await assert.rejects(study.queue(digest), { code: "limit-exceeded" })
  study.store.transact(new Date(study.clock.wall), (tx) => tx.remove("runs", others[0] ?? ""))
  await study.queue(digest)
})

test("a list of runs shows of each the last refusal in short, and stays below what a client reads; one run shows them all", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  const run = await study.queue(digest)
  const [record] = study.store.list("runs")
  assert.ok(record)
  const text = (mark: string): string => mark + "\\".repeat(499)
  const finding = { effect: "refusal", subject: text("s"), found: text("f"), expected: text("e"), advice: text("a") } as const
  const refusals = Array.from({ length: 32 }, (_, index) => ({
    at: record.queuedAt,
    host: "host-1",
    code: "not-acceptable",
    findings: Array.from({ length: 16 }, (_unused, place) => ({ ...finding, code: `code-${index}-${place}` })),
    moreFindings: 3,
  }))
  study.store.transact(new Date(study.clock.wall), (tx) => tx.put("runs", run, { ...record, refusals }))
  const { runs } = await study.call(routes.listRuns, study.as(clinic), {})
  const [listed] = runs
  assert.ok(listed)
  assert.deepEqual(
    listed.refusals.map(({ findings, moreFindings }) => [findings.map(({ code }) => code), moreFindings]),
    [[["code-31-0"], 18]],
  )
  // 10,000 such runs are the most of one answer.
  assert.ok(10_000 * JSON.stringify(listed).length < routes.listRuns.maxResponseBytes)
  const whole = await study.call(routes.getRun, study.as(clinic), { params: { run } })
  assert.deepEqual(whole.refusals, refusals)
})

test("no text of a refused machine's makes a list unreadable: a sign of two units at the cut", async () => {
  const study = await TestStudy.create(parts)
  const run = await study.queue(await study.agree())
  const [record] = study.store.list("runs")
  assert.ok(record)
  const finding = {
    code: "ima-unknown-file",
    effect: "refusal",
    subject: `${"s".repeat(118)}\u{1f600} and more`,
    found: "",
    expected: "",
    advice: "",
  } as const
  const refusal = { at: record.queuedAt, host: "host-1", code: "not-acceptable", findings: [finding], moreFindings: 0 }
  study.store.transact(new Date(study.clock.wall), (tx) => tx.put("runs", run, { ...record, refusals: [refusal] }))
  const { runs } = await study.call(routes.listRuns, study.as(clinic), {})
  assert.equal(runs[0]?.refusals[0]?.findings[0]?.subject, `${"s".repeat(118)}…`)
})

test("cancelRun() ends a running job's lease and says who did it", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant, run } = await study.running()
  const view = await study.call(routes.cancelRun, study.as(clinic), { params: { run }, body: {} })
  assert.deepEqual([view.state, view.reason], ["cancelled", "cancelled by clinic"])
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "lease-ended" })
  assert.equal((await study.call(routes.cancelRun, study.as(clinic), { params: { run }, body: {} })).state, "cancelled")
})

test("finishRun() ends run and lease; saying it again changes nothing, cancelling is too late", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant, run } = await study.running()
  const report = { status: "succeeded", rowsPerInput: { records: 285 }, wallSeconds: 20 } as const
  await study.call(routes.finishRun, agent, { params: { run }, body: report })
  await study.call(routes.finishRun, agent, { params: { run }, body: report })
  await assert.rejects(study.call(routes.finishRun, await makeAgent(), { params: { run }, body: report }), { code: "not-found" })
  const view = await study.call(routes.getRun, study.as(consortium), { params: { run } })
  assert.deepEqual([view.state, view.report], ["succeeded", report])
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "lease-ended" })
  await assert.rejects(study.call(routes.cancelRun, study.as(clinic), { params: { run }, body: {} }), { code: "wrong-state" })
})

test("finishRun() takes only what the policy lets a report say", async () => {
  const study = await TestStudy.create(parts)
  const { agent, run } = await study.running()
  const finish = async (body: object): Promise<unknown> => study.call(routes.finishRun, agent, { params: { run }, body: body as RunReport })
  const failed = { status: "failed", reason: "job-failed" }
  // Forms that could carry data: words of the agent's own, exact codes and times.
  for (const body of [
    { status: "succeeded", reason: "job-failed" },
    { status: "failed" },
    { status: "failed", reason: "Smith, 47" },
    { status: "stopped" },
    { ...failed, exit: "error 47" },
    { status: "succeeded", exit: "error" },
    { ...failed, exitCode: 47 },
    { ...failed, wallSeconds: 11 },
    { ...failed, wallSeconds: 10.5 },
    { ...failed, maxMemoryBytes: 4711 },
  ])
    await assert.rejects(finish(body), { status: 400 }, JSON.stringify(body))
  for (const body of [
    { ...failed, exit: "error" },
    { ...failed, rowsPerInput: { smith: 47 } },
    { ...failed, rowsPerInput: { toString: 47 } },
    { ...failed, wallSeconds: 630 },
  ])
    await assert.rejects(finish(body), { code: "wrong-report", status: 400 }, JSON.stringify(body))
  await finish({ ...failed, wallSeconds: 620, rowsPerInput: { records: 285 } })
  const view = await study.call(routes.getRun, study.as(clinic), { params: { run } })
  assert.deepEqual([view.state, view.reason], ["failed", "the job's program ended with an error"])
})

test("how a program ended is shown to the readers of its logs alone", async () => {
  const study = await TestStudy.create(parts)
  const policy = study.policy()
  const job = policy.jobs["train"]
  assert.ok(job)
  const logs = { to: ["vendor"], release: { require: "all" }, maxBytes: 1000 } as const
  const { agent, run } = await study.running({ ...policy, jobs: { train: { ...job, logs } } })
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "failed", reason: "job-failed", exit: "signal" } })
  const reportFor = async (party: Party): Promise<unknown> => {
    const { report } = await study.call(routes.getRun, study.as(party), { params: { run } })
    const [listed] = (await study.call(routes.listRuns, study.as(party))).runs
    assert.deepEqual(listed?.report, report)
    return report
  }
  assert.deepEqual(await reportFor(vendor), { status: "failed", reason: "job-failed", exit: "signal" })
  for (const party of [clinic, consortium]) assert.deepEqual(await reportFor(party), { status: "failed", reason: "job-failed" })
})

test("queueRun() lets one policy's runs fill a part of the queue only", async () => {
  const study = await TestStudy.create(parts)
  const policy = study.policy()
  const job = policy.jobs["train"]
  assert.ok(job)
  const digest = await study.agree({ ...policy, jobs: { train: { ...job, maxRuns: 1000 } } })
  const other = await study.agree(study.policy({ study: "other" }))
  for (let count = 0; count < 100; count++) await study.queue(digest)
  await assert.rejects(study.queue(digest), { code: "limit-exceeded" })
  await study.queue(other)
})

test("a run is nothing to those whom its policy does not name", async () => {
  const study = await TestStudy.create(parts)
  const { run } = await study.running()
  await assert.rejects(study.call(routes.getRun, study.as(stranger), { params: { run } }), { code: "not-found", status: 404 })
  await assert.rejects(study.call(routes.cancelRun, study.as(stranger), { params: { run }, body: {} }), { code: "not-found" })
  assert.equal((await study.fetch("GET", `/v1/runs/${run}/events`, study.as(stranger))).status, 404)
  assert.deepEqual((await study.call(routes.listRuns, study.as(stranger))).runs, [])
  assert.equal((await study.call(routes.listRuns, study.as(clinic))).runs.length, 1)
})

test("reportMetrics() holds values against the schema and the caps", async () => {
  const study = await TestStudy.create(parts)
  const { agent, run } = await study.running()
  await metrics(study, agent, run, { epoch: 1, loss: 0.5 })
  for (const values of [{ epoch: 1 }, { epoch: 1.5, loss: 1 }, { epoch: 1, loss: 0.12345 }, { epoch: 1, loss: 1, name: 5 }])
    await assert.rejects(metrics(study, agent, run, { ...values } as Record<string, number>), { code: "wrong-metrics" })
  for (let count = 0; count < 4; count++) await metrics(study, agent, run, { epoch: count, loss: 0.5 })
  await assert.rejects(metrics(study, agent, run, { epoch: 1, loss: 1 }), { code: "too-many-requests", status: 429 })
  study.clock.wall += 60_000
  for (let count = 0; count < 4; count++) await metrics(study, agent, run, { epoch: count, loss: 0.5 })
  await assert.rejects(metrics(study, agent, run, { epoch: 1, loss: 1 }), { code: "limit-exceeded" })
})

test("watchRun: metrics go to those whom the policy names, the rest of the story to all stakeholders", async () => {
  const study = await TestStudy.create(parts)
  const { agent, run } = await study.running()
  await metrics(study, agent, run, { epoch: 1, loss: 0.5 })
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  const seen = await eventsFor(study, vendor, run)
  assert.deepEqual(
    seen.map((event) => (event.kind === "state" ? event.state : event.kind)),
    ["queued", "running", "metrics", "succeeded"],
  )
  assert.deepEqual(
    (await eventsFor(study, clinic, run)).map(({ seq }) => seq),
    [0, 1, 3],
  )
  assert.deepEqual(
    (await eventsFor(study, vendor, run, "1")).map(({ seq }) => seq),
    [2, 3],
  )
})

test("watchRun: events come while the run goes on", async () => {
  const study = await TestStudy.create(parts)
  const { agent, run } = await study.running()
  const pending = eventsFor(study, vendor, run)
  await metrics(study, agent, run, { epoch: 1, loss: 0.5 })
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  assert.equal((await pending).length, 4)
})

test("reportMetrics() takes nothing where the policy lets no metrics leave", async () => {
  const study = await TestStudy.create(parts)
  const policy = study.policy()
  const job = policy.jobs["train"]
  assert.ok(job)
  const { agent, run } = await study.running({ ...policy, jobs: { train: { ...job, metrics: "none" } } })
  const body = { values: { epoch: 1 } }
  await assert.rejects(study.call(routes.reportMetrics, agent, { params: { run }, body }), { code: "wrong-metrics", status: 400 })
})
