import { concatBytes } from "../bytes/compare.ts"
import { encodeUtf8 } from "../bytes/text.ts"

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

/** Everything before the file's content: the ustar header, and before it a pax header where ustar cannot hold path or size. */
export function encodeTarHeader(file: TarFile): Uint8Array {
  const mode = file.executable ? 0o755 : 0o644
  const pax = paxBody(file)
  const main = encodeBlock({
    // Where a pax header has the path, readers do not look at this one.
    name: isPlainPath(file.path) ? file.path : "pax-path",
    mode,
    sizeBytes: Math.min(file.sizeBytes, maxUstarSize),
    type: "0",
  })
  if (pax === "") return main
  const body = encodeUtf8(pax)
  const paxHeader = encodeBlock({ name: "pax-header", mode, sizeBytes: body.length, type: "x" })
  return concatBytes(paxHeader, body, new Uint8Array(tarPadding(body.length)), main)
}

/** Length of `encodeTarHeader`, without making it: a multiple of 512. */
export function tarHeaderBytes(file: TarFile): number {
  const paxBytes = Buffer.byteLength(paxBody(file))
  return paxBytes === 0 ? tarBlockBytes : 2 * tarBlockBytes + paxBytes + tarPadding(paxBytes)
}

/** Zero bytes that follow a content of this length. */
export function tarPadding(sizeBytes: number): number {
  return (tarBlockBytes - (sizeBytes % tarBlockBytes)) % tarBlockBytes
}

/** All bytes that a file takes in a tar. */
export function tarEntryBytes(file: TarFile): number {
  return tarHeaderBytes(file) + file.sizeBytes + tarPadding(file.sizeBytes)
}

/** Bytes of a whole tar. */
export function tarBytes(files: readonly TarFile[]): number {
  return files.reduce((sum, file) => sum + tarEntryBytes(file), 0) + tarEndBytes
}

interface BlockFields {
  /** ASCII, at most 100 characters. */
  readonly name: string
  readonly mode: number
  readonly sizeBytes: number
  readonly type: "0" | "x"
}

/** One ustar header block; owner, group and time are 0. POSIX.1-2008, pax, "ustar Interchange Format". */
function encodeBlock({ name, mode, sizeBytes, type }: BlockFields): Uint8Array {
  const block = new Uint8Array(tarBlockBytes)
  putAscii(block, 0, name)
  putAscii(block, 100, octal(mode, 8))
  putAscii(block, 108, octal(0, 8)) // uid
  putAscii(block, 116, octal(0, 8)) // gid
  putAscii(block, 124, octal(sizeBytes, 12))
  putAscii(block, 136, octal(0, 12)) // mtime
  putAscii(block, 148, "        ") // chksum, counted as spaces
  putAscii(block, 156, type)
  putAscii(block, 257, "ustar\u000000") // magic, version
  putAscii(block, 329, octal(0, 8)) // devmajor
  putAscii(block, 337, octal(0, 8)) // devminor
  const sum = block.reduce((total, byte) => total + byte, 0)
  putAscii(block, 148, `${sum.toString(8).padStart(6, "0")}\u0000 `)
  return block
}

function putAscii(block: Uint8Array, offset: number, text: string): void {
  for (let i = 0; i < text.length; i++) block[offset + i] = text.charCodeAt(i)
}

/** Octal digits and a zero byte, `width` characters together. */
function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, "0")}\u0000`
}

function isPlainPath(path: string): boolean {
  return path.length <= nameBytes && Buffer.byteLength(path) === path.length
}

function paxBody(file: TarFile): string {
  const path = isPlainPath(file.path) ? "" : paxRecord("path", file.path)
  return file.sizeBytes > maxUstarSize ? path + paxRecord("size", String(file.sizeBytes)) : path
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
