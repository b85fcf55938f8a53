import { bytesEqual } from "../../../bytes/compare.ts"
import { MalformedError, PerunError } from "../../../bytes/error.ts"
import { sha256 } from "../../../bytes/digest.ts"
import type { JsonValue } from "../../../bytes/json.ts"
import { canonicalJson } from "../../../bytes/json.ts"
import { ByteReader } from "../../../bytes/reader.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../../bytes/text.ts"
import { viewOf } from "../../../bytes/view.ts"
import { parseCertificate, parsePemCertificates } from "../../../pki/certificate.ts"
import type { Certificate } from "../../../pki/certificate.ts"
import { parseCcel, parseDstackLog, replayCcel } from "../../ccel/format.ts"
import { verifyCcel } from "../../ccel/verify.ts"
import { encodeChain, readChain, verifyPckChain, verifySigningChain } from "../../dcap/certificates.ts"
import { checkTcbInfoFits } from "../../dcap/check.ts"
import type { DcapClaims } from "../../dcap/claims.ts"
import { openSignedJson, verifyCrl } from "../../dcap/collateral.ts"
import type { DcapCollateral } from "../../dcap/endorsements.ts"
import { pckChainType } from "../../dcap/format.ts"
import type { QuoteSignature } from "../../dcap/format.ts"
import { parseQeIdentity } from "../../dcap/qe-identity.ts"
import type { QeIdentity } from "../../dcap/qe-identity.ts"
import {
  checkAttestationKeyBinding,
  checkQeIdentity,
  checkQeReportSignature,
  checkQuoteSignature,
  parseQeReport,
} from "../../dcap/quoting-enclave.ts"
import { laboratoryDcapRoot, loadIntelSgxRoot } from "../../dcap/roots.ts"
import type { DcapRoot } from "../../dcap/roots.ts"
import { readSgxExtensions } from "../../dcap/sgx-extensions.ts"
import type { SgxExtensions } from "../../dcap/sgx-extensions.ts"
import { parseTcbInfo } from "../../dcap/tcb-info.ts"
import type { LevelStatus, TcbInfo } from "../../dcap/tcb-info.ts"
import { checkModule, checkTdxModule, findTcbLevel } from "../../dcap/tcb-level.ts"
import type { TdxTcb } from "../../dcap/tcb-level.ts"
import { EvidenceError } from "../../errors.ts"
import type { SgxClaims } from "../../sgx/claims.ts"
import { parseSgxQuote } from "../../sgx/format.ts"
import { verifySgxQuote } from "../../sgx/verify.ts"
import type { TdxClaims } from "../../tdx/claims.ts"
import { parseTdxQuote } from "../../tdx/format.ts"
import { verifyTdxQuote } from "../../tdx/verify.ts"
import { isObject } from "../vector.ts"
import type { Facts, VectorCase } from "../vector.ts"

/** Cases of the kinds `sgx` and `tdx`. */

/** `accept`: quote and collateral verify at the stated time, and the status is none that needs an update. */
export function judgeAccept(vector: VectorCase): void {
  const { dcap } = judgeGenuine(vector)
  const status = dcap.tcb.platform?.status
  if (status === undefined || status.startsWith("OutOfDate")) vector.problem(`the platform's TCB status is ${status ?? "unknown"}`)
}

/** `accept-without-collateral`: the chain of the quote verifies; the claims say that nothing of the TCB was checked. */
export function judgeWithoutCollateral(vector: VectorCase): void {
  const { dcap } = judgeGenuine(vector)
  vector.equal("claims about the TCB", dcap.tcb.status ?? null, null)
  vector.equal("missing", [...dcap.missingCollateral], ["TCB info", "QE identity", "root CA CRL", "PCK CRL"])
}

/** `outofdate`: genuine, and the merged status says that it is out of date. */
export function judgeOutOfDate(vector: VectorCase): void {
  const { dcap } = judgeGenuine(vector)
  const status = dcap.tcb.status ?? dcap.tcb.platform?.status ?? ""
  if (!status.startsWith("OutOfDate")) vector.problem(`the TCB status is ${status}`)
}

/** `debug-enclave`: genuine, and the claim says debug. */
export function judgeDebug(vector: VectorCase): void {
  vector.equal("debug", judgeGenuine(vector).debug, true)
}

/** `reject`: not genuine, for the stated reason; what is stated about its parts agrees. */
export function judgeReject(vector: VectorCase): void {
  const material = materialOf(vector)
  judgeParts(vector, material)
  judgeIssuerChains(vector, material)
  vector.refused("the evidence", () => verify(material, [material.root], "as-signed"), ...codesOf(vector))
}

/** `signature-ok-tcb-reject`: everything is signed as it should, but no TCB level is reached. */
export function judgeTcbReject(vector: VectorCase): void {
  const material = materialOf(vector)
  judgeParts(vector, material)
  judgeIssuerChains(vector, material)
  vector.refused("the evidence", () => verify(material, [material.root], "as-signed"), ...codesOf(vector))
  const { tcbInfo: _unused, ...rest } = material.collateral
  verify({ ...material, collateral: rest }, [material.root], "as-signed")
}

/** Words of the cases for our codes. A reason that is not here is taken for one of our codes. */
const reasonCodes: Readonly<Record<string, readonly string[]>> = {
  "certification-data-type-3": ["missing-piece"],
  "pck-chain-untrusted": ["wrong-chain"],
  "tcb-level-not-found": ["no-tcb-level"],
}

function codesOf(vector: VectorCase): readonly string[] {
  const reason = vector.facts.text("reason")
  return reason === undefined ? [] : (reasonCodes[reason] ?? [reason])
}

interface Material {
  readonly kind: "sgx" | "tdx"
  readonly quote: Uint8Array
  readonly collateral: DcapCollateral
  readonly time: number
  readonly root: DcapRoot
  /** Bytes behind the quote. */
  readonly trailingBytes: number
}

function materialOf(vector: VectorCase): Material {
  const kind = vector.kind === "sgx" ? "sgx" : "tdx"
  // Evidence that is refused before anything is dated has no time.
  const verifyTime = String(vector.facts.value("verifyTime") ?? "2025-01-01T00:00:00Z")
  const { quote, trailingBytes } = quoteOf(vector, kind)
  const collateral = collateralOf(vector)
  return { kind, quote, trailingBytes, collateral, time: Date.parse(verifyTime), root: loadIntelSgxRoot() }
}

/** The quote; bytes behind it that are not zero are refused, and the quote is judged without them. */
function quoteOf(vector: VectorCase, kind: "sgx" | "tdx"): { readonly quote: Uint8Array; readonly trailingBytes: number } {
  const quote = vector.file("quote.bin", "quote.dat")
  try {
    return { quote, trailingBytes: kind === "sgx" ? (parseSgxQuote(quote), 0) : parseTdxQuote(quote).trailingBytes }
  } catch (error) {
    if (!(error instanceof MalformedError) || error.code !== "trailing-bytes") throw error
    const stated = Number(vector.facts.value("trailingBytes"))
    vector.note(`refused as it stands: ${error.message}; judged without these bytes`)
    return { quote: viewOf(quote, 0, quote.length - stated), trailingBytes: stated }
  }
}

export function collateralOf(vector: VectorCase): DcapCollateral {
  const document = (name: string): DcapCollateral["tcbInfo"] => {
    const body = vector.optional(`${name}.json`)
    const issuerChain = vector.optional(`${name}_issuer_chain.pem`)
    return body === undefined || issuerChain === undefined ? undefined : { document: body, issuerChain }
  }
  const [tcbInfo, qeIdentity] = [document("tcb_info"), document("qe_identity")]
  const [rootCrl, pckCrl] = [vector.optional("root_ca_crl.der"), vector.optional("pck_crl.der")]
  return {
    ...(tcbInfo === undefined ? {} : { tcbInfo }),
    ...(qeIdentity === undefined ? {} : { qeIdentity }),
    ...(rootCrl === undefined ? {} : { rootCrl }),
    ...(pckCrl === undefined ? {} : { pckCrl }),
  }
}

function verify(
  { kind, quote, collateral, time }: Material,
  roots: readonly DcapRoot[],
  reportData: Uint8Array | "as-signed",
): SgxClaims | TdxClaims {
  const evidence = { quote, collateral }
  const expectation = { roots, time, reportData }
  return kind === "sgx" ? verifySgxQuote(evidence, expectation).claims : verifyTdxQuote(evidence, expectation).claims
}

function judgeGenuine(vector: VectorCase): SgxClaims | TdxClaims {
  const material = materialOf(vector)
  const { root } = material
  judgeParts(vector, material)
  const reportData = parseHex(parseQuote(material).body["reportdata"] ?? "")
  const claims = verify(material, [root], reportData)
  const { dcap } = claims
  judgeClaims(vector, dcap)
  const other = Uint8Array.from(reportData, (byte) => byte ^ 1)
  vector.refused("other report data", () => verify(material, [root], other), "wrong-nonce")
  vector.refused("another root", () => verify(material, [], "as-signed"), "wrong-chain")
  vector.refused("before its time", () => verify({ ...material, time: dcap.validFrom - 1000 }, [root], "as-signed"), "expired")
  vector.refused("behind its time", () => verify({ ...material, time: dcap.validUntil + 1000 }, [root], "as-signed"), "expired")
  const flipped = Uint8Array.from(material.quote)
  flipped[measurementAt] = (flipped[measurementAt] ?? 0) ^ 1
  vector.refused("a flipped bit", () => verify({ ...material, quote: flipped }, [root], "as-signed"), "wrong-signature")
  judgeIssuerChains(vector, material)
  judgeNonce(vector, claims)
  if (claims.kind === "tdx") judgeLogs(vector, claims)
  return claims
}

/** Inside MRENCLAVE or MRSEAM, whatever the version. */
const measurementAt = 120

/** What the claims of genuine evidence say must be what its parts say, and what is stated. */
function judgeClaims(vector: VectorCase, dcap: DcapClaims): void {
  const stated = vector.facts
  stated.check("collateralWindow", () => [dcap.validFrom, dcap.validUntil].map(isoTime))
  stated.check("missingCollateral", () => [...dcap.missingCollateral])
  stated.check("fmspc", () => dcap.platform.fmspc)
  stated.check("tcbStatus", () => dcap.tcb.platform?.status ?? null)
  stated.check("qeStatus", () => dcap.tcb.quotingEnclave?.status ?? null)
  stated.check("tdxModuleStatus", () => dcap.tcb.tdxModule?.status ?? null)
}

function isoTime(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, "Z")
}

/** The chain in which a list of the PCK authority came, and a chain that the source refuses. */
function judgeIssuerChains(vector: VectorCase, material: Material): void {
  const crlChain = vector.optional("pck_crl_issuer_chain.pem")
  if (crlChain !== undefined && material.collateral.pckCrl !== undefined) {
    const [authorityDer = new Uint8Array(0), rootDer] = readChain(crlChain, 2, "PCK CRL issuer chain")
    vector.equal("root of the PCK CRL's issuer", rootDer !== undefined && bytesEqual(rootDer, material.root.certificate.der), true)
    verifyCrl(material.collateral.pckCrl, parseCertificate(authorityDer), material.time, "PCK CRL")
  }
  const bad = vector.optional("issuer_chain_bad.pem")
  const { tcbInfo } = material.collateral
  if (bad === undefined || tcbInfo === undefined) return
  const collateral = { ...material.collateral, tcbInfo: { ...tcbInfo, issuerChain: bad } }
  vector.refused("the bad issuer chain", () => verify({ ...material, collateral }, [material.root], "as-signed"))
}

interface ParsedQuote {
  readonly version: number
  readonly teeType: string
  readonly signed: Uint8Array
  readonly signature: QuoteSignature
  /** The report's fields by the names of the cases. */
  readonly body: Readonly<Record<string, string>>
  readonly numbers: Readonly<Record<string, number>>
  readonly tdx: TdxTcb | undefined
}

function parseQuote({ kind, quote }: Pick<Material, "kind" | "quote">): ParsedQuote {
  if (kind === "sgx") {
    const { header, report, signed, signature } = parseSgxQuote(quote)
    const { cpuSvn, miscSelect, attributes, mrEnclave, mrSigner, reportData } = report
    const body = { cpusvn: cpuSvn, miscselect: miscSelect, attributes, mrenclave: mrEnclave, mrsigner: mrSigner, reportdata: reportData }
    const numbers = { isvprodid: report.isvProdId, isvsvn: report.isvSvn }
    return { version: header.version, teeType: "0x0", signed, signature, body, numbers, tdx: undefined }
  }
  const { header, report, signed, signature } = parseTdxQuote(quote)
  const body = {
    tee_tcb_svn: report.teeTcbSvn,
    mrseam: report.mrSeam,
    mrsignerseam: report.mrSignerSeam,
    seamattr: report.seamAttributes,
    tdattr: report.tdAttributes,
    xfam: report.xfam,
    mrtd: report.mrTd,
    mrconfigid: report.mrConfigId,
    mrowner: report.mrOwner,
    mrownerconfig: report.mrOwnerConfig,
    rtmr0: report.rtmrs[0],
    rtmr1: report.rtmrs[1],
    rtmr2: report.rtmrs[2],
    rtmr3: report.rtmrs[3],
    reportdata: report.reportData,
    ...(report.teeTcbSvn2 === undefined ? {} : { tee_tcb_svn2: report.teeTcbSvn2 }),
    ...(report.mrServiceTd === undefined ? {} : { mrservicetd: report.mrServiceTd }),
  }
  return { version: header.version, teeType: "0x81", signed, signature, body, numbers: {}, tdx: report }
}

/** Every stated fact by itself, whether or not the whole is genuine. */
function judgeParts(vector: VectorCase, material: Material): void {
  const { facts } = vector
  const quote = parseQuote(material)
  facts.check("quoteVersion", () => quote.version)
  facts.check("teeType", () => quote.teeType)
  facts.check("certDataType", () => quote.signature.certification.type)
  facts.check("trailingBytes", () => material.trailingBytes)
  const body = facts.object("body")
  for (const [name, value] of [...Object.entries(quote.body), ...Object.entries(quote.numbers)]) body?.check(name, () => value)
  const parts = partsOf(material, quote)
  judgeChecks(facts.object("checks"), material, quote, parts)
  const level = parts.level
  facts.check("fmspc", () => parts.platform?.fmspc ?? null)
  facts.check("tcbStatus", () => level?.status ?? null)
  facts.check("tcbDate", () => (level === undefined ? null : isoTime(level.tcbDate)))
  facts.check("advisories", () => (level === undefined || level.advisoryIds.length === 0 ? null : [...level.advisoryIds]))
  facts.check("tdxModuleStatus", () => parts.moduleLevel?.status ?? null)
  facts.check("qeStatus", () => parts.qeLevel?.status ?? null)
  facts.check("tcbEvaluationDataNumber", () => parts.info?.tcbEvaluationDataNumber ?? null)
  facts.check("pckRevoked", () => pckRevoked(material, parts))
  facts.check("missingCollateral", () => missingOf(material.collateral))
  facts.check("collateralWindow", () => windowOf(material, parts))
}

/** The time in which everything that the case has is valid. */
function windowOf({ collateral, time }: Material, { certificates, signers, info, identity }: Parts): JsonValue {
  const [, authority, root] = certificates
  if (authority === undefined || root === undefined) return null
  const lists = [
    ...(collateral.pckCrl === undefined ? [] : [verifyCrl(collateral.pckCrl, authority, time, "PCK CRL")]),
    ...(collateral.rootCrl === undefined ? [] : [verifyCrl(collateral.rootCrl, root, time, "root CA CRL")]),
  ]
  const documents = [info, identity].filter((document) => document !== undefined)
  const dated = [...certificates, ...signers]
  const from = Math.max(
    ...dated.map(({ notBefore }) => notBefore),
    ...lists.map((list) => list.thisUpdate),
    ...documents.map((document) => document.issueDate),
  )
  const to = Math.min(...dated.map(({ notAfter }) => notAfter), ...[...lists, ...documents].map(({ nextUpdate }) => nextUpdate))
  return [isoTime(from), isoTime(to)]
}

interface Parts {
  /** PCK certificate, authority, root. */
  readonly certificates: readonly Certificate[]
  /** Those of the signed documents. */
  readonly signers: readonly Certificate[]
  readonly leaf: Certificate | undefined
  readonly authority: Certificate | undefined
  readonly platform: SgxExtensions | undefined
  readonly info: TcbInfo | undefined
  readonly identity: QeIdentity | undefined
  readonly level: LevelStatus | undefined
  readonly moduleLevel: LevelStatus | undefined
  readonly qeLevel: LevelStatus | undefined
}

/** The parts as they read, whether or not the chain that they hang on is genuine: for comparing stated facts only. */
function partsOf(material: Material, quote: ParsedQuote): Parts {
  const { tcbInfo, qeIdentity } = material.collateral
  const { certification } = quote.signature
  const certificates = certification.type === pckChainType ? readChain(certification.data, 3, "PCK chain").map((der) => parseCertificate(der)) : []
  const [leaf, authority] = certificates
  const platform = leaf === undefined ? undefined : readSgxExtensions(leaf)
  const info = tcbInfo === undefined ? undefined : parseTcbInfo(openSignedJson(tcbInfo.document, "tcbInfo", firstOf(tcbInfo.issuerChain)))
  const identity =
    qeIdentity === undefined ? undefined : parseQeIdentity(openSignedJson(qeIdentity.document, "enclaveIdentity", firstOf(qeIdentity.issuerChain)))
  const { tdx } = quote
  return {
    certificates,
    signers: [tcbInfo, qeIdentity].flatMap((signed) => (signed === undefined ? [] : [firstOf(signed.issuerChain)])),
    leaf,
    authority,
    platform,
    info,
    identity,
    level: info === undefined || platform === undefined ? undefined : orNone(() => findTcbLevel(info, platform, tdx)),
    moduleLevel: info === undefined || tdx === undefined ? undefined : orNone(() => checkTdxModule(info, tdx)),
    qeLevel: identity === undefined ? undefined : orNone(() => checkQeIdentity(parseQeReport(quote.signature), identity)),
  }
}

function firstOf(chain: Uint8Array): Certificate {
  return parseCertificate(readChain(chain, 2, "issuer chain")[0] ?? new Uint8Array(0))
}

/** What an evaluation gives; nothing where it finds no level. */
function orNone<T>(evaluate: () => T): T | undefined {
  try {
    return evaluate()
  } catch (error) {
    if (error instanceof EvidenceError) return undefined
    throw error
  }
}

/** The stated checks one by one, by the names of the cases. */
function judgeChecks(stated: Facts | undefined, { time, root, collateral }: Material, quote: ParsedQuote, parts: Parts): void {
  const { signature, signed, tdx } = quote
  const { leaf, platform, info, identity } = parts
  const report = parseQeReport(signature)
  const checks: Readonly<Record<string, () => unknown>> = {
    quote_sig: () => checkQuoteSignature(signed, signature),
    ak_binding: () => checkAttestationKeyBinding(signature, report),
    qe_sig: () => leaf !== undefined && checkQeReportSignature(signature, leaf),
    pck_chain: () => verifyPckChain(signature.certification.data, [root], time),
    tcb_sig: () => collateral.tcbInfo !== undefined && verifySigningChain(collateral.tcbInfo.issuerChain, [root], time),
    qeid_sig: () => collateral.qeIdentity !== undefined && verifySigningChain(collateral.qeIdentity.issuerChain, [root], time),
    qe_match: () => identity !== undefined && checkQeIdentity(report, identity),
    fmspc_match: () => info !== undefined && platform !== undefined && checkTcbInfoFits(info, platform, tdx),
    mod_match: () => info?.tdxModule !== undefined && tdx !== undefined && checkModule(info.tdxModule, tdx),
    modid_match: () => info !== undefined && tdx !== undefined && checkTdxModule(info, tdx),
  }
  for (const [name, check] of Object.entries(checks)) stated?.check(name, () => holds(check))
}

/** A check that threw, or had nothing to look at, does not hold. */
function holds(check: () => unknown): boolean {
  try {
    return check() !== false
  } catch (error) {
    if (error instanceof PerunError) return false
    throw error
  }
}

function pckRevoked({ collateral, time }: Material, { leaf, authority }: Parts): JsonValue {
  if (collateral.pckCrl === undefined || leaf === undefined || authority === undefined) return null
  return verifyCrl(collateral.pckCrl, authority, time, "PCK CRL").revoked.has(leaf.serial)
}

function missingOf({ tcbInfo, qeIdentity, rootCrl, pckCrl }: DcapCollateral): string[] {
  const rows = [["TCB info", tcbInfo], ["QE identity", qeIdentity], ["root CA CRL", rootCrl], ["PCK CRL", pckCrl]] as const // prettier-ignore
  return rows.filter(([, piece]) => piece === undefined).map(([name]) => name)
}

function judgeNonce(vector: VectorCase, claims: SgxClaims | TdxClaims): void {
  vector.facts.check("nonce", () => encodeHex(vector.file("nonce.bin")))
  vector.facts.check("nonceIsReportData", () => claims.reportData === encodeHex(vector.file("nonce.bin")))
}

function judgeLogs(vector: VectorCase, claims: TdxClaims): void {
  const ccel = vector.optional("ccel.bin")
  if (ccel !== undefined) {
    const log = parseCcel(ccel)
    const { claims: found } = verifyCcel(log, { rtmrs: claims.rtmrs, quirks: [] })
    vector.facts.check("rtmrsFromCcel", () => Object.fromEntries(found.rtmrs.map((value, at) => [`rtmr${at}`, value])))
    judgeAcpiTable(vector, ccel.length)
  }
  judgeForeignLog(vector, claims)
  judgeDstack(vector, claims)
}

/** The log of another boot, whose firmware wrote a separator twice. */
function judgeForeignLog(vector: VectorCase, { rtmrs }: TdxClaims): void {
  const bytes = vector.optional("ccel-dupe-separator.bin")
  if (bytes === undefined) return
  const log = parseCcel(bytes)
  const own = replayCcel(log).map(encodeHex)
  vector.facts.check("dupeSeparatorRtmrs", () => Object.fromEntries([0, 1, 2].map((at) => [`rtmr${at}`, own[at] ?? ""])))
  vector.facts.check("dupeMatches", () => [0, 1, 2].filter((at) => own[at] === rtmrs[at]).map((at) => `rtmr${at}`))
  vector.refused("the log of another boot", () => verifyCcel(log, { rtmrs, quirks: [] }), "pcr-mismatch")
  const [r0 = "", r1 = "", r2 = "", r3 = ""] = own
  vector.refused("its second separator", () => verifyCcel(log, { rtmrs: [r0, r1, r2, r3], quirks: [] }), "log-order")
}

/** ACPI table CCEL: signature, length, checksum, and an area that is not smaller than the log. UEFI 2.10, 38.4.1. */
function judgeAcpiTable(vector: VectorCase, logBytes: number): void {
  const table = vector.optional("ccel-acpi-table.bin")
  if (table === undefined) return
  const reader = new ByteReader("CCEL", table)
  vector.equal("signature of the ACPI table", encodeHex(reader.bytes(4, "signature")), encodeHex(encodeUtf8("CCEL")))
  vector.equal("length of the ACPI table", reader.u32le("length"), table.length)
  reader.bytes(28, "header")
  vector.equal("kind of TEE (2: TDX)", reader.u8("ccType"), 2)
  vector.equal("subtype of TEE", reader.u8("ccSubtype"), 0)
  reader.u16le("reserved")
  vector.equal("the log fits its area", reader.u64le("laml") >= BigInt(logBytes), true)
  vector.equal(
    "checksum of the ACPI table",
    table.reduce((sum, byte) => (sum + byte) % 256, 0),
    0,
  )
}

/** dstack's record of a TD: registers, and events that explain all four. */
function judgeDstack(vector: VectorCase, claims: TdxClaims): void {
  if (vector.optional("dstack-tcb-info.json") === undefined) return
  const record = vector.json("dstack-tcb-info.json")
  if (!isObject(record)) return vector.problem("dstack-tcb-info.json holds no object")
  const stated = [record["mrtd"], ...[0, 1, 2, 3].map((at) => record[`rtmr${at}`])]
  vector.equal("registers that dstack states", stated.map(String), [claims.mrTd, ...claims.rtmrs])
  const events = record["event_log"]
  const log = parseDstackLog(typeof events === "string" ? events : canonicalJson(events ?? null))
  const { claims: found } = verifyCcel(log, { rtmrs: claims.rtmrs, quirks: [] })
  vector.facts.check("eventLogMatches", () => [...found.rtmrs.map((_, at) => `rtmr${at}`), ...(found.rtmr3 === "explained" ? ["rtmr3"] : [])])
  const compose = found.events.find(({ description }) => description.startsWith("compose-hash = "))
  vector.facts.check("composeHashField", () => String(record["compose_hash"]))
  vector.facts.check("composeSha256", () => encodeHex(sha256(encodeUtf8(String(record["app_compose"])))))
  vector.equal("compose-hash event", compose?.description ?? "", `compose-hash = ${String(record["compose_hash"])}`)
}

/**
 * `reject-with-intel-root`: Intel's sample data under a test root. Refused under the pinned root; under the test root every signature and chain holds, and
 * where the sample is possible for hardware it verifies as a whole.
 */
export function judgeSample(vector: VectorCase): void {
  const kind = vector.kind === "sgx" ? "sgx" : "tdx"
  const [trusted] = parsePemCertificates(vector.text("trustedRootCaCert.pem"))
  if (trusted === undefined) return vector.problem("no trusted root")
  const root = laboratoryDcapRoot(trusted)
  const others = [...parsePemCertificates(vector.text("pckCert.pem")), ...parsePemCertificates(vector.text("pckSignChain.pem"))]
  const pckChain = chainOf(others, trusted)
  const issuerChain = chainOf(parsePemCertificates(vector.text("tcbSignChain.pem")), trusted)
  const [rootCrl, pckCrl] = [vector.file("rootCaCrl.der"), vector.file("intermediateCaCrl.der")]
  const tcbInfo = { document: vector.file("tcbInfo.json"), issuerChain }
  const qeIdentity = { document: vector.file("qeIdentity.json"), issuerChain }
  const collateral = { tcbInfo, qeIdentity, rootCrl, pckCrl, pckChain }
  const material = { kind, quote: vector.file("quote.dat"), collateral, time: sampleTime, root, trailingBytes: 0 } as const
  vector.refused("under the pinned root", () => verify(material, [loadIntelSgxRoot()], "as-signed"))
  vector.refused("the chain under the pinned root", () => verifyPckChain(pckChain, [loadIntelSgxRoot()], sampleTime), "wrong-chain")
  const { authority, leaf } = verifyPckChain(pckChain, [root], sampleTime)
  verifyCrl(rootCrl, trusted, sampleTime, "root CA CRL")
  verifyCrl(pckCrl, authority, sampleTime, "PCK CRL")
  const signer = verifySigningChain(issuerChain, [root], sampleTime).leaf
  openSignedJson(tcbInfo.document, "tcbInfo", signer)
  openSignedJson(qeIdentity.document, "enclaveIdentity", signer)
  const { signature, signed } = parseQuote(material)
  checkQuoteSignature(signed, signature)
  checkAttestationKeyBinding(signature, parseQeReport(signature))
  checkQeReportSignature(signature, leaf)
  if (kind === "sgx") vector.equal("root kind under the test root", verify(material, [root], "as-signed").dcap.rootKind, "laboratory")
  else vector.refused("under the test root, for no TDX module makes such a report,", () => verify(material, [root], "as-signed"), "malformed")
}

/** Within the validity of both samples. */
const sampleTime = Date.parse("2025-01-01T00:00:00Z")

/** The certificates, in whatever order they were kept, from leaf to root. */
function chainOf(certificates: readonly Certificate[], root: Certificate): Uint8Array {
  const below = certificates.filter(({ der }) => !bytesEqual(der, root.der))
  return encodeUtf8(encodeChain([...below, root].map(({ der }) => der)))
}
