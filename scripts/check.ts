/** The gate: types, arrows, format, lint. Prints one line per step and fails if one fails. */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const steps: ReadonlyArray<readonly [name: string, command: string, args: readonly string[]]> = [
  ["types", "tsc", ["--noEmit", "-p", "."]],
  ["page's types", "tsc", ["--noEmit", "-p", "page"]],
  ["arrows", process.execPath, ["scripts/arrows.ts"]],
  [
    "format",
    "prettier",
    [
      "--check",
      "--cache",
      "--cache-strategy=content",
      "--cache-location=node_modules/.cache/prettier.json",
      "--log-level=warn",
      "--no-error-on-unmatched-pattern",
      "src",
      "lab",
      "bench",
      "scripts",
      "examples",
      "page",
      "*.json",
    ],
  ],
  ["lint", "oxlint", ["--quiet", "--deny-warnings", "src", "lab", "bench", "scripts", "examples", "page"]],
]

let failed = 0
for (const [name, command, args] of steps) {
  const started = performance.now()
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, PATH: `${root}node_modules/.bin:${process.env["PATH"] ?? ""}` },
  })
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  const ok = result.status === 0
  if (!ok) {
    failed++
    process.stdout.write(`${result.stdout ?? ""}${result.stderr ?? ""}${result.error?.message ?? ""}\n`)
  }
  console.log(`${ok ? "passed" : "FAILED"} ${name} (${seconds} s)`)
}
process.exitCode = failed === 0 ? 0 : 1
