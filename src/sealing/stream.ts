import { createCipheriv, createDecipheriv } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { viewOf } from "../bytes/view.ts"
import { SealingError } from "./errors.ts"

// The payload of an age file: STREAM over ChaCha20-Poly1305. age format v1, "Payload": a 16-byte nonce for the key derivation, then chunks of 64 KiB,
// each with its tag. The chunk nonce is its number (11 bytes, big-endian) and a byte that is 1 for the last chunk only. The last chunk may be shorter,
// and is empty only when the whole payload is.

/** Plaintext bytes of every chunk but the last. */
export const chunkBytes = 65_536
/** Bytes of a Poly1305 tag. */
export const tagBytes = 16
/** Ciphertext bytes of every chunk but the last. */
export const sealedChunkBytes = chunkBytes + tagBytes
/** Bytes of the nonce at the start of the payload. */
export const payloadNonceBytes = 16

/** Number of chunks for a plaintext: at least one. */
export function chunkCount(plaintextBytes: number): number {
  return Math.max(1, Math.ceil(plaintextBytes / chunkBytes))
}

/** Ciphertext bytes of all chunks, without the payload nonce. */
export function sealedStreamBytes(plaintextBytes: number): number {
  return plaintextBytes + chunkCount(plaintextBytes) * tagBytes
}

/**
 * Plaintext bytes for a length of chunks, without the payload nonce.
 * @throws {SealingError} `truncated` for a length that no plaintext has
 */
export function openedStreamBytes(sealedBytes: number): number {
  const whole = Math.floor(sealedBytes / sealedChunkBytes)
  const rest = sealedBytes - whole * sealedChunkBytes
  if (sealedBytes < tagBytes || (rest !== 0 && rest < tagBytes) || (whole > 0 && rest === tagBytes)) {
    throw new SealingError("truncated", `no payload is ${sealedBytes} bytes long`, { path: "payload" })
  }
  return whole * chunkBytes + (rest === 0 ? 0 : rest - tagBytes)
}

/** A run of neighbouring chunks of one payload. */
export interface ChunkRun {
  /** From `derivePayloadKey`, 32 bytes. */
  readonly key: KeyObject
  /** Number of the run's first chunk, from 0. */
  readonly firstChunk: number
  /** Whether the run's last chunk is the payload's last. */
  readonly endsPayload: boolean
}

/**
 * Seals `input` chunk by chunk; gives the sealed bytes as parts in order, made by node:crypto and not copied here. Every chunk but the payload's last must be
 * full. Give the parts back with `releaseParts` when they were written.
 */
export function sealChunks(run: ChunkRun, input: Uint8Array): readonly Uint8Array[] {
  const count = checkedChunkCount(run, input.length)
  const parts: Uint8Array[] = []
  for (let i = 0; i < count; i++) {
    const length = Math.min(chunkBytes, input.length - i * chunkBytes)
    const cipher = createCipheriv(cipherName, run.key, chunkNonce(run.firstChunk + i, run.endsPayload && i === count - 1), cipherOptions)
    parts.push(cipher.update(viewOf(input, i * chunkBytes, length)))
    cipher.final()
    parts.push(cipher.getAuthTag())
  }
  return parts
}

/**
 * Opens `input`, a whole number of sealed chunks of which only the payload's last may be short; gives the plaintext as parts, as `sealChunks` does. They are
 * there only when every chunk is authentic.
 * @throws {SealingError} `truncated` for a last chunk that was not sealed as the last, `trailing-data` for one that was and has something behind it,
 * else `corrupt`
 */
export function openChunks(run: ChunkRun, input: Uint8Array): readonly Uint8Array[] {
  const plaintextBytes = openedStreamBytes(input.length)
  const count = checkedChunkCount(run, plaintextBytes)
  const parts: Uint8Array[] = []
  for (let i = 0; i < count; i++) {
    const length = Math.min(chunkBytes, plaintextBytes - i * chunkBytes)
    const chunk = viewOf(input, i * sealedChunkBytes, length + tagBytes)
    const number = run.firstChunk + i
    const isLast = run.endsPayload && i === count - 1
    const opened = openChunk(run.key, number, isLast, chunk)
    if (opened === undefined) throw chunkError(run.key, number, isLast, chunk)
    parts.push(opened)
  }
  return parts
}

/** Copies parts, one behind the other, into `output`, which they fill. */
export function copyParts(parts: readonly Uint8Array[], output: Uint8Array): void {
  let done = 0
  for (const part of parts) {
    viewOf(output, done, part.length).set(part)
    done += part.length
  }
  if (done !== output.length) throw new TypeError(`parts of ${done} bytes for ${output.length}`)
}

/**
 * Gives the memory of parts that node:crypto made back at once. Left to the garbage collector these buffers would wander through main memory; freed here, the
 * next ones come from the processor's cache, which makes the whole much faster (docs/performance.md).
 */
export function releaseParts(parts: readonly Uint8Array[]): void {
  for (const part of parts) release(part)
}

function openChunk(key: KeyObject, number: number, isLast: boolean, chunk: Uint8Array): Uint8Array | undefined {
  const length = chunk.length - tagBytes
  const decipher = createDecipheriv(cipherName, key, chunkNonce(number, isLast), cipherOptions)
  decipher.setAuthTag(viewOf(chunk, length, tagBytes))
  const opened = decipher.update(viewOf(chunk, 0, length))
  try {
    decipher.final()
  } catch {
    // The one thing that final() checks is the tag; the caller says what a wrong one means.
    release(opened)
    return undefined
  }
  return opened
}

/** Asks whether the chunk would fit in the other role, to tell a cut or lengthened payload from a damaged one. */
function chunkError(key: KeyObject, number: number, isLast: boolean, chunk: Uint8Array): SealingError {
  const path = `payload.chunk[${number}]`
  const otherwise = openChunk(key, number, !isLast, chunk)
  if (otherwise === undefined) return new SealingError("corrupt", "the chunk is damaged, or not of this file and place", { path })
  release(otherwise)
  return isLast ? new SealingError("truncated", "the payload ends before its last chunk", { path }) : trailing(path)
}

function trailing(path: string): SealingError {
  return new SealingError("trailing-data", "bytes follow the last chunk of the payload", { path })
}

function checkedChunkCount(run: ChunkRun, plaintextBytes: number): number {
  const count = chunkCount(plaintextBytes)
  if (!run.endsPayload && plaintextBytes !== count * chunkBytes) throw new TypeError("only the last chunk of a payload may be short")
  if (plaintextBytes === 0 && run.firstChunk > 0) throw new TypeError("only an empty payload has an empty chunk")
  return count
}

/** The nonce of one chunk, until the next call: node:crypto copies it. */
function chunkNonce(number: number, isLast: boolean): Uint8Array {
  // 53 bits hold more chunks than any disk; the upper bytes stay zero. In two halves, for a bigint each time is slow.
  nonceView.setUint32(3, Math.floor(number / 2 ** 32), false)
  nonceView.setUint32(7, number % 2 ** 32, false)
  nonce[11] = isLast ? 1 : 0
  return nonce
}

const nonce = new Uint8Array(12)
const nonceView = new DataView(nonce.buffer)

/** Tags stay: for so few bytes it costs more than it brings. */
function release(buffer: Uint8Array): void {
  if (buffer.length > tagBytes && buffer.buffer instanceof ArrayBuffer && buffer.length === buffer.buffer.byteLength) buffer.buffer.transfer(0)
}

const cipherName = "chacha20-poly1305"
const cipherOptions = { authTagLength: tagBytes } as const
