import type { Digest } from "../bytes/digest.ts"
import { stakeholderOfKey } from "../policy/approval.ts"
import type { Derivation } from "../policy/derivation.ts"
import { own, type Policy } from "../policy/document.ts"
import type { ManagerContext, Reader } from "./context.ts"
import type { RecordOf } from "./records.ts"

/**
 * Whom a key stands for beyond what a policy states. A party whose lost keys were replaced (policy/recovery.ts) is the same party: it sees its study's older policies, withdraws from them, and counts
 * for what came of them. Its former keys see the proposal that would replace them, and can object. Neither votes so, nor signs, nor gets anything released.
 */

type Replacement = RecordOf<"replacements">

/** The stakeholder of a policy that a key's holder is; undefined for nobody's. */
export function partyOf(context: ManagerContext, reader: Reader, digest: Digest, key: string): string | undefined {
  const policy = context.documents.policy(reader, digest)
  return stakeholderOfKey(policy, key) ?? formerSelf(reader, policy, key) ?? objector(context, reader, digest, key)
}

/** The party of an older policy of the study whose keys were replaced, perhaps more than once, until this one. */
function formerSelf(reader: Reader, policy: Policy, key: string): string | undefined {
  const known = new Set([key])
  const replacements = reader.list("replacements").filter(({ study }) => study === policy.study)
  for (let size = 0; size !== known.size;) {
    size = known.size
    for (const { keys, formerKeys } of replacements) if (keys.some((one) => known.has(one))) for (const former of formerKeys) known.add(former)
  }
  const names = new Set([...known].flatMap((one) => stakeholderOfKey(policy, one) ?? []))
  return names.size === 1 ? [...names][0] : undefined
}

/** The party whose keys a proposal would replace, as long as it is one: once they are replaced, who has them is nobody. */
function objector(context: ManagerContext, reader: Reader, digest: Digest, key: string): string | undefined {
  const { recovers = [], supersedes } = context.documents.policy(reader, digest)
  if (recovers.length === 0 || supersedes === "none" || reader.get("policies", supersedes) === undefined) return undefined
  if (reader.get("policies", digest)?.state !== "proposed") return undefined
  const name = stakeholderOfKey(context.documents.policy(reader, supersedes), key)
  return name !== undefined && recovers.includes(name) ? name : undefined
}

/** Whether a key was replaced in a study: whoever has it now speaks for nobody any more. */
export function isReplaced(reader: Reader, study: string, key: string): boolean {
  return reader.list("replacements").some((replacement) => replacement.study === study && replacement.formerKeys.includes(key))
}

/** What is recorded as a policy replaces a party's keys. */
export function replacementsOf(
  predecessor: Policy,
  successor: Policy,
  names: readonly string[],
): readonly Pick<Replacement, "party" | "formerKeys" | "keys">[] {
  const keysOf = (policy: Policy, name: string): string[] => [...(own(policy.stakeholders, name)?.keys ?? [])]
  return names.map((name) => ({ party: name, formerKeys: keysOf(predecessor, name), keys: keysOf(successor, name) }))
}

/**
 * A derivation whose parties are known by their new keys too. Only where every policy behind it that states a replaced key is of the study in which it was replaced: nobody agreed to more.
 */
export function withReplacedKeys(context: ManagerContext, reader: Reader, derivation: Derivation): Derivation {
  const replacements = reader.list("replacements")
  if (replacements.length === 0) return derivation
  const policies = derivation.policies.flatMap((digest) =>
    reader.get("policies", digest) === undefined ? [] : [context.documents.policy(reader, digest)],
  )
  const origins = derivation.origins.map((origin) => {
    const keys = new Set(origin.keys)
    for (let size = 0; size !== keys.size;) {
      size = keys.size
      for (const replacement of replacements) if (isMeant(replacement, keys, policies)) for (const key of replacement.keys) keys.add(key)
    }
    return { ...origin, keys: [...keys] }
  })
  return { ...derivation, origins }
}

function isMeant({ study, formerKeys }: Replacement, keys: ReadonlySet<string>, policies: readonly Policy[]): boolean {
  return formerKeys.some(
    (former) => keys.has(former) && policies.every((policy) => policy.study === study || stakeholderOfKey(policy, former) === undefined),
  )
}
