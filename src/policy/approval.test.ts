import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOfJson } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { signStatement } from "../pki/statement.ts"
import type { StatementSignature } from "../pki/statement.ts"
import { demandTerms, ownerHasSigned, releaseTerms, signingKeys, stakeholderOfKey, tallyApprovals, tallyRelease, votingOwners } from "./approval.ts"
import type { ReleaseVote } from "./approval.ts"
import { noDerivations } from "./derivation.ts"
import type { Job, Policy } from "./document.ts"
import { policyDigest } from "./document.ts"
import { derivation, keyText, keys, named, policy } from "./fixtures.testing.ts"
import type { Party } from "./fixtures.testing.ts"

const digest = policyDigest(policy)
const owners = ["clinic-a", "clinic-b", "vendor"] as const
const all = [...owners, "consortium"] as const

function approvals(names: readonly Party[], over: Digest = digest): readonly StatementSignature[] {
  return names.map((name) => signStatement("policy", over, keys[name]))
}

test("tallyApprovals() is satisfied by the signatures of all, in the policy's order", () => {
  const tally = tallyApprovals(policy, approvals(["consortium", "vendor", "clinic-b", "clinic-a"]))
  assert.deepEqual(tally, { satisfied: true, signed: [...all], missing: [], originsMissing: [], withdrawn: [], invalid: [] })
})

test("tallyApprovals() is not satisfied while one is missing, the first policy included", () => {
  for (const absent of all) {
    const tally = tallyApprovals(policy, approvals(all.filter((name) => name !== absent)))
    assert.equal(tally.satisfied, false, absent)
    assert.deepEqual(tally.missing, [absent])
  }
  assert.equal(tallyApprovals(policy, []).satisfied, false)
})

test("tallyApprovals() counts no signature over another digest, for another purpose, or by a stranger", () => {
  const other = policyDigest({ ...policy, purpose: "another" })
  const vote = signStatement("vote", digest, keys["clinic-b"])
  const tally = tallyApprovals(policy, [...approvals(["clinic-a"], other), vote, ...approvals(["stranger", "consortium"])])
  assert.deepEqual(tally.signed, ["consortium"])
  assert.deepEqual(
    tally.invalid.map(({ index, code }) => [index, code]),
    [
      [0, "wrong-signature"],
      [1, "wrong-signature"],
      [2, "unknown-signer"],
    ],
  )
  assert.equal(tally.invalid[2]?.key, keyText("stranger"))
})

test("tallyApprovals() goes on after a signature that cannot be read", () => {
  const broken: StatementSignature = { key: "ssh-ed25519 x", format: "ed25519", signature: "" }
  const tally = tallyApprovals(policy, [broken, ...approvals(all)])
  assert.equal(tally.satisfied, true)
  assert.equal(tally.invalid.length, 1)
})

test("tallyApprovals() does not take wrong use for a bad signature", () => {
  const nothing = { key: null as never, format: "ed25519", signature: "" } as const
  assert.throws(() => tallyApprovals(policy, [nothing]), TypeError)
})

test("tallyApprovals() counts a party once, however often and with however many keys it signs", () => {
  const doubled: Policy = {
    ...policy,
    stakeholders: {
      ...policy.stakeholders,
      vendor: { ...policy.stakeholders["vendor"], keys: [keyText("vendor"), keyText("stranger")], roles: ["code"] },
    },
    artifacts: { trainer: { kind: "code", owner: "vendor", manifest: named("trainer") } },
    approval: { atLeast: 2, of: ["vendor", "clinic-a", "clinic-b"] },
  }
  const signatures = approvals(["vendor", "vendor", "stranger"], policyDigest(doubled))
  const tally = tallyApprovals(doubled, signatures)
  assert.deepEqual(tally.signed, ["vendor"])
  assert.equal(tally.satisfied, false)
  assert.deepEqual(tally.missing, ["clinic-a", "clinic-b"])
  assert.equal(tallyApprovals(doubled, [...signatures, ...approvals(["clinic-b"], policyDigest(doubled))]).satisfied, true)
})

test("tallyApprovals() counts a key that two stakeholders state for neither", () => {
  const shared: Policy = {
    ...policy,
    stakeholders: { ...policy.stakeholders, "clinic-b": { keys: [keyText("clinic-a")], roles: ["data"] } },
  }
  const tally = tallyApprovals(shared, approvals(["clinic-a"], policyDigest(shared)))
  assert.deepEqual(tally.signed, [])
  assert.deepEqual(
    tally.invalid.map(({ code }) => code),
    ["ambiguous-signer"],
  )
})

test("tallyApprovals() lets no quorum replace the owner of an artifact", () => {
  const quorum: Policy = { ...policy, approval: { atLeast: 1, of: [...all] } }
  const tally = tallyApprovals(quorum, approvals(["clinic-a", "consortium"], policyDigest(quorum)))
  assert.equal(tally.satisfied, false)
  assert.deepEqual(tally.missing, ["clinic-b", "vendor"])
  assert.equal(tallyApprovals(quorum, approvals(owners, policyDigest(quorum))).satisfied, true)
})

test("tallyApprovals() ends for good when an owner withdraws; another's withdrawal only takes its signature away", () => {
  const withdrawn = tallyApprovals(policy, approvals(all), { withdrawn: new Set(["clinic-a"]) })
  assert.equal(withdrawn.satisfied, false)
  assert.deepEqual(withdrawn.withdrawn, ["clinic-a"])
  assert.deepEqual(withdrawn.signed, ["clinic-b", "vendor", "consortium"])
  assert.deepEqual(withdrawn.missing, [])
  const quorum: Policy = { ...policy, approval: { require: "all", of: [...owners] } }
  const signatures = approvals(all, policyDigest(quorum))
  assert.equal(tallyApprovals(quorum, signatures, { withdrawn: new Set(["consortium"]) }).satisfied, true)
  assert.equal(tallyApprovals(policy, approvals(all), { withdrawn: new Set(["consortium"]) }).satisfied, false)
})

test("tallyApprovals() heeds a veto by objection and by withdrawal", () => {
  const vetoed: Policy = { ...policy, approval: { veto: ["consortium"], of: { require: "all", of: [...owners] } } }
  const signatures = approvals(owners, policyDigest(vetoed))
  assert.equal(tallyApprovals(vetoed, signatures).satisfied, true)
  assert.equal(tallyApprovals(vetoed, signatures, { objected: new Set(["consortium"]) }).satisfied, false)
  assert.equal(tallyApprovals(vetoed, signatures, { withdrawn: new Set(["consortium"]) }).satisfied, false)
})

test("ownerHasSigned() asks for the owner's own signature over the exact digest", () => {
  assert.equal(ownerHasSigned(policy, "trainer", approvals(["vendor"])), true)
  assert.equal(ownerHasSigned(policy, "trainer", approvals(["clinic-a", "clinic-b", "consortium"])), false)
  assert.equal(ownerHasSigned(policy, "trainer", approvals(["vendor"], named("other"))), false)
  assert.equal(ownerHasSigned(policy, "trainer", approvals(["vendor"]), { withdrawn: new Set(["vendor"]) }), false)
  assert.equal(ownerHasSigned(policy, "trainer", approvals(["vendor"]), { withdrawn: new Set(["clinic-a"]) }), true)
  assert.equal(ownerHasSigned(policy, "nothing", approvals(all)), false)
})

test("stakeholderOfKey() knows a key that exactly one stakeholder states", () => {
  assert.equal(stakeholderOfKey(policy, keyText("vendor")), "vendor")
  assert.equal(stakeholderOfKey(policy, keyText("stranger")), undefined)
  const party = { keys: [keyText("vendor")], roles: ["auditor"] } as const
  assert.equal(stakeholderOfKey({ ...policy, stakeholders: { ...policy.stakeholders, other: party } }, keyText("vendor")), undefined)
})

test("signingKeys() has the keys that signed, stated or not, and no others", () => {
  const signatures = [...approvals(["vendor", "stranger"]), ...approvals(["clinic-a"], named("other"))]
  assert.deepEqual([...signingKeys("policy", digest, signatures)], [keyText("vendor"), keyText("stranger")])
})

const vote: ReleaseVote = {
  run: "run-1",
  job: "train",
  output: "model",
  ciphertext: named("sealed"),
  sizeBytes: 1000,
  policy: digest,
  evidence: named("evidence"),
  laboratory: false,
  vote: "release",
}

function tallyVotes(names: readonly Party[], outputName = "model", study: Policy = policy, against = {}): ReturnType<typeof tallyRelease> {
  const voteDigest = digestOfJson(vote)
  const signatures = names.map((name) => signStatement("vote", voteDigest, keys[name]))
  return tallyRelease(study, "train", outputName, { digest: voteDigest, signatures }, noDerivations, against)
}

function withModel(change: object): Policy {
  const job = policy.jobs["train"]
  const model = job?.outputs["model"]
  assert.ok(job !== undefined && model !== undefined)
  return { ...policy, jobs: { train: { ...job, outputs: { model: { ...model, ...change } } } } }
}

test("tallyRelease() asks for the vote of every owner that has not waived", () => {
  assert.equal(tallyVotes(["clinic-a", "clinic-b"]).satisfied, true)
  assert.deepEqual(tallyVotes(["clinic-a"]).missing, ["clinic-b"])
  assert.equal(tallyVotes(["clinic-a"]).satisfied, false)
  assert.equal(tallyVotes(["clinic-a", "vendor", "consortium"]).satisfied, false)
})

test("tallyRelease() takes an open require: all for the owners that vote", () => {
  assert.equal(tallyVotes(["clinic-a", "clinic-b", "vendor"], "logs").satisfied, true)
  assert.deepEqual(tallyVotes(["clinic-a", "clinic-b"], "logs").missing, ["vendor"])
})

test("tallyRelease() lets no expression replace an owner's vote", () => {
  const loose = withModel({ release: { atLeast: 1, of: ["clinic-a", "clinic-b"] } })
  assert.deepEqual(tallyVotes(["clinic-a"], "model", loose).missing, ["clinic-b"])
  assert.equal(tallyVotes(["clinic-a"], "model", loose).satisfied, false)
  const open = withModel({ release: "none" })
  assert.equal(tallyVotes([], "model", open).satisfied, false)
  assert.equal(tallyVotes([], "model", withModel({ release: "none", waive: [...owners] })).satisfied, true)
})

test("tallyRelease() asks for others too where the expression names them", () => {
  const wide = withModel({ release: { require: "all", of: ["clinic-a", "clinic-b", "consortium"] } })
  assert.deepEqual(tallyVotes(["clinic-a", "clinic-b"], "model", wide).missing, ["consortium"])
  assert.equal(tallyVotes(["clinic-a", "clinic-b"], "model", wide).satisfied, false)
})

test("tallyRelease() is locked by the withdrawal of any input's owner, also of one that has waived", () => {
  for (const name of owners)
    assert.equal(tallyVotes(["clinic-a", "clinic-b"], "model", policy, { withdrawn: new Set([name]) }).satisfied, false, name)
  assert.equal(tallyVotes(["clinic-a", "clinic-b"], "model", policy, { withdrawn: new Set(["consortium"]) }).satisfied, true)
})

test("tallyRelease() counts votes on exactly this output and no approvals of the policy", () => {
  const signatures = owners.map((name) => signStatement("vote", digestOfJson({ ...vote, run: "run-2" }), keys[name]))
  const tally = tallyRelease(policy, "train", "model", { digest: digestOfJson(vote), signatures }, noDerivations)
  assert.deepEqual([tally.satisfied, tally.signed], [false, []])
  const approving = owners.map((name) => signStatement("policy", digestOfJson(vote), keys[name]))
  assert.deepEqual(tallyRelease(policy, "train", "model", { digest: digestOfJson(vote), signatures: approving }, noDerivations).signed, [])
})

test("tallyRelease() asks the parties behind a derived input, by their keys", () => {
  const derivations = new Map([[named("records-a"), derivation({ origins: [{ name: "old-clinic", keys: [keyText("stranger")] }] })]])
  const voteDigest = digestOfJson(vote)
  const votes = (names: readonly Party[]): readonly StatementSignature[] => names.map((name) => signStatement("vote", voteDigest, keys[name]))
  const without = tallyRelease(policy, "train", "model", { digest: voteDigest, signatures: votes(["clinic-a", "clinic-b"]) }, derivations)
  assert.deepEqual([without.satisfied, without.originsMissing], [false, ["old-clinic"]])
  const withIt = tallyRelease(policy, "train", "model", { digest: voteDigest, signatures: votes(["clinic-a", "clinic-b", "stranger"]) }, derivations)
  assert.deepEqual([withIt.satisfied, withIt.originsMissing], [true, []])
})

test("demandTerms() throws for what the policy does not have", () => {
  assert.throws(() => demandTerms(policy, "train", "weights"), TypeError)
  assert.throws(() => demandTerms(policy, "serve", "model"), TypeError)
  assert.throws(() => tallyVotes([], "weights"), TypeError)
})

test("releaseTerms() and votingOwners() take the terms out of the job", () => {
  const job = policy.jobs["train"] as Job
  assert.equal(releaseTerms(job, "logs"), job.logs)
  assert.equal(releaseTerms({ ...job, logs: "none" }, "logs"), undefined)
  assert.equal(releaseTerms(job, "constructor"), undefined)
  assert.deepEqual(votingOwners(policy, job, { waive: ["vendor"] }), ["clinic-a", "clinic-b"])
  assert.deepEqual(votingOwners(policy, job, {}), [...owners])
})
