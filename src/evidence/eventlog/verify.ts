import { bytesEqual } from "../../bytes/compare.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../bytes/text.ts"
import { hash, hashSizes } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { Genuine } from "../genuine.ts"
import type { BootClaims, BootEvent } from "./claims.ts"
import { imageSecurityGuid, isDatabaseAuthority, linuxTagOf, loadOptionsDigest, printable, readContent } from "./contents.ts"
import type { EventContent } from "./contents.ts"
import { parseEventLog } from "./format.ts"
import type { EventLog, LogEvent } from "./format.ts"
import { replayEventLog, startValue } from "./replay.ts"
import type { Replay } from "./replay.ts"
import { eventTypeName, eventTypes, isTypeAllowed } from "./types.ts"
import { certifiedText, parseUserspaceLog } from "./userspace.ts"
import type { UserspaceEvent } from "./userspace.ts"

/** Faults of firmware and boot loaders that a caller may accept by name; those that were needed stand in `BootClaims.quirks`. */
export const firmwareQuirks = {
  "no-exit-boot-services": "the firmware measures no ExitBootServices events: what an operating system extended later cannot be told apart",
  "unlogged-exit-boot-services": "the firmware measures the two ExitBootServices events into PCR 5 but the log lacks them",
  "secure-boot-variables-missing": "PCR 7 does not hold SecureBoot, PK, KEK, db and dbx exactly once before its separator",
  "crtm-version-not-hashed": "the digest of EV_S_CRTM_VERSION does not cover its data",
  "authority-not-hashed": "the digest of an EV_EFI_VARIABLE_AUTHORITY event does not cover its data (old boot loaders)",
  "debug-mode": "the firmware says that it is in debug mode",
} as const satisfies Record<string, string>

export type FirmwareQuirk = keyof typeof firmwareQuirks

export interface EventLogExpectations {
  readonly bank: HashName
  /**
   * Values of this bank that a verified quote covers, lower-case hexadecimal by index, for the registers that the boot log has to explain. Leave out
   * those that another log explains (10: IMA). Events of other registers are ignored.
   */
  readonly quotedPcrs: ReadonlyMap<number, string>
  readonly quirks?: readonly FirmwareQuirk[]
  /** Judges a SHA-1 bank; only where the caller's policy names it as weak. */
  readonly insecureAllowSha1?: boolean
  /** Kernel command lines that the machine may have been started with: load options are measured by digest only, and one of these may explain it. */
  readonly commandLineCandidates?: readonly string[]
  /** systemd's log of what user space extended after the boot, for quoted registers 11, 12, 13 and 15; see userspace.ts. */
  readonly userspaceLog?: Uint8Array
}

/**
 * Holds a measured boot log against quoted registers and against the TCG PC Client Platform Firmware Profile 1.06, and gives what the digests certify.
 * @throws {MalformedError} as parseEventLog
 * @throws {EvidenceError} `weak-algorithm` (SHA-1), `pcr-mismatch`, `log-incomplete`, `log-order`, `log-mismatch`, `unsupported` (debug mode)
 */
export function verifyEventLog(bytes: Uint8Array, expectations: EventLogExpectations): Genuine<BootClaims> {
  if (expectations.bank === "sha1" && expectations.insecureAllowSha1 !== true)
    throw new EvidenceError("weak-algorithm", "the boot log is judged by SHA-1 digests only", { path: "eventLog" })
  const log = parseEventLog(bytes)
  const judge = new BootJudge(log, expectations)
  judge.checkRegisters()
  judge.checkEvents()
  judge.checkSeparators()
  judge.checkExitBootServices()
  const secureBoot = judge.checkSecureBoot()
  return Genuine.afterVerification(judge.claims(secureBoot))
}

interface JudgedEvent {
  readonly event: LogEvent
  readonly digest: Uint8Array
  readonly typeName: string
  readonly content: EventContent
}

/** One verification's working state: the quoted registers' events and the quirks that were needed. */
class BootJudge {
  readonly #log: EventLog
  readonly #bank: HashName
  readonly #quoted: ReadonlyMap<number, Uint8Array>
  readonly #allowedQuirks: ReadonlySet<FirmwareQuirk>
  readonly #usedQuirks = new Set<FirmwareQuirk>()
  readonly #replay: Replay
  readonly #events: readonly JudgedEvent[]
  readonly #candidates: readonly string[]
  /** Only those of quoted registers. */
  readonly #userspace: readonly UserspaceEvent[]

  constructor(log: EventLog, expectations: EventLogExpectations) {
    this.#log = log
    this.#bank = expectations.bank
    this.#allowedQuirks = new Set(expectations.quirks)
    this.#candidates = expectations.commandLineCandidates ?? []
    this.#quoted = new Map(
      [...expectations.quotedPcrs].map(([pcr, value]) => {
        const parsed = parseHex(value, `quotedPcrs.${pcr}`)
        if (parsed.length !== hashSizes[this.#bank]) throw new TypeError(`value of PCR ${pcr} is no ${this.#bank} digest`)
        return [pcr, parsed]
      }),
    )
    this.#userspace = parseUserspaceLog(expectations.userspaceLog ?? new Uint8Array(0)).filter(({ pcr }) => this.#quoted.has(pcr))
    this.#replay = this.#withUserspace(replayEventLog(log, this.#bank))
    this.#events = log.events.flatMap((event) => this.#judge(event))
  }

  /** Events of quoted registers that extend; what lacks a digest of this bank is found by `checkRegisters`. */
  #judge(event: LogEvent): readonly JudgedEvent[] {
    const digest = event.digests.get(this.#bank)
    if (event.type === eventTypes.EV_NO_ACTION || digest === undefined || !this.#quoted.has(event.register)) return []
    return [{ event, digest, typeName: eventTypeName(event.type), content: readContent(event, this.#bank) }]
  }

  /** The boot's registers with what user space extended behind it: systemd's registers only, for the others hold boot evidence. */
  #withUserspace(boot: Replay): Replay {
    const registers = new Map(boot.registers)
    const incomplete = new Set(boot.incomplete)
    for (const [index, { pcr, digests }] of this.#userspace.entries()) {
      if (!userspacePcrs.has(pcr)) throw new EvidenceError("log-order", `user space may not extend PCR ${pcr}`, { path: `userspaceLog[${index}]` })
      const digest = digests.get(this.#bank)
      if (digest === undefined) incomplete.add(pcr)
      else registers.set(pcr, hash(this.#bank, registers.get(pcr) ?? startValue(pcr, this.#bank, boot.startupLocality), digest))
    }
    return { ...boot, registers, incomplete }
  }

  #userspaceEvent(event: UserspaceEvent, index: number): BootEvent {
    const text = certifiedText(event, this.#bank)
    const digest = encodeHex(event.digests.get(this.#bank) ?? new Uint8Array(0))
    return { index, pcr: event.pcr, type: printable(event.eventType), digest, description: printable(text), certified: text !== "" }
  }

  /** Every quoted register holds exactly what the log leads to. */
  checkRegisters(): void {
    const wrong: string[] = []
    for (const [pcr, value] of this.#quoted) {
      if (this.#replay.incomplete.has(pcr))
        throw new EvidenceError("log-incomplete", `an event of PCR ${pcr} has no ${this.#bank} digest`, { path: "eventLog" })
      const replayed = this.#replay.registers.get(pcr)
      if (replayed === undefined) {
        if (!bytesEqual(value, startValue(pcr, this.#bank, this.#replay.startupLocality)))
          throw new EvidenceError("log-incomplete", `PCR ${pcr} holds a value but the log has no event for it`, { path: "eventLog" })
      } else if (!bytesEqual(value, replayed) && !this.#isUnloggedExit(pcr, replayed, value)) {
        wrong.push(`PCR ${pcr} (log ${encodeHex(replayed)}, quote ${encodeHex(value)})`)
      }
    }
    if (wrong.length > 0) throw new EvidenceError("pcr-mismatch", `the log does not explain ${wrong.join(", ")}`, { path: "eventLog" })
  }

  #isUnloggedExit(pcr: number, replayed: Uint8Array, quoted: Uint8Array): boolean {
    if (pcr !== exitPcr || !this.#allowedQuirks.has("unlogged-exit-boot-services")) return false
    const invoked = hash(this.#bank, replayed, this.#digestOf(exitInvocation))
    if (!bytesEqual(quoted, hash(this.#bank, invoked, this.#digestOf(exitSuccess)))) return false
    this.#usedQuirks.add("unlogged-exit-boot-services")
    return true
  }

  /** Each event's type may stand in its register, and its data hashes to its digest where the specification says that it does. */
  checkEvents(): void {
    for (const { event, digest, typeName, content } of this.#events) {
      const path = `eventLog[${event.index}]`
      if (!isTypeAllowed(event.register, typeName)) throw new EvidenceError("log-order", `${typeName} may not extend PCR ${event.register}`, { path })
      if (typeName !== "EV_SEPARATOR" && event.register <= lastFirmwarePcr && this.#isSeparatorDigest(digest, typeName))
        throw new EvidenceError("log-mismatch", `a separator's digest under the type ${typeName}`, { path })
      if (event.register === secureBootPcr && bytesEqual(digest, this.#digestOf(debugMode)))
        this.#needQuirk("debug-mode", "unsupported", "the firmware is in debug mode", path)
      if (content.certified) continue
      const rule = mustHash[typeName]
      if (rule === "always") throw new EvidenceError("log-mismatch", `the data of ${typeName} does not hash to its digest`, { path })
      if (rule !== undefined) this.#needQuirk(rule, "log-mismatch", `the data of ${typeName} does not hash to its digest`, path)
    }
  }

  /** Exactly one separator in each quoted register of the firmware, marking no error, and no firmware code or configuration behind it. */
  checkSeparators(): void {
    for (let pcr = 0; pcr <= lastFirmwarePcr; pcr++) {
      if (!this.#quoted.has(pcr)) continue
      const events = this.#events.filter(({ event }) => event.register === pcr)
      const separators = events.filter(({ typeName }) => typeName === "EV_SEPARATOR")
      const separator = separators[0]
      if (separator === undefined) throw new EvidenceError("log-incomplete", `PCR ${pcr} has no separator`, { path: "eventLog" })
      const second = separators[1]
      if (second !== undefined) throw new EvidenceError("log-order", `second separator of PCR ${pcr}`, { path: `eventLog[${second.event.index}]` })
      const path = `eventLog[${separator.event.index}]`
      if (!goodSeparators.some((value) => bytesEqual(value, separator.event.data)))
        throw new EvidenceError("log-mismatch", `separator ${encodeHex(separator.event.data)} marks an error of the firmware`, { path })
      if (closedBySeparator.has(pcr) && events.at(-1) !== separator)
        throw new EvidenceError("log-order", `an event of PCR ${pcr} behind its separator`, { path })
    }
  }

  /** What follows a successful ExitBootServices is no evidence of the boot: such a log is refused. */
  checkExitBootServices(): void {
    if (!this.#quoted.has(exitPcr) || this.#usedQuirks.has("unlogged-exit-boot-services")) return
    const success = this.#digestOf(exitSuccess)
    const place = this.#events.findIndex(({ event, digest }) => event.register === exitPcr && bytesEqual(digest, success))
    if (place < 0) {
      this.#needQuirk("no-exit-boot-services", "log-incomplete", "the log has no ExitBootServices events", "eventLog")
      return
    }
    const later = this.#events[place + 1]
    if (later !== undefined)
      throw new EvidenceError("log-order", `an event of PCR ${later.event.register} behind ExitBootServices`, {
        path: `eventLog[${later.event.index}]`,
      })
  }

  checkSecureBoot(): BootClaims["secureBoot"] {
    if (!this.#quoted.has(secureBootPcr)) return "unknown"
    const state = this.#secureBootState()
    if (state !== "enabled") return state
    if (!this.#events.some(({ event, typeName, content }) => event.register === secureBootPcr && isDatabaseAuthority(typeName, content)))
      throw new EvidenceError("log-incomplete", "Secure Boot is enabled but no entry of db was measured as an image's authority", {
        path: "eventLog",
      })
    return state
  }

  #secureBootState(): BootClaims["secureBoot"] {
    const found = new Map<string, Uint8Array>()
    let separated = false
    for (const { event, typeName, content } of this.#events) {
      if (event.register !== secureBootPcr) continue
      if (typeName === "EV_SEPARATOR") separated = true
      if (typeName !== "EV_EFI_VARIABLE_DRIVER_CONFIG" || content.variable === undefined) continue
      const { vendorGuid, name, value } = content.variable
      if (secureBootVariables.get(name) !== vendorGuid) continue
      const path = `eventLog[${event.index}]`
      if (found.has(name)) throw new EvidenceError("log-order", `the variable ${name} was measured twice`, { path })
      if (separated) throw new EvidenceError("log-order", `the variable ${name} was measured behind the separator`, { path })
      found.set(name, value)
    }
    const missing = [...secureBootVariables.keys()].filter((name) => !found.has(name))
    if (missing.length > 0) this.#needQuirk("secure-boot-variables-missing", "log-incomplete", `PCR 7 lacks ${missing.join(", ")}`, "eventLog")
    const value = found.get("SecureBoot")
    if (value === undefined || value.length === 0) return "unknown"
    switch (encodeHex(value)) {
      case "00":
        return "disabled"
      case "01":
        return "enabled"
      default:
        throw new EvidenceError("log-mismatch", `SecureBoot is ${encodeHex(value)}, expected 00 or 01`, { path: "eventLog" })
    }
  }

  claims(secureBoot: BootClaims["secureBoot"]): BootClaims {
    return {
      bank: this.#bank,
      events: this.#events.map(bootEvent),
      pcrs: new Map([...this.#quoted].map(([pcr, value]) => [pcr, encodeHex(value)])),
      startupLocality: this.#replay.startupLocality,
      secureBoot,
      commandLines: this.#events.flatMap((judged) => this.#commandLineOf(judged)),
      loadOptions: this.#digestsWhere(({ event }) => event.register === 9 && linuxTagOf(event) === "load-options"),
      images: this.#digestsWhere(({ event, content }) => event.register === 4 && !content.certified),
      initrds: this.#digestsWhere(({ event }) => event.register === 9 && linuxTagOf(event) === "initrd"),
      ...(this.#userspace.length === 0 ? {} : { userspace: this.#userspace.map((event, index) => this.#userspaceEvent(event, index)) }),
      quirks: [...this.#usedQuirks],
      trailingBytes: this.#log.trailing.length,
    }
  }

  /**
   * GRUB certifies the text only, not whether it was a command or a kernel's command line. Command lines begin with the kernel's path, `/…` or
   * `(hd0,…`, which no command does, so the text itself decides. In PCR 12 systemd-boot and -stub measure nothing but command lines as text.
   */
  #commandLineOf({ event, digest, content }: JudgedEvent): BootClaims["commandLines"] {
    const pcr = event.register
    if (pcr === 9) {
      const text = this.#candidates.find((candidate) => bytesEqual(loadOptionsDigest(candidate, this.#bank), digest))
      return text === undefined ? [] : [{ pcr, text }]
    }
    if (content.text === undefined) return []
    if (pcr === 12 || (pcr === 8 && /^[/(]/.test(content.text))) return [{ pcr, text: content.text }]
    return []
  }

  #digestsWhere(matches: (judged: JudgedEvent) => boolean): readonly string[] {
    return this.#events.filter(matches).map(({ digest }) => encodeHex(digest))
  }

  #needQuirk(quirk: FirmwareQuirk, code: "log-incomplete" | "log-mismatch" | "unsupported", message: string, path: string): void {
    if (!this.#allowedQuirks.has(quirk)) throw new EvidenceError(code, `${message} (firmware quirk "${quirk}" is not allowed)`, { path })
    this.#usedQuirks.add(quirk)
  }

  /** A BootOrder of the entries 1 and 0 has the bytes of the error separator; the other two values mean nothing as a variable. */
  #isSeparatorDigest(digest: Uint8Array, typeName: string): boolean {
    const values = typeName === "EV_EFI_VARIABLE_BOOT" ? goodSeparators : [...goodSeparators, errorSeparator]
    return values.some((value) => bytesEqual(hash(this.#bank, value), digest))
  }

  #digestOf(text: string): Uint8Array {
    return hash(this.#bank, encodeUtf8(text))
  }
}

function bootEvent({ event, digest, typeName, content }: JudgedEvent): BootEvent {
  return {
    index: event.index,
    pcr: event.register,
    type: typeName,
    digest: encodeHex(digest),
    description: content.description,
    certified: content.certified,
  }
}

/** Types whose digest covers the data by the specification; where firmware is known to get it wrong, the quirk that has to be allowed. */
const mustHash: Readonly<Record<string, "always" | FirmwareQuirk>> = {
  EV_SEPARATOR: "always",
  EV_ACTION: "always",
  EV_EFI_ACTION: "always",
  EV_EFI_VARIABLE_DRIVER_CONFIG: "always",
  EV_EFI_VARIABLE_BOOT: "always",
  EV_EFI_VARIABLE_BOOT2: "always",
  EV_EFI_GPT_EVENT: "always",
  EV_EFI_GPT_EVENT2: "always",
  EV_S_CRTM_VERSION: "crtm-version-not-hashed",
  EV_EFI_VARIABLE_AUTHORITY: "authority-not-hashed",
}

const lastFirmwarePcr = 7
/** systemd: kernel and boot phases (11), configuration (12), extensions (13), machine identity and volume keys (15). */
const userspacePcrs: ReadonlySet<number> = new Set([11, 12, 13, 15])
const exitPcr = 5
const secureBootPcr = 7
/** Firmware code (0), drivers (2) and their configuration (3): nothing of these may follow the separator. Narrower than the specification. */
const closedBySeparator: ReadonlySet<number> = new Set([0, 2, 3])
/** TCG PFP 1.06 §10.4.1 EV_SEPARATOR: 0 or 0xFFFFFFFF; 1 marks an error. */
const goodSeparators = [new Uint8Array(4), new Uint8Array(4).fill(0xff)]
const errorSeparator = Uint8Array.of(1, 0, 0, 0)
/** Texts of EV_EFI_ACTION events, TCG PFP 1.06 §10.4.4. */
const exitInvocation = "Exit Boot Services Invocation"
const exitSuccess = "Exit Boot Services Returned with Success"
const debugMode = "UEFI Debug Mode"
const globalVariableGuid = "61dfe48bca93d211aa0d00e098032b8c"
/** The five that TCG PFP 1.06 §3.3.4.8 wants in PCR 7, with their vendor GUIDs as bytes in memory. */
const secureBootVariables: ReadonlyMap<string, string> = new Map([
  ["SecureBoot", globalVariableGuid],
  ["PK", globalVariableGuid],
  ["KEK", globalVariableGuid],
  ["db", imageSecurityGuid],
  ["dbx", imageSecurityGuid],
])
