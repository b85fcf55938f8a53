import type { KeyObject } from "node:crypto"
import { readFileBounded } from "../bytes/durable.ts"
import { collectTee, type TeeDevices, type TeeSource } from "../evidence/tee/collectors/collect.ts"
import type { TeeEvidence, TeeKind } from "../evidence/tee/format.ts"
import { encodeTeeEvidence, hardwareOf } from "../evidence/tee/format.ts"
import { maxTeeEvidenceBytes } from "../evidence/tee/hardware.ts"
import { parseVouchers, supplementedBy } from "../evidence/tee/vouchers.ts"
import type { ManagerRequirement } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { demandAccepted, demandOperation, managerReportData, verifyOwnTee, type ManagerAttestation } from "../protocol/manager-attestation.ts"
import { certificateReportData, encodeManagerCertificate, type CertificateTimes } from "../protocol/manager-certificate.ts"
import { encodeHex } from "../bytes/text.ts"
import type { ManagerContext } from "./context.ts"
import { networkOf } from "./network-budget.ts"

/** The TEE that this manager runs in. */
export interface OwnTee {
  readonly kind: TeeKind
  /** Evidence over 64 bytes of report data, with what vouches for it. @throws {UnavailableError} */
  collect(reportData: Uint8Array): Promise<TeeEvidence>
}

/**
 * The TEE that answers at `source`, asked once, so that a missing device or file is heard of now. `collateralFile`: what the processor's maker says of the platform, read again
 * for every proof; sent along unjudged, for whoever asks judges it. `devices`: the machine's own, or a laboratory's.
 * @throws as collectTee; {MalformedError} a file of another maker or form; {UnavailableError} no such file
 */
export async function openOwnTee(source: TeeSource, collateralFile: string | undefined, devices?: TeeDevices): Promise<OwnTee> {
  const collect = async (reportData: Uint8Array): Promise<TeeEvidence> => {
    const evidence = await collectTee(source, reportData, devices)
    if (collateralFile === undefined) return evidence
    return supplementedBy(evidence, parseVouchers(hardwareOf(evidence).kind, await readFileBounded(collateralFile, maxTeeEvidenceBytes)))
  }
  const { kind } = await collect(new Uint8Array(64))
  return { kind, collect }
}

/** Quotes that may be waited for at once, and of them by one network, so that none keeps the device from the others; it makes one after the other. */
const maxWaiting = { all: 64, network: 16 } as const
const waiting = new WeakMap<OwnTee, string[]>()

/**
 * Evidence over the asker's nonce that covers the whole description.
 * @throws {ProtocolError} `not-found` for a manager without evidence, `too-many-requests`; {UnavailableError} the device does not answer
 */
export async function attestManager(context: ManagerContext, nonce: string, address: string | undefined): Promise<ManagerAttestation> {
  const { ownTee, signedDescription } = context
  if (ownTee === undefined) throw new ProtocolError("not-found", "this manager has no evidence of itself: UNATTESTED MANAGER")
  context.budgets.attestations.spend(address)
  const evidence = await collectFairly(ownTee, address, managerReportData(signedDescription.description, nonce))
  return { perun: 1, manager: signedDescription, evidence: encodeTeeEvidence(evidence) }
}

/** A certificate (DER) that offers this manager's proof, and when it ends. */
export interface OwnCertificate extends CertificateTimes {
  readonly der: Uint8Array
}

/** Life of a certificate, in milliseconds: who got hold of the TLS key passes for this manager no longer than that, where the nonce is not asked for. */
const certificateMilliseconds = 3_600_000
/** For readers whose clock is behind. */
const earlierMilliseconds = 300_000

/**
 * A fresh certificate over the TLS key; undefined for a manager without a TEE.
 * @throws {UnavailableError} the device does not answer; {EvidenceError} `unsupported` for evidence that no handshake takes
 */
export async function certifyManager(context: ManagerContext, tlsPrivateKey: KeyObject): Promise<OwnCertificate | undefined> {
  const { ownTee, signedDescription } = context
  if (ownTee === undefined) return undefined
  const now = Math.floor(context.time.now().getTime() / 1000) * 1000
  const times = { notBefore: now - earlierMilliseconds, notAfter: now + certificateMilliseconds }
  const evidence = await oneOfFew(ownTee, "certificate", () => ownTee.collect(certificateReportData(signedDescription.description, times)))
  return { der: encodeManagerCertificate(tlsPrivateKey, { manager: signedDescription, evidence, ...times }), ...times }
}

/** Evidence for somebody at this address, as one of few who wait. @throws {ProtocolError} `too-many-requests`; {UnavailableError} */
export async function collectFairly(ownTee: OwnTee, address: string | undefined, reportData: Uint8Array): Promise<TeeEvidence> {
  return oneOfFew(ownTee, networkOf(address), () => ownTee.collect(reportData))
}

async function oneOfFew<T>(tee: OwnTee, network: string, work: () => Promise<T>): Promise<T> {
  const places = waiting.get(tee) ?? []
  waiting.set(tee, places)
  if (places.length >= maxWaiting.all || places.filter((other) => other === network).length >= maxWaiting.network)
    throw new ProtocolError("too-many-requests", "too many wait for evidence of this manager")
  places.push(network)
  try {
    return await work()
  } finally {
    places.splice(places.indexOf(network), 1)
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
  const evidence = await oneOfFew(ownTee, "proposer", () => ownTee.collect(reportData))
  demandAccepted(verifyOwnTee(evidence, requirement.accept, reportData, context.time.now().getTime()), requirement.accept)
  demandOperation(requirement, description)
}
