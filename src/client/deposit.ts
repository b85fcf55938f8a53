import { join } from "node:path"
import { readFileBounded } from "../bytes/durable.ts"
import type { Digest } from "../bytes/digest.ts"
import type { JsonValue } from "../bytes/json.ts"
import { encodeUtf8, parseBase64, parseUtf8 } from "../bytes/text.ts"
import { stakeholderOfKey, tallyApprovals } from "../policy/approval.ts"
import { type Artifact, own, type Policy, policyDigest } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { demandManagerOf } from "../protocol/manager-attestation.ts"
import { sealMessage } from "../protocol/hpke.ts"
import type { ArtifactView } from "../protocol/messages.ts"
import { ProblemError, RefusedError } from "../protocol/problem.ts"
import { routes } from "../protocol/routes.ts"
import { artifactFolder, identityPath, indexFileName, manifestFileName, shardFileName } from "../sealing/blobs.ts"
import { SealingError } from "../sealing/errors.ts"
import { recipientOf } from "../sealing/keys.ts"
import { maxManifestBytes, parseSignedManifest, type SignedManifest, verifyManifest } from "../sealing/manifest.ts"
import { verifyArtifact } from "../sealing/open-artifact.ts"
import type { ManagerConnection } from "./connection.ts"

export interface DepositOptions {
  readonly policy: Policy
  /** Name of the artifact in the policy. */
  readonly artifact: string
  /** Folder as `sealArtifact` leaves it, its key beside it. */
  readonly folder: string
  readonly onProgress?: (step: "checking" | "uploading", doneBytes: number, totalBytes: number) => void
  readonly signal?: AbortSignal
}

/**
 * Uploads a sealed artifact's ciphertext and deposits its key under a policy: HPKE to the manager's deposit key, bound to policy, artifact, manifest and
 * manager. Everything that can be judged here is judged before a byte is uploaded: the manager is the one that this very policy names, the caller owns the
 * artifact, the folder holds what the policy names, whole and with its key, and the manager has the owner's own signature over the policy.
 * @throws {ProtocolError} `wrong-manager`, `not-found`, `not-permitted`, `policy-withdrawn`, `policy-expired`, `policy-inactive`
 * @throws {RefusedError} `owner-not-signed`
 * @throws {SealingError} `wrong-manifest` when the folder holds another artifact than the policy names, `wrong-key`, and as `verifyArtifact`
 * @throws {ProblemError} what the manager answers
 */
export async function depositArtifact(connection: ManagerConnection, options: DepositOptions): Promise<ArtifactView> {
  const { policy, artifact, folder } = options
  refuseOtherManager(connection, policy)
  const named = own(policy.artifacts, artifact)
  if (named === undefined) throw new ProtocolError("not-found", `the policy has no artifact ${artifact}`)
  refuseOtherOwner(connection, policy, artifact, named)
  const signed = await loadManifest(folder)
  const manifest = verifyManifest(signed, { digest: named.manifest, owners: own(policy.stakeholders, named.owner)?.keys ?? [] })
  if (manifest.kind !== named.kind)
    throw new SealingError("wrong-manifest", `sealed as ${manifest.kind}, the policy says ${named.kind}`, { path: "manifest.kind" })
  const identity = parseUtf8(await readFileBounded(identityPath(folder), 65_536))
  if ((await recipientOf(identity.trim())) !== manifest.recipient)
    throw new SealingError("wrong-key", "the key is not that of this artifact", { path: identityPath(folder) })
  await demandOwnSignature(connection, policy, named.owner)
  await checkBlobs(signed, options)
  await uploadArtifact(connection, signed, folder, options)
  const { instance, depositKey } = connection.description
  const digest = policyDigest(policy)
  const context = { purpose: "deposit", policy: digest, artifact, manifest: named.manifest, manager: instance } as const
  const sealedIdentity = await sealMessage(parseBase64(depositKey), context, encodeUtf8(identity.trim()))
  return connection.call(routes.depositArtifact, { params: { digest }, body: { artifact, manifest: documentOf(signed), sealedIdentity } })
}

function refuseOtherOwner(connection: ManagerConnection, policy: Policy, artifact: string, { owner }: Artifact): void {
  const caller = stakeholderOfKey(policy, connection.ownKey)
  if (caller === undefined) throw new ProtocolError("not-permitted", `the policy names no party with the key ${connection.ownKey}`)
  if (caller !== owner) throw new ProtocolError("not-permitted", `${artifact} belongs to ${owner}, who alone deposits its key; you are ${caller}`)
}

/**
 * The manager must have the owner's own signature over exactly this policy, one that verifies, and the policy must still be open.
 * @throws {ProtocolError} `not-found`, `policy-withdrawn`, `policy-expired`, `policy-inactive`; {RefusedError} `owner-not-signed`
 */
export async function demandOwnSignature(connection: ManagerConnection, policy: Policy, owner: string): Promise<void> {
  const digest = policyDigest(policy)
  const view = await connection.call(routes.getPolicy, { params: { digest } }).catch((cause: unknown) => {
    if (!(cause instanceof ProblemError) || cause.code !== "not-found") throw cause
    throw new ProtocolError("not-found", `the manager does not have the policy ${digest}; propose it with: perun policy submit`, { cause })
  })
  if (view.state === "withdrawn") throw new ProtocolError("policy-withdrawn", "consent to the policy was withdrawn")
  if (view.state === "expired") throw new ProtocolError("policy-expired", `the policy ended at ${policy.expires}`)
  if (view.state === "superseded") throw new ProtocolError("policy-inactive", "a successor took the policy's place")
  const signatures = view.approvals.map(({ signature }) => signature)
  const withdrawn = new Set(view.withdrawals.map(({ stakeholder }) => stakeholder))
  if (!tallyApprovals(policy, signatures, { withdrawn }).signed.includes(owner))
    throw new RefusedError("owner-not-signed", `you have not signed ${digest} yet; do it with: perun policy sign`, [])
}

async function checkBlobs(signed: SignedManifest, { folder, onProgress, signal }: DepositOptions): Promise<void> {
  await verifyArtifact({
    signed,
    blobs: artifactFolder(folder, signed.manifest),
    signal,
    ...(onProgress === undefined ? {} : { onProgress: ({ doneBytes, totalBytes }) => onProgress("checking", doneBytes, totalBytes) }),
  })
}

/** The signed manifest in an artifact's folder; its signature is not verified here. */
export async function loadManifest(folder: string): Promise<SignedManifest> {
  return parseSignedManifest(await readFileBounded(join(folder, manifestFileName), maxManifestBytes))
}

/** @throws {ProtocolError} `wrong-manager` unless the connection ends at the manager that the policy names */
export function refuseOtherManager(connection: ManagerConnection, policy: Policy): void {
  demandManagerOf(policy.manager, connection.manager)
}

async function uploadArtifact(connection: ManagerConnection, signed: SignedManifest, folder: string, options: DepositOptions): Promise<void> {
  const blobs: readonly { digest: Digest; sizeBytes: number; name: string }[] = [
    ...signed.manifest.shards.map((shard, index) => ({ ...shard, name: shardFileName(index) })),
    { ...signed.manifest.index, name: indexFileName },
  ]
  const total = blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  let done = 0
  for (const { digest, sizeBytes, name } of blobs) {
    await connection.transport.putBlobFile(digest, join(folder, name), options.signal)
    done += sizeBytes
    options.onProgress?.("uploading", done, total)
  }
}

/** A document of another room as the JSON object that a message carries. */
export function documentOf(value: object): Record<string, JsonValue> {
  return { ...(value as Record<string, JsonValue>) }
}
