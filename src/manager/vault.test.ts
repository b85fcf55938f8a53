import assert from "node:assert/strict"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { encodeBase64, encodeHex } from "../bytes/text.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { custodians } from "./custodians.testing.ts"
import { randomBytes } from "./state.ts"
import type { SealingDevice } from "./tee-sealer.ts"
import { describeVault, encodeVaultFile, loadVaultFile, makeVault, openVault, vaultConfiguration, vaultDigest, type VaultFile } from "./vault.ts"

const instance = "1".repeat(32)
const enclave = (byte = 1, to: SealingDevice["to"] = "mrenclave"): SealingDevice => ({ to, readKey: async () => new Uint8Array(16).fill(byte) })

async function inFile<T>(text: string, use: (path: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "perun-vault-"))
  try {
    const path = join(folder, "vault.json")
    await writeFile(path, text)
    return await use(path)
  } finally {
    await rm(folder, { recursive: true })
  }
}

test("a vault key under an enclave's sealing key opens by that key alone, and stands nowhere in the file", async () => {
  const { file, key } = await makeVault({ kind: "tee-sealing", device: enclave() }, instance, randomBytes)
  assert.deepEqual(await openVault(file, { sealingDevice: enclave() }), key)
  const text = encodeVaultFile(file)
  for (const secret of [encodeBase64(key), encodeHex(key), encodeBase64(new Uint8Array(16).fill(1))]) assert.ok(!text.includes(secret))
  await assert.rejects(openVault(file, { sealingDevice: enclave(2) }), { code: "store-changed" })
  await assert.rejects(openVault(file, {}), { code: "wrong-state" })
  await assert.rejects(openVault(file, { sealingDevice: enclave(1, "mrsigner") }), { code: "wrong-state" })
})

test("a wrapped vault key does not open when instance, salt, identity or a byte of it was changed", async () => {
  const { file } = await makeVault({ kind: "tee-sealing", device: enclave() }, instance, randomBytes)
  assert.ok(file.kind === "tee-sealing")
  const other = await makeVault({ kind: "tee-sealing", device: enclave() }, instance, randomBytes)
  assert.ok(other.file.kind === "tee-sealing" && other.file.salt !== file.salt)
  const changes: readonly Partial<typeof file>[] = [{ instance: "2".repeat(32) }, { salt: other.file.salt }, { wrapped: other.file.wrapped }]
  for (const change of changes) await assert.rejects(openVault({ ...file, ...change }, { sealingDevice: enclave() }), { code: "store-changed" })
  await assert.rejects(openVault({ ...file, to: "mrsigner" }, { sealingDevice: enclave(1, "mrsigner") }), { code: "store-changed" })
  const short = encodeBase64(new Uint8Array(59))
  await assert.rejects(openVault({ ...file, wrapped: short }, { sealingDevice: enclave() }), { code: "truncated" })
  await assert.rejects(openVault({ ...file, wrapped: encodeBase64(new Uint8Array(61)) }, { sealingDevice: enclave() }), { code: "trailing-bytes" })
})

test("a shared vault key stands nowhere in the file, which says all that is public of its shares", async () => {
  const holders = await custodians("a", "b", "c")
  const { file, key } = await makeVault({ kind: "shares", threshold: 2, holders }, instance, randomBytes)
  assert.ok(file.kind === "shares")
  const text = encodeVaultFile(file)
  for (const secret of [encodeBase64(key), encodeHex(key)]) assert.ok(!text.includes(secret))
  const named = holders.map(({ name, key: text }) => ({ name, key: text }))
  assert.deepEqual(describeVault(file), { kind: "shares", threshold: 2, custodians: named })
  assert.deepEqual(vaultConfiguration(file), { kind: "shares", shares: file.shares })
  await assert.rejects(openVault(file, {}), { code: "wrong-state", message: /perun manager unlock/ })
  assert.deepEqual(await openVault(file, { rebuiltKey: key }), key)
  assert.deepEqual(await inFile(text, loadVaultFile), file)
  assert.notEqual(vaultDigest({ ...file, sealedShares: file.sealedShares.toReversed() }), vaultDigest(file))
})

test("loadVaultFile() refuses fewer sealed shares than custodians, and files of another form", async () => {
  const { file } = await makeVault({ kind: "shares", threshold: 2, holders: await custodians("a", "b", "c") }, instance, randomBytes)
  assert.ok(file.kind === "shares")
  const load = async (of: unknown): Promise<VaultFile> => inFile(JSON.stringify(of), loadVaultFile)
  await assert.rejects(load({ ...file, sealedShares: file.sealedShares.slice(1) }), { code: "store-changed" })
  await assert.rejects(load({ ...file, shares: { ...file.shares, threshold: 4 } }), { code: "malformed" })
  await assert.rejects(load({ ...file, shares: { ...file.shares, threshold: 1 } }), (error) => !(error instanceof ProtocolError))
  await assert.rejects(load({ ...file, key: "AAAA" }), { code: "unknown-field" })
  await assert.rejects(load({ perun: 1, kind: "none" }), { code: "malformed" })
})
