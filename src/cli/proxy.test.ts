/** Drives clients as child processes that reach their manager only through an HTTP proxy. */
import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect as tlsConnect, createServer as createTlsServer } from "node:tls"
import { after, test } from "node:test"
import { promisify } from "node:util"
import { createTlsIdentity } from "../protocol/tls.ts"
import { startProxy } from "../protocol/proxy.testing.ts"
import { demandStatus, end, lastEvent, serveFolder } from "./process.testing.ts"

const base = await mkdtemp(join(tmpdir(), "perun-cli-proxy-"))
const home = { PERUN_HOME: join(base, "home") }
await demandStatus(["identity", "create", "ann"], 0, home)
const made = lastEvent((await demandStatus(["manager", "init", join(base, "manager"), "--key-file", "--json"], 0, home)).stdout)
const key = String(made["key"])
const { server, url } = await serveFolder(join(base, "manager"))
after(async () => {
  await end(server)
  await rm(base, { recursive: true, force: true })
})
const port = Number(new URL(url).port)
/** A name that only the proxy knows. */
const name = "manager.perun.invalid"
const address = `https://${name}:7443`

test("a client reaches its manager through a proxy, which sees whom it asks for and ciphertext", async () => {
  await using proxy = await startProxy()
  proxy.names.set(`${name}:7443`, port)
  const environment = { ...home, HTTPS_PROXY: `http://${proxy.address}` }
  await demandStatus(["manager", "trust", address, key], 0, environment)
  const status = lastEvent((await demandStatus(["manager", "status", "--json"], 0, environment)).stdout)
  assert.equal(status["key"], key)
  assert.ok(proxy.asked.length >= 2 && proxy.asked.every((asked) => asked === `${name}:7443`), proxy.asked.join())
  const seen = Buffer.concat(proxy.sent).toString("latin1")
  assert.ok(seen.length > 500)
  for (const word of ["/v1/", "HTTP/1.1", "perun-session"]) assert.ok(!seen.includes(word), word)
})

test("without the proxy, or where NO_PROXY names the manager, nothing goes by it", async () => {
  await using proxy = await startProxy()
  proxy.names.set(`${name}:7443`, port)
  for (const environment of [home, { ...home, HTTPS_PROXY: `http://${proxy.address}`, NO_PROXY: ".perun.invalid" }]) {
    const { stderr } = await demandStatus(["manager", "status"], 40, environment)
    assert.match(stderr, /cannot be reached/)
  }
  // The machine's own addresses do not, either.
  await demandStatus(["manager", "trust", url, key], 0, { PERUN_HOME: join(base, "other"), HTTPS_PROXY: `http://${proxy.address}` })
  assert.deepEqual(proxy.asked, [])
})

test("a proxy that puts itself into the connection is refused by the manager's key, and learns nothing", async () => {
  const own = createTlsIdentity("proxy")
  const heard: Uint8Array[] = []
  // It ends TLS itself and goes on to the manager in the client's place.
  const inside = createTlsServer({ key: own.privateKeyPem, cert: own.certificatePem, minVersion: "TLSv1.3" }, (socket) => {
    socket.on("error", () => undefined)
    const onward = tlsConnect({ host: "127.0.0.1", port, rejectUnauthorized: false })
    onward.on("error", () => undefined)
    socket.on("data", (chunk: Uint8Array) => {
      heard.push(chunk)
      onward.write(chunk)
    })
    onward.pipe(socket)
  })
  await new Promise<void>((listening) => inside.listen(0, "127.0.0.1", listening))
  after(() => inside.close())
  await using proxy = await startProxy()
  proxy.names.set(`${name}:7443`, (inside.address() as AddressInfo).port)
  const environment = { ...home, HTTPS_PROXY: `http://${proxy.address}` }
  const { stderr } = await demandStatus(["policy", "status"], 10, environment)
  assert.match(stderr, /^perun: description\.tlsKey: found sha256:[0-9a-f]{64}, the description names sha256:[0-9a-f]{64}\n$/)
  // At most the question who it is, which anybody may ask, went in the clear; no session.
  assert.ok(!Buffer.concat(heard).toString("latin1").toLowerCase().includes("perun-session"))
})

test("a proxy that is not there, that refuses, or whose variable is broken is one line and the right status", async () => {
  await using proxy = await startProxy()
  const lone = createServer()
  await new Promise<void>((listening) => lone.listen(0, "127.0.0.1", listening))
  const free = (lone.address() as AddressInfo).port
  await new Promise((closed) => lone.close(closed))
  const cases: readonly (readonly [string, number, RegExp])[] = [
    [`http://127.0.0.1:${free}`, 40, /^perun: the proxy 127\.0\.0\.1:\d+ cannot be reached: ECONNREFUSED\n$/],
    [`http://ann:s3cret@${proxy.address}`, 40, /^perun: the proxy 127\.0\.0\.1:\d+ does not connect to manager\.perun\.invalid:7443: status 502\n$/],
    ["socks5://ann:s3cret@proxy", 30, /^perun: HTTPS_PROXY is not the address of an HTTP proxy, http:\/\/HOST:PORT\n$/],
  ]
  for (const [text, status, words] of cases) {
    const { stderr } = await demandStatus(["manager", "status"], status, { ...home, HTTPS_PROXY: text })
    assert.match(stderr, words)
  }
})

test("what fetches public things goes by the proxy as the launcher starts it, and to this machine itself it does not", async () => {
  await using proxy = await startProxy()
  await using direct = await startProxy()
  const root = join(import.meta.dirname, "../..")
  const script = `root=$1; . "$1/scripts/setup.sh"; perun_node_settings; exec "$2" -e "$3"`
  const program = `(async () => { for (const url of ["http://tsa.perun.invalid/", "http://${direct.address}/"]) await fetch(url).catch(() => undefined) })()`
  const environment = { PATH: process.env["PATH"] ?? "", HTTP_PROXY: `http://${proxy.address}`, NO_PROXY: "x.example" }
  await promisify(execFile)("sh", ["-c", script, "sh", root, process.execPath, program], { env: environment })
  assert.equal(proxy.asked.length, 1)
  assert.match(proxy.asked[0] ?? "", /tsa\.perun\.invalid/)
  assert.deepEqual(direct.asked, ["GET /"])
})
