import { canonicalJson } from "../bytes/json.ts"
import type { JsonValue } from "../bytes/json.ts"
import { consequencesOf } from "./consequences.ts"
import type { Policy } from "./document.ts"
import type { Sight } from "./explain.ts"
import { policySights } from "./explain.ts"
import { tableText } from "./table.ts"

/** What a successor changes, by consequence first. */
export interface PolicyDifference {
  /** Who sees more, less, or otherwise than before. */
  readonly sights: readonly SightChange[]
  /** What it gives to whom, and takes from whom, besides sight. */
  readonly consequences: readonly string[]
  /** Every field that differs. */
  readonly fields: readonly FieldChange[]
}

export interface SightChange {
  readonly party: string
  readonly thing: string
  readonly effect: "gains" | "loses" | "other"
  readonly before: string
  readonly after: string
}

export interface FieldChange {
  readonly field: string
  readonly effect: "added" | "removed" | "changed"
  /** Canonical JSON; undefined on the side where the field is not. */
  readonly before: string | undefined
  readonly after: string | undefined
  /** What it means for the parties. */
  readonly words: string
}

export function diffPolicies(before: Policy, after: Policy): PolicyDifference {
  return {
    sights: sightChanges(policySights(before), policySights(after)),
    consequences: consequencesOf(before, after),
    fields: fieldChanges([], jsonOf(before), jsonOf(after)),
  }
}

/** The difference as text for a terminal. */
export function differenceText({ sights, consequences, fields }: PolicyDifference): string {
  if (fields.length === 0) return "the policies are equal\n"
  const powers = sights.map(({ party, effect, thing, before, after }) => [party, effect, thing, before, after])
  const sightText = sights.length === 0 ? "nobody sees more or less" : tableText(["party", "effect", "thing", "before", "after"], powers)
  const fieldLines = fields.map(({ field, before, after, words }) => `  ${field}: ${before ?? "not there"} -> ${after ?? "not there"}\n    ${words}`)
  const meaning = consequences.length === 0 ? "  nothing that is known by name: see what changes" : consequences.map((line) => `  ${line}`).join("\n")
  return `Who sees what\n${sightText}\n\nWhat it means\n${meaning}\n\nWhat changes\n${fieldLines.join("\n")}\n`
}

function sightChanges(before: readonly Sight[], after: readonly Sight[]): readonly SightChange[] {
  const left = new Map(before.map((sight) => [sightKey(sight), sight]))
  const right = new Map(after.map((sight) => [sightKey(sight), sight]))
  return [...new Set([...left.keys(), ...right.keys()])].flatMap((key): readonly SightChange[] => {
    const was = left.get(key)
    const is = right.get(key)
    const either = is ?? was
    if (either === undefined || was?.words === is?.words) return []
    const rank = sightRank(is) - sightRank(was)
    // A thing that is new and that a party never sees is no news to it.
    if (rank === 0 && (was === undefined || is === undefined)) return []
    const effect = rank > 0 ? "gains" : rank < 0 ? "loses" : "other"
    return [{ party: either.party, thing: either.thing, effect, before: was?.words ?? "not there", after: is?.words ?? "not there" }]
  })
}

function sightKey({ party, thing }: Sight): string {
  return canonicalJson([party, thing])
}

function sightRank(sight: Sight | undefined): number {
  switch (sight?.sight) {
    case undefined:
    case "never":
      return 0
    case "after-vote":
      return 1
    case "sees":
    case "can-read":
      return 2
    case "owns":
      return 3
  }
}

function fieldChanges(path: readonly string[], before: JsonValue | undefined, after: JsonValue | undefined): readonly FieldChange[] {
  if (before !== undefined && after !== undefined && canonicalJson(before) === canonicalJson(after)) return []
  if (isRecord(before) && isRecord(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])]
    return keys.flatMap((key) => fieldChanges([...path, key], memberOf(before, key), memberOf(after, key)))
  }
  const effect = before === undefined ? "added" : after === undefined ? "removed" : "changed"
  const shown = (value: JsonValue | undefined): string | undefined => (value === undefined ? undefined : canonicalJson(value))
  return [{ field: path.join("."), effect, before: shown(before), after: shown(after), words: wordsFor(path, effect) }]
}

function wordsFor(path: readonly string[], effect: FieldChange["effect"]): string {
  const rule = consequences.find(
    ({ pattern }) => pattern.length <= path.length && pattern.every((step, index) => step === "*" || step === path[index]),
  )
  return rule === undefined ? `this is ${effect}` : rule.words(path[1] ?? "", effect)
}

/** The longest pattern that fits comes first. `*` is any one name. */
const consequences: readonly { readonly pattern: readonly string[]; readonly words: (name: string, effect: FieldChange["effect"]) => string }[] = [
  { pattern: ["study"], words: () => "this is another study" },
  { pattern: ["purpose"], words: () => "the stated purpose changes" },
  { pattern: ["stakeholders", "*", "keys"], words: (name) => `other keys may sign and vote for ${name}` },
  { pattern: ["stakeholders", "*", "recipients"], words: (name) => `results for ${name} are sealed to other recipients, who can open them` },
  { pattern: ["stakeholders", "*", "roles"], words: (name) => `${name} may own other kinds of artifacts` },
  { pattern: ["stakeholders", "*"], words: (name, effect) => `${name} is ${effect === "added" ? "a new party" : "no longer a party"}` },
  { pattern: ["manager", "time"], words: () => "other demands on who checks the manager's clock" },
  {
    pattern: ["manager", "vault"],
    words: () => "other demands on where the manager's vault key comes from: who can open everything that is deposited",
  },
  { pattern: ["manager", "witnesses"], words: () => "other demands on who must have seen the manager's log before it gives anything out" },
  { pattern: ["manager"], words: () => "another manager holds the keys" },
  { pattern: ["artifacts", "*", "manifest"], words: (name) => `${name} has other content` },
  { pattern: ["artifacts", "*", "owner"], words: (name) => `${name} has another owner` },
  { pattern: ["artifacts", "*"], words: (name, effect) => `${name} is ${effect}; its key is used only if its owner signs this policy` },
  { pattern: ["secrets", "*", "commitment"], words: (name) => `the secret ${name} has another value` },
  { pattern: ["secrets", "*", "owner"], words: (name) => `another party brings the secret ${name}` },
  { pattern: ["secrets", "*"], words: (name, effect) => `the secret ${name} is ${effect}` },
  { pattern: ["machines", "*", "level"], words: (name) => `machine ${name} is trusted to another depth` },
  { pattern: ["machines", "*", "tpm", "endorsementKeys"], words: (name) => `other physical machines count as ${name}` },
  { pattern: ["machines", "*", "tpm", "laboratoryRoots"], words: (name) => `other laboratory roots are accepted for ${name}: INSECURE LABORATORY` },
  { pattern: ["machines", "*", "accept"], words: (name) => `other TEEs, or other programs in them, count as ${name}` },
  { pattern: ["machines", "*", "guest"], words: (name) => `the guest inside the TEE of ${name} must prove something else` },
  { pattern: ["machines", "*", "boot", "updates"], words: (name) => `who may update what ${name} must boot, and in what, changes` },
  { pattern: ["machines", "*", "ima", "updates"], words: (name) => `who may update what programs ${name} may run changes` },
  { pattern: ["machines", "*", "boot"], words: (name) => `${name} must boot otherwise: compare the references` },
  { pattern: ["machines", "*", "ima"], words: (name) => `${name} may run other programs: compare the references` },
  { pattern: ["machines", "*"], words: (name, effect) => `the demands on machine ${name} are ${effect}` },
  { pattern: ["jobs", "*", "machine"], words: (name) => `job ${name} runs on another machine` },
  { pattern: ["jobs", "*", "run"], words: (name) => `job ${name} starts another program or other arguments` },
  { pattern: ["jobs", "*", "environment"], words: (name) => `job ${name} runs with other settings` },
  { pattern: ["jobs", "*", "secrets"], words: (name) => `job ${name} is given other secrets, or otherwise` },
  { pattern: ["jobs", "*", "inputs"], words: (name) => `job ${name} uses other artifacts, or elsewhere` },
  { pattern: ["jobs", "*", "outputs"], words: (name) => `what leaves job ${name}, to whom or after which votes changes` },
  { pattern: ["jobs", "*", "metrics"], words: (name) => `the live numbers of job ${name} change` },
  { pattern: ["jobs", "*", "logs"], words: (name) => `the logs of job ${name}, to whom or after which votes change` },
  { pattern: ["jobs", "*", "maxRuns"], words: (name) => `job ${name} may run another number of times` },
  { pattern: ["jobs", "*", "resources"], words: (name) => `job ${name} has other limits` },
  { pattern: ["jobs", "*", "lease"], words: (name) => `job ${name} is stopped after another time without fresh proof` },
  { pattern: ["jobs", "*"], words: (name, effect) => `job ${name} is ${effect}` },
  { pattern: ["approval"], words: () => "other signatures make the policy active" },
  { pattern: ["expires"], words: () => "keys are released until another time" },
  { pattern: ["supersedes"], words: () => "another policy is replaced" },
  { pattern: ["recovers"], words: () => "lost keys of parties are replaced" },
]

function isRecord(value: JsonValue | undefined): value is { readonly [key: string]: JsonValue } {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

function memberOf(record: { readonly [key: string]: JsonValue }, key: string): JsonValue | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined
}

/** A policy is JSON already; the types do not say so because interfaces have no index signature. */
function jsonOf(value: object): JsonValue {
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, memberJson(member)]))
}

function memberJson(value: unknown): JsonValue {
  if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value
  if (Array.isArray(value)) return value.map(memberJson)
  if (typeof value === "object") return jsonOf(value)
  throw new TypeError("a policy holds JSON values only")
}
