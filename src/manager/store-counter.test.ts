import assert from "node:assert/strict"
import { test } from "node:test"
import { UnavailableError } from "../bytes/error.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { routes } from "../protocol/routes.ts"
import { MemoryJournal } from "./journal.testing.ts"
import { counterKey, type MonotonicCounter } from "./store-counter.ts"
import { makeParts, random, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium } = parts

/** A counter that keeps what it counted whatever becomes of the store. */
class TestCounter implements MonotonicCounter {
  value = 7
  isSilent = false
  /** Called before it counts, as when the process dies there. */
  beforeCount: () => void = () => undefined

  async read(): Promise<number> {
    if (this.isSilent) throw new UnavailableError("unavailable", "no TPM")
    return this.value
  }

  async increment(): Promise<void> {
    if (this.isSilent) throw new UnavailableError("unavailable", "no TPM")
    this.beforeCount()
    this.value++
  }
}

interface Bound {
  readonly study: TestStudy
  readonly counter: TestCounter
}

async function bound(): Promise<Bound> {
  const study = await TestStudy.create(parts)
  const counter = new TestCounter()
  study.store.transact(new Date(study.clock.wall), (tx) =>
    tx.put("counters", counterKey, { index: 0x01a00000, name: encodeBase64(random(34)), authValue: encodeBase64(random(32)), value: counter.value }),
  )
  await start({ study, counter })
  return { study, counter }
}

/** As after kill -9: a new process over what the journal holds. */
async function start({ study, counter }: Bound, acceptSetBack = false): Promise<void> {
  study.restart()
  await study.manager.openCounter(() => counter, acceptSetBack)
}

/** What is on the disk now. */
function copyOf({ journal }: TestStudy): MemoryJournal {
  const copy = new MemoryJournal()
  copy.head = journal.head
  copy.rows = new Map(journal.rows)
  copy.log = [...journal.log]
  copy.nodes = [...journal.nodes]
  return copy
}

function putBack({ study }: Bound, { head, rows, log, nodes }: MemoryJournal): void {
  Object.assign(study.journal, { head, rows: new Map(rows), log: [...log], nodes: [...nodes] })
}

const stored = ({ study }: Bound): number | undefined => study.store.get("counters", counterKey)?.value

test("a store that was put back to before a start, a stop or a withdrawal does not start", async () => {
  const world = await bound()
  const { study } = world
  const digest = await study.agree()
  const agreed = copyOf(study)
  await study.withdraw(digest, clinic)
  const withdrawn = copyOf(study)
  putBack(world, agreed)
  await assert.rejects(start(world), { code: "store-set-back" })
  putBack(world, withdrawn)
  await start(world)
  putBack(world, withdrawn)
  await assert.rejects(start(world), { code: "store-set-back" })
})

test("the newest store starts, again and again, also after a count that was broken off", async () => {
  const world = await bound()
  const { study, counter } = world
  for (let round = 0; round < 3; round++) {
    await start(world)
    assert.equal(stored(world), counter.value)
  }
  // The process dies between the store's step and the counter's.
  counter.beforeCount = () => {
    throw new UnavailableError("unavailable", "the power went away")
  }
  await assert.rejects(start(world))
  counter.beforeCount = () => undefined
  assert.equal(study.store.get("counters", counterKey)?.value, counter.value + 1)
  await start(world)
  assert.equal(stored(world), counter.value)
})

test("a bound store starts with no other counter, nor without one", async () => {
  const world = await bound()
  world.study.restart()
  await assert.rejects(world.study.manager.openCounter(undefined, false), { code: "wrong-state" })
  const other = new TestCounter()
  other.value = (stored(world) ?? 0) - 2
  await assert.rejects(start({ study: world.study, counter: other }), { code: "store-set-back" })
  await assert.rejects(start({ study: world.study, counter: other }, true), { code: "store-set-back" })
})

test("an unbound store asks for no counter", async () => {
  const study = await TestStudy.create(parts)
  await study.manager.openCounter(() => assert.fail("it was asked for"), false)
})

test("a withdrawal is counted before it is answered; other steps after a while, and when the manager stops", async () => {
  const { study, counter } = await bound()
  const at = counter.value
  const digest = await study.agree()
  assert.equal(counter.value, at)
  study.clock.advance(599)
  study.manager.tick()
  await study.manager.stop()
  const stopped = at + 1
  assert.equal(counter.value, stopped)
  await study.queue(digest)
  study.clock.advance(600)
  study.manager.tick()
  await study.manager.stop()
  assert.equal(counter.value, stopped + 1)
  // Nothing happened since: a TPM's memory is not worn for it.
  await study.manager.stop()
  study.clock.advance(6000)
  study.manager.tick()
  assert.equal(counter.value, stopped + 1)
  await study.withdraw(digest, clinic)
  assert.equal(counter.value, stopped + 2)
})

/** An output that may leave. */
async function voted(study: TestStudy): Promise<string> {
  const { run, agent } = await study.running()
  const output = await study.makeOutput(agent, run)
  await study.vote(output, clinic)
  return output
}

const fetchOutput = (study: TestStudy, output: string): Promise<unknown> =>
  study.call(routes.getOutputPackage, study.as(consortium), { params: { output } })

test("a silent counter keeps nobody from withdrawing; it is told once, tried again, and in the end nothing is given out", async () => {
  const { study, counter } = await bound()
  const output = await voted(study)
  const at = counter.value
  counter.isSilent = true
  const other = await study.submit(study.policy({ study: "other" }))
  assert.equal((await study.withdraw(other, clinic)).state, "withdrawn")
  study.manager.tick()
  await study.manager.stop()
  assert.deepEqual(study.warnings, ["the store is not counted: no TPM"])
  await fetchOutput(study, output)
  study.clock.advance(1201)
  await assert.rejects(fetchOutput(study, output), { status: 503 })
  counter.isSilent = false
  study.manager.tick()
  await study.manager.stop()
  assert.equal(counter.value, at + 1)
  await fetchOutput(study, output)
})

test("a second manager that goes on from a copy takes the counter along: the first one gives nothing out any more", async () => {
  const { study, counter } = await bound()
  const output = await voted(study)
  const copy = await TestStudy.create(parts)
  Object.assign(copy, { vaultKey: study.vaultKey })
  putBack({ study: copy, counter }, copyOf(study))
  await start({ study: copy, counter })
  await fetchOutput(study, output)
  const other = await study.submit(study.policy({ study: "other" }))
  await study.withdraw(other, clinic)
  await assert.rejects(fetchOutput(study, output), { code: "store-set-back" })
})

test("an older store that is taken up all the same releases nothing under what it holds, says so in its log, and serves successors", async () => {
  const world = await bound()
  const { study } = world
  const { digest, run, agent } = await study.running()
  const output = await study.makeOutput(agent, run)
  await study.vote(output, clinic)
  const older = copyOf(study)
  await study.withdraw(digest, clinic)
  putBack(world, older)
  await start(world, true)
  assert.equal(study.receipts.find(({ kind }) => kind === "store-set-back")?.policy, undefined)
  assert.equal(study.store.get("runs", run)?.state, "ended")
  await assert.rejects(study.queue(digest), { code: "store-set-back" })
  await assert.rejects(study.call(routes.getOutputPackage, study.as(consortium), { params: { output } }), { code: "store-set-back" })
  const { receipts } = await study.call(routes.listReceipts, study.as(vendor))
  assert.ok(receipts.some(({ receipt }) => receipt?.kind === "store-set-back"))
  const successor = await study.agree(study.policy({ supersedes: digest }))
  await study.queue(successor)
  await start(world)
  await assert.rejects(study.call(routes.getOutputPackage, study.as(consortium), { params: { output } }), { code: "store-set-back" })
})
