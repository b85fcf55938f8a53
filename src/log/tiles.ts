import { MalformedError } from "../bytes/error.ts"
import { bytesEqual, concatBytes } from "../bytes/compare.ts"
import { viewOf } from "../bytes/view.ts"
import { LogError } from "./errors.ts"
import { CompactRange, hashBytes, type HashReader, nodeHash, rangeOf, type TreeHead } from "./merkle.ts"

/** Tiles (C2SP tlog-tiles): a tree in pieces of 256 hashes, each a subtree of height 8, so that whoever has them makes any proof himself. */

export const tileWidth = 256
const tileHeight = 8

/** A tile: hashes of level `level` (subtrees of 256^level leaves) from `index` * 256 on. */
export interface Tile {
  readonly level: number
  readonly index: number
  /** Number of hashes, 1 to 256. */
  readonly width: number
}

/** `<L>/<N>[.p/<W>]` */
export function tilePath({ level, index, width }: Tile): string {
  const digits = String(index)
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, "0")
  const parts = padded.match(/.{3}/g) ?? []
  const path = parts.map((part, at) => (at < parts.length - 1 ? `x${part}` : part)).join("/")
  return `${level}/${path}${width === tileWidth ? "" : `.p/${width}`}`
}

/** @throws {MalformedError} for a path of another form than `tilePath` gives */
export function parseTilePath(path: string): Tile {
  const [, level, elements, width] = /^(0|[1-9][0-9]?)\/((?:x[0-9]{3}\/){0,5}[0-9]{3})(?:\.p\/([1-9][0-9]{0,2}))?$/.exec(path) ?? []
  const tile = { level: Number(level), index: Number(elements?.replaceAll(/[x/]/g, "")), width: width === undefined ? tileWidth : Number(width) }
  if (level === undefined || tile.level > 63 || !Number.isSafeInteger(tile.index) || tilePath(tile) !== path)
    throw new MalformedError("malformed", "not the path of a tile", { path: "tile" })
  return tile
}

/** Number of hashes that a tile of a tree has; 0 where the tree has no such tile. */
export function widthInTree({ level, index }: Pick<Tile, "level" | "index">, size: number): number {
  const subtrees = Math.floor(size / tileWidth ** level)
  return Math.max(0, Math.min(tileWidth, subtrees - index * tileWidth))
}

/** Whole subtrees' hashes of one level, from `from` on, before `to`. */
export type LevelReader = (level: number, from: number, to: number) => readonly Uint8Array[]

/** Reads hashes of any height out of those of the levels. */
export function readerOfLevels(read: LevelReader): HashReader {
  return (height, index) => {
    const level = Math.floor(height / tileHeight)
    const width = 2 ** (height % tileHeight)
    const hashes = read(level, index * width, (index + 1) * width)
    if (hashes.length !== width) throw new LogError("wrong-proof", `hashes of level ${level} are missing`)
    return rootOfWhole(hashes)
  }
}

/**
 * A reader that believes nothing: what `read` gives is held against the tree's head before it is used, tile by tile from the top, and kept.
 * @throws {LogError} `wrong-proof` when reading, where a hash is not that of the tree
 */
export function verifiedReader(head: TreeHead, read: LevelReader): HashReader {
  return readerOfLevels(verifiedLevels(head, read))
}

/** The same for hashes of one level. */
export function verifiedLevels(head: TreeHead, read: LevelReader): LevelReader {
  let top: CompactRange | undefined
  return levelsBelow(head.size, read, new Map(), () => {
    top ??= rangeOf(head.size, readerOfLevels(read))
    if (!bytesEqual(top.root(), head.root)) throw new LogError("wrong-proof", "the hashes do not lead to the tree's root")
    return top
  })
}

/**
 * Reads many times from a tree that grows, whose compact range is believed: whole tiles that were held against it are kept, for they never change.
 * @throws {LogError} `wrong-proof` when reading
 */
export class VerifiedTiles {
  readonly #read: LevelReader
  readonly #whole = new Map<string, readonly Uint8Array[]>()

  constructor(read: LevelReader) {
    this.#read = read
  }

  levels(range: CompactRange): LevelReader {
    while (this.#whole.size > keptTiles) this.#whole.delete(String(this.#whole.keys().next().value))
    return levelsBelow(range.size, this.#read, this.#whole, () => range)
  }
}

/** 8 KiB each. */
const keptTiles = 1024

/** @param whole tiles that are known, to which those that are read are added */
function levelsBelow(size: number, read: LevelReader, whole: Map<string, readonly Uint8Array[]>, topRange: () => CompactRange): LevelReader {
  const partial = new Map<string, readonly Uint8Array[]>()
  const tile = (level: number, index: number): readonly Uint8Array[] => {
    const key = `${level}/${index}`
    const before = whole.get(key) ?? partial.get(key)
    if (before !== undefined) return before
    const width = widthInTree({ level, index }, size)
    const hashes = read(level, index * tileWidth, index * tileWidth + width)
    if (hashes.length !== width || hashes.some((hash) => hash.length !== hashBytes))
      throw new LogError("wrong-proof", `tile ${key} has ${hashes.length} hashes, expected ${width}`)
    checkTile(level, index, hashes)
    ;(width === tileWidth ? whole : partial).set(key, hashes)
    return hashes
  }
  /** A whole tile is one hash of the level above; one that is not stands, in parts, at the right edge of the tree. */
  const checkTile = (level: number, index: number, hashes: readonly Uint8Array[]): void => {
    if (hashes.length === tileWidth && widthInTree({ level: level + 1, index: Math.floor(index / tileWidth) }, size) > 0) {
      const parent = tile(level + 1, Math.floor(index / tileWidth))[index % tileWidth]
      if (parent === undefined || !bytesEqual(parent, rootOfWhole(hashes)))
        throw new LogError("wrong-proof", `tile ${level}/${index} is not the tree's`)
      return
    }
    const { hashes: edges } = topRange()
    // The edge's subtrees of this level's heights, from the left: their hashes are those of the range, from its end.
    const parts = subtreesOf(hashes)
    const below = lowerBits(size, level)
    const expected = edges.slice(edges.length - below - parts.length, edges.length - below)
    if (expected.length !== parts.length || !parts.every((part, at) => bytesEqual(part, expected[at] ?? new Uint8Array())))
      throw new LogError("wrong-proof", `tile ${level}/${index} is not the tree's`)
  }
  return (level, from, to) => {
    const result: Uint8Array[] = []
    for (let at = from; at < to;) {
      const index = Math.floor(at / tileWidth)
      const hashes = tile(level, index)
      const end = Math.min(to, (index + 1) * tileWidth)
      result.push(...hashes.slice(at - index * tileWidth, end - index * tileWidth))
      if (hashes.length < end - index * tileWidth) break
      at = end
    }
    return result
  }
}

/** Roots of the largest whole subtrees that so many hashes make, from the left. */
function subtreesOf(hashes: readonly Uint8Array[]): readonly Uint8Array[] {
  const range = CompactRange.empty()
  for (const hash of hashes) range.append(hash)
  return range.hashes
}

/** Number of the tree's subtrees that are lower than this level's leaves. */
function lowerBits(size: number, level: number): number {
  let ones = 0
  for (let rest = size % tileWidth ** level; rest > 0; rest = Math.floor(rest / 2)) ones += rest % 2
  return ones
}

function rootOfWhole(hashes: readonly Uint8Array[]): Uint8Array {
  let row = hashes
  while (row.length > 1)
    row = Array.from({ length: row.length / 2 }, (_, at) => nodeHash(row[2 * at] ?? new Uint8Array(), row[2 * at + 1] ?? new Uint8Array()))
  const [root] = row
  if (root === undefined) throw new TypeError("internal: no hashes")
  return root
}

/** A tile's bytes: its hashes, one behind the other. */
export function encodeTile(hashes: readonly Uint8Array[]): Uint8Array {
  return concatBytes(...hashes)
}

/** @throws {MalformedError} */
export function parseTile(bytes: Uint8Array): readonly Uint8Array[] {
  const width = bytes.length / hashBytes
  if (!Number.isInteger(width) || width < 1 || width > tileWidth)
    throw new MalformedError("malformed", `${bytes.length} bytes are no tile`, { path: "tile" })
  return Array.from({ length: width }, (_, at) => viewOf(bytes, at * hashBytes, hashBytes))
}

/** An entry bundle: each entry behind its length, 16 bits. @throws {MalformedError} for an entry that is too long */
export function encodeEntries(entries: readonly Uint8Array[]): Uint8Array {
  return concatBytes(
    ...entries.flatMap((entry) => {
      if (entry.length > 0xffff) throw new MalformedError("too-large", `an entry of ${entry.length} bytes`, { path: "entries" })
      return [Uint8Array.of(entry.length >> 8, entry.length & 0xff), entry]
    }),
  )
}
