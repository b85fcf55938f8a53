import type { Digest } from "../bytes/digest.ts"
import type { Genuine } from "../evidence/genuine.ts"
import type { HostClaims } from "../evidence/host/claims.ts"
import type { MachineClaims } from "../evidence/machine/claims.ts"
import { hardwareClaims, teeIdentity } from "../evidence/tee/identity.ts"
import type { GenuineTee } from "../evidence/tee/verify.ts"
import type { ClockInfo } from "../evidence/tpm/claims.ts"
import { bootFindings, localityFindings } from "./appraise-boot.ts"
import type { ImaProgress } from "./appraise-ima.ts"
import { imaFindings, imaProgress } from "./appraise-ima.ts"
import { imaPolicyFindings } from "./appraise-ima-policy.ts"
import { sealedFindings } from "./appraise-sealed.ts"
import { AcceptedTee, appraiseTee } from "./appraise-tee.ts"
import type { HostLevel, HostRequirement, Level, Machine, Policy } from "./document.ts"
import { hostLevelOf, hostRequirementOf, own, policyDigest } from "./document.ts"
import type { Finding } from "./findings.ts"
import { finding, printable } from "./findings.ts"
import type { BootReference, ImaReference, References } from "./reference.ts"
import type { ReplacedReferences } from "./reference-updates.ts"
import type { TeeSession } from "./tee-session.ts"
import { teeSession, teeSessionFindings } from "./tee-session.ts"
import type { TeeRequirement } from "./tee.ts"
import { isOver } from "./time.ts"

/** What a machine is held against. Everything is given; nothing is looked up, and no time is read. */
export interface AppraisalRequest {
  readonly policy: Policy
  /** Name of the job whose keys are asked for. */
  readonly job: string
  /** As `referencesByDigest` makes it. */
  readonly references: References
  /** What a delegate has put in the place of the policy's own references; left out: nothing. */
  readonly replaced?: ReplacedReferences
  /** The manager's time. */
  readonly time: Date
  /** At a lease's renewal: what the decision before was about. Undefined at a claim, where the whole boot must be shown. */
  readonly previous?: PreviousDecision
}

export type Decision = GrantedDecision | RefusedDecision

export interface RefusedDecision {
  readonly outcome: "refused"
  readonly policy: Digest
  readonly job: string
  /** At least one refusal; every finding, notes too. */
  readonly findings: readonly Finding[]
  readonly pieces: readonly JudgedPiece[]
}

/** One piece of the machine's evidence that was judged, beside what was found. */
export type JudgedPiece =
  | { readonly kind: "tpm"; /** Laboratory root that it chains to. */ readonly laboratoryRoot?: Digest }
  | {
      readonly kind: GenuineTee["kind"]
      readonly laboratoryRoot?: Digest
      /** The alternative that it meets; undefined where it meets none. */
      readonly requirement?: TeeRequirement
      /** Intel calls all of the platform up to date; of AMD, which calls nothing so, that the policy's floors are met. */
      readonly upToDate: boolean
    }

/** The part of a granted decision that renewals rest on. Plain JSON, so that a manager can keep it over a restart; it releases nothing. */
export type PreviousDecision = Pick<GrantedDecision, "policy" | "job" | "session">

/** What later evidence of the same machine is held against: of each piece that it showed. Plain JSON. */
export interface MachineSession {
  readonly host?: BootSession
  readonly tee?: TeeSession
}

/** The boot behind a TPM's quote. Plain JSON. */
export interface BootSession {
  readonly endorsementKey: Digest
  readonly attestationKeyName: string
  readonly resetCount: number
  readonly restartCount: number
  /** Milliseconds that the TPM has been powered; decimal, because it has 64 bits. */
  readonly clock: string
  readonly ima: ImaProgress
}

const proof: unique symbol = Symbol("made by appraise")

/**
 * A machine met every requirement of a job. Only `appraise` can make one, and `releaseKey` takes nothing else, so a forgotten appraisal does not compile.
 */
export class GrantedDecision {
  readonly outcome = "granted"
  readonly policy: Digest
  readonly job: string
  readonly machine: string
  readonly level: Level
  /** Notes only. */
  readonly findings: readonly Finding[]
  readonly pieces: readonly JudgedPiece[]
  readonly session: MachineSession

  /** For `appraise` only: nobody else holds `key`. */
  constructor(key: typeof proof, facts: Omit<GrantedDecision, "outcome" | "laboratoryRoots" | "insecureLaboratory">) {
    if (key !== proof) throw new TypeError("a granted decision is made by appraise only")
    this.policy = facts.policy
    this.job = facts.job
    this.machine = facts.machine
    this.level = facts.level
    this.findings = facts.findings
    this.pieces = facts.pieces
    this.session = facts.session
    Object.freeze(this)
  }

  /** Laboratory roots that the machine's pieces chain to: with any, everything that comes of it carries INSECURE LABORATORY. */
  get laboratoryRoots(): readonly Digest[] {
    return laboratoryRootsOfPieces(this.pieces)
  }

  get insecureLaboratory(): boolean {
    return this.laboratoryRoots.length > 0
  }
}

/**
 * Decides whether a machine that is genuine is also what the policy asks for. Refused unless every check passes; every finding is in the decision, not
 * just the first.
 * @throws {TypeError} when `previous` belongs to another policy or job: wrong use
 */
export function appraise(evidence: Genuine<MachineClaims>, request: AppraisalRequest): Decision {
  const { policy, job: jobName, previous } = request
  const digest = policyDigest(policy)
  if (previous !== undefined && (previous.policy !== digest || previous.job !== jobName))
    throw new TypeError("the previous decision belongs to another policy or job")
  const about = { policy: digest, job: jobName }
  const { machine, findings, pieces, session } = judgePieces(evidence.claims.host, evidence.claims.tee, request)
  if (machine === undefined || isRefusal(findings)) return { ...about, outcome: "refused", findings, pieces }
  return new GrantedDecision(proof, { ...about, ...machine, findings, pieces, session })
}

/** Whether a machine would be let in. It can release nothing. */
export interface Simulation {
  readonly outcome: "would-be-granted" | "would-be-refused"
  readonly findings: readonly Finding[]
  readonly pieces: readonly JudgedPiece[]
}

/**
 * What `appraise` would find in evidence that was recorded, for whatever session. Evidence without a session of its own proves no machine that is there now, so what comes out is
 * no decision.
 */
export function simulate(
  evidence: { readonly host?: Genuine<HostClaims>; readonly tee?: GenuineTee },
  request: Omit<AppraisalRequest, "previous">,
): Simulation {
  const { findings, pieces } = judgePieces(evidence.host?.claims, evidence.tee, request)
  return { outcome: isRefusal(findings) ? "would-be-refused" : "would-be-granted", findings, pieces }
}

interface Judged {
  /** Undefined, with a refusal, where the policy has no such job or machine. */
  readonly machine?: Pick<GrantedDecision, "machine" | "level">
  readonly findings: readonly Finding[]
  readonly pieces: readonly JudgedPiece[]
  readonly session: MachineSession
}

function judgePieces(hostClaims: HostClaims | undefined, teeEvidence: GenuineTee | undefined, request: AppraisalRequest): Judged {
  const { policy, job: jobName } = request
  const name = own(policy.jobs, jobName)?.machine ?? ""
  const machine = own(policy.machines, name)
  if (machine === undefined) {
    const findings = [finding("job-not-in-policy", printable(jobName), "no such job or machine", "a job of the policy")]
    return { findings, pieces: [], session: {} }
  }
  const host = judgeHost(hostClaims, machine, request)
  const tee = judgeTee(teeEvidence, machine, request)
  const together = paravisorTpmFindings(hostClaims, teeEvidence)
  return {
    machine: { machine: name, level: machine.level },
    findings: [...expiryFindings(policy, request.time), ...host.findings, ...tee.findings, ...together],
    pieces: [host.piece, tee.piece].filter((piece) => piece !== undefined),
    session: {
      ...(host.session === undefined ? {} : { host: host.session }),
      ...(tee.session === undefined ? {} : { tee: tee.session }),
    },
  }
}

function isRefusal(findings: readonly Finding[]): boolean {
  return findings.some(({ effect }) => effect === "refusal")
}

/** Laboratory roots of these pieces, each once. */
export function laboratoryRootsOfPieces(pieces: readonly JudgedPiece[]): readonly Digest[] {
  return [...new Set(pieces.flatMap(({ laboratoryRoot }) => laboratoryRoot ?? []))]
}

/** What one piece of evidence comes to; without `piece` where there is none. */
interface PieceJudgement<Session> {
  readonly findings: readonly Finding[]
  readonly piece?: JudgedPiece
  readonly session?: Session
}

function judgeHost(claims: HostClaims | undefined, machine: Machine, request: AppraisalRequest): PieceJudgement<BootSession> {
  const requirement = hostRequirementOf(machine)
  if (requirement === undefined || claims === undefined) return { findings: pieceFindings("TPM", requirement, claims) }
  const findings = [
    ...identityFindings(claims, requirement),
    ...quoteFindings(claims, requirement),
    ...referenceFindings(claims, requirement, hostLevelOf(machine), request),
    ...(request.previous === undefined ? [] : sessionFindings(claims, request.previous.session.host)),
  ]
  const { identity } = claims
  if (identity === undefined) return { findings, piece: { kind: "tpm" } }
  return { findings, session: sessionOf(identity, claims), piece: { kind: "tpm", ...laboratoryRootOf(identity) } }
}

function judgeTee(evidence: GenuineTee | undefined, machine: Machine, { previous }: AppraisalRequest): PieceJudgement<TeeSession> {
  const requirement = machine.level === "enclave" ? machine.accept : undefined
  if (requirement === undefined || evidence === undefined) return { findings: pieceFindings("TEE", requirement, evidence) }
  const session = teeSession(evidence)
  const hardware = hardwareClaims(evidence)
  const appraisal = appraiseTee(evidence, requirement)
  const met = appraisal instanceof AcceptedTee ? requirement[appraisal.alternative] : undefined
  return {
    findings: [...appraisal.findings, ...(previous === undefined ? [] : teeSessionFindings(session, previous.session.tee))],
    session,
    piece: {
      kind: evidence.kind,
      ...laboratoryRootOf(teeIdentity(evidence)),
      ...(met === undefined ? {} : { requirement: met }),
      upToDate: hardware.kind === "snp" ? met !== undefined : hardware.dcap.tcb.status === "UpToDate",
    },
  }
}

/** The guest's TPM must be the paravisor's own: another that answers for it is outside of what the processor measured. */
function paravisorTpmFindings(host: HostClaims | undefined, tee: GenuineTee | undefined): readonly Finding[] {
  if (tee?.kind !== "azure-vtpm" || host?.identity === undefined) return []
  const { endorsementKey } = host.identity
  const own = tee.tee.claims.endorsementKey
  return own === endorsementKey ? [] : [finding("endorsement-key-not-listed", "HCLEkPub", own ?? "not stated", endorsementKey)]
}

function laboratoryRootOf({ root, rootKind }: { readonly root: Digest; readonly rootKind: "vendor" | "laboratory" }): { laboratoryRoot?: Digest } {
  return rootKind === "laboratory" ? { laboratoryRoot: root } : {}
}

/** A piece that is there and not demanded is refused too: nothing judged it. */
function pieceFindings(name: string, requirement: unknown, piece: unknown): readonly Finding[] {
  if (requirement === undefined && piece === undefined) return []
  return requirement === undefined
    ? [finding("piece-not-asked-for", name, "evidence of it", "none")]
    : [finding("piece-missing", name, "no evidence of it", "genuine evidence")]
}

function sessionOf(identity: NonNullable<HostClaims["identity"]>, claims: HostClaims): BootSession {
  const { resetCount, restartCount, clock } = claims.quote.clockInfo
  return {
    endorsementKey: identity.endorsementKey,
    attestationKeyName: identity.attestationKeyName,
    resetCount,
    restartCount,
    clock: String(clock),
    ima: imaProgress(claims.ima),
  }
}

function expiryFindings(policy: Policy, time: Date): readonly Finding[] {
  return isOver(policy.expires, time) ? [finding("policy-expired", policy.study, time.toISOString(), `before ${policy.expires}`)] : []
}

function identityFindings({ identity }: HostClaims, { tpm }: HostRequirement): readonly Finding[] {
  if (identity === undefined) return [finding("identity-missing", "TPM", "no endorsement", "an endorsement key of the policy")]
  const findings: Finding[] = []
  if (!tpm.endorsementKeys.includes(identity.endorsementKey))
    findings.push(finding("endorsement-key-not-listed", printable(identity.description), identity.endorsementKey, tpm.endorsementKeys.join(" or ")))
  if (identity.rootKind === "laboratory") {
    const isAccepted = tpm.laboratoryRoots.includes(identity.root)
    const accepted = tpm.laboratoryRoots.length === 0 ? "no laboratory root" : tpm.laboratoryRoots.join(" or ")
    findings.push(finding(isAccepted ? "insecure-laboratory" : "laboratory-root-not-accepted", "TPM root", identity.root, accepted))
  }
  return findings
}

function quoteFindings({ quote, boot }: HostClaims, { tpm }: HostRequirement): readonly Finding[] {
  const findings: Finding[] = [...localityFindings("policy", boot.startupLocality, tpm.startupLocality)]
  if (tpm.clock === "safe" && !quote.clockInfo.safe) findings.push(finding("clock-not-safe", "TPM clock", "not safe", "safe"))
  if (quote.usesSha1) findings.push(finding("weak-hash", "quote", printable(quote.scheme), "no SHA-1"))
  return findings
}

function referenceFindings(
  claims: HostClaims,
  machine: HostRequirement,
  level: HostLevel,
  { references, replaced = {}, time, previous }: AppraisalRequest,
): readonly Finding[] {
  const named = { boot: replaced.boot ?? machine.boot.reference, ima: replaced.ima ?? machine.ima.reference }
  const findings: Finding[] = [
    ...replacementFindings("boot", named.boot, machine.boot.reference),
    ...replacementFindings("ima", named.ima, machine.ima.reference),
  ]
  const boot = references.get(named.boot)
  if (boot?.kind === "boot") {
    findings.push(...referenceExpiry(boot, time), ...coverageFindings(claims, boot), ...bootFindings(claims.boot, boot))
    findings.push(...levelFindings(claims, level, boot))
  } else findings.push(finding("reference-missing", "boot", boot?.kind ?? "nothing", named.boot))
  const ima = references.get(named.ima)
  if (ima?.kind === "ima") {
    findings.push(...referenceExpiry(ima, time), ...imaFindings(claims.ima, ima, machine.ima.violations, previous?.session.host?.ima))
    findings.push(...imaPolicyFindings(claims.boot, claims.ima, ima.imaPolicy, level))
  } else findings.push(finding("reference-missing", "ima", ima?.kind ?? "nothing", named.ima))
  return findings
}

/** Whoever reads the decision sees that it rests on what a delegate signed, and on which document. */
function replacementFindings(piece: string, used: Digest, stated: Digest): readonly Finding[] {
  return used === stated ? [] : [finding("reference-updated", piece, used, stated)]
}

function levelFindings(claims: HostClaims, level: HostLevel, boot: BootReference): readonly Finding[] {
  switch (level) {
    case "administered":
      return []
    case "sealed":
      return sealedFindings(claims.boot, boot)
  }
}

function referenceExpiry(reference: BootReference | ImaReference, time: Date): readonly Finding[] {
  if (!isOver(reference.expires, time)) return []
  return [finding("reference-expired", printable(reference.name), time.toISOString(), `before ${reference.expires}`)]
}

/** A register that is not quoted proves nothing, even where a log speaks of it. */
function coverageFindings({ quote }: HostClaims, boot: BootReference): readonly Finding[] {
  const quoted = new Set(quote.selection.flatMap(({ bank, pcrs }) => (bank === boot.bank ? pcrs : [])))
  return [...boot.registers.map(({ pcr }) => pcr), imaRegister]
    .filter((pcr) => !quoted.has(pcr))
    .map((pcr) => finding("register-not-quoted", `register ${pcr}`, "not quoted", `quoted in bank ${boot.bank}`))
}

const imaRegister = 10

/** Counters may be masked per key, so they are compared between quotes of one key only, which is why the key is compared as well. */
function sessionFindings({ identity, quote }: HostClaims, previous: BootSession | undefined): readonly Finding[] {
  if (previous === undefined) return [finding("boot-session-changed", "TPM", "evidence of one", "none, as before")]
  const now: Readonly<Record<string, string | undefined>> = {
    "endorsement key": identity?.endorsementKey,
    "attestation key": identity?.attestationKeyName,
    "reset count": String(quote.clockInfo.resetCount),
    "restart count": String(quote.clockInfo.restartCount),
  }
  const before: Readonly<Record<string, string>> = {
    "endorsement key": previous.endorsementKey,
    "attestation key": previous.attestationKeyName,
    "reset count": String(previous.resetCount),
    "restart count": String(previous.restartCount),
  }
  const changed = Object.entries(before).filter(([name, value]) => now[name] !== value)
  const findings = changed.map(([name, value]) => finding("boot-session-changed", name, now[name] ?? "none", value))
  return hasGoneBack(quote.clockInfo, previous)
    ? [...findings, finding("boot-session-changed", "TPM clock", String(quote.clockInfo.clock), `at least ${previous.clock}`)]
    : findings
}

function hasGoneBack({ clock }: ClockInfo, previous: BootSession): boolean {
  return clock < BigInt(previous.clock)
}
