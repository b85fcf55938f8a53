import assert from "node:assert/strict"
import { test } from "node:test"
import { type Digest, digestOf } from "../bytes/digest.ts"
import { signStatement } from "../pki/statement.ts"
import { policyDigest } from "../policy/document.ts"
import type { ProblemError } from "../protocol/problem.ts"
import { routes } from "../protocol/routes.ts"
import { makeParts, random, TestStudy, toJson } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, stranger, references } = parts

async function newStudy(): Promise<TestStudy> {
  return TestStudy.create(parts)
}

test("submitPolicy() takes a proposal once and says who is missing", async () => {
  const study = await newStudy()
  const policy = study.policy()
  const digest = await study.submit(policy)
  assert.equal(digest, policyDigest(policy))
  assert.equal(await study.submit(policy, vendor), digest)
  const view = await study.call(routes.getPolicy, study.as(consortium), { params: { digest } })
  assert.deepEqual([view.state, view.missing, view.references.length], ["proposed", ["clinic", "vendor", "consortium"], 2])
  assert.deepEqual((await study.call(routes.listPolicies, study.as(clinic))).policies.length, 1)
  assert.deepEqual((await study.call(routes.listPolicies, study.as(stranger))).policies.length, 0)
})

test("submitPolicy() refuses an expired policy, another manager, a stranger, a missing reference and an unknown field", async () => {
  const study = await newStudy()
  await assert.rejects(study.submit(study.policy({ expires: "2026-11-22T12:00:00Z" })), { code: "policy-expired", status: 403 })
  await assert.rejects(study.submit(study.policy({ manager: { insecureUnattested: { key: clinic.key } } })), { code: "wrong-manager" })
  await assert.rejects(study.submit(study.policy(), stranger), { code: "not-permitted" })
  const body = { policy: toJson(study.policy()), references: [toJson(references.boot)] }
  await assert.rejects(study.call(routes.submitPolicy, study.as(clinic), { body }), (error: ProblemError) => {
    assert.deepEqual([error.code, error.status], ["invalid-policy", 400])
    assert.deepEqual(
      error.findings.map(({ code, subject }) => [code, subject]),
      [["missing-reference", "machines.host.ima.reference"]],
    )
    return true
  })
  const changed = { policy: toJson({ ...study.policy(), more: 1 }), references: [] }
  await assert.rejects(study.call(routes.submitPolicy, study.as(clinic), { body: changed }), { code: "invalid-policy" })
  assert.equal(study.store.count("policies"), 0)
})

test("a policy becomes active with the last signature and not before", async () => {
  const study = await newStudy()
  const digest = await study.submit(study.policy())
  assert.equal((await study.sign(digest, clinic)).state, "proposed")
  const two = await study.sign(digest, vendor)
  assert.deepEqual([two.state, two.missing], ["proposed", ["consortium"]])
  assert.equal((await study.sign(digest, vendor)).state, "proposed")
  assert.equal((await study.sign(digest, consortium)).state, "active")
})

test("approvePolicy() takes another stakeholder's signature, for it proves itself", async () => {
  const study = await newStudy()
  const digest = await study.submit(study.policy())
  const signature = signStatement("policy", digest, vendor.privateKey)
  const status = await study.call(routes.approvePolicy, study.as(clinic), { params: { digest }, body: { signature } })
  assert.deepEqual(status.missing, ["clinic", "consortium"])
})

test("approvePolicy() refuses a stranger's signature, one for another digest and one for another purpose", async () => {
  const study = await newStudy()
  const digest = await study.submit(study.policy())
  const attempts = [
    [signStatement("policy", digest, stranger.privateKey), "not-permitted"],
    [signStatement("policy", digestOf(random(8)), clinic.privateKey), "wrong-signature"],
    [signStatement("withdraw", digest, clinic.privateKey), "wrong-signature"],
  ] as const
  for (const [signature, code] of attempts)
    await assert.rejects(study.call(routes.approvePolicy, study.as(clinic), { params: { digest }, body: { signature } }), { code })
  await assert.rejects(study.sign(digest, stranger), { code: "not-permitted" })
  await assert.rejects(study.sign(digestOf(random(8)), clinic), { code: "not-found" })
  assert.equal(study.store.count("approvals"), 0)
})

test("approvePolicy() refuses when the policy has expired meanwhile", async () => {
  const study = await newStudy()
  const digest = await study.submit(study.policy({ expires: "2026-11-22T13:00:00Z" }))
  study.clock.advance(3600)
  await assert.rejects(study.sign(digest, clinic), { code: "policy-expired" })
  assert.equal((await study.call(routes.getPolicy, study.as(clinic), { params: { digest } })).state, "expired")
})

test("withdrawPolicy() is final: state, signature and restart do not bring it back", async () => {
  const study = await newStudy()
  const digest = await study.agree()
  assert.equal((await study.withdraw(digest, clinic)).state, "withdrawn")
  assert.equal(study.store.count("deposits"), 0)
  await assert.rejects(study.sign(digest, clinic), { code: "policy-withdrawn" })
  await assert.rejects(study.queue(digest), { code: "policy-withdrawn" })
  study.restart()
  await assert.rejects(study.queue(digest), { code: "policy-withdrawn" })
  const signature = signStatement("policy", digest, clinic.privateKey)
  const body = { signature }
  await assert.rejects(study.call(routes.withdrawPolicy, study.as(clinic), { params: { digest }, body }), { code: "wrong-signature" })
})

test("withdrawPolicy() of a consumer ends a policy that all had to sign", async () => {
  const study = await newStudy()
  const digest = await study.agree()
  assert.equal((await study.withdraw(digest, consortium)).state, "withdrawn")
})

test("who withdrew from a proposal does not sign it again, owner or not", async () => {
  const study = await newStudy()
  const digest = await study.submit(study.policy())
  await study.withdraw(digest, consortium)
  await assert.rejects(study.sign(digest, consortium), { code: "policy-withdrawn" })
})

test("a successor takes the place of its predecessor only with the predecessor's parties", async () => {
  const study = await newStudy()
  const first = await study.agree()
  const second = await study.submit(study.policy({ supersedes: first, purpose: "second" }))
  await study.sign(second, clinic)
  await study.sign(second, vendor)
  assert.equal((await study.sign(second, consortium)).state, "active")
  assert.equal((await study.call(routes.getPolicy, study.as(clinic), { params: { digest: first } })).state, "superseded")
  await assert.rejects(study.queue(first), { code: "policy-inactive" })
  // The keys stay with the policy that their owners signed them under.
  await assert.rejects(study.queue(second), { code: "wrong-state" })
})

test("a second first policy of a study does not become active", async () => {
  const study = await newStudy()
  await study.agree()
  const other = await study.submit(study.policy({ purpose: "another" }))
  for (const party of [clinic, vendor]) await study.sign(other, party)
  const status = await study.sign(other, consortium)
  assert.equal(status.state, "proposed")
  assert.ok(status.blockers.length > 0)
})

test("time that was set back does not bring an expired policy back", async () => {
  const study = await newStudy()
  const digest = await study.agree(study.policy({ expires: "2026-11-22T13:00:00Z" }))
  study.clock.advance(3600)
  await assert.rejects(study.queue(digest), { code: "policy-expired" })
  study.clock.wall -= 1_800_000
  await assert.rejects(study.queue(digest), { code: "policy-expired" })
})

test("recorded time survives a restart with a clock that was set back", async () => {
  const study = await newStudy()
  const digest = await study.agree(study.policy({ expires: "2026-11-22T13:00:00Z" }))
  study.clock.advance(3590)
  await study.queue(digest)
  study.clock.advance(11)
  await study.submit(study.policy({ study: "other" }))
  study.clock.wall -= 1_800_000
  study.restart()
  await assert.rejects(study.queue(digest), { code: "policy-expired" })
})

test("every step of a policy is a receipt; strangers see none, nor hosts", async () => {
  const study = await newStudy()
  await study.agree()
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  assert.deepEqual(
    receipts.map(({ receipt }) => receipt?.kind),
    ["policy-submitted", "policy-signed", "policy-signed", "policy-signed", "policy-activated", "artifact-deposited", "artifact-deposited"],
  )
  await assert.rejects(study.call(routes.listReceipts, study.as(stranger)), { code: "not-permitted" })
  await assert.rejects(study.call(routes.listHosts, study.as(stranger)), { code: "not-permitted" })
})

test("studies on one manager stand for themselves: neither activation, succession nor withdrawal of one touches another", async () => {
  const study = await TestStudy.create(parts)
  const one = await study.agree()
  const other = await study.agree(study.policy({ study: "another" }))
  const state = async (digest: Digest): Promise<string> => (await study.call(routes.getPolicy, study.as(clinic), { params: { digest } })).state
  assert.deepEqual([await state(one), await state(other)], ["active", "active"])
  const next = await study.submit(study.policy({ study: "another", supersedes: one }))
  for (const party of [clinic, vendor, consortium]) await study.sign(next, party)
  assert.deepEqual([await state(one), await state(other), await state(next)], ["active", "active", "proposed"])
  const run = await study.queue(one)
  await study.withdraw(other, clinic)
  assert.deepEqual([await state(one), await state(other)], ["active", "withdrawn"])
  assert.equal((await study.call(routes.getRun, study.as(clinic), { params: { run } })).state, "queued")
})
