import type { Context, MiddlewareHandler } from "hono"
import { encodeHex } from "../bytes/text.ts"
import { problemOfError } from "../protocol/problem.ts"
import type { RouteName } from "../protocol/routes.ts"
import type { PeerBindings } from "./api.ts"
import { problemResponse } from "./http.ts"
import { faultOf, knownCode, type ManagerObserver } from "./observe.ts"

/** What a call's handlers leave behind for those who watch. */
export interface Observed {
  readonly callId: string
  route?: RouteName
  /** Key of the party that calls. */
  party?: string
  fault?: unknown
}

/** Names a call in the manager's log; its caller may quote it. */
export const callIdHeader = "x-request-id"

export interface Watching {
  readonly observer: ManagerObserver
  readonly randomBytes: (length: number) => Uint8Array
}

/** Gives every call a number and tells of its answer. What the caller sends as a number is not taken: it could be another's. */
export function observeCalls({ observer, randomBytes }: Watching): MiddlewareHandler<{ Bindings: PeerBindings; Variables: Observed }> {
  return async (c, next) => {
    const id = encodeHex(randomBytes(8))
    c.set("callId", id)
    const startedAt = performance.now()
    await next()
    c.res.headers.set(callIdHeader, id)
    const error = c.get("fault")
    const fault = error === undefined ? undefined : faultOf(error, id)
    if (fault !== undefined) observer.failed(fault)
    observer.called({
      id,
      route: c.get("route") ?? "unknown",
      method: c.req.method,
      status: c.res.status,
      code: error === undefined ? undefined : knownCode(problemOfError(error).code),
      milliseconds: performance.now() - startedAt,
      party: c.get("party"),
      tlsKey: c.env.peerTlsKey,
    })
  }
}

/** The problem document of an error, which those who watch hear of. */
export function problemAnswer(c: Context<{ Bindings: PeerBindings; Variables: Observed }>, error: unknown): Response {
  c.set("fault", error)
  return problemResponse(error)
}
