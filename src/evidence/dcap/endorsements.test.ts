import assert from "node:assert/strict"
import { test } from "node:test"
import { parseUtf8 } from "../../bytes/text.ts"
import { labTime, makeLabAuthority } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { verifyTdxQuote } from "../tdx/verify.ts"
import { assertRefuses, testParserLaws } from "../testing/parser-laws.ts"
import { encodeDcapCollateral, fetchDcapCollateral, parseDcapCollateral } from "./endorsements.ts"
import type { Transport, TransportResponse } from "./endorsements.ts"

const authority = makeLabAuthority()
const { tcbInfo, qeIdentity, rootCrl, pckCrl } = authority.tdxCollateral
const text = encodeDcapCollateral(authority.tdxCollateral)

testParserLaws({
  name: "parseDcapCollateral",
  parse: (bytes) => parseDcapCollateral(bytes),
  samples: [new Uint8Array(Buffer.from(encodeDcapCollateral({ rootCrl: Uint8Array.of(1, 2, 3), pckChain: Uint8Array.of(4) })))],
  encode: (collateral) => new Uint8Array(Buffer.from(encodeDcapCollateral(collateral))),
})

test("parseDcapCollateral() gives back a whole bundle, and an empty one", () => {
  assert.deepEqual(parseDcapCollateral(text), authority.tdxCollateral)
  assert.deepEqual(parseDcapCollateral(encodeDcapCollateral({})), {})
  assertRefuses(() => parseDcapCollateral(text.replace('"perun":1', '"perun":2')), "another version", "malformed")
  assertRefuses(() => parseDcapCollateral(text.replace('"perun":1', '"perun":1,"more":1')), "one more member", "unknown-field")
})

/** What PCS would answer, by address. */
const answers: Readonly<Record<string, Partial<Omit<TransportResponse, "header">> & { readonly headers?: Readonly<Record<string, string>> }>> = {
  "https://api.trustedservices.intel.com/tdx/certification/v4/tcb?fmspc=b0c06f000000": {
    body: tcbInfo.document,
    headers: { "tcb-info-issuer-chain": encodeURIComponent(parseUtf8(tcbInfo.issuerChain)) },
  },
  "https://api.trustedservices.intel.com/tdx/certification/v4/qe/identity": {
    body: qeIdentity.document,
    headers: { "sgx-enclave-identity-issuer-chain": encodeURIComponent(parseUtf8(qeIdentity.issuerChain)) },
  },
  "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca=platform&encoding=der": { body: pckCrl },
  "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der": { body: rootCrl },
}

const transport =
  (change: (url: string, good: TransportResponse) => TransportResponse = (_, good) => good): Transport =>
  async (url) => {
    const { status = 200, body = new Uint8Array(0), headers = {} } = answers[url] ?? { status: 404 }
    return change(url, { status, body, header: (name) => headers[name] ?? null })
  }

const query = { tee: "tdx", fmspc: "b0c06f000000", authority: "platform" } as const

test("fetchDcapCollateral() asks for the four objects of a platform, with which its quote verifies", async () => {
  const collateral = await fetchDcapCollateral(query, transport())
  assert.deepEqual(collateral, authority.tdxCollateral)
  const quote = makeTdxQuote(authority, new Uint8Array(64))
  const { claims } = verifyTdxQuote({ quote, collateral }, { roots: [authority.root], time: labTime, reportData: "as-signed" })
  assert.equal(claims.dcap.tcb.status, "UpToDate")
})

test("fetchDcapCollateral() fails plainly where an object does not come, comes without its chain, or is too large", async () => {
  for (const url of Object.keys(answers)) {
    const broken = transport((asked, good) => (asked === url ? { ...good, status: 404 } : good))
    await assert.rejects(fetchDcapCollateral(query, broken), { code: "unavailable" })
    const huge = transport((asked, good) => (asked === url ? { ...good, body: new Uint8Array(4_194_305) } : good))
    await assert.rejects(fetchDcapCollateral(query, huge), { code: "unavailable" })
  }
  await assert.rejects(fetchDcapCollateral(query, transport((_, good) => ({ ...good, header: () => null }))), { code: "unavailable" }) // prettier-ignore
  await assert.rejects(fetchDcapCollateral(query, transport((_, good) => ({ ...good, header: () => "%zz" }))), { code: "unavailable" }) // prettier-ignore
  for (const fmspc of ["B0C06F000000", "b0c06f00000", "0b0c06f000000", "b0c06f000000&x", "x?b0c06f000000"])
    await assert.rejects(fetchDcapCollateral({ ...query, fmspc }, transport()), TypeError)
  const whole = transport((_, good) => ({ ...good, body: new Uint8Array(262_144) }))
  assert.equal((await fetchDcapCollateral(query, whole)).tcbInfo?.document.length, 262_144)
  const largest = transport((url, good) => ({ ...good, body: new Uint8Array(/crl|\.der/.test(url) ? 4_194_304 : 1) }))
  assert.equal((await fetchDcapCollateral(query, largest)).rootCrl?.length, 4_194_304)
})
