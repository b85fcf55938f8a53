import { bytesOf } from "./format.ts"

/** Whether the bits of `found` that `mask` names are those of `expected`; all three are hexadecimal of the same length. */
export function maskedEquals(found: string, mask: string, expected: string): boolean {
  const [have, bits, want] = [bytesOf(found), bytesOf(mask), bytesOf(expected)]
  if (have.length !== bits.length || want.length !== bits.length) return false
  return have.every((byte, at) => (byte & (bits[at] ?? 0)) === want[at])
}
