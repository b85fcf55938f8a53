import { encodeUtf8, parseHex } from "../../src/bytes/text.ts"
import { ByteWriter } from "../../src/bytes/writer.ts"
import { encodeEventLog, type LogEvent } from "../../src/evidence/eventlog/format.ts"
import { type EventTypeName, eventTypes } from "../../src/evidence/eventlog/types.ts"
import { hash } from "../../src/pki/signatures.ts"

/** Something that firmware or the kernel's EFI stub measures at boot. */
export interface MeasuredEvent {
  /** 1 to 3: RTMR0 to RTMR2. */
  readonly register: 1 | 2 | 3
  readonly type: EventTypeName
  /** What stands in the log. */
  readonly data: Uint8Array
  /** What the digest is over, where that is not the data. */
  readonly hashed?: Uint8Array
}

/** A CCEL table's log area with SHA-384 digests, behind its Spec ID event (TCG PFP 1.06, 10.4.5.1). */
export function encodeCcel(events: readonly MeasuredEvent[]): Uint8Array {
  const specId: LogEvent = { index: 0, register: 1, type: eventTypes.EV_NO_ACTION, digests: new Map(), data: specIdData(), end: 0 }
  const records = events.map(({ register, type, data, hashed }, place): LogEvent => {
    const digests = new Map([["sha384", hash("sha384", hashed ?? data)]])
    return { index: place + 1, register, type: eventTypes[type], digests, data, end: 0 }
  })
  return encodeEventLog({ format: "crypto-agile", banks: [sha384], events: [specId, ...records], sizeBytes: 0, trailing: new Uint8Array(0) })
}

export function separator(register: 1 | 2): MeasuredEvent {
  return { register, type: "EV_SEPARATOR", data: new Uint8Array(4) }
}

export function action(text: string): MeasuredEvent {
  return { register: 2, type: "EV_EFI_ACTION", data: encodeUtf8(text) }
}

/** A variable that decides about Secure Boot, as UEFI_VARIABLE_DATA (TCG PFP 1.06, 10.2.6). */
export function secureBootVariable(name: string, value: Uint8Array): MeasuredEvent {
  const head = new ByteWriter().bytes(parseHex(name.startsWith("db") ? imageSecurityGuid : globalVariableGuid))
  const data = head.u64le(BigInt(name.length)).u64le(BigInt(value.length)).bytes(utf16(name)).bytes(value).take()
  return { register: 1, type: "EV_EFI_VARIABLE_DRIVER_CONFIG", data }
}

/** What the kernel's EFI stub logs in place of load options or an initial ram disk (drivers/firmware/efi/libstub/efistub.h). */
export function stubTag(kind: "load-options" | "initrd", hashed: Uint8Array): MeasuredEvent {
  const [id, text] = kind === "load-options" ? [0x8f3b22ed, "LOADED_IMAGE::LoadOptions\0"] : [0x8f3b22ec, "Linux initrd\0"]
  const label = encodeUtf8(text)
  return { register: 3, type: "EV_EVENT_TAG", data: new ByteWriter().u32le(id).u32le(label.length).bytes(label).take(), hashed }
}

export function utf16(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "utf16le"))
}

/** TCG_EfiSpecIDEvent with one algorithm, 64-bit. */
function specIdData(): Uint8Array {
  const head = new ByteWriter().bytes(encodeUtf8("Spec ID Event03\0")).u32le(0).u8(0).u8(2).u8(0).u8(2)
  return head.u32le(1).u16le(sha384.algorithm).u16le(sha384.digestBytes).u8(0).take()
}

const sha384 = { algorithm: 0x000c, name: "sha384", digestBytes: 48 } as const
/** EFI_GUIDs as they stand in memory. */
export const globalVariableGuid = "61dfe48bca93d211aa0d00e098032b8c"
export const imageSecurityGuid = "cbb219d73a3d9645a3bcdad00e67656f"
