import { createReadStream } from "node:fs"
import { open, readFile, type FileHandle } from "node:fs/promises"
import { extname, relative } from "node:path"
import { PerunError } from "../bytes/error.ts"
import { JsonScanner } from "../bytes/json-scanner.ts"
import { parseSafetensorsHeader, readSafetensorsHeaderLength, safetensorsLengthBytes } from "../bytes/safetensors.ts"
import { parseUtf8 } from "../bytes/text.ts"
import type { Output, OutputKind } from "../policy/document.ts"
import { maxSealedBytes } from "../protocol/sealed-size.ts"
import { listSourceFiles } from "../sealing/source-folder.ts"
import { tarBytes, type TarFile } from "../sealing/tar.ts"
import { AgentError } from "./error.ts"
import { walk } from "./scratch.ts"

/**
 * Checks what a job left in the folder of a declared output, after its last process has ended: plain files only, in formats that its kind allows and that can
 * run no code when they are loaded, within the policy's size. Nothing else of the folder leaves.
 * @throws {AgentError} `output-missing`, `output-kind`, `output-format`, `output-too-large`; the message names no file of the job
 */
export async function checkOutputFiles(name: string, folder: string, output: Pick<Output, "kind" | "maxBytes">): Promise<readonly string[]> {
  await refuseUnsealable(name, folder)
  const entries = await walk(folder)
  if (entries.some(({ kind }) => kind === "other"))
    throw new AgentError("output-kind", "holds something that is neither a file nor a folder", { path: name })
  const files = entries.filter(({ kind }) => kind === "file")
  if (files.length === 0) throw new AgentError("output-missing", "the job wrote no file", { path: name })
  if (files.length > maxFiles) throw new AgentError("output-too-large", `${files.length} files, at most ${maxFiles} are allowed`, { path: name })
  const size = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  if (size > output.maxBytes) throw new AgentError("output-too-large", `${size} bytes, the policy allows ${output.maxBytes}`, { path: name })
  if (
    sealedBytes(files.map(({ path, sizeBytes }) => ({ path: relative(folder, path), sizeBytes, executable: false }))) >
    maxSealedBytes(output.maxBytes)
  )
    throw new AgentError("output-too-large", `${files.length} files take more than the policy allows once they are packed`, { path: name })
  for (const { path, sizeBytes } of files) await checkFormat(name, path, sizeBytes, output.kind)
  return files.map(({ path }) => relative(folder, path))
}

/** What sealing would refuse is found before, and told by the same words: a name that is no text, or too long, must be no word of its own in the report. */
async function refuseUnsealable(name: string, folder: string): Promise<void> {
  try {
    await listSourceFiles(folder)
  } catch (cause) {
    const isTooLarge = cause instanceof PerunError && cause.code === "too-large"
    throw isTooLarge
      ? new AgentError("output-too-large", "more files than an artifact can hold", { path: name, cause })
      : new AgentError("output-kind", "holds something, or a name, that an artifact cannot hold", { path: name, cause })
  }
}

/** Ciphertext of all shards and the index, not less than it will be: many small files take far more than their bytes. */
function sealedBytes(files: readonly TarFile[]): number {
  const index = files.reduce((sum, { path }) => sum + indexEntryBytes + 2 * Buffer.byteLength(path), 0)
  return Math.ceil((tarBytes(files) + index) * 1.001) + ageBytes
}

async function checkFormat(name: string, path: string, sizeBytes: number, kind: OutputKind): Promise<void> {
  const check = formats[kind][extname(path)]
  if (check === undefined) {
    const allowed = Object.keys(formats[kind]).join(", ")
    throw new AgentError("output-format", `a file is of another kind than ${allowed}`, { path: name })
  }
  try {
    await check(path, sizeBytes)
  } catch (cause) {
    if (!(cause instanceof PerunError)) throw cause
    throw new AgentError("output-format", `a ${extname(path)} file is not what its name says`, { path: name, cause })
  }
}

async function checkSafetensors(path: string, sizeBytes: number): Promise<void> {
  const file = await open(path, "r")
  try {
    const length = readSafetensorsHeaderLength(await readStart(file, 0, safetensorsLengthBytes))
    parseSafetensorsHeader(await readStart(file, safetensorsLengthBytes, length), sizeBytes)
  } finally {
    await file.close()
  }
}

/** Up to `length` bytes at an offset; fewer where the file ends. */
async function readStart(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(length)
  const { bytesRead } = await file.read(buffer, 0, length, offset)
  return buffer.slice(0, bytesRead)
}

/** In pieces, between which the agent renews its lease, and without keeping what it reads: the policy says how large an output is, and its program what is in it. */
async function checkJson(path: string): Promise<void> {
  const scanner = new JsonScanner()
  for await (const piece of createReadStream(path, { highWaterMark: pieceBytes })) scanner.push(piece as Uint8Array)
  scanner.end()
}

async function checkText(path: string, sizeBytes: number): Promise<void> {
  refuseLarge(sizeBytes)
  if (parseUtf8(await readFile(path)).includes("\0")) throw new AgentError("output-format", "text holds a NUL")
}

function refuseLarge(sizeBytes: number): void {
  if (sizeBytes > maxTextBytes) throw new AgentError("output-too-large", `a text of ${sizeBytes} bytes, at most ${maxTextBytes} can be checked`)
}

/** An entry of the index beside its path: digest, numbers, and the names of its fields. */
const indexEntryBytes = 256
/** Headers and last chunks of the age files of shard and index. */
const ageBytes = 16_384

const maxFiles = 10_000
/** Scanned in some 10 ms. */
const pieceBytes = 262_144
/** Text is checked in memory. */
const maxTextBytes = 64 * 1024 * 1024

type Check = (path: string, sizeBytes: number) => Promise<void>

/** Formats by kind of output. Pickle (`.pt`, `.pth`, `.pkl`, `.bin`, object arrays of `.npy`) runs code when it is loaded and stands nowhere. */
const formats: Readonly<Record<OutputKind, Readonly<Record<string, Check>>>> = {
  model: { ".safetensors": checkSafetensors, ".json": checkJson },
  dataset: { ".csv": checkText, ".json": checkJson, ".safetensors": checkSafetensors },
  report: { ".json": checkJson, ".csv": checkText, ".txt": checkText, ".md": checkText },
}
