import assert from "node:assert/strict"
import { test } from "node:test"
import { AmdAuthority, makeRsaKey } from "../../lab/devices/amd-authority.ts"
import { SnpDevice, type ReportFields } from "../../lab/devices/amd-snp.ts"
import { labPlatform, labTime, makeLabAuthority, makeLabKeys, type LabDocument } from "../../lab/devices/dcap/authority.ts"
import { makeSgxQuote, makeTdxQuote, type SgxKnobs, type TdxKnobs } from "../../lab/devices/dcap/device.ts"
import { certificateFingerprint } from "../pki/certificate.ts"
import { parseCcel, replayCcel } from "../evidence/ccel/format.ts"
import { action, makeLog, separator } from "../evidence/eventlog/log-builder.testing.ts"
import type { ExpectedReportData } from "../evidence/report-data.ts"
import type { TeeEvidence } from "../evidence/tee/format.ts"
import { teeRootsFor } from "../evidence/tee/roots.ts"
import { type GenuineTee, verifyTee } from "../evidence/tee/verify.ts"
import { AcceptedTee, appraiseTee } from "./appraise-tee.ts"
import { ccelQuirksOf, laboratoryRootsOf, type SgxRequirement, type SnpRequirement, type TdxRequirement, type TeeRequirement } from "./tee.ts"

const keys = makeLabKeys()
const intel = makeLabAuthority({ keys })
/** TCB info of the good platform, before it is signed. */
const goodTcbInfo = Buffer.from(intel.tdxCollateral.tcbInfo.document)
  .toString()
  .replace(/^\{"tcbInfo":/, "")
  .replace(/,"signature":"[0-9a-f]+"\}$/, "")
const root = certificateFingerprint(intel.root.certificate)
const reportData = new Uint8Array(64).fill(0x5e)
const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
const milan = new SnpDevice(new AmdAuthority("Milan", { ark, ask, asvk: ask }))
const snpTime = Date.parse("2025-06-01T00:00:00Z")
const amdRoot = certificateFingerprint(milan.root.certificate)
const [a48, b48, zero48] = ["aa".repeat(48), "bb".repeat(48), "00".repeat(48)]

const tdx: TdxRequirement = {
  mrTd: [b48, "4d".repeat(48)],
  rtmrs: { "0": ["a0".repeat(48)], "1": ["a1".repeat(48)], "2": ["a2".repeat(48)], "3": [zero48] },
  mrConfigId: [zero48],
  mrOwner: [zero48],
  mrOwnerConfig: [zero48],
  mrSeam: ["5e".repeat(48)],
  septVeDisable: true,
  migration: false,
  eventLog: "none",
  debug: false,
  tcb: { status: ["UpToDate"], advisories: [], evaluationDataNumber: 18 },
  platforms: [labPlatform.ppid],
  laboratoryRoots: [root],
}

const sgx: SgxRequirement = {
  mrEnclave: ["e1".repeat(32)],
  mrSigner: ["51".repeat(32)],
  isvProdId: 7,
  isvSvn: 3,
  configId: ["00".repeat(64)],
  debug: false,
  tcb: tdx.tcb,
  platforms: [labPlatform.ppid],
  laboratoryRoots: [root],
}

const snp: SnpRequirement = {
  debug: false,
  migration: false,
  measurement: ["4d".repeat(48)],
  hostData: ["00".repeat(32)],
  idKeyDigest: "none",
  authorKeyDigest: "none",
  guestSvn: 0,
  vmpl: [0],
  smt: "any",
  singleSocket: "any",
  products: ["Milan"],
  signingKey: ["vcek"],
  tcb: { bootLoader: 4, tee: 0, snp: 24, microcode: 219 },
  firmware: { major: 1, minor: 55, build: 29 },
  provisional: false,
  chips: [Buffer.from(milan.chipId).toString("hex")],
  laboratoryRoots: [amdRoot],
}

interface Evidence {
  readonly evidence: TeeEvidence
  readonly time: number
}

function tdxEvidence(knobs: TdxKnobs = {}, authority = intel): Evidence {
  const quote = makeTdxQuote(authority, reportData, { version: 5, body: "1.5", ...knobs })
  return { evidence: { kind: "tdx", quote, collateral: authority.tdxCollateral }, time: labTime }
}

function sgxEvidence(knobs: SgxKnobs = {}): Evidence {
  return { evidence: { kind: "sgx", quote: makeSgxQuote(intel, reportData, knobs), collateral: intel.sgxCollateral }, time: labTime }
}

/** As a host hands them out, with the root among them. */
function amdEndorsements(...how: Parameters<SnpDevice["endorsements"]>): ReturnType<SnpDevice["endorsements"]> {
  const { intermediates, ...rest } = milan.endorsements(...how)
  return { ...rest, intermediates: [...intermediates, milan.root.certificate] }
}

function snpEvidence(change: Partial<ReportFields> = {}, endorsements = amdEndorsements()): Evidence {
  return { evidence: { kind: "snp", report: milan.report({ reportData, ...change }), endorsements }, time: snpTime }
}

function genuine({ evidence, time }: Evidence, accept: readonly TeeRequirement[], expected: ExpectedReportData = reportData): GenuineTee {
  const roots = teeRootsFor(evidence, [...laboratoryRootsOf(accept), root, amdRoot])
  return verifyTee(evidence, { reportData: expected, roots, time, ccelQuirks: ccelQuirksOf(accept) })
}

function codes(evidence: Evidence, accept: readonly TeeRequirement[], expected: ExpectedReportData = reportData): readonly string[] {
  const appraisal = appraiseTee(genuine(evidence, accept, expected), accept)
  if (appraisal.outcome === "accepted") return []
  return appraisal.findings.filter(({ effect }) => effect === "refusal").map(({ code, subject }) => `${code} ${subject}`)
}

for (const [name, evidence, accept] of [
  ["tdx", tdxEvidence(), { tdx }],
  ["sgx", sgxEvidence(), { sgx }],
  ["snp", snpEvidence(), { snp }],
] as const) {
  test(`appraiseTee() accepts ${name} evidence that meets every demand, and says INSECURE LABORATORY`, () => {
    const others: readonly TeeRequirement[] = [{ tdx: { ...tdx, mrTd: [a48] } }, accept]
    const appraisal = appraiseTee(genuine(evidence, others), others)
    assert.ok(appraisal instanceof AcceptedTee)
    assert.deepEqual([appraisal.kind, appraisal.alternative, appraisal.insecureLaboratory], [name, 1, true])
    assert.deepEqual(
      appraisal.findings.map(({ code }) => code),
      ["insecure-laboratory"],
    )
  })
}

test("appraiseTee() refuses a kind that nothing accepts, and an empty list", () => {
  assert.deepEqual(codes(tdxEvidence(), [{ sgx }, { snp }]), ["tee-kind-not-accepted TEE"])
  assert.deepEqual(codes(tdxEvidence(), []), ["tee-kind-not-accepted TEE"])
})

test("appraiseTee() does not mix alternatives, and tells what the nearest misses", () => {
  const accept = [{ tdx: { ...tdx, mrTd: [a48] } }, { tdx: { ...tdx, mrSeam: [a48], mrOwner: [a48] } }]
  assert.deepEqual(codes(tdxEvidence(), accept), ["tee-measurement-differs MRTD"])
  assert.deepEqual(codes(tdxEvidence(), accept.toReversed()), ["tee-measurement-differs MRTD"])
})

/** Evidence that differs from the good one in one thing, or a demand that does: exactly this is refused. */
const tdxCases: readonly (readonly [string, Evidence, Partial<TdxRequirement>])[] = [
  ["tee-measurement-differs MRTD", tdxEvidence({ report: { mrTd: a48 } }), {}],
  ["tee-measurement-differs RTMR0", tdxEvidence(), { rtmrs: { ...tdx.rtmrs, "0": [a48] } }],
  ["tee-measurement-differs RTMR1", tdxEvidence(), { rtmrs: { ...tdx.rtmrs, "1": [a48] } }],
  ["tee-measurement-differs RTMR2", tdxEvidence(), { rtmrs: { ...tdx.rtmrs, "2": [a48] } }],
  ["tee-measurement-differs RTMR3", tdxEvidence(), { rtmrs: { ...tdx.rtmrs, "3": [a48] } }],
  ["tee-measurement-differs MRCONFIGID", tdxEvidence({ report: { mrConfigId: a48 } }), {}],
  ["tee-measurement-differs MROWNER", tdxEvidence({ report: { mrOwner: a48 } }), {}],
  ["tee-measurement-differs MROWNERCONFIG", tdxEvidence({ report: { mrOwnerConfig: a48 } }), {}],
  ["tee-measurement-differs MRSEAM", tdxEvidence(), { mrSeam: [a48] }],
  ["tee-setting-differs SEPT_VE_DISABLE", tdxEvidence({ report: { tdAttributes: "0000000000000000" } }), {}],
  ["tee-debug debug", tdxEvidence({ report: { tdAttributes: "0100001000000000" } }), {}],
  ["tee-migration-possible MIGRATABLE", tdxEvidence({ report: { tdAttributes: "0000003000000000" } }), {}],
  ["tee-migration-possible MRSERVICETD", tdxEvidence({ report: { mrServiceTd: a48 } }), {}],
  ["tee-log-missing CC event log", tdxEvidence(), { eventLog: { quirks: [] } }],
  ["tee-platform-not-listed PPID", tdxEvidence(), { platforms: ["00".repeat(16)] }],
  ["tee-tcb-not-accepted tcbEvaluationDataNumber", tdxEvidence(), { tcb: { ...tdx.tcb, evaluationDataNumber: 19 } }],
  ["laboratory-root-not-accepted TEE root", tdxEvidence(), { laboratoryRoots: [] }],
]
for (const [expected, evidence, change] of tdxCases)
  test(`appraiseTee() refuses a TD for ${expected} alone`, () => assert.deepEqual(codes(evidence, [{ tdx: { ...tdx, ...change } }]), [expected]))

/** A boot of a TD whose firmware logs no Secure Boot variables, as td-shim's; with events of RTMR3 or without. */
function loggedTd(rtmr3: string): { readonly evidence: Evidence; readonly rtmrs: TdxRequirement["rtmrs"] } {
  const exits = ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"].map((line) => action(2, line))
  const eventLog = makeLog([separator(1), separator(2), ...exits], ["sha384"])
  const [r0 = "", r1 = "", r2 = ""] = replayCcel(parseCcel(eventLog)).map((register) => Buffer.from(register).toString("hex"))
  const { evidence, time } = tdxEvidence({ report: { rtmrs: [r0, r1, r2, rtmr3] } })
  return { evidence: { evidence: { ...evidence, eventLog } as TeeEvidence, time }, rtmrs: { "0": [r0], "1": [r1], "2": [r2], "3": [rtmr3] } }
}

const shim = "secure-boot-variables-missing"

test("appraiseTee() judges a firmware's fault by the list of the alternative, not of another, and tells of it where it is accepted", () => {
  const { evidence, rtmrs } = loggedTd(zero48)
  const [strict, lenient] = [[], [shim] as const].map((quirks): TeeRequirement => ({ tdx: { ...tdx, rtmrs, eventLog: { quirks } } }))
  assert.ok(strict !== undefined && lenient !== undefined)
  const elsewhere = { tdx: { ...(lenient as { readonly tdx: TdxRequirement }).tdx, mrTd: [a48], mrOwner: [a48] } }
  assert.deepEqual(codes(evidence, [strict, elsewhere]), ["boot-quirk-not-accepted CC event log"])
  const appraisal = appraiseTee(genuine(evidence, [strict, lenient]), [strict, lenient])
  assert.ok(appraisal instanceof AcceptedTee)
  assert.equal(appraisal.alternative, 1)
  assert.deepEqual(appraisal.findings.map(({ code }) => code).toSorted(), ["boot-quirk-accepted", "insecure-laboratory"])
})

test("appraiseTee() refuses an RTMR3 that the log does not explain, unless nobody looks at it", () => {
  const { evidence, rtmrs } = loggedTd("a3".repeat(48))
  const eventLog = { quirks: [shim] } as const
  assert.deepEqual(codes(evidence, [{ tdx: { ...tdx, rtmrs, eventLog } }]), ["tee-log-missing RTMR3"])
  assert.deepEqual(codes(evidence, [{ tdx: { ...tdx, rtmrs: { ...rtmrs, "3": "any" }, eventLog } }]), [])
})

test("appraiseTee() looks at no value of a TD of which the policy says any", () => {
  const rtmrs = { "0": "any", "1": "any", "2": "any", "3": "any" } as const
  const anything = { rtmrs, mrConfigId: "any", mrOwner: "any", mrOwnerConfig: "any", mrSeam: "any", septVeDisable: "any", platforms: "any" } as const
  const other = tdxEvidence({ report: { mrConfigId: a48, mrOwner: a48, mrOwnerConfig: a48, tdAttributes: "0000000000000000" } })
  assert.deepEqual(codes(other, [{ tdx: { ...tdx, ...anything } }]), [])
})

test("appraiseTee() holds patch level and advisories against what the policy puts up with", () => {
  const components = labPlatform.components.map((svn) => Math.max(svn - 1, 0))
  const platform = { platform: { components, pceSvn: labPlatform.pceSvn - 1 } }
  // Intel's documents are of the good platform, so this one is below its first level.
  const older = makeLabAuthority({ keys, ...platform, tdxTcbInfo: () => JSON.parse(goodTcbInfo) as LabDocument })
  const evidence = tdxEvidence({}, older)
  const laboratoryRoots = [certificateFingerprint(older.root.certificate)]
  const demand = (tcb: Partial<TdxRequirement["tcb"]>): readonly TeeRequirement[] => [
    { tdx: { ...tdx, laboratoryRoots, tcb: { ...tdx.tcb, ...tcb } } },
  ]
  const open = ["tee-tcb-not-accepted security advisory", "tee-tcb-not-accepted security advisory"]
  assert.deepEqual(codes(evidence, demand({})), ["tee-tcb-not-accepted TCB status", ...open])
  assert.deepEqual(codes(evidence, demand({ status: ["UpToDate", "OutOfDate"] })), open)
  assert.deepEqual(codes(evidence, demand({ status: ["OutOfDate"], advisories: ["INTEL-SA-00001"] })), open.slice(1))
  assert.deepEqual(codes(evidence, demand({ status: ["OutOfDate"], advisories: ["INTEL-SA-00001", "INTEL-SA-00002"] })), [])
  assert.deepEqual(codes(evidence, demand({ status: ["OutOfDate"], advisories: "any" })), [])
})

test("appraiseTee() refuses each piece of missing collateral, whatever else is allowed", () => {
  const good = tdxEvidence()
  assert.ok(good.evidence.kind === "tdx")
  const { rootCrl, pckCrl, tcbInfo, qeIdentity } = intel.tdxCollateral
  const cases = {
    "TCB info": { rootCrl, pckCrl, qeIdentity },
    "QE identity": { rootCrl, pckCrl, tcbInfo },
    "root CA CRL": { pckCrl, tcbInfo, qeIdentity },
    "PCK CRL": { rootCrl, tcbInfo, qeIdentity },
  }
  for (const [name, collateral] of Object.entries(cases)) {
    const found = codes({ evidence: { ...good.evidence, collateral }, time: labTime }, [{ tdx: { ...tdx, tcb: { ...tdx.tcb, advisories: "any" } } }])
    assert.ok(found.includes(`tee-collateral-missing ${name}`), `${name}: ${found.join()}`)
  }
})

test("appraiseTee() refuses evidence whose report data nobody compared", () => {
  assert.deepEqual(codes(tdxEvidence(), [{ tdx }], "as-signed"), ["tee-not-bound report data"])
  assert.deepEqual(codes(sgxEvidence(), [{ sgx }], "as-signed"), ["tee-not-bound report data"])
  assert.deepEqual(codes(snpEvidence(), [{ snp }], "as-signed"), ["tee-not-bound report data"])
})

const sgxCases: readonly (readonly [string, Evidence, Partial<SgxRequirement>])[] = [
  ["tee-measurement-differs MRENCLAVE", sgxEvidence({ report: { mrEnclave: "aa".repeat(32) } }), {}],
  ["tee-measurement-differs MRSIGNER", sgxEvidence({ report: { mrSigner: "aa".repeat(32) } }), {}],
  ["tee-measurement-differs CONFIGID", sgxEvidence({ report: { configId: "aa".repeat(64) } }), {}],
  ["tee-measurement-differs ISVPRODID", sgxEvidence({ report: { isvProdId: 8 } }), {}],
  ["tee-measurement-differs ISVSVN", sgxEvidence({ report: { isvSvn: 2 } }), {}],
  ["tee-debug debug", sgxEvidence({ report: { attributes: "0700000000000000e700000000000000" } }), {}],
  ["tee-platform-not-listed PPID", sgxEvidence(), { platforms: ["00".repeat(16)] }],
  ["laboratory-root-not-accepted TEE root", sgxEvidence(), { laboratoryRoots: [amdRoot] }],
]
for (const [expected, evidence, change] of sgxCases)
  test(`appraiseTee() refuses an enclave for ${expected} alone`, () =>
    assert.deepEqual(codes(evidence, [{ sgx: { ...sgx, ...change } }]), [expected]))

test("appraiseTee() takes a later ISVSVN, and any product where the policy says so", () => {
  assert.deepEqual(codes(sgxEvidence({ report: { isvSvn: 4, isvProdId: 9 } }), [{ sgx: { ...sgx, isvProdId: "any" } }]), [])
})

const snpPolicy = milan.fields().policy
const snpCases: readonly (readonly [string, Evidence, Partial<SnpRequirement>])[] = [
  ["tee-measurement-differs MEASUREMENT", snpEvidence({ measurement: new Uint8Array(48).fill(1) }), {}],
  ["tee-measurement-differs HOST_DATA", snpEvidence({ hostData: new Uint8Array(32).fill(1) }), {}],
  ["tee-measurement-differs ID_KEY_DIGEST", snpEvidence({ idKeyDigest: new Uint8Array(48).fill(1) }), {}],
  ["tee-measurement-differs ID_KEY_DIGEST", snpEvidence(), { idKeyDigest: [a48] }],
  ["tee-measurement-differs AUTHOR_KEY_DIGEST", snpEvidence(), { authorKeyDigest: [a48] }],
  ["tee-measurement-differs ID_KEY_DIGEST", snpEvidence({ idKeyDigest: new Uint8Array(48).fill(1) }), { idKeyDigest: [a48] }],
  [
    "tee-measurement-differs AUTHOR_KEY_DIGEST",
    snpEvidence({ idKeyDigest: new Uint8Array(48).fill(1), authorKeyDigest: new Uint8Array(48).fill(2), authorKeyEn: true }),
    { idKeyDigest: ["01".repeat(48)], authorKeyDigest: [a48] },
  ],
  ["tee-measurement-differs GUEST_SVN", snpEvidence(), { guestSvn: 1 }],
  ["tee-setting-differs VMPL", snpEvidence({ vmpl: 1 }), {}],
  ["tee-debug debug", snpEvidence({ policy: { ...snpPolicy, debug: true } }), {}],
  ["tee-migration-possible MIGRATE_MA", snpEvidence({ policy: { ...snpPolicy, migrateMa: true } }), {}],
  ["tee-migration-possible MIGRATE_MA", snpEvidence({ reportIdMa: new Uint8Array(32).fill(1) }), {}],
  ["tee-setting-differs SMT", snpEvidence(), { smt: false }],
  ["tee-setting-differs SINGLE_SOCKET", snpEvidence(), { singleSocket: true }],
  ["tee-platform-not-listed product", snpEvidence(), { products: ["Genoa"] }],
  ["tee-setting-differs SIGNING_KEY", snpEvidence({ signingKey: "vlek" }, amdEndorsements("vlek")), {}],
  ["tee-tcb-not-accepted COMMITTED firmware", snpEvidence(), { firmware: { major: 1, minor: 55, build: 30 } }],
  ["tee-tcb-not-accepted COMMITTED firmware", snpEvidence(), { firmware: { major: 1, minor: 56, build: 0 } }],
  ["tee-tcb-not-accepted COMMITTED firmware", snpEvidence(), { firmware: { major: 2, minor: 0, build: 0 } }],
  ["tee-tcb-not-accepted firmware", snpEvidence({ currentFirmware: { major: 1, minor: 56, build: 1 } }), {}],
  ["tee-platform-not-listed CHIP_ID", snpEvidence(), { chips: ["00".repeat(64)] }],
  ["tee-collateral-missing AMD's revocation list", snpEvidence({}, amdEndorsements("vcek", {}, [])), {}],
  ["laboratory-root-not-accepted TEE root", snpEvidence(), { laboratoryRoots: [root] }],
]
for (const [at, [expected, evidence, change]] of snpCases.entries())
  test(`appraiseTee() refuses an SNP guest for ${expected} alone (${at})`, () =>
    assert.deepEqual(codes(evidence, [{ snp: { ...snp, ...change } }]), [expected]))

test("appraiseTee() holds each patch level of an SNP platform, reported and at launch, against its floor", () => {
  for (const component of ["bootLoader", "tee", "snp", "microcode"] as const) {
    const floor = { ...snp.tcb, [component]: (snp.tcb[component] ?? 0) + 1 }
    assert.deepEqual(codes(snpEvidence(), [{ snp: { ...snp, tcb: floor } }]), [
      `tee-tcb-not-accepted REPORTED_TCB ${component}`,
      `tee-tcb-not-accepted LAUNCH_TCB ${component}`,
    ])
  }
  const older = snpEvidence({ launchTcb: milan.encodeTcb({ ...milan.tcb, snp: 23 }) })
  assert.deepEqual(codes(older, [{ snp }]), ["tee-tcb-not-accepted LAUNCH_TCB snp"])
})

test("appraiseTee() takes the keys of an SNP guest that are listed or any, later firmware, and firmware on trial where the policy says so", () => {
  const keys = { idKeyDigest: new Uint8Array(48).fill(1) }
  for (const idKeyDigest of [["01".repeat(48)], "any"] as const) assert.deepEqual(codes(snpEvidence(keys), [{ snp: { ...snp, idKeyDigest } }]), [])
  for (const firmware of [
    { major: 1, minor: 54, build: 99 },
    { major: 0, minor: 99, build: 99 },
  ])
    assert.deepEqual(codes(snpEvidence(), [{ snp: { ...snp, firmware } }]), [])
  const onTrial = snpEvidence({ currentFirmware: { major: 1, minor: 56, build: 1 } })
  assert.deepEqual(codes(onTrial, [{ snp: { ...snp, provisional: "any" } }]), [])
})

test("AcceptedTee is made by appraiseTee() only", () => {
  const facts = { kind: "tdx", alternative: 0, findings: [], insecureLaboratory: false } as const
  const made = AcceptedTee as unknown as new (key: unknown, given: typeof facts) => AcceptedTee
  for (const key of [undefined, Symbol("made by appraiseTee")]) assert.throws(() => new made(key, facts), TypeError)
})
