import type { PckAuthority } from "./certificates.ts"
import type { SgxExtensions } from "./sgx-extensions.ts"
import type { LevelStatus } from "./tcb-info.ts"
import type { TcbStatus } from "./tcb-status.ts"

/** What quote, PCK chain and collateral prove about the platform, the quoting enclave and (TDX) the TDX module, whatever the TEE. */
export interface DcapClaims {
  /** SHA-256 of the root certificate (DER), as `sha256:…`. */
  readonly root: `sha256:${string}`
  readonly rootKind: "vendor" | "laboratory"
  /** Name of the root, for people. */
  readonly rootName: string
  /** The platform as its PCK certificate names it; `ppid` tells physical machines apart. */
  readonly platform: PlatformClaims
  /** USER_DATA of the quote's header: the quoting enclave's identifier of the platform, lower-case hexadecimal. */
  readonly userData: string
  readonly quotingEnclave: QuotingEnclaveClaims
  readonly tcb: TcbClaims
  readonly collateral: CollateralClaims
  /** Collateral that was not given, and so what was not checked. With anything in it, policy should refuse. */
  readonly missingCollateral: readonly CollateralName[]
  /** Milliseconds since 1970: the time from which and up to which certificates and collateral are all valid. Not to be used after `validUntil`. */
  readonly validFrom: number
  readonly validUntil: number
}

export interface PlatformClaims extends SgxExtensions {
  /** Serial number of the PCK certificate, lower-case hexadecimal. */
  readonly pckSerial: string
  readonly authority: PckAuthority
}

/** From the QE report; byte strings are lower-case hexadecimal. */
export interface QuotingEnclaveClaims {
  readonly mrEnclave: string
  readonly mrSigner: string
  readonly isvProdId: number
  readonly isvSvn: number
}

export interface TcbClaims {
  /**
   * The merged status of platform, quoting enclave and TDX module. Absent where TCB info or QE identity were not given: nobody then knows. Never `Revoked`,
   * for that is refused.
   */
  readonly status?: TcbStatus
  /** Security advisories that are open on this platform, sorted, each once. */
  readonly advisoryIds: readonly string[]
  /** The parts that were evaluated. */
  readonly platform?: LevelStatus
  readonly quotingEnclave?: LevelStatus
  readonly tdxModule?: LevelStatus
  /** The least `tcbEvaluationDataNumber` of TCB info and QE identity; absent where neither is there. Policy holds it against its floor. */
  readonly tcbEvaluationDataNumber?: number
}

/** Names as in the test vectors. */
export type CollateralName = "TCB info" | "QE identity" | "root CA CRL" | "PCK CRL"

/** Dates of what was given, milliseconds since 1970. */
export interface CollateralClaims {
  readonly tcbInfo?: SignedDocumentClaims
  readonly qeIdentity?: SignedDocumentClaims
  readonly rootCrl?: { readonly thisUpdate: number; readonly nextUpdate: number }
  readonly pckCrl?: { readonly thisUpdate: number; readonly nextUpdate: number }
}

export interface SignedDocumentClaims {
  readonly version: number
  readonly issueDate: number
  readonly nextUpdate: number
  readonly tcbEvaluationDataNumber?: number
}
