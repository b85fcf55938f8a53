import assert from "node:assert/strict"
import { generateKeyPairSync, randomBytes as nodeRandomBytes } from "node:crypto"
import { test } from "node:test"
import { Decrypter, generateX25519Identity, identityToRecipient } from "age-encryption"
import { parseBase64 } from "../bytes/text.ts"
import { signStatement } from "../pki/statement.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import type { Custodian } from "../policy/manager-vault.ts"
import { sealMessage } from "../protocol/hpke.ts"
import { unlockContext, unlockDigest, type UnlockRequest } from "../protocol/manager-lock.ts"
import { VaultLock } from "./lock.ts"
import { makeVault, openVault, type SharedVaultFile } from "./vault.ts"

const random = (length: number): Uint8Array => new Uint8Array(nodeRandomBytes(length))
const instance = "ab".repeat(16)

const parties = await Promise.all(
  ["ada", "bob", "eve"].map(async (name) => {
    const { privateKey } = generateKeyPairSync("ed25519")
    const identity = await generateX25519Identity()
    return { name, privateKey, identity, key: sshPublicKeyText(privateKey), recipient: await identityToRecipient(identity) }
  }),
)
type Party = (typeof parties)[number]
const [ada, bob, eve] = parties as [Party, Party, Party]

interface Unlocked {
  readonly key: Uint8Array
  readonly by: readonly string[]
}

async function newLock(unlock?: (key: Uint8Array, custodians: readonly Custodian[]) => Promise<void>) {
  const { file, key } = await makeVault({ kind: "shares", threshold: 2, holders: parties }, instance, random)
  assert.ok(file.kind === "shares")
  const unlocked: Unlocked[] = []
  const lock = await VaultLock.create({
    folder: { file, configuration: `sha256:${"0".repeat(64)}` },
    ownTee: undefined,
    becomes: null,
    monotonic: () => 0,
    unlock: unlock ?? (async (rebuilt, by) => void unlocked.push({ key: rebuilt.slice(), by: by.map(({ name }) => name) })),
  })
  return { lock, file, key, unlocked }
}

async function shareOf(file: SharedVaultFile, { key, identity }: Party): Promise<Uint8Array> {
  const decrypter = new Decrypter()
  decrypter.addIdentity(identity)
  const index = file.shares.custodians.findIndex((place) => place.key === key)
  return new Uint8Array(await decrypter.decrypt(parseBase64(file.sealedShares[index] ?? "")))
}

/** A share as its custodian hands it in; `change` spoils it on the way. */
async function handIn(
  lock: VaultLock,
  file: SharedVaultFile,
  party: Party,
  {
    share,
    signer = party.privateKey,
    start = lock.description,
    custodian = party.key,
  }: { share?: Uint8Array; signer?: Party["privateKey"]; start?: VaultLock["description"]; custodian?: string } = {},
): Promise<UnlockRequest> {
  const sealed = await sealMessage(parseBase64(start.shareKey), unlockContext(start, custodian), share ?? (await shareOf(file, party)))
  return { perun: 1, custodian, share: sealed, signature: signStatement("unlock", unlockDigest(start, custodian, sealed), signer) }
}

test("VaultLock gives the key to its store when enough custodians have come, names them, and is unlocked once", async () => {
  const { lock, file, key, unlocked } = await newLock()
  assert.deepEqual(await lock.take(await handIn(lock, file, bob), "192.0.2.1"), { present: 1, threshold: 2, unlocked: false })
  assert.equal(lock.description.present, 1)
  assert.deepEqual(await lock.take(await handIn(lock, file, eve), "192.0.2.1"), { present: 2, threshold: 2, unlocked: true })
  assert.deepEqual(unlocked, [{ key, by: ["bob", "eve"] }])
  await assert.rejects(lock.take(await handIn(lock, file, ada), undefined), { code: "wrong-state" })
})

test("VaultLock counts a custodian once, however often it comes", async () => {
  const { lock, file, unlocked } = await newLock()
  for (let again = 0; again < 3; again++) assert.equal((await lock.take(await handIn(lock, file, ada), undefined)).present, 1)
  assert.deepEqual(unlocked, [])
})

test("two shares that come at once unlock once", async () => {
  const { lock, file, unlocked } = await newLock()
  const [first, second] = [await handIn(lock, file, ada), await handIn(lock, file, bob)]
  await Promise.all([lock.take(first, undefined), lock.take(second, undefined)])
  assert.equal(unlocked.length, 1)
})

test("VaultLock refuses a share of another custodian, set or manager, one that is wrong, and signatures that do not fit; none of them counts", async () => {
  const { lock, file } = await newLock()
  const other = await newLock()
  const stranger = generateKeyPairSync("ed25519").privateKey
  const refused = async (request: UnlockRequest, code: string): Promise<void> => {
    await assert.rejects(lock.take(request, undefined), { code })
    assert.equal(lock.description.present, 0)
  }
  await refused(await handIn(lock, file, ada, { share: await shareOf(file, bob) }), "wrong-share")
  await refused(await handIn(lock, file, ada, { share: await shareOf(other.file, ada) }), "wrong-share")
  await refused(await handIn(lock, file, ada, { share: random(33) }), "wrong-share")
  await refused(await handIn(lock, file, ada, { share: (await shareOf(file, ada)).slice(1) }), "wrong-share")
  await refused(await handIn(lock, file, ada, { signer: bob.privateKey }), "not-permitted")
  await refused(await handIn(lock, file, ada, { custodian: sshPublicKeyText(stranger), signer: stranger }), "not-permitted")
  // For another start of the same manager: its keys are others.
  const again = await VaultLock.create({
    folder: { file, configuration: `sha256:${"0".repeat(64)}` },
    ownTee: undefined,
    becomes: null,
    monotonic: () => 0,
    unlock: async () => undefined,
  })
  await refused(await handIn(again, file, ada), "not-permitted")
  await refused(await handIn(lock, file, ada, { start: { ...lock.description, shareKey: again.description.shareKey } }), "not-permitted")
  await refused(await handIn(lock, file, ada, { start: { ...lock.description, tlsKey: again.description.tlsKey } }), "not-permitted")
  const good = await handIn(lock, file, ada)
  const swapped = await handIn(lock, file, bob)
  await refused({ ...good, share: swapped.share }, "not-permitted")
  assert.equal((await lock.take(good, undefined)).present, 1)
})

test("shares that do not open the store are forgotten, and the manager stays locked", async () => {
  let fails = true
  const { lock, file } = await newLock(async () => {
    if (fails) throw new TypeError("the store does not open")
  })
  await lock.take(await handIn(lock, file, ada), undefined)
  await assert.rejects(lock.take(await handIn(lock, file, bob), undefined), TypeError)
  assert.deepEqual([lock.description.present, lock.isUnlocked], [0, false])
  fails = false
  await lock.take(await handIn(lock, file, ada), undefined)
  assert.equal((await lock.take(await handIn(lock, file, eve), undefined)).unlocked, true)
})

test("a network that asks or hands in without end is told to come later", async () => {
  const { lock, file } = await newLock()
  const request = await handIn(lock, file, ada, { signer: bob.privateKey })
  for (let count = 0; count < 120; count++) await assert.rejects(lock.take(request, "192.0.2.1"), { code: "not-permitted" })
  await assert.rejects(lock.take(request, "192.0.2.1"), { code: "too-many-requests" })
  assert.equal((await lock.take(await handIn(lock, file, ada), "198.51.100.1")).present, 1)
})

test("makeVault() shares a key so that any two of three bring it back, and nothing less is in the file", async () => {
  const { file, key } = await newLock()
  const text = JSON.stringify(file)
  const shares = await Promise.all(parties.map(async (party) => shareOf(file, party)))
  for (const secret of [key, ...shares]) {
    assert.ok(!text.includes(Buffer.from(secret).toString("base64")))
    assert.ok(!text.includes(Buffer.from(secret).toString("hex")))
  }
  await assert.rejects(openVault(file, {}), { code: "wrong-state" })
})

test("makeVault() refuses one custodian, one who suffices, more than there are, and one named twice", async () => {
  const make = async (holders: readonly Party[], threshold: number): Promise<unknown> =>
    makeVault({ kind: "shares", threshold, holders }, instance, random)
  await assert.rejects(make([ada], 1), { code: "malformed" })
  await assert.rejects(make(parties, 1), { code: "malformed" })
  await assert.rejects(make(parties, 4), { code: "malformed" })
  await assert.rejects(make([ada, ada], 2), { code: "duplicate" })
  await assert.rejects(make([ada, { ...bob, recipient: ada.recipient }], 2), { code: "duplicate" })
  await assert.rejects(make([ada, { ...bob, recipient: "age1x" }], 2), { code: "malformed" })
})
