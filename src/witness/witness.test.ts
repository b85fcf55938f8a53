import assert from "node:assert/strict"
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { cosignedAt, encodeWitnessRequest, parseCheckpoint } from "../log/checkpoint.ts"
import { encodeNote, parseNote, parseSignatureLines } from "../log/note.ts"
import { sizeMediaType } from "./errors.ts"
import { TestLog } from "./log.testing.ts"
import { respond, type WitnessAnswer, type WitnessEvent } from "./server.ts"
import { WitnessState } from "./state.ts"

const folder = await mkdtemp(join(tmpdir(), "perun-witness-"))
after(() => rm(folder, { recursive: true }))
const now = 1_800_000_000
let made = 0

async function makeWitness(
  ...logs: readonly TestLog[]
): Promise<{ state: WitnessState; ask: (body: string) => WitnessAnswer; events: WitnessEvent[] }> {
  const own = join(folder, `witness-${++made}`)
  await WitnessState.create(own, "hospital.example/perun")
  const state = await WitnessState.open(own)
  for (const { key } of logs) state.follow(key)
  const events: WitnessEvent[] = []
  return { state, ask: (body) => respond(state, encodeUtf8(body), now, (event) => events.push(event)), events }
}

function demandCosigned(state: WitnessState, log: TestLog, answer: WitnessAnswer): void {
  assert.equal(answer.status, 200, answer.body)
  const { note } = parseCheckpoint(log.checkpoint())
  assert.deepEqual(cosignedAt({ text: note.text, signatures: parseSignatureLines(answer.body) }, state.key), [now])
}

test("a witness cosigns a log as it grows, and again what it has cosigned", async () => {
  const log = new TestLog()
  using witness = (await makeWitness(log)).state
  const ask = (body: string): WitnessAnswer => respond(witness, encodeUtf8(body), now, () => undefined)
  let seen = 0
  for (const entries of [["a"], ["b", "c"], [], ["d", "e", "f", "g", "h"]]) {
    log.append(...entries)
    demandCosigned(witness, log, ask(log.request(seen)))
    seen = log.size
  }
  assert.equal(witness.log(log.key.name)?.seen?.size, 8)
})

test("every refusal has the status of the specification, and moves nothing", async () => {
  const log = new TestLog().append("a", "b", "c")
  const other = new TestLog("other.example/log").append("a")
  const { state, ask, events } = await makeWitness(log)
  using _ = state
  const expect = (body: string, status: number, text: RegExp | string, mediaType = "text/plain; charset=utf-8"): void => {
    const answer = ask(body)
    assert.deepEqual([answer.status, answer.mediaType], [status, mediaType], answer.body)
    if (typeof text === "string") assert.equal(answer.body, text)
    else assert.match(answer.body, text)
  }
  expect(other.request(0), 404, /follows no log other\.example\/log/)
  const stranger = new TestLog().append("a", "b", "c")
  expect(stranger.request(0), 403, /signature/)
  expect(log.request(1), 409, "0\n", sizeMediaType)
  demandCosigned(state, log, ask(log.request(0)))
  expect(log.request(0), 409, "3\n", sizeMediaType)
  const three = { request: log.request(3), checkpoint: log.checkpoint() }
  log.append("d")
  expect(log.request(2), 409, "3\n", sizeMediaType)
  // Older than what it says it goes on from.
  expect(encodeWitnessRequest({ oldSize: 4, proof: [], checkpoint: three.checkpoint }), 400, /does not become shorter/)
  expect(encodeWitnessRequest({ oldSize: 3, proof: log.proof(1), checkpoint: log.checkpoint() }), 422, /does not begin with/)
  expect(encodeWitnessRequest({ oldSize: 3, proof: [], checkpoint: log.checkpoint() }), 422, /does not begin with/)
  // Another history of the same and of a larger size, signed by the log itself.
  const fork = log.cut(2)
  fork.append("x")
  expect(fork.request(3), 409, "3\n", sizeMediaType)
  fork.append("y")
  expect(fork.request(3), 422, /does not begin with/)
  // A proof where there is nothing to prove.
  expect(encodeWitnessRequest({ oldSize: 3, proof: [new Uint8Array(32)], checkpoint: three.checkpoint }), 422, /proof between equal trees is empty/)
  for (const body of [
    "",
    "old 3\n",
    "old x\n\n",
    `old 03\n\n${three.checkpoint}`,
    three.request.replace("\n\n", "\nAAAA\n\n"),
    three.request.slice(0, -1),
  ])
    expect(body, 400, /./)
  assert.equal(state.log(log.key.name)?.seen?.size, 3)
  assert.equal(ask(three.request).status, 200)
  assert.deepEqual(events[0], { event: "refused", code: "unknown-log", message: "this witness follows no log other.example/log" })
  assert.deepEqual(events.at(-1), { event: "cosigned", origin: log.key.name, size: 3 })
})

test("a proof from nothing is empty", async () => {
  const log = new TestLog().append("a")
  const { state, ask } = await makeWitness(log)
  using _ = state
  const answer = ask(encodeWitnessRequest({ oldSize: 0, proof: [new Uint8Array(32)], checkpoint: log.checkpoint() }))
  assert.equal(answer.status, 422)
  assert.equal(state.log(log.key.name)?.seen, undefined)
})

test("signatures of others on a checkpoint do not matter; that of the log does", async () => {
  const log = new TestLog().append("a")
  const stranger = new TestLog()
  const { state, ask } = await makeWitness(log)
  using _ = state
  const { text, signatures } = parseNote(log.checkpoint())
  const { signatures: foreign } = parseNote(stranger.append("a").checkpoint())
  const withForeign = encodeNote({ text, signatures: [...foreign, ...signatures] })
  assert.equal(ask(encodeWitnessRequest({ oldSize: 0, proof: [], checkpoint: encodeNote({ text, signatures: foreign }) })).status, 403)
  assert.equal(ask(encodeWitnessRequest({ oldSize: 0, proof: [], checkpoint: withForeign })).status, 200)
})

test("what was seen is there after a new start; two processes cannot hold one witness", async () => {
  const log = new TestLog().append("a", "b")
  const { state, ask } = await makeWitness(log)
  const own = join(folder, `witness-${made}`)
  assert.equal(ask(log.request(0)).status, 200)
  await assert.rejects(WitnessState.open(own), { code: "unavailable", message: /does a witness run on it/ })
  const key = state.key
  state[Symbol.dispose]()
  using again = await WitnessState.open(own)
  assert.deepEqual(again.key, key)
  assert.equal(again.log(log.key.name)?.seen?.size, 2)
  assert.equal(respond(again, encodeUtf8(log.request(0)), now, () => undefined).status, 409)
})

test("one origin has one key", async () => {
  const [log, other] = [new TestLog(), new TestLog()]
  const { state } = await makeWitness(log)
  using _ = state
  assert.equal(state.follow(log.key), "known")
  assert.throws(() => state.follow(other.key), { code: "already-exists" })
  assert.deepEqual(
    state.logs().map(({ key }) => key),
    [log.key],
  )
})

test("a witness's folder is made whole or not at all, and never over something", async () => {
  const own = join(folder, "taken")
  await writeFile(own, "")
  await assert.rejects(WitnessState.create(own, "a.example/w"), { code: "already-exists" })
  await assert.rejects(WitnessState.create(join(folder, "named"), "a name"), { code: "malformed" })
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.endsWith(".new")),
    [],
  )
  await assert.rejects(WitnessState.open(join(folder, "nothing")), { code: "unavailable" })
})

test("a state that cannot be written is answered 503, and nothing is signed", async () => {
  const log = new TestLog().append("a")
  const { state, ask, events } = await makeWitness(log)
  state[Symbol.dispose]()
  const answer = ask(log.request(0))
  assert.deepEqual([answer.status, answer.body], [503, "the witness cannot answer now\n"])
  assert.equal(events.length, 1)
})
