import { once } from "node:events"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { MalformedError, PerunError } from "../bytes/error.ts"
import { listenOn } from "../bytes/listen.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { maxNoteBytes } from "../log/note.ts"
import { sizeMediaType, statusOfWitness, WitnessError } from "./errors.ts"
import type { WitnessState } from "./state.ts"
import { addCheckpoint } from "./witness.ts"

/** A note, a proof of 63 hashes in base64, and a line. */
const maxRequestBytes = maxNoteBytes + 4096
const requestMilliseconds = 10_000

export interface ServedWitness extends AsyncDisposable {
  /** `http://host:port` */
  readonly url: string
}

/** What the witness did, for its operator: an origin with the size that was cosigned, or why it was not. */
export type WitnessEvent =
  | { readonly event: "cosigned"; readonly origin: string; readonly size: number }
  | { readonly event: "refused"; readonly code: string; readonly message: string }

/**
 * Serves a witness (C2SP tlog-witness) over HTTP until it is disposed. Everything it takes and gives is signed and public; TLS, where one wants it, is a reverse proxy's.
 * @throws {UnavailableError} `port-in-use`, `permission-denied`, `unavailable`
 */
export async function serveWitness(
  state: WitnessState,
  address: { readonly host: string; readonly port: number },
  heard: (event: WitnessEvent) => void,
): Promise<ServedWitness> {
  const server = createServer({ requestTimeout: requestMilliseconds, headersTimeout: requestMilliseconds }, (request, response) => {
    void answer(state, request, response, heard)
  })
  server.maxConnections = 1024
  await listenOn(server, address)
  const { port } = server.address() as AddressInfo
  const host = address.host.includes(":") ? `[${address.host}]` : address.host
  return { url: `http://${host}:${port}`, [Symbol.asyncDispose]: async () => close(server) }
}

async function answer(state: WitnessState, request: IncomingMessage, response: ServerResponse, heard: (event: WitnessEvent) => void): Promise<void> {
  const { status, body, mediaType } = await answerOf()
  if (response.destroyed) return
  response.writeHead(status, { "content-type": mediaType, "cache-control": "no-store", ...(status === 413 ? { connection: "close" } : {}) })
  response.end(body)

  async function answerOf(): Promise<WitnessAnswer> {
    if (request.url !== "/add-checkpoint") return plain(404, "there is no such address")
    if (request.method !== "POST") return plain(405, "POST /add-checkpoint")
    const received = await readBody(request).catch(() => undefined)
    if (received === undefined) return plain(413, `a request has at most ${maxRequestBytes} bytes`)
    return respond(state, received, Math.floor(Date.now() / 1000), heard)
  }
}

export interface WitnessAnswer {
  readonly status: number
  readonly mediaType: string
  readonly body: string
}

/** The answer to a request's body, as the specification has it; whatever happens there is one. */
export function respond(state: WitnessState, body: Uint8Array, nowSeconds: number, heard: (event: WitnessEvent) => void): WitnessAnswer {
  try {
    const { origin, size, line } = addCheckpoint(state, parseUtf8(body, "request"), nowSeconds)
    heard({ event: "cosigned", origin, size })
    return { status: 200, mediaType: textType, body: line }
  } catch (error) {
    const [code, message] =
      error instanceof PerunError ? [error.code, error.message] : ["internal", error instanceof Error ? error.message : "unknown"]
    heard({ event: "refused", code, message })
    if (error instanceof WitnessError && error.size !== undefined)
      return { status: statusOfWitness[error.code], mediaType: sizeMediaType, body: `${error.size}\n` }
    if (error instanceof WitnessError) return plain(statusOfWitness[error.code], error.message)
    if (error instanceof MalformedError) return plain(400, error.message)
    // What the disk says is for the operator.
    return plain(503, "the witness cannot answer now")
  }
}

const textType = "text/plain; charset=utf-8"

function plain(status: number, message: string): WitnessAnswer {
  return { status, mediaType: textType, body: `${message}\n` }
}

/** Undefined for a body that is too large. */
async function readBody(request: IncomingMessage): Promise<Uint8Array | undefined> {
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of request as AsyncIterable<Uint8Array>) {
    bytes += part.length
    if (bytes > maxRequestBytes) return undefined
    parts.push(part)
  }
  return Buffer.concat(parts)
}

async function close(server: Server): Promise<void> {
  const closed = once(server, "close")
  server.close()
  server.closeAllConnections()
  await closed
}
