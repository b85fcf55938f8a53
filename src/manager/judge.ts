import type { Digest } from "../bytes/digest.ts"
import type { TpmIdentity } from "../evidence/tpm/claims.ts"
import type { PreviousHost } from "../evidence/host/verify.ts"
import type { Decision, GrantedDecision } from "../policy/appraise.ts"
import type { Policy } from "../policy/document.ts"
import type { References } from "../policy/reference.ts"
import type { EnrolmentRequest, WireBundle } from "../protocol/messages.ts"

/** What a bundle must be bound to, all of it from the manager's own records. */
export interface SessionFacts {
  readonly purpose: "claim" | "renew"
  readonly manager: string
  /** 32 bytes in hexadecimal. */
  readonly nonce: string
  /** Base64, as the agent sent it: the only fact of the agent's own, for the answer is sealed to it. */
  readonly hpkeKey: string
  readonly tlsKey: Digest
  /** Attestation key's name, hexadecimal. */
  readonly akName: string
  readonly policy: Digest
  readonly job: string
  readonly run: string
  readonly lease: string
}

/** What an earlier judgement of the same boot left, for the next one. Kept in this process only: after a restart the whole boot is shown again. */
export interface JudgedBoot {
  readonly decision: GrantedDecision
  readonly host: PreviousHost
}

export interface JudgeRequest {
  readonly session: SessionFacts
  readonly bundle: WireBundle
  /** From the host's record. */
  readonly identity: TpmIdentity
  readonly policy: Policy
  readonly references: References
  readonly time: Date
  readonly previous: JudgedBoot | undefined
}

export interface Judgement {
  readonly decision: Decision
  /** What the next renewal goes on from; undefined where refused. */
  readonly judged: JudgedBoot | undefined
}

/** An enrolment that waits for the TPM's answer. */
export interface PendingEnrolment {
  readonly identity: TpmIdentity
  /** TPM2B_ID_OBJECT. */
  readonly credentialBlob: Uint8Array
  /** TPM2B_ENCRYPTED_SECRET. */
  readonly encryptedSecret: Uint8Array
  /** What ActivateCredential gives; never leaves the manager. */
  readonly expectedSecret: Uint8Array
}

/** The verifier of machines as the manager uses it. One implementation, over evidence and policy; see judge-tpm.ts. */
export interface MachineJudge {
  /** SHA-256 over the session's canonical form, `sha256:…`: what a quote carries. */
  sessionDigest(session: SessionFacts): Digest
  /**
   * Verifies the endorsement chain and makes a credential that only this TPM opens.
   * @throws {EvidenceError} `wrong-chain`, `wrong-certificate`, `wrong-key`, `expired`, …; {MalformedError}
   */
  beginEnrolment(request: EnrolmentRequest, time: Date): Promise<PendingEnrolment>
  /**
   * Verifies a bundle and appraises it.
   * @throws {EvidenceError} when it is not genuine; {MalformedError}
   */
  judge(request: JudgeRequest): Promise<Judgement>
}
