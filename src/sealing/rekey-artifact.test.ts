import assert from "node:assert/strict"
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { test } from "node:test"
import { openAgeBytes } from "./age-file.ts"
import { artifactFolder, identityPath, indexFileName, manifestFileName, shardFileName } from "./blobs.ts"
import { openAgeHeader, parseAgeHeader } from "./header.ts"
import { manifestDigest } from "./manifest.ts"
import { type ArtifactAccess, openArtifact } from "./open-artifact.ts"
import { rekeyArtifact, type RekeyArtifactOptions } from "./rekey-artifact.ts"
import { loadIdentity, sealArtifact, type SealedArtifact } from "./seal-artifact.ts"
import { randomContent, readTree, temporaryFolder, testSigner, withCode, writeTree } from "./test-fixtures.ts"

type Folder = ReturnType<typeof temporaryFolder>

const signer = testSigner()
const heir = testSigner()
const files = { "a.csv": "id,x\n1,2\n", "b/one.bin": randomContent(300_000), "b/two.bin": randomContent(200_000), "c.bin": randomContent(1_000_000) }

async function sealed(folder: Folder): Promise<ArtifactAccess> {
  writeTree(folder.at("source"), files)
  const { signed } = await sealArtifact({
    source: folder.at("source"),
    output: folder.at("old"),
    kind: "dataset",
    name: "records",
    signer,
    key: { generate: "x25519" },
    shardBytes: 250_000,
    workers: 0,
  })
  return accessTo(folder, "old", signed)
}

async function accessTo(folder: Folder, name: string, signed: ArtifactAccess["signed"]): Promise<ArtifactAccess> {
  const identity = await loadIdentity(identityPath(folder.at(name)))
  assert.ok(identity !== undefined)
  return { signed, identity, blobs: artifactFolder(folder.at(name), signed.manifest) }
}

function rekey(folder: Folder, from: ArtifactAccess, more: Partial<RekeyArtifactOptions> = {}): Promise<SealedArtifact> {
  return rekeyArtifact({ from, output: folder.at("new"), signer: heir, key: { generate: "x25519" }, workers: 0, ...more })
}

test("rekeyArtifact() seals the same files to another key, of another owner if need be; the old key opens nothing of it", async () => {
  using folder = temporaryFolder()
  const from = await sealed(folder)
  const { signed, digest } = await rekey(folder, from)
  const [old, now] = [from.signed.manifest, signed.manifest]
  assert.notEqual(digest, manifestDigest(old))
  assert.deepEqual(
    [now.owner, now.files, now.index.saltedDigest, now.shards.length],
    [heir.owner, old.files, old.index.saltedDigest, old.shards.length],
  )
  assert.notEqual(now.recipient, old.recipient)
  const access = await accessTo(folder, "new", signed)
  await openArtifact({ ...access, destination: folder.at("opened"), workers: 0 })
  assert.deepEqual(readTree(folder.at("opened")), readTree(folder.at("source")))
  const names = [indexFileName, ...now.shards.map((_, shard) => shardFileName(shard))]
  const fileKeys = new Set<string>()
  for (const name of names) {
    const [before, after] = ["old", "new"].map((where) => new Uint8Array(readFileSync(folder.at(where, name))))
    assert.ok(before !== undefined && after !== undefined)
    await assert.rejects(openAgeBytes(after, from.identity), withCode("wrong-key"))
    // A header of before must not give what is new: each file has a key of its own.
    fileKeys.add(Buffer.from(await openAgeHeader(parseAgeHeader(before), from.identity)).toString("hex"))
    fileKeys.add(Buffer.from(await openAgeHeader(parseAgeHeader(after), access.identity)).toString("hex"))
  }
  assert.equal(fileKeys.size, 2 * names.length)
  assert.deepEqual(readdirSync(folder.at("new")).toSorted(), [...names, manifestFileName].toSorted())
})

test("rekeyArtifact() refuses a wrong key, a changed shard, one of another length, and a finished output", async () => {
  using folder = temporaryFolder()
  const from = await sealed(folder)
  const other = await rekey(folder, from)
  await assert.rejects(rekey(folder, from), withCode("not-empty"))
  rmSync(folder.at("new"), { recursive: true })
  const strange = await loadIdentity(identityPath(folder.at("new")))
  assert.ok(strange !== undefined && other.resumedShards === 0)
  rmSync(identityPath(folder.at("new")))
  await assert.rejects(rekey(folder, { ...from, identity: strange }), withCode("wrong-key"))
  const shard = folder.at("old", shardFileName(1))
  const bytes = readFileSync(shard)
  const changed = Buffer.from(bytes)
  changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1
  writeFileSync(shard, changed)
  await assert.rejects(rekey(folder, from), withCode("corrupt"))
  truncateSync(shard, bytes.length - 10)
  await assert.rejects(rekey(folder, from), withCode("truncated"))
  writeFileSync(shard, readFileSync(folder.at("old", shardFileName(0))))
  await assert.rejects(rekey(folder, from), withCode("reordered"))
  assert.ok(!readdirSync(folder.at("new")).includes(manifestFileName))
})

test("rekeyArtifact() goes on after an interrupt with the key of the first try", async () => {
  using folder = temporaryFolder()
  const from = await sealed(folder)
  const stop = new AbortController()
  const first = rekey(folder, from, { signal: stop.signal, onProgress: () => stop.abort(new Error("enough")) })
  await assert.rejects(first, /enough/)
  const identity = await loadIdentity(identityPath(folder.at("new")))
  const { signed, resumedShards } = await rekey(folder, from)
  assert.equal(resumedShards, 1)
  assert.equal(await loadIdentity(identityPath(folder.at("new"))), identity)
  await openArtifact({ ...(await accessTo(folder, "new", signed)), destination: folder.at("opened"), workers: 0 })
  assert.deepEqual(readTree(folder.at("opened")), readTree(folder.at("source")))
})
