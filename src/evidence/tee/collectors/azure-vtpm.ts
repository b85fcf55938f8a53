import { isDeepStrictEqual } from "node:util"
import { UnavailableError } from "../../../bytes/error.ts"
import { encodeHex } from "../../../bytes/text.ts"
import { azurePcrs } from "../../azure/claims.ts"
import type { AzureVmEvidence } from "../../azure/document.ts"
import { quotedReportData } from "../../report-data.ts"
import type { PcrSelection } from "../../tpm/format.ts"
import { quote, readNv, readNvPublic, readPcrs, readPublic } from "../../tpm/client/commands.ts"
import type { LoadedObject } from "../../tpm/client/commands.ts"
import type { TpmConnection } from "../../tpm/client/connection.ts"
import { TpmError } from "../../tpm/client/errors.ts"
import type { PcrValues } from "../../tpm/quote.ts"
import { encodeSizedPublicArea } from "../../tpm/public-area.ts"
import { parseHclReport } from "../../azure/format.ts"

/** Where Azure's paravisor leaves its report, and the attestation key that the report names. Microsoft, "Virtual TPMs in Azure confidential VMs". */
export const hclReportIndex = 0x01400001
export const hclAttestationKey = 0x81000003

export interface AzureVtpmEvidence {
  /** The paravisor's report as it lies in NV memory. */
  readonly hclReport: Uint8Array
  /** TPM2B_PUBLIC of the attestation key. */
  readonly akPublic: Uint8Array
  /** TPMS_ATTEST and TPMT_SIGNATURE. */
  readonly quote: { readonly attest: Uint8Array; readonly signature: Uint8Array }
  /** What the quoted registers hold. */
  readonly pcrs: PcrValues
}

/** Registers whose values a policy can demand. */
const selection: PcrSelection = { bank: "sha256", pcrs: azurePcrs }
/** Registers that change between two looks are IMA's, while programs start; whoever changes them so often is disturbed on purpose. */
const maxAttempts = 5

/**
 * Evidence of this confidential VM over 64 bytes of report data, of which the virtual TPM's quote carries the session digest. `quoteTd`: has Azure's host make a quote of a
 * TD report.
 * @throws {UnavailableError} as collectAzureVtpm, and where the virtual TPM refuses; as `quoteTd`; {TypeError} report data that are more than a session digest
 */
export async function collectAzureVm(
  tpm: TpmConnection,
  reportData: Uint8Array,
  quoteTd: (tdReport: Uint8Array) => Promise<Uint8Array>,
): Promise<AzureVmEvidence> {
  const collected = await orUnavailable(collectAzureVtpm(tpm, quotedReportData(reportData), [selection]))
  const { type, report } = parseHclReport(collected.hclReport).hardware
  const hardware = type === "snp" ? ({ kind: "snp", report } as const) : ({ kind: "tdx", quote: await quoteTd(report) } as const)
  return { kind: "azure-vtpm", hardware, ...collected }
}

/**
 * Report of the paravisor, a quote by its attestation key and what the quoted registers hold. `extraData` has at most 32 bytes.
 * @throws {UnavailableError} `unsupported` where the TPM is not that of an Azure confidential VM, `unavailable` where its registers never rest; {TpmError}
 * @throws {MalformedError}, {EvidenceError} the report cannot be read
 */
export async function collectAzureVtpm(tpm: TpmConnection, extraData: Uint8Array, selection: readonly PcrSelection[]): Promise<AzureVtpmEvidence> {
  const hclReport = await orUnsupported("NV index 0x01400001", async () => readNv(tpm, await readNvPublic(tpm, hclReportIndex)))
  parseHclReport(hclReport)
  const key: LoadedObject = await orUnsupported("persistent object 0x81000003", async () => readPublic(tpm, hclAttestationKey))
  for (let count = 0; count < maxAttempts; count++) {
    const pcrs = await readBanks(tpm, selection)
    const signed = await quote(tpm, key, extraData, selection)
    // The same before and after: the quote is over these.
    if (isDeepStrictEqual(await readBanks(tpm, selection), pcrs))
      return { hclReport, akPublic: encodeSizedPublicArea(key.publicArea), quote: signed, pcrs }
  }
  throw new UnavailableError("unavailable", "the virtual TPM's registers change all the time")
}

async function readBanks(tpm: TpmConnection, selection: readonly PcrSelection[]): Promise<PcrValues> {
  const banks = new Map<string, ReadonlyMap<number, string>>()
  for (const one of selection)
    banks.set(one.bank, new Map([...(await readPcrs(tpm, one))].toSorted(([a], [b]) => a - b).map(([pcr, value]) => [pcr, encodeHex(value)])))
  return banks
}

/** To whoever waits for evidence it is all one which command the virtual TPM refused; the cause says it. */
async function orUnavailable<T>(collected: Promise<T>): Promise<T> {
  try {
    return await collected
  } catch (cause) {
    if (cause instanceof TpmError) throw new UnavailableError("unavailable", `the virtual TPM: ${cause.message}`, { cause })
    throw cause
  }
}

async function orUnsupported<T>(what: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (cause) {
    if (cause instanceof TpmError && cause.code === "no-such-handle")
      throw new UnavailableError("unsupported", `this machine is not an Azure confidential VM: its TPM has no ${what}`, { cause })
    throw cause
  }
}
