import assert from "node:assert/strict"
import { test } from "node:test"
import fc from "fast-check"
import { encodeUtf8 } from "../bytes/text.ts"
import { bootFindings } from "./appraise-boot.ts"
import type { Approval, ApprovalMember } from "./document.ts"
import { parsePolicy } from "./parse.ts"
import { PolicyError } from "./errors.ts"
import { dispensable, isReached, namesMissing } from "./expression.ts"
import { bootEvent, bootReference, claims, hexOf, policy } from "./fixtures.testing.ts"
import { stringify } from "yaml"

const contents = fc.array(fc.constantFrom("a", "b", "c", "d"), { maxLength: 7 })

test("bootFindings() finds nothing exactly when a register's events are those of the reference", () => {
  fc.assert(
    fc.property(contents, contents, (found, expected) => {
      const reference = {
        ...bootReference,
        registers: bootReference.registers.map((register) =>
          register.pcr === 4
            ? { pcr: 4, events: expected.map((content) => ({ type: "EV_TEST", digests: [hexOf(content)], description: "" })) }
            : register,
        ),
      }
      const events = [...claims.boot.events.filter(({ pcr }) => pcr !== 4), ...found.map((content) => bootEvent(4, content))]
      const findings = bootFindings({ ...claims.boot, events }, reference)
      assert.equal(findings.length === 0, found.join() === expected.join())
      assert.ok(findings.length <= found.length + expected.length)
    }),
    { seed: 1, numRuns: 1000 },
  )
})

const parties = ["a", "b", "c"] as const
const { approval } = fc.letrec<{ approval: Approval; member: ApprovalMember }>((tie) => ({
  approval: fc.oneof(
    { maxDepth: 3 },
    fc.constant<Approval>({ require: "all" }),
    fc.record({ require: fc.constant("all" as const), of: fc.array(tie("member"), { minLength: 1, maxLength: 3 }) }),
    fc.record({ require: fc.constant("any" as const), of: fc.array(tie("member"), { minLength: 1, maxLength: 3 }) }),
    fc.record({ atLeast: fc.integer({ min: 1, max: 3 }), of: fc.array(tie("member"), { minLength: 1, maxLength: 4 }) }),
    fc.record({ veto: fc.array(fc.constantFrom(...parties), { minLength: 1, maxLength: 2 }), of: tie("approval") }),
  ),
  member: fc.oneof({ maxDepth: 3 }, fc.constantFrom(...parties), tie("approval")),
}))

const subsets = [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => new Set<string>(parties.filter((_, index) => (bits >> index) % 2 === 1)))
const everyone = [...parties]

test("isReached(): more signatures never undo an approval, and nobody's signature reaches none", () => {
  fc.assert(
    fc.property(approval, (expression) => {
      assert.equal(isReached(expression, { signed: new Set(), everyone }), false)
      for (const small of subsets)
        for (const large of subsets)
          if ([...small].every((name) => large.has(name)) && isReached(expression, { signed: small, everyone }))
            assert.ok(isReached(expression, { signed: large, everyone }))
    }),
    { seed: 2, numRuns: 500 },
  )
})

test("dispensable() names an owner exactly when some set of signatures without it is enough", () => {
  fc.assert(
    fc.property(approval, (expression) => {
      const without = parties.filter((owner) => subsets.some((signed) => !signed.has(owner) && isReached(expression, { signed, everyone })))
      assert.deepEqual(dispensable(expression, everyone, everyone), without)
    }),
    { seed: 3, numRuns: 500 },
  )
})

test("namesMissing() names nobody who has signed", () => {
  fc.assert(
    fc.property(approval, fc.constantFrom(...subsets), (expression, signed) => {
      assert.ok(namesMissing(expression, { signed, everyone }).every((name) => !signed.has(name)))
    }),
    { seed: 4, numRuns: 500 },
  )
})

test("parsePolicy() lets only its own error out, whatever it reads", () => {
  const good = [JSON.stringify(policy), stringify(policy)]
  const spoiled = fc
    .tuple(fc.constantFrom(...good), fc.nat(), fc.nat(20), fc.string({ unit: "binary", maxLength: 4 }))
    .map(([text, at, length, inserted]) => text.substring(0, at % text.length) + inserted + text.substring((at % text.length) + length))
  fc.assert(
    fc.property(
      fc.oneof(spoiled, fc.string({ unit: "grapheme", maxLength: 200 })),
      fc.constantFrom("json" as const, "yaml" as const),
      (text, format) => {
        try {
          parsePolicy(encodeUtf8(text), format)
        } catch (error) {
          assert.ok(error instanceof PolicyError, String(error))
          assert.ok(error.problems.length > 0)
          for (const { line, column } of error.problems) assert.ok(line >= 1 && column >= 1)
        }
      },
    ),
    { seed: 5, numRuns: 150 },
  )
})
