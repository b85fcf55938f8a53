import { PerunError } from "../../../bytes/error.ts"

/** What went wrong when a TPM was asked, and what can be done. */
export const tpmCodes = {
  "auth-failed": "the authorization value or the authorization session is wrong",
  lockout: "the TPM is locked out after wrong authorizations: wait, or clear the lockout with its owner's password",
  "policy-failed": "the state of the machine does not fulfil the policy of the object",
  "wrong-credential": "the credential or sealed object was made for another key or TPM, or was changed",
  "no-such-handle": "the TPM has no object, session or index under this handle",
  "no-resources": "the TPM has no memory or slots left: another program may hold them",
  busy: "the TPM kept asking to try again",
  "not-started": "the TPM was not started: the firmware or the kernel has to do that",
  failure: "the TPM is in failure mode: restart the machine",
  unsupported: "the TPM lacks this command, algorithm or parameter",
  refused: "the TPM refused the command for another reason",
  "forged-response": "the response is not what this TPM sent: its authorization or its names do not fit",
} as const satisfies Record<string, string>

export type TpmCode = keyof typeof tpmCodes

/** The TPM refused, or its response cannot be believed. Malformed responses throw MalformedError, a TPM that is gone UnavailableError. */
export class TpmError extends PerunError<TpmCode> {
  /** TPM_RC as received, 0 where this program judged the response. */
  readonly responseCode: number

  constructor(code: TpmCode, message: string, options: { readonly responseCode?: number; readonly cause?: unknown } = {}) {
    super(code, message, options.cause === undefined ? {} : { cause: options.cause })
    this.responseCode = options.responseCode ?? 0
  }
}

type Row = readonly [name: string, code: TpmCode]

/** Format-zero codes: bit 7 clear. TPM 2.0 Library Part 2, 6.6.3, table 16 (TPM_RC_VER1 and TPM_RC_WARN). */
const formatZero: Readonly<Record<number, Row>> = {
  0x01e: ["TPM_RC_BAD_TAG", "refused"],
  0x100: ["TPM_RC_INITIALIZE", "not-started"],
  0x101: ["TPM_RC_FAILURE", "failure"],
  0x103: ["TPM_RC_SEQUENCE", "refused"],
  0x119: ["TPM_RC_DISABLED", "unsupported"],
  0x120: ["TPM_RC_EXCLUSIVE", "refused"],
  0x124: ["TPM_RC_AUTH_TYPE", "auth-failed"],
  0x125: ["TPM_RC_AUTH_MISSING", "auth-failed"],
  0x126: ["TPM_RC_POLICY", "policy-failed"],
  0x127: ["TPM_RC_PCR", "refused"],
  0x128: ["TPM_RC_PCR_CHANGED", "policy-failed"],
  0x12d: ["TPM_RC_UPGRADE", "failure"],
  0x12e: ["TPM_RC_TOO_MANY_CONTEXTS", "no-resources"],
  0x12f: ["TPM_RC_AUTH_UNAVAILABLE", "auth-failed"],
  0x130: ["TPM_RC_REBOOT", "failure"],
  0x142: ["TPM_RC_COMMAND_SIZE", "refused"],
  0x143: ["TPM_RC_COMMAND_CODE", "unsupported"],
  0x144: ["TPM_RC_AUTHSIZE", "refused"],
  0x145: ["TPM_RC_AUTH_CONTEXT", "auth-failed"],
  0x146: ["TPM_RC_NV_RANGE", "refused"],
  0x147: ["TPM_RC_NV_SIZE", "refused"],
  0x148: ["TPM_RC_NV_LOCKED", "refused"],
  0x149: ["TPM_RC_NV_AUTHORIZATION", "auth-failed"],
  0x14a: ["TPM_RC_NV_UNINITIALIZED", "no-such-handle"],
  0x14b: ["TPM_RC_NV_SPACE", "no-resources"],
  0x14c: ["TPM_RC_NV_DEFINED", "refused"],
  0x150: ["TPM_RC_BAD_CONTEXT", "refused"],
  0x151: ["TPM_RC_CPHASH", "policy-failed"],
  0x152: ["TPM_RC_PARENT", "refused"],
  0x153: ["TPM_RC_NEEDS_TEST", "failure"],
  0x154: ["TPM_RC_NO_RESULT", "failure"],
  0x155: ["TPM_RC_SENSITIVE", "refused"],
  0x901: ["TPM_RC_CONTEXT_GAP", "busy"],
  0x902: ["TPM_RC_OBJECT_MEMORY", "no-resources"],
  0x903: ["TPM_RC_SESSION_MEMORY", "no-resources"],
  0x904: ["TPM_RC_MEMORY", "no-resources"],
  0x905: ["TPM_RC_SESSION_HANDLES", "no-resources"],
  0x906: ["TPM_RC_OBJECT_HANDLES", "no-resources"],
  0x907: ["TPM_RC_LOCALITY", "refused"],
  0x908: ["TPM_RC_YIELDED", "busy"],
  0x909: ["TPM_RC_CANCELED", "busy"],
  0x90a: ["TPM_RC_TESTING", "busy"],
  0x910: ["TPM_RC_REFERENCE_H0", "no-such-handle"],
  0x911: ["TPM_RC_REFERENCE_H1", "no-such-handle"],
  0x912: ["TPM_RC_REFERENCE_H2", "no-such-handle"],
  0x918: ["TPM_RC_REFERENCE_S0", "no-such-handle"],
  0x919: ["TPM_RC_REFERENCE_S1", "no-such-handle"],
  0x91a: ["TPM_RC_REFERENCE_S2", "no-such-handle"],
  0x920: ["TPM_RC_NV_RATE", "busy"],
  0x921: ["TPM_RC_LOCKOUT", "lockout"],
  0x922: ["TPM_RC_RETRY", "busy"],
  0x923: ["TPM_RC_NV_UNAVAILABLE", "busy"],
}

/** Format-one codes: bit 7 set; bits 0 to 5 are the number. TPM 2.0 Library Part 2, 6.6.3, table 16 (TPM_RC_FMT1). */
const formatOne: Readonly<Record<number, Row>> = {
  0x01: ["TPM_RC_ASYMMETRIC", "unsupported"],
  0x02: ["TPM_RC_ATTRIBUTES", "refused"],
  0x03: ["TPM_RC_HASH", "unsupported"],
  0x04: ["TPM_RC_VALUE", "refused"],
  0x05: ["TPM_RC_HIERARCHY", "refused"],
  0x07: ["TPM_RC_KEY_SIZE", "unsupported"],
  0x08: ["TPM_RC_MGF", "unsupported"],
  0x09: ["TPM_RC_MODE", "unsupported"],
  0x0a: ["TPM_RC_TYPE", "refused"],
  0x0b: ["TPM_RC_HANDLE", "no-such-handle"],
  0x0c: ["TPM_RC_KDF", "unsupported"],
  0x0d: ["TPM_RC_RANGE", "refused"],
  0x0e: ["TPM_RC_AUTH_FAIL", "auth-failed"],
  0x0f: ["TPM_RC_NONCE", "auth-failed"],
  0x10: ["TPM_RC_PP", "auth-failed"],
  0x12: ["TPM_RC_SCHEME", "unsupported"],
  0x15: ["TPM_RC_SIZE", "refused"],
  0x16: ["TPM_RC_SYMMETRIC", "unsupported"],
  0x17: ["TPM_RC_TAG", "refused"],
  0x18: ["TPM_RC_SELECTOR", "refused"],
  0x1a: ["TPM_RC_INSUFFICIENT", "refused"],
  0x1b: ["TPM_RC_SIGNATURE", "refused"],
  0x1c: ["TPM_RC_KEY", "refused"],
  0x1d: ["TPM_RC_POLICY_FAIL", "policy-failed"],
  0x1f: ["TPM_RC_INTEGRITY", "wrong-credential"],
  0x20: ["TPM_RC_TICKET", "refused"],
  0x21: ["TPM_RC_RESERVED_BITS", "unsupported"],
  0x22: ["TPM_RC_BAD_AUTH", "auth-failed"],
  0x23: ["TPM_RC_EXPIRED", "policy-failed"],
  0x24: ["TPM_RC_POLICY_CC", "policy-failed"],
  0x25: ["TPM_RC_BINDING", "wrong-credential"],
  0x26: ["TPM_RC_CURVE", "unsupported"],
  0x27: ["TPM_RC_ECC_POINT", "refused"],
}

/** TPM_RC_CONTEXT_GAP, YIELDED, TESTING, NV_RATE, RETRY, NV_UNAVAILABLE: the same command may succeed a little later. */
const passing: ReadonlySet<number> = new Set([0x901, 0x908, 0x90a, 0x920, 0x922, 0x923])

/** A response code in readable parts. */
export interface ResponseCode {
  /** Name of the specification, e.g. `TPM_RC_LOCKOUT`; `TPM_RC 0x…` where the number is unknown. */
  readonly name: string
  readonly code: TpmCode
  /** What the code is about: `handle 1`, `session 2`, `parameter 1`, or "". */
  readonly about: string
  /** Another try of the same command is sensible. */
  readonly passing: boolean
}

/** Explains a TPM_RC other than success. Layer bits of a resource manager (bits 16 to 23) are ignored. TPM 2.0 Library Part 2, 6.6. */
export function explainResponseCode(responseCode: number): ResponseCode {
  const bare = responseCode % 0x10000
  if (!hasBit(bare, 7)) {
    const row = formatZero[bare]
    return { name: row?.[0] ?? unknownName(bare), code: row?.[1] ?? "refused", about: "", passing: passing.has(bare) }
  }
  const row = formatOne[bare % 64]
  const number = Math.floor(bare / 256) % 16
  return { name: row?.[0] ?? unknownName(bare), code: row?.[1] ?? "refused", about: subject(hasBit(bare, 6), number), passing: false }
}

/** The error for a response code other than success. */
export function responseError(command: string, responseCode: number): TpmError {
  const { name, code, about } = explainResponseCode(responseCode)
  return new TpmError(code, `${command}: ${name}${about === "" ? "" : ` (${about})`}: ${tpmCodes[code]}`, { responseCode })
}

function subject(isParameter: boolean, number: number): string {
  if (number === 0) return ""
  if (isParameter) return `parameter ${number}`
  return number < 8 ? `handle ${number}` : `session ${number - 8}`
}

function hasBit(value: number, bit: number): boolean {
  return Math.floor(value / 2 ** bit) % 2 === 1
}

function unknownName(code: number): string {
  return `TPM_RC 0x${code.toString(16).padStart(3, "0")}`
}
