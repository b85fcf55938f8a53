import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { encodeFileIndex, filesByShard, parseFileIndex, planShards } from "./file-index.ts"
import type { FileIndex, IndexedFile } from "./file-index.ts"
import { withCode } from "./test-fixtures.ts"

const digest = digestOf(new Uint8Array(0))
const salt = encodeBase64(new Uint8Array(32))
const first: IndexedFile = { path: "a", sizeBytes: 600, executable: false, digest, shard: 0, offset: 512 }
const second: IndexedFile = { path: "b", sizeBytes: 5, executable: true, digest, shard: 0, offset: 512 + 1024 + 512 }
const third: IndexedFile = { path: "c", sizeBytes: 0, executable: false, digest, shard: 1, offset: 512 }
const good: FileIndex = { perun: 1, salt, files: [first, second, third] }

test("parseFileIndex() gives back what encodeFileIndex() made", () => {
  assert.deepEqual(parseFileIndex(encodeFileIndex(good)), good)
  assert.deepEqual(parseFileIndex(encodeFileIndex({ ...good, files: [] })).files, [])
})

test("parseFileIndex() refuses files in other places than packing puts them", () => {
  const bad: readonly (readonly IndexedFile[])[] = [
    [{ ...first, offset: 0 }],
    [first, { ...second, offset: 2049 }],
    [first, { ...second, shard: 1 }],
    [{ ...first, shard: 1 }],
    [first, { ...third, shard: 2 }],
    [first, second, { ...third, shard: 1, offset: 1024 }],
  ]
  for (const files of bad) assert.throws(() => parseFileIndex(encodeFileIndex({ ...good, files })), withCode("wrong-manifest"))
})

test("parseFileIndex() refuses unsafe paths, unknown fields and other forms", () => {
  for (const path of ["/a", "../a", "a/../../b"]) {
    assert.throws(() => parseFileIndex(encodeFileIndex({ ...good, files: [{ ...first, path }] })), withCode("unsafe-path"))
  }
  assert.throws(() => parseFileIndex(encodeFileIndex({ ...good, files: [first, first] })), withCode("unsafe-path"))
  const text = Buffer.from(encodeFileIndex(good)).toString()
  assert.throws(() => parseFileIndex(Buffer.from(text.replace('"perun":1', '"perun":1,"x":1'))), withCode("unknown-field"))
  assert.throws(() => parseFileIndex(Buffer.from(text.replace('"perun":1', '"perun":2'))), withCode("malformed"))
  assert.throws(() => parseFileIndex(encodeFileIndex({ ...good, salt: "*".repeat(44) })), withCode("malformed"))
  assert.throws(() => parseFileIndex(encodeFileIndex({ ...good, salt: "" })), withCode("malformed"))
})

test("planShards() fills shards in order, and gives a large file one of its own", () => {
  const file = (path: string, sizeBytes: number) => ({ path, sizeBytes, executable: false })
  const files = [file("a", 512), file("b", 512), file("c", 512), file("d", 90_000), file("e", 1)]
  assert.deepEqual(
    planShards(files, 3072).map((shard) => shard.map(({ path }) => path)),
    [["a", "b"], ["c"], ["d"], ["e"]],
  )
  assert.deepEqual(planShards([], 3072), [])
})

test("filesByShard() refuses a shard that is not there", () => {
  assert.deepEqual(filesByShard(good.files, 2), [[first, second], [third]])
  assert.throws(() => filesByShard(good.files, 1), withCode("wrong-manifest"))
})
