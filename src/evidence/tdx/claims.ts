import type { DcapClaims } from "../dcap/claims.ts"

/** What a verified TDX quote says. Byte strings are lower-case hexadecimal. */
export interface TdxClaims {
  readonly kind: "tdx"
  readonly quoteVersion: number
  /** Form of the TD report: TDX 1.0 or 1.5. */
  readonly body: "1.0" | "1.5"
  /** Measurement of the initial contents of the TD: its firmware. */
  readonly mrTd: string
  /** Run-time measurements, RTMR0 to RTMR3; the CC event log explains them. */
  readonly rtmrs: readonly [string, string, string, string]
  /** Identifiers that the host chose when it built the TD: not measured, but fixed. */
  readonly mrConfigId: string
  readonly mrOwner: string
  readonly mrOwnerConfig: string
  /** Service TDs (migration) bound to the TD; all zero for none. Absent in TDX 1.0. */
  readonly mrServiceTd?: string
  /** A bit of the group TUD is set (DEBUG, or profiling): the host may look into the TD, which protects nothing. */
  readonly debug: boolean
  /** An EPT violation inside the TD cannot be injected as #VE: without it the host can steer old kernels. */
  readonly septVeDisable: boolean
  /** The TD may be migrated to another machine. */
  readonly migratable: boolean
  /** TDATTRIBUTES by name. */
  readonly attributes: readonly TdAttribute[]
  /** XFAM, 8 bytes as they stand: extended features that the TD may use. */
  readonly xfam: string
  /** The TDX module that vouches. */
  readonly mrSeam: string
  readonly mrSignerSeam: string
  readonly seamAttributes: string
  readonly teeTcbSvn: string
  /** TCB of the TDX modules that ran since: the platform was updated under the running TD where it differs. Absent in TDX 1.0. */
  readonly teeTcbSvn2?: string
  /** REPORTDATA, 64 bytes. */
  readonly reportData: string
  /** The expected report data was given and is the one above; otherwise the reader must compare it. */
  readonly isReportDataChecked: boolean
  /** Zero bytes behind the quote, which some clouds add. */
  readonly trailingBytes: number
  readonly dcap: DcapClaims
}

/** Names of TDATTRIBUTES. Intel TDX Module 1.5 ABI Specification, "ATTRIBUTES". */
export type TdAttribute =
  "DEBUG" | "HGS_PLUS_PROF" | "PERF_PROF" | "PMT_PROF" | "ICSSD" | "LASS" | "SEPT_VE_DISABLE" | "MIGRATABLE" | "PKS" | "KL" | "TPA" | "PERFMON"
