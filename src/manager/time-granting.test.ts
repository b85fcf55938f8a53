import assert from "node:assert/strict"
import { test } from "node:test"
import { certificateFingerprint } from "../pki/certificate.ts"
import { signStatement } from "../pki/statement.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { type Route, routes } from "../protocol/routes.ts"
import { type Caller, makeAgent, makeParts, TestStudy } from "./study.testing.ts"
import { LaboratoryTimeSource } from "./time-authority.testing.ts"

const parts = await makeParts()
const { clinic, consortium, vendor, references } = parts

async function checkedStudy(): Promise<{ study: TestStudy; source: LaboratoryTimeSource }> {
  const study = await TestStudy.create(parts)
  const start = study.clock.wall
  const source = new LaboratoryTimeSource(() => start + study.clock.monotonic)
  study.timeSource = source
  study.restart()
  await study.manager.checkTime()
  return { study, source }
}

test("the manager's description tells who checks its clock", async () => {
  const { study, source } = await checkedStudy()
  const { description } = await study.call(routes.describeManager, {})
  assert.deepEqual(description.time?.roots, source.roots.map(certificateFingerprint))
  const unchecked = await TestStudy.create(parts)
  assert.equal((await unchecked.call(routes.describeManager, {})).description.time, null)
})

test("a manager whose clock is not borne out grants nothing, and takes back all the same", async () => {
  const { study } = await checkedStudy()
  const { digest, run, agent, grant } = await study.running()
  const other = await makeAgent()
  const challenge = await study.challenge(agent, "host-1", grant.lease.id)
  const id = "0".repeat(32)
  const nonce = "ab".repeat(16)
  study.clock.wall += 61_000
  const body = (value: object): string => JSON.stringify(value)
  const signature = signStatement("reference", digest, vendor.privateKey)
  const update = { machine: "host", piece: "ima", replaces: digest, reference: references.ima, signature }
  const calls: readonly (readonly [Route, string, Caller, string | undefined])[] = [
    [routes.beginEnrolment, "/v1/enrolments", other, body(parts.machine.enrolmentRequest("host-2"))],
    [routes.answerEnrolment, `/v1/enrolments/${id}/answer`, other, body({ secret: encodeBase64(new Uint8Array(32)) })],
    [routes.claimRun, "/v1/claims", agent, body(study.evidence(challenge, agent))],
    [routes.renewLease, `/v1/leases/${grant.lease.id}/renew`, agent, body(study.evidence(challenge, agent))],
    [routes.getOutputPackage, `/v1/outputs/${id}/package`, study.as(consortium), undefined],
    [routes.updateReference, `/v1/policies/${digest}/references`, study.as(vendor), body(update)],
    [routes.getAttestationResult, `/v1/runs/${run}/attestation-result?nonce=${nonce}&audience=x`, study.as(clinic), undefined],
  ]
  for (const [route, path, caller, text] of calls) {
    assert.match(path, new RegExp(`^${route.path.replaceAll(/:[a-z]+/g, "[^/]+")}(?:\\?|$)`))
    const response = await study.fetch(route.method, path, caller, text)
    const problem = (await response.json()) as { code: string; detail: string }
    assert.deepEqual([response.status, problem.code], [503, "time-unchecked"], `${path}: ${problem.detail}`)
    assert.equal(response.headers.get("retry-after"), "5")
    assert.match(problem.detail, /61 s ahead of/)
  }
  // Nothing was used up: with the clock mended the same renewal goes through.
  study.clock.wall -= 61_000
  const renewed = await study.call(routes.renewLease, agent, { params: { lease: grant.lease.id }, body: study.evidence(challenge, agent) })
  assert.deepEqual(renewed, { seconds: 60 })
  study.clock.wall -= 120_000
  assert.equal((await study.withdraw(digest, clinic)).state, "withdrawn")
})

test("no run gets its keys by a clock that was set back: the policy is over by the authority's", async () => {
  const { study, source } = await checkedStudy()
  const digest = await study.agree(study.policy({ expires: "2026-11-22T13:00:00Z" }))
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  // Four hours later; the host holds its clock where it was.
  const { wall } = study.clock
  study.clock.advance(14_400)
  study.clock.wall = wall
  await assert.rejects(study.claim(agent), { code: "time-unchecked" })
  await study.manager.checkTime()
  await assert.rejects(study.claim(agent), { code: "time-unchecked" })
  assert.match(study.warnings.at(-1) ?? "", /the host's clock may be 14400 s behind/)
  study.clock.wall = wall + 14_400_000
  await assert.rejects(study.claim(agent), { message: "no content" }, "no work is left under a policy that is over")
  assert.equal(source.answers.length, 2)
})

test("a lease is not renewed past an hour without the authority, and ends", async () => {
  const { study, source } = await checkedStudy()
  const { agent, grant, run } = await study.running()
  source.isSilent = true
  for (let minutes = 0; minutes < 59; minutes++) {
    study.clock.advance(59)
    await study.manager.checkTime()
    await study.renew(agent, grant.lease.id)
  }
  for (let left = 0; left < 3; left++) {
    study.clock.advance(50)
    if (study.clock.monotonic <= 3_600_000) await study.renew(agent, grant.lease.id)
  }
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "time-unchecked" })
  study.clock.advance(60)
  study.manager.tick()
  assert.equal((await study.call(routes.getRun, study.as(clinic), { params: { run } })).state, "ended")
})

test("a clock that is ahead under a stamp leaves no mark in the store", async () => {
  const { study } = await checkedStudy()
  const { wall } = study.clock
  const digest = await study.submit(study.policy())
  const caller = study.as(clinic)
  study.clock.wall += 365 * 86_400_000
  await study.call(routes.approvePolicy, caller, { params: { digest }, body: { signature: signStatement("policy", digest, clinic.privateKey) } })
  assert.ok(study.store.recordedMilliseconds <= wall + 60_000)
  study.clock.wall = wall
  study.restart()
  await study.manager.checkTime()
  assert.equal(study.manager.timeProblem(), undefined)
})

test("a clock that is ahead as the manager starts, and mended, is no obstacle", async () => {
  const { study } = await checkedStudy()
  const { wall } = study.clock
  study.clock.wall += 365 * 86_400_000
  study.restart()
  await study.manager.checkTime()
  assert.match(study.manager.timeProblem() ?? "", /ahead/)
  study.clock.wall = wall
  assert.equal(study.manager.timeProblem(), undefined)
})
