import { bytesEqual } from "../../bytes/compare.ts"
import { MalformedError } from "../../bytes/error.ts"
import { encodeBase64, parseBase64, parseUtf8 } from "../../bytes/text.ts"
import { basicConstraints, certificateKey, keyUsage, parseCertificate, parseName } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { verifyChain } from "../../pki/chain.ts"
import { curveOf } from "../../pki/signatures.ts"
import { EvidenceError } from "../errors.ts"
import { asEvidence } from "../tpm/pki-errors.ts"
import type { DcapRoot } from "./roots.ts"

/** Chains under the Intel SGX root. Intel SGX PCK Certificate and CRL Profile Specification 1.5. */

/** A PCK certificate, its authority, and the root that both lead to. */
export interface PckChain {
  readonly leaf: Certificate
  readonly authority: Certificate
  readonly authorityKind: PckAuthority
  readonly root: DcapRoot
}

/** `processor`: platforms of one package; `platform`: of several. */
export type PckAuthority = "processor" | "platform"

export interface SigningChain {
  readonly leaf: Certificate
  readonly root: DcapRoot
}

const pckName = "Intel SGX PCK Certificate"
const authorityNames: Readonly<Record<PckAuthority, string>> = {
  processor: "Intel SGX PCK Processor CA",
  platform: "Intel SGX PCK Platform CA",
}
const tcbSigningName = "Intel SGX TCB Signing"

/** Attributes that every subject has besides its common name. */
const commonAttributes: readonly (readonly [oid: string, value: string])[] = [
  ["2.5.4.10", "Intel Corporation"],
  ["2.5.4.7", "Santa Clara"],
  ["2.5.4.8", "CA"],
  ["2.5.4.6", "US"],
]
const commonNameOid = "2.5.4.3"

/**
 * Verifies a PCK chain: exactly PCK certificate, processor or platform CA, and one of `roots`, in this order.
 * @throws {MalformedError} form
 * @throws {EvidenceError} `wrong-chain`, `wrong-signature`, `wrong-certificate`, `expired`, `weak-algorithm`, `wrong-key`
 */
export function verifyPckChain(pem: Uint8Array, roots: readonly DcapRoot[], time: number): PckChain {
  const path = "PCK chain"
  const [leafDer, authorityDer, rootDer] = readChain(pem, 3, path)
  const root = pinnedRoot(rootDer, roots, path)
  const leaf = parseOne(leafDer, path)
  const authority = parseOne(authorityDer, path)
  const chain = asEvidence(path, () => verifyChain({ leaf, intermediates: [authority], roots: [root.certificate], time }))
  if (chain.length !== 3) throw new EvidenceError("wrong-chain", "the authority does not stand between certificate and root", { path })
  checkSigner(leaf, pckName, path)
  checkAlgorithms([leaf, authority], path)
  const authorityKind = authorityKindOf(authority)
  if (authorityKind === undefined) throw wrongCertificate(path, "the issuer is neither the processor nor the platform CA")
  return { leaf, authority, authorityKind, root }
}

/**
 * Verifies a TCB signing chain: exactly signing certificate and one of `roots`.
 * @throws as verifyPckChain
 */
export function verifySigningChain(pem: Uint8Array, roots: readonly DcapRoot[], time: number): SigningChain {
  const path = "TCB signing chain"
  const [leafDer, rootDer] = readChain(pem, 2, path)
  const root = pinnedRoot(rootDer, roots, path)
  const leaf = parseOne(leafDer, path)
  asEvidence(path, () => verifyChain({ leaf, intermediates: [], roots: [root.certificate], time }))
  checkSigner(leaf, tcbSigningName, path)
  checkAlgorithms([leaf], path)
  return { leaf, root }
}

function parseOne(der: Uint8Array | undefined, path: string): Certificate {
  return asEvidence(path, () => parseCertificate(der ?? new Uint8Array(0)))
}

/** A certificate that signs data: no authority, digital signature, and the subject of its role. */
function checkSigner(certificate: Certificate, commonName: string, path: string): void {
  if (basicConstraints(certificate)?.isCa !== false) throw wrongCertificate(path, "the certificate does not say that it is no authority")
  const usage = keyUsage(certificate)
  if (usage?.has("digitalSignature") !== true) throw wrongCertificate(path, "the key may not sign data")
  if (usage.has("keyCertSign") || usage.has("cRLSign")) throw wrongCertificate(path, "the key may sign certificates or lists")
  if (intelCommonName(certificate) !== commonName) throw wrongCertificate(path, `the subject is not ${commonName}`)
}

/** Everything under this root is P-256. */
function checkAlgorithms(certificates: readonly Certificate[], path: string): void {
  for (const certificate of certificates) {
    if (certificate.signatureAlgorithm.scheme !== "ecdsa-sha256")
      throw new EvidenceError("weak-algorithm", `signed with ${certificate.signatureAlgorithm.oid}, expected ECDSA with SHA-256`, { path })
    if (curveOf(asEvidence(path, () => certificateKey(certificate))) !== "prime256v1")
      throw new EvidenceError("wrong-key", "the key is not of the curve P-256", { path })
  }
}

function authorityKindOf(certificate: Certificate): PckAuthority | undefined {
  const name = intelCommonName(certificate)
  return (Object.keys(authorityNames) as PckAuthority[]).find((kind) => authorityNames[kind] === name)
}

/** Common name of a subject that has Intel's other attributes and none besides; undefined for others. */
function intelCommonName(certificate: Certificate): string | undefined {
  const found = parseName(certificate.subject)
  const isIntel = commonAttributes.every(([oid, value]) => found.some((attribute) => attribute.oid === oid && attribute.value === value))
  return isIntel && found.length === commonAttributes.length + 1 ? found.find(({ oid }) => oid === commonNameOid)?.value : undefined
}

function pinnedRoot(der: Uint8Array | undefined, roots: readonly DcapRoot[], path: string): DcapRoot {
  const root = roots.find(({ certificate }) => der !== undefined && bytesEqual(certificate.der, der))
  if (root === undefined) throw new EvidenceError("wrong-chain", "the chain does not end in a given root", { path })
  return root
}

/**
 * Certificates (DER) of a PEM text, which must be nothing but `count` blocks in canonical form (RFC 7468, with lines of 64 or 76 characters), with `\n` or
 * `\r\n`; blank lines, a last newline and one NUL may follow a block. Nobody signs the text that a quoting enclave copies, so it is held to its form.
 * @throws {MalformedError}
 */
export function readChain(pem: Uint8Array, count: number, path: string): readonly Uint8Array[] {
  if (pem.length > maxPemBytes) throw new MalformedError("too-large", `${pem.length} bytes, at most ${maxPemBytes} are allowed`, { path })
  const text = parseUtf8(pem, path).replace(/\0$/, "").replaceAll("\r\n", "\n").replace(/\n+/g, "\n").replace(/\n$/, "")
  const blocks: Uint8Array[] = []
  let lines: string[] | undefined
  for (const line of text.split("\n")) {
    if (lines === undefined) {
      if (line !== begin) throw new MalformedError("malformed", "text outside the certificates", { path })
      lines = []
    } else if (line === end) {
      checkLines(lines, path)
      blocks.push(parseBase64(lines.join(""), path))
      lines = undefined
    } else lines.push(line)
  }
  if (lines !== undefined) throw new MalformedError("truncated", "a certificate without an end", { path })
  if (blocks.length !== count) throw new MalformedError("malformed", `${blocks.length} certificates, expected ${count}`, { path })
  return blocks
}

/** All lines but the last are as long as the first, which has 64 or 76 characters where there is a second. */
function checkLines(lines: readonly string[], path: string): void {
  const length = lines.length > 1 ? (lines[0]?.length ?? 0) : (lineLengths.find((known) => known >= (lines[0]?.length ?? 0)) ?? 0)
  const isCanonical =
    lineLengths.some((known) => known === length) &&
    lines.every((line, at) => (at < lines.length - 1 ? line.length === length : line.length > 0 && line.length <= length))
  if (!isCanonical) throw new MalformedError("malformed", "not canonical PEM", { path })
}

/** PEM text of certificates, as the quoting enclave and PCS write it. */
export function encodeChain(certificates: readonly Uint8Array[]): string {
  const block = (der: Uint8Array): string => [begin, ...(encodeBase64(der).match(/.{1,64}/g) ?? []), end].join("\n")
  return `${certificates.map(block).join("\n")}\n`
}

const lineLengths: readonly number[] = [64, 76]
const begin = "-----BEGIN CERTIFICATE-----"
const end = "-----END CERTIFICATE-----"
/** Three certificates have some 3700 bytes. */
const maxPemBytes = 16_384

function wrongCertificate(path: string, message: string): EvidenceError {
  return new EvidenceError("wrong-certificate", message, { path })
}
