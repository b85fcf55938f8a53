/** Drives the commands around a manager that proves itself, as child processes, beside a laboratory's TD. */
import assert from "node:assert/strict"
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import type { ChildProcess } from "node:child_process"
import { createInterface } from "node:readline"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { labTdRequirement, startLabTd } from "../../lab/devices/td.ts"
import type { AttestedManager } from "../policy/document.ts"
import { policy as fixture } from "../policy/fixtures.testing.ts"
import { demandStatus, end, type Ended, lastEvent, startCommand } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-proof-"))
const folder = join(base, "manager")
const collateral = join(base, "collateral.json")
const program = { runtime: "a".repeat(96), source: "b".repeat(96), packages: "c".repeat(96) }
const td = await startLabTd(program)
const requirement = labTdRequirement(program, td.authority.root)
const other = { ...requirement, mrTd: ["d".repeat(96)] }
const started: ChildProcess[] = []
after(async () => {
  for (const child of started) await end(child)
  await td[Symbol.asyncDispose]()
  await rm(base, { recursive: true, force: true })
})
await writeFile(collateral, td.collateral)

const environment = (home: string): Record<string, string> => ({ PERUN_HOME: join(base, home) })

async function perun(home: string, status: number, ...args: readonly string[]): Promise<Ended> {
  return demandStatus(args, status, environment(home))
}

async function policyFile(name: string, manager: AttestedManager): Promise<string> {
  const path = join(base, `${name}.json`)
  await writeFile(path, JSON.stringify({ ...fixture, manager }))
  return path
}

async function serve(...words: readonly string[]): Promise<{ readonly url: string; readonly key: string }> {
  const child = startCommand(["manager", "serve", folder, "--json", "--listen", "127.0.0.1:0", ...words], environment("operator"))
  started.push(child)
  if (child.stdout === null) throw new TypeError("a pipe")
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line) as { event?: string; url: string; key: string; message?: string }
    if (event.event === "listening") return event
    throw new Error(`the manager did not start: ${line}`)
  }
  throw new Error("the manager did not start")
}

await perun("operator", 0, "manager", "init", folder, "--key-file")
const good = await policyFile("good", { accept: [{ tdx: requirement }] })
const wrong = await policyFile("wrong", { accept: [{ tdx: other }] })
const manager = await serve("--tee", td.url, "--collateral", collateral)

test("manager trust --policy pins what the policy demands and the key that the proof covers", async () => {
  const { stdout } = await perun("clinic", 0, "manager", "trust", manager.url, "--policy", good)
  assert.match(stdout, /Intel TDX quote/)
  assert.match(stdout, /^INSECURE LABORATORY/m)
  assert.doesNotMatch(stdout, /UNATTESTED/)
  const pins = JSON.parse(await readFile(join(base, "clinic", "managers.json"), "utf8")) as { managers: readonly object[] }
  const status = lastEvent((await perun("clinic", 0, "manager", "status", "--json")).stdout)
  const { resultKey } = status
  assert.deepEqual(pins.managers, [{ url: manager.url, key: manager.key, resultKey, accept: [{ tdx: requirement }] }])
  assert.deepEqual([status["evidence"], status["attested"]], ["tdx", { tee: "tdx", insecureLaboratory: true }])
})

test("manager trust refuses a manager that is not what the policy accepts, says what differs, and pins nothing", async () => {
  const { stderr } = await perun("careful", 10, "manager", "trust", manager.url, "--policy", wrong)
  assert.match(stderr, /MRTD: found a{96}, expected d{96}/)
  await assert.rejects(readFile(join(base, "careful", "managers.json")), { code: "ENOENT" })
})

test("manager trust does not loosen or change what is pinned, unless told to", async () => {
  const looser = await policyFile("looser", { accept: [{ tdx: requirement }, { tdx: other }] })
  for (const words of [["--policy", looser], [manager.key]]) {
    const { stderr } = await perun("clinic", 2, "manager", "trust", manager.url, ...words)
    assert.match(stderr, /other demands on its proof are pinned/)
  }
  await perun("clinic", 0, "manager", "trust", manager.url, "--policy", looser, "--replace")
  await perun("clinic", 0, "manager", "trust", manager.url, "--policy", good, "--replace")
})

test("manager trust wants a key or a policy, and keys that fit", async () => {
  await perun("careful", 2, "manager", "trust", manager.url)
  const stranger = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGQ8fStKst1/7DwYOM9xMr62eFhUsUv4tQ3f3rPsRJ2X"
  await perun("careful", 10, "manager", "trust", manager.url, stranger, "--policy", good)
})

test("manager verify judges the certificate of the manager's TLS, alone or with a fresh proof, and pins nothing", async () => {
  const alone = lastEvent((await perun("looker", 0, "manager", "verify", manager.url, "--policy", good, "--collateral", collateral, "--json")).stdout)
  assert.deepEqual([alone["isFresh"], alone["key"], alone["tee"], alone["insecureLaboratory"]], [false, manager.key, "tdx", true])
  const fresh = await perun("looker", 0, "manager", "verify", manager.url, "--policy", good)
  assert.match(fresh.stdout, /^proof +Intel TDX quote .* in the TLS certificate/m)
  assert.match(fresh.stdout, /^fresh/m)
  assert.match(fresh.stdout, /^INSECURE LABORATORY/m)
  const { stderr } = await perun("looker", 10, "manager", "verify", manager.url, "--policy", wrong, "--collateral", collateral)
  assert.match(stderr, /MRTD: found a{96}, expected d{96}/)
  await assert.rejects(readFile(join(base, "looker", "managers.json")), { code: "ENOENT" })
})

test("manager verify wants a policy that demands proof, an address and a file that are there", async () => {
  const keyed = join(base, "keyed.json")
  await writeFile(keyed, JSON.stringify(fixture))
  assert.ok("insecureUnattested" in fixture.manager)
  await perun("looker", 2, "manager", "verify", manager.url, "--policy", keyed)
  await perun("looker", 2, "manager", "verify", manager.url)
  for (const address of ["http://127.0.0.1:9", "nonsense"]) {
    await perun("looker", 2, "manager", "verify", address, "--policy", good, "--collateral", collateral)
    await perun("looker", 2, "manager", "trust", address, "--policy", good)
  }
  await perun("looker", 40, "manager", "verify", "https://127.0.0.1:9", "--policy", good, "--collateral", collateral)
  await perun("looker", 40, "manager", "verify", manager.url, "--policy", good, "--collateral", join(base, "none.json"))
})

test("manager serve says at once that its TEE is not there", async () => {
  const words = ["manager", "serve", folder, "--listen", "127.0.0.1:0"]
  await perun("operator", 20, ...words, "--tee", "gramine")
  await perun("operator", 20, ...words, "--tee", "tsm")
  await perun("operator", 40, ...words, "--tee", "http://127.0.0.1:9")
  await perun("operator", 2, ...words, "--tee", "sgx")
  await perun("operator", 2, ...words, "--collateral", collateral)
  await perun("operator", 40, ...words, "--tee", td.url, "--collateral", join(base, "none.json"))
})

test("a pinned manager that no longer proves itself, or is another one, gets nothing", async () => {
  for (const child of started) await end(child)
  const unattested = await serve()
  const home = join(base, "late")
  await mkdir(home, { recursive: true })
  const pin = { url: unattested.url, key: unattested.key, accept: [{ tdx: requirement }] }
  await writeFile(join(home, "managers.json"), JSON.stringify({ perun: 1, default: pin.url, managers: [pin] }))
  await perun("late", 10, "manager", "status")
  const { stderr } = await perun("late", 10, "manager", "verify", pin.url, "--policy", good, "--collateral", collateral)
  assert.match(stderr, /carries no evidence|longer than a day/)
})
