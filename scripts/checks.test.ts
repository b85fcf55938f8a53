import assert from "node:assert/strict"
import { readFile } from "node:fs/promises"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { findLostAttacks, findLostChecks, hasTest, parseAttackRows, parseCheckRows } from "./checks.ts"

const header = "| check | where | verify or appraise | negative test |\n|---|---|---|---|\n"
const arrows = "| arrows | scripts/arrows.ts: `faultsOf` | build | scripts/arrows.test.ts: “the arrows of the house hold” |"

test("every file, function, test and code of docs/checks.md is there", async () => {
  const text = await readFile(fileURLToPath(new URL("../docs/checks.md", import.meta.url)), "utf8")
  const rows = parseCheckRows(text)
  assert.ok(rows.length > 100)
  assert.deepEqual(await findLostChecks(rows), [])
})

test("every attack in SECURITY.md has its test, and one that has none is found", async () => {
  const text = await readFile(fileURLToPath(new URL("../SECURITY.md", import.meta.url)), "utf8")
  const rows = parseAttackRows(text)
  assert.ok(rows.length > 20)
  assert.deepEqual(await findLostAttacks(rows), [])
  const head = "| attack | by | what happens | shown by |\n|---|---|---|---|\n"
  const lost = parseAttackRows(
    `${head}| a | b | c | scripts/checks.test.ts: “no such test” |\n| a | b | c | scripts/none.test.ts: “x” |\n\n| a | b | c | d |\n`,
  )
  assert.equal((await findLostAttacks(lost)).length, 2)
  assert.throws(() => parseAttackRows(`${head}| a | b | c | src/x.test.ts |\n`), SyntaxError)
})

test("findLostChecks() finds a lost file, function, test and code", async () => {
  const lost = async (from: string, to: string): Promise<number> =>
    (await findLostChecks(parseCheckRows(`${header}${arrows.replace(from, to)}\n`))).length
  assert.equal(await lost("", ""), 0)
  assert.equal(await lost("`faultsOf`", "`faultsOf`, `roomOf`"), 0)
  assert.equal(await lost("scripts/arrows.ts", "scripts/lost.ts"), 1)
  assert.equal(await lost("`faultsOf`", "`faultsO`"), 1)
  assert.equal(await lost("arrows.test.ts", "lost.test.ts"), 1)
  assert.equal(await lost("of the house", "of a house"), 1)
  assert.equal(await lost("build", "verify `wrong-nonce`"), 0)
  assert.equal(await lost("build", "verify `lost-nonce`"), 1)
})

test("parseCheckRows() reads tables of checks only, passes over what is left out, and refuses rows of another form", () => {
  assert.equal(parseCheckRows(`| a | b |\n|---|---|\n| c | d |\n\n${header}| left | **left out** | – | – |\n${arrows}\n`).length, 1)
  for (const row of [
    "| a | b | c |",
    "| a | b | – | c |",
    "| a |  | – | – |",
    arrows.replace("“", "'"),
    arrows.replace("`faultsOf`", "faultsOf"),
    `${arrows} |`,
  ])
    assert.throws(() => parseCheckRows(`${header}${row}\n`), SyntaxError, row)
})

test("hasTest() fills the holes of a test's name with words of its file only", () => {
  const text =
    'const rows = ["a cut log", `no separator in PCR ${pcr}`]\nconst words = "one two"\ntest(`f() refuses ${what}`, () => {})\ntest("f() \\"quotes\\"", () => {})\n'
  for (const name of [
    "f() refuses a cut log",
    "f() refuses no separator in PCR 6",
    "f() refuses two",
    "f() refuses 12",
    "f() refuses 2, 3",
    'f() "quotes"',
  ])
    assert.ok(hasTest(name, text, ""), name)
  for (const name of ["f() refuses a cut", "f() refuses no separator in", "f() refuses one two three", "f() accepts a cut log", "f() refuses"])
    assert.ok(!hasTest(name, text, ""), name)
  assert.ok(!hasTest("f() refuses a helper's row", text, ""))
  assert.ok(hasTest("f() refuses a helper's row", text, 'export const rows = ["a helper\'s row"]'))
  assert.ok(!hasTest("anything", "test(`${name}`, () => {})", ""))
})
