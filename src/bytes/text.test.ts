import assert from "node:assert/strict"
import { test } from "node:test"
import { bytesEqual, concatBytes, isAllZero } from "./compare.ts"
import { digestOf, digestOfJson, isDigest, parseDigest } from "./digest.ts"
import { MalformedError } from "./error.ts"
import { encodeBase64, encodeBase64Url, encodeHex, encodeUtf8, parseBase64, parseBase64Url, parseHex, parseUtf8, truncateText } from "./text.ts"

const malformed = (error: unknown) => error instanceof MalformedError && error.code === "malformed"
const all = Uint8Array.from({ length: 256 }, (_, i) => i)

test("hex, base64 and base64url give back what went in", () => {
  assert.deepEqual(parseHex(encodeHex(all)), all)
  assert.deepEqual(parseBase64(encodeBase64(all)), all)
  assert.deepEqual(parseBase64Url(encodeBase64Url(all)), all)
  assert.equal(encodeHex(all.subarray(1, 3)), "0102")
})

test("parseHex() refuses odd length, capitals and foreign characters", () => {
  for (const text of ["0", "0A", "0g", "00 ", "0x00", "00\n"]) assert.throws(() => parseHex(text), malformed)
})

test("parseBase64() refuses missing padding, set padding bits, url letters and white space", () => {
  for (const text of ["QQ", "QQ=", "QR==", "Q-==", "QQ==\n", "=QQ="]) assert.throws(() => parseBase64(text), malformed)
})

test("parseBase64Url() refuses padding, set padding bits, impossible lengths and plain letters", () => {
  for (const text of ["QQ==", "QR", "Q", "Q+"]) assert.throws(() => parseBase64Url(text), malformed)
})

test("parseHex(), parseBase64() and parseBase64Url() read megabytes", () => {
  const zeros = new Uint8Array(16 * 1024 * 1024)
  assert.equal(parseHex(encodeHex(zeros)).length, zeros.length)
  assert.equal(parseBase64(encodeBase64(zeros)).length, zeros.length)
  assert.equal(parseBase64Url(encodeBase64Url(zeros)).length, zeros.length)
})

test("parseUtf8() refuses overlong and cut sequences and keeps a byte order mark", () => {
  for (const bytes of [
    [0xc0, 0x80],
    [0xe2, 0x82],
    [0xed, 0xa0, 0x80],
  ])
    assert.throws(() => parseUtf8(new Uint8Array(bytes)), malformed)
  assert.equal(parseUtf8(new Uint8Array([0xef, 0xbb, 0xbf])), "\ufeff")
})

test("truncateText() cuts by UTF-16 units and never inside a surrogate pair", () => {
  assert.equal(truncateText("abc", 3), "abc")
  assert.equal(truncateText("abcd", 3), "abc")
  assert.equal(truncateText("abcd", 3, "…"), "ab…")
  assert.equal(truncateText("ab😀", 4), "ab😀")
  assert.equal(truncateText("ab😀c", 4), "ab😀")
  assert.equal(truncateText("ab😀c", 3), "ab")
  assert.equal(truncateText("ab😀c", 4, "…"), "ab…")
  assert.equal(truncateText("ab😀cd", 5, "…"), "ab😀…")
})

test("bytesEqual() compares content and length", () => {
  assert.ok(bytesEqual(all, all.slice()))
  assert.ok(!bytesEqual(all, all.subarray(1)))
  assert.ok(!bytesEqual(new Uint8Array([1]), new Uint8Array([2])))
})

test("isAllZero() and concatBytes()", () => {
  assert.ok(isAllZero(new Uint8Array(3)))
  assert.ok(!isAllZero(new Uint8Array([0, 1])))
  assert.deepEqual([...concatBytes(new Uint8Array([1]), new Uint8Array(), new Uint8Array([2, 3]))], [1, 2, 3])
})

test("digests have one form", () => {
  assert.equal(digestOf(encodeUtf8("abc")), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  assert.equal(digestOfJson({ b: 1, a: 2 }), digestOf(encodeUtf8('{"a":2,"b":1}')))
  assert.ok(isDigest(digestOf(all)))
  for (const text of ["sha256:AB", "sha1:00", "", `sha256:${"0".repeat(63)}`, `sha256:${"0".repeat(65)}`]) {
    assert.ok(!isDigest(text))
    assert.throws(() => parseDigest(text), malformed)
  }
})
