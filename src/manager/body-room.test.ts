import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { BodyRoom } from "./body-room.ts"
import { makeAgent, makeParts, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const mebibyte = 1024 * 1024
const isBusy = { code: "too-many-requests" }

/** A body that never ends after its first bytes, until `cancel` breaks it off. */
function endless(bytes: number): { readonly body: ReadableStream<Uint8Array>; cancel(): void } {
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined
  const body = new ReadableStream<Uint8Array>({
    start(given) {
      given.enqueue(new Uint8Array(bytes).fill(0x20))
      controller = given
    },
  })
  return { body, cancel: () => controller?.error(new Error("gone")) }
}

test("BodyRoom gives each network its part and all together the whole, and takes back what is disposed of", () => {
  const room = new BodyRoom({ allBytes: 10_000, networkBytes: 6000 })
  const first = room.enter("192.0.2.1")
  const second = room.enter("192.0.2.1")
  const third = room.enter("192.0.2.2")
  first.take(3000)
  second.take(1000)
  assert.throws(() => second.take(1500), isBusy)
  third.take(3000)
  assert.throws(() => room.enter("192.0.2.3").take(2000), isBusy)
  first[Symbol.dispose]()
  room.enter("192.0.2.3").take(2000)
  second.take(1500)
  for (const place of [first, second, third]) place[Symbol.dispose]()
  assert.equal(room.heldBytes, 2512)
})

test("BodyRoom counts chunks of one byte for what they cost", () => {
  const place = new BodyRoom({ allBytes: 10_000, networkBytes: 10_000 }).enter(undefined)
  assert.throws(() => {
    for (let count = 0; count < 100; count++) place.take(1)
  }, isBusy)
})

test("bodies of one stranger that never end fill his network's part and no more, and not that of hosts at work", async () => {
  const study = await TestStudy.create(parts)
  const { agent, run } = await study.running()
  study.address = "198.51.100.66"
  const stranger = await makeAgent()
  const open = Array.from({ length: 100 }, () => endless(mebibyte - 1))
  const answers = open.map(({ body }) => study.fetch("POST", "/v1/enrolments", stranger, body))
  assert.equal((await Promise.race(answers)).status, 429)
  const megabyte = new Uint8Array(mebibyte - 1).fill(0x20)
  assert.equal((await study.fetch("POST", "/v1/enrolments", stranger, megabyte)).status, 429)
  // A host with a lease behind the same address, and a stranger behind another: their bodies are read, and found to be no message.
  assert.equal((await study.fetch("POST", `/v1/runs/${run}/outputs`, agent, megabyte)).status, 400)
  study.address = "192.0.2.1"
  assert.equal((await study.fetch("POST", "/v1/enrolments", stranger, megabyte)).status, 400)
  for (const { cancel } of open) cancel()
  await Promise.allSettled(answers)
  study.address = "198.51.100.66"
  assert.equal((await study.fetch("POST", "/v1/enrolments", stranger, megabyte)).status, 400)
})

test("a caller who goes away inside a body writes nothing into the operator's log", async (t) => {
  const study = await TestStudy.create(parts)
  const log = t.mock.method(console, "error", () => undefined)
  const { body, cancel } = endless(10)
  const answer = study.fetch("POST", "/v1/enrolments", await makeAgent(), body)
  cancel()
  assert.equal((await answer).status, 400)
  const { body: blob, cancel: cancelBlob } = endless(10)
  const digest = digestOf(new Uint8Array(10))
  await study.submit(study.policy())
  const stored = study.fetch("PUT", `/v1/blobs/${digest}`, study.as(parts.clinic), blob)
  cancelBlob()
  assert.equal((await stored).status, 400)
  assert.equal(log.mock.callCount(), 0)
})

test("a stranger who answers one challenge again and again with the largest bodies is refused before they are read", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree()
  await study.enrol(await makeAgent())
  await study.queue(digest)
  const stranger = await makeAgent()
  await study.challenge(stranger)
  const large = (): ReadableStream<Uint8Array> =>
    new ReadableStream({
      start(controller) {
        for (let count = 0; count < 30; count++) controller.enqueue(new Uint8Array(mebibyte).fill(0x20))
        controller.close()
      },
    })
  const statuses: number[] = []
  for (let count = 0; count < 10; count++) statuses.push((await study.fetch("POST", "/v1/claims", stranger, large())).status)
  assert.deepEqual(statuses, [...Array<number>(8).fill(400), 429, 429])
  study.clock.advance(120)
  assert.equal((await study.fetch("POST", "/v1/claims", stranger, large())).status, 400)
})
