import { bytesOf } from "./format.ts"

/** Bits of a little-endian field, given as hexadecimal: those with a name, in order, and the numbers of those without. */
export function bitNames<Name extends string>(
  field: string,
  table: ReadonlyMap<number, Name>,
): { readonly names: readonly Name[]; readonly unknown: readonly number[] } {
  const names: Name[] = []
  const unknown: number[] = []
  for (const [at, byte] of bytesOf(field).entries()) {
    for (let bit = 0; bit < 8; bit++) {
      if ((byte & (1 << bit)) === 0) continue
      const name = table.get(at * 8 + bit)
      if (name === undefined) unknown.push(at * 8 + bit)
      else names.push(name)
    }
  }
  return { names, unknown }
}
