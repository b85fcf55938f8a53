/** `audit list` remembers the head of a manager's list: a list that is shorter, forked or rewritten is refused. Real processes. */
import assert from "node:assert/strict"
import { cp, readFile, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { demandStatus, lastEvent } from "./process.testing.ts"
import { RealStudy } from "./study.testing.ts"

describe("audit list", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  let study: RealStudy

  before(async () => {
    study = await RealStudy.start({ root: authority.root, endorsementKey: machine.endorsementKey, references: captureReferences(machine) })
    await study.submit()
  })
  after(async () => study[Symbol.asyncDispose]())

  const headFile = (): string => join(study.clinic.home, "audit-heads.json")

  async function list(status: number): Promise<Readonly<Record<string, unknown>>> {
    const { stdout } = await demandStatus(["audit", "list", "--json"], status, study.clinic.environment)
    return lastEvent(stdout)
  }

  /** Puts a copy of the manager's folder in the place of the present one, as an operator with a backup does. */
  async function putBack(copy: string): Promise<void> {
    await study.stopManager()
    await rm(study.managerFolder, { recursive: true })
    await cp(copy, study.managerFolder, { recursive: true })
    await study.startManager()
  }

  async function keepCopy(name: string): Promise<string> {
    await study.stopManager()
    const copy = join(study.folder, name)
    await cp(study.managerFolder, copy, { recursive: true })
    await study.startManager()
    return copy
  }

  async function refused(words: RegExp): Promise<void> {
    const before = await readFile(headFile(), "utf8")
    const event = await list(10)
    assert.equal(event["code"], "wrong-receipts")
    assert.match(String(event["message"]), words)
    assert.match(String(event["message"]), /seen on 20.*audit-heads\.json/)
    assert.equal(await readFile(headFile(), "utf8"), before, "what was seen stays remembered")
  }

  test("keeps number and digest of the newest receipt, and goes on from there", async () => {
    const first = await list(0)
    const { heads } = JSON.parse(await readFile(headFile(), "utf8")) as { heads: readonly object[] }
    assert.equal(heads.length, 1)
    assert.deepEqual(first["head"], { count: first["verified"], last: (heads[0] as { last: string }).last })
    await study.sign(study.clinic)
    assert.ok(Number((await list(0))["verified"]) > Number(first["verified"]))
    const { stdout } = await demandStatus(["audit", "list", "--kind", "policy-signed"], 0, study.clinic.environment)
    assert.match(stdout, /among them, unchanged, the \d+ that were there on 20/)
  })

  test("refuses a list that is shorter than the one seen, then one that is forked; the true one passes again", async () => {
    const early = await keepCopy("early")
    await study.sign(study.vendor)
    await list(0)
    const late = await keepCopy("late")
    await putBack(early)
    await refused(/the list has \d+ receipts, \d+ were seen before: it was cut or rolled back/)
    // The operator lets another story happen until the list is long enough.
    await study.sign(study.vendor)
    await study.deposit(study.clinic, "records")
    await study.deposit(study.vendor, "trainer")
    await refused(/receipt \d+ is another one than before: found sha256:[0-9a-f]{64}, seen was sha256:[0-9a-f]{64}; the list was forked or rewritten/)
    await putBack(late)
    await list(0)
  })

  test("refuses another instance under the same key, and a file of heads that is none", async () => {
    const text = await readFile(headFile(), "utf8")
    await writeFile(headFile(), text.replace(/"instance": "[0-9a-f]{32}"/, `"instance": "${"0".repeat(32)}"`))
    assert.match(String((await list(10))["message"]), /another list stands in the old one's place/)
    await writeFile(headFile(), text.replace('"count"', '"surprise": 1, "count"'))
    assert.equal((await list(30))["code"], "malformed")
    await writeFile(headFile(), text)
    await list(0)
  })
})
