import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { hostRequirementOf, own, type BootUpdates, type Policy, type ReferenceUpdates } from "./document.ts"
import { diffReferences } from "./reference-diff.ts"
import { type BootReference, type ImaReference, type Reference, referenceDigest } from "./reference.ts"

/**
 * Reference values that a delegate puts in the place of those that a policy names, without a successor policy: only where the policy that every owner signed says who may, in what, and until
 * when. design.md section 4, rule (g).
 */

/** Which of a machine's references. */
export const referencePieces = ["boot", "ima"] as const
export type ReferencePiece = (typeof referencePieces)[number]

/** What a delegate signs (statement purpose `reference`). It holds for one place of one policy, and for what stood there when it was signed. */
export interface ReferenceUpdate {
  readonly perun: 1
  readonly kind: "reference-update"
  readonly policy: Digest
  readonly machine: string
  readonly piece: ReferencePiece
  /** The document that stood there last: the policy's own, or that of the update before. */
  readonly replaces: Digest
  readonly reference: Digest
}

export function updateDigest({ policy, machine, piece, replaces, reference }: Omit<ReferenceUpdate, "perun" | "kind">): Digest {
  const update: ReferenceUpdate = { perun: 1, kind: "reference-update", policy, machine, piece, replaces, reference }
  return digestOfJson(update)
}

/** Documents that stand in the place of the policy's own for one appraisal. */
export type ReplacedReferences = { readonly [Piece in ReferencePiece]?: Digest }

/** A place in a policy that names a reference. */
export interface ReferencePlace {
  readonly reference: Digest
  /** Undefined where nobody may update it. */
  readonly updates: ReferenceUpdates | BootUpdates | undefined
}

/** Undefined where the policy has no such machine, or the machine shows no TPM. */
export function referencePlace(policy: Policy, machineName: string, piece: ReferencePiece): ReferencePlace | undefined {
  const machine = own(policy.machines, machineName)
  const requirement = machine === undefined ? undefined : hostRequirementOf(machine)
  if (requirement === undefined) return undefined
  const { reference, updates } = requirement[piece]
  return { reference, updates }
}

/** Every place whose reference somebody may update alone, in the order of the policy. */
export function delegations(policy: Policy): readonly { readonly machine: string; readonly piece: ReferencePiece; readonly words: string }[] {
  return Object.keys(policy.machines).flatMap((machine) =>
    referencePieces.flatMap((piece) => {
      const updates = referencePlace(policy, machine, piece)?.updates
      return updates === undefined ? [] : [{ machine, piece, words: delegationText(machine, updates) }]
    }),
  )
}

function delegationText(machine: string, updates: ReferenceUpdates | BootUpdates): string {
  const what =
    "registers" in updates ? `what ${machine} must boot, in registers ${updates.registers.join(", ")},` : `which files ${machine} may run and read,`
  return `${updates.by} may alone change ${what} until ${updates.until}; the older one is good for ${updates.overlapSeconds} s more`
}

/** An update as far as its standing goes. */
export interface StandingUpdate {
  readonly reference: Digest
  /** Milliseconds since 1970 at which it was taken. */
  readonly at: number
}

/**
 * Documents that a machine may be held against now, newest first: the last one, and for the overlap the one before. Never more than two, however fast the updates come.
 */
export function acceptedReferences(place: ReferencePlace, updates: readonly StandingUpdate[], now: number): readonly Digest[] {
  const last = updates.at(-1)
  if (last === undefined) return [place.reference]
  const before = updates.at(-2)?.reference ?? place.reference
  const overlap = (place.updates?.overlapSeconds ?? 0) * 1000
  return now < last.at + overlap ? [last.reference, before] : [last.reference]
}

/**
 * What an update changes beyond what a delegate may, one line each; empty when it may. Of a boot reference: the events and command lines of the registers that the policy names, and the root
 * hashes that the command lines carry. Of an IMA reference: files, by digest. Everything else (Secure Boot, firmware faults, what the builder states, the IMA policy) is the parties' own.
 */
export function beyondScope(before: Reference, after: Reference, delegation: ReferenceUpdates | BootUpdates): readonly string[] {
  if (before.kind === "boot" && after.kind === "boot") {
    const registers = "registers" in delegation ? delegation.registers : []
    return differences(withoutRegisters(before, registers), withoutRegisters(after, registers))
  }
  if (before.kind === "ima" && after.kind === "ima") return differences(withoutFiles(before), withoutFiles(after))
  return ["kind"]
}

/** What says of a document which one it is; never what it demands. */
const label = { name: "-", created: "1970-01-01T00:00:00Z", expires: "1970-01-01T00:00:00Z" } as const

function withoutRegisters(reference: BootReference, open: readonly number[]): BootReference {
  const { registers, commandLines, appliance } = reference
  // The root hash is bound to the machine by the command line that carries it.
  const isRootOpen = commandLines.every(({ pcr }) => open.includes(pcr))
  return {
    ...reference,
    ...label,
    // A register that is demanded event by event must stay so.
    registers: registers.map((register) => (open.includes(register.pcr) && "events" in register ? { pcr: register.pcr, events: [] } : register)),
    commandLines: commandLines.filter(({ pcr }) => !open.includes(pcr)),
    appliance:
      appliance === "none" || !isRootOpen
        ? appliance
        : { ...appliance, verity: appliance.verity.map(({ parameter }) => ({ parameter, rootHash: "0".repeat(64) })) },
  }
}

function withoutFiles(reference: ImaReference): ImaReference {
  return { ...reference, ...label, files: {} }
}

function differences(before: Reference, after: Reference): readonly string[] {
  if (referenceDigest(before) === referenceDigest(after)) return []
  const subjects = diffReferences(before, after).map(({ subject }) => subject)
  return subjects.length > 0 ? subjects : ["the document"]
}
