import { azurePcrs, type AzureClaims } from "../evidence/azure/claims.ts"
import type { CcelClaims } from "../evidence/ccel/claims.ts"
import type { DcapClaims } from "../evidence/dcap/claims.ts"
import type { SgxClaims } from "../evidence/sgx/claims.ts"
import type { SnpClaims } from "../evidence/snp/claims.ts"
import type { TcbComponent } from "../evidence/snp/products.ts"
import type { TdxClaims } from "../evidence/tdx/claims.ts"
import { hardwareClaims, rootOf } from "../evidence/tee/identity.ts"
import type { GenuineTee } from "../evidence/tee/verify.ts"
import type { Finding, FindingCode } from "./findings.ts"
import { finding, printable } from "./findings.ts"
import { teeKindOf } from "./tee.ts"
import type { Accepted, AzureRequirement, PlatformRequirement, SgxRequirement, SnpRequirement, TdxRequirement, TeeRequirement } from "./tee.ts"

export type TeeAppraisal = AcceptedTee | RefusedTee

export interface RefusedTee {
  readonly outcome: "refused"
  /** What the alternative that comes nearest misses; at least one refusal. */
  readonly findings: readonly Finding[]
}

const proof: unique symbol = Symbol("made by appraiseTee")

/** A TEE met every demand of one alternative. Only `appraiseTee` can make one. */
export class AcceptedTee {
  readonly outcome = "accepted"
  readonly kind: GenuineTee["kind"]
  /** Place of the alternative that it meets. */
  readonly alternative: number
  /** Notes only. */
  readonly findings: readonly Finding[]
  /** It chains to a laboratory root: everything that comes of it carries INSECURE LABORATORY. */
  readonly insecureLaboratory: boolean

  /** For `appraiseTee` only: nobody else holds `key`. */
  constructor(key: typeof proof, facts: Omit<AcceptedTee, "outcome">) {
    if (key !== proof) throw new TypeError("an accepted TEE is made by appraiseTee only")
    this.kind = facts.kind
    this.alternative = facts.alternative
    this.findings = facts.findings
    this.insecureLaboratory = facts.insecureLaboratory
    Object.freeze(this)
  }
}

/**
 * Decides whether a TEE that is genuine is one that the parties accept: it must meet every demand of one alternative. Missing collateral, debug and report data that
 * nobody compared are refused whatever an alternative says.
 */
export function appraiseTee(evidence: GenuineTee, accept: readonly TeeRequirement[]): TeeAppraisal {
  let nearest: readonly Finding[] | undefined
  for (const [alternative, requirement] of accept.entries()) {
    const findings = findingsOf(evidence, requirement)
    if (findings === undefined) continue
    const refusals = findings.filter(({ effect }) => effect === "refusal")
    if (refusals.length === 0) {
      const insecureLaboratory = rootOf(hardwareClaims(evidence)).rootKind === "laboratory"
      return new AcceptedTee(proof, { kind: evidence.kind, alternative, findings, insecureLaboratory })
    }
    if (nearest === undefined || refusals.length < count(nearest)) nearest = findings
  }
  const kinds = [...new Set(accept.map(kindWords))]
  const found = nearest ?? [finding("tee-kind-not-accepted", "TEE", foundKind(evidence), kinds.length === 0 ? "none" : kinds.join(" or "))]
  return { outcome: "refused", findings: found }
}

function count(findings: readonly Finding[]): number {
  return findings.filter(({ effect }) => effect === "refusal").length
}

function foundKind(evidence: GenuineTee): string {
  return evidence.kind === "azure-vtpm" ? `azure-vtpm over ${evidence.tee.claims.hardware.kind}` : evidence.kind
}

function kindWords(alternative: TeeRequirement): string {
  return "azure" in alternative ? `azure-vtpm over ${Object.keys(alternative.azure.tee).join()}` : teeKindOf(alternative)
}

/** Undefined where the alternative is for another kind of TEE. */
function findingsOf(evidence: GenuineTee, requirement: TeeRequirement): readonly Finding[] | undefined {
  switch (evidence.kind) {
    case "tdx":
      return "tdx" in requirement ? tdxFindings(evidence.tee.claims, evidence.log?.claims, requirement.tdx) : undefined
    case "sgx":
      return "sgx" in requirement ? sgxFindings(evidence.tee.claims, requirement.sgx) : undefined
    case "snp":
      return "snp" in requirement ? snpFindings(evidence.tee.claims, requirement.snp) : undefined
    case "azure-vtpm":
      return "azure" in requirement ? azureFindings(evidence.tee.claims, requirement.azure) : undefined
  }
}

/** Undefined where the alternative is for a paravisor on other hardware. */
function azureFindings(claims: AzureClaims, requirement: AzureRequirement): readonly Finding[] | undefined {
  const { quote, attestationKey, isNonceChecked } = claims
  const hardware = paravisorFindings(claims.hardware, requirement.tee)
  if (hardware === undefined) return undefined
  const registers = quote.pcrs.get("sha256")
  return [
    ...hardware,
    ...demand(isNonceChecked, "tee-not-bound", "extraData of the virtual TPM's quote", "compared with nothing", "the session's"),
    ...azurePcrs.flatMap((pcr) => measured(`PCR${pcr}`, registers?.get(pcr) ?? "not quoted", requirement.pcrs[`${pcr}`])),
    ...listed("HCLAkPub", attestationKey, requirement.attestationKeys),
    ...demand(
      requirement.attestationKeyRestricted === "any" || quote.keyName !== undefined,
      "tee-setting-differs",
      "HCLAkPub",
      "no public area that says so",
      "a restricted key",
    ),
    ...settingFindings(claims, requirement),
  ]
}

function paravisorFindings(claims: AzureClaims["hardware"], tee: AzureRequirement["tee"]): readonly Finding[] | undefined {
  if (claims.kind === "snp") return "snp" in tee ? snpFindings(claims, tee.snp) : undefined
  return "tdx" in tee ? tdxFindings(claims, undefined, tee.tdx) : undefined
}

/** Names by which the paravisor states the settings that a policy can demand. */
const azureSettings = {
  secureBoot: "secure-boot",
  consoleEnabled: "console-enabled",
  interactiveConsoleEnabled: "interactive-console-enabled",
  tpmPersisted: "tpm-persisted",
} as const

function settingFindings({ vmConfiguration, unknownSettings }: AzureClaims, requirement: AzureRequirement): readonly Finding[] {
  const { unknownSettings: unknown, ...settings } = requirement.vmConfiguration
  const { vmUniqueId } = vmConfiguration
  return [
    ...(Object.entries(azureSettings) as [keyof typeof azureSettings, string][]).flatMap(([name, stated]) => {
      const [expected, found] = [settings[name], vmConfiguration[stated]]
      return demand(expected === "any" || found === expected, "tee-setting-differs", stated, String(found ?? "not stated"), String(expected))
    }),
    ...demand(
      unknown === "any" || unknownSettings.length === 0,
      "tee-setting-differs",
      "vm-configuration",
      `settings that nobody here knows: ${unknownSettings.map(printable).join(", ")}`,
      "known settings only",
    ),
    ...listed("vmUniqueId", typeof vmUniqueId === "string" ? vmUniqueId.toLowerCase() : "not stated", lowerCase(requirement.vmUniqueId)),
  ]
}

/** Azure writes the identifier in either case. */
function lowerCase(expected: Accepted): Accepted {
  return expected === "any" ? expected : expected.map((value) => value.toLowerCase())
}

function tdxFindings(claims: TdxClaims, log: CcelClaims | undefined, requirement: TdxRequirement): readonly Finding[] {
  const { rtmrs } = requirement
  return [
    ...common(claims),
    ...measured("MRTD", claims.mrTd, requirement.mrTd),
    ...([0, 1, 2, 3] as const).flatMap((at) => measured(`RTMR${at}`, claims.rtmrs[at], rtmrs[at])),
    ...measured("MRCONFIGID", claims.mrConfigId, requirement.mrConfigId),
    ...measured("MROWNER", claims.mrOwner, requirement.mrOwner),
    ...measured("MROWNERCONFIG", claims.mrOwnerConfig, requirement.mrOwnerConfig),
    ...measured("MRSEAM", claims.mrSeam, requirement.mrSeam),
    ...demand(requirement.septVeDisable === "any" || claims.septVeDisable, "tee-setting-differs", "SEPT_VE_DISABLE", "clear", "set"),
    ...demand(!claims.migratable, "tee-migration-possible", "MIGRATABLE", "set", "clear"),
    ...demand(
      claims.mrServiceTd === undefined || /^0*$/.test(claims.mrServiceTd),
      "tee-migration-possible",
      "MRSERVICETD",
      claims.mrServiceTd ?? "",
      "no service TD",
    ),
    ...platformFindings(claims.dcap, requirement.tcb, requirement.platforms, requirement.laboratoryRoots),
    ...logFindings(log, requirement),
  ]
}

function logFindings(log: CcelClaims | undefined, { eventLog, rtmrs }: TdxRequirement): readonly Finding[] {
  if (eventLog === "none") return []
  if (log === undefined) return [finding("tee-log-missing", "CC event log", "none", "the log that explains the registers")]
  const allowed: readonly string[] = eventLog.quirks
  const faults = log.quirks.filter((quirk) => !allowed.includes(quirk))
  return [
    ...faults.map((quirk) => finding("boot-quirk-not-accepted", "CC event log", quirk, allowed.length === 0 ? "none" : allowed.join(", "))),
    ...log.quirks
      .filter((quirk) => allowed.includes(quirk))
      .map((quirk) => finding("boot-quirk-accepted", "CC event log", quirk, allowed.join(", "))),
    ...demand(rtmrs[3] === "any" || log.rtmr3 !== "unexplained", "tee-log-missing", "RTMR3", "not explained by the log", "events for it"),
  ]
}

function sgxFindings(claims: SgxClaims, requirement: SgxRequirement): readonly Finding[] {
  const { isvProdId } = requirement
  return [
    ...common(claims),
    ...measured("MRENCLAVE", claims.mrEnclave, requirement.mrEnclave),
    ...measured("MRSIGNER", claims.mrSigner, requirement.mrSigner),
    ...measured("CONFIGID", claims.configId, requirement.configId),
    ...demand(isvProdId === "any" || claims.isvProdId === isvProdId, "tee-measurement-differs", "ISVPRODID", claims.isvProdId, isvProdId),
    ...atLeast("ISVSVN", claims.isvSvn, requirement.isvSvn),
    ...platformFindings(claims.dcap, requirement.tcb, requirement.platforms, requirement.laboratoryRoots),
  ]
}

function snpFindings(claims: SnpClaims, requirement: SnpRequirement): readonly Finding[] {
  const { endorsement, policy, firmware } = claims
  return [
    ...common({ debug: policy.debug, isReportDataChecked: claims.isReportDataChecked }),
    ...measured("MEASUREMENT", claims.measurement, requirement.measurement),
    ...measured("HOST_DATA", claims.hostData, requirement.hostData),
    ...keyFindings("ID_KEY_DIGEST", claims.idKeyDigest, requirement.idKeyDigest),
    ...keyFindings("AUTHOR_KEY_DIGEST", claims.authorKeyDigest, requirement.authorKeyDigest),
    ...atLeast("GUEST_SVN", claims.guestSvn, requirement.guestSvn),
    ...demand(requirement.vmpl.includes(claims.vmpl), "tee-setting-differs", "VMPL", claims.vmpl, requirement.vmpl.join(" or ")),
    ...demand(!policy.migrateMa && claims.migrationAgent === undefined, "tee-migration-possible", "MIGRATE_MA", "a migration agent", "none"),
    ...demand(requirement.smt === "any" || !policy.smt, "tee-setting-differs", "SMT", "allowed", "not allowed"),
    ...demand(requirement.singleSocket === "any" || policy.singleSocket, "tee-setting-differs", "SINGLE_SOCKET", "clear", "set"),
    ...demand(requirement.products.includes(claims.product), "tee-platform-not-listed", "product", claims.product, requirement.products.join(" or ")),
    ...demand(
      requirement.signingKey.includes(claims.signingKey),
      "tee-setting-differs",
      "SIGNING_KEY",
      claims.signingKey,
      requirement.signingKey.join(" or "),
    ),
    ...tcbFindings(claims, requirement),
    ...demand(
      isFirmwareAtLeast(firmware.committed, requirement.firmware),
      "tee-tcb-not-accepted",
      "COMMITTED firmware",
      text(firmware.committed),
      `at least ${text(requirement.firmware)}`,
    ),
    ...demand(
      requirement.provisional === "any" || !claims.isFirmwareProvisional,
      "tee-tcb-not-accepted",
      "firmware",
      "on trial, not committed",
      "committed",
    ),
    ...listed("CHIP_ID", claims.chipId, requirement.chips),
    ...demand(endorsement.isRevocationChecked, "tee-collateral-missing", "AMD's revocation list", "none", "one that is valid now"),
    ...rootFindings(endorsement, requirement.laboratoryRoots),
  ]
}

function keyFindings(subject: string, found: string | undefined, expected: "none" | Accepted): readonly Finding[] {
  if (expected === "any") return []
  if (expected === "none") return demand(found === undefined, "tee-measurement-differs", subject, found ?? "none", "none")
  return demand(found !== undefined && expected.includes(found), "tee-measurement-differs", subject, found ?? "none", expected.join(" or "))
}

/** Reported levels say what the key stands for, launch levels what the guest's memory was once in the care of. */
function tcbFindings({ tcb }: SnpClaims, { tcb: floor }: SnpRequirement): readonly Finding[] {
  return Object.entries(floor).flatMap(([component, least]) => {
    const name = component as TcbComponent
    return (["reported", "launch"] as const).flatMap((which) => {
      const found = tcb[which][name]
      // A component that the product lacks has level 0.
      return demand((found ?? 0) >= least, "tee-tcb-not-accepted", `${which.toUpperCase()}_TCB ${component}`, found ?? "none", `at least ${least}`)
    })
  })
}

interface Version {
  readonly major: number
  readonly minor: number
  readonly build: number
}

function isFirmwareAtLeast(a: Version, b: Version): boolean {
  return (a.major - b.major || a.minor - b.minor || a.build - b.build) >= 0
}

function text({ major, minor, build }: Version): string {
  return `${major}.${minor}.${build}`
}

function common({ debug, isReportDataChecked }: { readonly debug: boolean; readonly isReportDataChecked: boolean }): readonly Finding[] {
  return [
    ...demand(!debug, "tee-debug", "debug", "on: the host can look inside", "off"),
    ...demand(isReportDataChecked, "tee-not-bound", "report data", "compared with nothing", "the session's"),
  ]
}

function platformFindings(
  { tcb, platform, missingCollateral, ...root }: DcapClaims,
  requirement: PlatformRequirement,
  platforms: Accepted,
  laboratoryRoots: readonly string[],
): readonly Finding[] {
  const { status, advisories, evaluationDataNumber } = requirement
  const statuses: readonly string[] = status
  const open = advisories === "any" ? [] : tcb.advisoryIds.filter((id) => !advisories.includes(id))
  const number = tcb.tcbEvaluationDataNumber
  return [
    ...missingCollateral.map((name) => finding("tee-collateral-missing", name, "none", "one that is valid now")),
    ...demand(
      tcb.status !== undefined && statuses.includes(tcb.status),
      "tee-tcb-not-accepted",
      "TCB status",
      tcb.status ?? "unknown",
      statuses.join(" or "),
    ),
    ...open.map((id) => finding("tee-tcb-not-accepted", "security advisory", id, "not open")),
    ...demand(
      number !== undefined && number >= evaluationDataNumber,
      "tee-tcb-not-accepted",
      "tcbEvaluationDataNumber",
      number ?? "unknown",
      `at least ${evaluationDataNumber}`,
    ),
    ...listed("PPID", platform.ppid, platforms),
    ...rootFindings(root, laboratoryRoots),
  ]
}

function rootFindings(
  { root, rootKind }: { readonly root: string; readonly rootKind: "vendor" | "laboratory" },
  laboratoryRoots: readonly string[],
): readonly Finding[] {
  if (rootKind === "vendor") return []
  const expected = laboratoryRoots.length === 0 ? "no laboratory root" : laboratoryRoots.join(" or ")
  return [finding(laboratoryRoots.includes(root) ? "insecure-laboratory" : "laboratory-root-not-accepted", "TEE root", root, expected)]
}

function measured(subject: string, found: string, expected: Accepted): readonly Finding[] {
  return expected === "any" ? [] : demand(expected.includes(found), "tee-measurement-differs", subject, found, expected.join(" or "))
}

function listed(subject: string, found: string | undefined, expected: Accepted): readonly Finding[] {
  if (expected === "any") return []
  return demand(found !== undefined && expected.includes(found), "tee-platform-not-listed", subject, found ?? "masked", expected.join(" or "))
}

function atLeast(subject: string, found: number, least: number): readonly Finding[] {
  return demand(found >= least, "tee-measurement-differs", subject, found, `at least ${least}`)
}

function demand(holds: boolean, code: FindingCode, subject: string, found: string | number, expected: string | number): readonly Finding[] {
  return holds ? [] : [finding(code, subject, String(found), String(expected))]
}
