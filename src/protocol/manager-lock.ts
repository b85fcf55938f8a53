import { z } from "zod"
import { digestOf, digestOfJson, sha256, type Digest } from "../bytes/digest.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { decodeTeeEvidence, teeEvidenceSchema } from "../evidence/tee/format.ts"
import { statementSignatureSchema } from "../pki/statement.ts"
import type { AcceptedTee } from "../policy/appraise-tee.ts"
import { custodianSchema, managerVaultSchema, maxCustodians, minThreshold, type ManagerVault } from "../policy/manager-vault.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { ProtocolError } from "./errors.ts"
import type { SealedMessage, UnlockContext } from "./hpke.ts"
import { demandAccepted, verifyOwnTee } from "./manager-attestation.ts"
import { base64Schema, digestSchema, idSchema, keyTextSchema, sealedMessageSchema } from "./wire.ts"

/**
 * A manager whose vault key is shared among custodians starts locked. It shows what it is, under evidence of its TEE, and each custodian hands its share to
 * that very process: sealed to a key that the evidence covers, signed for that key.
 */

/** A share of a 32-byte key: 32 bytes and the place on the curve. */
export const shareBytes = 33

/** What everybody may know of a custodian's share. */
export const sharePlaceSchema = custodianSchema.extend({
  /** age recipient that the share is sealed to. */
  recipient: z
    .string()
    .max(8192)
    .regex(/^age1[a-z0-9]+$/),
  salt: idSchema,
  /** What `shareCommitment` gives for the share. */
  commitment: digestSchema,
})
export type SharePlace = z.output<typeof sharePlaceSchema>

/** A set of shares of one vault key, without the shares. */
export const shareSetSchema = z
  .strictObject({
    set: idSchema,
    threshold: z.int().min(minThreshold).max(maxCustodians),
    custodians: z.array(sharePlaceSchema).min(minThreshold).max(maxCustodians),
  })
  .refine(({ threshold, custodians }) => threshold <= custodians.length, { error: "more custodians are needed than there are", path: ["threshold"] })
  .refine(
    ({ custodians }) =>
      (["name", "key", "recipient"] as const).every((part) => new Set(custodians.map((place) => place[part])).size === custodians.length),
    {
      error: "a custodian stands twice",
      path: ["custodians"],
    },
  )
export type ShareSet = z.output<typeof shareSetSchema>

/** What a locked manager says about itself. */
export const lockDescriptionSchema = z.strictObject({
  perun: z.literal(1),
  purpose: z.literal("manager-locked"),
  instance: idSchema,
  /** Digest of the configuration; the same as in its description once it is unlocked. */
  configuration: digestSchema,
  /** TLS key of this start; none that the manager has afterwards. */
  tlsKey: digestSchema,
  /** HPKE public key (X-Wing) of this start, to which custodians seal their shares. */
  shareKey: base64Schema(1216),
  shares: shareSetSchema,
  /** Custodians whose shares are here. */
  present: z.int().min(0).max(maxCustodians),
  /** The vault that its operator wants the key to be moved into as soon as it is unlocked; null where it stays as it is. */
  becomes: managerVaultSchema.nullable(),
})
export type LockDescription = z.output<typeof lockDescriptionSchema>

export const lockAnswerSchema = z.strictObject({
  perun: z.literal(1),
  lock: lockDescriptionSchema,
  /** In the order of the custodians: an age file with the share. What is in it is held against the commitment. */
  sealedShares: z.array(base64Schema(16_384)).min(minThreshold).max(maxCustodians),
  /** Null where the manager has no TEE: then nothing is proved at all, for its identity key is locked in too. */
  evidence: teeEvidenceSchema.nullable(),
})
export type LockAnswer = z.output<typeof lockAnswerSchema>

export const unlockRequestSchema = z.strictObject({
  perun: z.literal(1),
  custodian: keyTextSchema,
  share: sealedMessageSchema,
  /** Statement of purpose `unlock` over `unlockDigest`. */
  signature: statementSignatureSchema,
})
export type UnlockRequest = z.output<typeof unlockRequestSchema>

export const unlockAnswerSchema = z.strictObject({
  present: z.int().min(0).max(maxCustodians),
  threshold: z.int().min(minThreshold).max(maxCustodians),
  unlocked: z.boolean(),
})
export type UnlockAnswer = z.output<typeof unlockAnswerSchema>

/**
 * Report data of a locked manager's evidence: SHA-256 over the RFC 8785 form of purpose, nonce and the whole description, and 32 zero bytes.
 * `nonce`: 32 bytes, lower-case hexadecimal.
 */
export function lockReportData(description: LockDescription, nonce: string): Uint8Array {
  return sessionReportData(sha256(canonicalJsonBytes({ purpose: "manager-locked", version: 1, nonce, description })))
}

export interface LockExpectation {
  /** Undefined takes a manager that proves nothing: whoever answers at the address gets the share. */
  readonly accept: readonly TeeRequirement[] | undefined
  /** What this side drew for this question. */
  readonly nonce: string
  /** SHA-256 of the SubjectPublicKeyInfo that the connection ends at. */
  readonly peerTlsKey: Digest
  /** Milliseconds since 1970. */
  readonly time: number
}

/** A locked manager as this side has verified it. */
export interface VerifiedLock {
  readonly lock: LockDescription
  /** What was accepted; undefined where nothing was proved. */
  readonly accepted: AcceptedTee | undefined
}

/**
 * Verifies that the peer of a connection is a locked manager inside a TEE that meets one of `accept`, and that everything it says, the keys of this start
 * included, was said by that TEE just now.
 * @throws {EvidenceError}, {MalformedError} the evidence is not genuine, or is over something else
 * @throws {ProtocolError} `wrong-tls-key`; `wrong-manager` no evidence, or what differs
 */
export function verifyLock({ lock, evidence }: LockAnswer, { accept, nonce, peerTlsKey, time }: LockExpectation): VerifiedLock {
  if (lock.tlsKey !== peerTlsKey)
    throw new ProtocolError("wrong-tls-key", `found ${peerTlsKey}, the description names ${lock.tlsKey}`, { path: "lock.tlsKey" })
  if (accept === undefined) return { lock, accepted: undefined }
  if (evidence === null)
    throw new ProtocolError("wrong-manager", "the locked manager proves nothing about itself, and proof is demanded; nothing was sent", {
      path: "evidence",
    })
  const tee = verifyOwnTee(decodeTeeEvidence(evidence), accept, lockReportData(lock, nonce), time)
  return { lock, accepted: demandAccepted(tee, accept) }
}

/** The vault that a share set is, as descriptions and policies have it. */
export function vaultOfShares({ threshold, custodians }: ShareSet): ManagerVault & { readonly kind: "shares" } {
  return { kind: "shares", threshold, custodians: custodians.map(({ name, key }) => ({ name, key })) }
}

/** What a custodian's share is held against; with its salt it tells nothing of the share. */
export function shareCommitment(set: string, { key, salt }: Pick<SharePlace, "key" | "salt">, share: Uint8Array): Digest {
  return digestOfJson({ perun: 1, purpose: "vault-share", set, custodian: key, salt, share: encodeBase64(share) })
}

/** @throws {ProtocolError} `wrong-share` */
export function demandShare(set: string, place: SharePlace, share: Uint8Array): void {
  if (share.length !== shareBytes || shareCommitment(set, place, share) !== place.commitment)
    throw new ProtocolError("wrong-share", `not the share that was made for ${place.name} (${place.key})`, { path: "share" })
}

/** What a share is sealed for: this start of this manager. */
export function unlockContext({ instance, shares, tlsKey }: LockDescription, custodian: string): UnlockContext {
  return { purpose: "unlock", manager: instance, set: shares.set, tlsKey, custodian }
}

/** What a custodian signs (statement purpose `unlock`): whom it unlocks, with what. */
export function unlockDigest(lock: LockDescription, custodian: string, share: SealedMessage): Digest {
  const { instance, shares, tlsKey, shareKey } = lock
  return digestOfJson({
    perun: 1,
    manager: instance,
    set: shares.set,
    tlsKey,
    shareKey: digestOf(parseBase64(shareKey, "shareKey")),
    custodian,
    share: digestOfJson(share),
  })
}
