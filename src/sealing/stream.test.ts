import assert from "node:assert/strict"
import { createSecretKey, randomBytes } from "node:crypto"
import { test } from "node:test"
import fc from "fast-check"
import {
  chunkBytes,
  chunkCount,
  copyParts,
  openChunks,
  openedStreamBytes,
  sealChunks,
  sealedChunkBytes,
  sealedStreamBytes,
  tagBytes,
} from "./stream.ts"
import { withCode } from "./test-fixtures.ts"

const key = createSecretKey(randomBytes(32))

function seal(plain: Uint8Array, run = { firstChunk: 0, endsPayload: true }): Uint8Array {
  const sealed = new Uint8Array(sealedStreamBytes(plain.length))
  copyParts(sealChunks({ key, ...run }, plain), sealed)
  return sealed
}

function open(sealed: Uint8Array, run = { firstChunk: 0, endsPayload: true }): Uint8Array {
  const plain = new Uint8Array(openedStreamBytes(sealed.length))
  copyParts(openChunks({ key, ...run }, sealed), plain)
  return plain
}

test("sealedStreamBytes() and openedStreamBytes() are each other's inverse around chunk borders", () => {
  for (const chunks of [0, 1, 2, 3, 1000]) {
    for (const more of [-17, -16, -15, -1, 0, 1, 15, 16, 17]) {
      const size = chunks * chunkBytes + more
      if (size < 0) continue
      assert.equal(openedStreamBytes(sealedStreamBytes(size)), size)
    }
  }
  assert.equal(chunkCount(0), 1)
  assert.equal(chunkCount(chunkBytes), 1)
  assert.equal(chunkCount(chunkBytes + 1), 2)
})

test("openedStreamBytes() refuses lengths that no payload has", () => {
  for (const size of [0, 1, 15, sealedChunkBytes + 1, sealedChunkBytes + 15, sealedChunkBytes + 16, 3 * sealedChunkBytes + 16]) {
    assert.throws(() => openedStreamBytes(size), withCode("truncated"), `${size} bytes`)
  }
})

test("openChunks() gives back what sealChunks() took, for sizes around chunk borders", () => {
  const near = fc
    .tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: -2, max: 2 }))
    .map(([chunks, more]) => Math.max(0, chunks * chunkBytes + more))
  fc.assert(
    fc.property(near, fc.integer({ min: 0, max: 2 ** 40 }), (size, firstChunk) => {
      const plain = new Uint8Array(randomBytes(size))
      const run = { firstChunk: size === 0 ? 0 : firstChunk, endsPayload: true }
      assert.deepEqual(open(seal(plain, run), run), plain)
    }),
    { numRuns: 40 },
  )
})

test("openChunks() refuses a chunk in another place, a flipped bit anywhere, and another key", () => {
  const sealed = seal(new Uint8Array(3 * chunkBytes))
  for (const at of [0, chunkBytes, sealedChunkBytes - 1, sealedChunkBytes, sealed.length - 1]) {
    const bent = new Uint8Array(sealed)
    bent[at] = (bent[at] ?? 0) ^ 1
    assert.throws(() => open(bent), withCode("corrupt"))
  }
  const swapped = new Uint8Array(sealed)
  swapped.set(sealed.subarray(sealedChunkBytes, 2 * sealedChunkBytes), 0)
  swapped.set(sealed.subarray(0, sealedChunkBytes), sealedChunkBytes)
  assert.throws(() => open(swapped), withCode("corrupt"))
  assert.throws(() => open(sealed, { firstChunk: 1, endsPayload: true }), withCode("corrupt"))
  assert.throws(() => openChunks({ key: createSecretKey(new Uint8Array(32)), firstChunk: 0, endsPayload: true }, sealed), withCode("corrupt"))
})

test("openChunks() tells a payload cut or lengthened at a chunk border", () => {
  const sealed = seal(new Uint8Array(2 * chunkBytes))
  assert.throws(() => open(sealed.subarray(0, sealedChunkBytes)), withCode("truncated"))
  const longer = new Uint8Array(2 * sealedChunkBytes + tagBytes + 5)
  longer.set(sealed)
  assert.throws(() => open(longer), withCode("trailing-data"))
})

test("a run that does not end the payload has full chunks only, and only an empty payload an empty chunk", () => {
  assert.throws(() => seal(new Uint8Array(5), { firstChunk: 0, endsPayload: false }), TypeError)
  assert.throws(() => seal(new Uint8Array(0), { firstChunk: 1, endsPayload: true }), TypeError)
  assert.throws(() => open(new Uint8Array(tagBytes), { firstChunk: 1, endsPayload: true }), TypeError)
})
