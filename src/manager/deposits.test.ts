import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { digestOf } from "../bytes/digest.ts"
import { sealMessage, type DepositContext } from "../protocol/hpke.ts"
import { routes } from "../protocol/routes.ts"
import { makeArtifact, makeParts, signManifest, type TestArtifact, TestStudy, toJson } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, records, trainer } = parts

test("depositArtifact() takes a key from an owner that signed, even before the policy is active", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(study.policy())
  await assert.rejects(study.deposit(digest, "records", clinic, records), { code: "owner-not-signed" })
  await study.sign(digest, clinic)
  const view = await study.deposit(digest, "records", clinic, records)
  assert.deepEqual([view.owner, view.manifest], ["clinic", records.digest])
  await study.deposit(digest, "records", clinic, records)
  const list = await study.call(routes.listArtifacts, study.as(consortium))
  assert.deepEqual(
    list.artifacts.map(({ artifact }) => artifact),
    ["records"],
  )
})

test("a policy that lacks one signature releases nothing", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(study.policy())
  await study.sign(digest, clinic)
  await study.sign(digest, vendor)
  await study.deposit(digest, "records", clinic, records)
  await study.deposit(digest, "trainer", vendor, trainer)
  await assert.rejects(study.queue(digest), { code: "policy-inactive" })
})

test("depositArtifact() refuses another than the owner", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  await assert.rejects(study.deposit(digest, "records", vendor, records), { code: "not-permitted" })
  await assert.rejects(study.deposit(digest, "no-such", clinic, records), { code: "not-permitted" })
})

test("depositArtifact() refuses a withdrawn and an expired policy", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(study.policy({ expires: "2026-11-22T13:00:00Z" }))
  await study.sign(digest, clinic)
  await study.sign(digest, vendor)
  await study.withdraw(digest, vendor)
  await assert.rejects(study.deposit(digest, "records", clinic, records), { code: "policy-withdrawn" })
  const other = await study.submit(study.policy({ study: "other", expires: "2026-11-22T13:00:00Z" }))
  await study.sign(other, clinic)
  study.clock.advance(3600)
  await assert.rejects(study.deposit(other, "records", clinic, records), { code: "policy-expired" })
})

async function depositRaw(study: TestStudy, change: Partial<DepositContext>, made: TestArtifact, identity: string): Promise<unknown> {
  const digest = await study.submit(study.policy())
  await study.sign(digest, clinic)
  const { depositKey, instance } = study.manager.description
  const context: DepositContext = { purpose: "deposit", policy: digest, artifact: "records", manifest: records.digest, manager: instance, ...change }
  const sealedIdentity = await sealMessage(parseBase64(depositKey), context, encodeUtf8(identity))
  const body = { artifact: "records", manifest: toJson(made.signed), sealedIdentity }
  return study.call(routes.depositArtifact, study.as(clinic), { params: { digest }, body })
}

for (const [field, value] of Object.entries({
  policy: digestOf(encodeUtf8("x")),
  artifact: "trainer",
  manifest: digestOf(encodeUtf8("y")),
  manager: "0".repeat(32),
}))
  test(`depositArtifact() refuses a key sealed for another ${field}`, async () => {
    const study = await TestStudy.create(parts)
    await assert.rejects(depositRaw(study, { [field]: value }, records, records.identity), { code: "wrong-message" })
    assert.equal(study.store.count("deposits"), 0)
  })

test("depositArtifact() refuses when consent goes away while the key is opened", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(study.policy())
  await study.sign(digest, clinic)
  const { depositKey, instance } = study.manager.description
  const context: DepositContext = { purpose: "deposit", policy: digest, artifact: "records", manifest: records.digest, manager: instance }
  const sealedIdentity = await sealMessage(parseBase64(depositKey), context, encodeUtf8(records.identity))
  const body = { artifact: "records", manifest: toJson(records.signed), sealedIdentity }
  const pending = assert.rejects(study.call(routes.depositArtifact, study.as(clinic), { params: { digest }, body }), { code: "policy-withdrawn" })
  await study.withdraw(digest, clinic)
  await pending
  assert.equal(study.store.count("deposits"), 0)
})

test("depositArtifact() refuses a key that does not open the artifact", async () => {
  const study = await TestStudy.create(parts)
  await assert.rejects(depositRaw(study, {}, records, trainer.identity), { code: "wrong-key" })
})

test("depositArtifact() refuses another manifest, and one that another signed", async () => {
  const study = await TestStudy.create(parts)
  const other = await makeArtifact("other", clinic)
  await assert.rejects(depositRaw(study, {}, other, other.identity), { code: "wrong-manifest" })
  const forged = await signManifest(records.signed.manifest, records.identity, vendor.privateKey)
  await assert.rejects(depositRaw(study, {}, forged, records.identity), { code: "wrong-manifest" })
})

test("the database holds no identity in clear", async () => {
  const study = await TestStudy.create(parts)
  await study.agree()
  const text = [...study.journal.rows.values()].map(({ sealed }) => Buffer.from(sealed).toString("latin1")).join("")
  assert.ok(!text.includes("AGE-SECRET-KEY"))
})

test("a policy whose place a successor took gets no keys any more", async () => {
  const study = await TestStudy.create(parts)
  const all = [clinic, vendor, consortium]
  const first = await study.submit(study.policy())
  for (const party of all) await study.sign(first, party)
  const next = await study.submit(study.policy({ supersedes: first, purpose: "next" }))
  for (const party of all) await study.sign(next, party)
  await assert.rejects(study.deposit(first, "records", clinic, records), { code: "policy-inactive" })
  await study.deposit(next, "records", clinic, records)
})
