/** Runs every test (or those of the files given) and ends with one line: N passed, N failed, N skipped. */
import { spawn } from "node:child_process"
import { glob } from "node:fs/promises"
import { availableParallelism } from "node:os"

const patterns = ["src/**/*.test.ts", "lab/**/*.test.ts", "scripts/**/*.test.ts", "examples/**/*.test.ts", "bench/**/*.test.ts"]

const given = process.argv.slice(2)
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
