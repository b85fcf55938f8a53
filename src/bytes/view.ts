/**
 * A view of exactly `length` bytes at `start`, sharing memory. `subarray` would clamp a range that does not fit; this is wrong use and throws.
 * For buffers that the program owns; bytes of others are parsed with ByteReader.
 * @throws {TypeError} unless the range lies inside `bytes`
 */
export function viewOf(bytes: Uint8Array, start: number, length: number): Uint8Array {
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(length) || start < 0 || length < 0 || start + length > bytes.length) {
    throw new TypeError(`range of ${length} bytes at ${start} does not lie inside ${bytes.length} bytes`)
  }
  return bytes.subarray(start, start + length)
}
