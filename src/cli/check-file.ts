import { readFileBounded } from "../bytes/durable.ts"
import { parseJson } from "../bytes/json.ts"
import { type CheckFindings, checkFindingsSchema, type SignedCheckReport } from "../protocol/check-report.ts"
import { parseShape } from "../protocol/wire.ts"
import type { Output } from "./output.ts"

/** A report has at most 64 lines of some 500 bytes. */
const maxFindingsBytes = 65_536

/** What a checking program wrote. @throws {MalformedError} with the field */
export async function loadCheckFindings(path: string): Promise<CheckFindings> {
  return parseShape(checkFindingsSchema, parseJson(await readFileBounded(path, maxFindingsBytes), { maxBytes: maxFindingsBytes }), path)
}

/** One block of lines for each checker. */
export function showChecks(checks: readonly { readonly by: string; readonly report: SignedCheckReport }[], output: Output): void {
  for (const { by, report } of checks) {
    const { program, checks: done } = report.report
    output.line(`checked     by ${by}: ${program.name} ${program.version}, ${program.digest}`)
    for (const { check, result, of } of done) output.line(`            ${result}: ${check} (of ${of})`, result === "passed" ? "plain" : "bad")
  }
}
