import { lstatSync } from "node:fs"
import type { Dirent } from "node:fs"
import { readdir } from "node:fs/promises"
import { join } from "node:path"
import { setImmediate } from "node:timers/promises"
import { MalformedError } from "../bytes/error.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { onDisk, onDiskSync, SealingError } from "./errors.ts"
import { maxFiles } from "./manifest.ts"
import { checkArtifactPaths } from "./paths.ts"
import type { SourceFile } from "./shard.ts"

/**
 * Lists the regular files below a folder in packing order. Symbolic links, devices, sockets and names that are not safe are refused, not skipped: an owner
 * must not believe that something was sealed which was not. Empty folders are not kept.
 * @throws {SealingError} `unsafe-path`, `missing`, `too-large`
 */
export async function listSourceFiles(folder: string): Promise<readonly SourceFile[]> {
  const files: SourceFile[] = []
  const pending = [""]
  for (let below = pending.pop(); below !== undefined; below = pending.pop()) {
    const here = join(folder, below)
    for (const entry of await onDisk(here, () => readdir(here, { withFileTypes: true, encoding: "buffer" }))) {
      const name = nameOf(entry, here)
      const path = below === "" ? name : `${below}/${name}`
      if (entry.isDirectory()) pending.push(path)
      else files.push(sourceFile(path, join(folder, path)))
      // The calls are synchronous, which is ten times as fast; others on this thread get their turn now and then.
      if (files.length % 1000 === 999) await setImmediate()
      if (files.length > maxFiles) throw new SealingError("too-large", `more than ${maxFiles} files in ${folder}`)
    }
  }
  files.sort((a, b) => (a.path < b.path ? -1 : 1))
  checkArtifactPaths(files.map(({ path }) => path))
  return files
}

function sourceFile(path: string, from: string): SourceFile {
  const stat = onDiskSync(from, () => lstatSync(from, { bigint: true }))
  if (!stat.isFile()) throw new SealingError("unsafe-path", `${from} is neither a regular file nor a folder`)
  return { path, from, sizeBytes: Number(stat.size), executable: (stat.mode & 0o100n) !== 0n, mtimeNs: String(stat.mtimeNs) }
}

function nameOf(entry: Dirent<NonSharedBuffer>, folder: string): string {
  try {
    return parseUtf8(entry.name)
  } catch (cause) {
    if (!(cause instanceof MalformedError)) throw cause
    throw new SealingError("unsafe-path", `a file name in ${folder} is not UTF-8`, { cause })
  }
}
