import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf, digestOfJson, type Digest } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { signStatement } from "../pki/statement.ts"
import { type CheckFindings, maxChecks, type SignedCheckReport, signCheckReport } from "../protocol/check-report.ts"
import { ProblemError } from "../protocol/problem.ts"
import { routes } from "../protocol/routes.ts"
import { voteDigest } from "../protocol/statements.ts"
import { makeParts, makeParty, type Party, TestStudy } from "./study.testing.ts"
import type { Policy } from "../policy/document.ts"

const parts = await makeParts()
const { clinic, vendor, consortium } = parts
const checker = await makeParty("checker")
const looked = digestOf(encodeUtf8("looked at"))
const findings: CheckFindings = {
  program: { name: "schema-check", version: "1.2.0", digest: looked },
  checks: [{ check: "the purpose names no person", result: "passed", of: looked }],
}
const failed: CheckFindings = { ...findings, checks: [...findings.checks, { check: "few enough epochs", result: "failed", of: looked }] }

/** A study that a program must approve too, and whose model leaves only after its vote. */
function checkedPolicy(study: TestStudy): Policy {
  const policy = study.policy()
  const { train } = policy.jobs
  assert.ok(train?.outputs["model"])
  const model = { ...train.outputs["model"], release: { require: "all", of: ["clinic", { require: "any", of: ["checker"] }] } } as const
  return {
    ...policy,
    stakeholders: { ...policy.stakeholders, checker: { keys: [checker.key], roles: ["checker"] } },
    jobs: { train: { ...train, outputs: { model } } },
  }
}

async function approve(study: TestStudy, digest: Digest, party: Party, report?: SignedCheckReport): ReturnType<TestStudy["sign"]> {
  const body = { signature: signStatement("policy", digest, party.privateKey), ...(report === undefined ? {} : { report }) }
  return study.call(routes.approvePolicy, study.as(party), { params: { digest }, body })
}

test("approvePolicy() takes a checker's signature only with a report of its own about exactly this policy, in which nothing failed", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(checkedPolicy(study))
  for (const party of [clinic, vendor, consortium]) await study.sign(digest, party)
  await assert.rejects(approve(study, digest, checker), { code: "check-missing", status: 403 })
  await assert.rejects(approve(study, digest, checker, signCheckReport(findings, looked, checker.privateKey)), { code: "wrong-check" })
  await assert.rejects(approve(study, digest, checker, signCheckReport(findings, digest, vendor.privateKey)), { code: "wrong-check" })
  await assert.rejects(approve(study, digest, checker, signCheckReport(failed, digest, checker.privateKey)), { code: "wrong-check" })
  const report = signCheckReport(findings, digest, checker.privateKey)
  const changed = { ...report, report: { ...report.report, program: { ...report.report.program, version: "9" } } }
  await assert.rejects(approve(study, digest, checker, changed), { code: "wrong-signature" })
  const status = await approve(study, digest, checker, report)
  assert.equal(status.state, "active")
  const view = await study.call(routes.getPolicy, study.as(clinic), { params: { digest } })
  assert.deepEqual(view.approvals.find(({ stakeholder }) => stakeholder === "checker")?.report, report)
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  const signed = receipts.filter(({ receipt }) => receipt?.kind === "policy-signed").map(({ receipt }) => receipt?.report)
  assert.deepEqual(signed, [undefined, undefined, undefined, digestOfJson(report.report)])
})

test("approvePolicy() takes no report of a party that is no checker", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(checkedPolicy(study))
  await assert.rejects(approve(study, digest, clinic, signCheckReport(findings, digest, clinic.privateKey)), { code: "wrong-check" })
})

test("approvePolicy() refuses a report of too many checks, of none, of unknown results and of hidden text", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(checkedPolicy(study))
  const [check] = findings.checks
  assert.ok(check)
  const others: readonly object[] = [
    { checks: [] },
    { checks: Array.from({ length: maxChecks + 1 }, () => check) },
    { checks: [{ ...check, result: "skipped" }] },
    { checks: [{ ...check, check: "two\nlines" }] },
    { checks: [{ ...check, check: "x".repeat(201) }] },
    { extra: 1 },
  ]
  for (const other of others)
    await assert.rejects(
      approve(study, digest, checker, signCheckReport({ ...findings, ...other }, digest, checker.privateKey)),
      (error: unknown) => error instanceof ProblemError && ["malformed", "too-large", "unknown-field"].includes(error.code),
    )
  await approve(
    study,
    digest,
    checker,
    signCheckReport({ ...findings, checks: Array.from({ length: maxChecks }, () => check) }, digest, checker.privateKey),
  )
})

test("voteOutput() takes a checker's vote only with a report about that output, and shows the report to the parties", async () => {
  const study = await TestStudy.create(parts)
  const policy = checkedPolicy(study)
  const digest = await study.submit(policy)
  for (const party of [clinic, vendor, consortium]) await study.sign(digest, party)
  await approve(study, digest, checker, signCheckReport(findings, digest, checker.privateKey))
  await study.deposit(digest, "records", clinic, parts.records)
  await study.deposit(digest, "trainer", vendor, parts.trainer)
  const run = await study.queue(digest)
  const output = "a".repeat(32)
  study.store.transact(new Date(study.clock.wall), (tx) => {
    const record = tx.get("runs", run)
    assert.ok(record)
    tx.put("runs", run, { ...record, evidence: looked })
    tx.put("outputs", output, {
      ...{ output, run, policy: digest, job: "train", name: "model", kind: "model", manifest: {}, ciphertext: looked },
      ...{ sizeBytes: 100, released: false, laboratory: false, at: new Date(study.clock.wall).toISOString() },
    })
  })
  const [view] = (await study.call(routes.listOutputs, study.as(checker))).outputs
  assert.ok(view)
  const subject = voteDigest(view)
  const vote = async (party: Party, report?: SignedCheckReport): Promise<typeof view> => {
    const body = { signature: signStatement("vote", subject, party.privateKey), ...(report === undefined ? {} : { report }) }
    return study.call(routes.voteOutput, study.as(party), { params: { output }, body })
  }
  await assert.rejects(vote(checker), { code: "check-missing" })
  await assert.rejects(vote(checker, signCheckReport(findings, digest, checker.privateKey)), { code: "wrong-check" })
  await assert.rejects(vote(checker, signCheckReport(failed, subject, checker.privateKey)), { code: "wrong-check" })
  const report = signCheckReport(findings, subject, checker.privateKey)
  assert.deepEqual((await vote(checker, report)).missing, ["clinic"])
  const seen = await vote(clinic)
  assert.deepEqual([seen.missing, seen.checks], [[], [{ by: "checker", report }]])
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  const [cast] = receipts.filter(({ receipt }) => receipt?.kind === "vote-cast").map(({ receipt }) => receipt)
  assert.deepEqual([cast?.by, cast?.report], ["checker", digestOfJson(report.report)])
})
