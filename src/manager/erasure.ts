import type { Digest } from "../bytes/digest.ts"
import { parseShape } from "../protocol/wire.ts"
import { type ArtifactManifest, manifestDigest, signedManifestSchema } from "../sealing/manifest.ts"
import { problemsOfArtifact } from "./consent.ts"
import { type ManagerContext, pairKey, type Reader, transact } from "./context.ts"
import { isOver } from "./events.ts"
import { isLocked } from "./outputs.ts"
import { appendReceipt } from "./receipts.ts"
import type { PolicyRecord, RunRecord } from "./records.ts"
import { endRunsWithoutConsent } from "./run-end.ts"
import { isPast, readStanding } from "./standing.ts"
import type { Transaction } from "./store.ts"

/**
 * What is kept ends with the consent to it. Where a key can never be used again under what its owner signed, it is destroyed, in the step that made it so, and a receipt says what was:
 * keys of artifacts and secrets once a successor took the policy's place; with a withdrawal or the policy's end also the keys of outputs, the numbers that runs
 * reported, and the ciphertext that lies here. Signatures, receipts and what describes runs stay: they prove what happened and open nothing.
 */
export type ErasureCode = "policy-superseded" | "policy-withdrawn" | "policy-expired"

/** Destroys what a policy's end leaves without use. Taking it again destroys nothing more and says nothing more. */
export function destroyKeysOf(context: ManagerContext, tx: Transaction, policy: Digest, code: ErasureCode): void {
  const deposits = tx.list("deposits").filter((deposit) => deposit.policy === policy)
  const secrets = tx.list("secrets").filter((secret) => secret.policy === policy)
  for (const { artifact, manifest } of deposits) {
    tx.remove("deposits", pairKey(policy, artifact))
    discard(tx, manifest)
  }
  for (const { secret } of secrets) tx.remove("secrets", pairKey(policy, secret))
  const isFinal = code !== "policy-superseded"
  const runKeys = isFinal ? destroyRunKeys(tx, (run) => run.policy === policy) : 0
  const record = tx.get("policies", policy)
  if (isFinal && record !== undefined && record.erasedAt === undefined) tx.put("policies", policy, { ...record, erasedAt: context.time.nowText() })
  if (deposits.length + secrets.length + runKeys === 0) return
  appendReceipt(context, tx, {
    kind: "keys-destroyed",
    policy,
    code,
    artifacts: deposits.map(({ artifact }) => artifact),
    ...(secrets.length === 0 ? {} : { secrets: secrets.map(({ secret }) => secret) }),
    ...(isFinal ? { runKeys } : {}),
  })
}

/** After a withdrawal: the keys of its policy where that is over with it, and under every other policy those that rest on what came from it. */
export function destroyKeysAfterWithdrawal(context: ManagerContext, tx: Transaction, policy: Digest): void {
  if (readStanding(context, tx, policy).state === "withdrawn") destroyKeysOf(context, tx, policy, "policy-withdrawn")
  const lost = tx.list("deposits").filter((deposit) => {
    const problems = problemsOfArtifact(context, tx, readStanding(context, tx, deposit.policy), deposit.artifact)
    return problems.some(({ code }) => code === "owner-withdrawn" || code === "origin-owner-withdrawn")
  })
  const lockedRuns = new Set(tx.list("runKeys").flatMap(({ run }) => (isLockedForGood(context, tx, run) ? [run] : [])))
  const policies = new Set([...lost.map((deposit) => deposit.policy), ...[...lockedRuns].flatMap((run) => tx.get("runs", run)?.policy ?? [])])
  for (const touched of policies) {
    const deposits = lost.filter((deposit) => deposit.policy === touched)
    for (const { artifact, manifest } of deposits) {
      tx.remove("deposits", pairKey(touched, artifact))
      discard(tx, manifest)
    }
    const runKeys = destroyRunKeys(tx, ({ run, policy: ofRun }) => ofRun === touched && lockedRuns.has(run))
    const artifacts = deposits.map(({ artifact }) => artifact)
    appendReceipt(context, tx, { kind: "keys-destroyed", policy: touched, code: "policy-withdrawn", artifacts, runKeys })
  }
}

/** A run that is over, and none of whose outputs can leave any more. */
function isLockedForGood(context: ManagerContext, reader: Reader, runId: string): boolean {
  const run = reader.get("runs", runId)
  const outputs = reader.list("outputs").filter((output) => output.run === runId)
  return run !== undefined && isOver(run) && outputs.length > 0 && outputs.every((output) => isLocked(context, reader, output))
}

/** Keys of the outputs, and the numbers, of the runs that `isMeant` names. */
function destroyRunKeys(tx: Transaction, isMeant: (run: RunRecord) => boolean): number {
  const runs = tx.list("runs").filter(isMeant)
  const withKey = runs.filter(({ run }) => tx.get("runKeys", run) !== undefined)
  for (const { run } of withKey) tx.remove("runKeys", run)
  for (const { run, nextEvent } of runs)
    for (let number = 0; number < nextEvent; number++) {
      const key = pairKey(run, String(number))
      if (tx.get("events", key)?.kind === "metrics") tx.remove("events", key)
    }
  const meant = new Set(runs.map(({ run }) => run))
  for (const output of tx.list("outputs")) if (meant.has(output.run)) discard(tx, output.manifest)
  return withKey.length
}

/** Notes ciphertext whose key is gone; it is removed once no policy that is alive names it. */
function discard(tx: Transaction, document: PolicyRecord["document"]): void {
  const { manifest } = parseShape(signedManifestSchema, document, "manifest")
  const digest = manifestDigest(manifest)
  tx.put("discards", digest, { manifest: digest, blobs: blobsOf(manifest) })
}

function blobsOf({ shards, index }: ArtifactManifest): Digest[] {
  return [index.digest, ...shards.map((shard) => shard.digest)]
}

/**
 * Ends what has reached its policy's `expires`, and removes ciphertext that nothing needs; called about once a second. It waits while the host's clock is in doubt: keys do not come back.
 */
export function eraseWhatEnded(context: ManagerContext): void {
  if (context.time.problem() !== undefined) return
  const ended = context.store
    .list("policies")
    .filter(({ digest, erasedAt }) => erasedAt === undefined && isPast(context, context.documents.policy(context.store, digest)))
  if (ended.length > 0)
    transact(context, (tx) => {
      endRunsWithoutConsent(context, tx)
      for (const { digest } of ended) destroyKeysOf(context, tx, digest, "policy-expired")
    })
  removeDiscarded(context)
}

/** What is not noted as removed is removed again after a crash, which changes nothing. */
function removeDiscarded(context: ManagerContext): void {
  const { store, blobs } = context
  if (store.count("discards") === 0) return
  const alive = namedByPolicies(context)
  const discarded = store.list("discards").filter(({ manifest }) => !alive.has(manifest))
  if (discarded.length === 0) return
  const needed = neededBlobs(store)
  for (const { blobs: digests } of discarded) for (const digest of digests) if (!needed.has(digest)) blobs.remove(digest)
  transact(context, (tx) => {
    for (const { manifest } of discarded) tx.remove("discards", manifest)
  })
}

/** Manifests whose keys may be deposited now or later: their ciphertext may have been uploaded before. */
function namedByPolicies({ store, documents }: ManagerContext): ReadonlySet<Digest> {
  const alive = store.list("policies").filter(({ state, erasedAt }) => state !== "superseded" && erasedAt === undefined)
  return new Set(alive.flatMap(({ digest }) => Object.values(documents.policy(store, digest).artifacts).map(({ manifest }) => manifest)))
}

/** Ciphertext that a key here opens, whoever listed it in another manifest. */
function neededBlobs(reader: Reader): ReadonlySet<Digest> {
  const documents = [...reader.list("deposits"), ...reader.list("outputs").filter(({ run }) => reader.get("runKeys", run) !== undefined)]
  return new Set(documents.flatMap(({ manifest }) => blobsOf(parseShape(signedManifestSchema, manifest, "manifest").manifest)))
}
