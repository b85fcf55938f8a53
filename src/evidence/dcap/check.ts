import type { Certificate } from "../../pki/certificate.ts"
import { certificateFingerprint } from "../../pki/certificate.ts"
import type { RevocationList } from "../../pki/crl.ts"
import { EvidenceError } from "../errors.ts"
import { verifyPckChain } from "./certificates.ts"
import type { PckChain } from "./certificates.ts"
import type { CollateralClaims, CollateralName, DcapClaims, SignedDocumentClaims, TcbClaims } from "./claims.ts"
import { checkSerials, signingChainVerifier, verifyCrl, verifyQeIdentity, verifyTcbInfo } from "./collateral.ts"
import type { VerifiedDocument } from "./collateral.ts"
import type { DcapCollateral } from "./endorsements.ts"
import { pckChainType } from "./format.ts"
import type { EnclaveReport, QuoteHeader, QuoteSignature } from "./format.ts"
import type { QeIdentity } from "./qe-identity.ts"
import {
  checkAttestationKeyBinding,
  checkQeIdentity,
  checkQeNotDebug,
  checkQeReportSignature,
  checkQuoteSignature,
  parseQeReport,
} from "./quoting-enclave.ts"
import type { DcapRoot } from "./roots.ts"
import { readSgxExtensions } from "./sgx-extensions.ts"
import type { SgxExtensions } from "./sgx-extensions.ts"
import type { LevelStatus, TcbInfo } from "./tcb-info.ts"
import { checkTdxModule, findTcbLevel } from "./tcb-level.ts"
import type { TdxTcb } from "./tcb-level.ts"
import { mergeTcbStatus } from "./tcb-status.ts"

/** The parts of a quote that the shared checks need. */
export interface DcapQuote {
  readonly header: QuoteHeader
  readonly signature: QuoteSignature
  /** Header and body, exactly as signed. */
  readonly signed: Uint8Array
  /** What the TD report says of the TDX module; undefined for SGX. */
  readonly tdx: TdxTcb | undefined
}

export interface DcapExpectation {
  /** The only certificates that are trusted. */
  readonly roots: readonly DcapRoot[]
  /** Milliseconds since 1970 at which everything must be valid. */
  readonly time: number
}

/**
 * Every check that SGX and TDX quotes share; `verify.ts` of each makes the proof. What is missing of the collateral is a claim, what is there must hold.
 * @throws {MalformedError} form
 * @throws {EvidenceError} `wrong-chain`, `wrong-certificate`, `wrong-signature`, `wrong-key`, `weak-algorithm`, `expired`, `revoked`, `wrong-binding`,
 * `wrong-identity`, `no-tcb-level`, `missing-piece` (no PCK chain), `duplicate-piece` (two), `unsupported`
 */
export function checkDcap(quote: DcapQuote, collateral: DcapCollateral, { roots, time }: DcapExpectation): DcapClaims {
  const qeReport = parseQeReport(quote.signature)
  checkAttestationKeyBinding(quote.signature, qeReport)
  checkQeNotDebug(qeReport)
  checkQuoteSignature(quote.signed, quote.signature)
  const chain = verifyPckChain(pckChainOf(quote.signature, collateral), roots, time)
  checkQeReportSignature(quote.signature, chain.leaf)
  const crls = checkRevocation(chain, collateral, time)
  const platform = readSgxExtensions(chain.leaf)
  const verifySigner = signingChainVerifier(chain.root, crls.root, time)
  const tcbInfo = collateral.tcbInfo === undefined ? undefined : verifyTcbInfo(collateral.tcbInfo, verifySigner, time)
  const qeIdentity = collateral.qeIdentity === undefined ? undefined : verifyQeIdentity(collateral.qeIdentity, verifySigner, time)
  return {
    root: certificateFingerprint(chain.root.certificate),
    rootKind: chain.root.kind,
    rootName: chain.root.name,
    platform: { ...platform, pckSerial: chain.leaf.serial, authority: chain.authorityKind },
    userData: quote.header.userData,
    quotingEnclave: { mrEnclave: qeReport.mrEnclave, mrSigner: qeReport.mrSigner, isvProdId: qeReport.isvProdId, isvSvn: qeReport.isvSvn },
    tcb: evaluateTcb({ platform, qeReport, tdx: quote.tdx, tcbInfo: tcbInfo?.document, qeIdentity: qeIdentity?.document }),
    collateral: collateralClaims(crls, tcbInfo, qeIdentity),
    missingCollateral: missingOf(collateral),
    ...validityOf(chain, crls, [tcbInfo, qeIdentity]),
  }
}

/** The PCK chain of the quote itself, or the one given with it where the quote only names the PCK (certification data types 1 to 3). */
function pckChainOf({ certification }: QuoteSignature, collateral: DcapCollateral): Uint8Array {
  const path = "PCK chain"
  if (certification.type === pckChainType) {
    if (collateral.pckChain !== undefined) throw new EvidenceError("duplicate-piece", "given with the quote and inside it", { path })
    return certification.data
  }
  if (collateral.pckChain === undefined)
    throw new EvidenceError("missing-piece", `certification data of type ${certification.type} only names the PCK: its certificate must be fetched`, {
      path,
    })
  return collateral.pckChain
}

interface Crls {
  readonly root: RevocationList | undefined
  readonly pck: RevocationList | undefined
}

function checkRevocation(chain: PckChain, collateral: DcapCollateral, time: number): Crls {
  const rootCertificate = chain.root.certificate
  const root = collateral.rootCrl === undefined ? undefined : verifyCrl(collateral.rootCrl, rootCertificate, time, "root CA CRL")
  checkSerials([chain.authority, rootCertificate], root, "PCK chain")
  const pck = collateral.pckCrl === undefined ? undefined : verifyCrl(collateral.pckCrl, chain.authority, time, "PCK CRL")
  checkSerials([chain.leaf], pck, "PCK chain")
  return { root, pck }
}

interface TcbEvidence {
  readonly platform: SgxExtensions
  readonly qeReport: EnclaveReport
  readonly tdx: TdxTcb | undefined
  readonly tcbInfo: TcbInfo | undefined
  readonly qeIdentity: QeIdentity | undefined
}

/** @throws {EvidenceError} `wrong-binding` (TCB info or identity of another TEE or platform), `wrong-identity`, `no-tcb-level`, `revoked` */
function evaluateTcb({ platform, qeReport, tdx, tcbInfo, qeIdentity }: TcbEvidence): TcbClaims {
  const parts: { platform?: LevelStatus; quotingEnclave?: LevelStatus; tdxModule?: LevelStatus } = {}
  if (qeIdentity !== undefined) {
    const expected = tdx === undefined ? "QE" : "TD_QE"
    if (qeIdentity.id !== expected) throw wrongBinding("QE identity", `identity of ${qeIdentity.id}, expected ${expected}`)
    parts.quotingEnclave = levelStatus(checkQeIdentity(qeReport, qeIdentity))
  }
  if (tcbInfo !== undefined) {
    checkTcbInfoFits(tcbInfo, platform, tdx)
    const module = tdx === undefined ? undefined : checkTdxModule(tcbInfo, tdx)
    if (module !== undefined) parts.tdxModule = levelStatus(module)
    parts.platform = levelStatus(findTcbLevel(tcbInfo, platform, tdx))
  }
  const levels = Object.values(parts)
  const numbers = [tcbInfo?.tcbEvaluationDataNumber, qeIdentity?.tcbEvaluationDataNumber].filter((number) => number !== undefined)
  return {
    ...(tcbInfo === undefined || qeIdentity === undefined ? {} : { status: mergeTcbStatus(...levels.map(({ status }) => status)) }),
    advisoryIds: [...new Set(levels.flatMap(({ advisoryIds }) => advisoryIds))].sort(),
    ...parts,
    ...(numbers.length === 0 ? {} : { tcbEvaluationDataNumber: Math.min(...numbers) }),
  }
}

/** @throws {EvidenceError} `wrong-binding` */
export function checkTcbInfoFits(info: TcbInfo, platform: Pick<SgxExtensions, "fmspc" | "pceId">, tdx: TdxTcb | undefined): void {
  const path = "TCB info"
  const expected = tdx === undefined ? "SGX" : "TDX"
  if (info.id !== expected) throw wrongBinding(path, `for ${info.id}, expected ${expected}`)
  if (info.fmspc !== platform.fmspc) throw wrongBinding(path, `FMSPC ${info.fmspc}, the platform's is ${platform.fmspc}`)
  if (info.pceId !== platform.pceId) throw wrongBinding(path, `PCEID ${info.pceId}, the platform's is ${platform.pceId}`)
}

function levelStatus({ status, tcbDate, advisoryIds }: LevelStatus): LevelStatus {
  return { status, tcbDate, advisoryIds }
}

function collateralClaims(
  crls: Crls,
  tcbInfo: VerifiedDocument<TcbInfo> | undefined,
  qeIdentity: VerifiedDocument<QeIdentity> | undefined,
): CollateralClaims {
  return {
    ...(tcbInfo === undefined ? {} : { tcbInfo: documentClaims(tcbInfo.document) }),
    ...(qeIdentity === undefined ? {} : { qeIdentity: documentClaims(qeIdentity.document) }),
    ...(crls.root === undefined ? {} : { rootCrl: crlClaims(crls.root) }),
    ...(crls.pck === undefined ? {} : { pckCrl: crlClaims(crls.pck) }),
  }
}

function documentClaims({ version, issueDate, nextUpdate, tcbEvaluationDataNumber }: TcbInfo | QeIdentity): SignedDocumentClaims {
  return { version, issueDate, nextUpdate, ...(tcbEvaluationDataNumber === undefined ? {} : { tcbEvaluationDataNumber }) }
}

function crlClaims({ thisUpdate, nextUpdate }: RevocationList): { readonly thisUpdate: number; readonly nextUpdate: number } {
  return { thisUpdate, nextUpdate }
}

function missingOf(collateral: DcapCollateral): readonly CollateralName[] {
  const pieces: readonly (readonly [CollateralName, unknown])[] = [
    ["TCB info", collateral.tcbInfo],
    ["QE identity", collateral.qeIdentity],
    ["root CA CRL", collateral.rootCrl],
    ["PCK CRL", collateral.pckCrl],
  ]
  return pieces.filter(([, piece]) => piece === undefined).map(([name]) => name)
}

/** The time in which everything that was used is valid. */
function validityOf(
  { leaf, authority, root }: PckChain,
  crls: Crls,
  documents: readonly (VerifiedDocument<TcbInfo | QeIdentity> | undefined)[],
): { readonly validFrom: number; readonly validUntil: number } {
  const used = documents.filter((document) => document !== undefined)
  const certificates: readonly Certificate[] = [leaf, authority, root.certificate, ...used.map(({ chain }) => chain.leaf)]
  const lists = [crls.root, crls.pck].filter((list) => list !== undefined)
  return {
    validFrom: Math.max(
      ...certificates.map(({ notBefore }) => notBefore),
      ...lists.map(({ thisUpdate }) => thisUpdate),
      ...used.map(({ document }) => document.issueDate),
    ),
    validUntil: Math.min(
      ...certificates.map(({ notAfter }) => notAfter),
      ...lists.map(({ nextUpdate }) => nextUpdate),
      ...used.map(({ document }) => document.nextUpdate),
    ),
  }
}

function wrongBinding(path: string, message: string): EvidenceError {
  return new EvidenceError("wrong-binding", message, { path })
}
