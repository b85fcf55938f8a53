import { concatBytes } from "../bytes/compare.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { viewOf } from "../bytes/view.ts"

// The tar shards of artifacts: POSIX.1-2008 "pax Interchange Format" with ustar headers. Every byte but the files' own follows from (path, size,
// executable): so two people who pack the same files get the same tar, offsets are known before packing, and opening needs no tar parser, but compares the
// headers with what they must be. That is why the header is made here and not by a library.

/** What a tar entry is made from. */
export interface TarFile {
  /** Checked by `checkArtifactPath`. */
  readonly path: string
  readonly sizeBytes: number
  /** Mode 0755 where true, else 0644. */
  readonly executable: boolean
}

/** Bytes of a block; everything in a tar is padded to it. */
export const tarBlockBytes = 512
/** Two empty blocks end a tar. */
export const tarEndBytes = 2 * tarBlockBytes

/** Everything before the file's content: the ustar header, and before it a pax header where ustar cannot hold path or size. A multiple of 512 bytes. */
export function encodeTarHeader(file: TarFile): Uint8Array {
  const pathBytes = encodeUtf8(file.path)
  const pax: string[] = []
  const isPlainPath = pathBytes.length === file.path.length && pathBytes.length <= nameBytes
  if (!isPlainPath) pax.push(paxRecord("path", file.path))
  if (file.sizeBytes > maxUstarSize) pax.push(paxRecord("size", String(file.sizeBytes)))
  const mode = file.executable ? 0o755 : 0o644
  const main = encodeBlock({
    // Where a pax header has the path, readers do not look at this one.
    name: isPlainPath ? pathBytes : encodeUtf8("pax-path"),
    mode,
    sizeBytes: Math.min(file.sizeBytes, maxUstarSize),
    type: "0",
  })
  if (pax.length === 0) return main
  const body = encodeUtf8(pax.join(""))
  const paxHeader = encodeBlock({ name: encodeUtf8("pax-header"), mode, sizeBytes: body.length, type: "x" })
  return concatBytes(paxHeader, body, new Uint8Array(tarPadding(body.length)), main)
}

/** Zero bytes that follow a content of this length. */
export function tarPadding(sizeBytes: number): number {
  return (tarBlockBytes - (sizeBytes % tarBlockBytes)) % tarBlockBytes
}

/** All bytes that a file takes in a tar. */
export function tarEntryBytes(file: TarFile): number {
  return encodeTarHeader(file).length + file.sizeBytes + tarPadding(file.sizeBytes)
}

/** Bytes of a whole tar. */
export function tarBytes(files: readonly TarFile[]): number {
  return files.reduce((sum, file) => sum + tarEntryBytes(file), 0) + tarEndBytes
}

interface BlockFields {
  readonly name: Uint8Array
  readonly mode: number
  readonly sizeBytes: number
  readonly type: "0" | "x"
}

/** One ustar header block; owner, group and time are 0. POSIX.1-2008, pax, "ustar Interchange Format". */
function encodeBlock({ name, mode, sizeBytes, type }: BlockFields): Uint8Array {
  const block = new Uint8Array(tarBlockBytes)
  const put = (offset: number, bytes: Uint8Array) => viewOf(block, offset, bytes.length).set(bytes)
  put(0, name)
  put(100, octal(mode, 8))
  put(108, octal(0, 8)) // uid
  put(116, octal(0, 8)) // gid
  put(124, octal(sizeBytes, 12))
  put(136, octal(0, 12)) // mtime
  put(148, encodeUtf8("        ")) // chksum, counted as spaces
  put(156, encodeUtf8(type))
  put(257, encodeUtf8("ustar\u000000")) // magic, version
  put(329, octal(0, 8)) // devmajor
  put(337, octal(0, 8)) // devminor
  const sum = block.reduce((total, byte) => total + byte, 0)
  put(148, encodeUtf8(`${sum.toString(8).padStart(6, "0")}\u0000 `))
  return block
}

/** Octal digits and a zero byte, `width` bytes together. */
function octal(value: number, width: number): Uint8Array {
  return encodeUtf8(`${value.toString(8).padStart(width - 1, "0")}\u0000`)
}

/** `length key=value\n`, where the length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`
  const restBytes = Buffer.byteLength(rest)
  let length = restBytes + 1
  while (restBytes + String(length).length !== length) length = restBytes + String(length).length
  return `${length}${rest}`
}

const nameBytes = 100
const maxUstarSize = 0o77777777777
