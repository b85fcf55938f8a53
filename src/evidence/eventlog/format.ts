import { MalformedError } from "../../bytes/error.ts"
import { ByteReader } from "../../bytes/reader.ts"
import { encodeUtf8 } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { eventTypes, logAlgorithms } from "./types.ts"

/**
 * The measured boot log: TCG_PCR_EVENT (TPM 1.2, SHA-1) and TCG_PCR_EVENT2 (crypto-agile) records of the TCG PC Client Platform Firmware Profile 1.06
 * §10.2. A CCEL table of a confidential guest has the same form; there `register` counts MRTD (0) and RTMR0 to 3 (1 to 4).
 */
export interface EventLog {
  readonly format: "sha1" | "crypto-agile"
  /** Digest algorithms of the log: SHA-1 alone, or what the Spec ID event lists, in its order. */
  readonly banks: readonly LogBank[]
  /** Every record, the Spec ID event included. */
  readonly events: readonly LogEvent[]
  /** Bytes from the start of the log to the end of its last record. */
  readonly sizeBytes: number
  /** Bytes of padding behind the last record: all 0xFF or all 0x00, as in an ACPI log area. */
  readonly trailing: Uint8Array
}

export interface LogBank {
  /** TPM_ALG_ID. */
  readonly algorithm: number
  /** e.g. `sha256`; `0x…` where the algorithm is unknown and its digests are only skipped. */
  readonly name: string
  readonly digestBytes: number
}

export interface LogEvent {
  /** Place in the log, from 0. */
  readonly index: number
  /** pcrIndex as it stands; 0xFFFFFFFF exists for records of no register. */
  readonly register: number
  /** eventType; see types.ts. */
  readonly type: number
  /** Digests by bank name; a record may lack some of the log's banks. */
  readonly digests: ReadonlyMap<string, Uint8Array>
  readonly data: Uint8Array
  /** Offset of the byte behind this record. */
  readonly end: number
}

/**
 * @throws {MalformedError} `truncated` where the log ends inside a record, `too-large`, `duplicate` (digest algorithms), `malformed` (algorithms that
 * the Spec ID event does not list)
 */
export function parseEventLog(bytes: Uint8Array): EventLog {
  const { log, fault } = scanEventLog(bytes)
  if (fault !== undefined) throw fault
  return log
}

/**
 * Reads as many whole records as there are: for tools that show a broken log. Everything else uses `parseEventLog`.
 * @returns the records before the fault; `trailing` then holds the bytes that could not be read
 * @throws {MalformedError} where not even the first record can be read
 */
export function scanEventLog(bytes: Uint8Array): { readonly log: EventLog; readonly fault: MalformedError | undefined } {
  if (bytes.length > maxLogBytes)
    throw new MalformedError("too-large", `${bytes.length} bytes, at most ${maxLogBytes} are allowed`, { path: "eventLog" })
  const padding = paddingStart(bytes)
  const reader = new ByteReader("eventLog", bytes)
  const first = readSha1Event(reader, 0)
  const events = [first]
  let format: EventLog["format"] = "sha1"
  let banks: readonly LogBank[] = [sha1Bank]
  let fault: MalformedError | undefined
  let end = first.end
  try {
    if (isSpecIdEvent(first)) {
      format = "crypto-agile"
      const specId = new ByteReader("eventLog[0].specId", first.data)
      banks = readBanks(specId)
      readVendorInfo(specId)
    }
    while (reader.remaining > 0 && !(reader.offset >= padding && reader.remaining >= minPaddingBytes)) {
      if (events.length >= maxEvents) throw reader.error("too-large", "events", `more than ${maxEvents} records`)
      const event = format === "sha1" ? readSha1Event(reader, events.length) : readAgileEvent(reader, events.length, banks)
      events.push(event)
      end = event.end
    }
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error
    fault = error
  }
  return { log: { format, banks, events, sizeBytes: end, trailing: new Uint8Array(bytes.subarray(end)) }, fault }
}

/** The log's bytes again, padding included. */
export function encodeEventLog(log: EventLog): Uint8Array {
  const writer = new ByteWriter()
  for (const event of log.events) {
    writer.u32le(event.register).u32le(event.type)
    if (log.format === "sha1" || event.index === 0) writer.bytes(event.digests.get("sha1") ?? new Uint8Array(sha1Bank.digestBytes))
    else writeDigests(writer, event, log.banks)
    writer.u32le(event.data.length).bytes(event.data)
  }
  return writer.bytes(log.trailing).take()
}

function writeDigests(writer: ByteWriter, event: LogEvent, banks: readonly LogBank[]): void {
  writer.u32le(event.digests.size)
  for (const [name, digest] of event.digests) {
    const bank = banks.find((candidate) => candidate.name === name)
    if (bank === undefined) throw new TypeError(`the log has no bank ${name}`)
    writer.u16le(bank.algorithm).bytes(digest)
  }
}

/** TCG_PCR_EVENT: pcrIndex u32, eventType u32, digest 20 bytes, eventDataSize u32, event; little-endian. */
function readSha1Event(reader: ByteReader, index: number): LogEvent {
  const register = reader.u32le(`[${index}].pcrIndex`)
  const type = reader.u32le(`[${index}].eventType`)
  const digests = new Map([["sha1", reader.bytes(sha1Bank.digestBytes, `[${index}].digest`)]])
  const data = readEventData(reader, index)
  return { index, register, type, digests, data, end: reader.offset }
}

/** TCG_PCR_EVENT2: pcrIndex u32, eventType u32, TPML_DIGEST_VALUES (count u32, then algorithm u16 and digest each), eventSize u32, event. */
function readAgileEvent(reader: ByteReader, index: number, banks: readonly LogBank[]): LogEvent {
  const register = reader.u32le(`[${index}].pcrIndex`)
  const type = reader.u32le(`[${index}].eventType`)
  const count = reader.u32le(`[${index}].digests.count`)
  if (count === 0 || count > banks.length)
    throw reader.error("malformed", `[${index}].digests.count`, `${count} digests, expected 1 to ${banks.length} as the Spec ID event lists`)
  const digests = new Map<string, Uint8Array>()
  for (let place = 0; place < count; place++) {
    const field = `[${index}].digests[${place}]`
    const algorithm = reader.u16le(field)
    const bank = banks.find((candidate) => candidate.algorithm === algorithm)
    if (bank === undefined) throw reader.error("malformed", field, `algorithm 0x${algorithm.toString(16)} is not in the Spec ID event`)
    if (digests.has(bank.name)) throw reader.error("duplicate", field, `second ${bank.name} digest`)
    digests.set(bank.name, reader.bytes(bank.digestBytes, field))
  }
  const data = readEventData(reader, index)
  return { index, register, type, digests, data, end: reader.offset }
}

function readEventData(reader: ByteReader, index: number): Uint8Array {
  return reader.boundedBytes(reader.u32le(`[${index}].eventSize`), maxEventBytes, `[${index}].event`)
}

function isSpecIdEvent(event: LogEvent): boolean {
  return event.type === eventTypes.EV_NO_ACTION && specIdSignature.every((byte, at) => event.data[at] === byte)
}

/**
 * TCG_EfiSpecIDEvent: signature 16 bytes, platformClass u32, specVersionMinor u8, specVersionMajor u8, specErrata u8, uintnSize u8,
 * numberOfAlgorithms u32, then algorithmId u16 and digestSize u16 each, vendorInfoSize u8, vendorInfo.
 */
function readBanks(reader: ByteReader): readonly LogBank[] {
  reader.bytes(16, "signature")
  reader.u32le("platformClass")
  reader.u8("specVersionMinor")
  reader.u8("specVersionMajor")
  reader.u8("specErrata")
  reader.u8("uintnSize")
  const count = reader.u32le("numberOfAlgorithms")
  if (count === 0 || count > maxBanks) throw reader.error("too-large", "numberOfAlgorithms", `${count}, expected 1 to ${maxBanks}`)
  const banks: LogBank[] = []
  for (let place = 0; place < count; place++) {
    const field = `digestSizes[${place}]`
    const algorithm = reader.u16le(field)
    const digestBytes = reader.u16le(field)
    const known = logAlgorithms.get(algorithm)
    if (known !== undefined && known.digestBytes !== digestBytes)
      throw reader.error("malformed", field, `${known.name} of ${digestBytes} bytes, expected ${known.digestBytes}`)
    if (digestBytes === 0 || digestBytes > maxDigestBytes)
      throw reader.error("too-large", field, `digest of ${digestBytes} bytes, expected 1 to ${maxDigestBytes}`)
    const name = known?.name ?? `0x${algorithm.toString(16).padStart(4, "0")}`
    if (banks.some((bank) => bank.algorithm === algorithm)) throw reader.error("duplicate", field, `${name} is listed twice`)
    banks.push({ algorithm, name, digestBytes })
  }
  return banks
}

function readVendorInfo(reader: ByteReader): void {
  reader.bytes(reader.u8("vendorInfoSize"), "vendorInfo")
  reader.finish()
}

/** Offset from which every byte up to the end is the same, and that is 0x00 or 0xFF; the length where there is no such run. */
function paddingStart(bytes: Uint8Array): number {
  const fill = bytes.at(-1)
  if (fill !== 0x00 && fill !== 0xff) return bytes.length
  let start = bytes.length
  while (bytes[start - 1] === fill) start--
  return start
}

const specIdSignature = encodeUtf8("Spec ID Event03\0")
const sha1Bank: LogBank = { algorithm: 0x0004, name: "sha1", digestBytes: 20 }
/** ACPI log areas are 64 KiB to 1 MiB; more has no use and would let a host make us allocate. */
const maxLogBytes = 8 * 1024 * 1024
/** The largest real events are revocation lists of some 100 KiB. */
const maxEventBytes = 1024 * 1024
/** Real logs hold some hundred records. */
const maxEvents = 65_536
/** The TCG registry has ten hash algorithms. */
const maxBanks = 16
/** SHA-512. */
const maxDigestBytes = 64
/** Fewer equal bytes than the two fields that every record begins with may be the head of a record that was cut off, so they are no padding. */
const minPaddingBytes = 8
