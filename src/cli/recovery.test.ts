/** A party that lost its identity, by hand: another one takes its place in a successor, and who has the lost one objects. */
import assert from "node:assert/strict"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { documentOf } from "../client/deposit.ts"
import { loadIdentity } from "../client/identity.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { type Policy, policyDigest } from "../policy/document.ts"
import { routes } from "../protocol/routes.ts"
import { demandStatus, lastEvent } from "./process.testing.ts"
import { RealStudy } from "./study.testing.ts"

describe("a lost identity", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  const references = captureReferences(machine)
  let study: RealStudy

  before(async () => {
    study = await RealStudy.start({ root: authority.root, endorsementKey: machine.endorsementKey, references })
  })
  after(async () => study[Symbol.asyncDispose]())

  async function submit(policy: Policy, name: string): Promise<string> {
    const file = join(study.folder, name)
    await writeFile(file, JSON.stringify(policy))
    using connection = await study.connect(study.vendor)
    const documents = [documentOf(references.boot), documentOf(references.ima)]
    await connection.call(routes.submitPolicy, { body: { policy: documentOf(policy), references: documents } })
    return file
  }

  test("rekey, successor, signatures, the wait that status shows, and the objection of who has the lost key", async () => {
    const { clinic, vendor } = study
    const party = study.policy.stakeholders["clinic"]
    assert.ok(party)
    const recovery = { by: { require: "all", of: ["vendor"] }, noticeSeconds: 604_800 } as const
    const first: Policy = { ...study.policy, stakeholders: { ...study.policy.stakeholders, clinic: { ...party, recovery } } }
    const firstFile = await submit(first, "first.json")
    const explained = await demandStatus(["policy", "explain", firstFile], 0, clinic.environment)
    assert.match(explained.stdout, /vendor may put other keys in the place of clinic's and so speak for it, 7 days after they proposed it/)
    for (const { environment } of [clinic, vendor]) await demandStatus(["policy", "sign", firstFile, "--yes"], 0, environment)

    const home = join(study.folder, "new-home")
    const environment = { PERUN_HOME: home }
    await demandStatus(["identity", "create", "clinic"], 0, environment)
    await demandStatus(["manager", "trust", study.pin.url, study.pin.key ?? ""], 0, environment)
    const again = join(study.folder, "records-again")
    const rekeyed = lastEvent(
      (await demandStatus(["artifact", "rekey", study.sealedFolder("records"), "--out", again, "--json"], 0, environment)).stdout,
    )
    const { key, recipient } = await loadIdentity(join(home, "identity"))
    const { records } = first.artifacts
    assert.ok(records)
    const second: Policy = {
      ...first,
      stakeholders: {
        ...first.stakeholders,
        clinic: { ...party, keys: [key], recovery, ...(party.recipients === undefined ? {} : { recipients: [recipient] }) },
      },
      artifacts: { ...first.artifacts, records: { ...records, manifest: String(rekeyed["manifest"]) as `sha256:${string}` } },
      supersedes: policyDigest(first),
      recovers: ["clinic"],
    }
    const secondFile = await submit(second, "second.json")
    const digest = policyDigest(second)
    const difference = await demandStatus(["policy", "diff", firstFile, secondFile], 0, vendor.environment)
    assert.match(difference.stdout, /the keys of clinic are LOST and replaced by others' word: from now on ssh-ed25519 \S+ speaks for clinic/)
    for (const who of [vendor.environment, environment]) await demandStatus(["policy", "sign", secondFile, "--yes"], 0, who)
    const waiting = await demandStatus(["policy", "status", digest], 0, vendor.environment)
    assert.match(waiting.stdout, /blocked +the party's former keys can still object: clinic, 20\d\d-/)

    // Who has the lost key sees it among its policies, and ends it.
    const { policies } = lastEvent((await demandStatus(["policy", "status", "--json"], 0, clinic.environment)).stdout) as {
      policies: readonly { digest: string }[]
    }
    assert.deepEqual(policies.map((one) => one.digest).toSorted(), [policyDigest(first), digest].toSorted())
    const ended = await demandStatus(["policy", "withdraw", digest, "--yes", "--json"], 0, clinic.environment)
    assert.equal(lastEvent(ended.stdout)["state"], "withdrawn")
    const after = await demandStatus(["policy", "status", policyDigest(first)], 0, vendor.environment)
    assert.match(after.stdout, /state +active/)
    await demandStatus(["policy", "sign", secondFile, "--yes"], 10, vendor.environment)
  })
})
