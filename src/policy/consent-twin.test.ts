import assert from "node:assert/strict"
import { test } from "node:test"
import fc from "fast-check"
import type { Digest } from "../bytes/digest.ts"
import { canonicalJson } from "../bytes/json.ts"
import { signStatement, type StatementSignature } from "../pki/statement.ts"
import { ownerHasSigned, tallyApprovals, tallyRelease } from "./approval.ts"
import { type Derivations, noDerivations } from "./derivation.ts"
import type { Approval, ApprovalMember, Policy } from "./document.ts"
import { policyDigest } from "./document.ts"
import { isReached, namesMissing } from "./expression.ts"
import { keyText, keys, named, type Party, policy } from "./fixtures.testing.ts"
import { artifactProblems, judgeSuccession } from "./successors.ts"

/**
 * The approval language against a second implementation that is made to be obvious: it has no algorithm, but tries every choice there is. Small numbers of
 * parties and members make that possible; the first implementation must agree on all of them.
 */

const parties = ["clinic-a", "clinic-b", "vendor", "consortium"] as const
const owners = ["clinic-a", "clinic-b", "vendor"] as const

/** Every party that can speak for a member, none where it is not reached. */
function twinSpeakers(
  member: ApprovalMember,
  signed: readonly string[],
  objected: readonly string[],
  everyone: readonly string[],
): readonly string[] {
  if (typeof member === "string") return signed.includes(member) ? [member] : []
  if ("veto" in member) return member.veto.some((name) => objected.includes(name)) ? [] : twinSpeakers(member.of, signed, objected, everyone)
  const different = (member.of ?? everyone).filter(
    (one, index, all) => all.findIndex((other) => canonicalJson(other) === canonicalJson(one)) === index,
  )
  const speakers = different.map((one) => twinSpeakers(one, signed, objected, everyone))
  const union = [...new Set(speakers.flat())]
  if ("atLeast" in member) return choices(speakers).some((chosen) => chosen.length >= member.atLeast) ? union : []
  if (member.require === "any") return union
  return speakers.every((list) => list.length > 0) ? union : []
}

/** Every way to let members speak, each by a party of its own, or be left out. */
function choices(speakers: readonly (readonly string[])[], taken: readonly string[] = []): readonly (readonly string[])[] {
  const [first, ...rest] = speakers
  if (first === undefined) return [taken]
  const without = choices(rest, taken)
  return [...without, ...first.filter((party) => !taken.includes(party)).flatMap((party) => choices(rest, [...taken, party]))]
}

function twinReached(approval: Approval, signed: readonly string[], objected: readonly string[], everyone: readonly string[]): boolean {
  return twinSpeakers(approval, signed, objected, everyone).length > 0
}

const { approval } = fc.letrec<{ approval: Approval; member: ApprovalMember }>((tie) => {
  const members = fc.array(tie("member"), { minLength: 1, maxLength: 4 })
  return {
    approval: fc.oneof(
      { maxDepth: 3, depthSize: "small" },
      fc.constant<Approval>({ require: "all" }),
      fc.record({ require: fc.constant("all" as const), of: members }),
      fc.record({ require: fc.constant("any" as const), of: members }),
      fc.record({ atLeast: fc.integer({ min: 1, max: 4 }), of: members }),
      fc.record({ veto: fc.uniqueArray(fc.constantFrom(...parties), { minLength: 1, maxLength: 2 }), of: tie("approval") }),
    ),
    member: fc.oneof({ maxDepth: 3, depthSize: "small" }, fc.constantFrom(...parties), tie("approval")),
  }
})

const subsets: readonly (readonly Party[])[] = Array.from({ length: 16 }, (_, bits) => parties.filter((_, index) => (bits >> index) % 2 === 1))
const subset = fc.constantFrom(...subsets)

function voicesOf(signed: readonly string[], objected: readonly string[]): Parameters<typeof isReached>[1] {
  return { signed: new Set(signed), objected: new Set(objected), everyone: parties }
}

test("isReached() agrees with its twin on every set of signatures and objections", () => {
  fc.assert(
    fc.property(approval, (expression) => {
      for (const signed of subsets)
        for (const objected of subsets)
          assert.equal(isReached(expression, voicesOf(signed, objected)), twinReached(expression, signed, objected, parties))
    }),
    { seed: 11, numRuns: 1500 },
  )
})

test("isReached() finds the speakers of a threshold that only another assignment frees", () => {
  const threshold: Approval = {
    atLeast: 3,
    of: [{ require: "any", of: ["clinic-a", "clinic-b"] }, "clinic-a", { require: "any", of: ["clinic-b", "vendor"] }],
  }
  assert.equal(isReached(threshold, voicesOf(["clinic-a", "clinic-b"], [])), false)
  assert.equal(isReached(threshold, voicesOf(["clinic-a", "clinic-b", "vendor"], [])), true)
})

test("isReached() lets no party count twice in a threshold, however many stand behind another member", () => {
  const threshold: Approval = { atLeast: 3, of: ["clinic-a", { require: "all", of: ["clinic-a"] }, { require: "all", of: ["clinic-b", "vendor"] }] }
  assert.equal(isReached(threshold, voicesOf(parties, [])), false)
})

test("isReached() lets no one who may only object speak for a member", () => {
  const threshold: Approval = { atLeast: 2, of: ["clinic-a", { veto: ["vendor"], of: { require: "all", of: ["clinic-a"] } }] }
  assert.equal(isReached(threshold, voicesOf(["clinic-a", "vendor"], [])), false)
})

test("isReached(): more objections never bring an approval about", () => {
  fc.assert(
    fc.property(approval, subset, subset, subset, (expression, signed, objected, more) => {
      if (isReached(expression, voicesOf(signed, [...objected, ...more]))) assert.ok(isReached(expression, voicesOf(signed, objected)))
    }),
    { seed: 12, numRuns: 2000 },
  )
})

test("namesMissing(): whoever asks those named, and asks again, reaches what can be reached at all", () => {
  fc.assert(
    fc.property(approval, subset, subset, (expression, start, objected) => {
      const isPossible = twinReached(expression, parties, objected, parties)
      let signed: readonly string[] = start
      while (!isReached(expression, voicesOf(signed, objected))) {
        const missing = namesMissing(expression, voicesOf(signed, objected))
        assert.ok(missing.every((name) => !signed.includes(name)))
        if (missing.length === 0) break
        signed = [...signed, ...missing]
      }
      assert.equal(isReached(expression, voicesOf(signed, objected)), isPossible)
    }),
    { seed: 13, numRuns: 3000 },
  )
})

test("namesMissing() names everyone whose next signature alone would be enough, and nobody where an objection stands for good", () => {
  fc.assert(
    fc.property(approval, subset, subset, (expression, signed, objected) => {
      const missing = namesMissing(expression, voicesOf(signed, objected))
      const isDone = twinReached(expression, signed, objected, parties)
      const enough = parties.filter((name) => !isDone && twinReached(expression, [...signed, name], objected, parties))
      assert.deepEqual(
        enough.filter((name) => !missing.includes(name)),
        [],
      )
    }),
    { seed: 14, numRuns: 3000 },
  )
  assert.deepEqual(namesMissing({ veto: ["vendor"], of: { require: "all" } }, voicesOf([], ["vendor"])), [])
})

function signAll(purpose: "policy" | "vote", digest: Digest, names: readonly Party[]): readonly StatementSignature[] {
  return names.map((name) => signStatement(purpose, digest, keys[name]))
}

test("rules (a), (b), (c), (h): a policy is approved exactly when its expression is reached, each owner has itself signed, and none has withdrawn", () => {
  fc.assert(
    fc.property(approval, subset, subset, subset, (expression, signed, withdrawn, objected) => {
      const contract: Policy = { ...policy, approval: expression }
      const against = { withdrawn: new Set(withdrawn), objected: new Set(objected) }
      const signatures = signAll("policy", policyDigest(contract), signed)
      const standing = signed.filter((name) => !withdrawn.includes(name))
      const expected =
        twinReached(expression, standing, [...objected, ...withdrawn], parties) &&
        owners.every((owner) => standing.includes(owner)) &&
        owners.every((owner) => !withdrawn.includes(owner))
      const tally = tallyApprovals(contract, signatures, against)
      assert.equal(tally.satisfied, expected)
      assert.equal(judgeSuccession(contract, "none", signatures, against).allowed, expected)
      for (const [artifact, { owner }] of Object.entries(contract.artifacts))
        assert.equal(ownerHasSigned(contract, artifact, signatures, against), standing.includes(owner as Party))
      // Of another digest nothing counts, whoever signed it.
      const other = signAll("policy", policyDigest({ ...contract, purpose: "Another." }), parties)
      assert.deepEqual(tallyApprovals(contract, other).signed, [])
    }),
    { seed: 15, numRuns: 120 },
  )
})

test("rule (f): what a job made leaves exactly when its expression is reached and every owner behind it, unless waived, has voted and stands", () => {
  const vote = named("vote")
  const { train } = policy.jobs
  assert.ok(train?.outputs["model"])
  const { model } = train.outputs
  const made: Derivations = new Map([
    [named("records-a"), { origins: [{ name: "elsewhere", keys: [keyText("consortium")] }], policies: [], laboratoryRoots: [] }],
  ])
  fc.assert(
    fc.property(
      fc.option(approval, { nil: "none" as const }),
      fc.subarray([...owners]),
      subset,
      subset,
      fc.boolean(),
      (release, waive, voted, withdrawn, isDerived) => {
        const contract: Policy = {
          ...policy,
          artifacts: { ...policy.artifacts, "records-a": { kind: "dataset", owner: "clinic-a", manifest: named("records-a") } },
          jobs: { train: { ...train, outputs: { model: { ...model, release, waive } } } },
        }
        const votes = { digest: vote, signatures: signAll("vote", vote, voted) }
        const standing = voted.filter((name) => !withdrawn.includes(name))
        const voting = owners.filter((owner) => !waive.includes(owner))
        const expected =
          (release === "none" || twinReached(release, standing, withdrawn, voting)) &&
          voting.every((owner) => standing.includes(owner)) &&
          owners.every((owner) => !withdrawn.includes(owner)) &&
          (!isDerived || standing.includes("consortium"))
        const derivations = isDerived ? made : noDerivations
        assert.equal(tallyRelease(contract, "train", "model", votes, derivations, { withdrawn: new Set(withdrawn) }).satisfied, expected)
      },
    ),
    { seed: 16, numRuns: 150 },
  )
})

test("predecessor: a successor takes its place exactly when both expressions are reached by signatures that were not taken back", () => {
  fc.assert(
    fc.property(approval, approval, subset, subset, (before, after, signed, withdrawn) => {
      const predecessor: Policy = { ...policy, approval: before }
      const successor: Policy = { ...policy, approval: after, supersedes: policyDigest(predecessor) }
      const signatures = signAll("policy", policyDigest(successor), signed)
      const standing = signed.filter((name) => !withdrawn.includes(name))
      const expected =
        twinReached(before, standing, withdrawn, parties) &&
        twinReached(after, standing, withdrawn, parties) &&
        owners.every((owner) => standing.includes(owner) && !withdrawn.includes(owner))
      assert.equal(judgeSuccession(successor, predecessor, signatures, { withdrawn: new Set(withdrawn) }).allowed, expected)
    }),
    { seed: 17, numRuns: 120 },
  )
})

test("artifactProblems() lets nobody behind a derived artifact count whose consent to this policy was taken back", () => {
  const made: Derivations = new Map([
    [named("records-a"), { origins: [{ name: "elsewhere", keys: [keyText("consortium")] }], policies: [], laboratoryRoots: [] }],
  ])
  const contract: Policy = {
    ...policy,
    artifacts: { ...policy.artifacts, "records-a": { kind: "dataset", owner: "clinic-a", manifest: named("records-a") } },
  }
  const signatures = signAll("policy", policyDigest(contract), parties)
  assert.deepEqual(artifactProblems(contract, "records-a", signatures, made), [])
  const [problem] = artifactProblems(contract, "records-a", signatures, made, { withdrawn: new Set(["consortium"]) })
  assert.deepEqual(problem, { code: "origin-owner-withdrawn", names: ["elsewhere"] })
})

test("predecessor: a party that the predecessor needs, and that took its signature under the successor back, has neither agreed nor kept silent", () => {
  const after: Approval = { require: "all", of: [...owners] }
  const allowed = (before: Approval, withdrawn: readonly Party[]): boolean => {
    const predecessor: Policy = { ...policy, approval: before }
    const successor: Policy = { ...policy, approval: after, supersedes: policyDigest(predecessor) }
    const signatures = signAll("policy", policyDigest(successor), parties)
    return judgeSuccession(successor, predecessor, signatures, { withdrawn: new Set(withdrawn) }).allowed
  }
  for (const before of [{ require: "all" }, { veto: ["consortium"], of: after }] satisfies readonly Approval[]) {
    assert.equal(allowed(before, []), true)
    assert.equal(allowed(before, ["consortium"]), false)
  }
})
