import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { readdir } from "node:fs/promises"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { encodeHex } from "../../src/bytes/text.ts"

/** What a laboratory's TD starts from and what it loads, each as a SHA-384 in lower-case hexadecimal. */
export interface ProgramMeasurement {
  /** Node's binary, in the place of a firmware: MRTD. */
  readonly runtime: string
  /** The program's own files, by path and content: extends RTMR1. */
  readonly source: string
  /** The lock file, which names each package by its digest: extends RTMR2. What lies in node_modules is not read again. */
  readonly packages: string
}

/** The repository that this file is part of. */
export const repository = fileURLToPath(new URL("../..", import.meta.url))

/** Measures this program as it lies on disk: what a manager of this checkout, started by this Node, is made of. */
export async function measureProgram(root: string = repository, runtime: string = process.execPath): Promise<ProgramMeasurement> {
  const files = (await readdir(join(root, "src"), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && !/\.(?:test|testing)\.ts$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .toSorted()
  const source = createHash("sha384")
  for (const file of files) source.update(`${file}\0${await fileDigest(join(root, file))}\n`)
  return { runtime: await fileDigest(runtime), source: source.digest("hex"), packages: await fileDigest(join(root, "package-lock.json")) }
}

async function fileDigest(path: string): Promise<string> {
  const hash = createHash("sha384")
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array)
  return hash.digest("hex")
}

/** Value of a register after its first extension. */
export function extendedOnce(digest: string): string {
  const hash = createHash("sha384").update(new Uint8Array(48)).update(Buffer.from(digest, "hex"))
  return encodeHex(new Uint8Array(hash.digest()))
}
