import { EvidenceError } from "../errors.ts"
import type { ClockInfo } from "../tpm/claims.ts"

/** How far the counters moved between two quotes of one key. Differences only: a TPM may mask the values per key. */
export interface BootSessionChange {
  /** TPM Resets in between, modulo 2^32. */
  readonly resets: number
  /** TPM Restarts and Resumes in between, modulo 2^32; says nothing across a reset, where the counter begins at 0 again. */
  readonly restarts: number
}

const counterRange = 2 ** 32

export function bootSessionChange(before: ClockInfo, after: ClockInfo): BootSessionChange {
  return {
    resets: difference(after.resetCount, before.resetCount),
    restarts: difference(after.restartCount, before.restartCount),
  }
}

/**
 * Refuses a quote that is not of the same boot as the one before, or older than it.
 * @throws {EvidenceError} `wrong-binding`
 */
export function checkSameBoot(before: ClockInfo, after: ClockInfo): void {
  const { resets, restarts } = bootSessionChange(before, after)
  const path = "TPMS_ATTEST.clockInfo"
  if (resets !== 0) throw new EvidenceError("wrong-binding", "the machine was started anew since the last quote (resetCount changed)", { path })
  if (restarts !== 0)
    throw new EvidenceError("wrong-binding", "the machine was suspended or restarted since the last quote (restartCount changed)", { path })
  // The clock only stands still or goes back over a loss of power, which is a reset.
  if (after.clock < before.clock)
    throw new EvidenceError("wrong-binding", `the TPM's clock went back from ${before.clock} to ${after.clock} ms`, { path })
}

function difference(after: number, before: number): number {
  return (after - before + counterRange) % counterRange
}
