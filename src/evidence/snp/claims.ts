import type { Digest } from "../../bytes/digest.ts"
import type { CpuId, FirmwareVersion, GuestPolicy, PlatformInfo } from "./format.ts"
import type { SnpProduct, Tcb } from "./products.ts"

/**
 * What a signed attestation report says, and what stands behind its signature. Byte strings are lower-case hexadecimal. Genuine, not yet acceptable: debug, VMPL,
 * migration, patch levels and missing revocation data are for a policy to judge.
 */
export interface SnpClaims {
  readonly kind: "snp"
  readonly reportVersion: number
  /** From the processor's family and model in the report; for version 2 from the root that its key chains to. */
  readonly product: SnpProduct
  /** Undefined for version 2, which does not say. */
  readonly cpu: CpuId | undefined
  /** `vcek`: the key of one chip. `vlek`: a key that AMD gave a cloud provider for all its chips. */
  readonly signingKey: "vcek" | "vlek"
  /** The cloud provider that a VLEK was given to (CSP_ID); undefined for a VCEK. */
  readonly cspId: string | undefined
  /** CHIP_ID, 64 bytes, as certified for a VCEK; undefined where the host masks it, which only a VLEK's report may. */
  readonly chipId: string | undefined
  /** MASK_CHIP_KEY: the host keeps the firmware from signing with the VCEK. */
  readonly maskChipKey: boolean

  /** 64 bytes that the guest's code chose. */
  readonly reportData: string
  /** The expected report data was given and is the one above; otherwise the reader must compare it. */
  readonly isReportDataChecked: boolean
  /** Launch digest, 48 bytes. */
  readonly measurement: string
  /** 32 bytes that the host chose at launch. */
  readonly hostData: string
  /** Privilege level of the code that asked: 0 is the highest. */
  readonly vmpl: number
  readonly policy: GuestPolicy
  readonly guestSvn: number
  readonly familyId: string
  readonly imageId: string
  /** SHA-384 of the key that signed the identity block; undefined where there is none (all zero). */
  readonly idKeyDigest: string | undefined
  /** SHA-384 of the key that certified the identity key; undefined where there is none. */
  readonly authorKeyDigest: string | undefined
  readonly reportId: string
  /** REPORT_ID_MA of the migration agent that the guest is bound to; undefined where there is none. */
  readonly migrationAgent: string | undefined

  readonly platform: PlatformInfo
  readonly tcb: {
    /** What the signing key is certified for. */
    readonly reported: Tcb
    /** What the platform can never go back behind. */
    readonly committed: Tcb
    /** What runs now; above `committed` while firmware is on trial. */
    readonly current: Tcb
    /** What ran when the guest was launched or imported. */
    readonly launch: Tcb
  }
  /** False when the guest was launched under a patch level below the reported one: its memory was once in the care of older firmware. */
  readonly launchedOnReportedTcb: boolean
  readonly firmware: { readonly current: FirmwareVersion; readonly committed: FirmwareVersion }
  /** Firmware or patch level runs that the host has not committed and can take back. */
  readonly isFirmwareProvisional: boolean
  /** Bit vectors of mitigations at launch and now; undefined before report version 4. What a bit means depends on the product (and is not published for version 4). */
  readonly mitigations: { readonly launch: bigint; readonly current: bigint } | undefined

  readonly endorsement: {
    /** SHA-256 of the signing key's certificate (DER). */
    readonly certificate: Digest
    /** SHA-256 of the root certificate (DER). */
    readonly root: Digest
    readonly rootKind: "vendor" | "laboratory"
    /** Name of the root, for people. */
    readonly rootName: string
    /** A list signed by the root was given and names no certificate of the chain. VCEK and VLEK themselves are never listed: AMD numbers them all 0. */
    readonly isRevocationChecked: boolean
    /** Milliseconds since 1970 up to which every certificate and revocation list that was used is valid. */
    readonly validUntil: number
  }
}
