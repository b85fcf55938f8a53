import { PerunError } from "../../bytes/error.ts"
import { hash } from "node:crypto"
import { encodeHex, parseHex } from "../../bytes/text.ts"
import { hashSizes } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import type { ImaState } from "./claims.ts"
import { isViolation, readImaRecords, templateHashInput } from "./format.ts"
import type { ImaRecord } from "./format.ts"

/**
 * `per-bank`: each bank is extended with its own hash of the template data (Linux 5.8 and newer). `padded-sha1`: every bank is extended with the SHA-1
 * template digest, zeros behind it (older kernels).
 */
export type ExtendRule = ImaState["extendRule"]

export interface ImaListOptions {
  /** Hash of the template digests in the list; SHA-1 but for `binary_runtime_measurements_sha256` and the like. */
  readonly headerHash?: HashName
  readonly extendRule?: ExtendRule
  /** Where the list goes on from; from the start of the boot where absent. */
  readonly previous?: ImaState
}

export interface ImaReplay {
  /** Values of the registers that entries extend (and of register 10), by index, lower-case hexadecimal. */
  readonly registers: ReadonlyMap<number, string>
  readonly count: number
  readonly violations: number
}

/**
 * Register values that a list leads to in one bank; proves nothing by itself.
 * @throws {MalformedError} as readImaRecords
 * @throws {EvidenceError} `log-mismatch` where a template digest does not fit its data
 */
export function replayImaList(list: Uint8Array, bank: HashName, options: ImaListOptions = {}): ImaReplay {
  const chain = new RegisterChain(bank, options)
  let count = 0
  let violations = 0
  for (const record of readImaRecords(list, options.headerHash)) {
    chain.extend(record)
    count++
    if (isViolation(record)) violations++
  }
  return { registers: chain.values(), count, violations }
}

/**
 * Finds the line at which the list fits a quote whose register values are only known as a digest: the list may lead the register, as entries are
 * logged before they are extended and the quote is older than the list. `matches` gets the value of register 10 in front of the first entry (only
 * when going on from an earlier state) and behind each entry; the array is reused between calls. Proves nothing by itself.
 * @returns the value as lower-case hexadecimal, or undefined where no line fits
 * @throws as replayImaList
 */
export function findImaRegister(
  list: Uint8Array,
  bank: HashName,
  matches: (value: Uint8Array) => boolean,
  options: ImaListOptions = {},
): string | undefined {
  const atEnd = registerAtEnd(list, bank, options)
  if (atEnd !== undefined && matches(atEnd)) return encodeHex(atEnd)
  const chain = new RegisterChain(bank, options)
  if (options.previous !== undefined && matches(chain.current(imaPcr))) return encodeHex(chain.current(imaPcr))
  for (const record of readImaRecords(list, options.headerHash)) {
    chain.extend(record)
    if (record.pcr === imaPcr && matches(chain.current(imaPcr))) return encodeHex(chain.current(imaPcr))
  }
  return undefined
}

/** Most machines rest while they are quoted, so most lists end where the quote was made: without a trial behind each line that costs half. Undefined where no line extends the register, or one is at fault, which may stand behind the quoted one. */
function registerAtEnd(list: Uint8Array, bank: HashName, options: ImaListOptions): Uint8Array | undefined {
  const chain = new RegisterChain(bank, options)
  try {
    let isExtended = options.previous !== undefined
    for (const record of readImaRecords(list, options.headerHash)) {
      chain.extend(record)
      isExtended ||= record.pcr === imaPcr
    }
    return isExtended ? chain.current(imaPcr) : undefined
  } catch (error) {
    if (!(error instanceof PerunError)) throw error
    return undefined
  }
}

/** The register that IMA extends unless a policy rule says otherwise. */
export const imaPcr = 10

/**
 * Registers under extension. The hot loop of a verification: values live in buffers of twice the digest's size, the digest that comes next is written
 * behind the value, and the one-shot hash is used with text output, which is several times faster than a hash object with byte output.
 */
export class RegisterChain {
  readonly #bank: HashName
  readonly #headerHash: HashName
  readonly #digestBytes: number
  readonly #buffers = new Map<number, Buffer>()
  readonly #pads: boolean
  readonly #violationDigest: string

  constructor(bank: HashName, options: ImaListOptions = {}) {
    this.#bank = bank
    this.#headerHash = options.headerHash ?? "sha1"
    this.#digestBytes = hashSizes[bank]
    this.#pads = (options.previous?.extendRule ?? options.extendRule) === "padded-sha1"
    const ones = "\xff".repeat(this.#pads ? hashSizes.sha1 : this.#digestBytes)
    this.#violationDigest = ones.padEnd(this.#digestBytes, "\0")
    if (this.#pads && this.#headerHash !== "sha1") throw new TypeError("padded SHA-1 needs a list with SHA-1 template digests")
    this.#set(imaPcr, options.previous?.pcr)
    for (const [pcr, value] of Object.entries(options.previous?.otherPcrs ?? {})) this.#set(Number(pcr), value)
  }

  /**
   * Extends the record's register, after recomputing its template digest.
   * @returns the register's new value, one character per byte
   * @throws {EvidenceError} `log-mismatch`
   */
  extend(record: ImaRecord): string {
    const buffer = this.#buffers.get(record.pcr) ?? this.#set(record.pcr, undefined)
    buffer.write(isViolation(record) ? this.#violationDigest : this.#digestOf(record), this.#digestBytes, "latin1")
    const value = hash(this.#bank, buffer, "binary")
    buffer.write(value, 0, "latin1")
    return value
  }

  /** The register's value; a view that the next `extend` overwrites. */
  current(pcr: number): Uint8Array {
    return (this.#buffers.get(pcr) ?? this.#set(pcr, undefined)).subarray(0, this.#digestBytes)
  }

  values(): ReadonlyMap<number, string> {
    return new Map([...this.#buffers.keys()].map((pcr) => [pcr, encodeHex(this.current(pcr))]))
  }

  #digestOf(record: ImaRecord): string {
    const input = templateHashInput(record)
    const header = hash(this.#headerHash, input, "binary")
    if (!equals(header, record.templateDigest))
      throw new EvidenceError("log-mismatch", "the template digest does not fit the template data", { path: `ima[${record.index}]` })
    if (this.#bank === this.#headerHash) return header
    return this.#pads ? header.padEnd(this.#digestBytes, "\0") : hash(this.#bank, input, "binary")
  }

  #set(pcr: number, value: string | undefined): Buffer {
    const buffer = Buffer.alloc(this.#digestBytes * 2)
    if (value !== undefined) {
      const bytes = parseHex(value, "previous.pcr")
      if (bytes.length !== this.#digestBytes) throw new TypeError(`the state is not of the ${this.#bank} bank`)
      buffer.set(bytes)
    } else if (pcr >= 17 && pcr <= 22) {
      buffer.fill(0xff, 0, this.#digestBytes)
    }
    this.#buffers.set(pcr, buffer)
    return buffer
  }
}

function equals(text: string, bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at++) if (text.charCodeAt(at) !== bytes[at]) return false
  return text.length === bytes.length
}
