/** Backups of a manager in a process of its own, restored: the newest goes on as if nothing had been; an older one is recognised by whoever saw more. */
import assert from "node:assert/strict"
import { cp, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { demandStatus, filesBelow, lastEvent } from "./process.testing.ts"
import { RealStudy } from "./study.testing.ts"

describe("manager backup and restore", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  let study: RealStudy
  const at = (name: string): string => join(study.folder, name)

  before(async () => {
    const { root } = authority
    study = await RealStudy.start({ root, endorsementKey: machine.endorsementKey, references: captureReferences(machine) })
  })
  after(async () => study[Symbol.asyncDispose]())

  async function manager(words: readonly string[], status = 0): Promise<Record<string, unknown>> {
    const { stdout } = await demandStatus(["manager", ...words, "--json"], status, { PERUN_HOME: at("home-operator") })
    return lastEvent(stdout)
  }

  /** Puts a backup in the place of the manager's folder. */
  async function putBack(backup: string): Promise<void> {
    await study.stopManager("SIGTERM")
    await rename(study.managerFolder, at(`gone-${(await readdir(study.folder)).length}`))
    await manager(["restore", backup, "--out", study.managerFolder])
    await study.startManager()
  }

  const status = async (expected: number): Promise<Record<string, unknown>> =>
    lastEvent((await demandStatus(["policy", "status", study.policyFile, "--json"], expected, study.clinic.environment)).stdout)

  test("a running manager is not copied from outside, and says how it is", async () => {
    const refused = await manager(["backup", study.managerFolder, "--out", at("early")], 40)
    assert.match(String(refused["message"]), /manager serve --backups/)
    await assert.rejects(readdir(at("early")), { code: "ENOENT" })
  })

  test("the newest backup goes on where the manager stopped; an older one is refused by whoever saw more", async () => {
    await study.submit()
    await status(0)
    await study.stopManager("SIGTERM")
    const older = await manager(["backup", study.managerFolder, "--out", at("older")])
    assert.ok(Number(older["receipts"]) >= 1)
    await study.startManager()
    for (const party of [study.clinic, study.vendor]) await study.sign(party)
    await study.deposit(study.clinic, "records")
    assert.equal((await status(0))["state"], "active")
    await study.stopManager("SIGTERM")
    const newer = await manager(["backup", study.managerFolder, "--out", at("newer")])
    assert.ok(Number(newer["receipts"]) > Number(older["receipts"]))
    assert.ok(Number(newer["blobs"]) > 0)
    await study.startManager()

    await putBack(at("newer"))
    const { state, deposits } = await status(0)
    assert.deepEqual([state, deposits], ["active", ["records"]])
    await study.deposit(study.vendor, "trainer")

    await putBack(at("older"))
    const refused = await status(10)
    assert.equal(refused["code"], "older-tree")
    assert.match(String(refused["message"]), /cut or set back/)
  })

  test("a clone of the manager that went another way is refused as forked", async () => {
    await rm(join(study.clinic.home, "checkpoints.json"))
    await putBack(at("newer"))
    await study.deposit(study.vendor, "trainer")
    await status(0)
    await putBack(at("newer"))
    await demandStatus(["policy", "withdraw", study.policyFile, "--yes", "--json"], 0, study.vendor.environment)
    assert.equal((await status(10))["code"], "forked")
  })

  test("a changed backup is not restored, and the file is named", async () => {
    await cp(at("newer"), at("spoiled"), { recursive: true })
    await writeFile(join(at("spoiled"), "members"), "")
    const refused = await manager(["restore", at("spoiled"), "--out", at("restored")], 30)
    assert.match(JSON.stringify(refused), /members/)
    await assert.rejects(readdir(at("restored")), { code: "ENOENT" })
    await mkdir(at("no-backup"))
    assert.equal((await manager(["restore", at("no-backup"), "--out", at("restored")], 40))["ok"], false)
  })

  test("manager serve --backups makes one as it starts", async () => {
    await study.stopManager("SIGTERM")
    await rm(study.managerFolder, { recursive: true })
    await manager(["restore", at("newer"), "--out", study.managerFolder])
    await study.startManager(["--backups", at("kept"), "--backup-every", "1", "--backup-keep", "2"])
    let names: readonly string[] = []
    for (let count = 0; count < 200 && names.length === 0; count++) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      names = (await readdir(at("kept")).catch(() => [])).filter((name) => /^\d{8}T\d{6}Z$/.test(name))
    }
    assert.equal(names.length, 1)
    const made = join(at("kept"), names[0] ?? "")
    const summary = await manager(["restore", made, "--out", at("from-live")])
    assert.ok(Number(summary["receipts"]) > 0)
    assert.equal((await filesBelow(join(at("from-live"), "blobs"))).length, Number(summary["blobs"]))
  })
})
