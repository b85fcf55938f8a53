import { PerunError } from "../bytes/error.ts"

/** Why a signature or a certificate does not prove what it should. Each code's meaning stands here once. */
export const pkiCodes = {
  "wrong-signature": "the signature does not fit the signed bytes and the key",
  "wrong-key": "the key is of a kind, size or form that may not sign or hold this",
  "weak-algorithm": "the algorithm is not on the allow list",
  "wrong-purpose": "the signature was made for another purpose",
  "wrong-chain": "the certificate chain does not lead to a given root",
  "wrong-certificate": "a certificate lacks what its role demands, or demands what its reader does not handle",
  "wrong-stamp": "the time stamp is over something else than was asked for, or says too little",
  expired: "a certificate or revocation list is outside its time",
  revoked: "a certificate is revoked",
  unsupported: "this kind or version is not handled",
} as const satisfies Record<string, string>

export type PkiCode = keyof typeof pkiCodes

/** A key, signature or certificate that does not prove what it should. Malformed bytes throw MalformedError instead. */
export class PkiError extends PerunError<PkiCode> {}
