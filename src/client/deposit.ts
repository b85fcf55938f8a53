import { join } from "node:path"
import { readFileBounded } from "../bytes/durable.ts"
import type { Digest } from "../bytes/digest.ts"
import type { JsonValue } from "../bytes/json.ts"
import { encodeUtf8, parseBase64, parseUtf8 } from "../bytes/text.ts"
import { own, type Policy, policyDigest } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { sealMessage } from "../protocol/hpke.ts"
import type { ArtifactView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { identityPath, indexFileName, manifestFileName, shardFileName } from "../sealing/blobs.ts"
import { maxManifestBytes, parseSignedManifest, type SignedManifest, verifyManifest } from "../sealing/manifest.ts"
import type { ManagerConnection } from "./connection.ts"

export interface DepositOptions {
  readonly policy: Policy
  /** Name of the artifact in the policy. */
  readonly artifact: string
  /** Folder as `sealArtifact` leaves it, its key beside it. */
  readonly folder: string
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void
  readonly signal?: AbortSignal
}

/**
 * Uploads a sealed artifact's ciphertext and deposits its key under a policy: HPKE to the manager's deposit key, bound to policy, artifact, manifest and
 * manager. Nothing secret leaves unless the manager is the one that this very policy names.
 * @throws {ProtocolError} `wrong-manager` when the policy names another one
 * @throws {SealingError} `wrong-manifest` when the folder holds another artifact than the policy names
 * @throws {ProblemError} what the manager answers
 */
export async function depositArtifact(connection: ManagerConnection, options: DepositOptions): Promise<ArtifactView> {
  const { policy, artifact, folder } = options
  refuseOtherManager(connection, policy)
  const named = own(policy.artifacts, artifact)
  if (named === undefined) throw new ProtocolError("not-found", `the policy has no artifact ${artifact}`)
  const signed = await loadManifest(folder)
  verifyManifest(signed, { digest: named.manifest, owners: own(policy.stakeholders, named.owner)?.keys ?? [] })
  const identity = parseUtf8(await readFileBounded(identityPath(folder), 65_536))
  await uploadArtifact(connection, signed, folder, options)
  const { instance, depositKey } = connection.description
  const digest = policyDigest(policy)
  const context = { purpose: "deposit", policy: digest, artifact, manifest: named.manifest, manager: instance } as const
  const sealedIdentity = await sealMessage(parseBase64(depositKey), context, encodeUtf8(identity.trim()))
  return connection.call(routes.depositArtifact, { params: { digest }, body: { artifact, manifest: documentOf(signed), sealedIdentity } })
}

/** The signed manifest in an artifact's folder; its signature is not verified here. */
export async function loadManifest(folder: string): Promise<SignedManifest> {
  return parseSignedManifest(await readFileBounded(join(folder, manifestFileName), maxManifestBytes))
}

/** @throws {ProtocolError} `wrong-manager` unless the connection ends at the manager that the policy names */
export function refuseOtherManager(connection: ManagerConnection, policy: Policy): void {
  const expected = policy.manager.insecureUnattested.key
  const found = connection.description.key
  if (found !== expected) throw new ProtocolError("wrong-manager", `the policy names the manager ${expected}, this one is ${found}; nothing was sent`)
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
    options.onProgress?.(done, total)
  }
}

/** A document of another room as the JSON object that a message carries. */
export function documentOf(value: object): Record<string, JsonValue> {
  return { ...(value as Record<string, JsonValue>) }
}
