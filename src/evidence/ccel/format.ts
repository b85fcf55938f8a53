import { MalformedError } from "../../bytes/error.ts"
import { parseJson } from "../../bytes/json.ts"
import type { JsonValue } from "../../bytes/json.ts"
import { encodeUtf8, parseHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hash } from "../../pki/signatures.ts"
import { parseEventLog } from "../eventlog/format.ts"
import type { EventLog } from "../eventlog/format.ts"
import { EvidenceError } from "../errors.ts"

/** Event logs of TDs: the CCEL table of the firmware (UEFI 2.10, 38.4), and dstack's JSON, which adds run-time events of RTMR3. */

/** One event that extends a register, in whatever form its log had. */
export interface CcelRecord {
  /** Place in the log, from 0, counting every record. */
  readonly index: number
  /** 0 to 3. */
  readonly rtmr: number
  readonly type: number
  /** SHA-384. */
  readonly digest: Uint8Array
  readonly data: Uint8Array
  /** What the digest is over where that is not the data, and a line that tells it to people. */
  readonly runtime?: { readonly hashed: Uint8Array; readonly description: string }
}

export interface CcelLog {
  readonly records: readonly CcelRecord[]
  readonly trailingBytes: number
}

const noAction = 0x00000003
const firstRegister = 1
const lastRegister = 4

/**
 * Reads a CCEL table's log area, padding included.
 * @throws {MalformedError} as parseEventLog
 * @throws {EvidenceError} `log-incomplete` (no SHA-384 bank, or an event without such a digest), `log-order` (a register that does not exist)
 */
export function parseCcel(bytes: Uint8Array): CcelLog {
  const log = parseEventLog(bytes)
  requireSha384(log)
  const records = log.events.flatMap((event): readonly CcelRecord[] => {
    if (event.type === noAction) return []
    const path = `ccel[${event.index}]`
    // Register 0 is MRTD, which nothing extends.
    if (event.register < firstRegister || event.register > lastRegister)
      throw new EvidenceError("log-order", `measurement register ${event.register} cannot be extended`, { path })
    const digest = event.digests.get("sha384")
    if (digest === undefined) throw new EvidenceError("log-incomplete", "no sha384 digest", { path })
    return [{ index: event.index, rtmr: event.register - firstRegister, type: event.type, digest, data: event.data }]
  })
  return { records, trailingBytes: log.trailing.length }
}

function requireSha384(log: EventLog): void {
  if (!log.banks.some(({ name }) => name === "sha384")) throw new EvidenceError("log-incomplete", "the log has no sha384 digests", { path: "ccel" })
}

/** A log has some 30 events of at most some KiB each. */
const maxJsonBytes = 8 * 1024 * 1024
const maxRecords = 65_536
/** Type of dstack's own events in RTMR3. */
const dstackRuntimeType = 0x08000001

/**
 * Reads dstack's event log: a JSON list of { imr, event_type, digest, event, event_payload }. A run-time event's digest is over
 * `type (u32 little-endian) ‖ ":" ‖ name ‖ ":" ‖ payload` (dstack, `cc-eventlog`).
 * @throws {MalformedError} form
 */
export function parseDstackLog(text: Uint8Array | string): CcelLog {
  const list = parseJson(text, { maxBytes: maxJsonBytes, maxDepth: 4 })
  if (!Array.isArray(list)) throw new MalformedError("malformed", "not a list", { path: "eventLog" })
  if (list.length > maxRecords) throw new MalformedError("too-large", `more than ${maxRecords} records`, { path: "eventLog" })
  return { records: (list as readonly JsonValue[]).map(readDstackEvent), trailingBytes: 0 }
}

const dstackMembers = ["imr", "event_type", "digest", "event", "event_payload"]

function readDstackEvent(value: JsonValue, index: number): CcelRecord {
  const path = `eventLog[${index}]`
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new MalformedError("malformed", "not an object", { path })
  const { imr, event_type: type, digest, event, event_payload: payload, ...rest } = value as { readonly [key: string]: JsonValue }
  for (const key of Object.keys(rest)) throw new MalformedError("unknown-field", `not one of ${dstackMembers.join(", ")}`, { path: `${path}.${key}` })
  if (typeof imr !== "number" || !Number.isInteger(imr) || imr < 0 || imr > 3)
    throw new MalformedError("malformed", "not 0 to 3", { path: `${path}.imr` })
  if (typeof type !== "number" || !Number.isInteger(type) || type < 0 || type > 0xffffffff)
    throw new MalformedError("malformed", "not a 32-bit number", { path: `${path}.event_type` })
  if (typeof digest !== "string" || typeof event !== "string" || typeof payload !== "string")
    throw new MalformedError("malformed", "digest, event and event_payload must be texts", { path })
  const measured = parseHex(digest, `${path}.digest`)
  if (measured.length !== 48) throw new MalformedError("malformed", `${measured.length} bytes, expected 48`, { path: `${path}.digest` })
  const data = parseHex(payload, `${path}.event_payload`)
  const record = { index, rtmr: imr, type, digest: measured, data }
  if (type !== dstackRuntimeType) return record
  const hashed = new ByteWriter()
    .u32le(type)
    .bytes(encodeUtf8(`:${event}:`))
    .bytes(data)
    .take()
  return { ...record, runtime: { hashed, description: `${event} = ${payload}` } }
}

/** Register values that the log leads to, by index 0 to 3; registers without events are all zero. Proves nothing by itself. */
export function replayCcel(log: CcelLog): readonly [Uint8Array, Uint8Array, Uint8Array, Uint8Array] {
  const registers: [Uint8Array, Uint8Array, Uint8Array, Uint8Array] = [new Uint8Array(48), new Uint8Array(48), new Uint8Array(48), new Uint8Array(48)]
  for (const { rtmr, digest } of log.records) registers[rtmr] = hash("sha384", registers[rtmr] ?? new Uint8Array(48), digest)
  return registers
}
