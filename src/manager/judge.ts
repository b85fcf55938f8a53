import type { Digest } from "../bytes/digest.ts"
import type { PreviousHost } from "../evidence/host/verify.ts"
import type { TeeIdentity } from "../evidence/tee/identity.ts"
import type { TpmIdentity } from "../evidence/tpm/claims.ts"
import type { Decision, GrantedDecision } from "../policy/appraise.ts"
import type { Policy } from "../policy/document.ts"
import type { MachineIdentity } from "../policy/listing.ts"
import type { References } from "../policy/reference.ts"
import type { ReplacedReferences } from "../policy/reference-updates.ts"
import type { TeeEvidenceDocument } from "../evidence/tee/format.ts"
import type { TpmEnrolmentRequest, WireBundle } from "../protocol/messages.ts"

/** What a bundle must be bound to, all of it from the manager's own records. */
export interface SessionFacts {
  readonly purpose: "claim" | "renew"
  readonly manager: string
  /** 32 bytes in hexadecimal. */
  readonly nonce: string
  /** Base64, as the agent sent it: the only fact of the agent's own, for the answer is sealed to it. */
  readonly hpkeKey: string
  readonly tlsKey: Digest
  /** Attestation key's name, hexadecimal; null where the machine shows no TPM. */
  readonly akName: string | null
  readonly policy: Digest
  readonly job: string
  readonly run: string
  readonly lease: string
}

/** What the evidence of a TEE that enrols must be bound to. */
export type EnrolmentFacts = Pick<SessionFacts, "manager" | "nonce" | "tlsKey">

/** What an earlier judgement of the same machine left, for the next one. Kept in this process only: after a restart the whole boot is shown again. */
export interface JudgedMachine {
  readonly decision: GrantedDecision
  readonly host?: PreviousHost
  /** Under which of the candidates it was granted. */
  readonly replaced: ReplacedReferences
}

export interface JudgeRequest {
  readonly session: SessionFacts
  readonly bundle: WireBundle
  /** UEFI log that the lease's boot was judged by, base64, for a bundle that comes without one. */
  readonly knownBootLog?: string
  /** From the host's record. */
  readonly identity: MachineIdentity
  readonly policy: Policy
  readonly references: References
  /** What may stand in the place of the policy's own references, one pair or more: the machine must meet one of them whole. */
  readonly candidates: readonly ReplacedReferences[]
  readonly time: Date
  readonly previous: JudgedMachine | undefined
}

export interface Judgement {
  readonly decision: Decision
  /** What the outermost piece carries, which is part of what the keys are sealed with. */
  readonly session: Digest
  /** What the next renewal goes on from; undefined where refused. */
  readonly judged: JudgedMachine | undefined
}

/** An enrolment that waits for the TPM's answer. */
export interface PendingTpm {
  readonly identity: TpmIdentity
  /** TPM2B_ID_OBJECT. */
  readonly credentialBlob: Uint8Array
  /** TPM2B_ENCRYPTED_SECRET. */
  readonly encryptedSecret: Uint8Array
  /** What ActivateCredential gives; never leaves the manager. */
  readonly expectedSecret: Uint8Array
}

/** The verifier of machines as the manager uses it. One implementation, over evidence and policy; see evidence-judge.ts. */
export interface MachineJudge {
  /**
   * Verifies the endorsement chain and makes a credential that only this TPM opens.
   * @throws {EvidenceError} `wrong-chain`, `wrong-certificate`, `wrong-key`, `expired`, …; {MalformedError}
   */
  beginEnrolment(request: TpmEnrolmentRequest, time: Date): Promise<PendingTpm>
  /**
   * Verifies that a genuine TEE holds the TLS key of this enrolment, and says which one it is.
   * @throws {EvidenceError} when it is not genuine; {MalformedError}
   */
  identifyTee(evidence: TeeEvidenceDocument, facts: EnrolmentFacts, time: Date): Promise<TeeIdentity>
  /**
   * Verifies a bundle and appraises it.
   * @throws {EvidenceError} when it is not genuine; {MalformedError}
   */
  judge(request: JudgeRequest): Promise<Judgement>
}
