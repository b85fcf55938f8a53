import assert from "node:assert/strict"
import { test } from "node:test"
import { MalformedError } from "./error.ts"
import { parseSafetensorsHeader, readSafetensorsHeaderLength } from "./safetensors.ts"
import { encodeUtf8 } from "./text.ts"

const weights = { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] }
const bias = { dtype: "I64", shape: [], data_offsets: [24, 32] }

function parse(document: unknown, dataBytes: number): ReturnType<typeof parseSafetensorsHeader> {
  const header = encodeUtf8(typeof document === "string" ? document : JSON.stringify(document))
  return parseSafetensorsHeader(header, 8 + header.length + dataBytes)
}

function refuses(document: unknown, dataBytes: number, code: MalformedError["code"]): void {
  assert.throws(
    () => parse(document, dataBytes),
    (error) => error instanceof MalformedError && error.code === code,
    JSON.stringify(document),
  )
}

test("parseSafetensorsHeader() gives tensors in the order of their data", () => {
  const { tensors, metadata, dataOffset } = parse({ b: bias, w: weights, __metadata__: { format: "pt" } }, 32)
  assert.deepEqual(
    tensors.map(({ name, start, end }) => [name, start, end]),
    [
      ["w", 0, 24],
      ["b", 24, 32],
    ],
  )
  assert.deepEqual(metadata, { format: "pt" })
  assert.ok(dataOffset > 8)
  assert.deepEqual(parse("{}  ", 0).tensors, [])
  assert.deepEqual(parse({ empty: { dtype: "U8", shape: [0], data_offsets: [0, 0] }, w: weights }, 24).tensors.length, 2)
})

test("parseSafetensorsHeader() refuses gaps, overlaps, rests and missing data", () => {
  refuses({ w: { ...weights, data_offsets: [4, 28] } }, 28, "malformed")
  refuses({ w: weights, b: { ...bias, data_offsets: [20, 28] } }, 28, "malformed")
  refuses({ w: weights, b: { ...bias, data_offsets: [25, 33] } }, 33, "malformed")
  refuses({ w: weights }, 25, "trailing-bytes")
  refuses({ w: weights }, 23, "truncated")
})

test("parseSafetensorsHeader() refuses shapes and types that do not fit", () => {
  refuses({ w: { ...weights, shape: [2, 4] } }, 24, "malformed")
  refuses({ w: { ...weights, shape: [-2, -3] } }, 24, "malformed")
  refuses({ w: { ...weights, shape: [2, 3.5] } }, 24, "malformed")
  refuses({ w: { ...weights, shape: [2 ** 40, 2 ** 40] } }, 24, "malformed")
  refuses({ w: { ...weights, dtype: "F31" } }, 24, "malformed")
  refuses({ w: { ...weights, dtype: "toString" } }, 24, "malformed")
  refuses({ w: { ...weights, data_offsets: [24] } }, 24, "malformed")
  refuses({ w: { ...weights, data_offsets: [0, 24, 24] } }, 24, "malformed")
  refuses({ w: { ...weights, data_offsets: [24, 0] } }, 24, "malformed")
  refuses({ w: { dtype: "F32", data_offsets: [0, 24] } }, 24, "malformed")
  refuses({ w: { ...weights, shape: Array.from({ length: 65 }, () => 1) } }, 24, "malformed")
})

test("parseSafetensorsHeader() refuses what is not its JSON", () => {
  refuses(" {}", 0, "malformed")
  refuses("[]", 0, "malformed")
  refuses("{", 0, "malformed")
  refuses('{"a":1}', 0, "malformed")
  refuses({ w: { ...weights, code: "import os" } }, 24, "unknown-field")
  refuses({ __metadata__: { a: 1 } }, 0, "malformed")
  refuses('{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1, "duplicate")
})

test("readSafetensorsHeaderLength() caps the header before anything is read", () => {
  assert.equal(readSafetensorsHeaderLength(Uint8Array.of(0, 1, 0, 0, 0, 0, 0, 0)), 256)
  assert.throws(() => readSafetensorsHeaderLength(Uint8Array.of(0, 0, 0, 0, 1, 0, 0, 0)), { code: "too-large" })
  assert.throws(() => readSafetensorsHeaderLength(Uint8Array.of(0, 0, 0, 0, 0, 0, 0)), { code: "truncated" })
})
