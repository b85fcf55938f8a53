import { MalformedError } from "./error.ts"

// Buffer.from drops what it cannot read: only what comes back letter for letter was read whole. A regular expression would run out of stack at some megabytes.

/** Lower-case hexadecimal. */
export function encodeHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")
}

/** @throws {MalformedError} `malformed` unless `text` is lower-case hexadecimal of whole bytes */
export function parseHex(text: string, path = "hex"): Uint8Array {
  const bytes = new Uint8Array(Buffer.from(text, "hex"))
  if (encodeHex(bytes) !== text) throw new MalformedError("malformed", "not lower-case hexadecimal", { path })
  return bytes
}

/** Base64 with padding, RFC 4648 section 4. */
export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64")
}

/** @throws {MalformedError} `malformed` unless `text` is the one canonical padded base64 of some bytes */
export function parseBase64(text: string, path = "base64"): Uint8Array {
  const bytes = new Uint8Array(Buffer.from(text, "base64"))
  if (encodeBase64(bytes) !== text) throw new MalformedError("malformed", "not canonical base64", { path })
  return bytes
}

/** Base64url without padding, RFC 4648 section 5. */
export function encodeBase64Url(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64url")
}

/** @throws {MalformedError} `malformed` unless `text` is the one canonical unpadded base64url of some bytes */
export function parseBase64Url(text: string, path = "base64url"): Uint8Array {
  const bytes = new Uint8Array(Buffer.from(text, "base64url"))
  if (encodeBase64Url(bytes) !== text) throw new MalformedError("malformed", "not canonical base64url", { path })
  return bytes
}

export function encodeUtf8(text: string): Uint8Array {
  return encoder.encode(text)
}

const encoder = new TextEncoder()
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** @throws {MalformedError} `malformed` for bytes that are not UTF-8; a byte order mark is kept as a character */
export function parseUtf8(bytes: Uint8Array, path = "utf-8"): string {
  try {
    return utf8.decode(bytes)
  } catch (cause) {
    throw new MalformedError("malformed", "not UTF-8", { path, cause })
  }
}

/**
 * The text where it has at most `length` UTF-16 units, else its beginning with `mark` at the end, as long at most. A surrogate pair is not torn apart: strict readers of JSON, as
 * ours, refuse a document with half of one, and who writes a text must not be able to make a list unreadable by it.
 */
export function truncateText(text: string, length: number, mark = ""): string {
  if (text.length <= length) return text
  const kept = text.substring(0, length - mark.length)
  return `${/[\ud800-\udbff]$/.test(kept) ? kept.substring(0, kept.length - 1) : kept}${mark}`
}
