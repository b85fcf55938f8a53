/** Runs every test (or those of the files given) and ends with one line: N passed, N failed, N skipped. */
import { spawn } from "node:child_process"
import { glob } from "node:fs/promises"
import { availableParallelism } from "node:os"
import { LabError } from "../lab/error.ts"
import { setUpLab, testPackages } from "../lab/setup.ts"

const patterns = ["src/**/*.test.ts", "lab/**/*.test.ts", "scripts/**/*.test.ts", "examples/**/*.test.ts", "bench/**/*.test.ts", "page/**/*.test.ts"]

const given = process.argv.slice(2)
// Whoever says `npm test` wants what it needs; without root and apt the tests that lack something say so and are skipped.
if (given.length === 0) {
  try {
    await setUpLab({ packages: testPackages, say: (line) => console.log(line), confirm: async () => true })
  } catch (error) {
    if (!(error instanceof LabError)) throw error
    console.log(`going on without: ${error.message}`)
  }
}
const files = given.length > 0 ? given : await Array.fromAsync(glob(patterns))
files.sort()
const reporter = new URL("./test-reporter.ts", import.meta.url).pathname
const child = spawn(
  process.execPath,
  [
    "--disable-warning=ExperimentalWarning",
    "--test",
    `--test-concurrency=${availableParallelism()}`,
    "--test-timeout=300000",
    `--test-reporter=${reporter}`,
    ...files,
  ],
  { stdio: "inherit" },
)
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal))
child.on("exit", (code, signal) => {
  process.exitCode = signal === null ? (code ?? 1) : 1
})
