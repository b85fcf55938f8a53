import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import { parseEventLog } from "./format.ts"
import { makeLog, makeSha1Log, separator, startupLocality } from "./log-builder.testing.ts"
import type { EventInput } from "./log-builder.testing.ts"
import { replayEventLog, replayMeasurementRegisters, startValue } from "./replay.ts"

const zeros = new Uint8Array(32)
const extend = (before: Uint8Array, data: Uint8Array): string => encodeHex(hash("sha256", before, hash("sha256", data)))
const replay = (events: readonly EventInput[]): ReturnType<typeof replayEventLog> => replayEventLog(parseEventLog(makeLog(events)), "sha256")
const valueOf = (events: readonly EventInput[], pcr: number): string => encodeHex(replay(events).registers.get(pcr) ?? new Uint8Array(0))

test("replayEventLog() extends value and digest, per register and bank", () => {
  const events = [separator(4), { pcr: 4, type: "EV_IPL", data: encodeUtf8("a") }, separator(5)] as const
  const first = hash("sha256", zeros, hash("sha256", new Uint8Array(4)))
  assert.equal(valueOf(events, 4), extend(first, encodeUtf8("a")))
  assert.equal(valueOf(events, 5), encodeHex(first))
  assert.deepEqual([...replay(events).registers.keys()], [4, 5])
  const sha1 = replayEventLog(parseEventLog(makeSha1Log(events)), "sha1").registers.get(5)
  assert.equal(encodeHex(sha1 ?? zeros), encodeHex(hash("sha1", new Uint8Array(20), hash("sha1", new Uint8Array(4)))))
})

test("replayEventLog() never extends EV_NO_ACTION, whatever its register and digest", () => {
  const noAction = (pcr: number): EventInput => ({ pcr, type: "EV_NO_ACTION", data: encodeUtf8("SP800-155 Event3 and more") })
  const { registers } = replay([noAction(0), noAction(0xffffffff), noAction(30), separator(4), noAction(4)])
  assert.deepEqual([...registers.keys()], [4])
  assert.equal(encodeHex(registers.get(4) ?? zeros), extend(zeros, new Uint8Array(4)))
})

test("replayEventLog() starts PCR 0 as StartupLocality says", () => {
  for (const locality of [0, 3, 4]) {
    const start = concatBytes(new Uint8Array(31), Uint8Array.of(locality))
    const events = [separator(1), startupLocality(locality), separator(0)]
    assert.equal(valueOf(events, 0), extend(start, new Uint8Array(4)))
    assert.equal(replay(events).startupLocality, locality)
    assert.equal(valueOf(events, 1), extend(zeros, new Uint8Array(4)))
  }
  assert.equal(replay([separator(0)]).startupLocality, 0)
})

const wrongLocality: readonly (readonly [string, readonly EventInput[], string])[] = [
  ["stands twice", [startupLocality(3), startupLocality(3)], "log-order"],
  ["stands behind the first event of PCR 0", [separator(0), startupLocality(3)], "log-order"],
  ["stands behind an event of PCR 0 that has no digest of the bank", [{ ...separator(0), without: ["sha256"] }, startupLocality(3)], "log-order"],
  ["is in another register", [{ ...startupLocality(3), pcr: 1 }], "log-order"],
  ["is 1", [startupLocality(1)], "log-mismatch"],
  ["has no value", [{ ...startupLocality(3), data: encodeUtf8("StartupLocality\0") }], "log-mismatch"],
  ["has two values", [{ ...startupLocality(3), data: encodeUtf8("StartupLocality\0\u0003\u0000") }], "log-mismatch"],
]
for (const [what, events, code] of wrongLocality)
  test(`replayEventLog() refuses a StartupLocality that ${what}`, () => {
    assert.throws(() => replay(events), { code })
  })

test("replayEventLog() says which record is at fault", () => {
  assert.throws(() => replay([separator(1), separator(24)]), { path: "eventLog[2]" })
})

test("startValue() is all ones in PCR 17 to 22, else zero", () => {
  assert.equal(encodeHex(startValue(16, "sha256", 3)), "00".repeat(32))
  assert.equal(encodeHex(startValue(17, "sha256", 3)), "ff".repeat(32))
  assert.equal(encodeHex(startValue(22, "sha1", 0)), "ff".repeat(20))
  assert.equal(encodeHex(startValue(23, "sha256", 3)), "00".repeat(32))
  assert.equal(encodeHex(startValue(0, "sha1", 4)), `${"00".repeat(19)}04`)
})

test("replayEventLog() refuses registers that do not exist and banks that the log lacks", () => {
  assert.throws(() => replay([{ ...separator(24) }]), { code: "log-order" })
  assert.equal(replay([separator(23)]).registers.size, 1)
  assert.throws(() => replayEventLog(parseEventLog(makeLog([])), "sha384"), { code: "log-incomplete" })
})

test("replayEventLog() names registers that lack a digest of the bank", () => {
  const { incomplete, registers } = replay([separator(4), { ...separator(5), without: ["sha256"] }])
  assert.deepEqual([...incomplete], [5])
  assert.deepEqual([...registers.keys()], [4])
})

test("replayMeasurementRegisters() extends indices 1 to 4 from zero with SHA-384", () => {
  const log = parseEventLog(makeLog([separator(1), separator(4), { pcr: 0, type: "EV_NO_ACTION", data: zeros }], ["sha384"]))
  const expected = encodeHex(hash("sha384", new Uint8Array(48), hash("sha384", new Uint8Array(4))))
  const registers = [...replayMeasurementRegisters(log)].map(([register, value]) => [register, encodeHex(value)])
  assert.deepEqual(registers, [[1, expected], [4, expected]]) // prettier-ignore
})

test("replayMeasurementRegisters() refuses MRTD, indices beyond RTMR3, and other banks", () => {
  for (const index of [0, 5])
    assert.throws(() => replayMeasurementRegisters(parseEventLog(makeLog([separator(index)], ["sha384"]))), { code: "log-order" })
  for (const events of [[], [separator(1)]])
    assert.throws(() => replayMeasurementRegisters(parseEventLog(makeLog(events))), { code: "log-incomplete" })
  const without = makeLog([{ ...separator(1), without: ["sha384"] }], ["sha256", "sha384"])
  assert.throws(() => replayMeasurementRegisters(parseEventLog(without)), { code: "log-incomplete" })
})
