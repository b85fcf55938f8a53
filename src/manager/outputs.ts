import type { Digest } from "../bytes/digest.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { parseSshPublicKey } from "../pki/ssh-key.ts"
import { demandTerms, releaseTerms, tallyRelease, type Tally } from "../policy/approval.ts"
import { type Derivation, derivationOfOutput, mergeDerivations } from "../policy/derivation.ts"
import { own, type Policy } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { OutputPackage, OutputRequest, OutputView } from "../protocol/messages.ts"
import { maxSealedBytes } from "../protocol/sealed-size.ts"
import { voteDigest, type VoteSubject } from "../protocol/statements.ts"
import { parseShape } from "../protocol/wire.ts"
import { SealingError } from "../sealing/errors.ts"
import { parseAgeHeader, rewrapHeader } from "../sealing/header.ts"
import { type ArtifactManifest, manifestDigest, signedManifestSchema, verifyManifest } from "../sealing/manifest.ts"
import { type HostCaller, type ManagerContext, newId, pairKey, type Reader, type StakeholderCaller, transact } from "./context.ts"
import { appendEvent } from "./events.ts"
import { demandLease } from "./leases.ts"
import { appendReceipt } from "./receipts.ts"
import { type Consent, receiptOfReport } from "./consent.ts"
import { demandReport } from "../protocol/check-report.ts"
import { isReplaced, partyOf } from "./parties.ts"
import type { OutputRecord, RecordOf } from "./records.ts"
import { demandNotSetBack, demandStakeholder, derivationsOf, isPast, readStanding, signerOf, withdrawnKeysBehind } from "./standing.ts"
import type { Transaction } from "./store.ts"
import { demandWitnesses } from "./witnesses.ts"

/** Largest age header: 64 KiB, sealing/header.ts. */
const maxHeaderBytes = 65_536

/** Most bytes that a run may upload, all outputs and logs together. */
export function maxUploadBytes(policy: Policy, jobName: string): number {
  const job = own(policy.jobs, jobName)
  if (job === undefined) return 0
  const limits = [...Object.values(job.outputs), ...(job.logs === "none" ? [] : [job.logs])].map(({ maxBytes }) => maxSealedBytes(maxBytes))
  return limits.reduce((sum, limit) => sum + limit, 0)
}

/**
 * Takes the manifest of an output that the agent sealed to the run's key and uploaded. Saying it again changes nothing.
 * @throws {ProtocolError} `lease-ended`, `not-found`, `limit-exceeded`, `wrong-state`; {SealingError} `wrong-manifest`, `missing`
 */
export async function reportOutput(context: ManagerContext, caller: HostCaller, runId: string, request: OutputRequest): Promise<{ output: string }> {
  const { run } = demandLease(context, context.store, caller, { run: runId })
  const policy = context.documents.policy(context.store, run.policy)
  const job = own(policy.jobs, run.job)
  const terms = job === undefined ? undefined : releaseTerms(job, request.name)
  if (job === undefined || terms === undefined) throw new ProtocolError("not-found", `the job has no output ${request.name}`)
  const manifest = verifyManifest(parseShape(signedManifestSchema, request.manifest, "manifest"))
  if (manifest.recipient !== context.store.get("runKeys", runId)?.recipient)
    throw new SealingError("wrong-manifest", "the output is not sealed to the run's recipient", { path: "manifest.recipient" })
  const { maxBytes, kind } =
    request.name === "logs" ? { maxBytes: job.logs === "none" ? 0 : job.logs.maxBytes, kind: "logs" } : outputOf(job.outputs, request.name)
  const sizeBytes = blobsOf(manifest).reduce((sum, blob) => sum + blob.sizeBytes, 0)
  if (manifest.files.bytes > maxBytes || sizeBytes > maxSealedBytes(maxBytes))
    throw new ProtocolError("limit-exceeded", `output of ${manifest.files.bytes} bytes, the policy allows ${maxBytes}`)
  for (const { digest, sizeBytes: stated } of blobsOf(manifest))
    if ((await context.blobs.size(digest)) !== stated) throw new SealingError("missing", `blob ${digest} of ${stated} bytes was not uploaded`)
  const ciphertext = manifestDigest(manifest)
  return transact(context, (tx) => {
    const held = demandLease(context, tx, caller, { run: runId })
    const known = tx.list("outputs").find((output) => output.run === runId && output.name === request.name)
    if (known?.ciphertext === ciphertext) return { output: known.output }
    if (known !== undefined) throw new ProtocolError("wrong-state", `output ${request.name} of this run was reported before, with other content`)
    const made = derivationOfOutput(policy, job, terms.waive ?? [], held.lease.laboratoryRoots, derivationsOf(context, tx))
    const record: OutputRecord = {
      output: newId(context),
      run: runId,
      policy: run.policy,
      job: run.job,
      name: request.name,
      kind,
      manifest: request.manifest,
      ciphertext,
      sizeBytes,
      released: false,
      laboratory: made.laboratoryRoots.length > 0,
      at: context.time.nowText(),
    }
    tx.put("outputs", record.output, record)
    putDerivation(tx, ciphertext, made)
    tx.put("runs", runId, appendEvent(context, tx, held.run, { kind: "output", output: record.output, name: record.name }))
    const laboratory = record.laboratory ? { laboratory: true } : {}
    appendReceipt(context, tx, {
      kind: "output-received",
      policy: run.policy,
      run: runId,
      output: record.output,
      name: record.name,
      manifest: ciphertext,
      sizeBytes,
      host: held.lease.host,
      ...laboratory,
    })
    return { output: record.output }
  })
}

function outputOf(
  outputs: Readonly<Record<string, { readonly maxBytes: number; readonly kind: string }>>,
  name: string,
): { maxBytes: number; kind: string } {
  const output = own(outputs, name)
  if (output === undefined) throw new TypeError("internal: output without terms")
  return output
}

/** One content may be reported as several outputs, on other terms each: nothing that stood behind it before is forgotten. */
function putDerivation(tx: Transaction, manifest: Digest, made: Derivation): void {
  const known = tx.get("derivations", manifest)
  const { origins, policies, laboratoryRoots } = known === undefined ? made : mergeDerivations(known, made)
  tx.put("derivations", manifest, {
    manifest,
    origins: origins.map(({ name, keys }) => ({ name, keys: [...keys] })),
    policies: [...policies],
    laboratoryRoots: [...laboratoryRoots],
  })
}

function blobsOf(manifest: ArtifactManifest): readonly { readonly digest: Digest; readonly sizeBytes: number }[] {
  return [...manifest.shards, manifest.index]
}

/**
 * Takes a stakeholder's vote for the release of an output.
 * @throws {PkiError}; {ProtocolError} `not-found`, `not-permitted`, `policy-withdrawn`, `check-missing`, `wrong-check`
 */
export function voteOutput(context: ManagerContext, caller: StakeholderCaller, outputId: string, { signature, report }: Consent): OutputView {
  const record = demandOutput(context, context.store, caller, outputId)
  const policy = context.documents.policy(context.store, record.policy)
  const subject = voteDigest(votedOn(context.store, record))
  const stakeholder = signerOf(policy, "vote", subject, signature)
  demandReport(policy, stakeholder, subject, report)
  return transact(context, (tx) => {
    if (isReplaced(tx, policy.study, parseSshPublicKey(signature.key).text))
      throw new ProtocolError("not-permitted", "the signing key was lost and replaced", { path: "signature.key" })
    demandUnlocked(context, tx, record)
    const key = pairKey(outputId, stakeholder)
    if (tx.get("votes", key) === undefined) {
      tx.put("votes", key, { output: outputId, stakeholder, signature, at: context.time.nowText(), ...(report === undefined ? {} : { report }) })
      const what = { kind: "vote-cast", policy: record.policy, run: record.run, output: outputId, by: stakeholder } as const
      appendReceipt(context, tx, { ...what, ...receiptOfReport(report) })
    }
    return viewOutput(context, tx, record)
  })
}

/**
 * The output for a consumer that the policy names, once the votes are there: each blob's age header, made anew for the consumer's recipients.
 * @throws {ProtocolError} `not-found`, `not-permitted`, `votes-missing`, `policy-withdrawn`, `policy-expired`; {LogError} `not-witnessed`
 */
export async function packageOutput(context: ManagerContext, caller: StakeholderCaller, outputId: string): Promise<OutputPackage> {
  const { record, recipients, identity } = demandReleasable(context, context.store, caller, outputId)
  await demandWitnesses(context, record.policy)
  const manifest = parseShape(signedManifestSchema, record.manifest, "manifest").manifest
  const headers: OutputPackage["headers"] = []
  for (const { digest } of blobsOf(manifest)) {
    const header = parseAgeHeader(await context.blobs.readStart(digest, maxHeaderBytes + 1)).bytes
    headers.push({ blob: digest, header: encodeBase64(await rewrapHeader(header, identity, recipients)) })
  }
  const handedOut = transact(context, (tx) => {
    const { name, record: held } = demandReleasable(context, tx, caller, outputId)
    const fetches = held.fetches ?? 0
    if (fetches >= maxFetches) throw new ProtocolError("limit-exceeded", `the output was handed out ${fetches} times, which is enough`)
    const laboratory = record.laboratory ? { laboratory: true } : {}
    tx.put("outputs", outputId, { ...held, released: true, fetches: fetches + 1 })
    appendReceipt(context, tx, { kind: "output-released", policy: record.policy, run: record.run, output: outputId, by: name, ...laboratory })
    return { output: viewOutput(context, tx, { ...held, released: true }), manifest: record.manifest, headers }
  })
  // As with keys: others see the receipt first.
  if (await demandWitnesses(context, record.policy)) demandReleasable(context, context.store, caller, outputId)
  return handedOut
}

/** Each is a receipt for ever; a consumer keeps what it fetched. */
const maxFetches = 256

interface Releasable {
  readonly record: OutputRecord
  readonly name: string
  readonly recipients: readonly string[]
  readonly identity: string
}

function demandReleasable(context: ManagerContext, reader: Reader, caller: StakeholderCaller, outputId: string): Releasable {
  const record = demandOutput(context, reader, caller, outputId)
  const standing = readStanding(context, reader, record.policy)
  const name = demandStakeholder(standing.policy, caller)
  const { terms } = demandTerms(standing.policy, record.job, record.name)
  if (!terms.to.includes(name)) throw new ProtocolError("not-permitted", `the policy gives ${record.name} to ${terms.to.join(", ")} only`)
  demandUnlocked(context, reader, record)
  demandNotSetBack(standing)
  // Also where a successor took its place: what was made under it was agreed on until then.
  if (isPast(context, standing.policy)) throw new ProtocolError("policy-expired", `the policy ended at ${standing.policy.expires}`)
  const tally = tallyOf(context, reader, record)
  if (!tally.satisfied) throw new ProtocolError("votes-missing", `votes are missing: ${[...tally.missing, ...tally.originsMissing].join(", ")}`)
  const recipients = own(standing.policy.stakeholders, name)?.recipients ?? []
  if (recipients.length === 0) throw new ProtocolError("wrong-state", `the policy states no recipient for ${name}`)
  const identity = reader.get("runKeys", record.run)?.identity
  if (identity === undefined) throw new TypeError("internal: run without an output key")
  return { record, name, recipients, identity }
}

/** What is derived is locked when an owner behind it withdrew. @throws {ProtocolError} `policy-withdrawn` */
function demandUnlocked(context: ManagerContext, reader: Reader, record: OutputRecord): void {
  if (isLocked(context, reader, record))
    throw new ProtocolError("policy-withdrawn", "an owner withdrew its consent, and what was derived is locked with it")
}

export function isLocked(context: ManagerContext, reader: Reader, record: OutputRecord): boolean {
  const withdrawn = withdrawnKeysBehind(context, reader, record.ciphertext)
  const origins = reader.get("derivations", record.ciphertext)?.origins ?? []
  return readStanding(context, reader, record.policy).state === "withdrawn" || origins.some(({ keys }) => keys.some((key) => withdrawn.has(key)))
}

function tallyOf(context: ManagerContext, reader: Reader, record: OutputRecord): Tally {
  const { policy, withdrawn } = readStanding(context, reader, record.policy)
  const signatures = votesFor(reader, record).map(({ signature }) => signature)
  return tallyRelease(policy, record.job, record.name, { digest: voteDigest(votedOn(reader, record)), signatures }, derivationsOf(context, reader), {
    withdrawn,
  })
}

function votesFor(reader: Reader, { output }: OutputRecord): readonly RecordOf<"votes">[] {
  return reader.list("votes").filter((vote) => vote.output === output)
}

/** What a vote for this output must be over. */
function votedOn(reader: Reader, record: OutputRecord): VoteSubject {
  const evidence = reader.get("runs", record.run)?.evidence
  if (evidence === undefined) throw new TypeError("internal: output of a run without evidence")
  return { ...record, evidence }
}

/** @throws {ProtocolError} `not-found` */
function demandOutput(context: ManagerContext, reader: Reader, caller: StakeholderCaller, outputId: string): OutputRecord {
  const record = reader.get("outputs", outputId)
  if (record === undefined || partyOf(context, reader, record.policy, caller.key) === undefined)
    throw new ProtocolError("not-found", `there is no output ${outputId}`)
  return record
}

export function listOutputs(context: ManagerContext, caller: StakeholderCaller, run: string | undefined): { outputs: OutputView[] } {
  const { store } = context
  const mine = store
    .list("outputs")
    .filter((record) => (run === undefined || record.run === run) && partyOf(context, store, record.policy, caller.key) !== undefined)
  return { outputs: mine.map((record) => viewOutput(context, store, record)) }
}

function viewOutput(context: ManagerContext, reader: Reader, record: OutputRecord): OutputView {
  const { manifest: _, released, fetches: _count, at, ...facts } = record
  const tally = tallyOf(context, reader, record)
  const { terms } = demandTerms(context.documents.policy(reader, record.policy), record.job, record.name)
  return {
    ...facts,
    evidence: votedOn(reader, record).evidence,
    state: isLocked(context, reader, record) ? "locked" : released ? "released" : "waiting",
    to: [...terms.to],
    votes: [...tally.signed],
    signatures: votesFor(reader, record).map(({ signature }) => signature),
    checks: votesFor(reader, record).flatMap(({ stakeholder, report }) => (report === undefined ? [] : [{ by: stakeholder, report }])),
    missing: [...new Set([...tally.missing, ...tally.originsMissing])],
    createdAt: at,
  }
}
