import { MalformedError, PerunError } from "../bytes/error.ts"
import { problemMediaType, problemOfError } from "../protocol/problem.ts"

/** Bodies of requests and responses, the same for a manager and for one that is locked. */

/** Bytes of a request's body; stops at the limit, before they are kept. @throws {MalformedError} `too-large`, `truncated` */
export async function* bodyChunks(request: Request, maxBytes: number): AsyncGenerator<Uint8Array> {
  const announced = request.headers.get("content-length")
  if (announced !== null && Number(announced) > maxBytes) throw tooLarge(maxBytes)
  if (request.body === null) return
  let size = 0
  try {
    for await (const chunk of request.body as AsyncIterable<Uint8Array>) {
      size += chunk.length
      if (size > maxBytes) throw tooLarge(maxBytes)
      yield chunk
    }
  } catch (cause) {
    if (cause instanceof PerunError) throw cause
    // Callers go away; it is no fault of ours, and they must not fill the operator's log with it.
    throw new MalformedError("truncated", "the connection ended inside the body", { cause })
  }
}

function tooLarge(maxBytes: number): MalformedError {
  return new MalformedError("too-large", `body is larger than ${maxBytes} bytes`)
}

export function jsonResponse(message: unknown): Response {
  return new Response(JSON.stringify(message), { headers: { "content-type": "application/json", "cache-control": "no-store" } })
}

export function problemResponse(error: unknown): Response {
  const problem = problemOfError(error)
  const retry = problem.status === 429 || problem.status === 503 ? { "retry-after": "5" } : {}
  return new Response(JSON.stringify(problem), { status: problem.status, headers: { "content-type": problemMediaType, ...retry } })
}
