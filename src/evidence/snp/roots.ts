import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Digest } from "../../bytes/digest.ts"
import { certificateFingerprint, parsePemCertificates } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"
import type { SnpProduct } from "./products.ts"

/** A root that reports of one product line may chain to. */
export interface SnpRoot {
  readonly certificate: Certificate
  /** The product line whose keys this root certifies. */
  readonly product: SnpProduct
  /** `vendor`: pinned here. `laboratory`: given by an operator or a policy; everything that rests on it is INSECURE LABORATORY. */
  readonly kind: "vendor" | "laboratory"
  /** For people. */
  readonly name: string
}

/** A row of the table of pinned roots. */
export interface AmdRoot {
  readonly product: SnpProduct
  readonly file: string
  readonly fingerprint: Digest
  readonly origin: string
}

/**
 * AMD's root keys (ARK) that are pinned in this program, by fingerprint of the whole certificate. Origin: the test vectors that name their public source; each
 * stands there in the chains of several independent sources. Compare with https://kdsintf.amd.com/vcek/v1/{product}/cert_chain before relying on one.
 */
export const amdRootTable: readonly AmdRoot[] = [
  {
    product: "Milan",
    file: "ark-milan.pem",
    fingerprint: "sha256:69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    origin: "snp/milan-v2-vcek",
  },
  {
    product: "Genoa",
    file: "ark-genoa.pem",
    fingerprint: "sha256:4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    origin: "snp/genoa-v5-oak",
  },
  {
    product: "Turin",
    file: "ark-turin.pem",
    fingerprint: "sha256:1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
    origin: "snp/azure-turin-host-data",
  },
]

/**
 * Loads the pinned roots and holds each against its fingerprint.
 * @throws {Error} `internal: …` when a file was changed
 */
export function loadAmdRoots(): readonly SnpRoot[] {
  return amdRootTable.map((row) => pinnedAmdRoot(row, readFileSync(join(import.meta.dirname, "roots", row.file), "utf8")))
}

/**
 * The root of a row, from its file's text.
 * @throws {Error} `internal: …` where that is not exactly the pinned certificate
 */
export function pinnedAmdRoot({ product, file, fingerprint }: AmdRoot, pem: string): SnpRoot {
  const [certificate, ...more] = parsePemCertificates(pem)
  if (certificate === undefined || more.length > 0 || certificateFingerprint(certificate) !== fingerprint)
    throw new Error(`internal: pinned root ${file} is not the certificate ${fingerprint}`)
  return { certificate, product, kind: "vendor", name: `AMD ARK-${product}` }
}

/** Makes a laboratory root of a certificate that an operator or a policy names. */
export function laboratorySnpRoot(certificate: Certificate, product: SnpProduct): SnpRoot {
  return { certificate, product, kind: "laboratory", name: `INSECURE LABORATORY ${certificateFingerprint(certificate)}` }
}
