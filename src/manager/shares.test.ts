import assert from "node:assert/strict"
import { test } from "node:test"
import fc from "fast-check"
import { parseBase64 } from "../bytes/text.ts"
import { demandShare } from "../protocol/manager-lock.ts"
import { custodians } from "./custodians.testing.ts"
import { rebuild, shareOut } from "./shares.ts"
import { randomBytes } from "./state.ts"

const key = Uint8Array.from({ length: 32 }, (_, index) => index + 1)
const everybody = await custodians(...Array.from({ length: 16 }, (_, index) => `c${index}`))

async function shared(count: number, threshold: number): Promise<readonly Uint8Array[]> {
  const holders = everybody.slice(0, count)
  const { sealedShares } = await shareOut(key, holders, threshold, randomBytes)
  return Promise.all(holders.map(async ({ open }, index) => open(parseBase64(sealedShares[index] ?? "", "share"))))
}

test("shareOut() seals to each custodian its own share, which fits its commitment and nobody else's", async () => {
  const holders = everybody.slice(0, 3)
  const { shares, sealedShares } = await shareOut(key, holders, 2, randomBytes)
  for (const [index, { open, name, key: text, recipient }] of holders.entries()) {
    const place = shares.custodians[index]
    assert.ok(place !== undefined)
    assert.deepEqual([place.name, place.key, place.recipient], [name, text, recipient])
    const share = await open(parseBase64(sealedShares[index] ?? "", "share"))
    demandShare(shares.set, place, share)
    for (const other of shares.custodians.filter((of) => of !== place))
      assert.throws(() => demandShare(shares.set, other, share), { code: "wrong-share" })
    await assert.rejects(open(parseBase64(sealedShares[(index + 1) % 3] ?? "", "share")))
  }
  const again = await shareOut(key, holders, 2, randomBytes)
  assert.notEqual(again.shares.set, shares.set)
})

test("rebuild() gives the key back from any of the shares that reach the threshold, and from no fewer", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 2, max: 16 }), fc.nat(), fc.nat(), async (count, by, seed) => {
      const threshold = 2 + (by % (count - 1))
      const shares = await shared(count, threshold)
      const chosen = shares.toSorted((a, b) => (((a[0] ?? 0) * 31 + seed) % 17) - (((b[0] ?? 0) * 31 + seed) % 17))
      assert.deepEqual(await rebuild(chosen.slice(0, threshold)), key)
      if (threshold > 2) assert.notDeepEqual(await rebuild(chosen.slice(0, threshold - 1)), key)
    }),
    { numRuns: 12 },
  )
})

test("rebuild() refuses the same share twice, and shares of different sets give no key", async () => {
  const [first = key, second = key] = await shared(2, 2)
  await assert.rejects(rebuild([first, first]), { code: "store-changed" })
  const [, other = key] = await shared(2, 2)
  if (other[32] !== first[32]) assert.notDeepEqual(await rebuild([first, other]), key)
  assert.deepEqual(await rebuild([second, first]), key)
})

test("shareOut() refuses one custodian, too many, a threshold of one or out of reach, and a custodian twice", async () => {
  const out = async (holders: typeof everybody, threshold: number): Promise<unknown> => shareOut(key, holders, threshold, randomBytes)
  const [a, b] = everybody
  assert.ok(a !== undefined && b !== undefined)
  const many = [...everybody, ...(await custodians("more"))]
  for (const [holders, threshold] of [
    [[a], 2],
    [many, 2],
    [[a, b], 1],
    [[a, b], 0],
    [[a, b], 3],
    [[a, b], 1.5],
  ] as const)
    await assert.rejects(out(holders, threshold), { code: "malformed" }, `${threshold} of ${holders.length}`)
  for (const part of ["name", "key", "recipient"] as const) await assert.rejects(out([a, { ...b, [part]: a[part] }], 2), { code: "duplicate" })
  await assert.rejects(out([a, { ...b, recipient: "age1nothing" }], 2), { code: "malformed" })
})
