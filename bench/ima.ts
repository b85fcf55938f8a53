import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { encodeUtf8 } from "../src/bytes/text.ts"
import type { ImaState } from "../src/evidence/ima/claims.ts"
import { replayImaList } from "../src/evidence/ima/replay.ts"
import { verifyIma } from "../src/evidence/ima/verify.ts"
import type { BenchRow } from "./row.ts"

/** Entries of the list that is replayed; a busy server has some ten thousand. */
const entryCount = 100_000
/** Entries of the list of which nothing changed since the last quote. */
const unchangedCount = 10_000
/** Each measurement is taken so often, and the best counts: what disturbs only makes slower. */
const rounds = 5

/**
 * Replay and verification of an `ima-ng` list against `evmctl ima_measurement` (ima-evm-utils) on the same file, whole program against the same work in
 * this process, and the check of a list to which nothing was added. Without evmctl the rows have no ratio.
 */
export async function benchIma(): Promise<BenchRow[]> {
  const list = laboratoryList(entryCount)
  const theirs = await evmctlSpeed(list)
  const replay = bestOf(() => replayImaList(list, "sha256"))
  const quoted = replayImaList(list, "sha256").registers
  const full = { list, bank: "sha256", quotedPcrs: quoted, bootPcrs } as const
  const verify = bestOf(() => verifyIma(full))
  return [
    row("IMA list replayed, SHA-256 bank", entryCount / replay, "entries/s", theirs, ">= 200,000 entries/s"),
    row("IMA list verified, entries read, prefix chained", entryCount / verify, "entries/s", theirs, undefined),
    incremental(),
  ]
}

function incremental(): BenchRow {
  const list = laboratoryList(unchangedCount)
  const quotedPcrs = replayImaList(list, "sha256").registers
  const { state: previous } = verifyIma({ list, bank: "sha256", quotedPcrs, bootPcrs }).claims
  const check = (): ImaState => verifyIma({ list: new Uint8Array(0), bank: "sha256", quotedPcrs, bootPcrs, previous }).claims.state
  const times = 5000
  const seconds = bestOf(() => {
    for (let time = 0; time < times; time++) check()
  })
  return row(
    `unchanged IMA list of ${unchangedCount} entries checked against a new quote's registers`,
    times / seconds,
    "checks/s",
    undefined,
    ">= 1,000/s",
  )
}

function row(name: string, value: number, unit: string, theirs: number | undefined, goal: string | undefined): BenchRow {
  return {
    name,
    value,
    unit,
    ...(theirs === undefined ? {} : { ratio: value / theirs, against: "evmctl ima_measurement" }),
    ...(goal === undefined ? {} : { goal }),
  }
}

function bestOf(action: () => unknown): number {
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < rounds; round++) {
    const started = performance.now()
    action()
    best = Math.min(best, (performance.now() - started) / 1000)
  }
  return best
}

/** Entries per second of evmctl, which replays the SHA-256 bank and reads register values from a file; its start is part of it. */
async function evmctlSpeed(list: Uint8Array): Promise<number | undefined> {
  const folder = mkdtempSync(join(tmpdir(), "perun-bench-ima-"))
  try {
    const file = join(folder, "ima.bin")
    writeFileSync(file, list)
    const registers = join(folder, "sha256")
    const value = replayImaList(list, "sha256").registers.get(10) ?? ""
    const lines = Array.from({ length: 24 }, (_, pcr) => `PCR-${String(pcr).padStart(2, "0")}: ${spaced(pcr === 10 ? value : "0".repeat(64))}`)
    writeFileSync(registers, `${lines.join("\n")}\n`)
    let best = Number.POSITIVE_INFINITY
    for (let round = 0; round < rounds; round++) {
      const started = performance.now()
      await promisify(execFile)("evmctl", ["ima_measurement", "--pcrs", `sha256,${registers}`, file])
      best = Math.min(best, (performance.now() - started) / 1000)
    }
    return entryCount / best
  } catch (error) {
    console.error(`evmctl gives no comparison: ${error instanceof Error ? (error.message.split("\n")[0] ?? "") : "unknown error"}`)
    return undefined
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** As `tpm2_pcrread` of old and evmctl print registers: bytes in hexadecimal with spaces between. */
function spaced(value: string): string {
  return value.replace(/../g, "$& ").trim().toUpperCase()
}

/** An `ima-ng` list with file names of usual length. */
function laboratoryList(count: number): Uint8Array {
  const parts = [record("boot_aggregate", aggregate())]
  for (let index = 1; index < count; index++) {
    const name = `/usr/lib/python3/dist-packages/package-${index}/module-${index % 97}.py`
    parts.push(record(name, createHash("sha256").update(name).digest()))
  }
  return new Uint8Array(Buffer.concat(parts))
}

function record(name: string, digest: Uint8Array): Buffer {
  const data = Buffer.concat([sized(Buffer.concat([encodeUtf8("sha256:\0"), digest])), sized(encodeUtf8(`${name}\0`))])
  const header = Buffer.alloc(4)
  header.writeUInt32LE(10)
  return Buffer.concat([header, createHash("sha1").update(data).digest(), sized(encodeUtf8("ima-ng")), sized(data)])
}

function sized(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32LE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** PCR 0 to 9 of the laboratory machine: zero. */
const bootPcrs = new Map([["sha256", new Map(Array.from({ length: 10 }, (_, pcr) => [pcr, "00".repeat(32)]))]])

function aggregate(): Uint8Array {
  return createHash("sha256").update(new Uint8Array(320)).digest()
}
