import { bytesEqual } from "../../bytes/compare.ts"
import { MalformedError } from "../../bytes/error.ts"
import { readAll } from "../../bytes/reader.ts"
import type { ByteReader } from "../../bytes/reader.ts"
import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import type { LogEvent } from "./format.ts"
import { eventTypeName } from "./types.ts"

/** What an event's data says, and whether its digest stands behind it. */
export interface EventContent {
  /** The digest covers the data in the way that the event's type prescribes. */
  readonly certified: boolean
  /** One readable line made from certified data only; "" otherwise. */
  readonly description: string
  /** A UEFI variable of which name and value are both certified. */
  readonly variable?: UefiVariable
  /** Certified text without its trailing NUL: an action, a boot loader command, a command line. */
  readonly text?: string
}

/** UEFI_VARIABLE_DATA, TCG PFP 1.06 §10.2.6. */
export interface UefiVariable {
  /** EFI_GUID as it stands in memory, lower-case hexadecimal without dashes. */
  readonly vendorGuid: string
  readonly name: string
  readonly value: Uint8Array
}

/** Reads an event's data as its type says and holds it against the digest of one bank. Never throws for odd data: it is then not certified. */
export function readContent(event: LogEvent, bank: HashName): EventContent {
  const digest = event.digests.get(bank)
  if (digest === undefined) return uncertified
  const covers = (data: Uint8Array): boolean => bytesEqual(hash(bank, data), digest)
  switch (eventTypeName(event.type)) {
    case "EV_SEPARATOR":
      return covers(event.data) ? { certified: true, description: `separator ${encodeHex(event.data)}` } : uncertified
    case "EV_ACTION":
    case "EV_EFI_ACTION":
    case "EV_S_CRTM_VERSION":
      return covers(event.data) ? textContent(decodeText(event.data)) : uncertified
    case "EV_EFI_GPT_EVENT":
    case "EV_EFI_GPT_EVENT2":
      return covers(event.data) ? { certified: true, description: `partition table of ${event.data.length} bytes` } : uncertified
    case "EV_EFI_VARIABLE_DRIVER_CONFIG":
    case "EV_EFI_VARIABLE_BOOT":
    case "EV_EFI_VARIABLE_BOOT2":
    case "EV_EFI_VARIABLE_AUTHORITY":
      return variableContent(event, covers)
    case "EV_EVENT_TAG":
      return covers(event.data) ? { certified: true, description: `tagged event of ${event.data.length} bytes` } : uncertified
    case "EV_IPL":
      return loaderContent(event.data, covers)
    default:
      return uncertified
  }
}

/**
 * Digest of a kernel command line as the Linux EFI stub measures it into PCR 9 (`LOADED_IMAGE::LoadOptions`): UTF-16 little-endian with its NUL. The
 * stub measures what the firmware hands over, which for QEMU's `-kernel` and `-initrd` begins with `initrd=initrd `.
 */
export function loadOptionsDigest(text: string, bank: HashName): Uint8Array {
  return hash(bank, encodeUtf16(`${text}\0`))
}

/** A tag that the Linux EFI stub logs in place of what it measured (drivers/firmware/efi/libstub/efistub.h); covered by no hash. */
export function linuxTagOf(event: LogEvent): "load-options" | "initrd" | undefined {
  if (eventTypeName(event.type) !== "EV_EVENT_TAG") return undefined
  switch (encodeHex(event.data.slice(0, 4))) {
    case "ed223b8f":
      return "load-options"
    case "ec223b8f":
      return "initrd"
    default:
      return undefined
  }
}

/** Text for people: control characters and lone surrogates become visible escapes, so that a log cannot write to a terminal. */
export function printable(text: string): string {
  return text.toWellFormed().replace(unprintable, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
}

function textContent(text: string): EventContent {
  return { certified: true, description: printable(text), text }
}

/**
 * EDK2 and the specification hash the whole structure, except that EDK2 and most firmware hash only the value for EV_EFI_VARIABLE_BOOT, as old shims
 * do for EV_EFI_VARIABLE_AUTHORITY. Then the name is not certified and is left out.
 */
function variableContent(event: LogEvent, covers: (data: Uint8Array) => boolean): EventContent {
  const variable = readVariable(event.data)
  if (covers(event.data))
    return variable === undefined
      ? { certified: true, description: `variable of unknown form, ${event.data.length} bytes` }
      : { certified: true, description: `${printable(variable.name)} = ${shortHex(variable.value)}`, variable }
  const mayHashValue = eventTypeName(event.type) !== "EV_EFI_VARIABLE_DRIVER_CONFIG"
  if (mayHashValue && variable !== undefined && covers(variable.value)) return { certified: true, description: `value ${shortHex(variable.value)}` }
  return uncertified
}

/**
 * Whether an event tells which entry of the signature database (db) let an image start: what firmware measures, once for each entry, when Secure Boot is enabled (TCG PFP
 * 1.06 §3.3.4.8). Other authorities are the word of whatever already runs: shim measures SbatLevel and MokList… also where Secure Boot is off.
 */
export function isDatabaseAuthority(typeName: string, { variable }: EventContent): boolean {
  // The variable is known only where its name and value were measured.
  return typeName === "EV_EFI_VARIABLE_AUTHORITY" && variable?.name === "db" && variable.vendorGuid === imageSecurityGuid
}

/** EFI_IMAGE_SECURITY_DATABASE_GUID, bytes in memory. */
export const imageSecurityGuid = "cbb219d73a3d9645a3bcdad00e67656f"

/** UEFI_VARIABLE_DATA, or undefined where the data has another form (firmware writes odd ones). */
export function readVariable(data: Uint8Array): UefiVariable | undefined {
  try {
    return readAll("UEFI_VARIABLE_DATA", data, readVariableData)
  } catch (error) {
    if (error instanceof MalformedError) return undefined
    throw error
  }
}

/** VariableName EFI_GUID, UnicodeNameLength u64 (characters), VariableDataLength u64 (bytes), UnicodeName, VariableData. */
function readVariableData(reader: ByteReader): UefiVariable {
  const vendorGuid = encodeHex(reader.bytes(16, "variableName"))
  const nameCharacters = reader.u64le("unicodeNameLength")
  const valueBytes = reader.u64le("variableDataLength")
  if (nameCharacters > BigInt(reader.remaining) || valueBytes > BigInt(reader.remaining))
    throw reader.error("too-large", "unicodeNameLength", "longer than the event")
  const name = decodeUtf16(reader.bytes(Number(nameCharacters) * 2, "unicodeName"))
  return { vendorGuid, name, value: reader.bytes(Number(valueBytes), "variableData") }
}

/**
 * What boot loaders write under EV_IPL. GRUB logs `<prefix>: <text>` (`grub_cmd: …`, `kernel_cmdline: …`, `module_cmdline: …`), Red Hat's older GRUB
 * `grub_cmd <text>`, and hash the text alone: the prefix is not certified. systemd-boot and -stub log and hash UTF-16 text with its NUL.
 */
function loaderContent(data: Uint8Array, covers: (data: Uint8Array) => boolean): EventContent {
  if (covers(data)) return textContent(decodeText(data))
  const end = data.at(-1) === 0 ? data.length - 1 : data.length
  for (const prefix of grubPrefixes) {
    if (!prefix.every((byte, at) => data[at] === byte)) continue
    const text = data.slice(prefix.length, end)
    if (covers(text)) return textContent(decodeLatin(text))
  }
  return uncertified
}

/** UTF-16 where it looks like it (even length, a NUL in every second byte of the first characters), else one character per byte. */
function decodeText(data: Uint8Array): string {
  const isUtf16 = data.length % 2 === 0 && data[1] === 0
  return (isUtf16 ? decodeUtf16(data) : decodeLatin(data)).replace(/\0+$/, "")
}

/** One character per byte: names and command lines are bytes to the kernel; UTF-8 is used where they are UTF-8. */
function decodeLatin(data: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data)
  } catch {
    // Not UTF-8: every byte keeps a character of its own, so nothing is lost.
    return Buffer.from(data).toString("latin1")
  }
}

function decodeUtf16(data: Uint8Array): string {
  return new TextDecoder("utf-16le", { ignoreBOM: true }).decode(data)
}

function encodeUtf16(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "utf16le"))
}

function shortHex(value: Uint8Array): string {
  return value.length <= 32 ? (value.length === 0 ? "(empty)" : encodeHex(value)) : `${value.length} bytes`
}

const uncertified: EventContent = { certified: false, description: "" }
const grubPrefixes = ["grub_cmd: ", "kernel_cmdline: ", "module_cmdline: ", "grub_kernel_cmdline ", "grub_cmd "].map((text) => encodeUtf8(text))
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu
