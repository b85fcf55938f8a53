import { join } from "node:path"
import { readFileBounded } from "../bytes/durable.ts"
import { MalformedError } from "../bytes/error.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { type AzureVmEvidence, parseAzureVmEvidence, parsePcrValues, snpHardware } from "../evidence/azure/document.ts"
import { parseThimEndorsements } from "../evidence/azure/endorsements.ts"
import { parseHclReport } from "../evidence/azure/format.ts"
import { withHardware } from "../evidence/tee/format.ts"
import { maxTeeEvidenceBytes, type SnpTeeEvidence, type TdxTeeEvidence } from "../evidence/tee/hardware.ts"
import { parseVouchers, supplementedBy } from "../evidence/tee/vouchers.ts"
import { isFolder } from "./evidence-file.ts"
import { type EvidenceFolder, loadCollateral, loadEndorsements, openEvidenceFolder, teeFiles } from "./tee-file.ts"

/** Names under which the parts of a confidential VM's evidence lie in a folder; the first that is there counts. */
export const azureFiles = {
  hclReport: ["hcl-report.bin"],
  tdQuote: ["td-quote.bin"],
  attest: ["quote.msg"],
  /** TPMT_SIGNATURE. */
  signature: ["quote.sig"],
  /** The bare value of an RSASSA signature over SHA-256, the only scheme of Azure's virtual TPM. */
  bareSignature: ["quote.sig.raw"],
  pcrs: ["pcrs.json"],
  akPublic: ["ak.tpm2b-public"],
  /** SubjectPublicKeyInfo, PEM. */
  akKey: ["ak.pub.pem"],
  /** What the instance metadata service says of AMD's certificates. */
  thim: ["thim.json"],
} as const satisfies Record<string, readonly string[]>

export interface AzureFiles {
  readonly evidence: AzureVmEvidence
  /** Public key that somebody put beside it, PEM: the paravisor must name the same. */
  readonly akKey?: string
}

/**
 * Evidence of a confidential VM of Azure as it lies on disk: our JSON, or a folder with the paravisor's report, the virtual TPM's quote, register values, and what vouches for
 * the hardware. Nothing is verified.
 * @param collateral `dcap-collateral` or `snp-endorsements` JSON; undefined where there is none
 * @throws {MalformedError}, {EvidenceError} as parseAzureVmEvidence; {UnavailableError} a file that must be there is not
 */
export async function loadAzureEvidence(path: string, collateral: string | undefined): Promise<AzureFiles> {
  const files = (await isFolder(path)) ? await loadFolder(path) : { evidence: await loadDocument(path) }
  if (collateral === undefined) return files
  const { hardware } = files.evidence
  const vouchers = parseVouchers(hardware.kind, await readFileBounded(collateral, maxTeeEvidenceBytes))
  return { ...files, evidence: withHardware(files.evidence, supplementedBy(hardware, vouchers)) }
}

async function loadDocument(path: string): Promise<AzureVmEvidence> {
  return parseAzureVmEvidence(await readFileBounded(path, maxTeeEvidenceBytes))
}

async function loadFolder(path: string): Promise<AzureFiles> {
  const folder = await openEvidenceFolder(path)
  const hclReport = await folder.optional(azureFiles.hclReport)
  if (hclReport === undefined) return { evidence: await loadDocument(join(path, folder.first(teeFiles.evidence) ?? teeFiles.evidence[0])) }
  const [akPublic, akKey] = [await folder.optional(azureFiles.akPublic), await folder.optional(azureFiles.akKey)]
  const evidence: AzureVmEvidence = {
    kind: "azure-vtpm",
    hclReport,
    hardware: await loadHardware(hclReport, folder),
    quote: { attest: await folder.read(azureFiles.attest[0]), signature: await loadSignature(folder) },
    ...(akPublic === undefined ? {} : { akPublic }),
    pcrs: parsePcrValues(await folder.read(azureFiles.pcrs[0])),
  }
  return { evidence, ...(akKey === undefined ? {} : { akKey: parseUtf8(akKey, azureFiles.akKey[0]) }) }
}

async function loadSignature(folder: EvidenceFolder): Promise<AzureVmEvidence["quote"]["signature"]> {
  const bare = await folder.optional(azureFiles.bareSignature)
  if (bare === undefined) return folder.read(azureFiles.signature[0])
  if (folder.first(azureFiles.signature) !== undefined)
    throw new MalformedError("duplicate", `${azureFiles.signature[0]} and ${azureFiles.bareSignature[0]}: which of them counts?`)
  return { algorithm: "rsassa", hash: "sha256", signature: bare }
}

async function loadHardware(hclReport: Uint8Array, folder: EvidenceFolder): Promise<SnpTeeEvidence | TdxTeeEvidence> {
  if (parseHclReport(hclReport).hardware.type === "tdx")
    return { kind: "tdx", quote: await folder.read(azureFiles.tdQuote[0]), ...(await loadCollateral(folder)) }
  const hardware = snpHardware(hclReport)
  const thim = await folder.optional(azureFiles.thim)
  const endorsements = thim === undefined ? await loadEndorsements(hardware.report, folder) : parseThimEndorsements(thim)
  return { ...hardware, ...(endorsements === undefined ? {} : { endorsements }) }
}
