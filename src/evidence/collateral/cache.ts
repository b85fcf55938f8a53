import { mkdir, readdir, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { readFileBounded, writeFileDurably } from "../../bytes/durable.ts"
import { isAllZero } from "../../bytes/compare.ts"
import { PerunError, UnavailableError } from "../../bytes/error.ts"
import { encodeHex } from "../../bytes/text.ts"
import type { AzureVmEvidence } from "../azure/document.ts"
import { EvidenceError } from "../errors.ts"
import { parseSnpReport } from "../snp/format.ts"
import { productOfCpu, snpProductNames, tcbOf, type SnpProduct, type Tcb } from "../snp/products.ts"
import { encodeTeeEvidence, hardwareOf, parseTeeEvidence, withHardware, type TeeEvidence } from "../tee/format.ts"
import { maxTeeEvidenceBytes, type HardwareEvidence, type HardwareKind, type SnpTeeEvidence } from "../tee/hardware.ts"
import { hardwareClaims } from "../tee/identity.ts"
import type { TeeRoots } from "../tee/roots.ts"
import type { GenuineTee } from "../tee/verify.ts"
import { verifyTee } from "../tee/verify.ts"
import { supplementedBy } from "../tee/vouchers.ts"

/**
 * A folder of collateral. An entry is evidence of a platform with all that vouches for it, and is believed only as far as it verifies at the moment of its use: nothing that
 * is past its `nextUpdate`, revoked or changed on the disk leaves this file.
 */
export interface CollateralJudge {
  /** Roots for an entry: the vendors', and laboratory roots that the caller names. */
  readonly roots: (evidence: TeeEvidence) => TeeRoots
  /** Milliseconds since 1970. */
  readonly time: number
}

/** What an entry is of. */
export interface CollateralEntry {
  /** File name in the folder. */
  readonly name: string
  readonly kind: HardwareKind
  /** For people: platform, authority, product. */
  readonly of: string
  /** Milliseconds since 1970 up to which all of it is valid. */
  readonly validUntil: number
  readonly isLaboratory: boolean
}

/** An entry as it lies in the folder: good, or why not. */
export type JudgedEntry =
  | { readonly state: "fresh" | "refresh-soon"; readonly entry: CollateralEntry }
  | { readonly state: "unusable"; readonly name: string; readonly code: string; readonly message: string }

/** Before the end of its time by so much, an entry should be fetched again. */
export const refreshMilliseconds = 7 * 86_400_000
/** Platforms of a large site. */
const maxEntries = 10_000

/**
 * Keeps what vouches for this evidence's hardware, after all of that was verified. An entry of the same platform is replaced at once or not at all.
 * @throws {EvidenceError} as verifyTee, and `missing-piece` where something is missing; {UnavailableError} `disk-full`, `permission-denied`
 */
export async function storeCollateral(folder: string, evidence: TeeEvidence, judge: CollateralJudge): Promise<CollateralEntry> {
  const hardware = hardwareOf(evidence)
  const entry = entryOf(verifyWhole(hardware, judge))
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, entry.name)
  await writeFileDurably(path, `${JSON.stringify(encodeTeeEvidence(withoutLog(hardware)))}\n`)
  await removeLeftOvers(folder, (await stat(path)).mtimeMs - leftOverMilliseconds)
  return entry
}

/** What a writer that was killed left behind. A file of a writer that still lives is younger. Both times are the disk's. */
async function removeLeftOvers(folder: string, before: number): Promise<void> {
  for (const name of (await list(folder)).filter((found) => temporaryName.test(found))) {
    const path = join(folder, name)
    const found = await stat(path).catch(ignoreAbsent)
    if (found !== undefined && found.mtimeMs < before) await rm(path, { force: true })
  }
}

/** A file that is not there, or that another process removed in the meantime; everything else is an error. */
function ignoreAbsent(error: unknown): undefined {
  const reason = error instanceof UnavailableError ? error.cause : error
  if (reason instanceof Error && "code" in reason && reason.code === "ENOENT") return undefined
  throw error
}

/** As writeFileDurably names them. */
const temporaryName = /^\.[0-9a-f]{16}\.tmp$/
const leftOverMilliseconds = 3_600_000

/**
 * Evidence with what the folder has for its platform; as it is where it brings its own, or where nothing usable is there.
 * @throws {EvidenceError}, {MalformedError} the evidence itself is not genuine; {UnavailableError} the folder's entry cannot be read
 */
export async function withCachedCollateral(folder: string, evidence: AzureVmEvidence, judge: CollateralJudge): Promise<AzureVmEvidence>
export async function withCachedCollateral(folder: string, evidence: TeeEvidence, judge: CollateralJudge): Promise<TeeEvidence>
export async function withCachedCollateral(folder: string, evidence: TeeEvidence, judge: CollateralJudge): Promise<TeeEvidence> {
  if (evidence.kind === "azure-vtpm") return withHardware(evidence, await hardwareWithCached(folder, evidence.hardware, judge))
  return hardwareWithCached(folder, evidence, judge)
}

async function hardwareWithCached(folder: string, evidence: HardwareEvidence, judge: CollateralJudge): Promise<HardwareEvidence> {
  if (evidence.kind === "snp") return withCachedEndorsements(folder, evidence, judge)
  if (evidence.collateral !== undefined) return evidence
  const { name } = entryOf(verifyTee(evidence, { reportData: "as-signed", roots: judge.roots(evidence), time: judge.time, ccelQuirks: [] }))
  const known = await loadUsable(folder, name, judge)
  if (known?.kind !== evidence.kind || known.collateral === undefined) return evidence
  return { ...evidence, collateral: known.collateral }
}

/**
 * For a report without certificates, or without a revocation list. Whose report it is, only its certificates prove: here its own word chooses a file, and whoever verifies
 * it with what was in that file finds out.
 */
async function withCachedEndorsements(folder: string, evidence: SnpTeeEvidence, judge: CollateralJudge): Promise<HardwareEvidence> {
  if ((evidence.endorsements?.revocationLists.length ?? 0) > 0) return evidence
  const report = parseSnpReport(evidence.report)
  const { signingKey, chipId } = report
  if (signingKey === "none") return evidence
  // A report of version 2 does not name its processor.
  for (const product of report.cpu === undefined ? snpProductNames : [productOfCpu(report.cpu)]) {
    const chip = isAllZero(chipId) ? undefined : encodeHex(chipId)
    const name = snpName(product, signingKey, chip, tcbOf(product, report.reportedTcb, "REPORTED_TCB"))
    const known = await loadUsable(folder, name, judge)
    if (known?.kind === "snp" && known.endorsements !== undefined) return supplementedBy(evidence, known.endorsements)
  }
  return evidence
}

/**
 * An entry that verifies now. Old, revoked, changed or damaged: as if it were not there; `check` says why.
 * @throws {UnavailableError} it is there, and cannot be read
 */
async function loadUsable(folder: string, name: string, judge: CollateralJudge): Promise<HardwareEvidence | undefined> {
  try {
    const known = await load(folder, name)
    if (known === undefined) return undefined
    return entryOf(verifyWhole(known, judge)).name === name ? known : undefined
  } catch (error) {
    if (error instanceof PerunError && !(error instanceof UnavailableError)) return undefined
    throw error
  }
}

/** Every file of the folder, judged; an empty list where there is no folder. */
export async function judgeCollateral(folder: string, judge: CollateralJudge): Promise<readonly JudgedEntry[]> {
  const names = (await list(folder)).filter((name) => name.endsWith(".json")).toSorted()
  if (names.length > maxEntries) throw new UnavailableError("unsupported", `${folder} has more than ${maxEntries} entries`)
  const judged: JudgedEntry[] = []
  for (const name of names) judged.push(await judgeEntry(folder, name, judge))
  return judged
}

async function judgeEntry(folder: string, name: string, judge: CollateralJudge): Promise<JudgedEntry> {
  try {
    const evidence = await load(folder, name)
    if (evidence === undefined) return { state: "unusable", name, code: "unavailable", message: "it is gone" }
    const entry = entryOf(verifyWhole(evidence, judge))
    if (entry.name !== name) return { state: "unusable", name, code: "wrong-binding", message: `it is of ${entry.name}` }
    return { state: entry.validUntil - judge.time < refreshMilliseconds ? "refresh-soon" : "fresh", entry }
  } catch (error) {
    if (error instanceof PerunError) return { state: "unusable", name, code: error.code, message: error.message }
    throw error
  }
}

function verifyWhole(evidence: HardwareEvidence, { roots, time }: CollateralJudge): GenuineTee {
  const genuine = verifyTee(withoutLog(evidence), { reportData: "as-signed", roots: roots(evidence), time, ccelQuirks: [] })
  const claims = hardwareClaims(genuine)
  const missing = claims.kind === "snp" ? (claims.endorsement.isRevocationChecked ? [] : ["AMD's revocation list"]) : claims.dcap.missingCollateral
  if (missing.length > 0) throw new EvidenceError("missing-piece", `not given: ${missing.join(", ")}`, { path: "collateral" })
  return genuine
}

/** The log of one boot is no collateral. */
function withoutLog(evidence: HardwareEvidence): HardwareEvidence {
  if (evidence.kind !== "tdx") return evidence
  const { eventLog: _unused, ...rest } = evidence
  return rest
}

function entryOf(genuine: GenuineTee): CollateralEntry {
  const claims = hardwareClaims(genuine)
  if (claims.kind === "snp") {
    const { product, signingKey, chipId, cspId, tcb, endorsement } = claims
    return {
      name: snpName(product, signingKey, chipId, tcb.reported),
      kind: "snp",
      of: `${product}, ${signingKey.toUpperCase()} of ${chipId ?? cspId ?? "a masked chip"}`,
      validUntil: endorsement.validUntil,
      isLaboratory: endorsement.rootKind === "laboratory",
    }
  }
  const { platform, validUntil, rootKind } = claims.dcap
  const { fmspc, authority } = platform
  return {
    name: `${claims.kind}-${fmspc}-${authority}${rootKind === "laboratory" ? "-laboratory" : ""}.json`,
    kind: claims.kind,
    of: `platforms of FMSPC ${fmspc}, ${authority} authority`,
    validUntil,
    isLaboratory: rootKind === "laboratory",
  }
}

/** A VCEK is of one chip at one patch level, so each has a file of its own. */
function snpName(product: SnpProduct, signingKey: "vcek" | "vlek", chipId: string | undefined, reported: Tcb): string {
  const whose = chipId === undefined ? "masked" : chipId.substring(0, 32)
  return `snp-${product.toLowerCase()}-${signingKey}-${whose}-${Object.values(reported).join("-")}.json`
}

async function load(folder: string, name: string): Promise<HardwareEvidence | undefined> {
  try {
    return hardwareOf(parseTeeEvidence(await readFileBounded(join(folder, name), maxTeeEvidenceBytes)))
  } catch (error) {
    return ignoreAbsent(error)
  }
}

async function list(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder)
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return []
    throw new UnavailableError("unavailable", `${folder} cannot be read`, { cause })
  }
}
