import { encodeHex, encodeUtf8, parseHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { encodeEventLog, parseEventLog } from "./format.ts"
import type { EventLog, LogEvent } from "./format.ts"
import { replayEventLog, startValue } from "./replay.ts"
import { eventTypes, logAlgorithms } from "./types.ts"
import type { EventTypeName } from "./types.ts"

/** An event to be put into a laboratory log. */
export interface EventInput {
  readonly pcr: number
  readonly type: EventTypeName | number
  readonly data: Uint8Array
  /** What the digests are over; the data where absent. */
  readonly hashed?: Uint8Array
  /** Banks whose digest is left out. */
  readonly without?: readonly string[]
}

/** A crypto-agile log of the given events behind its Spec ID event. */
export function makeLog(events: readonly EventInput[], banks: readonly HashName[] = ["sha1", "sha256"]): Uint8Array {
  const bankRows = banks.map((name) => {
    for (const [algorithm, known] of logAlgorithms) if (known.name === name) return { algorithm, name, digestBytes: known.digestBytes }
    throw new TypeError(`unknown bank ${name}`)
  })
  const specId: LogEvent = {
    index: 0,
    register: 0,
    type: eventTypes.EV_NO_ACTION,
    digests: new Map([["sha1", new Uint8Array(20)]]),
    data: specIdData(bankRows),
    end: 0,
  }
  const records = events.map((event, place): LogEvent => {
    const digests = banks
      .filter((bank) => event.without?.includes(bank) !== true)
      .map((bank) => [bank, hash(bank, event.hashed ?? event.data)] as const)
    return { index: place + 1, register: event.pcr, type: typeNumber(event.type), digests: new Map(digests), data: event.data, end: 0 }
  })
  const log: EventLog = { format: "crypto-agile", banks: bankRows, events: [specId, ...records], sizeBytes: 0, trailing: new Uint8Array(0) }
  return encodeEventLog(log)
}

/** A log of TPM 1.2: SHA-1 only, without a Spec ID event. */
export function makeSha1Log(events: readonly EventInput[]): Uint8Array {
  const records = events.map((event, index): LogEvent => {
    const digests = new Map([["sha1", hash("sha1", event.hashed ?? event.data)]])
    return { index, register: event.pcr, type: typeNumber(event.type), digests, data: event.data, end: 0 }
  })
  return encodeEventLog({ format: "sha1", banks: [], events: records, sizeBytes: 0, trailing: new Uint8Array(0) })
}

export function specIdData(
  banks: readonly { readonly algorithm: number; readonly digestBytes: number }[],
  vendorInfo: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const writer = new ByteWriter().bytes(encodeUtf8("Spec ID Event03\0")).u32le(0).u8(0).u8(2).u8(0).u8(2).u32le(banks.length)
  for (const { algorithm, digestBytes } of banks) writer.u16le(algorithm).u16le(digestBytes)
  return writer.u8(vendorInfo.length).bytes(vendorInfo).take()
}

function typeNumber(type: EventTypeName | number): number {
  return typeof type === "number" ? type : eventTypes[type]
}

/** What an honest TPM would hold after the log, for the given registers. */
export function quotedBy(log: Uint8Array, bank: HashName, pcrs: readonly number[]): ReadonlyMap<number, string> {
  const { registers, startupLocality } = replayEventLog(parseEventLog(log), bank)
  return new Map(pcrs.map((pcr) => [pcr, encodeHex(registers.get(pcr) ?? startValue(pcr, bank, startupLocality))]))
}

export function utf16(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "utf16le"))
}

/** UEFI_VARIABLE_DATA. */
export function variableData(guid: "global" | "image-security" | "shim", name: string, value: Uint8Array): Uint8Array {
  return new ByteWriter().bytes(guids[guid]).u64le(BigInt(name.length)).u64le(BigInt(value.length)).bytes(utf16(name)).bytes(value).take()
}

export function variable(name: string, value: Uint8Array, type: EventTypeName = "EV_EFI_VARIABLE_DRIVER_CONFIG", pcr = 7): EventInput {
  return { pcr, type, data: variableData(name.startsWith("db") ? "image-security" : "global", name, value) }
}

export function separator(pcr: number): EventInput {
  return { pcr, type: "EV_SEPARATOR", data: new Uint8Array(4) }
}

export function action(pcr: number, text: string): EventInput {
  return { pcr, type: "EV_EFI_ACTION", data: encodeUtf8(text) }
}

export function startupLocality(locality: number): EventInput {
  return { pcr: 0, type: "EV_NO_ACTION", data: Uint8Array.from([...encodeUtf8("StartupLocality\0"), locality]) }
}

/** What the Linux EFI stub logs in place of load options (1) or an initial ram disk (0). */
export function linuxTag(kind: "load-options" | "initrd", measured: Uint8Array): EventInput {
  const label = encodeUtf8(kind === "load-options" ? "LOADED_IMAGE::LoadOptions\0" : "Linux initrd\0")
  const id = kind === "load-options" ? 0x8f3b22ed : 0x8f3b22ec
  return { pcr: 9, type: "EV_EVENT_TAG", data: new ByteWriter().u32le(id).u32le(label.length).bytes(label).take(), hashed: measured }
}

/** An image by what its Authenticode digest is over. */
export function image(name: string, pcr = 4, type: EventTypeName = "EV_EFI_BOOT_SERVICES_APPLICATION"): EventInput {
  return { pcr, type, data: encodeUtf8("load event"), hashed: encodeUtf8(name) }
}

export const exitInvocation = action(5, "Exit Boot Services Invocation")
export const exitSuccess = action(5, "Exit Boot Services Returned with Success")

/** A boot with Secure Boot, GRUB and a Linux kernel, as real firmware logs it. */
export function goodBoot(): readonly EventInput[] {
  return [
    { pcr: 0, type: "EV_S_CRTM_VERSION", data: utf16("1.0\0") },
    { pcr: 0, type: "EV_EFI_PLATFORM_FIRMWARE_BLOB", data: new Uint8Array(16), hashed: encodeUtf8("firmware") },
    variable("SecureBoot", Uint8Array.of(1)),
    variable("PK", encodeUtf8("platform key")),
    variable("KEK", encodeUtf8("key exchange key")),
    variable("db", encodeUtf8("allowed")),
    variable("dbx", encodeUtf8("revoked")),
    separator(7),
    { pcr: 1, type: "EV_EFI_VARIABLE_BOOT", data: variableData("global", "BootOrder", Uint8Array.of(1, 0)), hashed: Uint8Array.of(1, 0) },
    { pcr: 2, type: "EV_EFI_BOOT_SERVICES_DRIVER", data: new Uint8Array(8), hashed: encodeUtf8("driver") },
    action(4, "Calling EFI Application from Boot Option"),
    ...[0, 1, 2, 3, 4, 5, 6].map(separator),
    { pcr: 7, type: "EV_EFI_VARIABLE_AUTHORITY", data: variableData("image-security", "db", encodeUtf8("signer")) },
    { pcr: 5, type: "EV_EFI_GPT_EVENT", data: encodeUtf8("EFI PART") },
    image("shim"),
    image("grub"),
    { pcr: 14, type: "EV_IPL", data: encodeUtf8("MokList\0"), hashed: encodeUtf8("owner keys") },
    { pcr: 8, type: "EV_IPL", data: encodeUtf8("grub_cmd: linux /vmlinuz quiet\0"), hashed: encodeUtf8("linux /vmlinuz quiet") },
    { pcr: 9, type: "EV_IPL", data: encodeUtf8("/vmlinuz\0"), hashed: encodeUtf8("kernel") },
    { pcr: 8, type: "EV_IPL", data: encodeUtf8("kernel_cmdline: /vmlinuz quiet\0"), hashed: encodeUtf8("/vmlinuz quiet") },
    image("kernel"),
    linuxTag("load-options", utf16("/vmlinuz quiet\0")),
    linuxTag("initrd", encodeUtf8("ram disk")),
    exitInvocation,
    exitSuccess,
  ]
}

/** Registers that a host quotes and its boot log has to explain. */
export const bootRegisters = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14]

const guids = {
  global: parseHex("61dfe48bca93d211aa0d00e098032b8c"),
  "image-security": parseHex("cbb219d73a3d9645a3bcdad00e67656f"),
  shim: parseHex("50ab5d6046e00043abb63dd810dd8b23"),
}
