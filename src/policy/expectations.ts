import { firmwareQuirks, type FirmwareQuirk } from "../evidence/eventlog/verify.ts"
import { hostPcrs, type HostExpectation } from "../evidence/host/verify.ts"
import type { TeeEvidence } from "../evidence/tee/format.ts"
import { teeRootsFor } from "../evidence/tee/roots.ts"
import type { TeeExpectation } from "../evidence/tee/verify.ts"
import type { EnclaveMachine, HostRequirement } from "./document.ts"
import type { References } from "./reference.ts"
import type { ReplacedReferences } from "./reference-updates.ts"
import { ccelQuirksOf, laboratoryRootsOf } from "./tee.ts"

/** How a host's evidence is verified before a policy's demands are held against it: the same for a claim and for a simulation. */
export function hostExpectationOf(
  { boot }: HostRequirement,
  references: References,
  replaced: ReplacedReferences = {},
): Pick<HostExpectation, "requiredPcrs" | "quirks" | "commandLineCandidates"> {
  const reference = references.get(replaced.boot ?? boot.reference)
  const known = reference?.kind === "boot" ? reference : undefined
  return {
    requiredPcrs: hostPcrs,
    quirks: (known?.quirks ?? []).filter(isFirmwareQuirk),
    commandLineCandidates: (known?.commandLines ?? []).map(({ text }) => text),
  }
}

/** How a TEE's evidence is verified: with the roots and quirks that the policy accepts, at a time. */
export function teeExpectationOf({ accept }: EnclaveMachine, time: Date): (evidence: TeeEvidence) => Omit<TeeExpectation, "reportData"> {
  const laboratoryRoots = laboratoryRootsOf(accept)
  const ccelQuirks = ccelQuirksOf(accept)
  return (evidence) => ({ roots: teeRootsFor(evidence, laboratoryRoots), time: time.getTime(), ccelQuirks })
}

function isFirmwareQuirk(name: string): name is FirmwareQuirk {
  return Object.hasOwn(firmwareQuirks, name)
}
