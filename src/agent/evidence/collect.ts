import { encodeBase64 } from "../../bytes/text.ts"
import type { HostBundleDocument } from "../../evidence/bundle.ts"
import type { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import type { PcrSelection } from "../../evidence/tpm/format.ts"
import { ImaListReader, kernelLogPaths, readBootLog, type KernelLogPaths } from "./kernel-logs.ts"

/** What every bundle quotes: firmware, boot loader and kernel (0 to 9), IMA (10) and the machine owner keys (14), in the SHA-256 bank. */
export const quotedRegisters: readonly PcrSelection[] = [{ bank: "sha256", pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14] }]

export interface BundleRequest {
  /** 32 bytes: the session digest. */
  readonly extraData: Uint8Array
  /** First IMA entry that the manager wants. */
  readonly imaFrom: number
  /** False at a renewal: the manager has the log of this boot. */
  readonly withBootLog: boolean
}

/** Collects evidence of this host, again and again during one boot. */
export class EvidenceCollector {
  readonly #tpm: HostTpm
  readonly #paths: KernelLogPaths
  readonly #imaList: ImaListReader

  constructor(tpm: HostTpm, paths: KernelLogPaths = kernelLogPaths) {
    this.#tpm = tpm
    this.#paths = paths
    this.#imaList = new ImaListReader(paths)
  }

  /**
   * Quote first, then the logs: the kernel adds an entry to its list before it extends the register, so a list that is read after the quote holds every entry that
   * the quote certifies, and perhaps newer ones that the next quote will. In the other order the register could hold what the list lacks.
   * @throws {UnavailableError} `unsupported` where TPM, boot log or IMA list are missing, `permission-denied`, `unavailable`; {TpmError}; {MalformedError}
   */
  async collectBundle({ extraData, imaFrom, withBootLog }: BundleRequest): Promise<HostBundleDocument> {
    const akPublic = await this.#tpm.attestationPublic()
    const { attest, signature } = await this.#tpm.quote(extraData, quotedRegisters)
    const ima = await this.#imaList.read(imaFrom)
    const eventLog = withBootLog ? { eventLog: encodeBase64(await readBootLog(this.#paths.bootLog)) } : {}
    return {
      perun: 1,
      tpm: {
        quote: encodeBase64(attest),
        signature: encodeBase64(signature),
        akPublic: encodeBase64(akPublic),
        ...eventLog,
        ima: { from: ima.from, list: encodeBase64(ima.list) },
      },
    }
  }
}
