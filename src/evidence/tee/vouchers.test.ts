import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { AmdAuthority } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import { makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import type { TeeEvidence } from "./format.ts"
import { encodeVouchers, parseVouchers, supplementedBy, withVouchers } from "./vouchers.ts"

// Nothing here verifies: small keys do.
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const amd = new SnpDevice(new AmdAuthority("Milan", { ark: rsa, ask: rsa, asvk: rsa }))
const intel = makeLabAuthority({ keys: makeLabKeys() })
const endorsements = { ...amd.endorsements(), intermediates: [...amd.endorsements().intermediates, amd.root.certificate] }
const snp: TeeEvidence = { kind: "snp", report: amd.report() }
const tdx: TeeEvidence = { kind: "tdx", quote: makeTdxQuote(intel, new Uint8Array(64)) }

test("parseVouchers() reads what encodeVouchers() made, of each maker", () => {
  assert.deepEqual(parseVouchers("snp", encodeVouchers({ ...snp, endorsements })), endorsements)
  assert.deepEqual(parseVouchers("tdx", encodeVouchers({ ...tdx, collateral: intel.tdxCollateral })), intel.tdxCollateral)
  assert.throws(() => encodeVouchers(snp), TypeError)
})

test("parseVouchers() refuses the other maker's file, unknown fields, and what is no certificate", () => {
  const text = encodeVouchers({ ...snp, endorsements })
  assert.throws(() => parseVouchers("tdx", text), { name: "MalformedError" })
  assert.throws(() => parseVouchers("snp", encodeVouchers({ ...tdx, collateral: intel.tdxCollateral })), {
    code: "malformed",
    path: "collateral.kind",
  })
  const document = JSON.parse(text) as object
  assert.throws(() => parseVouchers("snp", JSON.stringify({ ...document, more: 1 })), { code: "unknown-field" })
  assert.throws(() => parseVouchers("snp", JSON.stringify({ ...document, signer: "AAAA" })), { name: "MalformedError" })
  assert.throws(() => parseVouchers("snp", JSON.stringify({ ...document, signer: "A".repeat(20_000) })), { code: "too-large" })
})

test("withVouchers() refuses what goes with another kind", () => {
  assert.throws(() => withVouchers(snp, intel.tdxCollateral), TypeError)
  assert.throws(() => withVouchers(tdx, endorsements), TypeError)
  assert.throws(() => supplementedBy(tdx, endorsements), TypeError)
})

test("supplementedBy() leaves the host its certificate of the key, and takes issuers and revocation list of the file", () => {
  assert.deepEqual(supplementedBy(snp, endorsements), { ...snp, endorsements })
  const own = { ...amd.endorsements(), revocationLists: [] }
  const file = { ...endorsements, signer: amd.root.certificate }
  const { endorsements: joined } = supplementedBy({ ...snp, endorsements: own }, file) as Extract<TeeEvidence, { kind: "snp" }>
  assert.equal(joined?.signer, own.signer)
  assert.deepEqual(joined?.intermediates.map(({ der }) => der), [amd.authority.ask, amd.authority.ark]) // prettier-ignore
  assert.equal(joined?.revocationLists, file.revocationLists)
  const hosts = { ...own, revocationLists: endorsements.revocationLists }
  const kept = supplementedBy({ ...snp, endorsements: hosts }, { ...file, revocationLists: [] }) as Extract<TeeEvidence, { kind: "snp" }>
  assert.equal(kept.endorsements?.revocationLists, hosts.revocationLists)
})
