import { bytesEqual } from "../bytes/compare.ts"
import {
  authorityKeyIdentifier,
  basicConstraints,
  certificateKey,
  extendedKeyUsage,
  extensionIds,
  keyUsage,
  parseName,
  subjectKeyIdentifier,
} from "./certificate.ts"
import type { Certificate } from "./certificate.ts"
import { checkNotRevoked } from "./crl.ts"
import type { RevocationList } from "./crl.ts"
import { PkiError } from "./errors.ts"
import { verifySignature } from "./signatures.ts"

export interface ChainInput {
  readonly leaf: Certificate
  /** Certificates that may stand between; order and surplus do not matter. */
  readonly intermediates: readonly Certificate[]
  /** The only certificates that are trusted; compared byte for byte. */
  readonly roots: readonly Certificate[]
  /** Milliseconds since 1970 at which every certificate must be valid. */
  readonly time: number
  /** Purpose that the leaf must name and that no certificate above it may exclude; undefined where the role has none. */
  readonly extendedKeyUsage?: string
  /** Critical extensions of the leaf that the caller checks itself. */
  readonly handledExtensions?: readonly string[]
  /** Revocation lists; one that fits an issuer of the chain must be genuine and in time. */
  readonly revocationLists?: readonly RevocationList[]
  /** True: every issuer of the chain must have a revocation list among those given. */
  readonly requireRevocationLists?: boolean
  /** Lets SHA-1 signatures of the leaf and the intermediates pass. */
  readonly insecureAllowSha1?: boolean
}

/** From the leaf to the root, both included. */
export type Chain = readonly [Certificate, ...Certificate[]]

/** Longest chain with leaf and root; real ones have at most five. */
const maxChainLength = 8
/** More candidates than any vendor's hierarchy has, and few enough that trying all costs nothing. */
const maxIntermediates = 32
/** Certificates that all sign each other make more ways than anyone can try; honest sets need a handful of checks. */
const maxSignatureChecks = 200
/** anyExtendedKeyUsage, RFC 5280 section 4.2.1.12. */
const anyPurpose = "2.5.29.37.0"

/**
 * Builds and verifies a chain from `leaf` to one of `roots` (RFC 5280 section 6.1, without policies and name constraints: what would need them is refused as
 * an unknown critical extension). A root that is also the leaf is no chain.
 * @throws {PkiError} `wrong-chain`, `expired`, `revoked`, `wrong-certificate`, `wrong-key`, `weak-algorithm`; of several ways tried, the one that came furthest
 * @throws {MalformedError} for an extension that cannot be read
 */
export function verifyChain(input: ChainInput): Chain {
  if (input.intermediates.length > maxIntermediates) throw new PkiError("wrong-chain", `more than ${maxIntermediates} certificates between`)
  const search: Search = { failures: [], signatureChecks: 0 }
  const chain = findChain(input, [input.leaf], search)
  if (chain !== undefined) return chain
  const furthest = search.failures.toSorted((a, b) => b.depth - a.depth)[0]
  throw furthest?.error ?? new PkiError("wrong-chain", `no certificate of ${describeName(input.leaf.issuer)} among those given`)
}

interface Search {
  readonly failures: { readonly depth: number; readonly error: PkiError }[]
  signatureChecks: number
}

function findChain(input: ChainInput, below: Chain, search: Search): Chain | undefined {
  const last = below.at(-1) ?? input.leaf
  if (below.length >= maxChainLength) return undefined
  for (const issuer of candidates(input, last, below)) {
    const chain: Chain = [...below, issuer]
    if (++search.signatureChecks > maxSignatureChecks) throw new PkiError("wrong-chain", "too many ways through the given certificates")
    try {
      verifySignature(signatureScheme(last), certificateKey(issuer), last.tbs, last.signature, {
        insecureAllowSha1: input.insecureAllowSha1 === true,
      })
    } catch (error) {
      if (!(error instanceof PkiError)) throw error
      search.failures.push({ depth: chain.length, error })
      continue
    }
    if (!isRoot(input, issuer)) {
      const found = findChain(input, chain, search)
      if (found !== undefined) return found
      continue
    }
    try {
      checkChain(input, chain)
      return chain
    } catch (error) {
      if (!(error instanceof PkiError)) throw error
      // A whole chain that breaks a rule says more than one that leads nowhere.
      search.failures.push({ depth: maxChainLength + 1, error })
    }
  }
  return undefined
}

function candidates(input: ChainInput, child: Certificate, below: Chain): readonly Certificate[] {
  const wanted = authorityKeyIdentifier(child)
  return [...input.roots, ...input.intermediates].filter((issuer) => {
    if (!bytesEqual(issuer.subject, child.issuer) || below.some(({ der }) => bytesEqual(der, issuer.der))) return false
    const own = subjectKeyIdentifier(issuer)
    return wanted === undefined || own === undefined || own === wanted
  })
}

function isRoot(input: ChainInput, certificate: Certificate): boolean {
  return input.roots.some(({ der }) => bytesEqual(der, certificate.der))
}

function signatureScheme(certificate: Certificate): Parameters<typeof verifySignature>[0] {
  const { scheme, oid } = certificate.signatureAlgorithm
  if (scheme === undefined) throw new PkiError("weak-algorithm", `signature algorithm ${oid} is not on the allow list`)
  return scheme
}

function checkChain(input: ChainInput, chain: Chain): void {
  chain.forEach((certificate, index) => {
    checkTime(certificate, input.time)
    checkCriticalExtensions(certificate, index === 0 ? (input.handledExtensions ?? []) : [extensionIds.certificatePolicies])
    checkPurpose(certificate, input.extendedKeyUsage, index === 0)
    if (index > 0) checkIssuer(certificate, chain, index)
    const issuer = chain[index + 1]
    if (issuer !== undefined) checkNotRevoked(certificate, issuer, input.time, input.revocationLists ?? [], input.requireRevocationLists === true)
  })
}

function checkTime(certificate: Certificate, time: number): void {
  if (time >= certificate.notBefore && time <= certificate.notAfter) return
  const [from, to, at] = [certificate.notBefore, certificate.notAfter, time].map((moment) => new Date(moment).toISOString())
  throw new PkiError("expired", `${describeName(certificate.subject)} is valid from ${from} to ${to}, judged at ${at}`)
}

/** certificatePolicies on an issuer asks nothing of a verifier that requires no policy (RFC 5280 section 6.1.1, initial any-policy). */
const alwaysHandled: readonly string[] = [extensionIds.basicConstraints, extensionIds.keyUsage, extensionIds.extendedKeyUsage]

function checkCriticalExtensions(certificate: Certificate, handled: readonly string[]): void {
  for (const [oid, { critical }] of certificate.extensions) {
    if (critical && !alwaysHandled.includes(oid) && !handled.includes(oid))
      throw new PkiError("wrong-certificate", `${describeName(certificate.subject)} has the critical extension ${oid}, which is not handled`)
  }
}

function checkPurpose(certificate: Certificate, purpose: string | undefined, isLeaf: boolean): void {
  const named = extendedKeyUsage(certificate)
  if (purpose === undefined) {
    // Without a purpose to compare with, a critical one cannot be handled.
    if (certificate.extensions.get(extensionIds.extendedKeyUsage)?.critical === true)
      throw new PkiError("wrong-certificate", `${describeName(certificate.subject)} is for a purpose that was not asked for`)
    return
  }
  if (named === undefined ? isLeaf : !named.includes(purpose) && (isLeaf || !named.includes(anyPurpose)))
    throw new PkiError("wrong-certificate", `${describeName(certificate.subject)} is not for the purpose ${purpose}`)
}

function checkIssuer(certificate: Certificate, chain: Chain, index: number): void {
  const constraints = basicConstraints(certificate)
  if (constraints?.isCa !== true) throw new PkiError("wrong-certificate", `${describeName(certificate.subject)} is not a certification authority`)
  if (keyUsage(certificate)?.has("keyCertSign") === false)
    throw new PkiError("wrong-certificate", `the key of ${describeName(certificate.subject)} may not sign certificates`)
  // RFC 5280 4.2.1.9: intermediates below, not counting self-issued ones and the leaf.
  const below = chain.filter((other, place) => place > 0 && place < index && !bytesEqual(other.subject, other.issuer)).length
  if (constraints.pathLength !== undefined && below > constraints.pathLength)
    throw new PkiError(
      "wrong-certificate",
      `${below} authorities below ${describeName(certificate.subject)}, at most ${constraints.pathLength} are allowed`,
    )
}

/** A name for messages: the values of its attributes. */
export function describeName(name: Uint8Array): string {
  return JSON.stringify(
    parseName(name)
      .map(({ value }) => value)
      .join(", "),
  )
}
