import assert from "node:assert/strict"
import { createPublicKey, generateKeyPairSync } from "node:crypto"
import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { digestOf } from "../../bytes/digest.ts"
import { ByteWriter } from "../../bytes/writer.ts"
import {
  basicConstraintsOf,
  directoryNameOf,
  keyUsageOf,
  makeCertificate,
  makeKeyPair,
  makeRevocationList,
  purposesOf,
} from "../../pki/authority.testing.ts"
import type { CertificateInput, ExtensionInput } from "../../pki/authority.testing.ts"
import { basicConstraints, certificateFingerprint, certificateKey, parseCertificate, parsePemCertificates } from "../../pki/certificate.ts"
import type { Certificate } from "../../pki/certificate.ts"
import { parseRevocationList } from "../../pki/crl.ts"
import { contextTag, derElement, derOid, tags } from "../../pki/der.ts"
import { verifySignature } from "../../pki/signatures.ts"
import { Genuine } from "../genuine.ts"
import type { EndorsementClaims } from "./claims.ts"
import { parseStoredCertificate } from "./endorsements.ts"
import { tpmIdentity } from "./identity.ts"
import { tpmNameText } from "./keys.ts"
import { parsePublicArea, parseSizedPublicArea } from "./public-area.ts"
import { laboratoryRoot, loadVendorRoots, vendorRoot, vendorRootTable } from "./roots.ts"
import { attestationAttributes, endorsementAttributes, makeEccKey, without } from "./software-tpm.testing.ts"
import { verifyEndorsementCertificate } from "./verify.ts"
import type { EndorsementEvidence, EndorsementExpectation } from "./endorsement-chain.ts"

const time = Date.parse("2025-01-01T00:00:00Z")
const endorsementPurpose = "2.23.133.8.1"
const authority = makeKeyPair()
const template = { attributes: new Set(endorsementAttributes), symmetric: { algorithm: "aes", keyBits: 128, mode: "cfb" } } as const
const software = makeEccKey(template)
const area = without(software.area, "scheme")
const key = { privateKey: software.privateKey, publicKey: createPublicKey(software.privateKey) }
const rootInput: CertificateInput = {
  subject: "lab ca",
  issuer: "lab ca",
  key: authority,
  issuerKey: authority,
  extensions: [basicConstraintsOf(true), keyUsageOf(0x06)],
}
const root = laboratoryRoot(parseCertificate(makeCertificate(rootInput)))
const names: readonly (readonly [string, string])[] = [
  ["2.23.133.2.1", "id:53544D20"],
  ["2.23.133.2.2", "ST33"],
  ["2.23.133.2.3", "id:0001"],
]
const extensions = {
  constraints: basicConstraintsOf(false),
  usage: keyUsageOf(0x08),
  purpose: purposesOf(false, endorsementPurpose),
  name: directoryNameOf(names),
} satisfies Record<string, ExtensionInput>
const leafInput: CertificateInput = { subject: "", issuer: "lab ca", key, issuerKey: authority, serial: 5, extensions: Object.values(extensions) }
const stored = makeCertificate(leafInput)
const expectation: EndorsementExpectation = { role: "endorsement", roots: [root], time, revocationLists: [], quirks: [] }

function verify(
  certificate: Uint8Array,
  change: Partial<EndorsementExpectation> = {},
  evidence: Partial<EndorsementEvidence> = {},
): EndorsementClaims {
  return verifyEndorsementCertificate({ certificate, intermediates: [], publicArea: area, ...evidence }, { ...expectation, ...change }).claims
}

/** The good certificate with some of its extensions replaced, or left out where undefined. */
function withExtensions(change: { readonly [Name in keyof typeof extensions]?: ExtensionInput | undefined }): Uint8Array {
  const list = Object.values({ ...extensions, ...change }).filter((extension) => extension !== undefined)
  return makeCertificate({ ...leafInput, extensions: list })
}

const spki = new Uint8Array(key.publicKey.export({ format: "der", type: "spki" }))

test("verifyEndorsementCertificate() gives key, root and description as claims", () => {
  assert.deepEqual(verify(stored), {
    role: "endorsement",
    key: digestOf(spki),
    hasPublicArea: true,
    root: certificateFingerprint(root.certificate),
    rootKind: "laboratory",
    rootName: root.name,
    isCloud: false,
    manufacturer: "STM",
    model: "ST33",
    version: "id:0001",
    quirks: [],
    usesSha1: false,
    isRevocationChecked: false,
  })
  assert.match(root.name, /INSECURE LABORATORY/)
})

test("verifyEndorsementCertificate() holds the TPM's key against the certificate", () => {
  assert.equal(verify(stored, {}, { publicArea: "not-given" }).hasPublicArea, false)
  assert.throws(() => verify(stored, {}, { publicArea: without(makeEccKey(template).area, "scheme") }), { code: "wrong-binding" })
  assert.throws(() => verify(stored, {}, { publicArea: { ...area, attributes: new Set(attestationAttributes) } }), { code: "wrong-key" })
})

test("verifyEndorsementCertificate() refuses other roots, times and revoked certificates", () => {
  assert.throws(() => verify(stored, { roots: [] }), { code: "wrong-chain" })
  const namesake = laboratoryRoot(parseCertificate(makeCertificate({ ...rootInput, key: makeKeyPair(), issuerKey: makeKeyPair() })))
  assert.throws(() => verify(stored, { roots: [namesake] }), { code: "wrong-signature" })
  assert.throws(() => verify(stored, { time: Date.parse("2035-01-01T00:00:00Z") }), { code: "expired" })
  const list = (serials: readonly number[]): ReturnType<typeof parseRevocationList> =>
    parseRevocationList(makeRevocationList({ issuer: "lab ca", issuerKey: authority, serials }))
  assert.throws(() => verify(stored, { revocationLists: [list([5])] }), { code: "revoked" })
  assert.equal(verify(stored, { revocationLists: [list([6])] }).isRevocationChecked, true)
  assert.equal(verify(stored, { roots: [namesake, root] }).root, certificateFingerprint(root.certificate))
})

/** Root, an authority below it and the endorsement certificate, of which the authority's own signature may be over SHA-1. */
function threeCertificates(hash: "sha1" | "sha256"): {
  roots: readonly [typeof root]
  certificate: Uint8Array
  intermediates: readonly Certificate[]
} {
  const [top, middle] = [generateKeyPairSync("rsa", { modulusLength: 2048 }), makeKeyPair()]
  const authorityOf = { ...rootInput, key: middle, issuerKey: top, subject: "lab issuer", hash }
  return {
    roots: [laboratoryRoot(parseCertificate(makeCertificate({ ...rootInput, key: top, issuerKey: top })))],
    certificate: makeCertificate({ ...leafInput, issuer: "lab issuer", issuerKey: middle }),
    intermediates: [parseCertificate(makeCertificate(authorityOf))],
  }
}

test("verifyEndorsementCertificate() says SHA-1 also of a certificate in between", () => {
  for (const hash of ["sha1", "sha256"] as const) {
    const { roots, certificate, intermediates } = threeCertificates(hash)
    assert.equal(verify(certificate, { roots, insecureAllowSha1: true }, { intermediates }).usesSha1, hash === "sha1")
  }
})

test("verifyEndorsementCertificate() says that revocation was checked only where every issuer had a list", () => {
  const [middle, listOf] = [
    makeKeyPair(),
    (issuer: string, issuerKey: CertificateInput["key"]): ReturnType<typeof parseRevocationList> =>
      parseRevocationList(makeRevocationList({ issuer, issuerKey, serials: [] })),
  ]
  const intermediates = [parseCertificate(makeCertificate({ ...rootInput, key: middle, subject: "lab issuer" }))]
  const certificate = makeCertificate({ ...leafInput, issuer: "lab issuer", issuerKey: middle })
  const lists = [listOf("lab ca", authority), listOf("lab issuer", middle)]
  const isChecked = (revocationLists: typeof lists): boolean => verify(certificate, { revocationLists }, { intermediates }).isRevocationChecked
  assert.equal(isChecked(lists), true)
  for (const list of lists) assert.equal(isChecked([list]), false)
})

test("verifyEndorsementCertificate() wants the purpose of endorsement keys", () => {
  assert.throws(() => verify(withExtensions({ purpose: undefined })), { code: "wrong-certificate" })
  assert.throws(() => verify(withExtensions({ purpose: purposesOf(false, "2.23.133.8.3") })), { code: "wrong-certificate" })
  assert.equal(verify(withExtensions({ purpose: purposesOf(true, "1.2.3", endorsementPurpose) })).role, "endorsement")
})

test("verifyEndorsementCertificate() wants a key usage for encryption only", () => {
  for (const octet of [0x20, 0x08, 0x28]) verify(withExtensions({ usage: keyUsageOf(octet) }))
  for (const octet of [0x00, 0x80, 0xa0, 0x88, 0x24, 0x22])
    assert.throws(() => verify(withExtensions({ usage: keyUsageOf(octet) })), { code: "wrong-certificate" })
  assert.throws(() => verify(withExtensions({ usage: undefined })), { code: "unsupported" })
  assert.deepEqual(verify(withExtensions({ usage: undefined }), { quirks: ["no-key-usage"] }).quirks, ["no-key-usage"])
})

test("verifyEndorsementCertificate() refuses the certificate of an authority", () => {
  assert.throws(() => verify(withExtensions({ constraints: basicConstraintsOf(true) })), { code: "wrong-certificate" })
  verify(withExtensions({ constraints: undefined }))
})

test("verifyEndorsementCertificate() wants one directoryName with manufacturer, model and version, once each", () => {
  const refuses = (name: ExtensionInput | undefined): void => assert.throws(() => verify(withExtensions({ name })), { code: "wrong-certificate" })
  refuses(undefined)
  for (const index of [0, 1, 2]) refuses(directoryNameOf(names.filter((_, place) => place !== index)))
  refuses(directoryNameOf([...names, ["2.23.133.2.2", "other"]]))
  const value = (content: Uint8Array): ExtensionInput => ({ oid: "2.5.29.17", critical: true, value: content })
  refuses(value(derElement(tags.sequence, derElement(contextTag(2, "primitive"), Uint8Array.of(0x61)))))
  refuses(value(derElement(tags.sequence)))
  const two = concatBytes(directoryInner(), derElement(contextTag(2, "primitive"), Uint8Array.of(0x61)))
  refuses(value(derElement(tags.sequence, two)))
  verify(withExtensions({ name: directoryNameOf([...names, ["2.5.4.3", "more"]], false) }))
})

/** The directoryName element of the good certificate. */
function directoryInner(): Uint8Array {
  const rdns = names.map(([oid, text]) =>
    derElement(tags.set, derElement(tags.sequence, derOid(oid), derElement(tags.utf8String, new TextEncoder().encode(text)))),
  )
  return derElement(contextTag(4, "constructed"), derElement(tags.sequence, ...rdns))
}

test("verifyEndorsementCertificate() refuses unknown critical extensions", () => {
  const unknown = { oid: "1.2.3.4", critical: true, value: new Uint8Array(0) }
  const certificate = makeCertificate({ ...leafInput, extensions: [...Object.values(extensions), unknown] })
  assert.throws(() => verify(certificate), { code: "wrong-certificate" })
})

test("verifyEndorsementCertificate() shows a manufacturer that is no text as written", () => {
  const shown = (manufacturer: string): string => {
    const changed = names.map(([oid, text]): readonly [string, string] => [oid, oid.endsWith(".1") ? manufacturer : text])
    return verify(withExtensions({ name: directoryNameOf(changed) })).manufacturer
  }
  const asWritten = ["id:00001014", "Vendor", "xid:53544D20", "id:53544D2020", "id:1B53544D", "id:53544D1B"]
  for (const text of asWritten) assert.equal(shown(text), text)
  assert.equal(shown("id:53544D00"), "STM")
})

test("verifyEndorsementCertificate() keeps the roles of endorsement and attestation keys apart", () => {
  const ak = makeEccKey()
  const akKey = { privateKey: ak.privateKey, publicKey: createPublicKey(ak.privateKey) }
  const certificate = (purpose: string, usage: number): Uint8Array =>
    makeCertificate({
      ...leafInput,
      key: akKey,
      extensions: [basicConstraintsOf(false), keyUsageOf(usage), purposesOf(false, purpose), directoryNameOf(names)],
    })
  const attestation = { role: "attestation" } as const
  const evidence = { publicArea: ak.area }
  assert.equal(verify(certificate("2.23.133.8.3", 0x80), attestation, evidence).role, "attestation")
  assert.equal(verify(certificate(endorsementPurpose, 0x80), attestation, evidence).role, "attestation")
  assert.throws(() => verify(certificate("1.2.3", 0x80), attestation, evidence), { code: "wrong-certificate" })
  assert.throws(() => verify(certificate("2.23.133.8.3", 0x20), attestation, evidence), { code: "wrong-certificate" })
  for (const usage of [0xa0, 0x84, 0x82, 0x86])
    assert.throws(() => verify(certificate("2.23.133.8.3", usage), attestation, evidence), { code: "wrong-certificate" })
  assert.throws(() => verify(stored, attestation), { code: "wrong-certificate" })
  assert.throws(() => verify(certificate("2.23.133.8.3", 0x80), {}, evidence), { code: "wrong-certificate" })
})

test("verifyEndorsementCertificate() refuses keys that are too small and takes OAEP keys only when told", () => {
  const small = generateKeyPairSync("rsa", { modulusLength: 1024 })
  const certificate = makeCertificate({ ...leafInput, key: small })
  assert.throws(() => verify(certificate, {}, { publicArea: "not-given" }), { code: "wrong-key" })
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
  const pkcs1 = new Uint8Array(rsa.publicKey.export({ format: "der", type: "pkcs1" }))
  const algorithm = derElement(tags.sequence, derOid("1.2.840.113549.1.1.7"), derElement(tags.sequence))
  const oaep = derElement(tags.sequence, algorithm, derElement(tags.bitString, Uint8Array.of(0), pkcs1))
  const odd = makeCertificate({ ...leafInput, spki: oaep })
  assert.throws(() => verify(odd, {}, { publicArea: "not-given" }), { code: "unsupported" })
  const claims = verify(odd, { quirks: ["oaep-key"] }, { publicArea: "not-given" })
  assert.equal(claims.key, digestOf(new Uint8Array(rsa.publicKey.export({ format: "der", type: "spki" }))))
})

test("verifyEndorsementCertificate() takes SHA-1 below the root only when told, and says so", () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
  const rsaRoot = laboratoryRoot(parseCertificate(makeCertificate({ ...rootInput, key: rsa, issuerKey: rsa })))
  const certificate = makeCertificate({ ...leafInput, issuerKey: rsa, hash: "sha1" })
  assert.throws(() => verify(certificate, { roots: [rsaRoot] }), { code: "weak-algorithm" })
  assert.equal(verify(certificate, { roots: [rsaRoot], insecureAllowSha1: true }).usesSha1, true)
  const weakRoot = laboratoryRoot(parseCertificate(makeCertificate({ ...rootInput, key: rsa, issuerKey: rsa, hash: "sha1" })))
  assert.equal(verify(makeCertificate({ ...leafInput, issuerKey: rsa }), { roots: [weakRoot] }).usesSha1, false)
})

test("parseStoredCertificate() knows the header of TPM 1.2 and padding of one kind, and refuses all else", () => {
  const full = (tag: number, type: number, inner: number, extra = new Uint8Array(0)): Uint8Array =>
    new ByteWriter()
      .u16be(tag)
      .u8(type)
      .u16be(stored.length + 2)
      .u16be(inner)
      .bytes(stored)
      .bytes(extra)
      .take()
  assert.deepEqual(parseStoredCertificate(stored).quirks, [])
  assert.deepEqual(parseStoredCertificate(full(0x1001, 0, 0x1002)).quirks, ["nv-header"])
  assert.deepEqual(parseStoredCertificate(full(0x1001, 0, 0x1002, new Uint8Array(3).fill(0xff))).certificate.der, stored)
  assert.deepEqual(parseStoredCertificate(full(0x1001, 0, 0x1002, new Uint8Array(3))).certificate.der, stored)
  for (const filler of [0x00, 0xff])
    assert.deepEqual(parseStoredCertificate(concatBytes(stored, new Uint8Array(500).fill(filler))).quirks, ["padding"])
  for (const tail of [Uint8Array.of(1), Uint8Array.of(0, 0xff), Uint8Array.of(0xff, 0)])
    assert.throws(() => parseStoredCertificate(concatBytes(stored, tail)), { code: "trailing-bytes" })
  assert.throws(() => parseStoredCertificate(full(0x1003, 0, 0x1002)), { code: "malformed" })
  assert.throws(() => parseStoredCertificate(full(0x1001, 1, 0x1002)), { code: "malformed" })
  assert.throws(() => parseStoredCertificate(full(0x1001, 0, 0x1001)), { code: "malformed" })
  assert.throws(() => parseStoredCertificate(full(0x1001, 0, 0x1002, Uint8Array.of(1))), { code: "malformed" })
  for (let length = 0; length < stored.length; length++)
    assert.throws(() => parseStoredCertificate(stored.slice(0, length)), { code: "truncated" }, `${length}`)
})

test("tpmIdentity() is the record of a machine", () => {
  const endorsement = verifyEndorsementCertificate({ certificate: stored, intermediates: [], publicArea: area }, expectation)
  const ak = makeEccKey().area
  assert.deepEqual(tpmIdentity(endorsement, ak), {
    endorsementKey: digestOf(spki),
    root: certificateFingerprint(root.certificate),
    rootKind: "laboratory",
    description: "STM ST33 id:0001",
    attestationKeyName: tpmNameText(ak),
  })
  assert.throws(() => tpmIdentity(endorsement, { ...ak, attributes: new Set() }), { code: "wrong-key" })
  const claims = endorsement.claims
  assert.match(tpmIdentity(Genuine.afterVerification({ ...claims, isCloud: true }), ak).description, /cloud vTPM/)
  assert.throws(() => tpmIdentity(Genuine.afterVerification({ ...claims, hasPublicArea: false }), ak), TypeError)
  assert.throws(() => tpmIdentity(Genuine.afterVerification({ ...claims, role: "attestation" }), ak), TypeError)
})

test("loadVendorRoots() gives self-signed authorities with the pinned fingerprints", () => {
  const roots = loadVendorRoots()
  assert.equal(roots.length, vendorRootTable.length)
  assert.equal(new Set(roots.map(({ certificate }) => certificateFingerprint(certificate))).size, roots.length)
  for (const { origin, file } of vendorRootTable) assert.match(origin, /^ek-certs\/[a-z0-9-]+$/, file)
  assert.equal(new Set(roots.map(({ name }) => name)).size, roots.length)
  for (const [index, { certificate, name, kind, isCloud }] of roots.entries()) {
    assert.match(name, /^[A-Z]\w+ /)
    assert.equal(certificateFingerprint(certificate), vendorRootTable[index]?.fingerprint, name)
    assert.deepEqual(certificate.issuer, certificate.subject, name)
    const { scheme } = certificate.signatureAlgorithm
    assert.ok(scheme !== undefined && scheme !== "rsassa-sha1", name)
    verifySignature(scheme, certificateKey(certificate), certificate.tbs, certificate.signature)
    assert.equal(basicConstraints(certificate)?.isCa, true, name)
    assert.equal(kind, "vendor")
    assert.equal(isCloud, name.startsWith("Google"))
  }
})

test("vendorRoot() refuses another certificate than the pinned one, several, and none", () => {
  const [one, two] = vendorRootTable
  assert.ok(one !== undefined && two !== undefined)
  const [pem, otherPem] = [one, two].map(({ file }) => readFileSync(join(import.meta.dirname, "roots", file), "utf8"))
  assert.ok(pem !== undefined && otherPem !== undefined)
  assert.equal(vendorRoot(one, pem).name, one.name)
  for (const wrong of [otherPem, `${pem}\n${pem}`, `${pem}\n${otherPem}`]) assert.throws(() => vendorRoot(one, wrong), { message: /^internal: / })
})

// Certificates of real TPMs.

const vectors = process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../../shared/vectors")
const skip = existsSync(vectors) ? false : "skipped: no vectors"

function file(name: string): Uint8Array {
  return new Uint8Array(readFileSync(join(vectors, name)))
}

function certificates(name: string): readonly Certificate[] {
  const bytes = file(name)
  return bytes[0] === tags.sequence ? [parseCertificate(bytes)] : parsePemCertificates(new TextDecoder().decode(bytes))
}

function verifyVector(
  folder: string,
  leaf: Uint8Array,
  intermediates: readonly string[],
  change: Partial<EndorsementExpectation>,
  publicArea: EndorsementEvidence["publicArea"] = "not-given",
): EndorsementClaims {
  const evidence = { certificate: leaf, intermediates: intermediates.flatMap((name) => certificates(`${folder}/${name}`)), publicArea }
  return verifyEndorsementCertificate(evidence, {
    role: "endorsement",
    roots: loadVendorRoots(),
    time: Date.parse("2024-01-01T00:00:00Z"),
    revocationLists: [],
    quirks: [],
    ...change,
  }).claims
}

test("verifyEndorsementCertificate() accepts the STMicroelectronics and Google vectors under the pinned roots", { skip }, () => {
  const rsa = verifyVector("ek-certs/stm-rsa-ff-padding", file("ek-certs/stm-rsa-ff-padding/ek-cert.bin"), ["issuer.pem", "root.pem"], {})
  assert.deepEqual([rsa.manufacturer, rsa.quirks, rsa.rootKind, rsa.isCloud], ["STM", ["padding"], "vendor", false])
  const ecc = verifyVector("ek-certs/stm-ecc", file("ek-certs/stm-ecc/ek-cert.bin"), ["issuer.pem", "root.pem"], {})
  assert.equal(ecc.model, "ST33HTPHAHB4")
  const [gce] = certificates("ek-certs/gce-vtpm-rsa-ek/cert.pem")
  const cloud = verifyVector("ek-certs/gce-vtpm-rsa-ek", gce?.der ?? new Uint8Array(0), ["issuer.pem"], {})
  assert.deepEqual([cloud.manufacturer, cloud.isCloud], ["GOOG", true])
})

test("verifyEndorsementCertificate() accepts the TPM 1.2 certificate only with SHA-1 and its quirks allowed", { skip }, () => {
  const verify12 = (change: Partial<EndorsementExpectation>): EndorsementClaims =>
    verifyVector(
      "ek-certs/stm-tpm12-oaep-7-byte-header",
      file("ek-certs/stm-tpm12-oaep-7-byte-header/ek-cert-nv.bin"),
      ["issuer.der", "stm-root.der"],
      { time: Date.parse("2018-01-01T00:00:00Z"), ...change },
    )
  const claims = verify12({ quirks: ["oaep-key", "no-key-usage"], insecureAllowSha1: true })
  assert.deepEqual(claims.quirks, ["nv-header", "oaep-key", "no-key-usage"])
  assert.equal(claims.usesSha1, true)
  assert.throws(() => verify12({ quirks: ["oaep-key", "no-key-usage"] }), { code: "weak-algorithm" })
  assert.throws(() => verify12({ quirks: ["no-key-usage"], insecureAllowSha1: true }), { code: "unsupported" })
  assert.throws(() => verify12({ quirks: ["oaep-key"], insecureAllowSha1: true }), { code: "unsupported" })
})

test("the Nuvoton vector is read in spite of its name's order, and refused as an endorsement certificate: it is the root itself", { skip }, () => {
  const bytes = file("ek-certs/nuvoton-ecc-non-canonical-der/ek-cert.bin")
  const certificate = parseCertificate(bytes)
  assert.ok(loadVendorRoots().some((pinned) => certificateFingerprint(pinned.certificate) === certificateFingerprint(certificate)))
  assert.throws(() => verifyVector("ek-certs/nuvoton-ecc-non-canonical-der", bytes, [], {}), { code: "wrong-certificate" })
})

test("verifyEndorsementCertificate() accepts Google's attestation key certificate for its key only, and not without its issuer", { skip }, () => {
  const folder = "tpm/gce-cos85-nonce9009"
  const publicArea = parsePublicArea(file(`${folder}/ak.tpmt_public`))
  const verifyAk = (intermediates: readonly string[], given: EndorsementEvidence["publicArea"]): EndorsementClaims =>
    verifyVector(folder, file(`${folder}/ak-cert.der`), intermediates, { role: "attestation" }, given)
  assert.equal(verifyAk(["ek-intermediate.der"], publicArea).hasPublicArea, true)
  assert.throws(() => verifyAk([], publicArea), { code: "wrong-chain" })
  assert.throws(() => verifyAk(["ek-intermediate.der"], makeEccKey().area), { code: "wrong-binding" })
})

test("verifyEndorsementCertificate() accepts swtpm's certificates under a laboratory root only", { skip }, () => {
  const [localCa, rootCa] = certificates("host/ng/lab-ca.pem")
  assert.ok(localCa !== undefined && rootCa !== undefined)
  const publicArea = parseSizedPublicArea(file("host/ng/ek.tpm2b-public"))
  const at = { time: Date.parse("2026-11-23T00:00:00Z") }
  const leaf = file("host/ng/ek-certificate.der")
  const claims = verifyVector("host/ng", leaf, ["lab-ca.pem"], { ...at, roots: [laboratoryRoot(rootCa)] }, publicArea)
  assert.deepEqual([claims.rootKind, claims.root], ["laboratory", certificateFingerprint(rootCa)])
  assert.throws(() => verifyVector("host/ng", leaf, ["lab-ca.pem"], at, publicArea), { code: "wrong-chain" })
})

test("every certificate of the vendor bundle loads", { skip }, () => {
  assert.equal(certificates("ek-certs/ca-bundle-roots/tpm-root-cas.pem").map(certificateKey).length, 26)
})
