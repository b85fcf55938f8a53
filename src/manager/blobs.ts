import { createHash, randomBytes } from "node:crypto"
import { createReadStream, rmSync, type ReadStream } from "node:fs"
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { fromSystemError, syncFolder } from "../bytes/durable.ts"
import type { Digest } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { encodeHex } from "../bytes/text.ts"
import { viewOf } from "../bytes/view.ts"
import { ProtocolError } from "../protocol/errors.ts"

/**
 * Ciphertext by its SHA-256, in a folder. A blob is there whole or not at all: it is written beside, checked, synced and then renamed. Anyone who can
 * write the folder can delete blobs, not change them unnoticed.
 */
export class BlobFolder {
  readonly #path: string

  private constructor(path: string) {
    this.#path = path
  }

  /** Makes the folder. @throws {UnavailableError} */
  static async create(path: string): Promise<BlobFolder> {
    try {
      await mkdir(join(path, "incoming"), { recursive: true, mode: 0o700 })
    } catch (error) {
      throw fromSystemError(error, path)
    }
    return new BlobFolder(path)
  }

  /** Opens a folder that `create` made and throws away uploads that a crash left unfinished. @throws {UnavailableError} */
  static async open(path: string): Promise<BlobFolder> {
    const incoming = join(path, "incoming")
    try {
      for (const name of await readdir(incoming)) await rm(join(incoming, name), { force: true })
    } catch (error) {
      throw fromSystemError(error, incoming)
    }
    return new BlobFolder(path)
  }

  /** Size in bytes; undefined when it is not there. */
  async size(digest: Digest): Promise<number | undefined> {
    try {
      return (await stat(this.#pathOf(digest))).size
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined
      throw fromSystemError(error, this.#path)
    }
  }

  /**
   * Stores a stream of bytes under the digest that they must have.
   * @throws {ProtocolError} `wrong-digest`; {MalformedError} `too-large`; {UnavailableError} `disk-full`; nothing is left behind
   */
  async put(digest: Digest, source: AsyncIterable<Uint8Array>, maxBytes: number): Promise<number> {
    const temporary = join(this.#path, "incoming", encodeHex(new Uint8Array(randomBytes(16))))
    try {
      const file = await open(temporary, "wx", 0o600)
      let size = 0
      try {
        const hash = createHash("sha256")
        for await (const chunk of source) {
          size += chunk.length
          if (size > maxBytes) throw new MalformedError("too-large", `blob is larger than ${maxBytes} bytes`)
          hash.update(chunk)
          await file.writeFile(chunk)
        }
        const found = `sha256:${encodeHex(new Uint8Array(hash.digest()))}`
        if (found !== digest) throw new ProtocolError("wrong-digest", `the bytes are ${found}, not ${digest}`)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, this.#pathOf(digest))
      await syncFolder(this.#path)
      return size
    } catch (error) {
      await rm(temporary, { force: true })
      throw fromSystemError(error, this.#path)
    }
  }

  /** Removes a blob; one that is not there is removed already. Synchronous: nobody can ask for it between the decision and the deed. @throws {UnavailableError} */
  remove(digest: Digest): void {
    try {
      rmSync(this.#pathOf(digest), { force: true })
    } catch (error) {
      throw fromSystemError(error, this.#path)
    }
  }

  /** Bytes from `start` to `end` inclusive, or to the end. The blob must be there. */
  read(digest: Digest, start = 0, end?: number): ReadStream {
    return createReadStream(this.#pathOf(digest), end === undefined ? { start } : { start, end })
  }

  /**
   * The first bytes of a blob, at most `maxBytes`, out of one read over the whole of it that is held against its digest: who can write the folder must not
   * choose the header that a release is made of.
   * @throws {ProtocolError} `not-found`, `wrong-digest`
   */
  async readStart(digest: Digest, maxBytes: number): Promise<Uint8Array> {
    const size = await this.size(digest)
    if (size === undefined) throw new ProtocolError("not-found", `there is no blob ${digest}`)
    const hash = createHash("sha256")
    const start = new Uint8Array(Math.min(size, maxBytes))
    let offset = 0
    for await (const chunk of createReadStream(this.#pathOf(digest))) {
      const part = chunk as Uint8Array
      hash.update(part)
      if (offset < start.length) start.set(viewOf(part, 0, Math.min(part.length, start.length - offset)), offset)
      offset += part.length
    }
    const found = `sha256:${encodeHex(new Uint8Array(hash.digest()))}`
    if (found !== digest) throw new ProtocolError("wrong-digest", `the blob on disk is ${found}, expected ${digest}`)
    return start
  }

  /** The digest's form was checked when its message was parsed; nothing else may name a file. */
  #pathOf(digest: Digest): string {
    if (!/^sha256:[0-9a-f]{64}$/.test(digest)) throw new TypeError(`internal: ${digest} names no blob`)
    return join(this.#path, digest.replace("sha256:", ""))
  }
}
