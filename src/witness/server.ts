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
  const send = (status: number, body: string, type = "text/plain; charset=utf-8"): void => {
    response.writeHead(status, { "content-type": type, "cache-control": "no-store", ...(status === 413 ? { connection: "close" } : {}) })
    response.end(body)
  }
  try {
    if (request.url !== "/add-checkpoint") return send(404, "there is no such address\n")
    if (request.method !== "POST") return send(405, "POST /add-checkpoint\n")
    const body = await readBody(request)
    if (body === undefined) return send(413, `a request has at most ${maxRequestBytes} bytes\n`)
    const text = parseUtf8(body, "request")
    const line = addCheckpoint(state, text, Math.floor(Date.now() / 1000))
    const [, origin = "", size = ""] = /\n\n([^\n]*)\n([0-9]+)\n/.exec(text) ?? []
    heard({ event: "cosigned", origin, size: Number(size) })
    send(200, line)
  } catch (error) {
    if (response.writableEnded || response.destroyed) return
    if (error instanceof PerunError) heard({ event: "refused", code: error.code, message: error.message })
    if (error instanceof WitnessError) {
      if (error.size !== undefined) return send(statusOfWitness[error.code], `${error.size}\n`, sizeMediaType)
      return send(statusOfWitness[error.code], `${error.message}\n`)
    }
    if (error instanceof MalformedError) return send(400, `${error.message}\n`)
    // What the disk says is for the operator.
    if (!(error instanceof PerunError)) heard({ event: "refused", code: "internal", message: error instanceof Error ? error.message : "unknown" })
    send(503, "the witness cannot answer now\n")
  }
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
