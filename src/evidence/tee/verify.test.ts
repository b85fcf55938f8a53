import assert from "node:assert/strict"
import { test } from "node:test"
import { AmdAuthority, makeRsaKey } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeSgxQuote, makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { PerunError } from "../../bytes/error.ts"
import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { certificateFingerprint } from "../../pki/certificate.ts"
import type { CcelClaims, CcelEvent } from "../ccel/claims.ts"
import { parseCcel, replayCcel } from "../ccel/format.ts"
import type { CcelQuirk } from "../ccel/verify.ts"
import { action, image, makeLog, separator, variable } from "../eventlog/log-builder.testing.ts"
import type { EventInput } from "../eventlog/log-builder.testing.ts"
import { Genuine } from "../genuine.ts"
import type { ExpectedReportData } from "../report-data.ts"
import { encodeTeeEvidence, parseTeeEvidence } from "./format.ts"
import type { TeeEvidence } from "./format.ts"
import type { HardwareEvidence, SgxTeeEvidence, SnpTeeEvidence, TdxTeeEvidence } from "./hardware.ts"
import { hardwareClaims } from "./identity.ts"
import { teeRootsFor, vendorTeeRoots } from "./roots.ts"
import { verifyTee } from "./verify.ts"
import type { GenuineTee } from "./verify.ts"

const intel = makeLabAuthority({ keys: makeLabKeys() })
const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
const milan = new SnpDevice(new AmdAuthority("Milan", { ark, ask, asvk: ask }))
const laboratoryRoots = [intel.root, milan.root].map(({ certificate }) => certificateFingerprint(certificate))
const snpTime = Date.parse("2025-06-01T00:00:00Z")
const reportData = new Uint8Array(64).fill(0x5e)

/** A boot of a TD as its firmware logs it: register 1 is RTMR0. */
const boot: readonly EventInput[] = [
  ...["SecureBoot", "PK", "KEK", "db", "dbx"].map((name) => variable(name, Uint8Array.of(1), "EV_EFI_VARIABLE_DRIVER_CONFIG", 1)),
  separator(1),
  separator(2),
  variable("db", Uint8Array.of(2), "EV_EFI_VARIABLE_AUTHORITY", 1),
  { ...image("shim"), pcr: 2 },
  action(2, "Exit Boot Services Invocation"),
  action(2, "Exit Boot Services Returned with Success"),
]
const log = (events: readonly EventInput[]): Uint8Array => makeLog(events, ["sha384"])

function tdxOf(events: readonly EventInput[], sent: Uint8Array = log(events)): TdxTeeEvidence {
  const [r0 = "", r1 = "", r2 = "", r3 = ""] = replayCcel(parseCcel(log(events))).map(encodeHex)
  const quote = makeTdxQuote(intel, reportData, { report: { rtmrs: [r0, r1, r2, r3] } })
  return { kind: "tdx", quote, collateral: intel.tdxCollateral, eventLog: sent }
}

const { intermediates, ...ofKey } = milan.endorsements()
const tdx = tdxOf(boot)
const sgx: SgxTeeEvidence = { kind: "sgx", quote: makeSgxQuote(intel, reportData), collateral: intel.sgxCollateral }
const snp: SnpTeeEvidence = {
  kind: "snp",
  report: milan.report({ reportData }),
  endorsements: { ...ofKey, intermediates: [...intermediates, milan.root.certificate] },
}

interface How {
  readonly reportData?: ExpectedReportData
  readonly quirks?: readonly CcelQuirk[]
  readonly time?: number
}

function verify(evidence: TeeEvidence, how: How = {}): GenuineTee {
  return verifyTee(evidence, {
    reportData: how.reportData ?? reportData,
    roots: teeRootsFor(evidence, laboratoryRoots),
    time: how.time ?? (evidence.kind === "snp" ? snpTime : labTime),
    ccelQuirks: how.quirks ?? [],
  })
}

function isBound({ kind, tee }: GenuineTee): boolean {
  return kind === "azure-vtpm" ? tee.claims.isNonceChecked : tee.claims.isReportDataChecked
}

for (const evidence of [sgx, tdx, snp]) {
  test(`verifyTee() proves ${evidence.kind} evidence, as it was made and as it travelled`, () => {
    const genuine = verify(evidence)
    assert.equal(genuine.kind, evidence.kind)
    assert.ok(genuine.tee instanceof Genuine)
    assert.equal(isBound(genuine), true)
    assert.deepEqual(verify(parseTeeEvidence(JSON.stringify(encodeTeeEvidence(evidence)))).tee.claims, genuine.tee.claims)
  })

  test(`verifyTee() refuses ${evidence.kind} evidence over other report data, and says where none was compared`, () => {
    assert.throws(() => verify(evidence, { reportData: new Uint8Array(64) }), { code: "wrong-nonce" })
    assert.equal(isBound(verify(evidence, { reportData: "as-signed" })), false)
  })

  test(`verifyTee() refuses ${evidence.kind} evidence under the vendors' roots alone, and at another time`, () => {
    const expected = { reportData, time: evidence.kind === "snp" ? snpTime : labTime, ccelQuirks: [] }
    // AMD's root is found by name, so that it is the signature that does not fit.
    const code = evidence.kind === "snp" ? "wrong-signature" : "wrong-chain"
    assert.throws(() => verifyTee(evidence, { ...expected, roots: vendorTeeRoots() }), { code })
    assert.throws(() => verify(evidence, { time: Date.parse("2045-01-01T00:00:00Z") }), { code: "expired" })
  })
}

/** A byte string of evidence: its name, what it is, and the evidence with another in its place. */
type Part = readonly [name: string, bytes: Uint8Array, put: (bytes: Uint8Array) => TeeEvidence]

function dcapParts(evidence: HardwareEvidence): readonly Part[] {
  if (evidence.kind === "snp" || evidence.collateral === undefined) return []
  const { collateral } = evidence
  const { tcbInfo, qeIdentity, rootCrl, pckCrl } = collateral
  assert.ok(tcbInfo !== undefined && qeIdentity !== undefined && rootCrl !== undefined && pckCrl !== undefined)
  return [
    ["quote", evidence.quote, (quote) => ({ ...evidence, quote })],
    ["TCB info", tcbInfo.document, (document) => ({ ...evidence, collateral: { ...collateral, tcbInfo: { ...tcbInfo, document } } })],
    ["QE identity", qeIdentity.document, (document) => ({ ...evidence, collateral: { ...collateral, qeIdentity: { ...qeIdentity, document } } })],
    ["root CRL", rootCrl, (bytes) => ({ ...evidence, collateral: { ...collateral, rootCrl: bytes } })],
    ["PCK CRL", pckCrl, (bytes) => ({ ...evidence, collateral: { ...collateral, pckCrl: bytes } })],
  ]
}

const parts: readonly (readonly [kind: string, ...part: Part])[] = [
  ...dcapParts(sgx).map((part) => ["sgx", ...part] as const),
  ...dcapParts(tdx).map((part) => ["tdx", ...part] as const),
  ["snp", "report", snp.report, (report) => ({ ...snp, report })],
]

/** Each bit is tried by the room of its kind; here a sample of them, for the parts must all arrive there. */
const stride = 61
for (const [kind, name, bytes, put] of parts)
  test(`verifyTee() refuses flipped bits in, and prefixes of, ${name} of ${kind} evidence`, () => {
    verify(put(bytes))
    for (let at = 0; at < bytes.length; at += stride) {
      const flipped = bytes.map((byte, place) => (place === at ? byte ^ (1 << (at % 8)) : byte))
      assert.throws(() => verify(put(flipped)), PerunError, `byte ${at} of ${bytes.length}`)
      assert.throws(() => verify(put(bytes.slice(0, at))), PerunError, `${at} of ${bytes.length} bytes`)
    }
  })

test("verifyTee() refuses prefixes of a TD's log, and flipped bits that change what it says", () => {
  const good = claimsOfLog(tdx)
  const whole = log(boot)
  let refused = 0
  for (let at = 0; at < whole.length; at++) {
    assert.throws(() => verify({ ...tdx, eventLog: whole.slice(0, at) }), PerunError, `${at} of ${whole.length} bytes`)
    const eventLog = whole.map((byte, place) => (place === at ? byte ^ (1 << (at % 8)) : byte))
    try {
      // The log's own head is measured nowhere.
      const { events, images, ...rest } = claimsOfLog({ ...tdx, eventLog })
      const { events: goodEvents, images: goodImages, ...goodRest } = good
      assert.deepEqual(rest, goodRest, `byte ${at}`)
      // Nor is an event's type: under another one its digest stays, and an image that no policy knows is one more.
      const relabelled = events.filter(({ type }, place) => type !== goodEvents[place]?.type)
      const same = (event: CcelEvent): boolean => !relabelled.some(({ index }) => index === event.index)
      assert.deepEqual(events.filter(same), goodEvents.filter(same), `byte ${at}`)
      const digests = (list: readonly CcelEvent[]): readonly string[] => list.map(({ digest }) => digest)
      assert.deepEqual(digests(events), digests(goodEvents), `byte ${at}`)
      const more = digests(relabelled.filter(({ rtmr, certified }) => rtmr === 1 && !certified))
      assert.deepEqual(new Set(images), new Set([...goodImages, ...more]), `byte ${at}`)
    } catch (error) {
      if (!(error instanceof PerunError)) throw error
      refused++
    }
  }
  assert.ok(refused > whole.length / 2, `${refused} of ${whole.length} refused`)
})

function claimsOfLog(evidence: TeeEvidence): CcelClaims {
  const genuine = verify(evidence)
  assert.ok(genuine.kind === "tdx" && genuine.log !== undefined)
  return genuine.log.claims
}

test("verifyTee() claims that collateral is missing, all of it or one piece", () => {
  for (const evidence of [sgx, tdx]) {
    const { collateral, ...bare } = evidence
    const missing = (given: TeeEvidence): readonly string[] => {
      const genuine = verify(given)
      const claims = hardwareClaims(genuine)
      return claims.kind === "snp" ? [] : claims.dcap.missingCollateral
    }
    assert.deepEqual(missing(evidence), [])
    assert.equal(missing(bare).length, 4)
    for (const name of ["tcbInfo", "qeIdentity", "rootCrl", "pckCrl"] as const) {
      const { [name]: _, ...rest } = collateral ?? {}
      assert.equal(missing({ ...evidence, collateral: rest }).length, 1, name)
    }
  }
})

test("verifyTee() refuses an SEV-SNP report without certificates, and claims that a revocation list is missing", () => {
  assert.ok(snp.endorsements !== undefined)
  assert.throws(() => verify({ kind: "snp", report: snp.report }), { code: "missing-piece", path: "evidence.endorsements" })
  const genuine = verify({ ...snp, endorsements: { ...snp.endorsements, revocationLists: [] } })
  assert.ok(genuine.kind === "snp")
  assert.equal(genuine.tee.claims.endorsement.isRevocationChecked, false)
})

test("verifyTee() takes a TD without its log, and gives none then", () => {
  const { eventLog: _, ...without } = tdx
  const genuine = verify(without)
  assert.ok(genuine.kind === "tdx")
  assert.ok(!("log" in genuine))
  const logged = verify(tdx)
  assert.ok(logged.kind === "tdx" && logged.log instanceof Genuine)
})

test("verifyTee() refuses a log that explains the registers of another quote", () => {
  const other = log(boot.filter(({ type }) => type !== "EV_EFI_BOOT_SERVICES_APPLICATION"))
  assert.throws(() => verify({ ...tdx, eventLog: other }), { code: "pcr-mismatch" })
  assert.throws(() => verify({ ...tdx, quote: makeTdxQuote(intel, reportData) }), { code: "pcr-mismatch" })
})

test("verifyTee() takes a firmware's fault by name only", () => {
  const faulty = tdxOf(boot.filter(({ pcr, type }) => pcr !== 1 || type === "EV_SEPARATOR"))
  assert.throws(() => verify(faulty), PerunError)
  const genuine = verify(faulty, { quirks: ["secure-boot-variables-missing"] })
  assert.ok(genuine.kind === "tdx")
  assert.deepEqual(genuine.log?.claims.quirks, ["secure-boot-variables-missing"])
})

test("verifyTee() reads a log that begins with a bracket as a guest agent's JSON, and any other as the firmware's table", () => {
  assert.throws(() => verify({ ...tdx, eventLog: encodeUtf8("[]") }), { code: "pcr-mismatch" })
  assert.throws(() => verify({ ...tdx, eventLog: encodeUtf8("[") }), { name: "MalformedError" })
  assert.throws(() => verify({ ...tdx, eventLog: encodeUtf8(" []") }), { name: "MalformedError" })
  assert.throws(() => verify({ ...tdx, eventLog: new Uint8Array(0) }), { name: "MalformedError" })
})

test("verifyTee() does not take one kind's evidence for another's", () => {
  assert.throws(() => verify({ ...sgx, quote: tdx.quote }), PerunError)
  assert.throws(() => verify({ ...tdx, quote: sgx.quote }), PerunError)
  assert.throws(() => verify({ ...snp, report: sgx.quote }), PerunError)
  assert.throws(() => verify({ ...tdx, collateral: intel.sgxCollateral }), PerunError)
})
