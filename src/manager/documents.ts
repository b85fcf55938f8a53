import type { Digest } from "../bytes/digest.ts"
import { parsePolicyValue, type Policy, referencedDigests } from "../policy/document.ts"
import { parseReferenceValue, type Reference, type References } from "../policy/reference.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { Reader } from "./context.ts"

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

  /** Every reference that a policy names and the store has. */
  references(reader: Reader, policy: Policy): References {
    const found = new Map<Digest, Reference>()
    for (const digest of referencedDigests(policy)) {
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
