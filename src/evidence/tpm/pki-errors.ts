import { PkiError } from "../../pki/errors.ts"
import { EvidenceError, evidenceCodes } from "../errors.ts"
import type { EvidenceCode } from "../errors.ts"

/** Runs a check of the pki room and gives its errors as evidence errors: the codes that both rooms have mean the same. */
export function asEvidence<T>(path: string, check: () => T): T {
  try {
    return check()
  } catch (error) {
    if (!(error instanceof PkiError)) throw error
    throw new EvidenceError(isEvidenceCode(error.code) ? error.code : "unsupported", error.message, { path, cause: error })
  }
}

function isEvidenceCode(code: string): code is EvidenceCode {
  return Object.hasOwn(evidenceCodes, code)
}
