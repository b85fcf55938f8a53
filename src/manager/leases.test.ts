import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { routes } from "../protocol/routes.ts"
import { goodProgram, LaboratoryMachine } from "./machine.testing.ts"
import { makeAgent, makeParts, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium } = parts

async function stateOf(study: TestStudy, run: string): Promise<readonly [string, string | undefined]> {
  const view = await study.call(routes.getRun, study.as(clinic), { params: { run } })
  return [view.state, view.reason]
}

test("renewLease() goes on from the last certified entry, again and again", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant } = await study.running()
  for (let count = 0; count < 3; count++) {
    study.clock.advance(50)
    const challenge = await study.challenge(agent, "host-1", grant.lease.id)
    assert.ok(challenge.imaFrom > 0)
    const body = study.evidence(challenge, agent)
    assert.equal(body.bundle.tpm.eventLog, undefined)
    assert.deepEqual(await study.call(routes.renewLease, agent, { params: { lease: grant.lease.id }, body }), { seconds: 60 })
  }
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  assert.equal(receipts.filter(({ receipt }) => receipt?.kind === "lease-renewed").length, 3)
})

test("a lease ends by time, on the monotonic clock, and its run with it", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant, run } = await study.running()
  study.clock.wall += 3_600_000
  study.manager.tick()
  assert.equal((await stateOf(study, run))[0], "running")
  study.clock.monotonic += 59_999
  study.manager.tick()
  assert.equal((await stateOf(study, run))[0], "running")
  study.clock.monotonic += 1
  const body = { values: { epoch: 1, loss: 1 } }
  await assert.rejects(study.call(routes.reportMetrics, agent, { params: { run }, body }), { code: "lease-ended" })
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "lease-ended" })
  study.manager.tick()
  assert.equal((await stateOf(study, run))[0], "ended")
})

test("renewLease() refuses a bad line and a reboot; the run ends and stays ended", async () => {
  for (const spoil of ["program", "reboot", "clock"] as const) {
    const own = await makeParts()
    const study = await TestStudy.create(own)
    const { agent, grant, run } = await study.running()
    if (spoil === "program") own.machine.measure("/tmp/tool", encodeUtf8("unknown"))
    if (spoil === "reboot") own.machine.resetCount++
    if (spoil === "clock") own.machine.clock -= 500n
    await assert.rejects(study.renew(agent, grant.lease.id), { code: spoil === "program" ? "not-acceptable" : "wrong-binding" })
    const view = await study.call(routes.getRun, study.as(own.clinic), { params: { run } })
    assert.equal(view.state, "ended")
    if (spoil === "program") assert.equal(view.reason, "renewal refused: ima-unknown-file")
    await assert.rejects(study.renew(agent, grant.lease.id), { code: "lease-ended" })
    await assert.rejects(study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } }), {
      code: "lease-ended",
    })
  }
})

test("renewLease() refuses another lease's challenge, a claim's challenge and another TLS key", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant } = await study.running()
  const { id } = grant.lease
  const body = study.evidence(await study.challenge(agent, "host-1", id), agent)
  await assert.rejects(study.call(routes.renewLease, agent, { params: { lease: "0".repeat(32) }, body }), { code: "challenge-binding" })
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "challenge-binding" })
  await assert.rejects(study.challenge(await makeAgent(), "host-1", id), { code: "not-found" })
  await study.call(routes.renewLease, agent, { params: { lease: id }, body })
  await assert.rejects(study.call(routes.renewLease, agent, { params: { lease: id }, body }), { code: "challenge-used" })
  assert.equal((await stateOf(study, grant.run))[0], "running")
})

test("an owner's withdrawal ends leases at once", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant, run, digest } = await study.running()
  await study.withdraw(digest, vendor)
  assert.deepEqual(await stateOf(study, run), ["ended", "consent was withdrawn"])
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "policy-withdrawn" })
  await assert.rejects(study.call(routes.reportMetrics, agent, { params: { run }, body: { values: { epoch: 1, loss: 1 } } }), {
    code: "policy-withdrawn",
  })
})

test("a successor policy ends what runs under its predecessor", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant, run, digest } = await study.running()
  const next = await study.submit(study.policy({ supersedes: digest, purpose: "next" }))
  for (const party of [clinic, vendor, consortium]) await study.sign(next, party)
  assert.equal((await stateOf(study, run))[0], "ended")
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "policy-inactive" })
})

test("a policy that expires in the middle of a run is not renewed", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant } = await study.running(study.policy({ expires: "2026-11-22T12:00:30Z" }))
  study.clock.advance(30)
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "policy-expired" })
})

test("a policy that expires while a renewal is judged is not renewed, and a lease that runs out meanwhile stays over", async () => {
  for (const change of ["expiry", "time"] as const) {
    const study = await TestStudy.create(parts)
    const { agent, grant } = await study.running(study.policy({ expires: "2026-11-22T13:00:00Z" }))
    study.whileJudging = async () => {
      if (change === "expiry") study.clock.wall += 3_600_000
      else study.clock.monotonic += 60_000
    }
    await assert.rejects(study.renew(agent, grant.lease.id), { code: change === "expiry" ? "policy-expired" : "lease-ended" })
    assert.equal(study.store.get("leases", grant.lease.id)?.renewals, 0)
  }
})

test("renewLease() renews nothing of a host that is retired while it is judged", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant, run } = await study.running()
  study.whileJudging = async () => void (await study.call(routes.retireHost, study.as(vendor), { params: { host: "host-1" }, body: {} }))
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "lease-ended" })
  assert.deepEqual(await stateOf(study, run), ["ended", "host host-1 was retired"])
})

test("of two renewals at once both go on from where their challenges were given, and the later evidence counts", async () => {
  const own = await makeParts()
  const study = await TestStudy.create(own)
  const { agent, grant } = await study.running()
  const { id } = grant.lease
  const [a, b] = [await study.challenge(agent, "host-1", id), await study.challenge(agent, "host-1", id)]
  const older = study.evidence(a, agent)
  own.machine.measure("/usr/bin/agent", goodProgram)
  const newer = study.evidence(b, agent)
  const renew = async (body: typeof older): Promise<unknown> => study.call(routes.renewLease, agent, { params: { lease: id }, body })
  // The newer one overtakes the older while that is judged.
  study.whileJudging = async () => {
    study.whileJudging = async () => undefined
    await renew(newer)
  }
  await assert.rejects(renew(older), { code: "wrong-state" })
  assert.equal(study.store.get("leases", id)?.renewals, 1)
  // In their order both count, though the second challenge was given before the first renewal.
  const [c, d] = [await study.challenge(agent, "host-1", id), await study.challenge(agent, "host-1", id)]
  own.machine.measure("/usr/bin/agent", goodProgram)
  await renew(study.evidence(c, agent))
  await renew(study.evidence(d, agent))
  assert.equal(study.store.get("leases", id)?.renewals, 3)
})

test("after a restart the whole boot is shown once more, and the lease goes on", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant, run } = await study.running()
  study.clock.advance(30)
  await study.renew(agent, grant.lease.id)
  study.restart()
  const challenge = await study.challenge(agent, "host-1", grant.lease.id)
  assert.equal(challenge.imaFrom, 0)
  // The boot log is the one that the claim came with, which the manager has kept.
  const body = study.evidence(challenge, agent, parts.machine, false)
  assert.equal(body.bundle.tpm.eventLog, undefined)
  assert.deepEqual(await study.call(routes.renewLease, agent, { params: { lease: grant.lease.id }, body }), { seconds: 60 })
  assert.ok((await study.challenge(agent, "host-1", grant.lease.id)).imaFrom > 0)
  assert.equal((await stateOf(study, run))[0], "running")
})

for (const change of ["reboot", "clock"] as const)
  test(`a ${change} that changed during the manager's absence ends the lease`, async () => {
    const own = await makeParts()
    const study = await TestStudy.create(own)
    const { agent, grant } = await study.running()
    study.restart()
    if (change === "reboot") own.machine.resetCount++
    else own.machine.clock -= 500n
    await assert.rejects(study.renew(agent, grant.lease.id), (error: { code: string; findings: readonly { code: string }[] }) => {
      assert.deepEqual([error.code, error.findings[0]?.code], ["not-acceptable", "boot-session-changed"])
      return true
    })
  })

test("a lease that ran out during the manager's absence is over", async () => {
  const study = await TestStudy.create(parts)
  const { agent, grant, run } = await study.running()
  study.clock.advance(60)
  study.restart()
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "lease-ended" })
  study.manager.tick()
  assert.equal((await stateOf(study, run))[0], "ended")
})

test("calls under a lease come from its TLS key and host only", async () => {
  const study = await TestStudy.create(parts)
  const { run, agent, grant } = await study.running()
  const other = await makeAgent()
  const params = { run }
  await study.enrol(other, "host-2", new LaboratoryMachine(parts.authority))
  await assert.rejects(study.challenge(agent, "host-2", grant.lease.id), { code: "not-found" })
  await assert.rejects(study.call(routes.reportMetrics, other, { params, body: { values: { epoch: 1, loss: 1 } } }), { code: "not-found" })
  await assert.rejects(study.call(routes.finishRun, other, { params, body: { status: "failed", reason: "job-failed" } }), { code: "not-found" })
  const body = { name: "model", manifest: {} }
  await assert.rejects(study.call(routes.reportOutput, other, { params, body }), { code: "not-found" })
})
