import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { castVote, fetchBallot, type VoterConnection } from "../client/vote.ts"
import type { Policy } from "../policy/document.ts"
import { makeParts, makeParty, type Party, TestStudy, toJson } from "../manager/study.testing.ts"
import type { OutputView } from "../protocol/messages.ts"
import { signCheckReport } from "../protocol/check-report.ts"
import { type Route, routes } from "../protocol/routes.ts"

const parts = await makeParts()
const { clinic, stranger } = parts
const other = digestOf(encodeUtf8("other"))

const findings = { program: { name: "lint", version: "1", digest: other }, checks: [{ check: "good", result: "passed" as const, of: other }] }

/** A study with one sealed output that waits for the clinic's vote. */
async function waiting(
  change: (policy: Policy) => Policy = (policy) => policy,
): Promise<{ readonly study: TestStudy; readonly output: string; readonly policy: ReturnType<TestStudy["policy"]> }> {
  const study = await TestStudy.create(parts)
  const policy = change(study.policy())
  const { digest, run } = await study.running(policy)
  const output = "a".repeat(32)
  study.store.transact(new Date(study.clock.wall), (tx) => {
    tx.put("outputs", output, {
      ...{ output, run, policy: digest, job: "train", name: "model", kind: "model", manifest: {}, ciphertext: digestOf(encodeUtf8("sealed")) },
      ...{ sizeBytes: 100, released: false, laboratory: true, at: new Date(study.clock.wall).toISOString() },
    })
  })
  return { study, output, policy }
}

/** The manager's answers, some of them changed on their way. */
function connectionOf(study: TestStudy, party: Party, change: (route: Route, answer: object) => object = (_, answer) => answer): VoterConnection {
  const call = async (route: Route, options: Parameters<TestStudy["call"]>[2] = {}): Promise<object> =>
    // The queries that voting makes ask for everything.
    change(route, (await study.call(route, study.as(party), { ...options, query: "" })) as object)
  const { description } = study.manager
  const manager = { url: new URL("https://manager"), description }
  return { ownKey: party.key, manager, call: call as VoterConnection["call"] }
}

function changedOutput(change: Partial<OutputView>): (route: Route, answer: object) => object {
  return (route, answer) =>
    route.path === routes.listOutputs.path
      ? { outputs: (answer as { outputs: OutputView[] }).outputs.map((view) => ({ ...view, ...change })) }
      : answer
}

test("castVote() signs what fetchBallot() showed, and that counts", async () => {
  const { study, output } = await waiting()
  const connection = connectionOf(study, clinic)
  const ballot = await fetchBallot(connection, output)
  assert.deepEqual([ballot.to, ballot.host, ballot.voter, ballot.policySigned], [["consortium"], "host-1", "clinic", true])
  const view = await castVote(connection, ballot, clinic.privateKey)
  assert.deepEqual([view.votes, view.missing], [["clinic"], []])
})

test("castVote() of a checker hands in what it checked, and the next voter is shown it", async () => {
  const checker = await makeParty("checker")
  const { study, output } = await waiting((policy) => ({
    ...policy,
    stakeholders: { ...policy.stakeholders, checker: { keys: [checker.key], roles: ["checker"] } },
    approval: { require: "all", of: ["clinic", "vendor", "consortium"] },
  }))
  const connection = connectionOf(study, checker)
  await assert.rejects(castVote(connection, await fetchBallot(connection, output), checker.privateKey), { code: "check-missing" })
  await castVote(connection, await fetchBallot(connection, output), checker.privateKey, findings)
  const { checks } = (await fetchBallot(connectionOf(study, clinic), output)).output
  assert.deepEqual(
    checks.map(({ by, report }) => [by, report.report.program.name]),
    [["checker", "lint"]],
  )
})

test("fetchBallot() refuses answers of a manager that do not fit each other or the policy", async () => {
  const { study, output, policy } = await waiting()
  const lies: readonly (readonly [code: string, change: (route: Route, answer: object) => object])[] = [
    ["contradicting", changedOutput({ to: ["consortium", "vendor"] })],
    ["contradicting", changedOutput({ job: "other" })],
    ["contradicting", changedOutput({ name: "logs" })],
    ["contradicting", changedOutput({ evidence: other })],
    ["contradicting", changedOutput({ laboratory: false })],
    ["contradicting", (route, answer) => (route.path === routes.getRun.path ? { ...answer, run: "b".repeat(32) } : answer)],
    ["contradicting", (route, answer) => (route.path === routes.getRun.path ? { ...answer, policy: other } : answer)],
    ["contradicting", (route, answer) => (route.path === routes.getRun.path ? { ...answer, job: "other" } : answer)],
    ["contradicting", (route, answer) => (route.path === routes.getRun.path ? { ...answer, evidence: undefined } : answer)],
    [
      "wrong-digest",
      (route, answer) => (route.path === routes.getPolicy.path ? { ...answer, policy: toJson({ ...policy, purpose: "another" }) } : answer),
    ],
    ["policy-withdrawn", changedOutput({ state: "locked" })],
    ["wrong-check", changedOutput({ checks: [{ by: "clinic", report: signCheckReport(findings, other, stranger.privateKey) }] })],
  ]
  for (const [index, [code, change]] of lies.entries())
    await assert.rejects(fetchBallot(connectionOf(study, clinic, change), output), { name: "ProtocolError", code }, `lie ${index}`)
})

test("fetchBallot() refuses an output that is not there, and a voter that the policy does not name", async () => {
  const { study, output } = await waiting()
  await assert.rejects(fetchBallot(connectionOf(study, clinic), "c".repeat(32)), { code: "not-found" })
  await assert.rejects(fetchBallot({ ...connectionOf(study, clinic), ownKey: stranger.key }, output), { code: "not-permitted" })
})

test("a manager that shows one output and counts another gets no vote that counts", async () => {
  const { study, output } = await waiting()
  const shown: readonly Partial<OutputView>[] = [{ ciphertext: other }, { sizeBytes: 1 }]
  for (const change of shown) {
    const connection = connectionOf(study, clinic, changedOutput(change))
    const ballot = await fetchBallot(connection, output)
    await assert.rejects(castVote(connection, ballot, clinic.privateKey), { name: "ProblemError", code: "wrong-signature" })
  }
  assert.equal(study.store.count("votes"), 0)
})

test("castVote() refuses an answer about something else", async () => {
  const { study, output } = await waiting()
  const connection = connectionOf(study, clinic, (route, answer) =>
    route.path === routes.voteOutput.path ? { ...answer, ciphertext: other } : answer,
  )
  await assert.rejects(castVote(connection, await fetchBallot(connection, output), clinic.privateKey), { code: "contradicting" })
})
