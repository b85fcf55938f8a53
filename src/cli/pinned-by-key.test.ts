/**
 * A policy that demands a manager which proves itself, at one that does, and parties who pinned its key alone: no command hands it anything of that policy, though the manager would take it.
 * Real processes over real TLS, beside a laboratory's TD.
 */
import assert from "node:assert/strict"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { labTdRequirement, startLabTd } from "../../lab/devices/td.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { documentOf } from "../client/deposit.ts"
import { sessionDigest } from "../evidence/bundle.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import { connectVerified, verifyManager } from "../protocol/manager-connection.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity } from "../protocol/tls.ts"
import { indexFileName, shardFileName } from "../sealing/blobs.ts"
import { manifestSigner } from "../sealing/manifest.ts"
import { sealArtifact } from "../sealing/seal-artifact.ts"
import { demandStatus, eventsOf, filesBelow, lastEvent } from "./process.testing.ts"
import { pin, RealStudy, type TestParty } from "./study.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-by-key-"))
const program = { runtime: "a".repeat(96), source: "b".repeat(96), packages: "c".repeat(96) }
const td = await startLabTd(program)
const accept = [{ tdx: labTdRequirement(program, td.authority.root) }] as const
const authority = new LaboratoryAuthority()
const machine = new LaboratoryMachine(authority)
const references = captureReferences(machine)
let study: RealStudy

before(async () => {
  const collateral = join(base, "collateral.json")
  await writeFile(collateral, td.collateral)
  const attested = { words: ["--tee", td.url, "--collateral", collateral], manager: { accept } }
  study = await RealStudy.start({ root: authority.root, endorsementKey: machine.endorsementKey, references, attested })
})
after(async () => {
  await study[Symbol.asyncDispose]()
  await td[Symbol.asyncDispose]()
  await rm(base, { recursive: true, force: true })
})

/** The command is refused while the party knows the manager by its key alone; `untouched` then holds; under the policy's demands it succeeds. */
async function onlyByProof(party: TestParty, words: readonly string[], untouched: () => Promise<void>): Promise<void> {
  await pin(party, study.pin)
  const { stdout } = await demandStatus([...words, "--json"], 10, party.environment)
  const { code, message } = lastEvent(stdout)
  assert.equal(code, "wrong-manager")
  assert.match(String(message), /pinned by its key alone; nothing was sent/)
  await untouched()
  await pin(party, { ...study.pin, accept })
  await demandStatus([...words, "--json"], 0, party.environment)
}

test("policy submit sends no policy that demands proof to a manager that is pinned by its key alone", async () => {
  const files: string[] = []
  for (const [name, reference] of Object.entries(references)) {
    files.push(join(base, `${name}.json`))
    await writeFile(join(base, `${name}.json`), JSON.stringify(documentOf(reference)))
  }
  const words = ["policy", "submit", study.policyFile, ...files.flatMap((file) => ["--reference", file])]
  await onlyByProof(study.clinic, words, async () => {
    using connection = await study.connect(study.clinic)
    assert.deepEqual((await connection.call(routes.listPolicies)).policies, [])
  })
})

test("policy sign sends no signature over it", async () => {
  for (const party of [study.clinic, study.vendor])
    await onlyByProof(party, ["policy", "sign", study.policyFile, "--yes"], async () => {
      using connection = await study.connect(party)
      const { approvals } = await connection.call(routes.getPolicy, { params: { digest: study.digest } })
      assert.ok(!approvals.some(({ signature }) => signature.key === party.identity.key))
    })
})

test("artifact deposit sends neither ciphertext nor key", async () => {
  for (const [party, name] of [
    [study.clinic, "records"],
    [study.vendor, "trainer"],
  ] as const) {
    const blobs = await filesBelow(join(study.managerFolder, "blobs"))
    await onlyByProof(party, ["artifact", "deposit", study.policyFile, name, study.sealedFolder(name)], async () => {
      using connection = await study.connect(party)
      const { deposits } = await connection.call(routes.getPolicy, { params: { digest: study.digest } })
      assert.ok(!deposits.includes(name))
      assert.deepEqual(await filesBelow(join(study.managerFolder, "blobs")), blobs, "nothing was uploaded")
    })
  }
})

test("output vote signs nothing on the word of such a manager", async () => {
  const output = await sealedOutput()
  await onlyByProof(study.clinic, ["output", "vote", output, "--yes"], async () => {
    using connection = await study.connect(study.clinic)
    const { outputs } = await connection.call(routes.listOutputs, { query: {} })
    assert.deepEqual(
      outputs.map(({ votes }) => votes),
      [[]],
    )
  })
})

test("policy sign warns where a policy trusts its manager for something else than this party pinned it for", async () => {
  const { clinic, policy, policyFile } = study
  const byKey = join(base, "by-key.json")
  await writeFile(byKey, JSON.stringify({ ...policy, manager: { insecureUnattested: { key: study.pin.key } } }))
  const warningOf = async (file: string): Promise<unknown> => {
    const words = ["policy", "sign", file, "--offline", "--yes", "--json", "--out", join(base, "signature.json")]
    const { stdout } = await demandStatus(words, 0, clinic.environment)
    return eventsOf(stdout).find(({ event }) => event === "to-sign")?.["managerWarning"]
  }
  await pin(clinic, { ...study.pin, accept: [{ tdx: { ...accept[0].tdx, mrTd: ["d".repeat(96)] } }] })
  assert.match(String(await warningOf(policyFile)), /demands on its manager are not those that are pinned here/)
  assert.match(String(await warningOf(byKey)), /takes its manager on its key alone/)
  await pin(clinic, { ...study.pin, accept })
  assert.equal(await warningOf(policyFile), undefined)
  await pin(clinic, study.pin)
  assert.equal(await warningOf(byKey), undefined)
})

/** A machine of the laboratory claims the run and reports a sealed model, over the wire. */
async function sealedOutput(): Promise<string> {
  const run = await study.queue()
  const tls = createTlsIdentity("host-1")
  using transport = connectVerified(await verifyManager(new URL(study.pin.url), { accept }, tls, { now: new Date() }), tls)
  const begun = await transport.call(routes.beginEnrolment, { body: machine.enrolmentRequest("host-1") })
  await transport.call(routes.answerEnrolment, { params: { enrolment: begun.enrolment }, body: { secret: machine.activate(begun) } })
  const hpkeKey = encodeBase64((await generateHpkeKeyPair()).publicKey)
  const challenge = await transport.call(routes.requestChallenge, { body: { purpose: "claim", host: "host-1" } })
  const { purpose, manager, nonce, policy, job, lease } = challenge
  const facts = { purpose, version: 1, manager, nonce, hpkeKey, tlsKey: tls.tlsKey, akName: machine.akName, deviceEvidence: [] } as const
  const bundle = machine.bundle(sessionDigest({ ...facts, policy, job, run: challenge.run, lease }))
  const grant = await transport.call(routes.claimRun, { body: { challenge: challenge.challenge, hpkeKey, bundle } })
  const [source, output] = [join(base, "model"), join(base, "model-sealed")]
  await mkdir(source)
  await writeFile(join(source, "model.bin"), "weights")
  const signer = manifestSigner(study.vendor.identity.privateKey)
  const { signed } = await sealArtifact({ source, output, kind: "model", name: "model", signer, key: { recipient: grant.outputRecipient } })
  const { shards, index } = signed.manifest
  for (const [number, { digest }] of shards.entries()) await transport.putBlobFile(digest, join(output, shardFileName(number)))
  await transport.putBlobFile(index.digest, join(output, indexFileName))
  return (await transport.call(routes.reportOutput, { params: { run }, body: { name: "model", manifest: documentOf(signed) } })).output
}
