import { lstat, mkdir, rm } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"
import { sha256 } from "../bytes/digest.ts"
import { fromSystemError } from "../bytes/durable.ts"
import { UnavailableError } from "../bytes/error.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { encodeBase64, encodeHex, encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { OutputView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { blobFileName, blobFolder } from "../sealing/blobs.ts"
import { parseSignedManifest } from "../sealing/manifest.ts"
import { openArtifact, type OpenedArtifact, refuseOccupied } from "../sealing/open-artifact.ts"
import type { ManagerConnection } from "./connection.ts"

export interface FetchOutputOptions {
  readonly output: string
  /** age identity of the calling consumer. */
  readonly identity: string
  /** Folder to be made; must not exist, or be empty. */
  readonly destination: string
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void
  readonly signal?: AbortSignal
}

/**
 * Fetches a released output and opens it: ciphertext from the blob store, new age headers from the manager, everything verified before the destination
 * appears. Nothing that is there is replaced, and no file of it is executable. After an interrupt the same call goes on downloading where it was.
 * @throws {ProblemError} `votes-missing`, `not-a-recipient` … as the manager answers
 * @throws {SealingError} `not-empty`; when what came is not what the manifest says
 * @throws {UnavailableError} `permission-denied` when the place for the download is somebody else's
 */
export async function fetchOutput(
  connection: ManagerConnection,
  options: FetchOutputOptions,
): Promise<OpenedArtifact & { readonly output: OutputView }> {
  const { identity } = options
  const destination = resolve(options.destination)
  await refuseOccupied(destination)
  const answer = await connection.call(routes.getOutputPackage, { params: { output: options.output } })
  const signed = parseSignedManifest(canonicalJsonBytes(answer.manifest))
  const headers = new Map<string, string>(answer.headers.map(({ blob, header }) => [blob, encodeBase64(parseBase64(header))]))
  const headerOf = (digest: string): string => {
    const header = headers.get(digest)
    if (header === undefined) throw new ProtocolError("wrong-message", `the manager sent no header for the blob ${digest}`)
    return header
  }
  const blobs = [...signed.manifest.shards, signed.manifest.index]
  const total = blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const cache = await downloadFolder(options.output, destination)
  let done = 0
  for (const { digest, sizeBytes } of blobs) {
    await connection.transport.getBlobFile(digest, join(cache, blobFileName(digest)), {
      maxBytes: sizeBytes,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      onProgress: (bytes) => options.onProgress?.(done + bytes, total),
    })
    done += sizeBytes
  }
  const opened = await openArtifact({
    signed,
    blobs: blobFolder(cache),
    identity,
    headers: { index: headerOf(signed.manifest.index.digest), shards: signed.manifest.shards.map(({ digest }) => headerOf(digest)) },
    expected: { digest: answer.output.ciphertext },
    destination,
    executables: "drop",
    signal: options.signal,
  })
  await rm(cache, { recursive: true, force: true })
  return { ...opened, output: answer.output }
}

/**
 * Where the ciphertext goes until it is whole: named by output and destination, so that the next try finds what this one has downloaded. Since the name can be
 * known before, in a folder where others write too, only one that is ours alone is used.
 */
async function downloadFolder(output: string, destination: string): Promise<string> {
  const path = join(dirname(destination), `.perun-fetch-${encodeHex(sha256(encodeUtf8(`${output}\0${destination}`))).slice(0, 16)}`)
  try {
    await mkdir(dirname(path), { recursive: true })
    await mkdir(path, { mode: 0o700 }).catch((error: unknown) => {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error
    })
    const found = await lstat(path)
    if (!found.isDirectory() || found.uid !== process.getuid?.() || (found.mode & 0o077) !== 0)
      throw new UnavailableError("permission-denied", "is not a folder of your own that only you can enter; remove it or choose another --out", {
        path,
      })
    return path
  } catch (error) {
    throw fromSystemError(error, path)
  }
}
