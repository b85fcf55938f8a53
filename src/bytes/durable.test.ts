import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { AlreadyExistsError, createFileDurably, readFileBounded, writeFileDurably } from "./durable.ts"
import { MalformedError, UnavailableError } from "./error.ts"

const folder = await mkdtemp(join(tmpdir(), "perun-durable-"))
after(() => rm(folder, { recursive: true }))

test("writeFileDurably() replaces a file, keeps its mode strict and leaves no temporary", async () => {
  const path = join(folder, "a", "secret")
  await writeFileDurably(path, "one", { mode: 0o600 })
  await writeFileDurably(path, "two", { mode: 0o600 })
  assert.equal(await readFile(path, "utf8"), "two")
  assert.equal((await stat(path)).mode & 0o777, 0o600)
  assert.deepEqual(await readdir(join(folder, "a")), ["secret"])
})

test("createFileDurably() refuses to replace and leaves what is there", async () => {
  const path = join(folder, "once")
  await createFileDurably(path, "one")
  await assert.rejects(createFileDurably(path, "two"), AlreadyExistsError)
  assert.equal(await readFile(path, "utf8"), "one")
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.endsWith(".tmp")),
    [],
  )
})

test("readFileBounded() refuses larger files and names missing ones", async () => {
  const path = join(folder, "five")
  await writeFile(path, "12345")
  assert.equal((await readFileBounded(path, 5)).length, 5)
  await assert.rejects(readFileBounded(path, 4), (error: unknown) => error instanceof MalformedError && error.code === "too-large")
  await assert.rejects(
    readFileBounded(join(folder, "none"), 4),
    (error: unknown) => error instanceof UnavailableError && error.code === "unavailable",
  )
})

test(
  "readFileBounded() reads a pipe, and of what has no end no more than it may",
  { skip: process.platform !== "linux", timeout: 30_000 },
  async () => {
    await assert.rejects(readFileBounded("/dev/zero", 5_000_000), { code: "too-large" })
    assert.equal((await readFileBounded("/dev/null", 0)).length, 0)
    const pipe = join(folder, "pipe")
    execFileSync("mkfifo", [pipe])
    const [read] = await Promise.all([readFileBounded(pipe, 5), writeFile(pipe, "12345")])
    assert.equal(Buffer.from(read).toString(), "12345")
  },
)

test("a full device is named as such and nothing is replaced", async (t) => {
  try {
    await stat("/dev/full")
  } catch {
    return t.skip("no /dev/full")
  }
  await assert.rejects(
    writeFile("/dev/full", "x").catch(async (error: unknown) => Promise.reject((await import("./durable.ts")).fromSystemError(error, "/dev/full"))),
    (error: unknown) => error instanceof UnavailableError && error.code === "disk-full",
  )
})
