import assert from "node:assert/strict"
import { test } from "node:test"
import { faultsOf, findWrongArrows } from "./arrows.ts"

test("the arrows of the house hold", async () => {
  assert.deepEqual(await findWrongArrows(), [])
})

test("faultsOf() finds an upward import, static, dynamic and re-exported", () => {
  for (const text of [
    'import { x } from "../policy/x.ts"',
    'await import("../policy/x.ts")',
    'export { x } from "../policy/x.ts"',
    'import "../policy/x.ts"',
  ]) {
    assert.equal(faultsOf("src/evidence/y.ts", text).length, 1, text)
  }
  assert.deepEqual(faultsOf("src/policy/y.ts", 'import { x } from "../evidence/x.ts"'), [])
})

test("faultsOf() finds agent and manager meeting outside protocol", () => {
  assert.equal(faultsOf("src/agent/y.ts", 'import { x } from "../manager/x.ts"').length, 1)
})

test("faultsOf() lets only verify.ts make Genuine claims", () => {
  const text = "return Genuine.afterVerification(claims)"
  assert.equal(faultsOf("src/policy/appraise.ts", text).length, 1)
  assert.equal(faultsOf("src/evidence/tpm/format.ts", text).length, 1)
  assert.deepEqual(faultsOf("src/evidence/tpm/verify.ts", text), [])
  assert.deepEqual(faultsOf("src/policy/appraise.test.ts", text), [])
})

test("faultsOf() refuses a test helper in shipped code", () => {
  assert.equal(faultsOf("src/policy/y.ts", 'import { x } from "./x.testing.ts"').length, 1)
  assert.deepEqual(faultsOf("bench/y.ts", 'import { x } from "../src/policy/x.testing.ts"'), [])
})
