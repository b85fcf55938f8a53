import assert from "node:assert/strict"
import { test } from "node:test"
import fc from "fast-check"
import { PerunError } from "./error.ts"
import { canonicalJson, parseJson } from "./json.ts"

const limits = { maxBytes: 10_000 }

function code(expected: string, path?: string) {
  return (error: unknown) => error instanceof PerunError && error.code === expected && (path === undefined || error.path === path)
}

test("parseJson() agrees with JSON.parse on what JSON.stringify writes", () => {
  fc.assert(
    fc.property(fc.jsonValue({ noUnicodeString: false }), (value) => {
      const text = JSON.stringify(value)
      if (text.includes("__proto__") || /\d{16}/.test(text)) return
      const parsed = JSON.parse(text) as unknown
      assert.deepEqual(parseJson(text, { maxBytes: 1_000_000 }), parsed)
    }),
    { seed: 7, numRuns: 500 },
  )
})

test("parseJson() lets only its own errors out", () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'{}[]",:\\u0e+-.tfnrl ') }), (text) => {
      try {
        parseJson(text, limits)
      } catch (error) {
        assert.ok(error instanceof PerunError, String(error))
      }
    }),
    { seed: 8, numRuns: 3000 },
  )
})

test("parseJson() refuses a duplicate key at any depth and names it", () => {
  assert.throws(() => parseJson('{"a":{"b":1,"b":2}}', limits), code("duplicate", "a.b"))
  assert.throws(() => parseJson('{"a":1,"\\u0061":2}', limits), code("duplicate", "a"))
})

test("parseJson() refuses __proto__, trailing text, a byte order mark, lone surrogates and bare control characters", () => {
  for (const text of [
    '{"__proto__":1}',
    "1 2",
    "\ufeff1",
    '"\\ud800"',
    '"\u0001"',
    '"\n"',
    "[1,]",
    '{"a":1,}',
    "01",
    "1.",
    ".5",
    "+1",
    "NaN",
    "'a'",
    "",
    '"',
    '"\\x"',
    '"\\u12g4"',
    "tru",
  ]) {
    assert.throws(() => parseJson(text, limits), code("malformed"), JSON.stringify(text))
  }
})

test("parseJson() refuses bytes that are not UTF-8", () => {
  assert.throws(() => parseJson(new Uint8Array([0x22, 0xff, 0x22]), limits), code("malformed"))
})

test("parseJson() refuses numbers that cannot be held exactly", () => {
  for (const text of ["9007199254740993", "-9007199254740993", "1e400"]) assert.throws(() => parseJson(text, limits), code("malformed"))
  assert.equal(parseJson("9007199254740991", limits), 9007199254740991)
  assert.ok(Object.is(parseJson("-0", limits), 0))
})

test("parseJson() refuses excess size and depth", () => {
  assert.throws(() => parseJson('"aaaa"', { maxBytes: 5 }), code("too-large"))
  assert.equal(parseJson('"aaa"', { maxBytes: 5 }), "aaa")
  assert.throws(() => parseJson("[[1]]", { maxBytes: 100, maxDepth: 1 }), code("too-large"))
  assert.deepEqual(parseJson("[1]", { maxBytes: 100, maxDepth: 1 }), [1])
  assert.throws(() => parseJson("[".repeat(9000), limits), code("too-large"))
})

test("parseJson() names line and column", () => {
  assert.throws(
    () => parseJson('{\n  "a": x}', limits),
    (error: unknown) => error instanceof PerunError && error.message.includes("line 2, column 8"),
  )
})

test("canonicalJson() sorts by UTF-16 code units and writes numbers as RFC 8785 says", () => {
  assert.equal(canonicalJson({ b: 1, a: [1e21, 1e-7, 0.1], "\u20ac": 2, "\u{1f600}": 3 }), '{"a":[1e+21,1e-7,0.1],"b":1,"\u20ac":2,"\u{1f600}":3}')
})

test("canonicalJson() refuses what JSON does not have", () => {
  for (const value of [undefined, { a: undefined }, [() => 1], 1n, Number.NaN, { a: Infinity }, "\ud800"])
    assert.throws(() => canonicalJson(value), TypeError)
})
