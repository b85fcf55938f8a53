import assert from "node:assert/strict"
import { mkdirSync, readFileSync, symlinkSync } from "node:fs"
import { open } from "node:fs/promises"
import { test } from "node:test"
import { answerOf, errorOf } from "./chunk-answer.ts"
import { ChunkPool } from "./chunk-pool.ts"
import { diskError, onDisk, onDiskSync, SealingError } from "./errors.ts"
import { openFileReader, openRegularFile } from "./ranges.ts"
import { sealedChunkBytes } from "./stream.ts"
import { temporaryFolder, withCode } from "./test-fixtures.ts"

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code, syscall: "write" })
}

test("diskError() gives failed system calls our names, and passes other errors through", () => {
  for (const code of ["ENOSPC", "EDQUOT", "EFBIG"]) withCode("disk-full")(diskError("x", systemError(code)))
  for (const code of ["EACCES", "EPERM", "EROFS"]) withCode("permission-denied")(diskError("x", systemError(code)))
  withCode("missing")(diskError("x", systemError("ENOENT")))
  for (const code of ["EIO", "EMFILE", "ENFILE"]) withCode("unavailable")(diskError("x", systemError(code)))
  withCode("unsafe-path")(diskError("x", systemError("ENAMETOOLONG")))
  for (const other of [systemError("EINVAL"), new TypeError("x"), Object.assign(new Error("x"), { code: "ENOSPC" })]) {
    assert.equal(diskError("x", other), other)
  }
})

test("onDisk() and onDiskSync() give results and translate errors", async () => {
  assert.equal(await onDisk("x", async () => 5), 5)
  assert.equal(
    onDiskSync("x", () => 5),
    5,
  )
  await assert.rejects(
    onDisk("x", () => open("/nowhere/at/all")),
    withCode("missing"),
  )
  assert.throws(() => onDiskSync("x", () => readFileSync("/nowhere/at/all")), withCode("missing"))
})

test("errors keep their codes between threads", () => {
  for (const error of [new SealingError("corrupt", "x"), diskError("x", systemError("ENOSPC"))]) {
    const back = errorOf(answerOf(error))
    assert.ok(error instanceof Error && back !== undefined)
    assert.equal(back.name, error.name)
    assert.equal(back.message, error.message)
  }
  assert.match(errorOf(answerOf(new TypeError("odd")))?.message ?? "", /internal.*odd/)
  assert.equal(errorOf({ is: "done" }), undefined)
})

test("openRegularFile() refuses folders, links and what is not there", async () => {
  using folder = temporaryFolder()
  mkdirSync(folder.at("folder"))
  symlinkSync("/etc/hostname", folder.at("link"))
  await assert.rejects(openRegularFile(folder.at("folder")), withCode("unsafe-path"))
  await assert.rejects(openRegularFile(folder.at("link")), withCode("unsafe-path"))
  await assert.rejects(openRegularFile("/dev/null"), withCode("unsafe-path"))
  await assert.rejects(openFileReader(folder.at("none")), withCode("missing"))
})

test("ChunkPool refuses wrong use, and ends what waits when it is closed", async () => {
  for (const workers of [-1, 1.5, 65]) assert.throws(() => new ChunkPool(workers), TypeError)
  const pool = new ChunkPool(1)
  const slot = pool.takeSlot()
  slot.plain.fill(7)
  pool.giveBack(slot)
  assert.equal(pool.takeSlot(), slot)
  await pool[Symbol.asyncDispose]()
  pool.giveBack(slot)
  assert.ok(slot.plain.every((byte) => byte === 0))
  const input = new Uint8Array(2 * sealedChunkBytes)
  await assert.rejects(
    pool.run({ action: "open", key: new Uint8Array(32), firstChunk: 0, endsPayload: true, plainBytes: 9, input, output: input }),
    TypeError,
  )
})
