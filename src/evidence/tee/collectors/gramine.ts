import { bytesEqual } from "../../../bytes/compare.ts"
import { UnavailableError } from "../../../bytes/error.ts"
import { parseHex, parseUtf8 } from "../../../bytes/text.ts"
import { parseSgxQuote } from "../../sgx/format.ts"
import { deviceError, hostFiles } from "./device-files.ts"
import type { DeviceFiles } from "./device-files.ts"

/** Where Gramine lets the program inside an enclave ask for a quote of itself. Gramine documentation, "Attestation and secret provisioning". */
export const gramineFolder = "/dev/attestation"

const reportDataBytes = 64
const maxQuoteBytes = 65_536
/** The files are the whole enclave's: another thread may ask in between. */
const maxAttempts = 5
const device = "an SGX enclave under Gramine"

/**
 * A DCAP quote of this enclave over 64 bytes of report data.
 * @throws {UnavailableError} `unsupported` outside Gramine or where attestation is not set up as DCAP, `permission-denied`, `unavailable`
 * @throws {MalformedError}, {EvidenceError} what Gramine gives cannot be read
 */
export async function collectGramineQuote(
  reportData: Uint8Array,
  folder: string = gramineFolder,
  files: DeviceFiles = hostFiles,
): Promise<Uint8Array> {
  if (reportData.length !== reportDataBytes) throw new TypeError(`report data of ${reportData.length} bytes, expected ${reportDataBytes}`)
  const type = parseUtf8(await attempt(`${folder}/attestation_type`, async () => files.read(`${folder}/attestation_type`))).trim()
  if (type !== "dcap")
    throw new UnavailableError(
      "unsupported",
      `${folder}: attestation of type ${JSON.stringify(type)}, the manifest must say sgx.remote_attestation = "dcap"`,
    )
  for (let count = 0; count < maxAttempts; count++) {
    await attempt(`${folder}/user_report_data`, async () => files.write(`${folder}/user_report_data`, reportData))
    const quote = await attempt(`${folder}/quote`, async () => files.read(`${folder}/quote`))
    if (quote.length > maxQuoteBytes) throw new UnavailableError("unavailable", `${folder}/quote has ${quote.length} bytes`)
    if (bytesEqual(parseHex(parseSgxQuote(quote).report.reportData), reportData)) return quote
  }
  throw new UnavailableError("unavailable", `${folder}: another thread of the enclave keeps asking for other quotes`)
}

async function attempt<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (cause) {
    throw deviceError(path, device, cause)
  }
}
