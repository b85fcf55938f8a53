import assert from "node:assert/strict"
import { test } from "node:test"
import { MalformedError } from "./error.ts"
import { ByteReader, readAll } from "./reader.ts"
import { ByteWriter } from "./writer.ts"

const sample = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8, 9])

function malformed(code: string, path?: string) {
  return (error: unknown) => error instanceof MalformedError && error.code === code && (path === undefined || error.path === path)
}

test("ByteReader reads every width in both orders", () => {
  const reader = () => new ByteReader("t", sample)
  assert.equal(reader().u8("f"), 1)
  assert.equal(reader().u16be("f"), 0x0102)
  assert.equal(reader().u16le("f"), 0x0201)
  assert.equal(reader().u32be("f"), 0x01020304)
  assert.equal(reader().u32le("f"), 0x04030201)
  assert.equal(reader().u64be("f"), 0x0102030405060708n)
  assert.equal(reader().u64le("f"), 0x0807060504030201n)
})

test("ByteReader keeps to a view's own window", () => {
  const reader = new ByteReader("t", new Uint8Array(sample.buffer, 2, 3))
  assert.deepEqual([...reader.rest("f")], [3, 4, 5])
  assert.throws(() => reader.u8("g"), malformed("truncated", "t.g"))
})

test("ByteReader refuses each read past the end and names the field", () => {
  const reads: ReadonlyArray<(reader: ByteReader) => unknown> = [
    (r) => r.u8("f"),
    (r) => r.u16be("f"),
    (r) => r.u16le("f"),
    (r) => r.u32be("f"),
    (r) => r.u32le("f"),
    (r) => r.u64be("f"),
    (r) => r.u64le("f"),
    (r) => r.bytes(1, "f"),
    (r) => r.sub(1, "f"),
  ]
  for (const read of reads) assert.throws(() => read(new ByteReader("t", new Uint8Array())), malformed("truncated", "t.f"))
})

test("ByteReader.boundedBytes() refuses more than the maximum before it reads", () => {
  assert.throws(() => new ByteReader("t", sample).boundedBytes(4, 3, "f"), malformed("too-large", "t.f"))
  assert.equal(new ByteReader("t", sample).boundedBytes(3, 3, "f").length, 3)
})

test("ByteReader.bytes() gives a copy", () => {
  const source = sample.slice()
  const copy = new ByteReader("t", source).bytes(2, "f")
  source[0] = 99
  assert.equal(copy[0], 1)
})

test("ByteReader.sub() is bounded by its own length and advances the outer reader", () => {
  const outer = new ByteReader("t", sample)
  const inner = outer.sub(2, "in")
  assert.equal(inner.u16be("x"), 0x0102)
  assert.throws(() => inner.u8("y"), malformed("truncated", "t.in.y"))
  inner.finish()
  assert.equal(outer.offset, 2)
  assert.equal(outer.u8("z"), 3)
})

test("ByteReader.since() gives the exact bytes read", () => {
  const reader = new ByteReader("t", sample)
  reader.u8("a")
  const from = reader.offset
  reader.u16be("b")
  assert.deepEqual([...reader.since(from)], [2, 3])
})

test("ByteReader calls a negative, fractional or huge length wrong use", () => {
  for (const length of [-1, 0.5, Number.NaN, 2 ** 60]) assert.throws(() => new ByteReader("t", sample).bytes(length, "f"), TypeError)
})

test("readAll() refuses trailing bytes", () => {
  assert.throws(() => readAll("T", sample, (r) => r.u8("f")), malformed("trailing-bytes", "T"))
  assert.deepEqual([...readAll("T", sample, (r) => r.rest("f"))], [...sample])
})

test("ByteWriter writes what ByteReader reads", () => {
  const bytes = new ByteWriter().u8(1).u16be(2).u16le(3).u32be(4).u32le(5).u64be(6n).u64le(7n).sized16be(sample).take()
  readAll("T", bytes, (r) => {
    assert.equal(r.u8("a"), 1)
    assert.equal(r.u16be("b"), 2)
    assert.equal(r.u16le("c"), 3)
    assert.equal(r.u32be("d"), 4)
    assert.equal(r.u32le("e"), 5)
    assert.equal(r.u64be("f"), 6n)
    assert.equal(r.u64le("g"), 7n)
    assert.deepEqual(r.bytes(r.u16be("h"), "i"), sample)
  })
})

test("ByteWriter grows past its first buffer", () => {
  const large = new Uint8Array(1000).fill(7)
  assert.deepEqual(new ByteWriter().u8(1).bytes(large).take().length, 1001)
})

test("ByteWriter refuses values out of range", () => {
  assert.throws(() => new ByteWriter().u8(256), TypeError)
  assert.throws(() => new ByteWriter().u16be(-1), TypeError)
  assert.throws(() => new ByteWriter().u32le(2 ** 32), TypeError)
  assert.throws(() => new ByteWriter().u32be(0.5), TypeError)
  assert.throws(() => new ByteWriter().u64be(-1n), TypeError)
  assert.throws(() => new ByteWriter().u64le(1n << 64n), TypeError)
})

test("ByteReader copies what it returns, also out of a Buffer, but for views", () => {
  const source = Buffer.from([1, 2, 3, 4])
  const reader = new ByteReader("r", source)
  const copy = reader.bytes(2, "copy")
  const view = reader.view(2, "view")
  source.fill(9)
  assert.deepEqual([...copy], [1, 2])
  assert.deepEqual([...view], [9, 9])
  assert.deepEqual([...reader.viewSince(1)], [9, 9, 9])
})
