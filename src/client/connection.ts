import { randomInt, type KeyObject } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { withRetry, type Transport } from "../protocol/http-client.ts"
import { connectAsStakeholder } from "../protocol/manager-connection.ts"
import type { ManagerDescription } from "../protocol/messages.ts"
import type { PathValues, RequestBody, RequestQuery, ResponseBody, Route } from "../protocol/routes.ts"

/** Where a manager is and which key it must have; the key comes from a policy, never from the network. */
export interface ManagerPin {
  /** `https://host:port` */
  readonly url: string
  /** Identity key of the manager, `ssh-ed25519 base64`. */
  readonly key: string
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
  /** SSH text of the key that this connection speaks for. */
  readonly ownKey: string
  /** For blobs and event streams; calls go through `call`. */
  readonly transport: Transport

  private constructor(description: ManagerDescription, ownKey: string, transport: Transport) {
    this.description = description
    this.ownKey = ownKey
    this.transport = transport
  }

  /**
   * @throws {ProtocolError} `wrong-manager`, `wrong-tls-key` before anything of the caller's has been sent
   * @throws {UnavailableError} when there is no answer
   */
  static async open(pin: ManagerPin, signer: SessionSigner, options: { readonly timeoutMilliseconds?: number } = {}): Promise<ManagerConnection> {
    const { description, transport } = await connectAsStakeholder(new URL(pin.url), pin.key, signer.privateKey, { now: new Date(), ...options })
    return new ManagerConnection(description, sshPublicKeyText(signer.privateKey), transport)
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
