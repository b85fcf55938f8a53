import { hash } from "node:crypto"
import { bytesEqual, concatBytes } from "../bytes/compare.ts"
import { LogError } from "./errors.ts"

/**
 * Merkle tree of a log (RFC 9162, section 2.1; the same as RFC 6962): SHA-256, leaves behind 0x00 and nodes behind 0x01, so that neither passes for the other. Sizes and
 * indices are whole numbers up to 2^52.
 */

export const hashBytes = 32

const leafPrefix = Uint8Array.of(0)
const nodePrefix = Uint8Array.of(1)

/** Written anew for each node, so that none allocates its own. */
const nodeInput = concatBytes(nodePrefix, new Uint8Array(2 * hashBytes))

export function leafHash(leaf: Uint8Array): Uint8Array {
  return sha256(concatBytes(leafPrefix, leaf))
}

export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  if (left.length !== hashBytes || right.length !== hashBytes) return sha256(concatBytes(nodePrefix, left, right))
  nodeInput.set(left, 1)
  nodeInput.set(right, 1 + hashBytes)
  return sha256(nodeInput)
}

/** Root of the tree without leaves. */
export const emptyRoot: Uint8Array = sha256(new Uint8Array())

/** One call of the library: a third faster for inputs this short than an object that is given them in parts. */
function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(hash("sha256", bytes, "buffer"))
}

/** Tells of a subtree of 2^height leaves that a leaf has made whole. `index` counts such subtrees from the left. */
export type OnWhole = (height: number, index: number, hash: Uint8Array) => void

/** All that is needed of a tree to let it grow: the roots of the largest whole subtrees that it consists of, from the left. One for each bit of its size. */
export class CompactRange {
  #size: number
  readonly #hashes: Uint8Array[]

  private constructor(size: number, hashes: Uint8Array[]) {
    this.#size = size
    this.#hashes = hashes
  }

  static empty(): CompactRange {
    return new CompactRange(0, [])
  }

  /** @throws {LogError} `wrong-proof` where there are not as many hashes as a tree of this size has subtrees */
  static of(size: number, hashes: readonly Uint8Array[]): CompactRange {
    demandSize(size)
    if (hashes.length !== countOfOnes(size) || hashes.some((hash) => hash.length !== hashBytes))
      throw new LogError("wrong-proof", `${hashes.length} hashes do not make a tree of ${size} leaves`)
    return new CompactRange(size, [...hashes])
  }

  get size(): number {
    return this.#size
  }

  get hashes(): readonly Uint8Array[] {
    return [...this.#hashes]
  }

  copy(): CompactRange {
    return new CompactRange(this.#size, [...this.#hashes])
  }

  append(leaf: Uint8Array, onWhole: OnWhole = () => undefined): void {
    demandSize(this.#size + 1)
    let hash = leaf
    let index = this.#size
    for (let height = 0; ; height++) {
      onWhole(height, index, hash)
      if (index % 2 === 0) break
      const left = this.#hashes.pop()
      if (left === undefined) throw new TypeError("internal: a compact range lost a subtree")
      hash = nodeHash(left, hash)
      index = (index - 1) / 2
    }
    this.#hashes.push(hash)
    this.#size++
  }

  root(): Uint8Array {
    return (
      this.#hashes.reduceRight<Uint8Array | undefined>((right, left) => (right === undefined ? left : nodeHash(left, right)), undefined) ?? emptyRoot
    )
  }
}

/** Hash of the subtree of 2^height leaves with this index, all of whose leaves are in the tree. */
export type HashReader = (height: number, index: number) => Uint8Array

/** The compact range of a tree that is there already. */
export function rangeOf(size: number, read: HashReader): CompactRange {
  demandSize(size)
  const hashes: Uint8Array[] = []
  for (let start = 0; start < size;) {
    const width = largestPowerBelow(size - start + 1)
    hashes.push(read(Math.log2(width), start / width))
    start += width
  }
  return CompactRange.of(size, hashes)
}

/** PATH(index, D[size]): the hashes that lead from a leaf to the root, lowest first. RFC 9162, 2.1.3.1. */
export function inclusionProof(index: number, size: number, read: HashReader): readonly Uint8Array[] {
  demandSize(size)
  if (!(Number.isSafeInteger(index) && index >= 0 && index < size)) throw new LogError("wrong-proof", `leaf ${index} of a tree of ${size}`)
  const path = (leaf: number, start: number, count: number): Uint8Array[] => {
    if (count === 1) return []
    const half = largestPowerBelow(count)
    return leaf < half
      ? [...path(leaf, start, half), rootOf(start + half, count - half, read)]
      : [...path(leaf - half, start + half, count - half), rootOf(start, half, read)]
  }
  return path(index, 0, size)
}

export interface Inclusion {
  readonly index: number
  /** Number of leaves of the tree. */
  readonly size: number
  readonly leaf: Uint8Array
  readonly proof: readonly Uint8Array[]
  readonly root: Uint8Array
}

/** RFC 9162, 2.1.3.2. `leaf`: its hash. @throws {LogError} `wrong-proof` */
export function verifyInclusion({ index, size, leaf, proof, root }: Inclusion): void {
  demandSize(size)
  if (!(Number.isSafeInteger(index) && index >= 0 && index < size)) throw new LogError("wrong-proof", `leaf ${index} of a tree of ${size}`)
  let fn = index
  let sn = size - 1
  let found = leaf
  for (const hash of proof) {
    if (hash.length !== hashBytes || sn === 0) throw new LogError("wrong-proof", "not a path of this tree")
    if (fn % 2 === 1 || fn === sn) {
      found = nodeHash(hash, found)
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [half(fn), half(sn)]
    } else found = nodeHash(found, hash)
    ;[fn, sn] = [half(fn), half(sn)]
  }
  if (sn !== 0 || !bytesEqual(found, root)) throw new LogError("wrong-proof", `leaf ${index} is not in the tree of ${size}`)
}

/** PROOF(older, D[size]): that the tree of `older` leaves is the beginning of the tree of `size`. Empty for 0 and for the same size. RFC 9162, 2.1.4.1. */
export function consistencyProof(older: number, size: number, read: HashReader): readonly Uint8Array[] {
  demandSize(size)
  if (!(Number.isSafeInteger(older) && older >= 0 && older <= size)) throw new LogError("wrong-proof", `from ${older} to ${size} leaves`)
  if (older === 0 || older === size) return []
  const subproof = (m: number, start: number, count: number, isWhole: boolean): Uint8Array[] => {
    if (m === count) return isWhole ? [] : [rootOf(start, count, read)]
    const half = largestPowerBelow(count)
    return m <= half
      ? [...subproof(m, start, half, isWhole), rootOf(start + half, count - half, read)]
      : [...subproof(m - half, start + half, count - half, false), rootOf(start, half, read)]
  }
  return subproof(older, 0, size, true)
}

/** A tree by size and root. */
export interface TreeHead {
  readonly size: number
  readonly root: Uint8Array
}

/** RFC 9162, 2.1.4.2, with the two cases that need no proof: from the empty tree, and the same tree. @throws {LogError} `wrong-proof` */
export function verifyConsistency(older: TreeHead, newer: TreeHead, proof: readonly Uint8Array[]): void {
  demandSize(older.size)
  demandSize(newer.size)
  const fail = (): LogError => new LogError("wrong-proof", `the tree of ${newer.size} does not begin with that of ${older.size}`)
  if (older.size > newer.size || proof.some((hash) => hash.length !== hashBytes)) throw fail()
  if (older.size === 0 || older.size === newer.size) {
    const isSame = older.size === 0 ? bytesEqual(older.root, emptyRoot) : bytesEqual(older.root, newer.root)
    if (proof.length > 0 || !isSame) throw fail()
    return
  }
  const path = isPowerOfTwo(older.size) ? [older.root, ...proof] : proof
  let fn = older.size - 1
  let sn = newer.size - 1
  while (fn % 2 === 1) [fn, sn] = [half(fn), half(sn)]
  const [first, ...rest] = path
  if (first === undefined) throw fail()
  let [fr, sr] = [first, first]
  for (const hash of rest) {
    if (sn === 0) throw fail()
    if (fn % 2 === 1 || fn === sn) {
      fr = nodeHash(hash, fr)
      sr = nodeHash(hash, sr)
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [half(fn), half(sn)]
    } else sr = nodeHash(sr, hash)
    ;[fn, sn] = [half(fn), half(sn)]
  }
  if (sn !== 0 || !bytesEqual(fr, older.root) || !bytesEqual(sr, newer.root)) throw fail()
}

/** Root of the leaves from `start` on; `start` is a multiple of the smallest power of two that is not below `count`. */
function rootOf(start: number, count: number, read: HashReader): Uint8Array {
  if (isPowerOfTwo(count)) return read(Math.log2(count), start / count)
  const left = largestPowerBelow(count)
  return nodeHash(rootOf(start, left, read), rootOf(start + left, count - left, read))
}

function largestPowerBelow(count: number): number {
  let power = 1
  while (power * 2 < count) power *= 2
  return power
}

function isPowerOfTwo(count: number): boolean {
  return largestPowerBelow(count * 2) === count
}

function half(count: number): number {
  return Math.floor(count / 2)
}

function countOfOnes(size: number): number {
  let ones = 0
  for (let rest = size; rest > 0; rest = half(rest)) ones += rest % 2
  return ones
}

/** Twice a size must be a whole number too. */
const maxSize = 2 ** 52

function demandSize(size: number): void {
  if (!Number.isSafeInteger(size) || size < 0 || size > maxSize) throw new LogError("wrong-proof", `a tree of ${size} leaves`)
}
