/** Ctrl-C and kill -9 in the middle of long commands, as real processes: the same call goes on, and nothing half is left. */
import assert from "node:assert/strict"
import { createHash, randomBytes } from "node:crypto"
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { encodeBase64 } from "../bytes/text.ts"
import { documentOf } from "../client/deposit.ts"
import { sessionDigest } from "../evidence/bundle.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import { connectVerified, verifyManager } from "../protocol/manager-connection.ts"
import type { OutputView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity } from "../protocol/tls.ts"
import { indexFileName, shardFileName } from "../sealing/blobs.ts"
import { manifestSigner } from "../sealing/manifest.ts"
import { sealArtifact } from "../sealing/seal-artifact.ts"
import { demandStatus, endOf, eventsOf, filesBelow, lastEvent, startCommand } from "./process.testing.ts"
import { RealStudy, until } from "./study.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-interrupt-"))
after(() => rm(base, { recursive: true, force: true }))
const signals = ["SIGINT", "SIGKILL"] as const

describe("interrupts", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  const model = randomBytes(16_000_000)
  let study: RealStudy
  let output = ""

  before(async () => {
    const { root } = authority
    const options = { root, endorsementKey: machine.endorsementKey, references: captureReferences(machine), recordsBytes: 60_000_000 }
    study = await RealStudy.start(options)
    await study.submit()
    for (const party of [study.clinic, study.vendor]) await study.sign(party)
  })
  after(async () => study[Symbol.asyncDispose]())

  /** Starts a command, interrupts it at a moment, and says how it ended; one that was faster than the moment is no interrupt. */
  async function interrupted(args: readonly string[], signal: NodeJS.Signals, moment: () => Promise<boolean>): Promise<void> {
    const child = startCommand(args, study.clinic.environment)
    const ended = endOf(child)
    await until(`the middle of perun ${args[0]}`, moment)
    child.kill(signal)
    const { status, stderr } = await ended
    assert.equal(status, signal === "SIGKILL" ? null : 130, stderr)
    if (signal === "SIGINT") assert.match(stderr, /^perun: interrupted$/m)
  }

  const entries = (folder: string): Promise<readonly string[]> => readdir(folder).catch(() => [])
  const digestOf = async (path: string): Promise<string> =>
    createHash("sha256")
      .update(await readFile(path))
      .digest("hex")

  test("seal and open", async () => {
    for (const signal of signals) {
      const sealed = join(base, `sealed-${signal}`)
      const seal = ["seal", join(study.folder, "records"), "--out", sealed, "--kind", "dataset", "--name", "records"]
      await interrupted(seal, signal, async () => (await entries(sealed)).some((name) => name.startsWith(".shard-")))
      await demandStatus(seal, 0, study.clinic.environment)
      assert.deepEqual((await filesBelow(sealed)).toSorted(), ["index.json.age", "manifest.json", "shard-0000.tar.age"])

      const parent = join(base, `opened-${signal}`)
      await mkdir(parent)
      const open = ["open", sealed, "--out", join(parent, "files")]
      await interrupted(open, signal, async () => (await entries(parent)).some((name) => name.startsWith(".files.opening-")))
      if (signal === "SIGINT") assert.deepEqual(await entries(parent), [], "no plaintext is left")
      await demandStatus(open, 0, study.clinic.environment)
      assert.deepEqual(await entries(parent), ["files"], "no plaintext is left beside it")
      assert.equal(await digestOf(join(parent, "files", "table.csv")), await digestOf(join(study.folder, "records", "table.csv")))
    }
  })

  test("artifact deposit", async () => {
    const deposit = ["artifact", "deposit", study.policyFile, "records", study.sealedFolder("records")]
    const blobs = join(study.managerFolder, "blobs")
    for (const signal of signals) {
      await interrupted(deposit, signal, async () => (await filesBelow(blobs)).length > 0)
      const { stdout } = await demandStatus(["artifact", "list", "--json"], 0, study.clinic.environment)
      assert.deepEqual(lastEvent(stdout)["artifacts"], [], "nothing was deposited")
    }
    await demandStatus(deposit, 0, study.clinic.environment)
    await until("unfinished uploads are gone", async () => (await filesBelow(blobs)).length === 2)
  })

  test("output vote shows what it signs, and output fetch goes on where it was", async () => {
    await study.deposit(study.vendor, "trainer")
    output = await makeOutput()
    const fetchTo = (name: string): readonly string[] => ["output", "fetch", output, "--out", join(base, name, "model")]
    await demandStatus(fetchTo("early"), 10, study.clinic.environment)
    assert.deepEqual(await entries(join(base, "early")), [])
    const { stdout } = await demandStatus(["output", "vote", output, "--json", "--yes"], 0, study.clinic.environment)
    const ballot = eventsOf(stdout).find(({ event }) => event === "ballot")
    const cast = lastEvent(stdout) as unknown as OutputView
    assert.deepEqual([ballot?.["ciphertext"], ballot?.["evidence"], ballot?.["laboratory"]], [cast.ciphertext, cast.evidence, true])
    assert.deepEqual([ballot?.["to"], ballot?.["host"], ballot?.["policy"], ballot?.["policySigned"]], [["clinic"], "host-1", study.digest, true])
    await demandStatus(["output", "vote", output], 2, study.vendor.environment)
    const shown = await demandStatus(["output", "vote", output, "--yes"], 0, study.vendor.environment)
    for (const words of [cast.ciphertext, cast.evidence, cast.run, study.digest, "clinic", "host-1", "INSECURE LABORATORY"])
      assert.ok(shown.stdout.includes(words), words)

    for (const signal of signals) {
      const parent = join(base, `fetched-${signal}`)
      const fetch = fetchTo(`fetched-${signal}`)
      await interrupted(fetch, signal, async () => (await filesBelow(parent)).some((name) => name.startsWith(".perun-fetch-")))
      assert.equal((await entries(parent)).includes("model"), false)
      await demandStatus(fetch, 0, study.clinic.environment)
      assert.deepEqual(await entries(parent), ["model"])
      assert.deepEqual(await readFile(join(parent, "model", "model.safetensors")), model)
      await demandStatus(fetch, 2, study.clinic.environment)
    }
  })

  /** A run as a machine does it, up to its sealed output. */
  async function makeOutput(): Promise<string> {
    const run = await study.queue()
    const tls = createTlsIdentity("host-1")
    using transport = connectVerified(await verifyManager(new URL(study.pin.url), study.pin, tls, { now: new Date() }), tls)
    const begun = await transport.call(routes.beginEnrolment, { body: machine.enrolmentRequest("host-1") })
    const secret = machine.activate(begun)
    await transport.call(routes.answerEnrolment, { params: { enrolment: begun.enrolment }, body: { secret } })
    const { challenge, purpose, nonce, manager, policy, job, lease } = await transport.call(routes.requestChallenge, {
      body: { purpose: "claim", host: "host-1" },
    })
    const hpkeKey = encodeBase64((await generateHpkeKeyPair()).publicKey)
    const facts = { purpose, version: 1, manager, nonce, hpkeKey, tlsKey: tls.tlsKey, deviceEvidence: [], policy, job, run, lease } as const
    const bundle = machine.bundle(sessionDigest({ ...facts, akName: machine.akName }))
    const grant = await transport.call(routes.claimRun, { body: { challenge, hpkeKey, bundle } })
    const source = join(base, "model")
    await mkdir(source)
    await writeFile(join(source, "model.safetensors"), model)
    const sealed = join(base, "model-sealed")
    const signer = manifestSigner(study.vendor.identity.privateKey)
    const { signed } = await sealArtifact({
      source,
      output: sealed,
      kind: "output",
      name: "model",
      signer,
      key: { recipient: grant.outputRecipient },
    })
    for (const [number, { digest }] of signed.manifest.shards.entries()) await transport.putBlobFile(digest, join(sealed, shardFileName(number)))
    await transport.putBlobFile(signed.manifest.index.digest, join(sealed, indexFileName))
    const reported = await transport.call(routes.reportOutput, { params: { run }, body: { name: "model", manifest: documentOf(signed) } })
    await transport.call(routes.finishRun, { params: { run }, body: { status: "succeeded" } })
    return reported.output
  }
})
