import type { KeyObject } from "node:crypto"
import { z } from "zod"
import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { signStatement, statementSignatureSchema, verifyStatement } from "../pki/statement.ts"
import { own, type Policy } from "../policy/document.ts"
import { ProtocolError } from "./errors.ts"
import { digestSchema } from "./wire.ts"

/** Most checks that one report lists; who has more writes their sum. */
export const maxChecks = 64
/** One printable line, as people and terminals are shown it. */
const line = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[^\p{C}\p{Zl}\p{Zp}]*$/u, "expected one line of visible text")

/** What a program writes about what it checked; whoever signs for it adds what the report is about. */
export const checkFindingsSchema = z.strictObject({
  /** Which program judged; `digest` is of what was executed. */
  program: z.strictObject({ name: line, version: line, digest: digestSchema }),
  checks: z
    .array(
      z.strictObject({
        check: line,
        result: z.enum(["passed", "failed"]),
        /** Digest of what was looked at. */
        of: digestSchema,
      }),
    )
    .min(1)
    .max(maxChecks),
})
export type CheckFindings = z.output<typeof checkFindingsSchema>

/** What a checker says it has checked: about one policy, or about the vote on one output. The signature is of purpose `check`, over its digest. */
export const checkReportSchema = checkFindingsSchema.extend({
  perun: z.literal(1),
  /** Digest that the checker's signature, of purpose `policy` or `vote`, is over. */
  subject: digestSchema,
})
export const signedCheckReportSchema = z.strictObject({ report: checkReportSchema, signature: statementSignatureSchema })
export type SignedCheckReport = z.output<typeof signedCheckReportSchema>

export function signCheckReport(findings: CheckFindings, subject: Digest, privateKey: KeyObject): SignedCheckReport {
  const report = { perun: 1 as const, subject, ...findings }
  return { report, signature: signStatement("check", digestOfJson(report), privateKey) }
}

/** Whether a stakeholder is a program, whose signature counts only with a report. */
export function isChecker(policy: Policy, stakeholder: string): boolean {
  return own(policy.stakeholders, stakeholder)?.roles.includes("checker") === true
}

/**
 * Takes a signature of a stakeholder with what came beside it: of a checker a report, of anybody else none. A check that failed is no consent.
 * @throws {ProtocolError} `check-missing`, `wrong-check`; {PkiError} for a signature that does not verify
 */
export function demandReport(policy: Policy, stakeholder: string, subject: Digest, signed: SignedCheckReport | undefined): void {
  if (!isChecker(policy, stakeholder)) {
    if (signed !== undefined) throw new ProtocolError("wrong-check", `${stakeholder} is no checker, and reports none`, { path: "report" })
    return
  }
  if (signed === undefined) throw new ProtocolError("check-missing", `${stakeholder} is a checker: its signature comes with a report of its checks`)
  verifyCheckReport(policy, stakeholder, subject, signed)
}

/** @throws {ProtocolError} `wrong-check`; {PkiError} for a signature that does not verify */
export function verifyCheckReport(policy: Policy, stakeholder: string, subject: Digest, { report, signature }: SignedCheckReport): void {
  const key = verifyStatement("check", digestOfJson(report), signature)
  if (own(policy.stakeholders, stakeholder)?.keys.includes(key) !== true)
    throw new ProtocolError("wrong-check", `the report is not signed by a key of ${stakeholder}`, { path: "report.signature" })
  if (report.subject !== subject)
    throw new ProtocolError("wrong-check", `the report is about ${report.subject}, not about ${subject}`, { path: "report.subject" })
  const failed = report.checks.filter(({ result }) => result === "failed")
  if (failed.length > 0)
    throw new ProtocolError("wrong-check", `a check failed, which is no consent: ${failed.map(({ check }) => check).join("; ")}`, {
      path: "report.checks",
    })
}
