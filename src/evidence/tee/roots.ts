import type { Digest } from "../../bytes/digest.ts"
import { MalformedError } from "../../bytes/error.ts"
import { parseUtf8 } from "../../bytes/text.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { certificateFingerprint, parsePemCertificates } from "../../pki/certificate.ts"
import { pckChainType } from "../dcap/format.ts"
import { laboratoryDcapRoot, loadIntelSgxRoot } from "../dcap/roots.ts"
import type { DcapRoot } from "../dcap/roots.ts"
import { parseSgxQuote } from "../sgx/format.ts"
import { isAmdName, rootCommonName } from "../snp/endorsements.ts"
import { snpProducts } from "../snp/products.ts"
import type { SnpProduct } from "../snp/products.ts"
import { laboratorySnpRoot, loadAmdRoots } from "../snp/roots.ts"
import type { SnpRoot } from "../snp/roots.ts"
import { parseTdxQuote } from "../tdx/format.ts"
import { hardwareOf, type TeeEvidence } from "./format.ts"
import type { HardwareEvidence } from "./hardware.ts"

/** Certificates that TEE evidence may chain to, by hierarchy. */
export interface TeeRoots {
  readonly dcap: readonly DcapRoot[]
  readonly snp: readonly SnpRoot[]
}

let pinned: TeeRoots | undefined

/** The vendors' roots that are pinned in this program. @throws {Error} `internal: …` when a file was changed */
export function vendorTeeRoots(): TeeRoots {
  pinned ??= { dcap: [loadIntelSgxRoot()], snp: loadAmdRoots() }
  return pinned
}

/**
 * The vendors' roots and those laboratory roots that the evidence itself carries and whose fingerprint (SHA-256 of the DER) the caller names: what rests on one is
 * INSECURE LABORATORY. A root that is not named stays unknown, whatever the evidence carries.
 * @throws {MalformedError}, {EvidenceError} where the evidence cannot be read
 */
export function teeRootsFor(evidence: TeeEvidence, laboratoryRoots: readonly Digest[]): TeeRoots {
  const vendor = vendorTeeRoots()
  if (laboratoryRoots.length === 0) return vendor
  const hardware = hardwareOf(evidence)
  const named = certificatesOf(hardware).filter((certificate) => laboratoryRoots.includes(certificateFingerprint(certificate)))
  if (hardware.kind !== "snp") return { ...vendor, dcap: [...vendor.dcap, ...named.map(laboratoryDcapRoot)] }
  const roots = named.flatMap((certificate) => productsOf(certificate).map((product) => laboratorySnpRoot(certificate, product)))
  return { ...vendor, snp: [...vendor.snp, ...roots] }
}

/** Certificates that came with the evidence; nothing in them is believed. */
function certificatesOf(evidence: HardwareEvidence): readonly Certificate[] {
  switch (evidence.kind) {
    case "sgx":
      return pckChainOf(parseSgxQuote(evidence.quote).signature.certification, evidence.collateral?.pckChain)
    case "tdx":
      return pckChainOf(parseTdxQuote(evidence.quote).signature.certification, evidence.collateral?.pckChain)
    case "snp":
      return evidence.endorsements?.intermediates ?? []
  }
}

function pckChainOf({ type, data }: { readonly type: number; readonly data: Uint8Array }, given: Uint8Array | undefined): readonly Certificate[] {
  const pem = type === pckChainType ? data : given
  if (pem === undefined) return []
  if (pem.length > maxPemBytes)
    throw new MalformedError("too-large", `${pem.length} bytes, at most ${maxPemBytes} are allowed`, { path: "PCK chain" })
  return parsePemCertificates(parseUtf8(pem, "PCK chain").replace(/\0$/, ""))
}

function productsOf({ subject }: Certificate): readonly SnpProduct[] {
  return (Object.keys(snpProducts) as SnpProduct[]).filter((product) => isAmdName(subject, rootCommonName(product)))
}

const maxPemBytes = 16_384
