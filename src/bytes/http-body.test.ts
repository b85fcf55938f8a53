import assert from "node:assert/strict"
import { test } from "node:test"
import { readBodyBounded } from "./http-body.ts"

test("readBodyBounded() reads up to its bound, and stops asking beyond it", async () => {
  assert.deepEqual(await readBodyBounded(new Response(null), 0), new Uint8Array(0))
  assert.equal((await readBodyBounded(new Response(new Uint8Array(100)), 100)).length, 100)
  await assert.rejects(readBodyBounded(new Response(new Uint8Array(101)), 100), { code: "unavailable" })
  let pulled = 0
  let isCancelled = false
  const endless = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: (controller) => {
      pulled++
      controller.enqueue(new Uint8Array(60))
    },
    cancel: () => {
      isCancelled = true
    },
  })
  await assert.rejects(readBodyBounded(new Response(endless), 100), { code: "unavailable" })
  assert.ok(pulled < 5)
  assert.ok(isCancelled)
})
