import { execFile } from "node:child_process"
import { createSecretKey, generateKeyPairSync, randomFillSync } from "node:crypto"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { artifactFolder, identityPath } from "../src/sealing/blobs.ts"
import { generateAgeIdentity, recipientOf } from "../src/sealing/keys.ts"
import { manifestSigner } from "../src/sealing/manifest.ts"
import { openArtifact } from "../src/sealing/open-artifact.ts"
import { loadIdentity, sealArtifact } from "../src/sealing/seal-artifact.ts"
import { chunkBytes, copyParts, openChunks, releaseParts, sealChunks, sealedStreamBytes } from "../src/sealing/stream.ts"
import type { BenchRow } from "./row.ts"

/** Bytes that are sealed and opened. */
const fileBytes = 1_024_000_000
/** Each measurement is taken so often, in turn with what it is compared with, and the best counts: what disturbs only makes slower. */
const rounds = 5

/**
 * Sealing and opening against the `age` program, whole program against whole program on the same file, and against OpenSSL's own speed test, core against core.
 * Needs `age`, `openssl` and `taskset`; what is missing gives no row.
 */
export async function benchSealing(): Promise<BenchRow[]> {
  return [...(await benchOpenSsl()), ...(await benchAge()), ...(await benchArtifacts())]
}

/** Chunks of 64 KiB in memory on one core, against `openssl speed`. */
async function benchOpenSsl(): Promise<BenchRow[]> {
  const rows: BenchRow[] = []
  for (const action of ["seal", "open"] as const) {
    let ours = 0
    let theirs: number | undefined
    for (let round = 0; round < rounds; round++) {
      theirs = best(theirs, await openSslSpeed(action))
      ours = Math.max(ours, chunkSpeed(action))
    }
    rows.push(row(`${action} chunks in memory, one core`, ours, theirs, "openssl speed", ">= 0.8x"))
  }
  return rows
}

/** Bytes per second of `sealChunks` or `openChunks` on this thread, by processor time, as OpenSSL's speed test counts; so many at a time as in a file. */
function chunkSpeed(action: "seal" | "open"): number {
  const plain = randomFillSync(new Uint8Array(4 * chunkBytes))
  const sealed = new Uint8Array(sealedStreamBytes(plain.length))
  const run = { key: createSecretKey(new Uint8Array(32)), firstChunk: 0, endsPayload: true }
  copyParts(sealChunks(run, plain), sealed)
  const times = 2000
  const started = process.threadCpuUsage()
  for (let i = 0; i < times; i++) releaseParts(action === "seal" ? sealChunks(run, plain) : openChunks(run, sealed))
  const { user, system } = process.threadCpuUsage(started)
  return (times * plain.length) / ((user + system) / 1e6)
}

/** Bytes per second by OpenSSL's account: 64 KiB with tag, key set once, always the same buffer. */
async function openSslSpeed(action: "seal" | "open"): Promise<number | undefined> {
  const decrypt = action === "open" ? ["-decrypt"] : []
  const output = await tryRun("openssl", ["speed", "-mr", "-seconds", "1", "-bytes", "65536", "-aead", ...decrypt, "-evp", "chacha20-poly1305"])
  const value = output
    ?.split("\n")
    .find((line) => line.startsWith("+F:"))
    ?.split(":")
    .at(-1)
  return value === undefined ? undefined : Number(value)
}

/** File to file, and file to nothing, against the age program. */
async function benchAge(): Promise<BenchRow[]> {
  const folder = mkdtempSync(join(scratch, "perun-bench-"))
  try {
    const [plain, sealed, out, keyFile] = ["plain", "sealed", "out", "key"].map((name) => join(folder, name)) as [string, string, string, string]
    writeFileSync(plain, randomFillSync(new Uint8Array(fileBytes)))
    const identity = await generateAgeIdentity("x25519")
    const recipient = await recipientOf(identity)
    writeFileSync(keyFile, `${identity}\n`)
    if ((await tryRun("age", ["-r", recipient, "-o", sealed, plain])) === undefined) return []

    const rows: BenchRow[] = []
    for (const cores of [1, availableParallelism()]) {
      for (const target of [out, "/dev/null"]) {
        for (const action of ["seal", "open"] as const) {
          const from = action === "seal" ? plain : sealed
          const key = action === "seal" ? recipient : identity
          let ours = 0
          let theirs: number | undefined
          for (let round = 0; round < rounds; round++) {
            const ageArguments = action === "seal" ? ["-r", recipient] : ["-d", "-i", keyFile]
            rmSync(out, { force: true })
            theirs = best(theirs, fileBytes / (await timed(() => onCores(cores, "age", [...ageArguments, "-o", target, from]))))
            rmSync(out, { force: true })
            const seconds = await onCores(cores, process.execPath, [child, action, from, target, key, String(cores)])
            ours = Math.max(ours, fileBytes / Number(seconds))
          }
          const where = target === out ? "file to file" : "file to nothing"
          const goal = cores === 2 && target === out ? ">= 2x" : undefined
          rows.push(row(`${action} ${where}, ${cores === 1 ? "one core" : `${cores} cores`}`, ours, theirs, "age", goal))
        }
      }
    }
    return rows
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Whole artifacts, all cores: hashes of files and shards, tar, fsync. */
async function benchArtifacts(): Promise<BenchRow[]> {
  const folder = mkdtempSync(join(scratch, "perun-bench-"))
  try {
    const rows: BenchRow[] = []
    const sets = [
      ["files of 64 MB", 8, 64_000_000],
      ["files of 10 kB", 5000, 10_000],
    ] as const
    for (const [name, count, sizeBytes] of sets) {
      const [source, output, opened] = [join(folder, "source"), join(folder, "sealed"), join(folder, "opened")]
      mkdirSync(source)
      for (let i = 0; i < count; i++) writeFileSync(join(source, String(i)), randomFillSync(new Uint8Array(sizeBytes)))
      const signer = manifestSigner(generateKeyPairSync("ed25519").privateKey)
      let started = performance.now()
      const { signed } = await sealArtifact({ source, output, kind: "dataset", name: "bench", signer })
      rows.push(row(`seal artifact, ${name}`, (count * sizeBytes) / ((performance.now() - started) / 1000)))
      const identity = (await loadIdentity(identityPath(output))) ?? ""
      started = performance.now()
      await openArtifact({ signed, identity, blobs: artifactFolder(output, signed.manifest), destination: opened })
      rows.push(row(`open artifact, ${name}`, (count * sizeBytes) / ((performance.now() - started) / 1000)))
      for (const each of [source, output, identityPath(output), opened]) rmSync(each, { recursive: true })
    }
    return rows
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function row(name: string, bytesPerSecond: number, theirs?: number, against?: string, goal?: string): BenchRow {
  return {
    name,
    value: Math.round(bytesPerSecond / 1e6),
    unit: "MB/s",
    ...(theirs === undefined || against === undefined
      ? {}
      : { ratio: bytesPerSecond / theirs, against: `${against} (${Math.round(theirs / 1e6)} MB/s)` }),
    ...(goal === undefined ? {} : { goal }),
  }
}

function best(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined || b === undefined) return a ?? b
  return Math.max(a, b)
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now()
  await work()
  return (performance.now() - started) / 1000
}

async function onCores(cores: number, program: string, args: readonly string[]): Promise<string> {
  const { stdout } = cores === 1 ? await run("taskset", ["-c", "0", program, ...args]) : await run(program, [...args])
  return stdout
}

async function tryRun(program: string, args: readonly string[]): Promise<string | undefined> {
  try {
    return (await run(program, [...args])).stdout
  } catch {
    // Not installed, or too old for these arguments: the comparison is left out.
    return undefined
  }
}

const run = promisify(execFile)
const child = fileURLToPath(new URL("./sealing-child.ts", import.meta.url))
const scratch = tmpdir()

if (import.meta.main) console.table(await benchSealing())
