import type { AzureClaims } from "../azure/claims.ts"
import { azureEvidenceOf } from "../azure/document.ts"
import { verifyAzureVtpm } from "../azure/verify.ts"
import { parseCcel, parseDstackLog } from "../ccel/format.ts"
import type { CcelLog } from "../ccel/format.ts"
import { verifyCcel } from "../ccel/verify.ts"
import type { CcelQuirk } from "../ccel/verify.ts"
import type { CcelClaims } from "../ccel/claims.ts"
import type { DcapReadings } from "../dcap/readings.ts"
import { EvidenceError } from "../errors.ts"
import type { Genuine } from "../genuine.ts"
import { quotedReportData, type ExpectedReportData } from "../report-data.ts"
import type { SgxClaims } from "../sgx/claims.ts"
import { verifySgxQuote } from "../sgx/verify.ts"
import type { SnpClaims } from "../snp/claims.ts"
import { verifySnpReport } from "../snp/verify.ts"
import type { TdxClaims } from "../tdx/claims.ts"
import { verifyTdxQuote } from "../tdx/verify.ts"
import type { TeeEvidence } from "./format.ts"
import type { TeeRoots } from "./roots.ts"

export interface TeeExpectation {
  readonly reportData: ExpectedReportData
  readonly roots: TeeRoots
  /** Milliseconds since 1970 at which everything must be valid. */
  readonly time: number
  /** Faults of a TD's firmware that a policy accepts by name. */
  readonly ccelQuirks: readonly CcelQuirk[]
  readonly readings?: DcapReadings
}

/** What one TEE proved. `log` where the CC event log came with the quote: it explains the registers of this very quote. */
export type GenuineTee =
  | { readonly kind: "sgx"; readonly tee: Genuine<SgxClaims> }
  | { readonly kind: "tdx"; readonly tee: Genuine<TdxClaims>; readonly log?: Genuine<CcelClaims> }
  | { readonly kind: "snp"; readonly tee: Genuine<SnpClaims> }
  /** The report data of the hardware bind the paravisor's words; what was asked for stands in the quote of its virtual TPM. */
  | { readonly kind: "azure-vtpm"; readonly tee: Genuine<AzureClaims> }

/**
 * Verifies evidence of whichever TEE with what vouches for it. Missing collateral is a claim (`dcap.missingCollateral`); a report of SEV-SNP without its certificates is not
 * genuine, for nothing then says whose key signed it.
 * @throws {MalformedError} form
 * @throws {EvidenceError} as verifySgxQuote, verifyTdxQuote, verifyCcel, verifySnpReport and verifyAzureVtpm; `missing-piece`
 */
export function verifyTee(evidence: TeeEvidence, { reportData, roots, time, ccelQuirks, readings }: TeeExpectation): GenuineTee {
  const dcap = { reportData, roots: roots.dcap, time, ...(readings === undefined ? {} : { readings }) }
  switch (evidence.kind) {
    case "sgx":
      return { kind: "sgx", tee: verifySgxQuote({ quote: evidence.quote, collateral: evidence.collateral ?? {} }, dcap) }
    case "tdx": {
      const tee = verifyTdxQuote({ quote: evidence.quote, collateral: evidence.collateral ?? {} }, dcap)
      if (evidence.eventLog === undefined) return { kind: "tdx", tee }
      return { kind: "tdx", tee, log: verifyCcel(parseLog(evidence.eventLog), { rtmrs: tee.claims.rtmrs, quirks: ccelQuirks }) }
    }
    case "azure-vtpm": {
      const extraData = reportData === "as-signed" ? reportData : quotedReportData(reportData)
      const quote = { extraData, selection: "as-signed", pcrs: evidence.pcrs } as const
      const { roots: dcapRoots, ...more } = dcap
      return { kind: "azure-vtpm", tee: verifyAzureVtpm(azureEvidenceOf(evidence), { ...more, quote, snpRoots: roots.snp, dcapRoots }) }
    }
    case "snp": {
      if (evidence.endorsements === undefined)
        throw new EvidenceError("missing-piece", "no certificate of the key that signed the report", { path: "evidence.endorsements" })
      return {
        kind: "snp",
        tee: verifySnpReport({ report: evidence.report, endorsements: evidence.endorsements }, { reportData, roots: roots.snp, time }),
      }
    }
  }
}

/** The firmware's binary table, or the JSON of a guest agent: no table begins with a bracket, for its first four bytes are a register from 0 to 3. */
function parseLog(bytes: Uint8Array): CcelLog {
  return bytes[0] === openingBracket ? parseDstackLog(bytes) : parseCcel(bytes)
}

const openingBracket = 0x5b
