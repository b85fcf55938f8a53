import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Digest } from "../../bytes/digest.ts"
import { certificateFingerprint, parsePemCertificates } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"

/** A certificate that endorsement chains may end in. */
export interface TrustedRoot {
  readonly certificate: Certificate
  /** `vendor`: pinned here. `laboratory`: given by an operator or a policy; everything that rests on it is INSECURE LABORATORY. */
  readonly kind: "vendor" | "laboratory"
  /** For people. */
  readonly name: string
  /** The TPM is software of a cloud provider, who can read and copy its keys. */
  readonly isCloud: boolean
}

interface VendorRoot {
  readonly file: string
  readonly name: string
  readonly fingerprint: Digest
  readonly origin: string
  readonly isCloud: boolean
}

/** Roots of TPM vendors that are pinned in this program, by fingerprint of the whole certificate. Origin: test vectors that name their public source. */
export const vendorRootTable: readonly VendorRoot[] = [
  {
    file: "amd-ftpm-ecc.pem",
    name: "AMD fTPM ECC",
    fingerprint: "sha256:14aac9fd58471a612afd75d8c0955daf99f091b1863702f9e0d4113faf234f9d",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "amd-ftpm-rsa.pem",
    name: "AMD fTPM RSA",
    fingerprint: "sha256:67bd2472a546751caca5f358a78f80727531671338960a9bcfdfbe6a34d0c6a1",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "globalsign-tpm-ecc.pem",
    name: "GlobalSign TPM ECC (STMicroelectronics)",
    fingerprint: "sha256:5a8c7b5eb888cfce9322068e80e82b28b554ffeb7fdc9638dcb3763077401d26",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "globalsign-tpm-rsa.pem",
    name: "GlobalSign TPM RSA (STMicroelectronics)",
    fingerprint: "sha256:f27bf02c6e00c73d915eeb6a6a2f5fbf0c31ae0393149e6b5c31e41b113841c3",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "google-cloud-vtpm-1.pem",
    name: "Google Cloud vTPM 1",
    fingerprint: "sha256:9bd5285f8fb18502a7947e621ffd470266f49fcd3b73e19a190f690ad32a7caf",
    origin: "ek-certs/gce-vtpm-rsa-ek",
    isCloud: true,
  },
  {
    file: "infineon-optiga-ecc.pem",
    name: "Infineon OPTIGA ECC",
    fingerprint: "sha256:cfeb02fecd55ad7a73c6e1d11985d4c47dee248ab63dcb66091a2489660443c3",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "infineon-optiga-ecc-2.pem",
    name: "Infineon OPTIGA ECC 2",
    fingerprint: "sha256:ee0c827555c4e9012037df4257bb8aaa26084a17b13ede41cd7895c8d6c11190",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "infineon-optiga-rsa.pem",
    name: "Infineon OPTIGA RSA",
    fingerprint: "sha256:899e35474c9807eb4c7f2f7a12da0028fb250cd02154d0009fca7d9c66574f3b",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "infineon-optiga-rsa-2.pem",
    name: "Infineon OPTIGA RSA 2",
    fingerprint: "sha256:b413c71580af3ec5efe83fad31db2d4af4612355e3b01e50903b10763d738894",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "intel-ondie.pem",
    name: "Intel OnDie",
    fingerprint: "sha256:beb40bb7507b33967226aa80e084749fbb6593893c642e818d682e9a8d07fc24",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "microsoft-pluton-2021.pem",
    name: "Microsoft Pluton 2021",
    fingerprint: "sha256:32ab5fe7cb4396659fcb621ca14c6fb8fc2420f64050637d77e45a86c5d3916e",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "microsoft-tpm-2014.pem",
    name: "Microsoft TPM 2014",
    fingerprint: "sha256:870c7a35ceab3d59979f2c6a524042d404cb71518004350925fb2ced79a999da",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nsing-ecc-001.pem",
    name: "NSING ECC 001",
    fingerprint: "sha256:6ccf8a8a803d07a002a15d4889ffa0b125e4a82a1fe4211db3c6e8592919f9dc",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nsing-rsa-001.pem",
    name: "NSING RSA 001",
    fingerprint: "sha256:72ca00612395af027cd84c5514219f110e964dfa0bfc1efbb3ac147e3b173971",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nuvoton-1110.pem",
    name: "Nuvoton 1110",
    fingerprint: "sha256:2782e51a95e86d9557fe4204316cf805bd6f5898f81f9732e944d742bcdc5f54",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nuvoton-1111.pem",
    name: "Nuvoton 1111",
    fingerprint: "sha256:e38c280f7c0e0b49f31efc7531032bb6a86c3fba4eb89beb1d510eaa4510ae4a",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nuvoton-1210.pem",
    name: "Nuvoton 1210",
    fingerprint: "sha256:ba70a6ea7b77c7fee8947a07b1e70e0b26d39ce5e6307f63d5e4b9507f19a157",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nuvoton-2110.pem",
    name: "Nuvoton 2110",
    fingerprint: "sha256:4aebe77a51ed29959a7f9f5e07a24a558dee8167f3985d724995a541c258dfda",
    origin: "ek-certs/nuvoton-ecc-non-canonical-der",
    isCloud: false,
  },
  {
    file: "nuvoton-2111.pem",
    name: "Nuvoton 2111",
    fingerprint: "sha256:cd8185ff8995ed09811970090a8c36fafab34ef87f47fa51fdb9ecf95c9c2e04",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nuvoton-2112.pem",
    name: "Nuvoton 2112",
    fingerprint: "sha256:66e3a1013d4f697700f731e7d68c69b58351f90ec9580d85862d020ab4abf1af",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nuvoton-2210.pem",
    name: "Nuvoton 2210",
    fingerprint: "sha256:fc61abbc18100f460205ebe09d8c3e6995ac2be2234344a7facb62e15f9a7584",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nuvoton-2211.pem",
    name: "Nuvoton 2211",
    fingerprint: "sha256:2bbc5db224b8f28a6d2cf336d4da7ab21c8c490e3d60ef497801dc0b6ac00227",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "nuvoton-npct-ecc521.pem",
    name: "Nuvoton NPCTxxx ECC521",
    fingerprint: "sha256:083e7bd13e8fe0bb9b0c64db9e0c8356681df65714d2d5c4925eb98ae1369d40",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "stsafe-ecc-02.pem",
    name: "STMicroelectronics STSAFE ECC 02",
    fingerprint: "sha256:fd1e7b68accd825636b27b3177c67402d463a7f04c97b6c47ab705fcdc1a04f6",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
  {
    file: "stsafe-rsa-02.pem",
    name: "STMicroelectronics STSAFE RSA 02",
    fingerprint: "sha256:c8f179943356e13d9d84b100201cefabbf408880241e5329e60d950ce1dea623",
    origin: "ek-certs/ca-bundle-roots",
    isCloud: false,
  },
]

/**
 * Loads the pinned roots and holds each against its fingerprint.
 * @throws {Error} `internal: …` when a file was changed
 */
export function loadVendorRoots(): readonly TrustedRoot[] {
  return vendorRootTable.map((row) => vendorRoot(row, readFileSync(join(import.meta.dirname, "roots", row.file), "utf8")))
}

/**
 * The root of a row, from its file's text.
 * @throws {Error} `internal: …` where that is not exactly the pinned certificate
 */
export function vendorRoot({ file, name, fingerprint, isCloud }: VendorRoot, pem: string): TrustedRoot {
  const [certificate, ...more] = parsePemCertificates(pem)
  if (certificate === undefined || more.length > 0 || certificateFingerprint(certificate) !== fingerprint)
    throw new Error(`internal: pinned root ${file} is not the certificate ${fingerprint}`)
  return { certificate, kind: "vendor", name, isCloud }
}

/** Makes a laboratory root of a certificate that an operator or a policy names. */
export function laboratoryRoot(certificate: Certificate): TrustedRoot {
  return { certificate, kind: "laboratory", name: `INSECURE LABORATORY ${certificateFingerprint(certificate)}`, isCloud: false }
}
