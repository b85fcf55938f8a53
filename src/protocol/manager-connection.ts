import { randomBytes, type KeyObject } from "node:crypto"
import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { encodeHex } from "../bytes/text.ts"
import { decodeTeeEvidence, hardwareOf, withHardware, type TeeEvidence } from "../evidence/tee/format.ts"
import type { AcceptedTee } from "../policy/appraise-tee.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { ProtocolError } from "./errors.ts"
import { fetchPeerCertificate, Transport } from "./http-client.ts"
import { verifyManagerAttestation, type AttestedDescription, type KnownManager } from "./manager-attestation.ts"
import { verifyManagerCertificate, type CertifiedDescription } from "./manager-certificate.ts"
import { verifyManagerDescription } from "./manager-description.ts"
import type { ManagerDescription } from "./messages.ts"
import { routes } from "./routes.ts"
import { makeSessionHeader, sessionHeader } from "./session.ts"
import { createTlsIdentity, type TlsIdentity } from "./tls.ts"

/** How a manager is known beforehand: by its key, by what its TEE must prove, or by both. With `accept` it must prove itself; without, its key alone counts. */
export type ManagerTrust =
  { readonly key: string; readonly accept?: readonly TeeRequirement[] } | { readonly key?: string; readonly accept: readonly TeeRequirement[] }

/** A manager that was verified, with the pin for every further connection. */
export interface VerifiedManager extends KnownManager {
  readonly url: URL
  readonly description: ManagerDescription
  /** What was accepted; undefined for a manager that is known by its key alone: UNATTESTED MANAGER. */
  readonly accepted?: AcceptedTee
}

export interface VerifyOptions {
  /** This side's time, for certificates and collateral. */
  readonly now: Date
  readonly timeoutMilliseconds?: number
  readonly signal?: AbortSignal
}

/**
 * Asks a manager who it is, over a connection that carries nothing else, and verifies the answer by what is known beforehand. Nothing that matters is sent
 * before this has returned.
 * @throws {ProtocolError} `wrong-manager`, `wrong-tls-key`; {EvidenceError}, {MalformedError} its evidence is not genuine; UnavailableError
 */
export async function verifyManager(url: URL, trust: ManagerTrust, identity: TlsIdentity, options: VerifyOptions): Promise<VerifiedManager> {
  const { key, accept } = trust
  if (accept === undefined) {
    if (key === undefined) throw new TypeError("a manager is known by its key, by its proof, or by both")
    return askOnce(url, identity, options, async (transport, call, peerTlsKey) => {
      const signed = await transport.call(routes.describeManager, call)
      return { url, description: verifyManagerDescription(signed, { managerKey: key, peerTlsKey: peerTlsKey() }) }
    })
  }
  const { attested } = await askForProof(url, accept, identity, options)
  const { description } = attested
  if (key !== undefined && description.key !== key)
    throw new ProtocolError(
      "wrong-manager",
      `found key ${description.key}, expected ${key}: it is genuine, but another instance (${description.instance})`,
      {
        path: "description.key",
      },
    )
  return { url, ...attested }
}

/** A manager that the certificate of its TLS handshake vouches for. */
export interface CertifiedManager extends CertifiedDescription {
  readonly url: URL
  /** Whether it proved the same over a nonce of ours besides. */
  readonly isFresh: boolean
}

/**
 * Verifies a manager by the certificate that a TLS handshake with it ends at (RA-TLS). With `supplement`, which puts to its evidence what vouches for it, that is all, and not a byte
 * is sent. Without, the manager is asked for its proof over a fresh nonce, which is verified too, and what came with that vouches for the certificate's evidence.
 * @throws as verifyManagerCertificate, and verifyManager; {ProtocolError} `contradicting` when both are genuine and say different things
 */
export async function verifyManagerByCertificate(
  url: URL,
  accept: readonly TeeRequirement[],
  identity: TlsIdentity,
  options: VerifyOptions & { readonly supplement?: (evidence: TeeEvidence) => TeeEvidence },
): Promise<CertifiedManager> {
  const { now, supplement } = options
  const der = await fetchPeerCertificate({ url, identity, ...options })
  const expectation = { accept, time: now.getTime() }
  if (supplement !== undefined) return { url, isFresh: false, ...verifyManagerCertificate(der, { ...expectation, supplement }) }
  const { attested, evidence: answered } = await askForProof(url, accept, identity, options)
  const certified = verifyManagerCertificate(der, { ...expectation, supplement: (evidence) => supplementedByAnswer(evidence, answered) })
  if (digestOfJson(certified.description) !== digestOfJson(attested.description))
    throw new ProtocolError("contradicting", "the certificate and the answer over the nonce describe different managers")
  return { url, isFresh: true, ...certified }
}

/** Evidence with everything but the quote or report from another answer of the same TEE; each is verified against this quote or report. */
function supplementedByAnswer(evidence: TeeEvidence, answered: TeeEvidence): TeeEvidence {
  if (evidence.kind !== answered.kind)
    throw new ProtocolError("contradicting", `the certificate is of ${evidence.kind}, the answer of ${answered.kind}`)
  if (evidence.kind !== "azure-vtpm") return { ...answered, ...evidence }
  return withHardware(evidence, { ...hardwareOf(answered), ...evidence.hardware })
}

/** Asks for the proof over a fresh nonce and verifies it; a connection that carries nothing else. */
async function askForProof(
  url: URL,
  accept: readonly TeeRequirement[],
  identity: TlsIdentity,
  options: VerifyOptions,
): Promise<{ readonly attested: AttestedDescription; readonly evidence: TeeEvidence }> {
  const nonce = encodeHex(new Uint8Array(randomBytes(32)))
  return askOnce(url, identity, options, async (transport, call, peerTlsKey) => {
    const attestation = await transport.call(routes.attestManager, { ...call, query: { nonce } })
    const attested = verifyManagerAttestation(attestation, { accept, nonce, peerTlsKey: peerTlsKey(), time: options.now.getTime() })
    return { attested, evidence: decodeTeeEvidence(attestation.evidence) }
  })
}

/** One question over a connection of its own, with the TLS key that it ended at. */
export async function askOnce<T>(
  url: URL,
  identity: TlsIdentity,
  { timeoutMilliseconds, signal }: VerifyOptions,
  question: (transport: Transport, call: { readonly signal?: AbortSignal }, peerTlsKey: () => Digest) => Promise<T>,
): Promise<T> {
  let seen: Digest | undefined
  using transport = new Transport({
    url,
    identity,
    checkPeer: (tlsKey) => {
      if (seen !== undefined && seen !== tlsKey) throw new ProtocolError("wrong-tls-key", "the peer changed its TLS key between connections")
      seen = tlsKey
    },
    ...(timeoutMilliseconds === undefined ? {} : { timeoutMilliseconds }),
  })
  return await question(transport, signal === undefined ? {} : { signal }, () => seenKey(seen))
}

function seenKey(seen: Digest | undefined): Digest {
  if (seen === undefined) throw new TypeError("internal: an answer came without a connection")
  return seen
}

/** A transport on which every connection must end at this TLS key. */
export function connectToKey(url: URL, expected: Digest, identity: TlsIdentity): Transport {
  return new Transport({
    url,
    identity,
    checkPeer: (tlsKey) => {
      if (tlsKey !== expected) throw new ProtocolError("wrong-tls-key", `found ${tlsKey}, expected ${expected}`)
    },
  })
}

/** A transport on which every connection must end at the verified manager's TLS key. */
export function connectVerified(
  manager: VerifiedManager,
  identity: TlsIdentity,
  options: { readonly headers?: Readonly<Record<string, string>>; readonly timeoutMilliseconds?: number } = {},
): Transport {
  const expected = manager.description.tlsKey
  return new Transport({
    url: manager.url,
    identity,
    checkPeer: (tlsKey) => {
      if (tlsKey !== expected) throw new ProtocolError("wrong-tls-key", `found ${tlsKey}, expected ${expected}`)
    },
    ...options,
  })
}

/** How long a session statement lasts. The TLS key that it names lives only in the process that made it. */
const sessionMilliseconds = 12 * 3_600_000

/**
 * Connects as a stakeholder: the manager proves itself, then a fresh TLS key speaks for the identity by a signed statement.
 * @throws as verifyManager
 */
export async function connectAsStakeholder(
  url: URL,
  trust: ManagerTrust,
  identityKey: KeyObject,
  options: VerifyOptions,
): Promise<{ readonly manager: VerifiedManager; readonly transport: Transport }> {
  const tls = createTlsIdentity("perun client")
  const manager = await verifyManager(url, trust, tls, options)
  const statement = {
    perun: 1,
    manager: manager.description.instance,
    tlsKey: tls.tlsKey,
    notAfter: new Date(options.now.getTime() + sessionMilliseconds).toISOString(),
  } as const
  const headers = { [sessionHeader]: makeSessionHeader(statement, identityKey) }
  const { timeoutMilliseconds } = options
  return { manager, transport: connectVerified(manager, tls, { headers, ...(timeoutMilliseconds === undefined ? {} : { timeoutMilliseconds }) }) }
}
