import assert from "node:assert/strict"
import { test } from "node:test"
import { signStatement } from "../pki/statement.ts"
import type { StatementSignature } from "../pki/statement.ts"
import type { Derivations } from "./derivation.ts"
import { derivationOfOutput, laboratoryRootsOfInputs, mergeDerivations, noDerivations, originsOfInputs, originsWithout } from "./derivation.ts"
import type { Job, Policy } from "./document.ts"
import { policyDigest } from "./document.ts"
import { derivation, keyText, keys, hostMachine, named, policy } from "./fixtures.testing.ts"
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
  const derivations = new Map([[named("records-a"), derivation({ origins: [{ name: "old", keys: [keyText("stranger"), keyText("manager")] }] })]])
  assert.deepEqual(problemsOf(["clinic-a"], derivations), ["origin-owner-not-signed"])
  assert.deepEqual(problemsOf(["clinic-a", "stranger"], derivations), [])
  assert.deepEqual(problemsOf(["clinic-a", "stranger"], derivations, { withdrawnKeys: new Set([keyText("manager")]) }), ["origin-owner-withdrawn"])
  assert.deepEqual(problemsOf(["clinic-a", "stranger"], derivations, { withdrawnKeys: new Set([keyText("vendor")]) }), [])
})

const train = policy.jobs["train"] as Job

test("artifactProblems() refuses what a laboratory made where a job that uses it does not accept the laboratory", () => {
  const derivations = new Map([[named("records-a"), derivation({ laboratoryRoots: [named("lab")] })]])
  assert.deepEqual(problemsOf(["clinic-a"], derivations), ["laboratory-not-accepted"])
  const machine = hostMachine(successor)
  const trials = { ...machine, tpm: { ...machine.tpm, laboratoryRoots: [named("lab")] } }
  const codesOf = (study: Policy): readonly string[] =>
    artifactProblems(study, "records-a", sign(study, ["clinic-a"]), derivations).map(({ code }) => code)
  assert.deepEqual(codesOf({ ...successor, machines: { "gpu-host": trials } }), [])
  const earnest = { ...train, machine: "earnest" }
  const both: Policy = { ...successor, machines: { "gpu-host": trials, earnest: machine }, jobs: { train, earnest } }
  assert.deepEqual(codesOf(both), ["laboratory-not-accepted"])
  const { "records-a": _, ...others } = train.inputs
  assert.deepEqual(codesOf({ ...both, jobs: { train, earnest: { ...earnest, inputs: others } } }), [])
})

test("derivationOfOutput() gives what is derived to the owners of all inputs that have not waived", () => {
  const made = derivationOfOutput(policy, train, ["vendor"], [], noDerivations)
  assert.deepEqual(made, {
    origins: [
      { name: "clinic-a", keys: [keyText("clinic-a")] },
      { name: "clinic-b", keys: [keyText("clinic-b")] },
    ],
    policies: [policyDigest(policy)],
    laboratoryRoots: [],
  })
  assert.deepEqual(
    derivationOfOutput(policy, train, [], [], noDerivations).origins.map(({ name }) => name),
    ["clinic-a", "clinic-b", "vendor"],
  )
})

test("derivationOfOutput() keeps the parties behind derived inputs, whatever is waived, and apart from others of their name", () => {
  const old = { name: "vendor", keys: [keyText("stranger")] }
  const derivations = new Map([
    [named("records-a"), derivation({ origins: [old] })],
    [named("records-b"), derivation({ origins: [old] })],
  ])
  assert.deepEqual(originsOfInputs(policy, train, derivations), [old])
  const { origins } = derivationOfOutput(policy, train, ["clinic-a", "clinic-b"], [], derivations)
  assert.deepEqual(origins, [{ name: "vendor", keys: [keyText("vendor")] }, old])
})

test("derivationOfOutput() carries on the policies and laboratories behind any input, and those of its own machine", () => {
  const derivations = new Map([
    [named("records-a"), derivation({ policies: [named("first")], laboratoryRoots: [named("lab")] })],
    [named("records-b"), derivation({ policies: [named("second"), named("first")] })],
  ])
  const made = derivationOfOutput(policy, train, [], [], derivations)
  assert.deepEqual(made.policies, [policyDigest(policy), named("first"), named("second")])
  assert.deepEqual(made.laboratoryRoots, [named("lab")])
  assert.deepEqual(laboratoryRootsOfInputs(policy, train, derivations), [named("lab")])
  assert.deepEqual(derivationOfOutput(policy, train, [], [named("here"), named("lab")], derivations).laboratoryRoots, [named("here"), named("lab")])
  assert.deepEqual(derivationOfOutput(policy, train, [], [named("here")], noDerivations).laboratoryRoots, [named("here")])
})

test("mergeDerivations() forgets nothing of either", () => {
  const [a, b] = [
    { name: "a", keys: ["ka"] },
    { name: "a", keys: ["kb"] },
  ]
  const one = { origins: [a], policies: [named("p"), named("q")], laboratoryRoots: [] }
  const other = { origins: [b, a], policies: [named("q"), named("r")], laboratoryRoots: [named("lab")] }
  assert.deepEqual(mergeDerivations(one, other), {
    origins: [a, b],
    policies: [named("p"), named("q"), named("r")],
    laboratoryRoots: [named("lab")],
  })
})

test("derivationOfOutput() records a party's keys in one order, so that one party is one origin", () => {
  const withKeys = (texts: readonly string[]): Policy => ({
    ...policy,
    stakeholders: { ...policy.stakeholders, vendor: { keys: texts, roles: ["code"] } },
  })
  const texts = [keyText("vendor"), keyText("stranger")]
  const waive = ["clinic-a", "clinic-b"]
  const [one] = derivationOfOutput(withKeys(texts), train, waive, [], noDerivations).origins
  const [other] = derivationOfOutput(withKeys(texts.toReversed()), train, waive, [], noDerivations).origins
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
