import type { TeeIdentity } from "../evidence/tee/identity.ts"
import type { TpmIdentity } from "../evidence/tpm/claims.ts"
import type { EnclaveMachine, Machine, Policy } from "./document.ts"
import { demandedPieces, hostRequirementOf } from "./document.ts"
import { hardwareRequirementOf, teeKindOf } from "./tee.ts"

/** What a machine enrolled with: its TPM, or its TEE where it has none. */
export type MachineIdentity = TpmIdentity | TeeIdentity

export function isTeeIdentity(identity: MachineIdentity): identity is TeeIdentity {
  return "tee" in identity
}

/** Whether a machine's demands may be met by the machine of this identity: it is one of those that they list. Whether it meets them, `appraise` says. */
export function listsMachine(machine: Machine, identity: MachineIdentity): boolean {
  if (isTeeIdentity(identity)) return machine.level === "enclave" && machine.guest === "none" && listsTee(machine, identity)
  return hostRequirementOf(machine)?.tpm.endorsementKeys.includes(identity.endorsementKey) === true
}

function listsTee({ accept }: EnclaveMachine, { tee, platform, root, rootKind }: TeeIdentity): boolean {
  return accept.some((alternative) => {
    if (teeKindOf(alternative) !== tee) return false
    const requirement = hardwareRequirementOf(alternative)
    const platforms = "chips" in requirement ? requirement.chips : requirement.platforms
    const isOne = platforms === "any" || (platform !== null && platforms.includes(platform))
    return isOne && (rootKind === "vendor" || requirement.laboratoryRoots.includes(root))
  })
}

/** Whether a machine of this identity can show what is demanded at all: one that enrolled with its TEE has no TPM, and one with a TPM always shows that. */
export function canShow(machine: Machine, identity: MachineIdentity): boolean {
  return (demandedPieces(machine) === "tee") === isTeeIdentity(identity)
}

/** Whether any of these policies lists the machine of an identity. */
export function listingOf(policies: readonly Policy[]): (identity: MachineIdentity) => boolean {
  const machines = policies.flatMap((policy) => Object.values(policy.machines))
  const keys = new Set(machines.flatMap((machine) => hostRequirementOf(machine)?.tpm.endorsementKeys ?? []))
  const tees = machines.filter((machine) => demandedPieces(machine) === "tee")
  return (identity) => (isTeeIdentity(identity) ? tees.some((machine) => listsMachine(machine, identity)) : keys.has(identity.endorsementKey))
}
