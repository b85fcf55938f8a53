/** A kind of evidence: what policies, bundles and screens call it. */
export interface EvidenceKind {
  /** For people. */
  readonly name: string
  /** Folder under `evidence/` with its format, verification and README; undefined for kinds whose verifier is not written yet. */
  readonly folder?: string
}

/** Every kind of evidence, verified here or foreseen. One line each, so that branches that add kinds merge. */
export const evidenceKinds = {
  tpm: { name: "TPM 2.0 quote", folder: "tpm" },
  eventlog: { name: "UEFI measured boot log", folder: "eventlog" },
  ima: { name: "Linux IMA measurement list", folder: "ima" },
  sgx: { name: "Intel SGX quote (version 3)", folder: "sgx" },
  tdx: { name: "Intel TDX quote (versions 4 and 5)", folder: "tdx" },
  ccel: { name: "CC event log of a TD", folder: "ccel" },
  snp: { name: "AMD SEV-SNP attestation report (versions 2 to 5)", folder: "snp" },
  "azure-vtpm": { name: "Azure confidential VM: paravisor and virtual TPM, over SEV-SNP or TDX", folder: "azure" },
  nvidia: { name: "NVIDIA GPU and NVSwitch report" },
  nitro: { name: "AWS Nitro attestation document" },
  cca: { name: "Arm CCA token" },
} as const satisfies Readonly<Record<string, EvidenceKind>>

export type EvidenceKindName = keyof typeof evidenceKinds
