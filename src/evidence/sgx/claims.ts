import type { DcapClaims } from "../dcap/claims.ts"

/** What a verified SGX quote says. Byte strings are lower-case hexadecimal. */
export interface SgxClaims {
  readonly kind: "sgx"
  readonly mrEnclave: string
  readonly mrSigner: string
  readonly isvProdId: number
  readonly isvSvn: number
  /** The owner may read the enclave: it protects nothing. */
  readonly debug: boolean
  /** ATTRIBUTES.FLAGS by name. */
  readonly attributes: readonly SgxAttribute[]
  /** ATTRIBUTES.XFRM, 8 bytes as they stand: processor state that the enclave may use. */
  readonly xfrm: string
  /** MISCSELECT, 4 bytes as they stand. */
  readonly miscSelect: string
  /** Of the platform when the report was made, 16 bytes; raw, what counts is `dcap.tcb`. */
  readonly cpuSvn: string
  /** Key separation and sharing (KSS); all zero where the enclave does without. */
  readonly configId: string
  readonly configSvn: number
  readonly isvExtProdId: string
  readonly isvFamilyId: string
  /** REPORT_DATA, 64 bytes. */
  readonly reportData: string
  /** The expected report data was given and is the one above; otherwise the reader must compare it. */
  readonly isReportDataChecked: boolean
  readonly dcap: DcapClaims
}

/** Names of ATTRIBUTES.FLAGS. Intel SDM vol. 3D, table "Layout of ATTRIBUTES". */
export type SgxAttribute = "INIT" | "DEBUG" | "MODE64BIT" | "PROVISIONKEY" | "EINITTOKEN_KEY" | "CET" | "KSS" | "AEXNOTIFY"
