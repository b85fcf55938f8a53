import { bytesEqual } from "../../bytes/compare.ts"
import { basicConstraints, certificateFingerprint, extendedKeyUsage, extensionIds, keyUsage } from "../../pki/certificate.ts"
import type { Certificate, KeyUsage } from "../../pki/certificate.ts"
import type { RevocationList } from "../../pki/crl.ts"
import { verifyChain } from "../../pki/chain.ts"
import { checkVerificationKey } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { checkAttestationKey, checkEndorsementKey } from "./attestation-key.ts"
import type { EndorsementClaims } from "./claims.ts"
import { certifiedKey, endorsementKeyDigest, harmlessQuirks, parseStoredCertificate, readTpmDescription } from "./endorsements.ts"
import type { EndorsementQuirk } from "./endorsements.ts"
import { asEvidence } from "./pki-errors.ts"
import type { PublicArea } from "./public-area.ts"
import type { TrustedRoot } from "./roots.ts"

export interface EndorsementEvidence {
  /** The certificate as the TPM stores it; header and padding are known. */
  readonly certificate: Uint8Array
  /** Certificates that may stand between it and a root. */
  readonly intermediates: readonly Certificate[]
  /** The key in TPM form, to be held against the certificate; `not-given` for a certificate alone. */
  readonly publicArea: PublicArea | "not-given"
}

export interface EndorsementExpectation {
  /** `endorsement` for EK certificates, `attestation` for certificates of attestation keys. */
  readonly role: "endorsement" | "attestation"
  readonly roots: readonly TrustedRoot[]
  /** Milliseconds since 1970. */
  readonly time: number
  readonly revocationLists: readonly RevocationList[]
  /** Quirks that are accepted besides the harmless ones. */
  readonly quirks: readonly EndorsementQuirk[]
  /** Lets SHA-1 signatures pass below the root; the claims then say so. */
  readonly insecureAllowSha1?: boolean
}

/** What a certificate must say for its role. TCG EK Credential Profile 2.6, 3.2; TCG AK certificates. */
interface CertificateRole {
  /** Extended key usages of which one must stand in the certificate. */
  readonly purposes: readonly [string, ...string[]]
  /** Key usages of which one must stand in it. */
  readonly anyOf: readonly KeyUsage[]
  /** Key usages that must not. */
  readonly noneOf: readonly KeyUsage[]
}

/** tcg-kp-EKCertificate */
const endorsementPurpose = "2.23.133.8.1"
/** tcg-kp-AIKCertificate */
const attestationPurpose = "2.23.133.8.3"

const roles: Readonly<Record<EndorsementClaims["role"], CertificateRole>> = {
  endorsement: {
    purposes: [endorsementPurpose],
    anyOf: ["keyEncipherment", "keyAgreement"],
    noneOf: ["digitalSignature", "keyCertSign", "cRLSign"],
  },
  // Google certifies its attestation keys under the purpose of endorsement keys.
  attestation: {
    purposes: [attestationPurpose, endorsementPurpose],
    anyOf: ["digitalSignature"],
    noneOf: ["keyEncipherment", "keyCertSign", "cRLSign"],
  },
}

/** The checks of verifyEndorsementCertificate; `verify.ts` makes the proof. */
export function checkEndorsementCertificate(evidence: EndorsementEvidence, expectation: EndorsementExpectation): EndorsementClaims {
  const role = roles[expectation.role]
  const { certificate, quirks } = parseStoredCertificate(evidence.certificate)
  const certified = asEvidence("endorsement certificate", () => certifiedKey(certificate))
  const usage = keyUsage(certificate)
  const found: EndorsementQuirk[] = [...quirks, ...certified.quirks, ...(usage === undefined ? (["no-key-usage"] as const) : [])]
  for (const quirk of found)
    if (!harmlessQuirks.includes(quirk) && !expectation.quirks.includes(quirk))
      throw new EvidenceError("unsupported", `the certificate has the quirk ${quirk}, which is not accepted`, { path: "endorsement certificate" })
  checkUsage(certificate, usage, role)
  asEvidence("endorsement certificate", () => checkVerificationKey(certified.key))
  const tpm = readTpmDescription(certificate)
  const named = extendedKeyUsage(certificate) ?? []
  const chain = asEvidence("endorsement chain", () =>
    verifyChain({
      leaf: certificate,
      intermediates: evidence.intermediates,
      roots: expectation.roots.map((root) => root.certificate),
      time: expectation.time,
      extendedKeyUsage: role.purposes.find((purpose) => named.includes(purpose)) ?? role.purposes[0],
      handledExtensions: [extensionIds.subjectAlternativeName],
      revocationLists: expectation.revocationLists,
      insecureAllowSha1: expectation.insecureAllowSha1 === true,
    }),
  )
  const anchor = chain.at(-1)
  const root = expectation.roots.find((candidate) => anchor !== undefined && bytesEqual(candidate.certificate.der, anchor.der))
  if (root === undefined) throw new Error("internal: chain without a root")
  const key = endorsementKeyDigest(certified.key)
  checkPublicArea(evidence, expectation.role, key)
  const issued = chain.slice(0, -1)
  return {
    role: expectation.role,
    key,
    hasPublicArea: evidence.publicArea !== "not-given",
    root: certificateFingerprint(root.certificate),
    rootKind: root.kind,
    rootName: root.name,
    isCloud: root.isCloud,
    ...tpm,
    quirks: found,
    usesSha1: issued.some(({ signatureAlgorithm }) => signatureAlgorithm.scheme === "rsassa-sha1"),
    isRevocationChecked: issued.every((child) => expectation.revocationLists.some((list) => bytesEqual(list.issuer, child.issuer))),
  }
}

function checkUsage(certificate: Certificate, usage: ReadonlySet<KeyUsage> | undefined, role: CertificateRole): void {
  const refuse = (message: string): EvidenceError => new EvidenceError("wrong-certificate", message, { path: "endorsement certificate" })
  if (basicConstraints(certificate)?.isCa === true) throw refuse("the certificate is that of an authority")
  if (usage === undefined) return
  if (!role.anyOf.some((name) => usage.has(name))) throw refuse(`the key usage holds none of ${role.anyOf.join(", ")}`)
  for (const name of role.noneOf) if (usage.has(name)) throw refuse(`the key usage holds ${name}`)
}

function checkPublicArea({ publicArea }: EndorsementEvidence, role: EndorsementClaims["role"], certified: string): void {
  if (publicArea === "not-given") return
  const key = role === "endorsement" ? checkEndorsementKey(publicArea) : checkAttestationKey(publicArea)
  const given = endorsementKeyDigest(key)
  if (given !== certified)
    throw new EvidenceError("wrong-binding", `the TPM's key is ${given}, certified is ${certified}`, { path: "endorsement certificate" })
}
