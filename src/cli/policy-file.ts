import { readFileBounded } from "../bytes/durable.ts"
import { isDigest, type Digest } from "../bytes/digest.ts"
import { maxPolicyBytes } from "../policy/document.ts"
import { parsePolicy, type ParsedPolicy } from "../policy/parse.ts"
import { PolicyError } from "../policy/errors.ts"
import { checkPolicy } from "../policy/check.ts"
import { maxReferenceBytes, parseReference, referencesByDigest, type Reference, type References } from "../policy/reference.ts"
import type { Problem } from "../policy/problem.ts"
import type { PolicyStatus } from "../protocol/messages.ts"
import { InvalidPolicyError } from "./exit.ts"
import type { Cell, Output } from "./output.ts"

/** Reads a policy file; `.json` is JSON, everything else YAML. */
export async function loadPolicyFile(path: string): Promise<ParsedPolicy> {
  return parsePolicy(await readFileBounded(path, maxPolicyBytes), path.endsWith(".json") ? "json" : "yaml")
}

export async function loadReferenceFiles(paths: readonly string[]): Promise<{ readonly list: readonly Reference[]; readonly byDigest: References }> {
  const list: Reference[] = []
  for (const path of paths) list.push(parseReference(await readFileBounded(path, maxReferenceBytes)))
  return { list, byDigest: referencesByDigest(list) }
}

/** Every problem of a policy file, from its form to what it says; none when it may be signed. References are judged only when some are given. */
export async function problemsOfFile(
  path: string,
  references: References | undefined,
  time: Date,
): Promise<{ readonly problems: readonly Problem[]; readonly parsed?: ParsedPolicy }> {
  let parsed: ParsedPolicy
  try {
    parsed = await loadPolicyFile(path)
  } catch (error) {
    if (error instanceof PolicyError) return { problems: error.problems.toSorted((a, b) => a.line - b.line || a.column - b.column) }
    throw error
  }
  const { policy, locate } = parsed
  return { parsed, problems: checkPolicy(policy, { time, locate, ...(references === undefined ? {} : { references }) }) }
}

/** A policy named on the command line: by its digest, or by its file. */
export async function policyNamed(text: string): Promise<Digest> {
  return isDigest(text) ? text : (await loadPolicyFile(text)).digest
}

/**
 * Reads a policy that may be signed, once: what is returned is what was judged.
 * @throws {InvalidPolicyError} after listing every problem
 */
export async function demandGoodPolicy(file: string, referencePaths: readonly string[], output: Output, time = new Date()): Promise<ParsedPolicy> {
  const references = referencePaths.length === 0 ? undefined : (await loadReferenceFiles(referencePaths)).byDigest
  const { problems, parsed } = await problemsOfFile(file, references, time)
  if (problems.length === 0 && parsed !== undefined) return parsed
  output.table(
    ["line", "field", "problem", "what to do"],
    problems.map(({ line, field, code, message, fix }): readonly Cell[] => [
      line === 0 ? "" : line,
      field,
      { text: `${message} [${code}]`, tone: "bad" },
      fix,
    ]),
  )
  output.event({ event: "problems", problems })
  throw new InvalidPolicyError(file, problems)
}

/** Where a policy stands at the manager. */
export function showStatus(status: PolicyStatus, output: Output): void {
  output.line(`policy     ${status.digest}`)
  output.line(`study      ${status.study}`)
  output.line(`state      ${status.state}`, status.state === "active" ? "good" : status.state === "proposed" ? "plain" : "bad")
  if (status.missing.length > 0) output.line(`missing    ${status.missing.join(", ")}`, "warn")
  for (const blocker of status.blockers) output.line(`blocked    ${blocker}`, "warn")
  if (status.erasedAt !== undefined) output.line(`erased     ${status.erasedAt}: the manager destroyed its keys`)
}
