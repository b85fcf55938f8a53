import type { Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { encodeHex, parseBase64 } from "../bytes/text.ts"
import { tallyApprovals } from "../policy/approval.ts"
import { demandedPieces, own, parsePolicyValue, policyDigest, type Job, type Policy } from "../policy/document.ts"
import { demandFits, secretCommitment } from "../policy/secrets.ts"
import { openMessage } from "../protocol/hpke.ts"
import { demandManagerOf, type KnownManager } from "../protocol/manager-attestation.ts"
import { releasedKeysSchema, type Challenge, type ClaimGrant } from "../protocol/messages.ts"
import { parseMessage, parseShape } from "../protocol/wire.ts"
import { recipientKind } from "../sealing/keys.ts"
import { signedManifestSchema, verifyManifest, type SignedManifest } from "../sealing/manifest.ts"
import { AgentError } from "./error.ts"
import type { OpenSession } from "./evidence/attest.ts"

/** What this side of a claim knows of itself, besides the challenge. */
export interface SessionKeys {
  /** HPKE public key, base64. */
  readonly hpkeKey: string
  readonly tlsKey: Digest
}

/** The session of a claim or renewal, which the manager makes from its own records. */
export function challengeSession({ purpose, manager, nonce, policy, job, run, lease }: Challenge, keys: SessionKeys): OpenSession {
  return { purpose, version: 1, manager, nonce, ...keys, policy, job, run, lease }
}

/** A grant behind which the stakeholders' own signatures stand, as far as a host can see. */
export interface VerifiedGrant {
  readonly policy: Policy
  readonly policyDigest: Digest
  readonly jobName: string
  readonly job: Job
  readonly run: string
  readonly lease: { readonly id: string; readonly seconds: number }
  /** Signed manifest of each input; signature, owner and digest verified. */
  readonly inputs: ReadonlyMap<string, SignedManifest>
  readonly session: Digest
  readonly sealedKeys: ClaimGrant["sealedKeys"]
  readonly outputRecipient: string
}

/**
 * Verifies that a grant is what the machine proved itself for, and what the stakeholders signed: the policy is the one whose digest the evidence covered, its
 * approvals satisfy it, it demands the evidence that was asked for, it pins this manager, and the inputs are the artifacts that it names, signed by their owners. A manager that lies about any of it
 * gets no job to run here.
 * @throws {AgentError} `wrong-policy`, `wrong-approval`, `wrong-manager`, `wrong-manifest`, `wrong-grant`; {MalformedError}
 */
export function verifyGrant(
  grant: ClaimGrant,
  challenge: Challenge,
  expected: { readonly session: Uint8Array; readonly manager: KnownManager },
): VerifiedGrant {
  const session: Digest = `sha256:${encodeHex(expected.session)}`
  equal(grant.policy, challenge.policy, "policy")
  equal(grant.job, challenge.job, "job")
  equal(grant.run, challenge.run, "run")
  equal(grant.lease.id, challenge.lease, "lease.id")
  equal(grant.session, session, "session")
  const policy = readPolicy(grant, challenge)
  const job = own(policy.jobs, grant.job)
  if (job === undefined) throw new AgentError("wrong-policy", "the policy has no such job", { path: "job" })
  demandPieces(policy, job, challenge)
  demandPolicyManager(policy, expected.manager)
  const tally = tallyApprovals(
    policy,
    grant.approvals.map(({ signature }) => signature),
  )
  if (!tally.satisfied) throw new AgentError("wrong-approval", `signatures are missing: ${tally.missing.join(", ")}`, { path: "approvals" })
  if (grant.lease.seconds > job.lease.seconds) throw new AgentError("wrong-grant", "the lease is longer than the policy's", { path: "lease" })
  recipientKind(grant.outputRecipient)
  return {
    policy,
    policyDigest: policyDigest(policy),
    jobName: grant.job,
    job,
    run: grant.run,
    lease: grant.lease,
    inputs: verifyInputs(grant, policy, job),
    session,
    sealedKeys: grant.sealedKeys,
    outputRecipient: grant.outputRecipient,
  }
}

/** What a grant opens to. */
export interface ReleasedToJob {
  /** age identities by name of the input. */
  readonly identities: ReadonlyMap<string, string>
  /** Values by name of the secret. */
  readonly secrets: ReadonlyMap<string, Uint8Array>
}

/**
 * Opens the keys and secrets of a grant: exactly one for each input and each secret of the job; what a party brought is what its commitment in the policy says.
 * @throws {AgentError} `wrong-grant`; {ProtocolError} `wrong-message`; {MalformedError}
 */
export async function openReleasedKeys(grant: VerifiedGrant, hpkePrivateKey: Uint8Array): Promise<ReleasedToJob> {
  const context = { purpose: "release", session: grant.session, policy: grant.policyDigest, run: grant.run } as const
  const plaintext = await openMessage(hpkePrivateKey, context, grant.sealedKeys)
  try {
    const { identities, secrets } = parseMessage(releasedKeysSchema, plaintext)
    sameNames(Object.keys(identities), [...grant.inputs.keys()], "identities")
    sameNames(Object.keys(secrets), Object.keys(grant.job.secrets ?? {}), "secrets")
    const values = Object.entries(secrets).map(([name, { salt, value: text }]) => {
      const value = parseBase64(text, name)
      const [declared, use] = [own(grant.policy.secrets ?? {}, name), own(grant.job.secrets ?? {}, name)]
      if (declared === undefined || use === undefined) throw new AgentError("wrong-policy", "the policy has no such secret", { path: name })
      if ("owner" in declared && (salt === undefined || secretCommitment({ salt, value }) !== declared.commitment))
        throw new AgentError("wrong-grant", "not the value that the policy's commitment was made of", { path: name })
      demandFits(name, value, [use])
      return [name, value] as const
    })
    return { identities: new Map(Object.entries(identities)), secrets: new Map(values) }
  } finally {
    plaintext.fill(0)
  }
}

function readPolicy(grant: ClaimGrant, challenge: Challenge): Policy {
  let policy: Policy
  try {
    policy = parsePolicyValue(grant.document)
  } catch (cause) {
    if (!(cause instanceof PerunError)) throw cause
    throw new AgentError("wrong-policy", "the document is no policy", { path: "document", cause })
  }
  const found = policyDigest(policy)
  if (found !== challenge.policy) throw new AgentError("wrong-policy", `found ${found}, expected ${challenge.policy}`, { path: "document" })
  return policy
}

function verifyInputs(grant: ClaimGrant, policy: Policy, job: Job): ReadonlyMap<string, SignedManifest> {
  sameNames(
    grant.inputs.map(({ artifact }) => artifact),
    Object.keys(job.inputs),
    "inputs",
  )
  return new Map(
    grant.inputs.map(({ artifact: name, manifest: document }) => {
      const artifact = own(policy.artifacts, name)
      const owner = artifact === undefined ? undefined : own(policy.stakeholders, artifact.owner)
      if (artifact === undefined || owner === undefined) throw new AgentError("wrong-policy", "the policy does not say whose it is", { path: name })
      const signed = parseShape(signedManifestSchema, document, `inputs.${name}`)
      try {
        const manifest = verifyManifest(signed, { digest: artifact.manifest, owners: owner.keys })
        if (manifest.kind !== artifact.kind)
          throw new AgentError("wrong-manifest", `found kind ${manifest.kind}, expected ${artifact.kind}`, { path: name })
      } catch (cause) {
        if (cause instanceof AgentError || !(cause instanceof PerunError)) throw cause
        throw new AgentError("wrong-manifest", cause.message, { path: name, cause })
      }
      return [name, signed]
    }),
  )
}

/** The manager that this machine verified is one that the stakeholders' policy names: outputs are sealed to its key. */
function demandPolicyManager(policy: Policy, manager: KnownManager): void {
  try {
    demandManagerOf(policy.manager, manager)
  } catch (cause) {
    if (!(cause instanceof PerunError)) throw cause
    throw new AgentError("wrong-manager", cause.message, { cause })
  }
}

/** A manager that asked for less than the stakeholders demand has not judged this machine as they want it. */
export function demandPieces(policy: Policy, { machine: name }: Job, challenge: Challenge): void {
  const machine = own(policy.machines, name)
  if (machine === undefined) throw new AgentError("wrong-policy", "the policy has no such machine", { path: "machine" })
  equal(challenge.pieces, demandedPieces(machine), "challenge.pieces")
}

function equal(found: string, expected: string, path: string): void {
  if (found !== expected) throw new AgentError("wrong-grant", `found ${found}, expected ${expected}`, { path })
}

/** Both lists hold the same names, none twice. */
function sameNames(found: readonly string[], expected: readonly string[], path: string): void {
  const wanted = new Set(expected)
  if (found.length !== wanted.size || new Set(found).size !== found.length || !found.every((name) => wanted.has(name)))
    throw new AgentError("wrong-grant", `found ${found.join(", ")}, expected ${expected.join(", ")}`, { path })
}
