/** TPMS_CLOCK_INFO. For a key outside the endorsement hierarchy the counters are masked per key: only differences between quotes of one key count. */
export interface ClockInfo {
  /** Milliseconds that the TPM has been powered. */
  readonly clock: bigint
  /** Counts TPM Reset: a new value means a new boot. */
  readonly resetCount: number
  /** Counts TPM Restart and TPM Resume since the last reset. */
  readonly restartCount: number
  /** False when the clock may have been set back by a loss of power. */
  readonly safe: boolean
}

export interface PcrSelectionClaim {
  /** Bank by name, e.g. `sha256`. */
  readonly bank: string
  readonly pcrs: readonly number[]
}

/** What a signed TPMS_ATTEST of type quote says. */
export interface QuoteClaims {
  readonly selection: readonly PcrSelectionClaim[]
  /** Digest over the selected registers, lower-case hexadecimal. */
  readonly pcrDigest: string
  /** Values by bank and index that were found to give `pcrDigest`, lower-case hexadecimal. */
  readonly pcrs: ReadonlyMap<string, ReadonlyMap<number, string>>
  readonly clockInfo: ClockInfo
  /** TPMS_ATTEST.firmwareVersion, vendor specific. */
  readonly firmwareVersion: bigint
  /** TPM2B_NAME of the signing key's qualified name, lower-case hexadecimal. */
  readonly qualifiedSigner: string
  /** Signature scheme and hash, e.g. `rsassa-sha256`, `ecdsa-sha256`. */
  readonly scheme: string
  /** SHA-1 was used somewhere: bank or signature; only possible when the caller allowed it. */
  readonly usesSha1: boolean
  /**
   * Name of the signing key, lower-case hexadecimal, whose public area was given and has the attributes of an attestation key. Undefined where only a bare
   * key was given: then nothing says that it is in a TPM and signs quotes only.
   */
  readonly keyName?: string
}

/** What a verified certificate chain says about an endorsement key, or about an attestation key that was certified directly. */
export interface EndorsementClaims {
  /** `endorsement`: the certificate is for an EK. `attestation`: for an AK. */
  readonly role: "endorsement" | "attestation"
  /** SHA-256 of the certified key's SubjectPublicKeyInfo (DER, standard encoding), as `sha256:…`. */
  readonly key: `sha256:${string}`
  /** The key in TPM form was given, has the attributes of its role, and is the certified one. */
  readonly hasPublicArea: boolean
  /** SHA-256 of the root certificate (DER), as `sha256:…`. */
  readonly root: `sha256:${string}`
  readonly rootKind: "vendor" | "laboratory"
  /** Name of the root, for people. */
  readonly rootName: string
  /** The root says that the TPM is a cloud provider's software. */
  readonly isCloud: boolean
  readonly manufacturer: string
  readonly model: string
  readonly version: string
  /** Forms that differ from the profile and were accepted; see `endorsementQuirks`. */
  readonly quirks: readonly string[]
  /** A certificate of the chain is signed over SHA-1; only possible when the caller allowed it. */
  readonly usesSha1: boolean
  /** Every issuer of the chain had a revocation list among those given. */
  readonly isRevocationChecked: boolean
}

/** Who the machine is: written once at enrolment. */
export interface TpmIdentity {
  /** SHA-256 of the endorsement key's SubjectPublicKeyInfo (DER), as `sha256:…`: what policies list. */
  readonly endorsementKey: `sha256:${string}`
  /** SHA-256 of the root certificate (DER) that the endorsement key certificate chains to, as `sha256:…`. */
  readonly root: `sha256:${string}`
  /** `vendor`: the root is pinned in this program. `laboratory`: it was given by the operator or a policy. */
  readonly rootKind: "vendor" | "laboratory"
  /** Readable names for people, from the certificate: manufacturer, model, version; may be empty. */
  readonly description: string
  /** Name of the attestation key: nameAlg ‖ digest of its TPMT_PUBLIC, lower-case hexadecimal. */
  readonly attestationKeyName: string
}
