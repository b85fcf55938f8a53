import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { evidenceCodes } from "../evidence/errors.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { protocolCodes } from "./errors.ts"
import { signManagerDescription, verifyManagerDescription } from "./manager-description.ts"
import { challengeRequestSchema, managerDescriptionSchema, type ManagerDescription } from "./messages.ts"
import { checkMetrics, roundMetrics } from "./metrics.ts"
import { makeOpenApiDocument } from "./openapi.ts"
import { isProblemCode, problemOfError, problemSchema, RefusedError, statusOfCode } from "./problem.ts"
import { pathParameters, routes, type Route } from "./routes.ts"
import { createTlsIdentity } from "./tls.ts"
import { parseMessage } from "./wire.ts"

test("parseMessage() names an unknown field, a duplicate key, an excess size and a wrong type", () => {
  const good = `{"purpose":"claim","host":"gpu-1"}`
  assert.deepEqual(parseMessage(challengeRequestSchema, good), { purpose: "claim", host: "gpu-1" })
  assert.throws(() => parseMessage(challengeRequestSchema, `{"purpose":"claim","host":"gpu-1","x":1}`), { code: "unknown-field" })
  assert.throws(() => parseMessage(challengeRequestSchema, `{"purpose":"claim","host":"a","host":"b"}`), { code: "duplicate" })
  assert.throws(() => parseMessage(challengeRequestSchema, good, 10), { code: "too-large" })
  assert.throws(() => parseMessage(challengeRequestSchema, `{"purpose":"claim","host":7}`), { code: "malformed", path: "host" })
})

test("problemOfError() keeps the text of foreign errors to itself", () => {
  const problem = problemOfError(new Error("AGE-SECRET-KEY-PQ-1"))
  assert.equal(problem.code, "internal")
  assert.equal(problem.status, 500)
  assert.ok(!JSON.stringify(problem).includes("AGE"))
})

test("problemOfError() says what is wrong with the manager's disk without naming its files", () => {
  const codes = ["unavailable", "timeout", "unsupported", "disk-full", "permission-denied", "port-in-use"] as const
  for (const code of codes) {
    const problem = problemSchema.parse(problemOfError(new UnavailableError(code, "no such file /srv/b", { path: "/srv/perun/blobs" })))
    assert.equal(problem.code, code)
    assert.equal(problem.path, undefined)
    assert.doesNotMatch(JSON.stringify(problem), /srv/)
  }
})

test("problemOfError() carries code, path and findings, and is a problem document", () => {
  const problem = problemOfError(new MalformedError("unknown-field", "unknown", { path: "a.b" }))
  assert.deepEqual([problem.code, problem.status, problem.path], ["unknown-field", 400, "a.b"])
  const findings = [{ code: "ima-unknown-file", effect: "refusal", subject: "/bin/x", found: "a", expected: "b", advice: "c" } as const]
  const refused = problemSchema.parse(problemOfError(new RefusedError("not-acceptable", "no", findings)))
  assert.deepEqual([refused.status, refused.findings], [403, findings])
})

test("statusOfCode() knows every code of protocol and evidence", () => {
  for (const code of [...Object.keys(protocolCodes), ...Object.keys(evidenceCodes)]) assert.ok(isProblemCode(code), code)
  assert.equal(statusOfCode("unauthenticated"), 401)
  assert.equal(statusOfCode("challenge-used"), 403)
  assert.equal(statusOfCode("too-large"), 413)
})

const { privateKey, publicKey } = generateKeyPairSync("ed25519")
const tlsKey = createTlsIdentity("test").tlsKey
const description: ManagerDescription = {
  perun: 1,
  instance: "0".repeat(32),
  key: sshPublicKeyText(publicKey),
  tlsKey,
  depositKey: "AAAA",
  logKey: sshPublicKeyText(publicKey),
  resultKey: "AAAA",
  configuration: tlsKey,
  vault: { kind: "key-file" },
  evidence: null,
  time: null,
}

test("verifyManagerDescription() accepts the pinned manager only", () => {
  const signed = signManagerDescription(description, privateKey)
  assert.ok(managerDescriptionSchema.safeParse(description).success)
  const expected = { managerKey: description.key, peerTlsKey: tlsKey }
  assert.equal(verifyManagerDescription(signed, expected).instance, description.instance)
  const other = generateKeyPairSync("ed25519")
  assert.throws(() => verifyManagerDescription(signed, { ...expected, managerKey: sshPublicKeyText(other.publicKey) }), { code: "wrong-manager" })
  assert.throws(() => verifyManagerDescription(signed, { ...expected, peerTlsKey: createTlsIdentity("x").tlsKey }), { code: "wrong-tls-key" })
  assert.throws(() => verifyManagerDescription(signManagerDescription(description, other.privateKey), expected), { code: "wrong-manager" })
  const changed = { ...signed, description: { ...description, instance: "1".repeat(32) } }
  assert.throws(() => verifyManagerDescription(changed, expected), { code: "wrong-manager" })
})

test("checkMetrics() takes exactly the schema's values", () => {
  const schema = { epoch: "int", loss: { float: 4 } } as const
  checkMetrics(schema, { epoch: 3, loss: 0.1234 })
  checkMetrics(schema, { epoch: -3, loss: 7 })
  for (const values of [{ epoch: 3 }, { epoch: 3, loss: 1, more: 2 }, { epoch: 3.5, loss: 1 }, { epoch: 3, loss: 0.12345 }, { epoch: 1e16, loss: 1 }])
    assert.throws(() => checkMetrics(schema, values), { code: "wrong-metrics" })
  assert.throws(() => checkMetrics(schema, { epoch: 1, loss: 1, toString: 1 }), { code: "wrong-metrics" })
  assert.deepEqual(roundMetrics(schema, { epoch: 3, loss: 0.123456 }), { epoch: 3, loss: 0.1235 })
})

test("routes: each address is used once per method and its parts have a form", () => {
  const seen = new Set<string>()
  for (const route of Object.values(routes) as Route[]) {
    const key = `${route.method} ${route.path}`
    assert.ok(!seen.has(key), key)
    seen.add(key)
    for (const part of route.path.split("/")) if (part.startsWith(":")) assert.ok(part.substring(1) in pathParameters, key)
  }
})

test("makeOpenApiDocument() says which parts of a query are needed", () => {
  const { parameters } = (
    makeOpenApiDocument()["paths"] as { [path: string]: { get: { parameters: readonly { name: string; required: boolean }[] } } }
  )["/v1/runs/{run}/attestation-result"]?.get ?? { parameters: [] }
  assert.deepEqual(
    parameters.map(({ name, required }) => [name, required]),
    [
      ["run", true],
      ["nonce", true],
      ["audience", true],
    ],
  )
  assert.match(JSON.stringify(makeOpenApiDocument()), /"name":"from","in":"query","required":false/)
})

test("makeOpenApiDocument() names every route and has no dangling reference", () => {
  const text = JSON.stringify(makeOpenApiDocument())
  for (const name of Object.keys(routes)) assert.ok(text.includes(`"operationId":"${name}"`), name)
  const references = [...text.matchAll(/"\$ref":"([^"]*)"/g)].map((match) => match[1])
  assert.deepEqual([...new Set(references)], ["#/components/schemas/Problem"])
})
