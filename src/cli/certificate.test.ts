/** `certificate make` and `certificate verify` as real processes: made at a real manager, verified in a home that knows nothing but a key. */
import assert from "node:assert/strict"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { encodeBase64 } from "../bytes/text.ts"
import { sessionDigest } from "../evidence/bundle.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import type { Transport } from "../protocol/http-client.ts"
import { connectVerified, verifyManager } from "../protocol/manager-connection.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity } from "../protocol/tls.ts"
import { demandStatus, lastEvent } from "./process.testing.ts"
import { RealStudy } from "./study.testing.ts"

describe("certificates", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  const tls = createTlsIdentity("host-1")
  let study: RealStudy
  let stranger: string
  let transport: Transport
  let run: string
  let file: string

  before(async () => {
    stranger = await mkdtemp(join(tmpdir(), "perun-certificate-"))
    file = join(stranger, "certificate.json")
    study = await RealStudy.start({
      root: authority.root,
      endorsementKey: machine.endorsementKey,
      references: captureReferences(machine),
      job: { metrics: { to: ["clinic"], schema: { loss: { float: 4 } }, maxPerMinute: 60, maxBytes: 1000 } },
    })
    await study.agree()
    run = await study.queue()
    transport = connectVerified(await verifyManager(new URL(study.pin.url), study.pin, tls, { now: new Date() }), tls)
    const begun = await transport.call(routes.beginEnrolment, { body: machine.enrolmentRequest("host-1") })
    await transport.call(routes.answerEnrolment, { params: { enrolment: begun.enrolment }, body: { secret: machine.activate(begun) } })
  })
  after(async () => {
    transport[Symbol.dispose]()
    await study[Symbol.asyncDispose]()
    await rm(stranger, { recursive: true })
  })

  async function claim(): Promise<void> {
    const hpkeKey = encodeBase64((await generateHpkeKeyPair()).publicKey)
    const {
      challenge,
      purpose,
      manager,
      nonce,
      policy,
      job,
      run: asked,
      lease,
    } = await transport.call(routes.requestChallenge, {
      body: { purpose: "claim", host: "host-1" },
    })
    const facts = { purpose, version: 1, manager, nonce, hpkeKey, tlsKey: tls.tlsKey, akName: machine.akName, deviceEvidence: [] } as const
    await transport.call(routes.claimRun, {
      body: { challenge, hpkeKey, bundle: machine.bundle(sessionDigest({ ...facts, policy, job, run: asked, lease })) },
    })
  }

  const alone = (): Record<string, string> => ({ PERUN_HOME: stranger })

  async function verify(words: readonly string[], status = 0, path = file): Promise<Record<string, unknown>> {
    return lastEvent((await demandStatus(["certificate", "verify", path, ...words, "--json"], status, alone())).stdout)
  }

  test("a run that has not ended has none", async () => {
    const { stdout } = await demandStatus(["certificate", "make", run, "--out", file, "--json"], 10, study.clinic.environment)
    assert.equal(lastEvent(stdout)["code"], "wrong-state")
  })

  test("made by a party, verified by anybody who knows the manager's key, and nothing else", async () => {
    await claim()
    for (const loss of [0.5, 0.25]) await transport.call(routes.reportMetrics, { params: { run }, body: { values: { loss } } })
    await transport.call(routes.finishRun, { params: { run }, body: { status: "failed", reason: "job-failed" } })
    const { stdout } = await demandStatus(["certificate", "make", run, "--out", file, "--metrics"], 0, study.clinic.environment)
    assert.match(stdout, /metrics +2 reports, sha256:[0-9a-f]{64}, shown here/)
    assert.match(stdout, /not proved: that the program does what its name says/)
    await demandStatus(["certificate", "make", run, "--out", file], 2, study.clinic.environment)
    const proof = await verify(["--manager-key", study.pin.key ?? "", "--party", `clinic=${study.clinic.identity.key}`])
    assert.deepEqual([proof["run"], proof["policy"], proof["end"], proof["laboratory"]], [run, study.digest, "failed", true])
    assert.deepEqual(JSON.parse(await readFile(file, "utf8")).metrics, [{ loss: 0.5 }, { loss: 0.25 }])
    // The vendor's policy shows it no metrics.
    const other = join(stranger, "vendor.json")
    const refused = await demandStatus(["certificate", "make", run, "--out", other, "--metrics", "--json"], 10, study.vendor.environment)
    assert.equal(lastEvent(refused.stdout)["code"], "wrong-metrics")
    await demandStatus(["certificate", "make", run, "--out", other], 0, study.vendor.environment)
  })

  test("another key, another party, a changed or cut file are refused, each with its status", async () => {
    assert.equal((await verify([], 2))["code"], "usage")
    assert.equal((await verify(["--manager-key", study.clinic.identity.key], 10))["code"], "wrong-manager")
    const pinned = ["--manager-key", study.pin.key ?? ""]
    assert.equal((await verify([...pinned, "--party", `clinic=${study.vendor.identity.key}`], 10))["code"], "wrong-run-certificate")
    await verify([...pinned, "--party", "clinic"], 2)
    await verify([...pinned, "--manager-key", "ssh-ed25519 AAAA"], 2)
    const spoilt = join(stranger, "spoilt.json")
    const text = await readFile(file, "utf8")
    await writeFile(spoilt, text.replace("job-failed", "succeeded").replace('"failed"', '"succeeded"'))
    assert.equal((await verify(pinned, 10, spoilt))["code"], "wrong-proof")
    await writeFile(spoilt, text.slice(0, -10))
    assert.equal((await verify(pinned, 30, spoilt))["code"], "malformed")
    await verify(pinned, 40, join(stranger, "none.json"))
  })
})
