import assert from "node:assert/strict"
import { execFileSync, spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { basicConstraintsOf, keyUsageOf, makeKeyPair, purposesOf, type CertificateInput } from "./authority.testing.ts"
import { certificateFingerprint, extensionIds, parseCertificate, parsePemCertificates } from "./certificate.ts"
import { contextTag, derElement, derOid, tags } from "./der.ts"
import { attributeOf, laboratoryTimePolicy, LaboratoryTimeAuthority, type StampInput } from "./timestamp-authority.testing.ts"
import { encodeTimestampRequest, makeTimestampRequest, parseTimestampResponse, timestampIds } from "./timestamp-format.ts"
import { verifyTimestamp, type TimestampExpectation, type VerifiedTimestamp } from "./timestamp.ts"

const authority = new LaboratoryTimeAuthority()
const genTime = Date.parse("2026-11-22T12:00:00Z")
const random = (length: number): Uint8Array => new Uint8Array(randomBytes(length))
const request = makeTimestampRequest(encodeUtf8("something of our own"), random)
const expected: TimestampExpectation = {
  request,
  roots: [parseCertificate(authority.root)],
  policies: "any",
  maxAccuracyMilliseconds: 1000,
}

function stamp(change: Partial<StampInput> = {}, by = authority, expectation: Partial<TimestampExpectation> = {}): VerifiedTimestamp {
  const response = by.answer(encodeTimestampRequest(request), { genTime, ...change })
  return verifyTimestamp(response, { ...expected, roots: [parseCertificate(by.root)], ...expectation })
}

function refuses(code: string, change: Partial<StampInput>, by = authority, expectation: Partial<TimestampExpectation> = {}): void {
  assert.throws(() => stamp(change, by, expectation), { code }, JSON.stringify(Object.keys(change)))
}

/** An authority whose signing certificate has these faults. */
function withCertificate(change: Partial<CertificateInput>): LaboratoryTimeAuthority {
  return new LaboratoryTimeAuthority(change)
}

const integer = (value: number): Uint8Array => derElement(tags.integer, Uint8Array.of(value))
const thousandths = (number: number, ...bytes: number[]): Uint8Array => derElement(contextTag(number, "primitive"), Uint8Array.from(bytes))

test("verifyTimestamp() gives the authority's time, number, policy, root and certificate", () => {
  assert.deepEqual(stamp(), {
    genTime,
    accuracyMilliseconds: undefined,
    policy: laboratoryTimePolicy,
    serial: "07",
    root: certificateFingerprint(parseCertificate(authority.root)),
    signer: certificateFingerprint(parseCertificate(authority.certificate)),
  })
})

test("makeTimestampRequest() draws a positive nonce in shortest form, another one each time", () => {
  const requests = Array.from({ length: 64 }, () => makeTimestampRequest(encodeUtf8("x"), random))
  for (const { nonce } of requests) assert.ok((nonce[0] ?? 0) >= 0x40 && (nonce[0] ?? 0) < 0x80 && nonce.length === 16)
  assert.equal(new Set(requests.map(({ nonce }) => Buffer.from(nonce).toString("hex"))).size, 64)
  const zeros = makeTimestampRequest(encodeUtf8("x"), (length) => new Uint8Array(length))
  assert.equal(zeros.nonce[0], 0x40)
})

test("verifyTimestamp() reads fractions of a second and accuracy, rounded against the authority", () => {
  assert.equal(stamp({ genTimeText: "20261122120000.5Z" }).genTime, genTime + 500)
  assert.equal(stamp({ genTimeText: "20261122120000.283999Z" }).genTime, genTime + 283)
  assert.equal(stamp({ accuracy: integer(1) }).accuracyMilliseconds, 1000)
  assert.equal(stamp({ accuracy: thousandths(0, 20) }).accuracyMilliseconds, 20)
  const parts = Buffer.concat([thousandths(0, 1), thousandths(1, 0x01, 0xf4)])
  assert.equal(stamp({ accuracy: new Uint8Array(parts) }).accuracyMilliseconds, 2)
  assert.equal(stamp({ accuracy: new Uint8Array(0) }).accuracyMilliseconds, 0)
})

test("parseTimestampResponse() refuses other forms of time and accuracy", () => {
  for (const genTimeText of [
    "20261122120000",
    "20261122120000.50Z",
    "20261122120000.Z",
    "20261122120060Z",
    "20261322120000Z",
    "202611221200Z",
    "20261122120000+0100",
    "20261122120000,5Z",
  ])
    refuses("malformed", { genTimeText })
  refuses("malformed", { accuracy: thousandths(0, 0) })
  refuses("malformed", { accuracy: thousandths(0, 0x03, 0xe8) })
  refuses("malformed", { accuracy: thousandths(1, 0xff) })
  refuses("trailing-bytes", { accuracy: new Uint8Array(Buffer.concat([thousandths(1, 5), thousandths(0, 5)])) })
})

test("parseTimestampResponse() wants the versions that the forms have", () => {
  refuses("malformed", { infoVersion: 2 })
  refuses("malformed", { dataVersion: 1 })
  refuses("malformed", { signerVersion: 3 })
})

test("verifyTimestamp() takes nothing that the authority did not grant", () => {
  const words = derElement(tags.sequence, derElement(tags.utf8String, encodeUtf8("too busy ".repeat(200))))
  assert.throws(
    () => stamp({ status: 2, statusParts: [words], withoutToken: true }),
    (error: Error & { code?: string }) => error.code === "unavailable" && error.message.length < 300,
  )
  refuses("unavailable", { status: 1 })
  refuses("unavailable", { withoutToken: true })
  refuses("malformed", { statusParts: [derElement(tags.bitString, Uint8Array.of(0, 0x80))] })
})

test("verifyTimestamp() refuses a stamp over something else, or an old one", () => {
  refuses("wrong-stamp", { imprint: new Uint8Array(32) })
  refuses("wrong-stamp", { imprintAlgorithm: "1.3.14.3.2.26" })
  refuses("wrong-stamp", { nonce: null })
  refuses("wrong-stamp", { nonce: Uint8Array.of(1) })
  // The same nonce with a zero before it is another sequence of bytes.
  refuses("wrong-stamp", { nonce: Uint8Array.of(0, ...request.nonce) })
})

test("verifyTimestamp() holds policy and accuracy to what was expected", () => {
  stamp({}, authority, { policies: [laboratoryTimePolicy] })
  refuses("wrong-stamp", {}, authority, { policies: ["1.2.3"] })
  stamp({ accuracy: integer(1) })
  refuses("wrong-stamp", { accuracy: integer(2) })
})

test("verifyTimestamp() refuses unknown critical extensions of a stamp, and reads over others", () => {
  stamp({ infoExtensions: [{ oid: "1.2.3", critical: false }] })
  refuses("unsupported", { infoExtensions: [{ oid: "1.2.3", critical: true }] })
})

test("verifyTimestamp() wants signed content that is a time stamp, inside and outside", () => {
  refuses("wrong-stamp", { contentType: "1.2.840.113549.1.7.1" })
  refuses("wrong-signature", { signedContentType: "1.2.840.113549.1.7.1" })
})

test("verifyTimestamp() wants exactly one signer", () => {
  refuses("wrong-signature", { signerCount: 0 })
  refuses("wrong-signature", { signerCount: 2 })
})

test("verifyTimestamp() wants content type, digest and certificate among the signed attributes, each once", () => {
  for (const oid of [timestampIds.contentType, timestampIds.messageDigest, timestampIds.signingCertificateV2])
    refuses("wrong-signature", { withoutAttributes: [oid] })
  refuses("duplicate", { extraAttributes: [attributeOf(timestampIds.contentType, derOid(timestampIds.tstInfo))] })
  refuses("trailing-bytes", { extraAttributes: [attributeOf("1.2.3", integer(1), integer(2))] })
  refuses("wrong-signature", { messageDigest: new Uint8Array(32) })
  stamp({ extraAttributes: [attributeOf("1.2.3", integer(1))] })
})

test("verifyTimestamp() refuses a signature that is bound to another certificate", () => {
  refuses("wrong-certificate", { boundCertificate: authority.issuer })
  stamp({ issuerSerial: { issuer: "time ca", serial: 3 } })
  refuses("wrong-certificate", { issuerSerial: { issuer: "time root", serial: 3 } })
  refuses("wrong-certificate", { issuerSerial: { issuer: "time ca", serial: 4 } })
})

test("verifyTimestamp() refuses another key's signature and a signer without a certificate", () => {
  refuses("wrong-signature", { signingKey: makeKeyPair() })
  refuses("wrong-certificate", { certificates: [authority.issuer] })
  refuses("wrong-certificate", { bySubjectKeyId: Uint8Array.of(1, 2, 3) })
})

test("verifyTimestamp() finds a signer by its key identifier", () => {
  const keyId = Uint8Array.of(1, 2, 3)
  const identified = withCertificate({
    extensions: [purposesOf(true, timestampIds.timeStamping), { oid: extensionIds.subjectKeyIdentifier, value: derElement(tags.octetString, keyId) }],
  })
  assert.equal(stamp({ bySubjectKeyId: keyId }, identified).genTime, genTime)
})

test("verifyTimestamp() takes SHA-256, SHA-384 and SHA-512, and one hash for all", () => {
  const ecdsa = (last: number): Uint8Array => derElement(tags.sequence, derOid(`1.2.840.10045.4.3.${last}`))
  stamp({ hash: "sha384", signatureAlgorithm: ecdsa(3) })
  stamp({ hash: "sha512", signatureAlgorithm: ecdsa(4) })
  refuses("weak-algorithm", { hash: "sha1" })
  refuses("wrong-signature", { hash: "sha384" })
  refuses("weak-algorithm", { signatureAlgorithm: derElement(tags.sequence, derOid("1.2.840.10045.4.1")) })
  refuses("malformed", { announcedHash: "sha512" })
})

test("verifyTimestamp() takes only a key that is for time stamps alone, critically", () => {
  const purpose = purposesOf(true, timestampIds.timeStamping)
  refuses("wrong-certificate", {}, withCertificate({ extensions: [] }))
  refuses("wrong-certificate", {}, withCertificate({ extensions: [purposesOf(false, timestampIds.timeStamping)] }))
  refuses("wrong-certificate", {}, withCertificate({ extensions: [purposesOf(true, timestampIds.timeStamping, "1.3.6.1.5.5.7.3.1")] }))
  refuses("wrong-certificate", {}, withCertificate({ extensions: [purposesOf(true, "1.3.6.1.5.5.7.3.1")] }))
  refuses("wrong-certificate", {}, withCertificate({ extensions: [purpose, basicConstraintsOf(true)] }))
  refuses("wrong-certificate", {}, withCertificate({ extensions: [purpose, keyUsageOf(0x20)] }))
  stamp({}, withCertificate({ extensions: [purpose, keyUsageOf(0x40)] }))
})

test("verifyTimestamp() judges the chain at the time of the stamp, under the given roots alone", () => {
  refuses("expired", {}, withCertificate({ notAfter: "2026-11-22T11:59:59Z" }))
  refuses("expired", {}, withCertificate({ notBefore: "2026-11-22T12:00:01Z" }))
  // Another root of the same name.
  refuses("wrong-signature", {}, authority, { roots: [parseCertificate(new LaboratoryTimeAuthority().root)] })
  refuses("wrong-chain", {}, authority, { roots: [] })
  refuses("wrong-chain", { certificates: [authority.certificate] })
  // A root that only comes along counts for nothing.
  refuses("wrong-chain", { certificates: [authority.certificate, authority.issuer, authority.root] }, authority, { roots: [] })
})

test("verifyTimestamp() refuses a stamp that names another authority than its certificate", () => {
  stamp({ tsa: "time authority" })
  refuses("wrong-certificate", { tsa: "time ca" })
})

test("parseTimestampResponse() refuses too many certificates and too many bytes", () => {
  refuses("malformed", { certificates: Array.from({ length: 17 }, () => authority.certificate) })
  assert.throws(() => parseTimestampResponse(new Uint8Array(65_537)), { code: "too-large" })
})

const openssl = spawnSync("openssl", ["ts", "-help"]).status === 0

test("verifyTimestamp() and openssl ts agree", { skip: openssl ? false : "no openssl with its command ts on this machine" }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "perun-ts-"))
  const run = (...args: string[]): string => execFileSync("openssl", args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })
  try {
    await writeFile(join(folder, "ours.tsq"), encodeTimestampRequest(request))
    assert.match(run("ts", "-query", "-in", "ours.tsq", "-text"), /Certificate required: yes/)
    await writeFile(join(folder, "openssl.cnf"), configuration)
    for (const key of ["rsa:2048", "ec"]) {
      const kind = key === "ec" ? ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] : [key]
      run(
        "req",
        "-x509",
        "-newkey",
        ...kind,
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=root",
        "-days",
        "30",
        "-config",
        "openssl.cnf",
        "-extensions",
        "ca",
      )
      run("req", "-newkey", ...kind, "-nodes", "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=tsa", "-config", "openssl.cnf")
      run(
        "x509",
        "-req",
        "-in",
        "tsa.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-set_serial",
        "0x1234567890abcdef",
        "-out",
        "tsa.pem",
        "-days",
        "30",
        "-extfile",
        "openssl.cnf",
        "-extensions",
        "tsa_certificate",
      )
      await writeFile(join(folder, "serial"), "0100\n")
      run("ts", "-reply", "-config", "openssl.cnf", "-queryfile", "ours.tsq", "-out", "theirs.tsr")
      const roots = parsePemCertificates(await readFile(join(folder, "ca.pem"), "utf8"))
      const before = Date.now()
      const theirs = verifyTimestamp(await readFile(join(folder, "theirs.tsr")), { ...expected, roots })
      assert.ok(Math.abs(theirs.genTime - before) < 60_000)
      assert.equal(theirs.accuracyMilliseconds, 501)
      assert.equal(theirs.policy, "1.2.3.4.1")
    }
    // Theirs on ours: the laboratory's authority makes what others call a time stamp.
    for (const change of [{}, { tsa: "time authority" }, { accuracy: integer(1) }]) {
      await writeFile(join(folder, "ours.tsr"), authority.answer(encodeTimestampRequest(request), { genTime: Date.now(), ...change }))
      for (const name of ["root", "issuer"] as const) {
        const pem = run("x509", "-inform", "der", "-in", await saved(folder, name))
        await writeFile(join(folder, `${name}.pem`), pem)
      }
      assert.match(run("ts", "-verify", "-queryfile", "ours.tsq", "-in", "ours.tsr", "-CAfile", "root.pem", "-untrusted", "issuer.pem"), /OK/)
    }
  } finally {
    await rm(folder, { recursive: true })
  }
})

async function saved(folder: string, name: "root" | "issuer"): Promise<string> {
  await writeFile(join(folder, `${name}.der`), authority[name])
  return `${name}.der`
}

const configuration = `
[req]
distinguished_name = none
prompt = no
[none]
CN = none
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[tsa_certificate]
basicConstraints = CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
authorityKeyIdentifier = keyid
[tsa]
default_tsa = authority
[authority]
serial = serial
crypto_device = builtin
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
certs = ca.pem
default_policy = 1.2.3.4.1
digests = sha256
accuracy = millisecs:500, microsecs:100
clock_precision_digits = 3
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
`
