import { lstat, mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import * as z from "zod"
import { digestOf } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import { AgeFile, readAgeHeader } from "./age-file.ts"
import { digestOfReader } from "./blobs.ts"
import type { BlobSource } from "./blobs.ts"
import { ChunkPool } from "./chunk-pool.ts"
import { diskError, onDisk, SealingError, systemCode } from "./errors.ts"
import { filesByShard, maxIndexBytes, parseFileIndex } from "./file-index.ts"
import type { FileIndex, IndexedFile } from "./file-index.ts"
import { openHash } from "./hash-thread.ts"
import type { OrderedHash } from "./hash-thread.ts"
import { maxHeaderBytes, rewrapHeader } from "./header.ts"
import { recipientOf } from "./keys.ts"
import { maxShards, verifyManifest } from "./manifest.ts"
import type { ArtifactManifest, ManifestExpectation, SignedManifest } from "./manifest.ts"
import type { RangeReader } from "./ranges.ts"
import { progressMeter } from "./seal-artifact.ts"
import type { SealingProgress } from "./seal-artifact.ts"
import { ShardExtractor } from "./shard.ts"
import { tarBytes } from "./tar.ts"

const headerText = z.string().max(Math.ceil(maxHeaderBytes / 3) * 4)

/** New age headers for the blobs of an artifact, base64: they give its file keys to other recipients; the blobs stay as they are. */
export const rewrappedHeadersSchema = z.strictObject({ index: headerText, shards: z.array(headerText).max(maxShards) })

export type RewrappedHeaders = Readonly<z.infer<typeof rewrappedHeadersSchema>>

/** What it takes to open something of an artifact. */
export interface ArtifactAccess {
  readonly signed: SignedManifest
  readonly blobs: BlobSource
  /** The artifact's age identity; with `headers`, the identity of the recipient that they were made for. */
  readonly identity: string
  readonly headers?: RewrappedHeaders | undefined
  /** Which manifest this must be; the signature of its owner is always verified. */
  readonly expected?: ManifestExpectation | undefined
}

export interface OpenArtifactOptions extends ArtifactAccess {
  /** Folder to be made; must not exist, or be empty. */
  readonly destination: string
  /** What becomes of the files' executable bits; default `keep`. */
  readonly executables?: "keep" | "drop" | undefined
  readonly workers?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: SealingProgress) => void) | undefined
}

export interface OpenedArtifact {
  readonly manifest: ArtifactManifest
  readonly files: readonly IndexedFile[]
}

/**
 * Opens a whole artifact into a folder: manifest, sizes and digests of the ciphertext, tags of every chunk, tar, and the digest of every file are verified.
 * The files appear at `destination` only when all of it held; on any error nothing is left. Modes are 0644 (0755 for programs) in folders of 0755, under a
 * destination that only its owner enters (0700).
 * @throws {SealingError} any code
 * @throws {UnavailableError} `disk-full`, `permission-denied`
 */
export async function openArtifact(options: OpenArtifactOptions): Promise<OpenedArtifact> {
  const { manifest, index } = await openArtifactIndex(options)
  const destination = resolve(options.destination)
  await refuseOccupied(destination)
  await onDisk(dirname(destination), () => mkdir(dirname(destination), { recursive: true }))
  await removeLeftovers(destination)
  const prefix = join(dirname(destination), `.${basename(destination)}.opening-${process.pid}-`)
  // mkdtemp makes it with mode 0700.
  const temporary = await onDisk(prefix, () => mkdtemp(prefix))
  try {
    const shards = filesByShard(index.files, manifest.shards.length)
    const progress = progressMeter(
      "open",
      shards.reduce((sum, files) => sum + tarBytes(files), 0),
      options.onProgress,
    )
    await using pool = new ChunkPool(options.workers)
    await using hash = openHash(manifest.files.bytes, options.workers)
    const tools = { pool, hash, folder: temporary, folders: new Set<string>(), progress }
    for (const [shard, files] of shards.entries()) await openShard(options, manifest, shard, files, tools)
    await onDisk(destination, () => rename(temporary, destination))
    return { manifest, files: index.files }
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    throw error
  }
}

/**
 * Opens only the index: which files the artifact holds. `bytes` is the index in clear.
 * @throws {SealingError} any code
 */
export async function openArtifactIndex(
  access: ArtifactAccess,
): Promise<{ readonly manifest: ArtifactManifest; readonly index: FileIndex; readonly bytes: Uint8Array }> {
  const manifest = verifyManifest(access.signed, access.expected)
  await checkKey(access, manifest)
  const bytes = await openIndexBlob(access, manifest)
  if (digestOf(bytes) !== manifest.index.saltedDigest) {
    throw new SealingError("wrong-manifest", "the index is not the one that the manifest names", { path: "index" })
  }
  const index = parseFileIndex(bytes)
  const contentBytes = index.files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const shards = index.files.at(-1)?.shard ?? -1
  if (index.files.length !== manifest.files.count || contentBytes !== manifest.files.bytes || shards + 1 !== manifest.shards.length) {
    throw new SealingError("wrong-manifest", "number of files, bytes or shards differs between index and manifest", { path: "index" })
  }
  return { manifest, index, bytes }
}

/**
 * A part of the plaintext (tar) of one shard, without reading the rest: `offset` and `lengthBytes` as in the index. Each chunk is authentic under the
 * artifact's key; the digest of the whole shard is not checked, which takes `openArtifact` or `verifyArtifact`.
 * @throws {SealingError} any code @throws {TypeError} for a range outside the shard
 */
export async function openShardRange(access: ArtifactAccess, shard: number, offset: number, lengthBytes: number): Promise<Uint8Array> {
  const manifest = verifyManifest(access.signed, access.expected)
  await checkKey(access, manifest)
  const named = manifest.shards[shard]
  if (named === undefined) throw new TypeError(`the artifact has ${manifest.shards.length} shards, no number ${shard}`)
  await using reader = await access.blobs.open(named.digest)
  refuseOtherSize(reader, named.sizeBytes, `shards[${shard}]`)
  const file = await AgeFile.open(reader, access.identity, replacedHeader(access, shard))
  return await file.readRange(offset, lengthBytes)
}

export interface VerifyArtifactOptions {
  readonly signed: SignedManifest
  readonly blobs: BlobSource
  readonly expected?: ManifestExpectation | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: SealingProgress) => void) | undefined
}

/**
 * Verifies an artifact without its key: the manifest's signature, and size and digest of every blob.
 * @throws {SealingError} `wrong-manifest`, `missing`, `truncated`, `trailing-data`, `reordered`, `corrupt`
 */
export async function verifyArtifact(options: VerifyArtifactOptions): Promise<ArtifactManifest> {
  const manifest = verifyManifest(options.signed, options.expected)
  const blobs = [...manifest.shards, manifest.index]
  const progress = progressMeter(
    "verify",
    blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    options.onProgress,
  )
  for (const [number, blob] of blobs.entries()) {
    const path = number < manifest.shards.length ? `shards[${number}]` : "index"
    await using reader = await options.blobs.open(blob.digest)
    const difference = await blobDifference(reader, blob, manifest, path, options.signal, progress)
    if (difference !== undefined) throw difference
  }
  return manifest
}

/**
 * New headers that give an artifact to other recipients (age, all of one kind) without touching its blobs: what releases an output to its consumers.
 * Only the start of each blob is read.
 * @throws {SealingError} `wrong-key`, `wrong-manifest`, `corrupt`, `malformed`, `unsupported`, `missing`
 */
export async function rewrapArtifact(access: Omit<ArtifactAccess, "headers">, recipients: readonly string[]): Promise<RewrappedHeaders> {
  const manifest = verifyManifest(access.signed, access.expected)
  await checkKey(access, manifest)
  const rewrap = async (digest: Digest) => {
    await using reader = await access.blobs.open(digest)
    return encodeBase64(await rewrapHeader((await readAgeHeader(reader)).bytes, access.identity, recipients))
  }
  const shards: string[] = []
  for (const { digest } of manifest.shards) shards.push(await rewrap(digest))
  return { index: await rewrap(manifest.index.digest), shards }
}

async function openIndexBlob(access: ArtifactAccess, manifest: ArtifactManifest): Promise<Uint8Array> {
  if (manifest.index.sizeBytes > maxIndexBytes) throw new SealingError("too-large", "the index is larger than this version reads", { path: "index" })
  await using reader = await access.blobs.open(manifest.index.digest)
  // Small beside the shards, so it is checked as a whole before anything of it is used.
  const difference = await blobDifference(reader, manifest.index, manifest, "index")
  if (difference !== undefined) throw difference
  const file = await AgeFile.open(reader, access.identity, replacedHeader(access, "index"))
  return await file.readRange(0, file.sizeBytes)
}

/** What the shards of one artifact are opened with. */
interface OpeningTools {
  readonly pool: ChunkPool
  readonly hash: OrderedHash
  /** Where the files go for the time being. */
  readonly folder: string
  /** Folders that were made in it. */
  readonly folders: Set<string>
  readonly progress: (bytes: number) => void
}

async function openShard(
  options: OpenArtifactOptions,
  manifest: ArtifactManifest,
  shard: number,
  files: readonly IndexedFile[],
  { pool, hash, folder, folders, progress }: OpeningTools,
): Promise<void> {
  const path = `shards[${shard}]`
  const named = manifest.shards[shard]
  if (named === undefined) throw new Error(`internal: no shard ${shard}`)
  await using reader = await options.blobs.open(named.digest)
  try {
    refuseOtherSize(reader, named.sizeBytes, path)
    const file = await AgeFile.open(reader, options.identity, replacedHeader(options, shard))
    await using extractor = new ShardExtractor(files, folder, folders, options.executables ?? "keep")
    await file.stream({
      pool,
      signal: options.signal,
      hash,
      sink: {
        async write(bytes) {
          await extractor.write(bytes)
          progress(bytes.length)
        },
      },
    })
    await extractor.finish()
    if ((await hash.digest()) !== named.digest) throw new SealingError("corrupt", "the shard's digest is another", { path })
  } catch (error) {
    if (!(error instanceof SealingError)) throw error
    // A blob that is not the named one explains whatever went wrong inside it.
    throw (await blobDifference(reader, named, manifest, path, options.signal)) ?? error
  }
}

/** How a blob differs from what the manifest names; undefined when it does not. */
export async function blobDifference(
  reader: RangeReader,
  named: { readonly digest: Digest; readonly sizeBytes: number },
  manifest: ArtifactManifest,
  path: string,
  signal?: AbortSignal,
  onBytes?: (bytes: number) => void,
): Promise<SealingError | undefined> {
  const digest = await digestOfReader(reader, signal, onBytes)
  if (digest === named.digest) return undefined
  const other = manifest.shards.findIndex((shard) => shard.digest === digest)
  if (other >= 0) return new SealingError("reordered", `this is shard ${other}`, { path })
  if (digest === manifest.index.digest) return new SealingError("reordered", "this is the index", { path })
  const found = `found ${reader.sizeBytes} bytes, the manifest names ${named.sizeBytes}`
  if (reader.sizeBytes < named.sizeBytes) return new SealingError("truncated", found, { path })
  if (reader.sizeBytes > named.sizeBytes) return new SealingError("trailing-data", found, { path })
  return new SealingError("corrupt", `the digest is ${digest}, the manifest names ${named.digest}`, { path })
}

function refuseOtherSize(reader: RangeReader, sizeBytes: number, path: string): void {
  if (reader.sizeBytes === sizeBytes) return
  const code = reader.sizeBytes < sizeBytes ? "truncated" : "trailing-data"
  throw new SealingError(code, `found ${reader.sizeBytes} bytes, the manifest names ${sizeBytes}`, { path })
}

/** The identity must be the artifact's own; rewrapped headers are for another one, which their MAC then proves. */
async function checkKey(access: ArtifactAccess, manifest: ArtifactManifest): Promise<void> {
  if (access.headers !== undefined) {
    if (access.headers.shards.length === manifest.shards.length) return
    throw new SealingError("wrong-manifest", "the rewrapped headers are for another number of shards", { path: "headers.shards" })
  }
  if ((await recipientOf(access.identity)) !== manifest.recipient) {
    throw new SealingError("wrong-key", "the identity is not the one that the manifest names", { path: "recipient" })
  }
}

function replacedHeader(access: ArtifactAccess, which: number | "index"): Uint8Array | undefined {
  if (access.headers === undefined) return undefined
  const text = which === "index" ? access.headers.index : access.headers.shards[which]
  if (text === undefined) throw new Error(`internal: no header for shard ${which}`)
  return parseBase64(text, "headers")
}

/** What a process that was killed while it opened into this destination left beside it is plaintext: it goes, unless the process still runs. */
async function removeLeftovers(destination: string): Promise<void> {
  const folder = dirname(destination)
  const start = `.${basename(destination)}.opening-`
  for (const name of await onDisk(folder, () => readdir(folder))) {
    const pid = name.startsWith(start) ? /^([1-9][0-9]{0,9})-[A-Za-z0-9]{6}$/.exec(name.replace(start, ""))?.[1] : undefined
    if (pid !== undefined && !isRunning(Number(pid))) await rm(join(folder, name), { recursive: true, force: true })
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    // ESRCH: no such process. Anything else, as EPERM, means that there is one.
    return systemCode(error) !== "ESRCH"
  }
}

/** @throws {SealingError} `not-empty` unless nothing is there, or an empty folder */
export async function refuseOccupied(destination: string): Promise<void> {
  try {
    const found = await lstat(destination)
    if (found.isSymbolicLink()) throw new SealingError("not-empty", `${destination} is a link`)
    if (!found.isDirectory()) throw new SealingError("not-empty", `${destination} is a file`)
    if ((await readdir(destination)).length > 0) throw new SealingError("not-empty", `${destination} is not empty`)
  } catch (cause) {
    if (systemCode(cause) === "ENOENT") return
    if (systemCode(cause) === "ENOTDIR") throw new SealingError("not-empty", `${destination} lies below a file`)
    throw diskError(destination, cause)
  }
}
