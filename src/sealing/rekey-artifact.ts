import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import type { Digest } from "../bytes/digest.ts"
import { AgeFile, type PlainSource, sealAgeFile } from "./age-file.ts"
import { shardFileName } from "./blobs.ts"
import { ChunkPool } from "./chunk-pool.ts"
import { EarlySync, writeDurably } from "./durable.ts"
import { onDisk } from "./errors.ts"
import { openHash, type OrderedHash } from "./hash-thread.ts"
import type { RecipientKind } from "./keys.ts"
import { type ArtifactManifest, manifestDigest, type ManifestSigner } from "./manifest.ts"
import { type ArtifactAccess, blobDifference, openArtifactIndex } from "./open-artifact.ts"
import { FileSink } from "./ranges.ts"
import {
  artifactKey,
  finishArtifact,
  finishedShard,
  keepRecord,
  progressMeter,
  refuseFinished,
  removeStale,
  type SealedArtifact,
  type SealingProgress,
  type ShardRecord,
} from "./seal-artifact.ts"

export interface RekeyArtifactOptions {
  /** The artifact with its present key. */
  readonly from: Omit<ArtifactAccess, "headers">
  /** Folder for the result; made when it is not there. */
  readonly output: string
  /** Who signs the new manifest: its owner, or what became of it. */
  readonly signer: ManifestSigner
  readonly key: { readonly generate: RecipientKind }
  /** Time of making for the manifest, ISO 8601 in UTC. */
  readonly created?: string | undefined
  readonly workers?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: SealingProgress) => void) | undefined
}

/**
 * Seals an artifact to a key of its own anew, without its files in clear on a disk: every shard gets another file key too, so that neither the former identity nor headers of the former
 * ciphertext open anything of it. Files, shards and the index in clear stay as they are. After an interrupt the same call goes on.
 * @throws {SealingError} `wrong-key`, `wrong-manifest`, and what else is wrong with the artifact; `not-empty`; {UnavailableError} `disk-full`, `permission-denied`
 */
export async function rekeyArtifact(options: RekeyArtifactOptions): Promise<SealedArtifact> {
  const { from, output, signer } = options
  const { manifest, bytes: index } = await openArtifactIndex(from)
  await onDisk(output, () => mkdir(output, { recursive: true }))
  await refuseFinished(output)
  const { recipient, identity } = await artifactKey(options)
  if (identity === undefined) throw new TypeError("internal: an artifact's own key has an identity")
  await removeStale(output, manifest.shards.length)
  const totalBytes = manifest.shards.reduce((sum, shard) => sum + shard.sizeBytes, 0)
  const progress = progressMeter("rekey", totalBytes, options.onProgress)
  await using pool = new ChunkPool(options.workers)
  await using hash = openHash(totalBytes, options.workers)
  const records: ShardRecord[] = []
  let resumedShards = 0
  for (const [shard, { digest, sizeBytes }] of manifest.shards.entries()) {
    const kept = await finishedShard(output, shard, { digest, files: 0 }, identity)
    if (kept === undefined) records.push(await rekeyShard(options, manifest, shard, { pool, hash, recipient }))
    else {
      records.push(kept)
      resumedShards++
    }
    progress(sizeBytes)
  }
  const { kind, name, files } = manifest
  const signed = await finishArtifact(output, signer, { kind, name, recipient, records, index, files, created: options.created })
  return { signed, digest: manifestDigest(signed.manifest), resumedShards }
}

interface RekeyTools {
  readonly pool: ChunkPool
  readonly hash: OrderedHash
  readonly recipient: string
}

async function rekeyShard(
  { from, output, signal }: RekeyArtifactOptions,
  manifest: ArtifactManifest,
  shard: number,
  { pool, hash, recipient }: RekeyTools,
): Promise<ShardRecord> {
  const named = manifest.shards[shard]
  if (named === undefined) throw new TypeError(`internal: no shard ${shard}`)
  await using reader = await from.blobs.open(named.digest)
  // Held against the manifest as a whole before anything of it is sealed again: chunks are authentic by themselves, but could be those of another sealing.
  const difference = await blobDifference(reader, named, manifest, `shards[${shard}]`, signal)
  if (difference !== undefined) throw difference
  const file = await AgeFile.open(reader, from.identity)
  const path = join(output, shardFileName(shard))
  const sealed = await writeDurably(path, 0o644, async (handle) => {
    const sink = new FileSink(handle, path)
    await using disk = new EarlySync(handle)
    await sealAgeFile({ pool, recipients: [recipient], source: plaintextOf(file), sink, signal, hash, onBytes: (bytes) => disk.wrote(bytes) })
    return { digest: await hash.digest(), sizeBytes: sink.sizeBytes } satisfies { digest: Digest; sizeBytes: number }
  })
  const record: ShardRecord = { plan: named.digest, ...sealed, files: [] }
  await keepRecord(output, shard, record, recipient)
  return record
}

function plaintextOf(file: AgeFile): PlainSource {
  let at = 0
  return {
    sizeBytes: file.sizeBytes,
    async fill(into) {
      into.set(await file.readRange(at, into.length))
      at += into.length
    },
  }
}
