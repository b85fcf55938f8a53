import { createSecretKey, randomBytes } from "node:crypto"
import { viewOf } from "../bytes/view.ts"
import { runBatches } from "./batches.ts"
import { batchChunks, ChunkPool } from "./chunk-pool.ts"
import { SealingError } from "./errors.ts"
import { derivePayloadKey, encodeAgeHeader, generateFileKey, maxHeaderBytes, openAgeHeader, parseAgeHeader } from "./header.ts"
import type { AgeHeader } from "./header.ts"
import type { OrderedHash } from "./hash-thread.ts"
import { memoryReader, readRange, readStart } from "./ranges.ts"
import type { ByteSink, OpenFile, RangeReader } from "./ranges.ts"
import {
  chunkBytes,
  copyParts,
  openedStreamBytes,
  openChunks,
  payloadNonceBytes,
  releaseParts,
  sealedChunkBytes,
  sealedStreamBytes,
  tagBytes,
} from "./stream.ts"

/** Plaintext of a known length, read in order. */
export interface PlainSource {
  readonly sizeBytes: number
  /** Where the bytes lie when they are an open file as a whole: then `fill` is not called, other threads read them there. */
  readonly file?: OpenFile | undefined
  /** Fills `into` wholly with the next bytes; never asked for more than `sizeBytes` in all. One call at a time. */
  fill(into: Uint8Array): Promise<void>
}

export interface SealOptions {
  readonly pool: ChunkPool
  /** age recipients, all of one kind. */
  readonly recipients: readonly string[]
  readonly source: PlainSource
  /** Receives the age file in order. */
  readonly sink: ByteSink
  readonly signal?: AbortSignal | undefined
  /** Hashes the age file on the way. */
  readonly hash?: OrderedHash | undefined
  /** Called with the number of plaintext bytes of each batch that was written. */
  readonly onBytes?: ((bytes: number) => void) | undefined
}

/**
 * Seals a plaintext as an age file (format v1) in constant memory.
 * @throws {SealingError} `malformed`, `unsupported` for recipients; what source and sink throw; the signal's reason
 */
export async function sealAgeFile(options: SealOptions): Promise<void> {
  const { pool, source, sink, signal } = options
  pool.prepare(source.sizeBytes)
  const fileKey = generateFileKey()
  const nonce = new Uint8Array(randomBytes(payloadNonceBytes))
  const key = derivePayloadKey(fileKey, nonce)
  for (const start of [await encodeAgeHeader(fileKey, options.recipients), nonce]) {
    await options.hash?.update(start)
    await sink.write(start)
  }
  fileKey.fill(0)
  const batches = batchesOf(source.sizeBytes)
  let filled: Promise<void> = Promise.resolve()
  await runBatches(
    pool,
    batches.length,
    async (slot, index) => {
      const batch = batches.at(index)
      const readFrom = source.file === undefined ? undefined : { ...source.file, offset: batch.plainOffset }
      // Before anything is awaited: batches begin in order.
      const writeTo = sink.reserve?.(batch.sealedBytes)
      signal?.throwIfAborted()
      const input = readFrom === undefined ? viewOf(slot.plain, 0, batch.plainBytes) : undefined
      const output = writeTo === undefined || options.hash !== undefined ? viewOf(slot.sealed, 0, batch.sealedBytes) : undefined
      if (input !== undefined) {
        const fill = filled.then(() => source.fill(input))
        filled = fill
        await fill
      }
      await pool.run({ action: "seal", key, ...batch.run, plainBytes: batch.plainBytes, input, output, readFrom, writeTo })
    },
    async (slot, index) => {
      const batch = batches.at(index)
      const output = viewOf(slot.sealed, 0, batch.sealedBytes)
      const until = options.hash?.update(output)
      if (sink.reserve === undefined) await sink.write(output)
      options.onBytes?.(batch.plainBytes)
      return { until }
    },
  )
  key.fill(0)
}

/** Seals bytes in memory. @throws as `sealAgeFile` */
export async function sealAgeBytes(plaintext: Uint8Array, recipients: readonly string[]): Promise<Uint8Array> {
  await using pool = new ChunkPool(0)
  const sink = new MemorySink()
  let at = 0
  const source: PlainSource = {
    sizeBytes: plaintext.length,
    async fill(into) {
      into.set(viewOf(plaintext, at, into.length))
      at += into.length
    },
  }
  await sealAgeFile({ pool, recipients, source, sink })
  return sink.take()
}

/**
 * Opens an age file in memory.
 * @throws {SealingError} `wrong-key`, `corrupt`, `truncated`, `trailing-data`, `malformed`, `unsupported`
 */
export async function openAgeBytes(file: Uint8Array, identity: string): Promise<Uint8Array> {
  await using pool = new ChunkPool(0)
  const sink = new MemorySink()
  const opened = await AgeFile.open(memoryReader(file), identity)
  await opened.stream({ pool, sink })
  return sink.take()
}

export interface StreamOptions {
  readonly pool: ChunkPool
  /** Receives the plaintext in order, each part verified; on an error, or before the promise resolves, what was written must not be used. */
  readonly sink: ByteSink
  readonly signal?: AbortSignal | undefined
  /** Hashes the age file on the way. */
  readonly hash?: OrderedHash | undefined
}

/** An age file whose header was opened: the plaintext as a stream, or any part of it. The caller keeps the reader open and closes it. */
export class AgeFile {
  /** Plaintext bytes; authentic only after `stream` ended or a `readRange` resolved. */
  readonly sizeBytes: number
  readonly #reader: RangeReader
  readonly #header: AgeHeader
  readonly #nonce: Uint8Array
  readonly #key: Uint8Array
  #endVerified = false

  private constructor(reader: RangeReader, header: AgeHeader, nonce: Uint8Array, key: Uint8Array) {
    this.#reader = reader
    this.#header = header
    this.#nonce = nonce
    this.#key = key
    this.sizeBytes = openedStreamBytes(reader.sizeBytes - this.#payloadStart)
  }

  /**
   * Reads and verifies the header. `replacedHeader`: a rewrapped header that stands for the file's own, which is then only skipped.
   * @throws {SealingError} `wrong-key`, `corrupt`, `truncated`, `malformed`, `unsupported`, `too-large`
   */
  static async open(reader: RangeReader, identity: string, replacedHeader?: Uint8Array): Promise<AgeFile> {
    const header = await readAgeHeader(reader)
    const fileKey = await openAgeHeader(replacedHeader === undefined ? header : parseWholeHeader(replacedHeader), identity)
    if (reader.sizeBytes < header.bytes.length + payloadNonceBytes) throw new SealingError("truncated", "no payload", { path: "payload" })
    const nonce = await readRange(reader, header.bytes.length, payloadNonceBytes)
    const key = derivePayloadKey(fileKey, nonce)
    fileKey.fill(0)
    return new AgeFile(reader, header, nonce, key)
  }

  get #payloadStart(): number {
    return this.#header.bytes.length + payloadNonceBytes
  }

  /**
   * Opens the whole payload into a sink, in constant memory.
   * @throws {SealingError} `corrupt`, `truncated`, `trailing-data`; what the sink throws
   */
  async stream(options: StreamOptions): Promise<void> {
    const { pool, sink, signal } = options
    pool.prepare(this.sizeBytes)
    await options.hash?.update(this.#header.bytes)
    await options.hash?.update(this.#nonce)
    const batches = batchesOf(this.sizeBytes)
    const file = this.#reader.file
    await runBatches(
      pool,
      batches.length,
      async (slot, index) => {
        const batch = batches.at(index)
        const offset = this.#payloadStart + batch.sealedOffset
        const writeTo = sink.reserve?.(batch.plainBytes)
        signal?.throwIfAborted()
        const readFrom = file === undefined ? undefined : { ...file, offset }
        const input = readFrom === undefined || options.hash !== undefined ? viewOf(slot.sealed, 0, batch.sealedBytes) : undefined
        const output = writeTo === undefined ? viewOf(slot.plain, 0, batch.plainBytes) : undefined
        if (readFrom === undefined && input !== undefined) await this.#reader.read(offset, input)
        await pool.run({ action: "open", key: this.#key, ...batch.run, plainBytes: batch.plainBytes, input, output, readFrom, writeTo })
      },
      async (slot, index) => {
        const batch = batches.at(index)
        const until = options.hash?.update(viewOf(slot.sealed, 0, batch.sealedBytes))
        if (sink.reserve === undefined) await sink.write(viewOf(slot.plain, 0, batch.plainBytes))
        return { until }
      },
    )
    this.#endVerified = true
  }

  /**
   * `lengthBytes` of plaintext from `offset`: only the chunks that hold them are read, and once the last one, which proves the length.
   * @throws {SealingError} `corrupt`, `truncated`, `trailing-data`
   * @throws {TypeError} for a range outside the plaintext
   */
  async readRange(offset: number, lengthBytes: number): Promise<Uint8Array> {
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(lengthBytes) ||
      offset < 0 ||
      lengthBytes < 0 ||
      offset + lengthBytes > this.sizeBytes
    ) {
      throw new TypeError(`range of ${lengthBytes} bytes at ${offset} does not lie inside ${this.sizeBytes} bytes`)
    }
    if (!this.#endVerified) await this.#openChunk(this.#lastChunk)
    this.#endVerified = true
    const result = new Uint8Array(lengthBytes)
    for (let done = 0; done < lengthBytes;) {
      const at = offset + done
      const number = Math.floor(at / chunkBytes)
      const chunk = await this.#openChunk(number)
      const from = at - number * chunkBytes
      const length = Math.min(chunk.length - from, lengthBytes - done)
      result.set(viewOf(chunk, from, length), done)
      done += length
    }
    return result
  }

  get #lastChunk(): number {
    return this.sizeBytes === 0 ? 0 : Math.ceil(this.sizeBytes / chunkBytes) - 1
  }

  async #openChunk(number: number): Promise<Uint8Array> {
    const output = new Uint8Array(Math.min(chunkBytes, this.sizeBytes - number * chunkBytes))
    const input = await readRange(this.#reader, this.#payloadStart + number * sealedChunkBytes, output.length + tagBytes)
    const run = { key: createSecretKey(this.#key), firstChunk: number, endsPayload: number === this.#lastChunk }
    const parts = openChunks(run, input)
    copyParts(parts, output)
    releaseParts(parts)
    return output
  }
}

/** Reads and parses the header at the start of an age file; nothing is verified. @throws as `parseAgeHeader` */
export async function readAgeHeader(reader: RangeReader): Promise<AgeHeader> {
  return parseAgeHeader(await readStart(reader, maxHeaderBytes + 1))
}

function parseWholeHeader(bytes: Uint8Array): AgeHeader {
  const header = parseAgeHeader(bytes)
  if (header.bytes.length !== bytes.length) throw new SealingError("malformed", "bytes follow the header", { path: "header" })
  return header
}

/** How a plaintext falls into batches; the last may be shorter, and is empty only when the plaintext is. */
function batchesOf(sizeBytes: number): { readonly length: number; at(index: number): Batch } {
  const batchBytes = batchChunks * chunkBytes
  const length = Math.max(1, Math.ceil(sizeBytes / batchBytes))
  return {
    length,
    at(index) {
      const plainOffset = index * batchBytes
      const plainBytes = Math.min(batchBytes, sizeBytes - plainOffset)
      const firstChunk = index * batchChunks
      return {
        plainOffset,
        plainBytes,
        sealedOffset: firstChunk * sealedChunkBytes,
        sealedBytes: sealedStreamBytes(plainBytes),
        run: { firstChunk, endsPayload: index === length - 1 },
      }
    },
  }
}

interface Batch {
  readonly plainOffset: number
  readonly plainBytes: number
  /** From the payload's first chunk. */
  readonly sealedOffset: number
  readonly sealedBytes: number
  readonly run: { readonly firstChunk: number; readonly endsPayload: boolean }
}

class MemorySink implements ByteSink {
  readonly #parts: Uint8Array[] = []

  async write(bytes: Uint8Array): Promise<void> {
    this.#parts.push(new Uint8Array(bytes))
  }

  take(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#parts))
  }
}
