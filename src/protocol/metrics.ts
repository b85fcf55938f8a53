import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { ProtocolError } from "./errors.ts"
import type { MetricValues } from "./messages.ts"
import type { Metrics } from "../policy/document.ts"

/**
 * Holds metrics against the policy's schema, at the agent before they leave and at the manager before they are kept: exactly the named values, whole
 * numbers where `int` stands, at most so many digits behind the point where `float` stands. What has more digits is refused, not rounded: the agent
 * rounds with `roundMetrics`.
 * @throws {ProtocolError} `wrong-metrics`
 */
export function checkMetrics(schema: Metrics["schema"], values: MetricValues): void {
  for (const name of Object.keys(schema))
    if (!Object.hasOwn(values, name)) throw new ProtocolError("wrong-metrics", "value is missing", { path: `values.${name}` })
  for (const [name, value] of Object.entries(values)) {
    const type = Object.hasOwn(schema, name) ? schema[name] : undefined
    if (type === undefined) throw new ProtocolError("wrong-metrics", "the policy's schema has no such value", { path: `values.${name}` })
    const digits = type === "int" ? 0 : type.float
    if (roundTo(value, digits) !== value)
      throw new ProtocolError("wrong-metrics", digits === 0 ? "not a whole number" : `more than ${digits} digits behind the point`, {
        path: `values.${name}`,
      })
    if (Math.abs(value) > maxMagnitude) throw new ProtocolError("wrong-metrics", `beyond ±${maxMagnitude}`, { path: `values.${name}` })
  }
}

/** Rounds what a job reported to the digits of the schema; values that the schema does not name stay, for `checkMetrics` to refuse. */
export function roundMetrics(schema: Metrics["schema"], values: MetricValues): MetricValues {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      const type = Object.hasOwn(schema, name) ? schema[name] : undefined
      return [name, type === undefined || type === "int" ? value : roundTo(value, type.float)]
    }),
  )
}

/** Before the first report. */
export const noMetrics: Digest = digestOfJson({ perun: 1, kind: "metrics" })

/** The chain over a run's reports, in their order: each link is over the one before and the values, so that no report can be left out, added or moved. */
export function chainMetrics(before: Digest, values: MetricValues): Digest {
  return digestOfJson({ before, values })
}

/** What one report counts against the policy's `maxBytes`. */
export function metricsSizeBytes(values: MetricValues): number {
  return canonicalJsonBytes(values).length
}

function roundTo(value: number, digits: number): number {
  const rounded = Number(value.toFixed(digits))
  return Object.is(rounded, -0) ? 0 : rounded
}

/** Beyond it `toFixed` changes to exponents, and no metric needs it: a larger number is a channel for something else. */
const maxMagnitude = 1e15
