import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { encodeBase64, encodeUtf8 } from "../bytes/text.ts"
import type { Job, Policy } from "../policy/document.ts"
import { secretCommitment } from "../policy/secrets.ts"
import { generateHpkeKeyPair, sealMessage, type HpkeKeyPair } from "../protocol/hpke.ts"
import type { Challenge, ClaimGrant } from "../protocol/messages.ts"
import { documentSchema, parseShape } from "../protocol/wire.ts"
import { challengeSession, openReleasedKeys, verifyGrant, type SessionKeys } from "./claim.ts"
import { makeChallenge, makeGrant, makeStudy, sealInput, type Study } from "./testing/study.ts"
import { tpmSession } from "./testing/fake-manager.ts"

describe("a claim", () => {
  let folder: string
  let study: Study
  let challenge: Challenge
  let hpke: HpkeKeyPair
  let keys: SessionKeys
  let session: Uint8Array
  let grant: ClaimGrant

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "perun-claim-"))
    study = await makeStudy(folder, "pass\n")
    challenge = makeChallenge(study.policy)
    hpke = await generateHpkeKeyPair()
    keys = { hpkeKey: encodeBase64(hpke.publicKey), tlsKey: `sha256:${"6".repeat(64)}` }
    session = tpmSession(challengeSession(challenge, keys))
    grant = await makeGrant(study, challenge, session, hpke.publicKey)
  })
  after(async () => rm(folder, { recursive: true }))

  function verify(changes: Partial<ClaimGrant> = {}, key = study.manager.key): ReturnType<typeof verifyGrant> {
    return verifyGrant({ ...grant, ...changes }, challenge, { session, manager: { description: { key, time: null, vault: { kind: "key-file" } } } })
  }

  function refuses(code: string, changes: Partial<ClaimGrant>): void {
    assert.throws(() => verify(changes), { code })
  }

  function documentWith(changes: object): ClaimGrant["document"] {
    return parseShape(documentSchema, { ...study.policy, ...changes })
  }

  test("challengeSession() changes with every part of the challenge and of the machine", () => {
    const variants = [
      challengeSession({ ...challenge, purpose: "renew" }, keys),
      challengeSession({ ...challenge, nonce: "8".repeat(64) }, keys),
      challengeSession({ ...challenge, manager: "8".repeat(32) }, keys),
      challengeSession({ ...challenge, policy: `sha256:${"8".repeat(64)}` }, keys),
      challengeSession({ ...challenge, job: "other" }, keys),
      challengeSession({ ...challenge, run: "8".repeat(32) }, keys),
      challengeSession({ ...challenge, lease: "8".repeat(32) }, keys),
      challengeSession(challenge, { ...keys, hpkeKey: "AAAA" }),
      challengeSession(challenge, { ...keys, tlsKey: `sha256:${"8".repeat(64)}` }),
    ].map((open) => encodeBase64(tpmSession(open)))
    assert.equal(new Set([encodeBase64(session), ...variants]).size, 10)
  })

  test("verifyGrant() accepts what the stakeholders signed", () => {
    const verified = verify()
    assert.equal(verified.jobName, "train")
    assert.deepEqual([...verified.inputs.keys()].sort(), ["records", "trainer"])
  })

  test("verifyGrant() refuses a grant for something else than the machine proved itself for", () => {
    refuses("wrong-grant", { policy: `sha256:${"8".repeat(64)}` })
    refuses("wrong-grant", { job: "other" })
    refuses("wrong-grant", { run: "8".repeat(32) })
    refuses("wrong-grant", { lease: { id: "8".repeat(32), seconds: 60 } })
    refuses("wrong-grant", { session: `sha256:${"8".repeat(64)}` })
    refuses("wrong-grant", { lease: { id: challenge.lease, seconds: 61 } })
  })

  test("verifyGrant() refuses a manager that asked for other pieces of evidence than the policy demands", () => {
    for (const pieces of ["tee", "tee-with-tpm"] as const)
      assert.throws(
        () =>
          verifyGrant(
            grant,
            { ...challenge, pieces },
            { session, manager: { description: { key: study.manager.key, time: null, vault: { kind: "key-file" } } } },
          ),
        {
          code: "wrong-grant",
          path: "challenge.pieces",
        },
      )
  })

  test("verifyGrant() refuses another policy, and what is none", () => {
    refuses("wrong-policy", { document: documentWith({ purpose: "another" }) })
    refuses("wrong-policy", { document: documentWith({ extra: 1 }) })
    refuses("wrong-policy", { document: {} })
  })

  test("verifyGrant() refuses a policy that pins another manager", () => {
    assert.throws(() => verify({}, study.clinic.key), { code: "wrong-manager" })
  })

  test("verifyGrant() refuses a policy that lacks a signature, or has a wrong one", () => {
    const [first, second] = grant.approvals
    assert.ok(first && second)
    refuses("wrong-approval", { approvals: [first] })
    refuses("wrong-approval", { approvals: [] })
    refuses("wrong-approval", { approvals: [first, first] })
    refuses("wrong-approval", { approvals: [first, { ...second, signature: { ...second.signature, signature: first.signature.signature } }] })
  })

  test("verifyGrant() refuses inputs that are missing, doubled or not the policy's", async () => {
    const [records, trainer] = grant.inputs
    assert.ok(records && trainer)
    refuses("wrong-grant", { inputs: [records] })
    refuses("wrong-grant", { inputs: [records, trainer, trainer] })
    refuses("wrong-grant", { inputs: [records, records] })
    refuses("wrong-grant", { inputs: [records, { ...trainer, artifact: "other" }] })
    refuses("wrong-manifest", { inputs: [records, { ...trainer, manifest: records.manifest }] })
    refuses("wrong-manifest", {
      inputs: [records, { ...trainer, manifest: { ...trainer.manifest, signature: records.manifest["signature"] ?? null } }],
    })
    refuses("malformed", { inputs: [records, { ...trainer, manifest: {} }] })
    const foreign = await sealInput(folder, study.clinic, "foreign", "code", { "train.py": "steal()" })
    refuses("wrong-manifest", { inputs: [records, { ...trainer, manifest: parseShape(documentSchema, foreign.signed) }] })
  })

  test("verifyGrant() refuses an output recipient that is none", () => {
    refuses("malformed", { outputRecipient: "age1nothing" })
  })

  test("openReleasedKeys() gives one identity for each input", async () => {
    const { identities, secrets } = await openReleasedKeys(verify(), hpke.privateKey)
    assert.equal(identities.get("records"), study.inputs["records"]?.identity)
    assert.deepEqual([identities.size, secrets.size], [2, 0])
  })

  test("openReleasedKeys() gives the job's secrets, what a party brought only as its commitment says, and none besides", async () => {
    const salted = { salt: "5".repeat(64), value: encodeUtf8("t0ken") }
    const policy: Policy = {
      ...verify().policy,
      secrets: { token: { owner: "clinic", commitment: secretCommitment(salted) }, seed: { made: { bytes: 16, as: "hex", per: "run" } } },
    }
    const job: Job = { ...verify().job, secrets: { token: { environment: "API_TOKEN" }, seed: { file: "/opt/ml/seed" } } }
    const verified = { ...verify(), policy, job }
    const context = { purpose: "release", session: verified.session, policy: verified.policyDigest, run: verified.run } as const
    const open = async (secrets: object): Promise<ReadonlyMap<string, Uint8Array>> => {
      const plaintext = encodeUtf8(JSON.stringify({ identities: { records: "x", trainer: "y" }, secrets }))
      return (await openReleasedKeys({ ...verified, sealedKeys: await sealMessage(hpke.publicKey, context, plaintext) }, hpke.privateKey)).secrets
    }
    const token = { salt: salted.salt, value: encodeBase64(salted.value) }
    const seed = { value: encodeBase64(encodeUtf8("ab".repeat(16))) }
    assert.deepEqual(
      await open({ token, seed }),
      new Map([
        ["token", salted.value],
        ["seed", encodeUtf8("ab".repeat(16))],
      ]),
    )
    for (const secrets of [
      {},
      { token },
      { token, seed, more: seed },
      { token: { ...token, value: encodeBase64(encodeUtf8("other")) }, seed },
      { token: { ...token, salt: "6".repeat(64) }, seed },
      { token: { value: token.value }, seed },
    ])
      await assert.rejects(open(secrets), { code: "wrong-grant" })
  })

  test("openReleasedKeys() refuses keys for another run, session or machine, and a wrong set of them", async () => {
    const verified = verify()
    await assert.rejects(openReleasedKeys({ ...verified, run: "8".repeat(32) }, hpke.privateKey), { code: "wrong-message" })
    await assert.rejects(openReleasedKeys({ ...verified, session: `sha256:${"8".repeat(64)}` }, hpke.privateKey), { code: "wrong-message" })
    await assert.rejects(openReleasedKeys(verified, (await generateHpkeKeyPair()).privateKey), { code: "wrong-message" })
    const context = { purpose: "release", session: verified.session, policy: verified.policyDigest, run: verified.run } as const
    for (const identities of [{ records: "x" }, { records: "x", trainer: "y", more: "z" }, { records: "x", other: "y" }]) {
      const sealedKeys = await sealMessage(hpke.publicKey, context, new TextEncoder().encode(JSON.stringify({ identities, secrets: {} })))
      await assert.rejects(openReleasedKeys({ ...verified, sealedKeys }, hpke.privateKey), { code: "wrong-grant" })
    }
  })
})
