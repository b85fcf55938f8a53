import assert from "node:assert/strict"
import { test } from "node:test"
import { routes } from "../protocol/routes.ts"
import { ProblemError } from "../protocol/problem.ts"
import { PerunError } from "../bytes/error.ts"
import type { JournalEntry } from "./store.ts"
import { type AgentKeys, makeAgent, makeParts, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, records, trainer } = parts

type Step = (study: TestStudy, memory: { digest: `sha256:${string}`; run: string; agent: AgentKeys; lease: string }) => Promise<unknown>

/** A study step by step. Each step may be repeated: after a fault the party does what it did before. */
const steps: readonly Step[] = [
  async (study, memory) => (memory.digest = await study.submit(study.policy())),
  (study, { digest }) => study.sign(digest, clinic),
  (study, { digest }) => study.sign(digest, vendor),
  (study, { digest }) => study.sign(digest, consortium),
  (study, { digest }) => study.deposit(digest, "records", clinic, records),
  (study, { digest }) => study.deposit(digest, "trainer", vendor, trainer),
  (study, { agent }) => study.enrol(agent),
  async (study, memory) => (memory.run = await study.queue(memory.digest)),
  async (study, memory) => (memory.lease = (await study.claim(memory.agent)).lease.id),
  (study, { agent, lease }) => study.renew(agent, lease),
  (study, { agent, run }) => study.call(routes.reportMetrics, agent, { params: { run }, body: { values: { epoch: 1, loss: 1 } } }),
  (study, { agent, run }) => study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } }),
  (study, { digest }) => study.withdraw(digest, clinic),
]

/** What must hold of the store after any crash, whatever step it fell into. */
function checkInvariants(study: TestStudy): void {
  const { store } = study
  const runs = store.list("runs")
  const leases = store.list("leases")
  for (const run of runs) {
    const lease = run.lease === undefined ? undefined : store.get("leases", run.lease)
    assert.equal(
      run.state === "running",
      lease !== undefined && lease.ended === undefined,
      `run ${run.state}, lease ${lease?.ended ?? "running or none"}`,
    )
    // With the policy's end go the key of what the run made and the numbers that it reported, all of them or none.
    const isErased = store.get("policies", run.policy)?.erasedAt !== undefined
    assert.equal(run.startedAt !== undefined && !isErased, store.get("runKeys", run.run) !== undefined)
    const events = Array.from({ length: run.nextEvent }, (_, seq) => store.get("events", `${run.run} ${seq}`))
    if (!isErased) assert.ok(events.every((event) => event !== undefined))
    else assert.ok(events.every((event) => event?.kind !== "metrics"))
  }
  const { receipts } = study
  const count = (kind: string): number => receipts.filter((receipt) => receipt.kind === kind).length
  assert.equal(count("policy-signed"), store.count("approvals"))
  assert.equal(count("policy-withdrawn"), store.count("withdrawals"))
  const destroyed = receipts.flatMap(({ kind, artifacts }) => (kind === "keys-destroyed" ? (artifacts ?? []) : []))
  assert.equal(count("artifact-deposited"), store.count("deposits") + destroyed.length)
  assert.equal(count("host-enrolled"), store.count("hosts"))
  assert.equal(count("key-released"), leases.length)
  assert.equal(count("run-queued"), runs.length)
  assert.equal(
    count("lease-renewed"),
    leases.reduce((sum, { renewals }) => sum + renewals, 0),
  )
}

for (const when of ["before", "after"] as const)
  test(`a crash ${when} each durable write leaves no half state, and the story goes on after the restart`, async () => {
    const study = await TestStudy.create(parts)
    const memory = { digest: `sha256:${"0".repeat(64)}` as const, run: "", agent: await makeAgent(), lease: "" }
    for (const [index, step] of steps.entries()) {
      crashAtNextCommit(study, when)
      await assert.rejects(step(study, memory), ProblemError, `step ${index} did not write`)
      study.restart()
      checkInvariants(study)
      try {
        await step(study, memory)
      } catch (error) {
        // What took effect before its answer was lost is not done twice; a host that got its lease so has no other work (204, seen as `malformed`).
        assert.ok(when === "after" && error instanceof PerunError, String(error))
        assert.ok(["malformed", "wrong-state", "not-found", "lease-ended"].includes(error.code), `step ${index}: ${error.code}`)
      }
      adopt(study, memory)
      checkInvariants(study)
    }
    const state = study.store.list("runs").map((run) => run.state)
    assert.ok(
      state.every((found) => found === "succeeded" || found === "cancelled" || found === "queued" || found === "ended"),
      state.join(),
    )
  })

/** The process is gone at the next commit: nothing that follows is answered. */
function crashAtNextCommit(study: TestStudy, when: "before" | "after"): void {
  const { journal } = study
  const commit = journal.commit.bind(journal)
  journal.commit = (entry: JournalEntry) => {
    journal.commit = commit
    if (when === "after") commit(entry)
    journal.isBlind = true
    throw new Error("power is gone")
  }
  const restart = study.restart.bind(study)
  study.restart = () => {
    journal.isBlind = false
    study.restart = restart
    restart()
  }
}

/** What a party learns when it looks again after its answer was lost. */
function adopt(study: TestStudy, memory: { run: string; lease: string }): void {
  const run = study.store.list("runs").find((found) => found.state === "running") ?? study.store.list("runs").at(-1)
  if (run !== undefined) memory.run = run.run
  if (run?.lease !== undefined) memory.lease = run.lease
}
