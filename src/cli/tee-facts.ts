import type { CcelClaims } from "../evidence/ccel/claims.ts"
import type { DcapClaims } from "../evidence/dcap/claims.ts"
import type { SgxClaims } from "../evidence/sgx/claims.ts"
import type { SnpClaims } from "../evidence/snp/claims.ts"
import { describeTcb } from "../evidence/snp/products.ts"
import type { TdxClaims } from "../evidence/tdx/claims.ts"
import { rootOf, type HardwareClaims } from "../evidence/tee/identity.ts"
import type { GenuineTee } from "../evidence/tee/verify.ts"
import type { AcceptedTee, TeeAppraisal } from "../policy/appraise-tee.ts"
import { printable } from "../policy/findings.ts"
import { RefusedError } from "./exit.ts"
import { fact, type Fact } from "./facts.ts"
import type { Output } from "./output.ts"

/** Everything that a TEE's evidence says, for people: what was proved, by whom, until when, and what was not. */
export function teeFacts(evidence: Exclude<GenuineTee, { kind: "azure-vtpm" }>, anyReportData: boolean): readonly Fact[] {
  switch (evidence.kind) {
    case "tdx":
      return [...tdxFacts(evidence.tee.claims, bound(evidence.tee.claims.reportData, anyReportData)), ...logFacts(evidence.log?.claims)]
    case "sgx":
      return sgxFacts(evidence.tee.claims, anyReportData)
    case "snp":
      return snpFacts(evidence.tee.claims, bound(evidence.tee.claims.reportData, anyReportData))
  }
}

/** Whether a laboratory's root stands behind it. */
export function isLaboratory(claims: HardwareClaims): boolean {
  return rootOf(claims).rootKind === "laboratory"
}

/** What no policy puts up with, whatever it says: the host can look inside, or nobody can say that the platform is not revoked. */
export function plainFaults(claims: HardwareClaims): readonly string[] {
  const { debug, missing } =
    claims.kind === "snp"
      ? { debug: claims.policy.debug, missing: claims.endorsement.isRevocationChecked ? [] : ["AMD's revocation list"] }
      : { debug: claims.debug, missing: claims.dcap.missingCollateral }
  return [...(debug ? ["debugging is on, so it protects nothing"] : []), ...(missing.length === 0 ? [] : [`not given: ${missing.join(", ")}`])]
}

/** Milliseconds since 1970 up to which everything that was used is valid. */
export function validUntil(claims: HardwareClaims): number {
  return claims.kind === "snp" ? claims.endorsement.validUntil : claims.dcap.validUntil
}

/** Whether the maker calls the platform's level the newest; of SEV-SNP the patch levels are for a policy to judge. */
export function isCurrent(claims: HardwareClaims): boolean {
  return claims.kind === "snp" || claims.dcap.tcb.status === "UpToDate"
}

/** Said beside genuine evidence of hardware that is not current. */
export const outdatedWords = "the platform is not at the level that its maker calls UpToDate; see its firmware's level above"

function bound(reportData: string, anyReportData: boolean): Fact {
  return fact("for this question", !anyReportData, `report data ${reportData}${anyReportData ? ", whatever it was asked for" : ""}`)
}

/** Tells what a policy misses. @throws {RefusedError} */
export function demandAcceptable(appraisal: TeeAppraisal | undefined, output: Output): asserts appraisal is AcceptedTee | undefined {
  if (appraisal?.outcome !== "refused") return
  for (const { code, subject, found, expected } of appraisal.findings) output.line(`${code} ${subject}: found ${found}, expected ${expected}`, "bad")
  throw new RefusedError("genuine, but not what the policy accepts")
}

export function showAcceptable(appraisal: AcceptedTee | undefined, output: Output): void {
  if (appraisal === undefined) output.line("Whether it is acceptable is for a policy to say: --policy FILE")
  else output.line(`acceptable: it meets demand ${appraisal.alternative + 1} of the policy on its manager`, "good")
}

/** What a TD's quote proves; `binding` says what its report data bind it to. */
export function tdxFacts(claims: TdxClaims, binding: Fact): readonly Fact[] {
  const { attributes, mrServiceTd, trailingBytes } = claims
  return [
    fact("a TDX module signed it", true, `quote version ${claims.quoteVersion}, TD report ${claims.body}`),
    binding,
    fact("what the TD was built from", true, `MRTD ${claims.mrTd}`),
    ...claims.rtmrs.map((value, at) => fact(at === 0 ? "what it measured since" : "", true, `RTMR${at} ${value}`)),
    fact(
      "what the host stated when it built it",
      true,
      `MRCONFIGID ${claims.mrConfigId}, MROWNER ${claims.mrOwner}, MROWNERCONFIG ${claims.mrOwnerConfig}`,
    ),
    fact(
      "the host cannot look inside",
      !claims.debug,
      claims.debug ? `debugging is on: ${attributes.join(", ")}` : `attributes ${attributes.join(", ")}`,
    ),
    fact(
      "it stays on this machine",
      !claims.migratable && /^0*$/.test(mrServiceTd ?? ""),
      claims.migratable ? "it may be migrated" : "not migratable, no service TD",
    ),
    ...(trailingBytes === 0 ? [] : [fact("the quote's form", true, `${trailingBytes} zero bytes follow it, as some clouds add`)]),
    ...platformFacts(claims.dcap),
    fact("the TDX module", true, `MRSEAM ${claims.mrSeam}`),
  ]
}

function logFacts(log: CcelClaims | undefined): readonly Fact[] {
  if (log === undefined) return [fact("how the TD booted", false, "no CC event log was given: the registers are digests only")]
  const lines = log.commandLines.map(printable).join(" | ")
  return [
    fact("how the TD booted", true, `${log.events.length} events explain RTMR0 to RTMR2; Secure Boot ${log.secureBoot}`),
    fact("what software extended", log.rtmr3 !== "unexplained", `RTMR3 is ${log.rtmr3}`),
    fact("with which command line", lines !== "", lines === "" ? "no event holds one" : lines),
    ...(log.quirks.length === 0 ? [] : [fact("firmware faults accepted", true, log.quirks.join(", "))]),
  ]
}

function sgxFacts(claims: SgxClaims, anyReportData: boolean): readonly Fact[] {
  return [
    fact("a quoting enclave signed it", true, "quote version 3"),
    bound(claims.reportData, anyReportData),
    fact("which program", true, `MRENCLAVE ${claims.mrEnclave}`),
    fact("by whom", true, `MRSIGNER ${claims.mrSigner}, product ${claims.isvProdId}, version ${claims.isvSvn}`),
    fact(
      "its owner cannot look inside",
      !claims.debug,
      claims.debug ? "a debug enclave protects nothing" : `attributes ${claims.attributes.join(", ")}`,
    ),
    ...platformFacts(claims.dcap),
  ]
}

function platformFacts({ platform, tcb, missingCollateral, rootName, rootKind, validUntil: end }: DcapClaims): readonly Fact[] {
  const { status, advisoryIds, tcbEvaluationDataNumber } = tcb
  const open = advisoryIds.length === 0 ? "no open advisory" : advisoryIds.join(", ")
  return [
    fact(
      "which machine",
      true,
      `PPID ${platform.ppid}, FMSPC ${platform.fmspc}, certificate ${platform.pckSerial} of the ${platform.authority} authority`,
    ),
    fact("who vouches for it", true, `chain to ${rootName} (${rootKind})`),
    fact(
      "its firmware's level",
      status !== undefined,
      status === undefined ? "TCB info or QE identity were not given" : `${status}, ${open}, evaluation ${tcbEvaluationDataNumber ?? "unknown"}`,
    ),
    fact("nothing of it is revoked", !missingCollateral.some((name) => name.endsWith("CRL")), revocationWords(missingCollateral)),
    fact("until", true, new Date(end).toISOString()),
  ]
}

function revocationWords(missing: readonly string[]): string {
  const lists = missing.filter((name) => name.endsWith("CRL"))
  return lists.length === 0 ? "both revocation lists" : `not given: ${lists.join(", ")}`
}

/** What a report of SEV-SNP proves; `binding` says what its report data bind it to. */
export function snpFacts(claims: SnpClaims, binding: Fact): readonly Fact[] {
  const { policy, endorsement, tcb, product, firmware } = claims
  const version = ({ major, minor, build }: typeof firmware.current): string => `${major}.${minor}.${build}`
  return [
    fact("the secure processor signed it", true, `report version ${claims.reportVersion}, ${product}, by its ${claims.signingKey.toUpperCase()}`),
    binding,
    fact("what the guest was launched from", true, `MEASUREMENT ${claims.measurement}`),
    fact("what the host stated at launch", true, `HOST_DATA ${claims.hostData}`),
    fact(
      "who signed the image",
      claims.idKeyDigest !== undefined,
      claims.idKeyDigest === undefined ? "no identity block" : `ID_KEY_DIGEST ${claims.idKeyDigest}`,
    ),
    fact("asked from the highest privilege level", claims.vmpl === 0, `VMPL ${claims.vmpl}`),
    fact("the host cannot look inside", !policy.debug, policy.debug ? "debugging is allowed" : "debugging is not allowed"),
    fact(
      "it stays on this machine",
      !policy.migrateMa && claims.migrationAgent === undefined,
      policy.migrateMa ? "a migration agent is allowed" : "no migration agent",
    ),
    fact(
      "which machine",
      claims.chipId !== undefined,
      claims.chipId === undefined ? `masked; provider ${claims.cspId ?? "unknown"}` : `CHIP_ID ${claims.chipId}`,
    ),
    fact("who vouches for it", true, `chain to ${endorsement.rootName} (${endorsement.rootKind})`),
    fact(
      "its firmware's level",
      true,
      `${describeTcb(product, tcb.reported)}; firmware ${version(firmware.committed)}${claims.isFirmwareProvisional ? ", newer on trial" : ""}`,
    ),
    fact("launched at that level", claims.launchedOnReportedTcb, `at launch ${describeTcb(product, tcb.launch)}`),
    fact(
      "nothing of it is revoked",
      endorsement.isRevocationChecked,
      endorsement.isRevocationChecked ? "AMD's revocation list" : "no revocation list was given",
    ),
    fact("until", true, new Date(endorsement.validUntil).toISOString()),
  ]
}
