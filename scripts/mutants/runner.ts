/**
 * A test runner for Stryker that runs our `node:test` files inside one process. For every mutant it loads the test files that reach it, and all of our modules
 * with them, afresh and with the mutant switched on: so mutants in tables and constants are tried as well, and no state goes from one mutant to the next.
 * Stryker ends the process when a mutant runs too long or eats too much memory.
 */
import crypto from "node:crypto"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { registerHooks, stripTypeScriptTypes, syncBuiltinESMExports } from "node:module"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { takeTests } from "./node-test.ts"
import type { RegisteredTest } from "./node-test.ts"

/** What Stryker's instrumented code reads and writes. */
interface Namespace {
  activeMutant?: string | undefined
  currentTestId?: string | undefined
  hitCount?: number | undefined
  hitLimit?: number | undefined
  mutantCoverage?: { readonly static: unknown; readonly perTest: Record<string, unknown> }
}

interface Options {
  readonly perun: {
    readonly testFiles: readonly string[]
    /** Where the names of tests go that take too long. */
    readonly leftOutFile: string
  }
}

interface MutantRun {
  readonly activeMutant: { readonly id: string }
  readonly testFilter?: readonly string[]
  readonly hitLimit?: number
}

interface TestResult {
  readonly id: string
  readonly name: string
  readonly fileName: string
  readonly timeSpentMs: number
  /** TestStatus: success, failed, skipped. */
  readonly status: 0 | 1 | 2
  readonly failureMessage?: string
}

type RunResult = { readonly status: string } & Readonly<Record<string, unknown>>

/** Milliseconds of each test without mutants, kept for the next process: quick tests go first. Null for tests that are left out. */
const durationsFile = ".mutants-durations.json"
/** Tests that take more are left out: those that fill a bound of a million records would take most of the time. */
const maxTestMicroseconds = 2_000_000
/** For the second try of a mutant that survived; less than the timeout in scripts/mutants.ts. */
const maxMoreMilliseconds = 10_000
const nodeTestUrl = new URL("./node-test.ts", import.meta.url).href
const namespace: Namespace = ((globalThis as { __stryker__?: Namespace }).__stryker__ ??= {})

let generation = 0
let keysTaken = 0
let stray: Error | undefined

class InProcessRunner {
  static readonly inject = ["options"] as const
  readonly #testFiles: readonly string[]
  readonly #leftOutFile: string

  constructor({ perun }: Options) {
    this.#testFiles = perun.testFiles
    this.#leftOutFile = perun.leftOutFile
  }

  capabilities(): { readonly reloadEnvironment: boolean } {
    return { reloadEnvironment: true }
  }

  init(): void {
    const base = `${pathToFileURL(process.cwd()).href}/`
    const sources = new Map<string, string>()
    registerHooks({
      resolve(specifier, context, next) {
        const parent = context.parentURL ?? ""
        if (specifier === "node:test" && parent.startsWith(base)) return { url: nodeTestUrl, format: "module-typescript", shortCircuit: true }
        const result = next(specifier, context)
        const isOurs = result.url.startsWith(base) && !result.url.includes("/node_modules/") && !result.url.includes("?")
        return isOurs ? { ...result, url: result.url + new URL(parent).search } : result
      },
      load(url, context, next) {
        if (!url.startsWith(base) || !/\.ts\?/.test(url)) return next(url, context)
        const path = fileURLToPath(url)
        let source = sources.get(path)
        if (source === undefined) sources.set(path, (source = stripTypeScriptTypes(readFileSync(path, "utf8"))))
        return { format: "module", source, shortCircuit: true }
      },
    })
    keepRsaKeys()
    process.on("uncaughtException", (error) => (stray ??= error))
    process.on("unhandledRejection", (reason) => (stray ??= reason instanceof Error ? reason : new Error(String(reason))))
  }

  async dryRun(): Promise<RunResult> {
    switchTo({})
    const coverage = (namespace.mutantCoverage = { static: {}, perTest: {} as Record<string, unknown> })
    generation++
    const tests: TestResult[] = []
    const leftOut: string[] = []
    for (const file of this.#testFiles) {
      for (const [id, test] of await load(file)) {
        const before = process.cpuUsage()
        const result = await run(file, id, test)
        const isSlow = result.status === 0 && process.cpuUsage(before).user > maxTestMicroseconds
        // Without coverage Stryker asks for it no more.
        if (isSlow) delete coverage.perTest[id]
        if (isSlow) leftOut.push(id)
        tests.push(isSlow ? { ...result, status: 2 } : result)
      }
    }
    writeFileSync(this.#leftOutFile, leftOut.map((id) => `${id}\n`).join(""))
    writeFileSync(durationsFile, JSON.stringify(tests.map(({ id, timeSpentMs, status }) => [id, status === 2 ? null : timeSpentMs])))
    return { status: "complete", tests, mutantCoverage: coverage }
  }

  async mutantRun({ activeMutant, testFilter, hitLimit: generousLimit }: MutantRun): Promise<RunResult> {
    // Stryker allows a hundred times the hits of a run without mutants: an endless loop would take its time to get there.
    const hitLimit = generousLimit === undefined ? undefined : Math.max(10_000, generousLimit / 20)
    const activate = { activeMutant: activeMutant.id, ...(hitLimit === undefined ? {} : { hitCount: 0, hitLimit }) }
    switchTo(activate)
    const wanted = testFilter === undefined ? undefined : new Set(testFilter)
    const { result, files } = await this.#runMutated(this.#testFiles, (id) => wanted?.has(id) ?? true)
    if (wanted === undefined || result.status !== "survived") return result
    // What the program keeps is made once, in whichever test comes first: so the coverage names too few tests.
    switchTo(activate)
    return (await this.#runMutated(files, () => true, performance.now() + maxMoreMilliseconds)).result
  }

  /** Runs tests until one fails, the quick ones first; `files` are those that hold any of them. */
  async #runMutated(
    testFiles: readonly string[],
    isWanted: (id: string) => boolean,
    until = Number.POSITIVE_INFINITY,
  ): Promise<{ readonly result: RunResult; readonly files: readonly string[] }> {
    generation++
    const durations = loadDurations()
    const wanted = [...durations.keys()].filter(isWanted)
    const files = testFiles.filter((file) => wanted.some((id) => id.startsWith(`${file}#`)))
    let nrOfTests = 0
    for (const file of sortBy(files, (name) => sumOf(durations, (id) => id.startsWith(`${name}#`) && isWanted(id)))) {
      let tests: [string, RegisteredTest][]
      try {
        tests = await load(file)
      } catch (error) {
        return { files, result: killed(file, error, nrOfTests) }
      }
      const chosen = tests.filter(([id, test]) => !test.isSkipped && durations.get(id) !== null && isWanted(id))
      for (const [id, test] of sortBy(chosen, ([id]) => durations.get(id) ?? 0)) {
        if (performance.now() > until) break
        nrOfTests++
        const { status, failureMessage } = await run(file, id, test)
        const { hitCount = 0, hitLimit = Number.POSITIVE_INFINITY } = namespace
        if (hitCount > hitLimit) return { files, result: { status: "timeout", reason: "hit limit" } }
        if (status === 1) return { files, result: killed(id, failureMessage, nrOfTests) }
      }
    }
    return { files, result: { status: "survived", nrOfTests } }
  }
}

/** @throws what the file throws while it is loaded */
async function load(file: string): Promise<[id: string, test: RegisteredTest][]> {
  takeTests()
  await import(`${pathToFileURL(join(process.cwd(), file)).href}?generation=${generation}`)
  // Tests of one name in one file are told apart by their place.
  return takeTests().map((test, index) => [`${file}#${index} ${test.name}`, test])
}

async function run(fileName: string, id: string, test: RegisteredTest): Promise<TestResult> {
  const about = { id, name: test.name, fileName }
  if (test.isSkipped) return { ...about, timeSpentMs: 0, status: 2 }
  const started = performance.now()
  let isSkipped = false
  stray = undefined
  namespace.currentTestId = id
  try {
    const result = test.run({ skip: () => (isSkipped = true) })
    if (result instanceof Promise) {
      await result
      // A rejection that nobody handles is told of after the microtasks.
      await new Promise(setImmediate)
    }
    if (stray !== undefined) throw stray
  } catch (error) {
    return { ...about, timeSpentMs: performance.now() - started, status: 1, failureMessage: messageOf(error) }
  } finally {
    namespace.currentTestId = undefined
  }
  return { ...about, timeSpentMs: performance.now() - started, status: isSkipped ? 2 : 0 }
}

/** RSA keys take long to make. Those of earlier runs are given out again, each once in a run. */
function keepRsaKeys(): void {
  const make = crypto.generateKeyPairSync as (type: string, options: unknown) => unknown
  const kept = new Map<string, unknown>()
  const makeOrTake = (type: string, options: unknown): unknown => {
    if (type !== "rsa") return make(type, options)
    const name = `${keysTaken++} ${JSON.stringify(options)}`
    const pair = kept.get(name) ?? make(type, options)
    kept.set(name, pair)
    return pair
  }
  Object.assign(crypto, { generateKeyPairSync: makeOrTake })
  syncBuiltinESMExports()
}

function switchTo({ activeMutant, hitCount, hitLimit }: Namespace): void {
  Object.assign(namespace, { activeMutant, hitCount, hitLimit, currentTestId: undefined })
  keysTaken = 0
}

function killed(by: string, failure: unknown, nrOfTests: number): RunResult {
  return { status: "killed", killedBy: [by], failureMessage: messageOf(failure), nrOfTests }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}`.slice(0, 500) : String(error)
}

type Durations = ReadonlyMap<string, number | null>

function loadDurations(): Durations {
  return existsSync(durationsFile) ? new Map(JSON.parse(readFileSync(durationsFile, "utf8")) as [string, number | null][]) : new Map()
}

function sumOf(durations: Durations, counts: (id: string) => boolean): number {
  let sum = 0
  for (const [id, duration] of durations) if (counts(id)) sum += duration ?? 0
  return sum
}

function sortBy<T>(items: readonly T[], keyOf: (item: T) => number): T[] {
  return items
    .map((item) => [keyOf(item), item] as const)
    .sort(([a], [b]) => a - b)
    .map(([, item]) => item)
}

export const strykerPlugins = [{ kind: "TestRunner", name: "perun", injectableClass: InProcessRunner }]
