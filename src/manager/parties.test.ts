/** A party that lost its keys: what the others can do for it, and what they cannot. */
import assert from "node:assert/strict"
import { test } from "node:test"
import type { Digest } from "../bytes/digest.ts"
import { signStatement } from "../pki/statement.ts"
import type { Policy } from "../policy/document.ts"
import { voteDigest } from "../protocol/statements.ts"
import { routes } from "../protocol/routes.ts"
import { makeArtifact, makeParts, makeParty, type Party, signManifest, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, stranger, records, trainer } = parts
/** The clinic's new self. */
const heir = await makeParty("heir")
const own = await makeArtifact("records", heir)
const week = 604_800
const recovery = { by: { require: "all", of: ["vendor", "consortium"] }, noticeSeconds: week } as const

function withRecovery(study: TestStudy, change: Partial<Policy> = {}): Policy {
  const policy = study.policy(change)
  return { ...policy, stakeholders: { ...policy.stakeholders, clinic: { keys: [clinic.key], roles: ["data"], recovery } } }
}

/** The successor that gives the clinic other keys, and its artifact a manifest that these signed. */
function recovered(study: TestStudy, supersedes: Digest, change: Partial<Policy> = {}): Policy {
  const policy = withRecovery(study)
  return {
    ...policy,
    stakeholders: { ...policy.stakeholders, clinic: { keys: [heir.key], roles: ["data"], recovery } },
    artifacts: { ...policy.artifacts, records: { kind: "dataset", owner: "clinic", manifest: own.digest } },
    supersedes,
    recovers: ["clinic"],
    ...change,
  }
}

interface Lost {
  readonly study: TestStudy
  readonly first: Digest
  readonly second: Digest
}

/** A study whose clinic lost its keys, and the step that all but those have signed. */
async function proposed(change: Partial<Policy> = {}): Promise<Lost> {
  const study = await TestStudy.create(parts)
  const first = await study.agree(withRecovery(study))
  const second = await study.submit(recovered(study, first, change), vendor)
  for (const party of [vendor, consortium, heir]) await study.sign(second, party)
  return { study, first, second }
}

async function stateOf(study: TestStudy, digest: Digest, by: Party = vendor) {
  const { state, blockers } = await study.call(routes.getPolicy, study.as(by), { params: { digest } })
  return { state, blockers: blockers.map((blocker) => blocker.split(":")[0]) }
}

function pass(study: TestStudy, seconds: number): void {
  study.clock.advance(seconds)
  study.manager.tick()
}

test("the others and the new key replace a lost one, once the former had its time to object, and not before", async () => {
  const { study, first, second } = await proposed()
  const waiting = await stateOf(study, second)
  assert.equal(waiting.state, "proposed")
  assert.ok(waiting.blockers.includes("the party's former keys can still object"), waiting.blockers.join())
  pass(study, week - 1)
  assert.equal((await stateOf(study, second)).state, "proposed")
  pass(study, 1)
  assert.deepEqual([await stateOf(study, second), (await stateOf(study, first)).state], [{ state: "active", blockers: [] }, "superseded"])
  assert.deepEqual(
    study.receipts.slice(-4).map(({ kind, policy, by }) => [kind, policy, by]),
    [
      ["policy-superseded", first, undefined],
      ["identity-replaced", second, "clinic"],
      ["policy-activated", second, undefined],
      ["keys-destroyed", first, undefined],
    ],
  )
  // Its keys of artifacts are its own to give: nothing of what the former self had deposited is there.
  await assert.rejects(study.queue(second), { code: "wrong-state" })
  await study.deposit(second, "records", heir, own)
  await study.deposit(second, "trainer", vendor, trainer)
  await study.queue(second)
})

test("it also happens with a signature that comes after the time", async () => {
  const study = await TestStudy.create(parts)
  const first = await study.agree(withRecovery(study))
  const second = await study.submit(recovered(study, first), vendor)
  for (const party of [vendor, consortium]) await study.sign(second, party)
  pass(study, week)
  assert.equal((await stateOf(study, second)).state, "proposed")
  assert.equal((await study.sign(second, heir)).state, "active")
})

test("a former key sees the proposal and its receipts, objects, and that is the end of it", async () => {
  const { study, first, second } = await proposed()
  const { policies } = await study.call(routes.listPolicies, study.as(clinic))
  assert.deepEqual(policies.map(({ digest }) => digest).toSorted(), [first, second].toSorted())
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  assert.ok(receipts.some(({ receipt }) => receipt?.kind === "policy-submitted" && receipt.policy === second))
  // It sees, and speaks for nobody in it.
  await assert.rejects(study.sign(second, clinic), { code: "not-permitted" })
  await assert.rejects(study.deposit(second, "records", clinic, records), { code: "not-permitted" })
  assert.equal((await study.withdraw(second, clinic)).state, "withdrawn")
  pass(study, week)
  assert.deepEqual([(await stateOf(study, second)).state, (await stateOf(study, first)).state], ["withdrawn", "active"])
  assert.equal(study.store.count("replacements"), 0)
})

test("nobody else objects in a former key's name, or sees what it sees", async () => {
  const { study, second } = await proposed()
  const signature = signStatement("withdraw", second, stranger.privateKey)
  await assert.rejects(study.call(routes.withdrawPolicy, study.as(vendor), { params: { digest: second }, body: { signature } }), {
    code: "not-permitted",
  })
  await assert.rejects(study.call(routes.getPolicy, study.as(stranger), { params: { digest: second } }), { code: "not-permitted" })
})

const refusals: readonly (readonly [string, string, (study: TestStudy) => Promise<Digest>])[] = [
  [
    "a policy in which the party agreed to nothing of the kind",
    "the party has not agreed to having its keys replaced, or has withdrawn",
    async (study) => {
      const first = await study.agree(study.policy())
      const { recovery: _, ...stated } = recovered(study, first).stakeholders["clinic"] ?? { keys: [], roles: [], recovery }
      const stakeholders = { ...study.policy().stakeholders, clinic: stated }
      const second = await study.submit(recovered(study, first, { stakeholders }), vendor)
      for (const party of [vendor, consortium, heir]) await study.sign(second, party)
      return second
    },
  ],
  [
    "a party that had withdrawn",
    "the party has not agreed to having its keys replaced, or has withdrawn",
    async (study) => {
      const first = await study.agree(withRecovery(study))
      await study.withdraw(first, clinic)
      const second = await study.submit(recovered(study, first), vendor)
      for (const party of [vendor, consortium, heir]) await study.sign(second, party)
      return second
    },
  ],
  [
    "a step without one of those whom the party trusted",
    "those whom the party trusted with this have not all signed",
    async (study) => {
      const first = await study.agree(withRecovery(study))
      const second = await study.submit(recovered(study, first), vendor)
      for (const party of [vendor, heir]) await study.sign(second, party)
      return second
    },
  ],
  [
    "a step without the new key's own signature",
    "the party has not signed with its new key",
    async (study) => {
      const first = await study.agree(withRecovery(study))
      const second = await study.submit(recovered(study, first), vendor)
      for (const party of [vendor, consortium]) await study.sign(second, party)
      return second
    },
  ],
  [
    "a step that changes more",
    "a policy that replaces a party's keys must change nothing but these, its recipients and the manifests of its artifacts",
    async (study) => (await proposedIn(study, { purpose: "something else" }))[1],
  ],
  [
    "a step that changes another party's artifact",
    "a policy that replaces a party's keys must change nothing but these, its recipients and the manifests of its artifacts",
    async (study) => {
      const { artifacts } = recovered(study, ("sha256:" + "0".repeat(64)) as Digest)
      return (await proposedIn(study, { artifacts: { ...artifacts, trainer: { kind: "code", owner: "vendor", manifest: records.digest } } }))[1]
    },
  ],
  [
    "a new key that another party of the predecessor has",
    "a party's new key is one that the predecessor states already",
    async (study) => {
      const first = await study.agree(withRecovery(study))
      const policy = recovered(study, first)
      const stakeholders = {
        ...policy.stakeholders,
        clinic: { keys: [vendor.key], roles: ["data"], recovery },
        vendor: { keys: [stranger.key], recipients: [vendor.recipient], roles: ["code"] },
      } as const
      const artifact = await signManifest({ ...own.signed.manifest, owner: vendor.key }, own.identity, vendor.privateKey)
      const artifacts = { ...policy.artifacts, records: { kind: "dataset", owner: "clinic", manifest: artifact.digest } } as const
      const second = await study.submit({ ...policy, stakeholders, artifacts, recovers: ["clinic", "vendor"] }, vendor)
      for (const party of [vendor, consortium, stranger]) await study.sign(second, party)
      return second
    },
  ],
]

async function proposedIn(study: TestStudy, change: Partial<Policy>): Promise<readonly [Digest, Digest]> {
  const first = await study.agree(withRecovery(study))
  const second = await study.submit(recovered(study, first, change), vendor)
  for (const party of [vendor, consortium, heir]) await study.sign(second, party)
  return [first, second]
}

for (const [what, why, propose] of refusals)
  test(`no key is replaced by ${what}`, async () => {
    const study = await TestStudy.create(parts)
    const second = await propose(study)
    pass(study, week)
    const { state, blockers } = await stateOf(study, second)
    assert.equal(state, "proposed")
    assert.ok(blockers.includes(why), blockers.join("; "))
    assert.equal(study.store.count("replacements"), 0)
  })

test("a clock that is set ahead shortens the time to object only as far as it is believed at all", async () => {
  const { study, second } = await proposed()
  study.clock.wall += week * 1000
  study.restart()
  assert.equal((await stateOf(study, second)).state, "proposed")
  study.manager.tick()
  // Without a time source the host's clock is believed; docs/time.md.
  assert.equal((await stateOf(study, second)).state, "active")
})

/** A study whose output waits for the clinic's vote while its keys are replaced. */
async function replaced(): Promise<Lost & { readonly output: string; readonly run: string }> {
  const study = await TestStudy.create(parts)
  const { digest: first, run, agent } = await study.running(withRecovery(study))
  const output = await study.makeOutput(agent, run)
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  const second = await study.submit(recovered(study, first), vendor)
  for (const party of [vendor, consortium, heir]) await study.sign(second, party)
  pass(study, week)
  assert.equal((await stateOf(study, second)).state, "active")
  return { study, first, second, output, run }
}

test("a key that was replaced votes no more, nor does the new one for what was made before", async () => {
  const { study, output } = await replaced()
  const { outputs } = await study.call(routes.listOutputs, study.as(heir))
  const view = outputs.find((one) => one.output === output)
  assert.ok(view)
  for (const { privateKey } of [clinic, heir]) {
    const body = { signature: signStatement("vote", voteDigest(view), privateKey) }
    await assert.rejects(study.call(routes.voteOutput, study.as(consortium), { params: { output }, body }), { code: "not-permitted" })
  }
})

test("the new key sees its study's older policies, runs and receipts, and withdraws from them: what came of them is locked", async () => {
  const { study, first, output, run } = await replaced()
  assert.equal((await stateOf(study, first, heir)).state, "superseded")
  assert.equal((await study.call(routes.getRun, study.as(heir), { params: { run } })).run, run)
  const { receipts } = await study.call(routes.listReceipts, study.as(heir))
  assert.ok(receipts.some(({ receipt }) => receipt?.run === run))
  await study.withdraw(first, heir)
  assert.equal(study.receipts.findLast(({ kind }) => kind === "policy-withdrawn")?.by, "clinic")
  const { outputs } = await study.call(routes.listOutputs, study.as(consortium))
  assert.equal(outputs.find((one) => one.output === output)?.state, "locked")
})

test("once it was replaced a lost key sees and ends nothing of what came after, nor proposes or retires there", async () => {
  const { study, first, second } = await replaced()
  await assert.rejects(study.withdraw(second, clinic), { code: "not-permitted" })
  await assert.rejects(study.call(routes.getPolicy, study.as(clinic), { params: { digest: second } }), { code: "not-permitted" })
  const { policies } = await study.call(routes.listPolicies, study.as(clinic))
  assert.deepEqual(
    policies.map(({ digest }) => digest),
    [first],
  )
  study.members.delete(clinic.key)
  const coup = study.policy({ supersedes: second, purpose: "mine" })
  await assert.rejects(study.submit(coup, clinic), { code: "not-permitted" })
  await assert.rejects(study.call(routes.retireHost, study.as(clinic), { params: { host: "host-1" }, body: {} }))
  assert.equal((await stateOf(study, second)).state, "active")
})

test("a former key still takes back what it once agreed to: a party that was replaced against its will keeps that", async () => {
  const { study, first, output } = await replaced()
  await study.withdraw(first, clinic)
  const { outputs } = await study.call(routes.listOutputs, study.as(consortium))
  assert.equal(outputs.find((one) => one.output === output)?.state, "locked")
})

/** The first study's model, as an input of another policy. */
async function modelPolicy(study: TestStudy, output: string, name: string, party: Party): Promise<Digest> {
  const policy = study.policy({ study: name })
  const { train } = policy.jobs
  const model = study.store.get("outputs", output)?.ciphertext
  assert.ok(train !== undefined && model !== undefined)
  const digest = await study.submit(
    {
      ...policy,
      stakeholders: { ...policy.stakeholders, clinic: { keys: [party.key], roles: ["data", "model"] } },
      artifacts: { model: { kind: "model", owner: "clinic", manifest: model }, trainer: { kind: "code", owner: "vendor", manifest: trainer.digest } },
      jobs: { train: { ...train, inputs: { model: "/opt/ml/input/model", trainer: "/opt/ml/code" } } },
    },
    vendor,
  )
  for (const signer of [party, vendor, consortium]) await study.sign(digest, signer)
  return digest
}

test("for what came of its study's older policies the new key counts, in other studies too", async () => {
  const { study, output, run } = await replaced()
  const policy = await modelPolicy(study, output, "other", heir)
  const manifest = study.store.get("outputs", output)?.manifest
  const identity = study.store.get("runKeys", run)?.identity ?? ""
  assert.ok(manifest)
  const made = await signManifest(
    { ...(manifest["manifest"] as unknown as typeof own.signed.manifest), owner: clinic.key },
    identity,
    clinic.privateKey,
  )
  // Consent is judged first, and is there; the manifest is the former self's.
  await assert.rejects(study.deposit(policy, "model", heir, made), { code: "wrong-manifest" })
})

test("where a key was replaced in one study, it counts for nothing that came of another", async () => {
  const { study, output } = await replaced()
  const model = study.store.get("outputs", output)?.ciphertext
  assert.ok(model)
  // The same model, as if it had come of a policy of another study that names the former key, too.
  const elsewhere = await study.submit(study.policy({ study: "elsewhere" }))
  study.store.transact(new Date(study.clock.wall), (tx) => {
    const made = tx.get("derivations", model)
    assert.ok(made)
    tx.put("derivations", model, { ...made, policies: [...made.policies, elsewhere] })
  })
  await assert.rejects(modelPolicy(study, output, "other", heir), {
    code: "invalid-policy",
    message: /derived from what clinic owns, who is no stakeholder/,
  })
})

test("a party is recovered twice, and the latest key counts for all that came before", async () => {
  const { study, first, second } = await replaced()
  const again = await makeParty("again")
  const third = recovered(study, second)
  const artifact = await makeArtifact("records", again)
  const policy = {
    ...third,
    stakeholders: { ...third.stakeholders, clinic: { keys: [again.key], roles: ["data"], recovery } },
    artifacts: { ...third.artifacts, records: { kind: "dataset", owner: "clinic", manifest: artifact.digest } },
  } as const
  const digest = await study.submit(policy, vendor)
  for (const party of [vendor, consortium, again]) await study.sign(digest, party)
  pass(study, week)
  assert.equal((await stateOf(study, digest)).state, "active")
  assert.equal((await stateOf(study, first, again)).state, "superseded")
  await study.withdraw(first, again)
  assert.equal(study.receipts.findLast(({ kind }) => kind === "policy-withdrawn")?.by, "clinic")
})
