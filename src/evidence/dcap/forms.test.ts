import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { encodeUtf8, parseUtf8 } from "../../bytes/text.ts"
import { labPlatform, labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import type { LabDocument } from "../../../lab/devices/dcap/authority.ts"
import { assertRefuses } from "../testing/parser-laws.ts"
import { readChain } from "./certificates.ts"
import { encodeDcapCollateral, parseDcapCollateral } from "./endorsements.ts"
import { bytesOf } from "./format.ts"
import { maskedEquals } from "./masked.ts"
import { parseQeIdentity } from "./qe-identity.ts"
import { intelSgxRoot, pinnedIntelRoot } from "./roots.ts"
import { splitSignedJson } from "./signed-json.ts"
import { parseTcbInfo } from "./tcb-info.ts"
import type { TcbInfo } from "./tcb-info.ts"
import { checkTdxModule, findTcbLevel } from "./tcb-level.ts"
import { mergeTcbStatus, tcbStatuses } from "./tcb-status.ts"
import type { TcbStatus } from "./tcb-status.ts"

/** The forms and bounds of what Intel signs, without signatures. */

const authority = makeLabAuthority({ keys: makeLabKeys() })
const { sgxCollateral, tdxCollateral, pckChain } = authority

function bodyOf(document: Uint8Array, name: string): LabDocument {
  return JSON.parse(parseUtf8(splitSignedJson(document, name).body)) as LabDocument
}

const sgxInfo = bodyOf(sgxCollateral.tcbInfo.document, "tcbInfo")
const tdxInfo = bodyOf(tdxCollateral.tcbInfo.document, "tcbInfo")
const identity = bodyOf(sgxCollateral.qeIdentity.document, "enclaveIdentity")
const { id: _id, tcbLevels: _levels, tcbEvaluationDataNumber: _number, ...common } = identity
const identity1: LabDocument = { ...common, version: 1, isvsvn: 8 }

const info = (good: LabDocument, members: LabDocument = {}): TcbInfo => parseTcbInfo(encodeUtf8(JSON.stringify({ ...good, ...members })))
const parseIdentity = (good: LabDocument, members: LabDocument = {}): ReturnType<typeof parseQeIdentity> =>
  parseQeIdentity(encodeUtf8(JSON.stringify({ ...good, ...members })))

/** The first member of a list, changed. */
function first(document: LabDocument, key: string, members: LabDocument): readonly LabDocument[] {
  const [one] = document[key] as readonly LabDocument[]
  return [{ ...one, ...members }]
}

const times = (count: number, item: unknown): readonly unknown[] => Array.from({ length: count }, () => item)

test("parseTcbInfo() and parseQeIdentity() refuse what is no object", () => {
  for (const text of ["null", "1", '"x"', "[]", "[1]"]) {
    assertRefuses(() => parseTcbInfo(encodeUtf8(text)), text, "malformed")
    assertRefuses(() => parseQeIdentity(encodeUtf8(text)), text, "malformed")
  }
  for (const level of [null, 1, "x", [], [1]]) {
    assertRefuses(() => info(sgxInfo, { tcbLevels: [level] }), JSON.stringify(level), "malformed")
    assertRefuses(() => info(sgxInfo, { tcbLevels: first(sgxInfo, "tcbLevels", { tcb: level }) }), JSON.stringify(level), "malformed")
  }
})

test("parseTcbInfo() takes the numbers and lists of each size that may be, and no larger ones", () => {
  const [level] = sgxInfo["tcbLevels"] as readonly LabDocument[]
  const tcb = level?.["tcb"] as LabDocument
  const withLevel = (members: LabDocument): TcbInfo => info(sgxInfo, { tcbLevels: [{ ...level, ...members }] })
  const short = { ...level, tcb: { sgxtcbcomponents: times(16, { svn: 0 }), pcesvn: 0 } }
  assert.equal(info(sgxInfo, { tcbLevels: times(256, short) }).tcbLevels.length, 256)
  assertRefuses(() => info(sgxInfo, { tcbLevels: times(257, short) }), "257 levels", "too-large")
  assert.equal(withLevel({ advisoryIDs: times(256, "INTEL-SA-00001") }).tcbLevels[0]?.advisoryIds.length, 256)
  assertRefuses(() => withLevel({ advisoryIDs: times(257, "INTEL-SA-00001") }), "257 advisories", "too-large")
  assert.equal(withLevel({ tcb: { ...tcb, pcesvn: 65_535 } }).tcbLevels[0]?.pceSvn, 65_535)
  assertRefuses(() => withLevel({ tcb: { ...tcb, pcesvn: 65_536 } }), "PCESVN", "malformed")
  assert.equal(info(sgxInfo, { tcbEvaluationDataNumber: 2 ** 32 - 1 }).tcbEvaluationDataNumber, 2 ** 32 - 1)
  assertRefuses(() => info(sgxInfo, { tcbEvaluationDataNumber: 2 ** 32 }), "evaluation number", "malformed")
  assertRefuses(() => info(sgxInfo, { tcbEvaluationDataNumber: "18" }), "evaluation number as text", "malformed")
  const [module] = tdxInfo["tdxModuleIdentities"] as readonly LabDocument[]
  const modules = (count: number): unknown[] =>
    Array.from({ length: count }, (_, at) => ({ ...module, id: `TDX_${at.toString(16).padStart(2, "0")}` }))
  assert.equal(info(tdxInfo, { tdxModuleIdentities: modules(256) }).tdxModuleIdentities.size, 256)
  assertRefuses(() => info(tdxInfo, { tdxModuleIdentities: times(257, module) }), "257 modules", "too-large")
})

test("parseTcbInfo() refuses other words, dates, identifiers, and nesting without end", () => {
  for (const version of [0, 1]) assertRefuses(() => info(sgxInfo, { version }), `version ${version}`, "malformed")
  for (const advisory of ["INTEL-SA-00001 ", " INTEL-SA-00001", "", "x".repeat(3), "A".repeat(41), 1])
    assertRefuses(() => info(sgxInfo, { tcbLevels: first(sgxInfo, "tcbLevels", { advisoryIDs: [advisory] }) }), `${advisory}`, "malformed")
  // Each is a date to Date.parse().
  for (const issueDate of ["+002026-05-22T00:00:00Z", "2026-05-22T00:00:00Z (at noon)", "2026-05-22T00:00:00.000Z"])
    assertRefuses(() => info(sgxInfo, { issueDate }), issueDate, "malformed")
  const sameMoment = { issueDate: "2026-06-01T00:00:00Z", nextUpdate: "2026-06-01T00:00:00Z" }
  assert.equal(info(sgxInfo, sameMoment).nextUpdate, labTime)
  assertRefuses(() => info(tdxInfo, { tdxModuleIdentities: first(tdxInfo, "tdxModuleIdentities", { id: "XTDX_01" }) }), "XTDX_01", "malformed")
  const [level] = sgxInfo["tcbLevels"] as readonly LabDocument[]
  const tcb = level?.["tcb"] as LabDocument
  for (const name of ["category", "type"]) {
    const components = (text: unknown): readonly unknown[] => times(16, { svn: 1, [name]: text })
    info(sgxInfo, { tcbLevels: [{ ...level, tcb: { ...tcb, sgxtcbcomponents: components("BIOS") } }] })
    assertRefuses(() => info(sgxInfo, { tcbLevels: [{ ...level, tcb: { ...tcb, sgxtcbcomponents: components(1) } }] }), name, "malformed")
  }
  const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)])
  for (const parse of [info, parseIdentity]) {
    assertRefuses(() => parse(sgxInfo, { more: nested(7) }), "8 levels", "unknown-field")
    assertRefuses(() => parse(sgxInfo, { more: nested(8) }), "9 levels", "too-large")
  }
})

test("parseQeIdentity() reads the older form as one level above the least", () => {
  const { issueDate, levels, version, id } = parseIdentity(identity1)
  assert.deepEqual([version, id], [1, "QE"])
  const level = { tcbDate: issueDate, advisoryIds: [] }
  assert.deepEqual(levels, [{ ...level, isvSvn: 8, status: "UpToDate" }, { ...level, isvSvn: 0, status: "OutOfDate" }]) // prettier-ignore
  assert.equal(parseIdentity(identity1, { isvsvn: 65_535 }).levels[0]?.isvSvn, 65_535)
  assertRefuses(() => parseIdentity(identity1, { isvsvn: 65_536 }), "ISVSVN", "malformed")
  assertRefuses(() => parseIdentity(identity1, { version: 2 }), "version 2", "malformed")
  assert.equal(parseIdentity(identity, { tcbEvaluationDataNumber: 2 ** 32 - 1 }).tcbEvaluationDataNumber, 2 ** 32 - 1)
  assertRefuses(() => parseIdentity(identity, { tcbEvaluationDataNumber: 2 ** 32 }), "evaluation number", "malformed")
})

test("splitSignedJson() takes documents of 256 KiB", () => {
  const document = (size: number): Uint8Array => {
    const [head, tail] = ['{"tcbInfo":', `,"signature":"${"00".repeat(64)}"}`] as const
    return encodeUtf8(`${head}${" ".repeat(size - head.length - tail.length)}${tail}`)
  }
  assert.equal(splitSignedJson(document(262_144), "tcbInfo").signature.length, 64)
  assertRefuses(() => splitSignedJson(document(262_145), "tcbInfo"), "one byte more", "too-large")
  assertRefuses(() => splitSignedJson(encodeUtf8('{"tcbInfo":{}}'), "tcbInfo"), "no signature", "truncated")
})

test("mergeTcbStatus() needs what any part needs", () => {
  const merged: Readonly<Record<Exclude<TcbStatus, "Revoked">, readonly string[]>> = {
    UpToDate: ["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"],
    SWHardeningNeeded: ["SWHardeningNeeded", "SWHardeningNeeded", "ConfigurationAndSWHardeningNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"],
    ConfigurationNeeded: ["ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded"],
    ConfigurationAndSWHardeningNeeded: ["ConfigurationAndSWHardeningNeeded", "ConfigurationAndSWHardeningNeeded", "ConfigurationAndSWHardeningNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded"],
    OutOfDate: ["OutOfDate", "OutOfDate", "OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"],
    OutOfDateConfigurationNeeded: ["OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded"],
  } // prettier-ignore
  const parts = tcbStatuses.filter((status) => status !== "Revoked")
  for (const one of parts) {
    assert.equal(mergeTcbStatus(one), one)
    assert.deepEqual(parts.map((two) => mergeTcbStatus(one, two)), merged[one], one) // prettier-ignore
    assert.equal(mergeTcbStatus(one, "Revoked"), "Revoked")
    assert.equal(mergeTcbStatus("Revoked", one), "Revoked")
  }
})

test("maskedEquals() compares the bits of the mask, and only fields of one length", () => {
  assert.equal(maskedEquals("ff01", "0fff", "0f01"), true)
  assert.equal(maskedEquals("ff01", "ffff", "0f01"), false)
  // A bit of the expected value that the mask leaves out cannot be met.
  assert.equal(maskedEquals("ff", "0f", "ff"), false)
  for (const [found, mask, expected] of [
    ["0f", "0f00", "0f00"],
    ["0f00", "0f", "0f00"],
    ["0f00", "0f00", "0f"],
    ["0f", "0f", "0f00"],
    ["0f00", "0f", "0f"],
  ] as const)
    // prettier-ignore
    assert.equal(maskedEquals(found, mask, expected), false, `${found} ${mask} ${expected}`)
})

test("bytesOf() takes lower-case hexadecimal of whole bytes and nothing else", () => {
  assert.deepEqual(bytesOf("00ff"), Uint8Array.of(0, 255))
  for (const hex of ["0", "000", "0G", "FF", " 00", "00 ", "00\n"]) assert.throws(() => bytesOf(hex), TypeError, JSON.stringify(hex))
})

test("levels are reached by as many components as they ask for, and TDX needs TCB info that is for it", () => {
  const sgx = info(sgxInfo)
  const tdx = { teeTcbSvn: `050007${"00".repeat(13)}`, mrSignerSeam: "00".repeat(48), seamAttributes: "00".repeat(8) }
  const platform = { components: labPlatform.components, pceSvn: 13 }
  assert.equal(findTcbLevel(sgx, platform, undefined).status, "UpToDate")
  assertRefuses(() => findTcbLevel(sgx, { ...platform, components: platform.components.slice(0, 15) }, undefined), "15 components", "no-tcb-level")
  assertRefuses(() => findTcbLevel(sgx, { ...platform, components: [...platform.components, 0] }, undefined), "17 components", "no-tcb-level")
  assertRefuses(() => findTcbLevel(sgx, platform, tdx), "no TDX components", "no-tcb-level")
  assertRefuses(() => checkTdxModule(sgx, tdx), "no TDX module", "wrong-identity")
})

/** PEM blocks whose base64 lines are given; what they hold is no certificate. */
function pem(...blocks: readonly (readonly number[])[]): Uint8Array {
  const text = (lengths: readonly number[]): string =>
    ["-----BEGIN CERTIFICATE-----", ...lengths.map((length) => "A".repeat(length)), "-----END CERTIFICATE-----", ""].join("\n")
  return encodeUtf8(blocks.map(text).join(""))
}

test("readChain() takes lines of one length, 64 or 76, of which the last may be shorter", () => {
  for (const lines of [[4], [64], [68], [76], [64, 64], [64, 4], [64, 64, 64], [76, 76, 4], [76, 76]])
    assert.equal(readChain(pem(lines), 1, "chain").length, 1, lines.join())
  for (const lines of [[80], [60, 60], [68, 68], [72, 4], [80, 80], [64, 60, 64], [64, 68], [76, 80], [76, 64, 76], [64, 76], [60, 64], [4, 64]])
    assertRefuses(() => readChain(pem(lines), 1, "chain"), lines.join(), "malformed")
})

test("readChain() takes nothing but whole certificates, in a text of 16 KiB", () => {
  const text = parseUtf8(pckChain)
  const refused = (form: string, code: string): void =>
    assertRefuses(() => readChain(encodeUtf8(form), 3, "chain"), JSON.stringify(form.slice(0, 40)), code)
  refused(`${text}-----BEGIN CERTIFICATE-----\n`, "truncated")
  refused(`${text}-----BEGIN CERTIFICATE-----\nAAAA\n`, "truncated")
  refused(`\0${text}`, "malformed")
  refused(text.replace("-----\n", "-----\0\n"), "malformed")
  refused(text.replaceAll("\n", "\r"), "malformed")
  assert.equal(readChain(encodeUtf8(text.padEnd(16_384, "\n")), 3, "chain").length, 3)
  refused(text.padEnd(16_385, "\n"), "too-large")
})

test("parseDcapCollateral() gives back a PCK chain, and takes nothing that is larger than it may be", () => {
  assert.deepEqual(parseDcapCollateral(encodeDcapCollateral({ pckChain })), { pckChain })
  const { tcbInfo } = tdxCollateral
  const judge = (collateral: Parameters<typeof encodeDcapCollateral>[0]): unknown => parseDcapCollateral(encodeDcapCollateral(collateral))
  const chain = 16_384
  const list = 4_194_304
  judge({ pckChain: new Uint8Array(chain), rootCrl: new Uint8Array(list), pckCrl: new Uint8Array(list), tcbInfo: { document: new Uint8Array(262_144), issuerChain: new Uint8Array(chain) }, qeIdentity: { document: new Uint8Array(262_144), issuerChain: new Uint8Array(chain) } }) // prettier-ignore
  // Base64 is counted in whole groups of three bytes.
  assertRefuses(() => judge({ pckChain: new Uint8Array(chain + 3) }), "chain", "too-large")
  assertRefuses(() => judge({ rootCrl: new Uint8Array(list + 3) }), "root CRL", "too-large")
  assertRefuses(() => judge({ pckCrl: new Uint8Array(list + 3) }), "PCK CRL", "too-large")
  assertRefuses(() => judge({ tcbInfo: { ...tcbInfo, document: new Uint8Array(262_147) } }), "document", "too-large")
  assertRefuses(() => judge({ tcbInfo: { ...tcbInfo, issuerChain: new Uint8Array(chain + 3) } }), "issuer chain", "too-large")
  assertRefuses(() => parseDcapCollateral(`${encodeDcapCollateral({})}${" ".repeat(16 * 1024 * 1024)}`), "the whole", "too-large")
})

test("pinnedIntelRoot() refuses another certificate than the pinned one, several, and none", () => {
  const text = readFileSync(join(import.meta.dirname, "roots", intelSgxRoot.file), "utf8")
  assert.equal(pinnedIntelRoot(text).name, intelSgxRoot.name)
  const other = parseUtf8(authority.signingChain).split(/(?<=-----END CERTIFICATE-----\n)/)[1] ?? ""
  for (const wrong of [other, `${text}\n${text}`, `${text}\n${other}`, ""]) assert.throws(() => pinnedIntelRoot(wrong), { message: /^internal: / })
})
