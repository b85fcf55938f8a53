import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeUtf8 } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import { encodeEventLog, parseEventLog, scanEventLog } from "./format.ts"
import { goodBoot, makeLog, makeSha1Log, separator, specIdData } from "./log-builder.testing.ts"
import { eventTypeName, eventTypes, isTypeAllowed } from "./types.ts"

const agile = makeLog(goodBoot())
const sha1 = makeSha1Log([separator(0), { pcr: 4, type: "EV_IPL", data: encodeUtf8("loader") }, separator(4)])

/** A prefix that ends behind a record is whole: that the log lacks events is for the registers to show. */
function recordEnds(log: Uint8Array): readonly number[] {
  return parseEventLog(log).events.map((event) => event.end)
}

testParserLaws({
  name: "parseEventLog",
  parse: parseEventLog,
  encode: encodeEventLog,
  samples: [makeLog([]), sha1, makeLog(goodBoot().slice(0, 9)), makeLog([separator(1)], ["sha256", "sha384", "sha512"])],
  wholePrefixes: recordEnds,
  refusesTrailing: true,
  fuzzRuns: 1500,
})

test("parseEventLog() reads every record of a crypto-agile log", () => {
  const log = parseEventLog(agile)
  assert.equal(log.format, "crypto-agile")
  assert.deepEqual(
    log.banks.map(({ name }) => name),
    ["sha1", "sha256"],
  )
  assert.equal(log.events.length, goodBoot().length + 1)
  assert.equal(log.sizeBytes, agile.length)
  assert.deepEqual([...encodeEventLog(log)], [...agile])
  assert.equal(log.events[3]?.register, 7)
  assert.equal(eventTypeName(log.events[3]?.type ?? 0), "EV_EFI_VARIABLE_DRIVER_CONFIG")
  assert.equal(log.events[3]?.index, 3)
  assert.equal(log.events[3]?.digests.get("sha256")?.length, 32)
})

test("parseEventLog() reads a log without a Spec ID event as SHA-1 only", () => {
  const log = parseEventLog(sha1)
  assert.equal(log.format, "sha1")
  assert.deepEqual(log.banks, [{ algorithm: 4, name: "sha1", digestBytes: 20 }])
})

test("parseEventLog() takes a first record for a Spec ID event by type and signature only", () => {
  const data = specIdData([sha256Bank])
  assert.equal(parseEventLog(withSpecId(data)).format, "crypto-agile")
  const firstRecord = (change: { readonly type?: number; readonly at?: number }): Uint8Array => {
    const changed = Uint8Array.from(data, (byte, at) => (at === change.at ? byte ^ 1 : byte))
    return new ByteWriter()
      .u32le(0)
      .u32le(change.type ?? 3)
      .bytes(new Uint8Array(20))
      .u32le(changed.length)
      .bytes(changed)
      .take()
  }
  for (const change of [{ type: 13 }, { at: 0 }, { at: 15 }]) assert.equal(parseEventLog(firstRecord(change)).format, "sha1")
})

test("encodeEventLog() refuses digests of a bank that the log lacks", () => {
  const log = parseEventLog(agile)
  assert.throws(() => encodeEventLog({ ...log, banks: log.banks.filter(({ name }) => name !== "sha256") }), TypeError)
})

for (const [what, padding] of [
  ["0xff", new Uint8Array(972).fill(0xff)],
  ["zero", new Uint8Array(8)],
] as const)
  test(`parseEventLog() counts ${what} padding behind the last record`, () => {
    const log = parseEventLog(concatBytes(agile, padding))
    assert.equal(log.trailing.length, padding.length)
    assert.equal(log.sizeBytes, agile.length)
    assert.deepEqual([...encodeEventLog(log)], [...concatBytes(agile, padding)])
  })

test("parseEventLog() takes fewer than eight equal bytes for a cut record, not for padding", () => {
  for (let count = 1; count < 8; count++) {
    assert.throws(() => parseEventLog(concatBytes(agile, new Uint8Array(count))), { code: "truncated" })
    assert.throws(() => parseEventLog(concatBytes(agile, new Uint8Array(count).fill(0xff))), { code: "truncated" })
  }
})

test("parseEventLog() refuses mixed padding", () => {
  const mixed = concatBytes(agile, new Uint8Array(16), new Uint8Array(16).fill(0xff))
  assert.throws(() => parseEventLog(mixed), { code: "malformed" })
  assert.throws(() => parseEventLog(concatBytes(agile, new Uint8Array(32), Uint8Array.of(1))), { code: "malformed" })
})

test("parseEventLog() takes zeros and ones for padding, no other byte", () => {
  for (const fill of [0x01, 0x20, 0xfe]) assert.throws(() => parseEventLog(concatBytes(agile, new Uint8Array(64).fill(fill))), { code: "malformed" })
})

test("parseEventLog() takes a record that ends in zeros for a record", () => {
  const log = makeLog([separator(0), { pcr: 1, type: "EV_NONHOST_CONFIG", data: new Uint8Array(64) }])
  assert.equal(parseEventLog(log).trailing.length, 0)
  assert.equal(parseEventLog(log).events.length, 3)
})

/** A log whose Spec ID event holds other data, with nothing behind it. */
function withSpecId(data: Uint8Array): Uint8Array {
  return new ByteWriter().u32le(0).u32le(3).bytes(new Uint8Array(20)).u32le(data.length).bytes(data).take()
}

const sha256Bank = { algorithm: 0x000b, digestBytes: 32 }
const specIdFaults: readonly (readonly [string, Uint8Array, string])[] = [
  ["no algorithm", specIdData([]), "too-large"],
  ["seventeen algorithms", specIdData(Array.from({ length: 17 }, (_, at) => ({ algorithm: 0x100 + at, digestBytes: 32 }))), "too-large"],
  ["a known algorithm of another size", specIdData([{ algorithm: 0x000b, digestBytes: 20 }]), "malformed"],
  ["a digest of no bytes", specIdData([{ algorithm: 0x0100, digestBytes: 0 }]), "too-large"],
  ["a digest of 65 bytes", specIdData([{ algorithm: 0x0100, digestBytes: 65 }]), "too-large"],
  ["an algorithm twice", specIdData([sha256Bank, sha256Bank]), "duplicate"],
  ["bytes behind the vendor data", concatBytes(specIdData([sha256Bank]), Uint8Array.of(0)), "trailing-bytes"],
  ["vendor data that is cut off", concatBytes(specIdData([sha256Bank]).slice(0, -1), Uint8Array.of(4)), "truncated"],
]
for (const [what, data, code] of specIdFaults)
  test(`parseEventLog() refuses a Spec ID event with ${what}`, () => {
    assert.throws(() => parseEventLog(withSpecId(data)), { code })
  })

test("parseEventLog() takes the limits of the Spec ID event themselves", () => {
  const banks = Array.from({ length: 16 }, (_, at) => ({ algorithm: 0x100 + at, digestBytes: at === 0 ? 64 : 1 }))
  assert.equal(parseEventLog(withSpecId(specIdData(banks, encodeUtf8("vendor")))).banks.length, 16)
})

test("parseEventLog() knows the algorithms of event logs by their numbers and sizes", () => {
  const rows = [[0x0004, 20], [0x000b, 32], [0x000c, 48], [0x000d, 64], [0x0012, 32]] as const // prettier-ignore
  const { banks } = parseEventLog(withSpecId(specIdData(rows.map(([algorithm, digestBytes]) => ({ algorithm, digestBytes })))))
  assert.deepEqual(
    banks.map(({ name }) => name),
    ["sha1", "sha256", "sha384", "sha512", "sm3-256"],
  )
  for (const [algorithm, digestBytes] of rows)
    assert.throws(() => parseEventLog(withSpecId(specIdData([{ algorithm, digestBytes: digestBytes - 1 }]))), { code: "malformed" })
})

test("parseEventLog() skips digests of unknown algorithms by their stated size", () => {
  const specId = withSpecId(specIdData([{ algorithm: 0x0100, digestBytes: 7 }, sha256Bank]))
  const record = new ByteWriter().u32le(4).u32le(13).u32le(2).u16le(0x0100).bytes(new Uint8Array(7)).u16le(0x000b).bytes(new Uint8Array(32)).u32le(1)
  const log = parseEventLog(concatBytes(specId, record.u8(9).take()))
  assert.deepEqual([...(log.events[1]?.digests.keys() ?? [])], ["0x0100", "sha256"])
  assert.deepEqual([...(log.events[1]?.data ?? [])], [9])
})

/** One record behind a Spec ID event with SHA-256 and SHA-1. */
function withRecord(write: (writer: ByteWriter) => ByteWriter): Uint8Array {
  const specId = withSpecId(specIdData([sha256Bank, { algorithm: 0x0004, digestBytes: 20 }]))
  return concatBytes(specId, write(new ByteWriter().u32le(4).u32le(13)).take())
}

test("parseEventLog() refuses wrong digest lists", () => {
  const digest = new Uint8Array(32)
  const twice = withRecord((writer) => writer.u32le(2).u16le(0x000b).bytes(digest).u16le(0x000b).bytes(digest).u32le(0))
  assert.throws(() => parseEventLog(twice), { code: "duplicate" })
  const unlisted = withRecord((writer) => writer.u32le(1).u16le(0x000c).bytes(new Uint8Array(48)).u32le(0))
  assert.throws(() => parseEventLog(unlisted), { code: "malformed" })
  const sha1 = new Uint8Array(20)
  const third = withRecord((writer) => writer.u32le(3).u16le(0x000b).bytes(digest).u16le(4).bytes(sha1).u16le(0x000b).bytes(digest).u32le(0))
  assert.throws(() => parseEventLog(third), { code: "malformed" })
  for (const count of [0, 3, 0xffffffff])
    assert.throws(() => parseEventLog(withRecord((writer) => writer.u32le(count).u32le(0))), { code: "malformed" })
  const fewer = withRecord((writer) => writer.u32le(1).u16le(0x000b).bytes(digest).u32le(0))
  assert.deepEqual([...(parseEventLog(fewer).events[1]?.digests.keys() ?? [])], ["sha256"])
})

test("parseEventLog() refuses event data over a mebibyte before reading it", () => {
  const record = (size: number): Uint8Array => withRecord((writer) => writer.u32le(1).u16le(0x000b).bytes(new Uint8Array(32)).u32le(size))
  assert.throws(() => parseEventLog(record(1024 * 1024 + 1)), { code: "too-large" })
  assert.throws(() => parseEventLog(record(1024 * 1024)), { code: "truncated" })
})

test("parseEventLog() refuses a log over eight mebibytes and one of too many records", () => {
  assert.throws(() => parseEventLog(new Uint8Array(8 * 1024 * 1024 + 1)), { code: "too-large" })
  assert.equal(parseEventLog(concatBytes(agile, new Uint8Array(8 * 1024 * 1024 - agile.length))).sizeBytes, agile.length)
  const record = new ByteWriter().u32le(1).u32le(1).bytes(new Uint8Array(20)).u32le(0).take()
  const many = new Uint8Array(record.length * 65_537)
  for (let at = 0; at < many.length; at += record.length) many.set(record, at)
  assert.throws(() => parseEventLog(many), { code: "too-large" })
  assert.equal(parseEventLog(many.slice(record.length)).events.length, 65_536)
})

test("scanEventLog() gives the records before a fault", () => {
  const cut = agile.slice(0, -5)
  const { log, fault } = scanEventLog(cut)
  assert.equal(fault?.code, "truncated")
  assert.equal(log.events.length, goodBoot().length)
  assert.equal(log.trailing.length, cut.length - log.sizeBytes)
  assert.equal(scanEventLog(agile).fault, undefined)
})

/** TCG PFP 1.06 §3.3.4 and §10.4, and what boot loaders measure; without the prefix EV_, in the order of their numbers. */
const allowed: readonly (readonly [pcr: number, types: string])[] = [
  [0, "POST_CODE SEPARATOR ACTION S_CRTM_CONTENTS S_CRTM_VERSION NONHOST_CODE NONHOST_INFO POST_CODE2 EFI_BOOT_SERVICES_DRIVER EFI_RUNTIME_SERVICES_DRIVER EFI_PLATFORM_FIRMWARE_BLOB EFI_HANDOFF_TABLES EFI_PLATFORM_FIRMWARE_BLOB2 EFI_HANDOFF_TABLES2 EFI_HCRTM_EVENT"], // prettier-ignore
  [1, "SEPARATOR ACTION EVENT_TAG CPU_MICROCODE PLATFORM_CONFIG_FLAGS TABLE_OF_DEVICES NONHOST_CONFIG EFI_VARIABLE_DRIVER_CONFIG EFI_VARIABLE_BOOT EFI_ACTION EFI_HANDOFF_TABLES EFI_HANDOFF_TABLES2 EFI_VARIABLE_BOOT2"], // prettier-ignore
  [2, "SEPARATOR ACTION NONHOST_CODE NONHOST_INFO EFI_BOOT_SERVICES_APPLICATION EFI_BOOT_SERVICES_DRIVER EFI_RUNTIME_SERVICES_DRIVER EFI_PLATFORM_FIRMWARE_BLOB EFI_PLATFORM_FIRMWARE_BLOB2 EFI_SPDM_FIRMWARE_BLOB"], // prettier-ignore
  [3, "SEPARATOR ACTION EVENT_TAG EFI_VARIABLE_DRIVER_CONFIG EFI_HANDOFF_TABLES EFI_HANDOFF_TABLES2 EFI_SPDM_FIRMWARE_CONFIG"],
  [4, "SEPARATOR ACTION COMPACT_HASH IPL OMIT_BOOT_DEVICE_EVENTS EFI_BOOT_SERVICES_APPLICATION EFI_ACTION"],
  [5, "SEPARATOR ACTION EVENT_TAG IPL_PARTITION_DATA EFI_VARIABLE_BOOT EFI_GPT_EVENT EFI_ACTION EFI_VARIABLE_BOOT2 EFI_GPT_EVENT2"],
  [6, "SEPARATOR ACTION EVENT_TAG COMPACT_HASH"],
  [7, "SEPARATOR ACTION EFI_VARIABLE_DRIVER_CONFIG EFI_ACTION EFI_VARIABLE_AUTHORITY EFI_SPDM_DEVICE_POLICY EFI_SPDM_DEVICE_AUTHORITY"],
  [8, "IPL"],
  [9, "EVENT_TAG IPL"],
  [11, "SEPARATOR EVENT_TAG COMPACT_HASH IPL"],
  [12, "SEPARATOR EVENT_TAG IPL"],
  [13, "SEPARATOR EVENT_TAG IPL"],
  [14, "SEPARATOR EVENT_TAG IPL"],
]
for (let pcr = 0; pcr < 24; pcr++)
  test(`isTypeAllowed() knows what may extend PCR ${pcr}`, () => {
    const found = Object.keys(eventTypes).filter((type) => isTypeAllowed(pcr, type))
    assert.equal(found.map((type) => type.replace("EV_", "")).join(" "), allowed.find(([row]) => row === pcr)?.[1] ?? "")
  })

test("isTypeAllowed() and eventTypeName() know no types without a name", () => {
  assert.equal(isTypeAllowed(0, "0x00000020"), false)
  assert.equal(eventTypeName(0x20), "0x00000020")
  assert.equal(eventTypeName(0x80000007), "EV_EFI_ACTION")
})
