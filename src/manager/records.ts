import { z } from "zod"
import { statementSignatureSchema } from "../pki/statement.ts"
import { signedCheckReportSchema } from "../protocol/check-report.ts"
import { trustClaims, trustTiers } from "../policy/ar4si.ts"
import {
  referenceUpdateSchema,
  refusalViewSchema,
  runEventSchema,
  runReportSchema,
  runStateSchema,
  teeIdentitySchema,
  teeKindSchema,
  tpmIdentitySchema,
} from "../protocol/messages.ts"
import { digestSchema, documentSchema, idSchema, keyTextSchema, nameSchema, timeSchema } from "../protocol/wire.ts"

/**
 * What the manager keeps, by table. Each record is JSON, sealed under the vault key; `recordSchemas` parses it on the way in and out, so a record of
 * another version of this program is refused instead of misread.
 */

const base64 = z.string()

const keysRecord = z.strictObject({
  instance: idSchema,
  /** PKCS #8 PEM, Ed25519: identity and receipts. */
  identityKey: z.string(),
  /** PKCS #8 PEM, P-256. */
  tlsKey: z.string(),
  tlsCertificate: z.string(),
  tlsKeyDigest: digestSchema,
  /** X-Wing seed and public key. */
  depositPrivateKey: base64,
  depositPublicKey: base64,
  /** PKCS #8 PEM, P-384: attestation results. */
  resultKey: z.string(),
})

/** The vault file that was in force when the store was last sealed: one that was changed on the disk is found. */
const vaultRecord = z.strictObject({ digest: digestSchema })

const policyRecord = z.strictObject({
  digest: digestSchema,
  study: z.string(),
  document: documentSchema,
  references: z.array(digestSchema),
  /** `proposed` and `active` and `superseded` are stored; withdrawal and expiry follow from tombstones and time. */
  state: z.enum(["proposed", "active", "superseded"]),
  submittedAt: timeSchema,
  submittedBy: nameSchema,
  /** Key of who submitted it; names are another's to choose. */
  submitterKey: keyTextSchema,
  /** What the submission added to the store, in bytes of JSON. */
  storedBytes: z.int().min(0),
  activatedAt: timeSchema.optional(),
  /** When it had ended for good and its keys were destroyed. */
  erasedAt: timeSchema.exactOptional(),
  /** When a store that had been set back was taken up again: nothing is released under what it held then. */
  setBackAt: timeSchema.exactOptional(),
})

const approvalRecord = z.strictObject({
  policy: digestSchema,
  stakeholder: nameSchema,
  signature: statementSignatureSchema,
  at: timeSchema,
  report: signedCheckReportSchema.exactOptional(),
})

const depositRecord = z.strictObject({
  policy: digestSchema,
  artifact: nameSchema,
  manifest: documentSchema,
  /** age identity of the artifact: the secret that everything here is about. */
  identity: z.string(),
  at: timeSchema,
})

const secretRecord = z.strictObject({
  policy: digestSchema,
  secret: nameSchema,
  /** Of a party's; a value that the manager drew has none. */
  salt: z.string().optional(),
  value: base64,
  at: timeSchema,
})

const enrolled = { host: nameSchema, enrolledAt: timeSchema, retired: z.boolean() } as const

const hostRecord = z.union([
  z.strictObject({
    ...enrolled,
    identity: tpmIdentitySchema,
    /** TPM2B_PUBLIC of the attestation key. */
    akPublic: base64,
    ekCertificates: z.array(base64),
  }),
  z.strictObject({ ...enrolled, identity: teeIdentitySchema }),
])

const runRecord = z.strictObject({
  run: idSchema,
  policy: digestSchema,
  job: nameSchema,
  state: runStateSchema,
  /** Order in the queue, and of the list. */
  number: z.int().min(0),
  queuedBy: nameSchema,
  queuedAt: timeSchema,
  startedAt: timeSchema.optional(),
  endedAt: timeSchema.optional(),
  host: nameSchema.optional(),
  lease: idSchema.optional(),
  laboratory: z.boolean(),
  reason: z.string().optional(),
  report: runReportSchema.optional(),
  evidence: digestSchema.optional(),
  refusals: z.array(refusalViewSchema),
  /** Refusals written down so far; see claims.ts. */
  recordedRefusals: z.strictObject({ judged: z.int().min(0), unproven: z.int().min(0) }),
  /** Next event's number. */
  nextEvent: z.int().min(0),
  metrics: z.strictObject({
    bytes: z.int().min(0),
    minute: z.int().min(0),
    inMinute: z.int().min(0),
    count: z.int().min(0),
    /** Head of their chain. */
    digest: digestSchema,
  }),
})

const runKeyRecord = z.strictObject({
  run: idSchema,
  /** age identity to whose recipient the agent seals outputs; never leaves the manager. */
  identity: z.string(),
  recipient: z.string(),
})

const leaseRecord = z.strictObject({
  lease: idSchema,
  run: idSchema,
  host: nameSchema,
  /** TLS key of the agent; every call under the lease comes from it. */
  tlsKey: digestSchema,
  seconds: z.int().min(1),
  /** Wall time at which it ends; while the process lives the monotonic clock decides. */
  endsAt: timeSchema,
  ended: z.string().optional(),
  /** The boot that the lease is pinned to, where the machine shows a TPM. */
  boot: z
    .strictObject({
      endorsementKey: digestSchema,
      attestationKeyName: z.string(),
      resetCount: z.int().min(0),
      restartCount: z.int().min(0),
      clock: z.string().regex(/^[0-9]+$/),
      /** IMA entries certified so far. */
      imaCertified: z.int().min(0),
    })
    .exactOptional(),
  /** The TEE that the lease is pinned to, where the machine shows one. */
  tee: z.strictObject({ kind: teeKindSchema, platform: z.string().nullable(), measurements: z.record(z.string(), z.string()) }).exactOptional(),
  renewals: z.int().min(0),
  laboratory: z.boolean(),
  /** INSECURE LABORATORY that the machine's pieces chain to. */
  laboratoryRoots: z.array(digestSchema),
})

/** What the latest appraisal for a run found, in the words of a result. */
const appraisalRecord = z.strictObject({
  run: idSchema,
  /** Lease that was asked for; only the appraisals of a run's own lease speak for it once it has one. */
  lease: idSchema,
  outcome: z.enum(["granted", "refused", "not-genuine"]),
  at: timeSchema,
  evidence: digestSchema,
  laboratory: z.boolean(),
  submodules: z.record(
    nameSchema,
    z.strictObject({
      status: z.enum(trustTiers),
      vector: z.partialRecord(z.enum(trustClaims), z.int().min(-128).max(127)),
      findings: z.array(z.string()),
      laboratory: z.boolean(),
    }),
  ),
})

/** UEFI log of the boot that a lease is pinned to; gone with the lease. */
const bootLogRecord = z.strictObject({ lease: idSchema, eventLog: base64 })

const outputRecord = z.strictObject({
  output: idSchema,
  run: idSchema,
  policy: digestSchema,
  job: nameSchema,
  name: nameSchema,
  kind: z.string(),
  manifest: documentSchema,
  ciphertext: digestSchema,
  sizeBytes: z.int().min(0),
  released: z.boolean(),
  /** How often it was handed out; each has its receipt. */
  fetches: z.int().min(0).exactOptional(),
  laboratory: z.boolean(),
  at: timeSchema,
})

const voteRecord = z.strictObject({
  output: idSchema,
  stakeholder: nameSchema,
  signature: statementSignatureSchema,
  at: timeSchema,
  report: signedCheckReportSchema.exactOptional(),
})
const derivationRecord = z.strictObject({
  manifest: digestSchema,
  origins: z.array(z.strictObject({ name: z.string(), keys: z.array(keyTextSchema) })),
  /** Policies under which it came to be: a withdrawal from any of them locks it. */
  policies: z.array(digestSchema),
  /** INSECURE LABORATORY where there is one. */
  laboratoryRoots: z.array(digestSchema),
})

/** The counter in a TPM that the store is bound to. */
const counterRecordSchema = z.strictObject({
  /** NV index. */
  index: z.int().min(0),
  name: base64,
  authValue: base64,
  /** What it must be at, or one before where a count was broken off. */
  value: z.int().min(0),
})

/** A party whose lost keys a policy replaced. */
const replacementRecord = z.strictObject({
  study: z.string(),
  /** The policy that replaced them. */
  policy: digestSchema,
  party: nameSchema,
  formerKeys: z.array(keyTextSchema),
  keys: z.array(keyTextSchema),
  at: timeSchema,
})

/** Ciphertext whose key was destroyed, until it is removed. */
const discardRecord = z.strictObject({ manifest: digestSchema, blobs: z.array(digestSchema) })

const referenceUpdateRecord = referenceUpdateSchema.extend({
  /** Order among the updates of its policy. */
  number: z.int().min(0),
  /** What it added to the store, in bytes of JSON. */
  storedBytes: z.int().min(0),
})

export const recordSchemas = {
  keys: keysRecord,
  vault: vaultRecord,
  policies: policyRecord,
  references: documentSchema,
  referenceUpdates: referenceUpdateRecord,
  approvals: approvalRecord,
  withdrawals: approvalRecord,
  deposits: depositRecord,
  secrets: secretRecord,
  hosts: hostRecord,
  runs: runRecord,
  runKeys: runKeyRecord,
  leases: leaseRecord,
  bootLogs: bootLogRecord,
  appraisals: appraisalRecord,
  events: runEventSchema,
  outputs: outputRecord,
  votes: voteRecord,
  derivations: derivationRecord,
  discards: discardRecord,
  replacements: replacementRecord,
  counters: counterRecordSchema,
} as const satisfies Record<string, z.ZodType>

export type Table = keyof typeof recordSchemas
export type RecordOf<T extends Table> = z.output<(typeof recordSchemas)[T]>

export type KeysRecord = RecordOf<"keys">
export type PolicyRecord = RecordOf<"policies">
export type HostRecord = RecordOf<"hosts">
export type RunRecord = RecordOf<"runs">
export type LeaseRecord = RecordOf<"leases">
export type AppraisalRecord = RecordOf<"appraisals">
export type OutputRecord = RecordOf<"outputs">
