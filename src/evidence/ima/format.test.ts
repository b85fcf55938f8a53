import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hash } from "../../pki/signatures.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import type { ImaEntry } from "./claims.ts"
import { encodeImaList, isViolation, parseImaList, readImaEntry, readImaRecords, templateHashInput } from "./format.ts"
import { digestField, fields, file, makeList, nameField, signedFile, violation } from "./list-builder.testing.ts"
import type { EntryInput } from "./list-builder.testing.ts"

const digest = hash("sha256", encodeUtf8("content"))
const sha1 = hash("sha1", encodeUtf8("content"))
const legacy = (name: Uint8Array): EntryInput => ({
  template: "ima",
  data: concatBytes(sha1, new ByteWriter().u32le(name.length).bytes(name).take()),
})
const none = new Uint8Array(0)
const u32 = (value: number): Uint8Array => new ByteWriter().u32le(value).take()
const evmFields = (
  names: string,
  lengths: Uint8Array,
  values: Uint8Array,
  owner = [u32(1000), u32(100), new ByteWriter().u16le(0o100755).take()],
): EntryInput => ({
  template: "evm-sig",
  data: fields(digestField("sha256", digest), nameField("/f"), encodeUtf8("sig"), encodeUtf8(names), lengths, values, ...owner),
})
const evm = evmFields("security.ima|security.selinux\0", concatBytes(u32(2), u32(3)), encodeUtf8("abcde"))

const templates: readonly EntryInput[] = [
  legacy(encodeUtf8("/init")),
  file("/bin/sh"),
  signedFile("/bin/sh", digest, encodeUtf8("signature")),
  { template: "ima-ngv2", data: fields(digestField("verity:sha512", hash("sha512", digest)), nameField("/v")) },
  { template: "ima-sigv2", data: fields(digestField("ima:sha256", digest), nameField("/v"), new Uint8Array(0)) },
  { template: "ima-buf", data: fields(digestField("sha256", digest), nameField(".ima"), encodeUtf8("a key")) },
  {
    template: "ima-modsig",
    data: fields(
      digestField("sha256", digest),
      nameField("/m"),
      encodeUtf8("both"),
      digestField("sha512", hash("sha512", digest)),
      encodeUtf8("pkcs7"),
    ),
  },
  evm,
  { template: "d-ng|n-ng|sig", data: fields(digestField("sha256", digest), nameField("/custom"), encodeUtf8("s")) },
  { template: "d|n", data: fields(sha1, nameField("/old")) },
]

/** The list ends behind any record: that entries are missing is for the register to show. */
testParserLaws({
  name: "parseImaList",
  parse: (bytes) => parseImaList(bytes).map((record) => ({ record, entry: readImaEntry(record) })),
  encode: (found) => encodeImaList(found.map(({ record }) => record)),
  samples: [makeList(templates), makeList([file("/a"), violation("/b"), legacy(encodeUtf8("x"))])],
  wholePrefixes: (sample) => [0, ...parseImaList(sample).map((record) => record.end)],
  refusesTrailing: true,
})

function entryOf(input: EntryInput): ImaEntry {
  const [record] = parseImaList(makeList([input]))
  assert.ok(record !== undefined)
  return readImaEntry(record)
}

const textOf = (bytes: Uint8Array | undefined): string | undefined => (bytes === undefined ? undefined : Buffer.from(bytes).toString())

test("readImaEntry() reads every template", () => {
  const entries = parseImaList(makeList(templates)).map((record) => readImaEntry(record))
  assert.deepEqual(
    entries.map(({ template, hashAlgorithm, name }) => [template, hashAlgorithm, textOf(name)]),
    [
      ["ima", "sha1", "/init"],
      ["ima-ng", "sha256", "/bin/sh"],
      ["ima-sig", "sha256", "/bin/sh"],
      ["ima-ngv2", "sha512", "/v"],
      ["ima-sigv2", "sha256", "/v"],
      ["ima-buf", "sha256", ".ima"],
      ["ima-modsig", "sha256", "/m"],
      ["evm-sig", "sha256", "/f"],
      ["d-ng|n-ng|sig", "sha256", "/custom"],
      ["d|n", "sha1", "/old"],
    ],
  )
  assert.deepEqual(entries.map((entry) => textOf(entry.signature)), [undefined, undefined, "signature", undefined, undefined, undefined, "both", "sig", "s", undefined]) // prettier-ignore
  assert.equal(entries[0]?.digest, encodeHex(sha1))
  assert.equal(entries[2]?.digest, encodeHex(digest))
  assert.deepEqual(
    entries.map((entry) => entry.verity),
    [undefined, undefined, undefined, true, ...Array.from({ length: 6 }, () => undefined)],
  )
  assert.equal(textOf(entries[5]?.buffer), "a key")
  assert.equal(textOf(entries[6]?.modsig), "pkcs7")
  assert.equal(entries[6]?.modsigDigest, `sha512:${encodeHex(hash("sha512", digest))}`)
  assert.deepEqual(entries.map((entry) => entry.index), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) // prettier-ignore
  assert.ok(entries.every((entry) => !entry.violation && entry.pcr === 10))
})

test("readImaEntry() leaves out signatures that are empty", () => {
  const entry = entryOf({ template: "ima-modsig", data: fields(digestField("sha256", digest), nameField("/m"), none, none, none) })
  assert.deepEqual(Object.keys(entry).toSorted(), ["digest", "hashAlgorithm", "index", "name", "pcr", "template", "violation"])
})

test("readImaEntry() copies signatures and buffers", () => {
  const signed = { template: "ima-sig", data: fields(digestField("sha256", digest), nameField("/m"), encodeUtf8("first")) }
  const modsig = fields(
    digestField("sha256", digest),
    nameField("/m"),
    encodeUtf8("first"),
    digestField("sha512", hash("sha512", digest)),
    encodeUtf8("first"),
  )
  const buffer = { template: "ima-buf", data: fields(digestField("sha256", digest), nameField("/m"), encodeUtf8("first")) }
  const list = makeList([signed, { template: "ima-modsig", data: modsig }, buffer])
  const entries = parseImaList(list).map((record) => readImaEntry(record))
  list.fill(0)
  assert.deepEqual(entries.map((entry) => textOf(entry.signature)), ["first", "first", undefined]) // prettier-ignore
  assert.deepEqual([textOf(entries[1]?.modsig), textOf(entries[2]?.buffer)], ["first", "first"])
})

test("readImaEntry() takes an empty name with its NUL", () => {
  assert.equal(entryOf(ng("sha256", digest, nameField(""))).name.length, 0)
})

test("readImaEntry() reads the inode of evm-sig", () => {
  const { inode } = entryOf(evm)
  assert.deepEqual(inode?.xattrs.map(({ name, value }) => [name, textOf(value)]), [["security.ima", "ab"], ["security.selinux", "cde"]]) // prettier-ignore
  assert.deepEqual([inode?.uid, inode?.gid, inode?.mode], [1000, 100, 0o100755])
  assert.deepEqual(entryOf(evmFields("", new Uint8Array(0), new Uint8Array(0))).inode?.xattrs, [])
  assert.equal(entryOf(evmFields("", none, none, [none, none, none])).inode, undefined)
})

/** Owner, group and mode of which one is empty, and names with all three empty. */
const halfInodes: readonly EntryInput[] = [
  evmFields("", none, none, [none, u32(0), new Uint8Array(2)]),
  evmFields("", none, none, [u32(0), none, new Uint8Array(2)]),
  evmFields("", none, none, [u32(0), u32(0), none]),
  evmFields("", none, none, [none, none, new Uint8Array(2)]),
  evmFields("", none, none, [none, u32(0), none]),
  evmFields("", none, none, [u32(0), none, none]),
  evmFields("a", u32(0), none, [none, none, none]),
]
test("readImaEntry() refuses an inode of which something is missing", () => {
  for (const input of halfInodes) assert.throws(() => entryOf(input), { code: "truncated" })
})

const brokenInodes: readonly (readonly [string, EntryInput, string])[] = [
  ["fewer lengths than names", evmFields("a|b", u32(5), encodeUtf8("abcde")), "truncated"],
  ["more lengths than names", evmFields("a", concatBytes(u32(5), u32(0)), encodeUtf8("abcde")), "trailing-bytes"],
  ["values behind the lengths", evmFields("a", u32(4), encodeUtf8("abcde")), "trailing-bytes"],
  ["values shorter than the lengths", evmFields("a", u32(6), encodeUtf8("abcde")), "truncated"],
  ["an oversized length", evmFields("a", u32(0xffffffff), encodeUtf8("abcde")), "too-large"],
  ["a short owner", evmFields("a", u32(5), encodeUtf8("abcde"), [new Uint8Array(3), u32(0), new Uint8Array(2)]), "truncated"],
  ["a long owner", evmFields("a", u32(5), encodeUtf8("abcde"), [new Uint8Array(5), u32(0), new Uint8Array(2)]), "trailing-bytes"],
  ["a long group", evmFields("a", u32(5), encodeUtf8("abcde"), [u32(0), new Uint8Array(5), new Uint8Array(2)]), "trailing-bytes"],
  ["a long mode", evmFields("a", u32(5), encodeUtf8("abcde"), [u32(0), u32(0), new Uint8Array(4)]), "trailing-bytes"],
]
for (const [what, input, code] of brokenInodes)
  test(`readImaEntry() refuses an inode with ${what}`, () => {
    assert.throws(() => entryOf(input), { code })
  })

const ng = (prefix: string, bytes: Uint8Array, name: Uint8Array = nameField("/f")): EntryInput => ({
  template: "ima-ng",
  data: fields(digestField(prefix, bytes), name),
})
const brokenEntries: readonly (readonly [string, EntryInput, string])[] = [
  ["an unknown algorithm", ng("sha999", digest), "malformed"],
  ["no algorithm", ng("", digest), "malformed"],
  ["a digest of another size", ng("sha1", digest), "malformed"],
  ["a digest type in an old field", ng("ima:sha256", digest), "malformed"],
  ["no digest type in a new field", { template: "ima-ngv2", data: fields(digestField("sha256", digest), nameField("/f")) }, "malformed"],
  ["an unknown digest type", { template: "ima-ngv2", data: fields(digestField("other:sha256", digest), nameField("/f")) }, "malformed"],
  ["an endless prefix", ng("x".repeat(40), digest), "too-large"],
  ["no NUL behind the algorithm", { template: "ima-ng", data: fields(encodeUtf8("sha1:"), nameField("/f")) }, "truncated"],
  ["an old digest of 16 bytes", { template: "d|n-ng", data: fields(new Uint8Array(16), nameField("/f")) }, "malformed"],
  ["a name without NUL", ng("sha256", digest, encodeUtf8("/f")), "malformed"],
  ["a name with a NUL inside", ng("sha256", digest, encodeUtf8("/f\0g\0")), "malformed"],
  ["a name with two NULs", ng("sha256", digest, encodeUtf8("/f\0\0")), "malformed"],
  ["no name at all", ng("sha256", digest, new Uint8Array(0)), "malformed"],
  ["an old name with a NUL behind it", legacy(encodeUtf8("/f\0")), "malformed"],
  ["an old name with a NUL inside", legacy(encodeUtf8("/f\0g")), "malformed"],
  ["bytes behind its fields", { template: "ima-ng", data: concatBytes(file("/f").data, Uint8Array.of(0)) }, "trailing-bytes"],
  ["too few fields", { template: "ima-sig", data: file("/f").data }, "truncated"],
  ["an unknown template", { template: "ima-xyz", data: new Uint8Array(4) }, "malformed"],
  ["an unknown field in a custom template", { template: "d-ng|xyz", data: new Uint8Array(4) }, "malformed"],
  ["a field twice in a custom template", { template: "d-ng|n-ng|sig|sig", data: new Uint8Array(4) }, "duplicate"],
  ["a custom template whose digest is a field that root chose", { template: "sig|n-ng|d-ng", data: new Uint8Array(4) }, "malformed"],
  ["a custom template with a buffer", { template: "d-ng|n-ng|buf", data: new Uint8Array(4) }, "malformed"],
  ["a custom template that starts with the name", { template: "n-ng|d-ng", data: new Uint8Array(4) }, "malformed"],
]
for (const [what, input, code] of brokenEntries)
  test(`readImaEntry() refuses ${what}`, () => {
    assert.throws(() => entryOf(input), { code })
  })

test("parseImaList() names record and field in its errors", () => {
  const list = concatBytes(makeList([file("/a")]), makeList([file("/b")]).slice(0, -1))
  assert.throws(() => parseImaList(list), { code: "truncated", path: "ima[1].templateData" })
  const [, record] = parseImaList(makeList([file("/a"), ng("sha999", digest)]))
  assert.ok(record !== undefined)
  assert.throws(() => readImaEntry(record), { code: "malformed", path: "ima[1].d-ng" })
  assert.throws(() => readImaEntry(record, 70), { path: "ima[70].d-ng" })
})

/** One record, written field by field. */
function record(pcr: number, nameLength: number, name: string, rest: Uint8Array): Uint8Array {
  return new ByteWriter().u32le(pcr).bytes(new Uint8Array(20)).u32le(nameLength).bytes(encodeUtf8(name)).bytes(rest).take()
}

test("parseImaList() refuses lengths and registers beyond their bounds before reading", () => {
  assert.throws(() => parseImaList(record(24, 6, "ima-ng", u32(0))), { code: "malformed" })
  assert.equal(parseImaList(record(23, 6, "ima-ng", u32(0)))[0]?.pcr, 23)
  assert.throws(() => parseImaList(record(10, 0, "", u32(0))), { code: "too-large" })
  assert.throws(() => parseImaList(record(10, 257, "x".repeat(257), u32(0))), { code: "too-large" })
  assert.equal(parseImaList(record(10, 256, "x".repeat(256), u32(0)))[0]?.template.length, 256)
  assert.throws(() => parseImaList(record(10, 6, "ima-ng", u32(8 * 1024 * 1024 + 1))), { code: "too-large" })
  assert.throws(() => parseImaList(record(10, 6, "ima-ng", u32(8 * 1024 * 1024))), { code: "truncated" })
  assert.throws(() => parseImaList(record(10, 3, "ima", concatBytes(sha1, u32(256), new Uint8Array(256)))), { code: "too-large" })
  assert.equal(parseImaList(record(10, 3, "ima", concatBytes(sha1, u32(255), new Uint8Array(255).fill(65)))).length, 1)
})

test("parseImaList() refuses a list over 128 MiB and one of more than a million records", () => {
  // A list of zeros is wrong in its first record; the size is looked at before.
  assert.throws(() => parseImaList(new Uint8Array(128 * 1024 * 1024 + 1)), { code: "too-large", path: "ima" })
  assert.throws(() => parseImaList(new Uint8Array(128 * 1024 * 1024)), { code: "too-large", path: "ima[0].templateNameLength" })
  const one = record(10, 6, "ima-ng", u32(0))
  const many = new Uint8Array(one.length * 1_000_001)
  for (let at = 0; at < many.length; at += one.length) many.set(one, at)
  let count = 0
  const readAll = (): void => {
    for (const found of readImaRecords(many)) count = found.index + 1
  }
  assert.throws(readAll, { code: "too-large" })
  assert.equal(count, 1_000_000)
})

test("parseImaList() reads lists with longer template digests", () => {
  const list = makeList([file("/a"), violation("/b")], "sha256")
  const records = parseImaList(list, "sha256")
  assert.deepEqual(records.map((found) => found.templateDigest.length), [32, 32]) // prettier-ignore
  assert.deepEqual(records.map(isViolation), [false, true]) // prettier-ignore
  assert.throws(() => parseImaList(list), /ima/)
})

test("templateHashInput() is the template data, but for the old template with its padded name", () => {
  const [ngRecord, oldRecord] = parseImaList(makeList([file("/a"), legacy(encodeUtf8("/init"))]))
  assert.ok(ngRecord !== undefined && oldRecord !== undefined)
  assert.deepEqual([...templateHashInput(ngRecord)], [...ngRecord.templateData])
  const input = templateHashInput(oldRecord)
  assert.equal(input.length, 276)
  assert.deepEqual([...input], [...concatBytes(sha1, encodeUtf8("/init"), new Uint8Array(251))])
})

test("readImaEntry() marks violations and keeps odd names as bytes", () => {
  const entry = entryOf(violation("/with space\nand newline"))
  assert.equal(entry.violation, true)
  assert.equal(textOf(entry.name), "/with space\nand newline")
  assert.equal(entry.hashAlgorithm, "sha256")
  const old: EntryInput = { ...legacy(encodeUtf8("boot_aggregate")), violation: true }
  assert.equal(entryOf(old).hashAlgorithm, "")
  const latin = Uint8Array.of(0xff, 0xfe, 0)
  assert.deepEqual([...entryOf({ template: "ima-ng", data: fields(digestField("sha256", digest), latin) }).name], [0xff, 0xfe])
})
