import assert from "node:assert/strict"
import { test } from "node:test"
import { certificateFingerprint } from "../pki/certificate.ts"
import { makeKeyPair } from "../pki/authority.testing.ts"
import { derElement, tags } from "../pki/der.ts"
import { ManagerTime } from "./clock.ts"
import { random, TestClock } from "./study.testing.ts"
import { LaboratoryTimeSource } from "./time-authority.testing.ts"
import { TimeCheck } from "./time-check.ts"

/** A host's clock that is as far off as a test says; the true time goes on with the monotonic clock. */
function setup(): {
  clock: TestClock
  source: LaboratoryTimeSource
  check: TimeCheck
  warnings: string[]
  demand: () => void
  recorded: { at: number }
  time: ManagerTime
} {
  const clock = new TestClock()
  const start = clock.wall
  const source = new LaboratoryTimeSource(() => start + clock.monotonic)
  const warnings: string[] = []
  const check = new TimeCheck(source, clock, random, (line) => warnings.push(line))
  const recorded = { at: 0 }
  const time = new ManagerTime(clock, () => recorded.at, check)
  return { clock, source, check, warnings, recorded, time, demand: () => time.demandChecked() }
}

const refused = { code: "time-unchecked" }

test("TimeCheck says under which roots, how far apart and how long", () => {
  const { check, source } = setup()
  assert.deepEqual(check.description, { roots: source.roots.map(certificateFingerprint), maxDifferenceSeconds: 60, holdSeconds: 3600 })
})

test("TimeCheck bears nothing out before the first stamp", async () => {
  const { check, demand, warnings, source } = setup()
  assert.throws(demand, refused)
  source.isSilent = true
  await check.tick()
  assert.throws(demand, refused)
  assert.match(warnings.join("\n"), /^http:\/\/time\.test\/ gives no time stamp/)
  source.isSilent = false
})

test("TimeCheck refuses a clock that is more than 60 s ahead or behind, and says so to the operator", async () => {
  for (const off of [60_000, -60_000]) {
    const { check, demand, clock, warnings } = setup()
    clock.wall += off
    await check.tick()
    demand()
    clock.wall += Math.sign(off)
    assert.throws(demand, refused)
    assert.deepEqual(warnings, [])
    clock.monotonic += 900_000
    await check.tick()
    assert.match(warnings.join("\n"), off > 0 ? /840 s behind/ : /961 s behind/)
  }
})

test("TimeCheck counts on from the stamp by the monotonic clock", async () => {
  const { check, demand, clock } = setup()
  await check.tick()
  clock.advance(1800)
  demand()
  clock.monotonic += 60_001
  assert.throws(demand, { ...refused, message: /behind/ })
})

test("TimeCheck takes an answer's way and the authority's deviation for doubt in both directions", async () => {
  const slow = setup()
  slow.source.onWay = () => slow.clock.advance(30)
  await slow.check.tick()
  slow.demand()
  // The stamp may be of the last moment as well as of the first.
  slow.clock.wall += 30_001
  assert.throws(slow.demand, { ...refused, message: /ahead/ })
  slow.clock.wall -= 30_001 + 60_001
  assert.throws(slow.demand, { ...refused, message: /behind/ })

  const vague = setup()
  vague.source.change = { accuracy: derElement(tags.integer, Uint8Array.of(20)) }
  await vague.check.tick()
  vague.clock.wall += 40_000
  vague.demand()
  vague.clock.wall += 1
  assert.throws(vague.demand, refused)
  vague.clock.wall -= 80_001
  vague.demand()
  vague.clock.wall -= 1
  assert.throws(vague.demand, refused)
})

test("TimeCheck takes a stamp for an hour of the monotonic clock", async () => {
  const { check, demand, clock, source } = setup()
  await check.tick()
  source.isSilent = true
  clock.advance(3600)
  await check.tick()
  demand()
  clock.advance(0.001)
  assert.throws(demand, refused)
  // A host that stops the wall clock gains no more.
  clock.wall -= 1000
  assert.throws(demand, refused)
  source.isSilent = false
  clock.advance(60)
  await check.tick()
  demand()
})

test("TimeCheck asks at the start, every quarter of an hour, a minute after what failed, and once at a time", async () => {
  const { check, clock, source } = setup()
  const asked = (): number => source.answers.length
  await check.tick()
  await check.tick()
  clock.advance(899)
  await check.tick()
  assert.equal(asked(), 1)
  clock.advance(1)
  await check.tick()
  assert.equal(asked(), 2)
  clock.advance(900)
  source.isSilent = true
  await check.tick()
  source.isSilent = false
  clock.advance(59)
  await check.tick()
  assert.equal(asked(), 2)
  clock.advance(1)
  const { promise, resolve } = Promise.withResolvers<void>()
  source.onWay = () => promise
  const first = check.tick()
  clock.advance(3600)
  await check.tick()
  resolve()
  await first
  assert.equal(asked(), 3)
})

test("a refused demand has the authority asked again within a minute, not within seconds", async () => {
  const { check, clock, source, demand } = setup()
  await check.tick()
  clock.wall += 120_000
  clock.advance(10)
  assert.throws(demand, refused)
  await check.tick()
  assert.equal(source.answers.length, 1)
  clock.advance(50)
  await check.tick()
  assert.equal(source.answers.length, 2)
  clock.wall -= 120_000
  demand()
})

test("TimeCheck takes no old answer, no other authority's and no vague one, and keeps the stamp that it has", async () => {
  const { check, clock, source, demand, warnings } = setup()
  await check.tick()
  const [old] = source.answers
  source.replayed = old
  clock.advance(900)
  await check.tick()
  source.replayed = undefined
  for (const change of [
    { signingKey: makeKeyPair() },
    { accuracy: derElement(tags.integer, Uint8Array.of(61)) },
    { status: 2, withoutToken: true },
    { genTimeText: "nonsense" },
  ]) {
    source.change = change
    clock.advance(60)
    await check.tick()
  }
  assert.equal(warnings.length, 5)
  assert.match(warnings[0] ?? "", /another digest than was asked for/)
  demand()
  clock.advance(3600 - 900 - 240)
  demand()
  clock.advance(1)
  assert.throws(demand, refused)
})

test("TimeCheck throws what is a fault of ours", async () => {
  const { check, source } = setup()
  source.onWay = () => {
    throw new TypeError("a fault")
  }
  await assert.rejects(check.tick(), TypeError)
})

test("ManagerTime runs no farther ahead than is borne out, and never behind what is recorded", async () => {
  const { check, clock, time, demand, recorded } = setup()
  await check.tick()
  const start = clock.wall
  clock.wall += 365 * 86_400_000
  assert.equal(time.now().getTime(), start + 60_000)
  clock.wall = start
  demand()
  recorded.at = start + 60_001
  assert.equal(time.now().getTime(), recorded.at)
  assert.throws(demand, { ...refused, message: /the store has recorded/ })
})

test("ManagerTime forgets what an unchecked clock said before the first stamp", async () => {
  const { check, clock, time, demand } = setup()
  const start = clock.wall
  clock.wall += 365 * 86_400_000
  assert.equal(time.now().getTime(), clock.wall)
  clock.wall = start
  await check.tick()
  demand()
  assert.equal(time.now().getTime(), start)
})

test("ManagerTime without a check believes the host's clock, but for going back", () => {
  const clock = new TestClock()
  const time = new ManagerTime(clock, () => 0)
  const start = clock.wall
  clock.wall += 1000
  assert.equal(time.now().getTime(), start + 1000)
  clock.wall = start
  assert.equal(time.now().getTime(), start + 1000)
  time.demandChecked()
})
