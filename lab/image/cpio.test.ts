import assert from "node:assert/strict"
import { test } from "node:test"
import { parseUtf8 } from "../../src/bytes/text.ts"
import { viewOf } from "../../src/bytes/view.ts"
import { encodeCpio } from "./cpio.ts"
import { withFolders } from "./initrd.ts"

test("encodeCpio() writes the newc form: header, padded name, padded data, trailer", () => {
  const bytes = encodeCpio([
    { path: "bin", kind: "folder", mode: 0o755 },
    { path: "bin/a", kind: "file", mode: 0o644, data: new TextEncoder().encode("hello") },
    { path: "dev/console", kind: "device", mode: 0o600, major: 5, minor: 1 },
  ])
  const field = (start: number, index: number): number => Number.parseInt(parseUtf8(viewOf(bytes, start + 6 + 8 * index, 8)), 16)
  assert.equal(parseUtf8(viewOf(bytes, 0, 6)), "070701")
  assert.equal(field(0, 1), 0o040755)
  // Header of 110 bytes and "bin\0" end at 114, padded to 116.
  assert.equal(parseUtf8(viewOf(bytes, 116, 6)), "070701")
  assert.equal(field(116, 1), 0o100644)
  assert.equal(field(116, 6), 5)
  assert.equal(parseUtf8(viewOf(bytes, 116 + 116, 5)), "hello")
  const device = 116 + 116 + 8
  assert.equal(field(device, 1), 0o020600)
  assert.deepEqual([field(device, 9), field(device, 10)], [5, 1])
  assert.match(parseUtf8(bytes), /TRAILER!!!\0+$/)
  assert.equal(bytes.length % 4, 0)
})

test("encodeCpio() gives equal bytes for equal entries", () => {
  const entries = withFolders([["bin/busybox", new Uint8Array([1, 2, 3]), 0o755]])
  assert.deepEqual(encodeCpio(entries), encodeCpio(entries))
})

test("withFolders() puts every folder before what lies in it", () => {
  const paths = withFolders([["a/b/c", new Uint8Array(), 0o644]]).map(({ path }) => path)
  assert.ok(paths.indexOf("a") < paths.indexOf("a/b"))
  assert.ok(paths.indexOf("a/b") < paths.indexOf("a/b/c"))
})
