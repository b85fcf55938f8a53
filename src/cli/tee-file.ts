import { readdir } from "node:fs/promises"
import { join } from "node:path"
import { readFileBounded } from "../bytes/durable.ts"
import type { Digest } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { ByteReader } from "../bytes/reader.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { parseDcapCollateral, type DcapCollateral } from "../evidence/dcap/endorsements.ts"
import { parseSnpCertTable } from "../evidence/snp/cert-table.ts"
import type { SnpEndorsements } from "../evidence/snp/endorsements.ts"
import { parseSnpReport } from "../evidence/snp/format.ts"
import { hardwareOf, parseTeeEvidence, type TeeEvidence } from "../evidence/tee/format.ts"
import { parseVouchers, supplementedBy } from "../evidence/tee/vouchers.ts"
import { certificateFingerprint, parseCertificate, parsePemCertificates, type Certificate } from "../pki/certificate.ts"
import { parseRevocationList } from "../pki/crl.ts"
import { tags } from "../pki/der.ts"
import { isFolder } from "./evidence-file.ts"

/** What may lie beside a quote or report, in files of their own. */
export interface TeeFileOptions {
  /** `dcap-collateral` or `snp-endorsements` JSON. */
  readonly collateral?: string
}

/** Largest file that is looked into. */
const maxFileBytes = 16_777_216

/** Names under which people keep the parts; the first that is there counts. */
export const teeFiles = {
  evidence: ["evidence.json"],
  quote: ["quote.bin", "quote.dat", "quote"],
  report: ["report.bin", "attestation-report.bin", "outblob"],
  eventLog: ["ccel.bin", "CCEL", "eventlog.json"],
  collateral: ["collateral.json"],
  certTable: ["auxblob", "cert-table.bin"],
  signer: ["vcek.der", "vcek.pem", "vlek.der", "vlek.pem"],
  issuers: ["ask.pem", "asvk.pem", "ark.pem", "cert_chain.pem"],
  revocationLists: ["crl.der"],
} as const satisfies Record<string, readonly string[]>

/** Parts of Intel's collateral as other tools write them. */
const collateralFiles = {
  tcbInfo: ["tcb_info.json", "tcb_info_issuer_chain.pem"],
  qeIdentity: ["qe_identity.json", "qe_identity_issuer_chain.pem"],
  rootCrl: "root_ca_crl.der",
  pckCrl: "pck_crl.der",
} as const

/**
 * Evidence of a TEE as people have it: our JSON, a quote or report as the device gave it, or a folder with one of them and what vouches for it. Undefined where there is none, so
 * that it may be a host's evidence. Nothing is verified.
 * @throws {MalformedError}, {UnavailableError}, {PkiError}
 */
export async function loadTeeEvidence(path: string, options: TeeFileOptions): Promise<TeeEvidence | undefined> {
  const evidence = (await isFolder(path)) ? await loadFolder(path) : parseOne(await readFileBounded(path, maxFileBytes))
  if (evidence === undefined || options.collateral === undefined) return evidence
  return supplementedBy(evidence, parseVouchers(hardwareOf(evidence).kind, await readFileBounded(options.collateral, maxFileBytes)))
}

/** Fingerprints of the certificates in PEM files: laboratory roots that a person names. */
export async function fingerprintsOf(files: readonly string[]): Promise<readonly Digest[]> {
  const fingerprints: Digest[] = []
  for (const path of files)
    fingerprints.push(...parsePemCertificates(parseUtf8(await readFileBounded(path, 1 << 20), path)).map(certificateFingerprint))
  return fingerprints
}

/** A quote or report by its first bytes, or our JSON; undefined for anything else. */
function parseOne(bytes: Uint8Array): TeeEvidence | undefined {
  if (bytes[0] === openingBrace) return hasKind(bytes) ? parseTeeEvidence(bytes) : undefined
  if (bytes.length < headerBytes) return undefined
  const reader = new ByteReader("header", bytes)
  const version = reader.u16le("version")
  const next = reader.u16le("attestation key type")
  const teeType = reader.u32le("TEE type")
  // A quote's attestation key type is 2 or 3; a report's version has 32 bits, so there are zeros.
  if (next === 0 && bytes.length === reportBytes && version >= 2 && version <= 5) return { kind: "snp", report: bytes }
  if (next === 0 || next > maxKeyType) return undefined
  if (version === sgxQuoteVersion) return { kind: "sgx", quote: bytes }
  return teeType === tdxTeeType ? { kind: "tdx", quote: bytes } : { kind: "sgx", quote: bytes }
}

/** Other documents have another `kind`, or none; the strict parser judges what is chosen here. */
function hasKind(bytes: Uint8Array): boolean {
  return /"kind"\s*:\s*"(?:sgx|tdx|snp|azure-vtpm)"/.test(parseUtf8(bytes, "evidence"))
}

/** A folder of small files, each read whole when it is asked for. */
export interface EvidenceFolder {
  /** Names of what lies there. */
  readonly files: ReadonlySet<string>
  /** The first of these names that is there. */
  first(choices: readonly string[]): string | undefined
  read(name: string): Promise<Uint8Array>
  /** The file under the first of these names that is there. */
  optional(choices: readonly string[]): Promise<Uint8Array | undefined>
}

/** @throws {UnavailableError} as readFileBounded, and Node's error where the folder cannot be listed */
export async function openEvidenceFolder(folder: string): Promise<EvidenceFolder> {
  const files = new Set(await readdir(folder))
  const first = (choices: readonly string[]): string | undefined => choices.find((name) => files.has(name))
  const read = async (name: string): Promise<Uint8Array> => readFileBounded(join(folder, name), maxFileBytes)
  const optional = async (choices: readonly string[]): Promise<Uint8Array | undefined> => {
    const name = first(choices)
    return name === undefined ? undefined : read(name)
  }
  return { files, first, read, optional }
}

async function loadFolder(path: string): Promise<TeeEvidence | undefined> {
  const folder = await openEvidenceFolder(path)
  const json = await folder.optional(teeFiles.evidence)
  if (json !== undefined) return parseTeeEvidence(json)
  const main = folder.first([...teeFiles.quote, ...teeFiles.report])
  if (main === undefined) return undefined
  const evidence = parseOne(await folder.read(main))
  if (evidence === undefined) throw new MalformedError("malformed", "neither a quote nor a report", { path: join(path, main) })
  if (evidence.kind === "snp") {
    const endorsements = await loadEndorsements(evidence.report, folder)
    return { ...evidence, ...(endorsements === undefined ? {} : { endorsements }) }
  }
  const eventLog = evidence.kind === "tdx" ? await folder.optional(teeFiles.eventLog) : undefined
  return { ...evidence, ...(await loadCollateral(folder)), ...(eventLog === undefined ? {} : { eventLog }) }
}

/** Intel's collateral as it lies in a folder, in one file or several; left out where nothing of it is there, so that it is looked for elsewhere. @throws {MalformedError} */
export async function loadCollateral(folder: EvidenceFolder): Promise<{ readonly collateral?: DcapCollateral }> {
  const bundle = await folder.optional(teeFiles.collateral)
  const collateral = bundle === undefined ? await loadCollateralFiles(folder) : parseDcapCollateral(bundle)
  return Object.keys(collateral).length === 0 ? {} : { collateral }
}

async function loadCollateralFiles({ files, read }: EvidenceFolder): Promise<DcapCollateral> {
  const document = async ([json, chain]: readonly [string, string]) =>
    files.has(json) && files.has(chain) ? { document: await read(json), issuerChain: await read(chain) } : undefined
  const tcbInfo = await document(collateralFiles.tcbInfo)
  const qeIdentity = await document(collateralFiles.qeIdentity)
  return {
    ...(tcbInfo === undefined ? {} : { tcbInfo }),
    ...(qeIdentity === undefined ? {} : { qeIdentity }),
    ...(files.has(collateralFiles.rootCrl) ? { rootCrl: await read(collateralFiles.rootCrl) } : {}),
    ...(files.has(collateralFiles.pckCrl) ? { pckCrl: await read(collateralFiles.pckCrl) } : {}),
  }
}

/** Certificates and revocation list of AMD as they lie in a folder; undefined where no certificate of the report's key is there. @throws {MalformedError}, {PkiError} */
export async function loadEndorsements(report: Uint8Array, { files, read, optional }: EvidenceFolder): Promise<SnpEndorsements | undefined> {
  const table = await optional(teeFiles.certTable)
  if (table !== undefined) {
    const { signingKey } = parseSnpReport(report)
    const { signers, intermediates, revocationLists } = parseSnpCertTable(table)
    const signer = signingKey === "none" ? undefined : signers[signingKey]
    if (signer !== undefined) return { signer, intermediates, revocationLists }
  }
  const signer = await optional(teeFiles.signer)
  if (signer === undefined) return undefined
  const intermediates: Certificate[] = []
  for (const name of teeFiles.issuers) if (files.has(name)) intermediates.push(...certificatesOf(await read(name)))
  const [leaf] = certificatesOf(signer)
  if (leaf === undefined) throw new MalformedError("malformed", "holds no certificate", { path: "vcek" })
  const list = await optional(teeFiles.revocationLists)
  return { signer: leaf, intermediates, revocationLists: list === undefined ? [] : [parseRevocationList(list)] }
}

/** DER or PEM. */
function certificatesOf(bytes: Uint8Array): readonly Certificate[] {
  return bytes[0] === tags.sequence ? [parseCertificate(bytes)] : parsePemCertificates(parseUtf8(bytes, "certificate"))
}

const openingBrace = 0x7b
const headerBytes = 48
const reportBytes = 1184
const sgxQuoteVersion = 3
const maxKeyType = 3
const tdxTeeType = 0x81
