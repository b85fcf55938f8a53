import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf, type Digest } from "../bytes/digest.ts"
import type { Policy } from "../policy/document.ts"
import { fetchReceipts } from "../protocol/follow-log.ts"
import { routes } from "../protocol/routes.ts"
import { LaboratoryMachine } from "./machine.testing.ts"
import { makeAgent, makeParts, makeParty, type Party, random, TestStudy } from "./study.testing.ts"
import { hostMachine } from "../policy/fixtures.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, stranger, machine } = parts

/** A study whose only member is the clinic. */
async function newStudy(): Promise<TestStudy> {
  const study = await TestStudy.create(parts)
  study.members.clear()
  study.members.add(clinic.key)
  return study
}

/** A policy of one party alone, on a machine of its own, which that party's signature makes active. */
function lonely(study: TestStudy, party: Party, change: Partial<Policy> = {}): Policy {
  const policy = study.policy({ study: "lonely", ...change })
  const job = policy.jobs["train"]
  const host = hostMachine(policy, "host")
  const model = job?.outputs["model"]
  assert.ok(job && model)
  const { waive: _, ...terms } = model
  const outputs = { model: { ...terms, to: ["alone"], release: { require: "all" } as const } }
  return {
    ...policy,
    stakeholders: { alone: { keys: [party.key], recipients: [party.recipient], roles: ["data", "code", "consumer"] } },
    artifacts: Object.fromEntries(Object.entries(policy.artifacts).map(([name, artifact]) => [name, { ...artifact, owner: "alone" }])),
    machines: { host: { ...host, tpm: { ...host.tpm, endorsementKeys: [digestOf(random(32))] } } },
    jobs: { train: { ...job, outputs, metrics: "none" } },
  }
}

test("a stranger who proposes a policy that names only himself is refused and leaves nothing behind", async () => {
  const study = await newStudy()
  await assert.rejects(study.submit(lonely(study, stranger), stranger), { code: "not-permitted", status: 403 })
  assert.deepEqual([study.store.count("policies"), study.store.count("references"), study.receipts.length], [0, 0, 0])
  study.members.add(stranger.key)
  await study.submit(lonely(study, stranger), stranger)
})

test("whom a member's policy names may see, sign and deposit there, and propose nothing else", async () => {
  const study = await newStudy()
  const digest = await study.submit(study.policy())
  await study.sign(digest, vendor)
  await study.deposit(digest, "trainer", vendor, parts.trainer)
  assert.equal((await study.call(routes.listPolicies, study.as(vendor))).policies.length, 1)
  await assert.rejects(study.submit(study.policy({ study: "other" }), vendor), { code: "not-permitted" })
  // A successor of what is merely proposed could never take a place.
  await assert.rejects(study.submit(study.policy({ supersedes: digest, purpose: "next" }), vendor), { code: "not-permitted" })
  assert.equal(await study.submit(study.policy(), vendor), digest)
})

test("a party of a study's active policy may propose its successor, and of no other study", async () => {
  const study = await newStudy()
  const digest = await study.agree()
  study.members.clear()
  await assert.rejects(study.submit(study.policy({ supersedes: digest, study: "other" }), vendor), { code: "not-permitted" })
  await assert.rejects(study.submit(study.policy({ purpose: "no successor" }), vendor), { code: "not-permitted" })
  const next = await study.submit(study.policy({ supersedes: digest, purpose: "next" }), vendor)
  for (const party of [clinic, vendor, consortium]) await study.sign(next, party)
  await assert.rejects(study.submit(study.policy({ supersedes: digest, purpose: "too late" }), vendor), { code: "not-permitted" })
})

test("who is named in no policy cannot succeed it, even with its digest", async () => {
  const study = await newStudy()
  const digest = await study.agree()
  const policy = lonely(study, stranger, { study: "study", supersedes: digest })
  await assert.rejects(study.submit(policy, stranger), { code: "not-permitted" })
})

test("a key that is no member any more keeps its part in its policies, and proposes no new one", async () => {
  const study = await newStudy()
  const digest = await study.submit(study.policy())
  study.members.clear()
  await study.sign(digest, clinic)
  await assert.rejects(study.submit(study.policy({ study: "other" })), { code: "not-permitted" })
})

test("a proposal does not take its study's place, only activation does", async () => {
  const study = await newStudy()
  study.members.add(stranger.key)
  const squatter = await study.submit(lonely(study, stranger, { study: "study" }), stranger)
  const digest = await study.agree()
  assert.equal((await study.call(routes.getPolicy, study.as(clinic), { params: { digest } })).state, "active")
  const late = await study.sign(squatter, stranger)
  assert.equal(late.state, "proposed")
  assert.ok(late.blockers.some((text) => text.includes("does not supersede")))
})

test("each key may have 32 proposals waiting; withdrawn and expired ones make room, another key has its own", async () => {
  const study = await newStudy()
  study.members.add(vendor.key)
  const propose = async (index: number, by = clinic, expires = "2027-06-01T00:00:00Z"): Promise<Digest> =>
    study.submit(study.policy({ study: `study-${index}`, expires }), by)
  const first = await propose(0)
  await propose(1, clinic, "2026-11-22T13:00:00Z")
  for (let index = 2; index < 32; index++) await propose(index)
  await assert.rejects(propose(32), { code: "limit-exceeded", status: 403 })
  assert.equal(await propose(0), first)
  await propose(32, vendor)
  await study.withdraw(first, clinic)
  await propose(33)
  await assert.rejects(propose(34), { code: "limit-exceeded" })
  study.clock.advance(3600)
  await propose(34)
  await assert.rejects(propose(35), { code: "limit-exceeded" })
})

test("each key may propose 250 policies and 128 MiB of them in all, whatever became of them", async () => {
  const study = await newStudy()
  const digest = await study.agree()
  const record = study.store.get("policies", digest)
  assert.ok(record && record.storedBytes > 1000 && record.storedBytes < 1_000_000)
  assert.equal(record.submitterKey, clinic.key)
  const at = new Date(study.clock.wall)
  const { storedBytes } = record
  const set = (bytes: number): void => study.store.transact(at, (tx) => tx.put("policies", digest, { ...record, storedBytes: bytes }))
  const again = await study.submit(study.policy({ purpose: "x" }))
  // The references are there already: only what a proposal adds counts.
  const added = study.store.get("policies", again)?.storedBytes ?? 0
  assert.ok(added > 0 && added < storedBytes)
  set(134_217_728 - 2 * added)
  await study.submit(study.policy({ purpose: "y" }))
  await assert.rejects(study.submit(study.policy({ purpose: "z" })), { code: "limit-exceeded" })
  set(0)
  study.store.transact(at, (tx) => {
    for (let index = 0; index < 246; index++) {
      const policy = study.policy({ purpose: String(index) })
      const other = digestOf(random(32))
      tx.put("policies", other, { ...record, digest: other, study: String(index), document: { ...policy } as never, state: "superseded" })
    }
  })
  await study.submit(study.policy({ purpose: "the last" }))
  await assert.rejects(study.submit(study.policy({ purpose: "one more" })), { code: "limit-exceeded" })
})

test("all keys together may propose 320 MiB, or the manager would not find the memory to start again", async () => {
  const study = await newStudy()
  study.members.add(vendor.key).add(consortium.key)
  for (const [index, party] of [clinic, vendor, consortium].entries()) {
    const digest = await study.submit(study.policy({ study: `full-${index}` }), party)
    const record = study.store.get("policies", digest)
    assert.ok(record)
    const storedBytes = index === 2 ? 335_544_320 - 2 * 120_000_000 - 100 : 120_000_000
    study.store.transact(new Date(study.clock.wall), (tx) => tx.put("policies", digest, { ...record, storedBytes }))
  }
  for (const party of [clinic, consortium]) await assert.rejects(study.submit(study.policy({ study: "more" }), party), { code: "limit-exceeded" })
})

test("hosts: parties see those that their policies list, members besides those that no policy lists", async () => {
  const study = await newStudy()
  const free = new LaboratoryMachine(parts.authority)
  const foreign = new LaboratoryMachine(parts.authority)
  await study.enrol(await makeAgent(), "listed")
  await study.enrol(await makeAgent(), "free", free)
  await study.enrol(await makeAgent(), "foreign", foreign)
  const names = async (party: Party): Promise<string[]> =>
    (await study.call(routes.listHosts, study.as(party))).hosts.map(({ host }) => host).toSorted()
  assert.deepEqual(await names(clinic), ["foreign", "free", "listed"])
  await assert.rejects(names(vendor), { code: "not-permitted" })
  await study.submit(study.policy())
  const policy = study.policy({ study: "foreign" })
  const host = hostMachine(policy, "host")
  const member = await makeParty("member")
  study.members.add(member.key)
  const stakeholders = { ...policy.stakeholders, clinic: { keys: [member.key], roles: ["data"] } } as const
  const machines = { host: { ...host, tpm: { ...host.tpm, endorsementKeys: [foreign.endorsementKey] } } }
  await study.submit({ ...policy, stakeholders, machines }, member)
  assert.deepEqual(await names(clinic), ["free", "listed"])
  assert.deepEqual(await names(member), ["foreign", "free"])
  assert.deepEqual(await names(vendor), ["foreign", "listed"])
  study.members.clear()
  assert.deepEqual(await names(clinic), ["listed"])
})

test("receipts: each sees what concerns it, and the whole list verifies across what it does not see", async () => {
  const study = await newStudy()
  const { digest, agent, run } = await study.running()
  const member = await makeParty("member")
  study.members.add(member.key)
  const alone = await study.submit(lonely(study, member), member)
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  await study.enrol(await makeAgent(), "free", new LaboratoryMachine(parts.authority))
  await study.call(routes.retireHost, study.as(vendor), { params: { host: "host-1" }, body: {} })
  const list = async (party: Party): Promise<readonly { readonly kind: string; readonly policy?: string | undefined }[]> => {
    const { receipts } = await fetchReceipts(study.connectionOf(party))
    assert.equal(receipts.length, study.store.logHead.size)
    for (const { receipt, ...rest } of receipts) if (receipt === undefined) assert.deepEqual(Object.keys(rest), ["digest"])
    return receipts.flatMap(({ receipt }) => receipt ?? [])
  }
  const all = study.receipts.length
  const own = await list(consortium)
  assert.ok(own.every(({ policy }) => policy === undefined || policy === digest))
  assert.deepEqual(
    own.filter(({ policy }) => policy === undefined).map(({ kind }) => kind),
    ["host-enrolled", "host-retired"],
  )
  // All but the lonely policy's and the free host's; the clinic is a member, and sees that host too.
  assert.deepEqual([own.length, (await list(clinic)).length], [all - 2, all - 1])
  const others = await list(member)
  assert.deepEqual(
    others.map(({ kind, policy }) => [kind, policy]),
    [
      ["policy-submitted", alone],
      ["host-enrolled", undefined],
    ],
  )
  await assert.rejects(list(stranger), { code: "not-permitted" })
})

test("two receipts that say the same have different digests, so that none can be guessed from its leaf", async () => {
  const study = await newStudy()
  const digest = await study.agree()
  for (const party of [vendor, vendor]) {
    const run = await study.queue(digest, party)
    await study.call(routes.cancelRun, study.as(party), { params: { run }, body: {} })
  }
  const salts = study.receipts.map(({ salt }) => salt)
  assert.equal(new Set(salts).size, salts.length)
})

test("a machine's TPM that is enrolled is named to nobody who only has its certificate", async () => {
  const study = await newStudy()
  await study.enrol(await makeAgent(), "secret-name")
  const begun = study.call(routes.beginEnrolment, await makeAgent(), { body: machine.enrolmentRequest("host-2") })
  await assert.rejects(begun, (error: Error & { code: string }) => error.code === "already-exists" && !error.message.includes("secret-name"))
})
