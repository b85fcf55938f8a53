import { Genuine } from "../genuine.ts"
import { checkEndorsementCertificate } from "./endorsement-chain.ts"
import type { EndorsementEvidence, EndorsementExpectation } from "./endorsement-chain.ts"
import type { EndorsementClaims, QuoteClaims } from "./claims.ts"
import type { TpmSignature } from "./format.ts"
import { checkQuoteContents, checkQuoteSignature } from "./quote.ts"
import type { QuoteExpectation, QuoteKey } from "./quote.ts"

export interface QuoteEvidence {
  /** TPMS_ATTEST, the exact signed bytes. */
  readonly attest: Uint8Array
  /** TPMT_SIGNATURE; or a record, where evidence carries the bare signature value and names its scheme elsewhere. */
  readonly signature: Uint8Array | TpmSignature
  readonly key: QuoteKey
}

/**
 * Verifies a TPM quote. Whether its key belongs to a genuine TPM is proved elsewhere: by enrolment, or by a certificate.
 * @throws {MalformedError} form
 * @throws {EvidenceError} `not-a-quote`, `wrong-key`, `weak-algorithm`, `wrong-signature`, `wrong-nonce`, `wrong-selection`, `missing-piece`, `pcr-mismatch`, `unsupported`
 */
export function verifyQuote(evidence: QuoteEvidence, expectation: QuoteExpectation): Genuine<QuoteClaims> {
  const signed = checkQuoteSignature(evidence.attest, evidence.signature, evidence.key, expectation.insecureAllowSha1 === true)
  const { hash } = signed.signature
  return Genuine.afterVerification(checkQuoteContents(signed.attest, signed.quote, { ...signed, hash }, expectation))
}

/**
 * Verifies that a vendor certified a TPM's key. Whether that TPM holds a given attestation key is proved by MakeCredential.
 * @throws {MalformedError} form
 * @throws {EvidenceError} `wrong-chain`, `expired`, `revoked`, `wrong-certificate`, `wrong-signature`, `weak-algorithm`, `wrong-key`, `wrong-binding` (the public area is
 * another key), `unsupported` (a quirk that is not accepted)
 */
export function verifyEndorsementCertificate(evidence: EndorsementEvidence, expectation: EndorsementExpectation): Genuine<EndorsementClaims> {
  return Genuine.afterVerification(checkEndorsementCertificate(evidence, expectation))
}
