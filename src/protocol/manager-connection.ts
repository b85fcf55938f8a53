import { randomBytes, type KeyObject } from "node:crypto"
import type { Digest } from "../bytes/digest.ts"
import { encodeHex } from "../bytes/text.ts"
import type { AcceptedTee } from "../policy/appraise-tee.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { ProtocolError } from "./errors.ts"
import { Transport } from "./http-client.ts"
import { verifyManagerAttestation, type KnownManager } from "./manager-attestation.ts"
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
  let seen: Digest | undefined
  const { now, timeoutMilliseconds, signal } = options
  using transport = new Transport({
    url,
    identity,
    checkPeer: (tlsKey) => {
      if (seen !== undefined && seen !== tlsKey) throw new ProtocolError("wrong-tls-key", "the peer changed its TLS key between connections")
      seen = tlsKey
    },
    ...(timeoutMilliseconds === undefined ? {} : { timeoutMilliseconds }),
  })
  const call = signal === undefined ? {} : { signal }
  const { key, accept } = trust
  if (accept === undefined) {
    if (key === undefined) throw new TypeError("a manager is known by its key, by its proof, or by both")
    const signed = await transport.call(routes.describeManager, call)
    return { url, description: verifyManagerDescription(signed, { managerKey: key, peerTlsKey: seenKey(seen) }) }
  }
  const nonce = encodeHex(new Uint8Array(randomBytes(32)))
  const attestation = await transport.call(routes.attestManager, { ...call, query: { nonce } })
  const verified = verifyManagerAttestation(attestation, { accept, nonce, peerTlsKey: seenKey(seen), time: now.getTime() })
  const { description } = verified
  if (key !== undefined && description.key !== key)
    throw new ProtocolError(
      "wrong-manager",
      `found key ${description.key}, expected ${key}: it is genuine, but another instance (${description.instance})`,
      {
        path: "description.key",
      },
    )
  return { url, ...verified }
}

function seenKey(seen: Digest | undefined): Digest {
  if (seen === undefined) throw new TypeError("internal: an answer came without a connection")
  return seen
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
