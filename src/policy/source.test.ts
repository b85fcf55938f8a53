import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { nowhere } from "./locate.ts"
import { parseSource } from "./source.ts"
import type { Source, TextFormat } from "./source.ts"

function parse(text: string, format: TextFormat = "yaml"): Source {
  return parseSource(encodeUtf8(text), format, { maxBytes: 100_000 })
}

function codes(text: string, format: TextFormat = "yaml"): readonly string[] {
  return parse(text, format).problems.map(({ code, field, line, column }) => `${code} ${field} ${line}:${column}`)
}

test("parseSource() reads the plain part of YAML", () => {
  const text = '# comment\na: 1\nb: [x, "1", -3, 0]\nc:\n  - d: true\n  - null\n  - e:\n"f g": \'h\'\ni: |\n  two\n  lines\n'
  const { value, problems } = parse(text)
  assert.deepEqual(problems, [])
  assert.deepEqual(value, { a: 1, b: ["x", "1", -3, 0], c: [{ d: true }, null, { e: null }], "f g": "h", i: "two\nlines\n" })
})

test("parseSource() takes YAML 1.1 words and times for text", () => {
  assert.deepEqual(parse("a: [yes, no, on, off, 2027-06-30T00:00:00Z, 1_000, 12:30]").value, {
    a: ["yes", "no", "on", "off", "2027-06-30T00:00:00Z", "1_000", "12:30"],
  })
})

const refused: readonly (readonly [string, string, readonly string[]])[] = [
  ["an anchor", "a: &x 1", ["malformed a 1:7"]],
  ["an anchor and its alias", "a: &x 1\nb: *x", ["malformed a 1:7", "malformed b 2:4"]],
  ["an anchor on a map", "a: &x {b: 1}", ["malformed a 1:7"]],
  ["an anchor on a key", "&x a: 1", ["malformed a 1:4"]],
  ["a tag", "a: !!str 1", ["malformed a 1:10"]],
  ["a tag on a key", "!!str a: 1", ["malformed a 1:7"]],
  ["an unknown tag", "a: !x y", ["malformed  1:4", "malformed a 1:7"]],
  ["a merge key", "a: {<<: {b: 1}}", ["malformed a.<< 1:5"]],
  ["the key __proto__", "a: 1\n__proto__: 2", ["malformed __proto__ 2:1"]],
  ["a duplicate key", "a:\n  b: 1\n  b: 2", ["duplicate a.b 3:3"]],
  ["a duplicate key in another form", 'a: 1\n"a": 2', ["duplicate a 2:1"]],
  ["a number as key", "a: {1: x}", ["malformed a 1:5"]],
  ["a map as key", "? {a: 1}\n: x", ["malformed  1:3"]],
  ["null as key", "~: x", ["malformed  1:1"]],
  ["two documents", "a: 1\n---\nb: 2", ["malformed  2:1"]],
  ["a directive", "%YAML 1.2\n---\na: 1", ["malformed  1:1"]],
  ["hexadecimal", "a: 0x10", ["malformed a 1:4"]],
  ["octal", "a: 0o10", ["malformed a 1:4"]],
  ["a plus sign", "a: +1", ["malformed a 1:4"]],
  ["a leading zero", "a: 01", ["malformed a 1:4"]],
  ["an exponent", "a: 1e3", ["malformed a 1:4"]],
  ["a fraction", "a: 1.0", ["malformed a 1:4"]],
  ["infinity", "a: .inf", ["malformed a 1:4"]],
  ["not a number", "a: .nan", ["malformed a 1:4"]],
  ["a number beyond exactness", "a: 9007199254740993", ["malformed a 1:4"]],
  ["a lone surrogate", 'a: "\\ud800"', ["malformed a 1:4"]],
  ["an open flow", "a: [1", ["malformed  1:6"]],
  ["a tab as indentation", "a:\n\tb: 1", ["malformed  2:1"]],
  ["nothing", "", ["malformed  1:1"]],
  ["only a comment", "# nothing\n", ["malformed  1:1"]],
]

for (const [what, text, expected] of refused)
  test(`parseSource() refuses ${what}`, () => {
    const found = codes(text)
    assert.ok(found.length > 0, "accepted")
    assert.deepEqual(found.slice(0, expected.length), expected)
  })

test("parseSource() accepts the greatest exact number", () => {
  assert.deepEqual(parse("a: 9007199254740991").value, { a: 9007199254740991 })
  assert.deepEqual(parse("a: 9007199254740991").problems, [])
})

test("parseSource() refuses deep nesting of every kind without recursion", () => {
  const depths = [65, 20_000]
  for (const depth of depths)
    for (const text of ["[".repeat(depth) + "]".repeat(depth), "- ".repeat(depth) + "x", `${"{a: ".repeat(depth / 2)}1${"}".repeat(depth / 2)}`]) {
      if (text.startsWith("{") && depth === 65) continue
      assert.deepEqual(codes(text), ["too-large  1:1"], text.substring(0, 8))
    }
  assert.deepEqual(codes("[".repeat(64) + "]".repeat(64)), [])
})

test("parseSource() reads a map of very many keys in linear time, and finds its duplicate", () => {
  const keys = Array.from({ length: 8000 }, (_, index) => `k${index}: 1`)
  assert.deepEqual(codes([...keys, "k0: 2"].join("\n")), ["duplicate k0 8001:1"])
})

test("parseSource() refuses more bytes than allowed, and bytes that are not UTF-8", () => {
  const limits = { maxBytes: 3 }
  const codesOf = (bytes: Uint8Array, format: TextFormat): readonly string[] => parseSource(bytes, format, limits).problems.map(({ code }) => code)
  for (const format of ["json", "yaml"] as const) {
    assert.deepEqual(codesOf(encodeUtf8("'ab'"), format), ["too-large"])
    assert.deepEqual(codesOf(new Uint8Array([0xff]), format), ["malformed"])
  }
  assert.deepEqual(codesOf(encodeUtf8("[1]"), "json"), [])
})

test("parseSource() lets only the strict parser judge JSON", () => {
  const json = '{\n\t"a": 1.5,\n\t"b": [1e2, {"c": "\\/"}]\n}'
  assert.deepEqual(parse(json, "json").problems, [])
  assert.deepEqual(parse(json, "json").value, { a: 1.5, b: [100, { c: "/" }] })
  assert.deepEqual(codes("a: 1", "json"), ["malformed  1:1"])
  assert.deepEqual(codes('{"a": 1,\n "b": {"c": 1, "c": 2}}', "json"), ["duplicate b.c 2:19"])
  assert.deepEqual(codes("[".repeat(66), "json"), [`too-large ${"[0]".repeat(65)} 1:66`])
  assert.equal(parse('{"a": 1, "a": 2}', "json").problems[0]?.message, "key appears twice")
  assert.deepEqual(parse("null", "json").value, null)
})

test("parseSource() locates a field, or its nearest parent", () => {
  const { locate } = parse("a: 1\nb:\n  - c: 1\n    d: 2\n  - e\n")
  assert.deepEqual(locate([]), { line: 1, column: 1 })
  assert.deepEqual(locate(["b"]), { line: 2, column: 1 })
  assert.deepEqual(locate(["b", 0, "d"]), { line: 4, column: 5 })
  assert.deepEqual(locate(["b", 1]), { line: 5, column: 5 })
  assert.deepEqual(locate(["b", 1, "x", "y"]), { line: 5, column: 5 })
  assert.deepEqual(locate(["z"]), { line: 1, column: 1 })
  assert.deepEqual(nowhere(), { line: 0, column: 0 })
})
