import { isAllZero } from "../../bytes/compare.ts"
import { readAll } from "../../bytes/reader.ts"
import type { ByteReader } from "../../bytes/reader.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { EvidenceError } from "../errors.ts"

/**
 * The report of Azure's paravisor (HCL), as it lies in NV index 0x01400001 of the virtual TPM. Microsoft, "Virtual TPMs in Azure confidential VMs": attestation report
 * format, ATTESTATION_HEADER and IGVM_REQUEST_DATA.
 */
export interface HclReport {
  /** Version of the header, 1 or 2; both have the same layout. */
  readonly version: 1 | 2
  readonly hardware: {
    /** `snp`: ATTESTATION_REPORT, 1184 bytes. `tdx`: TDREPORT_STRUCT, 1024 bytes; its MAC means nothing outside its machine. */
    readonly type: "snp" | "tdx"
    readonly report: Uint8Array
  }
  /** Runtime (variable) data, exactly as hashed into the hardware's report data: JSON. */
  readonly runtimeData: Uint8Array
  /** Zero bytes behind the report: the NV index has a fixed size. */
  readonly paddingBytes: number
}

/** "HCLA" */
const signature = 0x414c4348
/** Attestation report. */
const requestType = 2
const requestVersion = 1
const headerBytes = 32
/** The hardware's report, whatever its kind, with zeros behind a shorter one. */
const hardwareBytes = 1184
const requestBytes = 20
const hashSha256 = 1
/** The NV index holds 2600 bytes; newer paravisors write up to 4096. */
const maxRuntimeDataBytes = 8192
const maxPaddingBytes = 8192

const hardwareTypes = {
  snp: { number: 2, bytes: 1184 },
  tdx: { number: 4, bytes: 1024 },
} as const

/**
 * Reads a report of the paravisor, with the zeros that fill its NV index.
 * @throws {MalformedError} `truncated`, `too-large`, `trailing-bytes`, `malformed` (sizes that contradict each other, reserved bytes)
 * @throws {EvidenceError} `unsupported` (version, kind of report), `weak-algorithm` (hash other than SHA-256)
 */
export function parseHclReport(bytes: Uint8Array): HclReport {
  return readAll("HCL_REPORT", bytes, readReport)
}

function readReport(reader: ByteReader): HclReport {
  if (reader.u32le("signature") !== signature) throw reader.error("malformed", "signature", "not HCLA") // 0x00
  const version = reader.u32le("version") // 0x04
  const reportSize = reader.u32le("reportSize") // 0x08
  const request = reader.u32le("requestType") // 0x0c
  const status = reader.u32le("status") // 0x10
  readZeros(reader, 12, "reserved in header") // 0x14
  if (version !== 1 && version !== 2) throw new EvidenceError("unsupported", `version ${version}`, { path: "HCL_REPORT.version" })
  if (request !== requestType) throw new EvidenceError("unsupported", `request of type ${request}`, { path: "HCL_REPORT.requestType" })
  if (status !== 0) throw reader.error("malformed", "status", `the paravisor reports the error ${status}`)
  const hardware = reader.sub(hardwareBytes, "hardwareReport") // 0x20
  const dataSize = reader.u32le("dataSize") // 0x4c0
  const dataVersion = reader.u32le("dataVersion") // 0x4c4
  const reportType = reader.u32le("reportType") // 0x4c8
  const hashType = reader.u32le("reportDataHashType") // 0x4cc
  const variableSize = reader.u32le("variableDataSize") // 0x4d0
  if (dataVersion !== requestVersion) throw new EvidenceError("unsupported", `version ${dataVersion}`, { path: "HCL_REPORT.dataVersion" })
  if (hashType !== hashSha256) throw new EvidenceError("weak-algorithm", `hash of type ${hashType}`, { path: "HCL_REPORT.reportDataHashType" })
  if (dataSize !== requestBytes + variableSize) throw reader.error("malformed", "dataSize", `${dataSize} for ${variableSize} bytes of variable data`)
  if (reportSize !== headerBytes + hardwareBytes + dataSize)
    throw reader.error("malformed", "reportSize", `${reportSize} for ${dataSize} bytes of data`)
  const type = typeOf(reportType)
  const report = hardware.bytes(hardwareTypes[type].bytes, type)
  readZeros(hardware, hardware.remaining, "padding")
  const runtimeData = reader.boundedBytes(variableSize, maxRuntimeDataBytes, "variableData") // 0x4d4
  const paddingBytes = reader.remaining
  if (paddingBytes > maxPaddingBytes) throw reader.error("too-large", "padding", `${paddingBytes} bytes`)
  readZeros(reader, paddingBytes, "padding")
  return { version, hardware: { type, report }, runtimeData, paddingBytes }
}

function typeOf(number: number): "snp" | "tdx" {
  if (number === hardwareTypes.snp.number) return "snp"
  if (number === hardwareTypes.tdx.number) return "tdx"
  throw new EvidenceError("unsupported", `hardware report of type ${number}`, { path: "HCL_REPORT.reportType" })
}

export function encodeHclReport({ version, hardware, runtimeData, paddingBytes }: HclReport): Uint8Array {
  const { number } = hardwareTypes[hardware.type]
  const dataSize = requestBytes + runtimeData.length
  const writer = new ByteWriter()
  writer
    .u32le(signature)
    .u32le(version)
    .u32le(headerBytes + hardwareBytes + dataSize)
    .u32le(requestType)
    .u32le(0)
    .bytes(new Uint8Array(12))
  writer.bytes(hardware.report).bytes(new Uint8Array(hardwareBytes - hardware.report.length))
  writer.u32le(dataSize).u32le(requestVersion).u32le(number).u32le(hashSha256).u32le(runtimeData.length)
  return writer.bytes(runtimeData).bytes(new Uint8Array(paddingBytes)).take()
}

function readZeros(reader: ByteReader, length: number, field: string): void {
  if (!isAllZero(reader.view(length, field))) throw reader.error("malformed", field, "not zero")
}
