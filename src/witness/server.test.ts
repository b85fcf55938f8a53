import assert from "node:assert/strict"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { createInterface } from "node:readline"
import { cosignedAt, parseCheckpoint } from "../log/checkpoint.ts"
import { parseSignatureLines } from "../log/note.ts"
import { TestLog } from "./log.testing.ts"
import { serveWitness } from "./server.ts"
import { WitnessState } from "./state.ts"

const folder = await mkdtemp(join(tmpdir(), "perun-witness-"))
after(() => rm(folder, { recursive: true }))

async function makeFolder(name: string, log: TestLog): Promise<string> {
  const own = join(folder, name)
  await WitnessState.create(own, "hospital.example/perun")
  using state = await WitnessState.open(own)
  state.follow(log.key)
  return own
}

async function post(url: string, body: string): Promise<{ readonly status: number; readonly text: string }> {
  const response = await fetch(`${url}/add-checkpoint`, { method: "POST", body })
  return { status: response.status, text: await response.text() }
}

test("a witness is asked over HTTP, at one address and by one method, with a bounded body", async () => {
  const log = new TestLog().append("a")
  using state = await WitnessState.open(await makeFolder("http", log))
  await using served = await serveWitness(state, { host: "127.0.0.1", port: 0 }, () => undefined)
  const { status, text } = await post(served.url, log.request(0))
  assert.equal(status, 200)
  const { note } = parseCheckpoint(log.checkpoint())
  assert.equal(cosignedAt({ text: note.text, signatures: parseSignatureLines(text) }, state.key).length, 1)
  const conflict = await fetch(`${served.url}/add-checkpoint`, { method: "POST", body: log.request(0) })
  assert.deepEqual([conflict.status, conflict.headers.get("content-type"), await conflict.text()], [409, "text/x.tlog.size", "1\n"])
  assert.equal((await fetch(`${served.url}/add-checkpoint`)).status, 405)
  assert.equal((await fetch(`${served.url}/`)).status, 404)
  assert.equal((await post(served.url, "x".repeat(100_000))).status, 413)
})

test("killed over and over while it cosigns, a witness never signs two histories and never forgets one", { timeout: 120_000 }, async () => {
  const log = new TestLog()
  const own = await makeFolder("killed", log)
  let largest = 0
  for (let round = 0; round < 12; round++) {
    const { child, url } = await start(own)
    const killed = once(child, "exit")
    const timer = setTimeout(() => child.kill("SIGKILL"), 5 + 17 * (round % 5))
    let known = largest
    try {
      for (;;) {
        log.append(`${round} ${log.size}`)
        const { status, text } = await post(url, log.request(known))
        if (status === 409) known = Number(text)
        else {
          assert.equal(status, 200, text)
          known = log.size
          largest = log.size
        }
      }
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
      // The connection went with the process.
    }
    await killed
    clearTimeout(timer)
    using state = await WitnessState.open(own)
    const seen = state.log(log.key.name)?.seen?.size ?? 0
    assert.ok(seen >= largest, `cosigned ${largest}, remembers ${seen}`)
    assert.ok(seen <= log.size)
    largest = seen
  }
  assert.ok(largest > 0)
  // Another history from before the last thing that it saw is refused by the witness that starts again.
  const { child, url } = await start(own)
  const size = largest
  log.cut(size - 1).append("another", "end")
  assert.equal((await post(url, log.request(size))).status, 422)
  child.kill("SIGKILL")
  await once(child, "exit")
})

async function start(own: string): Promise<{ readonly child: ChildProcess; readonly url: string }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "witness-child.fixture.ts"), own], { stdio: ["ignore", "pipe", "inherit"] })
  for await (const url of createInterface({ input: child.stdout })) return { child, url }
  throw new Error("the witness did not start")
}
