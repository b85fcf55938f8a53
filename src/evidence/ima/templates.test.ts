import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../../bytes/text.ts"
import { digestField } from "./list-builder.testing.ts"
import { fieldsOfTemplate, readTemplateDigest } from "./templates.ts"

/** crypto/hash_info.c */
const sizes: readonly (readonly [algorithm: string, bytes: number])[] = [
  ["md4", 16],
  ["md5", 16],
  ["sha1", 20],
  ["rmd160", 20],
  ["sha224", 28],
  ["sha256", 32],
  ["sha384", 48],
  ["sha512", 64],
  ["rmd128", 16],
  ["rmd256", 32],
  ["rmd320", 40],
  ["wp256", 32],
  ["wp384", 48],
  ["wp512", 64],
  ["tgr128", 16],
  ["tgr160", 20],
  ["tgr192", 24],
  ["sm3", 32],
  ["streebog256", 32],
  ["streebog512", 64],
  ["sha3-256", 32],
  ["sha3-384", 48],
  ["sha3-512", 64],
]
for (const [algorithm, bytes] of sizes)
  test(`readTemplateDigest() reads ${algorithm} of its own size only`, () => {
    const digest = new Uint8Array(bytes).fill(7)
    assert.deepEqual(readTemplateDigest("d-ng", digestField(algorithm, digest)), { algorithm, kind: "file", digest })
    assert.deepEqual(readTemplateDigest("d-modsig", digestField(algorithm, digest)), { algorithm, kind: "file", digest })
    assert.deepEqual(readTemplateDigest("d-ngv2", digestField(`ima:${algorithm}`, digest)), { algorithm, kind: "file", digest })
    assert.deepEqual(readTemplateDigest("d-ngv2", digestField(`verity:${algorithm}`, digest)), { algorithm, kind: "verity", digest })
    for (const size of [0, bytes - 1, bytes + 1])
      assert.throws(() => readTemplateDigest("d-ng", digestField(algorithm, new Uint8Array(size))), { code: "malformed" })
  })

test("readTemplateDigest() reads the old field as SHA-1 of a file", () => {
  const digest = new Uint8Array(20).fill(7)
  assert.deepEqual(readTemplateDigest("d", digest), { algorithm: "sha1", kind: "file", digest })
  for (const size of [0, 16, 19, 21, 32]) assert.throws(() => readTemplateDigest("d", new Uint8Array(size)), { code: "malformed" })
})

test("readTemplateDigest() reads a prefix of at most 32 bytes", () => {
  assert.throws(() => readTemplateDigest("d-ng", encodeUtf8(`${"x".repeat(32)}\0`)), { code: "malformed" })
  assert.throws(() => readTemplateDigest("d-ng", encodeUtf8(`${"x".repeat(33)}\0`)), { code: "too-large" })
})

test("fieldsOfTemplate() takes custom templates of a digest, a name and signatures, in this order", () => {
  for (const template of ["d|n", "d-ng|n-ng", "d-ngv2|n-ng", "d-ng|n|sig", "d-ngv2|n-ng|sig|modsig|evmsig"])
    assert.deepEqual(fieldsOfTemplate(template), template.split("|"))
})

test("fieldsOfTemplate() refuses every other custom template", () => {
  for (const template of [
    "",
    "d-ng",
    "n-ng",
    "sig|n-ng",
    "buf|n-ng",
    "d-ng|sig",
    "d-ng|buf",
    "d-ng|sig|n-ng",
    "d-ng|d-ng",
    "n-ng|n-ng",
    "d-ng|n-ng|",
  ])
    assert.throws(() => fieldsOfTemplate(template), { code: "malformed" }, template)
})
