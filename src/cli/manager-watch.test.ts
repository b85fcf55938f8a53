/** Watches a manager as its operator does: the log's file, the metrics, readiness; as child processes. */
import assert from "node:assert/strict"
import type { ChildProcess } from "node:child_process"
import { mkdtemp, readFile, rename, rm } from "node:fs/promises"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { after, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { listenOn } from "../bytes/listen.ts"
import { demandStatus, end, endOf, startCommand } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-watch-"))
const started: ChildProcess[] = []
after(async () => {
  for (const child of started) await end(child, "SIGKILL")
  await rm(base, { recursive: true, force: true })
})
const environment = { PERUN_HOME: join(base, "home") }
const folder = join(base, "manager")
await demandStatus(["manager", "init", folder], 0, environment)

async function serve(
  event: string,
  folder: string,
  words: readonly string[],
): Promise<{ child: ChildProcess; event: Readonly<Record<string, unknown>> }> {
  const child = startCommand(["manager", "serve", folder, "--listen", "127.0.0.1:0", "--json", ...words], environment)
  started.push(child)
  assert.ok(child.stdout)
  for await (const line of createInterface({ input: child.stdout })) {
    const found = JSON.parse(line) as Readonly<Record<string, unknown>>
    if (found["event"] === event) return { child, event: found }
  }
  throw new Error((await endOf(child)).stderr)
}

async function freePort(): Promise<number> {
  const server = createServer()
  await listenOn(server, { host: "127.0.0.1", port: 0 })
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

/** Until `read` gives a text that fits, or some seconds have passed. */
async function eventually(read: () => Promise<string>, form: RegExp): Promise<string> {
  for (let tries = 0; ; tries++) {
    const text = await read().catch(() => "")
    if (form.test(text)) return text
    if (tries === 100) assert.match(text, form)
    await sleep(50)
  }
}

test("manager serve writes its log to a file, opens it anew on SIGHUP, and shows metrics and readiness", async () => {
  const path = join(base, "perun.log")
  const { child, event } = await serve("listening", folder, ["--log", path, "--log-level", "debug", "--metrics", "127.0.0.1:0"])
  const metrics = String(event["metrics"])
  assert.match(metrics, /^http:\/\/127\.0\.0\.1:\d+$/)
  await demandStatus(["manager", "trust", String(event["url"]), String(event["key"])], 0, environment)
  const log = async (): Promise<string> => readFile(path, "utf8")
  await eventually(log, /"route":"describeManager"/)
  await rename(path, `${path}.1`)
  assert.equal(child.kill("SIGHUP"), true)
  await eventually(log, /^$/)
  await demandStatus(["manager", "status"], 0, environment)
  await eventually(log, /"route":"health","method":"GET","status":200/)
  const scrape = await fetch(`${metrics}/metrics`)
  assert.match(scrape.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/)
  assert.match(await scrape.text(), /^perun_http_requests_total\{route="health",code="ok"\} 1$/m)
  const statuses = await Promise.all(
    ["readyz", "healthz", "nothing"].map(async (name) => {
      const response = await fetch(`${metrics}/${name}`)
      return [name, response.status, await response.text()]
    }),
  )
  assert.deepEqual(statuses.slice(0, 2), [
    ["readyz", 200, "ok\n"],
    ["healthz", 200, "ok\n"],
  ])
  assert.equal(statuses[2]?.[1], 404)
  assert.equal((await fetch(`${metrics}/metrics`, { method: "POST", body: "x" })).status, 405)
  await end(child)
})

test("a manager that waits for its custodians is alive, locked and not ready", async () => {
  const locked = join(base, "locked")
  const cards: string[] = []
  for (const name of ["ann", "ben"]) {
    const home = join(base, name)
    await demandStatus(["identity", "create", name], 0, { PERUN_HOME: home })
    cards.push("--share", join(home, "identity", "identity.json"))
  }
  await demandStatus(["manager", "init", locked, ...cards, "--threshold", "2"], 0, environment)
  // Where the metrics are it says once it is unlocked; before, the operator has chosen the port.
  const address = `127.0.0.1:${await freePort()}`
  const { child, event } = await serve("locked", locked, ["--metrics", address])
  assert.equal((await fetch(`http://${address}/healthz`)).status, 200)
  const ready = await fetch(`http://${address}/readyz`)
  assert.deepEqual([ready.status, await ready.text()], [503, "locked\n"])
  assert.match(await (await fetch(`http://${address}/metrics`)).text(), /^perun_locked 1$/m)
  assert.match(String(event["url"]), /^https:/)
  await end(child)
})

test("a log on standard error that nobody reads any more does not end the manager", async () => {
  const { child, event } = await serve("listening", folder, ["--log", "-", "--log-level", "debug"])
  child.stderr?.destroy()
  await demandStatus(["manager", "trust", String(event["url"]), String(event["key"]), "--replace"], 0, environment)
  await demandStatus(["manager", "status", "--manager", String(event["url"])], 0, environment)
  assert.equal(child.exitCode, null)
  await end(child)
})

test("manager serve refuses a log, a level or an address that cannot be", async () => {
  await demandStatus(["manager", "serve", folder, "--log-level", "debug"], 2, environment)
  await demandStatus(["manager", "serve", folder, "--log", "-", "--log-level", "loud"], 2, environment)
  await demandStatus(["manager", "serve", folder, "--log", join(base, "none", "x.log")], 40, environment)
  await demandStatus(["manager", "serve", folder, "--log", base], 40, environment)
  await demandStatus(["manager", "serve", folder, "--metrics", "9464"], 2, environment)
})
