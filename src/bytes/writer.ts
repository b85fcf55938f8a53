/** Grows as it is written to; the counterpart of ByteReader. Values out of range are wrong use and throw TypeError. */
export class ByteWriter {
  #buffer = new Uint8Array(256)
  #view = new DataView(this.#buffer.buffer)
  #length = 0

  get length(): number {
    return this.#length
  }

  u8(value: number): this {
    const at = this.#grow(1)
    this.#view.setUint8(at, checkRange(value, 0xff))
    return this
  }
  u16be(value: number): this {
    const at = this.#grow(2)
    this.#view.setUint16(at, checkRange(value, 0xffff), false)
    return this
  }
  u16le(value: number): this {
    const at = this.#grow(2)
    this.#view.setUint16(at, checkRange(value, 0xffff), true)
    return this
  }
  u32be(value: number): this {
    const at = this.#grow(4)
    this.#view.setUint32(at, checkRange(value, 0xffffffff), false)
    return this
  }
  u32le(value: number): this {
    const at = this.#grow(4)
    this.#view.setUint32(at, checkRange(value, 0xffffffff), true)
    return this
  }
  u64be(value: bigint): this {
    const at = this.#grow(8)
    this.#view.setBigUint64(at, checkRange64(value), false)
    return this
  }
  u64le(value: bigint): this {
    const at = this.#grow(8)
    this.#view.setBigUint64(at, checkRange64(value), true)
    return this
  }
  bytes(value: Uint8Array): this {
    const at = this.#grow(value.length)
    this.#buffer.set(value, at)
    return this
  }
  /** Bytes behind their length as a 16-bit big-endian number: the TPM2B form. */
  sized16be(value: Uint8Array): this {
    return this.u16be(value.length).bytes(value)
  }

  /** A copy of what was written. */
  take(): Uint8Array {
    return this.#buffer.slice(0, this.#length)
  }

  /** Makes room and gives its offset. It may replace buffer and view: call it before touching either. */
  #grow(by: number): number {
    const start = this.#length
    const needed = start + by
    if (needed > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(needed, this.#buffer.length * 2))
      larger.set(this.#buffer)
      this.#buffer = larger
      this.#view = new DataView(larger.buffer)
    }
    this.#length = needed
    return start
  }
}

function checkRange(value: number, maximum: number): number {
  if (!Number.isInteger(value) || value < 0 || value > maximum) throw new TypeError(`value ${value} is not an integer from 0 to ${maximum}`)
  return value
}

function checkRange64(value: bigint): bigint {
  if (value < 0n || value > 0xffff_ffff_ffff_ffffn) throw new TypeError(`value ${value} is not an unsigned 64-bit integer`)
  return value
}
