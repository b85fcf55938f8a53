import type { Digest } from "../../bytes/digest.ts"
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
  if (genuine.kind === "snp") {
    const { chipId, cspId, product, signingKey, endorsement } = genuine.tee.claims
    const { root, rootKind } = endorsement
    const holder = cspId === undefined ? "" : ` of ${cspId}`
    return { tee: "snp", platform: chipId ?? null, root, rootKind, description: `AMD ${product}, ${signingKey.toUpperCase()}${holder}` }
  }
  const { platform, root, rootKind } = genuine.tee.claims.dcap
  const name = genuine.kind === "sgx" ? "SGX" : "TDX"
  return { tee: genuine.kind, platform: platform.ppid ?? null, root, rootKind, description: `Intel ${name}, FMSPC ${platform.fmspc}` }
}
