import assert from "node:assert/strict"
import { test } from "node:test"
import { NetworkBudget, networkOf } from "./network-budget.ts"

test("networkOf() is an IPv4 address, also behind ::ffff:, or the /64 of an IPv6 address", () => {
  const same: readonly (readonly [string, string])[] = [
    ["192.0.2.1", "::ffff:192.0.2.1"],
    ["192.0.2.1", "::FFFF:192.0.2.1"],
    ["2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"],
    ["2001:db8::1", "2001:0DB8:0:0::2"],
    ["2001:db8::1", "2001:db8:0:0:1::"],
    ["::1", "::2"],
    ["fe80::1%eth0", "fe80::2%eth1"],
  ]
  for (const [one, other] of same) assert.equal(networkOf(one), networkOf(other), other)
  const apart: readonly (readonly [string, string])[] = [
    ["192.0.2.1", "192.0.2.2"],
    ["2001:db8:1:2::1", "2001:db8:1:3::1"],
    ["2001:db8::1", "2001:db8:0:1::1"],
    ["::ffff:192.0.2.1", "::ffff:192.0.2.2"],
  ]
  for (const [one, other] of apart) assert.notEqual(networkOf(one), networkOf(other), other)
  assert.equal(networkOf(undefined), "unknown")
})

test("NetworkBudget gives each network so many in a window, and again in the next", () => {
  let now = 0
  const budget = new NetworkBudget(() => now, { most: 2, windowMilliseconds: 1000 })
  budget.spend("2001:db8::1")
  budget.spend("2001:db8::2")
  assert.throws(() => budget.spend("2001:db8::3"), { code: "too-many-requests" })
  budget.spend("2001:db8:0:1::1")
  now = 999
  assert.throws(() => budget.spend("2001:db8::1"), { code: "too-many-requests" })
  now = 1000
  budget.spend("2001:db8::1")
  budget.spend("2001:db8::1")
  assert.throws(() => budget.spend("2001:db8::1"), { code: "too-many-requests" })
})

test("NetworkBudget remembers so many networks and no more: the one seen longest ago begins anew", () => {
  const budget = new NetworkBudget(() => 0, { most: 1, windowMilliseconds: 1000 })
  for (let count = 0; count <= 65_536; count++) budget.spend(`10.${count >> 16}.${(count >> 8) & 255}.${count & 255}`)
  budget.spend("10.0.0.0")
  assert.throws(() => budget.spend("10.0.0.2"), { code: "too-many-requests" })
})
