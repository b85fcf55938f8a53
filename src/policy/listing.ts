import type { TeeIdentity } from "../evidence/tee/identity.ts"
import type { TpmIdentity } from "../evidence/tpm/claims.ts"
import type { Machine, Policy } from "./document.ts"
import { demandedPieces, hostRequirementOf } from "./document.ts"
import { hardwareRequirementOf, teeKindOf } from "./tee.ts"

/** What a machine enrolled with: its TPM, or its TEE where it has none. */
export type MachineIdentity = TpmIdentity | TeeIdentity

export function isTeeIdentity(identity: MachineIdentity): identity is TeeIdentity {
  return "tee" in identity
}

/** Whether a machine's demands may be met by the machine of this identity: it is one of those that they list. Whether it meets them, `appraise` says. */
export function listsMachine(machine: Machine, identity: MachineIdentity): boolean {
  return namesMachine(machine, identity) || (isTeeIdentity(identity) && alternativesFor(machine, identity).some((of) => platformsOf(of) === "any"))
}

/** The same where it stands there by itself: by its TPM's endorsement key or its processor, not by `any`, which is every machine and therefore nobody's own. */
export function namesMachine(machine: Machine, identity: MachineIdentity): boolean {
  if (!isTeeIdentity(identity)) return hostRequirementOf(machine)?.tpm.endorsementKeys.includes(identity.endorsementKey) === true
  const { platform } = identity
  if (platform === null) return false
  return alternativesFor(machine, identity).some((of) => {
    const platforms = platformsOf(of)
    return platforms !== "any" && platforms.includes(platform)
  })
}

/** Alternatives for a TEE of this kind, under the vendor's root or a laboratory's that they name. */
function alternativesFor(machine: Machine, { tee, root, rootKind }: TeeIdentity): readonly HardwareRequirement[] {
  if (machine.level !== "enclave" || machine.guest !== "none") return []
  return machine.accept
    .filter((alternative) => teeKindOf(alternative) === tee)
    .map(hardwareRequirementOf)
    .filter(({ laboratoryRoots }) => rootKind === "vendor" || laboratoryRoots.includes(root))
}

type HardwareRequirement = ReturnType<typeof hardwareRequirementOf>

function platformsOf(requirement: HardwareRequirement): "any" | readonly string[] {
  return "chips" in requirement ? requirement.chips : requirement.platforms
}

/** Whether a machine of this identity can show what is demanded at all: one that enrolled with its TEE has no TPM, and one with a TPM always shows that. */
export function canShow(machine: Machine, identity: MachineIdentity): boolean {
  return (demandedPieces(machine) === "tee") === isTeeIdentity(identity)
}

/** Whether any of these policies lists the machine of an identity, or names it (`namesMachine`). */
export function listingOf(policies: readonly Policy[], rule: typeof listsMachine = listsMachine): (identity: MachineIdentity) => boolean {
  const machines = policies.flatMap((policy) => Object.values(policy.machines))
  const keys = new Set(machines.flatMap((machine) => hostRequirementOf(machine)?.tpm.endorsementKeys ?? []))
  const tees = machines.filter((machine) => demandedPieces(machine) === "tee")
  return (identity) => (isTeeIdentity(identity) ? tees.some((machine) => rule(machine, identity)) : keys.has(identity.endorsementKey))
}
