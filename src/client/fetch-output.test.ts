import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import type { Digest } from "../bytes/digest.ts"
import { artifactFolder, indexFileName, shardFileName } from "../sealing/blobs.ts"
import { generateAgeIdentity, recipientOf } from "../sealing/keys.ts"
import { manifestSigner } from "../sealing/manifest.ts"
import { rewrapArtifact } from "../sealing/open-artifact.ts"
import { sealArtifact } from "../sealing/seal-artifact.ts"
import type { ManagerConnection } from "./connection.ts"
import { fetchOutput } from "./fetch-output.ts"

const root = await mkdtemp(join(tmpdir(), "perun-fetch-output-"))
after(() => rm(root, { recursive: true }))

/** A released output whose files are all programs, and a manager that has it. */
async function released(): Promise<{ readonly connection: ManagerConnection; readonly identity: string; readonly downloads: string[] }> {
  const source = join(root, "source")
  await mkdir(join(source, "sub"), { recursive: true })
  for (const name of ["model.safetensors", "sub/scaler.json"]) await writeFile(join(source, name), "{}", { mode: 0o755 })
  const sealed = await mkdtemp(join(root, "sealed-"))
  const vault = await generateAgeIdentity("x25519")
  const identity = await generateAgeIdentity("x25519")
  const signer = manifestSigner(generateKeyPairSync("ed25519").privateKey)
  const { signed, digest } = await sealArtifact({
    source,
    output: sealed,
    kind: "output",
    name: "model",
    signer,
    key: { recipient: await recipientOf(vault) },
  })
  const { manifest } = signed
  const headers = await rewrapArtifact({ signed, blobs: artifactFolder(sealed, manifest), identity: vault }, [await recipientOf(identity)])
  const files = new Map<Digest, string>([
    ...manifest.shards.map((shard, n) => [shard.digest, shardFileName(n)] as const),
    [manifest.index.digest, indexFileName],
  ])
  const answer = {
    output: { output: "1".repeat(32), ciphertext: digest, laboratory: false },
    manifest: signed,
    headers: [
      ...manifest.shards.map((shard, n) => ({ blob: shard.digest, header: headers.shards[n] ?? "" })),
      { blob: manifest.index.digest, header: headers.index },
    ],
  }
  const downloads: string[] = []
  const transport = {
    getBlobFile: async (blob: Digest, path: string): Promise<void> => {
      downloads.push(path)
      await copyFile(join(sealed, files.get(blob) ?? ""), path)
    },
  }
  return { connection: { call: async () => answer, transport } as unknown as ManagerConnection, identity, downloads }
}

const output = "1".repeat(32)

test("fetchOutput() writes plain files of 0644 in folders of 0755, whatever the output says, and leaves no download behind", async () => {
  const { connection, identity, downloads } = await released()
  const destination = join(root, "plain", "model")
  await fetchOutput(connection, { output, identity, destination })
  const modeOf = async (path: string): Promise<number> => (await stat(join(destination, path))).mode & 0o7777
  assert.deepEqual(
    [await modeOf("model.safetensors"), await modeOf("sub/scaler.json"), await modeOf("sub"), await modeOf("")],
    [0o644, 0o644, 0o755, 0o700],
  )
  assert.deepEqual(await readdir(join(root, "plain")), ["model"])
  assert.equal(downloads.length, 2)
})

test("fetchOutput() replaces nothing, and downloads nothing for a place that is taken", async () => {
  const { connection, identity, downloads } = await released()
  const folder = join(root, "taken")
  await mkdir(folder)
  await writeFile(join(folder, "mine"), "mine")
  await assert.rejects(fetchOutput(connection, { output, identity, destination: folder }), { code: "not-empty" })
  await assert.rejects(fetchOutput(connection, { output, identity, destination: join(folder, "mine") }), { code: "not-empty" })
  await mkdir(join(root, "empty"))
  await symlink(join(root, "empty"), join(folder, "link"))
  await assert.rejects(fetchOutput(connection, { output, identity, destination: join(folder, "link") }), { code: "not-empty" })
  assert.deepEqual(downloads, [])
  assert.equal(await readFile(join(folder, "mine"), "utf8"), "mine")
})

test("fetchOutput() does not download into a folder that somebody else made or may enter", async () => {
  const { connection, identity, downloads } = await released()
  const parent = join(root, "shared")
  await mkdir(parent)
  const destination = join(parent, "model")
  // Where it would download to.
  await fetchOutput(connection, { output, identity, destination })
  await rm(destination, { recursive: true })
  const [first] = downloads
  assert.ok(first !== undefined)
  const cache = join(first, "..")
  const attempt = (): Promise<unknown> => fetchOutput(connection, { output, identity, destination })
  await mkdir(join(root, "elsewhere"))
  await symlink(join(root, "elsewhere"), cache)
  await assert.rejects(attempt(), { code: "permission-denied" })
  await rm(cache)
  await mkdir(cache)
  await chmod(cache, 0o755)
  await assert.rejects(attempt(), { code: "permission-denied" })
  await rm(cache, { recursive: true })
  assert.deepEqual(await readdir(join(root, "elsewhere")), [])
  await attempt()
})
