import assert from "node:assert/strict"
import { test } from "node:test"
import { UnavailableError } from "../bytes/error.ts"
import { AgentError } from "./error.ts"
import { keepLease, type LeaseClock, type LeaseOptions } from "./lease.ts"

/** A clock that jumps to the next sleeper as soon as everybody waits. */
class TestClock implements LeaseClock {
  time = 100
  #sleepers: { readonly at: number; readonly wake: () => void }[] = []

  now(): number {
    return this.time
  }

  sleep(seconds: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve()
      const sleeper = { at: this.time + seconds, wake: resolve }
      this.#sleepers.push(sleeper)
      signal.addEventListener("abort", () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper)
        resolve()
      })
    })
  }

  /** Lets time pass until nobody sleeps any more or `seconds` have gone. */
  async pass(seconds: number): Promise<void> {
    const end = this.time + seconds
    for (;;) {
      for (let turn = 0; turn < 20; turn++) await Promise.resolve()
      const next = this.#sleepers.toSorted((a, b) => a.at - b.at)[0]
      if (next === undefined || next.at > end) break
      this.#sleepers = this.#sleepers.filter((other) => other !== next)
      this.time = Math.max(this.time, next.at)
      next.wake()
    }
    this.time = end
  }
}

interface Outcome {
  readonly clock: TestClock
  readonly stop: AbortController
  readonly renewedAt: number[]
  error: unknown
  isOver: boolean
}

function start(renew: LeaseOptions["renew"], seconds = 60): Outcome {
  const clock = new TestClock()
  const stop = new AbortController()
  const outcome: Outcome = { clock, stop, renewedAt: [], error: undefined, isOver: false }
  const options: LeaseOptions = {
    clock,
    startedAt: 100,
    seconds,
    renew,
    mayPass: (error) => error instanceof UnavailableError,
    onRenewed: () => outcome.renewedAt.push(clock.time - 100),
    onTrouble: () => undefined,
  }
  keepLease(options, stop.signal).then(
    () => (outcome.isOver = true),
    (error: unknown) => {
      outcome.error = error
      outcome.isOver = true
    },
  )
  return outcome
}

function assertLost(outcome: Outcome): void {
  assert.ok(outcome.error instanceof AgentError && outcome.error.code === "lease-lost", String(outcome.error))
}

test("keepLease() renews at half of the lease, by the seconds that were given last", async () => {
  const given = [60, 20, 20]
  const outcome = start(async () => given.shift() ?? 20)
  await outcome.clock.pass(85)
  assert.deepEqual(outcome.renewedAt, [30, 60, 70, 80])
  assert.equal(outcome.isOver, false)
  outcome.stop.abort()
  await outcome.clock.pass(0)
  assert.equal(outcome.isOver, true)
  assert.equal(outcome.error, undefined)
})

test("keepLease() ends at once when the renewal is refused", async () => {
  const outcome = start(async () => {
    throw new AgentError("refused", "no")
  })
  await outcome.clock.pass(30)
  assertLost(outcome)
})

test("keepLease() tries again while the manager is silent, and goes on when it is back", async () => {
  let tries = 0
  const outcome = start(async () => {
    tries++
    if (tries < 4) throw new UnavailableError("unavailable", "silent")
    return 60
  })
  await outcome.clock.pass(45)
  assert.equal(outcome.isOver, false)
  assert.equal(outcome.renewedAt.length, 1)
  assert.ok(tries === 4)
})

test("keepLease() ends by the clock when the manager stays silent", async () => {
  let tries = 0
  const outcome = start(async () => {
    tries++
    throw new UnavailableError("unavailable", "silent")
  })
  await outcome.clock.pass(59)
  assert.equal(outcome.isOver, false)
  assert.ok(tries >= 4 && tries < 20, String(tries))
  await outcome.clock.pass(1)
  assertLost(outcome)
})

test("keepLease() ends by the clock when a renewal hangs", async () => {
  let aborted = false
  const outcome = start(
    (signal) =>
      new Promise(() => {
        signal.addEventListener("abort", () => (aborted = true))
      }),
  )
  await outcome.clock.pass(59)
  assert.equal(outcome.isOver, false)
  await outcome.clock.pass(1)
  assertLost(outcome)
  assert.ok(aborted)
})

test("keepLease() ends a lease that is over before it could be renewed", async () => {
  const outcome = start(async () => 60)
  outcome.clock.time = 161
  await outcome.clock.pass(100)
  assertLost(outcome)
})

test("keepLease() counts from when the renewal was sent", async () => {
  let first = true
  const outcome: Outcome = start(async (signal) => {
    if (first) {
      first = false
      await outcome.clock.sleep(20, signal)
      return 60
    }
    throw new UnavailableError("unavailable", "silent")
  })
  await outcome.clock.pass(89)
  assert.equal(outcome.isOver, false)
  await outcome.clock.pass(2)
  assertLost(outcome)
})
