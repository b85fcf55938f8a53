import { MalformedError } from "./error.ts"

/**
 * Bounds-checked reader over bytes: the only place of the program that computes offsets. Every read names its field, so that an error says where.
 * Byte ranges that it returns are copies, but for those of `view` and `viewSince`.
 */
export class ByteReader {
  readonly #bytes: Uint8Array
  readonly #path: string
  /** Made when first needed: most readers of short structures read bytes alone. */
  #numbers: DataView | undefined
  #offset = 0

  constructor(path: string, bytes: Uint8Array) {
    this.#path = path
    // A Buffer's own slice would give views, and its subarray is slow.
    this.#bytes = Buffer.isBuffer(bytes) ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : bytes
  }

  get #view(): DataView {
    return (this.#numbers ??= new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength))
  }

  /** Bytes not yet read. */
  get remaining(): number {
    return this.#bytes.length - this.#offset
  }

  /** Bytes already read. */
  get offset(): number {
    return this.#offset
  }

  u8(field: string): number {
    return this.#bytes[this.#advance(1, field)] ?? 0
  }
  u16be(field: string): number {
    return this.#view.getUint16(this.#advance(2, field), false)
  }
  u16le(field: string): number {
    return this.#view.getUint16(this.#advance(2, field), true)
  }
  u32be(field: string): number {
    return this.#view.getUint32(this.#advance(4, field), false)
  }
  u32le(field: string): number {
    return this.#view.getUint32(this.#advance(4, field), true)
  }
  u64be(field: string): bigint {
    return this.#view.getBigUint64(this.#advance(8, field), false)
  }
  u64le(field: string): bigint {
    return this.#view.getBigUint64(this.#advance(8, field), true)
  }

  /** The next byte without reading it. */
  peekU8(field: string): number {
    if (this.remaining === 0) throw new MalformedError("truncated", `needs 1 byte at offset ${this.#offset}, found 0`, { path: this.#at(field) })
    return this.#bytes[this.#offset] ?? 0
  }

  /** Exactly `length` bytes, copied. */
  bytes(length: number, field: string): Uint8Array {
    const start = this.#advance(length, field)
    return this.#bytes.slice(start, start + length)
  }

  /** Exactly `length` bytes as a view that shares memory with the input: for hot loops that hash and drop them. Everything that is kept is a copy. */
  view(length: number, field: string): Uint8Array {
    const start = this.#advance(length, field)
    return this.#bytes.subarray(start, start + length)
  }

  /** The bytes from an earlier `offset` up to here as a view; see `view`. */
  viewSince(offset: number): Uint8Array {
    return this.#bytes.subarray(offset, this.#offset)
  }

  /** `length` bytes after checking the length against a named maximum, before anything is allocated. */
  boundedBytes(length: number, maximum: number, field: string): Uint8Array {
    if (length > maximum) throw new MalformedError("too-large", `${length} bytes, at most ${maximum} are allowed`, { path: this.#at(field) })
    return this.bytes(length, field)
  }

  /** Everything that is left, copied. */
  rest(field: string): Uint8Array {
    return this.bytes(this.remaining, field)
  }

  /** A reader of its own over the next `length` bytes; the caller must `finish()` it. */
  sub(length: number, field: string): ByteReader {
    const start = this.#advance(length, field)
    return new ByteReader(this.#at(field), this.#bytes.subarray(start, start + length))
  }

  /** The bytes from an earlier `offset` up to here, copied: for keeping exactly what was signed or hashed. */
  since(offset: number): Uint8Array {
    return this.#bytes.slice(offset, this.#offset)
  }

  /** An error at a field of this reader. */
  error(code: "malformed" | "too-large" | "duplicate", field: string, message: string): MalformedError {
    return new MalformedError(code, message, { path: this.#at(field) })
  }

  /** @throws {MalformedError} `trailing-bytes` unless everything was read */
  finish(): void {
    if (this.remaining !== 0)
      throw new MalformedError("trailing-bytes", `${this.remaining} bytes follow the end of the structure`, { path: this.#path })
  }

  #at(field: string): string {
    return this.#path === "" ? field : `${this.#path}.${field}`
  }

  #advance(length: number, field: string): number {
    if (!Number.isSafeInteger(length) || length < 0) throw new TypeError(`length of ${this.#at(field)} must be a non-negative integer`)
    if (length > this.remaining) {
      throw new MalformedError("truncated", `needs ${length} bytes at offset ${this.#offset}, found ${this.remaining}`, { path: this.#at(field) })
    }
    const start = this.#offset
    this.#offset += length
    return start
  }
}

/**
 * Parses a whole input: runs `read` and refuses what is left over.
 * @throws {MalformedError} `truncated`, `trailing-bytes`, or what `read` throws
 */
export function readAll<T>(what: string, bytes: Uint8Array, read: (reader: ByteReader) => T): T {
  const reader = new ByteReader(what, bytes)
  const value = read(reader)
  reader.finish()
  return value
}
