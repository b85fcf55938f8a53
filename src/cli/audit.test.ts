/** What clients remember of a manager's log: one that is shorter, forked or rewritten is refused by every command. Real processes. */
import assert from "node:assert/strict"
import { cp, readFile, rm, writeFile } from "node:fs/promises"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { parseCheckpoint } from "../log/checkpoint.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { demandStatus, lastEvent, runCommand } from "./process.testing.ts"
import { RealStudy } from "./study.testing.ts"

describe("audit", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  let study: RealStudy

  before(async () => {
    study = await RealStudy.start({ root: authority.root, endorsementKey: machine.endorsementKey, references: captureReferences(machine) })
    await study.submit()
  })
  after(async () => study[Symbol.asyncDispose]())

  const seenFile = (party = study.clinic): string => join(party.home, "checkpoints.json")

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

  async function refused(words: readonly string[], code: string, message: RegExp): Promise<void> {
    const before = await readFile(seenFile(), "utf8")
    const event = lastEvent((await demandStatus([...words, "--json"], 10, study.clinic.environment)).stdout)
    assert.equal(event["code"], code)
    assert.match(String(event["message"]), message)
    assert.equal(await readFile(seenFile(), "utf8"), before, "what was seen stays remembered")
  }

  test("every command remembers the log's checkpoint, as the manager signed it, and goes on from there", async () => {
    await demandStatus(["policy", "status", study.policyFile], 0, study.clinic.environment)
    const { checkpoints } = JSON.parse(await readFile(seenFile(), "utf8")) as { checkpoints: readonly { checkpoint: string }[] }
    const first = await list(0)
    assert.equal(checkpoints[0]?.checkpoint, first["checkpoint"])
    assert.equal(parseCheckpoint(String(first["checkpoint"])).size, first["verified"])
    await study.sign(study.clinic)
    assert.ok(Number((await list(0))["verified"]) > Number(first["verified"]))
    const { stdout } = await demandStatus(["audit", "list", "--kind", "policy-signed"], 0, study.clinic.environment)
    assert.match(stdout, /every one in the tree whose root the manager signed/)
  })

  test("audit show keeps a receipt with its proof, which audit verify takes offline by the manager's key and instance alone", async () => {
    const file = join(study.folder, "receipt.json")
    await demandStatus(["audit", "show", "0", "--out", file], 0, study.clinic.environment)
    const status = lastEvent((await demandStatus(["manager", "status", "--json"], 0, study.clinic.environment)).stdout)
    const verify = ["audit", "verify", file, "--log-key", String(status["logKey"]), "--instance", String(status["instance"])]
    // A home that knows nothing.
    const nobody = { PERUN_HOME: join(study.folder, "nobody") }
    assert.match((await demandStatus(verify, 0, nobody)).stdout, /receipt 0 of a log of \d+/)
    const proven = JSON.parse(await readFile(file, "utf8")) as { receipt: { kind: string }; proof: string[] }
    assert.equal(proven.receipt.kind, "policy-submitted")
    await demandStatus([...verify.slice(0, -1), "0".repeat(32)], 10, nobody)
    await demandStatus([...verify.slice(0, 4), study.clinic.identity.key, ...verify.slice(5)], 10, nobody)
    await writeFile(file, JSON.stringify({ ...proven, receipt: { ...proven.receipt, by: "vendor" } }))
    await demandStatus(verify, 10, nobody)
    await writeFile(file, JSON.stringify({ ...proven, proof: "x" }))
    assert.ok((await demandStatus(verify, 30, nobody)).stderr.includes(file))
  })

  test("audit export keeps the whole log, which audit verify takes offline, and which must go on from an earlier one", async () => {
    const [first, second] = [join(study.folder, "first.jsonl"), join(study.folder, "second.jsonl")]
    await demandStatus(["audit", "export", "--out", first], 0, study.clinic.environment)
    await demandStatus(["audit", "export", "--out", first], 2, study.clinic.environment)
    await demandStatus(["audit", "export", "--out", second], 0, study.clinic.environment)
    const status = lastEvent((await demandStatus(["manager", "status", "--json"], 0, study.clinic.environment)).stdout)
    const nobody = { PERUN_HOME: join(study.folder, "nobody") }
    const keys = ["--log-key", String(status["logKey"]), "--instance", String(status["instance"])]
    const verify = async (expected: number, file: string, ...words: readonly string[]): Promise<Readonly<Record<string, unknown>>> =>
      lastEvent((await demandStatus(["audit", "verify", file, ...keys, ...words, "--json"], expected, nobody)).stdout)
    const { size } = await verify(0, first)
    assert.equal((await verify(0, second, "--goes-on-from", first))["size"], size)
    const checkpoint = join(study.folder, "checkpoint")
    await demandStatus(["audit", "checkpoint", "--out", checkpoint], 0, study.clinic.environment)
    await verify(0, second, "--goes-on-from", checkpoint)
    await verify(30, second, "--goes-on-from", join(study.clinic.home, "checkpoints.json"))
    await verify(2, join(study.folder, "receipt.json"), "--goes-on-from", first)
    await verify(30, "/dev/zero")
    await verify(40, study.folder)
    await verify(40, join(study.folder, "none"))
    const text = await readFile(second, "utf8")
    await writeFile(second, text.replace('"by":"clinic"', '"by":"vendor"'))
    assert.equal((await verify(10, second))["code"], "wrong-receipts")
  })

  test("audit show refuses a receipt that there is not", async () => {
    await demandStatus(["audit", "show", "999"], 10, study.clinic.environment)
    await demandStatus(["audit", "show", "x"], 2, study.clinic.environment)
  })

  test("a log that is shorter than the one seen stops every command; so does one that is forked; the true one passes again", async () => {
    const early = await keepCopy("early")
    await study.sign(study.vendor)
    await list(0)
    const late = await keepCopy("late")
    const kept = join(study.folder, "kept")
    await demandStatus(["audit", "checkpoint", "--out", kept], 0, study.clinic.environment)
    await putBack(early)
    for (const words of [
      ["audit", "list"],
      ["policy", "status", study.policyFile],
      ["artifact", "list"],
    ])
      await refused(words, "older-tree", /the log has \d+ entries, \d+ were seen before.*seen on 20.*checkpoints\.json: keep it/)
    // The operator lets another story happen until the log is long enough, with parties who remember nothing.
    const seen = await readFile(seenFile(), "utf8")
    for (const party of [study.clinic, study.vendor]) await rm(seenFile(party), { force: true })
    await study.sign(study.vendor)
    // Another party's checkpoint shows it at once.
    const compare = ["audit", "compare", kept, "--json"]
    assert.equal(lastEvent((await demandStatus(compare, 10, study.vendor.environment)).stdout)["code"], "forked")
    await study.deposit(study.clinic, "records")
    await study.deposit(study.vendor, "trainer")
    assert.equal(lastEvent((await demandStatus(compare, 10, study.vendor.environment)).stdout)["code"], "forked")
    await writeFile(seenFile(), seen)
    await refused(["audit", "list"], "forked", /does not go on from the \d+ that were seen before/)
    await putBack(late)
    await list(0)
    await rm(seenFile(study.vendor), { force: true })
    assert.match((await demandStatus(["audit", "compare", kept], 0, study.vendor.environment)).stdout, /part of the log that you see/)
  })

  test("audit compare says where a manager keeps from one party what another has seen, and refuses what is no checkpoint of it", async () => {
    const early = await keepCopy("before")
    await study.deposit(study.clinic, "records")
    const late = await keepCopy("after")
    const kept = join(study.folder, "kept-later")
    await demandStatus(["audit", "checkpoint", "--out", kept], 0, study.clinic.environment)
    await putBack(early)
    await rm(seenFile(study.vendor), { force: true })
    assert.match((await demandStatus(["audit", "compare", kept], 10, study.vendor.environment)).stderr, /what they have seen is kept from you/)
    // The same from where the other party keeps it for everybody.
    const text = await readFile(kept)
    await using shelf = createServer((request, response) =>
      response.writeHead(request.url === "/checkpoint" ? 200 : 404).end(request.url === "/large" ? "x".repeat(1 << 20) : text),
    )
    await new Promise<void>((listening) => shelf.listen(0, "127.0.0.1", listening))
    const at = `http://127.0.0.1:${(shelf.address() as AddressInfo).port}`
    assert.match(
      (await demandStatus(["audit", "compare", `${at}/checkpoint`], 10, study.vendor.environment)).stderr,
      /what they have seen is kept from you/,
    )
    await demandStatus(["audit", "compare", `${at}/none`], 40, study.vendor.environment)
    await demandStatus(["audit", "compare", "http://127.0.0.1:1/checkpoint"], 40, study.vendor.environment)
    await putBack(late)
    assert.match((await demandStatus(["audit", "compare", `${at}/checkpoint`], 0, study.vendor.environment)).stdout, /part of the log that you see/)
    await writeFile(kept, (await readFile(kept, "utf8")).replace(/^[0-9]+$/m, "1"))
    assert.match((await demandStatus(["audit", "compare", kept], 10, study.vendor.environment)).stderr, /kept-later/)
    await writeFile(kept, "nothing")
    await demandStatus(["audit", "compare", kept], 30, study.vendor.environment)
  })

  test("nothing holds up a withdrawal, not even a log that was set back; it is said", async () => {
    const early = await keepCopy("before-withdrawal")
    await study.deposit(study.vendor, "trainer")
    await list(0)
    const late = await keepCopy("after-deposit")
    await putBack(early)
    await refused(["audit", "list"], "older-tree", /was cut or set back/)
    const { status, stderr } = await runCommand(["policy", "withdraw", study.policyFile, "--yes"], study.clinic.environment)
    assert.equal(status, 0, stderr)
    assert.match(stderr, /the log has \d+ entries, \d+ were seen before/)
    await putBack(late)
    await list(0)
  })

  test("refuses another instance under the same key, a remembered checkpoint that was changed, and a file that is none", async () => {
    const text = await readFile(seenFile(), "utf8")
    await writeFile(seenFile(), text.replace(/"instance": "[0-9a-f]{32}"/, `"instance": "${"0".repeat(32)}"`))
    assert.match(String((await list(10))["message"]), /another log stands in the old one's place/)
    await writeFile(seenFile(), text.replace(/\\n[0-9]+\\n/, "\\n1\\n"))
    assert.equal((await list(10))["code"], "wrong-checkpoint")
    await writeFile(seenFile(), text.replace('"instance"', '"surprise": 1, "instance"'))
    assert.equal((await list(30))["code"], "malformed")
    await writeFile(seenFile(), text)
    await list(0)
  })
})
