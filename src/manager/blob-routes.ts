import { Readable } from "node:stream"
import type { Digest } from "../bytes/digest.ts"
import { stakeholderOfKey } from "../policy/approval.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { maxBlobBytes } from "../protocol/wire.ts"
import { demandKnown, policiesOf } from "./admission.ts"
import type { HostCaller, ManagerContext, StakeholderCaller } from "./context.ts"
import { leaseOfKey } from "./leases.ts"
import { maxUploadBytes } from "./outputs.ts"
import { readStanding } from "./standing.ts"

/** What hosts may upload under their leases; forgotten with the process, which costs disk and no secret. */
const allowances = new WeakMap<ManagerContext, Map<string, UploadAllowance>>()

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
 * Stores a blob: who owns an artifact of a policy that is proposed or active may, and a host up to what its job's outputs may take.
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
    demandOwner(context, caller)
    await context.blobs.put(digest, body, maxBlobBytes)
    return
  }
  const lease = leaseOfKey(context, caller)
  const run = lease === undefined ? undefined : context.store.get("runs", lease.run)
  if (lease === undefined || run === undefined) throw new ProtocolError("not-permitted", "only a host with a lease stores blobs")
  const allowance = allowanceOf(context, lease.lease, maxUploadBytes(context.documents.policy(context.store, run.policy), run.job))
  await allowance.take(body, (counted) => context.blobs.put(digest, counted, maxBlobBytes))
}

function allowanceOf(context: ManagerContext, lease: string, limit: number): UploadAllowance {
  const ofManager = allowances.get(context) ?? new Map<string, UploadAllowance>()
  allowances.set(context, ofManager)
  const allowance = ofManager.get(lease) ?? new UploadAllowance(limit)
  ofManager.set(lease, allowance)
  return allowance
}

/** Uploads count while they run, so that several at once stay under the limit together; what was not stored in the end takes no place. */
class UploadAllowance {
  readonly #limit: number
  #used = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  async take<R>(body: AsyncIterable<Uint8Array>, store: (counted: AsyncIterable<Uint8Array>) => Promise<R>): Promise<R> {
    let own = 0
    const count = (bytes: number): void => {
      if (this.#used + bytes > this.#limit) throw new ProtocolError("limit-exceeded", `uploads of this run exceed ${this.#limit} bytes`)
      this.#used += bytes
      own += bytes
    }
    try {
      return await store(countedChunks(body, count))
    } catch (error) {
      this.#used -= own
      throw error
    }
  }
}

async function* countedChunks(body: AsyncIterable<Uint8Array>, count: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    count(chunk.length)
    yield chunk
  }
}

/** Ciphertext is for whom the manager knows and for hosts that hold a lease. @throws {ProtocolError} `not-permitted` */
function demandAccess(context: ManagerContext, caller: StakeholderCaller | HostCaller): void {
  if (caller.kind === "stakeholder") return demandKnown(context, context.store, caller)
  if (leaseOfKey(context, caller) === undefined) throw new ProtocolError("not-permitted", "blobs are for hosts with a lease only")
}

/** @throws {ProtocolError} `not-permitted` */
function demandOwner(context: ManagerContext, caller: StakeholderCaller): void {
  const isOwner = policiesOf(context, context.store, caller).some(({ digest }) => {
    const { state, policy } = readStanding(context, context.store, digest)
    const name = stakeholderOfKey(policy, caller.key)
    return (state === "proposed" || state === "active") && Object.values(policy.artifacts).some(({ owner }) => owner === name)
  })
  if (!isOwner) throw new ProtocolError("not-permitted", "only owners of an artifact of a policy that is proposed or active store blobs")
}
