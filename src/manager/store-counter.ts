import { PerunError, UnavailableError } from "../bytes/error.ts"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import type { CounterBinding } from "../evidence/tpm/client/nv-counter.ts"
import { ProtocolError } from "../protocol/errors.ts"
import type { Receipt } from "../protocol/messages.ts"
import type { ManagerTime } from "./clock.ts"
import type { ManagerObserver } from "./observe.ts"
import { appendReceipt } from "./receipts.ts"
import { endRun } from "./run-end.ts"
import type { ManagerContext } from "./context.ts"
import { isOver } from "./events.ts"
import type { Store } from "./store.ts"

/**
 * A store that is bound to a counter outside of it, which only goes up: the store says what the counter must be at. Whoever puts the disk back to an older state has a store that the counter is past,
 * and a manager that does not start. The counter is counted up at every start and stop, at once when consent was taken back or keys were destroyed, and now and then while the log grows:
 * a TPM's memory bears some hundred thousand writes. So what can be put back unnoticed by it is what happened since it was last counted and is none of these; clients and witnesses see that too.
 */
export interface MonotonicCounter {
  /** @throws {UnavailableError}; {TpmError} for another counter in its place */
  read(): Promise<number>
  increment(): Promise<void>
}

/** Opens the counter that a store is bound to. */
export type OpenCounter = (binding: CounterBinding) => MonotonicCounter

/** Key of the one record in table `counters`. */
export const counterKey = "manager"

/** Receipts that must not be undone. */
const urgent: ReadonlySet<Receipt["kind"]> = new Set([
  "policy-withdrawn",
  "policy-superseded",
  "identity-replaced",
  "keys-destroyed",
  "reference-update-withdrawn",
  "host-retired",
  "store-set-back",
])

/** Time between counts while the log grows: 52,560 a year at most. */
const intervalMilliseconds = 600_000

export class StoreCounter {
  readonly #store: Store
  readonly #counter: MonotonicCounter
  readonly #time: Pick<ManagerTime, "now" | "monotonicMilliseconds">
  readonly #observer: Pick<ManagerObserver, "warned">
  #last: Promise<void> = Promise.resolve()
  #isUrgent = false
  #isCounting = false
  /** Size of the log, and the monotonic time, at the last count. */
  #counted: { readonly size: number; readonly at: number }
  #isWarned = false
  /** Why this manager must give nothing out any more; it ends with the process. */
  #overtaken: string | undefined

  private constructor(store: Store, counter: MonotonicCounter, { time, observer }: Pick<ManagerContext, "time" | "observer">) {
    this.#store = store
    this.#counter = counter
    this.#time = time
    this.#observer = observer
    this.#counted = { size: 0, at: time.monotonicMilliseconds() }
  }

  /**
   * The counter of a store, counted for this start; undefined for a store that is bound to none. With `acceptSetBack` an older store goes on, as the receipt `store-set-back` says for good: nothing is
   * released under the policies that it holds, and their parties sign successors.
   * @throws {ProtocolError} `store-set-back`; `wrong-state` where no counter was given; {UnavailableError}; {TpmError}
   */
  static async open(context: ManagerContext, open: OpenCounter | undefined, acceptSetBack: boolean): Promise<StoreCounter | undefined> {
    const { store } = context
    const bound = store.get("counters", counterKey)
    if (bound === undefined) return undefined
    if (open === undefined)
      throw new ProtocolError("wrong-state", "this manager is bound to a counter in a TPM, and none was given: say where it is (--tpm)")
    const counter = open({ index: bound.index, name: parseBase64(bound.name, "name"), authValue: parseBase64(bound.authValue, "authValue") })
    const found = await counter.read()
    if (found > bound.value) {
      if (!acceptSetBack)
        throw new ProtocolError(
          "store-set-back",
          `the store is of an earlier time: it expects the TPM's counter at ${bound.value}, and it is at ${found}; start the newest state, or go on as docs/operations.md says (--accept-set-back)`,
        )
      takeUpSetBack(context, found)
    } else if (found < bound.value - 1)
      throw new ProtocolError("store-set-back", `the TPM's counter is at ${found}, the store expects ${bound.value}: it is of another TPM`)
    const opened = new StoreCounter(store, counter, context)
    await opened.count()
    return opened
  }

  /** Hears of what was recorded. */
  recorded(receipts: readonly Pick<Receipt, "kind">[]): void {
    if (receipts.some(({ kind }) => urgent.has(kind))) this.#isUrgent = true
  }

  /** Counts once more. Those who ask meanwhile wait for one count that begins after they asked. @throws {ProtocolError} `store-set-back`; {UnavailableError}; {TpmError} */
  async count(): Promise<void> {
    this.#isCounting = true
    const turn = this.#last.then(() => this.#count())
    const last = turn.catch(() => undefined)
    this.#last = last
    return turn.finally(() => (this.#isCounting = this.#last !== last))
  }

  async #count(): Promise<void> {
    const size = this.#store.logSize
    this.#isUrgent = false
    try {
      // What an earlier try left half done comes first: the store may be one ahead, and never more.
      await this.#catchUp()
      this.#store.transact(this.#time.now(), (tx) => {
        const bound = tx.get("counters", counterKey)
        if (bound === undefined) throw new TypeError("internal: a bound store lost its counter")
        tx.put("counters", counterKey, { ...bound, value: bound.value + 1 })
      })
      await this.#catchUp()
      this.#counted = { size, at: this.#time.monotonicMilliseconds() }
      this.#isWarned = false
    } catch (error) {
      this.#isUrgent = true
      throw error
    }
  }

  async #catchUp(): Promise<void> {
    const value = this.#store.get("counters", counterKey)?.value
    if (value === undefined) throw new TypeError("internal: a bound store lost its counter")
    const found = await this.#counter.read()
    if (found === value) return
    if (found !== value - 1) {
      this.#overtaken = `another manager goes on from a copy of this store: the TPM's counter is at ${found}, this one had it at ${value}`
      throw new ProtocolError("store-set-back", this.#overtaken)
    }
    await this.#counter.increment()
  }

  /** Counts where something must not be undone; to be awaited before its answer. A TPM that is silent is told to the operator, and tried again. */
  async settle(): Promise<void> {
    if (this.#isUrgent) await this.#countOrWarn()
  }

  /** Called about once a second. */
  tick(): void {
    if (this.#isCounting) return
    const { size, at } = this.#counted
    const isDue = this.#store.logSize > size && this.#time.monotonicMilliseconds() - at >= intervalMilliseconds
    if (!this.#store.isBroken && (this.#isUrgent || isDue)) void this.#countOrWarn()
  }

  /** For a manager that stops. Never fails: what was not counted is as after a kill -9. */
  async stop(): Promise<void> {
    await this.#last
    if (this.#store.isBroken || this.#store.logSize === this.#counted.size) return
    await this.#countOrWarn()
  }

  async #countOrWarn(): Promise<void> {
    try {
      await this.count()
    } catch (error) {
      if (!(error instanceof PerunError)) throw error
      if (!this.#isWarned) this.#observer.warned(`the store is not counted: ${error.message}`)
      this.#isWarned = true
    }
  }

  /** @throws {ProtocolError} `store-set-back` once another manager has overtaken this one; {UnavailableError} where the counter has been silent for two intervals while the log grew */
  demand(): void {
    if (this.#overtaken !== undefined) throw new ProtocolError("store-set-back", this.#overtaken)
    const { size, at } = this.#counted
    if (this.#store.logSize > size && this.#time.monotonicMilliseconds() - at > 2 * intervalMilliseconds)
      throw new UnavailableError("unavailable", "the TPM's counter, to which the store is bound, does not answer")
  }
}

/** Makes a store's record of a counter that was just defined. */
export function counterRecord({ index, name, authValue }: CounterBinding, value: number) {
  return { index, name: encodeBase64(name), authValue: encodeBase64(authValue), value }
}

/** What happened since is lost, and a withdrawal may be among it: so nothing goes out under what was agreed before. */
function takeUpSetBack(context: ManagerContext, found: number): void {
  const { store, time } = context
  store.transact(time.now(), (tx) => {
    const bound = tx.get("counters", counterKey)
    if (bound === undefined) throw new TypeError("internal: a bound store lost its counter")
    tx.put("counters", counterKey, { ...bound, value: found })
    for (const record of tx.list("policies")) tx.put("policies", record.digest, { ...record, setBackAt: time.nowText() })
    appendReceipt(context, tx, { kind: "store-set-back" })
    for (const run of tx.list("runs"))
      if (!isOver(run))
        endRun(context, tx, run, {
          state: run.state === "queued" ? "cancelled" : "ended",
          code: "store-set-back",
          reason: "the manager's store was set back",
        })
  })
}
