import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { AmdAuthority } from "../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../lab/devices/amd-snp.ts"
import { UnavailableError } from "../../bytes/error.ts"
import { encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import type { Transport, TransportResponse } from "../dcap/endorsements.ts"
import { fetchBytes, fetchSnpEndorsements, kdsAddresses } from "./endorsements.ts"
import { parseSnpReport } from "./format.ts"
import type { SnpProduct } from "./products.ts"

// Nothing here verifies: small keys do.
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const deviceOf = (product: SnpProduct): SnpDevice => new SnpDevice(new AmdAuthority(product, { ark: rsa, ask: rsa, asvk: rsa }))
const milan = deviceOf("Milan")
const turin = deviceOf("Turin")

test("kdsAddresses() are those of AMD's key service, by product, chip and patch levels", () => {
  assert.deepEqual(kdsAddresses(parseSnpReport(milan.report()), "Milan"), {
    signer: `https://kdsintf.amd.com/vcek/v1/Milan/${encodeHex(milan.chipId)}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219`,
    chain: "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain",
    revocationList: "https://kdsintf.amd.com/vcek/v1/Milan/crl",
  })
  const chip = encodeHex(turin.chipId).substring(0, 16)
  assert.equal(
    kdsAddresses(parseSnpReport(turin.report()), "Turin").signer,
    `https://kdsintf.amd.com/vcek/v1/Turin/${chip}?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81`,
  )
})

test("kdsAddresses() of a VLEK's report have none for the key", () => {
  const addresses = kdsAddresses(parseSnpReport(milan.report({ signingKey: "vlek", chipId: new Uint8Array(64) })), "Milan")
  assert.deepEqual(addresses, {
    signer: undefined,
    chain: "https://kdsintf.amd.com/vlek/v1/Milan/cert_chain",
    revocationList: "https://kdsintf.amd.com/vlek/v1/Milan/crl",
  })
})

test("kdsAddresses() takes REPORTED_TCB, not another", () => {
  const reportedTcb = milan.encodeTcb({ bootLoader: 1, tee: 2, snp: 3, microcode: 4 })
  assert.match(kdsAddresses(parseSnpReport(milan.report({ reportedTcb })), "Milan").signer ?? "", /\?blSPL=01&teeSPL=02&snpSPL=03&ucodeSPL=04$/)
})

test("kdsAddresses() refuses an unsigned report and a masked chip", () => {
  assert.throws(() => kdsAddresses(parseSnpReport(milan.report({ signingKey: "none" })), "Milan"), { code: "wrong-key" })
  assert.throws(() => kdsAddresses(parseSnpReport(milan.report({ chipId: new Uint8Array(64) })), "Milan"), { code: "wrong-binding" })
})

const pem = (der: Uint8Array): string => `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString("base64")}\n-----END CERTIFICATE-----\n`

const answer = (body: Uint8Array, status = 200): TransportResponse => ({ status, header: () => null, body })

/** AMD's service of the laboratory, and the addresses that were asked. */
function service(device: SnpDevice, failing?: string): { readonly asked: string[]; readonly fetch: Transport } {
  const asked: string[] = []
  const { authority } = device
  return {
    asked,
    fetch: async (address) => {
      asked.push(address)
      if (failing !== undefined && address.includes(failing)) throw new UnavailableError("unavailable", "no answer")
      if (address.endsWith("/cert_chain")) return answer(encodeUtf8(pem(authority.ask) + pem(authority.ark)))
      if (address.endsWith("/crl")) return answer(authority.revocationList())
      return answer(device.endorsements().signer.der)
    },
  }
}

test("fetchSnpEndorsements() asks for key, chain and list of the report, and for nothing else", async () => {
  const { asked, fetch } = service(milan)
  const report = parseSnpReport(milan.report())
  const endorsements = await fetchSnpEndorsements(report, "Milan", fetch)
  const { signer, chain, revocationList } = kdsAddresses(report, "Milan")
  assert.deepEqual(asked, [signer, chain, revocationList])
  assert.deepEqual(endorsements.intermediates.map(({ der }) => der), [milan.authority.ask, milan.authority.ark]) // prettier-ignore
  assert.equal(endorsements.revocationLists.length, 1)
})

test("fetchSnpEndorsements() wants the certificate of a VLEK to be given", async () => {
  const { asked, fetch } = service(milan)
  const report = parseSnpReport(milan.report({ signingKey: "vlek" }))
  await assert.rejects(fetchSnpEndorsements(report, "Milan", fetch), { name: "UnavailableError", code: "unsupported" })
  assert.deepEqual(asked, [])
  const vlek = milan.endorsements("vlek").signer
  assert.equal((await fetchSnpEndorsements(report, "Milan", fetch, vlek)).signer, vlek)
})

for (const failing of ["blSPL", "cert_chain", "crl"]) {
  test(`fetchSnpEndorsements() passes on that the service is silent (${failing})`, async () => {
    await assert.rejects(fetchSnpEndorsements(parseSnpReport(milan.report()), "Milan", service(milan, failing).fetch), { code: "unavailable" })
  })
}

test("fetchSnpEndorsements() lets only our errors out of what comes", async () => {
  const report = parseSnpReport(milan.report())
  for (const body of [new Uint8Array(0), encodeUtf8("<html>"), new Uint8Array(100).fill(0x30)])
    await assert.rejects(
      fetchSnpEndorsements(report, "Milan", async () => answer(body)),
      { name: "MalformedError" },
    )
})

test("fetchSnpEndorsements() refuses other answers than 200, and large ones", async () => {
  const report = parseSnpReport(milan.report())
  const { der } = milan.endorsements().signer
  for (const status of [204, 404, 429, 500])
    await assert.rejects(
      fetchSnpEndorsements(report, "Milan", async () => answer(der, status)),
      { code: "unavailable" },
    )
  await assert.rejects(
    fetchSnpEndorsements(report, "Milan", async () => answer(new Uint8Array(65_537))),
    { code: "unavailable" },
  )
  assert.equal((await fetchBytes("address", async () => answer(new Uint8Array(65_536)))).length, 65_536)
})
