import { readAll } from "../../bytes/reader.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import {
  checkQuoteSize,
  readEnclaveReport,
  readQuoteHeader,
  readQuoteSignature,
  writeEnclaveReport,
  writeQuoteHeader,
  writeQuoteSignature,
} from "../dcap/format.ts"
import type { EnclaveReport, QuoteHeader, QuoteSignature, TeeType } from "../dcap/format.ts"

/** An SGX quote, version 3. Intel SGX ECDSA QuoteGenReference, appendix A.4: header, ISV enclave report, signature data. */
export interface SgxQuote {
  readonly header: QuoteHeader
  readonly report: EnclaveReport
  readonly signature: QuoteSignature
  /** Header and report, exactly as signed. */
  readonly signed: Uint8Array
}

const versions: ReadonlyMap<number, TeeType> = new Map([[3, "sgx"]])

/**
 * Reads a whole SGX quote.
 * @throws {MalformedError} form; @throws {EvidenceError} `unsupported` (version, key type, TEE type, vendor, certification data type)
 */
export function parseSgxQuote(bytes: Uint8Array): SgxQuote {
  checkQuoteSize(bytes)
  return readAll("quote", bytes, (reader) => {
    const header = readQuoteHeader(reader, versions)
    const report = readEnclaveReport(reader)
    const signed = reader.since(0)
    return { header, report, signed, signature: readQuoteSignature(reader, header.version) }
  })
}

/** The quote's bytes again, made of its fields. */
export function encodeSgxQuote(quote: Omit<SgxQuote, "signed">): Uint8Array {
  const writer = new ByteWriter().bytes(encodeSgxSignedPart(quote.header, quote.report))
  writeQuoteSignature(writer, quote.header.version, quote.signature)
  return writer.take()
}

/** What the attestation key signs. */
export function encodeSgxSignedPart(header: QuoteHeader, report: EnclaveReport): Uint8Array {
  const writer = new ByteWriter()
  writeQuoteHeader(writer, header)
  writeEnclaveReport(writer, report)
  return writer.take()
}
