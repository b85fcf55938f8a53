import assert from "node:assert/strict"
import { appendFile, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { UnavailableError } from "../../bytes/error.ts"
import { encodeUtf8 } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { ImaListReader, readBootLog } from "./kernel-logs.ts"

/** An entry of the ima-ng template as the kernel writes it; nothing reads its digests here. */
function entry(name: string): Uint8Array {
  const digest = concatBytes(encodeUtf8("sha256:\0"), new Uint8Array(32))
  const file = encodeUtf8(`${name}\0`)
  const data = new ByteWriter().u32le(digest.length).bytes(digest).u32le(file.length).bytes(file).take()
  const template = encodeUtf8("ima-ng")
  return new ByteWriter().u32le(10).bytes(new Uint8Array(20)).u32le(template.length).bytes(template).u32le(data.length).bytes(data).take()
}

interface FakeKernel extends AsyncDisposable {
  readonly bootLog: string
  readonly imaList: string
  readonly imaCount: string
  set(...names: readonly string[]): Promise<void>
}

async function fakeKernel(): Promise<FakeKernel> {
  const folder = await mkdtemp(join(tmpdir(), "perun-kernel-"))
  const path = (name: string): string => join(folder, name)
  return {
    bootLog: path("boot"),
    imaList: path("list"),
    imaCount: path("count"),
    set: async (...names) => {
      await writeFile(path("list"), concatBytes(...names.map(entry)))
      await writeFile(path("count"), `${names.length}\n`)
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
}

test("ImaListReader.read() gives the list from any entry on, and what was added since", async () => {
  await using kernel = await fakeKernel()
  const reader = new ImaListReader(kernel)
  await kernel.set("a", "bb", "ccc")
  assert.deepEqual(await reader.read(0), { from: 0, list: concatBytes(entry("a"), entry("bb"), entry("ccc")), to: 3 })
  assert.deepEqual(await reader.read(2), { from: 2, list: entry("ccc"), to: 3 })
  assert.deepEqual(await reader.read(3), { from: 3, list: new Uint8Array(0), to: 3 })
  await kernel.set("a", "bb", "ccc", "dddd", "e")
  assert.deepEqual(await reader.read(3), { from: 3, list: concatBytes(entry("dddd"), entry("e")), to: 5 })
  assert.deepEqual(await reader.read(1), { from: 1, list: concatBytes(...["bb", "ccc", "dddd", "e"].map(entry)), to: 5 })
  assert.deepEqual(await new ImaListReader(kernel).read(4), { from: 4, list: entry("e"), to: 5 })
})

test("ImaListReader.read() does not read what lies before the entry again", async () => {
  await using kernel = await fakeKernel()
  const reader = new ImaListReader(kernel)
  await kernel.set("a", "bb", "ccc")
  await reader.read(0)
  // Bytes that are no list at all, where nobody looks any more.
  await writeFile(kernel.imaList, concatBytes(new Uint8Array(entry("a").length).fill(0xff), entry("bb"), entry("ccc")))
  assert.deepEqual((await reader.read(1)).list, concatBytes(entry("bb"), entry("ccc")))
})

test("ImaListReader.read() starts anew where the list is another one", async () => {
  await using kernel = await fakeKernel()
  const reader = new ImaListReader(kernel)
  await kernel.set("a", "bb", "ccc")
  await reader.read(0)
  await kernel.set("longer than before", "bb", "ccc", "d")
  assert.deepEqual(await reader.read(1), { from: 1, list: concatBytes(entry("bb"), entry("ccc"), entry("d")), to: 4 })
  await kernel.set("a", "b")
  assert.deepEqual(await reader.read(1), { from: 1, list: entry("b"), to: 2 })
  await assert.rejects(reader.read(3), { name: "UnavailableError", code: "unavailable" })
})

test("ImaListReader.read() does not take a place in another list for the one it knew", async () => {
  await using kernel = await fakeKernel()
  const reader = new ImaListReader(kernel)
  await kernel.set("x", "x", "y")
  await reader.read(0)
  // The first entry ends where the second one ended before.
  const twice = "z".repeat(2 * entry("x").length - entry("").length)
  await kernel.set(twice, "another", "w")
  assert.deepEqual(await reader.read(2), { from: 2, list: entry("w"), to: 3 })
})

test("ImaListReader.read() refuses a list with fewer entries than the kernel counts, and a broken one", async () => {
  await using kernel = await fakeKernel()
  await kernel.set("a", "bb")
  await writeFile(kernel.imaCount, "3\n")
  await assert.rejects(new ImaListReader(kernel).read(0), { code: "truncated" })
  await writeFile(kernel.imaCount, "1\n")
  assert.equal((await new ImaListReader(kernel).read(0)).to, 2)
  await appendFile(kernel.imaList, Uint8Array.of(10, 0, 0))
  await assert.rejects(new ImaListReader(kernel).read(0), { code: "truncated" })
})

test("ImaListReader.read() of a machine without IMA is unsupported", async () => {
  const paths = { imaList: "/nonexistent/list", imaCount: "/nonexistent/count" }
  await assert.rejects(new ImaListReader(paths).read(0), (error) => error instanceof UnavailableError && error.code === "unsupported")
})

test("readBootLog() gives the bytes; none, an empty and a huge one are unsupported", async () => {
  await using kernel = await fakeKernel()
  await assert.rejects(readBootLog(kernel.bootLog), { code: "unsupported" })
  await assert.rejects(readBootLog(tmpdir()), { code: "unavailable" })
  await writeFile(kernel.bootLog, "")
  await assert.rejects(readBootLog(kernel.bootLog), { code: "unsupported" })
  await writeFile(kernel.bootLog, new Uint8Array(1_048_577))
  await assert.rejects(readBootLog(kernel.bootLog), { code: "unsupported" })
  await writeFile(kernel.bootLog, new Uint8Array(1_048_576))
  assert.equal((await readBootLog(kernel.bootLog)).length, 1_048_576)
})
