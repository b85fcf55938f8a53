import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import { Genuine } from "../genuine.ts"
import type { ImaClaims, ImaState } from "./claims.ts"
import { parseImaList } from "./format.ts"
import {
  aggregateOf,
  bootAggregate,
  bootPcrs,
  digestField,
  fields,
  file,
  makeList,
  nameField,
  quotedAfter,
  signedFile,
  violation,
} from "./list-builder.testing.ts"
import type { EntryInput } from "./list-builder.testing.ts"
import { findImaRegister, replayImaList } from "./replay.ts"
import { verifyIma } from "./verify.ts"
import type { ImaExpectations } from "./verify.ts"

const entries: readonly EntryInput[] = [bootAggregate(), file("/init"), file("/usr/bin/sh"), violation("/var/log/x"), file("/usr/bin/python3")]
const list = makeList(entries)

function verify(bytes: Uint8Array, change: Partial<ImaExpectations> = {}): ImaClaims {
  return verifyIma({ list: bytes, bank: "sha256", bootPcrs: bootPcrs(), ...change, quotedPcrs: change.quotedPcrs ?? quotedAfter(bytes) }).claims
}

const namesOf = (claims: ImaClaims): readonly string[] => claims.entries.map((entry) => Buffer.from(entry.name).toString())

/** SHA-256(previous ‖ entry), as claims.ts defines it. */
function prefixOf(bytes: Uint8Array): string {
  let value: Uint8Array = new Uint8Array(32)
  for (const record of parseImaList(bytes)) value = hash("sha256", value, record.bytes)
  return encodeHex(value)
}

test("verifyIma() gives the certified entries", () => {
  const genuine = verifyIma({ list, bank: "sha256", quotedPcrs: quotedAfter(list), bootPcrs: bootPcrs() })
  assert.ok(genuine instanceof Genuine)
  const { claims } = genuine
  assert.deepEqual(namesOf(claims), ["boot_aggregate", "/init", "/usr/bin/sh", "/var/log/x", "/usr/bin/python3"])
  assert.equal(claims.firstIndex, 0)
  assert.equal(claims.certifiedCount, 5)
  assert.deepEqual(claims.uncertified, [])
  assert.equal(claims.bootAggregate, `sha256:${encodeHex(aggregateOf("sha256", 9))}`)
  assert.equal(claims.extendRule, "per-bank")
  assert.equal(claims.violations, 1)
  assert.deepEqual(claims.state, { count: 5, pcr: quotedAfter(list).get(10), prefix: prefixOf(list), extendRule: "per-bank" })
})

test("verifyIma() judges every bank, SHA-1 only where it is named", () => {
  for (const bank of ["sha384", "sha512"] as const) {
    const bytes = makeList([bootAggregate(bank), file("/a")])
    assert.equal(verify(bytes, { bank, quotedPcrs: quotedAfter(bytes, 2, bank), bootPcrs: bootPcrs(bank) }).certifiedCount, 2)
  }
  const bytes = makeList([bootAggregate("sha1"), file("/a")])
  const change = { bank: "sha1", quotedPcrs: quotedAfter(bytes, 2, "sha1"), bootPcrs: bootPcrs("sha1") } as const
  assert.throws(() => verify(bytes, change), { code: "weak-algorithm" })
  assert.equal(verify(bytes, { ...change, insecureAllowSha1: true }).certifiedCount, 2)
})

test("verifyIma() wants PCR 10 quoted also where it goes on from what was certified", () => {
  const { state } = verify(list)
  const withoutIma = { list: new Uint8Array(0), bank: "sha256", bootPcrs: bootPcrs(), quotedPcrs: new Map([[11, "00".repeat(32)]]) } as const
  assert.throws(() => verifyIma({ ...withoutIma, previous: state }), { code: "wrong-selection" })
  assert.throws(() => verifyIma({ ...withoutIma, list: makeList([{ ...file("/a"), pcr: 11 }]) }), { code: "wrong-selection" })
})

test("verifyIma() refuses values of another length and a quote without PCR 10", () => {
  assert.throws(() => verify(list, { quotedPcrs: new Map([[10, "00".repeat(20)]]) }), TypeError)
  assert.throws(() => verify(list, { quotedPcrs: new Map([[10, "xx"]]) }), { code: "malformed" })
  assert.throws(() => verify(list, { quotedPcrs: new Map() }), { code: "wrong-selection" })
})

test("verifyIma() keeps what stands behind the certified entries apart, and goes on from there", () => {
  const first = verify(list, { quotedPcrs: quotedAfter(list, 3) })
  assert.equal(first.certifiedCount, 3)
  assert.equal(first.uncertified.length, 2)
  assert.equal(first.violations, 0)
  assert.equal(first.state.prefix, prefixOf(makeList(entries.slice(0, 3))))
  assert.deepEqual(first.state.pending, { count: 5, prefix: prefixOf(list) })
  const rest = makeList(entries.slice(3))
  const second = verify(rest, { quotedPcrs: quotedAfter(list), previous: first.state })
  assert.equal(second.firstIndex, 3)
  assert.equal(second.certifiedCount, 5)
  assert.deepEqual(namesOf(second), ["/var/log/x", "/usr/bin/python3"])
  assert.deepEqual(second.entries.map((entry) => entry.index), [3, 4]) // prettier-ignore
  assert.equal(second.bootAggregate, undefined)
  assert.equal(second.violations, 1)
  assert.equal(second.state.prefix, prefixOf(list))
  assert.equal(second.state.pending, undefined)
})

test("verifyIma() accepts a tail that does not fit its own template digest only as long as nothing certifies it", () => {
  const tail: EntryInput = { ...file("/late"), templateDigest: new Uint8Array(20).fill(1) }
  const bytes = makeList([...entries, tail])
  assert.equal(verify(bytes, { quotedPcrs: quotedAfter(list) }).uncertified.length, 1)
  assert.throws(() => verify(bytes, { quotedPcrs: new Map([[10, "11".repeat(32)]]) }), { code: "log-mismatch" })
})

test("verifyIma() tries the other rule where a tail that does not fit stopped the first", () => {
  const bytes = makeList([...entries, { ...file("/late"), templateDigest: new Uint8Array(20).fill(1) }])
  const quotedPcrs = quotedAfter(list, 5, "sha256", "padded-sha1")
  const claims = verify(bytes, { quotedPcrs, insecureAllowPaddedSha1: true })
  assert.deepEqual([claims.extendRule, claims.certifiedCount, claims.uncertified.length], ["padded-sha1", 5, 1])
})

test("verifyIma() wants pending entries certified by the next quote, exactly as they were", () => {
  const { state } = verify(list, { quotedPcrs: quotedAfter(list, 3) })
  const rest = makeList(entries.slice(3))
  assert.throws(() => verify(rest, { quotedPcrs: quotedAfter(list, 3), previous: state }), { code: "log-incomplete" })
  assert.throws(() => verify(rest, { quotedPcrs: quotedAfter(list, 4), previous: state }), { code: "log-incomplete" })
  const other = makeList([...entries.slice(0, 3), file("/other"), file("/and another")])
  const otherRest = makeList([file("/other"), file("/and another")])
  assert.throws(() => verify(otherRest, { quotedPcrs: quotedAfter(other), previous: state }), { code: "log-mismatch" })
  const more = makeList([...entries, file("/new")])
  const { pending: _pending, ...certified } = state
  assert.equal(verify(makeList([...entries.slice(3), file("/new")]), { quotedPcrs: quotedAfter(more), previous: state }).certifiedCount, 6)
  assert.equal(verify(rest, { quotedPcrs: quotedAfter(list, 4), previous: certified }).certifiedCount, 4)
})

test("verifyIma() goes on without new entries while the register stands still", () => {
  const { state } = verify(list)
  const empty = new Uint8Array(0)
  const again = verify(empty, { quotedPcrs: quotedAfter(list), previous: state })
  assert.deepEqual(again.entries, [])
  assert.equal(again.certifiedCount, 5)
  assert.deepEqual(again.state, state)
  assert.throws(() => verify(empty, { quotedPcrs: new Map([[10, "11".repeat(32)]]), previous: state }), { code: "pcr-mismatch" })
  assert.throws(() => verify(empty, { quotedPcrs: quotedAfter(list, 4), previous: state }), { code: "pcr-mismatch" })
  assert.throws(() => verify(empty, { quotedPcrs: new Map([[10, "00".repeat(32)]]) }), { code: "pcr-mismatch" })
})

test("verifyIma() judges the whole list again where it begins at 0", () => {
  const { state } = verify(makeList(entries.slice(0, 3)))
  const whole = verify(list, { previous: state, from: 0 })
  assert.equal(whole.firstIndex, 0)
  assert.equal(whole.entries.length, 5)
  assert.equal(whole.bootAggregate, `sha256:${encodeHex(aggregateOf("sha256", 9))}`)
  const another = makeList([bootAggregate(), file("/init"), file("/other"), file("/more")])
  assert.throws(() => verify(another, { previous: state, from: 0 }), { code: "log-mismatch" })
  const shorter = makeList(entries.slice(0, 2))
  assert.throws(() => verify(shorter, { previous: state, from: 0 }), { code: "log-incomplete" })
})

test("verifyIma() refuses a list with a gap in front", () => {
  const { state } = verify(makeList(entries.slice(0, 3)))
  for (const from of [1, 2, 4]) assert.throws(() => verify(list, { previous: state, from }), { code: "log-incomplete" })
  assert.throws(() => verify(list, { from: 3 }), { code: "log-incomplete" })
})

test("verifyIma() keeps the state's extend rule and bank", () => {
  const { state } = verify(list)
  assert.throws(() => verify(new Uint8Array(0), { quotedPcrs: quotedAfter(list), previous: { ...state, extendRule: "padded-sha1" } }), {
    code: "pcr-mismatch",
  })
  assert.throws(() => verify(new Uint8Array(0), { quotedPcrs: quotedAfter(list), previous: { ...state, pcr: "00".repeat(20) } }), TypeError)
})

test("verifyIma() accepts padded SHA-1 only where it is named, and says so", () => {
  const quotedPcrs = quotedAfter(list, 5, "sha256", "padded-sha1")
  assert.notDeepEqual(quotedPcrs, quotedAfter(list))
  assert.throws(() => verify(list, { quotedPcrs }), { code: "pcr-mismatch" })
  const claims = verify(list, { quotedPcrs, insecureAllowPaddedSha1: true })
  assert.equal(claims.extendRule, "padded-sha1")
  assert.equal(verify(list, { insecureAllowPaddedSha1: true }).extendRule, "per-bank")
  const more = makeList([...entries, file("/new")])
  const later = quotedAfter(more, 6, "sha256", "padded-sha1")
  const change = { quotedPcrs: later, previous: claims.state } as const
  assert.throws(() => verify(makeList([file("/new")]), change), { code: "pcr-mismatch" })
  assert.equal(verify(makeList([file("/new")]), { ...change, insecureAllowPaddedSha1: true }).certifiedCount, 6)
})

test("verifyIma() reads lists with SHA-256 template digests", () => {
  const bytes = makeList(entries, "sha256")
  const quotedPcrs = replayImaList(bytes, "sha256", { headerHash: "sha256" }).registers
  assert.deepEqual(quotedPcrs, quotedAfter(list))
  assert.equal(verify(bytes, { quotedPcrs, headerHash: "sha256", insecureAllowPaddedSha1: true }).certifiedCount, 5)
  const wrong = { quotedPcrs: new Map([[10, "11".repeat(32)]]), headerHash: "sha256", insecureAllowPaddedSha1: true } as const
  assert.throws(() => verify(bytes, wrong), { code: "pcr-mismatch" })
  assert.throws(() => replayImaList(bytes, "sha256", { headerHash: "sha256", extendRule: "padded-sha1" }), TypeError)
})

const wrongLists: readonly (readonly [string, Uint8Array, string])[] = [
  ["a changed entry", makeList([...entries.slice(0, 2), file("/usr/bin/sh", "trojan"), ...entries.slice(3)]), "pcr-mismatch"],
  ["a renamed entry", makeList([...entries.slice(0, 2), file("/usr/bin/dash", "/usr/bin/sh"), ...entries.slice(3)]), "pcr-mismatch"],
  ["a missing entry", makeList([...entries.slice(0, 2), ...entries.slice(3)]), "pcr-mismatch"],
  ["a missing last entry", makeList(entries.slice(0, 4)), "pcr-mismatch"],
  [
    "entries in another order",
    makeList([entries[0], entries[2], entries[1], entries[3], entries[4]].filter((entry) => entry !== undefined)),
    "pcr-mismatch",
  ],
  [
    "an entry dressed up as a violation",
    makeList([...entries.slice(0, 2), { ...file("/usr/bin/sh"), violation: true }, ...entries.slice(3)]),
    "log-mismatch",
  ],
  ["a violation dressed up as an entry", makeList(entries.map((entry) => ({ ...entry, violation: false }))), "pcr-mismatch"],
  [
    "a template digest that does not fit",
    makeList([...entries.slice(0, 2), { ...file("/x"), templateDigest: new Uint8Array(20).fill(1) }, ...entries.slice(3)]),
    "log-mismatch",
  ],
  ["template data that does not fit", changedName(), "log-mismatch"],
  ["a cut list", list.slice(0, -1), "truncated"],
  ["nothing", new Uint8Array(0), "pcr-mismatch"],
]
/** One letter of a name, with the template digest as it was. */
function changedName(): Uint8Array {
  const bytes = Uint8Array.from(list)
  const place = Buffer.from(bytes).indexOf("/usr/bin/sh")
  bytes[place + 9] = 0x7a
  return bytes
}
for (const [what, bytes, code] of wrongLists)
  test(`verifyIma() refuses ${what}`, () => {
    assert.throws(() => verify(bytes, { quotedPcrs: quotedAfter(list) }), { code })
  })

test("verifyIma() refuses template data that it cannot read, certified or not", () => {
  const broken: EntryInput = { template: "ima-ng", data: concatBytes(file("/f").data, Uint8Array.of(0)) }
  const bytes = makeList([...entries, broken])
  assert.throws(() => verify(bytes, { quotedPcrs: quotedAfter(list) }), { code: "trailing-bytes" })
})

const otherAggregate = (bank: "sha1" | "sha256", last: number): EntryInput => bootAggregate(bank, last)
const wrongBeginnings: readonly (readonly [string, EntryInput, string])[] = [
  ["an ordinary file", file("/init"), "log-incomplete"],
  ["a boot_aggregate that is a violation", violation("boot_aggregate"), "log-incomplete"],
  ["a boot_aggregate over other registers", otherAggregate("sha256", 8), "log-mismatch"],
  [
    "a boot_aggregate of zeros",
    { template: "ima-ng", data: fields(digestField("sha256", new Uint8Array(32)), nameField("boot_aggregate")) },
    "log-mismatch",
  ],
  ["a boot_aggregate of a bank that is not known", otherAggregate("sha1", 7), "missing-piece"],
  ["a boot_aggregate of an algorithm that no bank has", { template: "ima-ng", data: fields(digestField("md5", new Uint8Array(16)), nameField("boot_aggregate")) }, "weak-algorithm"], // prettier-ignore
]
for (const [what, entry, code] of wrongBeginnings)
  test(`verifyIma() refuses a list that begins with ${what}`, () => {
    assert.throws(() => verify(makeList([entry, file("/a")])), { code })
  })

test("verifyIma() recomputes boot_aggregate over PCR 0 to 9, to 7 of older kernels, and to 7 of SHA-1", () => {
  assert.equal(verify(makeList([otherAggregate("sha256", 7)])).bootAggregate, `sha256:${encodeHex(aggregateOf("sha256", 7))}`)
  const sha1 = makeList([otherAggregate("sha1", 7)])
  const both = new Map([...bootPcrs(), ...bootPcrs("sha1")])
  assert.equal(verify(sha1, { bootPcrs: both }).bootAggregate, `sha1:${encodeHex(aggregateOf("sha1", 7))}`)
  assert.throws(() => verify(makeList([otherAggregate("sha1", 9)]), { bootPcrs: both }), { code: "log-mismatch" })
  const withoutNine = new Map([["sha256", new Map([...(bootPcrs().get("sha256") ?? [])].filter(([pcr]) => pcr !== 9))]])
  assert.throws(() => verify(list, { bootPcrs: withoutNine }), { code: "missing-piece" })
})

test("verifyIma() wants boot_aggregate in PCR 10", () => {
  const bytes = makeList([{ ...bootAggregate(), pcr: 11 }, file("/a")])
  assert.throws(() => verify(bytes), { code: "log-incomplete" })
})

const twoRegisters: readonly EntryInput[] = [bootAggregate(), { ...file("/a"), pcr: 11 }, file("/b"), { ...violation("/c"), pcr: 11 }, file("/d")]

test("verifyIma() judges entries of other registers by their own quoted values", () => {
  const bytes = makeList(twoRegisters)
  const quotedPcrs = quotedAfter(bytes)
  assert.deepEqual([...quotedPcrs.keys()].sort(), [10, 11])
  const claims = verify(bytes, { quotedPcrs })
  assert.equal(claims.certifiedCount, 5)
  assert.deepEqual(claims.state.otherPcrs, { "11": quotedPcrs.get(11) })
  assert.equal(verify(bytes, { quotedPcrs: quotedAfter(bytes, 3) }).certifiedCount, 3)
  const mixed = new Map([...quotedPcrs, [10, quotedAfter(bytes, 3).get(10) ?? ""] as const])
  assert.equal(verify(bytes, { quotedPcrs: mixed }).certifiedCount, 4)
  assert.throws(() => verify(bytes, { quotedPcrs: new Map([...quotedPcrs, [11, "11".repeat(32)]]) }), { code: "pcr-mismatch" })
  assert.throws(() => verify(bytes, { quotedPcrs: new Map([...quotedPcrs, [12, "11".repeat(32)]]) }), { code: "pcr-mismatch" })
  assert.equal(verify(bytes, { quotedPcrs: new Map([...quotedPcrs, [12, "00".repeat(32)]]) }).certifiedCount, 5)
})

test("verifyIma() refuses entries of a register that is not quoted, even uncertified ones", () => {
  const bytes = makeList(twoRegisters)
  const only = new Map([[10, quotedAfter(bytes).get(10) ?? ""]])
  assert.throws(() => verify(bytes, { quotedPcrs: only }), { code: "wrong-selection" })
  const tail = makeList([...entries, { ...file("/a"), pcr: 11 }])
  assert.throws(() => verify(tail, { quotedPcrs: quotedAfter(list) }), { code: "wrong-selection" })
})

test("verifyIma() goes on with other registers from their state", () => {
  const { state } = verify(makeList(twoRegisters.slice(0, 3)), { quotedPcrs: quotedAfter(makeList(twoRegisters), 3) })
  const quotedPcrs = quotedAfter(makeList(twoRegisters))
  const claims = verify(makeList(twoRegisters.slice(3)), { quotedPcrs, previous: state })
  assert.equal(claims.certifiedCount, 5)
  const { otherPcrs: _otherPcrs, ...without } = state
  assert.throws(() => verify(makeList(twoRegisters.slice(3)), { quotedPcrs, previous: without }), { code: "pcr-mismatch" })
})

test("verifyIma() refuses a buffer that passes for a signed file, which leaves register 10 as it is", () => {
  const buffer = encodeUtf8("measure func=POLICY_CHECK\n")
  const data = fields(digestField("sha256", hash("sha256", buffer)), nameField("kexec-cmdline"), buffer)
  const honest = makeList([bootAggregate(), { template: "ima-buf", data }])
  assert.equal(verify(honest).entries[1]?.buffer?.length, buffer.length)
  for (const template of ["ima-sig", "d-ng|n-ng|sig", "d-ng|n-ng|modsig", "d-ng|n-ng|evmsig"])
    assert.throws(() => verify(makeList([bootAggregate(), { template, data }])), { code: "log-mismatch" }, template)
  for (const template of ["d-ng|n-ng|d-modsig", "d-ng|n-ng|iuid", "d-ng|n-ng|xattrvalues"])
    assert.throws(() => verify(makeList([bootAggregate(), { template, data }])), { code: "malformed" }, template)
})

test("verifyIma() gives signatures as they stand in the list", () => {
  const signature = encodeUtf8("signature")
  const bytes = makeList([bootAggregate(), signedFile("/a", hash("sha256", encodeUtf8("a")), signature)])
  assert.deepEqual(verify(bytes).entries[1]?.signature, signature)
})

test("verifyIma() chains long entries like short ones", () => {
  const long: EntryInput = {
    template: "ima-buf",
    data: fields(digestField("sha256", hash("sha256", encodeUtf8("k"))), nameField(".ima"), new Uint8Array(5000).fill(7)),
  }
  const bytes = makeList([bootAggregate(), long, file("/a"), long])
  assert.equal(verify(bytes).state.prefix, prefixOf(bytes))
})

test("findImaRegister() finds the line that fits a digest over the register", () => {
  const wanted = (count: number): ((value: Uint8Array) => boolean) => {
    const value = quotedAfter(list, count).get(10) ?? ""
    return (candidate) => encodeHex(candidate) === value
  }
  for (const count of [1, 3, 5]) assert.equal(findImaRegister(list, "sha256", wanted(count)), quotedAfter(list, count).get(10))
  assert.equal(
    findImaRegister(list, "sha256", () => false),
    undefined,
  )
  assert.equal(
    findImaRegister(list, "sha256", (value) => value.every((byte) => byte === 0)),
    undefined,
  )
  const { state } = verify(makeList(entries.slice(0, 3)))
  assert.equal(findImaRegister(new Uint8Array(0), "sha256", wanted(3), { previous: state }), state.pcr)
  assert.equal(findImaRegister(makeList(entries.slice(3)), "sha256", wanted(5), { previous: state }), quotedAfter(list).get(10))
  const bytes = makeList([bootAggregate(), { ...file("/a"), pcr: 11 }])
  let calls = 0
  findImaRegister(bytes, "sha256", () => ++calls > 5)
  // At the end and behind the first line; not behind one of another register.
  assert.equal(calls, 2)
  for (const none of [new Uint8Array(0), makeList([{ ...file("/a"), pcr: 11 }])])
    assert.equal(
      findImaRegister(none, "sha256", () => true),
      undefined,
    )
})

test("replayImaList() counts entries and violations and starts each register at its own value", () => {
  const bytes = makeList([file("/a"), violation("/b"), { ...file("/c"), pcr: 17 }])
  const { count, violations, registers } = replayImaList(bytes, "sha256")
  assert.deepEqual([count, violations], [3, 1]) // prettier-ignore
  const [, , third] = parseImaList(bytes)
  const expected = hash("sha256", new Uint8Array(32).fill(0xff), hash("sha256", third?.templateData ?? new Uint8Array(0)))
  assert.equal(registers.get(17), encodeHex(expected))
  for (const [pcr, start] of [
    [16, 0],
    [22, 0xff],
    [23, 0],
  ] as const)
    // prettier-ignore
    assert.equal(
      replayImaList(makeList([{ ...violation("/b"), pcr }]), "sha256").registers.get(pcr),
      encodeHex(hash("sha256", new Uint8Array(32).fill(start), new Uint8Array(32).fill(0xff))),
    )
  assert.deepEqual([...replayImaList(new Uint8Array(0), "sha1").registers], [[10, "00".repeat(20)]])
})

test("replayImaList() extends violations as all ones, padded under the old rule", () => {
  const bytes = makeList([violation("/b")])
  assert.equal(replayImaList(bytes, "sha256").registers.get(10), encodeHex(hash("sha256", new Uint8Array(32), new Uint8Array(32).fill(0xff))))
  const padded = concatBytes(new Uint8Array(20).fill(0xff), new Uint8Array(12))
  assert.equal(replayImaList(bytes, "sha256", { extendRule: "padded-sha1" }).registers.get(10), encodeHex(hash("sha256", new Uint8Array(32), padded)))
})

test("a state is plain JSON", () => {
  const { state } = verify(list, { quotedPcrs: quotedAfter(list, 3) })
  const stored = JSON.parse(JSON.stringify(state)) as ImaState
  assert.equal(verify(makeList(entries.slice(3)), { quotedPcrs: quotedAfter(list), previous: stored }).certifiedCount, 5)
})
