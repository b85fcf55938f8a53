/** `artifact deposit` as a real process against a real manager: what can be judged here is judged before a byte is uploaded. */
import assert from "node:assert/strict"
import { cp, readFile, rm, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import type { Policy } from "../policy/document.ts"
import { signStatement } from "../pki/statement.ts"
import { routes } from "../protocol/routes.ts"
import { identityPath } from "../sealing/blobs.ts"
import { manifestDigest, manifestSigner, parseSignedManifest } from "../sealing/manifest.ts"
import { demandStatus, filesBelow, lastEvent } from "./process.testing.ts"
import { RealStudy, type TestParty } from "./study.testing.ts"

describe("artifact deposit", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  let study: RealStudy

  before(async () => {
    const { root } = authority
    study = await RealStudy.start({ root, endorsementKey: machine.endorsementKey, references: captureReferences(machine) })
  })
  after(async () => study[Symbol.asyncDispose]())

  async function refused(
    party: TestParty,
    artifact: string,
    folder: string,
    status: number,
    code: string,
    policyFile = study.policyFile,
  ): Promise<void> {
    const { stdout } = await demandStatus(["artifact", "deposit", policyFile, artifact, folder, "--json"], status, party.environment)
    assert.equal(lastEvent(stdout)["code"], code)
    assert.deepEqual(await filesBelow(join(study.managerFolder, "blobs")), [], "nothing was uploaded")
  }

  /** A copy of the sealed records that something was done to. */
  async function spoiledCopy(name: string, spoil: (folder: string) => Promise<void>): Promise<string> {
    const folder = join(study.folder, name)
    await cp(study.sealedFolder("records"), folder, { recursive: true })
    await cp(identityPath(study.sealedFolder("records")), identityPath(folder))
    await spoil(folder)
    return folder
  }

  async function changedPolicy(name: string, change: (policy: Policy) => Policy): Promise<string> {
    const file = join(study.folder, name)
    await writeFile(file, JSON.stringify(change(study.policy)))
    return file
  }

  test("uploads nothing before the policy is there and its owner's signature on it", async () => {
    await refused(study.clinic, "records", study.sealedFolder("records"), 10, "not-found")
    await study.submit()
    await refused(study.clinic, "records", study.sealedFolder("records"), 10, "owner-not-signed")
    await study.sign(study.vendor)
    await refused(study.clinic, "records", study.sealedFolder("records"), 10, "owner-not-signed")
    await study.sign(study.clinic)
  })

  test("uploads nothing that is not the policy's artifact, whole, with its own key, by its owner, at the policy's manager", async () => {
    const sealed = study.sealedFolder("records")
    await refused(study.clinic, "nothing", sealed, 10, "not-found")
    await refused(study.vendor, "records", sealed, 10, "not-permitted")
    await refused(study.clinic, "records", study.sealedFolder("trainer"), 10, "wrong-manifest")
    const others = await changedPolicy("others.json", (policy) => ({
      ...policy,
      manager: { insecureUnattested: { key: study.clinic.identity.key } },
    }))
    await refused(study.clinic, "records", sealed, 10, "wrong-manager", others)
    const foreign = await changedPolicy("foreign.json", ({ stakeholders: { vendor }, ...policy }) => ({
      ...policy,
      stakeholders: { clinic: { keys: [study.pin.key], roles: ["data"] }, ...(vendor === undefined ? {} : { vendor }) },
    }))
    await refused(study.clinic, "records", sealed, 10, "not-permitted", foreign)
    const cut = await spoiledCopy("cut", (folder) => truncate(join(folder, "shard-0000.tar.age"), 100))
    await refused(study.clinic, "records", cut, 30, "truncated")
    const changed = await spoiledCopy("changed", async (folder) => {
      const bytes = await readFile(join(folder, "index.json.age"))
      bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1)
      await writeFile(join(folder, "index.json.age"), bytes)
    })
    await refused(study.clinic, "records", changed, 10, "corrupt")
    const gone = await spoiledCopy("gone", (folder) => rm(join(folder, "index.json.age")))
    await refused(study.clinic, "records", gone, 40, "missing")
    const otherKey = await spoiledCopy("other-key", (folder) => cp(identityPath(study.sealedFolder("trainer")), identityPath(folder)))
    await refused(study.clinic, "records", otherKey, 10, "wrong-key")
  })

  test("uploads nothing whose kind is not the policy's", async () => {
    let manifest = ""
    const other = await spoiledCopy("kind", async (folder) => {
      const signed = parseSignedManifest(await readFile(join(folder, "manifest.json")))
      const model = { ...signed.manifest, kind: "model" as const }
      manifest = manifestDigest(model)
      const signature = await manifestSigner(study.clinic.identity.privateKey).sign(manifestDigest(model))
      await writeFile(join(folder, "manifest.json"), JSON.stringify({ manifest: model, signature }))
    })
    const file = await changedPolicy("kind.json", (policy) => ({
      ...policy,
      artifacts: { ...policy.artifacts, records: { kind: "dataset", owner: "clinic", manifest: manifest as `sha256:${string}` } },
    }))
    await refused(study.clinic, "records", other, 10, "wrong-manifest", file)
  })

  test("deposits when everything holds, and again; after a withdrawal nothing more", async () => {
    const deposit = ["artifact", "deposit", study.policyFile, "records", study.sealedFolder("records")]
    await demandStatus(deposit, 0, study.clinic.environment)
    assert.equal((await filesBelow(join(study.managerFolder, "blobs"))).length, 2)
    await demandStatus(deposit, 0, study.clinic.environment)
    using connection = await study.connect(study.clinic)
    const signature = signStatement("withdraw", study.digest, study.clinic.identity.privateKey)
    await connection.call(routes.withdrawPolicy, { params: { digest: study.digest }, body: { signature } })
    const { stdout } = await demandStatus([...deposit, "--json"], 10, study.clinic.environment)
    assert.equal(lastEvent(stdout)["code"], "policy-withdrawn")
  })
})
