import { bytesEqual } from "../../bytes/compare.ts"
import { MalformedError } from "../../bytes/error.ts"
import { readAll } from "../../bytes/reader.ts"
import type { ByteReader } from "../../bytes/reader.ts"
import { encodeUtf8, parseHex, parseUtf8 } from "../../bytes/text.ts"

/** A document of Intel's PCS in two parts: the bytes that are signed, exactly as received, and the signature. */
export interface SignedJson {
  /** The signed value, not yet parsed. */
  readonly body: Uint8Array
  /** r ‖ s, 64 bytes big-endian. */
  readonly signature: Uint8Array
}

/** A TCB info has some 6 KiB, an identity less. */
export const maxDocumentBytes = 262_144
const separator = encodeUtf8(`,"signature":"`)
const end = encodeUtf8(`"}`)
const signatureDigits = 128
const newline = 0x0a

/**
 * Parts `{"<name>":<body>,"signature":"<128 lower-case hexadecimal digits>"}`, the one form in which PCS sends it; a newline may follow. Nothing of the body is read:
 * where it ends follows from the fixed length of what stands behind it.
 * @throws {MalformedError}
 */
export function splitSignedJson(document: Uint8Array, name: string): SignedJson {
  if (document.length > maxDocumentBytes)
    throw new MalformedError("too-large", `${document.length} bytes, at most ${maxDocumentBytes} are allowed`, { path: name })
  return readAll(name, document, (reader) => {
    readExactly(reader, encodeUtf8(`{"${name}":`), "begin")
    const tail = separator.length + signatureDigits + end.length + (document.at(-1) === newline ? 1 : 0)
    if (reader.remaining < tail) throw new MalformedError("truncated", "no signature", { path: name })
    const body = reader.bytes(reader.remaining - tail, "body")
    readExactly(reader, separator, "signature")
    const signature = parseHex(parseUtf8(reader.view(signatureDigits, "signature")), `${name}.signature`)
    readExactly(reader, end, "end")
    if (reader.remaining > 0) reader.u8("newline")
    return { body, signature }
  })
}

function readExactly(reader: ByteReader, expected: Uint8Array, field: string): void {
  if (!bytesEqual(reader.view(expected.length, field), expected)) throw reader.error("malformed", field, `expected ${parseUtf8(expected)}`)
}
