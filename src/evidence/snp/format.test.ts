import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { existsSync, readFileSync, readdirSync } from "node:fs"
import { join, resolve } from "node:path"
import { test } from "node:test"
import { AmdAuthority } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import type { Patch, ReportFields } from "../../../lab/devices/amd-snp.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import { encodeSignedSnpReport, encodeSnpReport, parseSnpReport } from "./format.ts"
import type { SnpReportVersion } from "./format.ts"
import { productOfCpu, tcbOf } from "./products.ts"

// Nothing here looks at certificates: small keys do.
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const device = new SnpDevice(new AmdAuthority("Milan", { ark: rsa, ask: rsa, asvk: rsa }))
const versions: readonly SnpReportVersion[] = [2, 3, 4, 5]

testParserLaws({
  name: "parseSnpReport",
  parse: parseSnpReport,
  encode: (report) => encodeSnpReport({ signedBytes: encodeSignedSnpReport(report), signature: report.signature }),
  samples: versions.map((version) => device.report({ version })),
  fuzzRuns: 10_000,
})

/** Every field at a value of its own, so that two that are swapped do not pass. */
const distinct = (version: SnpReportVersion): ReportFields => ({
  ...device.fields(version),
  guestSvn: 0x01020304,
  familyId: new Uint8Array(16).fill(1),
  imageId: new Uint8Array(16).fill(2),
  vmpl: 2,
  currentTcb: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
  authorKeyEn: true,
  maskChipKey: true,
  signingKey: "vlek",
  reportData: new Uint8Array(64).fill(3),
  measurement: new Uint8Array(48).fill(4),
  hostData: new Uint8Array(32).fill(5),
  idKeyDigest: new Uint8Array(48).fill(6),
  authorKeyDigest: new Uint8Array(48).fill(7),
  reportId: new Uint8Array(32).fill(8),
  reportIdMa: new Uint8Array(32).fill(9),
  reportedTcb: new Uint8Array(8).fill(10),
  ...(version === 2 ? {} : { cpu: { family: 0x19, model: 0x12, stepping: 3 } }),
  chipId: new Uint8Array(64).fill(11),
  committedTcb: new Uint8Array(8).fill(12),
  currentFirmware: { major: 1, minor: 2, build: 3 },
  committedFirmware: { major: 4, minor: 5, build: 6 },
  launchTcb: new Uint8Array(8).fill(13),
  ...(version < 4 ? {} : { mitigations: { launch: 0x0102030405060708n, current: 0x1112131415161718n } }),
})

for (const version of versions) {
  test(`parseSnpReport() gives every field of version ${version}`, () => {
    const fields = distinct(version)
    const { signedBytes, signature, ...parsed } = parseSnpReport(device.report(fields))
    assert.deepEqual(parsed, fields)
    assert.equal(signedBytes.length, 672)
    assert.equal(signature.length, 96)
  })
}

const flags = {
  policy: [
    ["smt", 0x0a, 0x01],
    ["migrateMa", 0x0a, 0x04],
    ["debug", 0x0a, 0x08],
    ["singleSocket", 0x0a, 0x10],
    ["cxlAllow", 0x0a, 0x20],
    ["memAes256Xts", 0x0a, 0x40],
    ["raplDis", 0x0a, 0x80],
    ["ciphertextHidingDram", 0x0b, 0x01],
    ["pageSwapDisable", 0x0b, 0x02],
  ],
  platformInfo: [
    ["smtEn", 0x40, 0x01],
    ["tsmeEn", 0x40, 0x02],
    ["eccEn", 0x40, 0x04],
    ["raplDis", 0x40, 0x08],
    ["ciphertextHidingDramEn", 0x40, 0x10],
    ["aliasCheckComplete", 0x40, 0x20],
    ["iommuWriteSafe", 0x40, 0x40],
    ["tioEn", 0x40, 0x80],
  ],
} as const

test("parseSnpReport() reads each bit of POLICY and PLATFORM_INFO by its name", () => {
  for (const [field, rows] of Object.entries(flags)) {
    for (const [name, at, bit] of rows) {
      // Bit 17 of the policy, at 0x0a, is always one.
      const clear = field === "policy" ? [0x0a, 0x0b].map((offset) => ({ at: offset, bytes: [offset === 0x0a ? 2 : 0] })) : [{ at: 0x40, bytes: [0] }]
      const set: Patch = { at, bytes: [bit | (at === 0x0a ? 2 : 0)] }
      const found: object = parseSnpReport(device.report({}, ...clear, set))[field as keyof typeof flags]
      const bits = Object.entries(found).filter(([, value]) => value === true)
      assert.deepEqual(bits, [[name, true]])
    }
  }
})

test("parseSnpReport() reads the ABI version of the policy", () => {
  const { policy } = parseSnpReport(device.report({}, { at: 0x08, bytes: [7, 3] }))
  assert.deepEqual([policy.abiMajor, policy.abiMinor], [3, 7])
})

/** What is not zero, though it must be, by offset; 2 and 3 say which versions. */
const refused: readonly (readonly [what: string, patch: Patch, code: string, path: string, versions: readonly SnpReportVersion[]])[] = [
  ["version 1", { at: 0x00, bytes: [1] }, "unsupported", "VERSION", versions],
  ["version 6", { at: 0x00, bytes: [6] }, "unsupported", "VERSION", versions],
  ["version 0x10002", { at: 0x00, bytes: [2, 0, 1] }, "unsupported", "VERSION", [2]],
  ["a clear bit 17 of POLICY", { at: 0x0a, bytes: [1] }, "malformed", "POLICY", versions],
  ["bit 26 of POLICY", { at: 0x0b, bytes: [4] }, "malformed", "POLICY", versions],
  ["bit 63 of POLICY", { at: 0x0f, bytes: [0x80] }, "malformed", "POLICY", versions],
  ["privilege level 4", { at: 0x30, bytes: [4] }, "malformed", "VMPL", versions],
  ["privilege level 0x01000000", { at: 0x33, bytes: [1] }, "malformed", "VMPL", versions],
  ["a report of the host", { at: 0x30, bytes: [0xff, 0xff, 0xff, 0xff] }, "unsupported", "VMPL", versions],
  ["signature algorithm 0", { at: 0x34, bytes: [0] }, "weak-algorithm", "SIGNATURE_ALGO", versions],
  ["signature algorithm 2", { at: 0x34, bytes: [2] }, "weak-algorithm", "SIGNATURE_ALGO", versions],
  ["bit 8 of PLATFORM_INFO", { at: 0x41, bytes: [1] }, "malformed", "PLATFORM_INFO", versions],
  ["bit 63 of PLATFORM_INFO", { at: 0x47, bytes: [0x80] }, "malformed", "PLATFORM_INFO", versions],
  ["signing key 2", { at: 0x48, bytes: [2 << 2] }, "malformed", "KEY_INFO", versions],
  ["signing key 6", { at: 0x48, bytes: [6 << 2] }, "malformed", "KEY_INFO", versions],
  ["bit 5 of KEY_INFO", { at: 0x48, bytes: [0x20] }, "malformed", "KEY_INFO", versions],
  ["bit 31 of KEY_INFO", { at: 0x4b, bytes: [0x80] }, "malformed", "KEY_INFO", versions],
  ["reserved byte 0x4c", { at: 0x4c, bytes: [1] }, "malformed", "reserved at 0x04c", versions],
  ["reserved byte 0x4f", { at: 0x4f, bytes: [1] }, "malformed", "reserved at 0x04c", versions],
  ["a processor in version 2", { at: 0x188, bytes: [0x19] }, "malformed", "reserved behind REPORTED_TCB", [2]],
  ["reserved byte 0x18b", { at: 0x18b, bytes: [1] }, "malformed", "reserved behind REPORTED_TCB", versions],
  ["reserved byte 0x19f", { at: 0x19f, bytes: [1] }, "malformed", "reserved behind REPORTED_TCB", versions],
  ["reserved byte 0x1eb", { at: 0x1eb, bytes: [1] }, "malformed", "reserved behind CURRENT_MAJOR", versions],
  ["reserved byte 0x1ef", { at: 0x1ef, bytes: [1] }, "malformed", "reserved behind COMMITTED_MAJOR", versions],
  ["mitigations before version 4", { at: 0x1f8, bytes: [1] }, "malformed", "reserved in front of SIGNATURE", [2, 3]],
  ["mitigations before version 4", { at: 0x207, bytes: [1] }, "malformed", "reserved in front of SIGNATURE", [2, 3]],
  ["reserved byte 0x208", { at: 0x208, bytes: [1] }, "malformed", "reserved in front of SIGNATURE", versions],
  ["reserved byte 0x29f", { at: 0x29f, bytes: [1] }, "malformed", "reserved in front of SIGNATURE", versions],
]

for (const [what, patch, code, field, among] of refused) {
  test(`parseSnpReport() refuses ${what} (${among.join(", ")})`, () => {
    for (const version of among) assert.throws(() => parseSnpReport(device.report({ version }, patch)), { code, path: `ATTESTATION_REPORT.${field}` })
  })
}

test("parseSnpReport() reads r and s as little-endian numbers and refuses padding that is not zero", () => {
  const report = device.report()
  const signature = parseSnpReport(report).signature
  assert.equal(signature[0], report[0x2a0 + 47])
  assert.equal(signature[47], report[0x2a0])
  assert.equal(signature[48], report[0x2a0 + 72 + 47])
  for (const [at, field] of [
    [0x2a0 + 48, "SIGNATURE.R padding"],
    [0x2a0 + 71, "SIGNATURE.R padding"],
    [0x2a0 + 72 + 48, "SIGNATURE.S padding"],
    [0x2a0 + 143, "SIGNATURE.S padding"],
    [0x2a0 + 144, "reserved in SIGNATURE"],
    [0x49f, "reserved in SIGNATURE"],
  ] as const) {
    const changed = Uint8Array.from(report)
    changed[at] = 1
    assert.throws(() => parseSnpReport(changed), { code: "malformed", path: `ATTESTATION_REPORT.${field}` })
  }
})

test("productOfCpu() knows the models of Milan, Genoa and Turin, and no others", () => {
  const product = (family: number, model: number): string => productOfCpu({ family, model, stepping: 0 })
  assert.deepEqual([product(0x19, 0x00), product(0x19, 0x01), product(0x19, 0x0f)], ["Milan", "Milan", "Milan"])
  assert.deepEqual([product(0x19, 0x10), product(0x19, 0x1f), product(0x19, 0xa0), product(0x19, 0xaf)], ["Genoa", "Genoa", "Genoa", "Genoa"])
  assert.deepEqual([product(0x1a, 0x00), product(0x1a, 0x02), product(0x1a, 0x11)], ["Turin", "Turin", "Turin"])
  for (const [family, model] of [
    [0x19, 0x20],
    [0x19, 0x9f],
    [0x19, 0xb0],
    [0x1a, 0x12],
    [0x17, 0x01],
    [0x00, 0x00],
  ] as const)
    // prettier-ignore
    assert.throws(() => product(family, model), { code: "unsupported" })
})

test("tcbOf() reads each product's layout and refuses reserved bytes", () => {
  const bytes = Uint8Array.of(1, 2, 0, 0, 0, 0, 3, 4)
  assert.deepEqual(tcbOf("Milan", bytes, "T"), { bootLoader: 1, tee: 2, snp: 3, microcode: 4 })
  assert.deepEqual(tcbOf("Genoa", bytes, "T"), { bootLoader: 1, tee: 2, snp: 3, microcode: 4 })
  assert.deepEqual(tcbOf("Turin", Uint8Array.of(1, 2, 3, 4, 0, 0, 0, 5), "T"), { fmc: 1, bootLoader: 2, tee: 3, snp: 4, microcode: 5 })
  for (const [product, reserved] of [
    ["Milan", [2, 3, 4, 5]],
    ["Genoa", [2, 3, 4, 5]],
    ["Turin", [4, 5, 6]],
  ] as const)
    // prettier-ignore
    for (const at of reserved) assert.throws(() => tcbOf(product, new Uint8Array(8).fill(1, at, at + 1), "T"), { code: "malformed" })
})

const vectors = process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../../shared/vectors")
const skip = existsSync(vectors) ? false : "skipped: no vectors"

test("parseSnpReport() gives back real reports byte for byte", { skip }, () => {
  for (const name of readdirSync(join(vectors, "snp"))) {
    const bytes = new Uint8Array(readFileSync(join(vectors, "snp", name, "report.bin")))
    const report = parseSnpReport(bytes)
    assert.deepEqual(encodeSnpReport({ signedBytes: encodeSignedSnpReport(report), signature: report.signature }), bytes, name)
  }
})
