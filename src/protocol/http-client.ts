import { createHash } from "node:crypto"
import { createReadStream, createWriteStream } from "node:fs"
import { stat } from "node:fs/promises"
import { Agent, type AgentOptions, request as httpsRequest, type RequestOptions } from "node:https"
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from "node:http"
import type { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls"
import { concatBytes } from "../bytes/compare.ts"
import type { Digest } from "../bytes/digest.ts"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { encodeHex, encodeUtf8, parseUtf8 } from "../bytes/text.ts"
import { ProtocolError } from "./errors.ts"
import { problemSchema, ProblemError } from "./problem.ts"
import { openTunnel, proxyFor } from "./proxy-tunnel.ts"
import { pathParameters, type PathValues, type RequestBody, type RequestQuery, type ResponseBody, type Route, routes } from "./routes.ts"
import { peerTlsKey, type TlsIdentity } from "./tls.ts"
import { maxBlobBytes, maxMessageBytes, parseMessage, parseShape } from "./wire.ts"

/**
 * HTTPS between programs of the house, for agent and client alike: TLS 1.3 with an own client key, the peer's key compared with a pin before the first
 * byte of a request leaves, messages parsed against the table of routes, sizes capped.
 */
export interface TransportOptions {
  /** Origin, e.g. `https://10.0.2.2:7443`. */
  readonly url: URL
  readonly identity: TlsIdentity
  /** Called with the peer's TLS key on every new connection before anything is sent; throws to refuse it. */
  readonly checkPeer: (tlsKey: Digest) => void
  /** Headers of every request, e.g. the session statement. */
  readonly headers?: Readonly<Record<string, string>>
  /** Silence on a connection after which a request fails, in milliseconds. */
  readonly timeoutMilliseconds?: number
}

const defaultTimeoutMilliseconds = 60_000

type CallOptions<R extends Route> = {
  readonly params?: PathValues<R["path"]>
  readonly query?: RequestQuery<R>
  readonly body?: RequestBody<R>
  readonly signal?: AbortSignal
}

/** Answer of a call: the parsed message, or nothing with the time after which to ask again (204). */
export type Answer<T> =
  { readonly kind: "message"; readonly message: T } | { readonly kind: "nothing"; readonly retryAfterSeconds: number | undefined }

export class Transport implements Disposable {
  readonly #options: TransportOptions
  readonly #agent: PinningAgent

  constructor(options: TransportOptions) {
    if (options.url.protocol !== "https:") throw new TypeError(`address of a manager must be https, found ${options.url.protocol}`)
    this.#options = options
    this.#agent = new PinningAgent(options)
  }

  [Symbol.dispose](): void {
    this.#agent.destroy()
  }

  /**
   * Calls a route and parses its answer.
   * @throws {ProblemError} what the manager answered; `UnavailableError` when it cannot be reached; `MalformedError` for an answer of another shape
   */
  async call<R extends Route>(route: R, options: CallOptions<R>): Promise<ResponseBody<R>> {
    const answer = await this.ask(route, options)
    if (answer.kind === "message") return answer.message
    throw new MalformedError("malformed", `no content where ${route.path} promises some`)
  }

  /** As `call`, for routes that may answer 204. */
  async ask<R extends Route>(route: R, options: CallOptions<R>): Promise<Answer<ResponseBody<R>>> {
    const body = options.body === undefined ? undefined : encodeUtf8(JSON.stringify(parseShape(route.body, options.body)))
    const path = fillPath(route.path, options.params ?? {}) + encodeQuery(parseShape(route.query, options.query ?? {}))
    const response = await this.#send({
      method: route.method,
      path,
      headers: body === undefined ? {} : { "content-type": "application/json", "content-length": String(body.length) },
      signal: options.signal,
      write: (request) => request.end(body),
    })
    if (response.statusCode === 204) {
      response.resume()
      return { kind: "nothing", retryAfterSeconds: retryAfter(response.headers) }
    }
    const bytes = await readBody(response, route.maxResponseBytes)
    return { kind: "message", message: parseMessage(route.response, bytes, route.maxResponseBytes) as ResponseBody<R> }
  }

  /** Events of a stream (WHATWG HTML, server-sent events) from after `lastEventId`, until the peer ends it or `signal` aborts. */
  async *events<R extends Route>(
    route: R,
    options: { readonly params: PathValues<R["path"]>; readonly lastEventId?: string; readonly signal?: AbortSignal },
  ): AsyncGenerator<ResponseBody<R>> {
    const response = await this.#send({
      method: route.method,
      path: fillPath(route.path, options.params),
      headers: { accept: "text/event-stream", ...(options.lastEventId === undefined ? {} : { "last-event-id": options.lastEventId }) },
      signal: options.signal,
      write: (request) => request.end(),
    })
    for await (const data of readEventData(response)) yield parseMessage(route.response, data) as ResponseBody<R>
  }

  /** Size of a blob that the peer has; undefined when it has none of this digest. */
  async blobSize(digest: Digest, signal?: AbortSignal): Promise<number | undefined> {
    try {
      const path = fillPath(routes.headBlob.path, { digest })
      const response = await this.#send({ method: "HEAD", path, headers: {}, signal, write: (request) => request.end() })
      response.resume()
      return contentLength(response.headers)
    } catch (error) {
      if (error instanceof ProblemError && error.status === 404) return undefined
      throw error
    }
  }

  /**
   * Uploads a blob unless the peer has it. `open` gives its bytes from the start.
   * @throws as `call`; `wrong-digest` (ProblemError) when the bytes are not those of `digest`
   */
  async putBlob(digest: Digest, sizeBytes: number, open: () => Readable, signal?: AbortSignal): Promise<void> {
    if ((await this.blobSize(digest, signal)) !== undefined) return
    const response = await this.#send({
      method: "PUT",
      path: fillPath(routes.putBlob.path, { digest }),
      headers: { "content-type": "application/octet-stream", "content-length": String(sizeBytes) },
      signal,
      write: (request) => {
        // An early answer (refusal) ends the upload; the answer, not the broken pipe, is what counts.
        pipeline(open(), request).catch((cause: unknown) => request.destroy(cause instanceof Error ? cause : undefined))
      },
    })
    response.resume()
  }

  /** Uploads a file as a blob. */
  async putBlobFile(digest: Digest, path: string, signal?: AbortSignal): Promise<void> {
    const { size } = await stat(path)
    await this.putBlob(digest, size, () => createReadStream(path), signal)
  }

  /**
   * Downloads a blob into a file, going on where a file of an earlier try ends, and checks it against its digest. The bytes are not trusted before
   * this returns.
   * @throws as `call`; {ProtocolError} `wrong-digest`, the file is then emptied; {MalformedError} `too-large`
   */
  async getBlobFile(
    digest: Digest,
    path: string,
    options: { readonly maxBytes?: number; readonly signal?: AbortSignal; readonly onProgress?: (bytes: number) => void } = {},
  ): Promise<void> {
    const maxBytes = options.maxBytes ?? maxBlobBytes
    const hash = createHash("sha256")
    let have = await fileSize(path)
    if (have > 0) for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array)
    const response = await this.#send({
      method: "GET",
      path: fillPath(routes.getBlob.path, { digest }),
      headers: have > 0 ? { range: `bytes=${have}-` } : {},
      signal: options.signal,
      allow: [416],
      write: (request) => request.end(),
    })
    // 416: the file on disk is whole already, or longer than the blob; the digest decides.
    if (response.statusCode === 416) response.resume()
    else {
      if (have > 0 && response.statusCode !== 206) throw new MalformedError("malformed", "a range was asked for and the whole came")
      const counted = async function* (source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
        for await (const chunk of source) {
          have += chunk.length
          if (have > maxBytes) throw new MalformedError("too-large", `blob is larger than ${maxBytes} bytes`)
          hash.update(chunk)
          options.onProgress?.(have)
          yield chunk
        }
      }
      await pipeline(response, counted, createWriteStream(path, { flags: "a", mode: 0o600 })).catch((cause: unknown) => {
        throw asUnavailable(cause, this.#options.url)
      })
    }
    const found = `sha256:${encodeHex(new Uint8Array(hash.digest()))}`
    if (found === digest) return
    createWriteStream(path, { flags: "w" }).end()
    throw new ProtocolError("wrong-digest", `found ${found}, expected ${digest}`)
  }

  /**
   * A blob's bytes as they come, unchecked: the caller must hold what it reads against the digest, or let an authenticated format do so.
   * @throws as `call`
   */
  async unverifiedBlob(digest: Digest, signal?: AbortSignal): Promise<Readable> {
    const path = fillPath(routes.getBlob.path, { digest })
    return this.#send({ method: "GET", path, headers: {}, signal, write: (request) => request.end() })
  }

  async #send(call: {
    readonly method: string
    readonly path: string
    readonly headers: Readonly<Record<string, string>>
    readonly signal: AbortSignal | undefined
    readonly allow?: readonly number[]
    readonly write: (request: ClientRequest) => void
  }): Promise<IncomingMessage> {
    const { url } = this.#options
    const options: RequestOptions = {
      agent: this.#agent,
      method: call.method,
      host: url.hostname,
      port: url.port === "" ? 443 : Number(url.port),
      path: call.path,
      headers: { ...this.#options.headers, ...call.headers, accept: call.headers["accept"] ?? "application/json" },
      timeout: this.#options.timeoutMilliseconds ?? defaultTimeoutMilliseconds,
      ...(call.signal === undefined ? {} : { signal: call.signal }),
    }
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const request = httpsRequest(options, resolve)
      request.on("timeout", () => request.destroy(new UnavailableError("timeout", `no answer from ${url.host}`)))
      request.on("error", (cause) => reject(asUnavailable(cause, url)))
      call.write(request)
    })
    const status = response.statusCode ?? 0
    if ((status >= 200 && status < 300) || call.allow?.includes(status)) return response
    throw await readProblem(response, call.method === "HEAD")
  }
}

/**
 * The certificate (DER) of the peer that a TLS 1.3 handshake ends at, which holds its key. Nothing is sent over the connection.
 * @throws {UnavailableError}; {ProtocolError} `wrong-tls-key` for a peer without a certificate
 */
export async function fetchPeerCertificate(options: Pick<TransportOptions, "url" | "identity" | "timeoutMilliseconds">): Promise<Uint8Array> {
  const socket = await openTls(options)
  try {
    const certificate = socket.getPeerX509Certificate()
    if (certificate === undefined) throw new ProtocolError("wrong-tls-key", "the peer shows no certificate")
    return new Uint8Array(certificate.raw)
  } finally {
    socket.destroy()
  }
}

/** A TLS connection to an address after its handshake, through a proxy where the environment names one. @throws {UnavailableError} */
async function openTls(options: Pick<TransportOptions, "url" | "identity" | "timeoutMilliseconds">): Promise<TLSSocket> {
  const { url, timeoutMilliseconds = defaultTimeoutMilliseconds } = options
  const host = url.hostname
  const port = url.port === "" ? 443 : Number(url.port)
  const proxy = proxyFor(url)
  const tunnel = proxy === undefined ? {} : { socket: await openTunnel(proxy, { host, port }, timeoutMilliseconds) }
  const socket = connect({ ...connectionOptions(options, host, port), ...tunnel })
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("secureConnect", resolve)
      socket.once("error", (cause) => reject(asUnavailable(cause, url)))
      socket.setTimeout(timeoutMilliseconds, () => reject(new UnavailableError("timeout", `no connection to ${url.host}`)))
    })
    socket.setTimeout(0)
    return socket
  } catch (error) {
    socket.destroy()
    throw error
  }
}

function connectionOptions({ identity }: Pick<TransportOptions, "identity">, host: string, port: number): ConnectionOptions {
  return {
    host,
    port,
    key: identity.privateKeyPem,
    cert: identity.certificatePem,
    minVersion: "TLSv1.3",
    // The chain is a self-signed envelope; who the peer is, is judged by its key.
    rejectUnauthorized: false,
    ALPNProtocols: ["http/1.1"],
  }
}

/** Opens TLS connections and hands one to HTTP only after its peer's key was found to be the right one. */
class PinningAgent extends Agent {
  readonly #options: TransportOptions

  constructor(options: TransportOptions) {
    const settings: AgentOptions = { keepAlive: true, maxSockets: 8, maxCachedSessions: 0 }
    super(settings)
    this.#options = options
  }

  override createConnection(_: RequestOptions, callback?: (error: Error | null, socket: never) => void): undefined {
    this.#open().then(
      (socket) => callback?.(null, socket as never),
      (error: unknown) => callback?.(error instanceof Error ? error : new TypeError("internal: not an error", { cause: error }), undefined as never),
    )
    return undefined
  }

  async #open(): Promise<TLSSocket> {
    const socket = await openTls(this.#options)
    try {
      const tlsKey = peerTlsKey(socket)
      if (tlsKey === undefined) throw new ProtocolError("wrong-tls-key", "the peer shows no TLS key")
      this.#options.checkPeer(tlsKey)
      return socket
    } catch (error) {
      socket.destroy()
      throw error
    }
  }
}

/** How long and how often to try again. */
export interface RetryOptions {
  /** Attempts in all. */
  readonly attempts: number
  /** First pause; each further one doubles, up to `maxMilliseconds`. */
  readonly baseMilliseconds: number
  readonly maxMilliseconds: number
  readonly signal?: AbortSignal
  /** From 0 to 1, exclusive; spreads the pauses so that many hosts do not come back at once. */
  readonly random: () => number
  readonly sleep: (milliseconds: number, signal: AbortSignal | undefined) => Promise<void>
}

/**
 * Tries again after a silence (UnavailableError, or a 429/503 answer) with growing, spread pauses; every other error is final. Only for what may be done
 * twice.
 */
export async function withRetry<T>(attempt: () => Promise<T>, options: RetryOptions): Promise<T> {
  for (let count = 1; ; count++) {
    try {
      return await attempt()
    } catch (error) {
      if (count >= options.attempts || !mayPass(error)) throw error
      const ceiling = Math.min(options.maxMilliseconds, options.baseMilliseconds * 2 ** (count - 1))
      const asked = error instanceof ProblemError ? (error.retryAfterSeconds ?? 0) * 1000 : 0
      await options.sleep(Math.max(asked, ceiling * (0.5 + options.random() / 2)), options.signal)
    }
  }
}

function mayPass(error: unknown): boolean {
  if (error instanceof ProblemError) return error.status === 429 || error.status === 503
  return error instanceof UnavailableError && (error.code === "unavailable" || error.code === "timeout")
}

function fillPath(path: string, params: Readonly<Record<string, string>>): string {
  return path.replaceAll(/:([a-z]+)/g, (_, name: string) => {
    const schema = Object.hasOwn(pathParameters, name) ? pathParameters[name as keyof typeof pathParameters] : undefined
    if (schema === undefined) throw new TypeError(`internal: no form for path parameter ${name}`)
    return encodeURIComponent(parseShape(schema, params[name], name))
  })
}

function encodeQuery(query: unknown): string {
  const pairs = Object.entries(query ?? {}).filter((pair): pair is [string, string] => typeof pair[1] === "string")
  return pairs.length === 0 ? "" : `?${new URLSearchParams(pairs).toString()}`
}

async function readBody(response: IncomingMessage, maxBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let size = 0
  try {
    for await (const chunk of response) {
      const part = chunk as Uint8Array
      size += part.length
      if (size > maxBytes) throw new MalformedError("too-large", `answer is larger than ${maxBytes} bytes`)
      parts.push(part)
    }
  } catch (cause) {
    if (cause instanceof MalformedError) throw cause
    throw new UnavailableError("unavailable", "the answer broke off", { cause })
  }
  return concatBytes(...parts)
}

async function readProblem(response: IncomingMessage, isHead: boolean): Promise<ProblemError> {
  const status = response.statusCode ?? 0
  const seconds = retryAfter(response.headers)
  if (isHead) {
    response.resume()
    const code = status === 404 ? "not-found" : "unavailable"
    return new ProblemError({ type: "about:blank", title: code, status, code, detail: `HTTP status ${status}` }, seconds)
  }
  const bytes = await readBody(response, maxMessageBytes)
  try {
    return new ProblemError(parseMessage(problemSchema, bytes), seconds)
  } catch (cause) {
    if (!(cause instanceof MalformedError)) throw cause
    throw new UnavailableError("unavailable", `HTTP status ${status} without a problem document: not a manager, or one of another version`, { cause })
  }
}

/** The `data` of each event; comments (keep-alives) and other fields carry nothing that data does not. */
async function* readEventData(response: IncomingMessage): AsyncGenerator<string> {
  let pending: Uint8Array = new Uint8Array(0)
  let data: string[] = []
  try {
    for await (const chunk of response) {
      pending = concatBytes(pending, chunk as Uint8Array)
      if (pending.length > maxMessageBytes) throw new MalformedError("too-large", `event line is larger than ${maxMessageBytes} bytes`)
      const end = pending.lastIndexOf(0x0a)
      if (end < 0) continue
      const lines = parseUtf8(pending.slice(0, end), "event").split("\n")
      pending = pending.slice(end + 1)
      for (const line of lines) {
        if (line === "" && data.length > 0) {
          yield data.join("\n")
          data = []
        } else if (line.startsWith("data:")) data.push(line.replace(/^data: ?/, ""))
      }
    }
  } catch (cause) {
    if (cause instanceof MalformedError) throw cause
    throw new UnavailableError("unavailable", "the event stream broke off", { cause })
  }
}

function retryAfter(headers: IncomingHttpHeaders): number | undefined {
  const text = headers["retry-after"]
  return text !== undefined && /^[0-9]{1,6}$/.test(text) ? Number(text) : undefined
}

function contentLength(headers: IncomingHttpHeaders): number {
  const text = headers["content-length"]
  if (text === undefined || !/^[0-9]{1,15}$/.test(text)) throw new MalformedError("malformed", "answer without a length", { path: "content-length" })
  return Number(text)
}

async function fileSize(path: string): Promise<number> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return 0
    throw error
  }
}

/** Errors of the system keep their code in the text; our own pass as they are. */
function asUnavailable(cause: unknown, url: URL): Error {
  if (cause instanceof UnavailableError || cause instanceof ProtocolError || cause instanceof MalformedError || cause instanceof ProblemError)
    return cause
  if (cause instanceof Error && cause.name === "AbortError") return cause
  const code = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "no connection"
  if (code === "ENOSPC") return new UnavailableError("disk-full", "no space left on the disk", { cause })
  return new UnavailableError("unavailable", `${url.host} cannot be reached (${code})`, { cause })
}
