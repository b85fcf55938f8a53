import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { ByteWriter } from "../bytes/writer.ts"
import type { OutputKind } from "../policy/document.ts"
import { AgentError, type AgentCode } from "./error.ts"
import { checkOutputFiles } from "./output-files.ts"

const tensors = safetensors({ w: { dtype: "U8", shape: [4], data_offsets: [0, 4] } }, 4)

function safetensors(header: unknown, dataBytes: number): Uint8Array {
  const json = encodeUtf8(JSON.stringify(header))
  return new ByteWriter().u64le(BigInt(json.length)).bytes(json).bytes(new Uint8Array(dataBytes)).take()
}

async function check(kind: OutputKind, fill: (folder: string) => Promise<unknown>, maxBytes = 1000): Promise<readonly string[]> {
  const folder = await mkdtemp(join(tmpdir(), "perun-output-"))
  try {
    await fill(folder)
    return await checkOutputFiles("model", folder, { kind, maxBytes })
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function refuses(code: AgentCode, kind: OutputKind, fill: (folder: string) => Promise<unknown>, maxBytes?: number): Promise<void> {
  await assert.rejects(check(kind, fill, maxBytes), (error) => error instanceof AgentError && error.code === code)
}

test("checkOutputFiles() lets plain tensors and JSON of a model through", async () => {
  const files = await check("model", async (folder) => {
    await mkdir(join(folder, "a"))
    await writeFile(join(folder, "a", "model.safetensors"), tensors)
    await writeFile(join(folder, "scaler.json"), '{"mean":[1]}')
  })
  assert.deepEqual(files, ["a/model.safetensors", "scaler.json"])
})

test("checkOutputFiles() refuses pickle and every other format in a model", async () => {
  for (const name of ["model.pt", "model.pth", "model.pkl", "model.bin", "model.npy", "notes.txt", "records.csv", "model", ".safetensors.py"])
    await refuses("output-format", "model", (folder) => writeFile(join(folder, name), "x"))
})

test("checkOutputFiles() refuses content that is not what the name says", async () => {
  for (const content of [tensors.slice(1), new Uint8Array(), encodeUtf8("x".repeat(100)), safetensors({ w: 1 }, 0), safetensors({}, 5)])
    await refuses("output-format", "model", (folder) => writeFile(join(folder, "model.safetensors"), content))
  await refuses("output-format", "model", (folder) => writeFile(join(folder, "scaler.json"), "{'mean'"))
  await refuses("output-format", "report", (folder) => writeFile(join(folder, "report.txt"), "a\0b"))
  await refuses("output-format", "report", (folder) => writeFile(join(folder, "report.csv"), Uint8Array.of(0xff)))
})

test("checkOutputFiles() checks a large JSON in pieces, between which the agent does its other work", async () => {
  const whole = `{"rows":[${"[1,2],".repeat(4_000_000)}0]}`
  let turns = 0
  let longest = 0
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    longest = Math.max(longest, now - last)
    last = now
    turns++
  }, 5)
  try {
    await check("report", (folder) => writeFile(join(folder, "report.json"), whole), 100_000_000)
    assert.ok(turns > 20, `${turns} turns`)
    assert.ok(longest < 1000, `${longest} ms without a turn`)
    await refuses("output-format", "report", (folder) => writeFile(join(folder, "report.json"), whole.substring(0, 20_000_000)), 100_000_000)
  } finally {
    clearInterval(timer)
  }
})

test("checkOutputFiles() refuses more than the policy's size", async () => {
  const fill = (folder: string): Promise<unknown> => writeFile(join(folder, "report.txt"), "x".repeat(100))
  await check("report", fill, 100)
  await refuses("output-too-large", "report", fill, 99)
})

test("checkOutputFiles() refuses links, pipes and an empty output", async () => {
  await refuses("output-kind", "model", (folder) => symlink("/etc/hostname", join(folder, "scaler.json")))
  await refuses("output-kind", "model", async (folder) => execFileSync("mkfifo", [join(folder, "scaler.json")]))
  await refuses("output-missing", "model", (folder) => mkdir(join(folder, "empty")))
})

test("checkOutputFiles() refuses names that no artifact can have, by a word that it has already", async () => {
  for (const name of [Uint8Array.of(0xff), encodeUtf8("a\nb"), encodeUtf8("a\\b"), encodeUtf8("\u202eb")]) {
    const named = (folder: string): Buffer => Buffer.concat([Buffer.from(`${folder}/`), name, Buffer.from(".json")])
    await refuses("output-kind", "model", (folder) => writeFile(named(folder), "1"))
  }
  // What stands for the byte when it is read as text is there too.
  await refuses("output-kind", "model", async (folder) => {
    await writeFile(Buffer.concat([Buffer.from(`${folder}/`), Uint8Array.of(0xff), Buffer.from(".json")]), "1")
    await writeFile(join(folder, "\ufffd.json"), "1")
  })
})

test("checkOutputFiles() refuses small files whose packing takes more than the manager would take", async () => {
  const fill =
    (count: number) =>
    async (folder: string): Promise<void> => {
      for (let number = 0; number < count; number++) await writeFile(join(folder, `${number}.json`), "1")
    }
  assert.equal((await check("model", fill(500))).length, 500)
  await refuses("output-too-large", "model", fill(1000))
})
