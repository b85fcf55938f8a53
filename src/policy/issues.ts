import type { z } from "zod"
import type { Problem, ProblemCode } from "./problem.ts"
import type { Locate } from "./locate.ts"

type Issue = z.core.$ZodIssue

/** Puts the schema library's issues into our words, each at its place in the text. `value` is the document that was judged. */
export function problemsOfIssues(issues: readonly Issue[], value: unknown, locate: Locate): readonly Problem[] {
  return issues.flatMap((issue) => problemsOfIssue(issue, [], value, locate))
}

function problemsOfIssue(issue: Issue, prefix: readonly PropertyKey[], value: unknown, locate: Locate): readonly Problem[] {
  const path = [...prefix, ...issue.path]
  const problem = (code: ProblemCode, at: readonly PropertyKey[], message: string, fix: string): Problem => ({
    code,
    field: at.map(String).join("."),
    ...locate(at),
    message,
    fix,
  })
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => problem("unknown-field", [...path, key], `unknown field ${JSON.stringify(key)}`, "remove it, or correct its name"))
  if (!isPresent(value, path)) return [problem("missing-field", path, "not stated", "state it; where anything is meant, write any or none")]
  switch (issue.code) {
    case "invalid_key":
      return [problem("wrong-value", path, issue.issues[0]?.message ?? issue.message, "choose another name")]
    case "invalid_union": {
      const branch = closestBranch(issue.errors)
      if (branch !== undefined) return branch.flatMap((inner) => problemsOfIssue(inner, path, value, locate))
      return [problem("wrong-value", path, unionMessage(issue.errors), "write one of the allowed forms")]
    }
    case "invalid_type":
      return [problem("wrong-type", path, issue.message, `write a value of type ${issue.expected}`)]
    case "too_big":
      return [problem("too-large", path, issue.message, "make it smaller")]
    default:
      return [problem("wrong-value", path, issue.message, "correct the value")]
  }
}

/** The form that the author most likely meant: the only one, or the one nearest, of those that fit the value's own type; undefined where none does. */
function closestBranch(branches: readonly (readonly Issue[])[]): readonly Issue[] | undefined {
  const fitting = branches.filter((issues) => issues.length > 0 && issues.every((issue) => !isAboutTheWhole(issue)))
  return fitting.toSorted((a, b) => distance(a) - distance(b))[0]
}

function isAboutTheWhole(issue: Issue): boolean {
  return issue.path.length === 0 && issue.code !== "unrecognized_keys" && issue.code !== "invalid_union"
}

function distance(issues: readonly Issue[]): number {
  return issues.reduce((sum, issue) => sum + (issue.code === "unrecognized_keys" ? issue.keys.length : 1), 0)
}

function unionMessage(branches: readonly (readonly Issue[])[]): string {
  const messages = branches.flatMap((issues) => issues.map((issue) => issue.message))
  return messages.length === 0 ? "none of the allowed forms" : [...new Set(messages)].join(", or ")
}

function isPresent(value: unknown, path: readonly PropertyKey[]): boolean {
  let at = value
  for (const step of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, step)) return false
    at = Reflect.get(at, step)
  }
  return at !== undefined
}
