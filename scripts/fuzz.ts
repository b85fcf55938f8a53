/** Runs the fuzz tests of the evidence room for longer: `npm run fuzz [RUNS] [FILE…]`, 100,000 variants of each sample where no number is given. */
import { spawn } from "node:child_process"
import { glob } from "node:fs/promises"

const [first, ...others] = process.argv.slice(2)
const isNumber = first !== undefined && /^[1-9][0-9]*$/.test(first)
const given = isNumber ? others : process.argv.slice(2)
const files = given.length > 0 ? given : await Array.fromAsync(glob("src/evidence/**/*.test.ts"))
const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "--test", "--test-name-pattern=fuzzed", ...files], {
  stdio: "inherit",
  env: { ...process.env, PERUN_FUZZ_RUNS: isNumber ? first : "100000" },
})
child.on("exit", (code, signal) => {
  process.exitCode = signal === null ? (code ?? 1) : 1
})
