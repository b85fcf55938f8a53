import assert from "node:assert/strict"
import { test } from "node:test"
import { digestOf } from "../bytes/digest.ts"
import { problemSchema } from "../protocol/problem.ts"
import { type Route, routes } from "../protocol/routes.ts"
import { makeSessionHeader } from "../protocol/session.ts"
import { makeAgent, makeParts, random, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, stranger } = parts

async function problemOf(response: Response): Promise<readonly [number, string]> {
  assert.equal(response.headers.get("content-type"), "application/problem+json")
  const { code, status } = problemSchema.parse(await response.json())
  assert.equal(status, response.status)
  return [status, code]
}

test("every route but the open ones refuses a call without client certificate before it reads anything", async () => {
  const study = await TestStudy.create(parts)
  for (const route of Object.values(routes) as Route[]) {
    const path = route.path.replaceAll(/:[a-z]+/g, "x")
    const response = await study.fetch(route.method, path, {}, route.method === "GET" || route.method === "HEAD" ? undefined : "{")
    if (route.access === "open") assert.equal(response.status, 200, path)
    else if (route.method === "HEAD") assert.equal(response.status, 401)
    else assert.deepEqual(await problemOf(response), [401, "unauthenticated"], path)
  }
})

test("stakeholder routes refuse a client certificate without session, and sessions of other connections, managers and times", async () => {
  const study = await TestStudy.create(parts)
  const { instance } = study.manager.description
  const make = (change: object): string => {
    const notAfter = new Date(study.clock.wall + 1000).toISOString()
    return makeSessionHeader({ perun: 1, manager: instance, tlsKey: clinic.tlsKey, notAfter, ...change }, clinic.privateKey)
  }
  const { tlsKey } = clinic
  assert.deepEqual(await problemOf(await study.fetch("GET", "/v1/policies", { tlsKey })), [401, "unauthenticated"])
  assert.equal((await study.fetch("GET", "/v1/policies", { tlsKey, header: make({}) })).status, 200)
  const wrong = [{ tlsKey: stranger.tlsKey }, { manager: "0".repeat(32) }, { notAfter: new Date(study.clock.wall).toISOString() }]
  for (const change of wrong)
    assert.deepEqual(await problemOf(await study.fetch("GET", "/v1/policies", { tlsKey, header: make(change) })), [401, "wrong-session"])
  const stolen = await study.fetch("GET", "/v1/policies", { tlsKey: stranger.tlsKey, header: make({}) })
  assert.deepEqual(await problemOf(stolen), [401, "wrong-session"])
})

test("unknown addresses and methods are problems", async () => {
  const study = await TestStudy.create(parts)
  assert.deepEqual(await problemOf(await study.fetch("GET", "/v1/nothing", {})), [404, "not-found"])
  assert.deepEqual(await problemOf(await study.fetch("GET", "/", {})), [404, "not-found"])
  assert.deepEqual(await problemOf(await study.fetch("DELETE", "/v1/policies", {})), [405, "method-not-allowed"])
})

test("bodies and addresses of a wrong form are problems with a code", async () => {
  const study = await TestStudy.create(parts)
  const agent = await makeAgent()
  const bad: readonly (readonly [string, string])[] = [
    ["", "malformed"],
    ["{", "malformed"],
    [`{"purpose":"claim","host":"a","host":"b"}`, "duplicate"],
    [`{"purpose":"claim","host":"a","more":1}`, "unknown-field"],
    [`{"purpose":"claim","host":"${"a".repeat(1_100_000)}"}`, "too-large"],
    [`{"purpose":"claim"}`, "malformed"],
  ]
  for (const [body, code] of bad)
    assert.deepEqual(await problemOf(await study.fetch("POST", "/v1/challenges", agent, body)), [code === "too-large" ? 413 : 400, code])
  const caller = study.as(clinic)
  assert.deepEqual(await problemOf(await study.fetch("GET", "/v1/policies/sha256:xyz", caller)), [400, "malformed"])
  assert.deepEqual(await problemOf(await study.fetch("GET", "/v1/policies?x=1", caller)), [400, "unknown-field"])
  assert.deepEqual(await problemOf(await study.fetch("GET", `/v1/runs/${"0".repeat(32)}`, caller)), [404, "not-found"])
})

test("the size cap holds for bodies without a length", async () => {
  const study = await TestStudy.create(parts)
  let sent = 0
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      // Were the cap not there, the test must fail, and not fill the memory.
      if (sent >= 8_000_000) return controller.close()
      sent += 65_536
      controller.enqueue(new Uint8Array(65_536).fill(0x20))
    },
  })
  const response = await study.fetch("POST", "/v1/challenges", await makeAgent(), stream)
  assert.deepEqual(await problemOf(response), [413, "too-large"])
  assert.ok(sent < 3_000_000)
})

test("the OpenAPI document is served", async () => {
  const study = await TestStudy.create(parts)
  const document = await study.call(routes.openApi, {})
  assert.equal(document["openapi"], "3.1.0")
})

test("blobs: for stakeholders of a policy and hosts with a lease only", async () => {
  const study = await TestStudy.create(parts)
  const blob = random(1000)
  const path = `/v1/blobs/${digestOf(blob)}`
  assert.deepEqual(await problemOf(await study.fetch("PUT", path, study.as(stranger), blob)), [403, "not-permitted"])
  assert.deepEqual(await problemOf(await study.fetch("PUT", path, await makeAgent(), blob)), [403, "not-permitted"])
  await study.submit(study.policy())
  assert.equal((await study.fetch("PUT", path, study.as(clinic), blob)).status, 204)
  assert.deepEqual(await problemOf(await study.fetch("GET", path, await makeAgent())), [403, "not-permitted"])
})

test("blobs: digest checked, ranges, size, absence", async () => {
  const study = await TestStudy.create(parts)
  await study.submit(study.policy())
  const caller = study.as(clinic)
  const blob = random(1000)
  const path = `/v1/blobs/${digestOf(blob)}`
  assert.deepEqual(await problemOf(await study.fetch("PUT", path, caller, random(1000))), [400, "wrong-digest"])
  assert.equal((await study.fetch("GET", path, caller)).status, 404)
  assert.equal((await study.fetch("HEAD", path, caller)).status, 404)
  assert.equal((await study.fetch("PUT", path, caller, blob)).status, 204)
  const head = await study.fetch("HEAD", path, caller)
  assert.deepEqual([head.status, head.headers.get("content-length")], [200, "1000"])
  const whole = await study.fetch("GET", path, caller)
  assert.deepEqual(new Uint8Array(await whole.arrayBuffer()), blob)
  const part = await study.fetch("GET", path, caller, undefined, { range: "bytes=990-" })
  assert.deepEqual([part.status, part.headers.get("content-range")], [206, "bytes 990-999/1000"])
  assert.deepEqual(new Uint8Array(await part.arrayBuffer()), blob.slice(990))
  const middle = await study.fetch("GET", path, caller, undefined, { range: "bytes=10-19" })
  assert.deepEqual(new Uint8Array(await middle.arrayBuffer()), blob.slice(10, 20))
  assert.equal((await study.fetch("GET", path, caller, undefined, { range: "bytes=1000-" })).status, 416)
  assert.deepEqual(await problemOf(await study.fetch("GET", "/v1/blobs/sha256:..%2f..%2fvault.json", caller)), [400, "malformed"])
})
