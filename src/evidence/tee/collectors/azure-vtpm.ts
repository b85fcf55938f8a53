import { UnavailableError } from "../../../bytes/error.ts"
import type { PcrSelection } from "../../tpm/format.ts"
import { quote, readNv, readNvPublic, readPublic } from "../../tpm/client/commands.ts"
import type { LoadedObject } from "../../tpm/client/commands.ts"
import type { TpmConnection } from "../../tpm/client/connection.ts"
import { TpmError } from "../../tpm/client/errors.ts"
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
}

/**
 * Report of the paravisor and a quote by its attestation key. `extraData` has at most 32 bytes.
 * @throws {UnavailableError} `unsupported` where the TPM is not that of an Azure confidential VM; {TpmError}
 * @throws {MalformedError}, {EvidenceError} the report cannot be read
 */
export async function collectAzureVtpm(tpm: TpmConnection, extraData: Uint8Array, selection: readonly PcrSelection[]): Promise<AzureVtpmEvidence> {
  const hclReport = await orUnsupported("NV index 0x01400001", async () => readNv(tpm, await readNvPublic(tpm, hclReportIndex)))
  parseHclReport(hclReport)
  const key: LoadedObject = await orUnsupported("persistent object 0x81000003", async () => readPublic(tpm, hclAttestationKey))
  return { hclReport, akPublic: encodeSizedPublicArea(key.publicArea), quote: await quote(tpm, key, extraData, selection) }
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
