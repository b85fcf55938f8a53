import assert from "node:assert/strict"
import { test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { labTdRequirement } from "../../lab/devices/td.ts"
import { digestOf } from "../bytes/digest.ts"
import { UnavailableError } from "../bytes/error.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { verifyManagerAttestation, type ManagerAttestation } from "../protocol/manager-attestation.ts"
import type { OwnTee } from "./own-tee.ts"
import { makeParts, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const authority = makeLabAuthority({ keys: makeLabKeys(), time: Date.parse("2026-11-22T12:00:00Z") })
const registers = { mrTd: "any", rtmrs: { "0": "any", "1": ["a1".repeat(48)], "2": "any", "3": "any" }, mrOwner: "any" } as const
const program = { runtime: "0".repeat(96), source: "0".repeat(96), packages: "0".repeat(96) }
const requirement = { ...labTdRequirement(program, authority.root), ...registers }
const accept: readonly TeeRequirement[] = [{ tdx: requirement }]
const nonce = "12".repeat(32)
const goodTee: OwnTee = {
  kind: "tdx",
  collect: async (reportData) => ({
    kind: "tdx",
    quote: makeTdxQuote(authority, reportData, { version: 5, body: "1.5" }),
    collateral: authority.tdxCollateral,
  }),
}

async function studyOn(tee: OwnTee | undefined): Promise<TestStudy> {
  const study = await TestStudy.create(parts)
  study.ownTee = tee
  study.restart()
  return study
}

async function attest(study: TestStudy): Promise<{ readonly status: number; readonly body: unknown }> {
  const response = await study.fetch("GET", `/v1/attestation?nonce=${nonce}`, {})
  return { status: response.status, body: await response.json() }
}

test("GET /v1/attestation gives evidence over the asker's nonce and the whole description", async () => {
  const study = await studyOn(goodTee)
  const { status, body } = await attest(study)
  assert.equal(status, 200)
  const { description } = study.manager
  const expectation = { accept, nonce, peerTlsKey: description.tlsKey, time: study.clock.wall }
  assert.deepEqual(verifyManagerAttestation(body as ManagerAttestation, expectation).description, description)
  assert.equal(description.evidence, "tdx")
})

test("GET /v1/attestation refuses a nonce of another form, and says so where there is no TEE or it is silent", async () => {
  for (const wrong of ["", "12", "G".repeat(64), "12".repeat(33)]) {
    const response = await (await studyOn(goodTee)).fetch("GET", `/v1/attestation?nonce=${wrong}`, {})
    assert.equal(response.status, 400, wrong)
  }
  assert.equal((await attest(await studyOn(undefined))).status, 404)
  const silent: OwnTee = { kind: "tdx", collect: async () => Promise.reject(new UnavailableError("unavailable", "no device")) }
  assert.equal((await attest(await studyOn(silent))).status, 503)
})

test("strangers cannot keep the device busy: so many questions of one network, and so many that wait", async () => {
  const study = await studyOn(goodTee)
  const statuses: number[] = []
  for (let count = 0; count < 601; count++) statuses.push((await study.fetch("GET", `/v1/attestation?nonce=${nonce}`, {})).status)
  assert.deepEqual(new Set(statuses.slice(0, 600)), new Set([200]))
  assert.equal(statuses.at(-1), 429)

  const { promise, resolve } = Promise.withResolvers<void>()
  const slow: OwnTee = { kind: "tdx", collect: async (reportData) => promise.then(async () => goodTee.collect(reportData)) }
  const other = await studyOn(slow)
  const waiting = Array.from({ length: 16 }, async () => attest(other))
  assert.equal((await attest(other)).status, 429)
  // Another network still gets its turn, until all places are taken.
  for (const last of [1, 2, 3]) {
    other.address = `203.0.113.${last}`
    waiting.push(...Array.from({ length: 16 }, async () => attest(other)))
  }
  other.address = "203.0.113.9"
  assert.equal((await attest(other)).status, 429)
  resolve()
  for (const { status } of await Promise.all(waiting)) assert.equal(status, 200)
  assert.equal((await attest(other)).status, 200)
})

test("submitPolicy tells the proposer at once that this manager is not what the policy accepts", async () => {
  const study = await studyOn(goodTee)
  await study.submit(study.policy({ manager: { accept } }))
  const other = study.policy({
    study: "other",
    manager: { accept: [{ tdx: { ...requirement, rtmrs: { ...requirement.rtmrs, "1": ["ee".repeat(48)] } } }] },
  })
  await assert.rejects(study.submit(other), { code: "wrong-manager" })
  const time = { roots: [digestOf(new Uint8Array(1))], maxDifferenceSeconds: 60, holdSeconds: 3600 }
  await assert.rejects(study.submit(study.policy({ study: "timed", manager: { accept, time } })), {
    code: "wrong-manager",
    message: /the host's clock alone/,
  })
  const unattested = await studyOn(undefined)
  await assert.rejects(unattested.submit(unattested.policy({ manager: { accept } })), { code: "wrong-manager" })
})
