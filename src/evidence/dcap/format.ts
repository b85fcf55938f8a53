import { isAllZero } from "../../bytes/compare.ts"
import { MalformedError } from "../../bytes/error.ts"
import { ByteReader } from "../../bytes/reader.ts"
import { encodeHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { EvidenceError } from "../errors.ts"

/**
 * What SGX and TDX quotes share: header, enclave report, and the signature part with its certification data. Intel SGX ECDSA QuoteGenReference (DCAP
 * Library API) appendix A.4, Intel TDX DCAP Quoting Library API appendix A.3 and A.4. All numbers are little-endian.
 */

/** Quote header, 48 bytes. */
export interface QuoteHeader {
  readonly version: number
  readonly teeType: TeeType
  /** QE_SVN and PCE_SVN of version 3, as the quoting enclave wrote them; not evidence: the QE report and the PCK certificate are. Zero in later versions. */
  readonly qeSvn: number
  readonly pceSvn: number
  /** USER_DATA, 20 bytes: the quoting enclave's identifier of the platform and four zero bytes, lower-case hexadecimal. */
  readonly userData: string
}

/** TEE_TYPE; version 3 has no such field and is for SGX only. */
export type TeeType = "sgx" | "tdx"

/** REPORTBODY of an SGX enclave, 384 bytes. Intel SDM vol. 3D, table "Layout of REPORT". Byte strings are lower-case hexadecimal. */
export interface EnclaveReport {
  readonly cpuSvn: string
  readonly miscSelect: string
  readonly isvExtProdId: string
  /** ATTRIBUTES: 8 bytes of flags and 8 bytes of XFRM, as they stand. */
  readonly attributes: string
  readonly mrEnclave: string
  readonly mrSigner: string
  readonly configId: string
  readonly isvProdId: number
  readonly isvSvn: number
  readonly configSvn: number
  readonly isvFamilyId: string
  readonly reportData: string
}

/** ECDSA signature data (attestation key type 2). */
export interface QuoteSignature {
  /** ISV enclave or TD report signature: r ‖ s, 64 bytes big-endian, by the attestation key over header and body. */
  readonly signature: Uint8Array
  /** ECDSA attestation key: x ‖ y, 64 bytes big-endian. */
  readonly attestationKey: Uint8Array
  /** QE report, the exact signed 384 bytes. */
  readonly qeReport: Uint8Array
  /** QE report signature: r ‖ s, 64 bytes, by the PCK. */
  readonly qeReportSignature: Uint8Array
  readonly qeAuthenticationData: Uint8Array
  readonly certification: CertificationData
}

export interface CertificationData {
  /** Certification data type: 1 to 3 identify the PCK, 4 and 5 carry its certificate chain. */
  readonly type: number
  readonly data: Uint8Array
}

/** Certification data type 5: PEM chain of PCK certificate, its authority and the root. */
export const pckChainType = 5
/** Certification data type 6 of versions 4 and 5: QE report certification data, which holds the rest. */
const qeReportType = 6
/** Types that stand behind the QE report. Type 4 (leaf only) and 7 (platform manifest) are in no use and refused. */
const innerTypes: ReadonlySet<number> = new Set([1, 2, 3, pckChainType])

export const enclaveReportBytes = 384
/** ECDSA over P-256. The other type, ECDSA over P-384, is in no use. */
const ecdsaP256 = 2
const teeTypes: ReadonlyMap<number, TeeType> = new Map([
  [0x00000000, "sgx"],
  [0x00000081, "tdx"],
])
/** QE_VENDOR_ID of Intel's quoting enclaves. */
const intelQeVendorId = "939a7233f79c4ca9940a0db3957f0607"
/** Clouds pad quotes to 8000 bytes and more; a quote itself has some 5000. */
export const maxQuoteBytes = 65_536
/** The quoting enclaves use 32. */
const maxAuthenticationBytes = 1024
/** A chain has some 3700 bytes. */
const maxCertificationBytes = 16_384

/** Reads a quote header of one of `versions`. @throws {MalformedError}; @throws {EvidenceError} `unsupported` */
export function readQuoteHeader(reader: ByteReader, versions: ReadonlyMap<number, TeeType>): QuoteHeader {
  const version = reader.u16le("version")
  const expected = versions.get(version)
  if (expected === undefined) throw unsupported("version", `quote version ${version}, expected ${[...versions.keys()].join(" or ")}`)
  const keyType = reader.u16le("attestationKeyType")
  if (keyType !== ecdsaP256) throw unsupported("attestationKeyType", `attestation key type ${keyType}, expected ${ecdsaP256} (ECDSA P-256)`)
  const teeNumber = reader.u32le("teeType")
  const teeType = teeTypes.get(teeNumber)
  if (teeType !== expected) throw unsupported("teeType", `TEE type 0x${teeNumber.toString(16)} in a quote of version ${version}`)
  const qeSvn = reader.u16le("qeSvn")
  const pceSvn = reader.u16le("pceSvn")
  if (version > 3 && (qeSvn !== 0 || pceSvn !== 0)) throw reader.error("malformed", "reserved", "bytes 8 to 11 are not zero")
  const vendor = readHex(reader, 16, "qeVendorId")
  if (vendor !== intelQeVendorId) throw unsupported("qeVendorId", `quoting enclave of vendor ${vendor}`)
  return { version, teeType, qeSvn, pceSvn, userData: readHex(reader, 20, "userData") }
}

export function writeQuoteHeader(writer: ByteWriter, header: QuoteHeader): void {
  const teeNumber = [...teeTypes].find(([, name]) => name === header.teeType)?.[0] ?? 0
  writer.u16le(header.version).u16le(ecdsaP256).u32le(teeNumber).u16le(header.qeSvn).u16le(header.pceSvn)
  writer.bytes(bytesOf(intelQeVendorId)).bytes(bytesOf(header.userData))
}

/** REPORTBODY, one line per field in the vendor's order. Reserved bytes must be zero. */
export function readEnclaveReport(reader: ByteReader): EnclaveReport {
  const cpuSvn = readHex(reader, 16, "cpuSvn") // 0
  const miscSelect = readHex(reader, 4, "miscSelect") // 16
  readReserved(reader, 12, "reserved1") // 20
  const isvExtProdId = readHex(reader, 16, "isvExtProdId") // 32
  const attributes = readHex(reader, 16, "attributes") // 48
  const mrEnclave = readHex(reader, 32, "mrEnclave") // 64
  readReserved(reader, 32, "reserved2") // 96
  const mrSigner = readHex(reader, 32, "mrSigner") // 128
  readReserved(reader, 32, "reserved3") // 160
  const configId = readHex(reader, 64, "configId") // 192
  const isvProdId = reader.u16le("isvProdId") // 256
  const isvSvn = reader.u16le("isvSvn") // 258
  const configSvn = reader.u16le("configSvn") // 260
  readReserved(reader, 42, "reserved4") // 262
  const isvFamilyId = readHex(reader, 16, "isvFamilyId") // 304
  const reportData = readHex(reader, 64, "reportData") // 320
  return {
    cpuSvn,
    miscSelect,
    isvExtProdId,
    attributes,
    mrEnclave,
    mrSigner,
    configId,
    isvProdId,
    isvSvn,
    configSvn,
    isvFamilyId,
    reportData,
  }
}

export function writeEnclaveReport(writer: ByteWriter, report: EnclaveReport): void {
  writer.bytes(bytesOf(report.cpuSvn)).bytes(bytesOf(report.miscSelect)).bytes(new Uint8Array(12)).bytes(bytesOf(report.isvExtProdId))
  writer.bytes(bytesOf(report.attributes)).bytes(bytesOf(report.mrEnclave)).bytes(new Uint8Array(32)).bytes(bytesOf(report.mrSigner))
  writer.bytes(new Uint8Array(32)).bytes(bytesOf(report.configId)).u16le(report.isvProdId).u16le(report.isvSvn).u16le(report.configSvn)
  writer.bytes(new Uint8Array(42)).bytes(bytesOf(report.isvFamilyId)).bytes(bytesOf(report.reportData))
}

/** Reads the length of the signature data and the data itself, in the form of the quote's version; every inner length must fit exactly. */
export function readQuoteSignature(reader: ByteReader, version: number): QuoteSignature {
  const size = reader.u32le("signatureDataLength")
  if (size > maxQuoteBytes) throw reader.error("too-large", "signatureDataLength", `${size} bytes, at most ${maxQuoteBytes} are allowed`)
  const inner = reader.sub(size, "signatureData")
  const signature = inner.bytes(64, "signature")
  const attestationKey = inner.bytes(64, "attestationKey")
  const rest = version === 3 ? readQeCertification(inner) : readWrappedCertification(inner)
  inner.finish()
  return { signature, attestationKey, ...rest }
}

/** Certification data of type 6, whose contents are all that stands behind the attestation key in version 3. */
function readWrappedCertification(reader: ByteReader): Omit<QuoteSignature, "signature" | "attestationKey"> {
  const type = reader.u16le("certificationData.type")
  if (type !== qeReportType) throw unsupported("certificationData.type", `certification data of type ${type}, expected ${qeReportType}`)
  const size = reader.u32le("certificationData.size")
  const inner = reader.sub(size, "certificationData")
  const rest = readQeCertification(inner)
  inner.finish()
  return rest
}

function readQeCertification(reader: ByteReader): Omit<QuoteSignature, "signature" | "attestationKey"> {
  const qeReport = reader.bytes(enclaveReportBytes, "qeReport")
  const qeReportSignature = reader.bytes(64, "qeReportSignature")
  const authenticationSize = reader.u16le("qeAuthenticationData.size")
  const qeAuthenticationData = reader.boundedBytes(authenticationSize, maxAuthenticationBytes, "qeAuthenticationData")
  const type = reader.u16le("certificationData.type")
  if (!innerTypes.has(type)) throw unsupported("certificationData.type", `certification data of type ${type}`)
  const size = reader.u32le("certificationData.size")
  const data = reader.boundedBytes(size, maxCertificationBytes, "certificationData")
  return { qeReport, qeReportSignature, qeAuthenticationData, certification: { type, data } }
}

export function writeQuoteSignature(writer: ByteWriter, version: number, signature: QuoteSignature): void {
  const inner = new ByteWriter().bytes(signature.qeReport).bytes(signature.qeReportSignature)
  inner.u16le(signature.qeAuthenticationData.length).bytes(signature.qeAuthenticationData)
  inner.u16le(signature.certification.type).u32le(signature.certification.data.length).bytes(signature.certification.data)
  const whole = new ByteWriter().bytes(signature.signature).bytes(signature.attestationKey)
  if (version > 3) whole.u16le(qeReportType).u32le(inner.length)
  whole.bytes(inner.take())
  writer.u32le(whole.length).bytes(whole.take())
}

/** Bytes behind a quote: clouds hand out TDX quotes in larger buffers of zero bytes. @returns their number @throws {MalformedError} `trailing-bytes` */
export function readZeroPadding(reader: ByteReader): number {
  const padding = reader.rest("padding")
  if (!isAllZero(padding)) throw new MalformedError("trailing-bytes", `${padding.length} bytes behind the quote, not all zero`, { path: "quote" })
  return padding.length
}

/** @throws {MalformedError} `too-large` */
export function checkQuoteSize(bytes: Uint8Array): void {
  if (bytes.length > maxQuoteBytes)
    throw new MalformedError("too-large", `${bytes.length} bytes, at most ${maxQuoteBytes} are allowed`, { path: "quote" })
}

export function readHex(reader: ByteReader, length: number, field: string): string {
  return encodeHex(reader.view(length, field))
}

export function readReserved(reader: ByteReader, length: number, field: string): void {
  if (!isAllZero(reader.view(length, field))) throw reader.error("malformed", field, "reserved bytes are not zero")
}

/** Bytes of a record's hexadecimal field; another form is wrong use. */
export function bytesOf(hex: string): Uint8Array {
  if (!/^(?:[0-9a-f]{2})*$/.test(hex)) throw new TypeError("a field is not lower-case hexadecimal")
  return new Uint8Array(Buffer.from(hex, "hex"))
}

function unsupported(field: string, message: string): EvidenceError {
  return new EvidenceError("unsupported", message, { path: `quote.${field}` })
}
