import assert from "node:assert/strict"
import { test } from "node:test"
import fc from "fast-check"
import { MalformedError } from "../bytes/error.ts"
import { encodeHex, encodeUtf8 } from "../bytes/text.ts"
import { CompactRange, consistencyProof, inclusionProof, leafHash, verifyConsistency, verifyInclusion, rangeOf } from "./merkle.ts"
import {
  encodeEntries,
  encodeTile,
  type LevelReader,
  parseTile,
  parseTilePath,
  readerOfLevels,
  tilePath,
  verifiedLevels,
  VerifiedTiles,
  verifiedReader,
  widthInTree,
} from "./tiles.ts"

/** A log of 70,000 entries as a server keeps it: whole subtrees of 256^level leaves. */
const total = 70_000
const levels: Uint8Array[][] = [[], [], []]
const heads: Uint8Array[] = []
const range = CompactRange.empty()
for (let index = 0; index < total; index++) {
  range.append(leafHash(encodeUtf8(String(index))), (height, _, hash) => {
    if (height % 8 === 0) levels[height / 8]?.push(hash)
  })
  heads.push(range.root())
}
const read: LevelReader = (level, from, to) => levels[level]?.slice(from, to) ?? []
const headOf = (size: number) => ({ size, root: heads[size - 1] ?? new Uint8Array(32) })

test("tilePath() is that of the specification, and parseTilePath() takes no other", () => {
  for (const [path, tile] of [
    ["0/000", { level: 0, index: 0, width: 256 }],
    ["0/x001/x234/067", { level: 0, index: 1_234_067, width: 256 }],
    ["1/001.p/112", { level: 1, index: 1, width: 112 }],
    ["63/999.p/1", { level: 63, index: 999, width: 1 }],
  ] as const) {
    assert.equal(tilePath(tile), path)
    assert.deepEqual(parseTilePath(path), tile)
  }
  for (const wrong of [
    "",
    "0",
    "0/0",
    "0/00",
    "00/000",
    "64/000",
    "0/x000/000",
    "0/001/000",
    "0/x001/x000",
    "0/000.p/0",
    "0/000.p/256",
    "0/000.p/01",
    "0/000.p/",
    "0/000/",
    "-1/000",
    "0/x999/x999/x999/x999/x999/999",
  ])
    assert.throws(() => parseTilePath(wrong), MalformedError, wrong)
})

test("a tree of 70,000 has the tiles of the specification's example", () => {
  const widths = (level: number): readonly number[] => {
    const found: number[] = []
    for (let index = 0; widthInTree({ level, index }, total) > 0; index++) found.push(widthInTree({ level, index }, total))
    return found
  }
  const leaves = widths(0)
  assert.deepEqual([leaves.length, leaves.filter((width) => width === 256).length, leaves.at(-1)], [274, 273, 112])
  assert.deepEqual(widths(1), [256, 17])
  assert.deepEqual(widths(2), [1])
  assert.deepEqual(widths(3), [])
})

test("proofs out of tiles verify, for sizes around the edges of tiles", () => {
  for (const size of [1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 66_000, total]) {
    const reader = verifiedReader(headOf(size), read)
    for (const index of [0, 1, 255, 256, 65_535, 65_536, size >> 1, size - 1])
      if (index < size)
        verifyInclusion({
          index,
          size,
          leaf: levels[0]?.[index] ?? new Uint8Array(),
          proof: inclusionProof(index, size, reader),
          root: headOf(size).root,
        })
    for (const older of [1, 255, 256, 257, 65_536, size - 1, size])
      if (older > 0 && older <= size) verifyConsistency(headOf(older), headOf(size), consistencyProof(older, size, reader))
  }
})

test("verifiedLevels() gives the hashes that it was asked for, over the edges of tiles", () => {
  const verified = verifiedLevels(headOf(total), read)
  for (const [level, from, to] of [
    [0, 0, 1],
    [0, 250, 520],
    [0, 69_000, total],
    [1, 0, 273],
    [2, 0, 1],
  ] as const)
    assert.deepEqual(verified(level, from, to).map(encodeHex), read(level, from, to).map(encodeHex))
  assert.equal(verified(0, total - 10, total + 10).length, 10, "there is nothing behind the tree's end")
})

test("one wrong hash anywhere, or one that is missing, is found before a hash of its tile is believed", () => {
  const sizes = fc.constantFrom(1, 2, 255, 256, 257, 300, 511, 600, 65_536, 65_537, 66_001, total)
  fc.assert(
    fc.property(sizes, fc.nat(), fc.nat({ max: 2 }), fc.nat({ max: 255 }), fc.boolean(), (size, at, level, bit, isGone) => {
      const width = Math.floor(size / 256 ** level)
      fc.pre(width > 0)
      const wrong = at % width
      const bad: LevelReader = (of, from, to) => {
        const hashes = read(of, from, Math.min(to, Math.floor(size / 256 ** of)))
        if (of !== level) return hashes
        if (isGone) return hashes.filter((_, place) => from + place !== wrong)
        return hashes.map((hash, place) =>
          from + place === wrong ? hash.map((byte, octet) => (octet === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte)) : hash,
        )
      }
      assert.throws(() => verifiedLevels(headOf(size), bad)(level, wrong, wrong + 1), { code: "wrong-proof" })
    }),
    { numRuns: 400 },
  )
})

test("VerifiedTiles goes on with a tree that grows, keeps whole tiles only, and believes nothing that is not its range's", () => {
  const asked: string[] = []
  let isSpoiled = false
  const tiles = new VerifiedTiles((level, from, to) => {
    asked.push(`${level}/${from / 256}`)
    const hashes = read(level, from, to)
    return isSpoiled ? hashes.map((hash, place) => (place === hashes.length - 1 ? new Uint8Array(32) : hash)) : hashes
  })
  const rangeAt = (size: number): CompactRange => rangeOf(size, readerOfLevels(read))
  for (const size of [300, 301, 520, 65_600, total]) {
    const reader = readerOfLevels(tiles.levels(rangeAt(size)))
    for (const index of [0, 255, 256, size - 1])
      verifyInclusion({ ...headOf(size), index, leaf: levels[0]?.[index] ?? new Uint8Array(), proof: inclusionProof(index, size, reader) })
  }
  assert.equal(asked.filter((tile) => tile === "0/0").length, 1, "a whole tile is read once")
  assert.ok(asked.filter((tile) => tile === "0/1").length > 1, "one that grows is read anew")

  isSpoiled = true
  for (const [level, from] of [
    [0, 69_990],
    [0, 1024],
    [1, 256],
  ] as const)
    assert.throws(() => tiles.levels(rangeAt(total))(level, from, from + 1), { code: "wrong-proof" }, `${level}/${from}`)
  isSpoiled = false
  assert.throws(() => new VerifiedTiles(read).levels(CompactRange.of(600, rangeAt(600).hashes.toReversed()))(0, 590, 591), { code: "wrong-proof" })
})

test("hashes of a forked log do not pass under the head of this one", () => {
  const forked: LevelReader = (level, from, to) =>
    level === 0 ? read(0, from, to).map((hash, place) => (from + place === 3 ? leafHash(encodeUtf8("x")) : hash)) : read(level, from, to)
  assert.throws(() => verifiedLevels(headOf(600), forked)(0, 0, 1), { code: "wrong-proof" })
  assert.throws(() => verifiedReader({ ...headOf(600), root: headOf(599).root }, read)(0, 590), { code: "wrong-proof" })
})

test("a tile's bytes are its hashes, 256 at most", () => {
  const hashes = read(0, 0, 3)
  assert.deepEqual(parseTile(encodeTile(hashes)).map(encodeHex), hashes.map(encodeHex))
  for (const length of [0, 31, 33, 257 * 32]) assert.throws(() => parseTile(new Uint8Array(length)), { code: "malformed" })
})

test("an entry bundle has each entry behind its length", () => {
  assert.equal(encodeHex(encodeEntries([Uint8Array.of(1, 2), new Uint8Array(), Uint8Array.of(3)])), "0002010200000001" + "03")
  assert.throws(() => encodeEntries([new Uint8Array(65_536)]), { code: "too-large" })
})
