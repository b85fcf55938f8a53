/**
 * What can be wrong with a document that people write: meaning and remedy of each code. `policy check` shows them; tests assert codes.
 * A problem refuses the document, whatever its code.
 */
export const problemCodes = {
  "too-large": "the document or a part of it exceeds its limit",
  malformed: "the text is not JSON, or not the part of YAML that is accepted",
  duplicate: "a key, or a member of a list of names, appears twice",
  "unknown-field": "the document has no such field at this place",
  "missing-field": "something is not stated; where anything is meant, `any` or `none` is written out",
  "not-filled-in": "a draft's mark FILL-IN stands where something is still to be stated",
  "wrong-type": "the value is of another type",
  "wrong-value": "the value is not one of those allowed here",
  "level-unsupported": "the protection level has no verifier in this version, so nothing could be released under it",
  "unknown-name": "the name refers to nothing in this policy",
  "unused-artifact": "the artifact is signed for but no job uses it",
  "wrong-role": "the stakeholder has no role that may do this",
  "missing-recipient": "a party is to receive something but states no recipient to seal it to",
  "shared-key": "two stakeholders state one key, so that one could sign for the other",
  "approval-without-owner": "the approval could be reached without the owner of an artifact",
  "release-without-owner": "something derived could be released without the vote of an input's owner, who has not waived it",
  "wrong-waiver": "a waiver names a party that owns none of the inputs",
  "never-satisfied": "the approval cannot be reached by any set of signatures",
  "dangerous-environment": "the variable makes programs load other code",
  "wrong-path": "the path is not absolute, not normal, inside a system folder, or inside another of the job's paths",
  "wrong-program": "the program is not found by an absolute path or a plain name",
  "same-artifact-twice": "two artifacts state one manifest",
  "laboratory-artifact": "an input came from a laboratory machine, INSECURE LABORATORY, whose root the job's machine does not accept",
  expired: "the policy or a reference has expired",
  "missing-reference": "the policy names a reference document that was not given",
  "unused-reference": "a reference document was given that the policy does not name",
  "wrong-reference": "the reference document is of another kind, or no machine that fits it could meet what the level demands",
} as const satisfies Record<string, string>

export type ProblemCode = keyof typeof problemCodes

/** One thing wrong with a document, and what to do about it. */
export interface Problem {
  readonly code: ProblemCode
  /** Dotted path of the field, e.g. `jobs.train.inputs.records-a`; "" for the document as a whole. */
  readonly field: string
  /** Place in the text, from 1; 0 where the document did not come as text. */
  readonly line: number
  readonly column: number
  /** What was found, lower case, without a full stop; never a secret. */
  readonly message: string
  /** What would make it right. */
  readonly fix: string
}

/** One line for a person: place, field, what is wrong, what to do. */
export function problemText(problem: Problem): string {
  const place = problem.line === 0 ? "" : `line ${problem.line}, column ${problem.column}: `
  const field = problem.field === "" ? "" : `${visible(problem.field)}: `
  return `${place}${field}${visible(problem.message)}; ${problem.fix} [${problem.code}]`
}

/** Text of a document that others wrote, with what a terminal would obey or hide written out. */
function visible(text: string): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
}
