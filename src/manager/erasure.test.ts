import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../bytes/compare.ts"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { encodeUtf8, encodeBase64, parseBase64 } from "../bytes/text.ts"
import type { Policy } from "../policy/document.ts"
import { secretCommitment } from "../policy/secrets.ts"
import { sealMessage } from "../protocol/hpke.ts"
import { type RunEvent, runEventSchema } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { parseMessage, parseShape } from "../protocol/wire.ts"
import { encodeAgeHeader, generateFileKey } from "../sealing/header.ts"
import { generateAgeIdentity, recipientOf } from "../sealing/keys.ts"
import { type SignedManifest, signedManifestSchema } from "../sealing/manifest.ts"
import { makeParts, type Party, random, signManifest, type TestArtifact, TestStudy } from "./study.testing.ts"
import { LaboratoryTimeSource } from "./time-authority.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, records, trainer } = parts
const end = "2027-06-01T00:00:00Z"

/** A study whose run reported numbers and an output, which waits for its vote. */
async function finished(): Promise<{ study: TestStudy; digest: Digest; run: string; output: string }> {
  const study = await TestStudy.create(parts)
  const { digest, run, agent } = await study.running()
  for (const epoch of [1, 2]) await study.call(routes.reportMetrics, agent, { params: { run }, body: { values: { epoch, loss: 0.5 } } })
  const output = await study.makeOutput(agent, run)
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  return { study, digest, run, output }
}

function destroyed(study: TestStudy): readonly unknown[] {
  return study.receipts.flatMap(({ kind, policy, code, artifacts, secrets, runKeys }) =>
    kind === "keys-destroyed" ? [[policy, code, artifacts, secrets, runKeys]] : [],
  )
}

function counts({ store }: TestStudy): readonly number[] {
  return (["deposits", "secrets", "runKeys", "discards"] as const).map((table) => store.count(table))
}

async function eventsOf(study: TestStudy, run: string, party: Party): Promise<readonly RunEvent[]> {
  const text = await (await study.fetch("GET", `/v1/runs/${run}/events`, study.as(party))).text()
  return [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => parseMessage(runEventSchema, data ?? ""))
}

function manifestOf(study: TestStudy, output: string): SignedManifest {
  return parseShape(signedManifestSchema, study.store.get("outputs", output)?.manifest, "manifest")
}

async function blobsOf(study: TestStudy, output: string): Promise<readonly (number | undefined)[]> {
  const { manifest } = manifestOf(study, output)
  return Promise.all([manifest.index, ...manifest.shards].map(async ({ digest }) => study.blobs.size(digest)))
}

function release(study: TestStudy, output: string): Promise<unknown> {
  return study.call(routes.getOutputPackage, study.as(consortium), { params: { output } })
}

test("a withdrawal destroys every key of its policy, the numbers and the ciphertext, says what, and says it once", async () => {
  const { study, digest, run, output } = await finished()
  const kinds = (await eventsOf(study, run, vendor)).map(({ kind }) => kind)
  assert.equal(kinds.filter((kind) => kind === "metrics").length, 2)
  assert.ok(((await blobsOf(study, output))[0] ?? 0) > 100)
  const { erasedAt } = await study.withdraw(digest, clinic)
  assert.equal(erasedAt, study.receipts.at(-1)?.at)
  assert.deepEqual(counts(study), [0, 0, 0, 3])
  assert.deepEqual(destroyed(study), [[digest, "policy-withdrawn", ["records", "trainer"], undefined, 1]])
  assert.deepEqual(
    (await eventsOf(study, run, vendor)).map(({ kind }) => kind),
    kinds.filter((kind) => kind !== "metrics"),
  )
  study.restart()
  study.manager.tick()
  assert.deepEqual([counts(study), await blobsOf(study, output)], [[0, 0, 0, 0], [undefined]])
  await study.withdraw(digest, vendor)
  study.clock.wall = Date.parse(end)
  study.manager.tick()
  assert.equal(destroyed(study).length, 1)
  await assert.rejects(release(study, output), { code: "policy-withdrawn" })
})

test("a withdrawal from a proposal that nobody else had joined destroys what was deposited for it", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(study.policy())
  await study.sign(digest, clinic)
  await study.deposit(digest, "records", clinic, records)
  await study.withdraw(digest, clinic)
  assert.deepEqual(destroyed(study), [[digest, "policy-withdrawn", ["records"], undefined, 0]])
})

test("a successor's start destroys the predecessor's keys of inputs; what was made under it can leave until its own end", async () => {
  const { study, digest, output } = await finished()
  const second = await study.submit(study.policy({ supersedes: digest, purpose: "second", expires: "2028-01-01T00:00:00Z" }))
  await study.sign(second, clinic)
  await study.deposit(second, "records", clinic, records)
  for (const party of [vendor, consortium]) await study.sign(second, party)
  assert.deepEqual(destroyed(study), [[digest, "policy-superseded", ["records", "trainer"], undefined, undefined]])
  assert.deepEqual(
    study.store.list("deposits").map((deposit) => [deposit.policy, deposit.artifact]),
    [[second, "records"]],
  )
  await study.vote(output, clinic)
  await release(study, output)
  study.clock.wall = Date.parse(end)
  await assert.rejects(release(study, output), { code: "policy-expired" })
  study.manager.tick()
  assert.deepEqual(destroyed(study).at(-1), [digest, "policy-expired", [], undefined, 1])
  assert.equal(study.store.count("runKeys"), 0)
  assert.equal((await study.call(routes.getPolicy, study.as(clinic), { params: { digest: second } })).erasedAt, undefined)
})

test("a policy's end ends its runs and destroys its keys, once, also after a start", async () => {
  const study = await TestStudy.create(parts)
  const { digest, run } = await study.running()
  study.clock.wall = Date.parse(end) - 1
  study.manager.tick()
  assert.deepEqual([counts(study), destroyed(study)], [[2, 0, 1, 0], []])
  study.clock.wall += 1
  study.restart()
  study.manager.tick()
  assert.equal(study.store.get("runs", run)?.state, "ended")
  study.restart()
  study.manager.tick()
  assert.deepEqual(destroyed(study), [[digest, "policy-expired", ["records", "trainer"], undefined, 1]])
  assert.deepEqual(
    study.receipts.slice(-2).map(({ kind }) => kind),
    ["lease-ended", "keys-destroyed"],
  )
})

test("a proposal that nobody deposited for ends without a receipt", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(study.policy())
  study.clock.wall = Date.parse(end)
  study.manager.tick()
  assert.deepEqual(destroyed(study), [])
  assert.ok(study.store.get("policies", digest)?.erasedAt !== undefined)
})

test("nothing is destroyed by a clock that is in doubt", async () => {
  const study = await TestStudy.create(parts)
  const start = study.clock.wall
  study.timeSource = new LaboratoryTimeSource(() => start + study.clock.monotonic)
  study.restart()
  await study.manager.checkTime()
  await study.running()
  study.clock.wall = Date.parse(end)
  study.manager.tick()
  assert.deepEqual([counts(study), destroyed(study)], [[2, 0, 1, 0], []])
})

test("a disk that is full while a policy ends: the keys are destroyed with the next tick", async () => {
  const { study, digest } = await finished()
  study.clock.wall = Date.parse(end)
  study.journal.failNext = "before"
  assert.throws(() => study.manager.tick())
  assert.deepEqual([counts(study), destroyed(study)], [[2, 0, 1, 0], []])
  study.manager.tick()
  assert.deepEqual(destroyed(study), [[digest, "policy-expired", ["records", "trainer"], undefined, 1]])
})

/** Real ciphertext, uploaded by its owner. */
async function uploaded(study: TestStudy, owner: Party, listing: readonly Digest[] = []): Promise<TestArtifact> {
  const identity = await generateAgeIdentity("x25519")
  const recipient = await recipientOf(identity)
  const blob = new Uint8Array(concatBytes(await encodeAgeHeader(generateFileKey(), [recipient]), random(50)))
  const digest = digestOf(blob)
  const made = await signManifest(
    {
      perun: 1,
      kind: "dataset",
      owner: owner.key,
      name: "x",
      recipient,
      shards: listing.map((one) => ({ digest: one, sizeBytes: blob.length })),
      index: { digest, sizeBytes: blob.length, saltedDigest: digest },
      files: { count: 0, bytes: 0 },
    },
    identity,
    owner.privateKey,
  )
  await put(study, owner, blob)
  return made
}

async function put(study: TestStudy, owner: Party, blob: Uint8Array<ArrayBuffer>): Promise<void> {
  const response = await study.fetch("PUT", `/v1/blobs/${digestOf(blob)}`, study.as(owner), blob)
  assert.equal(response.status, 204, await response.text())
}

test("ciphertext stays as long as a policy that is alive names its manifest, deposited or not", async () => {
  const study = await TestStudy.create(parts)
  // Who owns an artifact of any proposal may upload.
  await study.submit(study.policy({ study: "door" }))
  const sealed = await uploaded(study, clinic)
  const artifacts: Policy["artifacts"] = { ...study.policy().artifacts, records: { kind: "dataset", owner: "clinic", manifest: sealed.digest } }
  const first = await study.submit(study.policy({ artifacts }))
  for (const party of [clinic, vendor, consortium]) await study.sign(first, party)
  await study.deposit(first, "records", clinic, sealed)
  const second = await study.submit(study.policy({ artifacts, supersedes: first }))
  for (const party of [clinic, vendor, consortium]) await study.sign(second, party)
  study.manager.tick()
  const blob = sealed.signed.manifest.index.digest
  assert.ok(((await study.blobs.size(blob)) ?? 0) > 0)
  await study.deposit(second, "records", clinic, sealed)
  await study.withdraw(second, vendor)
  study.manager.tick()
  assert.equal(await study.blobs.size(blob), undefined)
})

test("nobody has another's ciphertext removed by listing it in a manifest of its own", async () => {
  const study = await TestStudy.create(parts)
  await study.submit(study.policy({ study: "door" }))
  const sealed = await uploaded(study, clinic)
  const blob = sealed.signed.manifest.index.digest
  const of = (artifact: TestArtifact, owner: string): Policy["artifacts"] => ({
    ...study.policy().artifacts,
    records: { kind: "dataset", owner, manifest: artifact.digest },
  })
  const honest = await study.submit(study.policy({ artifacts: of(sealed, "clinic") }))
  await study.sign(honest, clinic)
  await study.deposit(honest, "records", clinic, sealed)
  const greedy = await uploaded(study, vendor, [blob])
  const { stakeholders } = study.policy()
  const roles = { ...stakeholders, vendor: { keys: [vendor.key], recipients: [vendor.recipient], roles: ["code", "data"] } } as const
  const other = await study.submit(study.policy({ artifacts: of(greedy, "vendor"), stakeholders: roles, study: "other" }), vendor)
  await study.sign(other, vendor)
  await study.deposit(other, "records", vendor, greedy)
  await study.withdraw(other, vendor)
  study.manager.tick()
  assert.deepEqual([await study.blobs.size(greedy.signed.manifest.index.digest), (await study.blobs.size(blob)) === undefined], [undefined, false])
})

test("a party that brings a secret and withdraws from a proposal takes it along", async () => {
  const study = await TestStudy.create(parts)
  const secret = { salt: "ab".repeat(32), value: encodeUtf8("token") }
  const { train } = study.policy().jobs
  const { model } = train?.outputs ?? {}
  assert.ok(train !== undefined && model !== undefined)
  const outputs = { model: { ...model, waive: ["vendor", "consortium"] } }
  const digest = await study.submit(
    study.policy({
      secrets: { token: { owner: "consortium", commitment: secretCommitment(secret) } },
      jobs: { train: { ...train, outputs, secrets: { token: { environment: "TOKEN" } } } },
    }),
  )
  await study.sign(digest, consortium)
  const { depositKey, instance } = study.manager.description
  const context = { purpose: "secret", policy: digest, secret: "token", commitment: secretCommitment(secret), manager: instance } as const
  const plaintext = encodeUtf8(JSON.stringify({ salt: secret.salt, value: encodeBase64(secret.value) }))
  const sealedValue = await sealMessage(parseBase64(depositKey), context, plaintext)
  await study.call(routes.depositSecret, study.as(consortium), { params: { digest }, body: { secret: "token", sealedValue } })
  await study.withdraw(digest, consortium)
  assert.deepEqual([counts(study)[1], destroyed(study)], [0, [[digest, "policy-withdrawn", [], ["token"], 0]]])
})

test("a withdrawal destroys under other policies what rests on what came from it, and nothing else there", async () => {
  const study = await TestStudy.create(parts)
  const { digest: first, run, agent } = await study.running()
  const output = await study.makeOutput(agent, run)
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  const model = study.store.get("outputs", output)
  const identity = study.store.get("runKeys", run)?.identity ?? ""
  const { manifest } = manifestOf(study, output)
  const policy = study.policy({ study: "second" })
  const { train } = policy.jobs
  assert.ok(train !== undefined && model !== undefined)
  const second = await study.submit({
    ...policy,
    stakeholders: { ...policy.stakeholders, clinic: { keys: [clinic.key], roles: ["data", "model"] } },
    artifacts: {
      model: { kind: "model", owner: "clinic", manifest: model.ciphertext },
      trainer: { kind: "code", owner: "vendor", manifest: trainer.digest },
    },
    jobs: { train: { ...train, inputs: { model: "/opt/ml/input/model", trainer: "/opt/ml/code" } } },
  })
  for (const party of [clinic, vendor, consortium]) await study.sign(second, party)
  await study.deposit(second, "model", clinic, await signManifest(manifest, identity, clinic.privateKey))
  await study.deposit(second, "trainer", vendor, trainer)
  const secondRun = await study.queue(second)
  await study.claim(agent)
  await study.makeOutput(agent, secondRun)
  await study.withdraw(first, clinic)
  assert.equal(study.store.get("runs", secondRun)?.state, "ended")
  assert.deepEqual(destroyed(study), [
    [first, "policy-withdrawn", ["records", "trainer"], undefined, 1],
    [second, "policy-withdrawn", ["model"], undefined, 1],
  ])
  assert.deepEqual(
    study.store.list("deposits").map((deposit) => [deposit.policy, deposit.artifact]),
    [[second, "trainer"]],
  )
})
