import assert from "node:assert/strict"
import { createHash, generateKeyPairSync, randomBytes } from "node:crypto"
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises"
import type { IncomingMessage } from "node:http"
import { request } from "node:https"
import { connect as connectTcp } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Readable } from "node:stream"
import { after, test } from "node:test"
import { connect } from "node:tls"
import { digestOf } from "../bytes/digest.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { Transport, withRetry } from "../protocol/http-client.ts"
import { connectAsStakeholder, connectVerified, verifyManager } from "../protocol/manager-connection.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity } from "../protocol/tls.ts"
import { UnavailableError } from "../bytes/error.ts"
import { LaboratoryAuthority } from "./machine.testing.ts"
import { type RunningManager, serveManager } from "./server.ts"
import { admitMembers } from "./members.ts"
import { membersPath } from "./folder.ts"
import { initManager, openManager } from "./state.ts"
import { makeParts, TestStudy, toJson } from "./study.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-manager-"))
after(() => rm(base, { recursive: true }))
const parts = await makeParts()
const { clinic } = parts
const folder = join(base, "one")
const members = [{ key: clinic.key, comment: "clinic" }]
const initialized = await initManager({ folder, laboratoryRoots: [new LaboratoryAuthority().root], members, vault: { kind: "key-file" } })

async function serve(port = 0): Promise<RunningManager> {
  return serveManager({ folder, host: "127.0.0.1", port })
}

async function connectTo(manager: RunningManager, key = initialized.key): ReturnType<typeof connectAsStakeholder> {
  return connectAsStakeholder(new URL(manager.url), { key }, clinic.privateKey, { now: new Date() })
}

test("initManager() makes a folder once, with a vault file for the owner alone", async () => {
  assert.deepEqual(initialized.vault, { kind: "key-file" })
  assert.equal((await stat(join(folder, "vault.json"))).mode & 0o777, 0o600)
  await assert.rejects(initManager({ folder, laboratoryRoots: [], vault: { kind: "key-file" } }), { code: "already-exists" })
})

test("openManager() creates nothing", async () => {
  await assert.rejects(openManager(join(base, "nothing")), { code: "unavailable" })
  await assert.rejects(stat(join(base, "nothing")), { code: "ENOENT" })
})

test("openManager() refuses another vault key and a changed database", async () => {
  const own = join(base, "spoiled")
  await initManager({ folder: own, laboratoryRoots: [], vault: { kind: "key-file" } })
  const vault = await readFile(join(own, "vault.json"), "utf8")
  await writeFile(join(own, "vault.json"), JSON.stringify({ perun: 1, kind: "key-file", key: Buffer.alloc(32).toString("base64") }))
  await assert.rejects(openManager(own), { code: "store-changed" })
  await writeFile(join(own, "vault.json"), JSON.stringify({ perun: 1, kind: "key-file", key: Buffer.alloc(16).toString("base64") }))
  await assert.rejects(openManager(own), { code: "store-changed" })
  await writeFile(join(own, "vault.json"), JSON.stringify({ perun: 1, kind: "none" }))
  await assert.rejects(openManager(own), { code: "malformed" })
  await writeFile(join(own, "vault.json"), vault)
  ;(await openManager(own))[Symbol.dispose]()
  await writeFile(join(own, "manager.db"), randomBytes(8192))
  await assert.rejects(openManager(own), { code: "store-changed" })
})

test("a vault key that is sealed to a TPM needs that TPM", async () => {
  const own = join(base, "sealed")
  const flip = async (bytes: Uint8Array): Promise<Uint8Array> => bytes.map((byte) => byte ^ 0xff)
  const sealer = { seal: flip, unseal: flip }
  assert.deepEqual((await initManager({ folder: own, laboratoryRoots: [], vault: { kind: "tpm", sealer } })).vault, { kind: "tpm" })
  await assert.rejects(openManager(own), { code: "wrong-state" })
  const opened = await openManager(own, { sealer })
  assert.deepEqual(opened.manager.description.vault, { kind: "tpm" })
  opened[Symbol.dispose]()
})

test("a stakeholder connects, proves itself and talks", async () => {
  await using manager = await serve()
  using transport = (await connectTo(manager)).transport
  assert.equal((await connectTo(manager)).manager.description.instance, initialized.instance)
  assert.deepEqual(await transport.call(routes.listPolicies, {}), { policies: [] })
})

test("a manager with another key than the pinned one gets nothing", async () => {
  await using manager = await serve()
  const other = sshPublicKeyText(generateKeyPairSync("ed25519").privateKey)
  await assert.rejects(connectTo(manager, other), { code: "wrong-manager" })
})

test("a connection that ends at another TLS key is refused before a byte is sent", async () => {
  await using manager = await serve()
  const verified = await verifyManager(new URL(manager.url), { key: initialized.key }, createTlsIdentity("test"), { now: new Date() })
  const foreign = join(base, "foreign")
  await initManager({ folder: foreign, laboratoryRoots: [], vault: { kind: "key-file" } })
  await using other = await serveManager({ folder: foreign, host: "127.0.0.1", port: 0 })
  using transport = connectVerified({ ...verified, url: new URL(other.url) }, createTlsIdentity("test"), { headers: { secret: "x" } })
  await assert.rejects(transport.call(routes.listPolicies, {}), { code: "wrong-tls-key" })
})

test("no client certificate: 401; TLS 1.2 and plain text: no connection", async () => {
  await using manager = await serve()
  const { port } = new URL(manager.url)
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port: Number(port), rejectUnauthorized: false }, () =>
      socket.write("GET /v1/policies HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
    let text = ""
    socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
    socket.on("end", () => resolve(text)).on("error", reject)
  })
  assert.match(answer, /^HTTP\/1\.1 401 /)
  assert.match(answer, /"code":"unauthenticated"/)
  await assert.rejects(
    new Promise((resolve, reject) => {
      connect({ host: "127.0.0.1", port: Number(port), rejectUnauthorized: false, maxVersion: "TLSv1.2" }, () => resolve(undefined)).on(
        "error",
        reject,
      )
    }),
  )
  const plain = connectTcp(Number(port), "127.0.0.1")
  plain.write("GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
  const closed = await new Promise<string>((resolve) => {
    let text = ""
    plain.on("data", (chunk) => (text += String(chunk)))
    plain.on("error", () => resolve(text)).on("close", () => resolve(text))
  })
  assert.ok(!closed.includes("200"))
})

test("a port in use and a folder in use are said plainly, and nothing is left open", async () => {
  await using manager = await serve()
  const second = join(base, "second")
  await initManager({ folder: second, laboratoryRoots: [], vault: { kind: "key-file" } })
  const port = Number(new URL(manager.url).port)
  await assert.rejects(
    serveManager({ folder: second, host: "127.0.0.1", port }),
    (error) => error instanceof UnavailableError && error.code === "port-in-use",
  )
  await using again = await serveManager({ folder: second, host: "127.0.0.1", port: 0 })
  assert.ok(again.url)
  await assert.rejects(serve(), { code: "unavailable" })
})

test("blobs go up and come down over the wire, and a broken download goes on", async () => {
  await using manager = await serve()
  using transport = (await connectTo(manager)).transport
  const study = await TestStudy.create(parts)
  const policy = study.policy({ manager: { insecureUnattested: { key: initialized.key } } })
  const { boot, ima } = parts.references
  await transport.call(routes.submitPolicy, { body: { policy: toJson(policy), references: [toJson(boot), toJson(ima)] } })
  const blob = new Uint8Array(randomBytes(3_000_000))
  const digest = digestOf(blob)
  assert.equal(await transport.blobSize(digest), undefined)
  await transport.putBlob(digest, blob.length, () => Readable.from([blob]))
  assert.equal(await transport.blobSize(digest), blob.length)
  const path = join(base, "blob")
  await writeFile(path, blob.subarray(0, 1_000_000))
  await transport.getBlobFile(digest, path)
  assert.equal(
    createHash("sha256")
      .update(await readFile(path))
      .digest("hex"),
    digest.substring(7),
  )
  await transport.getBlobFile(digest, path)
  await writeFile(path, randomBytes(1000))
  await assert.rejects(transport.getBlobFile(digest, path), { code: "wrong-digest" })
  await assert.rejects(transport.getBlobFile(digest, join(base, "small"), { maxBytes: 1000 }), { code: "too-large" })
  const wrong = digestOf(new Uint8Array(5))
  await assert.rejects(
    transport.putBlob(wrong, 4, () => Readable.from([new Uint8Array(4)])),
    { code: "wrong-digest" },
  )
})

test("an oversize document is refused by its code, not by a broken line", async () => {
  await using manager = await serve()
  using transport = (await connectTo(manager)).transport
  const policy = { text: "x".repeat(36_000_000) }
  await assert.rejects(transport.call(routes.submitPolicy, { body: { policy, references: [] } }), { code: "too-large" })
  const blob = new Uint8Array(20_000_000)
  const stranger = await connectAsStakeholder(new URL(manager.url), { key: initialized.key }, parts.stranger.privateKey, { now: new Date() })
  using other = stranger.transport
  await assert.rejects(
    other.putBlob(digestOf(blob), blob.length, () => Readable.from([blob])),
    { status: 403 },
  )
})

test("members are read anew while the manager runs, and a broken file changes nothing", async () => {
  const own = join(base, "admission")
  const { key } = await initManager({ folder: own, laboratoryRoots: [], vault: { kind: "key-file" } })
  const manager = await serveManager({ folder: own, host: "127.0.0.1", port: 0 })
  using transport = (await connectAsStakeholder(new URL(manager.url), { key }, clinic.privateKey, { now: new Date() })).transport
  assert.deepEqual([manager.members, await transport.call(routes.health, {})], [0, { ok: true, members: 0 }])
  await assert.rejects(transport.call(routes.listHosts, {}), { code: "not-permitted" })
  await admitMembers(membersPath(own), members)
  assert.deepEqual(await transport.call(routes.listHosts, {}), { hosts: [] })
  await writeFile(membersPath(own), "nonsense\n")
  assert.deepEqual(await transport.call(routes.health, {}), { ok: true, members: 1 })
  await manager.stop()
  await assert.rejects(serveManager({ folder: own, host: "127.0.0.1", port: 0 }), { code: "malformed" })
})

test("the peer's address is told to the manager: a network's enrolments are counted over all its keys, and others' apart", async () => {
  await using manager = await serve()
  const { port } = new URL(manager.url)
  const begin = async (localAddress: string): Promise<string> => {
    const { privateKeyPem, certificatePem } = createTlsIdentity("test")
    const options = { host: "127.0.0.1", port, path: "/v1/enrolments", method: "POST", localAddress, rejectUnauthorized: false, agent: false }
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const sent = request({ ...options, key: privateKeyPem, cert: certificatePem }, resolve).on("error", reject)
      sent.end(JSON.stringify(parts.machine.enrolmentRequest("host-1")))
    })
    const { code } = JSON.parse(Buffer.concat(await response.toArray()).toString()) as { code: string }
    return code
  }
  // Their root is not this manager's, which is found out after they were counted.
  for (let count = 0; count < 32; count++) assert.equal(await begin("127.0.0.1"), "wrong-signature")
  assert.equal(await begin("127.0.0.1"), "too-many-requests")
  assert.equal(await begin("127.0.0.2"), "wrong-signature")
})

test("events stream over the wire", async () => {
  await using manager = await serve()
  using transport = (await connectTo(manager)).transport
  await assert.rejects(
    async () => {
      for await (const event of transport.events(routes.watchRun, { params: { run: "0".repeat(32) } })) assert.fail(event.kind)
    },
    { code: "not-found" },
  )
})

test("everything is there after a stop and a start, under the same keys", async () => {
  const first = await serve()
  const { description } = first
  await first.stop()
  await using again = await serve()
  assert.deepEqual(again.description, description)
  using transport = (await connectTo(again)).transport
  assert.equal((await transport.call(routes.listPolicies, {})).policies.length, 1)
})

test("a manager that is away is unavailable, and retries pause longer and longer", async () => {
  const manager = await serve()
  const url = new URL(manager.url)
  await manager.stop()
  using transport = new Transport({ url, identity: createTlsIdentity("test"), checkPeer: () => undefined })
  const pauses: number[] = []
  const attempt = withRetry(() => transport.call(routes.health, {}), {
    attempts: 4,
    baseMilliseconds: 100,
    maxMilliseconds: 300,
    random: () => 0.999,
    sleep: async (milliseconds) => void pauses.push(Math.round(milliseconds)),
  })
  await assert.rejects(attempt, { code: "unavailable" })
  assert.deepEqual(pauses, [100, 200, 300])
  const refused = withRetry(async () => Promise.reject(new TypeError("no")), {
    attempts: 4,
    baseMilliseconds: 1,
    maxMilliseconds: 1,
    random: () => 0,
    sleep: async () => assert.fail("a final error is not retried"),
  })
  await assert.rejects(refused, TypeError)
})
