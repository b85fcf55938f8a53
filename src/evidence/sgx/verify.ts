import { MalformedError } from "../../bytes/error.ts"
import { checkDcap } from "../dcap/check.ts"
import type { DcapExpectation } from "../dcap/check.ts"
import type { DcapCollateral } from "../dcap/endorsements.ts"
import { bitNames } from "../dcap/bit-names.ts"
import { bytesOf } from "../dcap/format.ts"
import { Genuine } from "../genuine.ts"
import { checkReportData } from "../report-data.ts"
import type { ExpectedReportData } from "../report-data.ts"
import type { SgxAttribute, SgxClaims } from "./claims.ts"
import { parseSgxQuote } from "./format.ts"

export interface SgxEvidence {
  readonly quote: Uint8Array
  readonly collateral: DcapCollateral
}

export interface SgxExpectation extends DcapExpectation {
  readonly reportData: ExpectedReportData
}

/** ATTRIBUTES.FLAGS by bit; the others are reserved. Intel SDM vol. 3D, table "Layout of ATTRIBUTES". */
const flagNames: ReadonlyMap<number, SgxAttribute> = new Map([
  [0, "INIT"],
  [1, "DEBUG"],
  [2, "MODE64BIT"],
  [4, "PROVISIONKEY"],
  [5, "EINITTOKEN_KEY"],
  [6, "CET"],
  [7, "KSS"],
  [10, "AEXNOTIFY"],
])

/**
 * Verifies an SGX quote up to one of the given roots.
 * @throws {MalformedError} form, reserved bits that are set
 * @throws {EvidenceError} `wrong-nonce`, `wrong-chain`, `wrong-certificate`, `wrong-signature`, `wrong-key`, `weak-algorithm`, `expired`, `revoked`,
 * `wrong-binding`, `wrong-identity`, `no-tcb-level`, `missing-piece`, `duplicate-piece`, `unsupported`
 */
export function verifySgxQuote(evidence: SgxEvidence, expectation: SgxExpectation): Genuine<SgxClaims> {
  const { header, report, signature, signed } = parseSgxQuote(evidence.quote)
  checkReportData(bytesOf(report.reportData), expectation.reportData, "quote.reportData")
  const { names, unknown } = bitNames(report.attributes.substring(0, 16), flagNames)
  if (unknown.length > 0) throw new MalformedError("malformed", `reserved bits ${unknown.join(", ")} are set`, { path: "quote.attributes" })
  const dcap = checkDcap({ header, signature, signed, tdx: undefined }, evidence.collateral, expectation)
  return Genuine.afterVerification({
    kind: "sgx",
    mrEnclave: report.mrEnclave,
    mrSigner: report.mrSigner,
    isvProdId: report.isvProdId,
    isvSvn: report.isvSvn,
    debug: names.includes("DEBUG"),
    attributes: names,
    xfrm: report.attributes.substring(16),
    miscSelect: report.miscSelect,
    cpuSvn: report.cpuSvn,
    configId: report.configId,
    configSvn: report.configSvn,
    isvExtProdId: report.isvExtProdId,
    isvFamilyId: report.isvFamilyId,
    reportData: report.reportData,
    isReportDataChecked: expectation.reportData !== "as-signed",
    dcap,
  })
}
