import assert from "node:assert/strict"
import { test } from "node:test"
import type { Approval } from "./document.ts"
import { approvalText, dispensable, isReachable, isReached, namesIn, namesMissing } from "./expression.ts"

const everyone = ["a", "b", "c"]

function reached(approval: Approval, signed: readonly string[], objected: readonly string[] = []): boolean {
  return isReached(approval, { signed: new Set(signed), everyone, objected: new Set(objected) })
}

function missing(approval: Approval, signed: readonly string[]): readonly string[] {
  return namesMissing(approval, { signed: new Set(signed), everyone })
}

test("isReached() takes require: all for everyone, or for those of `of`", () => {
  assert.equal(reached({ require: "all" }, ["a", "b", "c"]), true)
  assert.equal(reached({ require: "all" }, ["a", "b"]), false)
  assert.equal(reached({ require: "all", of: ["a", "b"] }, ["a", "b"]), true)
  assert.equal(reached({ require: "all", of: ["a", "b"] }, ["a", "c"]), false)
})

test("isReached() is never true where there is nobody to sign", () => {
  assert.equal(isReached({ require: "all" }, { signed: new Set(["a"]), everyone: [] }), false)
  assert.equal(reached({ require: "all", of: [] }, ["a"]), false)
  assert.equal(reached({ atLeast: 0, of: ["a"] }, []), false)
})

test("isReached() counts a threshold over members", () => {
  const two: Approval = { atLeast: 2, of: ["a", "b", "c"] }
  assert.equal(reached(two, ["a", "c"]), true)
  assert.equal(reached(two, ["a", "b", "c"]), true)
  assert.equal(reached(two, ["a"]), false)
  assert.equal(reached(two, ["x", "y"]), false)
})

test("isReached() counts equal members once", () => {
  assert.equal(reached({ atLeast: 2, of: ["a", "a", "b"] }, ["a"]), false)
  const nested: Approval = { require: "all", of: ["a", "b"] }
  assert.equal(reached({ atLeast: 2, of: [nested, nested, "c"] }, ["a", "b"]), false)
})

test("isReached() lets no party count twice by being nested", () => {
  assert.equal(reached({ atLeast: 2, of: ["a", { require: "all", of: ["a"] }] }, ["a"]), false)
  assert.equal(reached({ atLeast: 2, of: ["a", { atLeast: 1, of: ["a", "b"] }] }, ["a"]), false)
  assert.equal(reached({ atLeast: 2, of: ["a", { atLeast: 1, of: ["a", "b"] }] }, ["a", "b"]), true)
})

test("isReached() does not count parties that stand in members not reached", () => {
  const approval: Approval = { atLeast: 2, of: ["a", { require: "all", of: ["a"] }, { require: "all", of: ["b", "c"] }] }
  assert.equal(reached(approval, ["a", "b"]), false)
})

test("isReached() evaluates nested expressions", () => {
  const approval: Approval = { require: "all", of: ["a", { atLeast: 1, of: ["b", "c"] }] }
  assert.equal(reached(approval, ["a", "c"]), true)
  assert.equal(reached(approval, ["b", "c"]), false)
  assert.equal(reached(approval, ["a"]), false)
})

test("isReached() lets a veto stop what is otherwise reached, and only those named have it", () => {
  const approval: Approval = { veto: ["c"], of: { atLeast: 2, of: ["a", "b"] } }
  assert.equal(reached(approval, ["a", "b"]), true)
  assert.equal(reached(approval, ["a", "b"], ["c"]), false)
  assert.equal(reached(approval, ["a", "b"], ["x"]), true)
  assert.equal(reached(approval, ["a"]), false)
  assert.equal(isReached(approval, { signed: new Set(["a", "b"]), everyone }), true)
  const several: Approval = { veto: ["b", "c"], of: { require: "all", of: ["a"] } }
  assert.equal(reached(several, ["a"], ["c"]), false)
  assert.equal(reached(several, ["a"], ["b"]), false)
})

test("namesMissing() names whose signature could still help, each once, and nobody when it is reached", () => {
  assert.deepEqual(missing({ require: "all" }, ["b"]), ["a", "c"])
  assert.deepEqual(missing({ atLeast: 2, of: ["a", "b", "c"] }, ["b"]), ["a", "c"])
  assert.deepEqual(missing({ atLeast: 2, of: ["a", "b", "c"] }, ["b", "c"]), [])
  assert.deepEqual(missing({ require: "all", of: ["a", { atLeast: 1, of: ["b", "a"] }] }, []), ["a", "b"])
  assert.deepEqual(missing({ require: "all", of: ["a", { atLeast: 1, of: ["b", "c"] }] }, ["b"]), ["a"])
  assert.deepEqual(missing({ veto: ["c"], of: { require: "all", of: ["a", "b"] } }, ["a"]), ["b"])
})

test("namesIn() names everyone that an expression mentions, each once", () => {
  assert.deepEqual(namesIn({ require: "all" }, everyone), everyone)
  assert.deepEqual(namesIn({ veto: ["c"], of: { atLeast: 1, of: ["a", { require: "all", of: ["a", "b"] }] } }, everyone), ["c", "a", "b"])
})

test("dispensable() finds every owner whom others can do without", () => {
  assert.deepEqual(dispensable({ require: "all" }, ["a", "b"], everyone), [])
  assert.deepEqual(dispensable({ require: "all", of: ["a"] }, ["a", "b"], everyone), ["b"])
  assert.deepEqual(dispensable({ atLeast: 2, of: ["a", "b", "c"] }, ["a", "b"], everyone), ["a", "b"])
  assert.deepEqual(dispensable({ atLeast: 3, of: ["a", "b", "c"] }, ["a", "b"], everyone), [])
  assert.deepEqual(dispensable({ veto: ["a"], of: { require: "all", of: ["b"] } }, ["a"], everyone), ["a"])
})

test("isReachable() finds thresholds that nobody can reach", () => {
  assert.equal(isReachable({ atLeast: 2, of: ["a", "a"] }, everyone), false)
  assert.equal(isReachable({ atLeast: 2, of: ["a", "b"] }, everyone), true)
  assert.equal(isReachable({ require: "all" }, []), false)
  assert.equal(isReachable({ atLeast: 3, of: ["a", { require: "all", of: ["b", "c"] }] }, everyone), false)
})

test("approvalText() says an expression in words", () => {
  assert.equal(approvalText({ require: "all" }, everyone), "all of a, b, c")
  assert.equal(approvalText({ require: "all", of: ["a"] }, everyone), "a")
  assert.equal(
    approvalText({ veto: ["a", "c"], of: { atLeast: 1, of: ["a", { require: "all", of: ["b", "c"] }] } }, everyone),
    "at least 1 of a, (all of b, c), unless a or c objects",
  )
})
