import { ProtocolError } from "../protocol/errors.ts"
import type { TimeCheck } from "./time-check.ts"

/** Where time comes from: wall time for what documents say, a monotonic count for leases. */
export interface Clock {
  /** Wall time, milliseconds since 1970. May jump. */
  wallMilliseconds(): number
  /** Counts up evenly and never jumps; from an arbitrary start. */
  monotonicMilliseconds(): number
}

/** Wall time that never runs behind what was recorded before, so that a clock set back brings no expired thing back to life; with a check, nor ahead of what it bears out. */
export class ManagerTime {
  readonly #clock: Clock
  readonly #recorded: () => number
  readonly #check: TimeCheck | undefined
  #latest = 0

  /** `recordedMilliseconds`: the latest time that the store has recorded, by now. Without a `check` the host's clock is believed. */
  constructor(clock: Clock, recordedMilliseconds: () => number, check?: TimeCheck) {
    this.#clock = clock
    this.#recorded = recordedMilliseconds
    this.#check = check
  }

  now(): Date {
    const given = this.#clock.wallMilliseconds()
    const bound = this.#check === undefined ? given : this.#check.latestAccepted()
    const found = Math.max(this.#latest, this.#recorded(), Math.min(given, bound ?? given))
    // A clock that is ahead before anybody bore it out must not stay so for good when it is mended.
    if (bound !== undefined) this.#latest = found
    return new Date(found)
  }

  /** `now` in the form of messages and records. */
  nowText(): string {
    return this.now().toISOString()
  }

  monotonicMilliseconds(): number {
    return this.#clock.monotonicMilliseconds()
  }

  /**
   * To be called before anything that rests on the time is granted. Does nothing where time comes from the host alone.
   * @throws {ProtocolError} `time-unchecked`
   */
  demandChecked(): void {
    this.#check?.demand({ "the host's clock": this.#clock.wallMilliseconds(), "the time that the store has recorded": this.now().getTime() })
  }

  /** Why `demandChecked` refuses; undefined where it does not. */
  problem(): string | undefined {
    try {
      this.demandChecked()
      return undefined
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      return error.message
    }
  }
}

export const systemClock: Clock = {
  wallMilliseconds: () => Date.now(),
  monotonicMilliseconds: () => performance.now(),
}
