import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeUtf8, parseUtf8 } from "../../bytes/text.ts"
import { extensionIds } from "../../pki/certificate.ts"
import { derElement, tags } from "../../pki/der.ts"
import {
  encodeInteger,
  encodeSgxRows,
  labPlatform,
  labTime,
  makeLabAuthority,
  makeLabKeys,
  sgxExtension,
  sgxRows,
  signText,
  tcbRows,
} from "../../../lab/devices/dcap/authority.ts"
import type { AuthorityKnobs, LabAuthority, LabDocument, SgxRow } from "../../../lab/devices/dcap/authority.ts"
import { makeSgxQuote, makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import type { SgxKnobs, TdxKnobs } from "../../../lab/devices/dcap/device.ts"
import { basicConstraintsExtension, intelName, keyUsageExtension, makeLabKey } from "../../../lab/devices/dcap/x509.ts"
import type { LabCertificate } from "../../../lab/devices/dcap/x509.ts"
import { verifySgxQuote } from "../sgx/verify.ts"
import { verifyTdxQuote } from "../tdx/verify.ts"
import { assertRefuses } from "../testing/parser-laws.ts"
import type { DcapClaims } from "./claims.ts"
import type { DcapCollateral, SignedDocument } from "./endorsements.ts"
import { intelSgxRoot, loadIntelSgxRoot } from "./roots.ts"
import type { DcapRoot } from "./roots.ts"

const keys = makeLabKeys()
const other = makeLabKey()
const reportData = Uint8Array.from({ length: 64 }, (_, at) => at)
const day = 86_400_000

interface Change {
  readonly authority?: AuthorityKnobs
  readonly sgx?: SgxKnobs
  readonly tdx?: TdxKnobs
  readonly collateral?: (good: DcapCollateral, authority: LabAuthority) => DcapCollateral
  readonly time?: number
  readonly roots?: (authority: LabAuthority) => readonly DcapRoot[]
}

function prepare(change: Change): { readonly authority: LabAuthority; readonly roots: readonly DcapRoot[]; readonly time: number } {
  const authority = makeLabAuthority({ keys, ...change.authority })
  return { authority, roots: change.roots?.(authority) ?? [authority.root], time: change.time ?? labTime }
}

function sgx(change: Change = {}): DcapClaims {
  const { authority, roots, time } = prepare(change)
  const collateral = change.collateral?.(authority.sgxCollateral, authority) ?? authority.sgxCollateral
  return verifySgxQuote({ quote: makeSgxQuote(authority, reportData, change.sgx), collateral }, { roots, time, reportData }).claims.dcap
}

function tdx(change: Change = {}): DcapClaims {
  const { authority, roots, time } = prepare(change)
  const collateral = change.collateral?.(authority.tdxCollateral, authority) ?? authority.tdxCollateral
  return verifyTdxQuote({ quote: makeTdxQuote(authority, reportData, change.tdx), collateral }, { roots, time, reportData }).claims.dcap
}

/** A document with members replaced, or removed where they are undefined. */
function withMembers(document: LabDocument, members: LabDocument): LabDocument {
  return JSON.parse(JSON.stringify({ ...document, ...members })) as LabDocument
}

function withExtension(good: LabCertificate, oid: string, value: LabCertificate["extensions"][number] | undefined): LabCertificate {
  return { ...good, extensions: [...good.extensions.filter((extension) => extension.oid !== oid), ...(value === undefined ? [] : [value])] }
}

test("checkDcap() gives the claims of a good SGX platform", () => {
  const claims = sgx()
  assert.equal(claims.rootKind, "laboratory")
  assert.match(claims.rootName, /INSECURE LABORATORY/)
  const { sgxType: _type, ...platform } = labPlatform
  assert.deepEqual(claims.platform, {
    ...platform,
    sgxType: "scalable",
    pckSerial: "5a0102030405060708090a0b0c0d0e0f10111213",
    authority: "platform",
  })
  assert.equal(claims.userData, `${"1a".repeat(16)}00000000`)
  assert.equal(claims.quotingEnclave.isvSvn, 8)
  assert.deepEqual(claims.missingCollateral, [])
  const upToDate = { status: "UpToDate", tcbDate: Date.parse("2025-01-01T00:00:00Z"), advisoryIds: [] }
  assert.deepEqual(claims.tcb, { status: "UpToDate", advisoryIds: [], platform: upToDate, quotingEnclave: upToDate, tcbEvaluationDataNumber: 18 })
  const dates = { issueDate: labTime - 10 * day, nextUpdate: labTime + 20 * day }
  assert.deepEqual(claims.collateral.tcbInfo, { version: 3, ...dates, tcbEvaluationDataNumber: 18 })
  assert.deepEqual(claims.collateral.qeIdentity, {
    version: 2,
    issueDate: labTime - 9 * day,
    nextUpdate: labTime + 21 * day,
    tcbEvaluationDataNumber: 19,
  })
  assert.deepEqual(claims.collateral.rootCrl, { thisUpdate: labTime - 10 * day, nextUpdate: labTime + 20 * day })
  assert.deepEqual(claims.collateral.pckCrl, { thisUpdate: labTime - 10 * day, nextUpdate: labTime + 20 * day })
  assert.equal(claims.validFrom, labTime - 9 * day)
  assert.equal(claims.validUntil, labTime + 20 * day)
})

test("checkDcap() says from when and until when all that it used is valid, whichever piece it is", () => {
  const [from, until] = [labTime - day, labTime + day]
  const certificate = (good: LabCertificate): LabCertificate => ({ ...good, notBefore: from, notAfter: until })
  const list: AuthorityKnobs["pckCrl"] = (good) => ({ ...good, thisUpdate: from, nextUpdate: until })
  const isoTime = (time: number): string => new Date(time).toISOString().replace(".000Z", "Z")
  const document = (good: LabDocument): LabDocument => ({ ...good, issueDate: isoTime(from), nextUpdate: isoTime(until) })
  const pieces: readonly AuthorityKnobs[] = [
    { pck: certificate },
    { authority: certificate },
    { root: certificate },
    { tcbSigning: certificate },
    { rootCrl: list },
    { pckCrl: list },
    { sgxTcbInfo: document },
    { qeIdentity: document },
  ]
  for (const authority of pieces) {
    const { validFrom, validUntil } = sgx({ authority })
    assert.deepEqual([validFrom, validUntil], [from, until], Object.keys(authority).join())
  }
})

test("checkDcap() gives the claims of a processor CA, whose platforms have no instance and configuration", () => {
  const { platform } = sgx({ authority: { authorityKind: "processor" } })
  assert.equal(platform.authority, "processor")
  assert.deepEqual([Object.hasOwn(platform, "platformInstanceId"), Object.hasOwn(platform, "configuration")], [false, false])
})

test("checkDcap() gives the SGX type of the certificate", () => {
  const types = [0, 1, 2].map((sgxType) => sgx({ authority: { platform: { sgxType } } }).platform.sgxType)
  assert.deepEqual(types, ["standard", "scalable", "scalable-with-integrity"])
  assert.equal(sgx({ authority: { platform: { pceSvn: 65_535 } } }).platform.pceSvn, 65_535)
})

test("checkDcap() gives the time in which everything that was used is valid", () => {
  const early = labTime + 5 * day
  const late = labTime - 5 * day
  const before: Partial<LabCertificate> = { notAfter: early }
  const behind: Partial<LabCertificate> = { notBefore: late }
  const text = (time: number): string => new Date(time).toISOString().replace(".000Z", "Z")
  const changes: readonly (readonly [what: string, until: AuthorityKnobs, from: AuthorityKnobs])[] = [
    ["PCK certificate", { pck: (good) => ({ ...good, ...before }) }, { pck: (good) => ({ ...good, ...behind }) }],
    ["authority", { authority: (good) => ({ ...good, ...before }) }, { authority: (good) => ({ ...good, ...behind }) }],
    ["root", { root: (good) => ({ ...good, ...before }) }, { root: (good) => ({ ...good, ...behind }) }],
    ["signing certificate", { tcbSigning: (good) => ({ ...good, ...before }) }, { tcbSigning: (good) => ({ ...good, ...behind }) }],
    ["root CRL", { rootCrl: (good) => ({ ...good, nextUpdate: early }) }, { rootCrl: (good) => ({ ...good, thisUpdate: late }) }],
    ["PCK CRL", { pckCrl: (good) => ({ ...good, nextUpdate: early }) }, { pckCrl: (good) => ({ ...good, thisUpdate: late }) }],
    ["TCB info", { sgxTcbInfo: (good) => ({ ...good, nextUpdate: text(early) }) }, { sgxTcbInfo: (good) => ({ ...good, issueDate: text(late) }) }],
    ["QE identity", { qeIdentity: (good) => ({ ...good, nextUpdate: text(early) }) }, { qeIdentity: (good) => ({ ...good, issueDate: text(late) }) }],
  ]
  for (const [what, until, from] of changes) {
    assert.equal(sgx({ authority: until }).validUntil, early, what)
    assert.equal(sgx({ authority: until, time: early }).validUntil, early, what)
    assert.equal(sgx({ authority: from }).validFrom, late, what)
    assert.equal(sgx({ authority: from, time: late }).validFrom, late, what)
  }
  // Without lists and documents, the certificates alone say it.
  const alone = sgx({ collateral: () => ({}) })
  assert.deepEqual([alone.validFrom, alone.validUntil], [labTime - 1000 * day, labTime + 2000 * day])
})

test("checkDcap() takes Intel's name in any order of its attributes", () => {
  assert.equal(sgx({ authority: { pck: (good) => ({ ...good, subject: good.subject.toReversed() }) } }).tcb.status, "UpToDate")
})

test("checkDcap() says what was not checked, and gives no merged status without TCB info and identity", () => {
  const none = sgx({ collateral: () => ({}) })
  assert.deepEqual(none.missingCollateral, ["TCB info", "QE identity", "root CA CRL", "PCK CRL"])
  assert.deepEqual(none.tcb, { advisoryIds: [] })
  assert.deepEqual(none.collateral, {})
  const withoutInfo = ({ tcbInfo: _info, ...good }: DcapCollateral): DcapCollateral => good
  assert.equal(tdx({ collateral: withoutInfo }).tcb.status, undefined)
  assert.equal(tdx({ collateral: withoutInfo }).tcb.tcbEvaluationDataNumber, 19)
  const withoutIdentity = ({ qeIdentity: _identity, ...good }: DcapCollateral): DcapCollateral => good
  assert.equal(tdx({ collateral: withoutIdentity }).tcb.status, undefined)
  assert.equal(tdx({ collateral: withoutIdentity }).tcb.platform?.status, "UpToDate")
})

test("checkDcap() takes a PCK chain from outside only where the quote names its PCK", () => {
  for (const type of [1, 2, 3]) {
    const named: SgxKnobs = { certification: () => ({ type, data: new Uint8Array(36) }) }
    assert.equal(sgx({ sgx: named, collateral: (good, { pckChain }) => ({ ...good, pckChain }) }).tcb.status, "UpToDate")
    assertRefuses(() => sgx({ sgx: named }), `type ${type}`, "missing-piece")
  }
  assertRefuses(() => sgx({ collateral: (good, { pckChain }) => ({ ...good, pckChain }) }), "two chains", "duplicate-piece")
})

test("checkDcap() merges the status of platform, quoting enclave and TDX module, and their advisories", () => {
  const claims = tdx({
    authority: { platform: { components: labPlatform.components.map((svn) => Math.max(svn - 1, 0)), pceSvn: 12 }, tdxTcbInfo: keepLevels },
    tdx: { report: { teeTcbSvn: `040107${"00".repeat(13)}` }, qeReport: { isvSvn: 7 } },
  })
  assert.equal(claims.tcb.platform?.status, "OutOfDate")
  assert.equal(claims.tcb.quotingEnclave?.status, "OutOfDate")
  assert.equal(claims.tcb.tdxModule?.status, "OutOfDate")
  assert.equal(claims.tcb.status, "OutOfDate")
  assert.deepEqual(claims.tcb.advisoryIds, ["INTEL-SA-00001", "INTEL-SA-00002", "INTEL-SA-00003", "INTEL-SA-00005"])
  assert.equal(tdx({ tdx: { qeReport: { isvSvn: 7 } } }).tcb.status, "OutOfDate")
  assert.equal(tdx({ tdx: { report: { teeTcbSvn: `040107${"00".repeat(13)}` } } }).tcb.status, "OutOfDate")
})

/** TCB info for the laboratory's usual platform, whatever the certificate says. */
function keepLevels(): LabDocument {
  const { document } = makeLabAuthority({ keys }).tdxCollateral.tcbInfo
  return (JSON.parse(parseUtf8(document)) as { readonly tcbInfo: LabDocument }).tcbInfo
}

test("checkDcap() compares each of the 16 SGX components, the PCE and each TDX component", () => {
  for (let at = 0; at < 16; at++) {
    const asks = (svn: number): AuthorityKnobs => ({
      sgxTcbInfo: (good) => onlyLevel(good, (tcb) => ({ ...tcb, sgxtcbcomponents: labPlatform.components.map((have, place) => ({ svn: place === at ? have + svn : have })) })), // prettier-ignore
    })
    assert.equal(sgx({ authority: asks(0) }).tcb.platform?.status, "UpToDate")
    assertRefuses(() => sgx({ authority: asks(1) }), `component ${at}`, "no-tcb-level")
  }
  const pce = (pcesvn: number): AuthorityKnobs => ({ sgxTcbInfo: (good) => onlyLevel(good, (tcb) => ({ ...tcb, pcesvn })) })
  assert.equal(sgx({ authority: pce(13) }).tcb.platform?.status, "UpToDate")
  assertRefuses(() => sgx({ authority: pce(14) }), "PCESVN", "no-tcb-level")
  // A module of version 0 is judged by all components, one of a later version by those behind the first two.
  for (const version of [0, 1]) {
    const have = [5, version, 7, ...Array.from({ length: 13 }, () => 3)]
    const report = { teeTcbSvn: Buffer.from(have).toString("hex") }
    for (let at = 0; at < 16; at++) {
      const asked = have.map((svn, place) => ({ svn: place === at ? svn + 1 : svn }))
      const authority: AuthorityKnobs = { tdxTcbInfo: (good) => onlyLevel(good, (tcb) => ({ ...tcb, tdxtcbcomponents: asked })) }
      if (version === 1 && at < 2) assert.equal(tdx({ authority, tdx: { report } }).tcb.platform?.status, "UpToDate")
      else assertRefuses(() => tdx({ authority, tdx: { report } }), `TDX component ${at}, version ${version}`, "no-tcb-level")
    }
  }
})

/** TCB info with its first level alone, whose `tcb` is changed. */
function onlyLevel(good: LabDocument, change: (tcb: LabDocument) => LabDocument): LabDocument {
  const [first] = good["tcbLevels"] as readonly LabDocument[]
  return { ...good, tcbLevels: [{ ...first, tcb: change(first?.["tcb"] as LabDocument) }] }
}

test("checkDcap() takes levels in Intel's order", () => {
  const swap = (good: LabDocument): LabDocument => ({ ...good, tcbLevels: [...(good["tcbLevels"] as readonly LabDocument[])].reverse() })
  assert.equal(sgx({ authority: { sgxTcbInfo: swap } }).tcb.status, "OutOfDate")
})

test("checkDcap() judges a TDX module of version 0 by tdxModule, and gives it no level of its own", () => {
  const claims = tdx({ tdx: { report: { teeTcbSvn: `050007${"00".repeat(13)}` } } })
  assert.equal(claims.tcb.tdxModule, undefined)
  assert.equal(claims.tcb.status, "UpToDate")
})

test("checkDcap() evaluates TCB info of version 2 and a QE identity of version 1", () => {
  const components = Object.fromEntries(labPlatform.components.map((svn, at) => [`sgxtcbcomp${String(at + 1).padStart(2, "0")}svn`, svn]))
  const info2 = (good: LabDocument): LabDocument => {
    const { id: _id, ...rest } = good
    const level = { tcb: { ...components, pcesvn: 13 }, tcbDate: "2021-11-10T00:00:00Z", tcbStatus: "SWHardeningNeeded" }
    return { ...rest, version: 2, tcbLevels: [level] }
  }
  const identity1 = (isvsvn: number) => (good: LabDocument): LabDocument => {
    const { id: _id, tcbLevels: _levels, tcbEvaluationDataNumber: _number, ...rest } = good
    return { ...rest, version: 1, isvsvn }
  } // prettier-ignore
  const claims = sgx({ authority: { sgxTcbInfo: info2, qeIdentity: identity1(8) } })
  assert.equal(claims.tcb.status, "SWHardeningNeeded")
  assert.equal(claims.tcb.tcbEvaluationDataNumber, 18)
  assert.deepEqual(claims.collateral.qeIdentity, { version: 1, issueDate: labTime - 9 * day, nextUpdate: labTime + 21 * day })
  assert.equal(sgx({ authority: { sgxTcbInfo: info2, qeIdentity: identity1(9) } }).tcb.status, "OutOfDate")
  assertRefuses(() => tdx({ authority: { tdxTcbInfo: info2 } }), "version 2 for TDX", "unknown-field")
})

const anyLevel = (status: string) => (good: LabDocument): LabDocument =>
  ({ ...good, tcbLevels: (good["tcbLevels"] as readonly LabDocument[]).map((level) => ({ ...level, tcbStatus: status })) }) // prettier-ignore

const tdxModules = (change: (module: LabDocument) => LabDocument) => (good: LabDocument): LabDocument =>
  ({ ...good, tdxModuleIdentities: (good["tdxModuleIdentities"] as readonly LabDocument[]).map(change) }) // prettier-ignore

const sgxOid = "1.2.840.113741.1.13.1"
const pckRows = (change: (rows: readonly SgxRow[]) => readonly SgxRow[]): Change => ({
  authority: { pck: (good) => withExtension(good, sgxOid, sgxExtension(change(sgxRows(labPlatform, "platform")))) },
})
const replaceRow = (arc: string, value: Uint8Array): Change =>
  pckRows((rows) => rows.map(([oid, old]) => [oid, oid === `${sgxOid}.${arc}` ? value : old]))
const tcbOf = (change: (rows: readonly SgxRow[]) => readonly SgxRow[]): Change => replaceRow("2", encodeSgxRows(change(tcbRows(labPlatform))))

/** What is refused, with the code. Each line is one check; SGX unless the change says TDX. */
const refusals: readonly (readonly [what: string, code: string, change: Change])[] = [
  // PCK chain
  ["another root", "wrong-chain", { roots: () => [loadIntelSgxRoot()] }],
  ["no root", "wrong-chain", { roots: () => [] }],
  ["a root of the same name and another key", "wrong-chain", { roots: () => [makeLabAuthority().root] }],
  ["a PCK certificate by another key", "wrong-signature", { authority: { pck: (good) => ({ ...good, issuerKey: other }) } }],
  ["an authority by another key", "wrong-signature", { authority: { authority: (good) => ({ ...good, issuerKey: other }) } }],
  ["a PCK certificate of another issuer", "wrong-chain", { authority: { pck: (good) => ({ ...good, issuer: intelName("Intel SGX PCK Processor CA") }) } }],
  ["an authority of another issuer", "wrong-chain", { authority: { authority: (good) => ({ ...good, issuer: intelName("Other") }) } }],
  ["a PCK certificate by the root itself", "wrong-chain", { authority: { pck: (good) => ({ ...good, issuer: intelName("Intel SGX Root CA"), issuerKey: keys.root }) } }],
  ["an authority that is none", "wrong-certificate", { authority: { authority: (good) => withExtension(good, extensionIds.basicConstraints, basicConstraintsExtension(false)) } }],
  ["an authority without basic constraints", "wrong-certificate", { authority: { authority: (good) => withExtension(good, extensionIds.basicConstraints, undefined) } }],
  ["an authority that may not sign certificates", "wrong-certificate", { authority: { authority: (good) => withExtension(good, extensionIds.keyUsage, keyUsageExtension(0x02)) } }],
  ["an authority of another name", "wrong-certificate", { authority: { authority: (good) => ({ ...good, subject: intelName("Intel SGX PCK CA") }), pck: (good) => ({ ...good, issuer: intelName("Intel SGX PCK CA") }), pckCrl: (good) => ({ ...good, issuer: intelName("Intel SGX PCK CA") }) } }],
  ["a PCK certificate of another name", "wrong-certificate", { authority: { pck: (good) => ({ ...good, subject: intelName("Intel SGX Certificate") }) } }],
  ["a PCK certificate of another organization", "wrong-certificate", { authority: { pck: (good) => ({ ...good, subject: good.subject.map(([oid, value]) => [oid, oid === "2.5.4.10" ? "Inter" : value]) }) } }],
  ["a PCK certificate whose name attributes have each other's values", "wrong-certificate", { authority: { pck: (good) => ({ ...good, subject: good.subject.map(([oid, value]) => [oid === "2.5.4.10" ? "2.5.4.7" : oid === "2.5.4.7" ? "2.5.4.10" : oid, value]) }) } }],
  ["a PCK certificate with one more name attribute", "wrong-certificate", { authority: { pck: (good) => ({ ...good, subject: [...good.subject, ["2.5.4.11", "Unit"]] }) } }],
  ["a PCK certificate that is an authority", "wrong-certificate", { authority: { pck: (good) => withExtension(good, extensionIds.basicConstraints, basicConstraintsExtension(true)) } }],
  ["a PCK certificate without basic constraints", "wrong-certificate", { authority: { pck: (good) => withExtension(good, extensionIds.basicConstraints, undefined) } }],
  ["a PCK certificate that may not sign", "wrong-certificate", { authority: { pck: (good) => withExtension(good, extensionIds.keyUsage, keyUsageExtension(0x40)) } }],
  ["a PCK certificate that may sign certificates", "wrong-certificate", { authority: { pck: (good) => withExtension(good, extensionIds.keyUsage, keyUsageExtension(0x84)) } }],
  ["a PCK certificate that may sign lists", "wrong-certificate", { authority: { pck: (good) => withExtension(good, extensionIds.keyUsage, keyUsageExtension(0x82)) } }],
  ["a PCK certificate without key usage", "wrong-certificate", { authority: { pck: (good) => withExtension(good, extensionIds.keyUsage, undefined) } }],
  ["a PCK certificate with an unknown critical extension", "wrong-certificate", { authority: { pck: (good) => withExtension(good, "1.2.3", { oid: "1.2.3", critical: true, value: new Uint8Array(2) }) } }],
  ["a PCK certificate signed over SHA-384", "weak-algorithm", { authority: { pck: (good) => ({ ...good, signature: "ecdsa-sha384" }) } }],
  ["a PCK of another curve", "wrong-key", { authority: { pck: (good) => ({ ...good, key: makeLabKey("P-384") }) } }],
  ["a PCK certificate that is too old", "expired", { authority: { pck: (good) => ({ ...good, notAfter: labTime - 1000 }) } }],
  ["a PCK certificate that is too young", "expired", { authority: { pck: (good) => ({ ...good, notBefore: labTime + 1000 }) } }],
  ["an authority that is too old", "expired", { authority: { authority: (good) => ({ ...good, notAfter: labTime - 1000 }) } }],
  ["a root that is too old", "expired", { authority: { root: (good) => ({ ...good, notAfter: labTime - 1000 }) } }],
  ["two certificates", "malformed", { sgx: { certification: (good) => ({ ...good, data: encodeUtf8(parseUtf8(good.data).split(/(?<=-----END CERTIFICATE-----\n)/).slice(1).join("")) }) } }],
  ["a chain in reverse", "wrong-chain", reversedChain()],
  ["text around the chain", "malformed", { sgx: { certification: (good) => ({ ...good, data: concatBytes(encodeUtf8("hello\n"), good.data) }) } }],
  ["two NULs behind the chain", "malformed", { sgx: { certification: (good) => ({ ...good, data: concatBytes(good.data, new Uint8Array(2)) }) } }],
  ["no SGX extensions", "wrong-certificate", { authority: { pck: (good) => withExtension(good, sgxOid, undefined) } }],
  // SGX extensions
  ["a missing PPID", "malformed", pckRows((rows) => rows.filter(([oid]) => oid !== `${sgxOid}.1`))],
  ["a missing TCB", "malformed", pckRows((rows) => rows.filter(([oid]) => oid !== `${sgxOid}.2`))],
  ["a missing PCEID", "malformed", pckRows((rows) => rows.filter(([oid]) => oid !== `${sgxOid}.3`))],
  ["a missing FMSPC", "malformed", pckRows((rows) => rows.filter(([oid]) => oid !== `${sgxOid}.4`))],
  ["a missing SGX type", "malformed", pckRows((rows) => rows.filter(([oid]) => oid !== `${sgxOid}.5`))],
  ["a double FMSPC", "duplicate", pckRows((rows) => [...rows, ...rows.filter(([oid]) => oid === `${sgxOid}.4`)])],
  ["an unknown row", "unknown-field", pckRows((rows) => [...rows, [`${sgxOid}.8`, encodeInteger(1)]])],
  ["a row of another branch", "unknown-field", pckRows((rows) => [...rows, [`1.2.840.113741.1.13.2.1`, encodeInteger(1)]])],
  ["a short PPID", "malformed", replaceRow("1", derElement(tags.octetString, new Uint8Array(15)))],
  ["a short FMSPC", "malformed", replaceRow("4", derElement(tags.octetString, new Uint8Array(5)))],
  ["a PCEID that is a number", "malformed", replaceRow("3", encodeInteger(0))],
  ["an unknown SGX type", "malformed", replaceRow("5", derElement(tags.enumerated, Uint8Array.of(3)))],
  ["an SGX type of two bytes", "malformed", replaceRow("5", derElement(tags.enumerated, Uint8Array.of(1, 0)))],
  ["an unknown configuration", "unknown-field", replaceRow("7", encodeSgxRows([[`${sgxOid}.7.4`, derElement(tags.boolean, Uint8Array.of(0xff))]]))],
  ["a missing component", "malformed", tcbOf((rows) => rows.filter(([oid]) => oid !== `${sgxOid}.2.16`))],
  ["a missing PCESVN", "malformed", tcbOf((rows) => rows.filter(([oid]) => oid !== `${sgxOid}.2.17`))],
  ["a missing CPUSVN", "malformed", tcbOf((rows) => rows.filter(([oid]) => oid !== `${sgxOid}.2.18`))],
  ["a double component", "duplicate", tcbOf((rows) => [...rows, [`${sgxOid}.2.1`, encodeInteger(9)]])],
  ["a component above a byte", "malformed", tcbOf((rows) => rows.map(([oid, old]) => [oid, oid === `${sgxOid}.2.3` ? encodeInteger(256) : old]))],
  ["a PCESVN above 16 bits", "malformed", tcbOf((rows) => rows.map(([oid, old]) => [oid, oid === `${sgxOid}.2.17` ? encodeInteger(65_536) : old]))],
  // revocation
  ["a revoked PCK certificate", "revoked", { authority: { pckCrl: (good) => ({ ...good, serials: [...good.serials, "5a0102030405060708090a0b0c0d0e0f10111213"] }) } }],
  ["a revoked authority", "revoked", { authority: { rootCrl: (good) => ({ ...good, serials: ["15f5dcbdbd1be1e94049c9d4f433ce01570bde54"] }) } }],
  ["a revoked root", "revoked", { authority: { rootCrl: (good) => ({ ...good, serials: ["22650cd65a9d3489f383b49552bf501b392706ac"] }) } }],
  ["a revoked signing certificate", "revoked", { authority: { rootCrl: (good) => ({ ...good, serials: ["7e3882d5fb55294a40498e458403e91491bdf455"] }) } }],
  ["a revoked signing certificate without the authority's", "revoked", { authority: { rootCrl: (good) => ({ ...good, serials: ["7e3882d5fb55294a40498e458403e91491bdf455"] }) }, collateral: ({ tcbInfo: _info, ...good }) => good }],
  ["a root CRL by another key", "wrong-signature", { authority: { rootCrl: (good) => ({ ...good, issuerKey: other }) } }],
  ["a PCK CRL by another key", "wrong-signature", { authority: { pckCrl: (good) => ({ ...good, issuerKey: other }) } }],
  ["a root CRL of another issuer", "wrong-certificate", { authority: { rootCrl: (good) => ({ ...good, issuer: intelName("Other") }) } }],
  ["a PCK CRL of the other authority", "wrong-certificate", { authority: { pckCrl: (good) => ({ ...good, issuer: intelName("Intel SGX PCK Processor CA") }) } }],
  ["lists that are swapped", "wrong-certificate", { collateral: ({ rootCrl: pckCrl = new Uint8Array(0), pckCrl: rootCrl = new Uint8Array(0), ...good }) => ({ ...good, rootCrl, pckCrl }) }],
  ["a root CRL that is too old", "expired", { authority: { rootCrl: (good) => ({ ...good, nextUpdate: labTime - 1000 }) } }],
  ["a root CRL that is too young", "expired", { authority: { rootCrl: (good) => ({ ...good, thisUpdate: labTime + 1000 }) } }],
  ["a PCK CRL that is too old", "expired", { authority: { pckCrl: (good) => ({ ...good, nextUpdate: labTime - 1000 }) } }],
  ["a PCK CRL that is too young", "expired", { authority: { pckCrl: (good) => ({ ...good, thisUpdate: labTime + 1000 }) } }],
  ["a partial PCK CRL", "wrong-certificate", { authority: { pckCrl: (good) => ({ ...good, extensions: [{ oid: "2.5.29.28", critical: true, value: new Uint8Array(2) }] }) } }],
  ["an authority that may not sign lists", "wrong-certificate", { authority: { authority: (good) => withExtension(good, extensionIds.keyUsage, keyUsageExtension(0x04)) } }],
  // signed documents
  ["TCB info by another key", "wrong-signature", { authority: { documentKey: other }, collateral: ({ qeIdentity: _identity, ...good }) => good }],
  ["a QE identity by another key", "wrong-signature", { authority: { documentKey: other }, collateral: ({ tcbInfo: _info, ...good }) => good }],
  ["a signing certificate by another key", "wrong-signature", { authority: { tcbSigning: (good) => ({ ...good, issuerKey: other }) } }],
  ["a signing certificate of another name", "wrong-certificate", { authority: { tcbSigning: (good) => ({ ...good, subject: intelName("Intel SGX PCK Certificate") }) } }],
  ["a signing certificate that is an authority", "wrong-certificate", { authority: { tcbSigning: (good) => withExtension(good, extensionIds.basicConstraints, basicConstraintsExtension(true)) } }],
  ["a signing certificate that may not sign", "wrong-certificate", { authority: { tcbSigning: (good) => withExtension(good, extensionIds.keyUsage, keyUsageExtension(0x40)) } }],
  ["a signing certificate that is too old", "expired", { authority: { tcbSigning: (good) => ({ ...good, notAfter: labTime - 1000 }) } }],
  ["a signing certificate of another curve", "wrong-key", { authority: { tcbSigning: (good) => ({ ...good, key: makeLabKey("P-384") }) } }],
  ["TCB info under a foreign root", "wrong-chain", { collateral: (good) => ({ ...good, tcbInfo: makeLabAuthority().sgxCollateral.tcbInfo }) }],
  ["a QE identity under a foreign root", "wrong-chain", { collateral: (good) => ({ ...good, qeIdentity: makeLabAuthority().sgxCollateral.qeIdentity }) }],
  ["TCB info under another given root", "wrong-chain", foreignSecondRoot()],
  ["the PCK chain as the issuer of TCB info", "malformed", { collateral: (good, { pckChain }) => ({ ...good, ...(good.tcbInfo === undefined ? {} : { tcbInfo: { ...good.tcbInfo, issuerChain: pckChain } }) }) }],
  ["TCB info in the place of the identity", "malformed", { collateral: (good) => ({ ...good, ...(good.tcbInfo === undefined ? {} : { qeIdentity: good.tcbInfo }) }) }],
  ["TCB info that is too old", "expired", { authority: { sgxTcbInfo: (good) => ({ ...good, nextUpdate: "2026-05-31T23:59:59Z" }) } }],
  ["TCB info that is too young", "expired", { authority: { sgxTcbInfo: (good) => ({ ...good, issueDate: "2026-06-01T00:00:01Z" }) } }],
  ["a QE identity that is too old", "expired", { authority: { qeIdentity: (good) => ({ ...good, nextUpdate: "2026-05-31T23:59:59Z" }) } }],
  ["a QE identity that is too young", "expired", { authority: { qeIdentity: (good) => ({ ...good, issueDate: "2026-06-01T00:00:01Z" }) } }],
  ["TCB info for TDX", "wrong-binding", { collateral: (good, { tdxCollateral }) => ({ ...good, tcbInfo: tdxCollateral.tcbInfo }) }],
  ["the identity of the TD quoting enclave", "wrong-binding", { collateral: (good, { tdxCollateral }) => ({ ...good, qeIdentity: tdxCollateral.qeIdentity }) }],
  ["TCB info of another FMSPC", "wrong-binding", { authority: { sgxTcbInfo: (good) => ({ ...good, fmspc: "B0C06F000001" }) } }],
  ["TCB info of another PCE", "wrong-binding", { authority: { sgxTcbInfo: (good) => ({ ...good, pceId: "0001" }) } }],
  // levels
  ["a revoked TCB level", "revoked", { authority: { sgxTcbInfo: anyLevel("Revoked") } }],
  ["a revoked quoting enclave", "revoked", { authority: { qeIdentity: anyLevel("Revoked") } }],
  ["a quoting enclave below every level", "no-tcb-level", { sgx: { qeReport: { isvSvn: 5 } } }],
  ["TCB info without levels", "no-tcb-level", { authority: { sgxTcbInfo: (good) => ({ ...good, tcbLevels: [] }) } }],
  // quoting enclave and quote
  ["a QE report by another key", "wrong-signature", { sgx: { pckKey: other } }],
  ["a quote by another key", "wrong-signature", { sgx: { attestationKey: other, statedKey: keys.attestation } }],
  ["an attestation key that the QE report does not name", "wrong-binding", { sgx: { qeReport: { reportData: "00".repeat(64) } } }],
  ["QE report data with something behind the digest", "wrong-binding", qeReportDataTail()],
  ["a quoting enclave in debug mode", "wrong-identity", { sgx: { qeReport: { attributes: "1700000000000000e700000000000000" } } }],
  ["a quoting enclave in debug mode without an identity", "wrong-identity", { sgx: { qeReport: { attributes: "1700000000000000e700000000000000" } }, collateral: () => ({}) }],
  ["a quoting enclave of another signer", "wrong-identity", { sgx: { qeReport: { mrSigner: "00".repeat(32) } } }],
  ["a quoting enclave of another product", "wrong-identity", { sgx: { qeReport: { isvProdId: 2 } } }],
  ["a quoting enclave with another MISCSELECT", "wrong-identity", { sgx: { qeReport: { miscSelect: "01000000" } } }],
  ["a quoting enclave with other attributes", "wrong-identity", { sgx: { qeReport: { attributes: "0500000000000000e700000000000000" } } }],
] // prettier-ignore

/** The certificates of a good chain from the root to the leaf. */
function reversedChain(): Change {
  const blocksOf = (pem: Uint8Array): readonly string[] => parseUtf8(pem).split(/(?<=-----END CERTIFICATE-----\n)/)
  return { sgx: { certification: (good) => ({ ...good, data: encodeUtf8(blocksOf(good.data).toReversed().join("")) }) } }
}

/** Both roots are given, but the platform stands under one and its TCB info under the other. */
function foreignSecondRoot(): Change {
  const foreign = makeLabAuthority()
  return { roots: ({ root }) => [root, foreign.root], collateral: (good) => ({ ...good, tcbInfo: foreign.sgxCollateral.tcbInfo }) }
}

function qeReportDataTail(): Change {
  const authority = makeLabAuthority({ keys })
  const quote = makeSgxQuote(authority, reportData)
  const at = 48 + 384 + 4 + 128 + 320
  const digest = Buffer.from(quote.subarray(at, at + 32)).toString("hex")
  return { sgx: { qeReport: { reportData: `${digest}${"00".repeat(31)}01` } } }
}

for (const [what, code, change] of refusals) test(`checkDcap() refuses ${what}`, () => assertRefuses(() => sgx(change), what, code))

const tdxRefusals: readonly (readonly [what: string, code: string, change: Change])[] = [
  ["TCB info for SGX", "wrong-binding", { collateral: (good, { sgxCollateral }) => ({ ...good, tcbInfo: sgxCollateral.tcbInfo }) }],
  ["the identity of the SGX quoting enclave", "wrong-binding", { collateral: (good, { sgxCollateral }) => ({ ...good, qeIdentity: sgxCollateral.qeIdentity }) }],
  ["a module of an unknown version", "wrong-identity", { tdx: { report: { teeTcbSvn: `050207${"00".repeat(13)}` } } }],
  ["a module of another signer", "wrong-identity", { tdx: { report: { mrSignerSeam: "01".repeat(48) } } }],
  ["a module with other attributes", "wrong-identity", { tdx: { report: { seamAttributes: "0100000000000000" } } }],
  ["a module of version 0 of another signer", "wrong-identity", { tdx: { report: { teeTcbSvn: `050007${"00".repeat(13)}`, mrSignerSeam: "01".repeat(48) } } }],
  ["a module of version 0 with other attributes", "wrong-identity", { tdx: { report: { teeTcbSvn: `050007${"00".repeat(13)}`, seamAttributes: "0000000000000080" } } }],
  ["a module below every level", "no-tcb-level", { tdx: { report: { teeTcbSvn: `010107${"00".repeat(13)}` } } }],
  ["a revoked module", "revoked", { authority: { tdxTcbInfo: tdxModules(anyLevel("Revoked")) } }],
  ["TCB info without module identities", "wrong-identity", { authority: { tdxTcbInfo: ({ tdxModuleIdentities: _identities, ...good }) => good } }],
  ["a platform below every level", "no-tcb-level", { tdx: { report: { teeTcbSvn: `050105${"00".repeat(13)}` } } }],
] // prettier-ignore

for (const [what, code, change] of tdxRefusals) test(`checkDcap() refuses for TDX ${what}`, () => assertRefuses(() => tdx(change), what, code))

test("checkDcap() leaves alone what the masks of identities leave out", () => {
  const mask = (good: LabDocument): LabDocument => tdxModules((module) => ({ ...module, attributesMask: "FEFFFFFFFFFFFFFF" }))({ ...good })
  assert.equal(tdx({ authority: { tdxTcbInfo: mask }, tdx: { report: { seamAttributes: "0100000000000000" } } }).tcb.status, "UpToDate")
  // MODE64BIT and XFRM of the quoting enclave.
  assert.equal(sgx({ sgx: { qeReport: { attributes: "11000000000000000300000000000000" } } }).tcb.status, "UpToDate")
})

/** Members that break the strict form of TCB info. */
const badInfo: readonly (readonly [what: string, code: string, members: LabDocument])[] = [
  ["an unknown member", "unknown-field", { colour: "red" }],
  ["another version", "malformed", { version: 4 }],
  ["version 2 with an id", "unknown-field", { version: 2 }],
  ["no version", "malformed", { version: undefined }],
  ["another id", "malformed", { id: "QE" }],
  ["no id", "malformed", { id: undefined }],
  ["another TCB type", "malformed", { tcbType: 1 }],
  ["no TCB type", "malformed", { tcbType: undefined }],
  ["a short FMSPC", "malformed", { fmspc: "B0C06F0000" }],
  ["an FMSPC that is no hexadecimal", "malformed", { fmspc: "B0C06F00000G" }],
  ["a PCEID that is a number", "malformed", { pceId: 0 }],
  ["a date without time", "malformed", { issueDate: "2026-05-22" }],
  ["a date that does not exist", "malformed", { issueDate: "2026-13-22T00:00:00Z" }],
  ["a next update before the issue", "malformed", { nextUpdate: "2020-01-01T00:00:00Z" }],
  ["a fraction as evaluation number", "malformed", { tcbEvaluationDataNumber: 1.5 }],
  ["a negative evaluation number", "malformed", { tcbEvaluationDataNumber: -1 }],
  ["levels that are no list", "malformed", { tcbLevels: {} }],
  ["a level that is no object", "malformed", { tcbLevels: [1] }],
  ["a TDX module in SGX", "unknown-field", { tdxModule: {} }],
]

for (const [what, code, members] of badInfo)
  test(`parseTcbInfo() refuses ${what}`, () =>
    assertRefuses(() => sgx({ authority: { sgxTcbInfo: (good) => withMembers(good, members) } }), what, code))

const badLevel: readonly (readonly [what: string, code: string, change: (level: LabDocument) => LabDocument])[] = [
  ["an unknown status", "malformed", (level) => ({ ...level, tcbStatus: "Fine" })],
  ["an unknown member", "unknown-field", (level) => ({ ...level, colour: "red" })],
  ["no date", "malformed", ({ tcbDate: _date, ...level }) => level],
  ["an advisory that is none", "malformed", (level) => ({ ...level, advisoryIDs: ["see web"] })],
  ["15 components", "malformed", (level) => ({ ...level, tcb: { ...(level["tcb"] as LabDocument), sgxtcbcomponents: Array.from({ length: 15 }, () => ({ svn: 0 })) } })],
  ["17 components", "too-large", (level) => ({ ...level, tcb: { ...(level["tcb"] as LabDocument), sgxtcbcomponents: Array.from({ length: 17 }, () => ({ svn: 0 })) } })],
  ["a component above a byte", "malformed", (level) => ({ ...level, tcb: { ...(level["tcb"] as LabDocument), sgxtcbcomponents: Array.from({ length: 16 }, () => ({ svn: 256 })) } })],
  ["a component without SVN", "malformed", (level) => ({ ...level, tcb: { ...(level["tcb"] as LabDocument), sgxtcbcomponents: Array.from({ length: 16 }, () => ({})) } })],
  ["a category that is no text", "malformed", (level) => ({ ...level, tcb: { ...(level["tcb"] as LabDocument), sgxtcbcomponents: Array.from({ length: 16 }, () => ({ svn: 0, category: 1 })) } })],
  ["no PCESVN", "malformed", (level) => ({ ...level, tcb: { sgxtcbcomponents: (level["tcb"] as LabDocument)["sgxtcbcomponents"] } })],
  ["TDX components in SGX", "unknown-field", (level) => ({ ...level, tcb: { ...(level["tcb"] as LabDocument), tdxtcbcomponents: [] } })],
] // prettier-ignore

for (const [what, code, change] of badLevel)
  test(`parseTcbInfo() refuses a level with ${what}`, () => {
    const sgxTcbInfo = (good: LabDocument): LabDocument => ({ ...good, tcbLevels: (good["tcbLevels"] as readonly LabDocument[]).map(change) })
    assertRefuses(() => sgx({ authority: { sgxTcbInfo } }), what, code)
  })

test("parseTcbInfo() refuses TDX levels without TDX components and module identities of another form", () => {
  const withoutComponents = (good: LabDocument): LabDocument => onlyLevel(good, ({ tdxtcbcomponents: _components, ...tcb }) => tcb)
  assertRefuses(() => tdx({ authority: { tdxTcbInfo: withoutComponents } }), "no TDX components", "malformed")
  for (const id of ["TDX_1", "TDX_001", "TDX-01", "tdx_01", "TDX_0G"])
    assertRefuses(() => tdx({ authority: { tdxTcbInfo: tdxModules((module) => ({ ...module, id })) } }), id, "malformed")
  const twice = (good: LabDocument): LabDocument => ({ ...good, tdxModuleIdentities: [...(good["tdxModuleIdentities"] as []), ...(good["tdxModuleIdentities"] as [])] }) // prettier-ignore
  assertRefuses(() => tdx({ authority: { tdxTcbInfo: twice } }), "twice", "duplicate")
  assertRefuses(() => tdx({ authority: { tdxTcbInfo: ({ tdxModule: _module, ...good }) => good } }), "no tdxModule", "malformed")
  const module = { mrsigner: "00".repeat(47), attributes: "0000000000000000", attributesMask: "FFFFFFFFFFFFFFFF" }
  assertRefuses(() => tdx({ authority: { tdxTcbInfo: (good) => ({ ...good, tdxModule: module }) } }), "short MRSIGNER", "malformed")
})

const badIdentity: readonly (readonly [what: string, code: string, members: LabDocument])[] = [
  ["an unknown member", "unknown-field", { colour: "red" }],
  ["another version", "malformed", { version: 3 }],
  ["another id", "malformed", { id: "QVE" }],
  ["a short MISCSELECT", "malformed", { miscselect: "00" }],
  ["a short attribute mask", "malformed", { attributesMask: "FB" }],
  ["no signer", "malformed", { mrsigner: undefined }],
  ["a product above 16 bits", "malformed", { isvprodid: 65_536 }],
  ["both forms at once", "unknown-field", { isvsvn: 1 }],
  ["no levels", "malformed", { tcbLevels: undefined }],
]

for (const [what, code, members] of badIdentity)
  test(`parseQeIdentity() refuses ${what}`, () =>
    assertRefuses(() => sgx({ authority: { qeIdentity: (good) => withMembers(good, members) } }), what, code))

test("splitSignedJson() takes the one form in which PCS signs, and a newline", () => {
  const judge = (change: (text: string) => string): DcapClaims => sgx({ collateral: (good) => ({ ...good, tcbInfo: changedInfo(good, change) }) })
  assert.equal(judge((text) => `${text}\n`).tcb.status, "UpToDate")
  const refused: readonly ((text: string) => string)[] = [
    (text) => `${text}\n\n`,
    (text) => ` ${text}`,
    (text) => `${text} `,
    (text) => text.replace(',"signature"', ', "signature"'),
    (text) => text.replace('"tcbInfo"', '"tcbinfo"'),
    (text) => text.replace(/"signature":"(..)/, '"signature":"'),
    (text) => text.replace(/"signature":"./, '"signature":"g'),
    (text) => `${text.slice(0, -1)},"more":1}`,
    (text) => text.replace(/"signature":"([0-9a-f]+)"/, (_, hex: string) => `"signature":"${hex.toUpperCase()}"`),
    () => "",
    () => "{}",
  ]
  for (const [at, change] of refused.entries()) assertRefuses(() => judge(change), `change ${at}`, at === 9 ? "truncated" : undefined)
  // A body that ends the object early is one document to us and another to nobody: it is refused as JSON, though its signature is right.
  const bodies: readonly (readonly [body: string, code: string])[] = [
    [`{},"tcbInfo":{"version":3}`, "malformed"],
    [`{"version":3,"version":2}`, "duplicate"],
    ["[]", "malformed"],
    ["", "malformed"],
  ]
  for (const [body, code] of bodies) {
    const signed = (good: DcapCollateral, { signingChain }: LabAuthority): DcapCollateral => ({ ...good, tcbInfo: signText("tcbInfo", body, keys.tcbSigning, signingChain) }) // prettier-ignore
    assertRefuses(() => sgx({ collateral: signed }), body, code)
  }
})

function changedInfo(collateral: DcapCollateral, change: (text: string) => string): SignedDocument {
  const { document = new Uint8Array(0), issuerChain = new Uint8Array(0) } = collateral.tcbInfo ?? {}
  return { document: encodeUtf8(change(parseUtf8(document))), issuerChain }
}

test("loadIntelSgxRoot() gives the pinned root", () => {
  const root = loadIntelSgxRoot()
  assert.equal(root.kind, "vendor")
  assert.equal(root.name, "Intel SGX Root CA")
  assert.match(intelSgxRoot.fingerprint, /^sha256:44a0196b/)
})
