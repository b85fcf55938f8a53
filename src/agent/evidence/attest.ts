import { UnavailableError } from "../../bytes/error.ts"
import type { Digest } from "../../bytes/digest.ts"
import {
  decodeHostBundle,
  enrolmentFields,
  innerNonce,
  sessionDigest,
  tpmPieceDigest,
  type DemandedPieces,
  type HostBundleDocument,
  type MachineBundleDocument,
  type SessionFields,
} from "../../evidence/bundle.ts"
import { sessionReportData } from "../../evidence/report-data.ts"
import { encodeTeeEvidence, type TeeEvidence, type TeeEvidenceDocument } from "../../evidence/tee/format.ts"
import { collectTee, type TeeDevices, type TeeSource } from "../../evidence/tee/collectors/collect.ts"
import type { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import { tpmNameText } from "../../evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../../evidence/tpm/public-area.ts"
import type { HostView } from "../../protocol/messages.ts"
import { EvidenceCollector } from "./collect.ts"
import { enrolTee, enrolTpm, type EnrolmentExchange } from "./enrol.ts"
import type { KernelLogPaths } from "./kernel-logs.ts"

/** What a challenge and this agent's own keys make of a session, before any piece of evidence is there. */
export type OpenSession = Omit<SessionFields, "akName" | "deviceEvidence">

export interface AttestationRequest {
  readonly session: OpenSession
  readonly pieces: DemandedPieces
  /** First IMA entry that the manager wants. */
  readonly imaFrom: number
  /** False at a renewal: the manager has the log of this boot. */
  readonly withBootLog: boolean
}

export interface Attestation {
  readonly bundle: MachineBundleDocument
  /** Session digest that the outermost piece carries, 32 bytes. */
  readonly session: Uint8Array
}

/** This machine as it proves itself. */
export interface Attester {
  /** Under this name, to the manager of this instance; `tlsKey` is this agent's. */
  enrol(host: string, as: { readonly manager: string; readonly tlsKey: Digest }, exchange: EnrolmentExchange): Promise<HostView>
  /** @throws {UnavailableError} `unsupported` for a piece that the machine does not have */
  attest(request: AttestationRequest): Promise<Attestation>
}

export interface MachineDevices {
  readonly tpm?: HostTpm
  /** Asks the TEE for evidence over 64 bytes of report data. */
  readonly tee?: (reportData: Uint8Array) => Promise<TeeEvidence>
}

/** Asks the machine's own TEE at `source`. */
export function teeAt(source: TeeSource, devices?: TeeDevices): NonNullable<MachineDevices["tee"]> {
  return (reportData) => collectTee(source, reportData, devices)
}

/** Proves a real machine by its devices and its kernel's logs. */
export class MachineAttester implements Attester {
  readonly #devices: MachineDevices
  readonly #collector: EvidenceCollector | undefined

  constructor(devices: MachineDevices, paths?: KernelLogPaths) {
    this.#devices = devices
    this.#collector = devices.tpm === undefined ? undefined : new EvidenceCollector(devices.tpm, paths)
  }

  /** By the TPM where there is one: it is known for good, and a TEE's processor for as long as it says which one it is. */
  async enrol(host: string, as: { readonly manager: string; readonly tlsKey: Digest }, exchange: EnrolmentExchange): Promise<HostView> {
    const { tpm } = this.#devices
    if (tpm !== undefined) return enrolTpm(tpm, host, exchange)
    return enrolTee((nonce) => this.#teeEvidence(sessionDigest(enrolmentFields({ ...as, nonce }))), as.manager, host, exchange)
  }

  async attest({ session, pieces, ...logs }: AttestationRequest): Promise<Attestation> {
    const fields = { ...session, deviceEvidence: [], akName: pieces === "tee" ? null : await this.#attestationKeyName() }
    switch (pieces) {
      case "tpm": {
        const carried = sessionDigest(fields)
        return { bundle: await this.#tpmEvidence(carried, logs), session: carried }
      }
      case "tee": {
        const carried = sessionDigest(fields)
        return { bundle: { perun: 1, tee: await this.#teeEvidence(carried) }, session: carried }
      }
      case "tee-with-tpm": {
        // The TEE last: its evidence covers every byte of the other piece.
        const inner = await this.#tpmEvidence(innerNonce(fields), logs)
        const carried = sessionDigest({ ...fields, deviceEvidence: [tpmPieceDigest(decodeHostBundle(inner))] })
        return { bundle: { ...inner, tee: await this.#teeEvidence(carried) }, session: carried }
      }
    }
  }

  async #attestationKeyName(): Promise<string> {
    const { tpm } = this.#devices
    if (tpm === undefined) throw missing("TPM")
    return tpmNameText(parseSizedPublicArea(await tpm.attestationPublic()))
  }

  #tpmEvidence(extraData: Uint8Array, logs: Pick<AttestationRequest, "imaFrom" | "withBootLog">): Promise<HostBundleDocument> {
    if (this.#collector === undefined) throw missing("TPM")
    return this.#collector.collectBundle({ extraData, ...logs })
  }

  async #teeEvidence(session: Uint8Array): Promise<TeeEvidenceDocument> {
    const { tee } = this.#devices
    if (tee === undefined) throw missing("TEE")
    return encodeTeeEvidence(await tee(sessionReportData(session)))
  }
}

function missing(piece: "TPM" | "TEE"): UnavailableError {
  const setting = piece === "TPM" ? "tpm" : "tee"
  return new UnavailableError("unsupported", `evidence of a ${piece} is asked for, and this agent's configuration (${setting}) names none`)
}
