import assert from "node:assert/strict"
import { test } from "node:test"
import { signStatement } from "../pki/statement.ts"
import type { StatementSignature } from "../pki/statement.ts"
import type { Derivations } from "./derivation.ts"
import { noDerivations, originsOfDerived, originsOfInputs, originsWithout } from "./derivation.ts"
import type { Job, Policy } from "./document.ts"
import { policyDigest } from "./document.ts"
import { keys, keyText, named, policy } from "./fixtures.testing.ts"
import type { Party } from "./fixtures.testing.ts"
import { artifactProblems, judgeSuccession } from "./successors.ts"

const all = ["clinic-a", "clinic-b", "vendor", "consortium"] as const
const successor: Policy = { ...policy, purpose: "Train again.", supersedes: policyDigest(policy) }

function sign(document: Policy, names: readonly Party[]): readonly StatementSignature[] {
  return names.map((name) => signStatement("policy", policyDigest(document), keys[name]))
}

function codes(document: Policy, active: Policy | "none", signatures: readonly StatementSignature[]): readonly string[] {
  const { allowed, problems } = judgeSuccession(document, active, signatures)
  assert.equal(allowed, problems.length === 0)
  return problems.map(({ code }) => code)
}

test("judgeSuccession() lets a first policy and a successor in when all have signed", () => {
  assert.deepEqual(codes(policy, "none", sign(policy, all)), [])
  assert.deepEqual(codes(successor, policy, sign(successor, all)), [])
})

test("judgeSuccession() asks the first policy for signatures as much as any later one", () => {
  assert.deepEqual(codes(policy, "none", sign(policy, ["clinic-a", "clinic-b", "vendor"])), ["approvals-missing"])
  assert.deepEqual(codes(policy, "none", []), ["approvals-missing"])
})

test("judgeSuccession() refuses a policy that does not supersede exactly the active one", () => {
  assert.deepEqual(codes(policy, policy, sign(policy, all)), ["wrong-predecessor"])
  assert.deepEqual(codes(successor, "none", sign(successor, all)), ["wrong-predecessor"])
  const other = { ...successor, supersedes: named("other") }
  assert.deepEqual(codes(other, policy, sign(other, all)), ["wrong-predecessor"])
})

test("judgeSuccession() refuses a successor of another study", () => {
  const other = { ...successor, study: "another" }
  assert.deepEqual(codes(other, policy, sign(other, all)), ["other-study"])
})

test("judgeSuccession() lets nobody end a study over the heads of its parties", () => {
  const coup: Policy = {
    ...successor,
    stakeholders: { stranger: { keys: [keyText("stranger")], roles: ["data"] } },
    artifacts: { mine: { kind: "dataset", owner: "stranger", manifest: named("mine") } },
  }
  assert.deepEqual(codes(coup, policy, sign(coup, ["stranger"])), ["predecessor-approvals-missing"])
  assert.deepEqual(codes(coup, policy, sign(coup, ["stranger", ...all])), [])
})

test("judgeSuccession() does not take a key that a stranger lists as its own for a signature", () => {
  const squat: Policy = {
    ...successor,
    stakeholders: { stranger: { keys: [keyText("stranger"), ...all.map(keyText)], roles: ["data"] } },
    artifacts: { mine: { kind: "dataset", owner: "stranger", manifest: named("mine") } },
  }
  assert.deepEqual(codes(squat, policy, sign(squat, ["stranger"])), ["predecessor-approvals-missing"])
})

test("judgeSuccession() names the missing, and refuses where the predecessor's approval can never be reached", () => {
  const { problems } = judgeSuccession(successor, policy, sign(successor, ["clinic-a", "consortium"]))
  assert.deepEqual(problems, [
    { code: "approvals-missing", names: ["clinic-b", "vendor"] },
    { code: "predecessor-approvals-missing", names: ["clinic-b", "vendor"] },
  ])
  const stuck: Policy = { ...policy, approval: { atLeast: 3, of: ["clinic-a", "clinic-b"] } }
  const next: Policy = { ...successor, supersedes: policyDigest(stuck) }
  assert.deepEqual(codes(next, stuck, sign(next, all)), ["predecessor-approvals-missing"])
})

test("judgeSuccession() heeds withdrawals", () => {
  const { problems } = judgeSuccession(policy, "none", sign(policy, all), { withdrawn: new Set(["vendor"]) })
  assert.deepEqual(
    problems.map(({ code }) => code),
    ["approvals-missing"],
  )
})

function problemsOf(names: readonly Party[], derivations: Derivations = noDerivations, against = {}): readonly string[] {
  return artifactProblems(successor, "records-a", sign(successor, names), derivations, against).map(({ code }) => code)
}

test("artifactProblems() binds an artifact to its owner's own signature over the exact policy", () => {
  assert.deepEqual(problemsOf(["clinic-a"]), [])
  assert.deepEqual(problemsOf(["clinic-b", "vendor", "consortium"]), ["owner-not-signed"])
  assert.deepEqual(
    artifactProblems(successor, "records-a", sign(policy, all), noDerivations).map(({ code }) => code),
    ["owner-not-signed"],
  )
  assert.deepEqual(problemsOf(["clinic-a"], noDerivations, { withdrawn: new Set(["clinic-a"]) }), ["owner-withdrawn"])
  assert.deepEqual(
    artifactProblems(successor, "nothing", sign(successor, all), noDerivations).map(({ code }) => code),
    ["unknown-artifact"],
  )
})

test("artifactProblems() asks every party behind a derived artifact, by its keys", () => {
  const derivations = new Map([[named("records-a"), [{ name: "old", keys: [keyText("stranger"), keyText("manager")] }]]])
  assert.deepEqual(problemsOf(["clinic-a"], derivations), ["origin-owner-not-signed"])
  assert.deepEqual(problemsOf(["clinic-a", "stranger"], derivations), [])
  assert.deepEqual(problemsOf(["clinic-a", "stranger"], derivations, { withdrawnKeys: new Set([keyText("manager")]) }), ["origin-owner-withdrawn"])
  assert.deepEqual(problemsOf(["clinic-a", "stranger"], derivations, { withdrawnKeys: new Set([keyText("vendor")]) }), [])
})

const train = policy.jobs["train"] as Job

test("originsOfDerived() gives what is derived to the owners of all inputs that have not waived", () => {
  assert.deepEqual(originsOfDerived(policy, train, ["vendor"], noDerivations), [
    { name: "clinic-a", keys: [keyText("clinic-a")] },
    { name: "clinic-b", keys: [keyText("clinic-b")] },
  ])
  assert.deepEqual(
    originsOfDerived(policy, train, [], noDerivations).map(({ name }) => name),
    ["clinic-a", "clinic-b", "vendor"],
  )
})

test("originsOfDerived() keeps the parties behind derived inputs, whatever is waived, and apart from others of their name", () => {
  const old = { name: "vendor", keys: [keyText("stranger")] }
  const derivations = new Map([
    [named("records-a"), [old]],
    [named("records-b"), [old]],
  ])
  assert.deepEqual(originsOfInputs(policy, train, derivations), [old])
  const origins = originsOfDerived(policy, train, ["clinic-a", "clinic-b"], derivations)
  assert.deepEqual(origins, [{ name: "vendor", keys: [keyText("vendor")] }, old])
})

test("originsOfDerived() records a party's keys in one order, so that one party is one origin", () => {
  const withKeys = (texts: readonly string[]): Policy => ({
    ...policy,
    stakeholders: { ...policy.stakeholders, vendor: { keys: texts, roles: ["code"] } },
  })
  const texts = [keyText("vendor"), keyText("stranger")]
  const waive = ["clinic-a", "clinic-b"]
  const [one] = originsOfDerived(withKeys(texts), train, waive, noDerivations)
  const [other] = originsOfDerived(withKeys(texts.toReversed()), train, waive, noDerivations)
  assert.deepEqual(one, { name: "vendor", keys: texts.toSorted() })
  assert.deepEqual(other, one)
})

test("originsWithout() is content with any one key of each party", () => {
  const origins = [
    { name: "a", keys: ["1", "2"] },
    { name: "b", keys: ["3"] },
  ]
  assert.deepEqual(originsWithout(origins, new Set(["2", "3"])), [])
  assert.deepEqual(
    originsWithout(origins, new Set(["1"])).map(({ name }) => name),
    ["b"],
  )
})
