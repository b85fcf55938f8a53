import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { createPublicKey } from "node:crypto"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { test } from "node:test"
import { promisify } from "node:util"
import { AmdAuthority, makeRsaKey } from "../../../../lab/devices/amd-authority.ts"
import { SnpDevice } from "../../../../lab/devices/amd-snp.ts"
import { makeRuntimeData, reportDataFor } from "../../../../lab/devices/azure-hcl.ts"
import { encodeHclReport } from "../../azure/format.ts"
import { verifyAzureVtpm } from "../../azure/verify.ts"
import { readPcrs } from "../../tpm/client/commands.ts"
import { TpmConnection } from "../../tpm/client/connection.ts"
import { noSoftwareTpm, noTpmTools, startSoftwareTpm } from "../../tpm/client/swtpm.testing.ts"
import { openTransport } from "../../tpm/client/transport.ts"
import { parseSizedPublicArea } from "../../tpm/public-area.ts"
import { collectAzureVtpm } from "./azure-vtpm.ts"

const skip = noSoftwareTpm === false ? noTpmTools : noSoftwareTpm
const selection = { bank: "sha256", pcrs: [0, 7, 11] } as const

test("collectAzureVtpm() says unsupported where the TPM is not Azure's", { skip }, async () => {
  await using swtpm = await startSoftwareTpm()
  await using tpm = new TpmConnection(await openTransport(swtpm.location))
  await assert.rejects(collectAzureVtpm(tpm, new Uint8Array(32), [selection]), { name: "UnavailableError", code: "unsupported" })
})

test("collectAzureVtpm() collects what verifyAzureVtpm() proves, from a TPM set up as the paravisor does", { skip }, async () => {
  await using swtpm = await startSoftwareTpm()
  const run = async (tool: string, ...args: readonly string[]): Promise<void> => {
    await promisify(execFile)(tool, [...args, "-T", `swtpm:path=${swtpm.location.unix}`])
  }
  const [context, pem, nv] = ["ak.ctx", "ak.pem", "hcl.bin"].map((name) => join(swtpm.folder, name)) as [string, string, string]
  const attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
  await run("tpm2_createprimary", "-C", "e", "-G", "rsa2048:rsassa-sha256:null", "-a", attributes, "-c", context)
  await run("tpm2_readpublic", "-c", context, "-f", "pem", "-o", pem)
  await run("tpm2_evictcontrol", "-C", "o", "-c", context, "0x81000003")
  await run("tpm2_flushcontext", "-t")
  const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
  const device = new SnpDevice(new AmdAuthority("Genoa", { ark, ask, asvk: ask }))
  const runtimeData = makeRuntimeData({ attestationKey: createPublicKey(await readFile(pem, "utf8")) })
  const report = device.report({ reportData: reportDataFor(runtimeData) })
  const used = encodeHclReport({ version: 2, hardware: { type: "snp", report }, runtimeData, paddingBytes: 0 }).length
  // The largest index of swtpm; Azure has 2600.
  const sizeBytes = 2048
  const hcl = encodeHclReport({ version: 2, hardware: { type: "snp", report }, runtimeData, paddingBytes: sizeBytes - used })
  await writeFile(nv, hcl)
  await run("tpm2_nvdefine", "0x01400001", "-C", "o", "-s", String(sizeBytes), "-a", "ownerread|ownerwrite|authread")
  await run("tpm2_nvwrite", "0x01400001", "-C", "o", "-i", nv)
  await using tpm = new TpmConnection(await openTransport(swtpm.location))
  const extraData = new Uint8Array(32).fill(0x51)
  const evidence = await collectAzureVtpm(tpm, extraData, [selection])
  assert.deepEqual(evidence.hclReport, hcl)
  const { claims } = verifyAzureVtpm(
    {
      hclReport: evidence.hclReport,
      hardware: { type: "snp", endorsements: device.endorsements() },
      quote: evidence.quote,
      akPublic: parseSizedPublicArea(evidence.akPublic),
    },
    {
      quote: { extraData, selection: [{ bank: "sha256", pcrs: [0, 7, 11] }], pcrs: await valuesOf(tpm) },
      snpRoots: [device.root],
      dcapRoots: [],
      time: Date.parse("2025-06-01T00:00:00Z"),
    },
  )
  assert.equal(claims.hardware.kind, "snp")
  assert.notEqual(claims.quote.keyName, undefined)
})

async function valuesOf(tpm: TpmConnection): Promise<ReadonlyMap<string, ReadonlyMap<number, string>>> {
  const values = await readPcrs(tpm, { bank: "sha256", pcrs: [...selection.pcrs] })
  return new Map([["sha256", new Map([...values].map(([pcr, value]) => [pcr, Buffer.from(value).toString("hex")]))]])
}
