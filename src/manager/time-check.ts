import { PerunError } from "../bytes/error.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { concatBytes } from "../bytes/compare.ts"
import { certificateFingerprint, type Certificate } from "../pki/certificate.ts"
import { encodeTimestampRequest, makeTimestampRequest } from "../pki/timestamp-format.ts"
import { verifyTimestamp } from "../pki/timestamp.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { ManagerDescription } from "../protocol/messages.ts"
import type { Clock } from "./clock.ts"

/** A time-stamping authority (RFC 3161) whose word the manager's clock is held against. */
export interface TimeSource {
  /** Address, for the configuration and for messages. */
  readonly url: string
  /** The only roots that the authority's certificates may chain to. */
  readonly roots: readonly Certificate[]
  /** TimeStampReq → TimeStampResp, both DER; ends by itself within seconds. @throws {UnavailableError} */
  ask(request: Uint8Array): Promise<Uint8Array>
}

/** Farther from the authority's time nothing is granted. Machines with NTP are within a second; what is judged by it lasts days. */
const maxDifferenceSeconds = 60
/** How long a stamp counts while the authority is silent: what a host gains by stopping its clock and its network at once, and how long the authority may be out of order. */
const holdSeconds = 3600
/** Counted, like the stamp's age, by the process's monotonic clock. */
const intervalMilliseconds = 900_000
/** What fails is tried again after this. */
const retryMilliseconds = 60_000

interface Stamp {
  /** Bounds of the true time, milliseconds since 1970, at `at` of the monotonic clock. */
  readonly earliest: number
  readonly latest: number
  readonly at: number
}

/** Holds the clock of a manager's host against a time-stamping authority's: asks for a stamp over a fresh nonce now and then, and counts on from it by the monotonic clock. */
export class TimeCheck {
  readonly #source: TimeSource
  readonly #clock: Clock
  readonly #randomBytes: (length: number) => Uint8Array
  readonly #warn: (line: string) => void
  #stamp: Stamp | undefined
  #isAsking = false
  #askedAt = Number.NEGATIVE_INFINITY
  #askAt = Number.NEGATIVE_INFINITY

  constructor(source: TimeSource, clock: Clock, randomBytes: (length: number) => Uint8Array, warn: (line: string) => void) {
    this.#source = source
    this.#clock = clock
    this.#randomBytes = randomBytes
    this.#warn = warn
  }

  /** Part of the manager's description. */
  get description(): NonNullable<ManagerDescription["time"]> {
    return { roots: this.#source.roots.map(certificateFingerprint), maxDifferenceSeconds, holdSeconds }
  }

  /** Asks the authority when it is time to; called at start and about once a second. One question at a time; a silent or lying authority throws nothing, and gives no stamp. */
  async tick(): Promise<void> {
    if (this.#isAsking || this.#clock.monotonicMilliseconds() < this.#askAt) return
    this.#isAsking = true
    this.#askedAt = this.#clock.monotonicMilliseconds()
    try {
      this.#stamp = await this.#ask()
      this.#askAt = this.#askedAt + intervalMilliseconds
      this.demand({ "the host's clock": this.#clock.wallMilliseconds() })
    } catch (error) {
      this.#askAt = this.#askedAt + retryMilliseconds
      if (!(error instanceof PerunError)) throw error
      const isStamped = error instanceof ProtocolError
      this.#warn(
        isStamped ? error.message : `${this.#source.url} gives no time stamp, and without one that holds nothing is granted: ${error.message}`,
      )
    } finally {
      this.#isAsking = false
    }
  }

  /** Latest wall time that `demand` lets pass; undefined where no stamp holds. */
  latestAccepted(): number | undefined {
    const bounds = this.#boundsNow()
    return bounds === undefined ? undefined : bounds.earliest + maxDifferenceSeconds * 1000
  }

  /**
   * Demands that each of these wall times is the authority's, however long its answer took and whatever deviation it admits.
   * @throws {ProtocolError} `time-unchecked`
   */
  demand(times: Readonly<Record<string, number>>): void {
    const bounds = this.#boundsNow()
    if (bounds === undefined) {
      this.#askSoon()
      throw new ProtocolError(
        "time-unchecked",
        `no stamp of the time-stamping authority from the last ${holdSeconds} s; nothing is granted until it answers`,
      )
    }
    for (const [name, time] of Object.entries(times)) {
      const ahead = time - bounds.earliest
      const behind = bounds.latest - time
      if (Math.max(ahead, behind) <= maxDifferenceSeconds * 1000) continue
      // Where the host's clock was mended, or the machine slept, a new stamp says so.
      this.#askSoon()
      const [seconds, word] = ahead > behind ? [ahead, "ahead of"] : [behind, "behind"]
      throw new ProtocolError(
        "time-unchecked",
        `${name} may be ${Math.ceil(seconds / 1000)} s ${word} the time-stamping authority, at most ${maxDifferenceSeconds} s are put up with; nothing is granted`,
      )
    }
  }

  /** Bounds of the true time now; undefined without a stamp or past its time. */
  #boundsNow(): Pick<Stamp, "earliest" | "latest"> | undefined {
    if (this.#stamp === undefined) return undefined
    const { earliest, latest, at } = this.#stamp
    const age = this.#clock.monotonicMilliseconds() - at
    return age > holdSeconds * 1000 ? undefined : { earliest: earliest + age, latest: latest + age }
  }

  #askSoon(): void {
    this.#askAt = Math.min(this.#askAt, this.#askedAt + retryMilliseconds)
  }

  async #ask(): Promise<Stamp> {
    // Nothing of the manager's goes to the authority: what is stamped is drawn for this question.
    const request = makeTimestampRequest(concatBytes(encodeUtf8("perun time\n"), this.#randomBytes(32)), this.#randomBytes)
    const sentAt = this.#clock.monotonicMilliseconds()
    const response = await this.#source.ask(encodeTimestampRequest(request))
    const receivedAt = this.#clock.monotonicMilliseconds()
    const { genTime, accuracyMilliseconds = 0 } = verifyTimestamp(response, {
      request,
      roots: this.#source.roots,
      policies: "any",
      maxAccuracyMilliseconds: maxDifferenceSeconds * 1000,
    })
    // The stamp was made at some moment between question and answer.
    return { earliest: genTime - accuracyMilliseconds, latest: genTime + accuracyMilliseconds + (receivedAt - sentAt), at: receivedAt }
  }
}
