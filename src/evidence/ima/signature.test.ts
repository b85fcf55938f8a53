import assert from "node:assert/strict"
import { execFileSync, spawnSync } from "node:child_process"
import { constants, createHash, createPrivateKey, createPublicKey, generateKeyPairSync, privateEncrypt, sign } from "node:crypto"
import type { KeyObject } from "node:crypto"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { readAll } from "../../bytes/reader.ts"
import { encodeBase64Url, encodeHex, encodeUtf8, parseHex } from "../../bytes/text.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import { hash } from "../../pki/signatures.ts"
import type { HashName } from "../../pki/signatures.ts"
import { assertRefuses, testParserLaws } from "../testing/parser-laws.ts"
import type { ImaEntry, ImaInode } from "./claims.ts"
import { checkPrehashed, readDer } from "./prehashed.ts"
import { judgeFileSignature, parseFileSignature } from "./signature.ts"
import type { FileSignatureOptions } from "./signature.ts"

const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const otherRsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const curveNames = ["P-256", "P-384", "P-521", "secp256k1"] as const
const ec = new Map(curveNames.map((namedCurve) => [namedCurve, generateKeyPairSync("ec", { namedCurve })] as const))
const p256 = ec.get("P-256") ?? assert.fail()
const content = encodeUtf8("#!/bin/sh\n")
const hashes = ["sha1", "sha256", "sha384", "sha512"] as const

for (const name of hashes) {
  const digest = hash(name, content)
  test(`checkPrehashed() takes RSA signatures over a ${name} digest for what node:crypto makes over the content`, () => {
    const signature = sign(name, content, rsa.privateKey)
    assert.equal(checkPrehashed(rsa.publicKey, name, digest, signature), "right")
    assert.equal(checkPrehashed(otherRsa.publicKey, name, digest, signature), "wrong")
    assert.equal(checkPrehashed(rsa.publicKey, name, hash(name, encodeUtf8("x")), signature), "wrong")
    const flipped = Uint8Array.from(signature, (byte, place) => (place === 100 ? byte ^ 1 : byte))
    assert.equal(checkPrehashed(rsa.publicKey, name, digest, flipped), "wrong")
    assert.equal(checkPrehashed(rsa.publicKey, name, digest, signature.subarray(1)), "wrong")
    assert.equal(checkPrehashed(rsa.publicKey, name, digest, concatBytes(Uint8Array.of(0), signature)), "wrong")
  })
  for (const [curve, keys] of ec)
    test(`checkPrehashed() takes ${curve} signatures over a ${name} digest for what node:crypto makes over the content`, () => {
      for (let round = 0; round < 3; round++) {
        const signature = sign(name, content, keys.privateKey)
        assert.equal(checkPrehashed(keys.publicKey, name, digest, signature), "right")
        const flipped = Uint8Array.from(digest, (byte, place) => (place === 0 ? byte ^ 1 : byte))
        assert.equal(checkPrehashed(keys.publicKey, name, flipped, signature), "wrong")
      }
    })
}

test("checkPrehashed() refuses an RSA value over the bare digest, and one with another hash's name in it", () => {
  const digest = hash("sha256", content)
  const bare = privateEncrypt({ key: rsa.privateKey, padding: constants.RSA_PKCS1_PADDING }, digest)
  assert.equal(checkPrehashed(rsa.publicKey, "sha256", digest, bare), "wrong")
  assert.equal(checkPrehashed(rsa.publicKey, "sha256", digest, sign("sha384", content, rsa.privateKey)), "wrong")
  const behind = privateEncrypt(
    { key: rsa.privateKey, padding: constants.RSA_PKCS1_PADDING },
    concatBytes(parseHex("3031300d060960864801650304020105000420"), digest, Uint8Array.of(0)),
  )
  assert.equal(checkPrehashed(rsa.publicKey, "sha256", digest, behind), "wrong")
})

test("checkPrehashed() refuses keys that may not sign files", () => {
  const digest = hash("sha256", content)
  const weak = generateKeyPairSync("rsa", { modulusLength: 1024 })
  assert.equal(checkPrehashed(weak.publicKey, "sha256", digest, sign("sha256", content, weak.privateKey)), "unfit-key")
  const ed25519 = generateKeyPairSync("ed25519")
  assert.equal(checkPrehashed(ed25519.publicKey, "sha256", digest, new Uint8Array(64)), "unfit-key")
  const p224 = generateKeyPairSync("ec", { namedCurve: "P-224" })
  assert.equal(checkPrehashed(p224.publicKey, "sha256", digest, sign("sha256", content, p224.privateKey)), "unfit-key")
})

/** ECDSA-Sig-Value with the given contents of its two integers. */
function ecdsaValue(r: Uint8Array, s: Uint8Array, behind: Uint8Array = new Uint8Array(0)): Uint8Array {
  const body = concatBytes(Uint8Array.of(2, r.length), r, Uint8Array.of(2, s.length), s, behind)
  return concatBytes(Uint8Array.of(0x30, body.length), body)
}

test("checkPrehashed() refuses ECDSA numbers outside the order and other forms", () => {
  const digest = hash("sha256", content)
  const order = parseHex("00ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
  const one = Uint8Array.of(1)
  const zero = Uint8Array.of(0)
  for (const [r, s] of [
    [zero, one],
    [one, zero],
    [order, one],
    [one, order],
    [new Uint8Array(0), one],
  ] as const)
    // prettier-ignore
    assert.equal(checkPrehashed(p256.publicKey, "sha256", digest, ecdsaValue(r, s)), "wrong")
  for (const form of [
    new Uint8Array(0),
    Uint8Array.of(0x30, 0x80),
    ecdsaValue(one, one, one),
    concatBytes(ecdsaValue(one, one), one),
    Uint8Array.of(0x31, 0),
  ])
    assert.equal(checkPrehashed(p256.publicKey, "sha256", digest, form), "wrong")
  const signature = sign("sha256", content, p256.privateKey)
  assert.equal(checkPrehashed(p256.publicKey, "sha256", digest, concatBytes(signature, zero)), "wrong")
})

test("checkPrehashed() refuses an RSA value without its leading zero byte", () => {
  for (let round = 0; ; round++) {
    const data = encodeUtf8(`file ${round}`)
    const signature = sign("sha256", data, rsa.privateKey)
    if (signature[0] !== 0) continue
    assert.equal(checkPrehashed(rsa.publicKey, "sha256", hash("sha256", data), signature), "right")
    assert.equal(checkPrehashed(rsa.publicKey, "sha256", hash("sha256", data), signature.subarray(1)), "wrong")
    return
  }
})

test("checkPrehashed() takes RSA keys of 2048 to 8192 bits", () => {
  const keyOf = (bits: number): KeyObject =>
    createPublicKey({
      key: { kty: "RSA", e: "AQAB", n: encodeBase64Url(new Uint8Array(Math.ceil(bits / 8)).fill(bits % 8 === 0 ? 0xff : 1)) },
      format: "jwk",
    })
  assert.equal(checkPrehashed(keyOf(2048), "sha256", hash("sha256", content), new Uint8Array(256)), "wrong")
  // The highest of its 2047 bits is not the first of its byte.
  const n = Buffer.from(new Uint8Array(256).fill(0x7f)).toString("base64url")
  const small = createPublicKey({ key: { kty: "RSA", e: "AQAB", n }, format: "jwk" })
  assert.equal(checkPrehashed(small, "sha256", hash("sha256", content), new Uint8Array(256)), "unfit-key")
  assert.equal(checkPrehashed(keyOf(8192), "sha256", hash("sha256", content), new Uint8Array(1024)), "wrong")
  assert.equal(checkPrehashed(keyOf(8193), "sha256", hash("sha256", content), new Uint8Array(1025)), "unfit-key")
})

const p256Order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
const generatorX = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
const generatorY = 0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5n
const p256Prime = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn
const bytesOf = (value: bigint): Uint8Array => parseHex(value.toString(16).padStart(66, "0"))

/** The key whose public point is the generator, or its negative: the sums in ECDSA then meet equal and opposite points. */
function generatorKey(y: bigint, d?: bigint): KeyObject {
  const point = { kty: "EC", crv: "P-256", x: encodeBase64Url(parseHex(generatorX)), y: encodeBase64Url(bytesOf(y).slice(1)) }
  if (d === undefined) return createPublicKey({ key: point, format: "jwk" })
  return createPrivateKey({ key: { ...point, d: encodeBase64Url(bytesOf(d).slice(1)) }, format: "jwk" })
}

test("checkPrehashed() adds equal and opposite points", () => {
  for (const [y, d] of [
    [generatorY, 1n],
    [p256Prime - generatorY, p256Order - 1n],
  ] as const) {
    // prettier-ignore
    const signature = sign("sha256", content, generatorKey(y, d))
    assert.equal(checkPrehashed(generatorKey(y), "sha256", hash("sha256", content), signature), "right")
    assert.equal(checkPrehashed(generatorKey(y), "sha256", hash("sha256", encodeUtf8("other")), signature), "wrong")
  }
})

test("checkPrehashed() refuses an ECDSA sum at infinity", () => {
  // With the generator as key, digest and r add up to the order.
  for (const r of [1n, 5n])
    assert.equal(
      checkPrehashed(generatorKey(generatorY), "sha256", bytesOf(p256Order - r).slice(1), ecdsaValue(bytesOf(r), Uint8Array.of(1))),
      "wrong",
    )
})

test("checkPrehashed() refuses ECDSA numbers that are too large by the order, and zeros", () => {
  const digest = hash("sha256", content)
  const raw = sign("sha256", content, { key: p256.privateKey, dsaEncoding: "ieee-p1363" })
  const [r, s] = [BigInt(`0x${encodeHex(raw.subarray(0, 32))}`), BigInt(`0x${encodeHex(raw.subarray(32))}`)]
  assert.equal(checkPrehashed(p256.publicKey, "sha256", digest, ecdsaValue(bytesOf(r), bytesOf(s))), "right")
  for (const [wrongR, wrongS] of [
    [r + p256Order, s],
    [r, s + p256Order],
    [0n, 0n],
    [p256Order, p256Order],
  ] as const)
    // prettier-ignore
    assert.equal(checkPrehashed(p256.publicKey, "sha256", digest, ecdsaValue(bytesOf(wrongR), bytesOf(wrongS))), "wrong")
  const inside = concatBytes(ecdsaValue(bytesOf(r), bytesOf(s), Uint8Array.of(5, 0)))
  assert.equal(checkPrehashed(p256.publicKey, "sha256", digest, inside), "wrong")
})

const read = (bytes: readonly number[]): Uint8Array =>
  readAll("DER", Uint8Array.from(bytes), (reader) => readDer(reader, 0x04, "octets").rest("octets"))

test("readDer() reads definite lengths of up to three bytes", () => {
  assert.deepEqual([...read([0x04, 1, 9])], [9])
  for (const form of [[0x81, 200], [0x82, 0, 200], [0x83, 0, 0, 200]]) assert.equal(read([0x04, ...form, ...new Uint8Array(200)]).length, 200) // prettier-ignore
  assert.equal(read([0x04, 0x7f, ...new Uint8Array(127)]).length, 127)
})

test("readDer() refuses other tags, indefinite and longer lengths", () => {
  assertRefuses(() => read([0x05, 1, 9]), "another tag", "malformed")
  assertRefuses(() => read([0x04, 0x80, 9, 0, 0]), "an indefinite length", "malformed")
  assertRefuses(() => read([0x04, 0x84, 0, 0, 0, 1, 9]), "four bytes of length", "malformed")
  assertRefuses(() => read([0x04, 0xff, ...new Uint8Array(128)]), "many bytes of length", "malformed")
})

const types = { ima: 3, "evm-portable": 5, verity: 6 } as const
const hashCodes = { sha1: 2, sha256: 4, sha384: 5, sha512: 6 } as const

/** signature_v2_hdr. */
function xattr(type: number, version: number, hashCode: number, signature: Uint8Array): Uint8Array {
  return new ByteWriter().u8(type).u8(version).u8(hashCode).u32be(0xf3452d23).u16be(signature.length).bytes(signature).take()
}

testParserLaws({
  name: "parseFileSignature",
  parse: parseFileSignature,
  encode: ({ type, version, hashAlgorithm, keyId, signature }) =>
    new ByteWriter().u8(types[type]).u8(version).u8(hashCodes[hashAlgorithm]).bytes(parseHex(keyId)).u16be(signature.length).bytes(signature).take(),
  samples: [xattr(3, 2, 4, encodeUtf8("signature")), xattr(6, 3, 6, new Uint8Array(64)), xattr(5, 2, 2, new Uint8Array(0))],
})

test("parseFileSignature() refuses what it does not know", () => {
  for (const [type, version, hashCode] of [
    [1, 2, 4],
    [3, 1, 4],
    [3, 4, 4],
    [3, 2, 7],
    [3, 2, 0],
  ] as const)
    // prettier-ignore
    assertRefuses(() => parseFileSignature(xattr(type, version, hashCode, new Uint8Array(4))), `${type} ${version} ${hashCode}`, "malformed")
  assert.equal(parseFileSignature(xattr(3, 2, 4, new Uint8Array(1024))).signature.length, 1024)
  assertRefuses(() => parseFileSignature(xattr(3, 2, 4, new Uint8Array(1025))), "1025 bytes", "too-large")
})

function entry(change: Partial<ImaEntry>): ImaEntry {
  return {
    index: 1,
    pcr: 10,
    template: "ima-sig",
    hashAlgorithm: "sha256",
    digest: encodeHex(hash("sha256", content)),
    name: encodeUtf8("/f"),
    violation: false,
    ...change,
  }
}

/** Signs a digest that is not computed here: what is signed is found by signing its preimage. */
const v2 = (keys: { privateKey: KeyObject }, name: HashName = "sha256"): Uint8Array =>
  xattr(3, 2, hashCodes[name], sign(name, content, keys.privateKey))
const fileId = (type: number, name: HashName, digest: Uint8Array): Uint8Array => concatBytes(Uint8Array.of(type, hashCodes[name]), digest)
const v3 = (type: number, keys: { privateKey: KeyObject }, signedType = type): Uint8Array =>
  xattr(type, 3, 4, sign("sha256", fileId(signedType, "sha256", hash("sha256", content)), keys.privateKey))

const trust: FileSignatureOptions = { keys: [otherRsa.publicKey, rsa.publicKey, p256.publicKey] }
const outcome = (of: ImaEntry, options: FileSignatureOptions = trust): string => {
  const verdict = judgeFileSignature(of, options)
  return verdict.signed ? `${verdict.form} ${verdict.by.equals(rsa.publicKey) ? "rsa" : (verdict.by.asymmetricKeyType ?? "")}` : verdict.reason
}

test("judgeFileSignature() names the key that signed", () => {
  assert.equal(outcome(entry({ signature: v2(rsa) })), "ima rsa")
  assert.equal(outcome(entry({ signature: v2(p256) })), "ima ec")
  assert.equal(outcome(entry({ signature: v3(3, rsa) })), "ima rsa")
  assert.equal(outcome(entry({ signature: v3(6, rsa), verity: true })), "verity rsa")
})

for (const name of ["sha384", "sha512"] as const)
  test(`judgeFileSignature() takes signatures over ${name}`, () => {
    assert.equal(outcome(entry({ hashAlgorithm: name, digest: encodeHex(hash(name, content)), signature: v2(rsa, name) })), "ima rsa")
  })

test("judgeFileSignature() trusts no key by default", () => {
  assert.equal(outcome(entry({ signature: v2(rsa) }), { keys: [] }), "wrong-signature")
  assert.equal(outcome(entry({ signature: v2(rsa) }), { keys: [otherRsa.publicKey] }), "wrong-signature")
})

const unsignedCases: readonly (readonly [string, ImaEntry, string])[] = [
  ["no signature", entry({}), "no-signature"],
  ["a violation", entry({ violation: true, signature: v2(rsa) }), "no-digest"],
  ["a malformed signature", entry({ signature: Uint8Array.of(3, 2, 4) }), "malformed"],
  ["a length that does not fit", entry({ signature: Uint8Array.from(v2(rsa), (byte, at) => (at === 8 ? byte ^ 1 : byte)) }), "malformed"],
  ["another file's digest", entry({ digest: "11".repeat(32), signature: v2(rsa) }), "wrong-signature"],
  ["another algorithm than the entry's", entry({ signature: v2(rsa, "sha384") }), "other-digest"],
  ["SHA-1", entry({ hashAlgorithm: "sha1", digest: encodeHex(hash("sha1", content)), signature: v2(rsa, "sha1") }), "weak-hash"],
  ["a file signature over a verity digest", entry({ verity: true, signature: v2(rsa) }), "other-digest"],
  ["a version 3 file signature over a verity digest", entry({ verity: true, signature: v3(3, rsa) }), "other-digest"],
  ["a verity signature over a file digest", entry({ signature: v3(6, rsa) }), "other-digest"],
  ["a verity signature of version 2", entry({ verity: true, signature: xattr(6, 2, 4, sign("sha256", content, rsa.privateKey)) }), "other-digest"],
  ["a verity signature of another algorithm", entry({ verity: true, hashAlgorithm: "sha512", signature: v3(6, rsa) }), "other-digest"],
  ["version 3 over another type", entry({ signature: v3(3, rsa, 6) }), "wrong-signature"],
  ["version 2 in the dress of version 3", entry({ signature: xattr(3, 3, 4, sign("sha256", content, rsa.privateKey)) }), "wrong-signature"],
  ["an EVM signature without an inode", entry({ signature: xattr(5, 2, 4, new Uint8Array(256)) }), "no-digest"],
  ["an appended signature without its digest", entry({ modsig: new Uint8Array(10) }), "no-digest"],
  ["an appended signature of another form", entry({ modsig: new Uint8Array(10), modsigDigest: `sha256:${"00".repeat(32)}` }), "malformed"],
]
for (const [what, of, reason] of unsignedCases)
  test(`judgeFileSignature() gives "${reason}" for ${what}`, () => {
    assert.equal(outcome(of), reason)
  })

test("judgeFileSignature() lets SHA-1 and secp256k1 pass only where they are named", () => {
  const sha1 = entry({ hashAlgorithm: "sha1", digest: encodeHex(hash("sha1", content)), signature: v2(rsa, "sha1") })
  assert.equal(outcome(sha1, { ...trust, insecureAllowSha1: true }), "ima rsa")
  const koblitz = ec.get("secp256k1") ?? assert.fail()
  const signed = entry({ signature: v2(koblitz) })
  assert.equal(outcome(signed, { keys: [koblitz.publicKey] }), "wrong-signature")
  assert.equal(outcome(signed, { keys: [koblitz.publicKey], insecureAllowSecp256k1: true }), "ima ec")
})

const imaDigestXattr = concatBytes(Uint8Array.of(4, 4), hash("sha256", content))
const inode = (ima: Uint8Array, change: Partial<ImaInode> = {}): ImaInode => ({
  xattrs: [{ name: "security.selinux", value: encodeUtf8("system_u") }, { name: "security.ima", value: ima }], uid: 1000, gid: 100, mode: 0o100755, ...change }) // prettier-ignore

/** What an EVM portable signature is over: xattr values, then struct h_misc with zero inode and generation. */
function evmSignature(of: ImaInode): Uint8Array {
  const misc = new ByteWriter().u64le(0n).u32le(0).u32le(of.uid).u32le(of.gid).u16le(of.mode).u16le(0).take()
  return xattr(5, 2, 4, sign("sha256", concatBytes(...of.xattrs.map(({ value }) => value), misc), rsa.privateKey))
}

test("judgeFileSignature() judges EVM portable signatures, through security.ima", () => {
  const plain = inode(imaDigestXattr)
  const signature = evmSignature(plain)
  assert.equal(outcome(entry({ inode: plain, signature })), "evm-portable rsa")
  const signed = inode(v2(rsa))
  assert.equal(outcome(entry({ inode: signed, signature: evmSignature(signed) })), "evm-portable rsa")
  for (const change of [{ uid: 0 }, { gid: 0 }, { mode: 0o104755 }])
    assert.equal(outcome(entry({ inode: inode(imaDigestXattr, change), signature })), "wrong-signature")
  const relabelled = {
    ...plain,
    xattrs: plain.xattrs.map((found) => (found.name === "security.selinux" ? { ...found, value: encodeUtf8("user_u:x") } : found)),
  }
  assert.equal(outcome(entry({ inode: relabelled, signature })), "wrong-signature")
})

const uncovered: readonly (readonly [string, Uint8Array, Partial<ImaEntry>])[] = [
  ["another digest", concatBytes(Uint8Array.of(4, 4), hash("sha256", encodeUtf8("x"))), {}],
  ["another algorithm", concatBytes(Uint8Array.of(4, 6), hash("sha256", content)), {}],
  ["a longer value", concatBytes(imaDigestXattr, Uint8Array.of(0)), {}],
  ["a digest for a verity entry", imaDigestXattr, { verity: true }],
  ["an unknown form", Uint8Array.of(9, 9), {}],
  ["only the form's first byte", Uint8Array.of(4), {}],
  ["a signature by nobody", v2(ec.get("P-384") ?? assert.fail()), {}],
  ["an EVM signature", xattr(5, 2, 4, new Uint8Array(64)), {}],
]
for (const [what, ima, change] of uncovered)
  test(`judgeFileSignature() refuses an EVM signature whose security.ima holds ${what}`, () => {
    const of = inode(ima)
    assert.equal(outcome(entry({ ...change, inode: of, signature: evmSignature(of) })), "other-digest")
  })

test("judgeFileSignature() refuses an EVM signature without security.ima", () => {
  const of = inode(imaDigestXattr, { xattrs: [{ name: "security.selinux", value: encodeUtf8("x") }] })
  assert.equal(outcome(entry({ inode: of, signature: evmSignature(of) })), "no-digest")
})

const skip = spawnSync("openssl", ["version"]).status === 0 ? false : "skipped: no openssl program"

/** A PKCS#7 signature as the kernel's build makes it for modules, through openssl. */
function appended(attributes: boolean, digestName: HashName, text: Uint8Array = content): { readonly der: Uint8Array; readonly key: KeyObject } {
  const script = `set -e; d=$(mktemp -d); cd $d
    openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=modules 2>/dev/null
    cat > in; openssl smime -sign -binary ${attributes ? "" : "-noattr"} -nocerts -md ${digestName} -signer c.pem -inkey k.pem -outform DER -in in -out out 2>/dev/null
    openssl x509 -in c.pem -pubkey -noout | base64 -w0; echo; base64 -w0 out; rm -r $d`
  const [key = "", der = ""] = execFileSync("bash", ["-c", script], { input: text }).toString().split("\n")
  return { der: new Uint8Array(Buffer.from(der, "base64")), key: createPublicKey(Buffer.from(key, "base64").toString()) }
}

for (const attributes of [true, false])
  test(`judgeFileSignature() judges appended signatures ${attributes ? "with" : "without"} signed attributes`, { skip }, () => {
    const { der, key } = appended(attributes, "sha256")
    const modsigDigest = `sha256:${createHash("sha256").update(content).digest("hex")}`
    const of = entry({ digest: "22".repeat(32), modsig: der, modsigDigest })
    assert.equal(outcome(of, { keys: [rsa.publicKey, key] }), "modsig rsa")
    assert.equal(outcome(of), "wrong-signature")
    const otherContent = entry({ modsig: der, modsigDigest: `sha256:${"33".repeat(32)}` })
    assert.equal(outcome(otherContent, { keys: [key] }), attributes ? "other-digest" : "wrong-signature")
    assert.equal(outcome(entry({ modsig: der, modsigDigest: `sha512:${"33".repeat(64)}` }), { keys: [key] }), "other-digest")
    for (let length = 0; length < der.length; length += 7)
      assert.equal(outcome(entry({ modsig: der.slice(0, length), modsigDigest }), { keys: [key] }), "malformed")
    assert.equal(outcome(entry({ modsig: concatBytes(der, Uint8Array.of(0)), modsigDigest }), { keys: [key] }), "malformed")
  })

test("judgeFileSignature() lets an appended signature over SHA-1 pass only where it is named", { skip }, () => {
  const { der, key } = appended(false, "sha1")
  const of = entry({ modsig: der, modsigDigest: `sha1:${encodeHex(hash("sha1", content))}` })
  assert.equal(outcome(of, { keys: [key] }), "weak-hash")
  assert.match(outcome(of, { keys: [key], insecureAllowSha1: true }), /^modsig/)
})

test("judgeFileSignature() falls back from an appended signature to the xattr's", { skip }, () => {
  const { der } = appended(false, "sha256")
  assert.equal(outcome(entry({ modsig: der, modsigDigest: `sha256:${encodeHex(hash("sha256", content))}`, signature: v2(rsa) })), "ima rsa")
})
