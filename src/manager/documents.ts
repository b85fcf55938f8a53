import type { Digest } from "../bytes/digest.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { parsePolicyValue, type Policy, referencedDigests } from "../policy/document.ts"
import { parseReferenceValue, type Reference, type References } from "../policy/reference.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { Reader } from "./context.ts"

/**
 * What all policies with their references, and all updates of these, may take: bytes of JSON. All of it lies in this process, at some five times its size, and a manager that runs out of memory
 * would do so at every start again.
 */
const maxStoredDocuments = 335_544_320

/** @throws {ProtocolError} `limit-exceeded` where so many more bytes of JSON have no room */
export function demandRoomForDocuments(reader: Reader, more: number): void {
  const stored = [...reader.list("policies"), ...reader.list("referenceUpdates")].reduce((sum, { storedBytes }) => sum + storedBytes, 0)
  if (stored + more > maxStoredDocuments)
    throw new ProtocolError(
      "limit-exceeded",
      `policies with their references would take more than the ${maxStoredDocuments} bytes that the manager has room for`,
    )
}

/** What a document takes, in bytes of JSON. */
export function sizeOf(document: object): number {
  return canonicalJsonBytes(document).length
}

/** Parsed policies and references by digest. Documents never change, so what was parsed once stays right. */
export class DocumentCache {
  readonly #policies = new Map<string, Policy>()
  readonly #references = new Map<string, Reference>()

  /** @throws {ProtocolError} `not-found` */
  policy(reader: Reader, digest: Digest): Policy {
    const cached = this.#policies.get(digest)
    if (cached !== undefined) return cached
    const record = reader.get("policies", digest)
    if (record === undefined) throw new ProtocolError("not-found", `there is no policy ${digest}`)
    const policy = parsePolicyValue(record.document)
    this.#policies.set(digest, policy)
    return policy
  }

  /** Every reference that a policy names, and these besides, as far as the store has them. */
  references(reader: Reader, policy: Policy, besides: readonly Digest[] = []): References {
    const found = new Map<Digest, Reference>()
    for (const digest of [...referencedDigests(policy), ...besides]) {
      const reference = this.#reference(reader, digest)
      if (reference !== undefined) found.set(digest, reference)
    }
    return found
  }

  #reference(reader: Reader, digest: Digest): Reference | undefined {
    const cached = this.#references.get(digest)
    if (cached !== undefined) return cached
    const record = reader.get("references", digest)
    if (record === undefined) return undefined
    const reference = parseReferenceValue(record)
    this.#references.set(digest, reference)
    return reference
  }
}
