import { hash as hashOnce } from "node:crypto"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import type { HostBundle } from "../bundle.ts"
import { EvidenceError } from "../errors.ts"
import type { BootClaims } from "../eventlog/claims.ts"
import { parseEventLog } from "../eventlog/format.ts"
import { replayEventLog, startValue } from "../eventlog/replay.ts"
import { verifyEventLog } from "../eventlog/verify.ts"
import type { FirmwareQuirk } from "../eventlog/verify.ts"
import { Genuine } from "../genuine.ts"
import type { ImaState } from "../ima/claims.ts"
import { findImaRegister, imaPcr } from "../ima/replay.ts"
import type { ExtendRule } from "../ima/replay.ts"
import { verifyIma } from "../ima/verify.ts"
import { isHashName } from "../tpm/algorithms.ts"
import type { ClockInfo, PcrSelectionClaim, TpmIdentity } from "../tpm/claims.ts"
import { parseSizedPublicArea } from "../tpm/public-area.ts"
import { checkQuoteBinding, checkQuoteContents, checkQuoteSignature } from "../tpm/quote.ts"
import type { SignedQuote } from "../tpm/quote.ts"
import { checkSameBoot } from "./boot-session.ts"
import type { HostClaims } from "./claims.ts"

/** What every host quotes: firmware, boot loader and kernel (0 to 9), IMA (10), machine owner keys (14). */
export const hostPcrs: PcrSelectionClaim = { bank: "sha256", pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14] }

export interface HostExpectation {
  /** The session digest. */
  readonly extraData: Uint8Array
  /** Registers that must be quoted, exactly; one bank, with 0 to 10 among them. Usually `hostPcrs`. */
  readonly requiredPcrs: PcrSelectionClaim
  /** Firmware faults that the policy accepts by name. */
  readonly quirks: readonly FirmwareQuirk[]
  /** The TPM that was enrolled under the host's name; `unproved` gives claims without an identity, which policy refuses. */
  readonly identity: TpmIdentity | "unproved"
  /** What the last verification of this boot gave, when this is its continuation; `none` judges a boot from its start. */
  readonly previous: PreviousHost | "none"
  /** Command lines that may explain measured load options; see BootClaims. */
  readonly commandLineCandidates?: readonly string[]
  /** Hash of the list's template digests, SHA-1 but for `…_sha256` lists. */
  readonly imaHeaderHash?: HashName
  /** Accepts kernels before 5.8; see ImaExpectations. */
  readonly insecureAllowPaddedSha1?: boolean
}

/** Kept by the verifier between two quotes of one boot, never taken from the host. */
export interface PreviousHost {
  readonly clockInfo: ClockInfo
  readonly boot: BootClaims
  readonly ima: ImaState
}

/** What to keep for the next verification of the same boot. */
export function previousHost(claims: HostClaims): PreviousHost {
  return { clockInfo: claims.quote.clockInfo, boot: claims.boot, ima: claims.ima.state }
}

/**
 * Verifies that quote, measured boot log and IMA list belong together and to the expected TPM. No register value is taken from the host: all are recomputed
 * from the logs, and the quote's digest over them decides.
 * @throws {MalformedError} form of any part
 * @throws {EvidenceError} as verifyQuote, verifyEventLog and verifyIma; `wrong-binding` (another key than the enrolled one, another boot than before),
 * `missing-piece` (no boot log at a first quote), `pcr-mismatch` (the logs do not explain the quote)
 */
export function verifyHost(bundle: HostBundle, expectation: HostExpectation): Genuine<HostClaims> {
  const bank = requiredBank(expectation.requiredPcrs)
  const area = parseSizedPublicArea(bundle.akPublic)
  const signed = checkQuoteSignature(bundle.quote, bundle.signature, { kind: "attestation-key", area }, false)
  const bound = { extraData: expectation.extraData, selection: [expectation.requiredPcrs] }
  checkQuoteBinding(signed.attest, signed.quote, bound)
  const identity = expectation.identity === "unproved" ? undefined : expectation.identity
  if (identity !== undefined && identity.attestationKeyName !== signed.keyName) {
    throw new EvidenceError("wrong-binding", `quote by the key ${signed.keyName ?? ""}, enrolled is ${identity.attestationKeyName}`, {
      path: "akPublic",
    })
  }
  const previous = expectation.previous === "none" ? undefined : expectation.previous
  if (previous !== undefined) checkSameBoot(previous.clockInfo, signed.attest.clockInfo)
  const start = bundle.ima.from === 0 ? undefined : previous?.ima
  const { bootPcrs, imaValue } = findQuotedValues(bundle.ima.list, bank, bootCandidates(bundle, expectation, previous, bank), {
    signed,
    start,
    expectation,
  })
  const values = new Map([...bootPcrs, [imaPcr, imaValue]])
  const quote = checkQuoteContents(
    signed.attest,
    signed.quote,
    { ...signed, hash: signed.signature.hash },
    { ...bound, pcrs: new Map([[bank, values]]) },
  )
  const boot = bundle.eventLog === undefined ? requiredBoot(previous) : verifiedBoot(bundle.eventLog, bank, bootPcrs, expectation)
  const ima = verifyIma({
    list: bundle.ima.list,
    bank,
    quotedPcrs: new Map([[imaPcr, imaValue]]),
    bootPcrs: new Map([...replayedBanks(bundle.eventLog), [bank, bootPcrs]]),
    from: bundle.ima.from,
    ...(previous === undefined ? {} : { previous: previous.ima }),
    ...imaOptions(expectation),
  }).claims
  return Genuine.afterVerification({ quote, boot, ima, ...(identity === undefined ? {} : { identity }) })
}

/** PCRs that boot_aggregate covers. */
const aggregatePcrs = 10

function requiredBank({ bank, pcrs }: PcrSelectionClaim): HashName {
  if (!isHashName(bank) || bank === "sha1") throw new TypeError(`hosts are not judged by the bank ${bank}`)
  for (let pcr = 0; pcr <= imaPcr; pcr++) if (!pcrs.includes(pcr)) throw new TypeError(`hosts must quote PCR ${pcr}`)
  return bank
}

/** Values that the boot log leads to, for the required registers but IMA's. Registers without events have their start value. */
function bootRegisters(
  bundle: HostBundle,
  expectation: HostExpectation,
  previous: PreviousHost | undefined,
  bank: HashName,
): ReadonlyMap<number, string> {
  const wanted = expectation.requiredPcrs.pcrs.filter((pcr) => pcr !== imaPcr).toSorted((a, b) => a - b)
  if (bundle.eventLog === undefined) {
    return new Map([...requiredBoot(previous).pcrs].filter(([pcr]) => wanted.includes(pcr)))
  }
  const replay = replayEventLog(parseEventLog(bundle.eventLog), bank)
  return new Map(wanted.map((pcr) => [pcr, encodeHex(replay.registers.get(pcr) ?? startValue(pcr, bank, replay.startupLocality))]))
}

/** The boot log's registers; and, where the policy accepts that firmware, with the two ExitBootServices events that it measured but did not log. */
function bootCandidates(
  bundle: HostBundle,
  expectation: HostExpectation,
  previous: PreviousHost | undefined,
  bank: HashName,
): readonly ReadonlyMap<number, string>[] {
  const logged = bootRegisters(bundle, expectation, previous, bank)
  const value = logged.get(exitPcr)
  if (value === undefined || bundle.eventLog === undefined || !expectation.quirks.includes("unlogged-exit-boot-services")) return [logged]
  const withExit = exitEvents.reduce((register, text) => hash(bank, register, hash(bank, encodeUtf8(text))), parseHex(value))
  return [logged, new Map([...logged].map(([pcr, text]) => [pcr, pcr === exitPcr ? encodeHex(withExit) : text]))]
}

/** TCG PFP 1.06, 10.4.4: the actions that firmware measures into PCR 5 when the operating system takes over. */
const exitPcr = 5
const exitEvents = ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"]

function requiredBoot(previous: PreviousHost | undefined): BootClaims {
  if (previous === undefined)
    throw new EvidenceError("missing-piece", "the boot log is missing, and none was verified for this boot", { path: "eventLog" })
  return previous.boot
}

function verifiedBoot(eventLog: Uint8Array, bank: HashName, quotedPcrs: ReadonlyMap<number, string>, expectation: HostExpectation): BootClaims {
  const { quirks, commandLineCandidates } = expectation
  return verifyEventLog(eventLog, { bank, quotedPcrs, quirks, ...(commandLineCandidates === undefined ? {} : { commandLineCandidates }) }).claims
}

interface QuotedValues {
  readonly bootPcrs: ReadonlyMap<number, string>
  /** Register 10. */
  readonly imaValue: string
}

interface SearchContext {
  readonly signed: SignedQuote
  readonly start: ImaState | undefined
  readonly expectation: HostExpectation
}

/** The register values that hash to the quote's digest: the boot log's, and for register 10 the one behind some line of the IMA list. */
function findQuotedValues(
  list: Uint8Array,
  bank: HashName,
  candidates: readonly ReadonlyMap<number, string>[],
  context: SearchContext,
): QuotedValues {
  for (const bootPcrs of candidates) {
    const imaValue = findQuotedImaValue(list, bank, bootPcrs, context)
    if (imaValue !== undefined) return { bootPcrs, imaValue }
  }
  throw new EvidenceError("pcr-mismatch", "boot log and ima list together lead to no line at which the quoted registers have their digest", {
    path: "TPMS_ATTEST.pcrDigest",
  })
}

/**
 * The value of register 10 under which the registers hash to the quote's digest. The quote holds that digest only, and the list may lead the register by
 * entries that were logged but not yet extended, so the value behind each line is tried.
 */
function findQuotedImaValue(list: Uint8Array, bank: HashName, bootPcrs: ReadonlyMap<number, string>, context: SearchContext): string | undefined {
  const { signed, start, expectation } = context
  const ordered = (from: number, to: number): Uint8Array =>
    concatBytes(...[...bootPcrs].filter(([pcr]) => pcr >= from && pcr < to).map(([, value]) => parseHex(value)))
  const before = ordered(0, imaPcr)
  const input = concatBytes(before, startValue(imaPcr, bank, 0), ordered(imaPcr, pcrCount))
  const wanted = encodeHex(signed.quote.pcrDigest)
  const matches = (value: Uint8Array): boolean => {
    input.set(value, before.length)
    return hashOnce(signed.signature.hash, input, "hex") === wanted
  }
  const rules: readonly ExtendRule[] = expectation.insecureAllowPaddedSha1 === true ? ["per-bank", "padded-sha1"] : ["per-bank"]
  for (const extendRule of start === undefined ? rules : [start.extendRule]) {
    const found = findImaRegister(list, bank, matches, {
      extendRule,
      ...(start === undefined ? {} : { previous: start }),
      ...(expectation.imaHeaderHash === undefined ? {} : { headerHash: expectation.imaHeaderHash }),
    })
    if (found !== undefined) return found
  }
  return undefined
}

/** PC Client TPMs. */
const pcrCount = 24

/**
 * boot_aggregate is over the bank of IMA's own hash, SHA-1 in the old template: where that is not the judged bank, the log's replay of it stands in. No quote
 * covers those values, but register 10 covers the aggregate.
 */
function replayedBanks(eventLog: Uint8Array | undefined): readonly (readonly [string, ReadonlyMap<number, string>])[] {
  if (eventLog === undefined) return []
  const log = parseEventLog(eventLog)
  return log.banks.flatMap(({ name }) => {
    if (!isHashName(name)) return []
    const replay = replayEventLog(log, name)
    const value = (pcr: number): string => encodeHex(replay.registers.get(pcr) ?? startValue(pcr, name, replay.startupLocality))
    return [[name, new Map(Array.from({ length: aggregatePcrs }, (_, pcr) => [pcr, value(pcr)]))] as const]
  })
}

function imaOptions(expectation: HostExpectation): { readonly headerHash?: HashName; readonly insecureAllowPaddedSha1?: boolean } {
  const { imaHeaderHash, insecureAllowPaddedSha1 } = expectation
  return {
    ...(imaHeaderHash === undefined ? {} : { headerHash: imaHeaderHash }),
    ...(insecureAllowPaddedSha1 === undefined ? {} : { insecureAllowPaddedSha1 }),
  }
}
