import assert from "node:assert/strict"
import { test } from "node:test"
import { signStatement } from "../pki/statement.ts"
import { type Policy, policyDigest } from "../policy/document.ts"
import { keys, keyText, named, policy } from "../policy/fixtures.testing.ts"
import { type CheckFindings, signCheckReport } from "../protocol/check-report.ts"
import { reportsOfPolicy } from "./reports.ts"

const checked: Policy = { ...policy, stakeholders: { ...policy.stakeholders, lint: { keys: [keyText("stranger")], roles: ["checker"] } } }
const digest = policyDigest(checked)
const findings: CheckFindings = {
  program: { name: "lint", version: "1", digest: named("program") },
  checks: [{ check: "good", result: "passed", of: digest }],
}
const document = JSON.parse(JSON.stringify(checked)) as Parameters<typeof reportsOfPolicy>[0]["policy"]

function viewWith(report: ReturnType<typeof signCheckReport>): Parameters<typeof reportsOfPolicy>[0] {
  const approval = { stakeholder: "lint", signature: signStatement("policy", digest, keys.stranger), at: "2026-11-26T00:00:00Z" }
  return { policy: document, approvals: [approval, { ...approval, report }] }
}

test("reportsOfPolicy() gives what a checker itself signed about this policy, and believes no manager for anything else", () => {
  const report = signCheckReport(findings, digest, keys.stranger)
  assert.deepEqual(reportsOfPolicy(viewWith(report), digest), [{ by: "lint", report }])
  assert.throws(() => reportsOfPolicy(viewWith(signCheckReport(findings, digest, keys.vendor)), digest), { code: "wrong-check" })
  assert.throws(() => reportsOfPolicy(viewWith(signCheckReport(findings, named("other"), keys.stranger)), digest), { code: "wrong-check" })
  assert.throws(() => reportsOfPolicy(viewWith(report), named("other")), { code: "wrong-digest" })
})
