import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Digest } from "../../bytes/digest.ts"
import { certificateFingerprint, parsePemCertificates } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"

/** The certificate that PCK and TCB signing chains must end in. */
export interface DcapRoot {
  readonly certificate: Certificate
  /** `vendor`: pinned here. `laboratory`: given by an operator or a policy; everything that rests on it is INSECURE LABORATORY. */
  readonly kind: "vendor" | "laboratory"
  /** For people. */
  readonly name: string
}

/** Intel SGX Root CA, by fingerprint of the whole certificate. */
export const intelSgxRoot: { readonly file: string; readonly name: string; readonly fingerprint: Digest; readonly origin: string } = {
  file: "intel-sgx-root-ca.pem",
  name: "Intel SGX Root CA",
  fingerprint: "sha256:44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3",
  origin: "https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem, as in sgx/oasis-v3-swhardening",
}

/**
 * Loads the pinned root and holds it against its fingerprint.
 * @throws {Error} `internal: …` when the file was changed
 */
export function loadIntelSgxRoot(): DcapRoot {
  return pinnedIntelRoot(readFileSync(join(import.meta.dirname, "roots", intelSgxRoot.file), "utf8"))
}

/**
 * The root from its file's text.
 * @throws {Error} `internal: …` where that is not exactly the pinned certificate
 */
export function pinnedIntelRoot(pem: string): DcapRoot {
  const { file, name, fingerprint } = intelSgxRoot
  const [certificate, ...more] = parsePemCertificates(pem)
  if (certificate === undefined || more.length > 0 || certificateFingerprint(certificate) !== fingerprint)
    throw new Error(`internal: pinned root ${file} is not the certificate ${fingerprint}`)
  return { certificate, kind: "vendor", name }
}

/** Makes a laboratory root of a certificate that an operator or a policy names. */
export function laboratoryDcapRoot(certificate: Certificate): DcapRoot {
  return { certificate, kind: "laboratory", name: `INSECURE LABORATORY ${certificateFingerprint(certificate)}` }
}
