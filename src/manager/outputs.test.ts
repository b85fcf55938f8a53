import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../bytes/compare.ts"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { signStatement } from "../pki/statement.ts"
import type { OutputView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { voteDigest } from "../protocol/statements.ts"
import { encodeAgeHeader, generateFileKey, openAgeHeader, parseAgeHeader } from "../sealing/header.ts"
import type { ArtifactManifest } from "../sealing/manifest.ts"
import type { Policy } from "../policy/document.ts"
import { type AgentKeys, makeParts, type Party, random, signManifest, TestStudy, toJson } from "./study.testing.ts"
import { hostMachine } from "../policy/fixtures.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, stranger } = parts

interface Sealed {
  readonly manifest: ArtifactManifest
  readonly fileKey: Uint8Array
  readonly blob: Uint8Array
  readonly digest: Digest
}

/** A blob with a real header for the run's recipient and some ciphertext behind it. */
async function seal(recipient: string, change: Partial<ArtifactManifest> = {}): Promise<Sealed> {
  const fileKey = generateFileKey()
  const blob = concatBytes(await encodeAgeHeader(fileKey, [recipient]), random(100))
  const digest = digestOf(blob)
  const manifest: ArtifactManifest = {
    perun: 1,
    kind: "output",
    owner: clinic.key,
    name: "model",
    recipient,
    shards: [],
    index: { digest, sizeBytes: blob.length, saltedDigest: digest },
    files: { count: 1, bytes: 100 },
    ...change,
  }
  return { manifest, fileKey, blob, digest }
}

async function report(study: TestStudy, agent: AgentKeys, run: string, sealed: Sealed, name = "model"): Promise<string> {
  const { signed } = await signManifest(sealed.manifest, "", clinic.privateKey)
  return (await study.call(routes.reportOutput, agent, { params: { run }, body: { name, manifest: toJson(signed) } })).output
}

async function upload(study: TestStudy, agent: AgentKeys, { digest, blob }: Sealed): Promise<void> {
  const response = await study.fetch("PUT", `/v1/blobs/${digest}`, agent, blob)
  assert.equal(response.status, 204, await response.text())
}

async function finished(): Promise<{ study: TestStudy; digest: Digest; sealed: Sealed; view: OutputView; agent: AgentKeys; run: string }> {
  const study = await TestStudy.create(parts)
  const { digest, agent, run, grant } = await study.running()
  const sealed = await seal(grant.outputRecipient)
  await upload(study, agent, sealed)
  await report(study, agent, run, sealed)
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  const { outputs } = await study.call(routes.listOutputs, study.as(clinic), { query: `?run=${run}` })
  const [view] = outputs
  assert.ok(view)
  return { study, digest, sealed, view, agent, run }
}

async function vote(study: TestStudy, view: OutputView, party: Party, as = party): Promise<OutputView> {
  const signature = signStatement("vote", voteDigest(view), party.privateKey)
  return study.call(routes.voteOutput, study.as(as), { params: { output: view.output }, body: { signature } })
}

async function fetchPackage(study: TestStudy, view: OutputView, party: Party): ReturnType<typeof study.call<typeof routes.getOutputPackage>> {
  return study.call(routes.getOutputPackage, study.as(party), { params: { output: view.output } })
}

test("an output waits for its votes, then goes to the named consumer, rewrapped", async () => {
  const { study, sealed, view } = await finished()
  assert.deepEqual([view.state, view.missing, view.to, view.laboratory], ["waiting", ["clinic"], ["consortium"], true])
  await assert.rejects(fetchPackage(study, view, consortium), { code: "votes-missing", status: 403 })
  assert.deepEqual((await vote(study, view, clinic)).missing, [])
  const released = await fetchPackage(study, view, consortium)
  const [header] = released.headers
  assert.equal(header?.blob, sealed.digest)
  const fileKey = await openAgeHeader(parseAgeHeader(parseBase64(header.header)), consortium.recipientIdentity)
  assert.deepEqual(fileKey, sealed.fileKey)
  await assert.rejects(openAgeHeader(parseAgeHeader(parseBase64(header.header)), vendor.recipientIdentity), { code: "wrong-key" })
  assert.equal(released.output.state, "released")
  const kinds = (await study.call(routes.listReceipts, study.as(clinic))).receipts.map(({ receipt }) => receipt?.kind)
  assert.deepEqual(kinds.slice(-4), ["output-received", "run-finished", "vote-cast", "output-released"])
})

test("an output is handed out so often, each time with a receipt, and then no more", async () => {
  const { study, view } = await finished()
  await vote(study, view, clinic)
  const receipts = (): number => study.receipts.length
  const before = receipts()
  for (let count = 0; count < 256; count++) await fetchPackage(study, view, consortium)
  assert.equal(receipts() - before, 256)
  await assert.rejects(fetchPackage(study, view, consortium), { code: "limit-exceeded" })
  assert.equal(receipts() - before, 256)
})

test("owners and strangers get no package", async () => {
  const { study, view } = await finished()
  await vote(study, view, clinic)
  for (const party of [clinic, vendor]) await assert.rejects(fetchPackage(study, view, party), { code: "not-permitted" })
  await assert.rejects(fetchPackage(study, view, stranger), { code: "not-found" })
})

test("voteOutput() refuses a vote for other ciphertext, by a stranger, or for another purpose", async () => {
  const { study, view } = await finished()
  const params = { output: view.output }
  const other = digestOf(encodeUtf8("other"))
  const others: readonly Partial<OutputView>[] = [
    ...[{ run: "0".repeat(32) }, { job: "other" }, { name: "other" }, { ciphertext: other }, { sizeBytes: view.sizeBytes + 1 }],
    ...[{ policy: other }, { evidence: other }, { laboratory: !view.laboratory }],
  ]
  const attempts = [
    ...others.map((change) => [signStatement("vote", voteDigest({ ...view, ...change }), clinic.privateKey), "wrong-signature"] as const),
    [signStatement("policy", voteDigest(view), clinic.privateKey), "wrong-signature"],
    [signStatement("vote", voteDigest(view), stranger.privateKey), "not-permitted"],
  ] as const
  for (const [signature, code] of attempts)
    await assert.rejects(study.call(routes.voteOutput, study.as(clinic), { params, body: { signature } }), { code })
  await assert.rejects(vote(study, view, clinic, stranger), { code: "not-found" })
})

test("a vote of one who has none does not release", async () => {
  const { study, view } = await finished()
  await vote(study, view, vendor)
  await assert.rejects(fetchPackage(study, view, consortium), { code: "votes-missing" })
})

test("withdrawal locks what was derived, even after the votes", async () => {
  const { study, view, digest } = await finished()
  await vote(study, view, clinic)
  await study.withdraw(digest, clinic)
  await assert.rejects(fetchPackage(study, view, consortium), { code: "policy-withdrawn" })
  await assert.rejects(vote(study, view, clinic), { code: "policy-withdrawn" })
  const { outputs } = await study.call(routes.listOutputs, study.as(consortium))
  assert.equal(outputs[0]?.state, "locked")
})

test("the withdrawal of an owner that waived its vote locks too", async () => {
  const { study, view, digest } = await finished()
  await vote(study, view, clinic)
  await study.withdraw(digest, vendor)
  await assert.rejects(fetchPackage(study, view, consortium), { code: "policy-withdrawn" })
})

test("nothing is released after the policy's time", async () => {
  const { study, view } = await finished()
  await vote(study, view, clinic)
  study.clock.wall = Date.parse("2027-06-01T00:00:00Z")
  await assert.rejects(fetchPackage(study, view, consortium), { code: "policy-expired" })
})

test("reportOutput() refuses undeclared names, other recipients, missing blobs, excess size and a second content", async () => {
  const study = await TestStudy.create(parts)
  const { agent, run, grant } = await study.running()
  const sealed = await seal(grant.outputRecipient)
  await assert.rejects(report(study, agent, run, sealed, "other"), { code: "not-found" })
  await assert.rejects(report(study, agent, run, sealed, "logs"), { code: "not-found" })
  await assert.rejects(report(study, agent, run, sealed), { code: "missing" })
  await upload(study, agent, sealed)
  await assert.rejects(report(study, agent, run, await seal(consortium.recipient)), { code: "wrong-manifest" })
  const large = { ...sealed, manifest: { ...sealed.manifest, files: { count: 1, bytes: 1_000_001 } } }
  await assert.rejects(report(study, agent, run, large), { code: "limit-exceeded" })
  const lying = { ...sealed, manifest: { ...sealed.manifest, index: { ...sealed.manifest.index, sizeBytes: 5 } } }
  await assert.rejects(report(study, agent, run, lying), { code: "missing" })
  const swollen = { ...sealed, manifest: { ...sealed.manifest, index: { ...sealed.manifest.index, sizeBytes: 3_000_000 } } }
  await assert.rejects(report(study, agent, run, swollen), { code: "limit-exceeded" })
  const output = await report(study, agent, run, sealed)
  assert.equal(await report(study, agent, run, sealed), output)
  const second = await seal(grant.outputRecipient)
  await upload(study, agent, second)
  await assert.rejects(report(study, agent, run, second), { code: "wrong-state" })
})

test("a host's uploads end at what the job's outputs may take", async () => {
  const study = await TestStudy.create(parts)
  const { agent } = await study.running()
  const blob = new Uint8Array(2_200_000)
  const response = await study.fetch("PUT", `/v1/blobs/${digestOf(blob)}`, agent, blob)
  assert.equal(routes.getBlob.path, "/v1/blobs/:digest")
  assert.deepEqual([response.status, ((await response.json()) as { code: string }).code], [403, "limit-exceeded"])
})

test("consent that goes away while a package is made stops it", async () => {
  const { study, view, digest } = await finished()
  await vote(study, view, clinic)
  const readStart = study.blobs.readStart.bind(study.blobs)
  study.blobs.readStart = async (blob, maxBytes) => {
    await study.withdraw(digest, clinic)
    return readStart(blob, maxBytes)
  }
  await assert.rejects(fetchPackage(study, view, consortium), { code: "policy-withdrawn" })
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  assert.ok(receipts.every(({ receipt }) => receipt?.kind !== "output-released"))
})

test("a lease that ends while an output is checked takes the output with it", async () => {
  const study = await TestStudy.create(parts)
  const { agent, run, grant } = await study.running()
  const sealed = await seal(grant.outputRecipient)
  await upload(study, agent, sealed)
  const size = study.blobs.size.bind(study.blobs)
  study.blobs.size = async (digest) => {
    study.clock.advance(60)
    return size(digest)
  }
  await assert.rejects(report(study, agent, run, sealed), { code: "lease-ended" })
  assert.equal(study.store.count("outputs"), 0)
})

test("a withdrawal from another policy does not lock what came from this one", async () => {
  const { study, view } = await finished()
  await vote(study, view, clinic)
  const other = await study.submit(study.policy({ study: "other" }))
  await study.withdraw(other, clinic)
  assert.equal((await fetchPackage(study, view, consortium)).output.state, "released")
})

/** The first study's model as an input of a second one, which its owner names and deposits. */
function secondPolicy(study: TestStudy, first: Digest, model: Digest, laboratoryRoots: readonly Digest[]): Policy {
  const policy = study.policy({ study: "second" })
  const host = hostMachine(policy, "host")
  const { train } = policy.jobs
  assert.ok(train !== undefined && first !== model)
  return {
    ...policy,
    stakeholders: { ...policy.stakeholders, clinic: { keys: [clinic.key], roles: ["data", "model"] } },
    artifacts: {
      model: { kind: "model", owner: "clinic", manifest: model },
      trainer: { kind: "code", owner: "vendor", manifest: parts.trainer.digest },
    },
    machines: { host: { ...host, tpm: { ...host.tpm, laboratoryRoots } } },
    jobs: { train: { ...train, inputs: { model: "/opt/ml/input/model", trainer: "/opt/ml/code" } } },
  }
}

/** Signed by all, the model's key deposited by its owner, whose laboratory copy of it this is. */
async function agreeSecond(study: TestStudy, policy: Policy, run: string, sealed: Sealed): Promise<Digest> {
  const digest = await study.submit(policy)
  for (const party of [clinic, vendor, consortium]) await study.sign(digest, party)
  await depositModel(study, digest, run, sealed)
  await study.deposit(digest, "trainer", vendor, parts.trainer)
  return digest
}

async function depositModel(study: TestStudy, digest: Digest, run: string, sealed: Sealed): Promise<void> {
  const identity = study.store.get("runKeys", run)?.identity ?? ""
  await study.deposit(digest, "model", clinic, await signManifest(sealed.manifest, identity, clinic.privateKey))
}

const laboratoryRoot = digestOf(parts.authority.root)

/** From now on the machine's TPM is a vendor's. */
function leaveLaboratory(study: TestStudy): void {
  study.store.transact(new Date(study.clock.wall), (tx) => {
    const host = tx.get("hosts", "host-1")
    assert.ok(host !== undefined && "akPublic" in host)
    tx.put("hosts", "host-1", { ...host, identity: { ...host.identity, rootKind: "vendor" } })
  })
}

test("a laboratory's taint follows its outputs through a second policy, onto a vendor's machine", async () => {
  const { study, digest: first, sealed, view, agent, run } = await finished()
  assert.equal(view.laboratory, true)
  const model = view.ciphertext
  const refused = study.submit(secondPolicy(study, first, model, []))
  await assert.rejects(refused, { code: "invalid-policy" })
  const second = await agreeSecond(study, secondPolicy(study, first, model, [laboratoryRoot]), run, sealed)
  leaveLaboratory(study)
  const secondRun = await study.queue(second)
  const grant = await study.claim(agent)
  assert.deepEqual([grant.run, study.store.get("runs", secondRun)?.laboratory], [secondRun, true])
  const made = await seal(grant.outputRecipient)
  await upload(study, agent, made)
  await report(study, agent, secondRun, made)
  const { outputs } = await study.call(routes.listOutputs, study.as(clinic), { query: `?run=${secondRun}` })
  assert.deepEqual(
    outputs.map(({ laboratory }) => laboratory),
    [true],
  )
  const record = study.store.get("derivations", outputs[0]?.ciphertext ?? model)
  assert.deepEqual([record?.laboratoryRoots, record?.policies], [[laboratoryRoot], [second, first]])
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  const ofSecond = receipts.flatMap(({ receipt }) =>
    receipt?.run === secondRun && ["key-released", "output-received"].includes(receipt.kind) ? [receipt] : [],
  )
  assert.deepEqual(
    ofSecond.map(({ laboratory }) => laboratory),
    [true, true],
  )
  const third = secondPolicy(study, first, outputs[0]?.ciphertext ?? model, [])
  await assert.rejects(study.submit({ ...third, study: "third" }), { code: "invalid-policy" })
})

test("a policy that was agreed on before its input turned out to be a laboratory's gets no key for it", async () => {
  const study = await TestStudy.create(parts)
  const { digest: first, agent, run, grant } = await study.running()
  const sealed = await seal(grant.outputRecipient)
  const model = (await signManifest(sealed.manifest, "", clinic.privateKey)).digest
  const second = await agreeSecond(study, secondPolicy(study, first, model, []), run, sealed)
  await study.queue(second)
  await upload(study, agent, sealed)
  await report(study, agent, run, sealed)
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  leaveLaboratory(study)
  const code = "laboratory-not-accepted"
  await assert.rejects(study.claim(agent), { code, status: 403 })
  await assert.rejects(study.queue(second), { code })
  await assert.rejects(depositModel(study, second, run, sealed), { code })
})

test("one content under two outputs keeps every owner that either has, and every policy", async () => {
  const { train } = (await TestStudy.create(parts)).policy().jobs
  const output = train?.outputs["model"]
  assert.ok(train !== undefined && output !== undefined)
  const second = { ...output, path: "/opt/ml/report", waive: ["clinic"], release: { require: "all", of: ["vendor"] } } as const
  for (const names of [
    ["model", "report"],
    ["report", "model"],
  ]) {
    const study = await TestStudy.create(parts)
    const { digest, agent, run, grant } = await study.running(
      study.policy({ jobs: { train: { ...train, outputs: { model: output, report: second } } } }),
    )
    const sealed = await seal(grant.outputRecipient)
    await upload(study, agent, sealed)
    for (const name of names) await report(study, agent, run, sealed, name)
    const [record, ...others] = study.store.list("derivations")
    assert.deepEqual([record?.origins.map(({ name }) => name).toSorted(), record?.policies, others], [["clinic", "vendor"], [digest], []])
  }
})
