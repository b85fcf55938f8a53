import { bytesEqual, isAllZero } from "../../bytes/compare.ts"
import { encodeHex } from "../../bytes/text.ts"
import { verifySignature } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { Genuine } from "../genuine.ts"
import { checkReportData } from "../report-data.ts"
import type { ExpectedReportData } from "../report-data.ts"
import { asEvidence } from "../tpm/pki-errors.ts"
import type { SnpClaims } from "./claims.ts"
import { checkEndorsements } from "./endorsement-chain.ts"
import type { EndorsedKey } from "./endorsement-chain.ts"
import { significantChipId } from "./endorsements.ts"
import type { SnpEndorsements } from "./endorsements.ts"
import { parseSnpReport } from "./format.ts"
import type { FirmwareVersion, SnpReport } from "./format.ts"
import { describeTcb, isTcbAtMost, productOfCpu, tcbOf } from "./products.ts"
import type { SnpProduct, Tcb } from "./products.ts"
import type { SnpRoot } from "./roots.ts"

export interface SnpEvidence {
  /** ATTESTATION_REPORT, 1184 bytes. */
  readonly report: Uint8Array
  readonly endorsements: SnpEndorsements
}

export interface SnpExpectation {
  readonly reportData: ExpectedReportData
  readonly roots: readonly SnpRoot[]
  /** Milliseconds since 1970 at which certificates and lists must be valid. */
  readonly time: number
}

/**
 * Verifies an SNP attestation report: that firmware of a genuine AMD processor signed it, for this report data.
 * @throws {MalformedError} form
 * @throws {EvidenceError} `unsupported` (version, processor, report of the host), `weak-algorithm`, `wrong-nonce`, `wrong-key`, `wrong-chain`, `wrong-certificate`, `expired`,
 * `revoked`, `wrong-signature`, `wrong-binding` (key of another chip or patch level, masked chip), `contradiction`
 */
export function verifySnpReport(evidence: SnpEvidence, expectation: SnpExpectation): Genuine<SnpClaims> {
  const report = parseSnpReport(evidence.report)
  checkReportData(report.reportData, expectation.reportData, "ATTESTATION_REPORT.REPORT_DATA")
  const { signingKey } = report
  if (signingKey === "none") throw new EvidenceError("wrong-key", "the report is not signed", { path: "ATTESTATION_REPORT.KEY_INFO" })
  const endorsed = checkEndorsements(evidence.endorsements, signingKey, rootsFor(report, expectation.roots), expectation.time)
  const { product } = endorsed.root
  asEvidence("ATTESTATION_REPORT.SIGNATURE", () =>
    verifySignature("ecdsa-sha384", endorsed.key, report.signedBytes, report.signature, { ecdsa: "raw" }),
  )
  checkChip(report, product, endorsed)
  const tcb = checkTcb(report, product, endorsed, evidence.endorsements)
  checkContradictions(report)
  return Genuine.afterVerification({
    kind: "snp",
    ...claimsOf(report),
    product,
    isReportDataChecked: expectation.reportData !== "as-signed",
    ...signerClaims(report, signingKey, endorsed),
    ...tcbClaims(report, product, tcb),
  })
}

/** A report that names its processor must chain to the root of that product line; version 2 does not name it, and the chain alone says. */
function rootsFor({ cpu }: SnpReport, roots: readonly SnpRoot[]): readonly SnpRoot[] {
  if (cpu === undefined) return roots
  const product = productOfCpu(cpu)
  return roots.filter((root) => root.product === product)
}

/** A VCEK is of one chip, which the report must name; a VLEK is of none. */
function checkChip(report: SnpReport, product: SnpProduct, { identity }: EndorsedKey): void {
  const { hwId } = identity
  if (hwId === undefined) return
  if (report.maskChipKey)
    throw new EvidenceError("contradiction", "MASK_CHIP_KEY is set in a report signed with the VCEK", { path: "ATTESTATION_REPORT.KEY_INFO" })
  const chipId = significantChipId(report, product)
  if (!bytesEqual(chipId, hwId)) {
    throw new EvidenceError("wrong-binding", `chip ${encodeHex(chipId)}, the key is certified for ${encodeHex(hwId)}`, {
      path: "ATTESTATION_REPORT.CHIP_ID",
    })
  }
}

/**
 * The key is derived from REPORTED_TCB, so its certificate must say the same. The firmware takes no REPORTED_TCB above COMMITTED_TCB (AMD 56860, SNP_CONFIG) and
 * loads nothing below it (SNP_COMMIT, DOWNLOAD_FIRMWARE_EX).
 */
function checkTcb(report: SnpReport, product: SnpProduct, { identity }: EndorsedKey, { statedTcb }: SnpEndorsements): SnpClaims["tcb"] {
  const reported = tcbOf(product, report.reportedTcb, "REPORTED_TCB")
  const committed = tcbOf(product, report.committedTcb, "COMMITTED_TCB")
  const current = tcbOf(product, report.currentTcb, "CURRENT_TCB")
  const launch = tcbOf(product, report.launchTcb, "LAUNCH_TCB")
  const path = "ATTESTATION_REPORT.REPORTED_TCB"
  const text = (tcb: Tcb): string => describeTcb(product, tcb)
  if (!isTcbAtMost(product, reported, identity.tcb) || !isTcbAtMost(product, identity.tcb, reported))
    throw new EvidenceError("wrong-binding", `${text(reported)}; the key is certified for ${text(identity.tcb)}`, { path })
  if (statedTcb !== undefined && !bytesEqual(statedTcb, report.reportedTcb))
    throw new EvidenceError("wrong-binding", "the certificates are stated to be for another patch level", { path })
  if (!isTcbAtMost(product, reported, committed))
    throw new EvidenceError("contradiction", `${text(reported)}; committed is ${text(committed)}`, { path })
  if (!isTcbAtMost(product, committed, current))
    throw new EvidenceError("contradiction", `${text(committed)}; current is ${text(current)}`, { path: "ATTESTATION_REPORT.COMMITTED_TCB" })
  return { reported, committed, current, launch }
}

function checkContradictions(report: SnpReport): void {
  if (!report.authorKeyEn && !isAllZero(report.authorKeyDigest))
    throw new EvidenceError("contradiction", "a digest where AUTHOR_KEY_EN is clear", { path: "ATTESTATION_REPORT.AUTHOR_KEY_DIGEST" })
  if (compareFirmware(report.committedFirmware, report.currentFirmware) > 0)
    throw new EvidenceError("contradiction", "firmware below the committed version runs", { path: "ATTESTATION_REPORT.CURRENT_BUILD" })
}

function compareFirmware(a: FirmwareVersion, b: FirmwareVersion): number {
  return a.major - b.major || a.minor - b.minor || a.build - b.build
}

type SignerClaims = Pick<SnpClaims, "signingKey" | "cspId" | "chipId" | "maskChipKey" | "endorsement">

function signerClaims(report: SnpReport, signingKey: "vcek" | "vlek", endorsed: EndorsedKey): SignerClaims {
  return {
    signingKey,
    cspId: endorsed.identity.cspId,
    chipId: hexOrNone(report.chipId),
    maskChipKey: report.maskChipKey,
    endorsement: endorsed.claims,
  }
}

type TcbClaims = Pick<SnpClaims, "tcb" | "launchedOnReportedTcb" | "isFirmwareProvisional">

function tcbClaims(report: SnpReport, product: SnpProduct, tcb: SnpClaims["tcb"]): TcbClaims {
  return {
    tcb,
    launchedOnReportedTcb: isTcbAtMost(product, tcb.reported, tcb.launch),
    isFirmwareProvisional: !isTcbAtMost(product, tcb.current, tcb.committed) || compareFirmware(report.currentFirmware, report.committedFirmware) > 0,
  }
}

function claimsOf(report: SnpReport): Omit<SnpClaims, "kind" | "product" | "isReportDataChecked" | keyof SignerClaims | keyof TcbClaims> {
  const hasAgent = report.reportIdMa.some((byte) => byte !== 0xff)
  return {
    reportVersion: report.version,
    cpu: report.cpu,
    reportData: encodeHex(report.reportData),
    measurement: encodeHex(report.measurement),
    hostData: encodeHex(report.hostData),
    vmpl: report.vmpl,
    policy: report.policy,
    guestSvn: report.guestSvn,
    familyId: encodeHex(report.familyId),
    imageId: encodeHex(report.imageId),
    idKeyDigest: hexOrNone(report.idKeyDigest),
    authorKeyDigest: report.authorKeyEn ? encodeHex(report.authorKeyDigest) : undefined,
    reportId: encodeHex(report.reportId),
    migrationAgent: hasAgent ? encodeHex(report.reportIdMa) : undefined,
    platform: report.platformInfo,
    firmware: { current: report.currentFirmware, committed: report.committedFirmware },
    mitigations: report.mitigations,
  }
}

function hexOrNone(bytes: Uint8Array): string | undefined {
  return isAllZero(bytes) ? undefined : encodeHex(bytes)
}
