import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { readBodyBounded } from "../bytes/http-body.ts"
import { certificateFingerprint, type Certificate } from "../pki/certificate.ts"
import { maxTimestampBytes } from "../pki/timestamp-format.ts"
import type { TimeSource } from "./time-check.ts"

/** A body that came as an answer to `POST`. */
export interface PostAnswer {
  readonly status: number
  /** Media type, lower case, without parameters; empty where there is none. */
  readonly mediaType: string
  readonly body: Uint8Array
}

/** `POST` of a body to an address, whose answer is at most `maxBytes` long and comes in time. @throws {UnavailableError} */
export type PostTransport = (url: string, body: Uint8Array, mediaType: string, maxBytes: number) => Promise<PostAnswer>

/** More roots than any site has. */
const maxRoots = 16

/**
 * The time-stamping authority at `url`, asked by HTTP (RFC 3161, 3.4). Plain HTTP does: what counts is the signature over our nonce.
 * @throws {MalformedError} `malformed` an address of another form, no root or too many; `duplicate`
 */
export function openTimeSource(url: string, roots: readonly Certificate[], post: PostTransport = overNetwork): TimeSource {
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol) || parsed.username !== "" || parsed.password !== "")
    throw new MalformedError("malformed", `found ${url}, expected http://… or https://… without a name and password`, { path: "time source" })
  if (roots.length === 0 || roots.length > maxRoots)
    throw new MalformedError("malformed", `found ${roots.length} certificates, expected 1 to ${maxRoots}`, { path: "time root" })
  if (new Set(roots.map(certificateFingerprint)).size < roots.length)
    throw new MalformedError("duplicate", "a certificate stands twice", { path: "time root" })
  return {
    url: parsed.href,
    roots,
    async ask(request) {
      const { status, mediaType, body } = await post(parsed.href, request, "application/timestamp-query", maxTimestampBytes)
      if (status !== 200) throw new UnavailableError("unavailable", `${parsed.host} answered with status ${status}`)
      if (mediaType !== "application/timestamp-reply")
        throw new UnavailableError("unavailable", `${parsed.host} answered with ${JSON.stringify(mediaType)}, which is no time stamp`)
      return body
    },
  }
}

/** An answer that comes later says less about the time than is put up with soon after. */
const timeoutMilliseconds = 10_000

/** Over the network, within ten seconds. */
export const overNetwork: PostTransport = async (url, body, mediaType, maxBytes) => {
  const { host } = new URL(url)
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": mediaType },
      body: Uint8Array.from(body),
      redirect: "error",
      signal: AbortSignal.timeout(timeoutMilliseconds),
    })
    const type = response.headers.get("content-type") ?? ""
    return { status: response.status, mediaType: (type.split(";")[0] ?? "").trim().toLowerCase(), body: await readBodyBounded(response, maxBytes) }
  } catch (cause) {
    if (cause instanceof UnavailableError) throw cause
    throw new UnavailableError("unavailable", `${host} cannot be reached`, { cause })
  }
}
