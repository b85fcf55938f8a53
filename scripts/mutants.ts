/**
 * Mutation testing with Stryker, room by room: changes the program in small ways and sees whether a test notices. Not part of CI, for it takes hours.
 *
 *     npm run mutants                        # evidence and policy
 *     npm run mutants -- src/policy/appraise.ts src/evidence/ima/verify.ts
 *
 * Every mutant runs in a process of its own with a limit on memory: a mutant that takes a bound away must not take the machine with it.
 * The report lies in reports/mutation/.
 */
import { spawnSync } from "node:child_process"
import { existsSync, globSync, mkdirSync, writeFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const tools = join(root, "scripts", "mutants")
const stryker = join(tools, "node_modules", "@stryker-mutator", "core", "bin", "stryker.js")

if (!existsSync(stryker)) {
  console.error("mutants: installing Stryker into scripts/mutants/node_modules ...")
  const installed = spawnSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: tools, stdio: "inherit" })
  if (installed.status !== 0) process.exit(40)
}

const asked = process.argv.slice(2)
const files = asked.length > 0 ? asked : globSync(["src/evidence/**/*.ts", "src/policy/**/*.ts"], { cwd: root }).filter(isShipped)
const rooms = Map.groupBy(files, (file) => dirname(relative(root, join(root, file))))
let failed = 0
for (const [room, mutate] of rooms) {
  const testFiles = globSync(`${room}/*.test.ts`, { cwd: root })
  if (testFiles.length === 0) {
    console.error(`mutants: ${room} has no tests of its own; its files are left out`)
    continue
  }
  const folder = join(root, "reports", "mutation", room.replaceAll("/", "-"))
  mkdirSync(folder, { recursive: true })
  const configuration = join(folder, "stryker.json")
  writeFileSync(configuration, JSON.stringify(settingsOf(mutate, testFiles, folder), undefined, 2))
  // 6 GB of address space over what V8 reserves; a runaway process ends instead of the machine.
  const command = `ulimit -v 40000000; exec "${process.execPath}" "${stryker}" run "${configuration}"`
  const run = spawnSync("sh", ["-c", command], { cwd: root, stdio: "inherit", env: { ...process.env, NODE_OPTIONS: "--max-old-space-size=1500" } })
  if (run.status !== 0) failed++
}
process.exitCode = failed === 0 ? 0 : 1

function settingsOf(mutate: readonly string[], testFiles: readonly string[], folder: string): object {
  return {
    mutate,
    testRunner: "tap",
    tap: { testFiles, nodeArgs: ["--test-reporter=tap", "--test-timeout=60000"] },
    plugins: [join(tools, "node_modules", "@stryker-mutator", "tap-runner", "dist", "src", "index.js")],
    coverageAnalysis: "perTest",
    // Texts of messages are for people; no test asserts them.
    mutator: { excludedMutations: ["StringLiteral"] },
    ignoreStatic: true,
    checkers: [],
    // Stryker's own handling of tsconfig wants an older compiler; types are no matter here.
    tsconfigFile: "no-tsconfig.json",
    disableTypeChecks: "src/**/*.ts",
    concurrency: 2,
    timeoutMS: 20_000,
    tempDirName: ".stryker-tmp",
    ignorePatterns: ["/reports", "/demo", "/docs"],
    reporters: ["clear-text", "json", "html"],
    clearTextReporter: { allowColor: false, logTests: false, reportTests: false },
    jsonReporter: { fileName: join(folder, "report.json") },
    htmlReporter: { fileName: join(folder, "report.html") },
  }
}

function isShipped(file: string): boolean {
  return !/\.(test|testing|fixture)\.ts$/.test(file) && !/\/(testing|conformance)\//.test(file)
}
