import type { Digest } from "../bytes/digest.ts"
import { canonicalJson } from "../bytes/json.ts"
import type { Job, Policy } from "./document.ts"
import { inputOwners, own } from "./document.ts"

/** A party behind a derived artifact that has kept its say. It is known by its keys, because names may mean other parties in other policies. */
export interface Origin {
  readonly name: string
  readonly keys: readonly string[]
}

/** What was made by jobs, by the digest of its manifest, with every party behind it. The manager keeps it for ever. */
export type Derivations = ReadonlyMap<Digest, readonly Origin[]>

export const noDerivations: Derivations = new Map()

/**
 * What to record for a thing that a job made: the owners of all inputs except those that `waive` names, and the parties behind every input that was
 * itself derived. A waiver gives up the say of this policy's owner only, never what a party behind a derived input has kept.
 */
export function originsOfDerived(policy: Policy, job: Job, waive: readonly string[], derivations: Derivations): readonly Origin[] {
  const owners = inputOwners(policy, job)
    .filter((name) => !waive.includes(name))
    .map((name) => ({ name, keys: (own(policy.stakeholders, name)?.keys ?? []).toSorted() }))
  return distinct([...owners, ...originsOfInputs(policy, job, derivations)])
}

/** The parties behind those inputs of a job that were themselves derived. */
export function originsOfInputs(policy: Policy, job: Job, derivations: Derivations): readonly Origin[] {
  return distinct(Object.keys(job.inputs).flatMap((artifact) => originsOfArtifact(policy, artifact, derivations)))
}

/** The parties behind an artifact, if it was derived. */
export function originsOfArtifact(policy: Policy, artifactName: string, derivations: Derivations): readonly Origin[] {
  const manifest = own(policy.artifacts, artifactName)?.manifest
  return (manifest === undefined ? undefined : derivations.get(manifest)) ?? []
}

/** Those origins none of whose keys is among `keys`. */
export function originsWithout(origins: readonly Origin[], keys: ReadonlySet<string>): readonly Origin[] {
  return origins.filter((origin) => !origin.keys.some((key) => keys.has(key)))
}

function distinct(origins: readonly Origin[]): readonly Origin[] {
  return [...new Map(origins.map((origin) => [canonicalJson(origin), origin])).values()]
}
