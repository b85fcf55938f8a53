import { execFile } from "node:child_process"
import { createPublicKey, type KeyObject } from "node:crypto"
import { readFile, writeFile } from "node:fs/promises"
import { createServer, type Server } from "node:http"
import { join } from "node:path"
import { promisify } from "node:util"
import { encodeBase64Url, encodeHex, parseBase64Url, parseUtf8 } from "../../src/bytes/text.ts"
import { azurePcrs } from "../../src/evidence/azure/claims.ts"
import { encodeHclReport } from "../../src/evidence/azure/format.ts"
import { parseTdReport } from "../../src/evidence/azure/td-report.ts"
import { parseTdxQuote } from "../../src/evidence/tdx/format.ts"
import { readPcrs } from "../../src/evidence/tpm/client/commands.ts"
import { TpmConnection } from "../../src/evidence/tpm/client/connection.ts"
import type { SoftwareTpm } from "../../src/evidence/tpm/client/swtpm.testing.ts"
import { openTransport } from "../../src/evidence/tpm/client/transport.ts"
import type { AzureRequirement } from "../../src/policy/tee.ts"
import { makeTdReport } from "./azure-hcl.ts"
import type { LabAuthority } from "./dcap/authority.ts"
import { makeTdxQuote } from "./dcap/device.ts"

/** What stands in the NV index, for an attestation key that the TPM made. */
export type MakeReport = (attestationKey: KeyObject) => {
  readonly type: "snp" | "tdx"
  readonly report: Uint8Array
  readonly runtimeData: Uint8Array
}

/** Largest index of swtpm; Azure has 2600 bytes and more. */
const indexBytes = 2048

/**
 * Sets up a software TPM as Azure's paravisor does: the attestation key at its handle and the report in its index, with zeros behind. Real TPM commands answer from then on.
 * INSECURE LABORATORY.
 */
export async function provisionAzureTpm(
  swtpm: SoftwareTpm,
  makeReport: MakeReport,
): Promise<{ readonly hclReport: Uint8Array; readonly attestationKey: KeyObject }> {
  const run = async (tool: string, ...args: readonly string[]): Promise<void> => {
    await promisify(execFile)(tool, [...args, "-T", `swtpm:path=${swtpm.location.unix}`])
  }
  const [context, pem, nv] = ["ak.ctx", "ak.pem", "hcl.bin"].map((name) => join(swtpm.folder, name)) as [string, string, string]
  const attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
  await run("tpm2_createprimary", "-C", "e", "-G", "rsa2048:rsassa-sha256:null", "-a", attributes, "-c", context)
  await run("tpm2_readpublic", "-c", context, "-f", "pem", "-o", pem)
  await run("tpm2_evictcontrol", "-C", "o", "-c", context, "0x81000003")
  await run("tpm2_flushcontext", "-t")
  const attestationKey = createPublicKey(await readFile(pem, "utf8"))
  const { type, report, runtimeData } = makeReport(attestationKey)
  const hcl = { version: 2, hardware: { type, report }, runtimeData, paddingBytes: 0 } as const
  const hclReport = encodeHclReport({ ...hcl, paddingBytes: indexBytes - encodeHclReport(hcl).length })
  await writeFile(nv, hclReport)
  await run("tpm2_nvdefine", "0x01400001", "-C", "o", "-s", String(indexBytes), "-a", "ownerread|ownerwrite|authread")
  await run("tpm2_nvwrite", "0x01400001", "-C", "o", "-i", nv)
  return { hclReport, attestationKey }
}

/** Extends a register of the machine, as its firmware or system would. `digest`: 64 hexadecimal digits. */
export async function extendRegister(swtpm: SoftwareTpm, pcr: number, digest: string): Promise<void> {
  await promisify(execFile)("tpm2_pcrextend", [`${pcr}:sha256=${digest}`, "-T", `swtpm:path=${swtpm.location.unix}`])
}

/** What the machine's registers hold, as demands. */
export async function demandedRegisters(swtpm: SoftwareTpm): Promise<AzureRequirement["pcrs"]> {
  await using tpm = new TpmConnection(await openTransport(swtpm.location))
  const values = await readPcrs(tpm, { bank: "sha256", pcrs: azurePcrs })
  return Object.fromEntries([...values].map(([pcr, value]) => [String(pcr), [encodeHex(value)]])) as unknown as AzureRequirement["pcrs"]
}

/** TD report and quote that a laboratory's platform makes of the same TD. */
export function labTdReport(authority: LabAuthority, reportData: Uint8Array): Uint8Array {
  return makeTdReport(parseTdxQuote(makeTdxQuote(authority, reportData)).report)
}

/** Stands where a host of Azure makes quotes: POST of a TD report, and the laboratory's quote of a TD that says the same. */
export async function serveTdQuotes(authority: LabAuthority): Promise<AsyncDisposable & { readonly address: string; readonly server: Server }> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      const { report } = JSON.parse(parseUtf8(new Uint8Array(Buffer.concat(chunks)))) as { readonly report: string }
      const { reportData } = parseTdReport(parseBase64Url(report))
      const quote = makeTdxQuote(authority, new Uint8Array(Buffer.from(reportData, "hex")))
      response.end(JSON.stringify({ quote: encodeBase64Url(quote) }))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("internal: no port")
  return {
    address: `http://127.0.0.1:${address.port}/acc/tdquote`,
    server,
    [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())),
  }
}
