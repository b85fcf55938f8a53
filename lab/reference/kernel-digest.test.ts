import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import { test } from "node:test"
import { authenticodeDigest, kernelAsQemuLoadsIt } from "./kernel-digest.ts"

/** A PE32+ image with one section, some bytes behind it, and a certificate table of 16 bytes. */
function image(): Uint8Array {
  const bytes = new Uint8Array(0x800).map((_, index) => index & 0xff)
  const view = new DataView(bytes.buffer)
  view.setUint32(0x3c, 0x40, true)
  view.setUint32(0x40, 0x4550, true)
  view.setUint16(0x46, 1, true) // sections
  view.setUint16(0x54, 240, true) // optional header bytes
  view.setUint16(0x58, 0x20b, true)
  view.setUint32(0x58 + 60, 0x400, true) // header bytes
  view.setUint32(0x58 + 112 + 32, 0x7f0, true)
  view.setUint32(0x58 + 112 + 36, 16, true)
  const section = 0x58 + 240
  view.setUint32(section + 16, 0x200, true)
  view.setUint32(section + 20, 0x400, true)
  return bytes
}

test("authenticodeDigest() covers everything but check sum, certificate entry and certificates", () => {
  const bytes = image()
  const without = (start: number, end: number, from: number): Buffer => Buffer.from(bytes.buffer, from, start - from + (end - end))
  const checkSum = 0x58 + 64
  const entry = 0x58 + 112 + 32
  const hash = createHash("sha256")
    .update(without(checkSum, 0, 0))
    .update(Buffer.from(bytes.buffer, checkSum + 4, entry - checkSum - 4))
    .update(Buffer.from(bytes.buffer, entry + 8, 0x7f0 - entry - 8))
  const digest = authenticodeDigest(bytes)
  assert.equal(digest, hash.digest("hex"))
  for (const at of [checkSum, entry, 0x7f0, 0x7ff]) {
    const changed = bytes.slice()
    changed[at] = (changed[at] ?? 0) ^ 1
    if (at !== entry) assert.equal(authenticodeDigest(changed), digest)
  }
  for (const at of [0x10, 0x410, 0x700]) {
    const changed = bytes.slice()
    changed[at] = (changed[at] ?? 0) ^ 1
    assert.notEqual(authenticodeDigest(changed), digest)
  }
})

test("authenticodeDigest() refuses what is no PE32+ image", () => {
  const bytes = image()
  bytes[0x40] = 0
  assert.throws(() => authenticodeDigest(bytes), { code: "build-failed" })
})

function kernel(): Uint8Array {
  const bytes = new Uint8Array(0x400)
  const view = new DataView(bytes.buffer)
  view.setUint32(0x202, 0x53726448, true)
  view.setUint16(0x206, 0x20f, true)
  return bytes
}

test("kernelAsQemuLoadsIt() puts the initrd at the top of low memory, below QEMU's tables", () => {
  const at = (memoryMiB: number, initrdBytes: number): number =>
    new DataView(kernelAsQemuLoadsIt(kernel(), { memoryMiB, initrdBytes }).buffer).getUint32(0x218, true)
  assert.equal(at(1024, 4096), 0x40000000 - 0x28000 - 2 * 4096)
  assert.equal(at(4096, 4096), 0x80000000 - 0x28000 - 2 * 4096)
  assert.equal(new DataView(kernelAsQemuLoadsIt(kernel(), { memoryMiB: 1024, initrdBytes: 4097 }).buffer).getUint32(0x21c, true), 4097)
})

test("kernelAsQemuLoadsIt() leaves its input alone and refuses what is no Linux kernel", () => {
  const input = kernel()
  kernelAsQemuLoadsIt(input, { memoryMiB: 1024, initrdBytes: 1 })
  assert.deepEqual(input, kernel())
  assert.throws(() => kernelAsQemuLoadsIt(new Uint8Array(0x400), { memoryMiB: 1024, initrdBytes: 1 }), { code: "build-failed" })
})
