import type { ImaEntry } from "../evidence/ima/claims.ts"

/** The hash is bound to its algorithm, and to what it is over: equal digits under another algorithm, or of an fs-verity descriptor, are another digest. */
export function entryDigest(entry: ImaEntry): string {
  return `${entry.verity === true ? "verity:" : ""}${entry.hashAlgorithm}:${entry.digest}`
}
