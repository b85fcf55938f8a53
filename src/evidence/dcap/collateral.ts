import { bytesEqual } from "../../bytes/compare.ts"
import { EvidenceError } from "../errors.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { certificateKey } from "../../pki/certificate.ts"
import { parseRevocationList, verifyRevocationList } from "../../pki/crl.ts"
import type { RevocationList } from "../../pki/crl.ts"
import { verifySignature } from "../../pki/signatures.ts"
import { asEvidence } from "../tpm/pki-errors.ts"
import { verifySigningChain } from "./certificates.ts"
import type { SigningChain } from "./certificates.ts"
import type { SignedDocument } from "./endorsements.ts"
import { parseQeIdentity } from "./qe-identity.ts"
import type { QeIdentity } from "./qe-identity.ts"
import type { DcapRoot } from "./roots.ts"
import { splitSignedJson } from "./signed-json.ts"
import { parseTcbInfo } from "./tcb-info.ts"
import type { TcbInfo } from "./tcb-info.ts"

/** Verification of Intel's collateral: the signature of every object is checked before a byte of it is believed. */

export interface VerifiedDocument<Document> {
  readonly document: Document
  readonly chain: SigningChain
}

/** Gives the verified chain of a PEM text. */
export type SigningChainVerifier = (issuerChain: Uint8Array) => SigningChain

/**
 * Verifies TCB signing chains under one root. TCB info and QE identity mostly come with the same chain: one that was verified in this verification is not
 * verified again.
 */
export function signingChainVerifier(root: DcapRoot, rootCrl: RevocationList | undefined, time: number): SigningChainVerifier {
  let last: { readonly pem: Uint8Array; readonly chain: SigningChain } | undefined
  return (pem) => {
    if (last !== undefined && bytesEqual(last.pem, pem)) return last.chain
    const chain = verifySigningChain(pem, [root], time)
    checkSerials([chain.leaf], rootCrl, "TCB signing chain")
    last = { pem, chain }
    return chain
  }
}

/**
 * @throws {MalformedError} form
 * @throws {EvidenceError} `wrong-chain`, `wrong-certificate`, `wrong-signature`, `wrong-key`, `weak-algorithm`, `expired`, `revoked`
 */
export function verifyTcbInfo(signed: SignedDocument, verifyChain: SigningChainVerifier, time: number): VerifiedDocument<TcbInfo> {
  return verifyDocument(signed, "tcbInfo", parseTcbInfo, verifyChain, time)
}

/** @throws as verifyTcbInfo */
export function verifyQeIdentity(signed: SignedDocument, verifyChain: SigningChainVerifier, time: number): VerifiedDocument<QeIdentity> {
  return verifyDocument(signed, "enclaveIdentity", parseQeIdentity, verifyChain, time)
}

function verifyDocument<Document extends { readonly issueDate: number; readonly nextUpdate: number }>(
  signed: SignedDocument,
  name: string,
  parse: (body: Uint8Array) => Document,
  verifyChain: SigningChainVerifier,
  time: number,
): VerifiedDocument<Document> {
  const chain = verifyChain(signed.issuerChain)
  const document = parse(openSignedJson(signed.document, name, chain.leaf))
  if (time < document.issueDate || time > document.nextUpdate) {
    const [from, to, at] = [document.issueDate, document.nextUpdate, time].map((moment) => new Date(moment).toISOString())
    throw new EvidenceError("expired", `valid from ${from} to ${to}, judged at ${at}`, { path: name })
  }
  return { document, chain }
}

/**
 * The body of a signed document, after its signature was verified.
 * @throws {MalformedError} form; @throws {EvidenceError} `wrong-signature`, `wrong-key`
 */
export function openSignedJson(document: Uint8Array, name: string, signer: Certificate): Uint8Array {
  const { body, signature } = splitSignedJson(document, name)
  asEvidence(name, () => verifySignature("ecdsa-sha256", certificateKey(signer), body, signature, { ecdsa: "raw" }))
  return body
}

/**
 * Reads a revocation list and verifies that `issuer` signed it and that it is in time.
 * @throws {MalformedError} form
 * @throws {EvidenceError} `wrong-signature`, `wrong-certificate`, `wrong-key`, `weak-algorithm`, `expired`, `unsupported`
 */
export function verifyCrl(der: Uint8Array, issuer: Certificate, time: number, path: string): RevocationList {
  return asEvidence(path, () => {
    const list = parseRevocationList(der)
    verifyRevocationList(list, issuer, time)
    return list
  })
}

/** None of the certificates stands in the list of their issuer. @throws {EvidenceError} `revoked` */
export function checkSerials(certificates: readonly Certificate[], list: RevocationList | undefined, path: string): void {
  for (const { serial } of certificates)
    if (list?.revoked.has(serial) === true) throw new EvidenceError("revoked", `the certificate of serial number ${serial} is revoked`, { path })
}
