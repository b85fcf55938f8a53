import { PerunError } from "../bytes/error.ts"
import { AgentError } from "./error.ts"

/** The world as a lease needs it, so that tests can stand in for it. */
export interface LeaseClock {
  /** Seconds on a monotonic clock: the host's wall clock may be set by anyone. */
  now(): number
  sleep(seconds: number, signal: AbortSignal): Promise<void>
}

export interface LeaseOptions {
  readonly clock: LeaseClock
  /** When the claim was sent, on the same clock: the manager's lease began after it, so that ours ends first. */
  readonly startedAt: number
  readonly seconds: number
  /** Proves the machine anew and returns the seconds given. Throws a final error for a refusal, `mayPass` tells which are not. */
  readonly renew: (signal: AbortSignal) => Promise<number>
  /** Whether trying again may help: silence, overload. */
  readonly mayPass: (error: unknown) => boolean
  readonly onRenewed: (seconds: number) => void
  readonly onTrouble: (error: unknown) => void
}

/**
 * Keeps a lease until `stop` aborts: renews at half of its time, tries again with growing pauses while the manager is silent, and rejects when it ends, by
 * refusal or by the clock. Whoever holds it must then end the job at once.
 * @throws {AgentError} `lease-lost`
 */
export async function keepLease(options: LeaseOptions, stop: AbortSignal): Promise<void> {
  const { clock } = options
  let seconds = options.seconds
  let deadline = options.startedAt + seconds
  let pause = seconds / 2
  while (!stop.aborted) {
    await clock.sleep(Math.max(0, Math.min(pause, deadline - clock.now())), stop)
    if (stop.aborted) return
    const sentAt = clock.now()
    if (sentAt >= deadline) throw new AgentError("lease-lost", `not renewed within ${seconds} seconds`)
    try {
      seconds = await renewBefore(deadline, options, stop)
      deadline = sentAt + seconds
      pause = seconds / 2
      options.onRenewed(seconds)
    } catch (error) {
      if (stop.aborted) return
      if (error instanceof AgentError && error.code === "lease-lost") throw error
      if (!options.mayPass(error)) {
        const reason = error instanceof PerunError ? error.code : "internal"
        throw new AgentError("lease-lost", `the renewal was refused: ${reason}`, { cause: error })
      }
      options.onTrouble(error)
      pause = Math.min(pause < firstPause || pause > seconds / 4 ? firstPause : pause * 2, seconds / 4)
    }
  }
}

/** A renewal that hangs must not outlive the lease. */
async function renewBefore(deadline: number, options: LeaseOptions, stop: AbortSignal): Promise<number> {
  const over = new AbortController()
  const signal = AbortSignal.any([stop, over.signal])
  const late = options.clock.sleep(Math.max(0, deadline - options.clock.now()), signal).then(() => {
    if (signal.aborted) return 0
    over.abort()
    throw new AgentError("lease-lost", "no answer to the renewal before the lease ended")
  })
  try {
    return await Promise.race([options.renew(signal), late])
  } finally {
    over.abort()
    late.catch(() => undefined) // Its rejection, if any, has already been delivered by the race.
  }
}

/** Seconds after the first failed try. */
const firstPause = 1
