/**
 * Mutation testing with Stryker, room by room: changes the program in small ways and sees whether a test notices. Not part of CI, for it takes its time.
 *
 *     npm run mutants                        # evidence and policy
 *     npm run mutants -- src/policy/appraise.ts src/evidence/ima/verify.ts
 *
 * The tests run inside one process with a limit on memory (scripts/mutants/runner.ts): a mutant that takes a bound away must not take the machine with it.
 * Reports lie in reports/mutation/; at the end stand a table, and each mutant that no test noticed in reports/mutation/survived.txt.
 */
import { spawnSync } from "node:child_process"
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const tools = join(root, "scripts", "mutants")
const reports = join(root, "reports", "mutation")
const stryker = join(tools, "node_modules", "@stryker-mutator", "core", "bin", "stryker.js")

/** Rooms whose files are tested from another room too. */
const moreTests: Readonly<Record<string, readonly string[]>> = {
  "src/evidence": ["src/evidence/host/verify.test.ts"],
  // What SGX and TDX quotes share is read and judged through them.
  "src/evidence/dcap": ["format", "verify"].flatMap((name) => [`src/evidence/sgx/${name}.test.ts`, `src/evidence/tdx/${name}.test.ts`]),
}

if (!existsSync(stryker)) {
  console.error("mutants: installing Stryker into scripts/mutants/node_modules ...")
  const installed = spawnSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: tools, stdio: "inherit" })
  if (installed.status !== 0) process.exit(40)
}

const asked = process.argv.slice(2)
const files = asked.length > 0 ? asked : globSync(["src/evidence/**/*.ts", "src/policy/**/*.ts"], { cwd: root }).filter(isShipped)
const rooms = Map.groupBy(files.sort(), (file) => dirname(relative(root, resolve(root, file))))
const rows: Row[] = []
const survivors: string[] = []
let failed = 0
for (const [room, mutate] of rooms) {
  const testFiles = [...globSync(`${room}/*.test.ts`, { cwd: root }), ...(moreTests[room] ?? [])]
  if (testFiles.length === 0) {
    console.error(`mutants: ${room} has no tests of its own; its files are left out`)
    continue
  }
  console.log(`== ${room}: ${mutate.length} files, ${testFiles.length} test files`)
  const folder = join(reports, room.replaceAll("/", "-"))
  const report = join(folder, "report.json")
  mkdirSync(folder, { recursive: true })
  rmSync(report, { force: true })
  const configuration = join(folder, "stryker.json")
  writeFileSync(configuration, JSON.stringify(settingsOf(mutate, testFiles, folder), undefined, 2))
  // V8 reserves address space in plenty; what goes far beyond it is a runaway, and it ends instead of the machine.
  const command = `ulimit -v 40000000; exec "${process.execPath}" "${stryker}" run "${configuration}"`
  const vectors = resolve(root, process.env["PERUN_VECTORS"] ?? "../shared/vectors")
  spawnSync("sh", ["-c", command], { cwd: root, stdio: "inherit", env: { ...process.env, PERUN_VECTORS: vectors, PERUN_MUTANTS: "1" } })
  if (existsSync(report)) count(room, JSON.parse(readFileSync(report, "utf8")) as Report)
  else failed++
  const leftOut = join(folder, "left-out.txt")
  if (existsSync(leftOut)) for (const test of readFileSync(leftOut, "utf8").split("\n")) if (test !== "") console.log(`left out, too slow: ${test}`)
}
writeFileSync(join(reports, "survived.txt"), survivors.join("\n"))
printTable()
process.exitCode = failed === 0 ? 0 : 1

function settingsOf(mutate: readonly string[], testFiles: readonly string[], folder: string): object {
  return {
    mutate,
    testRunner: "perun",
    perun: { testFiles, leftOutFile: join(folder, "left-out.txt") },
    plugins: [join(tools, "runner.ts"), join(tools, "texts.ts"), join(tools, "numbers.ts")],
    ignorers: ["texts"],
    testRunnerNodeArgs: ["--max-old-space-size=1500", "--disable-warning=ExperimentalWarning"],
    coverageAnalysis: "perTest",
    checkers: [],
    // Stryker's own handling of tsconfig wants an older compiler; types are no matter here.
    tsconfigFile: "no-tsconfig.json",
    disableTypeChecks: "src/**/*.ts",
    concurrency: 1,
    timeoutMS: 20_000,
    maxTestRunnerReuse: 200,
    warnings: { slow: false },
    allowConsoleColors: false,
    tempDirName: ".stryker-tmp",
    ignorePatterns: ["/reports", "/demo", "/docs"],
    reporters: ["progress-append-only", "json", "html"],
    jsonReporter: { fileName: join(folder, "report.json") },
    htmlReporter: { fileName: join(folder, "report.html") },
  }
}

interface Report {
  readonly files: Readonly<Record<string, { readonly source: string; readonly mutants: readonly Mutant[] }>>
}

interface Mutant {
  readonly mutatorName: string
  readonly status: "Killed" | "Timeout" | "Survived" | "NoCoverage" | "RuntimeError" | "CompileError" | "Ignored"
  readonly replacement?: string
  readonly location: { readonly start: Place; readonly end: Place }
}

interface Place {
  readonly line: number
  readonly column: number
}

interface Row {
  readonly room: string
  readonly killed: number
  readonly survived: number
}

/** A mutant that makes the tests run for ever, or out of memory, is noticed too. */
function count(room: string, report: Report): void {
  let killed = 0
  let survived = 0
  for (const [file, { source, mutants }] of Object.entries(report.files)) {
    const lines = source.split("\n")
    for (const mutant of mutants) {
      if (mutant.status === "Ignored" || mutant.status === "CompileError") continue
      if (mutant.status === "Survived" || mutant.status === "NoCoverage") {
        survived++
        survivors.push(lineOf(file, lines, mutant))
      } else killed++
    }
  }
  rows.push({ room, killed, survived })
}

function lineOf(file: string, lines: readonly string[], { status, mutatorName, replacement, location: { start, end } }: Mutant): string {
  const first = lines[start.line - 1] ?? ""
  const original = start.line === end.line ? first.substring(start.column - 1, end.column - 1) : `${first.substring(start.column - 1)} …`
  const uncovered = status === "NoCoverage" ? " (no test comes here)" : ""
  return `${file}:${start.line}:${start.column} ${mutatorName}${uncovered}: ${original} → ${(replacement ?? "").replaceAll(/\s+/g, " ").substring(0, 160)}`
}

function printTable(): void {
  const all = { room: "all", killed: rows.reduce((sum, row) => sum + row.killed, 0), survived: rows.reduce((sum, row) => sum + row.survived, 0) }
  console.log(["room", "mutants", "killed", "survived", "score"].join("\t"))
  for (const { room, killed, survived } of [...rows, all]) {
    const mutants = killed + survived
    console.log([room, mutants, killed, survived, mutants === 0 ? "-" : `${((100 * killed) / mutants).toFixed(1)} %`].join("\t"))
  }
  console.log(`survived: ${relative(root, join(reports, "survived.txt"))}`)
}

function isShipped(file: string): boolean {
  return !/\.(test|testing|fixture)\.ts$/.test(file) && !/\/(testing|conformance)\//.test(file)
}
