import assert from "node:assert/strict"
import { test } from "node:test"
import { signStatement } from "../pki/statement.ts"
import { checkPolicy } from "./check.ts"
import { diffPolicies } from "./diff.ts"
import { type Policy, policyDigest } from "./document.ts"
import { explainPolicy, explanationText } from "./explain.ts"
import { keys, keyText, named, type Party, policy } from "./fixtures.testing.ts"
import type { Proposal, Recovery } from "./recovery.ts"
import { judgeSuccession } from "./successors.ts"

const recovery: Recovery = { by: { atLeast: 2, of: ["clinic-b", "vendor", "consortium"] }, noticeSeconds: 604_800 }
const before = withParty(policy, "clinic-a", { recovery })
const after: Policy = {
  ...withParty(before, "clinic-a", { keys: [keyText("stranger")] }),
  supersedes: policyDigest(before),
  recovers: ["clinic-a"],
}
const since = new Date("2026-12-01T00:00:00Z")
const proposal: Proposal = { since, now: new Date("2026-12-08T00:00:00Z"), left: new Set() }

function withParty(document: Policy, name: string, change: Partial<Policy["stakeholders"][string]>): Policy {
  const party = document.stakeholders[name]
  assert.ok(party)
  return { ...document, stakeholders: { ...document.stakeholders, [name]: { ...party, ...change } } }
}

function problems(active: Policy, next: Policy, names: readonly Party[], given: Proposal | undefined = proposal): readonly string[] {
  const signatures = names.map((name) => signStatement("policy", policyDigest(next), keys[name]))
  const { problems: found, recovered } = judgeSuccession(next, active, signatures, {}, given)
  if (found.length === 0) assert.deepEqual(recovered, next.recovers ?? [])
  return found.map(({ code }) => code)
}

const everyone = ["stranger", "clinic-b", "vendor", "consortium"] as const

test("judgeSuccession() counts a recovered party by its new key, and only after the notice", () => {
  assert.deepEqual(problems(before, after, everyone), [])
  const early = { ...proposal, now: new Date("2026-12-07T23:59:59.999Z") }
  assert.deepEqual(problems(before, after, everyone, early), ["recovery-notice", "predecessor-approvals-missing"])
  const unknown = judgeSuccession(
    after,
    before,
    everyone.map((name) => signStatement("policy", policyDigest(after), keys[name])),
  )
  assert.deepEqual(
    unknown.problems.map(({ code }) => code),
    ["recovery-notice", "predecessor-approvals-missing"],
  )
})

test("judgeSuccession() recovers nobody in a policy that does not say so", () => {
  const { recovers: _, ...silent } = after
  assert.deepEqual(problems(before, silent, everyone), ["predecessor-approvals-missing"])
})

test("judgeSuccession() lets two recovered parties not vouch for each other", () => {
  const weak: Policy = { ...before, stakeholders: { ...before.stakeholders } }
  const [a, b] = [
    { by: { require: "all", of: ["clinic-b"] }, noticeSeconds: 3600 },
    { by: { require: "all", of: ["clinic-a"] }, noticeSeconds: 3600 },
  ] as const
  const both = withParty(withParty(weak, "clinic-a", { recovery: a }), "clinic-b", { recovery: b })
  const next: Policy = {
    ...withParty(withParty(both, "clinic-a", { keys: [keyText("stranger")] }), "clinic-b", { keys: [keyText("manager")] }),
    supersedes: policyDigest(both),
    recovers: ["clinic-a", "clinic-b"],
  }
  assert.deepEqual(problems(both, next, ["stranger", "manager", "vendor", "consortium"]), [
    "recovery-approvals-missing",
    "recovery-approvals-missing",
    "predecessor-approvals-missing",
  ])
})

const beside: readonly (readonly [string, Policy])[] = [
  ["another purpose", { ...after, purpose: "other" }],
  ["another time", { ...after, expires: "2029-01-01T00:00:00Z" }],
  ["another approval", { ...after, approval: { require: "any", of: ["vendor"] } }],
  ["another manager", { ...after, manager: { insecureUnattested: { key: keyText("stranger") } } }],
  ["another party's keys", withParty(after, "vendor", { keys: [keyText("manager")] })],
  ["another role of the party's", withParty(after, "clinic-a", { roles: ["data", "model"] })],
  ["another rule for the party's recovery", withParty(after, "clinic-a", { recovery: { ...recovery, noticeSeconds: 3600 } })],
  ["another party's artifact", { ...after, artifacts: { ...after.artifacts, trainer: { kind: "code", owner: "vendor", manifest: named("evil") } } }],
  ["another owner", { ...after, artifacts: { ...after.artifacts, trainer: { kind: "code", owner: "clinic-a", manifest: named("evil") } } }],
  ["one party less", { ...after, stakeholders: Object.fromEntries(Object.entries(after.stakeholders).filter(([name]) => name !== "consortium")) }],
  ["other jobs", { ...after, jobs: {} }],
]
for (const [what, next] of beside)
  test(`judgeSuccession() recovers nobody in a policy that also states ${what}`, () => {
    assert.ok(problems(before, next, everyone).includes("recovery-changes-more"))
  })

test("judgeSuccession() lets a recovered party state other recipients and manifests of its own artifacts", () => {
  const [own] = Object.entries(after.artifacts).flatMap(([name, artifact]) => (artifact.owner === "clinic-a" ? [name] : []))
  assert.ok(own !== undefined)
  const artifact = after.artifacts[own]
  assert.ok(artifact)
  assert.deepEqual(
    problems(before, { ...after, artifacts: { ...after.artifacts, [own]: { ...artifact, manifest: named("sealed again") } } }, everyone),
    [],
  )
})

test("checkPolicy() refuses a recovery by the party itself, by nobody, by strangers, and one without a predecessor", () => {
  const codesOf = (document: Policy): readonly string[] => checkPolicy(document).map(({ code }) => code)
  assert.deepEqual(codesOf(before), codesOf(policy))
  const by = (approval: Recovery["by"]): Policy => withParty(policy, "clinic-a", { recovery: { by: approval, noticeSeconds: 3600 } })
  assert.ok(codesOf(by({ require: "any", of: ["clinic-a", "vendor"] })).includes("wrong-value"))
  assert.ok(codesOf(by({ atLeast: 3, of: ["clinic-b", "vendor"] })).includes("never-satisfied"))
  assert.ok(codesOf(by({ require: "all", of: ["nobody"] })).includes("unknown-name"))
  assert.ok(codesOf({ ...policy, recovers: ["clinic-a"] }).includes("wrong-value"))
  assert.ok(codesOf({ ...after, recovers: ["nobody"] }).includes("unknown-name"))
  // Everybody means everybody else.
  assert.deepEqual(codesOf(by({ require: "all" })), codesOf(policy))
})

test("explainPolicy() and diffPolicies() say who may replace whose keys, and that it is done", () => {
  const words =
    "at least 2 of clinic-b, vendor, consortium may put other keys in the place of clinic-a's and so speak for it, 7 days after they proposed it"
  assert.ok(explanationText(explainPolicy(before)).includes(words))
  assert.ok(explanationText(explainPolicy(policy)).includes("nobody else may replace a party's keys"))
  assert.ok(explanationText(explainPolicy(after)).includes("this policy REPLACES the lost keys of clinic-a"))
  const lines = (a: Policy, b: Policy): string => diffPolicies(a, b).consequences.join("\n")
  assert.ok(lines(policy, before).includes(words))
  assert.ok(lines(before, policy).includes("nobody may replace the keys of clinic-a any more"))
  assert.ok(lines(before, after).includes("the keys of clinic-a are LOST and replaced by others' word"))
})
