import type { TeeEvidence, TeeKind } from "../evidence/tee/format.ts"
import { encodeTeeEvidence } from "../evidence/tee/format.ts"
import type { ManagerRequirement } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { demandAccepted, managerReportData, verifyOwnTee, type ManagerAttestation } from "../protocol/manager-attestation.ts"
import { encodeHex } from "../bytes/text.ts"
import type { ManagerContext } from "./context.ts"

/** The TEE that this manager runs in. */
export interface OwnTee {
  readonly kind: TeeKind
  /** Evidence over 64 bytes of report data, with what vouches for it. @throws {UnavailableError} */
  collect(reportData: Uint8Array): Promise<TeeEvidence>
}

/** Quotes that may be waited for at once; the device makes one after the other. */
const maxWaiting = 64
const waiting = new WeakMap<OwnTee, number>()

/**
 * Evidence over the asker's nonce that covers the whole description.
 * @throws {ProtocolError} `not-found` for a manager without evidence, `too-many-requests`; {UnavailableError} the device does not answer
 */
export async function attestManager(context: ManagerContext, nonce: string, address: string | undefined): Promise<ManagerAttestation> {
  const { ownTee, signedDescription } = context
  if (ownTee === undefined) throw new ProtocolError("not-found", "this manager has no evidence of itself: UNATTESTED MANAGER")
  context.budgets.attestations.spend(address)
  const evidence = await oneOfFew(ownTee, () => ownTee.collect(managerReportData(signedDescription.description, nonce)))
  return { perun: 1, manager: signedDescription, evidence: encodeTeeEvidence(evidence) }
}

async function oneOfFew<T>(tee: OwnTee, work: () => Promise<T>): Promise<T> {
  const count = waiting.get(tee) ?? 0
  if (count >= maxWaiting) throw new ProtocolError("too-many-requests", "too many wait for evidence of this manager")
  waiting.set(tee, count + 1)
  try {
    return await work()
  } finally {
    waiting.set(tee, (waiting.get(tee) ?? 1) - 1)
  }
}

/**
 * Tells the proposer of a policy at once when this manager is none of those that it accepts; otherwise every client would find out by itself.
 * @throws {ProtocolError} `wrong-manager` with what differs; {EvidenceError}, {UnavailableError}
 */
export async function demandOwnTee(context: ManagerContext, requirement: ManagerRequirement): Promise<void> {
  const { ownTee, description } = context
  if (!("accept" in requirement) || ownTee === undefined) return
  const reportData = managerReportData(description, encodeHex(context.randomBytes(32)))
  const evidence = await oneOfFew(ownTee, () => ownTee.collect(reportData))
  demandAccepted(verifyOwnTee(evidence, requirement.accept, reportData, context.time.now().getTime()), requirement.accept)
}
