/** Commands that sign for a party: they show what, ask at a terminal, and take --yes where nobody can be asked. */
import assert from "node:assert/strict"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { readFile, rename, writeFile } from "node:fs/promises"
import { join, resolve } from "node:path"
import { after, before, describe, test } from "node:test"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { verifyStatement } from "../pki/statement.ts"
import { type Policy, policyDigest } from "../policy/document.ts"
import { demandStatus, eventsOf, filesBelow, lastEvent } from "./process.testing.ts"
import { RealStudy, until } from "./study.testing.ts"

const noTerminal: string | false = spawnSync("script", ["--version"]).status === 0 ? false : "skipped: no script program"

describe("consent", () => {
  const authority = new LaboratoryAuthority()
  const machine = new LaboratoryMachine(authority)
  let study: RealStudy

  before(async () => {
    study = await RealStudy.start({ root: authority.root, endorsementKey: machine.endorsementKey, references: captureReferences(machine) })
    await study.submit()
  })
  after(async () => study[Symbol.asyncDispose]())

  /** A command on a terminal of its own. */
  function onTerminal(args: readonly string[]): { readonly child: ChildProcess; readonly shown: () => string } {
    const words = [process.execPath, "--disable-warning=ExperimentalWarning", resolve(import.meta.dirname, "main.ts"), ...args]
    const child = spawn("script", ["-qefc", words.map((word) => `'${word}'`).join(" "), "/dev/null"], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...study.clinic.environment },
    })
    let text = ""
    child.stdout?.setEncoding("utf8").on("data", (part: string) => (text += part))
    return { child, shown: () => text }
  }

  async function answered(args: readonly string[], answer: string): Promise<{ readonly status: number | null; readonly shown: string }> {
    const { child, shown } = onTerminal(args)
    const status = new Promise<number | null>((done) => child.on("close", done))
    await until("the question", () => shown().includes("[y/N]"))
    child.stdin?.write(answer)
    return { status: await status, shown: shown() }
  }

  test("policy sign shows digest, purpose, whose keys and warnings; without a terminal nothing is signed unless --yes", async () => {
    const sign = ["policy", "sign", study.policyFile, "--offline"]
    await demandStatus(sign, 2, study.clinic.environment)
    const { stdout } = await demandStatus([...sign, "--json"], 2, study.clinic.environment)
    const [shown, refusal] = eventsOf(stdout)
    assert.deepEqual([shown?.["event"], shown?.["digest"], shown?.["signer"]], ["to-sign", study.digest, "clinic"])
    assert.equal(refusal?.["code"], "usage")
    assert.deepEqual(
      (await filesBelow(study.folder)).filter((name) => name.includes("approval")),
      [],
    )
    const signed = await demandStatus([...sign, "--yes"], 0, study.clinic.environment)
    for (const words of [study.digest, study.policy.purpose, study.clinic.identity.key, study.vendor.identity.key, "UNATTESTED MANAGER", "INSECURE"])
      assert.ok(signed.stdout.includes(words), words)
  })

  test("policy sign, output vote and policy withdraw ask at a terminal: no, Ctrl-D and Ctrl-C sign nothing", { skip: noTerminal }, async () => {
    const file = join(study.folder, "asked.json")
    await writeFile(file, JSON.stringify(study.policy))
    const sign = ["policy", "sign", file, "--offline"]
    const approvals = async (): Promise<readonly string[]> => (await filesBelow(study.folder)).filter((name) => name.startsWith("asked.json."))
    for (const [answer, status] of [
      ["n\n", 10],
      ["\n", 10],
      ["\u0004", 10],
      ["\u0003", 130],
    ] as const) {
      const ended = await answered(sign, answer)
      assert.equal(ended.status, status, `${JSON.stringify(answer)}: ${ended.shown}`)
      assert.match(ended.shown, /perun: [^\n]*nothing was (signed|done)/)
      assert.deepEqual(await approvals(), [])
    }
    assert.equal((await answered(["policy", "withdraw", study.policyFile], "n\n")).status, 10)
    assert.equal((await answered(sign, "y\n")).status, 0)
    assert.deepEqual(await approvals(), ["asked.json.clinic.approval.json"])
  })

  test("policy sign signs what it showed, though the file is another one when the answer comes", { skip: noTerminal }, async () => {
    const file = join(study.folder, "swapped.json")
    await writeFile(file, JSON.stringify(study.policy))
    const { child, shown } = onTerminal(["policy", "sign", file, "--offline"])
    const status = new Promise<number | null>((done) => child.on("close", done))
    await until("the question", () => shown().includes("[y/N]"))
    await writeFile(`${file}.new`, JSON.stringify({ ...study.policy, purpose: "another" }))
    await rename(`${file}.new`, file)
    child.stdin?.write("y\n")
    assert.equal(await status, 0)
    const signature = JSON.parse(await readFile(`${file}.clinic.approval.json`, "utf8")) as Parameters<typeof verifyStatement>[2]
    assert.equal(verifyStatement("policy", study.digest, signature), study.clinic.identity.key)
  })

  test("policy sign shows what a successor changes, from the manager's copy of exactly the predecessor", async () => {
    const successor: Policy = { ...study.policy, purpose: "Something else.", supersedes: study.digest }
    const file = join(study.folder, "successor.json")
    await writeFile(file, JSON.stringify(successor))
    const { stdout } = await demandStatus(["policy", "sign", file, "--json"], 2, study.clinic.environment)
    const { changes, digest } = eventsOf(stdout).find(({ event }) => event === "to-sign") as {
      changes?: { fields: readonly object[] }
      digest?: string
    }
    assert.equal(digest, policyDigest(successor))
    assert.ok(changes?.fields.some((field) => JSON.stringify(field).includes("Something else.")))
    const orphan = join(study.folder, "orphan.json")
    await writeFile(orphan, JSON.stringify({ ...successor, supersedes: `sha256:${"0".repeat(64)}` }))
    const unknown = await demandStatus(["policy", "sign", orphan, "--yes"], 10, study.clinic.environment)
    assert.match(unknown.stdout, /perun policy diff BEFORE AFTER/)
  })

  test("output vote shows nothing that it does not have, and signs only with --yes where nobody can be asked", async () => {
    const { stdout } = await demandStatus(["output", "vote", "0".repeat(32), "--json"], 10, study.clinic.environment)
    assert.equal(lastEvent(stdout)["code"], "not-found")
    const shown = await demandStatus(["output", "show", "0".repeat(32), "--json"], 10, study.clinic.environment)
    assert.equal(lastEvent(shown.stdout)["code"], "not-found")
    await demandStatus(["policy", "withdraw", study.policyFile, "--json"], 2, study.clinic.environment)
  })
})
