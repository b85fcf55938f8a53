import assert from "node:assert/strict"
import { test } from "node:test"
import type { Digest } from "../bytes/digest.ts"
import { encodeBase64, encodeUtf8, parseBase64, parseUtf8 } from "../bytes/text.ts"
import type { Policy } from "../policy/document.ts"
import { type SaltedSecret, secretCommitment, type SecretUse } from "../policy/secrets.ts"
import { type SealedMessage, sealMessage, type SecretContext } from "../protocol/hpke.ts"
import type { SecretView } from "../protocol/messages.ts"
import type { ProblemError } from "../protocol/problem.ts"
import { routes } from "../protocol/routes.ts"
import { makeAgent, makeParts, type Party, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, records, trainer } = parts
const token: SaltedSecret = { salt: "5".repeat(64), value: encodeUtf8("t0ken") }

function secretPolicy(
  study: TestStudy,
  {
    uses = { token: { environment: "API_TOKEN" } },
    secrets,
    expires,
  }: { uses?: Record<string, SecretUse>; secrets?: Policy["secrets"]; expires?: string } = {},
): Policy {
  const policy = study.policy(expires === undefined ? {} : { expires })
  const train = policy.jobs["train"]
  assert.ok(train)
  return {
    ...policy,
    secrets: secrets ?? { token: { owner: "vendor", commitment: secretCommitment(token) } },
    jobs: { train: { ...train, secrets: uses } },
  }
}

async function bring(
  study: TestStudy,
  digest: Digest,
  party: Party,
  secret: SaltedSecret = token,
  change: Partial<SecretContext> = {},
): Promise<SecretView> {
  return send(study, digest, party, await seal(study, digest, secret, change))
}

async function seal(study: TestStudy, digest: Digest, secret: SaltedSecret, change: Partial<SecretContext> = {}): Promise<SealedMessage> {
  const { depositKey, instance } = study.manager.description
  const context = {
    purpose: "secret",
    policy: digest,
    secret: "token",
    commitment: secretCommitment(token),
    manager: instance,
    ...change,
  } as const
  const plaintext = encodeUtf8(JSON.stringify({ salt: secret.salt, value: encodeBase64(secret.value) }))
  return sealMessage(parseBase64(depositKey), context, plaintext)
}

async function send(study: TestStudy, digest: Digest, party: Party, sealedValue: SealedMessage): Promise<SecretView> {
  return study.call(routes.depositSecret, study.as(party), { params: { digest }, body: { secret: "token", sealedValue } })
}

test("a party brings its secret under the policy that it signed; a run gets it, with its receipts, and none starts without", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.submit(secretPolicy(study))
  await assert.rejects(bring(study, digest, vendor), { code: "owner-not-signed" })
  await study.sign(digest, vendor)
  assert.deepEqual((await bring(study, digest, vendor)).owner, "vendor")
  await bring(study, digest, vendor)
  for (const party of [clinic, consortium]) await study.sign(digest, party)
  await study.deposit(digest, "records", clinic, records)
  await study.deposit(digest, "trainer", vendor, trainer)
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  const { secrets } = await study.openReleased(agent, await study.claim(agent))
  assert.deepEqual(secrets, { token: { salt: token.salt, value: encodeBase64(token.value) } })
  assert.deepEqual(
    study.receipts.flatMap(({ kind, by, secrets: named }) => (named === undefined ? [] : [[kind, by, named]])),
    [
      ["secret-deposited", "vendor", ["token"]],
      ["key-released", undefined, ["token"]],
    ],
  )
  assert.deepEqual((await study.call(routes.getPolicy, study.as(clinic), { params: { digest } })).secrets, ["token"])
})

test("no run is queued while a secret is not here", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(secretPolicy(study))
  await assert.rejects(study.queue(digest), { code: "wrong-state", message: /secrets were not brought: token/ })
  await bring(study, digest, vendor)
  await study.queue(digest)
})

test("depositSecret() refuses another party, value, salt, policy, secret or manager, and a policy that is over", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(secretPolicy(study, { expires: "2026-11-22T13:00:00Z" }))
  await assert.rejects(bring(study, digest, clinic), { code: "not-permitted" })
  await assert.rejects(bring(study, digest, vendor, { ...token, value: encodeUtf8("other") }), { code: "wrong-secret" })
  await assert.rejects(bring(study, digest, vendor, { ...token, salt: "6".repeat(64) }), { code: "wrong-secret" })
  for (const change of [
    { policy: `sha256:${"0".repeat(64)}` },
    { secret: "other" },
    { manager: "0".repeat(32) },
    { commitment: `sha256:${"0".repeat(64)}` },
  ])
    await assert.rejects(bring(study, digest, vendor, token, change), { code: "wrong-message" })
  study.clock.advance(3600)
  await assert.rejects(bring(study, digest, vendor), { code: "policy-expired" })
  const other = await study.agree(secretPolicy(study, { secrets: { token: { made: { bytes: 16, as: "hex", per: "run" } } } }))
  await assert.rejects(bring(study, other, vendor), { code: "not-permitted" })
})

test("depositSecret() keeps nothing whose owner withdrew while it was opened", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(secretPolicy(study))
  const sealed = await seal(study, digest, token)
  const [brought, withdrawn] = await Promise.allSettled([send(study, digest, vendor, sealed), study.withdraw(digest, vendor)])
  assert.equal(withdrawn.status, "fulfilled")
  assert.equal(brought.status, "rejected")
  assert.equal(study.store.count("secrets"), 0)
})

test("depositSecret() refuses a value that a program could not be given so", async () => {
  const study = await TestStudy.create(parts)
  for (const [value, use, code] of [
    [encodeUtf8("with a \0 inside"), { environment: "API_TOKEN" }, "malformed"],
    [Uint8Array.of(0xff, 0xfe), { argument: "train.py" }, "malformed"],
    [new Uint8Array(4097).fill(65), { environment: "API_TOKEN" }, "too-large"],
  ] as const) {
    const secret = { salt: token.salt, value }
    const secrets = { token: { owner: "vendor", commitment: secretCommitment(secret) } }
    const digest = await study.submit({ ...secretPolicy(study, { uses: { token: use }, secrets }), study: `s${code}${value.length}` })
    await study.sign(digest, vendor)
    await assert.rejects(bring(study, digest, vendor, secret, { commitment: secretCommitment(secret) }), { code }, code)
  }
})

test("the manager draws secrets: one for all runs under a policy, or a new one for each; a withdrawal deletes what was drawn and brought", async () => {
  const study = await TestStudy.create(parts)
  const uses = { token: { environment: "API_TOKEN" }, common: { file: "/opt/ml/common" }, own: { environment: "SEED" } } as const
  const secrets = {
    token: { owner: "vendor", commitment: secretCommitment(token) },
    common: { made: { bytes: 32, as: "base64", per: "policy" } },
    own: { made: { bytes: 16, as: "hex", per: "run" } },
  } as const
  const digest = await study.agree(secretPolicy(study, { uses, secrets }))
  await bring(study, digest, vendor)
  const agent = await makeAgent()
  await study.enrol(agent)
  const seen: Record<string, string>[] = []
  for (let count = 0; count < 2; count++) {
    const run = await study.queue(digest)
    const { secrets: given } = await study.openReleased(agent, await study.claim(agent))
    seen.push(Object.fromEntries(Object.entries(given).map(([name, { value }]) => [name, parseUtf8(parseBase64(value))])))
    await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
    study.restart()
  }
  const [first, second] = seen
  assert.ok(first && second)
  assert.match(first["common"] ?? "", /^[A-Za-z0-9+/]{43}=$/)
  assert.match(first["own"] ?? "", /^[0-9a-f]{32}$/)
  assert.equal(first["common"], second["common"])
  assert.notEqual(first["own"], second["own"])
  assert.deepEqual((await study.call(routes.getPolicy, study.as(clinic), { params: { digest } })).secrets, ["token"])
  await study.withdraw(digest, vendor)
  assert.equal(study.store.count("secrets"), 0)
})

test("who brings a secret owns what is made with it: it must sign, its withdrawal ends runs, and outputs wait for its vote", async () => {
  const study = await TestStudy.create(parts)
  const secrets = { token: { owner: "consortium", commitment: secretCommitment(token) } }
  const policy = secretPolicy(study, { secrets })
  await assert.rejects(study.agree(policy), (error: ProblemError) => error.findings.some(({ code }) => code === "release-without-owner"))
  const train = policy.jobs["train"]
  assert.ok(train?.outputs["model"])
  const model = { ...train.outputs["model"], release: { require: "all", of: ["clinic", "consortium"] } } as const
  const digest = await study.agree({ ...policy, jobs: { train: { ...train, outputs: { model } } } })
  await bring(study, digest, consortium)
  const agent = await makeAgent()
  await study.enrol(agent)
  const run = await study.queue(digest)
  await study.claim(agent)
  await study.withdraw(digest, consortium)
  assert.equal((await study.call(routes.getRun, study.as(clinic), { params: { run } })).state, "ended")
  assert.equal(study.store.count("secrets"), 0)
})
