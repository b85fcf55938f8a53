import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { encodeBase64, encodeUtf8 } from "../bytes/text.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import { routes } from "../protocol/routes.ts"
import { EnrolmentBook } from "./enrolments.ts"
import { LaboratoryAuthority, LaboratoryMachine } from "./machine.testing.ts"
import { type AgentKeys, makeAgent, makeParts, random, TestStudy } from "./study.testing.ts"
import { hostMachine } from "../policy/fixtures.testing.ts"

const parts = await makeParts()
const { clinic, vendor, stranger, machine, authority } = parts

/** A study with an enrolled host and a queued run. */
async function ready(): Promise<{ study: TestStudy; agent: AgentKeys; run: string }> {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  const agent = await makeAgent()
  await study.enrol(agent)
  return { study, agent, run: await study.queue(digest) }
}

test("claimRun() releases exactly the job's keys to the attested key, and says so in a receipt", async () => {
  const { study, agent, run } = await ready()
  const grant = await study.claim(agent)
  assert.deepEqual(await study.openGrant(agent, grant), { records: parts.records.identity, trainer: parts.trainer.identity })
  assert.deepEqual([grant.run, grant.lease.seconds, grant.inputs.map(({ artifact }) => artifact)], [run, 60, ["records", "trainer"]])
  assert.match(grant.outputRecipient, /^age1pq1/)
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  const receipt = receipts.at(-1)?.receipt
  assert.deepEqual([receipt?.kind, receipt?.host, receipt?.artifacts, receipt?.laboratory], ["key-released", "host-1", ["records", "trainer"], true])
  assert.deepEqual(
    receipt?.findings?.map(({ code, effect }) => [code, effect]),
    [
      ["insecure-laboratory", "note"],
      ["boot-quirk-accepted", "note"],
    ],
  )
  assert.ok(receipt?.evidence)
  const other = await makeAgent()
  await assert.rejects(study.openGrant(other, grant), { code: "wrong-message" })
})

test("claimRun() refuses a replayed challenge with anything else than the same request", async () => {
  const { study, agent } = await ready()
  const challenge = await study.challenge(agent)
  const body = study.evidence(challenge, agent)
  await study.call(routes.claimRun, agent, { body })
  const other = study.evidence(challenge, { ...agent, hpke: await generateHpkeKeyPair() })
  await assert.rejects(study.call(routes.claimRun, agent, { body: other }), { code: "challenge-used", status: 403 })
  await assert.rejects(study.call(routes.claimRun, agent, { body: { ...other, bundle: body.bundle } }), { code: "challenge-used" })
  await assert.rejects(study.call(routes.claimRun, agent, { body: { ...body, bundle: other.bundle } }), { code: "challenge-used" })
})

test("claimRun() gives the same grant to the same request while its lease runs: the first answer may have been lost", async () => {
  const { study, agent, run } = await ready()
  const body = study.evidence(await study.challenge(agent), agent)
  // The second comes while the first is still judged, the third afterwards.
  const [first, second] = await Promise.all([study.call(routes.claimRun, agent, { body }), study.call(routes.claimRun, agent, { body })])
  const third = await study.call(routes.claimRun, agent, { body })
  assert.deepEqual([second, third], [first, first])
  assert.deepEqual([study.store.count("leases"), study.store.list("runs").filter(({ startedAt }) => startedAt !== undefined).length], [1, 1])
  const released = study.receipts.filter(({ kind }) => kind === "key-released")
  assert.equal(released.length, 1)
  // Whoever has another TLS key gets nothing of it, and nobody does once the lease is over or the challenge old.
  const thief = await makeAgent()
  await study.enrol(thief, "host-2", new LaboratoryMachine(authority))
  await study.queue(study.store.get("runs", run)?.policy ?? digestOf(random(1)))
  await study.challenge(thief, "host-2")
  await assert.rejects(study.call(routes.claimRun, thief, { body }), { code: "challenge-binding" })
  await study.call(routes.cancelRun, study.as(clinic), { params: { run }, body: {} })
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "lease-ended" })
  study.clock.advance(120)
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "challenge-used" })
})

test("a challenge is used up by a wrong answer", async () => {
  const { study, agent } = await ready()
  const challenge = await study.challenge(agent)
  const good = study.evidence(challenge, agent)
  const bad = { ...good, bundle: machine.bundle(random(32)) }
  await assert.rejects(study.call(routes.claimRun, agent, { body: bad }), { code: "wrong-nonce" })
  await assert.rejects(study.call(routes.claimRun, agent, { body: good }), { code: "challenge-used" })
})

test("claimRun() refuses an expired, an unknown and a foreign challenge", async () => {
  const { study, agent } = await ready()
  const challenge = await study.challenge(agent)
  const body = study.evidence(challenge, agent)
  const foreign = await makeAgent()
  await assert.rejects(study.call(routes.claimRun, foreign, { body }), { code: "challenge-unknown" })
  await study.challenge(foreign)
  await assert.rejects(study.call(routes.claimRun, foreign, { body }), { code: "challenge-binding" })
  await assert.rejects(study.call(routes.claimRun, agent, { body: { ...body, challenge: "0".repeat(32) } }), { code: "challenge-unknown" })
  study.clock.advance(120)
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "challenge-expired" })
  study.restart()
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "challenge-unknown" })
})

test("claimRun() refuses evidence of an earlier challenge", async () => {
  const { study, agent } = await ready()
  const yesterday = study.evidence(await study.challenge(agent), agent)
  study.clock.advance(86_400)
  const today = await study.challenge(agent)
  await assert.rejects(study.call(routes.claimRun, agent, { body: { ...yesterday, challenge: today.challenge } }), {
    code: "wrong-nonce",
    status: 403,
  })
})

test("claimRun() refuses evidence bound to another HPKE key, TLS key, run, policy or lease", async () => {
  const { study, agent } = await ready()
  const other = await generateHpkeKeyPair()
  const swapped = study.evidence(await study.challenge(agent), agent)
  await assert.rejects(study.call(routes.claimRun, agent, { body: { ...swapped, hpkeKey: encodeBase64(other.publicKey) } }), { code: "wrong-nonce" })
  const tlsKey = digestOf(random(32))
  const relayed = study.evidence(await study.challenge(agent), { ...agent, tlsKey })
  await assert.rejects(study.call(routes.claimRun, agent, { body: relayed }), { code: "wrong-nonce" })
  for (const change of [{ run: "1".repeat(32) }, { lease: "2".repeat(32) }, { policy: tlsKey }, { job: "other" }, { manager: "3".repeat(32) }]) {
    const challenge = await study.challenge(agent)
    const body = study.evidence({ ...challenge, ...change }, agent)
    await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "wrong-nonce" })
  }
})

test("claimRun() refuses a genuine machine that the policy does not list, and names what it found", async () => {
  const { study, run } = await ready()
  const foreign = new LaboratoryMachine(authority)
  const agent = await makeAgent()
  await study.enrol(agent, "host-2", foreign)
  await assert.rejects(study.claim(agent, "host-2", foreign), (error: { code: string; findings: readonly { code: string; found: string }[] }) => {
    assert.equal(error.code, "not-acceptable")
    assert.deepEqual(
      error.findings.filter(({ code }) => code === "endorsement-key-not-listed").map(({ found }) => found),
      [foreign.endorsementKey],
    )
    return true
  })
  const view = await study.call(routes.getRun, study.as(clinic), { params: { run } })
  assert.deepEqual([view.state, view.refusals.map(({ host, code }) => [host, code])], ["queued", [["host-2", "not-acceptable"]]])
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  assert.deepEqual([receipts.at(-1)?.receipt?.kind, receipts.at(-1)?.receipt?.findings?.[0]?.code], ["release-refused", "endorsement-key-not-listed"])
})

test("claimRun() refuses an unknown program by its name, and a changed boot by its event", async () => {
  const spoiled = await makeParts()
  const study = await TestStudy.create(spoiled)
  const digest = await study.agree()
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  spoiled.machine.measure("/tmp/backdoor", encodeUtf8("evil"))
  await assert.rejects(study.claim(agent), (error: { code: string; findings: readonly { code: string; subject: string }[] }) => {
    assert.equal(error.code, "not-acceptable")
    assert.ok(error.findings.some(({ code, subject }) => code === "ima-unknown-file" && subject.includes("/tmp/backdoor")))
    return true
  })
  const changed = new LaboratoryMachine(spoiled.authority, "init=/bin/sh")
  const other = await makeAgent()
  await study.enrol(other, "host-2", changed)
  await assert.rejects(study.claim(other, "host-2", changed), (error: { findings: readonly { code: string }[] }) => {
    assert.ok(error.findings.some(({ code }) => code === "boot-event-differs"))
    return true
  })
})

test("claimRun() refuses the key of another machine under an enrolled name", async () => {
  const { study, agent } = await ready()
  const foreign = new LaboratoryMachine(authority)
  const challenge = await study.challenge(agent)
  const body = study.evidence(challenge, agent, foreign)
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "wrong-nonce" })
  const again = await study.challenge(agent)
  const bundle = foreign.bundle(study.sessionOf(again, agent))
  const forged = { challenge: again.challenge, hpkeKey: encodeBase64(agent.hpke.publicKey), bundle }
  await assert.rejects(study.call(routes.claimRun, agent, { body: forged }), { code: "wrong-binding" })
})

test("claimRun() refuses when consent went away between challenge and claim", async () => {
  const { study, agent, run } = await ready()
  const body = study.evidence(await study.challenge(agent), agent)
  const { policy } = await study.call(routes.getRun, study.as(clinic), { params: { run } })
  await study.withdraw(policy, clinic)
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "wrong-state" })
  assert.equal((await study.call(routes.getRun, study.as(clinic), { params: { run } })).state, "cancelled")
})

test("claimRun() refuses when consent goes away while the machine is judged, and when the policy expires before or meanwhile", async () => {
  for (const change of ["withdrawal", "expiry", "cancel"] as const) {
    const study = await TestStudy.create(parts)
    const digest = await study.agree(study.policy({ expires: "2026-11-22T13:00:00Z" }))
    const agent = await makeAgent()
    await study.enrol(agent)
    const run = await study.queue(digest)
    const first = study.evidence(await study.challenge(agent), agent)
    study.whileJudging = async () => {
      study.whileJudging = async () => undefined
      if (change === "withdrawal") await study.withdraw(digest, vendor)
      if (change === "expiry") study.clock.wall += 3_600_000
      if (change === "cancel") await study.call(routes.cancelRun, study.as(vendor), { params: { run }, body: {} })
    }
    await assert.rejects(study.call(routes.claimRun, agent, { body: first }), { code: change === "expiry" ? "policy-expired" : "wrong-state" })
    assert.equal(study.store.count("leases"), 0)
  }
})

test("claimRun() refuses a policy that expired since the challenge, and no challenge is given under it", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(study.policy({ expires: "2026-11-22T13:00:00Z" }))
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  const body = study.evidence(await study.challenge(agent), agent)
  study.clock.wall += 3_600_000
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "policy-expired" })
  assert.equal((await study.fetch("POST", "/v1/challenges", agent, JSON.stringify({ purpose: "claim", host: "host-1" }))).status, 204)
})

test("a host works on one run at a time, also when it collected challenges for two", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  const agent = await makeAgent()
  await study.enrol(agent)
  const first = await study.queue(digest)
  const one = study.evidence(await study.challenge(agent), agent)
  await study.call(routes.cancelRun, study.as(clinic), { params: { run: first }, body: {} })
  await study.queue(digest)
  const two = study.evidence(await study.challenge(agent), agent)
  const three = study.evidence(await study.challenge(agent), agent)
  await study.queue(digest)
  await assert.rejects(study.call(routes.claimRun, agent, { body: one }), { code: "wrong-state" })
  await study.call(routes.claimRun, agent, { body: two })
  await assert.rejects(study.call(routes.claimRun, agent, { body: three }), { code: "wrong-state" })
  assert.equal((await study.fetch("POST", "/v1/challenges", agent, JSON.stringify({ purpose: "claim", host: "host-1" }))).status, 204)
})

test("two hosts with challenges for one run: the first gets it, the second is told", async () => {
  const { study, agent } = await ready()
  const foreign = new LaboratoryMachine(authority)
  const second = await makeAgent()
  await study.enrol(second, "host-2", foreign)
  const [a, b] = [study.evidence(await study.challenge(agent), agent), study.evidence(await study.challenge(second, "host-2"), second, foreign)]
  await study.call(routes.claimRun, agent, { body: a })
  await assert.rejects(study.call(routes.claimRun, second, { body: b }), { code: "wrong-state" })
})

test("claimRun() refuses malformed evidence and records it", async () => {
  const { study, agent, run } = await ready()
  const good = study.evidence(await study.challenge(agent), agent)
  const cut = { ...good, bundle: { ...good.bundle, tpm: { ...good.bundle.tpm, eventLog: encodeBase64(machine.eventLog.slice(0, 100)) } } }
  await assert.rejects(study.call(routes.claimRun, agent, { body: cut }), { code: "truncated" })
  const view = await study.call(routes.getRun, study.as(clinic), { params: { run } })
  assert.deepEqual(
    view.refusals.map(({ code }) => code),
    ["truncated"],
  )
})

test("requestChallenge() has nothing without work, for a busy host, and refuses an unknown one", async () => {
  const { study, agent } = await ready()
  await assert.rejects(study.challenge(agent, "host-9"), { code: "not-enrolled" })
  await study.claim(agent)
  const response = await study.fetch("POST", "/v1/challenges", agent, JSON.stringify({ purpose: "claim", host: "host-1" }))
  assert.deepEqual([response.status, response.headers.get("retry-after")], [204, "2"])
})

test("requestChallenge() limits what one TLS key may have open", async () => {
  const { study, agent } = await ready()
  for (let count = 0; count < 16; count++) await study.challenge(agent)
  await assert.rejects(study.challenge(agent), { code: "too-many-requests", status: 429 })
})

test("EnrolmentBook holds so many open enrolments and no more, until they are too old", () => {
  let now = 0
  const book = new EnrolmentBook(() => now)
  const tlsKey = digestOf(random(32))
  const add = (id: number): void => book.add(String(id), tlsKey, {} as never)
  for (let id = 0; id < 1024; id++) add(id)
  assert.throws(() => add(1024), { code: "too-many-requests" })
  now = 120_000
  add(1024)
  assert.throws(() => book.take("0", tlsKey), { code: "not-found" })
})

test("a manager keeps 10,000 hosts", async () => {
  const study = await TestStudy.create(parts)
  await study.enrol(await makeAgent())
  const [record] = study.store.list("hosts")
  assert.ok(record !== undefined && "akPublic" in record)
  study.store.transact(new Date(study.clock.wall), (tx) => {
    for (let index = 1; index < 10_000; index++) {
      const identity = { ...record.identity, endorsementKey: digestOf(encodeUtf8(String(index))) }
      tx.put("hosts", `other-${index}`, { ...record, host: `other-${index}`, identity })
    }
  })
  await assert.rejects(study.enrol(await makeAgent(), "host-2", new LaboratoryMachine(authority)), { code: "limit-exceeded" })
  await study.enrol(await makeAgent())
})

test("a manager with too many open challenges says when to ask again", async () => {
  const { study, agent } = await ready()
  for (let count = 0; count < 16; count++) await study.challenge(agent)
  const response = await study.fetch("POST", "/v1/challenges", agent, JSON.stringify({ purpose: "claim", host: "host-1" }))
  assert.deepEqual([response.status, response.headers.get("retry-after")], [429, "5"])
})

test("an enrolment with the wrong answer is forgotten", async () => {
  const study = await TestStudy.create(parts)
  const agent = await makeAgent()
  const begun = await study.call(routes.beginEnrolment, agent, { body: machine.enrolmentRequest("host-1") })
  const params = { enrolment: begun.enrolment }
  const right = machine.activate(begun)
  await assert.rejects(study.call(routes.answerEnrolment, await makeAgent(), { params, body: { secret: right } }), { code: "not-found" })
  await assert.rejects(study.call(routes.answerEnrolment, agent, { params, body: { secret: encodeBase64(random(32)) } }), { code: "wrong-answer" })
  await assert.rejects(study.call(routes.answerEnrolment, agent, { params, body: { secret: right } }), { code: "not-found" })
  assert.equal(study.store.count("hosts"), 0)
})

test("the refusal of a wrong answer to an enrolment holds nothing of the right one", async () => {
  const study = await TestStudy.create(parts)
  const agent = await makeAgent()
  const begun = await study.call(routes.beginEnrolment, agent, { body: machine.enrolmentRequest("host-1") })
  const right = machine.activate(begun)
  const body = JSON.stringify({ secret: encodeBase64(random(32)) })
  const response = await study.fetch("POST", `/v1/enrolments/${begun.enrolment}/answer`, agent, body)
  const text = await response.text()
  assert.equal(JSON.parse(text).code, "wrong-answer")
  const secret = Buffer.from(right, "base64")
  for (const form of [right, secret.toString("base64url"), secret.toString("hex")]) assert.ok(!text.includes(form), text)
})

test("an enrolment must be answered in time", async () => {
  const study = await TestStudy.create(parts)
  const agent = await makeAgent()
  const begun = await study.call(routes.beginEnrolment, agent, { body: machine.enrolmentRequest("host-1") })
  const secret = machine.activate(begun)
  study.clock.advance(120)
  await assert.rejects(study.call(routes.answerEnrolment, agent, { params: { enrolment: begun.enrolment }, body: { secret } }), { code: "not-found" })
})

test("enrolment: one name, one TPM, for ever; the same machine again changes nothing", async () => {
  const study = await TestStudy.create(parts)
  await study.enrol(await makeAgent())
  const receipts = study.receipts.length
  await study.enrol(await makeAgent())
  assert.deepEqual([study.store.count("hosts"), study.receipts.length], [1, receipts])
  await assert.rejects(study.enrol(await makeAgent(), "host-1", new LaboratoryMachine(authority)), { code: "already-exists", status: 409 })
  await assert.rejects(study.enrol(await makeAgent(), "host-2"), { code: "already-exists" })
  assert.equal(study.store.count("hosts"), 1)
})

test("enrolment refuses a TPM of another authority and a certificate of another key", async () => {
  const study = await TestStudy.create(parts)
  const foreign = new LaboratoryMachine(new LaboratoryAuthority("another"))
  await assert.rejects(study.enrol(await makeAgent(), "host-1", foreign), { code: "wrong-chain" })
  const request = { ...machine.enrolmentRequest("host-1"), ekPublic: foreign.enrolmentRequest("host-1").ekPublic }
  await assert.rejects(study.call(routes.beginEnrolment, await makeAgent(), { body: request }), { code: "wrong-binding" })
})

test("retireHost() is for parties of a policy that lists the machine; neither its name nor its TPM comes back", async () => {
  const { study, agent, run } = await ready()
  await study.claim(agent)
  await assert.rejects(study.call(routes.retireHost, study.as(stranger), { params: { host: "host-1" }, body: {} }), { code: "not-found" })
  const view = await study.call(routes.retireHost, study.as(vendor), { params: { host: "host-1" }, body: {} })
  assert.equal(view.retired, true)
  assert.equal((await study.call(routes.getRun, study.as(clinic), { params: { run } })).state, "ended")
  await assert.rejects(study.challenge(agent), { code: "not-enrolled" })
  await assert.rejects(study.enrol(await makeAgent()), { code: "already-exists" })
  await assert.rejects(study.enrol(await makeAgent(), "host-2"), { code: "already-exists" })
  assert.equal(study.store.count("hosts"), 1)
})

test("retireHost() asks for an active policy, not a proposed, expired or withdrawn one", async () => {
  const study = await TestStudy.create(parts)
  await study.enrol(await makeAgent())
  const retire = async (): Promise<unknown> => study.call(routes.retireHost, study.as(vendor), { params: { host: "host-1" }, body: {} })
  const digest = await study.submit(study.policy({ expires: "2026-11-22T13:00:00Z" }))
  await study.sign(digest, clinic)
  await assert.rejects(retire(), { code: "not-permitted" })
  const withdrawn = await study.agree(study.policy({ study: "other" }))
  await study.withdraw(withdrawn, clinic)
  await assert.rejects(retire(), { code: "not-permitted" })
  for (const party of [vendor, parts.consortium]) await study.sign(digest, party)
  study.clock.advance(3600)
  await assert.rejects(retire(), { code: "not-permitted" })
  assert.equal(study.store.get("hosts", "host-1")?.retired, false)
})

test("claimRun() grants nothing to a host that is retired while it is judged", async () => {
  const { study, agent, run } = await ready()
  const body = study.evidence(await study.challenge(agent), agent)
  study.whileJudging = async () => void (await study.call(routes.retireHost, study.as(vendor), { params: { host: "host-1" }, body: {} }))
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "not-enrolled" })
  assert.deepEqual([study.store.count("leases"), study.store.get("runs", run)?.state], [0, "queued"])
})

test("a flood of claims' challenges from one network stops there, and takes no renewal away", async () => {
  const { study, agent, run } = await ready()
  const { lease } = await study.claim(agent)
  await study.queue(study.store.get("runs", run)?.policy ?? digestOf(random(1)))
  await study.enrol(agent, "host-2", new LaboratoryMachine(authority))
  const flood = async (): Promise<number> => {
    for (let count = 0; ; count++) {
      const tlsKey = digestOf(random(32))
      const response = await study.fetch("POST", "/v1/challenges", { tlsKey }, JSON.stringify({ purpose: "claim", host: "host-2" }))
      if (response.status === 429) return count
      assert.ok(response.status === 200 && count < 1000)
    }
  }
  study.address = "2001:db8::1"
  assert.equal(await flood(), 128)
  study.address = "2001:db8::ffff:2"
  assert.equal(await flood(), 0)
  study.clock.advance(30)
  await study.renew(agent, lease.id)
  study.address = "2001:db8:0:1::1"
  assert.equal((await study.challenge(await makeAgent(), "host-2")).purpose, "claim")
})

test("asking whether there is work is counted before anything is looked up, also for names that nobody enrolled", async () => {
  const study = await TestStudy.create(parts)
  const agent = await makeAgent()
  const ask = async (): Promise<number> => {
    const response = await study.fetch("POST", "/v1/challenges", agent, JSON.stringify({ purpose: "claim", host: "nobody" }))
    return response.status
  }
  for (let count = 0; count < 6000; count++) assert.equal(await ask(), 403)
  assert.equal(await ask(), 429)
  study.address = "192.0.2.2"
  assert.equal(await ask(), 403)
  study.address = "192.0.2.1"
  study.clock.advance(120)
  assert.equal(await ask(), 403)
})

test("a flood of enrolments from one network stops there", async () => {
  const study = await TestStudy.create(parts)
  const begin = async (): Promise<unknown> => study.call(routes.beginEnrolment, await makeAgent(), { body: machine.enrolmentRequest("host-1") })
  for (let count = 0; count < 32; count++) await begin()
  await assert.rejects(begin(), { code: "too-many-requests", status: 429 })
  study.address = "192.0.2.2"
  await study.enrol(await makeAgent())
  study.address = "192.0.2.1"
  study.clock.advance(120)
  await begin()
})

test("a refusal keeps the first finding of each code, 16 in all with short texts, and says how many more there were", async () => {
  const spoiled = await makeParts()
  const study = await TestStudy.create(spoiled)
  const digest = await study.agree()
  const agent = await makeAgent()
  await study.enrol(agent)
  const run = await study.queue(digest)
  for (let count = 0; count < 40; count++) spoiled.machine.measure(`/tmp/${"x".repeat(600)}${count}`, encodeUtf8(String(count)))
  const foreign = new LaboratoryMachine(spoiled.authority, "init=/bin/sh")
  let found = 0
  await assert.rejects(study.claim(agent), (error: { findings: readonly unknown[] }) => (found = error.findings.length) >= 40)
  await study.enrol(agent, "host-2", foreign)
  await assert.rejects(study.claim(agent, "host-2", foreign))
  const view = await study.call(routes.getRun, study.as(spoiled.clinic), { params: { run } })
  const [many, changed] = view.refusals
  assert.deepEqual([many?.findings.length, many?.moreFindings], [16, found - 16])
  assert.ok(many?.findings.every(({ subject }) => subject.length <= 500))
  const codes = changed?.findings.map(({ code }) => code) ?? []
  assert.ok(
    ["boot-event-differs", "endorsement-key-not-listed"].every((code) => codes.includes(code)),
    codes.join(),
  )
  const receipt = study.receipts.find(({ kind }) => kind === "release-refused")
  assert.deepEqual([receipt?.findings?.length, receipt?.moreFindings], [16, found - 16])
})

test("refusals are counted by themselves: neither metrics nor what no TPM signed silences them", async () => {
  const { study, agent, run } = await ready()
  const record = study.store.get("runs", run)
  assert.ok(record)
  const recorded = (): number => study.receipts.filter(({ kind }) => kind === "release-refused").length
  const set = (judged: number, unproven: number, nextEvent = 1): void =>
    study.store.transact(new Date(study.clock.wall), (tx) => tx.put("runs", run, { ...record, nextEvent, recordedRefusals: { judged, unproven } }))
  const foreign = new LaboratoryMachine(authority)
  await study.enrol(agent, "host-2", foreign)
  const judged = async (): Promise<void> => assert.rejects(study.claim(agent, "host-2", foreign), { code: "not-acceptable" })
  const unproven = async (): Promise<void> => {
    const body = { ...study.evidence(await study.challenge(agent), agent), bundle: machine.bundle(random(32)) }
    await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "wrong-nonce" })
  }
  set(0, 50, 10_000)
  await judged()
  await unproven()
  assert.equal(recorded(), 1)
  set(200, 49)
  await judged()
  await unproven()
  assert.equal(recorded(), 2)
})

test("requestChallenge() prefers the run that lists the host to an older one that does not", async () => {
  const study = await TestStudy.create(parts)
  const policy = study.policy()
  const host = hostMachine(policy, "host")
  const foreign = { ...policy, study: "other", machines: { host: { ...host, tpm: { ...host.tpm, endorsementKeys: [digestOf(random(32))] } } } }
  const older = await study.queue(await study.agree(foreign))
  const run = await study.queue(await study.agree(policy))
  const agent = await makeAgent()
  await study.enrol(agent)
  assert.equal((await study.challenge(agent)).run, run)
  const second = await makeAgent()
  await study.enrol(second, "host-2", new LaboratoryMachine(authority))
  assert.equal((await study.challenge(second, "host-2")).run, older)
})

test("a used challenge is remembered for a while and then unknown", async () => {
  const { study, agent } = await ready()
  const body = { ...study.evidence(await study.challenge(agent), agent), bundle: machine.bundle(random(32)) }
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "wrong-nonce" })
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "challenge-used" })
  study.clock.monotonic += 900_001
  await study.challenge(agent)
  await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "challenge-unknown" })
})

test("of two machines that enrol under one name at once the first answer counts", async () => {
  const study = await TestStudy.create(parts)
  const other = new LaboratoryMachine(authority)
  const [a, b] = [await makeAgent(), await makeAgent()]
  const one = await study.call(routes.beginEnrolment, a, { body: machine.enrolmentRequest("host-1") })
  const two = await study.call(routes.beginEnrolment, b, { body: other.enrolmentRequest("host-1") })
  const answer = async (agent: AgentKeys, begun: typeof one, by: LaboratoryMachine): Promise<unknown> => {
    const secret = by.activate(begun)
    return study.call(routes.answerEnrolment, agent, { params: { enrolment: begun.enrolment }, body: { secret } })
  }
  await answer(a, one, machine)
  await assert.rejects(answer(b, two, other), { code: "already-exists" })
  assert.partialDeepStrictEqual(study.store.get("hosts", "host-1")?.identity, { endorsementKey: machine.endorsementKey })
})

test("a machine that enrolled without a TPM does not answer by one, whatever stands behind it", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  const challenge = await study.challenge(agent)
  const host = study.store.get("hosts", "host-1")
  assert.ok(host !== undefined)
  // No route leads here: an enrolment keeps its kind.
  const identity = { tee: "tdx", root: digestOf(random(32)), rootKind: "laboratory", platform: "12".repeat(16), description: "a TD" } as const
  const { host: name, enrolledAt, retired } = host
  study.store.transact(new Date(study.clock.wall), (tx) => tx.put("hosts", "host-1", { host: name, enrolledAt, retired, identity }))
  await assert.rejects(study.call(routes.claimRun, agent, { body: study.evidence(challenge, agent) }), {
    code: "wrong-binding",
    message: /enrolled without a TPM/,
  })
})
