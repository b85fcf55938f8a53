import { MalformedError } from "../../bytes/error.ts"
import { ByteReader, readAll } from "../../bytes/reader.ts"
import { encodeHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hashSizes } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import type { ImaEntry, ImaInode } from "./claims.ts"
import { parseTemplateData, readTemplateDigest, templateDigestText } from "./templates.ts"
import type { TemplateDigest, TemplateValues } from "./templates.ts"

/**
 * One record of the binary list `/sys/kernel/security/ima/binary_runtime_measurements` (Linux ima_fs.c, ima_measurements_show). All byte ranges are
 * views into the list that was parsed.
 */
export interface ImaRecord {
  /** Place among the records that were parsed, from 0. */
  readonly index: number
  readonly pcr: number
  /** Digest of the template data by the list's hash, SHA-1 but for `…_sha256` lists; all zero in a violation. */
  readonly templateDigest: Uint8Array
  /** `ima-ng` and so on, or the fields of a custom template. */
  readonly template: string
  /** What the template digest is taken over, but for the old template "ima" (see `templateHashInput`). */
  readonly templateData: Uint8Array
  /** The whole record. */
  readonly bytes: Uint8Array
  /** Offset of the byte behind this record. */
  readonly end: number
}

/**
 * Reads the records one by one, without keeping them: for lists of hundreds of thousands of entries.
 * @throws {MalformedError} `truncated` where the list ends inside a record, `too-large`, `malformed`; `path` names record and field
 */
export function* readImaRecords(list: Uint8Array, headerHash: HashName = "sha1"): Generator<ImaRecord, void, undefined> {
  if (list.length > maxListBytes) throw new MalformedError("too-large", `${list.length} bytes, at most ${maxListBytes} are allowed`, { path: "ima" })
  const reader = new ByteReader("", list)
  const digestBytes = hashSizes[headerHash]
  for (let index = 0; reader.remaining > 0; index++) {
    if (index >= maxRecords) throw new MalformedError("too-large", `more than ${maxRecords} records`, { path: "ima" })
    try {
      yield readRecord(reader, index, digestBytes)
    } catch (error) {
      throw error instanceof MalformedError ? placed(error, index) : error
    }
  }
}

/** @throws as readImaRecords */
export function parseImaList(list: Uint8Array, headerHash: HashName = "sha1"): readonly ImaRecord[] {
  return [...readImaRecords(list, headerHash)]
}

/** The list's bytes again. */
export function encodeImaList(records: readonly ImaRecord[]): Uint8Array {
  const writer = new ByteWriter()
  for (const { pcr, templateDigest, template, templateData } of records) {
    const name = Uint8Array.from(template, (character) => character.charCodeAt(0))
    writer.u32le(pcr).bytes(templateDigest).u32le(name.length).bytes(name)
    if (template !== "ima") writer.u32le(templateData.length)
    writer.bytes(templateData)
  }
  return writer.take()
}

/** pcr u32, template digest, name length u32, name, template data length u32 (not for "ima"), template data; little-endian. */
function readRecord(reader: ByteReader, index: number, digestBytes: number): ImaRecord {
  const start = reader.offset
  const pcr = reader.u32le("pcr")
  if (pcr > lastPcr) throw reader.error("malformed", "pcr", `PCR ${pcr} does not exist`)
  const templateDigest = reader.view(digestBytes, "templateDigest")
  const nameBytes = reader.u32le("templateNameLength")
  if (nameBytes === 0 || nameBytes > maxTemplateNameBytes)
    throw reader.error("too-large", "templateNameLength", `${nameBytes} bytes, expected 1 to ${maxTemplateNameBytes}`)
  const template = latin1Of(reader.view(nameBytes, "templateName"))
  const dataStart = reader.offset
  if (template === "ima") {
    reader.view(sha1Bytes, "d")
    reader.view(bounded(reader, reader.u32le("n"), maxLegacyNameBytes, "n"), "n")
    return { index, pcr, templateDigest, template, templateData: reader.viewSince(dataStart), bytes: reader.viewSince(start), end: reader.offset }
  }
  const templateData = reader.view(bounded(reader, reader.u32le("templateDataLength"), maxTemplateDataBytes, "templateData"), "templateData")
  return { index, pcr, templateDigest, template, templateData, bytes: reader.viewSince(start), end: reader.offset }
}

function bounded(reader: ByteReader, length: number, maximum: number, field: string): number {
  if (length > maximum) throw reader.error("too-large", field, `${length} bytes, at most ${maximum} are allowed`)
  return length
}

/** One character per byte. */
function latin1Of(bytes: Uint8Array): string {
  let text = ""
  for (const byte of bytes) text += String.fromCharCode(byte)
  return text
}

/** What the kernel hashes: the template data as it stands; for "ima" digest and name, the name padded with zeros to 256 bytes. */
export function templateHashInput(record: ImaRecord): Uint8Array {
  if (record.template !== "ima") return record.templateData
  const reader = new ByteReader("templateData", record.templateData)
  const input = new Uint8Array(sha1Bytes + legacyNameFieldBytes)
  input.set(reader.view(sha1Bytes, "d"), 0)
  input.set(reader.view(reader.u32le("n"), "n"), sha1Bytes)
  return input
}

/** True for what the kernel logs when it cannot vouch for a file: its template digest is all zero. */
export function isViolation(record: ImaRecord): boolean {
  for (const byte of record.templateDigest) if (byte !== 0) return false
  return true
}

/**
 * Reads the template data of a record. The name is a view into the list; whoever keeps the entry while the list may change hands over a copy of the list.
 * @throws {MalformedError} `truncated`, `trailing-bytes`, `malformed`; `path` names record and field
 */
export function readImaEntry(record: ImaRecord, index: number = record.index): ImaEntry {
  try {
    return entryOf(record, index)
  } catch (error) {
    throw error instanceof MalformedError ? placed(error, index) : error
  }
}

function entryOf(record: ImaRecord, index: number): ImaEntry {
  const values = parseTemplateData(record.template, record.templateData)
  const violation = isViolation(record)
  const digest = digestOf(values)
  const signature = values.sig ?? values.evmsig
  const entry: Mutable<ImaEntry> = {
    index,
    pcr: record.pcr,
    template: record.template,
    hashAlgorithm: violation && values.d !== undefined ? "" : digest.algorithm,
    digest: encodeHex(digest.digest),
    name: readName(record.template, values["n-ng"], values.n),
    violation,
  }
  if (digest.kind === "verity") entry.verity = true
  if (signature !== undefined && signature.length > 0) entry.signature = signature.slice()
  if (values.modsig !== undefined && values.modsig.length > 0) entry.modsig = values.modsig.slice()
  if (values["d-modsig"] !== undefined && values["d-modsig"].length > 0)
    entry.modsigDigest = templateDigestText(readTemplateDigest("d-modsig", values["d-modsig"]))
  if (values.buf !== undefined) entry.buffer = values.buf.slice()
  const inode = readInode(values)
  if (inode !== undefined) entry.inode = inode
  return entry
}

/** Fields xattrnames (`a|b`), xattrlengths (u32 each), xattrvalues (one behind the other), iuid, igid (u32) and imode (u16). */
function readInode(values: TemplateValues): ImaInode | undefined {
  const { xattrnames, xattrlengths, xattrvalues, iuid, igid, imode } = values
  if (xattrnames === undefined || xattrlengths === undefined || xattrvalues === undefined) return undefined
  if (iuid === undefined || igid === undefined || imode === undefined) return undefined
  // An entry without a file (boot_aggregate, a violation) leaves all of them empty.
  if (iuid.length === 0 && igid.length === 0 && imode.length === 0 && xattrnames.length === 0) return undefined
  return {
    xattrs: readXattrs(xattrnames, xattrlengths, xattrvalues),
    uid: readAll("iuid", iuid, (reader) => reader.u32le("uid")),
    gid: readAll("igid", igid, (reader) => reader.u32le("gid")),
    mode: readAll("imode", imode, (reader) => reader.u16le("mode")),
  }
}

function readXattrs(namesField: Uint8Array, lengthsField: Uint8Array, valuesField: Uint8Array): ImaInode["xattrs"] {
  const end = namesField.at(-1) === 0 ? namesField.length - 1 : namesField.length
  const text = latin1Of(new ByteReader("xattrnames", namesField).view(end, "names"))
  const names = text === "" ? [] : text.split("|")
  const lengths = new ByteReader("xattrlengths", lengthsField)
  const xattrs = readAll("xattrvalues", valuesField, (reader) =>
    names.map((name) => ({ name, value: reader.boundedBytes(lengths.u32le(name), maxTemplateDataBytes, name) })),
  )
  lengths.finish()
  return xattrs
}

type Mutable<T> = { -readonly [key in keyof T]: T[key] }

/** Every template has one of the three. */
function digestOf(values: TemplateValues): TemplateDigest {
  if (values["d-ngv2"] !== undefined) return readTemplateDigest("d-ngv2", values["d-ngv2"])
  if (values["d-ng"] !== undefined) return readTemplateDigest("d-ng", values["d-ng"])
  return readTemplateDigest("d", values.d ?? new Uint8Array(0))
}

/**
 * `n-ng` and `n` end with one NUL, which is not part of the name; in the template "ima" there is none. A NUL elsewhere is refused: "ima" pads names
 * with zeros before hashing, so that a name with NULs behind it would hash like the name without.
 */
function readName(template: string, nameNg: Uint8Array | undefined, name: Uint8Array | undefined): Uint8Array {
  const value = nameNg ?? name ?? new Uint8Array(0)
  const isTerminated = template !== "ima"
  const nameBytes = isTerminated ? value.length - 1 : value.length
  if (nameBytes < 0 || value.indexOf(0) !== (isTerminated ? nameBytes : -1))
    throw new MalformedError("malformed", isTerminated ? "name does not end with its only NUL" : "name holds a NUL", { path: "n" })
  return new ByteReader("n", value).view(nameBytes, "name")
}

function placed(error: MalformedError, index: number): MalformedError {
  if (error.path.startsWith("ima[")) return error
  const path = `ima[${index}]${error.path === "" ? "" : `.${error.path}`}`
  const text = error.message.startsWith(`${error.path}: `) ? error.message.replace(`${error.path}: `, "") : error.message
  return new MalformedError(error.code, text, { path, cause: error })
}

const sha1Bytes = 20
/** IMA_EVENT_NAME_LEN_MAX is 255, and a NUL. */
const maxLegacyNameBytes = 255
const legacyNameFieldBytes = 256
const lastPcr = 23
/** The longest useful custom template names all sixteen fields. */
const maxTemplateNameBytes = 256
/** Keys and signatures are some KiB; measured kernel data (a policy, a key ring) may be more. */
const maxTemplateDataBytes = 8 * 1024 * 1024
/** Half a million entries of the usual size; more would only let a host make us work. */
const maxListBytes = 128 * 1024 * 1024
const maxRecords = 1_000_000
