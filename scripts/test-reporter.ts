/** Reporter for node:test: a line per file that fails or skips, details of failures, and last `N passed, N failed, N skipped`. */
import type { TestEvent } from "node:test/reporters"
import { relative } from "node:path"
import { inspect } from "node:util"

interface FileTotals {
  passed: number
  failed: number
  skipped: number
}

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const totals = new Map<string, FileTotals>()
  for await (const event of source) {
    switch (event.type) {
      case "test:pass":
      case "test:fail": {
        const { data } = event
        const isFileItself = data.file !== undefined && data.name === data.file
        if (data.details.type === "suite" || (isFileItself && event.type === "test:pass")) break
        const file = relative(process.cwd(), data.file ?? "?")
        const count = totals.get(file) ?? { passed: 0, failed: 0, skipped: 0 }
        totals.set(file, count)
        if (data.skip !== undefined && data.skip !== false) {
          count.skipped++
          yield `skipped ${file}: ${data.name}${typeof data.skip === "string" && data.skip !== "" ? ` (${data.skip})` : ""}\n`
        } else if (event.type === "test:pass") {
          count.passed++
        } else {
          count.failed++
          const error = event.data.details.error
          yield `FAILED ${file}: ${data.name}\n${indent(describe(error))}\n`
        }
        break
      }
      case "test:stdout":
      case "test:stderr":
        if (process.env["PERUN_TEST_OUTPUT"] === "1") yield event.data.message
        break
    }
  }
  const sum: FileTotals = { passed: 0, failed: 0, skipped: 0 }
  for (const [file, count] of [...totals].sort(([a], [b]) => (a < b ? -1 : 1))) {
    sum.passed += count.passed
    sum.failed += count.failed
    sum.skipped += count.skipped
    yield `${String(count.passed).padStart(5)} passed ${String(count.failed).padStart(4)} failed ${String(count.skipped).padStart(4)} skipped  ${file}\n`
  }
  yield `\n${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped\n`
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return inspect(error)
  const cause = error.cause
  return cause instanceof Error ? (cause.stack ?? cause.message) : (error.stack ?? error.message)
}

function indent(text: string): string {
  return text
    .split("\n")
    .slice(0, 30)
    .map((line) => `    ${line}`)
    .join("\n")
}
