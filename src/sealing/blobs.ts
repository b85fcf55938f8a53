import { createHash } from "node:crypto"
import { join, resolve } from "node:path"
import type { Digest } from "../bytes/digest.ts"
import { viewOf } from "../bytes/view.ts"
import { SealingError } from "./errors.ts"
import type { ArtifactManifest } from "./manifest.ts"
import { openFileReader } from "./ranges.ts"
import type { RangeReader } from "./ranges.ts"

/** Where sealed blobs are: a folder, an HTTP server that answers ranges. What it gives is not trusted. */
export interface BlobSource {
  /** @throws {SealingError} `missing` */
  open(digest: Digest): Promise<RangeReader>
}

/** File name of a shard in an artifact's folder, `shard-0000.tar.age`. */
export function shardFileName(shard: number): string {
  return `shard-${String(shard).padStart(4, "0")}.tar.age`
}

/** File name of the sealed index in an artifact's folder. */
export const indexFileName = "index.json.age"
/** File name of the signed manifest in an artifact's folder. */
export const manifestFileName = "manifest.json"
/** The file of the age identity of the artifact in `folder`, `FOLDER.identity.age`: secret, mode 0600, and beside the folder, which may be handed on whole. */
export function identityPath(folder: string): string {
  return `${resolve(folder)}.identity.age`
}

/** The blobs in a folder as `sealArtifact` leaves it. */
export function artifactFolder(folder: string, manifest: ArtifactManifest): BlobSource {
  const names = new Map<Digest, string>(manifest.shards.map(({ digest }, shard) => [digest, shardFileName(shard)]))
  names.set(manifest.index.digest, indexFileName)
  return {
    async open(digest) {
      const name = names.get(digest)
      if (name === undefined) throw new SealingError("missing", `the manifest names no blob ${digest}`)
      return openFileReader(join(folder, name))
    },
  }
}

/** The blobs in a folder of content-addressed files: each is named by the 64 hexadecimal digits of its digest. */
export function blobFolder(folder: string): BlobSource {
  return { open: (digest) => openFileReader(join(folder, blobFileName(digest))) }
}

/** Name of a blob in a content-addressed folder: the digest's 64 hexadecimal digits. */
export function blobFileName(digest: Digest): string {
  return digest.substring("sha256:".length)
}

/** SHA-256 over everything in a reader. */
export async function digestOfReader(reader: RangeReader, signal?: AbortSignal, onBytes?: (bytes: number) => void): Promise<Digest> {
  const hash = createHash("sha256")
  const buffer = new Uint8Array(Math.min(1_048_576, reader.sizeBytes))
  for (let offset = 0; offset < reader.sizeBytes;) {
    signal?.throwIfAborted()
    const part = viewOf(buffer, 0, Math.min(buffer.length, reader.sizeBytes - offset))
    await reader.read(offset, part)
    hash.update(part)
    offset += part.length
    onBytes?.(part.length)
  }
  return `sha256:${hash.digest("hex")}`
}
