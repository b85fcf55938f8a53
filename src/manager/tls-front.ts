import { constants } from "node:crypto"
import { once, type EventEmitter } from "node:events"
import { createServer, type Server } from "node:https"
import type { AddressInfo } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { TLSSocket, type SecureContextOptions } from "node:tls"
import { getRequestListener } from "@hono/node-server"
import type { Digest } from "../bytes/digest.ts"
import { listenOn } from "../bytes/listen.ts"
import { peerTlsKey, spkiDigest, type TlsIdentity } from "../protocol/tls.ts"
import type { PeerBindings } from "./api.ts"

/** What answers behind a TLS key. */
export interface Face {
  readonly tls: TlsIdentity
  readonly fetch: (request: Request, peer: PeerBindings) => Response | Promise<Response>
}

/** Large blobs over slow lines; a silent connection ends sooner. */
const requestMilliseconds = 3_600_000
const idleMilliseconds = 65_000
/** A session header with a hardware key's signature, and room. */
const maxHeaderBytes = 32_768
/** Answers on connections to the face before are sent off within this. */
const farewellMilliseconds = 1000

/**
 * A TLS 1.3 server that asks every client for a certificate and may change its face while it listens: another key, another application. What comes over a connection is
 * answered by the face whose key that connection ends at, never by another.
 */
export class TlsFront implements AsyncDisposable {
  /** Where it listens, `https://host:port`. */
  readonly url: string
  readonly #server: Server
  readonly #faces: Map<Digest, Face>
  readonly #unanswered: Unanswered
  #face: Face
  /** When the face before has given its answers, or has had its time. */
  #farewell: Promise<unknown> = Promise.resolve()

  private constructor(server: Server, faces: Map<Digest, Face>, unanswered: Unanswered, face: Face, host: string) {
    this.#server = server
    this.#faces = faces
    this.#unanswered = unanswered
    this.#face = face
    const { port } = server.address() as AddressInfo
    this.url = `https://${host.includes(":") ? `[${host}]` : host}:${port}`
  }

  /** Resolves once it listens. @throws {UnavailableError} `port-in-use`, `permission-denied`, `unavailable` */
  static async listen(face: Face, certificatePem: string, address: { readonly host: string; readonly port: number }): Promise<TlsFront> {
    const faces = new Map([[face.tls.tlsKey, face]])
    const unanswered: Unanswered = new Set()
    const server = createServer(
      {
        ...secureContext(face, certificatePem),
        requestCert: true,
        // Client certificates are self-signed envelopes; the key in them is judged by every route.
        rejectUnauthorized: false,
        maxHeaderSize: maxHeaderBytes,
        requestTimeout: requestMilliseconds,
        keepAliveTimeout: idleMilliseconds,
      },
      getRequestListener((request, env) => {
        const { socket } = env.incoming
        if (!(socket instanceof TLSSocket)) throw new TypeError("internal: a connection without TLS")
        const { own, peer } = keysOf(socket)
        const asked = own === undefined ? undefined : faces.get(own)
        if (asked === undefined) throw new TypeError("internal: a connection to no face")
        const { outgoing } = env
        unanswered.add(outgoing)
        outgoing.once("close", () => unanswered.delete(outgoing))
        return asked.fetch(request, { peerTlsKey: peer, peerAddress: socket.remoteAddress })
      }),
    )
    await listenOn(server, address)
    return new TlsFront(server, faces, unanswered, face, address.host)
  }

  /** Shows another certificate over the same key. */
  renewCertificate(certificatePem: string): void {
    this.#server.setSecureContext(secureContext(this.#face, certificatePem))
  }

  /** Takes another face: new connections end at its key. Connections to the face before get the answers that they wait for, and end. */
  turn(face: Face, certificatePem: string): void {
    const before = this.#face.tls.tlsKey
    this.#faces.set(face.tls.tlsKey, face)
    this.#face = face
    this.#server.setSecureContext(secureContext(face, certificatePem))
    const answered = Promise.all([...this.#unanswered].map(async (response) => once(response, "close")))
    this.#farewell = Promise.race([answered, sleep(farewellMilliseconds, undefined, { ref: false })])
    setTimeout(() => {
      this.#faces.delete(before)
      this.#server.closeIdleConnections()
    }, farewellMilliseconds).unref()
  }

  /** Takes no more calls and ends the open ones; a face before this one gets its answers off. */
  async stop(): Promise<void> {
    await this.#farewell
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

function secureContext({ tls }: Face, certificatePem: string): SecureContextOptions {
  return {
    key: tls.privateKeyPem,
    cert: certificatePem,
    minVersion: "TLSv1.3",
    // A resumed connection would not show the client's certificate again.
    secureOptions: constants.SSL_OP_NO_TICKET,
  }
}

/** Responses that are not sent off yet. */
type Unanswered = Set<EventEmitter>

interface ConnectionKeys {
  /** The key that this side showed. */
  readonly own: Digest | undefined
  readonly peer: Digest | undefined
}

const keysBySocket = new WeakMap<TLSSocket, ConnectionKeys>()

/** The keys of a connection do not change; hashing them once is enough. */
function keysOf(socket: TLSSocket): ConnectionKeys {
  const known = keysBySocket.get(socket)
  if (known !== undefined) return known
  const own = socket.getX509Certificate()
  const keys = { own: own === undefined ? undefined : spkiDigest(own.publicKey), peer: peerTlsKey(socket) }
  keysBySocket.set(socket, keys)
  return keys
}
