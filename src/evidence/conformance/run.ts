import { readdir, stat } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import { PerunError, UnavailableError } from "../../bytes/error.ts"
import { reviewedDifferences } from "./reviewed.ts"
import { VectorCase } from "./vector.ts"
import { wordRules } from "./words.ts"
import type { WordRule } from "./words.ts"

export interface ConformanceRow {
  readonly kind: string
  readonly case: string
  /** The word that expected.json states; "" where it could not be read. */
  readonly expect: string
  /** `reviewed`: differs, and a reviewed line says why. `not-judged`: no rule, or one that left facts or files unread. Only the first and third pass. */
  readonly verdict: "agrees" | "differs" | "reviewed" | "not-judged"
  readonly reason: string
  readonly seconds: number
}

export interface ConformanceOptions {
  /** Kinds (folder names) to judge; all that are there where absent. A kind that is named but not there gives a row that is not judged. */
  readonly kinds?: readonly string[]
}

/**
 * Judges every case below a folder of test vectors: the root (kind/case/…), one kind's folder, or one case. Each case is judged by the rule that its
 * `expect` word has in words.ts.
 * @throws {UnavailableError} where the folder cannot be read
 */
export async function runConformance(dir: string, options: ConformanceOptions = {}): Promise<readonly ConformanceRow[]> {
  const rows: ConformanceRow[] = []
  for (const { kind, folder } of await findCases(resolve(dir), options.kinds)) rows.push(await judgeFolder(kind, folder))
  const found = new Set(rows.map((row) => row.kind))
  for (const kind of options.kinds ?? [])
    if (!found.has(kind)) rows.push({ kind, case: "", expect: "", verdict: "not-judged", reason: "no case of this kind", seconds: 0 })
  if (rows.length === 0) rows.push({ kind: "", case: "", expect: "", verdict: "not-judged", reason: `no case below ${dir}`, seconds: 0 })
  return rows
}

/** True when every row agrees, or differs for a reviewed reason. */
export function allAgree(rows: readonly ConformanceRow[]): boolean {
  return rows.length > 0 && rows.every((row) => row.verdict === "agrees" || row.verdict === "reviewed")
}

interface FoundCase {
  readonly kind: string
  readonly folder: string
}

async function findCases(dir: string, kinds: readonly string[] | undefined): Promise<readonly FoundCase[]> {
  if (await isCase(dir)) return [{ kind: basename(dirname(dir)), folder: dir }]
  const children = await foldersOf(dir)
  const own = await casesIn(basename(dir), children)
  if (own.length > 0) return own
  const wanted = children.filter((child) => kinds === undefined || kinds.includes(basename(child)))
  const found: FoundCase[] = []
  for (const child of wanted) {
    const folders = await foldersOf(child)
    // A folder without expected.json among a kind's cases is a case too: one that cannot be judged.
    found.push(...folders.map((folder) => ({ kind: basename(child), folder })))
  }
  return found
}

async function casesIn(kind: string, folders: readonly string[]): Promise<readonly FoundCase[]> {
  const areCases = await Promise.all(folders.map(isCase))
  return areCases.includes(true) ? folders.map((folder) => ({ kind, folder })) : []
}

async function isCase(folder: string): Promise<boolean> {
  try {
    return (await stat(join(folder, "expected.json"))).isFile()
  } catch {
    // Absent or unreadable: no case. An unreadable folder fails in foldersOf.
    return false
  }
}

async function foldersOf(dir: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(dir, { withFileTypes: true })
    return entries
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith("."))
      .map((entry) => join(dir, entry.name))
      .sort()
  } catch (cause) {
    throw new UnavailableError("unavailable", `cannot read the folder ${dir}`, { cause })
  }
}

async function judgeFolder(kind: string, folder: string): Promise<ConformanceRow> {
  const started = performance.now()
  const name = basename(folder)
  const { expect, verdict, reason } = await judge(kind, folder, name)
  return { kind, case: name, expect, verdict, reason, seconds: (performance.now() - started) / 1000 }
}

async function judge(kind: string, folder: string, name: string): Promise<Pick<ConformanceRow, "expect" | "verdict" | "reason">> {
  let expect = ""
  try {
    const vector = await VectorCase.load(kind, folder, name)
    expect = vector.facts.text("expect") ?? ""
    const rule = ruleFor(kind, expect, name)
    if (rule === undefined) return { expect, verdict: "not-judged", reason: `no rule for the word "${expect}" of kind ${kind}` }
    vector.facts.check("kind", () => kind)
    vector.facts.check("case", () => name)
    for (const words of descriptiveFacts) vector.facts.value(words)
    await judgeByRule(rule, vector)
    return { expect, ...outcome(vector) }
  } catch (error) {
    // Not even the case's own files can be read: nothing was judged.
    if (!(error instanceof PerunError) && !isSystemError(error)) throw error
    return { expect, verdict: "not-judged", reason: error.message }
  }
}

function ruleFor(kind: string, word: string, name: string): WordRule | undefined {
  return wordRules.find((rule) => rule.kind === kind && rule.word === word && (rule.case === undefined || rule.case === name))
}

async function judgeByRule(rule: WordRule, vector: VectorCase): Promise<void> {
  try {
    await rule.judge(vector)
  } catch (error) {
    // A fault of the rule itself is a disagreement of this case; the others are judged all the same.
    if (error instanceof PerunError) vector.problem(`${error.code}: ${error.message}`)
    else vector.problem(`internal: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function outcome(vector: VectorCase): Pick<ConformanceRow, "verdict" | "reason"> {
  const reviewed = reviewedDifferences.find((line) => line.kind === vector.kind && line.case === vector.name)
  if (vector.problems.length > 0)
    return reviewed === undefined
      ? { verdict: "differs", reason: vector.problems.join("; ") }
      : { verdict: "reviewed", reason: `${reviewed.reason} (${vector.problems.join("; ")})` }
  const unjudged = vector.unjudged()
  if (unjudged.length > 0) return { verdict: "not-judged", reason: `not read: ${unjudged.join(", ")}` }
  if (reviewed !== undefined) return { verdict: "differs", reason: "the case agrees, but a reviewed line says that it differs: the line is stale" }
  return { verdict: "agrees", reason: vector.notes.join("; ") }
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "code" in error && typeof error.code === "string"
}

/** Words for people that say where a case comes from; nothing to compare. */
const descriptiveFacts = ["polarity", "genuine", "why"]
