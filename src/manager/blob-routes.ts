import { Readable } from "node:stream"
import type { Digest } from "../bytes/digest.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { maxBlobBytes } from "../protocol/wire.ts"
import type { HostCaller, ManagerContext, StakeholderCaller } from "./context.ts"
import { leaseOfKey } from "./leases.ts"
import { maxUploadBytes } from "./outputs.ts"
import { isKnown } from "./standing.ts"

/** Bytes that a host has uploaded under a lease; forgotten with the process, which costs disk and no secret. */
const uploadedByLease = new WeakMap<ManagerContext, Map<string, number>>()

/**
 * A blob, or the part of it that `Range` asks for (RFC 9110, one range from a first byte on).
 * @throws {ProtocolError} `not-permitted`, `not-found`
 */
export async function readBlob(context: ManagerContext, caller: StakeholderCaller | HostCaller, digest: Digest, request: Request): Promise<Response> {
  demandAccess(context, caller)
  const size = await context.blobs.size(digest)
  if (size === undefined) throw new ProtocolError("not-found", `there is no blob ${digest}`)
  const headers = { "content-type": "application/octet-stream", "accept-ranges": "bytes" }
  const range = parseRange(request.headers.get("range"))
  if (range !== undefined && range.start >= size)
    return new Response(null, { status: 416, headers: { ...headers, "content-range": `bytes */${size}` } })
  const start = range?.start ?? 0
  const end = Math.min(range?.end ?? size - 1, size - 1)
  const length = { "content-length": String(size === 0 ? 0 : end - start + 1) }
  const part = range === undefined ? {} : { "content-range": `bytes ${start}-${end}/${size}` }
  // An opened file that nobody reads would stay open: HEAD gets none.
  const body = request.method === "HEAD" || size === 0 ? null : (Readable.toWeb(context.blobs.read(digest, start, end)) as ReadableStream<Uint8Array>)
  return new Response(body, { status: range === undefined ? 200 : 206, headers: { ...headers, ...length, ...part } })
}

/** `bytes=first-` or `bytes=first-last`; any other form is ignored, as RFC 9110 allows. */
function parseRange(header: string | null): { readonly start: number; readonly end: number | undefined } | undefined {
  const [, first, last] = /^bytes=([0-9]{1,15})-([0-9]{0,15})$/.exec(header ?? "") ?? []
  if (first === undefined || last === undefined) return undefined
  const end = last === "" ? undefined : Number(last)
  return end !== undefined && end < Number(first) ? undefined : { start: Number(first), end }
}

/**
 * Stores a blob: stakeholders of any policy may, and a host up to what its job's outputs may take.
 * @throws {ProtocolError} `not-permitted`, `limit-exceeded`, `wrong-digest`; {MalformedError} `too-large`; {UnavailableError} `disk-full`
 */
export async function storeBlob(
  context: ManagerContext,
  caller: StakeholderCaller | HostCaller,
  digest: Digest,
  body: AsyncIterable<Uint8Array>,
): Promise<void> {
  demandAccess(context, caller)
  if ((await context.blobs.size(digest)) !== undefined) return
  if (caller.kind === "stakeholder") {
    await context.blobs.put(digest, body, maxBlobBytes)
    return
  }
  const lease = leaseOfKey(context, caller)
  const run = lease === undefined ? undefined : context.store.get("runs", lease.run)
  if (lease === undefined || run === undefined) throw new ProtocolError("not-permitted", "only a host with a lease stores blobs")
  const limit = maxUploadBytes(context.documents.policy(context.store, run.policy), run.job)
  const uploaded = uploadedByLease.get(context) ?? new Map<string, number>()
  uploadedByLease.set(context, uploaded)
  await context.blobs.put(digest, counted(body, lease.lease, uploaded, limit), maxBlobBytes)
}

async function* counted(body: AsyncIterable<Uint8Array>, lease: string, uploaded: Map<string, number>, limit: number): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    const total = (uploaded.get(lease) ?? 0) + chunk.length
    if (total > limit) throw new ProtocolError("limit-exceeded", `uploads of this run exceed ${limit} bytes`)
    uploaded.set(lease, total)
    yield chunk
  }
}

/** Ciphertext is for stakeholders of some policy and for hosts that hold a lease. @throws {ProtocolError} `not-permitted` */
function demandAccess(context: ManagerContext, caller: StakeholderCaller | HostCaller): void {
  const isAllowed = caller.kind === "stakeholder" ? isKnown(context, context.store, caller) : leaseOfKey(context, caller) !== undefined
  if (!isAllowed) throw new ProtocolError("not-permitted", "blobs are for stakeholders of a policy and for hosts with a lease")
}
