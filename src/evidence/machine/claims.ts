import type { Digest } from "../../bytes/digest.ts"
import type { HostClaims } from "../host/claims.ts"
import type { GenuineTee } from "../tee/verify.ts"

/** One machine in one session: its TPM with boot and IMA logs, its TEE, or the TEE with the TPM of the guest inside it, which then belong together. */
export interface MachineClaims {
  /** What the outermost piece carries: `sha256:` and the session digest. */
  readonly session: Digest
  readonly host?: HostClaims
  readonly tee?: GenuineTee
}
