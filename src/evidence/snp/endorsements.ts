import { MalformedError, UnavailableError } from "../../bytes/error.ts"
import { encodeHex, parseUtf8 } from "../../bytes/text.ts"
import { parseCertificate, parseName, parsePemCertificates } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { parseRevocationList } from "../../pki/crl.ts"
import type { RevocationList } from "../../pki/crl.ts"
import { readDer, tags } from "../../pki/der.ts"
import type { Transport } from "../dcap/endorsements.ts"
import { EvidenceError } from "../errors.ts"
import type { SnpReport, TcbVersion } from "./format.ts"
import { componentsOf, snpProducts, tcbOf } from "./products.ts"
import type { SnpProduct, Tcb, TcbComponent } from "./products.ts"

/** What stands behind the key that signed a report. */
export interface SnpEndorsements {
  /** VCEK or VLEK certificate. */
  readonly signer: Certificate
  /** ASK or ASVK certificate; the ARK may be among them, it is not believed. */
  readonly intermediates: readonly Certificate[]
  /** Lists signed by the ARK; none where revocation cannot be checked. */
  readonly revocationLists: readonly RevocationList[]
  /** REPORTED_TCB that the source of the certificates says they are for. */
  readonly statedTcb?: TcbVersion
}

/** Kinds of keys that sign reports: names of certificates after AMD 57230, chapter 3. */
export const signingKeyKinds = {
  vcek: { subject: "SEV-VCEK", issuer: (product: SnpProduct): string => `SEV-${product}` },
  vlek: { subject: "SEV-VLEK", issuer: (product: SnpProduct): string => `SEV-VLEK-${product}` },
} as const

export type SigningKeyKind = keyof typeof signingKeyKinds

export function rootCommonName(product: SnpProduct): string {
  return `ARK-${product}`
}

/** Attributes besides the common name that every name of AMD's hierarchy has. AMD 57230, 3.1. */
export const amdNameAttributes: readonly (readonly [oid: string, value: string])[] = [
  ["2.5.4.11", "Engineering"],
  ["2.5.4.6", "US"],
  ["2.5.4.7", "Santa Clara"],
  ["2.5.4.8", "CA"],
  ["2.5.4.10", "Advanced Micro Devices"],
]

const commonName = "2.5.4.3"

/** True when `name` has AMD's attributes, each once and in whatever order, this common name, and nothing else. */
export function isAmdName(name: Uint8Array, expected: string): boolean {
  const found = parseName(name)
  const wanted = [...amdNameAttributes, [commonName, expected] as const]
  return (
    found.length === wanted.length && wanted.every(([oid, value]) => found.some((attribute) => attribute.oid === oid && attribute.value === value))
  )
}

/** Object identifiers of the extensions in VCEK and VLEK certificates. AMD 57230, 3.1. */
export const amdExtensionIds = {
  structVersion: "1.3.6.1.4.1.3704.1.1",
  productName: "1.3.6.1.4.1.3704.1.2",
  /** Followed by a number for each security patch level. */
  levels: "1.3.6.1.4.1.3704.1.3",
  hwId: "1.3.6.1.4.1.3704.1.4",
  cspId: "1.3.6.1.4.1.3704.1.5",
} as const

/** AMD's own arc: an extension in it that is not known may limit what the key stands for. */
const amdArc = "1.3.6.1.4.1.3704."

/** What AMD certified of a key besides its being genuine. */
export interface CertifiedIdentity {
  /** Product line, with the stepping in most VCEK: `Milan-B0`, `Genoa`. */
  readonly productName: string
  readonly tcb: Tcb
  /** HWID, as many bytes as CHIP_ID has significant ones: VCEK only. */
  readonly hwId?: Uint8Array
  /** Cloud provider: VLEK only. */
  readonly cspId?: string
}

/**
 * Reads the extensions of a VCEK or VLEK certificate, all of which must be there.
 * @throws {EvidenceError} `wrong-certificate`
 * @throws {MalformedError} an extension that cannot be read
 */
export function readCertifiedIdentity(certificate: Certificate, kind: SigningKeyKind, product: SnpProduct): CertifiedIdentity {
  const row = snpProducts[product]
  const value = (oid: string): Uint8Array => {
    const extension = certificate.extensions.get(oid)
    if (extension === undefined) throw refuse(`the certificate has no extension ${oid}`)
    return extension.value
  }
  const structVersion = readLevel(value(amdExtensionIds.structVersion), "structVersion")
  if (structVersion !== row.structVersion) throw refuse(`structVersion ${structVersion}, ${product} has ${row.structVersion}`)
  const productName = readText(value(amdExtensionIds.productName), "productName")
  // "Milan" or "Milan-B0": product line and stepping.
  if (productName.split("-")[0] !== product) throw refuse(`the key is certified for a ${JSON.stringify(productName)}, not for a ${product}`)
  const known = new Set<string>([amdExtensionIds.structVersion, amdExtensionIds.productName, idOf(kind)])
  const tcb: Partial<Record<TcbComponent, number>> = {}
  for (const [number, component] of Object.entries<TcbComponent | null>(row.certifiedLevels)) {
    const oid = `${amdExtensionIds.levels}.${number}`
    const level = readLevel(value(oid), oid)
    known.add(oid)
    if (component !== null) tcb[component] = level
    else if (level !== 0) throw refuse(`the reserved patch level ${oid} is ${level}`)
  }
  const unknown = [...certificate.extensions.keys()].find((oid) => oid.startsWith(amdArc) && !known.has(oid))
  if (unknown !== undefined) throw refuse(`the extension ${unknown} is not one of a ${kind} of ${product}`)
  const id = value(idOf(kind))
  return { productName, tcb, ...(kind === "vcek" ? { hwId: readHwId(id, row.chipIdBytes) } : { cspId: readText(id, "cspId") }) }
}

function idOf(kind: SigningKeyKind): string {
  return kind === "vcek" ? amdExtensionIds.hwId : amdExtensionIds.cspId
}

/** An INTEGER of one byte's range, in shortest form. */
function readLevel(extension: Uint8Array, field: string): number {
  return readDer(field, extension, (reader) => {
    const { body } = reader.element(tags.integer, "value")
    const [first = 0, second] = body
    // A leading zero byte stands only where the number would else be negative.
    if (body.length === 1 && first < 0x80) return first
    if (body.length === 2 && first === 0 && second !== undefined && second >= 0x80) return second
    throw new MalformedError("malformed", "not a number from 0 to 255", { path: field })
  })
}

function readText(extension: Uint8Array, field: string): string {
  return readDer(field, extension, (reader) => parseUtf8(reader.element(tags.ia5String, "value").body, field))
}

/** HWID stands bare in the extension in older certificates, and inside an OCTET STRING of its own in newer ones; the length tells which. */
function readHwId(extension: Uint8Array, size: number): Uint8Array {
  const id = extension.length === size ? extension : readDer("hwId", extension, (reader) => reader.element(tags.octetString, "value").body)
  if (id.length !== size) throw refuse(`HWID of ${id.length} bytes, expected ${size}`)
  return id
}

function refuse(message: string): EvidenceError {
  return new EvidenceError("wrong-certificate", message, { path: "endorsement key certificate" })
}

/** Addresses in AMD's key distribution service (AMD 57230, chapter 4) of what a report needs. */
export interface KdsAddresses {
  /** The VCEK, DER; undefined for a VLEK, which only the cloud provider can give. */
  readonly signer: string | undefined
  /** ASK (or ASVK) and ARK, PEM. */
  readonly chain: string
  /** Revocation list of the ARK, DER. */
  readonly revocationList: string
}

const kds = "https://kdsintf.amd.com"
const levelParameters = {
  fmc: "fmcSPL",
  bootLoader: "blSPL",
  tee: "teeSPL",
  snp: "snpSPL",
  microcode: "ucodeSPL",
} as const satisfies Record<TcbComponent, string>

/**
 * Where AMD keeps the endorsements of a report. `product` is that of the report's processor (`productOfCpu`), or what is known otherwise for version 2.
 * @throws {EvidenceError} `wrong-key` for an unsigned report, `wrong-binding` where CHIP_ID is masked
 */
export function kdsAddresses(report: SnpReport, product: SnpProduct): KdsAddresses {
  if (report.signingKey === "none") throw new EvidenceError("wrong-key", "the report is not signed", { path: "ATTESTATION_REPORT.KEY_INFO" })
  const base = `${kds}/${report.signingKey}/v1/${product}`
  const common = { chain: `${base}/cert_chain`, revocationList: `${base}/crl` }
  if (report.signingKey === "vlek") return { ...common, signer: undefined }
  const tcb = tcbOf(product, report.reportedTcb, "REPORTED_TCB")
  const levels = componentsOf(product).map((component) => `${levelParameters[component]}=${String(tcb[component] ?? 0).padStart(2, "0")}`)
  return { ...common, signer: `${base}/${encodeHex(significantChipId(report, product))}?${levels.join("&")}` }
}

/**
 * The bytes of CHIP_ID that a product uses.
 * @throws {EvidenceError} `wrong-binding` when it is masked, or longer than the product's
 */
export function significantChipId(report: SnpReport, product: SnpProduct): Uint8Array {
  const { chipIdBytes } = snpProducts[product]
  const path = "ATTESTATION_REPORT.CHIP_ID"
  if (report.chipId.every((byte) => byte === 0)) throw new EvidenceError("wrong-binding", "the host masks it", { path })
  if (report.chipId.some((byte, place) => place >= chipIdBytes && byte !== 0))
    throw new EvidenceError("wrong-binding", `longer than the ${chipIdBytes} bytes of a ${product}`, { path })
  return report.chipId.filter((_, place) => place < chipIdBytes)
}

/** Certificates and lists of AMD stay under 10 KiB. */
const maxAnswerBytes = 65_536

/**
 * Fetches the endorsements of a report from AMD. What comes is parsed, not believed: the verification does that.
 * @throws {UnavailableError} `unavailable`; `unsupported` for a VLEK where its certificate is not given
 * @throws {MalformedError} what came cannot be read
 */
export async function fetchSnpEndorsements(
  report: SnpReport,
  product: SnpProduct,
  transport: Transport,
  vlek?: Certificate,
): Promise<SnpEndorsements> {
  const addresses = kdsAddresses(report, product)
  const signer = addresses.signer === undefined ? vlek : parseCertificate(await fetchBytes(addresses.signer, transport))
  if (signer === undefined)
    throw new UnavailableError("unsupported", "the certificate of a VLEK comes from the cloud provider, AMD does not hand it out")
  return {
    signer,
    intermediates: parsePemCertificates(parseUtf8(await fetchBytes(addresses.chain, transport), "cert_chain")),
    revocationLists: [parseRevocationList(await fetchBytes(addresses.revocationList, transport))],
  }
}

/** @throws {UnavailableError} `unavailable` for any other answer than 200, or one that is too large */
export async function fetchBytes(address: string, transport: Transport): Promise<Uint8Array> {
  const { status, body } = await transport(address)
  if (status !== 200) throw new UnavailableError("unavailable", `${address} answered with status ${status}`)
  if (body.length > maxAnswerBytes) throw new UnavailableError("unavailable", `${address} answered with ${body.length} bytes`)
  return body
}
