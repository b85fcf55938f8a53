import assert from "node:assert/strict"
import { X509Certificate, generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { concatBytes } from "../bytes/compare.ts"
import { digestOf } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { encodeHex, encodeUtf8, parseHex } from "../bytes/text.ts"
import {
  authorityKeyIdOf,
  basicConstraintsOf,
  derAlgorithm,
  derTime,
  directoryNameOf,
  keyUsageOf,
  makeCertificate,
  makeKeyPair,
  purposesOf,
  subjectKeyIdOf,
} from "./authority.testing.ts"
import type { CertificateInput, ExtensionInput } from "./authority.testing.ts"
import {
  authorityKeyIdentifier,
  basicConstraints,
  certificateFingerprint,
  certificateKey,
  extendedKeyUsage,
  keyUsage,
  parseCertificate,
  parseName,
  parsePemCertificates,
  parseSignatureAlgorithm,
  readTime,
  spkiDigest,
  subjectKeyIdentifier,
} from "./certificate.ts"
import { DerReader, contextTag, derElement, derOid, parsePem, readDer, tags, within } from "./der.ts"

const key = makeKeyPair()
const input: CertificateInput = {
  subject: "leaf",
  issuer: "ca",
  key,
  issuerKey: key,
  serial: 7,
  extensions: [
    basicConstraintsOf(true, 3),
    keyUsageOf(0x86),
    purposesOf(true, "1.2.3", "2.23.133.8.1"),
    subjectKeyIdOf("0a0b"),
    authorityKeyIdOf("0c0d"),
    directoryNameOf([["2.5.4.3", "x"]]),
  ],
}
const der = makeCertificate(input)

function withExtension(extension: ExtensionInput): ReturnType<typeof parseCertificate> {
  return parseCertificate(makeCertificate({ ...input, extensions: [extension] }))
}

test("parseCertificate() reads what node:crypto reads too", () => {
  const certificate = parseCertificate(der)
  const reference = new X509Certificate(der)
  assert.equal(certificate.serial, reference.serialNumber.toLowerCase())
  assert.equal(certificate.notBefore, reference.validFromDate.getTime())
  assert.equal(certificate.notAfter, reference.validToDate.getTime())
  assert.deepEqual(certificateKey(certificate).export({ format: "jwk" }), reference.publicKey.export({ format: "jwk" }))
  assert.equal(certificateFingerprint(certificate), `sha256:${reference.fingerprint256.replaceAll(":", "").toLowerCase()}`)
  assert.equal(spkiDigest(certificate), digestOf(new Uint8Array(key.publicKey.export({ format: "der", type: "spki" }))))
  assert.equal(certificate.signatureAlgorithm.scheme, "ecdsa-sha256")
  assert.equal(certificate.version, 3)
})

test("the extension readers give what was written, and undefined where there is none", () => {
  const certificate = parseCertificate(der)
  assert.deepEqual(basicConstraints(certificate), { isCa: true, pathLength: 3 })
  assert.deepEqual([...(keyUsage(certificate) ?? [])], ["digitalSignature", "keyCertSign", "cRLSign"])
  assert.deepEqual(extendedKeyUsage(certificate), ["1.2.3", "2.23.133.8.1"])
  assert.equal(subjectKeyIdentifier(certificate), "0a0b")
  assert.equal(authorityKeyIdentifier(certificate), "0c0d")
  assert.equal(certificate.extensions.get("2.5.29.37")?.critical, true)
  assert.equal(certificate.extensions.get("2.5.29.14")?.critical, false)
  const bare = parseCertificate(makeCertificate({ ...input, extensions: undefined }))
  for (const read of [basicConstraints, keyUsage, extendedKeyUsage, subjectKeyIdentifier, authorityKeyIdentifier]) assert.equal(read(bare), undefined)
  assert.deepEqual(basicConstraints(withExtension(basicConstraintsOf(false))), { isCa: false })
})

test("parseCertificate() refuses every truncation, a byte behind, and lets only our errors out of flipped bits", () => {
  for (let length = 0; length < der.length; length++) assert.throws(() => parseCertificate(der.slice(0, length)), { code: "truncated" }, `${length}`)
  assert.throws(() => parseCertificate(concatBytes(der, Uint8Array.of(0))), { code: "trailing-bytes" })
  for (let bit = 0; bit < der.length * 8; bit++) {
    const flipped = Uint8Array.from(der)
    const at = Math.floor(bit / 8)
    flipped[at] = (flipped[at] ?? 0) ^ (1 << (bit % 8))
    try {
      const certificate = parseCertificate(flipped)
      for (const read of [basicConstraints, keyUsage, extendedKeyUsage, subjectKeyIdentifier, authorityKeyIdentifier, certificateKey])
        read(certificate)
      parseName(certificate.subject)
    } catch (error) {
      if (!(error instanceof PerunError)) throw error
    }
  }
})

test("parseCertificate() reads version 1 without extensions and refuses other versions", () => {
  assert.equal(parseCertificate(makeCertificate({ ...input, version: undefined, extensions: undefined })).version, 1)
  assert.throws(() => parseCertificate(makeCertificate({ ...input, version: undefined })), { code: "trailing-bytes" })
  assert.throws(() => parseCertificate(makeCertificate({ ...input, version: 1 })), { code: "unsupported" })
})

test("parseCertificate() refuses an algorithm that differs inside and outside", () => {
  const outerAlgorithm = derElement(tags.sequence, derOid("1.2.840.10045.4.3.3"))
  assert.throws(() => parseCertificate(makeCertificate({ ...input, outerAlgorithm })), { code: "malformed", path: "Certificate.signatureAlgorithm" })
})

test("parseCertificate() refuses an extension that stands twice, too many of them, and too large a certificate", () => {
  const extension = basicConstraintsOf(true)
  assert.throws(() => parseCertificate(makeCertificate({ ...input, extensions: [extension, extension] })), { code: "duplicate" })
  const many = Array.from({ length: 65 }, (_, index) => ({ oid: `1.2.${index + 1}`, value: new Uint8Array(0) }))
  assert.throws(() => parseCertificate(makeCertificate({ ...input, extensions: many })), { code: "too-large" })
  assert.equal(parseCertificate(makeCertificate({ ...input, extensions: many.slice(1) })).extensions.size, 64)
  assert.throws(() => withExtension({ oid: "1.2.3", value: new Uint8Array(16_384) }), { code: "too-large" })
})

test("the extension readers refuse contents of another form", () => {
  const wrong = (oid: string, value: Uint8Array): ReturnType<typeof parseCertificate> => withExtension({ oid, value })
  const trailing = concatBytes(derElement(tags.sequence), Uint8Array.of(0))
  assert.throws(() => basicConstraints(wrong("2.5.29.19", trailing)), { code: "trailing-bytes" })
  assert.throws(() => basicConstraints(wrong("2.5.29.19", derElement(tags.sequence, derElement(tags.boolean, Uint8Array.of(1))))), {
    code: "malformed",
  })
  assert.throws(() => keyUsage(wrong("2.5.29.15", derElement(tags.bitString, Uint8Array.of(8, 4)))), { code: "malformed" })
  assert.throws(() => extendedKeyUsage(wrong("2.5.29.37", derElement(tags.sequence, derElement(tags.null)))), { code: "malformed" })
})

test("readTime() takes UTC to the second in both forms, and nothing else", () => {
  const read = (element: Uint8Array): number => readTime(new DerReader("t", element), "time")
  assert.equal(read(derTime("1999-12-31T23:59:59Z")), Date.parse("1999-12-31T23:59:59Z"))
  assert.equal(read(derElement(tags.utcTime, encodeUtf8("500101000000Z"))), Date.parse("1950-01-01T00:00:00Z"))
  assert.equal(read(derElement(tags.utcTime, encodeUtf8("490101000000Z"))), Date.parse("2049-01-01T00:00:00Z"))
  assert.equal(read(derTime("9999-12-31T23:59:59Z")), Date.parse("9999-12-31T23:59:59Z"))
  for (const text of ["2501010000Z", "250101000000+0000", "250101000000", "251301000000Z", "20250101000000Z", "250101000000.5Z", ""])
    assert.throws(() => read(derElement(tags.utcTime, encodeUtf8(text))), { code: "malformed" }, text)
  assert.throws(() => read(derElement(tags.generalizedTime, encodeUtf8("250101000000Z"))), { code: "malformed" })
  assert.throws(() => read(derElement(tags.utf8String, encodeUtf8("250101000000Z"))), { code: "malformed" })
})

test("parseName() gives attributes in order, text only for text", () => {
  const attribute = (oid: string, tag: number, value: Uint8Array): Uint8Array => derElement(tags.sequence, derOid(oid), derElement(tag, value))
  const name = derElement(
    tags.sequence,
    derElement(tags.set, attribute("2.5.4.6", tags.printableString, encodeUtf8("CH")), attribute("2.5.4.3", tags.bmpString, Uint8Array.of(0, 65))),
  )
  assert.deepEqual(parseName(name), [
    { oid: "2.5.4.6", value: "CH" },
    { oid: "2.5.4.3", value: "#1e020041" },
  ])
})

test("parseSignatureAlgorithm() knows the table; other parameters mean another algorithm", () => {
  const scheme = (...parts: readonly Uint8Array[]): string | undefined => parseSignatureAlgorithm(derElement(tags.sequence, ...parts)).scheme
  const none = derElement(tags.null)
  const table: readonly (readonly [string, string])[] = [
    ["1.2.840.113549.1.1.5", "rsassa-sha1"],
    ["1.2.840.113549.1.1.11", "rsassa-sha256"],
    ["1.2.840.113549.1.1.12", "rsassa-sha384"],
    ["1.2.840.113549.1.1.13", "rsassa-sha512"],
    ["1.2.840.10045.4.3.2", "ecdsa-sha256"],
    ["1.2.840.10045.4.3.3", "ecdsa-sha384"],
    ["1.2.840.10045.4.3.4", "ecdsa-sha512"],
    ["1.3.101.112", "ed25519"],
  ]
  for (const [oid, expected] of table) {
    assert.equal(scheme(derOid(oid)), expected)
    assert.equal(scheme(derOid(oid), none), expected)
    assert.equal(scheme(derOid(oid), derElement(tags.null, Uint8Array.of(0))), undefined)
    assert.equal(scheme(derOid(oid), derElement(tags.sequence)), undefined)
  }
  assert.equal(scheme(derOid("1.2.840.113549.1.1.4"), none), undefined)
  assert.throws(() => scheme(derOid("1.3.101.112"), none, none), { code: "trailing-bytes" })
})

const sha256Oid = "2.16.840.1.101.3.4.2.1"
const sha384Oid = "2.16.840.1.101.3.4.2.2"

function pss(hash: string, mgf: string, mgfHash: string, salt: number, trailer?: number): Uint8Array {
  const algorithm = (oid: string, ...rest: readonly Uint8Array[]): Uint8Array => derElement(tags.sequence, derOid(oid), ...rest)
  const number = (value: number): Uint8Array => derElement(tags.integer, Uint8Array.of(value))
  return derElement(
    tags.sequence,
    derOid("1.2.840.113549.1.1.10"),
    derElement(
      tags.sequence,
      derElement(contextTag(0, "constructed"), algorithm(hash, derElement(tags.null))),
      derElement(contextTag(1, "constructed"), algorithm(mgf, algorithm(mgfHash))),
      derElement(contextTag(2, "constructed"), number(salt)),
      ...(trailer === undefined ? [] : [derElement(contextTag(3, "constructed"), number(trailer))]),
    ),
  )
}

test("parseSignatureAlgorithm() takes PSS with one hash, MGF1 and a salt of its length only", () => {
  const mgf1 = "1.2.840.113549.1.1.8"
  assert.equal(parseSignatureAlgorithm(pss(sha256Oid, mgf1, sha256Oid, 32)).scheme, "rsapss-sha256")
  assert.equal(parseSignatureAlgorithm(pss(sha384Oid, mgf1, sha384Oid, 48, 1)).scheme, "rsapss-sha384")
  assert.equal(parseSignatureAlgorithm(pss("2.16.840.1.101.3.4.2.3", mgf1, "2.16.840.1.101.3.4.2.3", 64)).scheme, "rsapss-sha512")
  for (const wrong of [
    pss(sha256Oid, mgf1, sha384Oid, 32),
    pss(sha256Oid, "1.2.3", sha256Oid, 32),
    pss(sha256Oid, mgf1, sha256Oid, 20),
    pss(sha256Oid, mgf1, sha256Oid, 32, 2),
    pss("1.3.14.3.2.26", mgf1, "1.3.14.3.2.26", 20),
  ])
    assert.equal(parseSignatureAlgorithm(wrong).scheme, undefined)
})

test("makeCertificate() of the laboratory signs RSA with SHA-1 or SHA-256 as asked", () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 1024 })
  assert.notDeepEqual(derAlgorithm(rsa.privateKey, "sha1"), derAlgorithm(rsa.privateKey, "sha256"))
})

// der.ts

test("DerReader refuses lengths that are indefinite, not shortest, or too large, and long identifiers", () => {
  for (const hex of ["3080", "308101", "30820001ff", "3085000000000100", "1f0100", "3084ffffffff"]) {
    const code = hex === "3084ffffffff" ? "truncated" : "malformed"
    assert.throws(() => new DerReader("x", parseHex(hex)).any("field"), { code }, hex)
  }
  assert.equal(new DerReader("x", concatBytes(parseHex("308180"), new Uint8Array(128))).any("field").body.length, 128)
  assert.equal(new DerReader("x", concatBytes(parseHex("30820100"), new Uint8Array(256))).any("field").body.length, 256)
})

test("DerReader refuses other tags than asked for and reads optional elements only when they are there", () => {
  const reader = new DerReader("x", derElement(tags.null))
  assert.equal(reader.optional(tags.integer, "number"), undefined)
  assert.throws(() => new DerReader("x", derElement(tags.null)).element(tags.integer, "number"), { code: "malformed" })
  assert.equal(reader.optional(tags.null, "nothing")?.body.length, 0)
  assert.equal(reader.nextTag(), undefined)
  assert.ok(reader.done)
})

test("DerReader.oid() and derOid() are inverse; damaged identifiers are refused", () => {
  const oid = (bytes: Uint8Array): string => new DerReader("x", bytes).oid("oid")
  for (const text of ["1.2.840.113549.1.1.11", "2.23.133.8.1", "0.9", "1.39.1", "2.999.1", "2.5.29.37"]) assert.equal(oid(derOid(text)), text)
  assert.throws(() => oid(parseHex("0600")), { code: "malformed" })
  assert.throws(() => oid(parseHex("06025581")), { code: "truncated" })
  assert.throws(() => oid(parseHex("0603558004")), { code: "malformed" })
  assert.throws(() => oid(parseHex(`060a55${"ff".repeat(8)}7f`)), { code: "malformed" })
  assert.throws(() => oid(derElement(tags.oid, new Uint8Array(65).fill(1))), { code: "malformed" })
})

test("DerReader.smallInteger() refuses negative and large numbers", () => {
  const read = (hex: string): number => new DerReader("x", parseHex(hex)).smallInteger("n")
  assert.equal(read("020100"), 0)
  assert.equal(read("02020100"), 256)
  for (const hex of ["0200", "0201ff", "02050100000000"]) assert.throws(() => read(hex), { code: "malformed" })
})

test("DerReader.bitStringBytes() refuses unused bits", () => {
  assert.deepEqual(new DerReader("x", parseHex("0302000a")).bitStringBytes("bits"), Uint8Array.of(10))
  assert.throws(() => new DerReader("x", parseHex("0302010a")).bitStringBytes("bits"), { code: "malformed" })
  assert.throws(() => new DerReader("x", parseHex("0300")).bitStringBytes("bits"), { code: "truncated" })
})

test("readDer() and within() refuse what is left over", () => {
  assert.throws(() => readDer("x", parseHex("05000500"), (reader) => reader.any("first")), { code: "trailing-bytes" })
  assert.throws(() => readDer("x", parseHex("30020500"), (reader) => within(reader, tags.sequence, "s", () => 0)), { code: "trailing-bytes" })
})

test("derElement() writes the shortest length", () => {
  for (const [size, head] of [
    [127, "047f"],
    [128, "048180"],
    [256, "04820100"],
    [65_536, "048400010000"],
  ] as const)
    // prettier-ignore
    assert.equal(encodeHex(derElement(tags.octetString, new Uint8Array(size))).substring(0, head.length), head)
})

test("parsePem() reads every block of its label and skips the text between", () => {
  const block = (body: string): string => `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----`
  assert.deepEqual(parsePem(`# a\r\n${block("AQ==")}\r\nb\n${block("Ag==\n")}`, "CERTIFICATE"), [Uint8Array.of(1), Uint8Array.of(2)])
  assert.deepEqual(parsePem(block("AQ=="), "X509 CRL"), [])
  assert.throws(() => parsePem(block("AQ"), "CERTIFICATE"), { code: "malformed" })
  assert.throws(() => parsePem("-----END CERTIFICATE-----", "CERTIFICATE"), { code: "malformed" })
  assert.throws(() => parsePem("-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----", "CERTIFICATE"), { code: "malformed" })
  assert.throws(() => parsePem("-----BEGIN CERTIFICATE-----\nAQ==", "CERTIFICATE"), { code: "truncated" })
  assert.equal(parsePemCertificates(new X509Certificate(der).toString())[0]?.serial, "07")
})
