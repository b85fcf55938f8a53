/**
 * Drives the real commands as child processes with bad input and a bad world. Each case: the exit status, exactly one line on standard error besides
 * warnings, nothing of a stack, and what was there before is untouched.
 */
import assert from "node:assert/strict"
import { type ChildProcess, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { cp, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { after, before, describe, type TestContext, test } from "node:test"
import { encodeBase64 } from "../bytes/text.ts"
import { createIdentity, type Identity } from "../client/identity.ts"
import { endorsementKeyDigest } from "../evidence/tpm/endorsements.ts"
import { publicKeyOf, tpmNameText } from "../evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../evidence/tpm/public-area.ts"
import { LaboratoryAuthority, LaboratoryMachine } from "../manager/machine.testing.ts"
import { initManager } from "../manager/state.ts"
import { signStatement } from "../pki/statement.ts"
import { policyDigest, type Policy } from "../policy/document.ts"
import { bootReference, imaReference, policy as fixture } from "../policy/fixtures.testing.ts"
import { connectVerified, verifyManager } from "../protocol/manager-connection.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity } from "../protocol/tls.ts"
import { demandStatus, end, type Ended, type Environment, filesBelow, lastEvent, runCommand, serveFolder } from "./process.testing.ts"

const vectors = process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../shared/vectors")
const base = await mkdtemp(join(tmpdir(), "perun-bad-input-"))
const home = join(base, "home")
let identity: Identity
let policy: Policy

before(async () => {
  identity = await createIdentity(join(home, "identity"), { name: "clinic-a" })
  const clinic = fixture.stakeholders["clinic-a"]
  assert.ok(clinic !== undefined)
  policy = { ...fixture, stakeholders: { ...fixture.stakeholders, "clinic-a": { ...clinic, keys: [identity.key] } } }
})
after(() => rm(base, { recursive: true, force: true }))

describe("documents", { concurrency: 2 }, () => {
  const spoiled: readonly (readonly [name: string, status: number, code: string, spoil: (text: string) => string])[] = [
    ["as it should be", 0, "", (text) => text],
    ["an unknown field", 30, "malformed", (text) => text.replace('"perun":1', '"perun":1,"surprise":true')],
    ["an unknown field deep inside", 30, "malformed", (text) => text.replace('"network":"none"', '"network":"none","net":"all"')],
    ["a duplicate key", 30, "malformed", (text) => text.replace('"perun":1', '"perun":1,"perun":1')],
    ["a field left out", 30, "malformed", (text) => text.replace('"maxRuns":3,', "")],
    ["more than it may have", 30, "too-large", (text) => text.replace("weights", "w".repeat(2_000_000))],
    ["its end cut off", 30, "malformed", (text) => text.substring(0, text.length - 20)],
    ["an expiry that is over", 10, "invalid-policy", (text) => text.replace('"expires":"2027-06-01', '"expires":"2020-06-01')],
    ["a level without verifier", 10, "invalid-policy", (text) => text.replace('"level":"sealed"', '"level":"confidential"')],
  ]
  for (const [name, status, code, spoil] of spoiled) {
    test(`policy check: ${name}`, async () => {
      const file = await put(`policy-${status}-${name.replaceAll(" ", "-")}.json`, spoil(JSON.stringify(policy)))
      const { stdout } = await fails(["policy", "check", file, "--json"], status)
      if (code !== "") assert.equal(lastEvent(stdout)["code"], code)
    })
  }

  test("policy sign: an expired policy is not signed and leaves no file", async () => {
    const file = await put("expired/policy.json", JSON.stringify({ ...policy, expires: "2020-06-01T00:00:00Z" }))
    await untouched(join(base, "expired"), () => fails(["policy", "sign", file, "--offline"], 10))
  })

  test("policy sign: an SSH signature of another text is not taken over, the right one is", async (t) => {
    const folder = join(base, "foreign")
    await mkdir(folder)
    const made = spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", join(folder, "key")])
    if (made.error !== undefined) return t.skip("no ssh-keygen")
    const key = (await readFile(join(folder, "key.pub"), "utf8")).trim()
    const own: Policy = { ...policy, stakeholders: { ...policy.stakeholders, "clinic-b": { keys: [key], roles: ["data"] } } }
    const file = await put("foreign/policy.json", JSON.stringify(own))
    const sign = async (name: string, text: string): Promise<string> => {
      const path = await put(`foreign/${name}`, text)
      assert.equal(
        spawnSync("ssh-keygen", ["-q", "-Y", "sign", "-n", "perun-policy", "-f", join(folder, "key"), path], { stdio: "ignore" }).status,
        0,
      )
      return `${path}.sig`
    }
    const wrong = await sign("wrong", `perun policy ${policyDigest(policy)}`)
    const right = await sign("right", `perun policy ${policyDigest(own)}`)
    const takeOver = (signature: string): readonly string[] => ["policy", "sign", file, "--offline", "--ssh-signature", signature, "--yes", "--json"]
    await untouched(folder, async () => {
      const { stdout } = await fails(takeOver(wrong), 10)
      assert.equal(lastEvent(stdout)["code"], "wrong-signature")
      await fails(takeOver(join(folder, "wrong")), 30)
    })
    const { stdout } = await fails(takeOver(right), 0)
    assert.equal(lastEvent(stdout)["signer"], "clinic-b")
  })

  test("policy explain: a signature for another purpose does not count", async () => {
    const file = await put("counted/policy.json", JSON.stringify(policy))
    const vote = await put("counted/vote.json", JSON.stringify(signStatement("vote", policyDigest(policy), identity.privateKey)))
    const { stdout } = await run(["policy", "explain", file, "--signature", vote, "--json"])
    assert.doesNotMatch(stdout, /"signed":\["clinic-a"\]/)
  })

  test("reference show: unknown field, duplicate key, text, oversize", async () => {
    const good = JSON.stringify(imaReference)
    await fails(["reference", "show", await put("good.json", good)], 0)
    await fails(["reference", "show", await put("r1.json", good.replace('"perun":1', '"perun":1,"x":1'))], 30)
    await fails(["reference", "show", await put("r2.json", good.replace('"perun":1', '"perun":1,"perun":1'))], 30)
    await fails(["reference", "show", await put("r3.json", "hello")], 30)
    await fails(["reference", "show", await put("r4.json", Buffer.alloc(33 << 20, " "))], 30)
    await fails(["reference", "diff", join(base, "good.json"), join(base, "not-there.json")], 40)
  })

  test("policy check: a reference that the policy does not name, and those that it does", async () => {
    const file = await put("named/policy.json", JSON.stringify(policy))
    const boot = await put("named/boot.json", JSON.stringify(bootReference))
    const ima = await put("named/ima.json", JSON.stringify(imaReference))
    const other = await put("named/other.json", JSON.stringify({ ...imaReference, name: "other" }))
    await fails(["policy", "check", file, "--reference", boot, "--reference", ima], 0)
    await fails(["policy", "check", file, "--reference", boot, "--reference", other], 10)
  })
})

describe("command lines", { concurrency: 2 }, () => {
  const wrong: readonly (readonly string[])[] = [
    ["nonsense"],
    ["policy", "sing"],
    ["policy", "check"],
    ["policy", "check", "a", "b"],
    ["seal", "folder", "--out", "o", "--name", "n", "--kind", "thing"],
    ["seal", base, "--out", "o", "--kind", "dataset"],
    ["lab", "boot", "small"],
    ["lab", "boot", "small", "--folder", join(base, "lab"), "--host", "h", "--manager", "http://127.0.0.1:1", "--key", "k"],
    ["lab", "boot", "medium", "--folder", join(base, "lab"), "--host", "h", "--manager", "https://127.0.0.1:1", "--key", "k"],
    ["host", "show", "--tpm", "nowhere"],
    ["manager", "serve", base, "--listen", "everywhere"],
  ]
  for (const args of wrong) test(`perun ${args.join(" ").replaceAll(base, "FOLDER")}`, async () => void (await fails(args, 2)))

  test("the same with --json is one event on standard output", async () => {
    const { stdout, stderr } = await fails(["policy", "sing", "--json"], 2)
    assert.equal(stderr, "")
    assert.deepEqual({ ...lastEvent(stdout), message: "" }, { ok: false, code: "usage", message: "" })
  })

  test("without an identity: what to do", async () => {
    const file = await put("nobody.json", JSON.stringify(policy))
    const { stderr } = await fails(["policy", "sign", file, "--offline"], 2, { PERUN_HOME: join(base, "empty") })
    assert.match(stderr, /identity create/)
  })

  test("identity create does not replace one", () => untouched(home, () => fails(["identity", "create", "clinic-a"], 2)))
})

describe("sealed artifacts", () => {
  const sealed = join(base, "sealed")

  before(async () => {
    await put("records/a.txt", "patient 1\n".repeat(20_000))
    const { status, stderr } = await run(["seal", join(base, "records"), "--out", sealed, "--kind", "dataset", "--name", "records-a"])
    assert.equal(status, 0, stderr)
  })

  const spoiled: readonly (readonly [name: string, status: number, spoil: (folder: string) => Promise<void>])[] = [
    ["a shard that was cut", 30, async (folder) => truncate(await shardOf(folder), 1000)],
    ["a shard that was appended to", 30, async (folder) => writeFile(await shardOf(folder), "more", { flag: "a" })],
    ["a changed byte", 10, async (folder) => changeByte(await shardOf(folder), 5000)],
    ["a shard that is gone", 40, async (folder) => rm(await shardOf(folder))],
    ["a manifest with another name", 10, async (folder) => replaceIn(join(folder, "manifest.json"), "records-a", "records-b")],
    ["a manifest with an unknown field", 30, async (folder) => replaceIn(join(folder, "manifest.json"), '"kind"', '"x":1,"kind"')],
    ["another artifact's key", 10, async (folder) => replaceKey(folder)],
  ]
  for (const [name, status, spoil] of spoiled) {
    test(`open: ${name}; nothing is left`, async () => {
      const folder = join(base, `sealed-${name.replaceAll(" ", "-")}`)
      await cp(sealed, folder, { recursive: true })
      await cp(`${sealed}.identity.age`, `${folder}.identity.age`)
      await spoil(folder)
      const out = join(base, `out-${name.replaceAll(" ", "-")}`)
      await untouched(folder, () => fails(["open", folder, "--out", out], status))
      assert.deepEqual(await filesBelow(out), [])
    })
  }

  test("open: a destination that is in use", async () => {
    await put("used/mine.txt", "mine")
    await untouched(join(base, "used"), () => fails(["open", sealed, "--out", join(base, "used")], 2))
  })

  test("seal, identity create and manager init: a full disk", async (t) => {
    const disk = mountSmall(t)
    if (disk === undefined) return
    try {
      await put("large/a.bin", Buffer.alloc(3 << 20, 7))
      await fails(["seal", join(base, "large"), "--out", join(disk, "sealed"), "--kind", "dataset", "--name", "large"], 50)
      await rm(join(disk, "sealed"), { recursive: true, force: true })
      await writeFile(join(disk, "filler"), Buffer.alloc(2 << 20)).catch(() => undefined) // Until it is full.
      await fails(["identity", "create", "late"], 50, { PERUN_HOME: join(disk, "home") })
      assert.deepEqual(await filesBelow(join(disk, "home")), [])
      await fails(["manager", "init", join(disk, "manager"), "--key-file"], 50)
      assert.deepEqual(await filesBelow(join(disk, "manager")), [])
    } finally {
      spawnSync("umount", [disk])
    }
  })
})

describe("evidence", { concurrency: 2 }, () => {
  const good = join(vectors, "host", "ng")

  async function evidenceCase(t: TestContext, name: string): Promise<{ readonly folder: string; readonly nonce: string } | undefined> {
    let text: string
    try {
      text = await readFile(join(good, "expected.json"), "utf8")
    } catch {
      t.skip("no vectors")
      return undefined
    }
    const { nonce } = JSON.parse(text) as { nonce: string }
    const folder = join(base, `evidence-${name.replaceAll(" ", "-")}`)
    await mkdir(folder)
    // The vectors may be read-only; what is cut here must not be.
    for (const file of await readdir(good)) await writeFile(join(folder, file), await readFile(join(good, file)))
    return { folder, nonce }
  }
  const verify = (folder: string, nonce: string, ...more: readonly string[]): readonly string[] => [
    ...["evidence", "verify", folder, "--nonce", nonce, "--laboratory-root", join(folder, "lab-ca.pem"), "--at", "2026-11-23T00:00:00Z"],
    ...more,
  ]

  /** What `host list --json` prints where the TPM of `ofEndorsement` was enrolled with the attestation key of `ofAttestation`. */
  async function enrolments(ofEndorsement: string, ofAttestation: string): Promise<string> {
    const areaOf = async (folder: string, name: string) => parseSizedPublicArea(new Uint8Array(await readFile(join(vectors, folder, name))))
    const endorsementKey = endorsementKeyDigest(publicKeyOf(await areaOf(ofEndorsement, "ek.tpm2b-public")))
    const attestationKeyName = tpmNameText(await areaOf(ofAttestation, "ak.tpm2b-public"))
    const identity = { endorsementKey, root: endorsementKey, rootKind: "laboratory", description: "", attestationKeyName }
    const list = { ok: true, hosts: [{ host: "host-1", identity, enrolledAt: "2026-11-22T00:00:00Z", retired: false }] }
    return put(`hosts-${ofEndorsement}-${ofAttestation}.json`.replaceAll("/", "-"), `{"event":"warning"}\n${JSON.stringify(list)}\n`)
  }

  const spoiled: readonly (readonly [name: string, status: number, code: string, spoil: (folder: string) => Promise<void>])[] = [
    ["whole, but of a key that nobody enrolled", 10, "unproved", async () => undefined],
    ["whole, but of a TPM that nobody vouches for", 10, "unproved", (folder) => rm(join(folder, "ek-certificate.der"))],
    ["another key's", 10, "wrong-signature", (folder) => takeFrom("host/evmsig", folder, "ak.tpm2b-public")],
    ["another TPM's endorsement key", 10, "wrong-binding", (folder) => takeFrom("host/evmsig", folder, "ek.tpm2b-public")],
    ["a boot log of another machine", 10, "pcr-mismatch", (folder) => takeFrom("host/evmsig", folder, "eventlog.bin")],
    ["boot log cut within an event", 30, "truncated", (folder) => cut(folder, "eventlog.bin", 7)],
    ["IMA list cut within an entry", 30, "truncated", (folder) => cut(folder, "ima.bin", 7)],
    ["no IMA list", 10, "", (folder) => truncate(join(folder, "ima.bin"), 0)],
    ["quote cut", 30, "truncated", (folder) => cut(folder, "quote.msg", 1)],
    ["signature cut", 30, "truncated", (folder) => cut(folder, "quote.sig", 1)],
    ["quote appended to", 30, "trailing-bytes", (folder) => writeFile(join(folder, "quote.msg"), "x", { flag: "a" })],
    ["quote gone", 40, "unavailable", (folder) => rm(join(folder, "quote.msg"))],
  ]
  for (const [name, status, code, spoil] of spoiled) {
    test(`evidence verify: ${name}`, async (t) => {
      const found = await evidenceCase(t, name)
      if (found === undefined) return
      await spoil(found.folder)
      const { stdout } = await fails(verify(found.folder, found.nonce, "--json"), status)
      if (code !== "") assert.equal(lastEvent(stdout)["code"], code)
    })
  }

  test("evidence verify: whole, of a key that was enrolled; the words are green only then", async (t) => {
    const found = await evidenceCase(t, "enrolled")
    if (found === undefined) return
    const colours = { NO_COLOR: "", FORCE_COLOR: "1" }
    const enrolled = await fails(verify(found.folder, found.nonce, "--enrolled", await enrolments("host/ng", "host/ng")), 0, colours)
    assert.match(enrolled.stdout, /\u001b\[32mgenuine: /)
    const unproved = await run(verify(found.folder, found.nonce), colours)
    assert.equal(unproved.status, 10)
    assert.match(unproved.stderr, /^perun: not accepted: /m)
    assert.doesNotMatch(unproved.stdout, /\u001b\[32mgenuine/)
    await rm(join(found.folder, "ek-certificate.der"))
    const unvouched = await fails(verify(found.folder, found.nonce, "--enrolled", await enrolments("host/ng", "host/ng")), 10)
    assert.match(unvouched.stderr, /no endorsement certificate/)
  })

  test("evidence verify: enrolments of another key, of another TPM, and what is none", async (t) => {
    const found = await evidenceCase(t, "enrolled otherwise")
    if (found === undefined) return
    const code = async (file: string, status: number): Promise<unknown> =>
      lastEvent((await fails(verify(found.folder, found.nonce, "--enrolled", file, "--json"), status)).stdout)["code"]
    assert.equal(await code(await enrolments("host/ng", "host/evmsig"), 10), "wrong-binding")
    assert.equal(await code(await enrolments("host/evmsig", "host/ng"), 10), "refused")
    assert.equal(await code(await put("hosts-none.json", '{"ok":true,"hosts":[{}]}'), 30), "malformed")
  })

  test("evidence verify: yesterday's", async (t) => {
    const found = await evidenceCase(t, "of yesterday")
    if (found === undefined) return
    const { stdout } = await fails(verify(found.folder, createHash("sha256").update("today").digest("hex"), "--json"), 10)
    assert.equal(lastEvent(stdout)["code"], "wrong-nonce")
    await fails(verify(found.folder, "zz"), 30)
  })

  test("evidence verify: a root that nobody gave", async (t) => {
    const found = await evidenceCase(t, "without root")
    if (found === undefined) return
    const { stdout } = await fails(["evidence", "verify", found.folder, "--nonce", found.nonce, "--at", "2026-11-23T00:00:00Z", "--json"], 10)
    assert.equal(lastEvent(stdout)["code"], "wrong-chain")
  })

  test("evidence verify: bundles that are none", async () => {
    await fails(["evidence", "verify", await put("bundle1.json", "{}"), "--insecure-any-nonce"], 30)
    await fails(["evidence", "verify", await put("bundle2.json", '{"perun":1,"perun":1}'), "--insecure-any-nonce"], 30)
    await fails(["evidence", "verify", await put("bundle3.json", Buffer.alloc(5000, 0xff)), "--insecure-any-nonce"], 30)
  })
})

describe("the world outside", { concurrency: 2 }, () => {
  for (const where of ["unix:/nonexistent/tpm", "tcp:127.0.0.1:1", "/dev/perun-no-such-tpm"])
    test(`host show --tpm ${where}: no TPM`, async () => void (await fails(["host", "show", "--tpm", where], 40)))

  test("manager away", async () => {
    const own = await homeWith(identity, { url: "https://127.0.0.1:1", key: identity.key })
    await untouched(own, () => fails(["policy", "status"], 40, { PERUN_HOME: own }))
  })

  test("a list of pinned managers that is none", async () => {
    const own = await homeWith(identity, { url: "https://127.0.0.1:1", key: identity.key, surprise: 1 })
    await untouched(own, () => fails(["policy", "status"], 30, { PERUN_HOME: own }))
  })

  test("lab console and stop of a folder that is none", async () => {
    await fails(["lab", "console", join(base, "no-machine")], 40)
    await fails(["lab", "stop", join(base, "no-machine")], 40)
  })
})

describe("a manager", () => {
  const folder = join(base, "manager")
  const authority = new LaboratoryAuthority()
  let server: ChildProcess
  let url = ""
  let key = ""
  let own = ""
  let submitted = ""

  before(async () => {
    ;({ key } = await initManager({
      folder,
      laboratoryRoots: [authority.root],
      members: [{ key: identity.key, comment: "" }],
      vault: { kind: "key-file" },
    }))
    ;({ server, url } = await serveFolder(folder))
    own = await homeWith(identity, { url, key })
    const ours: Policy = { ...policy, manager: { insecureUnattested: { key } } }
    const file = await put("submitted/policy.json", JSON.stringify(ours))
    const references = [
      await put("submitted/boot.json", JSON.stringify(bootReference)),
      await put("submitted/ima.json", JSON.stringify(imaReference)),
    ]
    await fails(["policy", "submit", file, ...references.flatMap((path) => ["--reference", path])], 0, { PERUN_HOME: own })
    await fails(["policy", "sign", file, "--yes"], 0, { PERUN_HOME: own })
    submitted = policyDigest(ours)
  })
  after(async () => end(server))

  test("policy status: the control", async () => {
    const { stderr, stdout } = await fails(["policy", "status"], 0, { PERUN_HOME: own })
    assert.match(stderr, /^UNATTESTED MANAGER[^\n]*\n$/)
    assert.match(stdout, /proposed/)
  })

  test("its folder in use", async () => void (await fails(["manager", "serve", folder, "--listen", "127.0.0.1:0"], 40)))

  test("its port in use", async () => {
    const other = join(base, "other-manager")
    await initManager({ folder: other, laboratoryRoots: [], vault: { kind: "key-file" } })
    const blocker = createServer().listen(0, "127.0.0.1")
    await new Promise((resolve) => blocker.once("listening", resolve))
    const address = blocker.address()
    assert.ok(typeof address === "object" && address !== null)
    const { stdout } = await fails(["manager", "serve", other, "--listen", `127.0.0.1:${address.port}`, "--json"], 50)
    assert.equal(lastEvent(stdout)["code"], "port-in-use")
    blocker.close()
  })

  test("manager init does not replace one", async () => void (await fails(["manager", "init", folder, "--key-file"], 2)))

  test("another key than the pinned one", async () => {
    const { stdout } = await fails(["manager", "trust", url, identity.key, "--json"], 10, { PERUN_HOME: join(base, "empty") })
    assert.equal(lastEvent(stdout)["code"], "wrong-manager")
    assert.deepEqual(await filesBelow(join(base, "empty")), [])
    const wrong = await homeWith(identity, { url, key: identity.key })
    await fails(["policy", "status"], 10, { PERUN_HOME: wrong })
  })

  test("policies that it does not have, or may not take", async () => {
    await fails(["policy", "status", `sha256:${"0".repeat(64)}`], 10, { PERUN_HOME: own })
    await fails(["job", "start", `sha256:${"0".repeat(64)}`, "train"], 10, { PERUN_HOME: own })
    await fails(["job", "start", submitted, "train"], 10, { PERUN_HOME: own })
    const file = await put("other-manager.json", JSON.stringify(policy))
    await fails(["policy", "submit", file], 10, { PERUN_HOME: own })
  })

  test("an enrolment answered twice, or wrongly, and a claim without a challenge", async () => {
    const tls = createTlsIdentity("perun test")
    using transport = connectVerified(await verifyManager(new URL(url), { key }, tls, { now: new Date() }), tls)
    const machine = new LaboratoryMachine(authority)
    const begun = await transport.call(routes.beginEnrolment, { body: machine.enrolmentRequest("host-1") })
    const params = { enrolment: begun.enrolment }
    const secret = machine.activate(begun)
    await transport.call(routes.answerEnrolment, { params, body: { secret } })
    await assert.rejects(transport.call(routes.answerEnrolment, { params, body: { secret } }), { name: "ProblemError" })
    const second = await transport.call(routes.beginEnrolment, { body: new LaboratoryMachine(authority).enrolmentRequest("host-2") })
    const { publicKey } = await generateHpkeKeyPair()
    const body = { challenge: "0".repeat(32), hpkeKey: encodeBase64(publicKey), bundle: machine.bundle(new Uint8Array(32)) }
    await assert.rejects(transport.call(routes.claimRun, { body }), { name: "ProblemError", code: "challenge-unknown" })
    const wrong = { params: { enrolment: second.enrolment }, body: { secret: encodeBase64(new Uint8Array(32)) } }
    await assert.rejects(transport.call(routes.answerEnrolment, wrong), { name: "ProblemError", code: "wrong-answer" })
    const { stdout } = await run(["host", "list", "--json"], { PERUN_HOME: own })
    const { hosts } = lastEvent(stdout) as { hosts: readonly { host: string }[] }
    assert.deepEqual(
      hosts.map(({ host }) => host),
      ["host-1"],
    )
  })

  test("killed and started again, it has what it had", async () => {
    await end(server, "SIGKILL")
    await fails(["host", "list"], 40, { PERUN_HOME: own })
    ;({ server, url } = await serveFolder(folder))
    const again = await homeWith(identity, { url, key })
    const { stdout } = await run(["host", "list", "--json"], { PERUN_HOME: again })
    assert.match(stdout, /"host":"host-1"/)
    const view = await fails(["policy", "status", submitted], 0, { PERUN_HOME: again })
    assert.match(view.stdout, /^signed +clinic-a$/m)
  })
})

function run(args: readonly string[], environment: Environment = {}): Promise<Ended> {
  return runCommand(args, { PERUN_HOME: home, ...environment })
}

function fails(args: readonly string[], status: number, environment: Environment = {}): Promise<Ended> {
  return demandStatus(args, status, { PERUN_HOME: home, ...environment })
}

/** Runs something that must change no file of a folder. */
async function untouched(folder: string, work: () => Promise<unknown>): Promise<void> {
  const was = await contentOf(folder)
  await work()
  assert.deepEqual(await contentOf(folder), was)
}

async function contentOf(folder: string): Promise<Readonly<Record<string, string>>> {
  const digest = async (name: string): Promise<string> =>
    createHash("sha256")
      .update(await readFile(join(folder, name)))
      .digest("hex")
  return Object.fromEntries(await Promise.all((await filesBelow(folder)).map(async (name) => [name, await digest(name)] as const)))
}

async function put(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(base, name)
  await mkdir(resolve(path, ".."), { recursive: true })
  await writeFile(path, content)
  return path
}

let homes = 0

/** A home with this identity that pins a manager. */
async function homeWith(owner: Identity, pin: { readonly url: string; readonly key: string; readonly surprise?: number }): Promise<string> {
  const folder = join(base, `home-${homes++}`)
  await cp(join(home, "identity"), join(folder, "identity"), { recursive: true })
  await writeFile(join(folder, "managers.json"), JSON.stringify({ perun: 1, default: pin.url, managers: [pin] }))
  assert.equal(owner.name, "clinic-a")
  return folder
}

async function shardOf(folder: string): Promise<string> {
  const names = (await filesBelow(folder)).filter((name) => name.includes("shard"))
  const [first] = names
  assert.ok(first !== undefined, (await filesBelow(folder)).join(" "))
  return join(folder, first)
}

async function changeByte(path: string, offset: number): Promise<void> {
  const bytes = await readFile(path)
  bytes.writeUInt8(bytes.readUInt8(offset) ^ 1, offset)
  await writeFile(path, bytes)
}

async function replaceIn(path: string, before: string, after: string): Promise<void> {
  const text = await readFile(path, "utf8")
  assert.ok(text.includes(before))
  await writeFile(path, text.replace(before, after))
}

async function replaceKey(folder: string): Promise<void> {
  const other = join(base, "other-sealed")
  const { status, stderr } = await run(["seal", join(base, "records"), "--out", other, "--kind", "dataset", "--name", "other"])
  assert.equal(status, 0, stderr)
  await cp(`${other}.identity.age`, `${folder}.identity.age`)
}

async function cut(folder: string, name: string, bytes: number): Promise<void> {
  const { length } = await readFile(join(folder, name))
  await truncate(join(folder, name), length - bytes)
}

async function takeFrom(kase: string, folder: string, name: string): Promise<void> {
  await writeFile(join(folder, name), await readFile(join(vectors, kase, name)))
}

/** A disk of one megabyte; undefined, and the test skipped, where we may not mount one. */
function mountSmall(t: TestContext): string | undefined {
  const folder = join(base, "small-disk")
  spawnSync("mkdir", ["-p", folder])
  if (process.getuid?.() === 0 && spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).status === 0) return folder
  t.skip("cannot mount a small disk")
  return undefined
}
