import assert from "node:assert/strict"
import { writeFileSync } from "node:fs"
import { test } from "node:test"
import fc from "fast-check"
import { extract } from "tar-stream"
import { concatBytes } from "../bytes/compare.ts"
import { encodeTarHeader, tarBytes, tarEndBytes, tarHeaderBytes, tarPadding } from "./tar.ts"
import type { TarFile } from "./tar.ts"
import { hasProgram, runProgram, temporaryFolder } from "./test-fixtures.ts"

function packed(files: readonly TarFile[]): Uint8Array {
  const parts = files.map((file) =>
    concatBytes(encodeTarHeader(file), new Uint8Array(file.sizeBytes).fill(0x61), new Uint8Array(tarPadding(file.sizeBytes))),
  )
  return concatBytes(...parts, new Uint8Array(tarEndBytes))
}

const awkward: readonly TarFile[] = [
  { path: "a", sizeBytes: 0, executable: false },
  { path: "b/c d", sizeBytes: 1, executable: true },
  { path: "x".repeat(100), sizeBytes: 512, executable: false },
  { path: "x".repeat(101), sizeBytes: 513, executable: false },
  { path: `${"folder/".repeat(40)}file`, sizeBytes: 511, executable: false },
  { path: "Röntgen/Bild 1 – ü.png", sizeBytes: 5, executable: true },
]

async function listWithLibrary(tar: Uint8Array): Promise<unknown[]> {
  const found: unknown[] = []
  const reader = extract()
  reader.end(tar)
  for await (const entry of reader) {
    const { name, size, mode, uid, gid, mtime, type } = entry.header
    assert.deepEqual({ uid, gid, type, mtime: mtime?.getTime() }, { uid: 0, gid: 0, type: "file", mtime: 0 })
    let bytes = 0
    for await (const part of entry) bytes += Buffer.byteLength(part as Uint8Array)
    assert.equal(bytes, size)
    found.push({ path: name, sizeBytes: size, executable: mode === 0o755 })
  }
  return found
}

test("tar-stream reads what encodeTarHeader() makes", async () => {
  const tar = packed(awkward)
  assert.equal(tar.length, tarBytes(awkward))
  for (const file of awkward) assert.equal(tarHeaderBytes(file), encodeTarHeader(file).length)
  assert.deepEqual(await listWithLibrary(tar), awkward)
})

test("tar-stream reads any path", async () => {
  const path = fc
    .string({ unit: fc.constantFrom("a", "B", "7", "/", "ü", "漢", " ", "."), minLength: 1, maxLength: 300 })
    .filter((text) => !text.endsWith("/"))
  await fc.assert(
    fc.asyncProperty(path, async (text) => {
      const file: TarFile = { path: text, sizeBytes: 3, executable: false }
      assert.deepEqual(await listWithLibrary(packed([file])), [file])
    }),
    { numRuns: 100 },
  )
})

test("GNU tar reads it", { skip: hasProgram("tar", ["--version"]) ? false : "no tar program" }, async () => {
  using folder = temporaryFolder()
  writeFileSync(folder.at("t.tar"), packed(awkward))
  const listed = (await runProgram("tar", ["--list", "--quoting-style=literal", "-f", folder.at("t.tar")])).toString("utf8")
  assert.deepEqual(
    listed.trimEnd().split("\n"),
    awkward.map(({ path }) => path),
  )
})

test("a size beyond ustar's goes into a pax header", () => {
  const small = encodeTarHeader({ path: "a", sizeBytes: 0o77777777777, executable: false })
  const large = encodeTarHeader({ path: "a", sizeBytes: 0o77777777777 + 1, executable: false })
  assert.equal(small.length, 512)
  assert.equal(large.length, 3 * 512)
  assert.match(Buffer.from(large).toString("latin1"), /\n?19 size=8589934592\n/)
})

test("pax records count their own length", () => {
  for (let length = 95; length < 1005; length++) {
    const text = Buffer.from(
      encodeTarHeader({ path: `${"d/".repeat(length / 2)}${"e".repeat(1 + (length % 2))}ü`, sizeBytes: 0, executable: false }),
    ).toString("utf8")
    const record = /\u0000([0-9]+) path=[^\n]*\n/.exec(text)
    assert.ok(record)
    assert.equal(Buffer.byteLength(record[0]) - 1, Number(record[1]))
  }
})
