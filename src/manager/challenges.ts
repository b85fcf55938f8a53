import { encodeHex } from "../bytes/text.ts"
import type { Digest } from "../bytes/digest.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { ClaimGrant } from "../protocol/messages.ts"
import type { JudgedMachine } from "./judge.ts"

/** What a challenge was issued for; the evidence that answers it is held against exactly this. */
export interface ChallengeFacts {
  readonly purpose: "claim" | "renew"
  /** TLS key of the connection that asked. */
  readonly tlsKey: Digest
  readonly host: string
  readonly policy: Digest
  readonly job: string
  readonly run: string
  readonly lease: string
  /** What a renewal goes on from, as it stood when the challenge was issued: another renewal may be under way. */
  readonly previous: JudgedMachine | undefined
}

export interface IssuedChallenge extends ChallengeFacts {
  readonly challenge: string
  /** 32 random bytes in hexadecimal. */
  readonly nonce: string
  /** Milliseconds since 1970, for the agent to read. */
  readonly expiresAt: number
}

interface Entry {
  issued: IssuedChallenge
  readonly issuedAt: number
  isUsed: boolean
  answer?: Answer
}

interface Answer {
  /** Which request it answers, byte for byte. */
  readonly request: string
  readonly grant: Promise<ClaimGrant>
}

/** Time to answer: a quote of a slow TPM in an emulated machine, and the upload of a long list. */
const lifetimeMilliseconds = 120_000
/** How long an answered or expired challenge is remembered, so that its replay is called by its name. */
const memoryMilliseconds = 900_000
/** Claims' challenges of all strangers together; renewals have room of their own, as much as there are leases. */
const maxClaims = 10_000
const maxOpenPerKey = 16

/**
 * Challenges of this process. They are not stored: after a restart every open one is unknown, which refuses its answer. Anyone may ask for a claim's
 * challenge, only the holder of a running lease for a renewal's; so the two lie apart, and a flood of the first leaves the second alone.
 */
export class ChallengeBook {
  readonly #claims = new Entries()
  readonly #renewals = new Entries()
  readonly #monotonic: () => number
  readonly #randomBytes: (length: number) => Uint8Array

  constructor(monotonic: () => number, randomBytes: (length: number) => Uint8Array) {
    this.#monotonic = monotonic
    this.#randomBytes = randomBytes
  }

  /** A renewal's caller must hold the lease. @throws {ProtocolError} `too-many-requests` */
  issue(facts: ChallengeFacts, now: Date): IssuedChallenge {
    this.#forget()
    const entries = facts.purpose === "claim" ? this.#claims : this.#renewals
    const open = entries.ofKey(facts.tlsKey).filter((entry) => this.#isOpen(entry))
    if (open.length >= maxOpenPerKey) throw new ProtocolError("too-many-requests", `${open.length} challenges are open for this TLS key`)
    if (facts.purpose === "claim") this.#makeRoom()
    const issued: IssuedChallenge = {
      ...facts,
      challenge: encodeHex(this.#randomBytes(16)),
      nonce: encodeHex(this.#randomBytes(32)),
      expiresAt: now.getTime() + lifetimeMilliseconds,
    }
    entries.add({ issued, issuedAt: this.#monotonic(), isUsed: false })
    return issued
  }

  /** That a TLS key has asked for a claim at all. @throws {ProtocolError} `challenge-unknown` */
  demandAsked(tlsKey: Digest): void {
    if (this.#claims.ofKey(tlsKey).length === 0) throw unknown()
  }

  /**
   * Uses a challenge up. It is used whatever becomes of the answer; a challenge that someone else tries stays with its owner.
   * @throws {ProtocolError} `challenge-unknown`, `challenge-binding`, `challenge-used`, `challenge-expired`
   */
  take(id: string, expected: { readonly purpose: "claim" | "renew"; readonly tlsKey: Digest; readonly lease?: string }): IssuedChallenge {
    const found = this.#claims.get(id) ?? this.#renewals.get(id)
    if (found === undefined) throw unknown()
    const { issued } = found
    const isOurs = issued.tlsKey === expected.tlsKey && issued.purpose === expected.purpose
    if (!isOurs || (expected.lease !== undefined && issued.lease !== expected.lease))
      throw new ProtocolError("challenge-binding", `the challenge is for ${issued.purpose} by another TLS key, purpose or lease`)
    if (found.isUsed) throw new ProtocolError("challenge-used", "the challenge was answered before; ask for a new one")
    if (!this.#isOpen(found))
      throw new ProtocolError("challenge-expired", `the challenge is older than ${lifetimeMilliseconds / 1000} s; ask for a new one`)
    found.isUsed = true
    found.issued = { ...issued, previous: undefined }
    return issued
  }

  /** Keeps the grant that a claim's challenge leads to, for the case that its way back to the host is cut. A refusal is not kept. */
  keepGrant(id: string, request: string, grant: Promise<ClaimGrant>): void {
    const entry = this.#claims.get(id)
    if (entry === undefined) return
    entry.answer = { request, grant }
    // Whoever called hears of it; here it only ends the keeping.
    grant.catch(() => delete entry.answer)
  }

  /** The grant of the same request by the same TLS key within the challenge's time; it opens with the same key only. */
  grantOf(id: string, tlsKey: Digest, request: string): Promise<ClaimGrant> | undefined {
    const entry = this.#claims.get(id)
    if (entry?.issued.tlsKey !== tlsKey || entry.answer?.request !== request || this.#isOld(entry)) return undefined
    return entry.answer.grant
  }

  #isOld({ issuedAt }: Entry): boolean {
    return this.#monotonic() - issuedAt >= lifetimeMilliseconds
  }

  #isOpen(entry: Entry): boolean {
    return !entry.isUsed && !this.#isOld(entry)
  }

  /** Those that nobody can answer any more go first: an unknown challenge is refused as well as a used one. */
  #makeRoom(): void {
    if (this.#claims.size < maxClaims) return
    for (const entry of this.#claims.all()) if (!this.#isOpen(entry)) this.#claims.delete(entry)
    if (this.#claims.size >= maxClaims) throw new ProtocolError("too-many-requests", "too many challenges are open")
  }

  #forget(): void {
    const before = this.#monotonic() - memoryMilliseconds
    for (const entries of [this.#claims, this.#renewals])
      // The oldest first.
      for (const entry of entries.all()) {
        if (entry.issuedAt >= before) break
        entries.delete(entry)
      }
    for (const entry of this.#claims.all()) {
      if (!this.#isOld(entry)) break
      delete entry.answer
    }
  }
}

/** Challenges in the order in which they were issued, and by the TLS key that they were issued to. */
class Entries {
  readonly #byId = new Map<string, Entry>()
  readonly #byKey = new Map<string, Set<Entry>>()

  get size(): number {
    return this.#byId.size
  }

  get(id: string): Entry | undefined {
    return this.#byId.get(id)
  }

  all(): Iterable<Entry> {
    return this.#byId.values()
  }

  ofKey(tlsKey: Digest): readonly Entry[] {
    return [...(this.#byKey.get(tlsKey) ?? [])]
  }

  add(entry: Entry): void {
    const { challenge, tlsKey } = entry.issued
    this.#byId.set(challenge, entry)
    const ofKey = this.#byKey.get(tlsKey) ?? new Set()
    this.#byKey.set(tlsKey, ofKey.add(entry))
  }

  delete(entry: Entry): void {
    const { challenge, tlsKey } = entry.issued
    this.#byId.delete(challenge)
    const ofKey = this.#byKey.get(tlsKey)
    ofKey?.delete(entry)
    if (ofKey?.size === 0) this.#byKey.delete(tlsKey)
  }
}

function unknown(): ProtocolError {
  return new ProtocolError("challenge-unknown", "no such challenge; ask for a new one")
}
