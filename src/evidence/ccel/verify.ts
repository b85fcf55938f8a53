import { bytesEqual, isAllZero } from "../../bytes/compare.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { imageSecurityGuid, isDatabaseAuthority, linuxTagOf, printable, readContent } from "../eventlog/contents.ts"
import type { EventContent } from "../eventlog/contents.ts"
import { eventTypeName, isTypeAllowed } from "../eventlog/types.ts"
import { Genuine } from "../genuine.ts"
import type { CcelClaims, CcelEvent } from "./claims.ts"
import { replayCcel } from "./format.ts"
import type { CcelLog, CcelRecord } from "./format.ts"

/** Faults of firmware that a caller may accept by name; those that were needed stand in `CcelClaims.quirks`. */
export const ccelQuirks = {
  "separator-in-rtmr0": "the firmware extends RTMR0 with the separator that belongs to RTMR1, which then has none",
  "no-exit-boot-services": "no ExitBootServices events are measured: what an operating system extended later cannot be told apart",
  "secure-boot-variables-missing": "RTMR0 does not hold SecureBoot, PK, KEK, db and dbx exactly once before its separator",
} as const satisfies Record<string, string>

export type CcelQuirk = keyof typeof ccelQuirks

export interface CcelExpectation {
  /** RTMR0 to RTMR3 of a verified TDX quote, 48 bytes each, lower-case hexadecimal. */
  readonly rtmrs: readonly [string, string, string, string]
  readonly quirks: readonly CcelQuirk[]
}

/**
 * Holds the event log of a TD against the registers of its quote, and gives what the digests certify.
 * @throws {EvidenceError} `pcr-mismatch`, `log-incomplete`, `log-order`, `log-mismatch`
 */
export function verifyCcel(log: CcelLog, expectation: CcelExpectation): Genuine<CcelClaims> {
  const judge = new CcelJudge(log, expectation)
  const rtmr3 = judge.checkRegisters()
  judge.checkEvents()
  judge.checkSeparators()
  judge.checkExitBootServices()
  const secureBoot = judge.checkSecureBoot()
  return Genuine.afterVerification(judge.claims(rtmr3, secureBoot))
}

interface JudgedRecord {
  readonly record: CcelRecord
  readonly typeName: string
  readonly content: EventContent
}

class CcelJudge {
  readonly #log: CcelLog
  readonly #quoted: readonly Uint8Array[]
  readonly #allowedQuirks: ReadonlySet<CcelQuirk>
  readonly #usedQuirks = new Set<CcelQuirk>()
  readonly #events: readonly JudgedRecord[]

  constructor(log: CcelLog, { rtmrs, quirks }: CcelExpectation) {
    this.#log = log
    this.#allowedQuirks = new Set(quirks)
    this.#quoted = rtmrs.map((value, at) => {
      const parsed = parseHex(value, `rtmrs[${at}]`)
      if (parsed.length !== registerBytes) throw new TypeError(`RTMR${at} is no SHA-384 digest`)
      return parsed
    })
    this.#events = log.records.map((record) => ({ record, typeName: eventTypeName(record.type), content: contentOf(record) }))
  }

  /** RTMR0 to RTMR2 hold exactly what the log leads to; RTMR3 where the log has events of it. */
  checkRegisters(): CcelClaims["rtmr3"] {
    const replayed = replayCcel(this.#log)
    const hasRuntime = this.#log.records.some(({ rtmr }) => rtmr === runtimeRegister)
    const wrong = [0, 1, 2, ...(hasRuntime ? [runtimeRegister] : [])].filter((at) => !equal(replayed[at], this.#quoted[at]))
    if (wrong.length > 0)
      throw new EvidenceError("pcr-mismatch", `the log does not explain ${wrong.map((at) => `RTMR${at}`).join(", ")}`, { path: "ccel" })
    if (hasRuntime) return "explained"
    return isAllZero(this.#quoted[runtimeRegister] ?? new Uint8Array(1)) ? "unused" : "unexplained"
  }

  /** Each event's type may stand in its register, and its data hashes to its digest where the specification says that it does. */
  checkEvents(): void {
    for (const { record, typeName, content } of this.#events) {
      const path = `ccel[${record.index}]`
      if (record.runtime !== undefined && !content.certified)
        throw new EvidenceError("log-mismatch", "the event does not hash to its digest", { path })
      if (record.rtmr === runtimeRegister) continue
      if (!isAllowed(record.rtmr, typeName)) throw new EvidenceError("log-order", `${typeName} may not extend RTMR${record.rtmr}`, { path })
      if (typeName !== "EV_SEPARATOR" && isSeparatorDigest(record.digest, typeName))
        throw new EvidenceError("log-mismatch", `a separator's digest under the type ${typeName}`, { path })
      if (!content.certified && mustHash.has(typeName))
        throw new EvidenceError("log-mismatch", `the data of ${typeName} does not hash to its digest`, { path })
    }
  }

  /** Exactly one separator in RTMR0 and in RTMR1, which marks no error. */
  checkSeparators(): void {
    const separators = this.#events.filter(({ typeName, record }) => typeName === "EV_SEPARATOR" && record.rtmr <= lastSeparatedRegister)
    for (const { record } of separators)
      if (!goodSeparators.some((value) => bytesEqual(value, record.data)))
        throw new EvidenceError("log-mismatch", `separator ${encodeHex(record.data)} marks an error of the firmware`, {
          path: `ccel[${record.index}]`,
        })
    const [first = 0, second = 0] = [0, 1].map((rtmr) => separators.filter(({ record }) => record.rtmr === rtmr).length)
    if (first === 1 && second === 1) return
    if (first === 2 && second === 0) return this.#needQuirk("separator-in-rtmr0", "log-order", "RTMR0 has two separators, RTMR1 none")
    if (first > 1 || second > 1) throw new EvidenceError("log-order", "a second separator", { path: "ccel" })
    throw new EvidenceError("log-incomplete", `RTMR${first === 0 ? 0 : 1} has no separator`, { path: "ccel" })
  }

  /** What follows a successful ExitBootServices in RTMR0 to RTMR2 is no evidence of the boot. */
  checkExitBootServices(): void {
    const boot = this.#events.filter(({ record }) => record.rtmr !== runtimeRegister)
    const place = boot.findIndex(({ record }) => record.rtmr === exitRegister && bytesEqual(record.digest, exitSuccess))
    if (place < 0) return this.#needQuirk("no-exit-boot-services", "log-incomplete", "the log has no ExitBootServices events")
    const later = boot[place + 1]
    if (later !== undefined)
      throw new EvidenceError("log-order", `an event of RTMR${later.record.rtmr} behind ExitBootServices`, { path: `ccel[${later.record.index}]` })
  }

  /** Where Secure Boot is enabled, an image started because an entry of db allowed it: firmware that enforces it measures which. */
  checkSecureBoot(): CcelClaims["secureBoot"] {
    const state = this.#secureBootState()
    if (state === "enabled" && !this.#events.some(({ record, typeName, content }) => record.rtmr === 0 && isDatabaseAuthority(typeName, content)))
      throw new EvidenceError("log-incomplete", "Secure Boot is enabled but no entry of db was measured as an image's authority", { path: "ccel" })
    return state
  }

  #secureBootState(): CcelClaims["secureBoot"] {
    const found = new Map<string, Uint8Array>()
    let separated = false
    for (const { record, typeName, content } of this.#events) {
      if (record.rtmr !== 0) continue
      if (typeName === "EV_SEPARATOR") separated = true
      if (typeName !== "EV_EFI_VARIABLE_DRIVER_CONFIG" || content.variable === undefined) continue
      const { vendorGuid, name, value } = content.variable
      if (secureBootVariables.get(name) !== vendorGuid) continue
      const path = `ccel[${record.index}]`
      if (found.has(name)) throw new EvidenceError("log-order", `the variable ${name} was measured twice`, { path })
      if (separated) throw new EvidenceError("log-order", `the variable ${name} was measured behind the separator`, { path })
      found.set(name, value)
    }
    const missing = [...secureBootVariables.keys()].filter((name) => !found.has(name))
    if (missing.length > 0) this.#needQuirk("secure-boot-variables-missing", "log-incomplete", `RTMR0 lacks ${missing.join(", ")}`)
    const value = found.get("SecureBoot")
    if (value === undefined || value.length === 0) return "unknown"
    switch (encodeHex(value)) {
      case "00":
        return "disabled"
      case "01":
        return "enabled"
      default:
        throw new EvidenceError("log-mismatch", `SecureBoot is ${encodeHex(value)}, expected 00 or 01`, { path: "ccel" })
    }
  }

  claims(rtmr3: CcelClaims["rtmr3"], secureBoot: CcelClaims["secureBoot"]): CcelClaims {
    const [rtmr0 = "", rtmr1 = "", rtmr2 = ""] = this.#quoted.map(encodeHex)
    return {
      events: this.#events.map(ccelEvent),
      rtmrs: [rtmr0, rtmr1, rtmr2],
      rtmr3,
      secureBoot,
      commandLines: this.#events.flatMap(commandLineOf),
      loadOptions: this.#digestsWhere((judged) => judged.record.rtmr === loaderRegister && tagOf(judged.record) === "load-options"),
      initrds: this.#digestsWhere((judged) => judged.record.rtmr === loaderRegister && tagOf(judged.record) === "initrd"),
      images: this.#digestsWhere(({ record, content }) => record.rtmr === imageRegister && !content.certified),
      quirks: [...this.#usedQuirks],
      trailingBytes: this.#log.trailingBytes,
    }
  }

  #digestsWhere(matches: (judged: JudgedRecord) => boolean): readonly string[] {
    return this.#events.filter(matches).map(({ record }) => encodeHex(record.digest))
  }

  #needQuirk(quirk: CcelQuirk, code: "log-incomplete" | "log-order", message: string): void {
    if (!this.#allowedQuirks.has(quirk)) throw new EvidenceError(code, `${message} (firmware quirk "${quirk}" is not allowed)`, { path: "ccel" })
    this.#usedQuirks.add(quirk)
  }
}

function contentOf(record: CcelRecord): EventContent {
  if (record.runtime === undefined) return readContent(eventOf(record), "sha384")
  const certified = bytesEqual(hash("sha384", record.runtime.hashed), record.digest)
  return { certified, description: certified ? printable(record.runtime.description) : "" }
}

/** The record as the event log's machinery reads it. */
function eventOf({ index, rtmr, type, digest, data }: CcelRecord): Parameters<typeof readContent>[0] {
  return { index, register: rtmr, type, digests: new Map([["sha384", digest]]), data, end: 0 }
}

function tagOf(record: CcelRecord): ReturnType<typeof linuxTagOf> {
  return linuxTagOf(eventOf(record))
}

/** GRUB certifies the text only: command lines begin with the kernel's path, `/…` or `(hd0,…`, which no command does. */
function commandLineOf({ record, content }: JudgedRecord): readonly string[] {
  return record.rtmr === loaderRegister && content.text !== undefined && /^[/(]/.test(content.text) ? [content.text.replace(/\0+$/, "")] : []
}

function ccelEvent({ record, typeName, content }: JudgedRecord): CcelEvent {
  return {
    index: record.index,
    rtmr: record.rtmr,
    type: typeName,
    digest: encodeHex(record.digest),
    description: content.description,
    certified: content.certified,
  }
}

/** Types of the PCRs that a register stands for (Intel TDX Virtual Firmware Design Guide, 8.3.2), with what td-shim puts into RTMR1. */
function isAllowed(rtmr: number, typeName: string): boolean {
  if (rtmr === imageRegister && typeName === "EV_PLATFORM_CONFIG_FLAGS") return true
  return (registerPcrs[rtmr] ?? []).some((pcr) => isTypeAllowed(pcr, typeName))
}

/** A BootOrder of two entries may have the bytes of the error separator; see the event log's own rule. */
function isSeparatorDigest(digest: Uint8Array, typeName: string): boolean {
  const values = typeName === "EV_EFI_VARIABLE_BOOT" ? goodSeparators : [...goodSeparators, errorSeparator]
  return values.some((value) => bytesEqual(hash("sha384", value), digest))
}

function equal(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a !== undefined && b !== undefined && bytesEqual(a, b)
}

const registerBytes = 48
const imageRegister = 1
const exitRegister = 1
const loaderRegister = 2
const runtimeRegister = 3
const lastSeparatedRegister = 1
/** RTMR0: firmware configuration (PCR 0, 1, 7); RTMR1: loaders (2 to 6); RTMR2: what they load (8 to 15). */
const registerPcrs: readonly (readonly number[])[] = [
  [0, 1, 7],
  [2, 3, 4, 5, 6],
  [8, 9, 10, 11, 12, 13, 14, 15],
]
const mustHash: ReadonlySet<string> = new Set([
  "EV_SEPARATOR",
  "EV_ACTION",
  "EV_EFI_ACTION",
  "EV_EFI_VARIABLE_DRIVER_CONFIG",
  "EV_EFI_VARIABLE_BOOT",
  "EV_EFI_VARIABLE_BOOT2",
  "EV_EFI_VARIABLE_AUTHORITY",
  "EV_EFI_GPT_EVENT",
  "EV_EFI_GPT_EVENT2",
  "EV_S_CRTM_VERSION",
])
const goodSeparators = [new Uint8Array(4), new Uint8Array(4).fill(0xff)]
const errorSeparator = Uint8Array.of(1, 0, 0, 0)
const exitSuccess = hash("sha384", encodeUtf8("Exit Boot Services Returned with Success"))
const globalVariableGuid = "61dfe48bca93d211aa0d00e098032b8c"
const secureBootVariables: ReadonlyMap<string, string> = new Map([
  ["SecureBoot", globalVariableGuid],
  ["PK", globalVariableGuid],
  ["KEK", globalVariableGuid],
  ["db", imageSecurityGuid],
  ["dbx", imageSecurityGuid],
])
