/** What a policy's witnesses keep from happening: a manager that was set back, or that runs twice, gives nothing out. */
import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { labTdRequirement } from "../../lab/devices/td.ts"
import { UnavailableError } from "../bytes/error.ts"
import { cosignedAt, parseCheckpoint } from "../log/checkpoint.ts"
import { encodeVerifierKey } from "../log/note.ts"
import type { Policy } from "../policy/document.ts"
import type { TeeRequirement } from "../policy/tee.ts"
import { logKeyOf } from "../protocol/receipts.ts"
import { routes } from "../protocol/routes.ts"
import { respond } from "../witness/server.ts"
import { WitnessState } from "../witness/state.ts"
import type { OwnTee } from "./own-tee.ts"
import type { MemoryJournal } from "./journal.testing.ts"
import { makeAgent, makeParts, TestStudy } from "./study.testing.ts"
import { parseWitnessSource, type WitnessSource } from "./witnesses.ts"

const folder = await mkdtemp(join(tmpdir(), "perun-witnesses-"))
after(() => rm(folder, { recursive: true }))
const parts = await makeParts()
const authority = makeLabAuthority({ keys: makeLabKeys(), time: Date.parse("2026-11-22T12:00:00Z") })
const program = { runtime: "0".repeat(96), source: "0".repeat(96), packages: "0".repeat(96) }
const registers = { mrTd: "any", rtmrs: { "0": "any", "1": ["a1".repeat(48)], "2": "any", "3": "any" }, mrOwner: "any" } as const
const accept: readonly TeeRequirement[] = [{ tdx: { ...labTdRequirement(program, authority.root), ...registers } }]
const ownTee: OwnTee = {
  kind: "tdx",
  collect: async (reportData) => ({
    kind: "tdx",
    quote: makeTdxQuote(authority, reportData, { version: 5, body: "1.5" }),
    collateral: authority.tdxCollateral,
  }),
}
let made = 0

/** A real witness, asked without a network. */
class TestWitness {
  readonly state: WitnessState
  readonly #study: TestStudy
  isSilent = false
  /** Falls silent after so many answers. */
  answersLeft = Infinity
  /** Seconds that its clock is ahead. */
  ahead = 0
  asked = 0

  private constructor(state: WitnessState, study: TestStudy) {
    this.state = state
    this.#study = study
  }

  static async create(study: TestStudy, name: string): Promise<TestWitness> {
    const own = join(folder, `${++made}`)
    await WitnessState.create(own, name)
    const witness = new TestWitness(await WitnessState.open(own), study)
    witness.state.follow(logKeyOf(study.manager.description))
    return witness
  }

  get key(): string {
    return encodeVerifierKey(this.state.key)
  }

  get source(): WitnessSource {
    return parseWitnessSource(`http://${this.state.name}=${this.key}`, async (url, body) => {
      this.asked++
      assert.equal(url, `http://${this.state.name}/add-checkpoint`)
      if (this.isSilent || this.answersLeft-- <= 0) throw new UnavailableError("unavailable", "cannot be reached")
      const { status, mediaType, body: text } = respond(this.state, body, Math.floor(this.#study.clock.wall / 1000) + this.ahead, () => undefined)
      return { status, mediaType, body: Buffer.from(text) }
    })
  }
}

interface Witnessed {
  readonly study: TestStudy
  readonly first: TestWitness
  readonly second: TestWitness
  readonly policy: Policy
}

async function witnessedStudy(atLeast = 1): Promise<Witnessed> {
  const study = await TestStudy.create(parts)
  const [first, second] = [await TestWitness.create(study, "hospital.example"), await TestWitness.create(study, "state.example")]
  study.ownTee = ownTee
  study.witnesses = [first.source, second.source]
  study.restart()
  const witnesses = { keys: [first.key, second.key], atLeast, maxAgeSeconds: 60 }
  return { study, first, second, policy: study.policy({ manager: { accept, witnesses } }) }
}

function copyOf(journal: MemoryJournal): Pick<MemoryJournal, "head" | "rows" | "log" | "nodes"> {
  return { head: journal.head, rows: new Map(journal.rows), log: [...journal.log], nodes: [...journal.nodes] }
}

const notWitnessed = (message: RegExp) => ({ code: "not-witnessed", status: 503, message })

test("keys, leases and outputs go out when the witnesses have seen the log, each release in it", async () => {
  const { study, first, policy } = await witnessedStudy(2)
  const { run, agent, grant } = await study.running(policy)
  assert.deepEqual(Object.keys(await study.openGrant(agent, grant)).toSorted(), ["records", "trainer"])
  const released = study.receipts.findIndex(({ kind }) => kind === "key-released")
  const { key } = first.state.log(logKeyOf(study.manager.description).name) ?? assert.fail()
  assert.ok((first.state.log(key.name)?.seen?.size ?? 0) > released)
  await study.renew(agent, grant.lease.id)
  const output = await study.makeOutput(agent, run)
  await study.vote(output, parts.clinic)
  const packed = await study.call(routes.getOutputPackage, study.as(parts.consortium), { params: { output } })
  assert.equal(packed.output.state, "released")
  const handed = study.receipts.findIndex(({ kind }) => kind === "output-released")
  assert.ok((first.state.log(key.name)?.seen?.size ?? 0) > handed)
})

test("with too few witnesses no challenge, no key, no renewal and no output leaves; nothing is used up", async () => {
  const { study, second, policy } = await witnessedStudy(2)
  const digest = await study.agree(policy)
  const agent = await makeAgent()
  await study.enrol(agent)
  const run = await study.queue(digest)
  const silence = notWitnessed(/1 of 2 witnesses have seen the log of \d+ entries .* demands 2; the witness state\.example: cannot be reached/)
  second.isSilent = true
  await assert.rejects(study.challenge(agent), silence)
  study.clock.advance(3)
  second.isSilent = false
  const challenge = await study.challenge(agent)
  // Between challenge and claim it falls silent: the release is written, and its keys stay here until others have seen it.
  second.isSilent = true
  const body = study.evidence(challenge, agent)
  await assert.rejects(study.call(routes.claimRun, agent, { body }), silence)
  assert.equal(study.receipts.filter(({ kind }) => kind === "key-released").length, 1)
  study.clock.advance(3)
  second.isSilent = false
  const grant = await study.call(routes.claimRun, agent, { body })
  assert.equal(study.receipts.filter(({ kind }) => kind === "key-released").length, 1)
  // What was seen a while ago does not count for ever; the lease goes on where they see the log again in time.
  await study.renew(agent, grant.lease.id)
  study.clock.advance(40)
  await study.renew(agent, grant.lease.id)
  second.isSilent = true
  await assert.rejects(study.challenge(agent, "host-1", grant.lease.id), silence)
  const output = await study.makeOutput(agent, run)
  await study.vote(output, parts.clinic)
  const fetch = async () => study.call(routes.getOutputPackage, study.as(parts.consortium), { params: { output } })
  await assert.rejects(fetch(), silence)
  assert.equal(study.receipts.filter(({ kind }) => kind === "output-released").length, 0)
  study.clock.advance(3)
  second.isSilent = false
  await study.challenge(agent, "host-1", grant.lease.id)
  // The receipt of the release is written, and others have not seen it.
  await study.queue(digest)
  second.answersLeft = 1
  await assert.rejects(fetch(), silence)
  assert.equal(study.receipts.filter(({ kind }) => kind === "output-released").length, 1)
  second.answersLeft = Infinity
  study.clock.advance(3)
  assert.equal((await fetch()).output.state, "released")
})

test("one witness may fail where the policy demands one of two; one that this manager does not ask is named", async () => {
  const { study, first, second, policy } = await witnessedStudy(1)
  second.isSilent = true
  const { agent, grant } = await study.running(policy)
  assert.equal(Object.keys(await study.openGrant(agent, grant)).length, 2)
  study.witnesses = []
  study.restart()
  await assert.rejects(study.challenge(agent, "host-1", grant.lease.id), notWitnessed(/does not ask 2 of them \(perun manager serve --witness\)/))
  assert.ok(first.asked > 0)
})

test("a manager that was set back gives nothing out, and its operator hears why", async () => {
  const { study, policy } = await witnessedStudy(1)
  const digest = await study.agree(policy)
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  const backup = copyOf(study.journal)
  await study.manager.showWitnesses()
  await study.claim(agent)
  await study.withdraw(digest, parts.clinic)
  await study.manager.showWitnesses()
  // The withdrawal is forgotten.
  Object.assign(study.journal, copyOf(backup as MemoryJournal))
  study.restart()
  await assert.rejects(study.challenge(agent), notWitnessed(/has seen \d+ entries of this log, and it has \d+: this manager was set back/))
  assert.match(study.warnings.join("\n"), /this manager was set back, or another one goes on in its name/)
  // Nor after it has grown as long by itself.
  for (let count = 0; count < 12; count++) await study.queue(digest).catch(() => undefined)
  const size = study.store.logHead.size
  study.clock.advance(3)
  for (let index = 0; index < 10; index++) await study.submit(study.policy({ study: `other-${index}`, purpose: `${index}` }))
  assert.ok(study.store.logHead.size > size)
  study.clock.advance(3)
  await assert.rejects(study.challenge(agent), notWitnessed(/was set back|another log of \d+ entries in this one's name/))
})

test("of two managers that go on from one state the second gets no further than the receipt of its release", async () => {
  const { study, policy } = await witnessedStudy(1)
  const digest = await study.agree(policy)
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  const state = copyOf(study.journal)
  const challenge = await study.challenge(agent)
  await study.call(routes.claimRun, agent, { body: study.evidence(challenge, agent) })
  Object.assign(study.journal, copyOf(state as MemoryJournal))
  study.restart()
  await assert.rejects(study.challenge(agent), notWitnessed(/set back|another log/))
})

test("a witness whose clock is far off, or that signs with another key, does not count", async () => {
  const { study, first, second, policy } = await witnessedStudy(1)
  first.ahead = 120
  const digest = await study.agree(policy)
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  second.isSilent = true
  await assert.rejects(study.challenge(agent), notWitnessed(/its clock is 120 s from this manager's/))
  const [a, b] = [first.source, second.source]
  study.witnesses = [
    { ...a, key: b.key },
    { ...b, key: a.key },
  ]
  second.isSilent = false
  first.ahead = 0
  study.restart()
  await assert.rejects(study.challenge(agent), notWitnessed(/answered without its own cosignature/))
})

test("the checkpoint that parties read has the cosignatures of those who have seen it, and a silent witness delays nobody for long", async () => {
  const { study, first, second, policy } = await witnessedStudy(1)
  await study.agree(policy)
  second.isSilent = true
  const { checkpoint } = await study.call(routes.getLog, study.as(parts.clinic), { query: "?from=0" })
  const { note, size } = parseCheckpoint(checkpoint)
  assert.equal(size, study.store.logHead.size)
  assert.deepEqual(cosignedAt(note, first.state.key), [Math.floor(study.clock.wall / 1000)])
  assert.deepEqual(cosignedAt(note, second.state.key), [])
})

test("policies without witnesses ask nobody", async () => {
  const { study, first, second } = await witnessedStudy(1)
  first.isSilent = second.isSilent = true
  const { agent, grant } = await study.running()
  assert.equal(Object.keys(await study.openGrant(agent, grant)).length, 2)
  assert.equal(first.asked, 0)
})

test("parseWitnessSource() takes an address and the key of a witness", () => {
  const key = "hospital.example+00000000+AAAA"
  for (const text of ["", "http://a", `ftp://a=${key}`, `http://a=${key}`, `http://u:p@a=${key}`, `http://a?x=${key}`])
    assert.throws(() => parseWitnessSource(text), { code: /malformed|truncated/ }, text)
})
