import { type JsonValue, parseJson } from "../bytes/json.ts"
import type { Cell, Output } from "./output.ts"

/** One line of what evidence proves, or does not. */
export interface Fact {
  readonly what: string
  readonly proved: boolean
  readonly how: string
}

export function fact(what: string, proved: boolean, how: string): Fact {
  return { what, proved, how }
}

/** A table of facts for people. */
export function showFacts(facts: readonly Fact[], output: Output): void {
  output.table(
    ["what", "", "how we know"],
    facts.map(({ what, proved, how }): readonly Cell[] => [
      what,
      proved ? { text: "proved", tone: "good" } : { text: "not proved", tone: "warn" },
      how,
    ]),
  )
}

/** The two lists of facts that an event for programs has. */
export function factLists(facts: readonly Fact[]): Readonly<Record<"proved" | "notProved", readonly Pick<Fact, "what" | "how">[]>> {
  const plain = (wanted: boolean): readonly Pick<Fact, "what" | "how">[] =>
    facts.filter(({ proved }) => proved === wanted).map(({ what, how }) => ({ what, how }))
  return { proved: plain(true), notProved: plain(false) }
}

/** Claims as JSON has them: 64-bit numbers as decimal text, maps as objects. */
export function plainClaims(claims: object): JsonValue {
  const text = JSON.stringify(claims, (_, value: unknown) =>
    typeof value === "bigint" ? String(value) : value instanceof Map ? Object.fromEntries(value as ReadonlyMap<string, unknown>) : value,
  )
  return parseJson(text, { maxBytes: text.length * 4 })
}
