import assert from "node:assert/strict"
import { createPublicKey } from "node:crypto"
import { test } from "node:test"
import { encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { type AttestationResult, verifyAttestationResult } from "../protocol/attestation-result.ts"
import { routes } from "../protocol/routes.ts"
import { LaboratoryMachine } from "./machine.testing.ts"
import { makeAgent, makeParts, type Party, random, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, consortium, stranger, vendor } = parts
const nonce = "bm9uY2Utb2YtdGhlLXJlYWRlcg"
const audience = "https://relying-party.example"

async function ask(study: TestStudy, run: string, party: Party = clinic): Promise<string> {
  const query = `?nonce=${nonce}&audience=${encodeURIComponent(audience)}`
  return (await study.call(routes.getAttestationResult, study.as(party), { params: { run }, query })).result
}

async function resultOf(study: TestStudy, run: string): Promise<AttestationResult> {
  const token = await ask(study, run)
  const policy = study.store.get("runs", run)?.policy
  assert.ok(policy !== undefined)
  const spki = Buffer.from(parseBase64(study.manager.description.resultKey))
  const key = createPublicKey({ key: spki, format: "der", type: "spki" })
  return verifyAttestationResult(token, { key, nonce, audience, policy, time: study.clock.wall })
}

test("GET attestation-result gives every party of the policy the appraisal that the keys were released on", async () => {
  const study = await TestStudy.create(parts)
  const { run, digest } = await study.running()
  study.clock.advance(10)
  const result = await resultOf(study, run)
  const { instance } = study.manager.description
  assert.deepEqual([result.run, result.job, result.policy, result.manager], [run, "train", digest, instance])
  assert.equal(result.evidence, study.store.get("runs", run)?.evidence)
  assert.deepEqual(
    [result.issuedAt, result.expiresAt, result.appraisedAt].map((at) => at - study.clock.wall / 1000),
    [0, 50, -10],
  )
  // A laboratory's TPM and an administered host: nothing better than a warning, and each claim says why.
  assert.deepEqual([result.status, result.laboratory], ["warning", true])
  assert.deepEqual(result.submodules, {
    tpm: {
      status: "warning",
      vector: { "instance-identity": 0, configuration: 36, executables: 2, "file-system": 0, hardware: 32 },
      findings: ["insecure-laboratory", "boot-quirk-accepted"],
      laboratory: true,
    },
  })
  for (const party of [vendor, consortium]) assert.match(await ask(study, run, party), /^eyJ/)
  await assert.rejects(ask(study, run, stranger), { code: "not-found" })
})

test("GET attestation-result wants a nonce and an audience of their forms", async () => {
  const study = await TestStudy.create(parts)
  const { run } = await study.running()
  for (const query of [
    "",
    `?nonce=${nonce}`,
    `?audience=a`,
    `?nonce=1234567&audience=a`,
    `?nonce=${"a".repeat(89)}&audience=a`,
    `?nonce=a%20b45678&audience=a`,
    `?nonce=${nonce}&audience=`,
    `?nonce=${nonce}&audience=a%20b`,
    `?nonce=${nonce}&audience=a&more=1`,
  ])
    assert.equal((await study.fetch("GET", `/v1/runs/${run}/attestation-result${query}`, study.as(clinic))).status, 400, query)
})

test("a result ends with the machine's lease, and is of its last renewal", async () => {
  const study = await TestStudy.create(parts)
  const { run, agent, grant } = await study.running()
  study.clock.advance(50)
  await study.renew(agent, grant.lease.id)
  const renewed = await resultOf(study, run)
  assert.deepEqual([renewed.expiresAt, renewed.appraisedAt], [study.clock.wall / 1000 + 60, study.clock.wall / 1000])
  assert.notEqual(renewed.evidence, study.store.get("runs", run)?.evidence)
  // Seconds are cut off, so that no result outlives the lease by a part of one.
  study.clock.advance(59.5)
  assert.deepEqual((await resultOf(study, run)).expiresAt, renewed.expiresAt)
  study.clock.advance(0.5)
  await assert.rejects(ask(study, run), { code: "lease-ended" })
})

test("a result is no longer given once consent is withdrawn or the run is over", async () => {
  const study = await TestStudy.create(parts)
  const { run, agent } = await study.running()
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  await assert.rejects(ask(study, run), { code: "lease-ended" })
  const other = await TestStudy.create(parts)
  const started = await other.running()
  await other.withdraw(started.digest, clinic)
  await assert.rejects(ask(other, started.run), { code: "lease-ended" })
})

test("no result before a machine was appraised", async () => {
  const study = await TestStudy.create(parts)
  const run = await study.queue(await study.agree())
  await assert.rejects(ask(study, run), { code: "not-found" })
})

test("a refusal is a result: contraindicated, with its codes, for a while", async () => {
  const own = await makeParts()
  const study = await TestStudy.create(own)
  const digest = await study.agree()
  const agent = await makeAgent()
  await study.enrol(agent)
  const run = await study.queue(digest)
  own.machine.measure("/tmp/tool", encodeUtf8("unknown"))
  await assert.rejects(study.claim(agent), { code: "not-acceptable" })
  const query = `?nonce=${nonce}&audience=${encodeURIComponent(audience)}`
  const { result: token } = await study.call(routes.getAttestationResult, study.as(own.clinic), { params: { run }, query })
  const key = createPublicKey({ key: Buffer.from(parseBase64(study.manager.description.resultKey)), format: "der", type: "spki" })
  const result = await verifyAttestationResult(token, { key, nonce, audience, policy: digest, time: study.clock.wall })
  assert.deepEqual(
    [result.status, result.submodules["tpm"]?.vector.executables, result.submodules["tpm"]?.vector.hardware],
    ["contraindicated", 96, 32],
  )
  assert.equal(result.submodules["tpm"]?.findings[0], "ima-unknown-file")
  assert.equal(result.expiresAt - result.issuedAt, 300)
})

test("a refused renewal takes the place of what was affirmed, and ends the lease", async () => {
  const own = await makeParts()
  const study = await TestStudy.create(own)
  const { agent, grant, run } = await study.running()
  own.machine.measure("/tmp/tool", encodeUtf8("unknown"))
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "not-acceptable" })
  assert.equal(study.store.get("appraisals", run)?.submodules["tpm"]?.status, "contraindicated")
  assert.match(await ask(study, run, own.clinic), /^eyJ/)
})

test("recordAppraisal() reads every finding, however many come before the one that matters", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  const agent = await makeAgent()
  const machine = new LaboratoryMachine(parts.authority)
  // Not the machine that the policy lists, with more unknown files than travel.
  for (let count = 0; count < 150; count++) machine.measure(`/tmp/tool-${count}`, random(8))
  await study.enrol(agent, "host-2", machine)
  const run = await study.queue(digest)
  await assert.rejects(study.claim(agent, "host-2", machine), { code: "not-acceptable" })
  const { vector, findings } = study.store.get("appraisals", run)?.submodules["tpm"] ?? assert.fail("no record")
  assert.deepEqual([vector["instance-identity"], vector.executables], [97, 96])
  assert.ok(findings.includes("endorsement-key-not-listed") && findings.includes("ima-unknown-file"))
})

test("evidence that is not genuine is said to have failed validation, but does not take the place of what a machine proved", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  const agent = await makeAgent()
  await study.enrol(agent)
  const run = await study.queue(digest)
  const forged = async (): Promise<void> => {
    const challenge = await study.challenge(agent)
    const body = { ...study.evidence(challenge, agent), bundle: parts.machine.bundle(random(32)) }
    await assert.rejects(study.call(routes.claimRun, agent, { body }), { code: "wrong-nonce" })
  }
  await forged()
  const failed = await resultOf(study, run)
  assert.deepEqual([failed.status, failed.submodules["tpm"]?.findings], ["contraindicated", ["wrong-nonce"]])
  assert.deepEqual(new Set(Object.values(failed.submodules["tpm"]?.vector ?? {})), new Set([99]))
  const machine = new LaboratoryMachine(parts.authority)
  await study.enrol(agent, "host-2", machine)
  await assert.rejects(study.claim(agent, "host-2", machine), { code: "not-acceptable" })
  await forged()
  assert.deepEqual((await resultOf(study, run)).submodules["tpm"]?.findings[0], "endorsement-key-not-listed")
})

test("of a run that has its machine only that machine's evidence is told", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  const [agent, slow] = [await makeAgent(), await makeAgent()]
  await study.enrol(agent)
  const machine = new LaboratoryMachine(parts.authority)
  await study.enrol(slow, "host-2", machine)
  const run = await study.queue(digest)
  const challenge = await study.challenge(slow, "host-2")
  // The first machine gets the run while the second, which is not listed, is still judged.
  study.whileJudging = async () => {
    study.whileJudging = async () => undefined
    await study.claim(agent)
  }
  await assert.rejects(study.call(routes.claimRun, slow, { body: study.evidence(challenge, slow, machine) }), { code: "not-acceptable" })
  assert.equal((await resultOf(study, run)).status, "warning")
})
