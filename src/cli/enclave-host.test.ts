/** Drives the commands around a machine that proves itself by its TEE alone, as child processes, beside a laboratory's TD. */
import assert from "node:assert/strict"
import type { ChildProcess } from "node:child_process"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { createInterface } from "node:readline"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { labPlatform } from "../../lab/devices/dcap/authority.ts"
import { labTdRequirement, startLabTd } from "../../lab/devices/td.ts"
import { encodeChain } from "../evidence/dcap/certificates.ts"
import { demandStatus, end, type Ended, lastEvent, startCommand } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-enclave-"))
const at = (name: string): string => join(base, name)
const program = { runtime: "a".repeat(96), source: "b".repeat(96), packages: "c".repeat(96) }
const td = await startLabTd(program)
const started: ChildProcess[] = []
after(async () => {
  for (const child of started) await end(child)
  await td[Symbol.asyncDispose]()
  await rm(base, { recursive: true, force: true })
})
await writeFile(at("root.pem"), encodeChain([td.authority.root.certificate.der]))
await writeFile(at("collateral.json"), td.collateral)
await writeFile(at("accept.json"), JSON.stringify({ tdx: labTdRequirement(program, td.authority.root) }))

const environment = { PERUN_HOME: at("home") }
const perun = async (status: number, ...args: readonly string[]): Promise<Ended> => demandStatus(args, status, environment)

await perun(0, "manager", "init", at("manager"), "--key-file", "--laboratory-root", at("root.pem"))

async function serve(): Promise<{ readonly url: string; readonly key: string }> {
  const child = startCommand(["manager", "serve", at("manager"), "--json", "--listen", "127.0.0.1:0"], environment)
  started.push(child)
  if (child.stdout === null) throw new TypeError("a pipe")
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line) as { event?: string; url: string; key: string }
    if (event.event === "listening") return event
  }
  throw new Error("the manager did not start")
}

const manager = await serve()

async function configuration(name: string, more: object): Promise<string> {
  const path = at(`${name}.json`)
  await writeFile(path, JSON.stringify({ perun: 1, host: name, manager: { url: manager.url, key: manager.key }, ...more }))
  return path
}

test("host show --tee takes evidence over a nonce of the moment, which evidence verify and collateral fetch read", async () => {
  const { stdout } = await perun(0, "host", "show", "--tee", td.url, "--out", at("evidence.json"), "--json")
  const { kind, nonce } = lastEvent(stdout) as { readonly kind?: string; readonly nonce?: string }
  assert.equal(kind, "tdx")
  const looked = ["evidence", "verify", at("evidence.json"), "--laboratory-root", at("root.pem"), "--collateral", at("collateral.json")]
  await perun(0, ...looked, "--nonce", nonce ?? "")
  await perun(10, ...looked, "--nonce", "00".repeat(64))
  const fetched = ["collateral", "fetch", at("evidence.json"), "--from", at("collateral.json"), "--laboratory-root", at("root.pem")]
  await perun(0, ...fetched, "--folder", join(at("manager"), "collateral"))
})

test("host show --tee says what is wrong in one line", async () => {
  assert.match((await perun(2, "host", "show", "--tee", td.url)).stderr, /--tee and --out go together/)
  assert.match((await perun(2, "host", "show", "--out", at("x"))).stderr, /--tee and --out go together/)
  assert.match((await perun(2, "host", "show", "--tee", "sgx", "--out", at("x"))).stderr, /tsm, gramine/)
  assert.match((await perun(20, "host", "show", "--tee", "gramine", "--out", at("x"))).stderr, /gramine|Gramine|attestation/)
})

test("host enrol of a machine without a TPM shows its TEE, whose platform policies list", async () => {
  const { stdout } = await perun(0, "host", "enrol", "--config", await configuration("td-1", { tee: td.url, tpm: false }))
  assert.match(stdout, new RegExp(`platform +${labPlatform.ppid} .*policies list`))
  assert.match(stdout, /INSECURE LABORATORY/)
  assert.match((await perun(50, "host", "enrol", "--config", await configuration("td-2", { tpm: false }))).stderr, /neither a TPM nor a TEE/)
  assert.match((await perun(30, "host", "enrol", "--config", await configuration("td-3", { tee: "somewhere", tpm: false }))).stderr, /tee/)
})

test("policy init --level enclave --accept drafts a policy whose machine is whole", async () => {
  const words = ["policy", "init", "--study", "s", "--level", "enclave", "--manager-key", manager.key]
  await perun(0, ...words, "--accept", at("accept.json"), "--out", at("policy.yaml"))
  const { stdout } = await perun(30, "policy", "check", at("policy.yaml"), "--json")
  assert.ok(!stdout.includes('"field":"machines.'), stdout)
  assert.match(await readFile(at("policy.yaml"), "utf8"), /guest: none/)
  assert.match((await perun(2, "policy", "init", "--study", "s", "--accept", at("accept.json"), "--out", at("no.yaml"))).stderr, /--level enclave/)
  assert.match((await perun(30, ...words, "--accept", at("root.pem"), "--out", at("no.yaml"))).stderr, /root\.pem.*line 1/)
  assert.match((await perun(30, ...words, "--accept", at("td-1.json"), "--out", at("no.yaml"))).stderr, /no demands on a TEE/)
})
