import { Hono, type Context } from "hono"
import { isDigest, type Digest } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { concatBytes } from "../bytes/compare.ts"
import { parsePolicyValue } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { RunEvent } from "../protocol/messages.ts"
import { makeOpenApiDocument } from "../protocol/openapi.ts"
import {
  pathParameters,
  type PathNames,
  type RequestBody,
  type RequestQuery,
  type ResponseBody,
  type Route,
  type RouteName,
  type Routes,
  routes,
} from "../protocol/routes.ts"
import { sessionHeader, verifySessionHeader } from "../protocol/session.ts"
import { maxBlobBytes, parseMessage, parseShape } from "../protocol/wire.ts"
import { demandKnown, hostSight } from "./admission.ts"
import { attestationResult } from "./attestation-results.ts"
import { readBlob, storeBlob } from "./blob-routes.ts"
import type { BodyPlace } from "./body-room.ts"
import { bodyChunks, jsonResponse } from "./http.ts"
import { claimRun, renewLease, requestChallenge } from "./claims.ts"
import type { HostCaller, ManagerContext, StakeholderCaller } from "./context.ts"
import { depositArtifact, listArtifacts } from "./deposits.ts"
import { answerEnrolment, beginEnrolment, retireHost, viewHost } from "./enrolments.ts"
import { watchRun } from "./events.ts"
import { demandHolder, leaseOfKey } from "./leases.ts"
import { listOutputs, packageOutput, reportOutput, voteOutput } from "./outputs.ts"
import { type Observed, observeCalls, problemAnswer } from "./observed-app.ts"
import { attestManager, demandOwnTee } from "./own-tee.ts"
import { updateReference, viewReference, withdrawReference } from "./reference-updates.ts"
import { approvePolicy, listPolicies, submitPolicy, viewPolicy, withdrawPolicy } from "./policies.ts"
import { listReceipts, proveReceipt, readLog } from "./receipts.ts"
import { depositSecret } from "./secrets.ts"
import { cancelRun, demandRun, finishRun, listRuns, queueRun, reportMetrics, viewRun } from "./runs.ts"
import { securityTxt } from "./security-txt.ts"
import { demandStakeholder } from "./standing.ts"

/** What the server says about a connection: the peer's TLS key, where it showed one, and its IP address. */
export interface PeerBindings {
  readonly peerTlsKey: Digest | undefined
  readonly peerAddress: string | undefined
}

type Env = { Bindings: PeerBindings; Variables: Observed }

/** A call whose caller is known and whose parts are parsed. */
interface Call<R extends Route> {
  readonly params: { readonly [Name in PathNames<R["path"]>]: string }
  readonly query: RequestQuery<R>
  readonly body: RequestBody<R>
  readonly caller: CallerOf<R["access"]>
  /** IP address that the connection comes from; undefined where it is gone already. */
  readonly address: string | undefined
}

type CallerOf<A extends Route["access"]> = A extends "open"
  ? undefined
  : A extends "stakeholder"
    ? StakeholderCaller
    : A extends "host"
      ? HostCaller
      : StakeholderCaller | HostCaller

/** A handler gives the response's message; undefined is 204 with a pause. */
type Handler<R extends Route> = (context: ManagerContext, call: Call<R>) => ResponseBody<R> | undefined | Promise<ResponseBody<R> | undefined>

type JsonRouteName = Exclude<RouteName, "headBlob" | "getBlob" | "putBlob" | "watchRun" | "getCheckpoint" | "getTile">

/** Seconds after which a host without work asks again. */
const idleRetrySeconds = 2
/** Receipts in one answer. */
const receiptsPerPage = 500

const handlers: { readonly [Name in JsonRouteName]: Handler<Routes[Name]> } = {
  describeManager: (context) => context.signedDescription,
  attestManager: (context, { query, address }) => attestManager(context, query.nonce, address),
  lockState: () => {
    throw notLocked()
  },
  unlockManager: () => {
    throw notLocked()
  },
  openApi: () => openApiDocument,
  health: (context) => ({ ok: true, members: context.members.size }),
  ready: (context) => {
    context.readiness.demand()
    return { ok: true }
  },

  submitPolicy: async (context, { caller, body }) => {
    await demandOwnTee(context, parsePolicyValue(body.policy).manager)
    return submitPolicy(context, caller, body)
  },
  listPolicies: (context, { caller }) => listPolicies(context, caller),
  getPolicy: (context, { caller, params }) => viewPolicy(context, caller, digestOf(params.digest)),
  approvePolicy: (context, { caller, params, body }) => approvePolicy(context, caller, digestOf(params.digest), body),
  withdrawPolicy: (context, { caller, params, body }) => withdrawPolicy(context, caller, digestOf(params.digest), body.signature),
  updateReference: (context, { caller, params, body }) => updateReference(context, caller, digestOf(params.digest), body),
  withdrawReference: (context, { caller, params, body }) =>
    withdrawReference(context, caller, digestOf(params.digest), digestOf(params.update), body.signature),
  getReference: (context, { caller, params }) => viewReference(context, caller, digestOf(params.digest), digestOf(params.reference)),
  depositArtifact: (context, { caller, params, body }) => depositArtifact(context, caller, digestOf(params.digest), body),
  depositSecret: (context, { caller, params, body }) => depositSecret(context, caller, digestOf(params.digest), body),
  listArtifacts: (context, { caller }) => listArtifacts(context, caller),

  queueRun: (context, { caller, params }) => queueRun(context, caller, digestOf(params.digest), params.job),
  listRuns: (context, { caller, query }) => listRuns(context, caller, query.policy),
  getRun: (context, { caller, params }) => viewRun(context, context.store, caller, demandRun(context, context.store, caller, params.run)),
  getAttestationResult: (context, { caller, params, query }) => attestationResult(context, caller, params.run, query),
  cancelRun: (context, { caller, params }) => cancelRun(context, caller, params.run),

  listOutputs: (context, { caller, query }) => listOutputs(context, caller, query.run),
  voteOutput: (context, { caller, params, body }) => voteOutput(context, caller, params.output, body),
  getOutputPackage: (context, { caller, params }) => packageOutput(context, caller, params.output),

  listHosts: (context, { caller }) => {
    demandKnown(context, context.store, caller)
    return {
      hosts: context.store
        .list("hosts")
        .filter(hostSight(context, context.store, caller))
        .map(viewHost),
    }
  },
  retireHost: (context, { caller, params }) => retireHost(context, caller, params.host),
  listReceipts: (context, { caller, query }) => {
    demandKnown(context, context.store, caller)
    return listReceipts(context, caller, Number(query.from ?? "0"), receiptsPerPage)
  },
  proveReceipt: async (context, { caller, params }) => {
    demandKnown(context, context.store, caller)
    await context.witnesses.show()
    return proveReceipt(context, caller, Number(params.index))
  },
  getLog: async (context, { caller, query }) => {
    demandKnown(context, context.store, caller)
    await context.witnesses.show()
    return readLog(context, Number(query.from ?? "0"))
  },

  beginEnrolment: (context, { caller, body }) => beginEnrolment(context, caller, body),
  answerEnrolment: (context, { caller, params, body }) => answerEnrolment(context, caller, params.enrolment, body),
  requestChallenge: (context, { caller, body }) => requestChallenge(context, caller, body),
  claimRun: (context, { caller, body }) => claimRun(context, caller, body),
  renewLease: (context, { caller, params, body }) => renewLease(context, caller, params.lease, body),
  reportMetrics: (context, { caller, params, body }) => {
    reportMetrics(context, caller, params.run, body.values)
    return {}
  },
  reportOutput: (context, { caller, params, body }) => reportOutput(context, caller, params.run, body),
  finishRun: (context, { caller, params, body }) => {
    finishRun(context, caller, params.run, body)
    return {}
  },
}

function notLocked(): ProtocolError {
  return new ProtocolError("wrong-state", "this manager is not locked")
}

/** Who may send a large body at all; asked before it is read, for what is read lies in memory. */
const gates: { readonly [Name in JsonRouteName]?: (context: ManagerContext, caller: CallerOf<Routes[Name]["access"]>) => void } = {
  submitPolicy: (context, caller) => demandKnown(context, context.store, caller),
  depositArtifact: (context, caller) => demandKnown(context, context.store, caller),
  updateReference: (context, caller) => demandKnown(context, context.store, caller),
  depositSecret: (context, caller) => demandKnown(context, context.store, caller),
  claimRun: (context, caller) => context.challenges.demandAsked(caller.tlsKey),
  renewLease: (context, caller) => demandHolder(context, caller),
  reportOutput: (context, caller) => demandHolder(context, caller),
}

/** Gates that let only those through whom the operator or a policy names. */
const gatesOfParties: ReadonlySet<JsonRouteName> = new Set(["submitPolicy", "updateReference", "depositArtifact", "depositSecret"])

/**
 * What the manager grants by its clock: keys, leases, outputs, identities, its word for others. All else (withdrawing, voting, depositing, looking) goes on while nobody bears the clock out.
 */
const restingOnTime: ReadonlySet<JsonRouteName> = new Set([
  "beginEnrolment",
  "answerEnrolment",
  "claimRun",
  "renewLease",
  "getOutputPackage",
  "getAttestationResult",
  // A delegation has an end.
  "updateReference",
])

const openApiDocument = makeOpenApiDocument()

/** HTTP API v1 over a manager: (request, peer) → response, without a socket. */
export type ManagerApp = Hono<Env>

export function createApp(context: ManagerContext): ManagerApp {
  const app: ManagerApp = new Hono<Env>()
  app.use(observeCalls(context))
  for (const name of Object.keys(handlers) as JsonRouteName[]) addJsonRoute(app, context, name)
  app.get(routes.getBlob.path, async (c) => {
    // Hono answers HEAD with what GET gives.
    c.set("route", c.req.method === "HEAD" ? "headBlob" : "getBlob")
    const caller = authenticate(context, routes.getBlob, c)
    return readBlob(context, caller, digestOf(c.req.param("digest")), c.req.raw)
  })
  app.put(routes.putBlob.path, async (c) => {
    c.set("route", "putBlob")
    const caller = authenticate(context, routes.putBlob, c)
    const body = bodyChunks(c.req.raw, maxBlobBytes)
    await storeBlob(context, caller, digestOf(c.req.param("digest")), body)
    return new Response(null, { status: 204 })
  })
  app.get(routes.getCheckpoint.path, async (c) => {
    c.set("route", "getCheckpoint")
    demandKnown(context, context.store, authenticate(context, routes.getCheckpoint, c))
    await context.witnesses.show()
    return new Response(context.log.checkpoint(), { headers: { "content-type": "text/plain; charset=utf-8", "cache-control": "no-cache" } })
  })
  app.get(`${routes.getTile.path}{.+}`, (c) => {
    c.set("route", "getTile")
    demandKnown(context, context.store, authenticate(context, routes.getTile, c))
    const tile = context.log.tile(parseShape(pathParameters.tile, c.req.param("tile"), "tile"))
    return new Response(Uint8Array.from(tile), { headers: { "content-type": "application/octet-stream", "cache-control": "private, immutable" } })
  })
  app.get(routes.watchRun.path, (c) => {
    c.set("route", "watchRun")
    const caller = authenticate(context, routes.watchRun, c)
    return streamEvents(context, caller, c.req.param("run"), c.req.raw)
  })
  app.get("/.well-known/security.txt", () => {
    const { securityContact, time } = context
    if (securityContact === undefined) throw new ProtocolError("not-found", "the operator of this manager has named no security contact")
    return new Response(securityTxt(securityContact, time.now()), { headers: { "content-type": "text/plain; charset=utf-8" } })
  })
  app.notFound((c) => {
    const isOtherMethod = (Object.values(routes) as Route[]).some((route) => matches(route.path, c.req.path))
    const error = isOtherMethod
      ? new ProtocolError("method-not-allowed", `${c.req.method} is not for this address`)
      : new ProtocolError("not-found", "there is no such address")
    return problemAnswer(c, error)
  })
  app.onError((error, c) => problemAnswer(c, error))
  return app
}

function addJsonRoute<Name extends JsonRouteName>(app: ManagerApp, context: ManagerContext, name: Name): void {
  const route: Routes[Name] = routes[name]
  app.on(route.method, route.path, async (c) => {
    c.set("route", name)
    // The caller is known before anything that it sent is read.
    const caller = authenticate(context, route, c) as CallerOf<Routes[Name]["access"]>
    gates[name]?.(context, caller)
    const params = parseParams<Routes[Name]>(c.req.param())
    const query = parseShape(route.query, c.req.query()) as RequestQuery<Routes[Name]>
    // Held until the answer: what was read lies in memory while it is worked on.
    using place = placeFor(context, caller, name, c.env.peerAddress)
    const body = (await readBody(route, c.req.raw, place)) as RequestBody<Routes[Name]>
    // Here, not before the body, which may take its time.
    if (restingOnTime.has(name)) {
      context.time.demandChecked()
      context.counter?.demand()
    }
    const message = await handlers[name](context, { params, query, body, caller, address: c.env.peerAddress })
    // What must not be undone is counted before it is answered.
    await context.counter?.settle()
    if (message === undefined) return new Response(null, { status: 204, headers: { "retry-after": String(idleRetrySeconds) } })
    return jsonResponse(checkedResponse(route, message))
  })
}

/** A response of another shape than promised is our fault, never the caller's. */
function checkedResponse(route: Route, message: unknown): unknown {
  const result = route.response.safeParse(message)
  if (result.success) return result.data
  throw new TypeError(`internal: response of ${route.path} has not its shape`, { cause: result.error })
}

/** @throws {ProtocolError} `unauthenticated`, `wrong-session` */
function authenticate<R extends Route>(context: ManagerContext, route: R, c: Context<Env>): CallerOf<R["access"]> {
  const caller = authenticateAs(context, route.access, c)
  if (caller?.kind === "stakeholder") c.set("party", caller.key)
  return caller as CallerOf<R["access"]>
}

function authenticateAs(context: ManagerContext, access: Route["access"], c: Context<Env>): StakeholderCaller | HostCaller | undefined {
  if (access === "open") return undefined
  const tlsKey = c.env.peerTlsKey
  if (tlsKey === undefined) throw new ProtocolError("unauthenticated", "the connection shows no client certificate")
  const header = c.req.header(sessionHeader)
  if (access === "host" || (access === "either" && header === undefined)) return { kind: "host", tlsKey, address: c.env.peerAddress }
  const expected = { manager: context.description.instance, peerTlsKey: tlsKey, now: context.time.now() }
  return { kind: "stakeholder", key: verifySessionHeader(header, expected), tlsKey }
}

function parseParams<R extends Route>(given: Readonly<Record<string, string>>): Call<R>["params"] {
  const entries = Object.entries(given).map(([name, value]) => {
    if (!Object.hasOwn(pathParameters, name)) throw new TypeError(`internal: no form for path parameter ${name}`)
    return [name, parseShape(pathParameters[name as keyof typeof pathParameters], value, name)] as const
  })
  return Object.fromEntries(entries) as Call<R>["params"]
}

function digestOf(text: string | undefined): Digest {
  if (!isDigest(text)) throw new MalformedError("malformed", `not "sha256:" and 64 lower-case hexadecimal digits`, { path: "digest" })
  return text
}

/** Room for a body: of parties and of hosts at work apart from what anyone may send. What hosts without a lease send is counted by time too. */
function placeFor(context: ManagerContext, caller: CallerOf<Route["access"]>, name: JsonRouteName, address: string | undefined): BodyPlace {
  const isKnown = caller?.kind === "host" ? leaseOfKey(context, caller) !== undefined : gatesOfParties.has(name)
  if (isKnown) return context.bodyRooms.known.enter(address)
  const place = context.bodyRooms.open.enter(address)
  if (caller?.kind !== "host") return place
  return {
    take(chunkBytes) {
      context.budgets.bodies.spend(address, chunkBytes)
      place.take(chunkBytes)
    },
    [Symbol.dispose]: () => place[Symbol.dispose](),
  }
}

async function readBody(route: Route, request: Request, place: BodyPlace): Promise<unknown> {
  if (route.method === "GET") return undefined
  const parts: Uint8Array[] = []
  for await (const chunk of bodyChunks(request, route.maxBodyBytes)) {
    place.take(chunk.length)
    parts.push(chunk)
  }
  return parseMessage(route.body, concatBytes(...parts), route.maxBodyBytes)
}

function streamEvents(context: ManagerContext, caller: StakeholderCaller, runId: string, request: Request): Response {
  const run = demandRun(context, context.store, caller, parseShape(pathParameters.run, runId, "run"))
  const policy = context.documents.policy(context.store, run.policy)
  const viewer = { policy, stakeholder: demandStakeholder(policy, caller) }
  const last = request.headers.get("last-event-id") ?? ""
  const from = /^[0-9]{1,9}$/.test(last) ? Number(last) + 1 : 0
  const stop = new AbortController()
  const events = watchRun(context, run.run, viewer, from, AbortSignal.any([stop.signal, request.signal]))
  const encoder = new TextEncoder()
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = await events.next()
      if (next.done === true) return controller.close()
      controller.enqueue(encoder.encode(next.value === "keep-alive" ? ":\n\n" : encodeEvent(next.value)))
    },
    cancel() {
      stop.abort()
    },
  })
  return new Response(stream, { headers: { "content-type": "text/event-stream", "cache-control": "no-store" } })
}

function encodeEvent(event: RunEvent): string {
  return `id: ${event.seq}\nevent: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`
}

function matches(pattern: string, path: string): boolean {
  const [parts, given] = [pattern.split("/"), path.split("/")]
  return parts.length === given.length && parts.every((part, index) => part.startsWith(":") || part === given[index])
}
