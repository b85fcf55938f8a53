import { bytesEqual, isAllZero } from "../bytes/compare.ts"
import { encodeHex } from "../bytes/text.ts"
import { EvidenceError } from "./errors.ts"

/** REPORT_DATA of SGX, TDX and SEV-SNP. */
export const reportDataBytes = 64
const sessionDigestBytes = 32

/**
 * What evidence must carry: exactly these 64 bytes, or `as-signed` for evidence whose reader compares the claim itself. There is no default: a forgotten nonce
 * does not compile.
 */
export type ExpectedReportData = Uint8Array | "as-signed"

/** The report data of a session: its digest (32 bytes) and 32 zero bytes, the one filling that is allowed. */
export function sessionReportData(sessionDigest: Uint8Array): Uint8Array {
  if (sessionDigest.length !== sessionDigestBytes) throw new TypeError(`a session digest has ${sessionDigestBytes} bytes`)
  const reportData = new Uint8Array(reportDataBytes)
  reportData.set(sessionDigest)
  return reportData
}

/**
 * What the quote of a paravisor's virtual TPM carries in the place of these report data: their session digest, 32 bytes, for a TPM takes no 64 (its largest hash bounds extraData).
 * @throws {TypeError} report data that are more than a digest and zeros: half of them would be covered by nothing
 */
export function quotedReportData(reportData: Uint8Array): Uint8Array {
  if (reportData.length !== reportDataBytes) throw new TypeError(`expected report data must have ${reportDataBytes} bytes`)
  const [digest, filling] = [reportData.slice(0, sessionDigestBytes), reportData.slice(sessionDigestBytes)]
  if (!isAllZero(filling)) throw new TypeError("a virtual TPM's quote carries a session digest only, not 64 bytes")
  return digest
}

/** Compares the report data of a report with what is expected. @throws {EvidenceError} `wrong-nonce` */
export function checkReportData(found: Uint8Array, expected: ExpectedReportData, path: string): void {
  if (expected === "as-signed") return
  if (expected.length !== reportDataBytes) throw new TypeError(`expected report data must have ${reportDataBytes} bytes`)
  if (!bytesEqual(found, expected))
    throw new EvidenceError("wrong-nonce", `report data ${encodeHex(found)}, expected ${encodeHex(expected)}`, { path })
}
