import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { labTdRequirement, tdOfProgram } from "../../lab/devices/td.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { signStatement } from "../pki/statement.ts"
import { parseBase64 } from "../bytes/text.ts"
import { sealMessage } from "../protocol/hpke.ts"
import { Transport } from "../protocol/http-client.ts"
import { connectAsStakeholder, connectToKey, verifyManager } from "../protocol/manager-connection.ts"
import { shareCommitment, unlockContext, unlockDigest } from "../protocol/manager-lock.ts"
import { routes } from "../protocol/routes.ts"
import { createTlsIdentity } from "../protocol/tls.ts"
import { type FoundLock, handInShare, lookAtLock } from "../protocol/unlock.ts"
import { custodians, type TestCustodian } from "./custodians.testing.ts"
import { VaultLock } from "./lock.ts"
import type { OwnTee } from "./own-tee.ts"
import { type LockedManager, serveLocked, serveManager } from "./server.ts"
import { initManager, openLockedFolder, vaultOfFolder } from "./state.ts"

const base = await mkdtemp(join(tmpdir(), "perun-lock-"))
after(() => rm(base, { recursive: true, force: true }))
const authority = makeLabAuthority({ keys: makeLabKeys(), time: Date.now() })
const program = { runtime: "a".repeat(96), source: "b".repeat(96), packages: "c".repeat(96) }
const accept = [{ tdx: labTdRequirement(program, authority.root) }]
const { mrTd, rtmrs } = tdOfProgram(program)
const ownTee: OwnTee = {
  kind: "tdx",
  collect: async (reportData) => ({
    kind: "tdx",
    quote: makeTdxQuote(authority, reportData, { version: 5, body: "1.5", report: { mrTd, rtmrs: [...rtmrs] } }),
    collateral: authority.tdxCollateral,
  }),
}
const [a, b, c] = (await custodians("a", "b", "c")) as [TestCustodian, TestCustodian, TestCustodian]
const member = generateKeyPairSync("ed25519").privateKey
const client = createTlsIdentity("custodian")
const now = (): { readonly now: Date } => ({ now: new Date() })

let count = 0
async function lockedFolder(): Promise<string> {
  const folder = join(base, `manager-${++count}`)
  const members = [{ key: sshPublicKeyText(member), comment: "" }]
  await initManager({ folder, laboratoryRoots: [], members, vault: { kind: "shares", threshold: 2, holders: [a, b, c] } })
  return folder
}

const serve = async (folder: string, more: object = {}): Promise<LockedManager> =>
  serveLocked({ folder, host: "127.0.0.1", port: 0, ownTee, ...more })

async function look({ url }: LockedManager, { key }: TestCustodian): Promise<FoundLock> {
  return lookAtLock(new URL(url), { accept, custodian: key }, client, now())
}

async function unlock(locked: LockedManager, by: TestCustodian) {
  const found = await look(locked, by)
  return handInShare(new URL(locked.url), found, await by.open(found.sealedShare), by.privateKey, client)
}

test("a locked manager says what it is and nothing else, and goes on as the manager once enough custodians unlocked it", async () => {
  const folder = await lockedFolder()
  await using locked = await serve(folder)
  const url = new URL(locked.url)
  const configuration = locked.lock.configuration
  {
    using anybody = new Transport({ url, identity: client, checkPeer: () => undefined })
    assert.deepEqual(await anybody.call(routes.health, {}), { ok: false, state: "locked" })
    for (const route of [routes.describeManager, routes.openApi, routes.listReceipts] as const)
      await assert.rejects(anybody.call(route, {}), { code: "locked", status: 503 })
    await assert.rejects(verifyManager(url, { accept }, client, now()), { code: "locked" })
  }
  assert.deepEqual(await unlock(locked, a), { present: 1, threshold: 2, unlocked: false })
  assert.equal((await look(locked, c)).lock.present, 1)
  assert.deepEqual(await unlock(locked, a), { present: 1, threshold: 2, unlocked: false })
  assert.deepEqual(await unlock(locked, c), { present: 2, threshold: 2, unlocked: true })
  const running = await locked.unlocked
  assert.equal(running.url, locked.url)
  const { manager, transport } = await connectAsStakeholder(url, { accept }, member, now())
  using _ = transport
  assert.notEqual(manager.description.tlsKey, locked.lock.tlsKey)
  assert.equal(manager.description.configuration, configuration)
  assert.deepEqual(manager.description.vault, running.vault)
  assert.deepEqual(await transport.call(routes.health, {}), { ok: true, members: 1 })
  const { receipts } = await transport.call(routes.listReceipts, {})
  const named = [a, c].map(({ name, key }) => ({ name, key }))
  assert.deepEqual(
    receipts.map(({ receipt }) => [receipt?.kind, receipt?.vault, receipt?.custodians]),
    [["vault-unlocked", "shares", named]],
  )
  await assert.rejects(look(locked, b), { code: "wrong-state" })
})

test("a manager that is started again is locked again, under other keys; its log tells of every unlocking", async () => {
  const folder = await lockedFolder()
  const keys = new Set<string>()
  for (let start = 1; start <= 2; start++) {
    await using locked = await serve(folder)
    keys.add(locked.lock.tlsKey).add(locked.lock.shareKey)
    await unlock(locked, a)
    await unlock(locked, b)
    await locked.unlocked
    const { transport } = await connectAsStakeholder(new URL(locked.url), { accept }, member, now())
    using _ = transport
    assert.equal((await transport.call(routes.listReceipts, {})).total, start)
  }
  assert.equal(keys.size, 4)
  await assert.rejects(serveManager({ folder, host: "127.0.0.1", port: 0 }), { code: "wrong-state" })
})

test("nothing plain of the vault key lies in a folder whose key is shared", async () => {
  const folder = await lockedFolder()
  const names = (await readdir(folder)).toSorted()
  assert.deepEqual(names, ["blobs", "manager.db", "manager.json", "members", "vault.json"])
  const file = await vaultOfFolder(folder)
  assert.ok(file.kind === "shares")
  const shares = await Promise.all([a, b, c].map(async ({ open }, index) => open(parseBase64(file.sealedShares[index] ?? "", "share"))))
  for (const name of names.filter((name) => name !== "blobs")) {
    const bytes = await readFile(join(folder, name))
    for (const share of shares)
      for (const form of ["latin1", "hex", "base64"] as const)
        assert.ok(!bytes.toString("latin1").includes(Buffer.from(share.slice(0, 30)).toString(form)))
  }
})

test("a share that is wrong, unsigned, of another or of an earlier start is refused by name and does not count", async () => {
  const folder = await lockedFolder()
  let earlier: FoundLock
  {
    await using locked = await serve(folder)
    earlier = await look(locked, a)
  }
  await using locked = await serve(folder)
  const found = await look(locked, a)
  const own = await a.open(found.sealedShare)
  const theirs = await b.open((await look(locked, b)).sealedShare)
  const { lock } = found
  const send = async (
    changes: { custodian?: TestCustodian; share?: Uint8Array; for?: FoundLock["lock"]; signer?: TestCustodian; key?: string } = {},
  ) => {
    const custodian = changes.custodian ?? a
    const start = changes.for ?? lock
    const share = await sealMessage(parseBase64(lock.shareKey, "key"), unlockContext(start, custodian.key), changes.share ?? own)
    const signature = signStatement("unlock", unlockDigest(start, custodian.key, share), (changes.signer ?? custodian).privateKey)
    using transport = connectToKey(new URL(locked.url), lock.tlsKey, client)
    return transport.call(routes.unlockManager, { body: { perun: 1, custodian: changes.key ?? custodian.key, share, signature } })
  }
  await assert.rejects(send({ share: theirs }), { code: "wrong-share", message: /made for a / })
  await assert.rejects(send({ share: own.map((byte, index) => (index === 0 ? byte ^ 1 : byte)) }), { code: "wrong-share" })
  await assert.rejects(send({ signer: b }), { code: "not-permitted", message: /the share of a is signed by another key/ })
  await assert.rejects(send({ key: b.key }), { code: "not-permitted", message: /the share of b / })
  await assert.rejects(send({ for: earlier.lock }), { code: "not-permitted", message: /not signed for this start/ })
  const [stranger] = (await custodians("stranger")) as [TestCustodian]
  await assert.rejects(send({ custodian: stranger }), { code: "not-permitted", message: /no custodian/ })
  await assert.rejects(lookAtLock(new URL(locked.url), { accept, custodian: stranger.key }, client, now()), { code: "not-permitted" })
  // Signed for this start, sealed for another: what opens is bound to the start as well.
  const moved = await sealMessage(parseBase64(lock.shareKey, "key"), unlockContext(earlier.lock, a.key), own)
  using transport = connectToKey(new URL(locked.url), lock.tlsKey, client)
  const signature = signStatement("unlock", unlockDigest(lock, a.key, moved), a.privateKey)
  await assert.rejects(transport.call(routes.unlockManager, { body: { perun: 1, custodian: a.key, share: moved, signature } }), {
    code: "wrong-message",
  })
  const other = signStatement("session", unlockDigest(lock, a.key, moved), a.privateKey)
  await assert.rejects(transport.call(routes.unlockManager, { body: { perun: 1, custodian: a.key, share: moved, signature: other } }), {
    code: "not-permitted",
  })
  assert.equal((await look(locked, a)).lock.present, 0)
})

test("handInShare() sends nothing of a share that is not the custodian's", async () => {
  await using locked = await serve(await lockedFolder())
  const found = await look(locked, a)
  await assert.rejects(handInShare(new URL(locked.url), found, new Uint8Array(33), a.privateKey, client), {
    // This side's own word, not the manager's answer.
    name: "ProtocolError",
    code: "wrong-share",
  })
})

test("shares that give no key of this store are forgotten, and the manager stays locked", async () => {
  const folder = await lockedFolder()
  const path = join(folder, "vault.json")
  const file = await vaultOfFolder(folder)
  const { sealedShares, shares } = (await vaultOfFolder(await lockedFolder())) as Extract<typeof file, { kind: "shares" }>
  assert.ok(file.kind === "shares")
  // Somebody with the disk puts the shares of another key in their place, with commitments that fit them.
  await writeFile(path, JSON.stringify({ ...file, sealedShares, shares }))
  await using locked = await serve(folder)
  await unlock(locked, a)
  await assert.rejects(unlock(locked, b), { code: "store-changed" })
  assert.equal((await look(locked, c)).lock.present, 0)
  await assert.rejects(verifyManager(new URL(locked.url), { accept }, client, now()), { code: "locked" })
  assert.deepEqual(await unlock(locked, c), { present: 1, threshold: 2, unlocked: false })
})

test("a locked manager keeps others from its folder, and gives it back", async () => {
  const folder = await lockedFolder()
  {
    await using locked = await serve(folder)
    void locked
    await assert.rejects(serve(folder), { code: "unavailable" })
    await assert.rejects(openLockedFolder(folder), { code: "unavailable" })
  }
  await using again = await serve(folder)
  void again
})

test("a manager without a TEE proves nothing while it is locked", async () => {
  await using locked = await serveLocked({ folder: await lockedFolder(), host: "127.0.0.1", port: 0 })
  await assert.rejects(look(locked, a), { code: "wrong-manager" })
  const found = await lookAtLock(new URL(locked.url), { accept: undefined, custodian: a.key }, client, now())
  assert.equal(found.accepted, undefined)
})

test("custodians see where the key will be moved, and the manager says so afterwards", async () => {
  const folder = await lockedFolder()
  {
    await using locked = await serve(folder, { becomes: { kind: "key-file" } })
    assert.deepEqual((await look(locked, a)).lock.becomes, { kind: "key-file" })
    await unlock(locked, a)
    await unlock(locked, b)
    assert.deepEqual((await locked.unlocked).vault, { kind: "key-file" })
    const { transport } = await connectAsStakeholder(new URL(locked.url), { accept }, member, now())
    using _ = transport
    const { receipts } = await transport.call(routes.listReceipts, {})
    assert.deepEqual(
      receipts.map(({ receipt }) => [receipt?.kind, receipt?.vault]),
      [
        ["vault-rotated", "key-file"],
        ["vault-unlocked", "key-file"],
      ],
    )
  }
  await using running = await serveManager({ folder, host: "127.0.0.1", port: 0 })
  assert.deepEqual(running.vault, { kind: "key-file" })
})

test("a connection that was made to the locked manager never reaches the unlocked one", async () => {
  await using locked = await serve(await lockedFolder())
  using early = connectToKey(new URL(locked.url), locked.lock.tlsKey, client)
  await early.call(routes.health, {})
  await unlock(locked, a)
  await unlock(locked, b)
  await locked.unlocked
  await assert.rejects(early.call(routes.health, {}), { code: /^(?:wrong-state|wrong-tls-key)$/ })
})

test("VaultLock answers each network so often in two minutes, and takes so many shares", async () => {
  const folder = await lockedFolder()
  using opened = await openLockedFolder(folder)
  let monotonic = 0
  const unlock = async (): Promise<void> => undefined
  const lock = await VaultLock.create({ folder: opened, ownTee: undefined, becomes: null, monotonic: () => monotonic, unlock })
  const nonce = "1".repeat(64)
  for (let ask = 0; ask < 120; ask++) await lock.show(nonce, "192.0.2.1")
  await assert.rejects(lock.show(nonce, "192.0.2.1"), { code: "too-many-requests" })
  await lock.show(nonce, "198.51.100.1")
  const share = { enc: "AAAA", ciphertext: "AAAA" }
  const signature = signStatement("unlock", unlockDigest(lock.description, a.key, share), b.privateKey)
  const request = { perun: 1, custodian: a.key, share, signature } as const
  for (let ask = 0; ask < 120; ask++) await assert.rejects(lock.take(request, "192.0.2.1"), { code: "not-permitted" })
  await assert.rejects(lock.take(request, "192.0.2.1"), { code: "too-many-requests" })
  monotonic = 120_001
  await lock.show(nonce, "192.0.2.1")
})

test("shares that come at once unlock once", async () => {
  using opened = await openLockedFolder(await lockedFolder())
  let unlocked = 0
  const unlock = async (): Promise<void> => {
    unlocked++
  }
  const lock = await VaultLock.create({ folder: opened, ownTee: undefined, becomes: null, monotonic: () => 0, unlock })
  const { description } = lock
  const requestOf = async (by: TestCustodian, index: number) => {
    const own = await by.open(parseBase64(opened.file.sealedShares[index] ?? "", "share"))
    const share = await sealMessage(parseBase64(description.shareKey, "key"), unlockContext(description, by.key), own)
    const signature = signStatement("unlock", unlockDigest(description, by.key, share), by.privateKey)
    return { perun: 1, custodian: by.key, share, signature } as const
  }
  const requests = await Promise.all([a, b, c].map(requestOf))
  const answers = await Promise.allSettled(requests.map(async (request) => lock.take(request, undefined)))
  assert.deepEqual(
    answers.map((answer) => (answer.status === "fulfilled" ? answer.value.unlocked : (answer.reason as { code: string }).code)),
    [false, true, "wrong-state"],
  )
  assert.equal(unlocked, 1)
})

test("the commitment of a share is salted", () => {
  const share = new Uint8Array(33)
  const place = { key: a.key, salt: "1".repeat(32) }
  assert.notEqual(shareCommitment("2".repeat(32), place, share), shareCommitment("2".repeat(32), { ...place, salt: "3".repeat(32) }, share))
})
