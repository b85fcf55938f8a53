import { request } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"
import * as z from "zod"
import { bytesEqual } from "../../../bytes/compare.ts"
import { PerunError, UnavailableError } from "../../../bytes/error.ts"
import { parseJson } from "../../../bytes/json.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../../bytes/text.ts"
import { parseTdxQuote } from "../../tdx/format.ts"

/**
 * Where the guest agent of a TD answers: `http://host:port`, or `unix:/path` for a socket. The agent is asked as dstack's is: `GET /GetQuote?report_data=HEX`
 * gives `{"quote": HEX, "event_log": TEXT}`, other members aside. Nothing that it says is believed: the quote is verified as any other.
 */
export type GuestAgentAddress = `http://${string}` | `unix:${string}`

export interface GuestAgentQuote {
  readonly quote: Uint8Array
  /** JSON text of the event log; undefined where there is none. */
  readonly eventLog: Uint8Array | undefined
}

export interface GuestAgentOptions {
  readonly timeoutMilliseconds?: number
}

const reportDataBytes = 64
const maxAnswerBytes = 8_388_608
const defaultTimeoutMilliseconds = 20_000
const answerSchema = z.object({ quote: z.string().max(65_536), event_log: z.string().max(maxAnswerBytes).optional() })
/** An agent that starts at the same time may need a moment. */
const attempts = 3
const pauseMilliseconds = 250

/**
 * Asks a TD's guest agent for a quote over 64 bytes of report data.
 * @throws {UnavailableError} `unavailable`, `timeout`: nobody answers, or something else than a quote over these bytes
 */
export async function collectGuestAgentQuote(
  address: GuestAgentAddress,
  reportData: Uint8Array,
  { timeoutMilliseconds = defaultTimeoutMilliseconds }: GuestAgentOptions = {},
): Promise<GuestAgentQuote> {
  if (reportData.length !== reportDataBytes) throw new TypeError(`report data of ${reportData.length} bytes, expected ${reportDataBytes}`)
  const body = await withRetry(() => get(address, `/GetQuote?report_data=${encodeHex(reportData)}`, timeoutMilliseconds))
  try {
    const { quote: text, event_log: eventLog } = answerSchema.parse(parseJson(body, { maxBytes: maxAnswerBytes }))
    const quote = parseHex(text.toLowerCase(), "quote")
    if (!bytesEqual(parseHex(parseTdxQuote(quote).report.reportData), reportData))
      throw new UnavailableError("unavailable", `${address}: the quote is over other data than asked for`)
    return { quote, eventLog: eventLog === undefined || eventLog === "" ? undefined : encodeUtf8(eventLog) }
  } catch (cause) {
    if (cause instanceof UnavailableError) throw cause
    if (!(cause instanceof PerunError || cause instanceof z.ZodError)) throw cause
    throw new UnavailableError("unavailable", `${address} answered with something that is no quote`, { cause })
  }
}

async function withRetry<T>(attempt: () => Promise<T>): Promise<T> {
  for (let left = attempts; ; left--) {
    try {
      return await attempt()
    } catch (error) {
      if (left <= 1) throw error
      await sleep(pauseMilliseconds)
    }
  }
}

async function get(address: GuestAgentAddress, path: string, timeoutMilliseconds: number): Promise<Uint8Array> {
  const target = address.startsWith("unix:") ? { socketPath: address.substring("unix:".length), host: "localhost" } : addressOf(address)
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => {
      const word = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "no answer"
      const isTimeout = cause instanceof Error && cause.name === "TimeoutError"
      reject(new UnavailableError(isTimeout ? "timeout" : "unavailable", `the guest agent at ${address} cannot be asked: ${word}`, { cause }))
    }
    const signal = AbortSignal.timeout(timeoutMilliseconds)
    // An agent of its own: the environment's proxies are not for a machine's own devices.
    const sent = request({ ...target, path, method: "GET", signal, agent: false }, (response) => {
      const chunks: Uint8Array[] = []
      let size = 0
      response.on("data", (chunk: Uint8Array) => {
        size += chunk.length
        if (size > maxAnswerBytes) response.destroy(new Error("the answer is too long"))
        else chunks.push(chunk)
      })
      response.on("error", fail)
      response.on("end", () => {
        if (response.statusCode === 200) resolve(new Uint8Array(Buffer.concat(chunks)))
        else reject(new UnavailableError("unavailable", `the guest agent at ${address} answered with status ${response.statusCode}`))
      })
    })
    sent.on("error", (cause) => fail(signal.aborted ? signal.reason : cause))
    sent.end()
  })
}

function addressOf(address: string): { readonly hostname: string; readonly port: string } {
  const { hostname, port } = new URL(address)
  return { hostname, port: port === "" ? "80" : port }
}
