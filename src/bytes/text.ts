import { MalformedError } from "./error.ts"

const hexForm = /^(?:[0-9a-f]{2})*$/
const base64Form = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/
const base64UrlForm = /^[A-Za-z0-9_-]*$/

/** Lower-case hexadecimal. */
export function encodeHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")
}

/** @throws {MalformedError} `malformed` unless `text` is lower-case hexadecimal of whole bytes */
export function parseHex(text: string, path = "hex"): Uint8Array {
  if (!hexForm.test(text)) throw new MalformedError("malformed", "not lower-case hexadecimal", { path })
  return new Uint8Array(Buffer.from(text, "hex"))
}

/** Base64 with padding, RFC 4648 section 4. */
export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64")
}

/** @throws {MalformedError} `malformed` unless `text` is the one canonical padded base64 of some bytes */
export function parseBase64(text: string, path = "base64"): Uint8Array {
  const bytes = base64Form.test(text) ? new Uint8Array(Buffer.from(text, "base64")) : undefined
  if (bytes === undefined || encodeBase64(bytes) !== text) throw new MalformedError("malformed", "not canonical base64", { path })
  return bytes
}

/** Base64url without padding, RFC 4648 section 5. */
export function encodeBase64Url(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64url")
}

/** @throws {MalformedError} `malformed` unless `text` is the one canonical unpadded base64url of some bytes */
export function parseBase64Url(text: string, path = "base64url"): Uint8Array {
  const bytes = base64UrlForm.test(text) ? new Uint8Array(Buffer.from(text, "base64url")) : undefined
  if (bytes === undefined || encodeBase64Url(bytes) !== text) throw new MalformedError("malformed", "not canonical base64url", { path })
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
