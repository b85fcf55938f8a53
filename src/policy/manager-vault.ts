import { z } from "zod"

/**
 * Where a manager's vault key comes from when it starts: what a manager says of itself under its evidence, and what a policy may demand.
 * docs/vault.md says who can open which kind.
 */

/** Kinds of vaults, from what anybody with the disk opens to what nobody opens alone. */
export const vaultKinds = ["key-file", "tpm", "tee-sealing", "shares"] as const
export type VaultKind = (typeof vaultKinds)[number]

/** Which enclaves an SGX sealing key is for: those of one measurement, or all of one signer. */
export const sealingIdentities = ["mrenclave", "mrsigner"] as const
export type SealingIdentity = (typeof sealingIdentities)[number]

/** One share is the whole key; more custodians than this nobody gathers. */
export const minThreshold = 2
export const maxCustodians = 16

/** Who holds a share of a vault key. */
export interface Custodian {
  readonly name: string
  /** SSH text of its signing key. */
  readonly key: string
}

/** What a manager says of its vault key. */
export type ManagerVault =
  | { readonly kind: "key-file" }
  | { readonly kind: "tpm" }
  | { readonly kind: "tee-sealing"; readonly to: SealingIdentity }
  | { readonly kind: "shares"; readonly threshold: number; readonly custodians: readonly Custodian[] }

const threshold = z.int().min(minThreshold).max(maxCustodians)
const keyText = z.string().min(16).max(2000)
const custodianName = z.string().regex(/^[a-z][a-z0-9-]{0,62}$/)

export const custodianSchema = z.strictObject({ name: custodianName, key: keyText })

/** A vault as a description has it. */
export const managerVaultSchema: z.ZodType<ManagerVault> = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("key-file") }),
  z.strictObject({ kind: z.literal("tpm") }),
  z.strictObject({ kind: z.literal("tee-sealing"), to: z.enum(sealingIdentities) }),
  z.strictObject({ kind: z.literal("shares"), threshold, custodians: z.array(custodianSchema).min(minThreshold).max(maxCustodians) }),
])

/** One kind of vault that a policy accepts. A key file cannot be demanded: whoever has the disk has it. */
export type VaultDemand = "tpm" | "tee-sealing" | "tee-sealing-mrsigner" | "shares" | { readonly shares: SharesDemand }

export interface SharesDemand {
  /** Fewest custodians who must act together. */
  readonly threshold: number
  /** Keys of those who may be custodians; every custodian must be among them. */
  readonly custodians: readonly string[]
}

/** A policy's `manager.vault`, with the form that its keys have. */
export function vaultDemandsSchema(sshKey: z.ZodType<string>): z.ZodType<readonly VaultDemand[]> {
  const shares = z.strictObject({ threshold, custodians: z.array(sshKey).min(minThreshold).max(maxCustodians) })
  const words = z.enum(["tpm", "tee-sealing", "tee-sealing-mrsigner", "shares"])
  return z
    .array(z.union([words, z.strictObject({ shares })]))
    .min(1)
    .max(16)
}

/** A vault in one line for people: what keeps its key from whom. */
export function vaultWords(vault: ManagerVault): string {
  switch (vault.kind) {
    case "key-file":
      return "in a plain file: whoever reads this machine's disk as root reads every key that is deposited here"
    case "tpm":
      return "sealed to the TPM of the manager's machine, in the boot state that it was made in"
    case "tee-sealing":
      return vault.to === "mrenclave"
        ? "under the processor's sealing key for exactly this enclave (MRENCLAVE): it opens on this machine only, and for no other version"
        : "under the processor's sealing key for every enclave of this signer (MRSIGNER): whoever holds the signer's key can write an enclave that reads it"
    case "shares":
      return `nowhere on disk: ${vault.threshold} of ${vault.custodians.map(({ name }) => name).join(", ")} unlock the manager after every start`
  }
}

/** Why a manager's vault is none of those demanded, with what was found and expected; empty where it is one. */
export function vaultDifferences(found: ManagerVault, demanded: readonly VaultDemand[]): readonly string[] {
  if (demanded.some((demand) => meets(found, demand))) return []
  return [`vault: found ${foundText(found)}, expected ${demanded.map(demandText).join(" or ")}`]
}

function meets(found: ManagerVault, demand: VaultDemand): boolean {
  switch (demand) {
    case "tpm":
    case "shares":
      return found.kind === demand
    case "tee-sealing":
      return found.kind === "tee-sealing" && found.to === "mrenclave"
    case "tee-sealing-mrsigner":
      return found.kind === "tee-sealing"
    default:
      return (
        found.kind === "shares" &&
        found.threshold >= demand.shares.threshold &&
        // One who is not named could be the operator's own.
        found.custodians.every(({ key }) => demand.shares.custodians.includes(key))
      )
  }
}

function foundText(vault: ManagerVault): string {
  if (vault.kind === "tee-sealing") return vault.to === "mrenclave" ? "tee-sealing" : "tee-sealing-mrsigner"
  if (vault.kind !== "shares") return vault.kind
  return `shares, ${vault.threshold} of ${vault.custodians.map(({ name, key }) => `${name} (${key})`).join(", ")}`
}

/** A demand in one line for people. */
export function demandText(demand: VaultDemand): string {
  if (typeof demand === "string") return demand
  return `shares, at least ${demand.shares.threshold} of no others than ${demand.shares.custodians.join(", ")}`
}

/** What a manager's operator would need to read the vault key, for each kind that a policy accepts; `nameOf`: what a policy calls the holder of a key. */
export function operatorNeeds(demanded: readonly VaultDemand[] | undefined, nameOf: (key: string) => string): readonly string[] {
  if (demanded === undefined) return ["they can read its disk, where its vault key may lie: this policy does not say where it must not"]
  return demanded.map((demand) => {
    switch (demand) {
      case "tpm":
        return "its TPM is one that they can ask or imitate"
      case "tee-sealing":
        return "they break the enclave that the policy accepts"
      case "tee-sealing-mrsigner":
        return "they hold the key that its enclave is signed with"
      case "shares":
        return "enough custodians of its key, whom this policy does not name, help them"
      default:
        return `${demand.shares.threshold} of ${demand.shares.custodians.map(nameOf).join(", ")} help them`
    }
  })
}
