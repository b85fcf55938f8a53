import assert from "node:assert/strict"
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { BlobFolder } from "./blobs.ts"

const base = await mkdtemp(join(tmpdir(), "perun-blobs-"))
after(() => rm(base, { recursive: true }))
const blob = encodeUtf8("ciphertext")
const digest = digestOf(blob)

async function* chunks(...parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts
}

test("put() keeps a blob under its digest and reads it back in parts", async () => {
  const folder = await BlobFolder.create(join(base, "a"))
  assert.equal(await folder.size(digest), undefined)
  assert.equal(await folder.put(digest, chunks(blob, new Uint8Array(0)), 100), blob.length)
  assert.equal(await folder.size(digest), blob.length)
  assert.deepEqual(await folder.readStart(digest, 6), encodeUtf8("cipher"))
  assert.deepEqual(await folder.readStart(digest, 60), blob)
  const read = await folder.read(digest, 6, 8).toArray()
  assert.equal(Buffer.concat(read).toString(), "tex")
  await assert.rejects(folder.readStart(digestOf(new Uint8Array(1)), 6), { code: "not-found" })
})

test("put() leaves nothing behind when the bytes are wrong, too many, or stop", async () => {
  const folder = await BlobFolder.create(join(base, "b"))
  await assert.rejects(folder.put(digest, chunks(encodeUtf8("other")), 100), { code: "wrong-digest" })
  await assert.rejects(folder.put(digest, chunks(blob), blob.length - 1), { code: "too-large" })
  const broken = async function* (): AsyncGenerator<Uint8Array> {
    yield blob
    throw new Error("the line broke")
  }
  await assert.rejects(folder.put(digest, broken(), 100), /the line broke/)
  assert.equal(await folder.size(digest), undefined)
  assert.deepEqual(await readdir(join(base, "b", "incoming")), [])
})

test("open() throws away what a crash left and never creates", async () => {
  const path = join(base, "c")
  await BlobFolder.create(path)
  await writeFile(join(path, "incoming", "half"), blob)
  await BlobFolder.open(path)
  assert.deepEqual(await readdir(join(path, "incoming")), [])
  await assert.rejects(BlobFolder.open(join(base, "none")), { code: "unavailable" })
})

test("nothing but a digest names a file", async () => {
  const folder = await BlobFolder.create(join(base, "d"))
  await assert.rejects(folder.size("sha256:../../x" as Digest), TypeError)
})

test("readStart() refuses a blob whose bytes on disk are others, at its start or behind it", async () => {
  const folder = await BlobFolder.create(join(base, "swapped"))
  await folder.put(digest, chunks(blob), 100)
  for (const other of ["ciphertexT", "Ciphertext"]) {
    await writeFile(join(base, "swapped", digest.replace("sha256:", "")), other)
    await assert.rejects(folder.readStart(digest, 4), { code: "wrong-digest" })
  }
})
