import assert from "node:assert/strict"
import { test } from "node:test"
import { proxyFor, openTunnel } from "./proxy-tunnel.ts"
import { startProxy, type TestProxy } from "./proxy.testing.ts"

const proxied = { HTTPS_PROXY: "http://proxy.example:3128" }
const target = { host: "manager.example", port: 7443 }

test("proxyFor() takes https_proxy before HTTPS_PROXY, no other variable, and an empty one for none", () => {
  const at = new URL("https://manager.example:7443")
  assert.equal(proxyFor(at, proxied)?.host, "proxy.example:3128")
  assert.equal(proxyFor(at, { ...proxied, https_proxy: "http://lower.example:1" })?.host, "lower.example:1")
  assert.equal(proxyFor(at, { HTTPS_PROXY: "proxy.example:3128" })?.href, "http://proxy.example:3128/")
  assert.equal(proxyFor(at, { HTTPS_PROXY: "https://proxy.example" })?.protocol, "https:")
  for (const environment of [{}, { HTTPS_PROXY: "" }, { ...proxied, https_proxy: "" }, { HTTP_PROXY: "http://proxy.example" }])
    assert.equal(proxyFor(at, environment), undefined)
})

test("proxyFor() sends a machine's own addresses by no proxy", () => {
  for (const host of ["localhost", "LOCALHOST", "td.localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
    assert.equal(proxyFor(new URL(`https://${host}:7443`), proxied), undefined, host)
})

const exceptions: readonly (readonly [list: string, url: string, direct: boolean])[] = [
  ["*", "https://a.example", true],
  ["other.example", "https://a.example", false],
  ["example", "https://a.example", true],
  [".a.example", "https://a.example", true],
  ["*.a.example", "https://b.a.example", true],
  ["a.example", "https://b.a.example:1", true],
  ["a.example", "https://ba.example", false],
  ["x, A.EXAMPLE y", "https://a.example", true],
  ["a.example:7443", "https://a.example:7443", true],
  ["a.example:7443", "https://a.example", false],
  ["a.example:443", "https://a.example", true],
  ["10.1.2.3", "https://10.1.2.3", true],
  ["10.1.2.3", "https://10.1.2.30", false],
  ["10.1.2.3:443", "https://10.1.2.3", true],
  ["10.0.0.0/8", "https://10.200.1.1:9", true],
  ["10.0.0.0/8", "https://11.0.0.1", false],
  ["10.0.0.0/99", "https://10.0.0.1", false],
  ["fd00::/8", "https://[fd12::1]:7443", true],
  ["[fd12::1]", "https://[fd12::1]", true],
  ["fd12::1", "https://[fd12::2]", false],
  ["10.0.0.0/8", "https://a.example", false],
  [", ,", "https://a.example", false],
]
for (const [list, url, direct] of exceptions)
  test(`proxyFor() with NO_PROXY ${JSON.stringify(list)} goes to ${url} ${direct ? "directly" : "by the proxy"}`, () => {
    assert.equal(proxyFor(new URL(url), { ...proxied, NO_PROXY: list }) === undefined, direct)
    assert.equal(proxyFor(new URL(url), { ...proxied, NO_PROXY: "*", no_proxy: list }) === undefined, direct)
  })

test("proxyFor() refuses what is no proxy's address, and never says what it is", () => {
  for (const text of ["socks5://user:s3cret@proxy.example", "http://user:s3cret@", "http://user:s3cret@proxy.example:99999999"])
    assert.throws(
      () => proxyFor(new URL("https://a.example"), { HTTPS_PROXY: text }),
      (error: Error) => !String(error).includes("s3cret") && error.message.startsWith("HTTPS_PROXY is not"),
    )
})

function proxyUrl(proxy: TestProxy, user = ""): URL {
  return new URL(`http://${user}${proxy.address}`)
}

test("openTunnel() asks for the address and gives its credentials to the proxy", async () => {
  await using proxy = await startProxy()
  await using behind = await startProxy()
  proxy.names.set("manager.example:7443", Number(behind.address.split(":")[1]))
  let given: string | undefined
  proxy.answer = (request) => {
    given = request.headers["proxy-authorization"]
    return false
  }
  const socket = await openTunnel(proxyUrl(proxy, "ann:a%20b%3A@"), target, 5000)
  socket.write("GET /through HTTP/1.1\r\nhost: x\r\n\r\n")
  const answer = await new Promise<string>((resolve) => socket.once("data", (chunk: Buffer) => resolve(chunk.toString("latin1"))))
  socket.destroy()
  assert.match(answer, /^HTTP\/1\.1 200/)
  assert.deepEqual([proxy.asked, behind.asked], [["manager.example:7443"], ["GET /through"]])
  assert.equal(given, `Basic ${Buffer.from("ann:a b:").toString("base64")}`)
  await assert.rejects(openTunnel(proxyUrl(proxy), { host: "fd12::1", port: 1 }, 5000), { code: "unavailable" })
  assert.equal(proxy.asked.at(-1), "[fd12::1]:1")
})

const refusals: readonly (readonly [what: string, answer: string, code: string, message: RegExp])[] = [
  ["wants a password", "HTTP/1.1 407 who?\r\ncontent-length: 0\r\n\r\n", "permission-denied", /wants a user and a password/],
  ["forbids it", "HTTP/1.1 403 no\r\ncontent-length: 0\r\n\r\n", "unavailable", /does not connect to manager\.example:7443: status 403/],
  ["answers with a page", "HTTP/1.1 302 look\r\nlocation: http://login\r\ncontent-length: 0\r\n\r\n", "unavailable", /status 302/],
  ["speaks before the peer", "HTTP/1.1 200 ok\r\n\r\nsurprise", "unavailable", /status 200/],
  ["is none", "SSH-2.0-OpenSSH\r\n", "unavailable", /cannot be reached/],
  ["sends a header without end", `HTTP/1.1 200 ok\r\nx: ${"y".repeat(40_000)}\r\n\r\n`, "unavailable", /cannot be reached/],
]
for (const [what, answer, code, message] of refusals)
  test(`openTunnel() by a proxy that ${what} is one error`, async () => {
    await using proxy = await startProxy()
    proxy.answer = (_, socket) => {
      socket.write(answer)
      return true
    }
    await assert.rejects(openTunnel(proxyUrl(proxy, "ann:s3cret@"), target, 5000), (error: Error & { code?: string }) => {
      assert.ok(!String(error).includes("s3cret"))
      return error.code === code && message.test(error.message)
    })
  })

test("openTunnel() waits for a silent proxy no longer than it was told, and says when there is none", async () => {
  await using proxy = await startProxy()
  proxy.answer = () => true
  await assert.rejects(openTunnel(proxyUrl(proxy), target, 50), { code: "timeout" })
  await assert.rejects(openTunnel(new URL("http://127.0.0.1:1"), target, 5000), { code: "unavailable", message: /ECONNREFUSED/ })
})
