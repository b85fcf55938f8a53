import assert from "node:assert/strict"
import { test } from "node:test"
import { Genuine } from "./genuine.ts"

test("Genuine claims cannot be exchanged afterwards", () => {
  const genuine = Genuine.afterVerification({ host: "a" })
  assert.throws(() => Object.assign(genuine, { claims: { host: "b" } }), TypeError)
  assert.deepEqual(genuine.claims, { host: "a" })
})
