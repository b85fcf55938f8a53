import type { Digest } from "../../bytes/digest.ts"
import type { SgxClaims } from "../sgx/claims.ts"
import type { SnpClaims } from "../snp/claims.ts"
import type { TdxClaims } from "../tdx/claims.ts"
import type { TeeKind } from "./format.ts"
import type { GenuineTee } from "./verify.ts"

/** The physical machine behind a TEE, as far as its processor says which one it is. */
export interface TeeIdentity {
  readonly tee: TeeKind
  /** PPID (Intel, 16 bytes) or CHIP_ID (AMD, 64 bytes), lower-case hexadecimal; null where it is masked. */
  readonly platform: string | null
  /** SHA-256 of the root certificate (DER). */
  readonly root: Digest
  readonly rootKind: "vendor" | "laboratory"
  /** For people. */
  readonly description: string
}

export function teeIdentity(genuine: GenuineTee): TeeIdentity {
  const claims = hardwareClaims(genuine)
  const { platform, description } = platformOf(claims)
  const under = genuine.kind === "azure-vtpm" ? "Azure confidential VM on " : ""
  return { tee: genuine.kind, platform: platform ?? null, ...rootOf(claims), description: `${under}${description}` }
}

/** What a processor says of a TEE, of whichever kind. */
export type HardwareClaims = SgxClaims | TdxClaims | SnpClaims

/** What the processor says: of the TEE itself, or of the paravisor that says the rest. */
export function hardwareClaims({ kind, tee }: GenuineTee): HardwareClaims {
  return kind === "azure-vtpm" ? tee.claims.hardware : tee.claims
}

/** The root certificate at the end of the processor's chain. */
export function rootOf(claims: HardwareClaims): Pick<TeeIdentity, "root" | "rootKind"> {
  const { root, rootKind } = claims.kind === "snp" ? claims.endorsement : claims.dcap
  return { root, rootKind }
}

function platformOf(claims: HardwareClaims): { readonly platform: string | undefined; readonly description: string } {
  if (claims.kind === "snp") {
    const { chipId, cspId, product, signingKey } = claims
    return { platform: chipId, description: `AMD ${product}, ${signingKey.toUpperCase()}${cspId === undefined ? "" : ` of ${cspId}`}` }
  }
  const { ppid, fmspc } = claims.dcap.platform
  return { platform: ppid, description: `Intel ${claims.kind === "sgx" ? "SGX" : "TDX"}, FMSPC ${fmspc}` }
}
