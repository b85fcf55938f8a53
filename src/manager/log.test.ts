import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeHex } from "../bytes/text.ts"
import { CompactRange, leafHash } from "../log/merkle.ts"
import { makeParts, TestStudy } from "./study.testing.ts"
import { receiptDigest, receiptLeaf } from "../protocol/receipts.ts"
import { type ResponseBody, type Route, routes } from "../protocol/routes.ts"
import { fetchReceipts, followLog, nothingSeen } from "../protocol/follow-log.ts"

const parts = await makeParts()
const { clinic } = parts
type Connection = ReturnType<TestStudy["connectionOf"]>

/** A connection whose answers somebody in between changes; the manager itself, were it another program, could. */
function changing<R extends Route>(connection: Connection, of: R, change: (answer: ResponseBody<R>) => ResponseBody<R>): Connection {
  const call: Connection["call"] = async (route, options) => {
    const answer = await connection.call(route, options)
    return (route as Route) === (of as Route) ? (change(answer as ResponseBody<R>) as typeof answer) : answer
  }
  return { ...connection, call }
}

test("fetchReceipts() computes every leaf and comes to the root that the manager signed; more than a page too", async () => {
  const study = await TestStudy.create(parts)
  await study.agree()
  const connection = study.connectionOf(clinic)
  const { receipts, head } = await fetchReceipts(connection)
  assert.deepEqual([receipts.length, head.size], [study.receipts.length, study.receipts.length])
  study.store.transact(new Date(study.clock.wall), (tx) => {
    for (let count = 0; count < 1100; count++) tx.append({ salt: String(count).padStart(32, "0"), at: "2026-11-22T12:00:00Z", kind: "run-queued" })
  })
  const more = await fetchReceipts(connection, head)
  assert.equal(more.receipts.length, receipts.length + 1100)
})

test("fetchReceipts() refuses receipts that are not the log's: one changed, left out, doubled, moved, or a content of another leaf", async () => {
  const study = await TestStudy.create(parts)
  await study.agree()
  const connection = study.connectionOf(clinic)
  type Page = ResponseBody<typeof routes.listReceipts>
  const [first, second] = study.receipts
  assert.ok(first && second)
  const spoiled: Readonly<Record<string, (page: Page) => Page>> = {
    "another digest": (page) => ({ ...page, receipts: page.receipts.map((shown, at) => (at === 1 ? { digest: receiptDigest(first) } : shown)) }),
    "one left out": (page) => ({ ...page, receipts: page.receipts.toSpliced(1, 1) }),
    "one doubled": (page) => ({ ...page, receipts: page.receipts.toSpliced(1, 1, ...page.receipts.slice(0, 1)) }),
    "two that changed places": (page) => ({
      ...page,
      receipts: [...page.receipts.slice(1, 2), ...page.receipts.slice(0, 1), ...page.receipts.slice(2)],
    }),
    "another content": (page) => ({ ...page, receipts: page.receipts.map((shown, at) => (at === 1 ? { ...shown, receipt: first } : shown)) }),
    "other places": (page) => ({ ...page, from: page.from + 1 }),
    nothing: (page) => ({ ...page, receipts: [] }),
  }
  for (const [what, change] of Object.entries(spoiled))
    await assert.rejects(fetchReceipts(changing(connection, routes.listReceipts, change)), { code: "wrong-receipts" }, what)
})

test("followLog() goes on from what was seen, and refuses a log that is shorter or another", async () => {
  const study = await TestStudy.create(parts)
  await study.agree()
  const connection = study.connectionOf(clinic)
  const seen = await followLog(connection, nothingSeen)
  await study.queue(study.store.list("policies")[0]?.digest ?? "sha256:")
  const later = await followLog(connection, seen)
  assert.ok(later.size > seen.size)
  assert.equal((await followLog(connection, later)).size, later.size)
  const longer = { size: later.size + 1, root: later.root }
  await assert.rejects(followLog(connection, longer), { code: "older-tree" })
  // Of the same and of a smaller size, but another story.
  const range = CompactRange.empty()
  for (const [index, receipt] of study.receipts.entries()) range.append(leafHash(receiptLeaf(index, receiptDigest({ ...receipt, by: "somebody" }))))
  await assert.rejects(followLog(connection, { size: range.size, root: range.root() }), { code: "forked" })
  await assert.rejects(followLog(connection, { ...seen, root: range.root() }), { code: "forked" })
})

test("followLog() refuses a checkpoint that the manager's log key has not signed, of another log, or with another proof", async () => {
  const study = await TestStudy.create(parts)
  await study.agree()
  const connection = study.connectionOf(clinic)
  const seen = await followLog(connection, nothingSeen)
  await study.queue(study.store.list("policies")[0]?.digest ?? "sha256:")
  const other = await TestStudy.create(parts)
  await other.agree()
  const foreign = (await other.connectionOf(clinic).call(routes.getLog, { query: {} })).checkpoint
  const spoil = (change: (answer: ResponseBody<typeof routes.getLog>) => ResponseBody<typeof routes.getLog>): Connection =>
    changing(connection, routes.getLog, change)
  await assert.rejects(
    followLog(
      spoil((answer) => ({ ...answer, checkpoint: foreign })),
      nothingSeen,
    ),
    { code: "wrong-checkpoint" },
  )
  const resized = spoil((answer) => ({ ...answer, checkpoint: answer.checkpoint.replace(/^[0-9]+$/m, "9999") }))
  await assert.rejects(followLog(resized, nothingSeen), { code: "wrong-checkpoint" })
  const unproved = spoil((answer) => ({ ...answer, consistency: answer.consistency.map(() => encodeHex(new Uint8Array(32))) }))
  await assert.rejects(followLog(unproved, seen), { code: "forked" })
})
