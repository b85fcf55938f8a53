import assert from "node:assert/strict"
import { test } from "node:test"
import { kernelParameters } from "./kernel-parameters.ts"

function pairs(line: string): readonly (readonly [string, string | undefined])[] {
  return kernelParameters(line).map(({ name, value }) => [name, value])
}

test("kernelParameters() splits at blanks of every kind and knows bare words from values", () => {
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
})

test("kernelParameters() keeps quoted blanks together and takes the quotes away", () => {
  assert.deepEqual(pairs('a="x y" "b=z w" "c d" e="f'), [
    ["a", "x y"],
    ["b", "z w"],
    ["c d", undefined],
    ["e", "f"],
  ])
})

test("kernelParameters() takes hyphen and underscore in a name for the same, but not a leading hyphen", () => {
  assert.deepEqual(pairs("module.sig-enforce=a-b -b a-b-c"), [
    ["module.sig_enforce", "a-b"],
    ["-b", undefined],
    ["a_b_c", undefined],
  ])
})

test("kernelParameters() keeps each word as it stands", () => {
  assert.deepEqual(
    kernelParameters('a-b="x y" c').map(({ text }) => text),
    ['a-b="x y"', "c"],
  )
})
