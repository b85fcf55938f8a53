import { PerunError } from "../bytes/error.ts"
import type { Problem } from "./problem.ts"
import { problemText } from "./problem.ts"

/** Why a document of this room cannot be used at all. What a machine proves badly is a refused decision, not an error. */
export const policyCodes = {
  "invalid-policy": "the policy document has problems, all of them listed",
  "invalid-reference": "the reference document has problems, all of them listed",
} as const satisfies Record<string, string>

export type PolicyCode = keyof typeof policyCodes

/** A document that does not stand; `problems` has every one found, at least one. */
export class PolicyError extends PerunError<PolicyCode> {
  readonly problems: readonly Problem[]

  constructor(code: PolicyCode, problems: readonly Problem[]) {
    const first = problems[0]
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : ""
    super(code, `${first === undefined ? policyCodes[code] : problemText(first)}${more}`)
    this.problems = problems
  }
}
