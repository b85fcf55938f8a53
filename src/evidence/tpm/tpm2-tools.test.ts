import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { PkiError } from "../../pki/errors.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import { asEvidence } from "./pki-errors.ts"
import { parseTpm2ToolsPcrs } from "./tpm2-tools.ts"

interface Layout {
  readonly selections: readonly { readonly hash: number; readonly size: number; readonly bitmap: readonly number[] }[]
  readonly lists: readonly (readonly number[])[]
  readonly count?: number
  readonly listCount?: number
}

const one: Layout = { selections: [{ hash: 0x0b, size: 3, bitmap: [0x01, 0x80, 0x00, 0x00] }], lists: [[0xaa, 0xbb]] }

/** The C structures as tpm2-tools writes them. */
function write(layout: Layout): Uint8Array {
  const writer = new ByteWriter().u32le(layout.count ?? layout.selections.length)
  for (let place = 0; place < 16; place++) {
    const { hash = 0, size = 0, bitmap = [] } = layout.selections[place] ?? {}
    writer.u16le(hash).u8(size)
    for (let byte = 0; byte < 4; byte++) writer.u8(bitmap[byte] ?? 0)
    writer.u8(0)
  }
  writer.u32le(layout.listCount ?? layout.lists.length)
  for (const list of layout.lists) {
    writer.u32le(list.length)
    for (let place = 0; place < 8; place++) {
      const fill = list[place]
      writer.u16le(fill === undefined ? 0 : 32).bytes(new Uint8Array(64).fill(fill ?? 0, 0, 32))
    }
  }
  return writer.take()
}

testParserLaws({ name: "parseTpm2ToolsPcrs", parse: parseTpm2ToolsPcrs, samples: [write(one)], fuzzRuns: 500 })

test("parseTpm2ToolsPcrs() gives values by bank and register, over several lists", () => {
  const pcrs = parseTpm2ToolsPcrs(write(one))
  assert.deepEqual([...pcrs.keys()], ["sha256"])
  assert.deepEqual([...(pcrs.get("sha256") ?? [])].map(([pcr, value]) => [pcr, value.substring(0, 2), value.length]), [[0, "aa", 64], [15, "bb", 64]]) // prettier-ignore
  const many: Layout = { selections: [{ hash: 0x0b, size: 3, bitmap: [0xff, 0x03] }], lists: [[1, 2, 3, 4, 5, 6, 7, 8], [9, 10]] } // prettier-ignore
  assert.equal(parseTpm2ToolsPcrs(write(many)).get("sha256")?.get(9), encodeHex(new Uint8Array(32).fill(10)))
  const two: Layout = { selections: [{ hash: 0x04, size: 3, bitmap: [1] }, { hash: 0x0b, size: 3, bitmap: [1] }], lists: [[1, 2]] } // prettier-ignore
  assert.deepEqual([...parseTpm2ToolsPcrs(write(two)).keys()], ["sha1", "sha256"])
})

test("parseTpm2ToolsPcrs() refuses counts that do not fit, sizes beyond the bitmap and unknown banks", () => {
  assert.throws(() => parseTpm2ToolsPcrs(write({ ...one, count: 17 })), { code: "too-large" })
  assert.throws(() => parseTpm2ToolsPcrs(write({ ...one, listCount: 49 })), { code: "too-large" })
  assert.throws(() => parseTpm2ToolsPcrs(write({ ...one, lists: [[1]] })), { code: "malformed" })
  assert.throws(() => parseTpm2ToolsPcrs(write({ ...one, lists: [[1, 2, 3]] })), { code: "malformed" })
  const sized = (size: number, bitmap: readonly number[]): Layout => ({ selections: [{ hash: 0x0b, size, bitmap }], lists: [[1]] })
  assert.throws(() => parseTpm2ToolsPcrs(write(sized(5, [1]))), { code: "malformed" })
  // What lies behind the stated size is no register.
  for (const layout of [sized(1, [1, 1]), sized(4, [0, 0, 0, 1])]) assert.equal(parseTpm2ToolsPcrs(write(layout)).get("sha256")?.size, 1)
  assert.throws(() => parseTpm2ToolsPcrs(write({ ...one, selections: [{ hash: 0x12, size: 3, bitmap: [1] }] })), { code: "unsupported" })
})

test("parseTpm2ToolsPcrs() takes sixteen selections and 48 lists", () => {
  const banks: Layout["selections"] = Array.from({ length: 16 }, (_, place) => ({ hash: 0x0b, size: 1, bitmap: [place === 0 ? 1 : 0] }))
  const lists = Array.from({ length: 48 }, (_, place) => (place === 47 ? [1] : []))
  assert.equal(parseTpm2ToolsPcrs(write({ selections: banks, lists })).get("sha256")?.size, 1)
})

test("asEvidence() keeps the codes that both rooms have and lets other errors through", () => {
  const throwing = (error: Error) => () =>
    asEvidence("x", () => {
      throw error
    })
  assert.throws(throwing(new PkiError("revoked", "text")), { name: "EvidenceError", code: "revoked", path: "x" })
  assert.throws(throwing(new PkiError("wrong-purpose", "text")), { name: "EvidenceError", code: "unsupported" })
  assert.throws(throwing(new TypeError("text")), TypeError)
  assert.equal(
    asEvidence("x", () => 7),
    7,
  )
})
