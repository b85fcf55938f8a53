import { MalformedError } from "../../bytes/error.ts"
import { bitNames } from "../dcap/bit-names.ts"
import { checkDcap } from "../dcap/check.ts"
import type { DcapExpectation } from "../dcap/check.ts"
import type { DcapCollateral } from "../dcap/endorsements.ts"
import { bytesOf } from "../dcap/format.ts"
import { maskedEquals } from "../dcap/masked.ts"
import { Genuine } from "../genuine.ts"
import { checkReportData } from "../report-data.ts"
import type { ExpectedReportData } from "../report-data.ts"
import type { TdAttribute, TdxClaims } from "./claims.ts"
import { parseTdxQuote } from "./format.ts"
import type { TdReport } from "./format.ts"

export interface TdxEvidence {
  readonly quote: Uint8Array
  readonly collateral: DcapCollateral
}

export interface TdxExpectation extends DcapExpectation {
  readonly reportData: ExpectedReportData
}

/** TDATTRIBUTES by bit; the others are reserved. Bits 0 to 7 are the group TUD: a TD with any of them is untrusted. */
const attributeNames: ReadonlyMap<number, TdAttribute> = new Map([
  [0, "DEBUG"],
  [4, "HGS_PLUS_PROF"],
  [5, "PERF_PROF"],
  [6, "PMT_PROF"],
  [16, "ICSSD"],
  [27, "LASS"],
  [28, "SEPT_VE_DISABLE"],
  [29, "MIGRATABLE"],
  [30, "PKS"],
  [31, "KL"],
  [62, "TPA"],
  [63, "PERFMON"],
])
const debugAttributes: readonly TdAttribute[] = ["DEBUG", "HGS_PLUS_PROF", "PERF_PROF", "PMT_PROF"]

/** XFAM_FIXED0 and XFAM_FIXED1, as they stand in memory: bits outside the first are never set, those of the second (x87, SSE) always. TDX Module base specification. */
const xfamMayNot = "1824f9ffffffffff"
const xfamMust = "0300000000000000"

/**
 * Verifies a TDX quote up to one of the given roots.
 * @throws {MalformedError} form, reserved bits that are set, fixed bits that are not
 * @throws {EvidenceError} `wrong-nonce`, `wrong-chain`, `wrong-certificate`, `wrong-signature`, `wrong-key`, `weak-algorithm`, `expired`, `revoked`,
 * `wrong-binding`, `wrong-identity`, `no-tcb-level`, `missing-piece`, `duplicate-piece`, `unsupported`
 */
export function verifyTdxQuote(evidence: TdxEvidence, expectation: TdxExpectation): Genuine<TdxClaims> {
  const { header, report, signature, signed, trailingBytes } = parseTdxQuote(evidence.quote)
  checkReportData(bytesOf(report.reportData), expectation.reportData, "quote.reportData")
  const attributes = readAttributes(report)
  checkXfam(report)
  const dcap = checkDcap({ header, signature, signed, tdx: report }, evidence.collateral, expectation)
  const { body, mrTd, rtmrs, mrConfigId, mrOwner, mrOwnerConfig, mrServiceTd, mrSeam, mrSignerSeam, seamAttributes, teeTcbSvn, teeTcbSvn2 } = report
  return Genuine.afterVerification({
    kind: "tdx",
    quoteVersion: header.version,
    body,
    mrTd,
    rtmrs,
    mrConfigId,
    mrOwner,
    mrOwnerConfig,
    ...(mrServiceTd === undefined ? {} : { mrServiceTd }),
    debug: debugAttributes.some((name) => attributes.includes(name)),
    septVeDisable: attributes.includes("SEPT_VE_DISABLE"),
    migratable: attributes.includes("MIGRATABLE"),
    attributes,
    xfam: report.xfam,
    mrSeam,
    mrSignerSeam,
    seamAttributes,
    teeTcbSvn,
    ...(teeTcbSvn2 === undefined ? {} : { teeTcbSvn2 }),
    reportData: report.reportData,
    isReportDataChecked: expectation.reportData !== "as-signed",
    trailingBytes,
    dcap,
  })
}

function readAttributes({ tdAttributes }: TdReport): readonly TdAttribute[] {
  const { names, unknown } = bitNames(tdAttributes, attributeNames)
  if (unknown.length > 0) throw new MalformedError("malformed", `reserved bits ${unknown.join(", ")} are set`, { path: "quote.tdAttributes" })
  return names
}

/** No TDX module starts a TD otherwise. */
function checkXfam({ xfam }: TdReport): void {
  if (!maskedEquals(xfam, xfamMayNot, "00".repeat(8)) || !maskedEquals(xfam, xfamMust, xfamMust))
    throw new MalformedError("malformed", `XFAM ${xfam} breaks the fixed bits`, { path: "quote.xfam" })
}
