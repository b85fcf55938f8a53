/** Where time comes from: wall time for what documents say, a monotonic count for leases. */
export interface Clock {
  /** Wall time, milliseconds since 1970. May jump. */
  wallMilliseconds(): number
  /** Counts up evenly and never jumps; from an arbitrary start. */
  monotonicMilliseconds(): number
}

/** Wall time that never runs behind what was recorded before, so that a clock set back brings no expired thing back to life. */
export class ManagerTime {
  readonly #clock: Clock
  #latest: number

  /** `recordedMilliseconds`: the latest time that the store has recorded. */
  constructor(clock: Clock, recordedMilliseconds: number) {
    this.#clock = clock
    this.#latest = recordedMilliseconds
  }

  now(): Date {
    this.#latest = Math.max(this.#latest, this.#clock.wallMilliseconds())
    return new Date(this.#latest)
  }

  /** `now` in the form of messages and records. */
  nowText(): string {
    return this.now().toISOString()
  }

  monotonicMilliseconds(): number {
    return this.#clock.monotonicMilliseconds()
  }
}

export const systemClock: Clock = {
  wallMilliseconds: () => Date.now(),
  monotonicMilliseconds: () => performance.now(),
}
