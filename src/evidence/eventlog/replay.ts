import { encodeUtf8 } from "../../bytes/text.ts"
import { hash, hashSizes } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import type { EventLog, LogEvent } from "./format.ts"
import { eventTypes } from "./types.ts"

export interface Replay {
  /** Values of the registers that events extend, by index. */
  readonly registers: ReadonlyMap<number, Uint8Array>
  /** Registers with an event that lacks a digest of this bank: their value cannot be explained by this log. */
  readonly incomplete: ReadonlySet<number>
  /** Locality that issued TPM2_Startup, from the StartupLocality record: PCR 0's start value. 0 where there is no such record. */
  readonly startupLocality: number
}

/**
 * Register values that a TPM's log leads to, in one bank; proves nothing by itself. Start values: TCG PFP 1.06 §10.4.5.3 (StartupLocality) and TPM 2.0
 * Library Part 1 (all ones in 17 to 22, else zero).
 * @throws {EvidenceError} `log-incomplete` (bank not in the log), `log-order` (StartupLocality twice or late; a register that does not exist),
 * `log-mismatch` (StartupLocality that is none)
 */
export function replayEventLog(log: EventLog, bank: HashName): Replay {
  requireBank(log, bank)
  const registers = new Map<number, Uint8Array>()
  const incomplete = new Set<number>()
  let locality: number | undefined
  for (const event of log.events) {
    if (event.type === eventTypes.EV_NO_ACTION) {
      const found = startupLocalityOf(event)
      if (found === undefined) continue
      if (locality !== undefined) throw new EvidenceError("log-order", "second StartupLocality record", { path: pathOf(event) })
      if (registers.has(0) || incomplete.has(0))
        throw new EvidenceError("log-order", "StartupLocality behind the first event of PCR 0", { path: pathOf(event) })
      locality = found
      continue
    }
    if (event.register > lastPcr) throw new EvidenceError("log-order", `PCR ${event.register} does not exist`, { path: pathOf(event) })
    const digest = event.digests.get(bank)
    if (digest === undefined) {
      incomplete.add(event.register)
      continue
    }
    const before = registers.get(event.register) ?? startValue(event.register, bank, locality ?? 0)
    registers.set(event.register, hash(bank, before, digest))
  }
  return { registers, incomplete, startupLocality: locality ?? 0 }
}

/**
 * Measurement registers that the log of a confidential guest (CCEL table; UEFI 2.10 §38.4, Intel TDX Virtual Firmware Design Guide) leads to: index
 * 1 to 4 for RTMR0 to RTMR3, SHA-384, from zero. Proves nothing by itself.
 * @throws {EvidenceError} `log-incomplete` (no SHA-384 bank, or an event without such a digest), `log-order` (other indices)
 */
export function replayMeasurementRegisters(log: EventLog): ReadonlyMap<number, Uint8Array> {
  requireBank(log, "sha384")
  const registers = new Map<number, Uint8Array>()
  for (const event of log.events) {
    if (event.type === eventTypes.EV_NO_ACTION) continue
    if (event.register < firstRtmr || event.register > lastRtmr)
      throw new EvidenceError("log-order", `measurement register ${event.register} cannot be extended`, { path: pathOf(event) })
    const digest = event.digests.get("sha384")
    if (digest === undefined) throw new EvidenceError("log-incomplete", "no sha384 digest", { path: pathOf(event) })
    const before = registers.get(event.register) ?? new Uint8Array(hashSizes.sha384)
    registers.set(event.register, hash("sha384", before, digest))
  }
  return registers
}

/** What a PCR holds before its first extend. */
export function startValue(pcr: number, bank: HashName, startupLocality: number): Uint8Array {
  const value = new Uint8Array(hashSizes[bank])
  if (pcr >= firstDrtmPcr && pcr <= lastDrtmPcr) value.fill(0xff)
  else if (pcr === 0) value[value.length - 1] = startupLocality
  return value
}

function requireBank(log: EventLog, bank: HashName): void {
  if (!log.banks.some((candidate) => candidate.name === bank))
    throw new EvidenceError("log-incomplete", `the log has no ${bank} digests, only ${log.banks.map((candidate) => candidate.name).join(", ")}`, {
      path: "eventLog",
    })
}

/** TCG_EfiStartupLocalityEvent: 16 bytes of signature, then the locality. */
function startupLocalityOf(event: LogEvent): number | undefined {
  if (!startupSignature.every((byte, at) => event.data[at] === byte)) return undefined
  const locality = event.data[startupSignature.length]
  if (event.register !== 0) throw new EvidenceError("log-order", "StartupLocality outside PCR 0", { path: pathOf(event) })
  if (event.data.length !== startupSignature.length + 1 || locality === undefined || !startupLocalities.has(locality))
    throw new EvidenceError("log-mismatch", "StartupLocality is none of 0, 3 and 4", { path: pathOf(event) })
  return locality
}

function pathOf(event: LogEvent): string {
  return `eventLog[${event.index}]`
}

const startupSignature = encodeUtf8("StartupLocality\0")
/** TPM2_Startup comes from locality 0 or 3; 4 stands for an H-CRTM sequence. */
const startupLocalities: ReadonlySet<number> = new Set([0, 3, 4])
const lastPcr = 23
const firstDrtmPcr = 17
const lastDrtmPcr = 22
const firstRtmr = 1
const lastRtmr = 4
