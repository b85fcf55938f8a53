import assert from "node:assert/strict"
import { X509Certificate, generateKeyPairSync } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { AmdAuthority, amdName, caExtensions, derByte, makeCertificate, makeRsaKey, serials } from "../../../lab/devices/amd-authority.ts"
import type { AuthorityKnobs, EndorsementKeyOptions, KeyPair, Name } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import type { Patch, ReportFields } from "../../../lab/devices/amd-snp.ts"
import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { parseCertificate } from "../../pki/certificate.ts"
import { parseRevocationList } from "../../pki/crl.ts"
import { derElement, tags } from "../../pki/der.ts"
import { Genuine } from "../genuine.ts"
import { assertRefuses, testBitFlips, testFuzz, testTruncations } from "../testing/parser-laws.ts"
import { amdExtensionIds } from "./endorsements.ts"
import type { SnpEndorsements } from "./endorsements.ts"
import { amdRootTable, loadAmdRoots, pinnedAmdRoot } from "./roots.ts"
import type { SnpClaims } from "./claims.ts"
import { snpProductNames } from "./products.ts"
import { verifySnpReport } from "./verify.ts"
import type { SnpExpectation } from "./verify.ts"

const [arkKey, askKey] = await Promise.all([makeRsaKey(), makeRsaKey()])
const keys = { ark: arkKey, ask: askKey, asvk: askKey }
const reportData = new Uint8Array(64).fill(0x5e)
const time = Date.parse("2025-06-01T00:00:00Z")
const milan = new SnpDevice(new AmdAuthority("Milan", keys))
const genoa = new SnpDevice(new AmdAuthority("Genoa", keys))
const turin = new SnpDevice(new AmdAuthority("Turin", keys))
const devices = { Milan: milan, Genoa: genoa, Turin: turin }
const allRoots = [milan.root, genoa.root, turin.root]
const expectation: SnpExpectation = { reportData, roots: allRoots, time }
const vcek = milan.endorsements()

function verify(report: Uint8Array, endorsements: SnpEndorsements, change: Partial<SnpExpectation> = {}): SnpClaims {
  const genuine = verifySnpReport({ report, endorsements }, { ...expectation, ...change })
  assert.ok(genuine instanceof Genuine)
  return genuine.claims
}

function refuses(code: string, report: Uint8Array, endorsements: SnpEndorsements, change: Partial<SnpExpectation> = {}): void {
  assert.throws(() => verifySnpReport({ report, endorsements }, { ...expectation, ...change }), { name: /^(Evidence|Malformed)Error$/, code })
}

/** A report of `device` with this report data. */
function reportOf(device: SnpDevice, change: Partial<ReportFields> = {}, ...patches: readonly Patch[]): Uint8Array {
  return device.report({ reportData, ...change }, ...patches)
}

const good = reportOf(milan)

for (const product of snpProductNames) {
  for (const version of [2, 3, 4, 5] as const) {
    test(`verifySnpReport() accepts version ${version} of a ${product}, signed with VCEK or VLEK`, () => {
      const device = devices[product]
      const claims = verify(reportOf(device, { version }), device.endorsements())
      assert.equal(claims.product, product)
      assert.equal(claims.reportVersion, version)
      assert.equal(claims.signingKey, "vcek")
      assert.equal(claims.chipId, encodeHex(device.chipId))
      assert.equal(claims.cspId, undefined)
      assert.deepEqual(claims.tcb, { reported: device.tcb, committed: device.tcb, current: device.tcb, launch: device.tcb })
      const vlek = verify(reportOf(device, { version, signingKey: "vlek", chipId: new Uint8Array(64) }), device.endorsements("vlek"))
      assert.equal(vlek.signingKey, "vlek")
      assert.equal(vlek.chipId, undefined)
      assert.equal(vlek.cspId, "CN=laboratory.example")
    })
  }
}

test("verifySnpReport() states everything else as a claim", () => {
  const change: Partial<ReportFields> = {
    guestSvn: 7,
    vmpl: 2,
    policy: { ...milan.fields().policy, debug: true, migrateMa: true, abiMajor: 1, abiMinor: 51 },
    platformInfo: { ...milan.fields().platformInfo, tsmeEn: true },
    familyId: new Uint8Array(16).fill(0xfa),
    imageId: new Uint8Array(16).fill(0x1a),
    hostData: new Uint8Array(32).fill(0x40),
    idKeyDigest: new Uint8Array(48).fill(0x1d),
    authorKeyEn: true,
    authorKeyDigest: new Uint8Array(48).fill(0xa0),
    reportIdMa: new Uint8Array(32).fill(0x3a),
    mitigations: { launch: 1n, current: 2n },
  }
  const claims = verify(reportOf(milan, change), vcek)
  const { tcb: _tcb, endorsement, ...rest } = claims
  assert.deepEqual(rest, {
    kind: "snp",
    isReportDataChecked: true,
    reportVersion: 5,
    product: "Milan",
    cpu: { family: 0x19, model: 1, stepping: 1 },
    signingKey: "vcek",
    cspId: undefined,
    chipId: encodeHex(milan.chipId),
    maskChipKey: false,
    reportData: "5e".repeat(64),
    measurement: "4d".repeat(48),
    hostData: "40".repeat(32),
    vmpl: 2,
    policy: change.policy,
    guestSvn: 7,
    familyId: "fa".repeat(16),
    imageId: "1a".repeat(16),
    idKeyDigest: "1d".repeat(48),
    authorKeyDigest: "a0".repeat(48),
    reportId: "1d".repeat(32),
    migrationAgent: "3a".repeat(32),
    platform: change.platformInfo,
    launchedOnReportedTcb: true,
    firmware: { current: { major: 1, minor: 55, build: 29 }, committed: { major: 1, minor: 55, build: 29 } },
    isFirmwareProvisional: false,
    mitigations: { launch: 1n, current: 2n },
  })
  assert.equal(endorsement.rootKind, "laboratory")
  assert.match(endorsement.rootName, /^INSECURE LABORATORY sha256:/)
  assert.equal(endorsement.isRevocationChecked, true)
  assert.equal(endorsement.validUntil, Date.parse("2025-12-01T00:00:00Z"))
})

test("verifySnpReport() gives no identity block, author key or migration agent where there is none", () => {
  const claims = verify(good, vcek)
  assert.deepEqual([claims.idKeyDigest, claims.authorKeyDigest, claims.migrationAgent], [undefined, undefined, undefined])
  assert.deepEqual(verify(reportOf(milan, { version: 3 }), vcek).mitigations, undefined)
  assert.deepEqual(verify(reportOf(milan, { version: 2 }), vcek).cpu, undefined)
})

test("verifySnpReport() takes a migration agent's identifier for what it is, unless all of it is 0xff", () => {
  const reportIdMa = new Uint8Array(32).fill(0xff)
  reportIdMa[31] = 0
  assert.equal(verify(reportOf(milan, { reportIdMa }), vcek).migrationAgent, `${"ff".repeat(31)}00`)
})

test("verifySnpReport() reads patch levels from 0 to 255", () => {
  for (const snp of [0, 127, 128, 255]) {
    const tcb = { ...milan.tcb, snp }
    const version = milan.encodeTcb(tcb)
    const report = reportOf(milan, { reportedTcb: version, committedTcb: version, currentTcb: version, launchTcb: version })
    assert.equal(verify(report, milan.endorsements("vcek", { tcb })).tcb.reported.snp, snp)
  }
})

test("verifySnpReport() compares the report data exactly, and states them where the caller judges them", () => {
  const other = Uint8Array.from(reportData)
  other[63] = 0
  refuses("wrong-nonce", good, vcek, { reportData: other })
  const unchecked = verify(good, vcek, { reportData: "as-signed" })
  assert.deepEqual([unchecked.reportData, unchecked.isReportDataChecked], [encodeHex(reportData), false])
  for (const length of [0, 32, 63, 65])
    assert.throws(() => verifySnpReport({ report: good, endorsements: vcek }, { ...expectation, reportData: new Uint8Array(length) }), TypeError)
})

testBitFlips("verifySnpReport() over the report", good, (report) => verify(report, vcek))

testTruncations("verifySnpReport() over the report", good, (report) => verify(report, vcek))
testFuzz("verifySnpReport() over the report", [good], (report) => verify(report, vcek), 1000)
testFuzz("verifySnpReport() over the VCEK's certificate", [vcek.signer.der], (der) => verify(good, { ...vcek, signer: parseCertificate(der) }), 1000)

test("verifySnpReport() refuses every flipped bit of the VCEK's certificate", () => {
  const { der } = vcek.signer
  for (let bit = 0; bit < der.length * 8; bit++) {
    const flipped = Uint8Array.from(der)
    const at = Math.floor(bit / 8)
    flipped[at] = (flipped[at] ?? 0) ^ (1 << (bit % 8))
    assertRefuses(() => verify(good, { ...vcek, signer: parseCertificate(flipped) }), `bit ${bit}`)
  }
})

test("verifySnpReport() refuses a report by another key, and one that is not signed", () => {
  const stranger = new SnpDevice(milan.authority)
  refuses("wrong-signature", reportOf(stranger), vcek)
  refuses("wrong-key", reportOf(milan, { signingKey: "none" }), vcek)
})

// Product and chip.

test("verifySnpReport() takes a report that names its processor under the root of that product only", () => {
  const cpu = { family: 0x19, model: 0x11, stepping: 0 }
  refuses("wrong-chain", reportOf(milan, { cpu }), vcek)
  refuses("unsupported", reportOf(milan, { cpu: { ...cpu, family: 0x17 } }), vcek)
  refuses("wrong-chain", good, vcek, { roots: [genoa.root, turin.root] })
  refuses("wrong-chain", reportOf(milan, { version: 2 }), vcek, { roots: [genoa.root, turin.root] })
  refuses("wrong-chain", good, vcek, { roots: [] })
})

test("verifySnpReport() holds CHIP_ID against the VCEK's HWID in both forms", () => {
  for (const [product, size] of [
    ["Milan", 64],
    ["Turin", 8],
  ] as const) {
    const device = devices[product]
    const value = device.chipId.subarray(0, size)
    for (const form of ["bare", "wrapped"] as const) {
      verify(reportOf(device), device.endorsements("vcek", { hwId: { value, form } }))
      const other = Uint8Array.from(value)
      other[size - 1] = (other[size - 1] ?? 0) ^ 1
      refuses("wrong-binding", reportOf(device), device.endorsements("vcek", { hwId: { value: other, form } }))
      const long = new Uint8Array(size + 1)
      refuses(form === "bare" ? "malformed" : "wrong-certificate", reportOf(device), device.endorsements("vcek", { hwId: { value: long, form } }))
    }
  }
})

test("verifySnpReport() refuses a masked or too long CHIP_ID under a VCEK, and a key masked by the host", () => {
  refuses("wrong-binding", reportOf(milan, { chipId: new Uint8Array(64) }), vcek)
  const zeros = milan.endorsements("vcek", { hwId: { value: new Uint8Array(64), form: "bare" } })
  refuses("wrong-binding", reportOf(milan, { chipId: new Uint8Array(64) }), zeros)
  const long = Uint8Array.from(turin.chipId)
  long[8] = 1
  refuses("wrong-binding", reportOf(turin, { chipId: long }), turin.endorsements())
  refuses("contradiction", reportOf(milan, { maskChipKey: true }), vcek)
  assert.equal(verify(reportOf(milan, { signingKey: "vlek", maskChipKey: true }), milan.endorsements("vlek")).maskChipKey, true)
})

test("verifySnpReport() takes the kind of signing key from the report", () => {
  refuses("wrong-certificate", good, milan.endorsements("vlek"))
  refuses("wrong-certificate", reportOf(milan, { signingKey: "vlek" }), vcek)
})

// Patch levels.

test("verifySnpReport() wants each patch level of the certificate to be the reported one", () => {
  for (const device of [milan, turin]) {
    for (const component of Object.keys(device.tcb) as (keyof typeof device.tcb)[]) {
      for (const step of [1, -1]) {
        const tcb = { ...device.tcb, [component]: Math.max(0, (device.tcb[component] ?? 0) + step) }
        if (tcb[component] === device.tcb[component]) continue
        refuses("wrong-binding", reportOf(device), device.endorsements("vcek", { tcb }))
      }
    }
  }
})

test("verifySnpReport() holds reported ≤ committed ≤ current in each component, and states the rest", () => {
  const { tcb } = milan
  for (const component of ["bootLoader", "snp", "microcode"] as const) {
    const higher = milan.encodeTcb({ ...tcb, [component]: (tcb[component] ?? 0) + 1 })
    const lower = milan.encodeTcb({ ...tcb, [component]: (tcb[component] ?? 0) - 1 })
    refuses("contradiction", reportOf(milan, { committedTcb: lower }), vcek)
    refuses("contradiction", reportOf(milan, { currentTcb: lower }), vcek)
    refuses("contradiction", reportOf(milan, { committedTcb: higher }), vcek)
    assert.equal(verify(reportOf(milan, { currentTcb: higher }), vcek).isFirmwareProvisional, true)
    assert.equal(verify(reportOf(milan, { committedTcb: higher, currentTcb: higher }), vcek).isFirmwareProvisional, false)
    assert.equal(verify(reportOf(milan, { launchTcb: lower }), vcek).launchedOnReportedTcb, false)
    assert.equal(verify(reportOf(milan, { launchTcb: higher }), vcek).launchedOnReportedTcb, true)
  }
})

test("verifySnpReport() refuses reserved bytes in any TCB_VERSION", () => {
  for (const field of ["reportedTcb", "committedTcb", "currentTcb", "launchTcb"] as const) {
    const tcb = milan.encodeTcb(milan.tcb)
    tcb[3] = 1
    refuses("malformed", reportOf(milan, { [field]: tcb }), vcek)
  }
})

test("verifySnpReport() refuses firmware below the committed one and states firmware on trial", () => {
  const firmware = { major: 1, minor: 55, build: 29 }
  for (const change of [{ build: 28 }, { minor: 54, build: 200 }, { major: 0, minor: 200, build: 200 }])
    refuses("contradiction", reportOf(milan, { currentFirmware: { ...firmware, ...change } }), vcek)
  for (const change of [{ build: 30 }, { minor: 56, build: 0 }, { major: 2, minor: 0, build: 0 }])
    assert.equal(verify(reportOf(milan, { currentFirmware: { ...firmware, ...change } }), vcek).isFirmwareProvisional, true)
})

test("verifySnpReport() refuses an author's digest without an author's key", () => {
  refuses("contradiction", reportOf(milan, { authorKeyDigest: new Uint8Array(48).fill(1) }), vcek)
})

test("verifySnpReport() holds a stated patch level against the report", () => {
  const statedTcb = milan.encodeTcb(milan.tcb)
  verify(good, { ...vcek, statedTcb })
  refuses("wrong-binding", good, { ...vcek, statedTcb: milan.encodeTcb({ ...milan.tcb, snp: 1 }) })
})

// Certificates.

function withVcek(knobs: Partial<EndorsementKeyOptions>): SnpEndorsements {
  return milan.endorsements("vcek", knobs)
}

/** The same device under an authority with other certificates. */
function withAuthority(
  knobs: AuthorityKnobs,
  authorityKeys = keys,
): { readonly endorsements: SnpEndorsements; readonly roots: SnpExpectation["roots"]; readonly report: Uint8Array } {
  const device = new SnpDevice(new AmdAuthority("Milan", authorityKeys, knobs))
  return { endorsements: device.endorsements(), roots: [device.root], report: reportOf(device) }
}

function authorityRefuses(code: string, knobs: AuthorityKnobs, authorityKeys = keys): void {
  const { endorsements, roots, report } = withAuthority(knobs, authorityKeys)
  refuses(code, report, endorsements, { roots })
}

test("verifySnpReport() refuses a VCEK that the ASK did not sign", () => {
  refuses("wrong-signature", good, withVcek({ certificate: { issuerKey: keys.ark.privateKey } }))
})

test("verifySnpReport() refuses a chain without its ASK, under another root, or longer than three", () => {
  refuses("wrong-chain", good, { ...vcek, intermediates: [] })
  verify(good, { ...vcek, intermediates: [parseCertificate(milan.authority.ark), ...vcek.intermediates] })
  const other = new AmdAuthority("Milan", { ...keys, ark: keys.ask }, { ark: { serial: 9 } })
  refuses("wrong-signature", good, vcek, { roots: [{ ...milan.root, certificate: parseCertificate(other.ark) }] })
  const name = amdName("SEV-Milan")
  const middle = makeCertificate({
    subject: amdName("SEV-Milan-2"),
    issuer: name,
    publicKey: keys.ask.publicKey,
    issuerKey: keys.ask.privateKey,
    serial: 5,
    extensions: caExtensions(0x04),
  })
  const deep = new SnpDevice(new AmdAuthority("Milan", keys, { ask: { extensions: caExtensions(0x04) } }))
  const long = deep.endorsements("vcek", { certificate: { issuer: amdName("SEV-Milan-2") } })
  refuses("wrong-chain", reportOf(deep), { ...long, intermediates: [...long.intermediates, parseCertificate(middle)] })
  const direct = withVcek({ certificate: { issuer: amdName("ARK-Milan"), issuerKey: keys.ark.privateKey } })
  refuses("wrong-chain", good, direct)
})

test("verifySnpReport() refuses more certificates and lists than AMD's hierarchy has", () => {
  const [ask] = vcek.intermediates
  const [list] = vcek.revocationLists
  if (ask === undefined || list === undefined) throw new Error("no endorsements")
  verify(good, { ...vcek, intermediates: [ask, ask, ask, ask], revocationLists: [list, list] })
  refuses("wrong-chain", good, { ...vcek, intermediates: [ask, ask, ask, ask, ask] })
  refuses("wrong-chain", good, { ...vcek, revocationLists: [list, list, list] })
})

test("verifySnpReport() judges the dates of every certificate", () => {
  const late = { notBefore: "2025-07-01T00:00:00Z" }
  const early = { notAfter: "2025-05-01T00:00:00Z" }
  for (const dates of [late, early]) {
    refuses("expired", good, withVcek({ certificate: dates }))
    authorityRefuses("expired", { ask: dates })
    authorityRefuses("expired", { ark: dates })
  }
  const vlek = milan.endorsements("vlek")
  const report = reportOf(milan, { signingKey: "vlek" })
  assert.equal(verify(report, { ...vlek, revocationLists: [] }).endorsement.validUntil, Date.parse("2026-01-01T00:00:00Z"))
  refuses("expired", report, { ...vlek, revocationLists: [] }, { time: Date.parse("2026-01-01T00:00:01Z") })
})

const otherNames: readonly (readonly [string, Name])[] = [
  ["another common name", amdName("SEV-VCEX")],
  ["another organisation", amdName("SEV-VCEK").map(([oid, value]) => [oid, oid === "2.5.4.10" ? "Advanced Micro Device" : value])],
  [
    "values of each other's attributes",
    amdName("SEV-VCEK").map(([oid, value]) => [oid === "2.5.4.7" ? "2.5.4.10" : oid === "2.5.4.10" ? "2.5.4.7" : oid, value]),
  ],
  ["an attribute left out", amdName("SEV-VCEK").filter(([oid]) => oid !== "2.5.4.11")],
  ["an attribute twice", [...amdName("SEV-VCEK"), ["2.5.4.11", "Engineering"]]],
  ["another attribute", [...amdName("SEV-VCEK"), ["2.5.4.5", "1"]]],
]

for (const [what, subject] of otherNames) {
  test(`verifySnpReport() refuses a VCEK's name with ${what}`, () => {
    refuses("wrong-certificate", good, withVcek({ certificate: { subject } }))
  })
}

test("verifySnpReport() takes the attributes of a name in any order", () => {
  verify(good, withVcek({ certificate: { subject: amdName("SEV-VCEK").toReversed() } }))
})

test("verifySnpReport() refuses an ASK and an ARK of another name, and a VCEK under the ASVK", () => {
  const named = (knobs: AuthorityKnobs, certificate: Partial<EndorsementKeyOptions>["certificate"]): void => {
    const device = new SnpDevice(new AmdAuthority("Milan", keys, knobs))
    refuses("wrong-certificate", reportOf(device), device.endorsements("vcek", { ...(certificate === undefined ? {} : { certificate }) }, []), {
      roots: [device.root],
    })
  }
  named({ ask: { subject: amdName("SEV-Genoa") } }, { issuer: amdName("SEV-Genoa") })
  named({ ark: { subject: amdName("ARK-Genoa") }, ask: { issuer: amdName("ARK-Genoa") } }, undefined)
  const underAsvk = withVcek({ certificate: { issuer: amdName("SEV-VLEK-Milan") } })
  refuses("wrong-certificate", good, { ...underAsvk, intermediates: [parseCertificate(milan.authority.asvk)] })
})

test("verifySnpReport() wants ARK and ASK to be authorities that may sign certificates, within the path length", () => {
  for (const place of ["ark", "ask"] as const) {
    authorityRefuses("wrong-certificate", { [place]: { extensions: [] } })
    authorityRefuses("wrong-certificate", { [place]: { extensions: caExtensions(0x06, undefined, false) } })
    authorityRefuses("wrong-certificate", { [place]: { extensions: caExtensions(0x02) } })
  }
  authorityRefuses("wrong-certificate", { ark: { extensions: caExtensions(0x06, 0) } })
})

test("verifySnpReport() refuses a signing key that may certify, or may not sign", () => {
  verify(good, withVcek({ more: [...caExtensions(0x80, undefined, false)] }))
  refuses("wrong-certificate", good, withVcek({ more: [...caExtensions(0x80)] }))
  for (const usage of [0x04, 0x84, 0x82, 0x20]) refuses("wrong-certificate", good, withVcek({ more: caExtensions(usage, undefined, false) }))
})

test("verifySnpReport() takes RSA-PSS with SHA-384 and a salt of 48 bytes only", () => {
  refuses("weak-algorithm", good, withVcek({ certificate: { hash: "sha256", saltLength: 32 } }))
  refuses("weak-algorithm", good, withVcek({ certificate: { saltLength: 32 } }))
  authorityRefuses("weak-algorithm", { ask: { hash: "sha256", saltLength: 32 } })
  authorityRefuses("weak-algorithm", { ark: { hash: "sha256", saltLength: 32 } })
})

test("verifySnpReport() takes RSA keys of 4096 bits above and a key on P-384 below", async () => {
  const small = await makeRsaKey(3072)
  authorityRefuses("wrong-key", {}, { ...keys, ask: small })
  authorityRefuses("wrong-key", {}, { ...keys, ark: small })
  for (const key of [generateKeyPairSync("ec", { namedCurve: "P-256" }), generateKeyPairSync("ec", { namedCurve: "P-521" })] satisfies KeyPair[]) {
    const device = new SnpDevice(milan.authority, { key })
    refuses("wrong-key", good, device.endorsements())
  }
  refuses("wrong-key", good, withVcek({ publicKey: keys.ask.publicKey }))
})

const text = (value: string): Uint8Array => derElement(tags.ia5String, encodeUtf8(value))
const level = (number: number): string => `${amdExtensionIds.levels}.${number}`

const wrongExtensions: readonly (readonly [what: string, code: string, knobs: Partial<EndorsementKeyOptions>])[] = [
  ["no structVersion", "wrong-certificate", { replace: { [amdExtensionIds.structVersion]: undefined } }],
  ["another structVersion", "wrong-certificate", { structVersion: 1 }],
  ["no product", "wrong-certificate", { replace: { [amdExtensionIds.productName]: undefined } }],
  ["another product", "wrong-certificate", { productName: "Genoa-B0" }],
  ["a product that only begins alike", "wrong-certificate", { productName: "Milan2-B0" }],
  ["a product in another string type", "malformed", { replace: { [amdExtensionIds.productName]: derElement(tags.utf8String, encodeUtf8("Milan")) } }],
  ["no HWID", "wrong-certificate", { replace: { [amdExtensionIds.hwId]: undefined } }],
  ["a CSP_ID", "wrong-certificate", { more: [{ oid: amdExtensionIds.cspId, value: text("CN=x") }] }],
  ["an unknown extension of AMD", "wrong-certificate", { more: [{ oid: "1.3.6.1.4.1.3704.1.6", value: derByte(0) }] }],
  ["the FMC of a Turin", "wrong-certificate", { more: [{ oid: level(9), value: derByte(0) }] }],
  ["an unknown critical extension", "wrong-certificate", { more: [{ oid: "1.2.3", critical: true, value: derByte(0) }] }],
  ...[1, 2, 3, 4, 5, 6, 7, 8].map(
    (number) => [`no patch level ${number}`, "wrong-certificate", { replace: { [level(number)]: undefined } }] as const,
  ),
  ...[4, 5, 6, 7].map((number) => [`reserved patch level ${number}`, "wrong-certificate", { replace: { [level(number)]: derByte(1) } }] as const),
  ["a patch level not in shortest form", "malformed", { replace: { [level(1)]: derElement(tags.integer, Uint8Array.of(0, 4)) } }],
  ["a negative patch level", "malformed", { replace: { [level(1)]: derElement(tags.integer, Uint8Array.of(0x84)) } }],
  ["the least negative patch level of one byte", "malformed", { replace: { [level(1)]: derElement(tags.integer, Uint8Array.of(0x80)) } }],
  ["a patch level of three bytes", "malformed", { replace: { [level(1)]: derElement(tags.integer, Uint8Array.of(0, 0x80, 0)) } }],
  ["a patch level of 384", "malformed", { replace: { [level(1)]: derElement(tags.integer, Uint8Array.of(1, 0x80)) } }],
  ["a patch level without a byte", "malformed", { replace: { [level(1)]: derElement(tags.integer, new Uint8Array(0)) } }],
  ["a patch level of two bytes", "malformed", { replace: { [level(1)]: derElement(tags.integer, Uint8Array.of(1, 4)) } }],
  ["a patch level with bytes behind", "trailing-bytes", { replace: { [level(1)]: Uint8Array.of(2, 1, 4, 0) } }],
]

for (const [what, code, knobs] of wrongExtensions) {
  test(`verifySnpReport() refuses a VCEK with ${what}`, () => {
    refuses(code, good, withVcek(knobs))
  })
}

test("verifySnpReport() takes a product name without stepping, and unknown extensions that are neither AMD's nor critical", () => {
  verify(good, withVcek({ productName: "Milan", more: [{ oid: "1.2.3", value: derByte(0) }] }))
})

test("verifySnpReport() refuses a VLEK with an HWID, or without its provider", () => {
  const report = reportOf(milan, { signingKey: "vlek" })
  refuses("wrong-certificate", report, milan.endorsements("vlek", { more: [{ oid: amdExtensionIds.hwId, value: milan.chipId }] }))
  refuses("wrong-certificate", report, milan.endorsements("vlek", { replace: { [amdExtensionIds.cspId]: undefined } }))
})

test("verifySnpReport() refuses a Turin's VCEK without FMC, or with the fourth level", () => {
  refuses("wrong-certificate", reportOf(turin), turin.endorsements("vcek", { replace: { [level(9)]: undefined } }))
  refuses("wrong-certificate", reportOf(turin), turin.endorsements("vcek", { more: [{ oid: level(4), value: derByte(0) }] }))
})

// Revocation.

function withList(knobs: Parameters<AmdAuthority["revocationList"]>[0]): SnpEndorsements {
  return milan.endorsements("vcek", {}, [milan.authority.revocationList(knobs)])
}

test("verifySnpReport() refuses what the ARK revoked, the ARK included", () => {
  verify(good, withList({ serials: [serials.asvk] }))
  refuses("revoked", good, withList({ serials: [7, serials.ask] }))
  refuses("revoked", good, withList({ serials: [serials.ark] }))
  const vlek = { ...milan.endorsements("vlek"), revocationLists: withList({ serials: [serials.asvk] }).revocationLists }
  refuses("revoked", reportOf(milan, { signingKey: "vlek" }), vlek)
})

test("verifySnpReport() refuses a revocation list that is out of date, unsigned, or of another", () => {
  verify(good, withList({ thisUpdate: "2025-06-01T00:00:00Z", nextUpdate: "2025-06-01T00:00:00Z" }))
  refuses("expired", good, withList({ thisUpdate: "2025-06-01T00:00:01Z" }))
  refuses("expired", good, withList({ nextUpdate: "2025-05-31T23:59:59Z" }))
  refuses("wrong-signature", good, withList({ issuerKey: keys.ask.privateKey }))
  refuses("wrong-certificate", good, withList({ issuer: amdName("ARK-Genoa") }))
  const { endorsements, roots, report } = withAuthority({ ark: { extensions: caExtensions(0x04) } })
  refuses("wrong-certificate", report, endorsements, { roots })
})

test("verifySnpReport() refuses every flipped bit of a revocation list", () => {
  const list = milan.authority.revocationList({ serials: [7] })
  for (let bit = 0; bit < list.length * 8; bit += 7) {
    const flipped = Uint8Array.from(list)
    const at = Math.floor(bit / 8)
    flipped[at] = (flipped[at] ?? 0) ^ (1 << (bit % 8))
    assertRefuses(() => verify(good, { ...vcek, revocationLists: [parseRevocationList(flipped)] }), `bit ${bit}`)
  }
})

test("verifySnpReport() says when revocation was not checked", () => {
  const claims = verify(good, { ...vcek, revocationLists: [] })
  assert.equal(claims.endorsement.isRevocationChecked, false)
  assert.equal(claims.endorsement.validUntil, Date.parse("2031-01-01T00:00:00Z"))
})

test("the pinned roots are AMD's, self-signed, one a product, and not of a laboratory", () => {
  const roots = loadAmdRoots()
  assert.deepEqual(roots.map(({ product }) => product), ["Milan", "Genoa", "Turin"]) // prettier-ignore
  for (const { certificate, kind, product } of roots) {
    assert.equal(kind, "vendor")
    assert.deepEqual(certificate.issuer, certificate.subject)
    const x509 = new X509Certificate(certificate.der)
    assert.equal(x509.verify(x509.publicKey), true, product)
  }
  refuses("wrong-chain", good, vcek, { roots: loadAmdRoots().filter(({ product }) => product !== "Milan") })
  refuses("wrong-signature", good, vcek, { roots: loadAmdRoots() })
})

test("pinnedAmdRoot() refuses another certificate than the pinned one, several, and none", () => {
  const [milan, genoa] = amdRootTable
  assert.ok(milan !== undefined && genoa !== undefined)
  const [text, other] = [milan, genoa].map(({ file }) => readFileSync(join(import.meta.dirname, "roots", file), "utf8"))
  assert.ok(text !== undefined && other !== undefined)
  assert.equal(pinnedAmdRoot(milan, text).name, "AMD ARK-Milan")
  for (const wrong of [other, `${text}\n${text}`, `${text}\n${other}`, ""])
    assert.throws(() => pinnedAmdRoot(milan, wrong), { message: /^internal: / })
})
