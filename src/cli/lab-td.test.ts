/** Drives a manager that proves itself by hand, as docs/first-study.md does: the laboratory's TDX device, the demands computed from the checkout, manager and client as child processes. */
import assert from "node:assert/strict"
import type { ChildProcess } from "node:child_process"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { createInterface } from "node:readline"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { demandStatus, end, type Ended, lastEvent, serveFolder, startCommand } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-lab-td-"))
const at = (...names: readonly string[]): string => join(base, ...names)
const started: ChildProcess[] = []
after(async () => {
  for (const child of started) await end(child)
  await rm(base, { recursive: true, force: true })
})

const perun = async (home: string, status: number, ...args: readonly string[]): Promise<Ended> => demandStatus(args, status, { PERUN_HOME: at(home) })

async function startTd(port: string): Promise<{ readonly child: ChildProcess; readonly url: string; readonly laboratoryRoot: string }> {
  const child = startCommand(["lab", "td", at("td"), "--port", port, "--json"], {})
  started.push(child)
  if (child.stdout === null) throw new TypeError("a pipe")
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line) as { event?: string; url: string; laboratoryRoot: string }
    if (event.event === "listening") return { ...event, child }
    throw new Error(`the device did not start: ${line}`)
  }
  throw new Error("the device did not start")
}

const td = await startTd("0")
const { port } = new URL(td.url)
await perun("operator", 0, "manager", "init", at("manager"), "--key-file")
const { server, url } = await serveFolder(at("manager"), "127.0.0.1:0", ["--tee", td.url, "--collateral", at("td", "collateral.json")])
started.push(server)

test("lab measure computes from the checkout what manager trust --accept then finds proved", async () => {
  const { stdout } = await perun("clinic", 0, "lab", "measure", "--root", at("td", "root.pem"), "--out", at("accept.json"))
  assert.match(stdout, /^INSECURE LABORATORY/m)
  await perun("clinic", 2, "lab", "measure", "--root", at("td", "root.pem"), "--out", at("accept.json"))
  const trusted = await perun("clinic", 0, "manager", "trust", url, "--accept", at("accept.json"))
  assert.match(trusted.stdout, /^proof +Intel TDX quote/m)
  assert.doesNotMatch(trusted.stdout, /UNATTESTED/)
  const pins = JSON.parse(await readFile(at("clinic", "managers.json"), "utf8")) as { managers: readonly { accept: unknown }[] }
  assert.deepEqual(pins.managers[0]?.accept, JSON.parse(await readFile(at("accept.json"), "utf8")))
})

test("a policy drafted with such a pin demands the same proof", async () => {
  await perun("clinic", 0, "identity", "create", "clinic")
  await perun(
    "clinic",
    0,
    "policy",
    "init",
    "--study",
    "s",
    "--party",
    `${at("clinic", "identity", "identity.json")}:data,consumer`,
    "--out",
    at("draft.yaml"),
  )
  const draft = await readFile(at("draft.yaml"), "utf8")
  const [accepted] = JSON.parse(await readFile(at("accept.json"), "utf8")) as [{ tdx: { mrTd: [string] } }]
  assert.match(draft, new RegExp(`^manager: \\{ accept: .*${accepted.tdx.mrTd[0]}`, "m"))
})

test("manager trust --accept refuses another program, two sources of demands, and a file that is none", async () => {
  const text = await readFile(at("accept.json"), "utf8")
  const [{ tdx }] = JSON.parse(text) as [{ tdx: { rtmrs: Record<string, readonly string[]> } }]
  await writeFile(at("other.json"), JSON.stringify({ tdx: { ...tdx, rtmrs: { ...tdx.rtmrs, "1": ["e".repeat(96)] } } }))
  const { stderr } = await perun("careful", 10, "manager", "trust", url, "--accept", at("other.json"))
  assert.match(stderr, /RTMR1: found [0-9a-f]{96}, expected e{96}/)
  await perun("careful", 2, "manager", "trust", url, "--accept", at("accept.json"), "--policy", at("draft.yaml"))
  await perun("careful", 30, "manager", "trust", url, "--accept", at("td", "root.pem"))
  await perun("careful", 40, "manager", "trust", url, "--accept", at("missing.json"))
  await assert.rejects(readFile(at("careful", "managers.json")), { code: "ENOENT" })
})

test("lab td is the same device after a restart, so that pins hold; a taken port is said", async () => {
  const { stdout } = await perun("operator", 50, "lab", "td", at("td"), "--port", port, "--json")
  assert.equal(lastEvent(stdout)["code"], "port-in-use")
  await end(td.child)
  await perun("clinic", 40, "manager", "status")
  const again = await startTd(port)
  assert.deepEqual([again.url, again.laboratoryRoot], [td.url, td.laboratoryRoot])
  await perun("clinic", 0, "manager", "status")
})

test("lab measure and lab td say what is wrong with what they are given", async () => {
  await perun("careful", 30, "lab", "measure", "--root", at("accept.json"), "--out", at("x.json"))
  await perun("careful", 40, "lab", "measure", "--root", at("missing.pem"), "--out", at("x.json"))
  await perun("careful", 2, "lab", "td", at("td"), "--port", "70000")
  await writeFile(at("file"), "")
  await perun("careful", 2, "lab", "td", at("file"), "--port", "0")
})
