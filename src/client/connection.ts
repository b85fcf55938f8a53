import { randomInt, type KeyObject } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { withRetry, type Transport } from "../protocol/http-client.ts"
import { connectAsStakeholder, type ManagerTrust, type VerifiedManager } from "../protocol/manager-connection.ts"
import type { ManagerDescription } from "../protocol/messages.ts"
import type { PathValues, RequestBody, RequestQuery, ResponseBody, Route } from "../protocol/routes.ts"

/** Where a manager is, and how it is known: by what its TEE must prove, by its key (`ssh-ed25519 base64`), or both. It comes from a policy, never from the network. */
export type ManagerPin = ManagerTrust & {
  /** `https://host:port` */
  readonly url: string
}

/** The signer behind a connection; an `Identity` of client/identity.ts is one. */
export interface SessionSigner {
  readonly privateKey: KeyObject
}

const retryPauses = { attempts: 4, baseMilliseconds: 250, maxMilliseconds: 4000 } as const

/**
 * A stakeholder's connection to a manager: the manager proved its key, the own TLS key is fresh and speaks for the identity by a signed statement.
 * `Symbol.dispose` closes it.
 */
export class ManagerConnection implements Disposable {
  readonly description: ManagerDescription
  /** What is known of the manager: its description, and what its TEE proved. */
  readonly manager: VerifiedManager
  /** SSH text of the key that this connection speaks for. */
  readonly ownKey: string
  /** For blobs and event streams; calls go through `call`. */
  readonly transport: Transport

  private constructor(manager: VerifiedManager, ownKey: string, transport: Transport) {
    this.manager = manager
    this.description = manager.description
    this.ownKey = ownKey
    this.transport = transport
  }

  /**
   * @throws {ProtocolError} `wrong-manager`, `wrong-tls-key`, {EvidenceError} before anything of the caller's has been sent
   * @throws {UnavailableError} when there is no answer
   */
  static async open(pin: ManagerPin, signer: SessionSigner, options: { readonly timeoutMilliseconds?: number } = {}): Promise<ManagerConnection> {
    const { manager, transport } = await connectAsStakeholder(new URL(pin.url), pin, signer.privateKey, { now: new Date(), ...options })
    return new ManagerConnection(manager, sshPublicKeyText(signer.privateKey), transport)
  }

  [Symbol.dispose](): void {
    this.transport[Symbol.dispose]()
  }

  /**
   * Calls a route; what may be done twice is tried again after a silence.
   * @throws {ProblemError} what the manager answered; `UnavailableError`; `MalformedError`
   */
  async call<R extends Route>(
    route: R,
    options: {
      readonly params?: PathValues<R["path"]>
      readonly query?: RequestQuery<R>
      readonly body?: RequestBody<R>
      readonly signal?: AbortSignal
    } = {},
  ): Promise<ResponseBody<R>> {
    if (!route.idempotent) return this.transport.call(route, options)
    const { signal } = options
    return withRetry(() => this.transport.call(route, options), {
      ...retryPauses,
      random: () => randomInt(1_000_000) / 1_000_000,
      sleep: (milliseconds) => sleep(milliseconds, undefined, signal === undefined ? {} : { signal }),
    })
  }
}
