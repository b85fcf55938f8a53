import assert from "node:assert/strict"
import { test } from "node:test"
import { Readable } from "node:stream"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { signStatement } from "../pki/statement.ts"
import type { Policy } from "../policy/document.ts"
import { referenceDigest } from "../policy/reference.ts"
import { type ProblemCode, problemSchema } from "../protocol/problem.ts"
import { type Route, type RouteName, routes } from "../protocol/routes.ts"
import { makeSessionHeader } from "../protocol/session.ts"
import { type Caller, makeAgent, makeParts, makeParty, type Party, random, TestStudy } from "./study.testing.ts"
import { hostMachine } from "../policy/fixtures.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, stranger } = parts

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
    if (([routes.attestManager, routes.lockState, routes.unlockManager] as readonly Route[]).includes(route))
      assert.deepEqual(await problemOf(response), [400, "malformed"], path)
    else if (route.access === "open") assert.equal(response.status, 200, path)
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

test("blobs: stored by owners of an artifact of a policy that is proposed or active, and hosts with a lease", async () => {
  const study = await TestStudy.create(parts)
  const blob = random(1000)
  const path = `/v1/blobs/${digestOf(blob)}`
  const refusal = async (party: Party): Promise<unknown> => problemOf(await study.fetch("PUT", path, study.as(party), blob))
  assert.deepEqual(await refusal(stranger), [403, "not-permitted"])
  assert.deepEqual(await refusal(clinic), [403, "not-permitted"])
  assert.deepEqual(await problemOf(await study.fetch("PUT", path, await makeAgent(), blob)), [403, "not-permitted"])
  const digest = await study.submit(study.policy())
  assert.deepEqual(await refusal(consortium), [403, "not-permitted"])
  assert.equal((await study.fetch("PUT", path, study.as(clinic), blob)).status, 204)
  assert.deepEqual(await problemOf(await study.fetch("GET", path, await makeAgent())), [403, "not-permitted"])
  await study.withdraw(digest, clinic)
  const other = random(10)
  const late = await study.fetch("PUT", `/v1/blobs/${digestOf(other)}`, study.as(clinic), other)
  assert.deepEqual(await problemOf(late), [403, "not-permitted"])
})

test("blobs: what a host uploads in vain is given back to its allowance, what is stored is not", async () => {
  const study = await TestStudy.create(parts)
  const { agent } = await study.running()
  const put = async (blob: Uint8Array<ArrayBuffer>, digest = digestOf(blob)): Promise<number> =>
    (await study.fetch("PUT", `/v1/blobs/${digest}`, agent, blob)).status
  // The policy's output of 1,000,000 bytes may take 2,148,576 of ciphertext.
  for (let count = 0; count < 3; count++) assert.equal(await put(random(1_500_000), digestOf(random(8))), 400)
  assert.equal(await put(random(2_148_577)), 403)
  assert.equal(await put(random(1_500_000)), 204)
  assert.equal(await put(random(648_577)), 403)
  assert.equal(await put(random(648_576)), 204)
})

test("large bodies are refused before they are read, to whom the route is nothing", async () => {
  const study = await TestStudy.create(parts)
  const { digest } = await study.running()
  const params = { digest, update: digest, reference: digest, lease: "0".repeat(32), run: "0".repeat(32) } as const
  const large = (Object.values(routes) as Route[]).filter(({ method, maxBodyBytes }) => method === "POST" && maxBodyBytes > 1_048_576)
  assert.equal(large.length, 6)
  for (const route of large) {
    const path = route.path.replaceAll(/:([a-z]+)/g, (_, name: string) => params[name as keyof typeof params])
    const body = new ReadableStream<Uint8Array>({ pull: () => assert.fail(`${path} was read`) }, { highWaterMark: 0 })
    const response = await study.fetch("POST", path, route.access === "host" ? await makeAgent() : study.as(stranger), body)
    assert.ok(response.status === 403 || response.status === 404, path)
  }
})

/** How a route answers somebody: `ok`, `empty` for a list without anything, `links` for receipts of others, else the code of the refusal. */
type Word = "ok" | "empty" | "links" | ProblemCode

/**
 * Who is refused where. `stranger`: a key that no file and no policy names. `member`: admitted, but no party of the policy. `other`: party of another
 * policy. `host`: a TLS key without a lease. Sessions say nothing at routes for hosts, and without one no host reaches the others.
 */
const refused: Readonly<Record<RouteName, { readonly [Who in "stranger" | "member" | "other" | "host"]: Word }>> = {
  attestManager: { stranger: "not-found", member: "not-found", other: "not-found", host: "not-found" },
  lockState: { stranger: "wrong-state", member: "wrong-state", other: "wrong-state", host: "wrong-state" },
  unlockManager: { stranger: "wrong-state", member: "wrong-state", other: "wrong-state", host: "wrong-state" },
  describeManager: { stranger: "ok", member: "ok", other: "ok", host: "ok" },
  openApi: { stranger: "ok", member: "ok", other: "ok", host: "ok" },
  health: { stranger: "ok", member: "ok", other: "ok", host: "ok" },
  ready: { stranger: "ok", member: "ok", other: "ok", host: "ok" },
  submitPolicy: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  listPolicies: { stranger: "empty", member: "empty", other: "ok", host: "unauthenticated" },
  getPolicy: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  approvePolicy: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  withdrawPolicy: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  updateReference: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  withdrawReference: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  getReference: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  depositArtifact: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  depositSecret: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  listArtifacts: { stranger: "empty", member: "empty", other: "empty", host: "unauthenticated" },
  // Ciphertext is no secret; it is kept from those who would only use the manager's line.
  headBlob: { stranger: "not-permitted", member: "ok", other: "ok", host: "not-permitted" },
  getBlob: { stranger: "not-permitted", member: "ok", other: "ok", host: "not-permitted" },
  putBlob: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "not-permitted" },
  queueRun: { stranger: "not-permitted", member: "not-permitted", other: "not-permitted", host: "unauthenticated" },
  listRuns: { stranger: "empty", member: "empty", other: "empty", host: "unauthenticated" },
  getRun: { stranger: "not-found", member: "not-found", other: "not-found", host: "unauthenticated" },
  watchRun: { stranger: "not-found", member: "not-found", other: "not-found", host: "unauthenticated" },
  getAttestationResult: { stranger: "not-found", member: "not-found", other: "not-found", host: "unauthenticated" },
  cancelRun: { stranger: "not-found", member: "not-found", other: "not-found", host: "unauthenticated" },
  listOutputs: { stranger: "empty", member: "empty", other: "empty", host: "unauthenticated" },
  voteOutput: { stranger: "not-found", member: "not-found", other: "not-found", host: "unauthenticated" },
  getOutputPackage: { stranger: "not-found", member: "not-found", other: "not-found", host: "unauthenticated" },
  listHosts: { stranger: "not-permitted", member: "empty", other: "empty", host: "unauthenticated" },
  retireHost: { stranger: "not-found", member: "not-found", other: "not-found", host: "unauthenticated" },
  listReceipts: { stranger: "not-permitted", member: "links", other: "ok", host: "unauthenticated" },
  proveReceipt: { stranger: "not-permitted", member: "not-found", other: "not-found", host: "unauthenticated" },
  getLog: { stranger: "not-permitted", member: "ok", other: "ok", host: "unauthenticated" },
  getCheckpoint: { stranger: "not-permitted", member: "ok", other: "ok", host: "unauthenticated" },
  getTile: { stranger: "not-permitted", member: "ok", other: "ok", host: "unauthenticated" },
  // Any TPM that the manager's roots vouch for may enrol; policies say which machines get work.
  beginEnrolment: { stranger: "ok", member: "ok", other: "ok", host: "ok" },
  answerEnrolment: { stranger: "not-found", member: "not-found", other: "not-found", host: "not-found" },
  // Of a renewal. A claim's challenge is anyone's who knows the name of an enrolled host; it is worth nothing without that host's TPM.
  requestChallenge: { stranger: "not-found", member: "not-found", other: "not-found", host: "not-found" },
  claimRun: { stranger: "challenge-unknown", member: "challenge-unknown", other: "challenge-unknown", host: "challenge-unknown" },
  renewLease: { stranger: "not-found", member: "not-found", other: "not-found", host: "not-found" },
  reportMetrics: { stranger: "not-found", member: "not-found", other: "not-found", host: "not-found" },
  reportOutput: { stranger: "not-found", member: "not-found", other: "not-found", host: "not-found" },
  finishRun: { stranger: "not-found", member: "not-found", other: "not-found", host: "not-found" },
}

test("each route refuses whom it is not for, and those for whom it is get past", async () => {
  const study = await TestStudy.create(parts)
  const { digest, run, agent, grant } = await study.running()
  const [member, other] = [await makeParty("member"), await makeParty("other")]
  study.members.add(member.key)
  const foreign = study.policy({ study: "foreign" })
  const own = hostMachine(foreign, "host")
  const machines = { host: { ...own, tpm: { ...own.tpm, endorsementKeys: [digestOf(random(8))] } } }
  const stakeholders = { ...foreign.stakeholders, consortium: { ...foreign.stakeholders["consortium"], keys: [other.key] } }
  await study.submit({ ...foreign, machines, stakeholders } as Policy)
  const output = "1".repeat(32)
  putOutput(study, output, run, digest)
  const blob = random(10)
  await study.blobs.put(digestOf(blob), Readable.from([blob]), 10)

  const { boot, ima } = parts.references
  const { evidence, machine } = { evidence: study.evidence(await study.challenge(agent, "host-1", grant.lease.id), agent), machine: parts.machine }
  const signature = signStatement("session", digest, clinic.privateKey)
  const params = {
    digest,
    update: digest,
    reference: referenceDigest(ima),
    job: "train",
    run,
    output,
    lease: grant.lease.id,
    enrolment: "2".repeat(32),
    host: "host-1",
    index: "0",
  }
  const bodies: { readonly [Name in RouteName]?: object } = {
    submitPolicy: { policy: study.policy(), references: [boot, ima] },
    approvePolicy: { signature },
    withdrawPolicy: { signature },
    updateReference: { machine: "host", piece: "ima", replaces: digest, reference: ima, signature },
    withdrawReference: { signature },
    depositArtifact: { artifact: "records", manifest: {}, sealedIdentity: { enc: "", ciphertext: "" } },
    depositSecret: { secret: "token", sealedValue: { enc: "", ciphertext: "" } },
    voteOutput: { signature },
    beginEnrolment: machine.enrolmentRequest("host-1"),
    answerEnrolment: { secret: "AAAA" },
    requestChallenge: { purpose: "renew", host: "host-1", lease: grant.lease.id },
    claimRun: { ...evidence, challenge: "3".repeat(32) },
    renewLease: evidence,
    reportMetrics: { values: { epoch: 1, loss: 1 } },
    reportOutput: { name: "model", manifest: {} },
    finishRun: { status: "succeeded" },
    unlockManager: { perun: 1, custodian: signature.key, share: { enc: "AAAA", ciphertext: "AAAA" }, signature },
  }
  const queries: { readonly [Name in RouteName]?: string } = {
    attestManager: `?nonce=${"4".repeat(64)}`,
    lockState: `?nonce=${"4".repeat(64)}`,
    getAttestationResult: `?nonce=${"4".repeat(64)}&audience=auditor`,
  }
  const ask = async (name: RouteName, caller: Caller): Promise<Word> => {
    const route: Route = routes[name]
    const values: Readonly<Record<string, string>> =
      route.content === "blob" ? { digest: digestOf(name === "putBlob" ? random(9) : blob), tile: "0/000.p/1" } : params
    const query = queries[name] ?? ""
    const path = route.path.replaceAll(/:([a-z]+)/g, (_, part: string) => values[part] ?? "") + query
    const body = route.method === "PUT" ? random(9) : route.method === "POST" ? JSON.stringify(bodies[name] ?? {}) : undefined
    return wordOf(route, await study.fetch(route.method, path, caller, body))
  }
  const holes: readonly Word[] = ["unauthenticated", "not-permitted", "not-found", "challenge-unknown", "empty", "links"]
  for (const name of Object.keys(routes) as RouteName[]) {
    const expected = refused[name]
    const found = {
      stranger: await ask(name, study.as(stranger)),
      member: await ask(name, study.as(member)),
      other: await ask(name, study.as(other)),
      host: await ask(name, await makeAgent()),
    }
    assert.deepEqual(found, expected, name)
  }
  assert.equal(study.store.get("runs", run)?.state, "running")
  const forHosts = (["requestChallenge", "renewLease", "reportMetrics", "reportOutput", "finishRun"] as const).map(async (name) => ask(name, agent))
  for (const word of await Promise.all(forHosts)) assert.ok(!holes.includes(word), word)
  for (const name of Object.keys(routes) as RouteName[]) {
    // This manager has no evidence of itself, whoever asks.
    if (routes[name].access === "host" || name === "attestManager") continue
    // The vendor is party and owner; the model is not for it, which is the package's own refusal. The policy names no secret and no delegate.
    const word = await ask(name, study.as(vendor))
    if (name === "depositSecret") assert.equal(word, "not-found", name)
    else if (["getOutputPackage", "depositArtifact", "updateReference"].includes(name)) assert.equal(word, "not-permitted", name)
    else assert.ok(!holes.includes(word), `${name}: ${word}`)
  }
})

async function wordOf(route: Route, response: Response): Promise<Word> {
  if (route.method === "HEAD") return response.ok ? "ok" : response.status === 403 ? "not-permitted" : "not-found"
  if (!response.ok) return problemSchema.parse(await response.json()).code as ProblemCode
  if (route.content !== "json" || response.status === 204) {
    await response.body?.cancel()
    return "ok"
  }
  const message = (await response.json()) as Readonly<Record<string, unknown>>
  const list = ["policies", "artifacts", "runs", "outputs", "hosts", "receipts"].map((field) => message[field]).find((value) => Array.isArray(value))
  if (list === undefined || route.method !== "GET" || "state" in message) return "ok"
  if (list.length === 0) return "empty"
  return "total" in message && list.every((item: object) => !("receipt" in item)) ? "links" : "ok"
}

/** A reported output as the store has it; its manifest is nobody's here. */
function putOutput(study: TestStudy, output: string, run: string, policy: Digest): void {
  const at = new Date(study.clock.wall)
  const facts = { output, run, policy, job: "train", name: "model", kind: "model", ciphertext: digestOf(random(8)), sizeBytes: 1 } as const
  study.store.transact(at, (tx) => tx.put("outputs", output, { ...facts, manifest: {}, released: false, laboratory: true, at: at.toISOString() }))
}

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
