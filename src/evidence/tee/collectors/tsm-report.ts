import { UnavailableError } from "../../../bytes/error.ts"
import { parseUtf8 } from "../../../bytes/text.ts"
import { parseSnpReport } from "../../snp/format.ts"
import { parseTdxQuote } from "../../tdx/format.ts"
import { bytesEqual } from "../../../bytes/compare.ts"
import { parseHex } from "../../../bytes/text.ts"
import { deviceError, hostFiles, systemWord } from "./device-files.ts"
import type { DeviceFiles } from "./device-files.ts"

/** Where Linux makes reports of confidential guests. Documentation/ABI/testing/configfs-tsm-report, since 6.7. */
export const tsmReportFolder = "/sys/kernel/config/tsm/report"

/** Providers of Linux, and what their outblob is. */
const providers = {
  sev_guest: { kind: "snp", reportData: (report: Uint8Array): Uint8Array => parseSnpReport(report).reportData },
  tdx_guest: { kind: "tdx", reportData: (quote: Uint8Array): Uint8Array => parseHex(parseTdxQuote(quote).report.reportData) },
} as const

export interface TsmReport {
  /** `snp`: ATTESTATION_REPORT. `tdx`: quote. */
  readonly kind: "snp" | "tdx"
  readonly report: Uint8Array
  /** What the host passed along: for SNP its table of certificates; undefined where there is nothing. */
  readonly auxiliary: Uint8Array | undefined
}

export interface TsmRequest {
  /** 64 bytes. */
  readonly reportData: Uint8Array
  /** A name that nobody else uses; the entry of this name is made and removed. */
  readonly entry: string
  readonly folder?: string
  readonly files?: DeviceFiles
}

const reportDataBytes = 64
/** TDX quotes with their PCK chain have some 5 KiB, certificate tables up to 16. */
const maxBlobBytes = 65_536
/** Others may write to the same entry; whoever loses so often is disturbed on purpose. */
const maxAttempts = 5
const device = "a TDX or SEV-SNP guest that offers reports (configfs-tsm)"

/**
 * Asks the kernel for a report over `reportData`. The entry's generation says whether somebody else wrote to it meanwhile; then it is asked again, and what comes must
 * carry the report data that were asked for.
 * @throws {UnavailableError} `unsupported` where the machine has no such device, `permission-denied`, `unavailable`
 * @throws {MalformedError}, {EvidenceError} what the device gives cannot be read
 */
export async function collectTsmReport({ reportData, entry, folder = tsmReportFolder, files = hostFiles }: TsmRequest): Promise<TsmReport> {
  if (reportData.length !== reportDataBytes) throw new TypeError(`report data of ${reportData.length} bytes, expected ${reportDataBytes}`)
  if (!/^[a-z0-9-]{1,64}$/.test(entry)) throw new TypeError(`${JSON.stringify(entry)} is no name of an entry`)
  const path = `${folder}/${entry}`
  await attempt(path, async () => files.makeFolder(path))
  try {
    for (let count = 0; count < maxAttempts; count++) {
      const report = await ask(path, reportData, files)
      if (report !== undefined) return report
    }
    throw new UnavailableError("unavailable", `${path}: somebody else keeps writing to this entry`)
  } finally {
    // An entry that stays does no harm; its name is not used again.
    await files.removeFolder(path).catch(() => undefined)
  }
}

/** One try; undefined when somebody else wrote in between. */
async function ask(path: string, reportData: Uint8Array, files: DeviceFiles): Promise<TsmReport | undefined> {
  const before = await readGeneration(path, files)
  await attempt(`${path}/inblob`, async () => files.write(`${path}/inblob`, reportData))
  const report = await readBlob(`${path}/outblob`, files)
  const auxiliary = await readAuxiliary(path, files)
  const provider = parseUtf8(await attempt(`${path}/provider`, async () => files.read(`${path}/provider`))).trim()
  // Each write counts one: ours, and nobody else's.
  if (report === undefined || (await readGeneration(path, files)) !== before + 1) return undefined
  if (provider !== "sev_guest" && provider !== "tdx_guest")
    throw new UnavailableError("unsupported", `${path}: unknown provider ${JSON.stringify(provider)}`)
  const row = providers[provider]
  if (!bytesEqual(row.reportData(report), reportData))
    throw new UnavailableError("unavailable", `${path}: the report is over other data than asked for`)
  return { kind: row.kind, report, auxiliary }
}

async function readGeneration(path: string, files: DeviceFiles): Promise<number> {
  const text = parseUtf8(await attempt(`${path}/generation`, async () => files.read(`${path}/generation`))).trim()
  if (!/^[0-9]{1,15}$/.test(text)) throw new UnavailableError("unavailable", `${path}/generation is not a number`)
  return Number(text)
}

/** Undefined when the kernel says that the entry changed while the report was made (EWOULDBLOCK). */
async function readBlob(path: string, files: DeviceFiles): Promise<Uint8Array | undefined> {
  try {
    return checkSize(path, await files.read(path))
  } catch (cause) {
    if (systemWord(cause) === "EAGAIN") return undefined
    throw cause instanceof UnavailableError ? cause : deviceError(path, device, cause)
  }
}

/** TDX has none, and neither has a host that passes nothing along. */
async function readAuxiliary(path: string, files: DeviceFiles): Promise<Uint8Array | undefined> {
  try {
    const blob = checkSize(`${path}/auxblob`, await files.read(`${path}/auxblob`))
    return blob.length === 0 ? undefined : blob
  } catch (cause) {
    if (["ENOENT", "EINVAL", "EAGAIN"].includes(systemWord(cause))) return undefined
    throw cause instanceof UnavailableError ? cause : deviceError(`${path}/auxblob`, device, cause)
  }
}

function checkSize(path: string, bytes: Uint8Array): Uint8Array {
  if (bytes.length > maxBlobBytes) throw new UnavailableError("unavailable", `${path} has ${bytes.length} bytes, at most ${maxBlobBytes} are taken`)
  return bytes
}

async function attempt<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (cause) {
    throw deviceError(path, device, cause)
  }
}
