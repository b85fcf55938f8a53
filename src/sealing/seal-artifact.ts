import { randomBytes } from "node:crypto"
import { link, mkdir, readdir, readFile, rm } from "node:fs/promises"
import { dirname, join, resolve, sep } from "node:path"
import * as z from "zod"
import { digestOf, digestOfJson, isDigest } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { canonicalJsonBytes, parseJson } from "../bytes/json.ts"
import { encodeBase64, encodeUtf8, parseUtf8 } from "../bytes/text.ts"
import { openAgeBytes, sealAgeBytes, sealAgeFile } from "./age-file.ts"
import { digestOfReader, identityPath, indexFileName, manifestFileName, shardFileName } from "./blobs.ts"
import { ChunkPool } from "./chunk-pool.ts"
import { EarlySync, syncFolder, temporaryName, writeBytesDurably, writeDurably } from "./durable.ts"
import { onDisk, SealingError, systemCode } from "./errors.ts"
import { encodeFileIndex, maxIndexBytes, planShards } from "./file-index.ts"
import type { IndexedFile } from "./file-index.ts"
import { openHash } from "./hash-thread.ts"
import type { OrderedHash } from "./hash-thread.ts"
import { generateAgeIdentity, identityKind, recipientKind, recipientOf } from "./keys.ts"
import type { RecipientKind } from "./keys.ts"
import { artifactManifestSchema, malformedBy, manifestDigest } from "./manifest.ts"
import type { ArtifactKind, ArtifactManifest, ManifestSigner, SignedManifest } from "./manifest.ts"
import { FileSink, openFileReader } from "./ranges.ts"
import { ShardSource } from "./shard.ts"
import type { SourceFile } from "./shard.ts"
import { listSourceFiles } from "./source-folder.ts"
import { tarBytes, tarHeaderBytes, tarPadding } from "./tar.ts"

/** Size of a tar shard that packing aims at; a larger file makes a larger shard of its own. */
export const defaultShardBytes = 256_000_000

/** How far sealing, opening or verifying is; bytes of plaintext when sealing, opening and rekeying, of ciphertext when verifying. */
export interface SealingProgress {
  readonly phase: "seal" | "open" | "verify" | "rekey"
  readonly doneBytes: number
  readonly totalBytes: number
}

export interface SealArtifactOptions {
  /** Folder whose regular files are sealed. */
  readonly source: string
  /** Folder for the result; made when it is not there. Outside of `source`. */
  readonly output: string
  readonly kind: ArtifactKind
  /** Lower-case letters, digits, `.`, `_`, `-`; at most 64. Public. */
  readonly name: string
  readonly signer: ManifestSigner
  /**
   * What to seal to. A kind of recipient: the artifact gets a fresh identity, kept in `identityPath(output)` (0600). A recipient: the identity is elsewhere,
   * and nothing secret is written; such a sealing starts over after an interrupt.
   */
  readonly key?: { readonly generate: RecipientKind } | { readonly recipient: string } | undefined
  readonly shardBytes?: number | undefined
  /** What becomes of the files' executable bits; default `keep`. What a job made is never sealed as a program, and the bits would tell things by the way. */
  readonly executables?: "keep" | "drop" | undefined
  /** Time of making for the manifest, ISO 8601 in UTC. */
  readonly created?: string | undefined
  /** Worker threads; default one per processor. */
  readonly workers?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: SealingProgress) => void) | undefined
}

export interface SealedArtifact {
  readonly signed: SignedManifest
  /** `manifestDigest` of the manifest: what a policy names. */
  readonly digest: Digest
  /** Shards that an earlier, interrupted run had finished. */
  readonly resumedShards: number
}

/**
 * Seals the files of a folder as an artifact: tar shards, each an age file; a sealed index; a signed manifest. After an interrupt the same call goes on:
 * finished shards are kept when neither they nor their files changed.
 * @throws {SealingError} `unsafe-path`, `source-changed`, `missing`, `not-empty` when the output holds a finished artifact, `malformed`, `too-large`
 * @throws {UnavailableError} `disk-full`, `permission-denied`
 */
export async function sealArtifact(options: SealArtifactOptions): Promise<SealedArtifact> {
  const { output } = options
  checkDescription(options)
  refuseOutputInSource(options.source, output)
  const found = await listSourceFiles(options.source)
  const files = options.executables === "drop" ? found.map((file) => ({ ...file, executable: false })) : found
  await onDisk(output, () => mkdir(output, { recursive: true }))
  await refuseFinished(output)
  const key = await artifactKey(options)
  const plan = planShards(files, options.shardBytes ?? defaultShardBytes)
  await removeStale(output, plan.length)

  const totalBytes = plan.reduce((sum, shard) => sum + tarBytes(shard), 0)
  const progress = progressMeter("seal", totalBytes, options.onProgress)
  await using pool = new ChunkPool(options.workers)
  await using hash = openHash(totalBytes, options.workers)
  const records: ShardRecord[] = []
  let resumedShards = 0
  for (const [shard, shardFiles] of plan.entries()) {
    const kept = key.identity === undefined ? undefined : await finishedShard(output, shard, planOf(shardFiles), key.identity)
    if (kept !== undefined) {
      resumedShards++
      progress(tarBytes(shardFiles))
    }
    records.push(kept ?? (await sealShard(options, { pool, hash, key, progress }, shard, shardFiles)))
  }
  const signed = await finish(options, plan, records, key.recipient)
  return { signed, digest: manifestDigest(signed.manifest), resumedShards }
}

interface ArtifactKey {
  readonly recipient: string
  /** Undefined where only the recipient is known. */
  readonly identity: string | undefined
}

/** What is known of a finished shard; sealed like the rest, because it tells about the files. */
const shardRecordSchema = z.strictObject({
  /** Digest over the files' paths, sizes, modes and times. */
  plan: z.string().refine(isDigest),
  digest: z.string().refine(isDigest),
  sizeBytes: z.int().min(0),
  files: z.array(z.string().refine(isDigest)),
})

export type ShardRecord = z.infer<typeof shardRecordSchema>

/** What the shards of one artifact are sealed with. */
interface SealingTools {
  readonly pool: ChunkPool
  readonly hash: OrderedHash
  readonly key: ArtifactKey
  readonly progress: (bytes: number) => void
}

async function sealShard(
  options: SealArtifactOptions,
  { pool, hash, key, progress }: SealingTools,
  shard: number,
  files: readonly SourceFile[],
): Promise<ShardRecord> {
  await using source = new ShardSource(files)
  const path = join(options.output, shardFileName(shard))
  const sealed = await writeDurably(path, 0o644, async (file) => {
    const sink = new FileSink(file, path)
    await using disk = new EarlySync(file)
    await sealAgeFile({
      pool,
      recipients: [key.recipient],
      source,
      sink,
      signal: options.signal,
      hash,
      onBytes: (bytes) => {
        progress(bytes)
        disk.wrote(bytes)
      },
    })
    return { digest: await hash.digest(), sizeBytes: sink.sizeBytes }
  })
  const record: ShardRecord = { plan: planOf(files).digest, ...sealed, files: [...source.digests] }
  if (key.identity !== undefined) await keepRecord(options.output, shard, record, key.recipient)
  return record
}

/** Notes that a shard is finished, for the run that goes on after an interrupt. */
export async function keepRecord(output: string, shard: number, record: ShardRecord, recipient: string): Promise<void> {
  await writeBytesDurably(join(output, recordFileName(shard)), 0o600, await sealAgeBytes(canonicalJsonBytes(record), [recipient]))
}

/** What a shard is made of: a finished one is kept only where it was made of the same. */
interface ShardPlan {
  readonly digest: Digest
  /** How many file digests its record has. */
  readonly files: number
}

/** The record of a shard that an earlier run finished, when the shard and its files are still the same. */
export async function finishedShard(output: string, shard: number, plan: ShardPlan, identity: string): Promise<ShardRecord | undefined> {
  try {
    const bytes = await openAgeBytes(new Uint8Array(await readFile(join(output, recordFileName(shard)))), identity)
    const record = shardRecordSchema.parse(parseJson(bytes, { maxBytes: maxIndexBytes }))
    if (record.plan !== plan.digest || record.files.length !== plan.files) return undefined
    await using reader = await openFileReader(join(output, shardFileName(shard)))
    if (reader.sizeBytes !== record.sizeBytes || (await digestOfReader(reader)) !== record.digest) return undefined
    return record
  } catch (error) {
    // No record, or one that does not read: the shard is sealed again. Anything else, e.g. a failing disk, must be seen.
    if (error instanceof PerunError || error instanceof z.ZodError || systemCode(error) === "ENOENT") return undefined
    throw error
  }
}

async function finish(
  options: SealArtifactOptions,
  plan: readonly (readonly SourceFile[])[],
  records: readonly ShardRecord[],
  recipient: string,
): Promise<SignedManifest> {
  const { output, signer } = options
  const files = plan.flatMap((shardFiles, shard) => indexedFiles(shardFiles, shard, records[shard]?.files ?? []))
  const index = encodeFileIndex({ perun: 1, salt: encodeBase64(new Uint8Array(randomBytes(32))), files })
  if (index.length > maxIndexBytes) throw new SealingError("too-large", `the index of files is larger than ${maxIndexBytes} bytes`)
  return finishArtifact(output, signer, {
    kind: options.kind,
    name: options.name,
    recipient,
    records,
    index,
    files: { count: files.length, bytes: files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) },
    created: options.created,
  })
}

/** What an artifact's manifest is made of once its shards are there. */
export interface FinishedParts extends Pick<ArtifactManifest, "kind" | "name" | "recipient" | "files"> {
  readonly records: readonly Pick<ShardRecord, "digest" | "sizeBytes">[]
  /** The index in clear. */
  readonly index: Uint8Array
  readonly created?: string | undefined
}

/** Seals the index, signs the manifest, and removes what only an unfinished artifact needs. @throws as `sealArtifact` */
export async function finishArtifact(output: string, signer: ManifestSigner, parts: FinishedParts): Promise<SignedManifest> {
  const { kind, name, recipient, records, index, files, created } = parts
  const sealedIndex = await sealAgeBytes(index, [recipient])
  await writeBytesDurably(join(output, indexFileName), 0o644, sealedIndex)
  const manifest: ArtifactManifest = {
    perun: 1,
    kind,
    owner: signer.owner,
    name,
    recipient,
    shards: records.map(({ digest, sizeBytes }) => ({ digest, sizeBytes })),
    index: { digest: digestOf(sealedIndex), sizeBytes: sealedIndex.length, saltedDigest: digestOf(index) },
    files,
    ...(created === undefined ? {} : { created }),
  }
  const checked = artifactManifestSchema.safeParse(manifest)
  if (!checked.success) throw malformedBy(checked.error)
  const signed: SignedManifest = { manifest, signature: await signer.sign(manifestDigest(manifest)) }
  await writeBytesDurably(join(output, manifestFileName), 0o644, encodeUtf8(`${JSON.stringify(signed, null, 2)}\n`))
  for (const leftover of [unfinishedFileName, ...records.map((_, shard) => recordFileName(shard))]) await rm(join(output, leftover), { force: true })
  await syncFolder(output)
  return signed
}

function indexedFiles(files: readonly SourceFile[], shard: number, digests: readonly Digest[]): IndexedFile[] {
  let end = 0
  return files.map(({ path, sizeBytes, executable }, number) => {
    const digest = digests[number]
    if (digest === undefined) throw new Error(`internal: no digest of file ${number} in shard ${shard}`)
    const offset = end + tarHeaderBytes({ path, sizeBytes, executable })
    end = offset + sizeBytes + tarPadding(sizeBytes)
    return { path, sizeBytes, executable, digest, shard, offset }
  })
}

/**
 * The artifact's key. A fresh identity lies safely on disk before the first byte is sealed to it, so that no interrupt leaves shards that nobody can open.
 */
export async function artifactKey(options: Pick<SealArtifactOptions, "output" | "key">): Promise<ArtifactKey> {
  const choice = options.key ?? { generate: "hybrid" }
  if ("recipient" in choice) {
    recipientKind(choice.recipient)
    return { recipient: choice.recipient, identity: undefined }
  }
  const path = identityPath(options.output)
  const unfinished = join(options.output, unfinishedFileName)
  const found = await loadIdentity(path)
  if (found !== undefined && !(await onDisk(options.output, () => readdir(options.output))).includes(unfinishedFileName)) {
    throw new SealingError("not-empty", `${path} is the key of another sealing: move it to where that artifact is, or choose another output`)
  }
  if (found === undefined) await writeBytesDurably(unfinished, 0o644, new Uint8Array(0))
  const identity = found ?? (await createIdentity(path, choice.generate))
  if (identityKind(identity) !== choice.generate) {
    throw new SealingError("not-empty", `${path} is a ${identityKind(identity)} identity of an earlier run, asked for is ${choice.generate}`)
  }
  return { recipient: await recipientOf(identity), identity }
}

async function createIdentity(path: string, kind: RecipientKind): Promise<string> {
  const identity = await generateAgeIdentity(kind)
  const temporary = `${path}.new`
  await writeBytesDurably(temporary, 0o600, encodeUtf8(`${identity}\n`))
  try {
    // Unlike rename, link never replaces: two runs at once must not take each other's identity away.
    await onDisk(path, () => link(temporary, path))
  } catch (cause) {
    if (systemCode(cause) === "EEXIST") throw new SealingError("not-empty", `another run has begun to seal into ${dirname(path)}`, { cause })
    throw cause
  } finally {
    await rm(temporary, { force: true })
  }
  await syncFolder(dirname(path))
  return identity
}

/**
 * Reads an age identity file: one identity, empty lines and lines that start with `#` are skipped; undefined when there is no file.
 * @throws {SealingError} `malformed`
 */
export async function loadIdentity(path: string): Promise<string | undefined> {
  let bytes: Uint8Array
  try {
    bytes = new Uint8Array(await readFile(path))
  } catch (cause) {
    if (systemCode(cause) === "ENOENT") return undefined
    throw cause
  }
  const lines = parseUtf8(bytes)
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"))
  const [identity, ...more] = lines
  if (identity === undefined || more.length > 0) throw new SealingError("malformed", `${path} does not hold exactly one age identity`)
  identityKind(identity)
  return identity
}

/** What the manifest will say is checked before hours of sealing, not after. */
function checkDescription({ kind, name, created }: SealArtifactOptions): void {
  const described = artifactManifestSchema
    .pick({ kind: true, name: true, created: true })
    .safeParse({ kind, name, ...(created === undefined ? {} : { created }) })
  if (!described.success) throw malformedBy(described.error)
}

function refuseOutputInSource(source: string, output: string): void {
  if (`${resolve(output)}${sep}`.startsWith(`${resolve(source)}${sep}`)) {
    throw new SealingError("unsafe-path", `the output ${output} lies inside the source ${source}`)
  }
}

export async function refuseFinished(output: string): Promise<void> {
  const names = await onDisk(output, () => readdir(output))
  if (names.includes(manifestFileName)) throw new SealingError("not-empty", `${output} holds a finished artifact`)
}

/** Removes what interrupted runs left and this one will not replace. */
export async function removeStale(output: string, shards: number): Promise<void> {
  for (const name of await onDisk(output, () => readdir(output))) {
    const number = /^shard-([0-9]{4,6})\.(?:tar|record)\.age$/.exec(name)?.[1]
    const isStale = (number !== undefined && Number(number) >= shards) || (temporaryName.test(name) && ourName.test(name))
    if (isStale) await rm(join(output, name), { force: true })
  }
}

function planOf(files: readonly SourceFile[]): ShardPlan {
  const digest = digestOfJson(files.map(({ path, sizeBytes, executable, mtimeNs }) => ({ path, sizeBytes, executable, mtimeNs })))
  return { digest, files: files.length }
}

function recordFileName(shard: number): string {
  return `shard-${String(shard).padStart(4, "0")}.record.age`
}

/** Stands in the output while an artifact with a key of its own is being sealed, so that the key beside it is known to be for this one. */
const unfinishedFileName = "unfinished"

/** A counter that reports the sum after each step. */
export function progressMeter(
  phase: SealingProgress["phase"],
  totalBytes: number,
  report: ((progress: SealingProgress) => void) | undefined,
): (bytes: number) => void {
  let doneBytes = 0
  return (bytes) => {
    doneBytes += bytes
    report?.({ phase, doneBytes, totalBytes })
  }
}

const ourName = /^\.(?:shard-|index\.json|manifest|unfinished)/
