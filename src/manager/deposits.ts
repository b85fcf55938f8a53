import type { Digest } from "../bytes/digest.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { stakeholderOfKey } from "../policy/approval.ts"
import { own, type Policy } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { openMessage } from "../protocol/hpke.ts"
import type { ArtifactView, DepositRequest } from "../protocol/messages.ts"
import { parseShape } from "../protocol/wire.ts"
import { SealingError } from "../sealing/errors.ts"
import { recipientOf } from "../sealing/keys.ts"
import { signedManifestSchema, verifyManifest } from "../sealing/manifest.ts"
import { type ManagerContext, pairKey, type Reader, type StakeholderCaller, transact } from "./context.ts"
import { demandUsable, problemsOfArtifact } from "./consent.ts"
import { appendReceipt } from "./receipts.ts"
import { demandStakeholder, readStanding, type Standing } from "./standing.ts"

/**
 * Takes the key of an artifact: from its owner only, under a policy that this owner signed itself, sealed to this manager for exactly this policy,
 * artifact and manifest. The key must open what the manifest describes.
 * @throws {ProtocolError} `not-found`, `not-permitted`, `policy-withdrawn`, `policy-expired`, `policy-inactive`, `wrong-message`
 * @throws {RefusedError} `owner-not-signed`, … as artifactProblems; {SealingError} `wrong-manifest`, `wrong-key`
 */
export async function depositArtifact(
  context: ManagerContext,
  caller: StakeholderCaller,
  digest: Digest,
  request: DepositRequest,
): Promise<ArtifactView> {
  const { artifact } = request
  const { policy } = demandOpenForDeposit(context, context.store, caller, digest, artifact)
  const declared = own(policy.artifacts, artifact)
  if (declared === undefined) throw new ProtocolError("not-found", `the policy has no artifact ${artifact}`)
  const signed = parseShape(signedManifestSchema, request.manifest, "manifest")
  const owners = own(policy.stakeholders, declared.owner)?.keys ?? []
  const manifest = verifyManifest(signed, { digest: declared.manifest, owners })
  const identity = parseUtf8(
    await openMessage(
      context.keys.depositPrivateKey,
      { purpose: "deposit", policy: digest, artifact, manifest: declared.manifest, manager: context.description.instance },
      request.sealedIdentity,
    ),
    "identity",
  )
  if ((await recipientOf(identity)) !== manifest.recipient)
    throw new SealingError("wrong-key", "the deposited identity does not belong to the manifest's recipient", { path: "sealedIdentity" })
  return transact(context, (tx) => {
    // Opening took time in which consent may have ended.
    demandOpenForDeposit(context, tx, caller, digest, artifact)
    const key = pairKey(digest, artifact)
    const at = context.time.nowText()
    if (tx.get("deposits", key) === undefined) {
      tx.put("deposits", key, { policy: digest, artifact, manifest: request.manifest, identity, at })
      appendReceipt(context, tx, { kind: "artifact-deposited", policy: digest, by: declared.owner, artifacts: [artifact] })
    }
    return viewOf(policy, digest, artifact, tx.get("deposits", key)?.at ?? at)
  })
}

function demandOpenForDeposit(context: ManagerContext, reader: Reader, caller: StakeholderCaller, digest: Digest, artifact: string): Standing {
  const standing = readStanding(context, reader, digest)
  const name = demandStakeholder(standing.policy, caller)
  if (own(standing.policy.artifacts, artifact)?.owner !== name)
    throw new ProtocolError("not-permitted", "only its owner deposits an artifact's key", { path: "artifact" })
  if (standing.state === "withdrawn") throw new ProtocolError("policy-withdrawn", "consent to the policy was withdrawn")
  if (standing.state === "expired") throw new ProtocolError("policy-expired", `the policy ended at ${standing.policy.expires}`)
  if (standing.state === "superseded") throw new ProtocolError("policy-inactive", "a successor took the policy's place")
  demandUsable(problemsOfArtifact(context, reader, standing, artifact))
  return standing
}

export function listArtifacts(context: ManagerContext, caller: StakeholderCaller): { artifacts: ArtifactView[] } {
  const { store, documents } = context
  const artifacts = store.list("deposits").flatMap((deposit) => {
    const policy = documents.policy(store, deposit.policy)
    if (stakeholderOfKey(policy, caller.key) === undefined) return []
    return [viewOf(policy, deposit.policy, deposit.artifact, deposit.at)]
  })
  return { artifacts }
}

function viewOf(policy: Policy, digest: Digest, artifact: string, depositedAt: string): ArtifactView {
  const declared = own(policy.artifacts, artifact)
  if (declared === undefined) throw new TypeError(`internal: deposit of an artifact ${artifact} that the policy lacks`)
  return { policy: digest, artifact, kind: declared.kind, owner: declared.owner, manifest: declared.manifest, depositedAt }
}
