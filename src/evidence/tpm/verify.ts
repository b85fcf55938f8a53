import { Genuine } from "../genuine.ts"
import type { QuoteClaims } from "./claims.ts"
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
