import type { Digest } from "../bytes/digest.ts"
import { canonicalJson } from "../bytes/json.ts"
import type { Job, Policy } from "./document.ts"
import { inputOwners, laboratoryRootsOfMachine, own, policyDigest } from "./document.ts"

/** A party behind a derived artifact that has kept its say. It is known by its keys, because names may mean other parties in other policies. */
export interface Origin {
  readonly name: string
  readonly keys: readonly string[]
}

/** Where something that a job made comes from, through all policies behind it. */
export interface Derivation {
  readonly origins: readonly Origin[]
  /** Policies under which it came to be: a withdrawal from any of them locks it. */
  readonly policies: readonly Digest[]
  /** INSECURE LABORATORY: SHA-256 of the laboratory roots that machines behind it chain to; empty where every one was a vendor's. */
  readonly laboratoryRoots: readonly Digest[]
}

/** What was made by jobs, by the digest of its manifest. The manager keeps it for ever. */
export type Derivations = ReadonlyMap<Digest, Derivation>

export const noDerivations: Derivations = new Map()

/**
 * What to record for a thing that a job made: the owners of all inputs except those that `waive` names, and everything behind inputs that were
 * themselves derived. A waiver gives up the say of this policy's owner only, never what a party behind a derived input has kept. `machineRoots` are
 * the laboratory roots that the machine itself chains to.
 */
export function derivationOfOutput(
  policy: Policy,
  job: Job,
  waive: readonly string[],
  machineRoots: readonly Digest[],
  derivations: Derivations,
): Derivation {
  const owners = inputOwners(policy, job)
    .filter((name) => !waive.includes(name))
    .map((name) => ({ name, keys: (own(policy.stakeholders, name)?.keys ?? []).toSorted() }))
  const made = { origins: owners, policies: [policyDigest(policy)], laboratoryRoots: machineRoots }
  return derivationsOfInputs(policy, job, derivations).reduce(mergeDerivations, made)
}

/** Of one thing that came to be in two ways, both count: its parties, policies and laboratories are those of either. */
export function mergeDerivations(one: Derivation, other: Derivation): Derivation {
  return {
    origins: distinct([...one.origins, ...other.origins]),
    policies: [...new Set([...one.policies, ...other.policies])],
    laboratoryRoots: [...new Set([...one.laboratoryRoots, ...other.laboratoryRoots])],
  }
}

/** The parties behind those inputs of a job that were themselves derived. */
export function originsOfInputs(policy: Policy, job: Job, derivations: Derivations): readonly Origin[] {
  return distinct(derivationsOfInputs(policy, job, derivations).flatMap(({ origins }) => origins))
}

/** The laboratory roots behind a job's inputs: whatever the job makes carries them on. */
export function laboratoryRootsOfInputs(policy: Policy, job: Job, derivations: Derivations): readonly Digest[] {
  return [...new Set(derivationsOfInputs(policy, job, derivations).flatMap(({ laboratoryRoots }) => laboratoryRoots))]
}

/** The parties behind an artifact, if it was derived. */
export function originsOfArtifact(policy: Policy, artifactName: string, derivations: Derivations): readonly Origin[] {
  return derivationOfArtifact(policy, artifactName, derivations)?.origins ?? []
}

/**
 * Laboratory roots behind an artifact that a job's machine does not accept: the artifact must not be used there. That a machine may be a laboratory's and
 * that its inputs may come from one is the same consent, given by the same list.
 */
export function foreignLaboratoryRoots(policy: Policy, job: Job, artifactName: string, derivations: Derivations): readonly Digest[] {
  const machine = own(policy.machines, job.machine)
  const accepted = machine === undefined ? [] : laboratoryRootsOfMachine(machine)
  const roots = derivationOfArtifact(policy, artifactName, derivations)?.laboratoryRoots ?? []
  return roots.filter((root) => !accepted.includes(root))
}

/** Those origins none of whose keys is among `keys`. */
export function originsWithout(origins: readonly Origin[], keys: ReadonlySet<string>): readonly Origin[] {
  return origins.filter((origin) => !origin.keys.some((key) => keys.has(key)))
}

function derivationsOfInputs(policy: Policy, job: Job, derivations: Derivations): readonly Derivation[] {
  return Object.keys(job.inputs).flatMap((artifact) => derivationOfArtifact(policy, artifact, derivations) ?? [])
}

function derivationOfArtifact(policy: Policy, artifactName: string, derivations: Derivations): Derivation | undefined {
  const manifest = own(policy.artifacts, artifactName)?.manifest
  return manifest === undefined ? undefined : derivations.get(manifest)
}

function distinct(origins: readonly Origin[]): readonly Origin[] {
  return [...new Map(origins.map((origin) => [canonicalJson(origin), origin])).values()]
}
