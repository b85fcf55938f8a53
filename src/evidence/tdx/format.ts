import { readAll } from "../../bytes/reader.ts"
import type { ByteReader } from "../../bytes/reader.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import {
  bytesOf,
  checkQuoteSize,
  readHex,
  readQuoteHeader,
  readQuoteSignature,
  readZeroPadding,
  writeQuoteHeader,
  writeQuoteSignature,
} from "../dcap/format.ts"
import type { QuoteHeader, QuoteSignature, TeeType } from "../dcap/format.ts"
import { EvidenceError } from "../errors.ts"

/** A TDX quote, version 4 or 5. Intel TDX DCAP Quoting Library API, appendix A.3 and A.4. */
export interface TdxQuote {
  readonly header: QuoteHeader
  readonly report: TdReport
  readonly signature: QuoteSignature
  /** Header and body (in version 5 with the body's type and size), exactly as signed. */
  readonly signed: Uint8Array
  /** Zero bytes behind the quote. */
  readonly trailingBytes: number
}

/** TD quote body: TDREPORT for TDX 1.0 (584 bytes) or 1.5 (648 bytes). Byte strings are lower-case hexadecimal, as they stand. */
export interface TdReport {
  readonly body: TdBody
  /** TEE_TCB_SVN: [0] SVN and [1] version of the TDX module, [2] … */
  readonly teeTcbSvn: string
  readonly mrSeam: string
  readonly mrSignerSeam: string
  readonly seamAttributes: string
  readonly tdAttributes: string
  readonly xfam: string
  readonly mrTd: string
  readonly mrConfigId: string
  readonly mrOwner: string
  readonly mrOwnerConfig: string
  /** RTMR0 to RTMR3. */
  readonly rtmrs: readonly [string, string, string, string]
  readonly reportData: string
  /** TEE_TCB_SVN_2, 1.5 only: the TCB of the TDX modules since the TD was built. */
  readonly teeTcbSvn2?: string
  /** MRSERVICETD, 1.5 only: service TDs (migration) that are bound to the TD. */
  readonly mrServiceTd?: string
}

export type TdBody = "1.0" | "1.5"

const versions: ReadonlyMap<number, TeeType> = new Map([
  [4, "tdx"],
  [5, "tdx"],
])

/** Body type of version 5 with the size that it must have. Type 1 is an SGX report. */
const bodies: ReadonlyMap<number, { readonly body: TdBody; readonly sizeBytes: number }> = new Map([
  [2, { body: "1.0", sizeBytes: 584 }],
  [3, { body: "1.5", sizeBytes: 648 }],
])

/**
 * Reads a whole TDX quote; zero bytes behind it are counted.
 * @throws {MalformedError} form; @throws {EvidenceError} `unsupported` (version, key type, TEE type, vendor, body or certification data type)
 */
export function parseTdxQuote(bytes: Uint8Array): TdxQuote {
  checkQuoteSize(bytes)
  return readAll("quote", bytes, (reader) => {
    const header = readQuoteHeader(reader, versions)
    const report = readTdReport(reader, header.version === 4 ? "1.0" : readBodyType(reader))
    const signed = reader.since(0)
    const signature = readQuoteSignature(reader, header.version)
    return { header, report, signed, signature, trailingBytes: readZeroPadding(reader) }
  })
}

/** The quote's bytes again, made of its fields. */
export function encodeTdxQuote(quote: Omit<TdxQuote, "signed">): Uint8Array {
  const writer = new ByteWriter().bytes(encodeTdxSignedPart(quote.header, quote.report))
  writeQuoteSignature(writer, quote.header.version, quote.signature)
  return writer.bytes(new Uint8Array(quote.trailingBytes)).take()
}

/** What the attestation key signs. */
export function encodeTdxSignedPart(header: QuoteHeader, report: TdReport): Uint8Array {
  const writer = new ByteWriter()
  writeQuoteHeader(writer, header)
  const [type, row] = [...bodies].find(([, { body }]) => body === report.body) ?? []
  if (type === undefined || row === undefined) throw new TypeError(`no body type ${report.body}`)
  if (header.version === 5) writer.u16le(type).u32le(row.sizeBytes)
  writeTdReport(writer, report)
  return writer.take()
}

function readBodyType(reader: ByteReader): TdBody {
  const type = reader.u16le("bodyType")
  const size = reader.u32le("bodySize")
  const row = bodies.get(type)
  if (row === undefined)
    throw new EvidenceError("unsupported", `body of type ${type}, expected 2 or 3 (TD report 1.0 or 1.5)`, { path: "quote.bodyType" })
  if (size !== row.sizeBytes) throw reader.error("malformed", "bodySize", `${size} bytes, expected ${row.sizeBytes}`)
  return row.body
}

/** TD report body, one line per field in the vendor's order. */
function readTdReport(reader: ByteReader, body: TdBody): TdReport {
  const teeTcbSvn = readHex(reader, 16, "teeTcbSvn") // 0
  const mrSeam = readHex(reader, 48, "mrSeam") // 16
  const mrSignerSeam = readHex(reader, 48, "mrSignerSeam") // 64
  const seamAttributes = readHex(reader, 8, "seamAttributes") // 112
  const tdAttributes = readHex(reader, 8, "tdAttributes") // 120
  const xfam = readHex(reader, 8, "xfam") // 128
  const mrTd = readHex(reader, 48, "mrTd") // 136
  const mrConfigId = readHex(reader, 48, "mrConfigId") // 184
  const mrOwner = readHex(reader, 48, "mrOwner") // 232
  const mrOwnerConfig = readHex(reader, 48, "mrOwnerConfig") // 280
  const rtmr0 = readHex(reader, 48, "rtmr0") // 328
  const rtmr1 = readHex(reader, 48, "rtmr1") // 376
  const rtmr2 = readHex(reader, 48, "rtmr2") // 424
  const rtmr3 = readHex(reader, 48, "rtmr3") // 472
  const reportData = readHex(reader, 64, "reportData") // 520
  const common = {
    body,
    teeTcbSvn,
    mrSeam,
    mrSignerSeam,
    seamAttributes,
    tdAttributes,
    xfam,
    mrTd,
    mrConfigId,
    mrOwner,
    mrOwnerConfig,
    rtmrs: [rtmr0, rtmr1, rtmr2, rtmr3],
    reportData,
  } as const
  if (body === "1.0") return common
  const teeTcbSvn2 = readHex(reader, 16, "teeTcbSvn2") // 584
  const mrServiceTd = readHex(reader, 48, "mrServiceTd") // 600
  return { ...common, teeTcbSvn2, mrServiceTd }
}

function writeTdReport(writer: ByteWriter, report: TdReport): void {
  const { teeTcbSvn, mrSeam, mrSignerSeam, seamAttributes, tdAttributes, xfam, mrTd, mrConfigId, mrOwner, mrOwnerConfig, rtmrs, reportData } = report
  const fields = [teeTcbSvn, mrSeam, mrSignerSeam, seamAttributes, tdAttributes, xfam, mrTd, mrConfigId, mrOwner, mrOwnerConfig, ...rtmrs, reportData]
  if (report.body === "1.5") fields.push(report.teeTcbSvn2 ?? "", report.mrServiceTd ?? "")
  for (const field of fields) writer.bytes(bytesOf(field))
}
