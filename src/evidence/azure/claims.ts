import type { Digest } from "../../bytes/digest.ts"
import type { SnpClaims } from "../snp/claims.ts"
import type { TdxClaims } from "../tdx/claims.ts"
import type { QuoteClaims } from "../tpm/claims.ts"
import type { VmConfiguration } from "./runtime-data.ts"

/**
 * Registers that a boot and its system write, which this program's own collector has quoted and a policy states: TCG PC Client Platform Firmware Profile 0 to 7, UAPI Group's
 * Linux TPM PCR Registry 8 to 15. Those after them can be reset by the guest, or are for a dynamic root of trust that Azure has none of.
 */
export const azurePcrs = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] as const

/** What a confidential VM of Azure proves: hardware → paravisor (HCL) → its virtual TPM → registers. Byte strings are lower-case hexadecimal. */
export interface AzureClaims {
  readonly kind: "azure-vtpm"
  /** What the hardware says about the paravisor that it runs. Which paravisor that is, MEASUREMENT and identity key, or MRTD, say: a policy must name them. */
  readonly hardware: SnpClaims | TdxClaims
  /** The hardware lets the host debug the VM. */
  readonly debug: boolean
  /** The virtual TPM's quote. `keyName` is there where the attestation key's public area came along: then the key signs quotes only. */
  readonly quote: QuoteClaims
  /** The quote's extraData are those that the verifier expected; false where it took whatever was signed, so that nothing says how fresh it is, nor for whom. */
  readonly isNonceChecked: boolean
  /** SHA-256 of the SubjectPublicKeyInfo of the virtual TPM's attestation key. */
  readonly attestationKey: Digest
  /** The same of its endorsement key; undefined in older reports. */
  readonly endorsementKey: Digest | undefined
  /** What the paravisor says about the VM: secure boot, console, devices. */
  readonly vmConfiguration: VmConfiguration
  /** Names in `vmConfiguration` that this program does not know. */
  readonly unknownSettings: readonly string[]
  /** 64 bytes that the guest asked to be included; undefined in older reports. */
  readonly userData: string | undefined
  readonly hclVersion: number
  /** Forms that differ from today's and were accepted: `ak-for-encryption`: the attestation key is declared for encryption (2023). */
  readonly quirks: readonly "ak-for-encryption"[]
}
