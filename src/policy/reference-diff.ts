import { canonicalJson } from "../bytes/json.ts"
import { printable } from "./findings.ts"
import type { BootReference, ImaReference, Reference } from "./reference.ts"

/** One difference between two references, entry by entry. `undefined` on a side where it is not. */
export interface ReferenceDifference {
  /** What differs: a field, a file's path, an event's place. */
  readonly subject: string
  readonly before: string | undefined
  readonly after: string | undefined
}

/** What a machine of the second reference does otherwise than one of the first. Order as in the documents, fields before entries. */
export function diffReferences(before: Reference, after: Reference): readonly ReferenceDifference[] {
  if (before.kind === "boot" && after.kind === "boot") return [...fieldDifferences(before, after, bootFields), ...registerDifferences(before, after)]
  if (before.kind === "ima" && after.kind === "ima") return [...fieldDifferences(before, after, imaFields), ...fileDifferences(before, after)]
  return [{ subject: "kind", before: before.kind, after: after.kind }]
}

const bootFields = ["name", "created", "expires", "startupLocality", "secureBoot", "quirks", "commandLines", "appliance"] as const
const imaFields = ["name", "created", "expires", "imaPolicy", "buffers", "violationClasses"] as const

function fieldDifferences<T, K extends keyof T & string>(before: T, after: T, fields: readonly K[]): readonly ReferenceDifference[] {
  return fields.flatMap((field) => difference(field, shown(before[field]), shown(after[field])))
}

function registerDifferences(before: BootReference, after: BootReference): readonly ReferenceDifference[] {
  const left = registerEntries(before)
  const right = registerEntries(after)
  return [...new Set([...left.keys(), ...right.keys()])].flatMap((subject) => difference(subject, left.get(subject), right.get(subject)))
}

function registerEntries(reference: BootReference): ReadonlyMap<string, string> {
  return new Map(
    reference.registers.flatMap((register): readonly (readonly [string, string])[] => {
      if ("any" in register) return [[`register ${register.pcr}`, `any: ${register.any}`]]
      return register.events.map(({ type, digests, description }, place) => [
        `register ${register.pcr}, event ${place}`,
        `${type} ${digests.join(" or ")}${description === "" ? "" : ` (${description})`}`,
      ])
    }),
  )
}

/** By path, because that is what a reader knows a file by; two files of one path are shown as one entry. */
function fileDifferences(before: ImaReference, after: ImaReference): readonly ReferenceDifference[] {
  const left = digestsByPath(before)
  const right = digestsByPath(after)
  return [...new Set([...left.keys(), ...right.keys()])].toSorted().flatMap((path) => difference(printable(path), left.get(path), right.get(path)))
}

function digestsByPath(reference: ImaReference): ReadonlyMap<string, string> {
  const result = new Map<string, string>()
  for (const [digest, paths] of Object.entries(reference.files).toSorted(([a], [b]) => (a < b ? -1 : 1)))
    for (const path of paths) {
      const known = result.get(path)
      result.set(path, known === undefined ? digest : `${known} or ${digest}`)
    }
  return result
}

function difference(subject: string, before: string | undefined, after: string | undefined): readonly ReferenceDifference[] {
  return before === after ? [] : [{ subject, before, after }]
}

function shown(value: unknown): string {
  return typeof value === "string" ? value : canonicalJson(value)
}
