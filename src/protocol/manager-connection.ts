import type { KeyObject } from "node:crypto"
import type { Digest } from "../bytes/digest.ts"
import { ProtocolError } from "./errors.ts"
import { Transport } from "./http-client.ts"
import { verifyManagerDescription } from "./manager-description.ts"
import type { ManagerDescription } from "./messages.ts"
import { routes } from "./routes.ts"
import { makeSessionHeader, sessionHeader } from "./session.ts"
import { createTlsIdentity, type TlsIdentity } from "./tls.ts"

/** A manager whose description was verified, with the pin for every further connection. */
export interface VerifiedManager {
  readonly url: URL
  readonly description: ManagerDescription
}

/**
 * Asks a manager who it is, over a connection that carries nothing else, and verifies the answer by the pinned key. Nothing that matters is sent
 * before this has returned.
 * @throws {ProtocolError} `wrong-manager`, `wrong-tls-key`; UnavailableError
 */
export async function verifyManager(
  url: URL,
  managerKey: string,
  identity: TlsIdentity,
  options: { readonly timeoutMilliseconds?: number; readonly signal?: AbortSignal } = {},
): Promise<VerifiedManager> {
  let seen: Digest | undefined
  const { timeoutMilliseconds, signal } = options
  using transport = new Transport({
    url,
    identity,
    checkPeer: (tlsKey) => {
      if (seen !== undefined && seen !== tlsKey) throw new ProtocolError("wrong-tls-key", "the peer changed its TLS key between connections")
      seen = tlsKey
    },
    ...(timeoutMilliseconds === undefined ? {} : { timeoutMilliseconds }),
  })
  const signed = await transport.call(routes.describeManager, signal === undefined ? {} : { signal })
  if (seen === undefined) throw new TypeError("internal: an answer came without a connection")
  return { url, description: verifyManagerDescription(signed, { managerKey, peerTlsKey: seen }) }
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
 * Connects as a stakeholder: the manager proves its key, then a fresh TLS key speaks for the identity by a signed statement.
 * @throws as verifyManager
 */
export async function connectAsStakeholder(
  url: URL,
  managerKey: string,
  identityKey: KeyObject,
  options: { readonly now: Date; readonly timeoutMilliseconds?: number },
): Promise<{ readonly description: ManagerDescription; readonly transport: Transport }> {
  const { now, ...rest } = options
  const tls = createTlsIdentity("perun client")
  const manager = await verifyManager(url, managerKey, tls, rest)
  const statement = {
    perun: 1,
    manager: manager.description.instance,
    tlsKey: tls.tlsKey,
    notAfter: new Date(now.getTime() + sessionMilliseconds).toISOString(),
  } as const
  const headers = { [sessionHeader]: makeSessionHeader(statement, identityKey) }
  return { description: manager.description, transport: connectVerified(manager, tls, { ...rest, headers }) }
}
