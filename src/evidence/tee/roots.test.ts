import assert from "node:assert/strict"
import { test } from "node:test"
import { AmdAuthority, amdName, makeRsaKey } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import { makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeSgxQuote, makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import type { Digest } from "../../bytes/digest.ts"
import { encodeUtf8 } from "../../bytes/text.ts"
import { certificateFingerprint, parseCertificate } from "../../pki/certificate.ts"
import { intelSgxRoot } from "../dcap/roots.ts"
import type { SnpProduct } from "../snp/products.ts"
import { amdRootTable } from "../snp/roots.ts"
import type { TeeEvidence } from "./format.ts"
import { teeRootsFor, vendorTeeRoots } from "./roots.ts"

const reportData = new Uint8Array(64)
const intel = makeLabAuthority({ keys: makeLabKeys() })
const intelPrint = certificateFingerprint(intel.root.certificate)
const strangerPrint = certificateFingerprint(makeLabAuthority().root.certificate)
const [ark, ask] = await Promise.all([makeRsaKey(2048), makeRsaKey(2048)])
const amdKeys = { ark, ask, asvk: ask }

function snpEvidence(authority: AmdAuthority): TeeEvidence {
  const device = new SnpDevice(authority)
  const { intermediates, ...rest } = device.endorsements()
  const endorsements = { ...rest, intermediates: [...intermediates, parseCertificate(authority.ark)] }
  return { kind: "snp", report: device.report({ reportData }), endorsements }
}

const milan = new AmdAuthority("Milan", amdKeys)
const arkPrint = certificateFingerprint(parseCertificate(milan.ark))
const sgx: TeeEvidence = { kind: "sgx", quote: makeSgxQuote(intel, reportData), collateral: intel.sgxCollateral }
const tdx: TeeEvidence = { kind: "tdx", quote: makeTdxQuote(intel, reportData), collateral: intel.tdxCollateral }
const snp = snpEvidence(milan)

/** A quote that names its PCK without carrying the certificate. */
const named = (): { readonly type: number; readonly data: Uint8Array } => ({ type: 3, data: new Uint8Array(36) })

/** Fingerprints of laboratory roots that count. */
function laboratory(evidence: TeeEvidence, prints: readonly Digest[]): { readonly dcap: readonly Digest[]; readonly snp: readonly Digest[] } {
  const { dcap, snp } = teeRootsFor(evidence, prints)
  const found = (roots: typeof dcap | typeof snp): readonly Digest[] =>
    roots.filter(({ kind }) => kind === "laboratory").map((root) => certificateFingerprint(root.certificate))
  return { dcap: found(dcap), snp: found(snp) }
}

test("vendorTeeRoots() are Intel's and AMD's pinned ones, all marked vendor", () => {
  const { dcap, snp } = vendorTeeRoots()
  assert.deepEqual(
    [...dcap, ...snp].map(({ certificate }) => certificateFingerprint(certificate)),
    [intelSgxRoot.fingerprint, ...amdRootTable.map(({ fingerprint }) => fingerprint)],
  )
  assert.ok([...dcap, ...snp].every(({ kind }) => kind === "vendor"))
})

for (const evidence of [sgx, tdx, snp]) {
  test(`teeRootsFor() never takes a root that ${evidence.kind} evidence carries and nobody named`, () => {
    for (const prints of [[], [strangerPrint], [evidence.kind === "snp" ? intelPrint : arkPrint]])
      assert.deepEqual(laboratory(evidence, prints), { dcap: [], snp: [] })
    assert.equal(teeRootsFor(evidence, []), vendorTeeRoots())
  })

  test(`teeRootsFor() takes the named root of ${evidence.kind} evidence beside the vendors', for its own hierarchy only`, () => {
    const isAmd = evidence.kind === "snp"
    const print = isAmd ? arkPrint : intelPrint
    assert.deepEqual(laboratory(evidence, [strangerPrint, print]), isAmd ? { dcap: [], snp: [print] } : { dcap: [print], snp: [] })
    const { dcap, snp } = teeRootsFor(evidence, [print])
    const vendor = vendorTeeRoots()
    assert.deepEqual(dcap.slice(0, vendor.dcap.length), vendor.dcap)
    assert.deepEqual(snp.slice(0, vendor.snp.length), vendor.snp)
    assert.match((isAmd ? snp : dcap).at(-1)?.name ?? "", /^INSECURE LABORATORY sha256:/)
  })
}

test("teeRootsFor() leaves the pinned roots as they were", () => {
  const before = { dcap: [...vendorTeeRoots().dcap], snp: [...vendorTeeRoots().snp] }
  for (const [evidence, print] of [[tdx, intelPrint], [snp, arkPrint]] as const) teeRootsFor(evidence, [print]) // prettier-ignore
  assert.deepEqual(vendorTeeRoots(), before)
})

test("teeRootsFor() makes a vendor's root that is named a vendor's still, where the evidence lacks it", () => {
  assert.deepEqual(laboratory(tdx, [intelSgxRoot.fingerprint]), { dcap: [], snp: [] })
})

test("teeRootsFor() reads the PCK chain of the collateral only where the quote carries none", () => {
  const other = makeLabAuthority()
  const otherPrint = certificateFingerprint(other.root.certificate)
  for (const kind of ["sgx", "tdx"] as const) {
    const [make, collateral] = kind === "sgx" ? [makeSgxQuote, intel.sgxCollateral] as const : [makeTdxQuote, intel.tdxCollateral] as const // prettier-ignore
    const carrying: TeeEvidence = { kind, quote: make(intel, reportData), collateral: { ...collateral, pckChain: other.pckChain } }
    assert.deepEqual(laboratory(carrying, [otherPrint, intelPrint]).dcap, [intelPrint])
    const quote = make(intel, reportData, { certification: named })
    assert.deepEqual(laboratory({ kind, quote, collateral: { ...collateral, pckChain: intel.pckChain } }, [intelPrint]).dcap, [intelPrint])
    assert.deepEqual(laboratory({ kind, quote, collateral }, [intelPrint]).dcap, [])
    assert.deepEqual(laboratory({ kind, quote }, [intelPrint]).dcap, [])
  }
})

test("teeRootsFor() takes a chain that ends in a zero byte, as quotes carry it, and bounds it", () => {
  const quote = makeTdxQuote(intel, reportData, { certification: named })
  const of = (pckChain: Uint8Array): TeeEvidence => ({ kind: "tdx", quote, collateral: { ...intel.tdxCollateral, pckChain } })
  assert.deepEqual(laboratory(of(Uint8Array.from([...intel.pckChain, 0])), [intelPrint]).dcap, [intelPrint])
  assert.throws(() => teeRootsFor(of(new Uint8Array(16_385).fill(0x0a)), [intelPrint]), { code: "too-large", path: "PCK chain" })
  assert.throws(() => teeRootsFor(of(Uint8Array.of(0xff)), [intelPrint]), { name: "MalformedError" })
  assert.deepEqual(laboratory(of(encodeUtf8("no certificate")), [intelPrint]).dcap, [])
})

test("teeRootsFor() lets a root of AMD's kind count for the product that it is named for, and no other", () => {
  for (const product of ["Milan", "Genoa", "Turin"] as SnpProduct[]) {
    const authority = new AmdAuthority(product, amdKeys)
    const print = certificateFingerprint(parseCertificate(authority.ark))
    const roots = teeRootsFor(snpEvidence(authority), [print]).snp.filter(({ kind }) => kind === "laboratory")
    assert.deepEqual(roots.map((root) => root.product), [product]) // prettier-ignore
  }
  const nameless = new AmdAuthority("Milan", amdKeys, { ark: { subject: amdName("ARK-Other") } })
  assert.deepEqual(laboratory(snpEvidence(nameless), [certificateFingerprint(parseCertificate(nameless.ark))]).snp, [])
})

test("teeRootsFor() does not take the certificate of a report's key for a root, nor any without endorsements", () => {
  assert.ok(snp.kind === "snp" && snp.endorsements !== undefined)
  const { signer } = snp.endorsements
  assert.deepEqual(laboratory(snp, [certificateFingerprint(signer)]).snp, [])
  assert.deepEqual(laboratory({ kind: "snp", report: snp.report }, [arkPrint]).snp, [])
})
