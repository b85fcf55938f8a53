import assert from "node:assert/strict"
import { createServer } from "node:http"
import { test } from "node:test"
import { AmdAuthority, makeRsaKey } from "../../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../../lab/devices/amd-snp.ts"
import { makeRuntimeData, reportDataFor } from "../../../../lab/devices/azure-hcl.ts"
import { extendRegister, labTdReport, provisionAzureTpm, serveTdQuotes } from "../../../../lab/devices/azure-swtpm.testing.ts"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../../lab/devices/dcap/authority.ts"
import { azurePcrs } from "../../azure/claims.ts"
import { fetchTdQuote } from "../../azure/endorsements.ts"
import { verifyAzureVtpm } from "../../azure/verify.ts"
import { sessionReportData } from "../../report-data.ts"
import { TpmConnection } from "../../tpm/client/connection.ts"
import { endorsementKeyDigest } from "../../tpm/endorsements.ts"
import { noSoftwareTpm, noTpmTools, startSoftwareTpm, type SoftwareTpm } from "../../tpm/client/swtpm.testing.ts"
import { openTransport, type TpmTransport } from "../../tpm/client/transport.ts"
import { parseSizedPublicArea } from "../../tpm/public-area.ts"
import { verifyTee } from "../verify.ts"
import { collectTee } from "./collect.ts"
import { collectAzureVm, collectAzureVtpm } from "./azure-vtpm.ts"

const skip = noSoftwareTpm === false ? noTpmTools : noSoftwareTpm
const selection = { bank: "sha256", pcrs: [0, 7, 11] } as const
const snpTime = Date.parse("2025-06-01T00:00:00Z")
const session = new Uint8Array(32).fill(0x51)
const noTd = (): never => assert.fail("no TD here")

async function newChip(): Promise<SnpDevice> {
  const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
  return new SnpDevice(new AmdAuthority("Genoa", { ark, ask, asvk: ask }))
}

async function provisionSnp(swtpm: SoftwareTpm, device: SnpDevice): ReturnType<typeof provisionAzureTpm> {
  return provisionAzureTpm(swtpm, (attestationKey) => {
    const runtimeData = makeRuntimeData({ attestationKey })
    return { type: "snp", report: device.report({ reportData: reportDataFor(runtimeData) }), runtimeData }
  })
}

test("collectAzureVtpm() says unsupported where the TPM is not Azure's", { skip }, async () => {
  await using swtpm = await startSoftwareTpm()
  {
    await using tpm = new TpmConnection(await openTransport(swtpm.location))
    await assert.rejects(collectAzureVtpm(tpm, new Uint8Array(32), [selection]), { name: "UnavailableError", code: "unsupported" })
  }
  await assert.rejects(collectTee("azure", new Uint8Array(64), { tpm: swtpm.location }), { name: "UnavailableError", code: "unsupported" })
})

test("collectAzureVtpm() collects what verifyAzureVtpm() proves, from a TPM set up as the paravisor does", { skip }, async () => {
  await using swtpm = await startSoftwareTpm()
  const device = await newChip()
  const { hclReport } = await provisionSnp(swtpm, device)
  await extendRegister(swtpm, 11, "ab".repeat(32))
  await using tpm = new TpmConnection(await openTransport(swtpm.location))
  const evidence = await collectAzureVtpm(tpm, session, [selection])
  assert.deepEqual(evidence.hclReport, hclReport)
  assert.notEqual(evidence.pcrs.get("sha256")?.get(11), "00".repeat(32))
  const { claims } = verifyAzureVtpm(
    { ...evidence, hardware: { type: "snp", endorsements: device.endorsements() }, akPublic: parseSizedPublicArea(evidence.akPublic) },
    { quote: { extraData: session, selection: [selection], pcrs: evidence.pcrs }, snpRoots: [device.root], dcapRoots: [], time: snpTime },
  )
  assert.equal(claims.hardware.kind, "snp")
  assert.notEqual(claims.quote.keyName, undefined)
})

test(
  "collectTee() asks a confidential VM of Azure over SEV-SNP, and verifyTee() takes it for the session that it was asked for alone",
  { skip },
  async () => {
    await using swtpm = await startSoftwareTpm()
    const device = await newChip()
    const { attestationKey } = await provisionSnp(swtpm, device)
    const evidence = await collectTee("azure", sessionReportData(session), { tpm: swtpm.location })
    assert.ok(evidence.kind === "azure-vtpm" && evidence.hardware.kind === "snp")
    const vouched = { ...evidence, hardware: { ...evidence.hardware, endorsements: device.endorsements() } }
    const expected = { roots: { snp: [device.root], dcap: [] }, time: snpTime, ccelQuirks: [] }
    const genuine = verifyTee(vouched, { ...expected, reportData: sessionReportData(session) })
    assert.ok(genuine.kind === "azure-vtpm")
    const { claims } = genuine.tee
    assert.deepEqual([claims.isNonceChecked, claims.attestationKey], [true, endorsementKeyDigest(attestationKey)])
    assert.deepEqual(
      claims.quote.selection.map(({ bank, pcrs }) => [bank, [...pcrs]]),
      [["sha256", [...azurePcrs]]],
    )
    assert.throws(() => verifyTee(vouched, { ...expected, reportData: sessionReportData(new Uint8Array(32)) }), { code: "wrong-nonce" })
    await assert.rejects(collectTee("azure", new Uint8Array(64).fill(1), { tpm: swtpm.location }), TypeError)
  },
)

test("collectTee() has Azure's host make the quote of a TD", { skip }, async () => {
  await using swtpm = await startSoftwareTpm()
  const intel = makeLabAuthority({ keys: makeLabKeys() })
  await provisionAzureTpm(swtpm, (attestationKey) => {
    const runtimeData = makeRuntimeData({ attestationKey })
    return { type: "tdx", report: labTdReport(intel, reportDataFor(runtimeData)), runtimeData }
  })
  await using host = await serveTdQuotes(intel)
  const reportData = sessionReportData(session)
  const evidence = await collectTee("azure", reportData, { tpm: swtpm.location, tdQuoteAddress: host.address })
  assert.ok(evidence.kind === "azure-vtpm" && evidence.hardware.kind === "tdx")
  const vouched = { ...evidence, hardware: { ...evidence.hardware, collateral: intel.tdxCollateral } }
  const genuine = verifyTee(vouched, { reportData, roots: { snp: [], dcap: [intel.root] }, time: labTime, ccelQuirks: [] })
  assert.ok(genuine.kind === "azure-vtpm")
  assert.equal(genuine.tee.claims.hardware.kind, "tdx")
})

/** The TPM behind another that does something before each command of a kind. */
function meddled(inner: TpmTransport, command: number, before: () => Promise<void>): TpmTransport {
  return {
    name: inner.name,
    transmit: async (bytes, timeoutMilliseconds) => {
      if (new DataView(bytes.buffer, bytes.byteOffset).getUint32(6) === command) await before()
      return inner.transmit(bytes, timeoutMilliseconds)
    },
    [Symbol.asyncDispose]: () => inner[Symbol.asyncDispose](),
  }
}

const quoteCommand = 0x158

test("collectAzureVm() quotes again when a register changes meanwhile, and gives up on one that never rests", { skip }, async () => {
  await using swtpm = await startSoftwareTpm()
  await provisionSnp(swtpm, await newChip())
  const transport = await openTransport(swtpm.location)
  await using inner = new TpmConnection(transport)
  const { extendPcr } = await import("../../tpm/client/commands.ts")
  let left = 1
  const meddle = async (): Promise<void> => {
    if (left-- > 0) await extendPcr(inner, 10, "sha256", new Uint8Array(32).fill(7))
  }
  const tpm = new TpmConnection(meddled(transport, quoteCommand, meddle))
  const { pcrs } = await collectAzureVm(tpm, sessionReportData(session), noTd)
  assert.notEqual(pcrs.get("sha256")?.get(10), "00".repeat(32))
  left = Infinity
  await assert.rejects(collectAzureVm(tpm, sessionReportData(session), noTd), { name: "UnavailableError", code: "unavailable" })
})

test("fetchTdQuote() says unavailable to a host that refuses, answers something else, or is not there", async () => {
  let [status, body] = [200, '{"quote": 1}']
  const server = createServer((request, response) => {
    request.resume()
    response.writeHead(status)
    response.end(body)
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const at = server.address()
  assert.ok(at !== null && typeof at !== "string")
  const address = `http://127.0.0.1:${at.port}/acc/tdquote`
  const unavailable = { name: "UnavailableError", code: "unavailable" }
  try {
    for (const text of ['{"quote": 1}', '{"quote": "???"}', "no", "{}", `{"quote": "${"A".repeat(200_000)}"}`]) {
      body = text
      await assert.rejects(fetchTdQuote(new Uint8Array(1024), address), unavailable, text.slice(0, 20))
    }
    ;[status, body] = [500, '{"quote": "AAAA"}']
    await assert.rejects(fetchTdQuote(new Uint8Array(1024), address), unavailable)
    status = 200
    assert.deepEqual(await fetchTdQuote(new Uint8Array(1024), address), new Uint8Array(3))
  } finally {
    await new Promise((resolve) => server.close(resolve))
  }
  await assert.rejects(fetchTdQuote(new Uint8Array(1024), address), unavailable)
})
