import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import { test } from "node:test"
import fc from "fast-check"
import { concatBytes } from "../bytes/compare.ts"
import { encodeHex, encodeUtf8, parseHex } from "../bytes/text.ts"
import {
  CompactRange,
  consistencyProof,
  emptyRoot,
  type HashReader,
  inclusionProof,
  leafHash,
  nodeHash,
  rangeOf,
  verifyConsistency,
  verifyInclusion,
} from "./merkle.ts"

// --- a twin by the definitions of RFC 9162, 2.1: leaves as bytes, recursion, no subtree is ever remembered ----------------------------------------

const sha = (...parts: readonly Uint8Array[]): Uint8Array =>
  new Uint8Array(
    createHash("sha256")
      .update(concatBytes(...parts))
      .digest(),
  )
const split = (n: number): number => 2 ** Math.floor(Math.log2(n - 1))

function mth(d: readonly Uint8Array[]): Uint8Array {
  const [only] = d
  if (only === undefined) return sha()
  if (d.length === 1) return sha(Uint8Array.of(0), only)
  const k = split(d.length)
  return sha(Uint8Array.of(1), mth(d.slice(0, k)), mth(d.slice(k)))
}
function path(m: number, d: readonly Uint8Array[]): Uint8Array[] {
  if (d.length === 1) return []
  const k = split(d.length)
  return m < k ? [...path(m, d.slice(0, k)), mth(d.slice(k))] : [...path(m - k, d.slice(k)), mth(d.slice(0, k))]
}
function subproof(m: number, d: readonly Uint8Array[], b: boolean): Uint8Array[] {
  if (m === d.length) return b ? [] : [mth(d)]
  const k = split(d.length)
  return m <= k ? [...subproof(m, d.slice(0, k), b), mth(d.slice(k))] : [...subproof(m - k, d.slice(k), false), mth(d.slice(0, k))]
}

const leaves = Array.from({ length: 130 }, (_, index) => encodeUtf8(`leaf ${index}`))
/** Reads whole subtrees of the leaves alone. */
const reader: HashReader = (height, index) => {
  const width = 2 ** height
  const part = leaves.slice(index * width, (index + 1) * width)
  assert.equal(part.length, width, "only whole subtrees may be read")
  return mth(part)
}
const roots = Array.from({ length: leaves.length + 1 }, (_, size) => mth(leaves.slice(0, size)))
const rootOf = (size: number): Uint8Array => roots[size] ?? emptyRoot
const hex = (proof: readonly Uint8Array[]): readonly string[] => proof.map(encodeHex)

test("roots, leaves and nodes are those of RFC 9162's tree of seven leaves", () => {
  // Inputs and roots of the reference tests of Certificate Transparency (google/certificate-transparency, merkletree/merkle_tree_test.cc).
  const inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"].map((text) => parseHex(text))
  const expected = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
  ]
  const range = CompactRange.empty()
  const found = inputs.map((input) => {
    range.append(leafHash(input))
    return encodeHex(range.root())
  })
  assert.deepEqual(found, expected)
  assert.equal(encodeHex(emptyRoot), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
})

test("CompactRange grows to the root of the definition, and tells of each whole subtree once, at its place", () => {
  const range = CompactRange.empty()
  assert.deepEqual(range.root(), emptyRoot)
  for (const [size, leaf] of leaves.entries()) {
    range.append(leafHash(leaf), (height, index, hash) => {
      assert.deepEqual(hash, reader(height, index))
      assert.equal((index + 1) * 2 ** height, size + 1, "the leaf just added is its last")
    })
    assert.equal(encodeHex(range.root()), encodeHex(rootOf(size + 1)))
    assert.deepEqual(hex(rangeOf(size + 1, reader).hashes), hex(range.hashes))
    assert.deepEqual(CompactRange.of(range.size, range.hashes).root(), range.root())
  }
})

test("CompactRange.of() refuses hashes that are not those of a tree of that size", () => {
  const { hashes } = rangeOf(7, reader)
  for (const [size, given] of [
    [7, hashes.slice(1)],
    [8, hashes],
    [-1, []],
    [0.5, []],
    [2 ** 53, [emptyRoot]],
    [1, [new Uint8Array(31)]],
  ] as const)
    assert.throws(() => CompactRange.of(size, given), { code: "wrong-proof" })
})

test("inclusion proofs are those of the definition and verify, for every leaf of every tree up to 70", () => {
  for (let size = 1; size <= 70; size++)
    for (let index = 0; index < size; index++) {
      const proof = inclusionProof(index, size, reader)
      assert.deepEqual(hex(proof), hex(path(index, leaves.slice(0, size))))
      verifyInclusion({ index, size, leaf: leafHash(leaves[index] ?? leafHash(emptyRoot)), proof, root: rootOf(size) })
    }
})

test("consistency proofs are those of the definition and verify, for every pair of trees up to 70", () => {
  for (let size = 0; size <= 70; size++)
    for (let older = 0; older <= size; older++) {
      const proof = consistencyProof(older, size, reader)
      const expected = older === 0 || older === size ? [] : subproof(older, leaves.slice(0, size), true)
      assert.deepEqual(hex(proof), hex(expected))
      verifyConsistency({ size: older, root: rootOf(older) }, { size, root: rootOf(size) }, proof)
    }
})

const anySize = fc.integer({ min: 1, max: leaves.length })

test("an inclusion proof of another leaf, place, size or root, with a bit or a hash more or less, is refused", () => {
  const cases = fc
    .tuple(anySize, fc.nat(), fc.nat(), fc.integer({ min: 0, max: 7 }), fc.nat())
    .map(([size, leaf, at, kind, bit]) => ({ size, index: leaf % size, at, kind, bit }))
  fc.assert(
    fc.property(cases, ({ size, index, at, kind, bit }) => {
      const proof = inclusionProof(index, size, reader)
      const good = { index, size, leaf: leafHash(leaves[index] ?? emptyRoot), proof, root: rootOf(size) }
      const flip = (bytes: Uint8Array): Uint8Array => bytes.map((byte, place) => (place === (bit >> 3) % 32 ? byte ^ (1 << (bit % 8)) : byte))
      const place = proof.length === 0 ? 0 : at % proof.length
      const changed = [
        { ...good, leaf: flip(good.leaf) },
        { ...good, root: flip(good.root) },
        { ...good, proof: [...proof, emptyRoot] },
        { ...good, proof: [emptyRoot, ...proof] },
        ...(proof.length === 0
          ? []
          : [
              { ...good, proof: proof.map((hash, which) => (which === place ? flip(hash) : hash)) },
              { ...good, proof: proof.filter((_, which) => which !== place) },
              { ...good, proof: proof.map((hash, which) => (which === place ? hash.subarray(1) : hash)) },
            ]),
        { ...good, index: (index + 1) % size },
      ]
      const one = changed[kind % changed.length] ?? good
      if (one.index === index && size === 1 && kind % changed.length === changed.length - 1) return
      assert.throws(() => verifyInclusion(one), { code: "wrong-proof" })
    }),
    { numRuns: 3000 },
  )
})

test("a consistency proof between other trees, with a bit or a hash more or less, is refused", () => {
  fc.assert(
    fc.property(anySize, fc.nat(), fc.nat(), fc.nat(), (size, from, at, bit) => {
      const older = from % (size + 1)
      const proof = consistencyProof(older, size, reader)
      const [a, b] = [
        { size: older, root: rootOf(older) },
        { size, root: rootOf(size) },
      ]
      const flip = (bytes: Uint8Array): Uint8Array => bytes.map((byte, place) => (place === (bit >> 3) % 32 ? byte ^ (1 << (bit % 8)) : byte))
      const place = proof.length === 0 ? 0 : at % proof.length
      assert.throws(() => verifyConsistency({ ...a, root: flip(a.root) }, b, proof), { code: "wrong-proof" })
      if (older > 0) assert.throws(() => verifyConsistency(a, { ...b, root: flip(b.root) }, proof), { code: "wrong-proof" })
      assert.throws(() => verifyConsistency(a, b, [...proof, emptyRoot]), { code: "wrong-proof" })
      if (proof.length === 0) return
      assert.throws(() => verifyConsistency(a, b, proof.map((hash, which) => (which === place ? flip(hash) : hash))), { code: "wrong-proof" }) // prettier-ignore
      assert.throws(() => verifyConsistency(a, b, proof.filter((_, which) => which !== place)), { code: "wrong-proof" }) // prettier-ignore
      assert.throws(() => verifyConsistency(b, a, proof), { code: "wrong-proof" })
    }),
    { numRuns: 2000 },
  )
})

test("a tree of another history is never consistent with the one seen", () => {
  const forked = leaves.map((leaf, index) => (index === 20 ? encodeUtf8("another") : leaf))
  const fork: HashReader = (height, index) => mth(forked.slice(index * 2 ** height, (index + 1) * 2 ** height))
  for (let older = 21; older <= 60; older++)
    for (let size = older; size <= 60; size++)
      for (const read of [fork, reader])
        assert.throws(
          () =>
            verifyConsistency({ size: older, root: rootOf(older) }, { size, root: mth(forked.slice(0, size)) }, consistencyProof(older, size, read)),
          { code: "wrong-proof" },
        )
})

test("leaves and nodes do not pass for one another", () => {
  const [a, b] = [leafHash(encodeUtf8("a")), leafHash(encodeUtf8("b"))]
  assert.notDeepEqual(leafHash(concatBytes(a, b)), nodeHash(a, b))
})

test("sizes and indices that are none are refused", () => {
  for (const size of [-1, 1.5, Number.NaN, 2 ** 53])
    assert.throws(() => verifyConsistency({ size, root: emptyRoot }, { size, root: emptyRoot }, []), { code: "wrong-proof" })
  for (const index of [-1, 3, 0.5]) {
    assert.throws(() => inclusionProof(index, 3, reader), { code: "wrong-proof" })
    assert.throws(() => verifyInclusion({ index, size: 3, leaf: emptyRoot, proof: [], root: emptyRoot }), { code: "wrong-proof" })
  }
  assert.throws(() => consistencyProof(4, 3, reader), { code: "wrong-proof" })
})

test("the largest trees have proofs: 2^52 leaves that are all alike", () => {
  const alike: Uint8Array[] = [leafHash(encodeUtf8("same"))]
  for (let height = 1; height <= 52; height++) {
    const below = alike[height - 1] ?? emptyRoot
    alike.push(nodeHash(below, below))
  }
  const read: HashReader = (height) => alike[height] ?? emptyRoot
  const size = 2 ** 52
  const root = alike[52] ?? emptyRoot
  const proof = inclusionProof(size - 1, size, read)
  assert.equal(proof.length, 52)
  verifyInclusion({ index: size - 1, size, leaf: alike[0] ?? emptyRoot, proof, root })
  for (const older of [2 ** 51 + 12_345, 2 ** 52 - 1])
    verifyConsistency({ size: older, root: rangeOf(older, read).root() }, { size, root }, consistencyProof(older, size, read))
})
