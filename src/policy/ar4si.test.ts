import assert from "node:assert/strict"
import { test } from "node:test"
import { isNoBetterThan, tierOf, trustTiers, worstOfVector, worstTier } from "./ar4si.ts"

test("tierOf() cuts the range of a claim where AR4SI does", () => {
  const bounds = [
    [[-1, 0, 1], "none"],
    [[2, 31, -2, -32], "affirming"],
    [[32, 95, -33, -96], "warning"],
    [[96, 99, 127, -97, -128], "contraindicated"],
  ] as const
  for (const [values, tier] of bounds) for (const value of values) assert.equal(tierOf(value), tier, String(value))
})

test("worstTier() is the tier of least trust, and none only where nothing is claimed", () => {
  assert.equal(worstTier([]), "none")
  assert.equal(worstTier(["none", "affirming"]), "affirming")
  assert.equal(worstTier(["affirming", "contraindicated", "warning"]), "contraindicated")
  assert.equal(worstOfVector({ hardware: 2, executables: 33, configuration: 0 }), "warning")
})

test("isNoBetterThan() lets a status be worse than what it sums up, never better", () => {
  const allowed = {
    none: ["none", "warning", "contraindicated"],
    affirming: trustTiers,
    warning: ["warning", "contraindicated"],
    contraindicated: ["contraindicated"],
  } as const
  for (const worst of trustTiers)
    for (const status of trustTiers)
      assert.equal(isNoBetterThan(status, worst), (allowed[worst] as readonly string[]).includes(status), `${status} of ${worst}`)
})
