/** Drives perun job result and perun evidence verify over a real manager and a machine of the laboratory, as child processes. */
import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { encodeBase64, encodeUtf8 } from "../bytes/text.ts"
import { sessionDigest } from "../evidence/bundle.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import { connectVerified, verifyManager } from "../protocol/manager-connection.ts"
import type { Transport } from "../protocol/http-client.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity } from "../protocol/tls.ts"
import { demandStatus, type Ended, lastEvent } from "./process.testing.ts"
import { RealStudy } from "./study.testing.ts"

const authority = new LaboratoryAuthority()
const machine = new LaboratoryMachine(authority)
const tls = createTlsIdentity("host-1")
const audience = "https://relying-party.example"
const nonce = "bm9uY2Utb2YtdGhlLXJlYWRlcg"
let study: RealStudy
let transport: Transport
let run = ""

before(async () => {
  const job = { lease: { seconds: 600 } }
  study = await RealStudy.start({ root: authority.root, endorsementKey: machine.endorsementKey, references: captureReferences(machine), job })
  await study.agree()
  run = await study.queue()
  transport = connectVerified(await verifyManager(new URL(study.pin.url), study.pin, tls, { now: new Date() }), tls)
  const begun = await transport.call(routes.beginEnrolment, { body: machine.enrolmentRequest("host-1") })
  await transport.call(routes.answerEnrolment, { params: { enrolment: begun.enrolment }, body: { secret: machine.activate(begun) } })
})
after(async () => {
  transport[Symbol.dispose]()
  await study[Symbol.asyncDispose]()
})

async function claim(): Promise<unknown> {
  const hpkeKey = encodeBase64((await generateHpkeKeyPair()).publicKey)
  const given = await transport.call(routes.requestChallenge, { body: { purpose: "claim", host: "host-1" } })
  const { challenge, purpose, manager, nonce: asked, policy, job, lease } = given
  const facts = { purpose, version: 1, manager, nonce: asked, hpkeKey, tlsKey: tls.tlsKey, akName: machine.akName, deviceEvidence: [] } as const
  const bundle = machine.bundle(sessionDigest({ ...facts, policy, job, run: given.run, lease }))
  return transport.call(routes.claimRun, { body: { challenge, hpkeKey, bundle } })
}

async function perun(status: number, ...words: readonly string[]): Promise<Ended> {
  return demandStatus(words, status, study.clinic.environment)
}

test("job result says that there is none before a machine was appraised, and of unknown runs", async () => {
  await perun(10, "job", "result", run)
  await perun(10, "job", "result", "0".repeat(32))
  await perun(30, "job", "result", run, "--nonce", "short")
})

test("job result shows a refused machine, with its codes and status 10", async () => {
  const other = new LaboratoryMachine(authority, "another kernel")
  const host = createTlsIdentity("host-2")
  using line = connectVerified(await verifyManager(new URL(study.pin.url), study.pin, host, { now: new Date() }), host)
  const begun = await line.call(routes.beginEnrolment, { body: other.enrolmentRequest("host-2") })
  await line.call(routes.answerEnrolment, { params: { enrolment: begun.enrolment }, body: { secret: other.activate(begun) } })
  const {
    purpose,
    challenge,
    manager,
    nonce: asked,
    policy,
    job,
    lease,
    run: asRun,
  } = await line.call(routes.requestChallenge, {
    body: { purpose: "claim", host: "host-2" },
  })
  const hpkeKey = encodeBase64((await generateHpkeKeyPair()).publicKey)
  const facts = { purpose, version: 1, manager, nonce: asked, hpkeKey, tlsKey: host.tlsKey, akName: other.akName, deviceEvidence: [] } as const
  const bundle = other.bundle(sessionDigest({ ...facts, policy, job, run: asRun, lease }))
  await assert.rejects(line.call(routes.claimRun, { body: { challenge, hpkeKey, bundle } }), { code: "not-acceptable" })
  const { stdout } = await perun(10, "job", "result", run)
  assert.match(stdout, /^status +contraindicated$/m)
  assert.match(stdout, /^tpm +executables +96 +contraindicated$/m)
  assert.match(stdout, /endorsement-key-not-listed/)
})

test("job result writes the signed result and its key for others, and evidence verify checks it offline", async () => {
  await claim()
  const [file, key] = [join(study.folder, "result.jwt"), join(study.folder, "result-key.pem")]
  const asked = ["--audience", audience, "--nonce", nonce]
  const { stdout } = await perun(0, "job", "result", run, ...asked, "--out", file, "--key-out", key)
  assert.match(stdout, /^INSECURE LABORATORY/m)
  assert.match(stdout, /^status +warning$/m)
  assert.match(stdout, /^tpm +executables +2 +affirming$/m)
  const event = lastEvent((await perun(0, "job", "result", run, "--json")).stdout)
  assert.deepEqual([event["ok"], event["run"], event["status"], event["laboratory"], event["audience"]], [true, run, "warning", true, "perun"])
  await perun(2, "job", "result", run, ...asked, "--out", file)

  // The guide's program is not ours but for its text: Python's standard library and OpenSSL.
  const guide = await readFile(new URL("../../docs/attestation-results.md", import.meta.url), "utf8")
  const program = /```python\n([\s\S]+?)```/.exec(guide)?.[1] ?? assert.fail("no program in the guide")
  const python = (...words: readonly string[]) => spawnSync("python3", ["-c", program, ...words], { encoding: "utf8" })
  const { status, stdout: said, stderr } = python(file, key, nonce, audience, study.digest)
  assert.equal(status, 0, stderr)
  assert.equal(said, "warning INSECURE LABORATORY\n")
  for (const wrong of [
    [file, key, `${nonce}x`, audience, study.digest],
    [file, key, nonce, "other", study.digest],
    [file, key, nonce, audience, "sha256:0"],
  ])
    assert.notEqual(python(...wrong).status, 0)

  const verify = async (status: number, ...words: readonly string[]) => perun(status, "evidence", "verify", file, ...words)
  const good = [...asked, "--policy", study.policyFile, "--result-key", key]
  await verify(0, ...good)
  await verify(0, "--insecure-any-nonce", "--audience", audience, "--policy", study.digest, "--result-key", key)
  await verify(10, ...good.with(3, "bm9uY2Utb2YtYW5vdGhlcg"))
  await verify(10, ...good.with(1, "https://other.example"))
  await verify(10, ...good.with(5, `sha256:${"0".repeat(64)}`))
  await verify(10, ...good, "--at", new Date(Date.now() + 3_600_000).toISOString())
  await verify(2, "--audience", audience, "--policy", study.policyFile, "--result-key", key)
  await verify(2, "--nonce", nonce, "--policy", study.policyFile, "--result-key", key)
  await verify(2, ...good, "--quirk", "debug-mode")
  const other = join(study.folder, "other.pem")
  await writeFile(other, generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey.export({ format: "pem", type: "spki" }))
  await verify(10, ...good.with(7, other))
  await verify(30, ...good.with(7, file))
  await writeFile(file, encodeUtf8("a.b"))
  await verify(30, ...good)
  // Without --result-key it is the pinned manager's; the test's own pins have none until the manager is pinned by the command.
  const home = join(study.clinic.home, "managers.json")
  const pinned = await readFile(home, "utf8")
  await perun(0, "job", "result", run, ...asked, "--out", join(study.folder, "again.jwt"))
  const again = ["evidence", "verify", join(study.folder, "again.jwt"), ...asked, "--policy", study.policyFile]
  await perun(2, ...again)
  await perun(0, "manager", "trust", study.pin.url, study.pin.key)
  await perun(0, ...again)
  const changed = (await readFile(home, "utf8")).replace(/"resultKey": "(.)/, `"resultKey": "A$1`)
  await writeFile(home, changed)
  await perun(10, "job", "list")
  await perun(2, "manager", "trust", study.pin.url, study.pin.key)
  await writeFile(home, pinned)
})

test("evidence verify wants a .jwt for the options of results", async () => {
  await perun(2, "evidence", "verify", study.policyFile, "--audience", audience)
})
