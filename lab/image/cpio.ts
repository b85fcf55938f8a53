import { concatBytes } from "../../src/bytes/compare.ts"
import { encodeUtf8 } from "../../src/bytes/text.ts"

/** One entry of an initial ram disk. Paths are relative, without leading slash; parents come before children. */
export type CpioEntry =
  | { readonly path: string; readonly kind: "folder"; readonly mode: number }
  | { readonly path: string; readonly kind: "file"; readonly mode: number; readonly data: Uint8Array }
  | { readonly path: string; readonly kind: "link"; readonly target: string }
  | { readonly path: string; readonly kind: "device"; readonly mode: number; readonly major: number; readonly minor: number }

/** A cpio archive in the "newc" form that Linux unpacks as its initial ram disk (Documentation/driver-api/early-userspace/buffer-format.rst). Owner root, time 0: equal entries give equal bytes. */
export function encodeCpio(entries: readonly CpioEntry[]): Uint8Array {
  const parts: Uint8Array[] = []
  for (const [index, entry] of [...entries, trailer].entries()) {
    const data = entry.kind === "file" ? entry.data : entry.kind === "link" ? encodeUtf8(entry.target) : new Uint8Array()
    const name = encodeUtf8(`${entry.path}\0`)
    const [major, minor] = entry.kind === "device" ? [entry.major, entry.minor] : [0, 0]
    const fields = [
      entry === trailer ? 0 : index + 1, // inode
      entry === trailer ? 0 : modeOf(entry),
      0, // uid
      0, // gid
      1, // links
      0, // mtime
      data.length,
      0, // device major
      0, // device minor
      major,
      minor,
      name.length,
      0, // check sum, unused in newc
    ]
    const header = encodeUtf8(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`)
    parts.push(header, name, padding(header.length + name.length), data, padding(data.length))
  }
  return concatBytes(...parts)
}

function modeOf(entry: CpioEntry): number {
  switch (entry.kind) {
    case "folder":
      return 0o040000 | entry.mode
    case "file":
      return 0o100000 | entry.mode
    case "link":
      return 0o120777
    case "device":
      return 0o020000 | entry.mode
  }
}

function padding(length: number): Uint8Array {
  return new Uint8Array((4 - (length % 4)) % 4)
}

const trailer: CpioEntry = { path: "TRAILER!!!", kind: "folder", mode: 0 }
