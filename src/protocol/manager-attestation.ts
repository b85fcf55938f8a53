import { z } from "zod"
import { sha256 } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { decodeTeeEvidence, teeEvidenceSchema } from "../evidence/tee/format.ts"
import type { TeeEvidence } from "../evidence/tee/format.ts"
import { teeRootsFor } from "../evidence/tee/roots.ts"
import type { GenuineTee } from "../evidence/tee/verify.ts"
import { verifyTee } from "../evidence/tee/verify.ts"
import { appraiseTee } from "../policy/appraise-tee.ts"
import type { AcceptedTee } from "../policy/appraise-tee.ts"
import type { AttestedManager, ManagerRequirement } from "../policy/document.ts"
import { timeDifferences } from "../policy/manager-time.ts"
import { vaultDifferences, type ManagerVault } from "../policy/manager-vault.ts"
import { ccelQuirksOf, laboratoryRootsOf } from "../policy/tee.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { ProtocolError } from "./errors.ts"
import { verifyManagerDescription } from "./manager-description.ts"
import { signedManagerDescriptionSchema } from "./messages.ts"
import type { ManagerDescription } from "./messages.ts"

/** What a manager proves about itself, over a nonce of the asker's. */
export const managerAttestationSchema = z.strictObject({
  perun: z.literal(1),
  manager: signedManagerDescriptionSchema,
  evidence: teeEvidenceSchema,
})

export type ManagerAttestation = z.output<typeof managerAttestationSchema>

/**
 * Report data of a manager's evidence: SHA-256 over the RFC 8785 form of purpose, nonce and the whole description (role, instance, identity key, TLS key, deposit
 * key, log key, digest of the configuration), and 32 zero bytes. `nonce`: 32 bytes, lower-case hexadecimal.
 */
export function managerReportData(description: ManagerDescription, nonce: string): Uint8Array {
  return sessionReportData(sha256(canonicalJsonBytes({ purpose: "manager", version: 1, nonce, description })))
}

export interface AttestationExpectation {
  readonly accept: readonly TeeRequirement[]
  /** What this side drew for this connection. */
  readonly nonce: string
  /** SHA-256 of the SubjectPublicKeyInfo that the connection ends at. */
  readonly peerTlsKey: Digest
  /** Milliseconds since 1970. */
  readonly time: number
}

/** A manager that proved itself. */
export interface AttestedDescription {
  readonly description: ManagerDescription
  /** What its TEE proved, bound to this description and connection. */
  readonly tee: GenuineTee
  readonly accepted: AcceptedTee
}

/**
 * Verifies that the peer of a connection is a manager inside a TEE that meets one of `accept`, and that everything it says of itself, its TLS key included, was said by
 * that TEE just now.
 * @throws {EvidenceError}, {MalformedError} the evidence is not genuine, or is over something else
 * @throws {ProtocolError} `wrong-tls-key`; `wrong-manager` with what differs
 */
export function verifyManagerAttestation(
  { manager, evidence: document }: ManagerAttestation,
  { accept, nonce, peerTlsKey, time }: AttestationExpectation,
): AttestedDescription {
  // The evidence covers the key, so the description vouches for itself here.
  const description = verifyManagerDescription(manager, { managerKey: manager.description.key, peerTlsKey })
  const tee = verifyOwnTee(decodeTeeEvidence(document), accept, managerReportData(description, nonce), time)
  return { description, tee, accepted: demandAccepted(tee, accept) }
}

/** Evidence of a manager, genuine under the vendors' roots and those laboratory roots that `accept` names. @throws {EvidenceError}, {MalformedError} */
export function verifyOwnTee(evidence: TeeEvidence, accept: readonly TeeRequirement[], reportData: Uint8Array, time: number): GenuineTee {
  return verifyTee(evidence, { reportData, roots: teeRootsFor(evidence, laboratoryRootsOf(accept)), time, ccelQuirks: ccelQuirksOf(accept) })
}

/** @throws {ProtocolError} `wrong-manager` with every difference from the nearest alternative */
export function demandAccepted(tee: GenuineTee, accept: readonly TeeRequirement[]): AcceptedTee {
  const appraisal = appraiseTee(tee, accept)
  if (appraisal.outcome === "accepted") return appraisal
  const differences = appraisal.findings
    .filter(({ effect }) => effect === "refusal")
    .map(({ code, subject, found, expected }) => `${subject}: found ${found}, expected ${expected} (${code})`)
  throw new ProtocolError("wrong-manager", `the manager proved itself, but is not what is accepted: ${differences.join("; ")}`, { path: "manager" })
}

/** A manager as this side has verified it: by its evidence, or by its key alone. */
export interface KnownManager {
  readonly description: Pick<ManagerDescription, "key" | "time" | "vault">
  readonly tee?: GenuineTee
}

/**
 * Demands that a verified manager is one that a policy names; whoever holds a connection calls it before anything secret of that policy leaves.
 * @throws {ProtocolError} `wrong-manager`
 */
export function demandManagerOf(requirement: ManagerRequirement, { description, tee }: KnownManager): void {
  if ("insecureUnattested" in requirement) {
    const { key } = requirement.insecureUnattested
    if (description.key !== key)
      throw new ProtocolError("wrong-manager", `the policy names the manager ${key}, this one is ${description.key}; nothing was sent`)
    return
  }
  if (tee === undefined)
    throw new ProtocolError(
      "wrong-manager",
      "the policy demands a manager that proves itself, and this one was pinned by its key alone; nothing was sent (perun manager trust URL --policy FILE)",
    )
  demandAccepted(tee, requirement.accept)
  demandOperation(requirement, description)
}

/**
 * What a policy demands of a manager besides what its TEE measures: who checks its clock, where its vault key comes from.
 * @throws {ProtocolError} `wrong-manager` with what differs
 */
export function demandOperation(requirement: AttestedManager, description: Pick<ManagerDescription, "time" | "vault">): void {
  demandTime(requirement, description)
  demandVault(requirement, description.vault)
}

/** @throws {ProtocolError} `wrong-manager` with what differs, where a policy demands other kinds of vaults than this one */
export function demandVault({ vault: demanded }: AttestedManager, vault: ManagerVault): void {
  const differences = demanded === undefined ? [] : vaultDifferences(vault, demanded)
  if (differences.length > 0)
    throw new ProtocolError("wrong-manager", `the manager's vault key does not come from where the policy demands: ${differences.join("; ")}`, {
      path: "manager.vault",
    })
}

/** @throws {ProtocolError} `wrong-manager` with what differs, where a policy demands that the manager's clock is checked */
function demandTime({ time: demanded }: AttestedManager, { time }: Pick<ManagerDescription, "time">): void {
  const differences = demanded === undefined ? [] : timeDifferences(time, demanded)
  if (differences.length > 0)
    throw new ProtocolError("wrong-manager", `the manager's clock is not checked as the policy demands: ${differences.join("; ")}`, {
      path: "manager.time",
    })
}
