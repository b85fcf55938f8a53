/** Drives a manager whose vault key is shared among custodians, as child processes, beside laboratory TDs; and the rotation of vaults. */
import assert from "node:assert/strict"
import type { ChildProcess } from "node:child_process"
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface, type Interface } from "node:readline"
import { after, test } from "node:test"
import { labTdRequirement, startLabTd } from "../../lab/devices/td.ts"
import { noSoftwareTpm, startSoftwareTpm } from "../evidence/tpm/client/swtpm.testing.ts"
import type { AttestedManager } from "../policy/document.ts"
import { policy as fixture } from "../policy/fixtures.testing.ts"
import { demandStatus, end, type Ended, eventsOf, startCommand } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-vault-"))
const program = { runtime: "a".repeat(96), source: "b".repeat(96), packages: "c".repeat(96) }
const nextProgram = { ...program, source: "d".repeat(96) }
const td = await startLabTd(program)
const nextTd = await startLabTd(nextProgram, { authority: td.authority })
const requirement = labTdRequirement(program, td.authority.root)
const nextRequirement = labTdRequirement(nextProgram, td.authority.root)
const collateral = join(base, "collateral.json")
const started: ChildProcess[] = []
after(async () => {
  for (const child of started) await end(child, "SIGKILL")
  await td[Symbol.asyncDispose]()
  await nextTd[Symbol.asyncDispose]()
  await rm(base, { recursive: true, force: true })
})
await writeFile(collateral, td.collateral)

const environment = (home: string): Record<string, string> => ({ PERUN_HOME: join(base, home) })
const perun = async (home: string, status: number, ...args: readonly string[]): Promise<Ended> => demandStatus(args, status, environment(home))
const card = (name: string): string => join(base, name, "identity", "identity.json")
for (const name of ["ann", "ben", "eve"]) await perun(name, 0, "identity", "create", name)
const shares = ["--share", card("ann"), "--share", card("ben"), "--share", card("eve"), "--threshold", "2"]

async function acceptFile(name: string, accept: AttestedManager["accept"]): Promise<string> {
  const path = join(base, `${name}-accept.json`)
  await writeFile(path, JSON.stringify(accept))
  return path
}
async function policyFile(name: string, manager: AttestedManager): Promise<string> {
  const path = join(base, `${name}.json`)
  await writeFile(path, JSON.stringify({ ...fixture, manager }))
  return path
}
const good = await acceptFile("good", [{ tdx: requirement }])
const next = await acceptFile("next", [{ tdx: nextRequirement }])

interface Running {
  readonly child: ChildProcess
  readonly lines: Interface
  readonly url: string
  event(name: string): Promise<Readonly<Record<string, unknown>>>
}

/** A command that serves, up to its event `name`. */
async function serving(name: string, args: readonly string[]): Promise<Running & { readonly first: Readonly<Record<string, unknown>> }> {
  const child = startCommand([...args, "--json"], environment("operator"))
  started.push(child)
  if (child.stdout === null) throw new TypeError("a pipe")
  let complaint = ""
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (complaint += text))
  const lines = createInterface({ input: child.stdout })
  const source = lines[Symbol.asyncIterator]()
  const event = async (wanted: string): Promise<Readonly<Record<string, unknown>>> => {
    for (;;) {
      const { done, value } = await source.next()
      if (done === true) throw new Error(`ended before ${wanted}: ${complaint}`)
      const found = JSON.parse(value as string) as Readonly<Record<string, unknown>>
      if (found["event"] === wanted || (wanted === "result" && "ok" in found)) return found
      throw new Error(`unexpected ${String(value)}`)
    }
  }
  const first = await event(name)
  return { child, lines, url: String(first["url"]), event, first }
}

const serve = async (folder: string, of = td, ...words: readonly string[]) =>
  serving("locked", ["manager", "serve", folder, "--listen", "127.0.0.1:0", "--tee", of.url, "--collateral", collateral, ...words])

let count = 0
async function sharedFolder(): Promise<string> {
  const folder = join(base, `manager-${++count}`)
  await perun("operator", 0, "manager", "init", folder, ...shares)
  return folder
}

test("manager init --share wants two custodians, a threshold above one, and leaves nothing behind where it is refused", async () => {
  const folder = join(base, "refused")
  const init = async (status: number, ...words: readonly string[]): Promise<Ended> => perun("operator", status, "manager", "init", folder, ...words)
  await init(2, "--share", card("ann"), "--share", card("ben"))
  await init(2, "--threshold", "2")
  await init(2, ...shares, "--key-file")
  await init(30, ...shares.slice(0, -1), "1")
  await init(30, "--share", card("ann"), "--share", card("ann"), "--threshold", "2")
  await init(30, "--share", card("ann"), "--share", collateral, "--threshold", "2")
  assert.match((await init(20, "--sealing", "mrenclave")).stderr, /share the vault key among custodians/)
  await init(2, "--sealing", "mrtd")
  assert.deepEqual(
    (await readdir(base)).filter((name) => name.startsWith("refused")),
    [],
  )
})

test("a manager waits locked until enough custodians have looked at its proof, and goes on at the same address", async () => {
  const folder = await sharedFolder()
  const manager = await serve(folder)
  assert.deepEqual([manager.first["threshold"], manager.first["custodians"]], [2, ["ann", "ben", "eve"]])
  const unlock = async (home: string, status: number, ...words: readonly string[]): Promise<Ended> =>
    perun(home, status, "manager", "unlock", manager.url, ...words)

  // Who demands something else gives nothing; who demands nothing must say so, and is told.
  assert.match((await unlock("ann", 10, "--accept", next, "--yes")).stderr, /RTMR1: found \w+, expected/)
  await unlock("ann", 2, "--yes")
  assert.match((await unlock("ann", 2, "--accept", good)).stderr, /nobody can be asked here/)
  await perun("clinic", 0, "identity", "create", "clinic")
  assert.match((await unlock("clinic", 10, "--accept", good, "--yes")).stderr, /no custodian/)
  const otherVault = await policyFile("tpm-only", { accept: [{ tdx: requirement }], vault: ["tpm"] })
  assert.match((await unlock("ann", 10, "--policy", otherVault, "--yes")).stderr, /vault: found shares, 2 of ann/)
  assert.match((await perun("clinic", 40, "manager", "trust", manager.url, "--accept", good)).stderr, /locked: 0 of the 2/)

  const { stdout } = await unlock("ann", 0, "--accept", good, "--yes")
  for (const line of [
    /^As ann you unlock$/m,
    /instance [0-9a-f]{32}/,
    /^custodians +2 of ann, ben, eve; 0 have/m,
    /Intel TDX quote/,
    /^INSECURE LABORATORY/m,
  ])
    assert.match(stdout, line)
  const again = eventsOf((await unlock("ann", 0, "--accept", good, "--yes", "--json")).stdout)
  assert.deepEqual([again[0]?.["event"], again.at(-1)?.["present"], again.at(-1)?.["unlocked"]], ["to-unlock", 1, false])
  const named = await policyFile("named", { accept: [{ tdx: requirement }], vault: ["shares"] })
  const insecure = await unlock("ben", 0, "--policy", named, "--yes")
  assert.match(insecure.stdout, /^the manager is unlocked/m)
  const listening = await manager.event("listening")
  assert.equal(listening["url"], manager.url)

  // Clients verify it as ever, and what it says of its vault too.
  await perun("clinic", 0, "manager", "trust", manager.url, "--policy", named)
  assert.match((await perun("clinic", 0, "manager", "status")).stdout, /^vault key +nowhere on disk: 2 of ann, ben, eve/m)
  assert.match((await perun("clinic", 10, "manager", "trust", manager.url, "--policy", otherVault)).stderr, /vault: found shares/)
  assert.match((await unlock("eve", 10, "--accept", good, "--yes")).stderr, /not locked/)

  // Killed: locked again, and nothing lost.
  await end(manager.child, "SIGKILL")
  const second = await serve(folder)
  await perun("eve", 0, "manager", "unlock", second.url, "--accept", good, "--yes")
  await end(second.child, "SIGKILL")
  const third = await serve(folder)
  for (const home of ["eve", "ben"]) await perun(home, 0, "manager", "unlock", third.url, "--accept", good, "--yes")
  assert.equal((await third.event("listening"))["instance"], listening["instance"])
  await end(third.child)
})

test("manager unlock --insecure-unattested says loudly that nothing is proved; a pin by key alone is no proof", async () => {
  const folder = await sharedFolder()
  const manager = await serving("locked", ["manager", "serve", folder, "--listen", "127.0.0.1:0"])
  assert.match((await perun("ann", 10, "manager", "unlock", manager.url, "--accept", good, "--yes")).stderr, /proves nothing about itself/)
  const { stdout } = await perun("ann", 0, "manager", "unlock", manager.url, "--insecure-unattested", "--yes")
  assert.match(stdout, /^UNATTESTED MANAGER: it proves nothing; whoever runs what answers there gets your share$/m)
  await perun("ben", 0, "manager", "unlock", manager.url, "--insecure-unattested", "--yes")
  const { key } = await manager.event("listening")
  await perun("ann", 0, "manager", "trust", manager.url, String(key))
  const { stderr } = await perun("ann", 2, "manager", "unlock", manager.url, "--yes")
  assert.match(stderr, /pinned by its key alone, which a locked manager cannot show/)
  await end(manager.child)
})

test("an upgraded manager is unlocked by those who accept its new measurement, and by the pin", async () => {
  const folder = await sharedFolder()
  const address = "127.0.0.1:0"
  const before = await serve(folder)
  for (const home of ["ann", "ben"]) await perun(home, 0, "manager", "unlock", before.url, "--accept", good, "--yes")
  const { key } = await before.event("listening")
  await end(before.child)

  const after = await serving("locked", ["manager", "serve", folder, "--listen", address, "--tee", nextTd.url, "--collateral", collateral])
  assert.match((await perun("ann", 10, "manager", "unlock", after.url, "--accept", good, "--yes")).stderr, /RTMR1/)
  const successor = await policyFile("successor", { accept: [{ tdx: requirement }, { tdx: nextRequirement }], vault: ["shares"] })
  for (const home of ["ann", "ben"]) await perun(home, 0, "manager", "unlock", after.url, "--policy", successor, "--yes")
  const listening = await after.event("listening")
  assert.equal(listening["key"], key)
  // Who pinned the old measurement alone does not take the new one for it.
  await perun("old", 10, "manager", "trust", after.url, "--accept", good)
  await perun("eve", 0, "manager", "trust", after.url, "--policy", successor)
  await end(after.child)

  // At the address that is pinned, the pin's demands count.
  const port = new URL(after.url).host
  const again = await serving("locked", ["manager", "serve", folder, "--listen", port, "--tee", nextTd.url, "--collateral", collateral])
  assert.match((await perun("eve", 0, "manager", "unlock", again.url, "--yes")).stdout, /meets demand 2/)
  await end(again.child)
})

test("rotate-vault moves a vault from a key file to shares, at once, and from shares through its custodians", async () => {
  const folder = join(base, "rotated")
  await perun("operator", 0, "manager", "init", folder, "--key-file")
  const key = (JSON.parse(await readFile(join(folder, "vault.json"), "utf8")) as { key: string }).key
  const plain = await serving("listening", ["manager", "serve", folder, "--listen", "127.0.0.1:0"])
  assert.equal(
    (await perun("operator", 40, "manager", "rotate-vault", folder, ...shares)).stderr.includes("another process has the store open"),
    true,
  )
  await end(plain.child)
  const { stdout } = await perun("operator", 0, "manager", "rotate-vault", folder, ...shares)
  assert.match(stdout, /^vault key nowhere on disk: 2 of ann, ben, eve/m)
  for (const name of await readdir(folder))
    if (name !== "blobs") assert.ok(!(await readFile(join(folder, name), "latin1")).includes(key), `${name} holds the old key`)

  const words = ["--listen", "127.0.0.1:0", "--tee", td.url, "--collateral", collateral]
  const rotating = await serving("locked", ["manager", "rotate-vault", folder, "--key-file", ...words])
  const { stderr } = await perun("ann", 10, "manager", "unlock", rotating.url, "--accept", good, "--yes")
  assert.match(stderr, /has the key moved, and it is in a plain file/)
  const shared = await policyFile("shared", { accept: [{ tdx: requirement }], vault: ["shares"] })
  assert.match((await perun("ann", 10, "manager", "unlock", rotating.url, "--policy", shared, "--move", "--yes")).stderr, /vault: found key-file/)
  for (const home of ["ann", "eve"]) await perun(home, 0, "manager", "unlock", rotating.url, "--accept", good, "--move", "--yes")
  const result = await rotating.event("result")
  assert.deepEqual([(result["from"] as { kind: string }).kind, result["to"]], ["shares", { kind: "key-file" }])
  await new Promise((resolve) => (rotating.child.exitCode === null ? rotating.child.once("exit", resolve) : resolve(undefined)))
  assert.equal(rotating.child.exitCode, 0)
  const open = await serving("listening", ["manager", "serve", folder, "--listen", "127.0.0.1:0"])
  assert.deepEqual(open.first["vault"], { kind: "key-file" })
  await end(open.child)
  await perun("operator", 40, "manager", "rotate-vault", join(base, "none"), "--key-file")
})

test("Ctrl-C at a locked manager, or at a rotation that waits, ends it and changes nothing", async () => {
  const folder = await sharedFolder()
  const before = await readFile(join(folder, "vault.json"), "utf8")
  const manager = await serve(folder)
  await perun("ann", 0, "manager", "unlock", manager.url, "--accept", good, "--yes")
  await end(manager.child, "SIGINT")
  assert.equal(manager.child.exitCode, 0)
  const rotating = await serving("locked", ["manager", "rotate-vault", folder, "--key-file", "--listen", "127.0.0.1:0"])
  await end(rotating.child, "SIGINT")
  assert.equal(rotating.child.exitCode, 130)
  assert.equal(await readFile(join(folder, "vault.json"), "utf8"), before)
})

test("manager serve --cap lets the vault key out of the TPM once a boot", { skip: noSoftwareTpm }, async () => {
  await using software = await startSoftwareTpm()
  const where = `unix:${software.location.unix}`
  const folder = join(base, "capped")
  await perun("operator", 0, "manager", "init", folder, "--tpm", where)
  const words = ["manager", "serve", folder, "--listen", "127.0.0.1:0", "--tpm", where]
  for (const more of [[], ["--cap"]]) {
    const manager = await serving("listening", [...words, ...more])
    assert.deepEqual(manager.first["vault"], { kind: "tpm" })
    await end(manager.child)
  }
  assert.match((await perun("operator", 10, ...words)).stderr, /policy|register/i)
})
