import { randomBytes } from "node:crypto"
import { readFile } from "node:fs/promises"
import { UnavailableError } from "../../../bytes/error.ts"
import { encodeHex } from "../../../bytes/text.ts"
import { fetchTdQuote } from "../../azure/endorsements.ts"
import { parseSnpCertTable } from "../../snp/cert-table.ts"
import type { SnpEndorsements } from "../../snp/endorsements.ts"
import { parseSnpReport } from "../../snp/format.ts"
import type { TeeEvidence } from "../format.ts"
import { TpmConnection } from "../../tpm/client/connection.ts"
import { defaultTpmLocation, openTransport, type TpmLocation, type TpmTransport } from "../../tpm/client/transport.ts"
import { collectAzureVm } from "./azure-vtpm.ts"
import { hostFiles, systemWord, type DeviceFiles } from "./device-files.ts"
import { collectGramineQuote, gramineFolder } from "./gramine.ts"
import { collectGuestAgentQuote } from "./guest-agent.ts"
import type { GuestAgentAddress } from "./guest-agent.ts"
import { collectTsmReport } from "./tsm-report.ts"

/** Where this program asks for evidence of itself: the kernel's configfs-tsm (TDX, SEV-SNP), Gramine (SGX), the virtual TPM of a confidential VM of Azure, or a TD's guest agent. */
export type TeeSource = "tsm" | "gramine" | "azure" | GuestAgentAddress

/** Form of a source on a command line and in a configuration. */
export const teeSourceForm = /^(?:tsm|gramine|azure|http:\/\/[A-Za-z0-9.-]+(?::[0-9]{1,5})?|unix:\/[^\0]{1,100})$/

/** The machine's own devices where nothing is given, or a laboratory's. */
export interface TeeDevices {
  /** The kernel's and Gramine's files. */
  readonly files?: DeviceFiles
  /** The virtual TPM of a confidential VM of Azure. */
  readonly tpm?: TpmLocation
  /** Where a host of Azure makes quotes of TD reports. */
  readonly tdQuoteAddress?: string
}

/** The firmware's table of a TD; absent where the firmware measures nothing. ACPI 6.5, 5.2.34. */
const ccelPath = "/sys/firmware/acpi/tables/data/CCEL"

/**
 * Evidence of this program's own TEE over 64 bytes of report data, with what the host passes along.
 * @throws {UnavailableError} `unsupported` where there is no such TEE, `permission-denied`, `unavailable`, `timeout`; {MalformedError}, {EvidenceError}
 */
export async function collectTee(source: TeeSource, reportData: Uint8Array, devices: TeeDevices = {}): Promise<TeeEvidence> {
  const { files = hostFiles, tpm: location = defaultTpmLocation, tdQuoteAddress } = devices
  if (source === "azure") {
    await using tpm = new TpmConnection(await openVirtualTpm(location))
    return await collectAzureVm(tpm, reportData, (tdReport) => fetchTdQuote(tdReport, tdQuoteAddress))
  }
  if (source === "gramine") return { kind: "sgx", quote: await collectGramineQuote(reportData, gramineFolder, files) }
  if (source !== "tsm") {
    const { quote, eventLog } = await collectGuestAgentQuote(source, reportData)
    return { kind: "tdx", quote, ...(eventLog === undefined ? {} : { eventLog }) }
  }
  const { kind, report, auxiliary } = await collectTsmReport({ reportData, entry: `perun-${encodeHex(new Uint8Array(randomBytes(8)))}`, files })
  if (kind === "snp") {
    const endorsements = auxiliary === undefined ? undefined : endorsementsOf(report, auxiliary)
    return { kind, report, ...(endorsements === undefined ? {} : { endorsements }) }
  }
  const eventLog = await readCcel()
  return { kind, quote: report, ...(eventLog === undefined ? {} : { eventLog }) }
}

/** A machine without a TPM is none of Azure's. */
async function openVirtualTpm(location: TpmLocation): Promise<TpmTransport> {
  try {
    return await openTransport(location)
  } catch (cause) {
    if (cause instanceof UnavailableError && systemWord(cause.cause) === "ENOENT")
      throw new UnavailableError("unsupported", `this machine is not an Azure confidential VM: ${cause.message}`, { cause })
    throw cause
  }
}

/** Certificates of the key that signed, from the host's table; undefined where they are not in it. */
function endorsementsOf(report: Uint8Array, table: Uint8Array): SnpEndorsements | undefined {
  const { signingKey } = parseSnpReport(report)
  const { signers, intermediates, revocationLists } = parseSnpCertTable(table)
  const signer = signingKey === "none" ? undefined : signers[signingKey]
  return signer === undefined ? undefined : { signer, intermediates, revocationLists }
}

async function readCcel(): Promise<Uint8Array | undefined> {
  try {
    return new Uint8Array(await readFile(ccelPath))
  } catch (cause) {
    const word = cause instanceof Error && "code" in cause ? cause.code : undefined
    if (word === "ENOENT") return undefined
    throw new UnavailableError("unavailable", `${ccelPath} cannot be read: ${String(word)}`, { cause })
  }
}
