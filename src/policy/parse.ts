import type { Digest } from "../bytes/digest.ts"
import type { Policy } from "./document.ts"
import { maxPolicyBytes, policyDigest, readPolicy } from "./document.ts"
import { PolicyError } from "./errors.ts"
import type { Locate } from "./locate.ts"
import type { TextFormat } from "./source.ts"
import { parseSource } from "./source.ts"

// Apart from `document.ts`, because the agent only meets policies that a strict parser has read, and need not load one for YAML.

/** A policy with its name and, for later problems, the way back to its text. */
export interface ParsedPolicy {
  readonly policy: Policy
  readonly digest: Digest
  readonly locate: Locate
}

/**
 * Parses a policy that a person wrote. Strict: unknown or duplicate fields, anything left out, YAML beyond plain maps, lists and scalars are problems.
 * Only the form is judged here; `checkPolicy` judges what it says.
 * @throws {PolicyError} `invalid-policy` with every problem found, each with line and column
 */
export function parsePolicy(bytes: Uint8Array, format: TextFormat): ParsedPolicy {
  const source = parseSource(bytes, format, { maxBytes: maxPolicyBytes })
  if (source.problems.length > 0) throw new PolicyError("invalid-policy", source.problems)
  const policy = readPolicy(source.value, source.locate)
  return { policy, digest: policyDigest(policy), locate: source.locate }
}
