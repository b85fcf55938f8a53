/** Signatures as files: made without network, judged without a manager, handed in by whoever has them. */
import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { createIdentity } from "../client/identity.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { type Policy, policyDigest } from "../policy/document.ts"
import { demandStatus, type Environment, lastEvent } from "./process.testing.ts"
import { RealStudy } from "./study.testing.ts"

const noSshKeygen: string | false = spawnSync("ssh-keygen", ["-?"]).error === undefined ? false : "skipped: no ssh-keygen"

describe("signatures as files", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  const captured = captureReferences(machine)
  let study: RealStudy
  /** The study's policy with a program that must sign too, as a file. */
  let file: string
  let policy: Policy
  let checkerEnvironment: Environment
  /** A home with nothing in it. */
  const nowhere = { PERUN_HOME: "/nowhere" }
  const looked = digestOf(encodeUtf8("looked at"))

  before(async () => {
    study = await RealStudy.start({ root: authority.root, endorsementKey: machine.endorsementKey, references: captured })
    const home = join(study.folder, "checker")
    const identity = await createIdentity(join(home, "identity"), { name: "checker", recipient: "x25519" })
    checkerEnvironment = { PERUN_HOME: home }
    policy = { ...study.policy, stakeholders: { ...study.policy.stakeholders, checker: { keys: [identity.key], roles: ["checker"] } } }
    file = join(study.folder, "checked.json")
    await writeFile(file, JSON.stringify(policy))
    const report = {
      program: { name: "lint", version: "1.0", digest: looked },
      checks: [{ check: "no free text leaves", result: "passed", of: looked }],
    }
    await writeFile(join(study.folder, "passed.json"), JSON.stringify(report))
    await writeFile(
      join(study.folder, "failed.json"),
      JSON.stringify({ ...report, checks: [{ check: "no free text leaves", result: "failed", of: looked }] }),
    )
  })
  after(async () => study[Symbol.asyncDispose]())

  const at = (name: string): string => join(study.folder, name)
  async function sign(environment: Environment, out: string, ...more: readonly string[]): Promise<string> {
    await demandStatus(["policy", "sign", file, "--offline", "--yes", "--out", at(out), ...more], 0, environment)
    return at(out)
  }

  test("policy verify-signatures says whose they are, which are not good and why, and what is missing", async () => {
    const clinic = await sign(study.clinic.environment, "clinic.json")
    const vendor = await sign(study.vendor.environment, "vendor.json")
    const checked = await sign(checkerEnvironment, "checker.json", "--report", at("passed.json"))
    const all = await demandStatus(["policy", "verify-signatures", file, clinic, vendor, checked, "--json"], 0, nowhere)
    const event = lastEvent(all.stdout)
    assert.deepEqual([event["ok"], event["digest"], event["missing"]], [true, policyDigest(policy), []])
    const words = await demandStatus(["policy", "verify-signatures", file, clinic, vendor, checked], 0, nowhere)
    for (const word of ["clinic", "vendor", "checked     by checker: lint 1.0", "passed: no free text leaves", "\n  missing: nobody\n  complete\n"])
      assert.ok(words.stdout.includes(word), word)

    const missing = await demandStatus(["policy", "verify-signatures", file, clinic, "--json"], 10, nowhere)
    assert.deepEqual((JSON.parse(missing.stdout.split("\n")[0] ?? "") as { missing: string[] }).missing, ["vendor", "checker"])
    const bare = at("bare.json")
    await writeFile(bare, JSON.stringify((JSON.parse(await readFile(checked, "utf8")) as { signature: object }).signature))
    const other = at("other.json")
    await demandStatus(["policy", "sign", study.policyFile, "--offline", "--yes", "--out", other], 0, study.clinic.environment)
    for (const [bad, code] of [
      [bare, "check-missing"],
      [other, "wrong-signature"],
    ] as const) {
      const judged = await demandStatus(["policy", "verify-signatures", file, clinic, vendor, checked, bad], 10, nowhere)
      assert.ok(judged.stdout.includes(`[${code}]`), judged.stdout)
    }
    await demandStatus(["policy", "verify-signatures", file, at("passed.json")], 30, nowhere)
  })

  test("policy sign asks a checker, and nobody else, for what it checked", async () => {
    const words = ["policy", "sign", file, "--offline", "--yes", "--out", at("none.json")]
    await demandStatus(words, 10, checkerEnvironment)
    await demandStatus([...words, "--report", at("passed.json")], 10, study.clinic.environment)
    const failed = await sign(checkerEnvironment, "failed-checker.json", "--report", at("failed.json"))
    const { stdout } = await demandStatus(["policy", "verify-signatures", file, failed], 10, nowhere)
    assert.ok(stdout.includes("[wrong-check]"), stdout)
  })

  test("policy send-signatures hands in what others signed offline, and sends nothing when one is not good", async () => {
    const references = Object.values(captured).map((reference, index) => [at(`reference-${index}.json`), JSON.stringify(reference)] as const)
    for (const [path, text] of references) await writeFile(path, text)
    await demandStatus(["policy", "submit", file, ...references.flatMap(([path]) => ["--reference", path])], 0, study.clinic.environment)
    const clinic = await sign(study.clinic.environment, "send-clinic.json")
    const vendor = await sign(study.vendor.environment, "send-vendor.json")
    const checked = await sign(checkerEnvironment, "send-checker.json", "--report", at("passed.json"))
    await demandStatus(["policy", "send-signatures", file, vendor, at("failed-checker.json")], 10, study.clinic.environment)
    const before = lastEvent((await demandStatus(["policy", "status", file, "--json"], 0, study.clinic.environment)).stdout)
    assert.deepEqual(before["approvals"], [])
    const sent = lastEvent(
      (await demandStatus(["policy", "send-signatures", file, clinic, vendor, checked, "--json"], 0, study.clinic.environment)).stdout,
    )
    assert.equal((sent["status"] as { state: string }).state, "active")
    const status = await demandStatus(["policy", "status", file], 0, study.clinic.environment)
    assert.ok(status.stdout.includes("by checker: lint 1.0"), status.stdout)
  })

  test("policy verify-signatures reads what ssh-keygen -Y sign wrote", { skip: noSshKeygen }, async () => {
    const folder = at("ssh")
    await mkdir(folder)
    const key = join(folder, "id")
    assert.equal(spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key]).status, 0)
    await chmod(key, 0o600)
    const text = (await readFile(`${key}.pub`, "utf8")).trim().split(" ").slice(0, 2).join(" ")
    const own: Policy = { ...study.policy, stakeholders: { ...study.policy.stakeholders, auditor: { keys: [text], roles: ["auditor"] } } }
    await writeFile(join(folder, "policy.json"), JSON.stringify(own))
    await writeFile(join(folder, "statement"), `perun policy ${policyDigest(own)}`)
    assert.equal(spawnSync("ssh-keygen", ["-Y", "sign", "-q", "-n", "perun-policy", "-f", key, join(folder, "statement")]).status, 0)
    const judged = await demandStatus(
      ["policy", "verify-signatures", join(folder, "policy.json"), join(folder, "statement.sig"), "--json"],
      10,
      nowhere,
    )
    const [first] = (JSON.parse(judged.stdout.split("\n")[0] ?? "") as { signatures: { signer: string; valid: boolean }[] }).signatures
    assert.deepEqual([first?.signer, first?.valid], ["auditor", true])
  })
})
