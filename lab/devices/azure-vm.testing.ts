import { createPublicKey } from "node:crypto"
import { quotedReportData } from "../../src/evidence/report-data.ts"
import { azurePcrs } from "../../src/evidence/azure/claims.ts"
import type { AzureVmEvidence } from "../../src/evidence/azure/document.ts"
import { encodeHclReport } from "../../src/evidence/azure/format.ts"
import type { HardwareEvidence } from "../../src/evidence/tee/hardware.ts"
import { parseTdxQuote, type TdReport } from "../../src/evidence/tdx/format.ts"
import { endorsementKeyDigest } from "../../src/evidence/tpm/endorsements.ts"
import { encodeSizedPublicArea } from "../../src/evidence/tpm/public-area.ts"
import { makeQuote, makeRsaKey, type QuoteOptions } from "../../src/evidence/tpm/software-tpm.testing.ts"
import { certificateFingerprint } from "../../src/pki/certificate.ts"
import type { AzurePcr, AzureRequirement, TdxRequirement } from "../../src/policy/tee.ts"
import type { ReportFields, SnpDevice } from "./amd-snp.ts"
import { makeRuntimeData, makeTdReport, reportDataFor, type RuntimeDataOptions } from "./azure-hcl.ts"
import { labPlatform, type LabAuthority } from "./dcap/authority.ts"
import { makeTdxQuote } from "./dcap/device.ts"
import { labSnpRequirement } from "./guest-files.ts"

/** What differs from the good machine. */
export interface AzureKnobs {
  readonly runtime?: Partial<RuntimeDataOptions>
  readonly report?: Partial<ReportFields>
  readonly td?: Partial<TdReport>
  /** Registers that hold something else; undefined leaves one out of the quote. */
  readonly pcrs?: Readonly<Partial<Record<AzurePcr, string | undefined>>>
  readonly attest?: QuoteOptions["attest"]
  /** The quote's extraData, where it is not what was asked for. */
  readonly extraData?: Uint8Array
  /** The attestation key that signs; the paravisor names the machine's own all the same. */
  readonly signer?: ReturnType<typeof makeRsaKey>
}

/** What a machine says of itself that the laboratory's paravisor does not say unasked: no console takes input, the TPM's state stays. */
export const azureSettings = { "secure-boot": true, "console-enabled": false, "interactive-console-enabled": false, "tpm-persisted": true }
/** Each register holds its own index, repeated. */
const values = Object.fromEntries(azurePcrs.map((pcr) => [pcr, pcr.toString(16).padStart(2, "0").repeat(32)])) as unknown as Record<AzurePcr, string>

/** A confidential VM of a laboratory's Azure: a paravisor on a laboratory's processor, and a virtual TPM whose key the test holds. INSECURE LABORATORY. */
export class AzureVm {
  readonly ak = makeRsaKey()
  readonly #hardware: SnpDevice | LabAuthority

  constructor(hardware: SnpDevice | LabAuthority) {
    this.#hardware = hardware
  }

  get attestationKey(): ReturnType<typeof endorsementKeyDigest> {
    return endorsementKeyDigest(createPublicKey(this.ak.privateKey))
  }

  /** Evidence over a session's report data, with all that vouches for it. */
  evidence(reportData: Uint8Array, knobs: AzureKnobs = {}): AzureVmEvidence {
    const runtimeData = this.runtimeData(knobs)
    const hardware = this.#show(reportDataFor(runtimeData), knobs)
    const report = hardware.kind === "snp" ? hardware.report : makeTdReport(parseTdxQuote(hardware.quote).report)
    const registers = Object.entries({ ...values, ...knobs.pcrs }).flatMap(([pcr, value]) =>
      value === undefined ? [] : ([[Number(pcr), value]] as const),
    )
    const pcrs = new Map([["sha256", new Map(registers)]])
    const extraData = knobs.extraData ?? quotedReportData(reportData)
    return {
      kind: "azure-vtpm",
      hclReport: encodeHclReport({ version: 2, hardware: { type: hardware.kind, report }, runtimeData, paddingBytes: 64 }),
      hardware,
      quote: makeQuote(knobs.signer ?? this.ak, { extraData, pcrs, ...(knobs.attest === undefined ? {} : { attest: knobs.attest }) }),
      akPublic: encodeSizedPublicArea(this.ak.area),
      pcrs,
    }
  }

  runtimeData({ runtime }: AzureKnobs = {}): Uint8Array {
    const attestationKey = createPublicKey(this.ak.privateKey)
    return makeRuntimeData({ attestationKey, ...runtime, vmConfiguration: { ...azureSettings, ...runtime?.vmConfiguration } })
  }

  /** Demands that this machine meets, and that state everything. */
  get requirement(): AzureRequirement {
    return {
      tee: isAmd(this.#hardware) ? { snp: labSnpRequirement(this.#hardware) } : { tdx: labParavisorTd(this.#hardware) },
      pcrs: Object.fromEntries(Object.entries(values).map(([pcr, value]) => [pcr, [value]])) as unknown as AzureRequirement["pcrs"],
      attestationKeys: [this.attestationKey],
      attestationKeyRestricted: true,
      vmUniqueId: ["00000000-0000-4000-8000-000000000000"],
      vmConfiguration: { secureBoot: true, consoleEnabled: false, interactiveConsoleEnabled: false, tpmPersisted: true, unknownSettings: "none" },
    }
  }

  #show(reportData: Uint8Array, { report, td }: AzureKnobs): Exclude<HardwareEvidence, { kind: "sgx" }> {
    const by = this.#hardware
    if (!isAmd(by)) return { kind: "tdx", quote: makeTdxQuote(by, reportData, td === undefined ? {} : { report: td }), collateral: by.tdxCollateral }
    const { intermediates, ...rest } = by.endorsements()
    return {
      kind: "snp",
      report: by.report({ reportData, ...report }),
      endorsements: { ...rest, intermediates: [...intermediates, by.root.certificate] },
    }
  }
}

function isAmd(hardware: SnpDevice | LabAuthority): hardware is SnpDevice {
  return "chipId" in hardware
}

/** Demands that a TD of this laboratory's platform meets, with everything stated. */
function labParavisorTd(authority: LabAuthority): TdxRequirement {
  const { mrTd, rtmrs, mrConfigId, mrOwner, mrOwnerConfig, mrSeam } = parseTdxQuote(makeTdxQuote(authority, new Uint8Array(64))).report
  return {
    mrTd: [mrTd],
    rtmrs: { "0": [rtmrs[0]], "1": [rtmrs[1]], "2": [rtmrs[2]], "3": [rtmrs[3]] },
    mrConfigId: [mrConfigId],
    mrOwner: [mrOwner],
    mrOwnerConfig: [mrOwnerConfig],
    mrSeam: [mrSeam],
    septVeDisable: true,
    migration: false,
    eventLog: "none",
    debug: false,
    tcb: { status: ["UpToDate"], advisories: [], evaluationDataNumber: 18 },
    platforms: [labPlatform.ppid],
    laboratoryRoots: [certificateFingerprint(authority.root.certificate)],
  }
}
