/** Drives the commands of a manager's operator who admits members, as child processes. */
import assert from "node:assert/strict"
import { spawn, spawnSync } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { existsSync } from "node:fs"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { after, test } from "node:test"
import { createIdentity } from "../client/identity.ts"
import { bootReference, imaReference, policy as fixture } from "../policy/fixtures.testing.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"

const main = resolve(import.meta.dirname, "main.ts")
const base = await mkdtemp(join(tmpdir(), "perun-cli-members-"))
after(() => rm(base, { recursive: true, force: true }))
const identity = await createIdentity(join(base, "home", "identity"), { name: "clinic-a" })
const card = join(base, "home", "identity", "identity.json")
const other = sshPublicKeyText(generateKeyPairSync("ed25519").privateKey)
const environment = { ...process.env, PERUN_HOME: join(base, "home"), NO_COLOR: "1" }

interface Ended {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

function perunAs(env: NodeJS.ProcessEnv, ...args: readonly string[]): Ended {
  return spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", main, ...args], { encoding: "utf8", env })
}

function perun(...args: readonly string[]): Ended {
  return perunAs(environment, ...args)
}

function resultOf(...args: readonly string[]): Readonly<Record<string, unknown>> {
  const { status, stdout, stderr } = perun(...args, "--json")
  assert.equal(status, 0, stderr + stdout)
  return JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as Record<string, unknown>
}

test("manager init --member takes a key's text, a file of keys and an identity card", async () => {
  const file = join(base, "keys.pub")
  await writeFile(file, `# two\n${other} other\n`)
  const folder = join(base, "three")
  assert.equal(resultOf("manager", "init", folder, "--key-file", "--member", card, "--member", file, "--member", `${other} again`)["members"], 3)
  assert.deepEqual(resultOf("manager", "members", "--folder", folder)["members"], [
    { key: identity.key, comment: "clinic-a" },
    { key: other, comment: "other" },
  ])
})

test("manager init refuses what is no public key, in one line, and makes nothing", async () => {
  const key = join(base, "bad.pub")
  for (const [text, status] of [
    [`restrict ${other}\n`, 30],
    ["-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n", 30],
    ["# nobody\n", 30],
    [JSON.stringify({ perun: 1, name: "a" }), 30],
  ] as const) {
    await writeFile(key, text)
    const refused = perun("manager", "init", join(base, "none"), "--key-file", "--member", key)
    assert.equal(refused.status, status, refused.stderr)
    assert.match(refused.stderr, /^perun: [^\n]+\n$/)
    assert.doesNotMatch(refused.stderr, /secret/)
  }
  assert.equal(perun("manager", "init", join(base, "none"), "--key-file", "--member", join(base, "no-file")).status, 40)
  assert.ok(!existsSync(join(base, "none")))
})

test("manager admit adds once, keeps what is there, and refuses a broken file as it is", async () => {
  const folder = join(base, "admit")
  resultOf("manager", "init", folder, "--key-file")
  assert.match(perun("manager", "members", "--folder", folder).stdout, /^members {3}0: nobody can propose a policy; .*admit\/members/m)
  assert.deepEqual(resultOf("manager", "admit", "--folder", folder, card, other), {
    ok: true,
    folder,
    added: [
      { key: identity.key, comment: "clinic-a" },
      { key: other, comment: "" },
    ],
    members: 2,
  })
  const path = join(folder, "members")
  const text = await readFile(path, "utf8")
  assert.deepEqual(resultOf("manager", "admit", "--folder", folder, card)["added"], [])
  assert.equal(await readFile(path, "utf8"), text)
  await writeFile(path, `${text}nonsense\n`)
  for (const words of [
    ["admit", "--folder", folder, card],
    ["members", "--folder", folder],
    ["serve", folder],
  ] as const) {
    const refused = perun("manager", ...words)
    assert.equal(refused.status, 30, refused.stderr)
    assert.match(refused.stderr, /^perun: [^\n]*members line 5: [^\n]+\n$/)
  }
  assert.equal(await readFile(path, "utf8"), `${text}nonsense\n`)
  assert.equal(perun("manager", "admit", "--folder", join(base, "nowhere"), card).status, 40)
})

test("manager serve and manager status say that nobody can propose a policy, and status that somebody can once admitted", async () => {
  const folder = join(base, "served")
  const { key } = resultOf("manager", "init", folder, "--key-file")
  await using server = await serve(folder)
  assert.match(
    server.members,
    /^members {3}0: nobody can propose a policy; put public keys into \S+served\/members, one a line, or: perun manager admit/,
  )
  assert.equal(perun("manager", "trust", server.url, String(key)).status, 0)
  assert.match(perun("manager", "status").stdout, /^members +0: nobody can propose a policy; .*the file members in its folder/m)
  resultOf("manager", "admit", "--folder", folder, card)
  assert.match(perun("manager", "status").stdout, /^members +1$/m)
  assert.equal(resultOf("manager", "status")["members"], 1)
})

test("audit list verifies the whole list and shows what concerns the caller; a key that is no member proposes nothing", async () => {
  const folder = join(base, "audited")
  const second = await createIdentity(join(base, "second", "identity"), { name: "clinic-b" })
  const secondHome = { ...environment, PERUN_HOME: join(base, "second") }
  const key = String(resultOf("manager", "init", folder, "--key-file", "--member", card)["key"])
  await using server = await serve(folder)
  const references = [join(base, "boot.json"), join(base, "ima.json")]
  await writeFile(join(base, "boot.json"), JSON.stringify(bootReference))
  await writeFile(join(base, "ima.json"), JSON.stringify(imaReference))
  const submit = async (by: string, study: string, env: NodeJS.ProcessEnv): Promise<ReturnType<typeof perun>> => {
    const clinic = fixture.stakeholders["clinic-a"]
    const stakeholders = { ...fixture.stakeholders, "clinic-a": { ...clinic, keys: [by] } }
    const file = join(base, `${study}.json`)
    await writeFile(file, JSON.stringify({ ...fixture, study, stakeholders, manager: { insecureUnattested: { key } } }))
    return perunAs(env, "policy", "submit", file, ...references.flatMap((path) => ["--reference", path]))
  }
  for (const env of [environment, secondHome]) assert.equal(perunAs(env, "manager", "trust", server.url, key).status, 0)
  assert.equal((await submit(identity.key, "first", environment)).status, 0)
  const stranger = await submit(second.key, "second", secondHome)
  assert.equal(stranger.status, 10)
  assert.match(stranger.stderr, /^perun: only members propose policies[^\n]*$|^perun: the caller is no member[^\n]*$/m)
  resultOf("manager", "admit", "--folder", folder, join(base, "second", "identity", "identity.json"))
  assert.equal((await submit(second.key, "second", secondHome)).status, 0)
  const audit = resultOf("audit", "list")
  assert.deepEqual([audit["verified"], audit["others"]], [2, 1])
  const { stdout } = perun("audit", "list")
  assert.match(stdout, /policy-submitted/)
  assert.match(stdout, /^2 receipts, every one in the tree .*\n1 of them do not concern you/m)
})

/** A manager in a process of its own, with the line in which it says how many members it has. */
async function serve(folder: string): Promise<AsyncDisposable & { readonly url: string; readonly members: string }> {
  const server = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", main, "manager", "serve", folder, "--listen", "127.0.0.1:0"], {
    stdio: ["ignore", "pipe", "inherit"],
    env: environment,
  })
  const ended = new Promise((done) => server.once("close", done))
  let url = ""
  for await (const line of createInterface({ input: server.stdout })) {
    url = /^listening on (\S+)$/.exec(line)?.[1] ?? url
    if (!line.startsWith("members")) continue
    const end = async (): Promise<void> => {
      server.kill("SIGTERM")
      await ended
    }
    return { url, members: line, [Symbol.asyncDispose]: end }
  }
  throw new Error("the manager did not start")
}
