import assert from "node:assert/strict"
import { test } from "node:test"
import { parseKernelCommandLine } from "./kernel-parameters.ts"

function pairs(line: string): readonly (readonly [string, string | undefined])[] {
  return parseKernelCommandLine(line).parameters.map(({ name, value }) => [name, value])
}

test("parseKernelCommandLine() splits at blanks of every kind and knows bare words from values", () => {
  assert.deepEqual(pairs(" a=1\tb\n c=x=y  d= "), [
    ["a", "1"],
    ["b", undefined],
    ["c", "x=y"],
    ["d", ""],
  ])
  assert.deepEqual(pairs("a\u00a0b\vc\fd\re"), [
    ["a", undefined],
    ["b", undefined],
    ["c", undefined],
    ["d", undefined],
    ["e", undefined],
  ])
  assert.deepEqual(pairs(""), [])
  assert.deepEqual(pairs("=x"), [["", "x"]])
})

test("parseKernelCommandLine() keeps quoted blanks together and takes the quotes away", () => {
  assert.deepEqual(pairs('a="x y" "b=z w" "c d" e="f'), [
    ["a", "x y"],
    ["b", "z w"],
    ["c d", undefined],
    ["e", "f"],
  ])
  assert.deepEqual(pairs('"a"b"c"'), [['a"b"c', undefined]])
})

test("parseKernelCommandLine() takes hyphen and underscore in a name for the same", () => {
  assert.deepEqual(pairs("module.sig-enforce=a-b -b a-b-c"), [
    ["module.sig_enforce", "a-b"],
    ["_b", undefined],
    ["a_b_c", undefined],
  ])
})

test("parseKernelCommandLine() keeps each word as it stands", () => {
  assert.deepEqual(
    parseKernelCommandLine('a-b="x y" c').parameters.map(({ text }) => text),
    ['a-b="x y"', "c"],
  )
})

test("parseKernelCommandLine() gives what stands behind a bare -- to the first program", () => {
  for (const end of ["--", '"--"']) {
    const { parameters, initArguments } = parseKernelCommandLine(`a ${end} b=1 -- c`)
    assert.deepEqual([parameters.map(({ name }) => name), initArguments], [["a"], ["b=1", "--", "c"]])
  }
  for (const line of ["a b --=1 c", "a b ---x c", 'a b "-- c"']) assert.deepEqual(parseKernelCommandLine(line).initArguments, [])
})
