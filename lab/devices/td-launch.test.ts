import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import { test } from "node:test"
import { parseCcel } from "../../src/evidence/ccel/format.ts"
import { verifyCcel } from "../../src/evidence/ccel/verify.ts"
import { loadOptionsDigest } from "../../src/evidence/eventlog/contents.ts"
import { encodeHex } from "../../src/bytes/text.ts"
import { hash } from "../../src/pki/signatures.ts"
import type { Launch } from "../machine/launch.ts"
import { flipped, smallLaunch, variableStore } from "./launch.testing.ts"
import { measureTd } from "./td-launch.ts"
import { readSecureBootVariables } from "./variable-store.ts"

const launch = smallLaunch()
const good = measureTd(launch)

test("measureTd() gives a log that explains the registers with no fault of the firmware accepted", () => {
  const { claims } = verifyCcel(parseCcel(good.eventLog), { rtmrs: good.rtmrs, quirks: [] })
  assert.deepEqual(claims.rtmrs, good.rtmrs.slice(0, 3))
  assert.equal(claims.rtmr3, "unused")
  assert.equal(claims.secureBoot, "disabled")
  assert.deepEqual(claims.quirks, [])
  assert.deepEqual(claims.loadOptions, [encodeHex(loadOptionsDigest(`${launch.commandLine} initrd=initrd`, "sha384"))])
  assert.deepEqual(claims.initrds, [encodeHex(hash("sha384", launch.initrd))])
  assert.equal(claims.images.length, 1)
})

test("measureTd() makes MRTD as the TDX module does: each page added, then extended in pieces at their addresses below 4 GiB", () => {
  const measurement = createHash("sha384")
  for (const [page, address] of [0xffffe000n, 0xfffff000n].entries()) {
    const head = Buffer.alloc(128)
    head.write("MEM.PAGE.ADD")
    head.writeBigUInt64LE(address, 16)
    measurement.update(head)
    for (let piece = 0; piece < 16; piece++) {
      const step = Buffer.alloc(128)
      step.write("MR.EXTEND")
      step.writeBigUInt64LE(address + BigInt(piece * 256), 16)
      measurement.update(step).update(Buffer.from(launch.firmwareCode.buffer, page * 4096 + piece * 256, 256))
    }
  }
  assert.equal(good.mrTd, measurement.digest("hex"))
})

/** Where a change must show, and nowhere else. */
const changes: readonly (readonly [what: string, change: Partial<Launch>, differs: string])[] = [
  ["the first byte of the firmware", { firmwareCode: flipped(launch.firmwareCode, 0) }, "MRTD"],
  ["the last byte of the firmware", { firmwareCode: flipped(launch.firmwareCode, 8191) }, "MRTD"],
  ["the last byte of the variable store", { firmwareVariables: flipped(launch.firmwareVariables, 4095) }, "RTMR0"],
  ["processors", { processors: 4 }, "RTMR0"],
  // QEMU tells the kernel where the ram disk lies, in its header.
  ["memory", { memoryMiB: 1024 }, "RTMR0 RTMR1"],
  ["the kernel's code", { kernel: flipped(launch.kernel, 0x5ff) }, "RTMR1"],
  ["the kernel's headers", { kernel: flipped(launch.kernel, 0x10) }, "RTMR1"],
  ["the command line", { commandLine: `${launch.commandLine} init=/bin/sh` }, "RTMR2"],
  ["a byte of the ram disk", { initrd: flipped(launch.initrd, 4999) }, "RTMR2"],
  ["a byte more of the ram disk", { initrd: new Uint8Array(5001).fill(7) }, "RTMR1 RTMR2"],
]
for (const [what, change, differs] of changes)
  test(`measureTd() shows a change of ${what} in ${differs}`, () => {
    const other = measureTd({ ...launch, ...change })
    const registers = ["RTMR0", "RTMR1", "RTMR2", "RTMR3"].filter((_, at) => other.rtmrs[at] !== good.rtmrs[at])
    assert.equal([...(other.mrTd === good.mrTd ? [] : ["MRTD"]), ...registers].join(" "), differs)
  })

test("measureTd() refuses firmware of part pages, and what is no kernel", () => {
  const refused = { name: "LabError", code: "build-failed" }
  assert.throws(() => measureTd({ ...launch, firmwareCode: new Uint8Array(4097) }), refused)
  assert.throws(() => measureTd({ ...launch, firmwareCode: new Uint8Array(0) }), refused)
  assert.throws(() => measureTd({ ...launch, kernel: new Uint8Array(0x600) }), refused)
})

test("readSecureBootVariables() reads what the store holds, deleted and foreign variables aside", () => {
  const [old, now] = [Uint8Array.of(1, 2, 3), Uint8Array.of(4, 5)]
  const store = variableStore([
    { name: "db", value: old, state: 0x3d },
    { name: "KEK", value: now, state: 0x3e },
    { name: "db", value: now },
    { name: "dbx", value: old, guid: "00".repeat(16) },
  ])
  const empty = new Uint8Array(0)
  assert.deepEqual(readSecureBootVariables(store), { SecureBoot: Uint8Array.of(0), PK: empty, KEK: now, db: now, dbx: empty })
})

test("readSecureBootVariables() refuses a store with a platform key, and what is no store", () => {
  const refused = { name: "LabError", code: "build-failed" }
  assert.throws(() => readSecureBootVariables(variableStore([{ name: "PK", value: Uint8Array.of(1) }])), refused)
  assert.throws(() => readSecureBootVariables(flipped(variableStore([]), 40)), refused)
  assert.throws(() => readSecureBootVariables(flipped(variableStore([]), 72)), refused)
})
