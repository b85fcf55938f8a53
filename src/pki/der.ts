import { ByteReader } from "../bytes/reader.ts"
import { MalformedError } from "../bytes/error.ts"
import { parseBase64 } from "../bytes/text.ts"
import { ByteWriter } from "../bytes/writer.ts"

/** Identifier octets (ITU-T X.690, 8.1.2) of the elements that X.509 uses. */
export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  enumerated: 0x0a,
  utf8String: 0x0c,
  printableString: 0x13,
  t61String: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const

/** Identifier of a context-specific element `[number]`, constructed (EXPLICIT, or IMPLICIT over a constructed type) or primitive. */
export function contextTag(number: number, form: "constructed" | "primitive"): number {
  return (form === "constructed" ? 0xa0 : 0x80) + number
}

export interface DerElement {
  /** Identifier octet. */
  readonly tag: number
  /** Contents octets. */
  readonly body: Uint8Array
  /** The whole element as it stood in the input. */
  readonly bytes: Uint8Array
}

/**
 * Reads DER element by element over the checked byte reader. Strict where it keeps one meaning per byte string: definite lengths in shortest form, one
 * identifier octet, no bytes behind. Elements share memory with the input: who keeps them passes in bytes of its own. The order of a SET OF is not judged: names are compared as bytes, and some vendors order them otherwise.
 */
export class DerReader {
  readonly #reader: ByteReader
  readonly #path: string

  constructor(path: string, bytes: Uint8Array) {
    this.#path = path
    this.#reader = new ByteReader(path, bytes)
  }

  get done(): boolean {
    return this.#reader.remaining === 0
  }

  /** The next element, whatever it is. */
  any(field: string): DerElement {
    const start = this.#reader.offset
    const tag = this.#reader.u8(field)
    if ((tag & 0x1f) === 0x1f) throw this.#reader.error("malformed", field, "identifier of more than one octet")
    const body = this.#reader.view(this.#length(field), field)
    return { tag, body, bytes: this.#reader.viewSince(start) }
  }

  /** The next element, which must have this tag. @throws {MalformedError} */
  element(tag: number, field: string): DerElement {
    const found = this.any(field)
    if (found.tag !== tag) throw this.#reader.error("malformed", field, `tag 0x${found.tag.toString(16)}, expected 0x${tag.toString(16)}`)
    return found
  }

  /** Reader over the contents of the next element, which must have this tag; the caller must `finish()` it. */
  enter(tag: number, field: string): DerReader {
    return new DerReader(`${this.#path}.${field}`, this.element(tag, field).body)
  }

  /** The next element when it has this tag, else undefined and nothing is read. */
  optional(tag: number, field: string): DerElement | undefined {
    return this.nextTag() === tag ? this.element(tag, field) : undefined
  }

  /** Identifier octet of the next element; undefined at the end. */
  nextTag(): number | undefined {
    return this.#reader.remaining === 0 ? undefined : this.#reader.peekU8("tag")
  }

  /** Dotted decimal form of an OBJECT IDENTIFIER. */
  oid(field: string): string {
    return parseOid(this.element(tags.oid, field).body, `${this.#path}.${field}`)
  }

  boolean(field: string): boolean {
    const { body } = this.element(tags.boolean, field)
    if (body.length !== 1 || (body[0] !== 0x00 && body[0] !== 0xff)) throw this.#reader.error("malformed", field, "not a DER boolean")
    return body[0] === 0xff
  }

  /** A small non-negative INTEGER. */
  smallInteger(field: string): number {
    const { body } = this.element(tags.integer, field)
    const [first] = body
    if (first === undefined || first >= 0x80 || body.length > 4) throw this.#reader.error("malformed", field, "not a small number")
    return body.reduce((value, byte) => value * 256 + byte, 0)
  }

  /** Bytes of a BIT STRING of whole octets. */
  bitStringBytes(field: string): Uint8Array {
    return bitStringOctets(this.element(tags.bitString, field), `${this.#path}.${field}`)
  }

  /** Everything behind the elements read so far, which need not be DER: padding. */
  rest(field: string): Uint8Array {
    return this.#reader.rest(field)
  }

  /** @throws {MalformedError} `trailing-bytes` */
  finish(): void {
    this.#reader.finish()
  }

  #length(field: string): number {
    const first = this.#reader.u8(field)
    if (first < 0x80) return first
    const octets = first - 0x80
    if (octets === 0 || octets > 4) throw this.#reader.error("malformed", field, "length is indefinite or too large")
    const digits = this.#reader.view(octets, field)
    const length = digits.reduce((value, byte) => value * 256 + byte, 0)
    if (length < 0x80 || digits[0] === 0) throw this.#reader.error("malformed", field, "length is not in shortest form")
    return length
  }
}

/** Runs `read` over a whole DER input of one or more elements and refuses what is left over. */
export function readDer<T>(what: string, bytes: Uint8Array, read: (reader: DerReader) => T): T {
  const reader = new DerReader(what, bytes)
  const value = read(reader)
  reader.finish()
  return value
}

/** Runs `read` over the contents of the next SEQUENCE (or other constructed element) and refuses what is left over. */
export function within<T>(reader: DerReader, tag: number, field: string, read: (inner: DerReader) => T): T {
  const inner = reader.enter(tag, field)
  const value = read(inner)
  inner.finish()
  return value
}

/** Octets of a BIT STRING element without unused bits. */
export function bitStringOctets(element: DerElement, path: string): Uint8Array {
  const reader = new ByteReader(path, element.body)
  if (reader.u8("unused bits") !== 0) throw reader.error("malformed", "unused bits", "not whole octets")
  return reader.rest("octets")
}

/** Longest OBJECT IDENTIFIER contents that are read; real ones are under 20 octets. */
const maxOidBytes = 64

function parseOid(body: Uint8Array, path: string): string {
  if (body.length === 0 || body.length > maxOidBytes) throw new MalformedError("malformed", "not an object identifier", { path })
  const arcs: number[] = []
  let value = 0
  let isStart = true
  for (const byte of body) {
    if (isStart && byte === 0x80) throw new MalformedError("malformed", "arc is not in shortest form", { path })
    value = value * 128 + (byte & 0x7f)
    if (!Number.isSafeInteger(value)) throw new MalformedError("malformed", "arc is too large", { path })
    isStart = (byte & 0x80) === 0
    if (!isStart) continue
    arcs.push(value)
    value = 0
  }
  if (!isStart) throw new MalformedError("truncated", "object identifier ends inside an arc", { path })
  const [head = 0, ...tail] = arcs
  const top = Math.min(Math.floor(head / 40), 2)
  return [top, head - top * 40, ...tail].join(".")
}

/** One element as bytes; the parts are its contents. */
export function derElement(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const size = parts.reduce((sum, part) => sum + part.length, 0)
  const writer = new ByteWriter().u8(tag)
  if (size < 0x80) writer.u8(size)
  else if (size <= 0xff) writer.u8(0x81).u8(size)
  else if (size <= 0xffff) writer.u8(0x82).u16be(size)
  else writer.u8(0x84).u32be(size)
  for (const part of parts) writer.bytes(part)
  return writer.take()
}

/** OBJECT IDENTIFIER from its dotted decimal form. */
export function derOid(dotted: string): Uint8Array {
  const [top = 0, second = 0, ...rest] = dotted.split(".").map(Number)
  const writer = new ByteWriter()
  for (const arc of [top * 40 + second, ...rest]) {
    const septets = [arc % 128]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) septets.unshift((left % 128) + 128)
    for (const septet of septets) writer.u8(septet)
  }
  return derElement(tags.oid, writer.take())
}

/** Text with PEM blocks (RFC 7468) of one label → their contents, in order; text between the blocks is ignored, as it is in vendors' bundles. */
export function parsePem(text: string, label: string): readonly Uint8Array[] {
  const blocks: Uint8Array[] = []
  const begin = `-----BEGIN ${label}-----`
  const end = `-----END ${label}-----`
  let lines: string[] | undefined
  for (const line of text.split(/\r?\n/).map((raw) => raw.trim())) {
    if (line === begin) {
      if (lines !== undefined) throw new MalformedError("malformed", `block inside a block`, { path: label })
      lines = []
    } else if (line === end) {
      if (lines === undefined) throw new MalformedError("malformed", "block without a beginning", { path: label })
      blocks.push(parseBase64(lines.join(""), label))
      lines = undefined
    } else lines?.push(line)
  }
  if (lines !== undefined) throw new MalformedError("truncated", "block without an end", { path: label })
  return blocks
}
