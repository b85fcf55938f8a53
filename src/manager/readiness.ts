import { ProtocolError } from "../protocol/errors.ts"
import type { ManagerTime } from "./clock.ts"
import type { Store } from "./store.ts"

/** With less than this free, the largest output or a day of receipts may not find room. */
export const leastFreeBytes = 268_435_456

/** Why a manager cannot do its work, in words that programs may rely on. */
export const notReadyReasons = {
  "store-broken": "its medium is out of order, and the manager has to be started again",
  "time-unchecked": "no time-stamping authority bears out the clock, so nothing is granted",
  "disk-nearly-full": `less than ${leastFreeBytes / 1_048_576} MiB are free on its disk`,
} as const
export type NotReadyReason = keyof typeof notReadyReasons

/** Whether a manager can do its work now: for load balancers, and for those whom they wake. */
export class Readiness {
  readonly #store: Pick<Store, "isBroken">
  readonly #time: Pick<ManagerTime, "demandChecked">
  readonly #freeBytes: () => number | undefined

  /** `freeBytes`: bytes free on the manager's disk; undefined where nobody knows. */
  constructor(store: Pick<Store, "isBroken">, time: Pick<ManagerTime, "demandChecked">, freeBytes: () => number | undefined) {
    this.#store = store
    this.#time = time
    this.#freeBytes = freeBytes
  }

  /** Empty for a manager that is ready. */
  reasons(): readonly NotReadyReason[] {
    // A broken store tells no time.
    if (this.#store.isBroken) return ["store-broken"]
    const reasons: NotReadyReason[] = []
    if (!this.#isTimeChecked()) reasons.push("time-unchecked")
    const free = this.freeBytes()
    if (free !== undefined && free < leastFreeBytes) reasons.push("disk-nearly-full")
    return reasons
  }

  freeBytes(): number | undefined {
    return this.#freeBytes()
  }

  /** @throws {ProtocolError} `not-ready` with every reason */
  demand(): void {
    const reasons = this.reasons()
    if (reasons.length > 0) throw new ProtocolError("not-ready", reasons.map((reason) => `${reason}: ${notReadyReasons[reason]}`).join("; "))
  }

  #isTimeChecked(): boolean {
    try {
      this.#time.demandChecked()
      return true
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      return false
    }
  }
}
