import { PerunError } from "../bytes/error.ts"

/**
 * Why evidence is not genuine. What is genuine but unwelcome (debug, violations, weak algorithms …) is a claim that policy judges, not an error.
 * The meaning and the advice for each code stand here once; docs and screens take them from this table.
 */
export const evidenceCodes = {
  "not-a-quote": "the signed structure is of another type, or not made by a TPM",
  "wrong-nonce": "the evidence answers another challenge, or another session",
  "wrong-signature": "the signature does not fit the signed bytes and the key",
  "wrong-key": "the key is of a kind, size or attribute set that may not sign this",
  "weak-algorithm": "the algorithm is not on the allow list",
  "wrong-selection": "the quoted registers are not exactly those required",
  "pcr-mismatch": "the logs do not explain the quoted register values",
  "log-mismatch": "an event's data does not hash to its digest, or an entry contradicts itself",
  "log-incomplete": "the log lacks what the quoted registers hold",
  "log-order": "events stand where they may not",
  "wrong-chain": "the certificate chain does not lead to a given root",
  expired: "a certificate or other endorsement is outside its time",
  revoked: "a certificate, or the security version that a platform runs at, is revoked",
  "wrong-certificate": "a certificate lacks what its role demands",
  contradiction: "signed fields contradict each other in a way that the signer never makes",
  "wrong-identity": "the enclave or module that vouches is not the one that the vendor names",
  "no-tcb-level": "the platform's security versions reach none of the levels that the vendor lists",
  "wrong-binding": "pieces of evidence do not belong together",
  "missing-piece": "a required piece of evidence is missing",
  "surplus-piece": "a piece of evidence is given that nobody asked for",
  "duplicate-piece": "a piece of evidence is given twice",
  unsupported: "this kind or version of evidence is not handled",
} as const satisfies Record<string, string>

export type EvidenceCode = keyof typeof evidenceCodes

/** Evidence that is not genuine. Malformed bytes throw MalformedError instead. */
export class EvidenceError extends PerunError<EvidenceCode> {}
