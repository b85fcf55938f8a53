import { z } from "zod"
import { isDigest, type Digest } from "../bytes/digest.ts"

/** A clock that grants nothing unless a stamp of a time-stamping authority (RFC 3161) bears it out: what a policy demands of its manager's, and what a manager says of its own. */
export interface CheckedTime {
  /** SHA-256 of root certificates (DER). A stamp under any of them counts. */
  readonly roots: readonly Digest[]
  /** Farthest that the clock may be from the authority's. */
  readonly maxDifferenceSeconds: number
  /** How long a stamp counts, by the manager's monotonic clock. */
  readonly holdSeconds: number
}

const digest = z.custom<Digest>(isDigest, { error: 'expected "sha256:" and 64 lower-case hexadecimal digits' })

export const checkedTimeSchema: z.ZodType<CheckedTime> = z.strictObject({
  roots: z.array(digest).min(1).max(16),
  maxDifferenceSeconds: z.int().min(1).max(3600),
  holdSeconds: z.int().min(1).max(86_400),
})

/** Who bears out a manager's clock, in one line for people. */
export function timeWords(time: CheckedTime | null): string {
  if (time === null) return "from the clock of the manager's host, which nobody checks"
  const { roots, maxDifferenceSeconds, holdSeconds } = time
  return `checked by a time-stamping authority under ${roots.join(" or ")}: at most ${maxDifferenceSeconds} s apart, a stamp counts ${holdSeconds} s`
}

/** Every line in which a manager's time is not what is demanded, with what was found and expected; empty where it is. `found`: null where time comes from the host alone. */
export function timeDifferences(found: CheckedTime | null, demanded: CheckedTime): readonly string[] {
  const expected = `a clock that is checked under ${demanded.roots.join(" or ")}`
  if (found === null) return [`time: found the host's clock alone, expected ${expected}`]
  // The manager takes a stamp under any of its roots, so each of them must be trusted.
  const foreign = found.roots.filter((root) => !demanded.roots.includes(root))
  const atMost = (["maxDifferenceSeconds", "holdSeconds"] as const).filter((name) => found[name] > demanded[name])
  return [
    ...foreign.map((root) => `time.roots: found ${root}, expected ${expected}`),
    ...atMost.map((name) => `time.${name}: found ${found[name]}, expected at most ${demanded[name]}`),
  ]
}
