import { encodeHex } from "../bytes/text.ts"
import type { Digest } from "../bytes/digest.ts"
import { ProtocolError } from "../protocol/errors.ts"

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
}

export interface IssuedChallenge extends ChallengeFacts {
  readonly challenge: string
  /** 32 random bytes in hexadecimal. */
  readonly nonce: string
  /** Milliseconds since 1970, for the agent to read. */
  readonly expiresAt: number
}

/** Time to answer: a quote of a slow TPM in an emulated machine, and the upload of a long list. */
const lifetimeMilliseconds = 120_000
/** How long an answered or expired challenge is remembered, so that its replay is called by its name. */
const memoryMilliseconds = 900_000
const maxRemembered = 10_000
const maxOpenPerKey = 16

/**
 * Challenges of this process. They are not stored: after a restart every open one is unknown, which refuses its answer.
 */
export class ChallengeBook {
  readonly #challenges = new Map<string, { readonly issued: IssuedChallenge; readonly issuedAt: number; isUsed: boolean }>()
  readonly #monotonic: () => number
  readonly #randomBytes: (length: number) => Uint8Array

  constructor(monotonic: () => number, randomBytes: (length: number) => Uint8Array) {
    this.#monotonic = monotonic
    this.#randomBytes = randomBytes
  }

  /** @throws {ProtocolError} `too-many-requests` */
  issue(facts: ChallengeFacts, now: Date): IssuedChallenge {
    this.#forget()
    const open = [...this.#challenges.values()].filter(({ issued, isUsed }) => !isUsed && issued.tlsKey === facts.tlsKey)
    if (open.length >= maxOpenPerKey) throw new ProtocolError("too-many-requests", `${open.length} challenges are open for this TLS key`)
    if (this.#challenges.size >= maxRemembered) throw new ProtocolError("too-many-requests", "too many challenges are open")
    const issued: IssuedChallenge = {
      ...facts,
      challenge: encodeHex(this.#randomBytes(16)),
      nonce: encodeHex(this.#randomBytes(32)),
      expiresAt: now.getTime() + lifetimeMilliseconds,
    }
    this.#challenges.set(issued.challenge, { issued, issuedAt: this.#monotonic(), isUsed: false })
    return issued
  }

  /**
   * Uses a challenge up. It is used whatever becomes of the answer; a challenge that someone else tries stays with its owner.
   * @throws {ProtocolError} `challenge-unknown`, `challenge-binding`, `challenge-used`, `challenge-expired`
   */
  take(id: string, expected: { readonly purpose: "claim" | "renew"; readonly tlsKey: Digest; readonly lease?: string }): IssuedChallenge {
    const found = this.#challenges.get(id)
    if (found === undefined) throw new ProtocolError("challenge-unknown", "no such challenge; ask for a new one")
    const { issued } = found
    const isOurs = issued.tlsKey === expected.tlsKey && issued.purpose === expected.purpose
    if (!isOurs || (expected.lease !== undefined && issued.lease !== expected.lease))
      throw new ProtocolError("challenge-binding", `the challenge is for ${issued.purpose} by another TLS key, purpose or lease`)
    if (found.isUsed) throw new ProtocolError("challenge-used", "the challenge was answered before; ask for a new one")
    if (this.#monotonic() - found.issuedAt >= lifetimeMilliseconds)
      throw new ProtocolError("challenge-expired", `the challenge is older than ${lifetimeMilliseconds / 1000} s; ask for a new one`)
    found.isUsed = true
    return issued
  }

  #forget(): void {
    const before = this.#monotonic() - memoryMilliseconds
    for (const [id, { issuedAt }] of this.#challenges) if (issuedAt < before) this.#challenges.delete(id)
  }
}
