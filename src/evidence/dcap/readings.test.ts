import assert from "node:assert/strict"
import { test } from "node:test"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { assertRefuses } from "../testing/parser-laws.ts"
import { verifyTdxQuote } from "../tdx/verify.ts"
import type { DcapClaims } from "./claims.ts"
import type { DcapCollateral } from "./endorsements.ts"
import { DcapReadings } from "./readings.ts"

test("DcapReadings reads equal bytes once, by kind, and forgets the oldest", () => {
  const readings = new DcapReadings()
  let count = 0
  const parse = (bytes: Uint8Array): { readonly first: number | undefined } => {
    count++
    return { first: bytes[0] }
  }
  const first = readings.read("a", Uint8Array.of(1), parse)
  assert.equal(readings.read("a", Uint8Array.of(1), parse), first)
  assert.notEqual(readings.read("b", Uint8Array.of(1), parse), first)
  assert.equal(readings.read("a", Uint8Array.of(2), parse).first, 2)
  assert.equal(count, 3)
  for (let at = 0; at < 256; at++) readings.read("c", Uint8Array.of(at), parse)
  assert.notEqual(readings.read("a", Uint8Array.of(1), parse), first)
})

test("DcapReadings keeps 256 records", () => {
  const readings = new DcapReadings()
  const parse = (bytes: Uint8Array): { readonly first: number | undefined } => ({ first: bytes[0] })
  const kept = Array.from({ length: 256 }, (_, at) => readings.read("a", Uint8Array.of(at), parse))
  for (const [at, record] of kept.entries()) assert.equal(readings.read("a", Uint8Array.of(at), parse), record)
  readings.read("b", Uint8Array.of(0), parse)
  for (const [at, record] of kept.entries()) if (at > 0) assert.equal(readings.read("a", Uint8Array.of(at), parse), record)
  assert.notEqual(readings.read("a", Uint8Array.of(0), parse), kept[0])
})

test("checkDcap() checks signatures, dates and lists anew, whatever was read before", () => {
  const keys = makeLabKeys()
  const authority = makeLabAuthority({ keys })
  const quote = makeTdxQuote(authority, new Uint8Array(64))
  const readings = new DcapReadings()
  const verify = (collateral: DcapCollateral, time = labTime, roots = [authority.root]): DcapClaims =>
    verifyTdxQuote({ quote, collateral }, { roots, time, reportData: "as-signed", readings }).claims.dcap
  const good = verify(authority.tdxCollateral)
  assert.deepEqual(verify(authority.tdxCollateral), good)
  assertRefuses(() => verify(authority.tdxCollateral, good.validUntil + 1000), "too late", "expired")
  assertRefuses(() => verify(authority.tdxCollateral, good.validFrom - 1000), "too early", "expired")
  assertRefuses(() => verify(authority.tdxCollateral, labTime, []), "no root", "wrong-chain")
  const document = Uint8Array.from(authority.tdxCollateral.tcbInfo.document)
  const last = document.length - 3
  document[last] = document[last] === 0x30 ? 0x31 : 0x30
  const forged = { ...authority.tdxCollateral, tcbInfo: { ...authority.tdxCollateral.tcbInfo, document } }
  assertRefuses(() => verify(forged), "the same body under another signature", "wrong-signature")
  const revoking = makeLabAuthority({ keys, pckCrl: (list) => ({ ...list, serials: [authority.certificates.pck.serial] }) })
  assertRefuses(() => verify({ ...authority.tdxCollateral, pckCrl: revoking.tdxCollateral.pckCrl }), "a newer list", "revoked")
})
