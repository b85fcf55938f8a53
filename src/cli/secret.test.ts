/** `secret make` and `secret deposit` as real processes against a real manager: what can be judged here is judged before a byte is sent. */
import assert from "node:assert/strict"
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import type { Digest } from "../bytes/digest.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { routes } from "../protocol/routes.ts"
import { demandStatus, lastEvent } from "./process.testing.ts"
import { RealStudy, type TestParty } from "./study.testing.ts"

describe("secrets", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  let folder: string
  let study: RealStudy
  let file: string

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "perun-secret-"))
    file = join(folder, "token.json")
    const { commitment } = await make("t0ken-of-the-vendor", file)
    study = await RealStudy.start({
      root: authority.root,
      endorsementKey: machine.endorsementKey,
      references: captureReferences(machine),
      secrets: { token: { owner: "vendor", commitment: commitment as Digest }, seed: { made: { bytes: 16, as: "hex", per: "run" } } },
      job: { secrets: { token: { environment: "API_TOKEN" }, seed: { environment: "SEED" } } },
    })
  })
  after(async () => {
    await study[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
  })

  /** A value that nobody has kept yet, in a file of its own. */
  async function make(value: string | Uint8Array, out: string, status = 0): Promise<Record<string, unknown>> {
    const source = join(folder, "value")
    await writeFile(source, value)
    const { stdout } = await demandStatus(["secret", "make", "--value-file", source, "--out", out, "--json"], status, { PERUN_HOME: folder })
    assert.ok(value === "" || !stdout.includes(Buffer.from(value).toString()), "the value is not told")
    return lastEvent(stdout)
  }

  async function refused(party: TestParty, name: string, from: string, status: number, code: string, policyFile = study.policyFile): Promise<void> {
    const { stdout } = await demandStatus(["secret", "deposit", policyFile, name, from, "--json"], status, party.environment)
    assert.equal(lastEvent(stdout)["code"], code)
  }

  async function brought(): Promise<readonly string[]> {
    using connection = await study.connect(study.clinic)
    return (await connection.call(routes.getPolicy, { params: { digest: study.digest } })).secrets
  }

  test("make keeps value and salt for the owner alone, gives another commitment each time, and writes over nothing", async () => {
    const [one, other] = [await make("value", join(folder, "one.json")), await make("value", join(folder, "again.json"))]
    assert.match(String(one["commitment"]), /^sha256:[0-9a-f]{64}$/)
    assert.notEqual(one["commitment"], other["commitment"])
    assert.equal((await stat(file)).mode & 0o777, 0o600)
    const text = await readFile(file, "utf8")
    assert.equal((await make("other", file, 2))["code"], "already-exists")
    assert.equal(await readFile(file, "utf8"), text)
    assert.equal((await make("", join(folder, "empty.json"), 30))["code"], "malformed")
    assert.equal((await make(new Uint8Array(65_537), join(folder, "large.json"), 30))["code"], "too-large")
  })

  test("deposit sends nothing that is not the policy's secret, by its owner, under its own signature, at the policy's manager", async () => {
    await refused(study.vendor, "token", file, 10, "not-found")
    await study.submit()
    await study.sign(study.clinic)
    await refused(study.vendor, "token", file, 10, "owner-not-signed")
    await study.sign(study.vendor)
    await refused(study.vendor, "nothing", file, 10, "not-found")
    await refused(study.vendor, "seed", file, 10, "not-permitted")
    await refused(study.clinic, "token", file, 10, "not-permitted")
    await refused(study.vendor, "token", join(folder, "again.json"), 10, "wrong-secret")
    await refused(study.vendor, "token", study.policyFile, 30, "malformed")
    await refused(study.vendor, "token", join(folder, "absent.json"), 40, "unavailable")
    const others = join(study.folder, "others.json")
    await writeFile(others, JSON.stringify({ ...study.policy, manager: { insecureUnattested: { key: study.clinic.identity.key } } }))
    await refused(study.vendor, "token", file, 10, "wrong-manager", others)
    assert.deepEqual(await brought(), [])
    const { stdout } = await demandStatus(["policy", "status", study.policyFile], 0, study.clinic.environment)
    assert.match(stdout, /secrets +seed \(the manager draws it\); to be brought: token \(vendor\)/)
  })

  test("deposit brings it, and again; status says so; after a withdrawal nothing more", async () => {
    for (let count = 0; count < 2; count++) await demandStatus(["secret", "deposit", study.policyFile, "token", file], 0, study.vendor.environment)
    assert.deepEqual(await brought(), ["token"])
    const { stdout } = await demandStatus(["policy", "status", study.policyFile], 0, study.clinic.environment)
    assert.match(stdout, /secrets +token, seed \(the manager draws it\)$/m)
    await demandStatus(["policy", "withdraw", study.policyFile, "--yes", "--json"], 0, study.vendor.environment)
    assert.deepEqual(await brought(), [])
    await refused(study.vendor, "token", file, 10, "policy-withdrawn")
  })
})
