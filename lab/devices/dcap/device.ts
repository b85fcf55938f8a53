import { createHash } from "node:crypto"
import { concatBytes } from "../../../src/bytes/compare.ts"
import { encodeHex } from "../../../src/bytes/text.ts"
import { ByteWriter } from "../../../src/bytes/writer.ts"
import { pckChainType, writeEnclaveReport } from "../../../src/evidence/dcap/format.ts"
import type { EnclaveReport, QuoteHeader, QuoteSignature } from "../../../src/evidence/dcap/format.ts"
import { encodeSgxQuote, encodeSgxSignedPart } from "../../../src/evidence/sgx/format.ts"
import { encodeTdxQuote, encodeTdxSignedPart } from "../../../src/evidence/tdx/format.ts"
import type { TdReport } from "../../../src/evidence/tdx/format.ts"
import { labQeSigner, labTdQeSigner } from "./authority.ts"
import type { LabAuthority } from "./authority.ts"
import { signRaw } from "./sign-raw.ts"
import type { LabKey } from "./x509.ts"

/** Laboratory SGX and TDX devices: structurally true quotes of versions 3, 4 and 5 under a laboratory root, every field a knob. INSECURE LABORATORY. */

/** Changes to a quote; what is not named is as on a good device. */
export interface QuoteKnobs {
  readonly header?: Partial<QuoteHeader>
  /** The quoting enclave's report; its REPORT_DATA names the attestation key unless it is given. */
  readonly qeReport?: Partial<EnclaveReport>
  readonly qeAuthenticationData?: Uint8Array
  /** Signs header and body; its public half goes into the quote unless `statedKey` differs. */
  readonly attestationKey?: LabKey
  readonly statedKey?: LabKey
  /** Signs the QE report. */
  readonly pckKey?: LabKey
  readonly certification?: (good: QuoteSignature["certification"]) => QuoteSignature["certification"]
  readonly trailingBytes?: number
}

export interface SgxKnobs extends QuoteKnobs {
  readonly report?: Partial<EnclaveReport>
}

export interface TdxKnobs extends QuoteKnobs {
  readonly version?: 4 | 5
  readonly body?: TdReport["body"]
  readonly report?: Partial<TdReport>
}

const userData = `${"1a".repeat(16)}00000000`

const goodEnclave: EnclaveReport = {
  cpuSvn: "09090202040100050000000000000000",
  miscSelect: "00000000",
  isvExtProdId: "00".repeat(16),
  attributes: "0500000000000000e700000000000000",
  mrEnclave: "e1".repeat(32),
  mrSigner: "51".repeat(32),
  configId: "00".repeat(64),
  isvProdId: 7,
  isvSvn: 3,
  configSvn: 0,
  isvFamilyId: "00".repeat(16),
  reportData: "00".repeat(64),
}

const goodTd: Omit<TdReport, "body" | "reportData"> = {
  teeTcbSvn: `050107${"00".repeat(13)}`,
  mrSeam: "5e".repeat(48),
  mrSignerSeam: "00".repeat(48),
  seamAttributes: "00".repeat(8),
  tdAttributes: "0000001000000000",
  xfam: "e702060000000000",
  mrTd: "4d".repeat(48),
  mrConfigId: "00".repeat(48),
  mrOwner: "00".repeat(48),
  mrOwnerConfig: "00".repeat(48),
  rtmrs: ["a0".repeat(48), "a1".repeat(48), "a2".repeat(48), "00".repeat(48)],
}

/** A quote of an enclave with this REPORT_DATA (64 bytes). */
export function makeSgxQuote(authority: LabAuthority, reportData: Uint8Array, knobs: SgxKnobs = {}): Uint8Array {
  const header: QuoteHeader = { version: 3, teeType: "sgx", qeSvn: 8, pceSvn: 13, userData, ...knobs.header }
  const report = { ...goodEnclave, reportData: encodeHex(reportData), ...knobs.report }
  const qe = { mrSigner: labQeSigner, isvProdId: 1 }
  return encodeSgxQuote({ header, report, signature: makeSignature(authority, encodeSgxSignedPart(header, report), qe, knobs) })
}

/** A quote of a trust domain with this REPORTDATA (64 bytes). */
export function makeTdxQuote(authority: LabAuthority, reportData: Uint8Array, knobs: TdxKnobs = {}): Uint8Array {
  const version = knobs.version ?? 4
  const body = knobs.body ?? "1.0"
  const later = body === "1.5" ? { teeTcbSvn2: goodTd.teeTcbSvn, mrServiceTd: "00".repeat(48) } : {}
  const header: QuoteHeader = { version, teeType: "tdx", qeSvn: 0, pceSvn: 0, userData, ...knobs.header }
  const report: TdReport = { ...goodTd, ...later, body, reportData: encodeHex(reportData), ...knobs.report }
  const qe = { mrSigner: labTdQeSigner, isvProdId: 2 }
  const signature = makeSignature(authority, encodeTdxSignedPart(header, report), qe, knobs)
  return encodeTdxQuote({ header, report, signature, trailingBytes: knobs.trailingBytes ?? 0 })
}

function makeSignature(authority: LabAuthority, signed: Uint8Array, qe: Partial<EnclaveReport>, knobs: QuoteKnobs): QuoteSignature {
  const attestation = knobs.attestationKey ?? authority.keys.attestation
  const attestationKey = rawPublicKey(knobs.statedKey ?? attestation)
  const qeAuthenticationData = knobs.qeAuthenticationData ?? Uint8Array.from({ length: 32 }, (_, at) => at)
  const binding = createHash("sha256").update(attestationKey).update(qeAuthenticationData).digest()
  const qeReport = encodeReport({
    ...goodEnclave,
    attributes: "1500000000000000e700000000000000",
    isvSvn: 8,
    ...qe,
    reportData: encodeHex(concatBytes(binding, new Uint8Array(32))),
    ...knobs.qeReport,
  })
  return {
    signature: signRaw(attestation, signed),
    attestationKey,
    qeReport,
    qeReportSignature: signRaw(knobs.pckKey ?? authority.keys.pck, qeReport),
    qeAuthenticationData,
    certification: (knobs.certification ?? ((good) => good))({ type: pckChainType, data: authority.pckChain }),
  }
}

export function encodeReport(report: EnclaveReport): Uint8Array {
  const writer = new ByteWriter()
  writeEnclaveReport(writer, report)
  return writer.take()
}

/** x ‖ y of a P-256 key. */
export function rawPublicKey(key: LabKey): Uint8Array {
  const { x = "", y = "" } = key.publicKey.export({ format: "jwk" })
  return concatBytes(Buffer.from(x, "base64url"), Buffer.from(y, "base64url"))
}
