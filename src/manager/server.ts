import { constants, createPrivateKey } from "node:crypto"
import { createServer } from "node:https"
import type { AddressInfo } from "node:net"
import { TLSSocket, type SecureContextOptions } from "node:tls"
import { getRequestListener } from "@hono/node-server"
import type { Digest } from "../bytes/digest.ts"
import { UnavailableError } from "../bytes/error.ts"
import { listenOn } from "../bytes/listen.ts"
import type { ManagerDescription } from "../protocol/messages.ts"
import { certificatePem, peerTlsKey } from "../protocol/tls.ts"
import { CertificateKeeper } from "./certificate-keeper.ts"
import { openManager, type ManagerWorld, type OpenedManager } from "./state.ts"
import type { VaultKind } from "./vault.ts"

export interface ServeOptions extends ManagerWorld {
  /** Folder that `initManager` made. */
  readonly folder: string
  /** Address to listen on, e.g. `127.0.0.1`. */
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
}

export interface RunningManager extends AsyncDisposable {
  /** Where it listens, `https://host:port`. */
  readonly url: string
  readonly description: ManagerDescription
  readonly vault: VaultKind
  readonly laboratoryRoots: readonly string[]
  /** Number of members as the manager starts. */
  readonly members: number
  /** Why nothing is granted as the manager starts; undefined where its clock is borne out, or nobody checks it. */
  readonly timeProblem: string | undefined
  /** Stops taking calls, ends the open ones and closes the store. */
  stop(): Promise<void>
}

/** Ends of leases are seen at this grain. */
const tickMilliseconds = 1000
/** Large blobs over slow lines; a silent connection ends sooner. */
const requestMilliseconds = 3_600_000
const idleMilliseconds = 65_000
/** A session header with a hardware key's signature, and room. */
const maxHeaderBytes = 32_768

/**
 * Starts a manager: TLS 1.3 only, every client asked for a certificate. Resolves once it listens.
 * @throws {UnavailableError} `port-in-use`, `permission-denied`, `unavailable`; and what `openManager` throws
 */
export async function serveManager(options: ServeOptions): Promise<RunningManager> {
  const opened = await openManager(options.folder, options)
  try {
    return await listen(opened, options)
  } catch (error) {
    opened[Symbol.dispose]()
    throw error
  }
}

async function listen(opened: OpenedManager, options: ServeOptions): Promise<RunningManager> {
  const { manager, tls } = opened
  await manager.checkTime()
  const timeProblem = manager.timeProblem()
  const tlsKey = createPrivateKey(tls.privateKeyPem)
  const keeper = new CertificateKeeper(
    async () => manager.certify(tlsKey),
    (line) => console.error(line),
  )
  const first = await keeper.renew()
  const secureContext = (certificate: Uint8Array | undefined): SecureContextOptions => ({
    key: tls.privateKeyPem,
    cert: certificate === undefined ? tls.certificatePem : certificatePem(certificate),
    minVersion: "TLSv1.3",
    // A resumed connection would not show the client's certificate again.
    secureOptions: constants.SSL_OP_NO_TICKET,
  })
  const server = createServer(
    {
      ...secureContext(first),
      requestCert: true,
      // Client certificates are self-signed envelopes; the key in them is judged by every route.
      rejectUnauthorized: false,
      maxHeaderSize: maxHeaderBytes,
      requestTimeout: requestMilliseconds,
      keepAliveTimeout: idleMilliseconds,
    },
    getRequestListener((request, env) => {
      const { socket } = env.incoming
      return manager.app.fetch(request, { peerTlsKey: socket instanceof TLSSocket ? keyOf(socket) : undefined, peerAddress: socket.remoteAddress })
    }),
  )
  await listenOn(server, options)
  const timer = setInterval(() => {
    tick(opened)
    void manager.checkTime()
    void keeper.tick((certificate) => server.setSecureContext(secureContext(certificate)))
  }, tickMilliseconds)
  const { port } = server.address() as AddressInfo
  const stop = async (): Promise<void> => {
    clearInterval(timer)
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    server.closeAllConnections()
    await closed
    opened[Symbol.dispose]()
  }
  const host = options.host.includes(":") ? `[${options.host}]` : options.host
  return {
    url: `https://${host}:${port}`,
    description: manager.description,
    vault: opened.vault,
    laboratoryRoots: opened.laboratoryRoots,
    members: opened.members.size,
    timeProblem,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

/** A disk that is full for a while must not end the manager; what reads a lease judges its time by itself. */
function tick({ manager, members }: OpenedManager): void {
  // So that the operator hears of a broken file when it was saved, not when somebody calls.
  members.refresh()
  try {
    manager.tick()
  } catch (error) {
    if (!(error instanceof UnavailableError)) throw error
    console.error(`leases cannot be ended in the store: ${error.message}`)
  }
}

const keysBySocket = new WeakMap<TLSSocket, { readonly key: Digest | undefined }>()

/** The peer's key does not change during a connection; hashing it once is enough. */
function keyOf(socket: TLSSocket): Digest | undefined {
  const known = keysBySocket.get(socket)
  if (known !== undefined) return known.key
  const key = peerTlsKey(socket)
  keysBySocket.set(socket, { key })
  return key
}
