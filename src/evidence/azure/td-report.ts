import { bytesEqual } from "../../bytes/compare.ts"
import { ByteReader, readAll } from "../../bytes/reader.ts"
import { encodeHex } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"

/**
 * TDREPORT_STRUCT, Intel TDX Module 1.5 ABI Specification, 3.9: 1024 bytes that a machine can check only for itself (MAC). Here it is what a quote must have been made
 * of. Byte strings are lower-case hexadecimal.
 */
export interface TdReport {
  /** 64 bytes. */
  readonly reportData: string
  readonly teeTcbSvn: string
  readonly mrSeam: string
  readonly mrSignerSeam: string
  readonly tdAttributes: string
  readonly xfam: string
  readonly mrTd: string
  readonly mrConfigId: string
  readonly mrOwner: string
  readonly mrOwnerConfig: string
  readonly rtmrs: readonly [string, string, string, string]
}

/** REPORTTYPE.TYPE of a TD. */
const tdType = 0x81
const tcbInfoBytes = 239
const tdInfoBytes = 512

/**
 * Reads a TD report whose two parts have the hashes that its head states.
 * @throws {MalformedError} form; @throws {EvidenceError} `unsupported` type, `contradiction` hashes
 */
export function parseTdReport(bytes: Uint8Array): TdReport {
  return readAll("TDREPORT_STRUCT", bytes, (reader) => {
    const type = reader.u8("REPORTTYPE.TYPE") // 0x000
    const subtype = reader.u8("REPORTTYPE.SUBTYPE")
    const version = reader.u8("REPORTTYPE.VERSION")
    if (type !== tdType || subtype !== 0 || version > 1)
      throw new EvidenceError("unsupported", `report type ${type}, ${subtype}, ${version}`, { path: "TDREPORT_STRUCT.REPORTTYPE" })
    readZeros(reader, 13, "reserved behind REPORTTYPE")
    reader.bytes(16, "CPUSVN") // 0x010
    const tcbInfoHash = reader.bytes(48, "TEE_TCB_INFO_HASH") // 0x020
    const tdInfoHash = reader.bytes(48, "TEE_INFO_HASH") // 0x050
    const reportData = encodeHex(reader.bytes(64, "REPORTDATA")) // 0x080
    readZeros(reader, 32, "reserved in front of MAC") // 0x0c0
    reader.bytes(32, "MAC") // 0x0e0
    const tcbInfo = reader.bytes(tcbInfoBytes, "TEE_TCB_INFO") // 0x100
    readZeros(reader, 17, "reserved behind TEE_TCB_INFO") // 0x1ef
    const tdInfo = reader.bytes(tdInfoBytes, "TDINFO") // 0x200
    checkHash(tcbInfo, tcbInfoHash, "TEE_TCB_INFO_HASH")
    checkHash(tdInfo, tdInfoHash, "TEE_INFO_HASH")
    return { reportData, ...readTcbInfo(new ByteReader("TEE_TCB_INFO", tcbInfo)), ...readTdInfo(new ByteReader("TDINFO", tdInfo)) }
  })
}

function checkHash(bytes: Uint8Array, stated: Uint8Array, field: string): void {
  if (!bytesEqual(hash("sha384", bytes), stated))
    throw new EvidenceError("contradiction", "not the hash of what it stands for", { path: `TDREPORT_STRUCT.${field}` })
}

function readTcbInfo(reader: ByteReader): Pick<TdReport, "teeTcbSvn" | "mrSeam" | "mrSignerSeam"> {
  reader.bytes(8, "VALID")
  return { teeTcbSvn: hexOf(reader, 16, "TEE_TCB_SVN"), mrSeam: hexOf(reader, 48, "MRSEAM"), mrSignerSeam: hexOf(reader, 48, "MRSIGNERSEAM") }
}

function readTdInfo(reader: ByteReader): Omit<TdReport, "reportData" | "teeTcbSvn" | "mrSeam" | "mrSignerSeam"> {
  return {
    tdAttributes: hexOf(reader, 8, "ATTRIBUTES"),
    xfam: hexOf(reader, 8, "XFAM"),
    mrTd: hexOf(reader, 48, "MRTD"),
    mrConfigId: hexOf(reader, 48, "MRCONFIGID"),
    mrOwner: hexOf(reader, 48, "MROWNER"),
    mrOwnerConfig: hexOf(reader, 48, "MROWNERCONFIG"),
    rtmrs: [hexOf(reader, 48, "RTMR0"), hexOf(reader, 48, "RTMR1"), hexOf(reader, 48, "RTMR2"), hexOf(reader, 48, "RTMR3")],
  }
}

function hexOf(reader: ByteReader, length: number, field: string): string {
  return encodeHex(reader.bytes(length, field))
}

function readZeros(reader: ByteReader, length: number, field: string): void {
  if (reader.bytes(length, field).some((byte) => byte !== 0)) throw reader.error("malformed", field, "not zero")
}
