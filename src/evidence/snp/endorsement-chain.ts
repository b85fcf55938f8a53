import type { KeyObject } from "node:crypto"
import { bytesEqual } from "../../bytes/compare.ts"
import { basicConstraints, certificateFingerprint, certificateKey, keyUsage } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { describeName, verifyChain } from "../../pki/chain.ts"
import type { Chain } from "../../pki/chain.ts"
import { EvidenceError } from "../errors.ts"
import { asEvidence } from "../tpm/pki-errors.ts"
import type { SnpClaims } from "./claims.ts"
import { isAmdName, readCertifiedIdentity, rootCommonName, signingKeyKinds } from "./endorsements.ts"
import type { CertifiedIdentity, SigningKeyKind, SnpEndorsements } from "./endorsements.ts"
import type { SnpRoot } from "./roots.ts"

export interface EndorsedKey {
  readonly key: KeyObject
  readonly root: SnpRoot
  readonly identity: CertifiedIdentity
  readonly claims: SnpClaims["endorsement"]
}

/** Room for ASK, ASVK and ARK as vendors bundle them. */
const maxIntermediates = 4
/** One for each of the two addresses that AMD publishes lists at. */
const maxRevocationLists = 2

/** The only signature algorithm of AMD's hierarchy, salt of 48 bytes (AMD 57230, 3.1), and the size of its RSA keys. */
const scheme = "rsapss-sha384"
const rsaBits = 4096

/**
 * Verifies ARK → ASK → VCEK or ARK → ASVK → VLEK: that one of `roots` certified the key, for which product, patch levels, and chip or provider.
 * @throws {EvidenceError} `wrong-chain`, `wrong-signature`, `expired`, `revoked`, `wrong-certificate`, `wrong-key`, `weak-algorithm`
 * @throws {MalformedError} an extension that cannot be read
 */
export function checkEndorsements(endorsements: SnpEndorsements, kind: SigningKeyKind, roots: readonly SnpRoot[], time: number): EndorsedKey {
  const { signer, intermediates, revocationLists } = endorsements
  if (intermediates.length > maxIntermediates) throw new EvidenceError("wrong-chain", `more than ${maxIntermediates} certificates between`)
  if (revocationLists.length > maxRevocationLists) throw new EvidenceError("wrong-chain", `more than ${maxRevocationLists} revocation lists`)
  const chain = asEvidence("endorsement key chain", () =>
    verifyChain({ leaf: signer, intermediates, roots: roots.map(({ certificate }) => certificate), time, revocationLists }),
  )
  const root = rootOf(chain, roots)
  checkNames(chain, kind, root)
  chain.forEach(checkAlgorithms)
  checkLeaf(signer)
  checkRevocation(root, endorsements)
  const ends = [...chain.map(({ notAfter }) => notAfter), ...revocationLists.map(({ nextUpdate }) => nextUpdate)]
  return {
    key: certificateKey(signer),
    root,
    identity: readCertifiedIdentity(signer, kind, root.product),
    claims: {
      certificate: certificateFingerprint(signer),
      root: certificateFingerprint(root.certificate),
      rootKind: root.kind,
      rootName: root.name,
      isRevocationChecked: revocationLists.length > 0,
      validUntil: Math.min(...ends),
    },
  }
}

function rootOf(chain: Chain, roots: readonly SnpRoot[]): SnpRoot {
  const anchor = chain.at(-1)
  const root = roots.find(({ certificate }) => anchor !== undefined && bytesEqual(certificate.der, anchor.der))
  if (root === undefined) throw new Error("internal: chain without a root")
  return root
}

/** Exactly three certificates, each with the name that its place has. */
function checkNames(chain: Chain, kind: SigningKeyKind, { product }: SnpRoot): void {
  const names = [signingKeyKinds[kind].subject, signingKeyKinds[kind].issuer(product), rootCommonName(product)]
  if (chain.length !== names.length)
    throw new EvidenceError("wrong-chain", `${chain.length} certificates, expected ${names.join(", ")}`, { path: "endorsement key chain" })
  chain.forEach(({ subject }, place) => {
    if (!isAmdName(subject, names[place] ?? "")) throw refuse(`${describeName(subject)} is not AMD's name for ${names[place] ?? ""} of a ${kind}`)
  })
}

function checkAlgorithms(certificate: Certificate, place: number): void {
  const name = (): string => describeName(certificate.subject)
  if (certificate.signatureAlgorithm.scheme !== scheme) throw new EvidenceError("weak-algorithm", `${name()} is not signed with RSA-PSS and SHA-384`)
  const { asymmetricKeyType, asymmetricKeyDetails } = asEvidence("endorsement key chain", () => certificateKey(certificate))
  const fits =
    place === 0
      ? asymmetricKeyType === "ec" && asymmetricKeyDetails?.namedCurve === "secp384r1"
      : asymmetricKeyType === "rsa" && asymmetricKeyDetails?.modulusLength === rsaBits
  if (!fits) throw new EvidenceError("wrong-key", `the key of ${name()} is not ${place === 0 ? "on P-384" : `RSA of ${rsaBits} bits`}`)
}

/** The key signs reports, and never certificates. */
function checkLeaf(signer: Certificate): void {
  if (basicConstraints(signer)?.isCa === true) throw refuse("the endorsement key is that of an authority")
  const usage = keyUsage(signer)
  if (usage !== undefined && (!usage.has("digitalSignature") || usage.has("keyCertSign") || usage.has("cRLSign")))
    throw refuse("the endorsement key is certified for another use than signing reports")
}

/** verifyChain held the lists of the root against what the root issued. A list of anyone else was not looked at, and the root may have revoked itself. */
function checkRevocation(root: SnpRoot, { revocationLists }: SnpEndorsements): void {
  for (const list of revocationLists) {
    if (!bytesEqual(list.issuer, root.certificate.subject)) throw refuse(`the revocation list of ${describeName(list.issuer)} is not of ${root.name}`)
    if (list.revoked.has(root.certificate.serial))
      throw new EvidenceError("revoked", `${root.name} revoked itself`, { path: "endorsement key chain" })
  }
}

function refuse(message: string): EvidenceError {
  return new EvidenceError("wrong-certificate", message, { path: "endorsement key chain" })
}
