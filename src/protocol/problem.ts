import { z } from "zod"
import { PerunError, UnavailableError, type MalformedCode } from "../bytes/error.ts"
import { truncateText } from "../bytes/text.ts"
import type { EvidenceCode } from "../evidence/errors.ts"
import type { LogCode } from "../log/errors.ts"
import type { PkiCode } from "../pki/errors.ts"
import { type PolicyCode, PolicyError } from "../policy/errors.ts"
import type { SuccessionCode } from "../policy/successors.ts"
import type { SealingCode } from "../sealing/errors.ts"
import type { ProtocolCode } from "./errors.ts"
import { findingSchema, maxFindings, maxFindingText, type WireFinding } from "./messages.ts"

/** Codes under which an outside world that is silent shows itself. */
type UnavailableCode = UnavailableError["code"]

/** Every code that may cross the wire: the one table from code to HTTP status. */
const statusByCode = {
  // form
  truncated: 400,
  "trailing-bytes": 400,
  "too-large": 413,
  malformed: 400,
  duplicate: 400,
  "unknown-field": 400,
  // who calls
  unauthenticated: 401,
  "wrong-session": 401,
  "not-permitted": 403,
  // what is asked for
  "not-found": 404,
  "method-not-allowed": 405,
  "wrong-state": 409,
  "already-exists": 409,
  "wrong-digest": 400,
  "wrong-message": 400,
  "wrong-metrics": 400,
  "wrong-share": 403,
  "wrong-report": 400,
  "limit-exceeded": 403,
  "too-many-requests": 429,
  // evidence and signatures: not genuine
  "not-a-quote": 403,
  "wrong-nonce": 403,
  "wrong-signature": 403,
  "wrong-key": 403,
  "weak-algorithm": 403,
  "wrong-selection": 403,
  "pcr-mismatch": 403,
  "log-mismatch": 403,
  "log-incomplete": 403,
  "log-order": 403,
  "wrong-chain": 403,
  expired: 403,
  revoked: 403,
  "wrong-certificate": 403,
  "wrong-stamp": 403,
  // the log
  "wrong-proof": 400,
  "wrong-checkpoint": 403,
  "older-tree": 403,
  forked: 403,
  "not-witnessed": 503,
  contradiction: 403,
  "wrong-identity": 403,
  "no-tcb-level": 403,
  "wrong-binding": 403,
  "missing-piece": 403,
  "surplus-piece": 403,
  "duplicate-piece": 403,
  "wrong-purpose": 403,
  unsupported: 403,
  // the way to a key
  "challenge-unknown": 403,
  "challenge-used": 403,
  "challenge-expired": 403,
  "challenge-binding": 403,
  "not-enrolled": 403,
  "wrong-answer": 403,
  "policy-expired": 403,
  "policy-withdrawn": 403,
  "policy-inactive": 403,
  "lease-ended": 403,
  "reboot-detected": 403,
  "not-acceptable": 403,
  "no-runs-left": 403,
  "votes-missing": 403,
  "check-missing": 403,
  "wrong-check": 403,
  // documents: policies and manifests
  "invalid-policy": 400,
  "invalid-reference": 400,
  "wrong-predecessor": 409,
  "other-study": 409,
  "approvals-missing": 403,
  "predecessor-approvals-missing": 403,
  "recovery-not-agreed": 403,
  "recovery-wrong-key": 403,
  "recovery-changes-more": 403,
  "recovery-not-signed": 403,
  "recovery-approvals-missing": 403,
  "recovery-notice": 403,
  "owner-not-signed": 403,
  "owner-withdrawn": 403,
  "origin-owner-not-signed": 403,
  "laboratory-not-accepted": 403,
  "origin-owner-withdrawn": 403,
  "unknown-artifact": 400,
  "wrong-manifest": 400,
  "trailing-data": 400,
  reordered: 400,
  corrupt: 400,
  missing: 409,
  "unsafe-path": 400,
  "source-changed": 409,
  "not-empty": 409,
  // found by clients; never sent by a manager
  "wrong-manager": 403,
  contradicting: 403,
  "wrong-tls-key": 403,
  "wrong-result": 403,
  "wrong-receipts": 403,
  "wrong-run-certificate": 403,
  "wrong-secret": 400,
  // the manager's own trouble
  locked: 503,
  "time-unchecked": 503,
  "not-ready": 503,
  "store-changed": 500,
  "store-set-back": 403,
  internal: 500,
  unavailable: 503,
  timeout: 503,
  "disk-full": 507,
  "permission-denied": 503,
  "port-in-use": 503,
} as const satisfies Record<
  ProtocolCode | EvidenceCode | PkiCode | MalformedCode | UnavailableCode | PolicyCode | SuccessionCode | SealingCode | LogCode,
  number
>

export type ProblemCode = keyof typeof statusByCode

export const problemMediaType = "application/problem+json"

/** RFC 9457 problem details, narrowed: `code` is stable and for programs, `detail` is for people. */
export const problemSchema = z.strictObject({
  type: z.literal("about:blank"),
  title: z.string().max(200),
  status: z.int().min(400).max(599),
  code: z.string().regex(/^[a-z][a-z0-9-]{0,63}$/),
  detail: z.string().max(4000),
  /** Field at fault, where one is. */
  path: z.string().max(500).optional(),
  /** Every finding of an appraisal that refused, or every problem of a document. */
  findings: z.array(findingSchema).max(maxFindings).optional(),
})
export type Problem = z.output<typeof problemSchema>

/** HTTP status of a code; one that has no line here is the sender's fault. */
export function statusOfCode(code: string): number {
  return isProblemCode(code) ? statusByCode[code] : 400
}

export function isProblemCode(code: string): code is ProblemCode {
  return Object.hasOwn(statusByCode, code)
}

/**
 * The problem document for an error. Only errors of our own say what happened; anything else is `internal` and keeps its text to itself, for it might
 * hold a secret. What the manager's disk or device said names its files and addresses: that is for its operator's log.
 */
export function problemOfError(error: unknown): Problem {
  if (error instanceof UnavailableError) {
    const { code } = error
    return { type: "about:blank", title: code, status: statusByCode[code], code, detail: unavailableWords[code] }
  }
  const known = error instanceof PerunError
  const code: string = known ? error.code : "internal"
  const status = statusOfCode(code)
  return {
    type: "about:blank",
    title: code,
    status,
    code,
    detail: known ? truncateText(error.message, 4000) : "the manager is at fault",
    ...(known && error.path !== "" ? { path: truncateText(error.path, 500) } : {}),
    ...findingsOf(error),
  }
}

/** What callers hear of the manager's own trouble. */
const unavailableWords: Readonly<Record<UnavailableCode, string>> = {
  unavailable: "the manager's disk or device is out of order; its operator's log says more",
  timeout: "the manager's device does not answer in time; its operator's log says more",
  unsupported: "the manager's machine cannot do this; its operator's log says more",
  "disk-full": "no space is left on the manager's disk",
  "permission-denied": "the manager may not use its disk or device; its operator's log says more",
  "port-in-use": "the manager cannot do this now; its operator's log says more",
}

/** A refused machine's findings; the problems of a document in the same form, for both are lists for a person to go through. */
function findingsOf(error: unknown): { findings?: WireFinding[] } {
  if (error instanceof RefusedError) return { findings: [...error.findings] }
  if (!(error instanceof PolicyError)) return {}
  const findings = error.problems.slice(0, maxFindings).map(({ code, field, message, fix }): WireFinding => ({
    code,
    effect: "refusal",
    subject: truncateText(field, maxFindingText),
    found: truncateText(message, maxFindingText),
    expected: truncateText(fix, maxFindingText),
    advice: "",
  }))
  return { findings }
}

/** A machine was refused on its evidence: what was found and what was expected, all of it. */
export class RefusedError extends PerunError<string> {
  readonly findings: readonly WireFinding[]

  constructor(code: string, message: string, findings: readonly WireFinding[]) {
    super(code, message)
    this.findings = findings
  }
}

/** What the other side answered when it did not do what was asked. */
export class ProblemError extends PerunError<string> {
  readonly status: number
  readonly findings: readonly WireFinding[]
  /** Seconds after which the peer wants to be asked again, if it said so. */
  readonly retryAfterSeconds: number | undefined

  constructor(problem: Problem, retryAfterSeconds: number | undefined) {
    super(problem.code, problem.detail)
    this.status = problem.status
    this.findings = problem.findings ?? []
    this.retryAfterSeconds = retryAfterSeconds
  }
}
