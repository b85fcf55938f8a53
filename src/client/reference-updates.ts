import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { verifyStatement } from "../pki/statement.ts"
import { stakeholderOfKey } from "../policy/approval.ts"
import { parsePolicyValue, policyDigest, type Policy } from "../policy/document.ts"
import { parseReferenceValue, type Reference } from "../policy/reference.ts"
import { beyondScope, type ReferencePiece, referencePlace, updateDigest } from "../policy/reference-updates.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { PolicyView, ReferenceUpdateView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import type { ManagerConnection } from "./connection.ts"

/**
 * Updates of references out of a manager's answer about a policy: each proved by the key of the delegate whom that policy names for its place, so that a manager cannot make one up.
 * @throws {ProtocolError} `wrong-digest`, `not-permitted`; {PkiError} for a signature that does not verify
 */
export function updatesOfPolicy(view: Pick<PolicyView, "policy" | "referenceUpdates">, digest: Digest): readonly ReferenceUpdateView[] {
  const policy = demandPolicy(view, digest)
  for (const update of view.referenceUpdates) {
    const { machine, piece, replaces, reference, signature } = update
    const named = updateDigest({ policy: digest, machine, piece, replaces, reference })
    if (named !== update.update) throw new ProtocolError("wrong-digest", `the manager calls the update ${named} ${update.update}`)
    const by = stakeholderOfKey(policy, verifyStatement("reference", named, signature))
    if (by === undefined || by !== update.by || by !== referencePlace(policy, machine, piece)?.updates?.by)
      throw new ProtocolError("not-permitted", `the update ${named} of ${machine} is signed by ${by ?? "nobody of the policy"}, who may not`)
    if (update.withdrawn !== undefined) verifyStatement("withdraw", named, update.withdrawn.signature)
  }
  return view.referenceUpdates
}

function demandPolicy(view: Pick<PolicyView, "policy">, digest: Digest): Policy {
  const policy = parsePolicyValue(view.policy)
  const found = policyDigest(policy)
  if (found !== digest) throw new ProtocolError("wrong-digest", `the manager sent the policy ${found} instead of ${digest}`)
  return policy
}

/** What a delegate is about to sign. */
export interface ProposedUpdate {
  readonly piece: ReferencePiece
  readonly replaces: Digest
  /** The document that stands there now. */
  readonly before: Reference
  readonly update: Digest
}

/**
 * Looks up what stands at a place and whether the caller may put this document there.
 * @throws {ProtocolError} `not-found`, `not-permitted`, `wrong-digest`; {ProblemError} what the manager answers
 */
export async function proposeUpdate(
  connection: ManagerConnection,
  { policy: digest, machine, reference }: { readonly policy: Digest; readonly machine: string; readonly reference: Reference },
): Promise<ProposedUpdate> {
  const view = await connection.call(routes.getPolicy, { params: { digest } })
  const policy = demandPolicy(view, digest)
  const piece = reference.kind
  const place = referencePlace(policy, machine, piece)
  if (place === undefined) throw new ProtocolError("not-found", `the policy has no ${piece} reference of a machine ${machine}`)
  const { updates } = place
  if (updates === undefined)
    throw new ProtocolError("not-permitted", `nobody may update the ${piece} reference of ${machine}; sign a successor policy`)
  const caller = stakeholderOfKey(policy, connection.ownKey)
  if (caller !== updates.by)
    throw new ProtocolError("not-permitted", `only ${updates.by} may update the ${piece} reference of ${machine}; you are ${caller ?? "no party"}`)
  const standing = view.acceptedReferences.find((one) => one.machine === machine && one.piece === piece)
  const replaces = standing?.references[0] ?? place.reference
  const before = await fetchReference(connection, digest, replaces)
  const beyond = beyondScope(before, reference, updates)
  if (beyond.length > 0) throw new ProtocolError("not-permitted", `the update changes more than was delegated: ${beyond.slice(0, 8).join(", ")}`)
  const update = updateDigest({ policy: digest, machine, piece, replaces, reference: digestOfJson(reference) })
  return { piece, replaces, before, update }
}

/** A reference that a policy or an update of it names. @throws {ProtocolError} `wrong-digest`; {PolicyError}; {ProblemError} */
export async function fetchReference(connection: ManagerConnection, digest: Digest, reference: Digest): Promise<Reference> {
  const document = await connection.call(routes.getReference, { params: { digest, reference } })
  const parsed = parseReferenceValue(document)
  const found = digestOfJson(parsed)
  if (found !== reference) throw new ProtocolError("wrong-digest", `the manager sent the reference ${found} instead of ${reference}`)
  return parsed
}
