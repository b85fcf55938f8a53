/** What the page's code calls of Node's `Buffer`, and no more: text of bytes and back, as lenient as Node's own, for callers compare what comes back. */

type Encoding = "hex" | "base64" | "base64url"

class Bytes extends Uint8Array {
  override toString(encoding?: Encoding): string {
    switch (encoding) {
      case "hex":
        return Array.from(this, (byte) => byte.toString(16).padStart(2, "0")).join("")
      case "base64":
        return toBase64(this)
      case "base64url":
        return toBase64(this).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")
      case undefined:
        throw new TypeError("say in which form")
    }
  }
}

/** In pieces, for arguments of a call are limited. */
function toBase64(bytes: Uint8Array): string {
  let text = ""
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192))
  return btoa(text)
}

function from(text: string, encoding: Encoding): Uint8Array
function from(buffer: ArrayBuffer, offset: number, length: number): Bytes
function from(input: string | ArrayBuffer, second: Encoding | number, length?: number): Uint8Array {
  if (typeof input !== "string") return new Bytes(input, second as number, length)
  return second === "hex" ? ofHex(input) : ofBase64(input)
}

function ofHex(text: string): Uint8Array {
  const pairs = /^(?:[0-9a-fA-F]{2})*/.exec(text)?.[0] ?? ""
  const bytes = new Uint8Array(pairs.length / 2)
  for (let index = 0; index < bytes.length; index++) bytes[index] = Number.parseInt(pairs.slice(2 * index, 2 * index + 2), 16)
  return bytes
}

function ofBase64(text: string): Uint8Array {
  const letters = text
    .replaceAll("-", "+")
    .replaceAll("_", "/")
    .replaceAll(/[^A-Za-z0-9+/]/g, "")
  const whole = letters.length % 4 === 1 ? letters.slice(0, -1) : letters
  const binary = atob(whole.padEnd(Math.ceil(whole.length / 4) * 4, "="))
  const bytes = new Uint8Array(binary.length)
  for (let index = 0; index < bytes.length; index++) bytes[index] = binary.charCodeAt(index)
  return bytes
}

export const Buffer = {
  from,
  byteLength: (text: string): number => new TextEncoder().encode(text).length,
  isBuffer: (): boolean => false,
} as const
