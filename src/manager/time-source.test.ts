import assert from "node:assert/strict"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { after, test } from "node:test"
import { parseCertificate } from "../pki/certificate.ts"
import { LaboratoryTimeAuthority } from "../pki/timestamp-authority.testing.ts"
import { maxTimestampBytes } from "../pki/timestamp-format.ts"
import { random, TestClock } from "./study.testing.ts"
import { TimeCheck } from "./time-check.ts"
import { openTimeSource } from "./time-source.ts"

const authority = new LaboratoryTimeAuthority()
const roots = [parseCertificate(authority.root)]
const clock = new TestClock()
let status = 200
let mediaType: string | undefined = "application/timestamp-reply"
let answer = (request: Uint8Array): Uint8Array => authority.answer(request, { genTime: clock.wall })
const honest = answer
const heard: (string | undefined)[] = []
const server = createServer((request, response) => {
  const parts: Buffer[] = []
  request.on("data", (part: Buffer) => parts.push(part))
  request.on("end", () => {
    heard.push(request.method, request.headers["content-type"], request.url)
    if (mediaType !== undefined) response.setHeader("content-type", mediaType)
    response.writeHead(status, { location: "/elsewhere" }).end(answer(new Uint8Array(Buffer.concat(parts))))
  })
})
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
after(() => {
  server.closeAllConnections()
  server.close()
})
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/tsr`

test("openTimeSource() asks as RFC 3161 has it, and what comes is a stamp", async () => {
  const warnings: string[] = []
  const check = new TimeCheck(openTimeSource(url, roots), clock, random, (line) => warnings.push(line))
  await check.tick()
  assert.deepEqual(warnings, [])
  check.demand({ "the host's clock": clock.wall })
  assert.deepEqual(heard, ["POST", "application/timestamp-query", "/tsr"])
})

test("openTimeSource() takes no other status, no redirect, no other type and no endless answer", async () => {
  const asked = async (): Promise<Uint8Array> => openTimeSource(url, roots).ask(new Uint8Array(8))
  const refuses = async (message: RegExp): Promise<void> => assert.rejects(asked(), { code: "unavailable", message })
  answer = () => new Uint8Array(8)
  await asked()
  status = 503
  await refuses(/status 503/)
  status = 302
  const before = heard.length
  await refuses(/cannot be reached/)
  assert.equal(heard.length, before + 3)
  status = 200
  mediaType = "text/html"
  await refuses(/text\/html/)
  mediaType = undefined
  await refuses(/no time stamp/)
  mediaType = "Application/Timestamp-Reply; charset=x"
  await asked()
  answer = () => new Uint8Array(maxTimestampBytes)
  assert.equal((await asked()).length, maxTimestampBytes)
  answer = () => new Uint8Array(maxTimestampBytes + 1)
  await refuses(/larger/)
  answer = honest
  await assert.rejects(openTimeSource("http://127.0.0.1:9/", roots).ask(new Uint8Array(8)), { code: "unavailable" })
})

test("openTimeSource() wants an address of HTTP and roots, each once", () => {
  for (const wrong of ["", "nonsense", "ftp://time.test/", "file:///tmp/x", "http://name:word@time.test/"])
    assert.throws(() => openTimeSource(wrong, roots), { code: "malformed" }, wrong)
  assert.throws(() => openTimeSource(url, []), { code: "malformed" })
  assert.throws(() => openTimeSource(url, [...roots, ...roots]), { code: "duplicate" })
  const many = Array.from({ length: 17 }, () => parseCertificate(new LaboratoryTimeAuthority().root))
  assert.throws(() => openTimeSource(url, many), { code: "malformed" })
})
