import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { promisify } from "node:util"
import { PerunError } from "../bytes/error.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { admitMembers, encodeMembers, loadMembers, MembersFile, parseMembers } from "./members.ts"

const base = await mkdtemp(join(tmpdir(), "perun-members-"))
after(() => rm(base, { recursive: true }))
const [a, b, c] = [makeKey(), makeKey(), makeKey()]

function makeKey(): string {
  return sshPublicKeyText(generateKeyPairSync("ed25519").privateKey)
}

async function put(name: string, text: string): Promise<string> {
  const path = join(base, name)
  await writeFile(path, text)
  return path
}

test("parseMembers() reads keys with their comments, skips # lines, counts a doubled key once", () => {
  assert.deepEqual(parseMembers("", "members"), [])
  assert.deepEqual(parseMembers(`# clinics\n\n${a} clinic a\r\n  ${b}\n#${c}\n${a} again\n`, "members"), [
    { key: a, comment: "clinic a" },
    { key: b, comment: "" },
  ])
  assert.deepEqual(parseMembers(encodeMembers([{ key: a, comment: "x" }]), "members"), [{ key: a, comment: "x" }])
})

test("parseMembers() refuses what is no plain key, in one line that names the line and repeats nothing of it", () => {
  const rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7"
  const bad: readonly (readonly [line: string, says: RegExp])[] = [
    [`restrict ${a}`, /options before a key/],
    [`command="/bin/true secret",no-pty ${a}`, /options before a key/],
    [`from="10.0.0.0/8" ${a}`, /options before a key/],
    ["-----BEGIN OPENSSH PRIVATE KEY----- secret", /not "type base64/],
    ["secret", /not "type base64/],
    [`${a.slice(0, -4)}`, /members line 2: /],
    [rsa, /members line 2: /],
    [`ecdsa-sha2-nistp256 ${a.split(" ")[1]}`, /type in front differs/],
  ]
  for (const [line, says] of bad)
    assert.throws(
      () => parseMembers(`${b}\n${line}\n`, "members"),
      (error) => {
        assert.ok(error instanceof PerunError && error.code === "malformed", line)
        assert.match(error.message, says)
        assert.match(error.message, /^members line 2: [^\n]+$/)
        assert.doesNotMatch(error.message, /secret/)
        return true
      },
    )
})

test("MembersFile sees a line that is added and one that is taken out", async () => {
  const path = await put("live", `${a}\n`)
  const said: string[] = []
  const members = MembersFile.load(path, (line) => said.push(line))
  assert.deepEqual([members.has(a), members.has(b), members.size], [true, false, 1])
  await admitMembers(path, [{ key: b, comment: "b" }])
  assert.deepEqual([members.has(b), members.size], [true, 2])
  await writeFile(path, `${b}\n`)
  assert.deepEqual([members.has(a), members.has(b)], [false, true])
  assert.deepEqual(said, [])
})

test("MembersFile keeps the last good list while the file is broken or gone, and says so once", async () => {
  const path = await put("broken-later", `${a}\n`)
  const said: string[] = []
  const members = MembersFile.load(path, (line) => said.push(line))
  await writeFile(path, `${a}\nrestrict ${b}\n`)
  for (let count = 0; count < 3; count++) assert.deepEqual([members.has(a), members.has(b), members.size], [true, false, 1])
  assert.equal(said.length, 1)
  assert.match(said[0] ?? "", /the 1 members read before stay in force: .*line 2: options/)
  await rm(path)
  for (let count = 0; count < 3; count++) assert.ok(members.has(a))
  assert.equal(said.length, 2)
  await writeFile(path, "x".repeat(300_000))
  assert.ok(members.has(a))
  assert.match(said[2] ?? "", /at most/)
  await writeFile(path, `${c}\n`)
  assert.deepEqual([members.has(a), members.has(c)], [false, true])
  assert.equal(said.length, 3)
})

test("MembersFile.load() refuses a file that is broken, too large or not there", async () => {
  const say = (): void => assert.fail("nothing is served yet")
  const broken = await put("broken", `${a}\nnonsense\n`)
  assert.throws(() => MembersFile.load(broken, say), { code: "malformed" })
  const large = await put("large", "#".repeat(262_145))
  assert.throws(() => MembersFile.load(large, say), { code: "too-large" })
  assert.throws(() => MembersFile.load(join(base, "none"), say), { code: "unavailable" })
})

test("admitMembers() adds each key once, keeps the other lines and leaves only its lock beside", async () => {
  const folder = await mkdtemp(join(base, "admit-"))
  const path = join(folder, "members")
  await writeFile(path, `# ours\n${a} first`)
  const both = [
    { key: b, comment: "second" },
    { key: a, comment: "other words" },
    { key: b, comment: "twice" },
  ]
  assert.deepEqual(await admitMembers(path, both), [{ key: b, comment: "second" }])
  assert.deepEqual(await admitMembers(path, both), [])
  assert.equal(await readFile(path, "utf8"), `# ours\n${a} first\n${b} second\n`)
  assert.deepEqual(await loadMembers(path), [
    { key: a, comment: "first" },
    { key: b, comment: "second" },
  ])
  assert.deepEqual((await readdir(folder)).toSorted(), ["members", "members.lock"])
})

test("admitMembers() changes no broken file and makes none", async () => {
  const path = await put("broken-admit", "nonsense\n")
  await assert.rejects(admitMembers(path, [{ key: a, comment: "" }]), { code: "malformed" })
  assert.equal(await readFile(path, "utf8"), "nonsense\n")
  await assert.rejects(admitMembers(join(base, "nothing"), [{ key: a, comment: "" }]), { code: "unavailable" })
  const full = await put("full", `#${"x".repeat(262_100)}\n`)
  await assert.rejects(admitMembers(full, [{ key: a, comment: "" }]), { code: "too-large" })
})

test("admitMembers() loses nobody when several admit at once, in this process and in others", async () => {
  const folder = await mkdtemp(join(base, "at-once-"))
  const path = join(folder, "members")
  await writeFile(path, "")
  const keys = Array.from({ length: 12 }, makeKey)
  const script = `import { admitMembers } from ${JSON.stringify(import.meta.resolve("./members.ts"))}
for (const key of process.argv.slice(2)) await admitMembers(process.argv[1], [{ key, comment: "" }])`
  const run = promisify(execFile)
  await Promise.all([
    ...keys.slice(0, 8).map((key) => admitMembers(path, [{ key, comment: "" }])),
    run(process.execPath, ["--input-type=module-typescript", "-e", script, "--", path, ...keys.slice(8, 10)]),
    run(process.execPath, ["--input-type=module-typescript", "-e", script, "--", path, ...keys.slice(10)]),
  ])
  assert.deepEqual((await loadMembers(path)).map(({ key }) => key).toSorted(), keys.toSorted())
})
