import * as z from "zod"
import { isDigest } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { canonicalJsonBytes, parseJson } from "../bytes/json.ts"
import { parseBase64 } from "../bytes/text.ts"
import { SealingError } from "./errors.ts"
import { malformedBy, maxFiles } from "./manifest.ts"
import { checkArtifactPaths } from "./paths.ts"
import { tarEndBytes, tarEntryBytes, tarHeaderBytes, tarPadding } from "./tar.ts"
import type { TarFile } from "./tar.ts"

/** A file of an artifact, as the encrypted index names it. */
export interface IndexedFile extends TarFile {
  /** SHA-256 of the content. */
  readonly digest: Digest
  /** Number of the shard, from 0. */
  readonly shard: number
  /** Where the content starts in the shard's plaintext (the tar). */
  readonly offset: number
}

/** The list of files inside an artifact; encrypted, because names leak. */
export interface FileIndex {
  readonly perun: 1
  /** Base64 of 32 random bytes: hides names from those who know the index's digest. */
  readonly salt: string
  /** In the order of packing: ascending by path, shards ascending. */
  readonly files: readonly IndexedFile[]
}

/** Largest index in clear; V8 cannot hold a text much longer. */
export const maxIndexBytes = 256 * 1024 * 1024

const indexSchema = z.strictObject({
  perun: z.literal(1),
  salt: z.string().length(44),
  files: z
    .array(
      z.strictObject({
        path: z.string().min(1),
        sizeBytes: z.int().min(0),
        executable: z.boolean(),
        digest: z.string().refine(isDigest, "not a digest"),
        shard: z.int().min(0),
        offset: z.int().min(0),
      }),
    )
    .max(maxFiles),
})

export function encodeFileIndex(index: FileIndex): Uint8Array {
  return canonicalJsonBytes(index)
}

/**
 * Parses an index in clear and checks what must hold for any: safe paths, ascending and single; shards ascending from 0 without gaps; offsets as packing
 * gives them.
 * @throws {MalformedError} for another form
 * @throws {SealingError} `unsafe-path`, `wrong-manifest` for offsets and shards that contradict the files
 */
export function parseFileIndex(bytes: Uint8Array): FileIndex {
  const parsed = indexSchema.safeParse(parseJson(bytes, { maxBytes: maxIndexBytes, maxDepth: 4 }))
  if (!parsed.success) throw malformedBy(parsed.error)
  const index = parsed.data
  parseBase64(index.salt, "index.salt")
  checkArtifactPaths(index.files.map(({ path }) => path))
  let shard = 0
  let end = 0
  for (const file of index.files) {
    if (file.shard === shard + 1 && end > 0) {
      shard++
      end = 0
    }
    const offset = end + tarHeaderBytes(file)
    if (file.shard !== shard || file.offset !== offset) {
      throw new SealingError("wrong-manifest", `the index puts a file at another place than packing does`, { path: "index.files" })
    }
    end = offset + file.sizeBytes + tarPadding(file.sizeBytes)
  }
  return index
}

/** The files of each shard, in order. */
export function filesByShard(files: readonly IndexedFile[], shards: number): readonly (readonly IndexedFile[])[] {
  const result: IndexedFile[][] = Array.from({ length: shards }, () => [])
  for (const file of files) {
    const list = result[file.shard]
    if (list === undefined) throw new SealingError("wrong-manifest", `the index names shard ${file.shard} of ${shards}`, { path: "index.files" })
    list.push(file)
  }
  return result
}

/** Groups files into shards of about `targetBytes` of tar, never splitting a file. Files must be in packing order. */
export function planShards<F extends TarFile>(files: readonly F[], targetBytes: number): readonly (readonly F[])[] {
  const shards: F[][] = []
  let sizeBytes = 0
  for (const file of files) {
    const entryBytes = tarEntryBytes(file)
    const current = shards.at(-1)
    if (current === undefined || sizeBytes + entryBytes + tarEndBytes > targetBytes) {
      shards.push([file])
      sizeBytes = entryBytes
    } else {
      current.push(file)
      sizeBytes += entryBytes
    }
  }
  return shards
}
