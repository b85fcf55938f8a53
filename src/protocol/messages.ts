import { signedCheckReportSchema } from "./check-report.ts"
import { z } from "zod"
import { machineBundleSchema } from "../evidence/bundle.ts"
import { teeEvidenceSchema, teeKinds } from "../evidence/tee/format.ts"
import { maxNoteBytes } from "../log/note.ts"
import { statementSignatureSchema } from "../pki/statement.ts"
import { checkedTimeSchema } from "../policy/manager-time.ts"
import { referencePieces } from "../policy/reference-updates.ts"
import { custodianSchema, managerVaultSchema, maxCustodians, vaultKinds } from "../policy/manager-vault.ts"
import {
  base64Schema,
  digestSchema,
  documentSchema,
  idSchema,
  keyTextSchema,
  nameSchema,
  nonceSchema,
  sealedMessageSchema,
  timeSchema,
} from "./wire.ts"

/**
 * The shape of every message of HTTP API v1, parsed by sender and receiver alike. Shapes only: who may send what, and what it means, is the
 * manager's part. Documents (policies, reference values, manifests) are parsed by their own rooms.
 */

// --- the manager itself -------------------------------------------------------------------------------------------------------------------------

/** What a manager says about itself; signed as statement purpose `manager`. See manager-description.ts. */
export const managerDescriptionSchema = z.strictObject({
  perun: z.literal(1),
  instance: idSchema,
  /** Identity key that policies pin. */
  key: keyTextSchema,
  /** SHA-256 of the SubjectPublicKeyInfo of the TLS certificate. */
  tlsKey: digestSchema,
  /** HPKE public key (X-Wing, 1216 bytes) to which owners seal their deposits. */
  depositKey: base64Schema(1216),
  /** Key that signs receipts. */
  logKey: keyTextSchema,
  /** Key that signs attestation results: SubjectPublicKeyInfo (DER) on P-384. */
  resultKey: base64Schema(128),
  /** Digest of the manager's configuration. */
  configuration: digestSchema,
  /** Where the vault key comes from. */
  vault: managerVaultSchema,
  /** Kind of TEE that proves this description at `/v1/attestation`; null for an UNATTESTED MANAGER. */
  evidence: z.enum(teeKinds).nullable(),
  /** Who checks the manager's time; null where it comes from the manager's host alone. */
  time: checkedTimeSchema.nullable(),
})
export const signedManagerDescriptionSchema = z.strictObject({ description: managerDescriptionSchema, signature: statementSignatureSchema })
export const healthSchema = z.discriminatedUnion("ok", [
  z.strictObject({
    ok: z.literal(true),
    /** Number of keys that may propose policies here. */
    members: z.int().min(0),
  }),
  z.strictObject({ ok: z.literal(false), state: z.literal("locked") }),
])
export const readySchema = z.strictObject({ ok: z.literal(true) })
export const emptySchema = z.strictObject({})

// --- policies -----------------------------------------------------------------------------------------------------------------------------------

export const policyStateSchema = z.enum(["proposed", "active", "superseded", "withdrawn", "expired"])
export const approvalRecordSchema = z.strictObject({
  stakeholder: nameSchema,
  signature: statementSignatureSchema,
  at: timeSchema,
  /** Of a checker: what it checked. */
  report: signedCheckReportSchema.exactOptional(),
})
export const submitPolicyRequestSchema = z.strictObject({ policy: documentSchema, references: z.array(documentSchema).max(64) })
export const policyStatusSchema = z.strictObject({
  digest: digestSchema,
  study: z.string().max(128),
  state: policyStateSchema,
  /** Stakeholders whose signature is still needed before the policy can become active. */
  missing: z.array(nameSchema).max(256),
  /** In words, what else keeps it from being active; empty when nothing does. */
  blockers: z.array(z.string().max(500)).max(64),
  submittedAt: timeSchema,
  /** When, after it had ended for good, the manager destroyed its keys. */
  erasedAt: timeSchema.optional(),
})
export const policyListSchema = z.strictObject({ policies: z.array(policyStatusSchema).max(10_000) })
/** Where in a policy a reference stands. */
const referencePlaceSchema = z.strictObject({ machine: nameSchema, piece: z.enum(referencePieces) })
/** A delegate's document for one place, with its signature over the update (statement purpose `reference`). */
export const referenceUpdateRequestSchema = referencePlaceSchema.extend({
  replaces: digestSchema,
  reference: documentSchema,
  signature: statementSignatureSchema,
})
/** An update as it stands. */
export const referenceUpdateSchema = referencePlaceSchema.extend({
  update: digestSchema,
  policy: digestSchema,
  replaces: digestSchema,
  reference: digestSchema,
  by: nameSchema,
  at: timeSchema,
  signature: statementSignatureSchema,
  withdrawn: z.strictObject({ by: nameSchema, at: timeSchema, signature: statementSignatureSchema }).exactOptional(),
})
/** Documents that a machine may be held against now, newest first. */
const acceptedReferencesSchema = referencePlaceSchema.extend({ references: z.array(digestSchema).min(1).max(2) })
export const policyViewSchema = policyStatusSchema.extend({
  policy: documentSchema,
  references: z.array(documentSchema).max(64),
  approvals: z.array(approvalRecordSchema).max(256),
  withdrawals: z.array(approvalRecordSchema).max(256),
  /** Names of the artifacts whose key is deposited under this policy. */
  deposits: z.array(nameSchema).max(1024),
  /** Names of the secrets that are here: those that parties brought. */
  secrets: z.array(nameSchema).max(1024),
  /** What delegates have put in the place of the policy's own references, oldest first. */
  referenceUpdates: z.array(referenceUpdateSchema).max(20_000),
  /** Of each place that a delegate may update. */
  acceptedReferences: z.array(acceptedReferencesSchema).max(512),
})
/** A party's secret, HPKE to the manager's deposit key; opens to the JSON of `saltedSecretSchema`. */
export const secretRequestSchema = z.strictObject({ secret: nameSchema, sealedValue: sealedMessageSchema })
export const saltedSecretSchema = z.strictObject({
  salt: z.string().regex(/^[0-9a-f]{64}$/),
  /** Base64. */
  value: z.string().max(96_000),
})
export const secretViewSchema = z.strictObject({ policy: digestSchema, secret: nameSchema, owner: nameSchema, depositedAt: timeSchema })
export const signatureRequestSchema = z.strictObject({ signature: statementSignatureSchema })
/** Consent: the report comes with it where the stakeholder is a checker, and only there. */
export const consentRequestSchema = signatureRequestSchema.extend({ report: signedCheckReportSchema.exactOptional() })
export const depositRequestSchema = z.strictObject({
  artifact: nameSchema,
  /** Signed artifact manifest, as sealing/manifest.ts makes it. */
  manifest: documentSchema,
  /** The artifact's age identity, HPKE to the manager's deposit key. */
  sealedIdentity: sealedMessageSchema,
})
export const artifactViewSchema = z.strictObject({
  policy: digestSchema,
  artifact: nameSchema,
  kind: z.string().max(32),
  owner: nameSchema,
  manifest: digestSchema,
  depositedAt: timeSchema,
})
export const artifactListSchema = z.strictObject({ artifacts: z.array(artifactViewSchema).max(10_000) })

// --- runs ---------------------------------------------------------------------------------------------------------------------------------------

/** Longest text of a finding; longer ones are cut where they are made. */
export const maxFindingText = 4000
/** Most findings that travel; a machine full of unknown files would have thousands. */
export const maxFindings = 100
/** Most findings of a refusal that the manager keeps. */
export const maxKeptFindings = 16

export const runStateSchema = z.enum(["queued", "running", "succeeded", "failed", "cancelled", "ended"])
/** What appraisal or verification found; the shape of policy/findings.ts. `code` is stable, the rest is printable text for people. */
export const findingSchema = z.strictObject({
  code: z.string().max(64),
  effect: z.enum(["refusal", "note"]),
  subject: z.string().max(maxFindingText),
  found: z.string().max(maxFindingText),
  expected: z.string().max(maxFindingText),
  advice: z.string().max(maxFindingText),
})
/** Why a run failed, and what that means. The job's program chooses among some of them, so each further word is a way out for data. */
export const runReasons = {
  "job-failed": "the job's program ended with an error",
  "wall-clock": "the job did not end within the time that the policy gives it",
  memory: "the job took more memory than the policy gives it",
  sandbox: "the job's program could not be started in the sandbox",
  "output-missing": "the job did not write a declared output",
  "output-too-large": "an output is larger than the policy allows",
  "output-format": "an output is not in a format that the policy allows",
  "output-kind": "an output holds a link, a device or another thing that is not a plain file",
  inputs: "an input could not be fetched or opened",
  machine: "the machine cannot do what the job asks for, or the agent failed",
} as const satisfies Record<string, string>
export type RunReason = keyof typeof runReasons

/** Grain of the time that a report tells: the job's program can take as long as it wants. */
export const wallSecondsGrain = 10
/** What the agent says of a run: nothing that the job's program could say by it but one of a few words. */
const runFacts = {
  /** Rows (data lines) that each input held, counted by the agent. */
  rowsPerInput: z.record(nameSchema, z.int().min(0)).optional(),
  /** Rounded up to `wallSecondsGrain`. */
  wallSeconds: z.int().min(0).multipleOf(wallSecondsGrain).optional(),
} as const
export const runReportSchema = z.discriminatedUnion("status", [
  z.strictObject({ status: z.literal("succeeded"), ...runFacts }),
  z.strictObject({
    status: z.literal("failed"),
    reason: z.enum(Object.keys(runReasons) as [RunReason, ...RunReason[]]),
    /** How a program that failed ended; only where the policy lets logs leave, and for their readers. */
    exit: z.enum(["error", "signal"]).optional(),
    ...runFacts,
  }),
])
/** Freshness of the relying party's: what EAT allows in JSON (RFC 9711, 4.1), in the letters of base64, base64url and hexadecimal. */
export const resultNonceSchema = z.string().regex(/^[A-Za-z0-9+/_=-]{8,88}$/, "expected 8 to 88 letters of base64, base64url or hexadecimal")
/** Whom a result is for: a URL or a name, printable and without spaces. */
export const audienceSchema = z.string().regex(/^[\x21-\x7e]{1,256}$/, "expected 1 to 256 printable characters without spaces")
/** Largest attestation result; one with every finding code there is has some 4 KB. */
export const maxResultBytes = 32_768
/** A signed attestation result: JWT, see attestation-result.ts. */
export const resultSchema = z.strictObject({ result: z.string().max(maxResultBytes) })
export const refusalViewSchema = z.strictObject({
  at: timeSchema,
  host: nameSchema,
  code: z.string().max(64),
  findings: z.array(findingSchema).max(maxKeptFindings),
  /** Findings that were not kept. */
  moreFindings: z.int().min(0),
})
export const runViewSchema = z.strictObject({
  run: idSchema,
  policy: digestSchema,
  job: nameSchema,
  state: runStateSchema,
  queuedBy: nameSchema,
  queuedAt: timeSchema,
  startedAt: timeSchema.optional(),
  endedAt: timeSchema.optional(),
  host: nameSchema.optional(),
  /** INSECURE LABORATORY taint: the machine's TPM chains to a laboratory root. */
  laboratory: z.boolean(),
  /** Why it ended, where it did not succeed. */
  reason: z.string().max(500).optional(),
  report: runReportSchema.optional(),
  /** Digest of the evidence on which the keys were released. */
  evidence: digestSchema.optional(),
  /** Machines that asked for this run and were refused: the last 32, in a list of runs the last one with its first finding, cut short. */
  refusals: z.array(refusalViewSchema).max(32),
  outputs: z.array(idSchema).max(256),
})
export const runCreatedSchema = z.strictObject({ run: idSchema })
export const runListSchema = z.strictObject({ runs: z.array(runViewSchema).max(10_000) })
/** Numbers by the name that the policy's schema gives them; metrics.ts holds them against the schema. */
export const metricValuesSchema = z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,63}$/), z.number())
/** One event of GET /v1/runs/:run/events; the SSE id is `seq`. */
export const runEventSchema = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("state"),
    seq: z.int().min(0),
    at: timeSchema,
    state: runStateSchema,
    host: nameSchema.optional(),
    reason: z.string().max(500).optional(),
  }),
  z.strictObject({ kind: z.literal("refused"), seq: z.int().min(0), at: timeSchema, refusal: refusalViewSchema }),
  z.strictObject({ kind: z.literal("renewed"), seq: z.int().min(0), at: timeSchema, seconds: z.int().min(1) }),
  z.strictObject({ kind: z.literal("metrics"), seq: z.int().min(0), at: timeSchema, values: metricValuesSchema }),
  z.strictObject({ kind: z.literal("output"), seq: z.int().min(0), at: timeSchema, output: idSchema, name: nameSchema }),
])

// --- outputs ------------------------------------------------------------------------------------------------------------------------------------

export const outputStateSchema = z.enum(["waiting", "released", "locked"])
export const outputViewSchema = z.strictObject({
  output: idSchema,
  run: idSchema,
  policy: digestSchema,
  job: nameSchema,
  name: nameSchema,
  kind: z.string().max(32),
  state: outputStateSchema,
  /** Digest of the signed manifest, which names the ciphertext of every shard: what votes are over. */
  ciphertext: digestSchema,
  sizeBytes: z.int().min(0),
  to: z.array(nameSchema).max(256),
  votes: z.array(nameSchema).max(256),
  missing: z.array(nameSchema).max(256),
  /** The votes themselves, in the order in which they came: whoever has them counts them himself. */
  signatures: z.array(statementSignatureSchema).max(256),
  /** What checkers among the voters checked. */
  checks: z.array(z.strictObject({ by: nameSchema, report: signedCheckReportSchema })).max(256),
  laboratory: z.boolean(),
  /** Digest of the evidence on which the run got its keys. */
  evidence: digestSchema,
  createdAt: timeSchema,
})
export const outputListSchema = z.strictObject({ outputs: z.array(outputViewSchema).max(10_000) })
/** What a named consumer gets once the votes allow: blobs stay where they are, each with a new age header for the consumer's recipients. */
export const outputPackageSchema = z.strictObject({
  output: outputViewSchema,
  /** Manifest of the output as the agent made it; its blobs are fetched from /v1/blobs. */
  manifest: documentSchema,
  /** For each blob, the age header that takes the place of its own. */
  headers: z.array(z.strictObject({ blob: digestSchema, header: base64Schema(65_536) })).max(100_001),
})

// --- hosts --------------------------------------------------------------------------------------------------------------------------------------

export const tpmIdentitySchema = z.strictObject({
  endorsementKey: digestSchema,
  root: digestSchema,
  rootKind: z.enum(["vendor", "laboratory"]),
  description: z.string().max(500),
  attestationKeyName: z.string().regex(/^[0-9a-f]{4,260}$/),
})
/** Kinds of TEE that a machine can enrol with. */
export const teeKindSchema = z.enum(teeKinds)
export const teeIdentitySchema = z.strictObject({
  tee: teeKindSchema,
  /** PPID or CHIP_ID; null where it is masked. */
  platform: z
    .string()
    .regex(/^(?:[0-9a-f]{32}|[0-9a-f]{128})$/)
    .nullable(),
  root: digestSchema,
  rootKind: z.enum(["vendor", "laboratory"]),
  description: z.string().max(500),
})
/** What a machine enrolled with: its TPM, or its TEE where it has none. */
export const machineIdentitySchema = z.union([tpmIdentitySchema, teeIdentitySchema])
export const hostViewSchema = z.strictObject({ host: nameSchema, identity: machineIdentitySchema, enrolledAt: timeSchema, retired: z.boolean() })
export const hostListSchema = z.strictObject({ hosts: z.array(hostViewSchema).max(10_000) })

/** Largest certificate, in bytes of DER; EK certificates are below 2 KiB. */
const maxCertificateBytes = 8192
/** Largest TPM2B_PUBLIC; RSA-4096 needs less than 1 KiB. */
const maxTpmPublicBytes = 2048

export const tpmEnrolmentRequestSchema = z.strictObject({
  host: nameSchema,
  /** EK certificate and its issuers, leaf first, DER; the root may be left out. */
  ekCertificates: z.array(base64Schema(maxCertificateBytes)).min(1).max(8),
  /** TPM2B_PUBLIC. */
  ekPublic: base64Schema(maxTpmPublicBytes),
  /** TPM2B_PUBLIC. */
  akPublic: base64Schema(maxTpmPublicBytes),
})
/** A machine without a TPM proves its TEE instead. */
export const teeEnrolmentRequestSchema = z.strictObject({ host: nameSchema, piece: z.literal("tee") })
export const enrolmentRequestSchema = z.union([tpmEnrolmentRequestSchema, teeEnrolmentRequestSchema])
export const tpmEnrolmentChallengeSchema = z.strictObject({
  enrolment: idSchema,
  /** TPM2B_ID_OBJECT for TPM2_ActivateCredential. */
  credentialBlob: base64Schema(2048),
  /** TPM2B_ENCRYPTED_SECRET for TPM2_ActivateCredential. */
  secret: base64Schema(2048),
})
/** The TEE's evidence must be over the session digest of purpose `enrol` with this nonce and the TLS key of the connection. */
export const teeEnrolmentChallengeSchema = z.strictObject({ enrolment: idSchema, nonce: nonceSchema, manager: idSchema })
export const enrolmentChallengeSchema = z.union([tpmEnrolmentChallengeSchema, teeEnrolmentChallengeSchema])
export const enrolmentAnswerSchema = z.union([z.strictObject({ secret: base64Schema(64) }), z.strictObject({ evidence: teeEvidenceSchema })])

export const challengeRequestSchema = z.discriminatedUnion("purpose", [
  z.strictObject({ purpose: z.literal("claim"), host: nameSchema }),
  z.strictObject({ purpose: z.literal("renew"), host: nameSchema, lease: idSchema }),
])
/** Everything the agent needs to make the session digest, besides its own keys. */
export const challengeSchema = z.strictObject({
  challenge: idSchema,
  purpose: z.enum(["claim", "renew"]),
  nonce: nonceSchema,
  /** Instance of the manager. */
  manager: idSchema,
  policy: digestSchema,
  job: nameSchema,
  run: idSchema,
  lease: idSchema,
  /** Pieces of evidence that the policy demands of the job's machine: these and no others. */
  pieces: z.enum(["tpm", "tee", "tee-with-tpm"]),
  expiresAt: timeSchema,
  /**
   * Index of the first IMA entry that the manager wants to see: what it certified for this lease so far. 0 for a claim, and for the first renewal after
   * the manager was started again: then the whole boot is shown once more.
   */
  imaFrom: z.int().min(0),
})

const evidenceSubmission = {
  challenge: idSchema,
  /** HPKE public key of the agent (X-Wing), fresh for this boot. */
  hpkeKey: base64Schema(1216),
  /** TPM quote with measured boot log and IMA list from an index on, evidence of a TEE, or both, bound to the session; see evidence/bundle.ts. */
  bundle: machineBundleSchema,
} as const
export const claimRequestSchema = z.strictObject(evidenceSubmission)
export const claimGrantSchema = z.strictObject({
  policy: digestSchema,
  document: documentSchema,
  approvals: z.array(approvalRecordSchema).max(256),
  job: nameSchema,
  run: idSchema,
  lease: z.strictObject({ id: idSchema, seconds: z.int().min(1) }),
  inputs: z.array(z.strictObject({ artifact: nameSchema, manifest: documentSchema })).max(256),
  /** The session digest that the evidence was bound to, part of the additional data of `sealedKeys`. */
  session: digestSchema,
  /** HPKE to `hpkeKey`; opens to the JSON of `releasedKeysSchema`. */
  sealedKeys: sealedMessageSchema,
  /** age recipient to which the agent seals every output of this run. */
  outputRecipient: z.string().max(4096),
})
/** Plaintext of `sealedKeys`: age identities by artifact name, values by name of the secret; a party's with its salt. */
export const releasedKeysSchema = z.strictObject({
  identities: z.record(nameSchema, z.string().max(512)),
  secrets: z.record(nameSchema, saltedSecretSchema.partial({ salt: true })),
})
export const renewRequestSchema = z.strictObject(evidenceSubmission)
export const renewGrantSchema = z.strictObject({ seconds: z.int().min(1) })

export const metricsRequestSchema = z.strictObject({ values: metricValuesSchema })
export const outputRequestSchema = z.strictObject({
  /** Name of an output of the job, or `logs`. */
  name: nameSchema,
  /** Signed manifest of the sealed output; every blob that it names must have been uploaded, and its recipient is the run's. */
  manifest: documentSchema,
})
export const outputCreatedSchema = z.strictObject({ output: idSchema })

// --- receipts -----------------------------------------------------------------------------------------------------------------------------------

export const receiptKindSchema = z.enum([
  "policy-submitted",
  "policy-signed",
  "policy-activated",
  "policy-superseded",
  "policy-withdrawn",
  "identity-replaced",
  "keys-destroyed",
  "artifact-deposited",
  "secret-deposited",
  "reference-updated",
  "reference-update-withdrawn",
  "host-enrolled",
  "host-retired",
  "run-queued",
  "key-released",
  "release-refused",
  "lease-renewed",
  "lease-ended",
  "run-finished",
  "output-received",
  "vote-cast",
  "output-released",
  "vault-unlocked",
  "vault-rotated",
  "store-set-back",
])
/** What happened. */
export const receiptSchema = z.strictObject({
  /** Random: without it, whom the receipt is not shown could guess what its digest stands for. */
  salt: idSchema,
  at: timeSchema,
  kind: receiptKindSchema,
  policy: digestSchema.optional(),
  run: idSchema.optional(),
  output: idSchema.optional(),
  host: nameSchema.optional(),
  /** Stakeholder who acted. */
  by: nameSchema.optional(),
  /** Key of who acted, where the receipt is of no policy whose name `by` could be. */
  byKey: keyTextSchema.optional(),
  /** Digest of the evidence bundle that was judged. */
  evidence: digestSchema.optional(),
  /** INSECURE LABORATORY. */
  laboratory: z.boolean().optional(),
  /** Artifacts whose keys were released, deposited or destroyed. */
  artifacts: z.array(nameSchema).max(256).optional(),
  /** Secrets that were brought, given to a run, or destroyed. */
  secrets: z.array(nameSchema).max(256).optional(),
  /** How many runs' output keys were destroyed. */
  runKeys: z.int().min(0).optional(),
  code: z.string().max(64).optional(),
  /** Job of a run. */
  job: nameSchema.optional(),
  /** Of an output: its name in the job, the digest of its manifest, and the size of its ciphertext. */
  name: nameSchema.optional(),
  manifest: digestSchema.optional(),
  sizeBytes: z.int().min(0).optional(),
  /** What a run that had a machine reported of its metrics: how many, and the head of their chain (metrics.ts). */
  metrics: z.strictObject({ count: z.int().min(0), digest: digestSchema }).optional(),
  /** Of an update of a reference: its digest, its place, and the documents. */
  update: digestSchema.optional(),
  place: referencePlaceSchema.optional(),
  replaces: digestSchema.optional(),
  reference: digestSchema.optional(),
  /** Digest of the report that a checker's signature came with. */
  report: digestSchema.optional(),
  /** Kind of vault that was unlocked, or that the key was moved into. */
  vault: z.enum(vaultKinds).optional(),
  /** Whose shares unlocked it, or who holds the new ones. */
  custodians: z.array(custodianSchema).max(maxCustodians).optional(),
  findings: z.array(findingSchema).max(maxKeptFindings).optional(),
  /** Findings that were not kept. */
  moreFindings: z.int().min(0).optional(),
})
/** A receipt as a caller gets it: the digest alone where the receipt does not concern it. Its place follows from where it stands in the answer. */
export const shownReceiptSchema = z.strictObject({ digest: digestSchema, receipt: receiptSchema.optional() })
/** Receipts from `from` on; `total` is the size of the log. */
export const receiptListSchema = z.strictObject({ from: z.int().min(0), receipts: z.array(shownReceiptSchema).max(1000), total: z.int().min(0) })
const logHashSchema = z.string().regex(/^[0-9a-f]{64}$/)
const checkpointTextSchema = z.string().max(maxNoteBytes)
/** The log's checkpoint (C2SP tlog-checkpoint, with witnesses' cosignatures), and that it goes on from the tree of as many entries as the asker named (RFC 9162, 2.1.4). */
export const logCheckpointSchema = z.strictObject({ checkpoint: checkpointTextSchema, consistency: z.array(logHashSchema).max(64) })
/** A receipt that anybody can verify who has the log's key: RFC 9162, 2.1.3. */
export const provenReceiptSchema = z.strictObject({
  perun: z.literal(1),
  index: z.int().min(0),
  receipt: receiptSchema,
  proof: z.array(logHashSchema).max(64),
  checkpoint: checkpointTextSchema,
})

// --- the types ----------------------------------------------------------------------------------------------------------------------------------

export type ManagerDescription = z.output<typeof managerDescriptionSchema>
export type SignedManagerDescription = z.output<typeof signedManagerDescriptionSchema>
export type PolicyState = z.output<typeof policyStateSchema>
export type PolicyStatus = z.output<typeof policyStatusSchema>
export type PolicyView = z.output<typeof policyViewSchema>
export type ApprovalRecord = z.output<typeof approvalRecordSchema>
export type SubmitPolicyRequest = z.output<typeof submitPolicyRequestSchema>
export type ReferenceUpdateRequest = z.output<typeof referenceUpdateRequestSchema>
export type ReferenceUpdateView = z.output<typeof referenceUpdateSchema>
export type DepositRequest = z.output<typeof depositRequestSchema>
export type SecretRequest = z.output<typeof secretRequestSchema>
export type SecretView = z.output<typeof secretViewSchema>
export type ArtifactView = z.output<typeof artifactViewSchema>
export type RunState = z.output<typeof runStateSchema>
export type RunReport = z.output<typeof runReportSchema>
export type RunView = z.output<typeof runViewSchema>
export type RunEvent = z.output<typeof runEventSchema>
export type RefusalView = z.output<typeof refusalViewSchema>
export type WireFinding = z.output<typeof findingSchema>
export type MetricValues = z.output<typeof metricValuesSchema>
export type OutputView = z.output<typeof outputViewSchema>
export type OutputPackage = z.output<typeof outputPackageSchema>
export type HostView = z.output<typeof hostViewSchema>
export type EnrolmentRequest = z.output<typeof enrolmentRequestSchema>
export type TpmEnrolmentRequest = z.output<typeof tpmEnrolmentRequestSchema>
export type TeeEnrolmentRequest = z.output<typeof teeEnrolmentRequestSchema>
export type EnrolmentAnswer = z.output<typeof enrolmentAnswerSchema>
export type EnrolmentChallenge = z.output<typeof enrolmentChallengeSchema>
export type ChallengeRequest = z.output<typeof challengeRequestSchema>
export type Challenge = z.output<typeof challengeSchema>
export type WireBundle = z.output<typeof machineBundleSchema>
export type ClaimRequest = z.output<typeof claimRequestSchema>
export type ClaimGrant = z.output<typeof claimGrantSchema>
export type ReleasedKeys = z.output<typeof releasedKeysSchema>
export type RenewRequest = z.output<typeof renewRequestSchema>
export type OutputRequest = z.output<typeof outputRequestSchema>
export type Receipt = z.output<typeof receiptSchema>
export type ReceiptKind = z.output<typeof receiptKindSchema>
export type LogCheckpoint = z.output<typeof logCheckpointSchema>
export type ProvenReceipt = z.output<typeof provenReceiptSchema>
export type ShownReceipt = z.output<typeof shownReceiptSchema>
