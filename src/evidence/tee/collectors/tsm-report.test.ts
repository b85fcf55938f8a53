import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { AmdAuthority } from "../../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../../lab/devices/amd-snp.ts"
import { makeLabAuthority, makeLabKeys } from "../../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../../lab/devices/dcap/device.ts"
import { encodeUtf8 } from "../../../bytes/text.ts"
import type { DeviceFiles } from "./device-files.ts"
import { hostFiles } from "./device-files.ts"
import { collectTsmReport } from "./tsm-report.ts"

// Nothing here verifies: small keys do.
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const amd = new SnpDevice(new AmdAuthority("Milan", { ark: rsa, ask: rsa, asvk: rsa }))
const intel = makeLabAuthority({ keys: makeLabKeys() })
const reportData = new Uint8Array(64).fill(0x7e)
const folder = "/tsm"

interface FakeOptions {
  readonly provider?: string
  readonly auxblob?: Uint8Array
  readonly makeReport?: (inblob: Uint8Array) => Uint8Array
  /** Runs after a file of the entry was used: what somebody else does meanwhile. */
  readonly meanwhile?: (tsm: FakeTsm, operation: string) => void
  readonly mkdirError?: string
}

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code })
}

/** configfs-tsm as Linux 6.7 and later do it: drivers/virt/coco/tsm.c. */
class FakeTsm implements DeviceFiles {
  readonly entries = new Map<string, { inblob: Uint8Array | undefined; generation: number; readGeneration: number }>()
  readonly writes: string[] = []
  readonly #options: FakeOptions

  constructor(options: FakeOptions = {}) {
    this.#options = options
  }

  readonly makeFolder = async (path: string): Promise<void> => {
    if (this.#options.mkdirError !== undefined) throw systemError(this.#options.mkdirError)
    if (this.entries.has(path)) throw systemError("EEXIST")
    this.entries.set(path, { inblob: undefined, generation: 0, readGeneration: 0 })
  }

  readonly removeFolder = async (path: string): Promise<void> => {
    this.entries.delete(path)
  }

  readonly write = async (path: string, bytes: Uint8Array): Promise<void> => {
    this.writes.push(path)
    if (!path.endsWith("/inblob")) throw systemError("EACCES")
    if (bytes.length > 64) throw systemError("EINVAL")
    this.disturb(path.replace(/\/inblob$/, ""), bytes)
    this.#options.meanwhile?.(this, "write")
  }

  /** A write of anybody's. */
  disturb(entry: string, inblob: Uint8Array): void {
    const state = this.#entry(entry)
    state.inblob = inblob
    state.generation++
  }

  readonly read = async (path: string): Promise<Uint8Array> => {
    const name = path.split("/").at(-1) ?? ""
    const state = this.#entry(path.substring(0, path.length - name.length - 1))
    const bytes = this.#read(name, state)
    this.#options.meanwhile?.(this, name)
    return bytes
  }

  #read(name: string, state: { inblob: Uint8Array | undefined; generation: number }): Uint8Array {
    switch (name) {
      case "generation":
        return encodeUtf8(`${state.generation}\n`)
      case "provider":
        return encodeUtf8(`${this.#options.provider ?? "sev_guest"}\n`)
      case "outblob":
        if (state.inblob === undefined) throw systemError("EINVAL")
        return (this.#options.makeReport ?? ((data) => amd.report({ reportData: data })))(state.inblob)
      case "auxblob":
        if (this.#options.auxblob === undefined) throw systemError("ENOENT")
        return this.#options.auxblob
      default:
        throw systemError("ENOENT")
    }
  }

  #entry(path: string): { inblob: Uint8Array | undefined; generation: number } {
    const state = this.entries.get(path)
    if (state === undefined) throw systemError("ENOENT")
    return state
  }
}

const collect = (files: DeviceFiles, entry = "perun-1"): ReturnType<typeof collectTsmReport> => collectTsmReport({ reportData, entry, folder, files })

test("collectTsmReport() gives an SNP report with the host's certificates, and leaves no entry behind", async () => {
  const tsm = new FakeTsm({ auxblob: Uint8Array.of(1, 2, 3) })
  const { kind, report, auxiliary } = await collect(tsm)
  assert.equal(kind, "snp")
  assert.equal(report.length, 1184)
  assert.deepEqual(auxiliary, Uint8Array.of(1, 2, 3))
  assert.deepEqual(tsm.writes, ["/tsm/perun-1/inblob"])
  assert.equal(tsm.entries.size, 0)
})

test("collectTsmReport() gives a TDX quote, and nothing beside it where the kernel has nothing", async () => {
  const tsm = new FakeTsm({ provider: "tdx_guest", makeReport: (data) => makeTdxQuote(intel, data) })
  const { kind, auxiliary } = await collect(tsm)
  assert.deepEqual([kind, auxiliary], ["tdx", undefined])
  assert.equal((await collect(new FakeTsm({ auxblob: new Uint8Array(0) }))).auxiliary, undefined)
})

for (const moment of ["write", "outblob", "auxblob", "provider"]) {
  test(`collectTsmReport() asks again when somebody else writes to the entry (after ${moment})`, async () => {
    let left = 2
    const meanwhile = (tsm: FakeTsm, operation: string): void => {
      if (operation === moment && left-- > 0) tsm.disturb("/tsm/perun-1", new Uint8Array(64))
    }
    const tsm = new FakeTsm({ auxblob: Uint8Array.of(1), meanwhile })
    const { report } = await collect(tsm)
    assert.deepEqual(report.slice(0x50, 0x90), reportData)
    assert.equal(tsm.writes.length, 3)
  })
}

test("collectTsmReport() asks again when the kernel says that the entry changed under it", async () => {
  let left = 1
  const tsm = new FakeTsm({
    makeReport: (data) => {
      if (left-- > 0) throw systemError("EAGAIN")
      return amd.report({ reportData: data })
    },
  })
  await collect(tsm)
  assert.equal(tsm.writes.length, 2)
})

test("collectTsmReport() gives up when it is disturbed for ever, and removes its entry", async () => {
  const tsm = new FakeTsm({ meanwhile: (fake, operation) => operation === "write" && fake.disturb("/tsm/perun-1", new Uint8Array(64)) })
  await assert.rejects(collect(tsm), { name: "UnavailableError", code: "unavailable" })
  assert.equal(tsm.writes.length, 5)
  assert.equal(tsm.entries.size, 0)
})

test("collectTsmReport() refuses a report over other data, an unknown provider, and what cannot be read", async () => {
  await assert.rejects(collect(new FakeTsm({ makeReport: () => amd.report() })), { code: "unavailable" })
  await assert.rejects(collect(new FakeTsm({ provider: "arm_cca_guest" })), { code: "unsupported" })
  await assert.rejects(collect(new FakeTsm({ makeReport: () => new Uint8Array(10) })), { code: "unsupported" })
  await assert.rejects(collect(new FakeTsm({ makeReport: () => new Uint8Array(65_537) })), { code: "unavailable" })
  await assert.rejects(collect(new FakeTsm({ auxblob: new Uint8Array(65_537) })), { code: "unavailable" })
})

test("collectTsmReport() says unsupported where there is no device, and what else fails", async () => {
  for (const [word, code] of [
    ["ENOENT", "unsupported"],
    ["ENXIO", "unsupported"],
    ["EACCES", "permission-denied"],
    ["EEXIST", "unavailable"],
    ["EBUSY", "unavailable"],
  ] as const)
    // prettier-ignore
    await assert.rejects(collect(new FakeTsm({ mkdirError: word })), { name: "UnavailableError", code })
  const missing = collectTsmReport({ reportData, entry: "perun-1", folder: "/no/such/folder", files: hostFiles })
  await assert.rejects(missing, { name: "UnavailableError", code: "unsupported" })
})

test("collectTsmReport() takes 64 bytes and a plain name", async () => {
  const files = new FakeTsm()
  await assert.rejects(collectTsmReport({ reportData: new Uint8Array(32), entry: "perun-1", folder, files }), TypeError)
  for (const entry of ["", "../x", "a/b", "A"]) await assert.rejects(collectTsmReport({ reportData, entry, folder, files }), TypeError)
})
