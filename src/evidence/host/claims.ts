import type { BootClaims } from "../eventlog/claims.ts"
import type { ImaClaims } from "../ima/claims.ts"
import type { QuoteClaims, TpmIdentity } from "../tpm/claims.ts"

/** A machine attested by TPM 2.0 quote, UEFI measured boot log and IMA list, which all belong together. */
export interface HostClaims {
  readonly quote: QuoteClaims
  readonly boot: BootClaims
  readonly ima: ImaClaims
  /** The TPM behind the quote; undefined where no EK–AK proof was given: then the link to a physical TPM is unproved and policy refuses. */
  readonly identity?: TpmIdentity
}
