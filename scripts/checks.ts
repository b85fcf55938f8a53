/**
 * Reads docs/checks.md, which names for each line of the checklists the function that checks it and the test that fails without it, and finds what is no longer
 * there: a file, a function, a test, an error code. Says nothing about whether that test is the right one.
 */
import { existsSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import type { MalformedCode, UnavailableError } from "../src/bytes/error.ts"
import { evidenceCodes } from "../src/evidence/errors.ts"
import { tpmCodes } from "../src/evidence/tpm/client/errors.ts"
import { findingCodes } from "../src/policy/findings.ts"
import { problemCodes } from "../src/policy/problem.ts"
import { protocolCodes } from "../src/protocol/errors.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** One row of the document's tables. */
export interface CheckRow {
  /** Line of the document, from 1. */
  readonly line: number
  readonly check: string
  readonly file: string
  readonly functions: readonly string[]
  /** `verify`, `appraise`, `claim`, `collector` …, with a code where there is one. */
  readonly kind: string
  readonly testFile: string
  readonly testName: string
}

/**
 * Rows of every table that has the four columns of this document. A row whose last two cells are `–` says in its second what is left out on purpose.
 * @throws {SyntaxError} for a row of such a table that has another form
 */
export function parseCheckRows(text: string): readonly CheckRow[] {
  const rows: CheckRow[] = []
  let isTable = false
  for (const [index, source] of text.split("\n").entries()) {
    const line = index + 1
    if (!source.startsWith("|")) isTable = false
    else if (source === header) isTable = true
    else if (isTable && !/^\|[-|]+\|$/.test(source)) rows.push(...readRow(source, line))
  }
  return rows
}

function readRow(source: string, line: number): readonly CheckRow[] {
  const [check = "", where = "", kind = "", test = "", ...rest] = source
    .replace(/^\| | \|$/g, "")
    .split(" | ")
    .map((cell) => cell.trim())
  if (rest.length === 0 && kind === none && test === none && where !== "") return []
  const place = /^(\S+): ((?:`[^`]+`(?:, )?)+)$/.exec(where)
  const named = /^(\S+): “(.+)”$/.exec(test)
  if (rest.length > 0 || place === null || named === null || kind === "") throw new SyntaxError(`docs/checks.md:${line}: not a row of four cells`)
  const [, file = "", names = ""] = place
  const [, testFile = "", testName = ""] = named
  const functions = [...names.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? "")
  return [{ line, check, file, functions, kind, testFile, testName }]
}

/** A line of SECURITY.md's table of attacks. */
export interface AttackRow {
  readonly line: number
  readonly attack: string
  readonly testFile: string
  readonly testName: string
}

const attackHeader = "| attack | by | what happens | shown by |"

/** Rows of the table of attacks. @throws {SyntaxError} for a row of another form */
export function parseAttackRows(text: string): readonly AttackRow[] {
  const lines = text.split("\n")
  const start = lines.indexOf(attackHeader)
  if (start < 0) return []
  const end = lines.findIndex((line, index) => index > start && !line.startsWith("|"))
  return lines.slice(start + 2, end < 0 ? undefined : end).map((source, index) => {
    const [, attack = "", testFile = "", testName = ""] = /^\| ([^|]+) \| [^|]+ \| [^|]+ \| (\S+): “(.+)” \|$/.exec(source) ?? []
    if (testName === "") throw new SyntaxError(`SECURITY.md:${start + 3 + index}: not a row of four cells`)
    return { line: start + 3 + index, attack, testFile, testName }
  })
}

/** Attacks whose test is not there. */
export async function findLostAttacks(rows: readonly AttackRow[]): Promise<readonly string[]> {
  const textOf = async (file: string): Promise<string> => (existsSync(join(root, file)) ? readFile(join(root, file), "utf8") : "")
  const faults: string[] = []
  for (const { line, testFile, testName } of rows) {
    const test = await textOf(testFile)
    if (test === "" || !hasTest(testName, test, await helpersOf(testFile, test, textOf)))
      faults.push(`SECURITY.md:${line}: ${testFile} has no test “${testName}”`)
  }
  return faults
}

/** What the rows name and is not there. */
export async function findLostChecks(rows: readonly CheckRow[]): Promise<readonly string[]> {
  const texts = new Map<string, string>()
  const textOf = async (file: string): Promise<string> => {
    const known = texts.get(file) ?? (existsSync(join(root, file)) ? await readFile(join(root, file), "utf8") : "")
    texts.set(file, known)
    return known
  }
  const faults: string[] = []
  for (const row of rows) {
    const at = `docs/checks.md:${row.line}:`
    const source = await textOf(row.file)
    if (source === "") faults.push(`${at} there is no file ${row.file}`)
    else for (const name of row.functions) if (!declares(source, name)) faults.push(`${at} ${row.file} has no function ${name}`)
    const test = await textOf(row.testFile)
    if (test === "") faults.push(`${at} there is no file ${row.testFile}`)
    else if (!hasTest(row.testName, test, await helpersOf(row.testFile, test, textOf)))
      faults.push(`${at} ${row.testFile} has no test “${row.testName}”`)
    for (const code of codesOf(row)) if (!knownCodes.has(code)) faults.push(`${at} there is no code ${code}`)
  }
  return faults
}

/** Codes of the kinds whose tables this program can read; codes of other rooms are words for the reader. */
function codesOf({ kind }: CheckRow): readonly string[] {
  if (!/^(?:verify|appraise|collector) `/.test(kind)) return []
  return [...kind.matchAll(/`([a-z-]+)`/g)].map((match) => match[1] ?? "")
}

/** A function, class or constant of that name, or a method (`#name` where it is private). */
function declares(source: string, name: string): boolean {
  const word = name.replace(/[$#]/g, "\\$&")
  const declaration = new RegExp(`\\b(?:function\\*?|class|const) ${word}\\b`)
  const method = new RegExp(`^  (?:(?:async|static|override|get) )*${word}(?:<[^>]*>)?\\(`, "m")
  return (!name.startsWith("#") && declaration.test(source)) || method.test(source)
}

/** Text of what a test file imports from test helpers: names and rows of tests may stand there. */
async function helpersOf(testFile: string, text: string, textOf: (file: string) => Promise<string>): Promise<string> {
  const helpers = [...text.matchAll(/from "(\.[^"]+(?:\.testing\.ts|\/testing\/[^"]+\.ts))"/g)].map((match) => match[1] ?? "")
  const paths = helpers.map((helper) => resolve("/", dirname(testFile), helper).substring(1))
  return (await Promise.all(paths.map(textOf))).join("\n")
}

/**
 * Whether a file has a test of that name: as it stands, or as a template whose holes are filled with words of the file, for most negative tests are rows of a
 * table.
 */
export function hasTest(name: string, text: string, helpers: string): boolean {
  const all = `${text}\n${helpers}`
  const words = literalsOf(all)
  return testNamesOf(all).some((template) => {
    const holes = new RegExp(`^${patternOf(template, "(.+?)")}$`).exec(name)
    return holes !== null && holes.slice(1).every((hole) => isWordOf(hole, words))
  })
}

/** First arguments of `test`. */
function testNamesOf(text: string): readonly string[] {
  return [...text.matchAll(/\btest\(\s*(?:"((?:[^"\\]|\\.)*)"|`((?:[^`\\]|\\.)*)`)/g)].map((match) => unescaped(match[1] ?? match[2] ?? ""))
}

/** Strings, and the names of members: a table of tests may be an object. */
function literalsOf(text: string): readonly string[] {
  const strings = [...text.matchAll(/"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`/g)].map((match) => unescaped(match[1] ?? match[2] ?? ""))
  return [...strings, ...[...text.matchAll(/\b([A-Za-z]\w*):/g)].map((match) => match[1] ?? "")]
}

function isWordOf(hole: string, words: readonly string[]): boolean {
  if (/^\d+(?:, \d+)*$/.test(hole)) return true
  return words.some(
    (word) => word === hole || (word.includes("${") ? new RegExp(`^${patternOf(word, ".+")}$`).test(hole) : word.split(" ").includes(hole)),
  )
}

/** A template as a pattern; one that is nothing but holes fits nothing. */
function patternOf(template: string, hole: string): string {
  const parts = template.split(/\$\{[^}]*\}/)
  return parts.join("").trim() === "" ? "(?!)" : parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join(hole)
}

function unescaped(literal: string): string {
  return literal.replace(/\\(["'`\\$])/g, "$1")
}

const header = "| check | where | verify or appraise | negative test |"
const none = "–"
/** The union MalformedCode, as values. */
const malformedCodes = Object.keys({
  truncated: 1,
  "trailing-bytes": 1,
  "too-large": 1,
  malformed: 1,
  duplicate: 1,
  "unknown-field": 1,
} as const satisfies Record<MalformedCode, number>)
/** Those of UnavailableError. */
const unavailableCodes = Object.keys({
  unavailable: 1,
  timeout: 1,
  unsupported: 1,
  "disk-full": 1,
  "permission-denied": 1,
  "port-in-use": 1,
} as const satisfies Record<UnavailableError["code"], number>)
const knownCodes: ReadonlySet<string> = new Set([
  ...[evidenceCodes, tpmCodes, findingCodes, problemCodes, protocolCodes].flatMap((table) => Object.keys(table)),
  ...malformedCodes,
  ...unavailableCodes,
])
