import { hash as hashOnce } from "node:crypto"
import { encodeHex, encodeUtf8, parseHex } from "../../bytes/text.ts"
import { bytesEqual } from "../../bytes/compare.ts"
import { hash, hashSizes } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { Genuine } from "../genuine.ts"
import type { ImaClaims, ImaEntry, ImaState } from "./claims.ts"
import { readImaEntry, readImaRecords } from "./format.ts"
import type { ImaRecord } from "./format.ts"
import { RegisterChain, imaPcr } from "./replay.ts"
import type { ExtendRule } from "./replay.ts"

export interface ImaExpectations {
  /** The binary list: from the start of the boot, or only what follows `previous.count` entries (see `from`). */
  readonly list: Uint8Array
  readonly bank: HashName
  /** Values of this bank that a verified quote covers, lower-case hexadecimal, for the registers of IMA: 10, and others that policy rules name. */
  readonly quotedPcrs: ReadonlyMap<number, string>
  /**
   * Values of PCR 0 to 9 by bank and index, for boot_aggregate. Those of the judged bank come from the quote. An older template holds a SHA-1
   * aggregate: then the boot log's SHA-1 replay stands in, which no quote covers; the aggregate itself is covered by register 10.
   */
  readonly bootPcrs: ReadonlyMap<string, ReadonlyMap<number, string>>
  /** What the last verification of this boot certified. */
  readonly previous?: ImaState
  /** Index of the list's first entry in this boot: `previous.count` (default), or 0 to judge the whole list again. */
  readonly from?: number
  /** Hash of the list's template digests; SHA-1 but for `…_sha256` lists. */
  readonly headerHash?: HashName
  /** Accepts kernels before 5.8, which extend every bank with the SHA-1 digest; only where the caller's policy names it. */
  readonly insecureAllowPaddedSha1?: boolean
  /** Judges the SHA-1 bank; only where the caller's policy names it. */
  readonly insecureAllowSha1?: boolean
}

/**
 * Holds an IMA measurement list against quoted registers. Entries that the registers certify become claims; what was logged behind them is kept apart
 * and has to be certified by the next quote.
 * @throws {MalformedError} as readImaRecords and readImaEntry
 * @throws {EvidenceError} `weak-algorithm`, `log-mismatch` (template digest, boot_aggregate, an entry that contradicts itself, another list than
 * before), `pcr-mismatch` (no line of the list leads to the quoted values), `log-incomplete` (no boot_aggregate, pending entries not certified, gap),
 * `wrong-selection` (entries of a register that is not quoted), `missing-piece` (PCR values for boot_aggregate)
 */
export function verifyIma(expectations: ImaExpectations): Genuine<ImaClaims> {
  const { bank, previous } = expectations
  if (bank === "sha1" && expectations.insecureAllowSha1 !== true)
    throw new EvidenceError("weak-algorithm", "the list is judged by the SHA-1 bank only", { path: "ima" })
  const from = expectations.from ?? previous?.count ?? 0
  if (from !== 0 && from !== previous?.count)
    throw new EvidenceError("log-incomplete", `the list begins at entry ${from}, expected ${previous?.count ?? 0}`, { path: "ima" })
  const quoted = quotedValues(expectations)
  const start = from === 0 ? undefined : previous
  // The claims keep views: one copy of the whole list, so that nobody changes it under them.
  const list = new Uint8Array(expectations.list)
  let fault: EvidenceError | undefined
  for (const rule of rulesToTry(expectations)) {
    const found = certify(list, expectations, { rule, from, start, quoted })
    if (found instanceof EvidenceError) {
      fault ??= found
      continue
    }
    const { entries, uncertified, state } = found
    const bootAggregate = from === 0 ? checkBootAggregate(entries[0], expectations.bootPcrs) : undefined
    return Genuine.afterVerification({
      entries,
      firstIndex: from,
      certifiedCount: state.count,
      uncertified,
      ...(bootAggregate === undefined ? {} : { bootAggregate }),
      extendRule: rule,
      violations: entries.filter((entry) => entry.violation).length,
      state,
    })
  }
  throw fault ?? new EvidenceError("pcr-mismatch", "the list's extend rule is not allowed", { path: "ima" })
}

/** Quoted values, one character per byte, so that the hot loop compares short strings. */
function quotedValues(expectations: ImaExpectations): ReadonlyMap<number, string> {
  const { bank, quotedPcrs } = expectations
  if (!quotedPcrs.has(imaPcr)) throw new EvidenceError("wrong-selection", "PCR 10 is not quoted", { path: "ima" })
  return new Map(
    [...quotedPcrs].map(([pcr, value]) => {
      const bytes = parseHex(value, `quotedPcrs.${pcr}`)
      if (bytes.length !== hashSizes[bank]) throw new TypeError(`value of PCR ${pcr} is no ${bank} digest`)
      return [pcr, latin1(bytes)]
    }),
  )
}

function rulesToTry(expectations: ImaExpectations): readonly ExtendRule[] {
  const allowed: ExtendRule[] = ["per-bank"]
  if (expectations.insecureAllowPaddedSha1 === true && expectations.bank !== "sha1" && (expectations.headerHash ?? "sha1") === "sha1")
    allowed.push("padded-sha1")
  const rule = expectations.previous?.extendRule
  return rule === undefined ? allowed : allowed.filter((candidate) => candidate === rule)
}

function judgeEntry(record: ImaRecord, index: number, quoted: ReadonlyMap<number, string>): ImaEntry {
  const entry = readImaEntry(record, index)
  if (!quoted.has(entry.pcr))
    throw new EvidenceError("wrong-selection", `the entry extends PCR ${entry.pcr}, which is not quoted`, { path: `ima[${index}]` })
  if (entry.violation && /[^0]/.test(entry.digest))
    throw new EvidenceError("log-mismatch", "a violation with a file digest", { path: `ima[${index}]` })
  refuseRelabelledBuffer(entry, index)
  return entry
}

/**
 * The template's name is covered by no hash, and `ima-buf` has the fields of `ima-sig` but for the last one's name: a buffer whose content root chose would
 * pass for a file of that digest with a strange signature. No signature hashes to the digest of what it signs.
 */
function refuseRelabelledBuffer(entry: ImaEntry, index: number): void {
  for (const field of [entry.signature, entry.modsig]) {
    if (field === undefined || !isHashName(entry.hashAlgorithm) || encodeHex(hash(entry.hashAlgorithm, field)) !== entry.digest) continue
    throw new EvidenceError("log-mismatch", "a buffer under a template of signatures", { path: `ima[${index}]` })
  }
}

function isHashName(text: string): text is HashName {
  return Object.hasOwn(hashSizes, text)
}

interface Walk {
  readonly rule: ExtendRule
  readonly from: number
  readonly start: ImaState | undefined
  readonly quoted: ReadonlyMap<number, string>
}

interface Certified {
  readonly entries: readonly ImaEntry[]
  readonly uncertified: readonly ImaEntry[]
  readonly state: ImaState
}

/**
 * Extends entry by entry until every quoted register has its quoted value. What stands behind that line is only chained, for the next quote to hold
 * against: nothing certifies it yet.
 * @returns the reason where no line fits under this rule, so that another rule can be tried
 */
function certify(list: Uint8Array, expectations: ImaExpectations, walk: Walk): Certified | EvidenceError {
  const { bank, previous, headerHash } = expectations
  const chain = new RegisterChain(bank, {
    extendRule: walk.rule,
    ...(headerHash === undefined ? {} : { headerHash }),
    ...(walk.start === undefined ? {} : { previous: walk.start }),
  })
  const prefix = new PrefixChain(walk.start?.prefix)
  const values = new Map([...walk.quoted.keys()].map((pcr) => [pcr, latin1(chain.current(pcr))]))
  const isCertified = (): boolean => [...walk.quoted].every(([pcr, value]) => values.get(pcr) === value)
  const checkpoints = [previous, previous?.pending].filter((checkpoint) => checkpoint !== undefined)
  const stateAt = (count: number): ImaState => imaState(count, chain.values(), prefix.value, walk.rule)
  const entries: ImaEntry[] = []
  const uncertified: ImaEntry[] = []
  let count = walk.from
  let state = walk.start !== undefined && isCertified() ? stateAt(count) : undefined
  for (const record of readImaRecords(list, headerHash)) {
    const entry = judgeEntry(record, count, walk.quoted)
    count++
    prefix.add(record.bytes)
    for (const checkpoint of checkpoints)
      if (checkpoint.count === count && checkpoint.prefix !== prefix.value)
        throw new EvidenceError("log-mismatch", `the list differs from the one seen before, within its first ${count} entries`, { path: "ima" })
    if (state !== undefined) {
      uncertified.push(entry)
      continue
    }
    entries.push(entry)
    const value = extendOrFault(chain, record)
    if (value instanceof EvidenceError) return value
    values.set(record.pcr, value)
    if (value === walk.quoted.get(record.pcr) && isCertified()) state = stateAt(count)
  }
  if (state === undefined) return new EvidenceError("pcr-mismatch", "no line of the list leads to the quoted register values", { path: "ima" })
  const least = previous?.pending?.count ?? previous?.count ?? 0
  if (state.count < least)
    throw new EvidenceError("log-incomplete", `${state.count} entries are certified, expected at least ${least} as of the last quote`, {
      path: "ima",
    })
  const pending = count > state.count ? { pending: { count, prefix: prefix.value } } : {}
  return { entries, uncertified, state: { ...state, ...pending } }
}

function extendOrFault(chain: RegisterChain, record: ImaRecord): string | EvidenceError {
  try {
    return chain.extend(record)
  } catch (error) {
    if (error instanceof EvidenceError) return error
    throw error
  }
}

function imaState(count: number, registers: ReadonlyMap<number, string>, prefix: string, extendRule: ExtendRule): ImaState {
  const others = [...registers].filter(([pcr]) => pcr !== imaPcr)
  const pcr = registers.get(imaPcr)
  if (pcr === undefined) throw new Error("internal: register 10 has no value")
  return { count, pcr, prefix, extendRule, ...(others.length === 0 ? {} : { otherPcrs: Object.fromEntries(others) }) }
}

/** SHA-256(previous ‖ entry) over the exact bytes of the entries, from 32 zero bytes. */
class PrefixChain {
  #buffer = Buffer.alloc(1024)

  constructor(start: string | undefined) {
    if (start !== undefined) this.#buffer.set(parseHex(start, "previous.prefix"))
  }

  add(entry: Uint8Array): void {
    const needed = prefixBytes + entry.length
    if (needed > this.#buffer.length) {
      const larger = Buffer.alloc(needed * 2)
      larger.set(this.#buffer.subarray(0, prefixBytes))
      this.#buffer = larger
    }
    this.#buffer.set(entry, prefixBytes)
    this.#buffer.write(hashOnce("sha256", this.#buffer.subarray(0, needed), "binary"), 0, "latin1")
  }

  get value(): string {
    return encodeHex(this.#buffer.subarray(0, prefixBytes))
  }
}

/**
 * boot_aggregate, Linux ima_crypto.c ima_calc_boot_aggregate_tfm: the hash over PCR 0 to 7 of the bank of the same algorithm; since Linux 5.8 over PCR
 * 0 to 9 for every bank but SHA-1.
 */
function checkBootAggregate(entry: ImaEntry | undefined, bootPcrs: ImaExpectations["bootPcrs"]): string {
  const path = "ima[0]"
  if (entry === undefined || entry.pcr !== imaPcr || entry.violation || !bytesEqual(entry.name, bootAggregateName))
    throw new EvidenceError("log-incomplete", "the list does not begin with boot_aggregate", { path })
  const bank = entry.hashAlgorithm
  if (bank !== "sha1" && bank !== "sha256" && bank !== "sha384" && bank !== "sha512")
    throw new EvidenceError("weak-algorithm", `boot_aggregate of algorithm ${bank}`, { path })
  const values = bootPcrs.get(bank)
  const expected = (bank === "sha1" ? [7] : [9, 7]).map((last) => aggregate(bank, values, last))
  if (!expected.includes(entry.digest))
    throw new EvidenceError("log-mismatch", `boot_aggregate is ${bank}:${entry.digest}, expected ${expected.join(" or ")}`, { path })
  return `${bank}:${entry.digest}`
}

function aggregate(bank: HashName, values: ReadonlyMap<number, string> | undefined, last: number): string {
  const parts: Uint8Array[] = []
  for (let pcr = 0; pcr <= last; pcr++) {
    const value = values?.get(pcr)
    if (value === undefined)
      throw new EvidenceError("missing-piece", `boot_aggregate needs PCR ${pcr} of the ${bank} bank, which is not given`, { path: "ima[0]" })
    parts.push(parseHex(value, `bootPcrs.${bank}.${pcr}`))
  }
  return encodeHex(hash(bank, ...parts))
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1")
}

const prefixBytes = 32
const bootAggregateName = encodeUtf8("boot_aggregate")
