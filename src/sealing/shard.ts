import { createHash } from "node:crypto"
import type { Hash } from "node:crypto"
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"
import { mkdir, open } from "node:fs/promises"
import type { FileHandle } from "node:fs/promises"
import { join } from "node:path"
import { digestOf } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { viewOf } from "../bytes/view.ts"
import type { PlainSource } from "./age-file.ts"
import { writePlace } from "./chunk-task.ts"
import { onDisk, openError, SealingError } from "./errors.ts"
import type { IndexedFile } from "./file-index.ts"
import { foldersOf } from "./paths.ts"
import { FileSink, openRegularFile, readFully } from "./ranges.ts"
import type { ByteSink } from "./ranges.ts"
import { encodeTarHeader, tarBytes, tarEndBytes, tarPadding } from "./tar.ts"
import type { TarFile } from "./tar.ts"

/** A file to pack, as it was found in the source folder. */
export interface SourceFile extends TarFile {
  /** Where it lies. */
  readonly from: string
  /** Time of its last change, nanoseconds since 1970, as decimal digits: a file that changes while it is sealed is an error. */
  readonly mtimeNs: string
}

/** The stretches that a tar shard is made of, in order: fixed bytes, or the content of file number `file`. */
type Segment = { readonly fixed: Uint8Array } | { readonly file: number; readonly sizeBytes: number }

function* segmentsOf(files: readonly TarFile[]): Generator<Segment> {
  for (const [number, file] of files.entries()) {
    yield { fixed: encodeTarHeader(file) }
    yield { file: number, sizeBytes: file.sizeBytes }
    yield { fixed: new Uint8Array(tarPadding(file.sizeBytes)) }
  }
  yield { fixed: new Uint8Array(tarEndBytes) }
}

function segmentBytes(segment: Segment): number {
  return "fixed" in segment ? segment.fixed.length : segment.sizeBytes
}

/** The tar of one shard, read from the source folder; digests of the files fall out on the way. */
export class ShardSource implements PlainSource, AsyncDisposable {
  readonly sizeBytes: number
  readonly #files: readonly SourceFile[]
  readonly #segments: Generator<Segment>
  readonly #digests: Digest[] = []
  #segment: Segment | undefined
  #done = 0
  #open: { readonly handle: FileHandle; readonly hash: Hash } | undefined

  constructor(files: readonly SourceFile[]) {
    this.#files = files
    this.sizeBytes = tarBytes(files)
    this.#segments = segmentsOf(files)
  }

  /** SHA-256 of each file, complete when everything was read. */
  get digests(): readonly Digest[] {
    return this.#digests
  }

  /** @throws {SealingError} `source-changed`, `missing`, `unsafe-path` */
  async fill(into: Uint8Array): Promise<void> {
    let filled = 0
    for (;;) {
      this.#segment ??= await this.#begin()
      const segment = this.#segment
      if (segment === undefined) return
      const length = Math.min(segmentBytes(segment) - this.#done, into.length - filled)
      const target = viewOf(into, filled, length)
      if ("fixed" in segment) target.set(viewOf(segment.fixed, this.#done, length))
      else await this.#read(segment.file, target)
      this.#done += length
      filled += length
      // Not at the segment's end: then `into` is full. Empty segments are passed in any case.
      if (this.#done < segmentBytes(segment)) return
      if (!("fixed" in segment)) await this.#finishFile(segment.file)
      this.#segment = undefined
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#open?.handle.close()
    this.#open = undefined
  }

  async #begin(): Promise<Segment | undefined> {
    this.#done = 0
    const next = this.#segments.next()
    if (next.done === true) return undefined
    if (!("fixed" in next.value)) {
      const file = this.#file(next.value.file)
      if (file.sizeBytes <= smallFileBytes) {
        const content = readSmallFile(file)
        this.#digests.push(digestOf(content))
        return { fixed: content }
      }
      const found = await openRegularFile(file.from)
      this.#open = { handle: found.handle, hash: createHash("sha256") }
      refuseChange(file, found.sizeBytes, found.mtimeNs)
    }
    return next.value
  }

  async #read(number: number, target: Uint8Array): Promise<void> {
    const file = this.#file(number)
    if (this.#open === undefined) throw new Error("internal: no file is open")
    try {
      await readFully(this.#open.handle, file.from, this.#done, target)
    } catch (error) {
      if (error instanceof SealingError && error.code === "truncated") throw changed(file)
      throw error
    }
    this.#open.hash.update(target)
  }

  async #finishFile(number: number): Promise<void> {
    const file = this.#file(number)
    if (this.#open === undefined) throw new Error("internal: no file is open")
    const { handle, hash } = this.#open
    const stat = await handle.stat({ bigint: true })
    refuseChange(file, Number(stat.size), stat.mtimeNs)
    this.#open = undefined
    await handle.close()
    this.#digests.push(`sha256:${hash.digest("hex")}`)
  }

  #file(number: number): SourceFile {
    const file = this.#files[number]
    if (file === undefined) throw new Error(`internal: no file ${number}`)
    return file
  }
}

/**
 * Reads a small file at once. Synchronous, because the hops to another thread that asynchronous calls take cost ten times as much as the work, and a data set
 * can be millions of images.
 */
function readSmallFile(file: SourceFile): Uint8Array {
  return withSmallFile(file.from, constants.O_RDONLY | constants.O_NONBLOCK, (fd) => {
    refuseOtherFile(file, fd)
    const content = new Uint8Array(file.sizeBytes)
    for (let done = 0; done < content.length;) {
      const bytesRead = readSync(fd, content, done, content.length - done, done)
      if (bytesRead === 0) throw changed(file)
      done += bytesRead
    }
    refuseOtherFile(file, fd)
    return content
  })
}

function refuseOtherFile(file: SourceFile, fd: number): void {
  const stat = fstatSync(fd, { bigint: true })
  if (!stat.isFile()) throw new SealingError("unsafe-path", `${file.from} is not a regular file`)
  refuseChange(file, Number(stat.size), stat.mtimeNs)
}

/** Writes a new small file at once; see `readSmallFile`. */
function writeSmallFile(path: string, mode: number, content: Uint8Array): void {
  withSmallFile(path, newFileFlags, (fd) => writePlace({ fd, path, offset: 0 }, [content]), mode)
}

function withSmallFile<T>(path: string, flags: number, work: (fd: number) => T, mode?: number): T {
  try {
    const fd = openSync(path, flags | constants.O_NOFOLLOW, mode)
    try {
      return work(fd)
    } finally {
      closeSync(fd)
    }
  } catch (cause) {
    throw openError(path, cause)
  }
}

function refuseChange(file: SourceFile, sizeBytes: number, mtimeNs: bigint): void {
  if (sizeBytes !== file.sizeBytes || String(mtimeNs) !== file.mtimeNs) throw changed(file)
}

function changed(file: SourceFile): SealingError {
  return new SealingError("source-changed", `${file.from} changed while it was being sealed`)
}

/**
 * Takes the tar of one shard and writes its files below a folder of ours, in which nobody else writes. What lies between the files must be exactly what
 * packing makes, and each file's digest the index's.
 */
export class ShardExtractor implements ByteSink, AsyncDisposable {
  readonly #files: readonly IndexedFile[]
  readonly #folder: string
  readonly #folders: Set<string>
  readonly #executables: "keep" | "drop"
  readonly #segments: Generator<Segment>
  #segment: Segment | undefined
  #done = 0
  #open: { readonly handle: FileHandle; readonly hash: Hash; readonly sink: FileSink } | undefined

  /** The content of a small file so far. */
  #small: Uint8Array | undefined

  /** `folders`: those already made, shared between the shards of one artifact. Paths were checked by `parseFileIndex`. */
  constructor(files: readonly IndexedFile[], folder: string, folders: Set<string>, executables: "keep" | "drop" = "keep") {
    this.#files = files
    this.#executables = executables
    this.#folder = folder
    this.#folders = folders
    this.#segments = segmentsOf(files)
  }

  /** @throws {SealingError} `wrong-manifest` for a tar that contradicts the index, `trailing-data` @throws {UnavailableError} `disk-full` */
  async write(bytes: Uint8Array): Promise<void> {
    for (let taken = 0; taken < bytes.length;) {
      await this.#advance()
      const segment = this.#segment
      if (segment === undefined) throw new SealingError("trailing-data", "bytes follow the end of the tar", { path: "shard" })
      const length = Math.min(segmentBytes(segment) - this.#done, bytes.length - taken)
      await this.#take(segment, viewOf(bytes, taken, length))
      this.#done += length
      taken += length
    }
  }

  /** To be called behind the last byte. @throws {SealingError} `truncated`, `wrong-manifest` */
  async finish(): Promise<void> {
    await this.#advance()
    if (this.#segment !== undefined) throw new SealingError("truncated", "the tar ends early", { path: "shard" })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#open?.handle.close()
    this.#open = undefined
  }

  /** Ends segments that are complete, also empty ones, and begins the next. */
  async #advance(): Promise<void> {
    for (;;) {
      if (this.#segment !== undefined) {
        if (this.#done < segmentBytes(this.#segment)) return
        if (!("fixed" in this.#segment)) await this.#finishFile(this.#segment.file)
      }
      this.#done = 0
      const next = this.#segments.next()
      this.#segment = next.done === true ? undefined : next.value
      if (this.#segment === undefined) return
      if (!("fixed" in this.#segment)) await this.#beginFile(this.#segment.file)
    }
  }

  async #take(segment: Segment, bytes: Uint8Array): Promise<void> {
    if ("fixed" in segment) {
      if (Buffer.compare(viewOf(segment.fixed, this.#done, bytes.length), bytes) !== 0) {
        throw new SealingError("wrong-manifest", "the tar's headers are not those that the index gives", { path: "shard" })
      }
      return
    }
    if (this.#small !== undefined) {
      viewOf(this.#small, this.#done, bytes.length).set(bytes)
      return
    }
    if (this.#open === undefined) throw new Error("internal: no file is open")
    this.#open.hash.update(bytes)
    await this.#open.sink.write(bytes)
  }

  async #beginFile(number: number): Promise<void> {
    const file = this.#file(number)
    for (const folder of foldersOf(file.path)) {
      if (this.#folders.has(folder)) continue
      await onDisk(folder, () => mkdir(join(this.#folder, folder)))
      this.#folders.add(folder)
    }
    if (file.sizeBytes <= smallFileBytes) {
      this.#small = new Uint8Array(file.sizeBytes)
      return
    }
    const path = join(this.#folder, file.path)
    const handle = await onDisk(path, () => open(path, newFileFlags, this.#mode(file)))
    this.#open = { handle, hash: createHash("sha256"), sink: new FileSink(handle, path) }
  }

  async #finishFile(number: number): Promise<void> {
    const file = this.#file(number)
    if (this.#small !== undefined) {
      const content = this.#small
      this.#small = undefined
      refuseOtherDigest(file, digestOf(content))
      writeSmallFile(join(this.#folder, file.path), this.#mode(file), content)
      return
    }
    if (this.#open === undefined) throw new Error("internal: no file is open")
    const { handle, hash } = this.#open
    this.#open = undefined
    await handle.close()
    refuseOtherDigest(file, `sha256:${hash.digest("hex")}`)
  }

  #mode({ executable }: TarFile): number {
    return executable && this.#executables === "keep" ? 0o755 : 0o644
  }

  #file(number: number): IndexedFile {
    const file = this.#files[number]
    if (file === undefined) throw new Error(`internal: no file ${number}`)
    return file
  }
}

function refuseOtherDigest(file: IndexedFile, found: Digest): void {
  if (found === file.digest) return
  throw new SealingError("wrong-manifest", "a file's content is not the one that the index names", { path: "index.files" })
}

const newFileFlags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
/** Files up to this size are read and written at once. */
const smallFileBytes = 65_536
