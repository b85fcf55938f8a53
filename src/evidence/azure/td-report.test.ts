import assert from "node:assert/strict"
import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hash } from "../../pki/signatures.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import { parseHclReport } from "./format.ts"
import { parseTdReport } from "./td-report.ts"

const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value)
const tcbInfo = concatBytes(filled(8, 1), filled(16, 2), filled(48, 3), filled(48, 4), filled(119, 0))
const registers = [10, 11, 12, 13].map((value) => filled(48, value))
const tdInfo = concatBytes(filled(8, 5), filled(8, 6), ...[7, 8, 9, 14].map((value) => filled(48, value)), ...registers, filled(112, 0))

function makeReport(
  type: readonly number[] = [0x81, 0, 0],
  hashes: readonly Uint8Array[] = [hash("sha384", tcbInfo), hash("sha384", tdInfo)],
): Uint8Array {
  const writer = new ByteWriter()
  writer.bytes(Uint8Array.from(type)).bytes(new Uint8Array(13)).bytes(filled(16, 15))
  for (const digest of hashes) writer.bytes(digest)
  writer.bytes(filled(64, 16)).bytes(new Uint8Array(32)).bytes(filled(32, 17))
  return writer.bytes(tcbInfo).bytes(new Uint8Array(17)).bytes(tdInfo).take()
}

const good = makeReport()
const text = (value: number, length: number): string => encodeHex(filled(length, value))

test("parseTdReport() gives every field", () => {
  assert.deepEqual(parseTdReport(good), {
    reportData: text(16, 64),
    teeTcbSvn: text(2, 16),
    mrSeam: text(3, 48),
    mrSignerSeam: text(4, 48),
    tdAttributes: text(5, 8),
    xfam: text(6, 8),
    mrTd: text(7, 48),
    mrConfigId: text(8, 48),
    mrOwner: text(9, 48),
    mrOwnerConfig: text(14, 48),
    rtmrs: [10, 11, 12, 13].map((value) => text(value, 48)),
  })
  parseTdReport(makeReport([0x81, 0, 1]))
})

testParserLaws({ name: "parseTdReport", parse: parseTdReport, samples: [good], fuzzRuns: 5000 })

test("parseTdReport() refuses other types, reserved bytes and hashes of something else", () => {
  for (const type of [
    [0x00, 0, 0],
    [0x81, 1, 0],
    [0x81, 0, 2],
  ])
    assert.throws(() => parseTdReport(makeReport(type)), { code: "unsupported" })
  for (const at of [0x03, 0x0f, 0xc0, 0xdf, 0x1ef, 0x1ff]) {
    const changed = Uint8Array.from(good)
    changed[at] = 1
    assert.throws(() => parseTdReport(changed), { code: "malformed" }, `byte ${at}`)
  }
  for (const at of [0x20, 0x50, 0x100, 0x1ee, 0x200, 0x3ff]) {
    const changed = Uint8Array.from(good)
    changed[at] = 0xff
    assert.throws(() => parseTdReport(changed), { code: "contradiction" }, `byte ${at}`)
  }
})

const vectors = process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../../shared/vectors")
const skip = existsSync(vectors) ? false : "skipped: no vectors"

test("parseTdReport() reads those of real machines", { skip }, () => {
  for (const name of ["tdx-v1", "tdx-no-secure-boot-with-collateral"]) {
    const { hardware } = parseHclReport(new Uint8Array(readFileSync(join(vectors, "azure-vtpm", name, "hcl-report.bin"))))
    assert.equal(parseTdReport(hardware.report).reportData.substring(64), "00".repeat(32))
  }
})
