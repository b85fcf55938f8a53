import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { ChallengeBook, type ChallengeFacts } from "./challenges.ts"
import { random } from "./study.testing.ts"

const now = new Date()

function keyOf(name: string): Digest {
  return digestOf(encodeUtf8(name))
}

function facts(purpose: "claim" | "renew", name: string): ChallengeFacts {
  const tlsKey = keyOf(name)
  return { purpose, tlsKey, host: "host", policy: tlsKey, job: "train", run: name, lease: name, previous: undefined }
}

test("a book that is full of strangers' claims still gives challenges for renewals", () => {
  let monotonic = 0
  const book = new ChallengeBook(() => monotonic, random)
  const first = book.issue(facts("claim", "0"), now)
  for (let count = 1; count < 10_000; count++) book.issue(facts("claim", String(count)), now)
  assert.throws(() => book.issue(facts("claim", "late"), now), { code: "too-many-requests" })
  const renewal = book.issue(facts("renew", "host"), now)
  assert.equal(book.take(renewal.challenge, { purpose: "renew", tlsKey: keyOf("host"), lease: "host" }).challenge, renewal.challenge)
  // What nobody can answer any more makes room: one that was used, then all that are old.
  book.take(first.challenge, { purpose: "claim", tlsKey: keyOf("0") })
  book.issue(facts("claim", "late"), now)
  assert.throws(() => book.take(first.challenge, { purpose: "claim", tlsKey: keyOf("0") }), { code: "challenge-unknown" })
  assert.throws(() => book.issue(facts("claim", "later"), now), { code: "too-many-requests" })
  monotonic = 120_000
  book.issue(facts("claim", "later"), now)
})

test("one key has 16 open challenges of each purpose", () => {
  const book = new ChallengeBook(() => 0, random)
  for (let count = 0; count < 16; count++) for (const purpose of ["claim", "renew"] as const) book.issue(facts(purpose, "a"), now)
  for (const purpose of ["claim", "renew"] as const) assert.throws(() => book.issue(facts(purpose, "a"), now), { code: "too-many-requests" })
  book.issue(facts("claim", "b"), now)
})
