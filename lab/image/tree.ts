import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { lstat, lutimes, open, readdir } from "node:fs/promises"
import { join } from "node:path"
import { pipeline } from "node:stream/promises"
import type { Digest } from "../../src/bytes/digest.ts"

/** A regular file of an image. */
export interface ImageFile {
  /** Absolute path in the guest. */
  readonly path: string
  readonly digest: Digest
  /** It can be executed or mapped as code: its mode says so or it is an ELF file. */
  readonly program: boolean
}

export interface TreeEntry {
  /** Relative to the tree, without leading slash. */
  readonly path: string
  readonly kind: "file" | "folder" | "link" | "other"
  readonly mode: number
  readonly sizeBytes: number
}

/** Everything in a folder, sorted by path in code point order, without the folder itself. */
export async function listTree(root: string): Promise<readonly TreeEntry[]> {
  const entries: TreeEntry[] = []
  async function visit(folder: string): Promise<void> {
    for (const name of (await readdir(join(root, folder))).sort()) {
      const path = folder === "" ? name : `${folder}/${name}`
      const found = await lstat(join(root, path))
      const kind = found.isFile() ? "file" : found.isDirectory() ? "folder" : found.isSymbolicLink() ? "link" : "other"
      entries.push({ path, kind, mode: found.mode & 0o7777, sizeBytes: found.size })
      if (kind === "folder") await visit(path)
    }
  }
  await visit("")
  return entries
}

/** Digests of all regular files, with the guest's path of the tree's root put before each. */
export async function digestTree(root: string, entries: readonly TreeEntry[], guestRoot: string): Promise<readonly ImageFile[]> {
  const files = entries.filter((entry) => entry.kind === "file")
  const results: ImageFile[] = []
  let next = 0
  async function work(): Promise<void> {
    for (let index = next++; index < files.length; index = next++) {
      const file = files[index]
      if (file === undefined) return
      const path = join(root, file.path)
      const program = (file.mode & 0o111) !== 0 || (await isElf(path))
      results[index] = { path: `${guestRoot}/${file.path}`, digest: await digestOfFile(path), program }
    }
  }
  await Promise.all(Array.from({ length: parallelReads }, work))
  return results
}

export async function digestOfFile(path: string): Promise<Digest> {
  const hash = createHash("sha256")
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  return `sha256:${hash.digest("hex")}`
}

/** Gives every entry and the folder itself the same time, so that two builds agree. */
export async function setTimes(root: string, entries: readonly TreeEntry[], epochSeconds: number): Promise<void> {
  for (const { path } of entries.toReversed()) await lutimes(join(root, path), epochSeconds, epochSeconds)
  await lutimes(root, epochSeconds, epochSeconds)
}

async function isElf(path: string): Promise<boolean> {
  const file = await open(path, "r")
  try {
    const magic = new Uint8Array(4)
    const { bytesRead } = await file.read(magic, 0, 4, 0)
    return bytesRead === 4 && magic.every((byte, index) => byte === elfMagic[index])
  } finally {
    await file.close()
  }
}

const elfMagic = [0x7f, 0x45, 0x4c, 0x46]
const parallelReads = 4
