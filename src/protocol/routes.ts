import { z } from "zod"
import { managerAttestationSchema } from "./manager-attestation.ts"
import { lockAnswerSchema, unlockAnswerSchema, unlockRequestSchema } from "./manager-lock.ts"
import * as m from "./messages.ts"
import { digestSchema, documentSchema, idSchema, maxBundleBytes, maxMessageBytes, maxPolicySubmissionBytes, nameSchema, nonceSchema } from "./wire.ts"
import { maxTeeEvidenceBytes } from "../evidence/tee/hardware.ts"

/**
 * HTTP API v1 as one table: manager, agent, client and the OpenAPI document all read it. Blobs and the event stream have routes of their own kind
 * (`content`), for their bodies are no JSON message.
 */

/**
 * Who may call: `open` anyone; `stakeholder` a TLS client key with a session statement of an identity; `host` a TLS client key alone, which the manager
 * knows by what it proved; `either` one or the other.
 */
export type Access = "open" | "stakeholder" | "host" | "either"
export type Content = "json" | "blob" | "events"

export interface Route {
  readonly method: "GET" | "POST" | "PUT" | "HEAD"
  /** Address with `:name` parts; each name stands in `pathParameters`. */
  readonly path: string
  readonly access: Access
  readonly content: Content
  readonly query: z.ZodType
  readonly body: z.ZodType
  readonly response: z.ZodType
  /** Largest request body in bytes. */
  readonly maxBodyBytes: number
  /** Largest JSON response in bytes. */
  readonly maxResponseBytes: number
  /** May be sent again when the answer was lost: doing it twice is doing it once. */
  readonly idempotent: boolean
  readonly summary: string
}

/** Form of each `:name` part of an address. */
export const pathParameters = {
  digest: digestSchema,
  reference: digestSchema,
  update: digestSchema,
  job: nameSchema,
  run: idSchema,
  output: idSchema,
  lease: idSchema,
  enrolment: idSchema,
  host: nameSchema,
  index: z.string().regex(/^(?:0|[1-9][0-9]{0,14})$/),
  /** Slashes and all. */
  tile: z.string().regex(/^(?:entries\/)?[0-9x/.p]{1,64}$/),
} as const

export type PathParameterName = keyof typeof pathParameters

/** Names of the `:name` parts of an address. */
export type PathNames<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? Name | PathNames<`/${Rest}`>
  : Path extends `${string}:${infer Name}`
    ? Name
    : never

export type PathValues<Path extends string> = { readonly [Name in PathNames<Path>]: string }

const none = z.undefined()
const noQuery = z.strictObject({})
/** A whole number as an address has it. */
const countSchema = z.string().regex(/^(?:0|[1-9][0-9]{0,14})$/)

function get<const Path extends string, const A extends Access, R extends z.ZodType>(path: Path, access: A, response: R, summary: string) {
  return { ...common, method: "GET", path, access, response, summary, idempotent: true } as const
}

function post<const Path extends string, const A extends Access, B extends z.ZodType, R extends z.ZodType>(
  path: Path,
  access: A,
  body: B,
  response: R,
  summary: string,
) {
  return { ...common, method: "POST", path, access, body, response, summary } as const
}

const common = {
  content: "json" as Content,
  query: noQuery,
  body: none,
  maxBodyBytes: maxMessageBytes,
  maxResponseBytes: maxPolicySubmissionBytes,
  idempotent: false as boolean,
} as const

export const routes = {
  describeManager: get("/v1/manager", "open", m.signedManagerDescriptionSchema, "what the manager says about itself, signed"),
  attestManager: {
    ...get(
      "/v1/attestation",
      "open",
      managerAttestationSchema,
      "evidence of the manager's TEE over the asker's nonce, covering all that it says about itself",
    ),
    query: z.strictObject({ nonce: nonceSchema }),
    maxResponseBytes: maxTeeEvidenceBytes,
  },
  lockState: {
    ...get(
      "/v1/lock",
      "open",
      lockAnswerSchema,
      "of a locked manager: what it is, with evidence of its TEE over the asker's nonce, and the sealed shares of its vault key",
    ),
    query: z.strictObject({ nonce: nonceSchema }),
    maxResponseBytes: maxTeeEvidenceBytes,
  },
  unlockManager: {
    ...post("/v1/unlock", "open", unlockRequestSchema, unlockAnswerSchema, "a custodian's share of the vault key of a locked manager, signed"),
    maxBodyBytes: 65_536,
    // The same share counts once.
    idempotent: true,
  },
  openApi: get("/v1/openapi.json", "open", documentSchema, "this interface as an OpenAPI 3.1 document"),
  health: get("/v1/healthz", "open", m.healthSchema, "whether the manager answers"),
  ready: get("/v1/readyz", "open", m.readySchema, "whether the manager can do its work now; if not, why not"),

  submitPolicy: {
    ...post(
      "/v1/policies",
      "stakeholder",
      m.submitPolicyRequestSchema,
      m.policyStatusSchema,
      "propose a policy with its reference values; for members, and parties of its active predecessor",
    ),
    maxBodyBytes: maxPolicySubmissionBytes,
    idempotent: true,
  },
  listPolicies: get("/v1/policies", "stakeholder", m.policyListSchema, "policies that name the caller"),
  getPolicy: get("/v1/policies/:digest", "stakeholder", m.policyViewSchema, "one policy, its references, signatures and state"),
  approvePolicy: {
    ...post("/v1/policies/:digest/approvals", "stakeholder", m.consentRequestSchema, m.policyStatusSchema, "sign a policy"),
    idempotent: true,
  },
  withdrawPolicy: {
    ...post("/v1/policies/:digest/withdrawals", "stakeholder", m.signatureRequestSchema, m.policyStatusSchema, "withdraw consent, for ever"),
    idempotent: true,
  },
  updateReference: {
    ...post(
      "/v1/policies/:digest/references",
      "stakeholder",
      m.referenceUpdateRequestSchema,
      m.referenceUpdateSchema,
      "put another document in the place of a reference, as the delegate whom the policy names",
    ),
    maxBodyBytes: maxPolicySubmissionBytes,
    idempotent: true,
  },
  withdrawReference: {
    ...post(
      "/v1/policies/:digest/reference-updates/:update/withdrawals",
      "stakeholder",
      m.signatureRequestSchema,
      m.referenceUpdateSchema,
      "take back an update of a reference, for ever, as its delegate or an owner",
    ),
    idempotent: true,
  },
  getReference: {
    ...get("/v1/policies/:digest/references/:reference", "stakeholder", documentSchema, "a reference document of a policy, or of an update of it"),
    maxResponseBytes: maxPolicySubmissionBytes,
  },
  depositArtifact: {
    ...post("/v1/policies/:digest/deposits", "stakeholder", m.depositRequestSchema, m.artifactViewSchema, "deposit an artifact's key"),
    maxBodyBytes: maxPolicySubmissionBytes,
    idempotent: true,
  },
  depositSecret: {
    ...post(
      "/v1/policies/:digest/secrets",
      "stakeholder",
      m.secretRequestSchema,
      m.secretViewSchema,
      "bring the value of a secret, to which the policy holds its commitment",
    ),
    maxBodyBytes: 262_144,
    idempotent: true,
  },
  listArtifacts: get("/v1/artifacts", "stakeholder", m.artifactListSchema, "deposited artifacts of the caller's policies"),

  headBlob: { ...get("/v1/blobs/:digest", "either", none, "whether a blob is there, and its size"), method: "HEAD", content: "blob" },
  getBlob: { ...get("/v1/blobs/:digest", "either", none, "a blob of ciphertext; Range is understood"), content: "blob" },
  putBlob: {
    ...get("/v1/blobs/:digest", "either", none, "store a blob of ciphertext under its SHA-256"),
    method: "PUT",
    content: "blob",
  },

  queueRun: post("/v1/policies/:digest/jobs/:job/runs", "stakeholder", m.emptySchema, m.runCreatedSchema, "queue a run of a job"),
  listRuns: {
    ...get("/v1/runs", "stakeholder", m.runListSchema, "runs of the caller's policies, of each the last refusal in short"),
    query: z.strictObject({ policy: digestSchema.optional() }),
  },
  getRun: get("/v1/runs/:run", "stakeholder", m.runViewSchema, "one run"),
  watchRun: { ...get("/v1/runs/:run/events", "stakeholder", m.runEventSchema, "events of a run as they happen (SSE)"), content: "events" },
  getAttestationResult: {
    ...get(
      "/v1/runs/:run/attestation-result",
      "stakeholder",
      m.resultSchema,
      "what the latest appraisal of the run's machine found, signed for others: EAT Attestation Result (JWT, ES384)",
    ),
    query: z.strictObject({ nonce: m.resultNonceSchema, audience: m.audienceSchema }),
  },
  cancelRun: {
    ...post("/v1/runs/:run/cancel", "stakeholder", m.emptySchema, m.runViewSchema, "cancel a run; a running job ends with its lease"),
    idempotent: true,
  },

  listOutputs: {
    ...get("/v1/outputs", "stakeholder", m.outputListSchema, "sealed outputs of the caller's policies"),
    query: z.strictObject({ run: idSchema.optional() }),
  },
  voteOutput: {
    ...post("/v1/outputs/:output/votes", "stakeholder", m.consentRequestSchema, m.outputViewSchema, "vote for the release of an output"),
    idempotent: true,
  },
  getOutputPackage: get("/v1/outputs/:output/package", "stakeholder", m.outputPackageSchema, "the output, rewrapped to the calling consumer"),

  listHosts: get(
    "/v1/hosts",
    "stakeholder",
    m.hostListSchema,
    "enrolled hosts: those that a policy of the caller lists, and to members those that none lists",
  ),
  retireHost: {
    ...post(
      "/v1/hosts/:host/retire",
      "stakeholder",
      m.emptySchema,
      m.hostViewSchema,
      "retire a host with its TPM for good; for parties of an active policy that lists it",
    ),
    idempotent: true,
  },
  listReceipts: {
    ...get("/v1/receipts", "stakeholder", m.receiptListSchema, "receipts by their place in the log; their content where it concerns the caller"),
    query: z.strictObject({ from: countSchema.optional() }),
  },
  proveReceipt: get(
    "/v1/receipts/:index/proof",
    "stakeholder",
    m.provenReceiptSchema,
    "a receipt that concerns the caller, with its inclusion proof and checkpoint",
  ),
  getLog: {
    ...get("/v1/log", "stakeholder", m.logCheckpointSchema, "the log's checkpoint, and the proof that it goes on from the tree of `from` entries"),
    query: z.strictObject({ from: countSchema.optional() }),
  },
  getCheckpoint: { ...get("/v1/log/checkpoint", "stakeholder", none, "the log's checkpoint as text (C2SP tlog-tiles)"), content: "blob" },
  getTile: {
    ...get("/v1/log/tile/:tile", "stakeholder", none, "a tile of the log's Merkle tree, or a bundle of its leaves (C2SP tlog-tiles)"),
    content: "blob",
  },

  beginEnrolment: post("/v1/enrolments", "host", m.enrolmentRequestSchema, m.enrolmentChallengeSchema, "ask a TPM to prove its attestation key"),
  answerEnrolment: post("/v1/enrolments/:enrolment/answer", "host", m.enrolmentAnswerSchema, m.hostViewSchema, "answer the enrolment challenge"),
  requestChallenge: post(
    "/v1/challenges",
    "host",
    m.challengeRequestSchema,
    m.challengeSchema,
    "a nonce for a claim or a renewal; 204 when there is no work",
  ),
  claimRun: {
    ...post("/v1/claims", "host", m.claimRequestSchema, m.claimGrantSchema, "prove the machine and get the keys of a run"),
    maxBodyBytes: maxBundleBytes,
  },
  renewLease: {
    ...post("/v1/leases/:lease/renew", "host", m.renewRequestSchema, m.renewGrantSchema, "prove that nothing changed and keep the lease"),
    maxBodyBytes: maxBundleBytes,
  },
  reportMetrics: post("/v1/runs/:run/metrics", "host", m.metricsRequestSchema, m.emptySchema, "metrics by the policy's schema"),
  reportOutput: {
    ...post("/v1/runs/:run/outputs", "host", m.outputRequestSchema, m.outputCreatedSchema, "a sealed output of the run"),
    maxBodyBytes: maxPolicySubmissionBytes,
    idempotent: true,
  },
  finishRun: {
    ...post("/v1/runs/:run/finish", "host", m.runReportSchema, m.emptySchema, "the run is over; its lease ends"),
    idempotent: true,
  },
} as const satisfies Record<string, Route>

export type Routes = typeof routes
export type RouteName = keyof Routes
export type RequestBody<R extends Route> = z.output<R["body"]>
export type RequestQuery<R extends Route> = z.output<R["query"]>
export type ResponseBody<R extends Route> = z.output<R["response"]>
