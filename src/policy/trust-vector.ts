import { type TrustClaim, type TrustTier, type TrustVector, tierOf, trustTiers, worstOfVector, worstTier } from "./ar4si.ts"
import type { TeeKind } from "../evidence/tee/format.ts"
import type { HostMachine } from "./document.ts"
import { type Finding, type FindingCode, findingCodes } from "./findings.ts"
import type { References } from "./reference.ts"
import { teeKindOf } from "./tee.ts"
import type { AzurePcr, AzureRequirement, SgxRequirement, SnpRequirement, TdxRequirement, TeeRequirement } from "./tee.ts"

/**
 * What an appraisal says, in the words of AR4SI. Each value comes from what was judged: where nothing was judged the claim is 0, and no finding makes a value
 * better. docs/attestation-results.md explains each for people.
 */

/** One part of a machine that was appraised by itself, as far as the mapping needs it. */
export type AppraisedPiece = TpmPiece | TeePiece

/** A host by its TPM: endorsement, boot log and IMA list. */
export interface TpmPiece {
  readonly kind: "tpm"
  /** What the policy demands, and the level at which it is judged; undefined where the policy has no such machine. */
  readonly machine: Pick<HostMachine, "level" | "boot" | "ima"> | undefined
  readonly references: References
  /** Its endorsement chains to a laboratory root. */
  readonly laboratory: boolean
}

export interface TeePiece {
  readonly kind: TeeKind
  /** The alternative that it met; undefined where it met none. */
  readonly requirement: TeeRequirement | undefined
  readonly laboratory: boolean
  /** The maker calls its firmware and microcode up to date. */
  readonly upToDate: boolean
}

/** What is said of one piece. */
export interface PieceTrust {
  readonly status: TrustTier
  readonly vector: TrustVector
  readonly laboratory: boolean
}

/** Findings of an appraisal, notes too; `not-genuine` where verification failed before anything could be appraised. */
export type Appraised = readonly Pick<Finding, "code">[] | "not-genuine"

/**
 * Vector and status of each piece, under the piece's kind: how submodules of a result are named. A refusal that speaks of none of the pieces counts against all.
 * @throws {TypeError} for two pieces of one kind
 */
export function trustOf(pieces: readonly AppraisedPiece[], appraised: Appraised): Readonly<Record<string, PieceTrust>> {
  if (new Set(pieces.map(({ kind }) => kind)).size !== pieces.length) throw new TypeError("two pieces of one kind")
  const trust = pieces.map((piece) => [piece.kind, trustOfPiece(piece, appraised)] as const)
  const isRefused = appraised === "not-genuine" || appraised.some(({ code }) => findingCodes[code].effect === "refusal")
  if (!isRefused || trust.some(([, { status }]) => status === "contraindicated")) return Object.fromEntries(trust)
  return Object.fromEntries(trust.map(([kind, one]) => [kind, { ...one, status: "contraindicated" }]))
}

function trustOfPiece(piece: AppraisedPiece, appraised: Appraised): PieceTrust {
  const judged = judgedVector(piece)
  const { laboratory } = piece
  if (appraised === "not-genuine") return { status: "contraindicated", vector: everyClaim(judged, failedValidation), laboratory }
  const effects = appraised.map(({ code }) => findingEffects[code]).filter(({ of }) => of === "any" || (of === "tpm") === (piece.kind === "tpm"))
  const vector = effects.reduce<TrustVector>(
    (before, { claims }) => combined(before, claims === "all-failed" ? everyClaim(judged, failedValidation) : claims),
    judged,
  )
  const refuses = effects.some(({ refuses: whole }) => whole === true)
  return { vector, status: worstTier([worstOfVector(vector), refuses ? "contraindicated" : "none"]), laboratory }
}

/** Cryptographic validation of the evidence has failed: one value for every claim. */
const failedValidation = 99

function everyClaim(vector: TrustVector, value: number): TrustVector {
  return Object.fromEntries(Object.keys(vector).map((claim) => [claim, value]))
}

/** Of two values of a claim the one that says less good. Here 0 counts as worse than an affirmation, for it takes one back. */
function combined(before: TrustVector, more: TrustVector): TrustVector {
  const result: Partial<Record<TrustClaim, number>> = { ...before }
  for (const [name, value] of Object.entries(more)) {
    const claim = name as TrustClaim
    const known = result[claim]
    if (known === undefined || weight(value) > weight(known)) result[claim] = value
  }
  return result
}

function weight(value: number): number {
  const tier = tierOf(value)
  // Within a tier the first reason stays; 99 alone says more than the others.
  const place = tier === "affirming" ? 0 : tier === "none" ? 1 : trustTiers.indexOf(tier)
  return place * 2 + (value === failedValidation ? 1 : 0)
}

// --- what was judged, before any finding --------------------------------------------------------------------------------------------------------

/** Values for a piece of which nothing was found. */
function judgedVector(piece: AppraisedPiece): TrustVector {
  return piece.kind === "tpm" ? judgedTpm(piece) : judgedTee(piece)
}

function judgedTpm({ machine, references, laboratory }: TpmPiece): TrustVector {
  const boot = machine === undefined ? undefined : references.get(machine.boot.reference)
  const ima = machine === undefined ? undefined : references.get(machine.ima.reference)
  const bootJudged = boot?.kind === "boot"
  const sealed = machine?.level === "sealed" && bootJudged
  // Files that may change while they are read hold what nobody has compared.
  const unwatched = machine !== undefined && machine.ima.violations !== "deny" && machine.ima.violations.allow.length > 0
  return {
    "instance-identity": laboratory ? nothingSaid : 2,
    // At level administered nobody judged who may log in, read other programs' memory or swap.
    configuration: bootJudged ? (sealed && boot.secureBoot !== "any" ? 2 : partlyUnknown) : nothingSaid,
    executables: bootJudged && ima?.kind === "ima" ? (unwatched ? notAllRecognized : 2) : nothingSaid,
    "file-system": sealed ? 2 : nothingSaid,
    hardware: laboratory ? knownWeakness : 2,
  }
}

function judgedTee({ kind, requirement, laboratory, upToDate }: TeePiece): TrustVector {
  const judged = requirement === undefined ? undefined : judgedRequirement(kind, requirement)
  return {
    "instance-identity": judged?.namesPlatform === true && !laboratory ? 2 : nothingSaid,
    configuration: judged === undefined ? nothingSaid : judged.settings ? 2 : partlyUnknown,
    executables: judged === undefined ? nothingSaid : judged.measured ? 3 : notAllRecognized,
    hardware: laboratory || !upToDate ? knownWeakness : 2,
    // A paravisor sees all of the guest's memory, so it is opaque to the operator as far as it is stated which code the paravisor is.
    "runtime-opaque": laboratory || judged?.namesParavisor === false ? notEncrypted : 2,
  }
}

interface JudgedRequirement {
  /** Everything that was loaded at the start is compared. */
  readonly measured: boolean
  /** No setting that weakens the TEE is left open. */
  readonly settings: boolean
  /** The policy lists the processors that are meant. */
  readonly namesPlatform: boolean
  /** Of a machine with a paravisor: its measurement is compared, not only who signed it. */
  readonly namesParavisor?: boolean
}

function judgedRequirement(kind: TeePiece["kind"], requirement: TeeRequirement): JudgedRequirement {
  if (teeKindOf(requirement) !== kind) throw new TypeError("a requirement of another kind of TEE")
  if ("azure" in requirement) return judgedAzure(requirement.azure)
  if ("tdx" in requirement) return judgedTdx(requirement.tdx)
  return "sgx" in requirement ? judgedSgx(requirement.sgx) : judgedSnp(requirement.snp)
}

function judgedAzure({ tee, pcrs, attestationKeys, vmConfiguration }: AzureRequirement): JudgedRequirement {
  const paravisor = "snp" in tee ? judgedSnp(tee.snp) : { ...judgedTdx(tee.tdx), measured: tee.tdx.mrTd !== "any" }
  const isPinned = (registers: readonly AzurePcr[]): boolean => registers.every((pcr) => pcrs[pcr] !== "any")
  const { secureBoot, interactiveConsoleEnabled, unknownSettings } = vmConfiguration
  return {
    measured: paravisor.measured && isPinned(codeRegisters),
    settings:
      paravisor.settings && isPinned(settingRegisters) && secureBoot === true && interactiveConsoleEnabled === false && unknownSettings === "none",
    // Attestation key: the very virtual TPM, which a processor's name does not say.
    namesPlatform: paravisor.namesPlatform || attestationKeys !== "any",
    namesParavisor: paravisor.measured,
  }
}

/** Firmware, option ROMs, loaders and kernel; command line and what it read, by GRUB or as one unified image. TCG PC Client Platform Firmware Profile; UAPI Group. */
const codeRegisters = ["0", "2", "4", "8", "9", "11", "12", "13"] as const
/** Their configuration, partition table, secure boot and the shim's own lists. */
const settingRegisters = ["1", "3", "5", "7", "14"] as const

function judgedTdx({ mrTd, rtmrs, septVeDisable, platforms }: TdxRequirement): JudgedRequirement {
  return {
    measured: [mrTd, rtmrs[1], rtmrs[2]].every((accepted) => accepted !== "any"),
    settings: septVeDisable === true && rtmrs[0] !== "any",
    namesPlatform: platforms !== "any",
  }
}

function judgedSgx({ mrEnclave, configId, platforms }: SgxRequirement): JudgedRequirement {
  return { measured: mrEnclave !== "any", settings: configId !== "any", namesPlatform: platforms !== "any" }
}

function judgedSnp({ measurement, smt, chips }: SnpRequirement): JudgedRequirement {
  return { measured: measurement !== "any", settings: smt === false, namesPlatform: chips !== "any" }
}

/** No assertion. */
const nothingSaid = 0
/** configuration: elements relevant to security are unavailable to the verifier. */
const partlyUnknown = 36
/** executables: memory includes what is not recognized. */
const notAllRecognized = 33
/** hardware: genuine, but with known weaknesses. A laboratory root's is that whoever holds it can imitate the device. */
const knownWeakness = 32
/** runtime-opaque: not encrypted against the machine's own operator. */
const notEncrypted = 32

// --- what each finding says ---------------------------------------------------------------------------------------------------------------------

interface FindingEffect {
  /** Which kind of piece it speaks of. */
  readonly of: "tpm" | "tee" | "any"
  readonly claims: TrustVector | "all-failed"
  /** Refuses the machine as a whole, whatever the vector says. */
  readonly refuses?: true
}

const bad = 96
/** instance-identity and hardware: not recognized, but it should be. */
const unrecognized = 97

const badBoot = { configuration: bad, executables: bad } as const
const tpm = (claims: TrustVector): FindingEffect => ({ of: "tpm", claims })
const tee = (claims: TrustVector): FindingEffect => ({ of: "tee", claims })
/** Nothing was compared, so what would be affirmed is taken back. */
const unjudged = { configuration: nothingSaid, executables: nothingSaid, "file-system": nothingSaid } as const

/** Every code has its line: one that is forgotten does not compile. */
export const findingEffects: Readonly<Record<FindingCode, FindingEffect>> = {
  "job-not-in-policy": {
    of: "any",
    claims: { ...unjudged, "instance-identity": nothingSaid, hardware: nothingSaid, "runtime-opaque": nothingSaid },
    refuses: true,
  },
  "policy-expired": { of: "any", claims: {}, refuses: true },
  "reference-missing": { of: "tpm", claims: unjudged, refuses: true },
  "reference-expired": { of: "tpm", claims: unjudged, refuses: true },
  "identity-missing": tpm({ "instance-identity": unrecognized, hardware: unrecognized }),
  "endorsement-key-not-listed": tpm({ "instance-identity": unrecognized }),
  "laboratory-root-not-accepted": { of: "any", claims: { hardware: unrecognized } },
  // Said by `laboratory`, which is known whatever was found.
  "insecure-laboratory": { of: "any", claims: {} },
  "reference-updated": { of: "tpm", claims: {} },
  "tee-kind-not-accepted": tee({ hardware: unrecognized }),
  "tee-measurement-differs": tee({ executables: bad }),
  "tee-setting-differs": tee({ configuration: bad }),
  "tee-debug": tee({ configuration: bad, "runtime-opaque": bad }),
  "tee-migration-possible": tee({ configuration: bad, "runtime-opaque": bad }),
  "tee-not-bound": { of: "tee", claims: "all-failed" },
  "tee-collateral-missing": tee({ hardware: bad }),
  "tee-tcb-not-accepted": tee({ hardware: bad }),
  "tee-platform-not-listed": tee({ "instance-identity": unrecognized }),
  "tee-log-missing": tee({ executables: bad }),
  "startup-locality-differs": tpm({ hardware: bad }),
  "clock-not-safe": tpm({ hardware: bad }),
  "weak-hash": { of: "tpm", claims: "all-failed" },
  "wrong-bank": tpm(badBoot),
  "register-not-quoted": tpm(badBoot),
  "secure-boot-differs": tpm({ configuration: bad }),
  "boot-quirk-not-accepted": { of: "any", claims: { hardware: bad } },
  "boot-quirk-accepted": { of: "any", claims: { hardware: knownWeakness } },
  "boot-register-unexpected": tpm(badBoot),
  "boot-event-unexpected": tpm(badBoot),
  "boot-event-missing": tpm(badBoot),
  "boot-event-differs": tpm(badBoot),
  "command-line-differs": tpm({ configuration: bad }),
  "ima-list-incomplete": tpm({ executables: bad }),
  "ima-boot-aggregate-missing": tpm({ executables: bad }),
  "ima-wrong-register": tpm({ executables: bad }),
  "ima-weak-extend": tpm({ executables: bad }),
  "ima-weak-hash": tpm({ executables: bad }),
  "ima-unknown-file": tpm({ executables: bad }),
  "ima-unknown-buffer": tpm({ executables: bad }),
  "ima-violation": tpm({ executables: bad }),
  "ima-policy-missing": tpm(badBoot),
  "ima-policy-unmeasured": tpm(badBoot),
  "ima-policy-weak": tpm(badBoot),
  "ima-policy-replaceable": tpm(badBoot),
  "ima-tail-not-certified": tpm({ executables: bad }),
  "boot-session-changed": { of: "any", claims: { "instance-identity": bad } },
  "piece-missing": { of: "any", claims: unjudged, refuses: true },
  "piece-not-asked-for": { of: "any", claims: {}, refuses: true },
  "appliance-not-stated": tpm({ configuration: bad, "file-system": bad }),
  "command-line-not-measured": tpm({ configuration: bad }),
  "command-line-unreadable": tpm({ configuration: bad }),
  "unknown-boot-parameter": tpm({ configuration: bad }),
  "initrd-not-measured": tpm({ executables: bad }),
  "verity-root-not-measured": tpm({ "file-system": bad }),
  "lockdown-not-confidentiality": tpm({ configuration: bad }),
  "module-signatures-not-enforced": tpm({ configuration: bad }),
  "iommu-not-strict": tpm({ configuration: bad }),
  "login-possible": tpm({ configuration: bad }),
  "tpm-open-to-others": tpm({ configuration: bad }),
  "ptrace-possible": tpm({ configuration: bad }),
  "swap-possible": tpm({ configuration: bad }),
  "core-dumps-possible": tpm({ configuration: bad }),
  "suspend-possible": tpm({ configuration: bad }),
  "kexec-possible": tpm({ configuration: bad }),
  "programs-outside-root": tpm({ executables: bad, "file-system": bad }),
}

/** Codes of an appraisal's findings, each once, refusals first: what a result tells to others than the parties. */
export function codesOf(appraised: Appraised): readonly FindingCode[] {
  if (appraised === "not-genuine") return []
  const codes = [...new Set(appraised.map(({ code }) => code))]
  return codes.toSorted((a, b) => Number(findingCodes[b].effect === "refusal") - Number(findingCodes[a].effect === "refusal"))
}
