/** A witness and a manager in processes of their own: who has never looked before still finds out that a manager was set back. */
import assert from "node:assert/strict"
import { type ChildProcess, spawn } from "node:child_process"
import { readdir, rename } from "node:fs/promises"
import { join, resolve } from "node:path"
import { after, before, describe, test } from "node:test"
import { createInterface } from "node:readline"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { demandStatus, end, lastEvent } from "./process.testing.ts"
import { RealStudy } from "./study.testing.ts"

describe("perun witness", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  let study: RealStudy
  let witness: ChildProcess
  let url = ""
  let key = ""
  const at = (name: string): string => join(study.folder, name)

  before(async () => {
    const { root } = authority
    study = await RealStudy.start({ root, endorsementKey: machine.endorsementKey, references: captureReferences(machine) })
    key = String((await perun(["witness", "init", at("witness"), "--name", "hospital.example/perun"], 0))["key"])
    const { log } = await perun(["witness", "add-log", at("witness")], 0)
    assert.match(String(log), /^perun\/manager\/[0-9a-f]{32}$/)
    await serve()
    await study.stopManager("SIGTERM")
    await study.startManager(["--witness", `${url}=${key}`])
  })
  after(async () => {
    await end(witness)
    await study[Symbol.asyncDispose]()
  })

  async function serve(): Promise<void> {
    witness = spawn(
      process.execPath,
      [resolve(import.meta.dirname, "main.ts"), "witness", "serve", at("witness"), "--listen", "127.0.0.1:0", "--json"],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    )
    assert.ok(witness.stdout !== null)
    for await (const line of createInterface({ input: witness.stdout })) {
      url = String((JSON.parse(line) as { url?: string }).url)
      break
    }
    witness.stdout.resume()
  }

  async function perun(words: readonly string[], status: number, environment = study.clinic.environment): Promise<Readonly<Record<string, unknown>>> {
    return lastEvent((await demandStatus([...words, "--json"], status, environment)).stdout)
  }

  /** As somebody who has never looked: no checkpoint is kept. */
  async function listAsNewcomer(words: readonly string[], status: number): Promise<Readonly<Record<string, unknown>>> {
    await rename(join(study.vendor.home, "checkpoints.json"), join(study.vendor.home, "forgotten.json")).catch(() => undefined)
    return perun(["audit", "list", ...words], status, study.vendor.environment)
  }

  test("the log's checkpoint is cosigned, for those who ask for it", async () => {
    await study.submit()
    const listed = await listAsNewcomer(["--witness", key], 0)
    assert.deepEqual(listed["witnesses"], ["hospital.example/perun"])
    assert.match(String(listed["checkpoint"]), /\n\u2014 hospital\.example\/perun /)
    assert.deepEqual((await perun(["audit", "checkpoint", "--witness", key], 0))["witnesses"], ["hospital.example/perun"])
  })

  test("a checkpoint that a witness has not cosigned is refused, and words that name none or one twice are wrong", async () => {
    const other = String((await perun(["witness", "init", at("other"), "--name", "other.example"], 0))["key"])
    assert.equal((await listAsNewcomer(["--witness", other], 10))["code"], "not-witnessed")
    assert.equal((await listAsNewcomer(["--witness", key, "--witness", other], 10))["code"], "not-witnessed")
    await listAsNewcomer(["--witness", key, "--witness", other, "--witnesses", "1"], 0)
    await listAsNewcomer(["--witnesses", "1"], 2)
    await listAsNewcomer(["--witness", key, "--witnesses", "2"], 2)
    await listAsNewcomer(["--witness", key, "--witness", key], 2)
    await listAsNewcomer(["--witness", "x"], 2)
  })

  test("who has never looked finds that a manager was set back, by the witness alone", async () => {
    await study.stopManager("SIGTERM")
    await perun(["manager", "backup", study.managerFolder, "--out", at("older")], 0)
    await study.startManager(["--witness", `${url}=${key}`])
    for (const party of [study.clinic, study.vendor]) await study.sign(party)
    await listAsNewcomer(["--witness", key], 0)
    await study.stopManager("SIGTERM")
    await rename(study.managerFolder, at(`gone-${(await readdir(study.folder)).length}`))
    await perun(["manager", "restore", at("older"), "--out", study.managerFolder], 0)
    await study.startManager(["--witness", `${url}=${key}`])
    await listAsNewcomer([], 0)
    const refused = await listAsNewcomer(["--witness", key], 10)
    assert.equal(refused["code"], "not-witnessed")
  })

  test("the witness's folder tells what it has seen, and is made once; a log is followed once", async () => {
    await end(witness)
    const shown = await perun(["witness", "show", at("witness")], 0)
    const [log] = shown["logs"] as readonly { readonly size: number }[]
    assert.ok((log?.size ?? 0) > 0)
    await perun(["witness", "init", at("witness"), "--name", "again"], 2)
    await perun(["witness", "init", at("spaced"), "--name", "a name"], 30)
    assert.equal((await perun(["witness", "add-log", at("witness")], 0))["added"], false)
    await perun(["witness", "add-log", at("nowhere")], 40)
    await perun(["witness", "serve", at("nowhere")], 40)
    await perun(["witness", "add-log", at("witness"), "--instance", "0".repeat(32)], 2)
    await perun(["witness", "add-log", at("witness"), "--log-key", study.pin.key ?? "", "--instance", "0".repeat(32)], 0)
    await serve()
  })
})
