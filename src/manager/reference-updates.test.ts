import assert from "node:assert/strict"
import { test } from "node:test"
import { type Digest, digestOf } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { signStatement } from "../pki/statement.ts"
import type { BootUpdates, Policy, ReferenceUpdates } from "../policy/document.ts"
import { type BootReference, type ImaReference, type Reference, referenceDigest } from "../policy/reference.ts"
import { type ReferencePiece, updateDigest } from "../policy/reference-updates.ts"
import type { ReferenceUpdateView } from "../protocol/messages.ts"
import type { RefusedError } from "../protocol/problem.ts"
import { routes } from "../protocol/routes.ts"
import { LaboratoryMachine } from "./machine.testing.ts"
import { makeAgent, makeParts, type Party, TestStudy, toJson } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, references } = parts
const until = "2027-01-01T00:00:00Z"
const ofIma: ReferenceUpdates = { by: "vendor", until, overlapSeconds: 600 }
const ofBoot: BootUpdates = { by: "vendor", until, overlapSeconds: 600, registers: [4, 9] }

function delegated(study: TestStudy, change: { ima?: ReferenceUpdates; boot?: BootUpdates } = { ima: ofIma, boot: ofBoot }): Policy {
  const policy = study.policy()
  const host = policy.machines["host"]
  assert.ok(host !== undefined && host.level !== "enclave")
  const boot = { ...host.boot, ...(change.boot === undefined ? {} : { updates: change.boot }) }
  const ima = { ...host.ima, ...(change.ima === undefined ? {} : { updates: change.ima }) }
  return { ...policy, machines: { host: { ...host, boot, ima } } }
}

const newProgram = encodeUtf8("agent, next version")
/** What the next image has besides. */
function nextIma(text = "next", files: ImaReference["files"] = { [digestOf(newProgram)]: ["/usr/bin/agent"] }): ImaReference {
  return { ...references.ima, name: text, files: { ...references.ima.files, ...files } }
}
/** Only what the next image has: machines of the image before do not fit it. */
const onlyNext: ImaReference = {
  ...references.ima,
  name: "only next",
  files: Object.fromEntries([
    ...Object.entries(references.ima.files).filter(([, paths]) => !paths.includes("/usr/bin/agent")),
    [digestOf(newProgram), ["/usr/bin/agent"]],
  ]),
}

interface Change {
  readonly piece?: ReferencePiece
  readonly machine?: string
  readonly replaces?: Digest
  readonly signedBy?: Party
  readonly calledBy?: Party
  /** What the signature is over instead. */
  readonly over?: Digest
}

async function update(study: TestStudy, digest: Digest, reference: Reference, change: Change = {}): Promise<ReferenceUpdateView> {
  const piece = change.piece ?? reference.kind
  const machine = change.machine ?? "host"
  const replaces = change.replaces ?? referenceDigest(references[piece])
  const over = change.over ?? updateDigest({ policy: digest, machine, piece, replaces, reference: referenceDigest(reference) })
  const { privateKey } = change.signedBy ?? vendor
  const signature = signStatement("reference", over, privateKey)
  const body = { machine, piece, replaces, reference: toJson(reference), signature }
  return study.call(routes.updateReference, study.as(change.calledBy ?? vendor), { params: { digest }, body })
}

async function takeBack(study: TestStudy, digest: Digest, { update: name }: ReferenceUpdateView, party: Party): Promise<ReferenceUpdateView> {
  const signature = signStatement("withdraw", name, party.privateKey)
  return study.call(routes.withdrawReference, study.as(party), { params: { digest, update: name }, body: { signature } })
}

/** A machine of the parts' own keys that runs the new program. */
function nextMachine(): LaboratoryMachine {
  const machine = new LaboratoryMachine(parts.authority)
  machine.measure("/usr/bin/agent", newProgram)
  return machine
}

/** A policy in which that machine counts as the host. */
function withMachine(policy: Policy, machine: LaboratoryMachine): Policy {
  const host = policy.machines["host"]
  assert.ok(host !== undefined && host.level !== "enclave")
  const tpm = { ...host.tpm, endorsementKeys: [...host.tpm.endorsementKeys, machine.endorsementKey] }
  return { ...policy, machines: { host: { ...host, tpm } } }
}

test("a machine of the next image is let in once the delegate has put its reference there, and the decision says so", async () => {
  const study = await TestStudy.create(parts)
  const machine = nextMachine()
  const digest = await study.agree(withMachine(delegated(study), machine))
  const agent = await makeAgent()
  await study.enrol(agent, "host-2", machine)
  const run = await study.queue(digest)
  await assert.rejects(study.claim(agent, "host-2", machine), { code: "not-acceptable" })
  const next = nextIma()
  const shown = await update(study, digest, next)
  assert.equal(shown.by, "vendor")
  assert.deepEqual(await update(study, digest, next), shown)
  const grant = await study.claim(agent, "host-2", machine)
  assert.equal(grant.run, run)
  const released = study.receipts.find(({ kind }) => kind === "key-released")
  const note = released?.findings?.find(({ code }) => code === "reference-updated")
  assert.deepEqual([note?.effect, note?.found, note?.expected], ["note", referenceDigest(next), referenceDigest(references.ima)])
  const [updated, ...more] = study.receipts.filter(({ kind }) => kind === "reference-updated")
  assert.equal(more.length, 0)
  assert.deepEqual(
    [updated?.by, updated?.place, updated?.replaces, updated?.reference, updated?.update],
    ["vendor", { machine: "host", piece: "ima" }, referenceDigest(references.ima), referenceDigest(next), shown.update],
  )
  const document = await study.call(routes.getReference, study.as(clinic), { params: { digest, reference: referenceDigest(next) } })
  assert.deepEqual(document, toJson(next))
  const view = await study.call(routes.getPolicy, study.as(clinic), { params: { digest } })
  assert.deepEqual(view.referenceUpdates, [shown])
  assert.deepEqual(view.acceptedReferences, [
    { machine: "host", piece: "boot", references: [referenceDigest(references.boot)] },
    { machine: "host", piece: "ima", references: [referenceDigest(next), referenceDigest(references.ima)] },
  ])
})

test("only the delegate, for exactly this place, and what stands there now", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(delegated(study))
  const next = nextIma()
  const refused = async (code: string, change: Change, reference: Reference = next): Promise<void> =>
    assert.rejects(update(study, digest, reference, change), { code }, code)
  await refused("not-permitted", { signedBy: clinic })
  await refused("not-permitted", { signedBy: parts.stranger })
  await refused("not-permitted", { calledBy: parts.stranger })
  await refused("wrong-signature", { over: referenceDigest(next) })
  await refused("not-found", { machine: "other" })
  await refused("not-permitted", { piece: "ima", replaces: referenceDigest(references.ima) }, references.boot)
  await refused("wrong-state", { replaces: referenceDigest(next) })
  // Whoever hands it in, the signature is the delegate's.
  await update(study, digest, next, { calledBy: clinic })
  await refused("wrong-state", {}, nextIma("another"))
  await update(study, digest, nextIma("another"), { replaces: referenceDigest(next) })
})

test("where the policy delegates nothing, nothing is updated; nor in another place than it says", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(delegated(study, { boot: ofBoot }))
  await assert.rejects(update(study, digest, nextIma()), { code: "not-permitted", message: /nobody may update the ima reference of host/ })
})

test("a policy that is not active, or whose delegate withdrew, takes no update; nor one whose time is over", async () => {
  const study = await TestStudy.create(parts)
  const proposed = await study.submit(delegated(study))
  await assert.rejects(update(study, proposed, nextIma()), { code: "policy-inactive" })
  const digest = await study.agree(delegated(study, { ima: { ...ofIma, by: "consortium" } }))
  study.clock.wall = Date.parse(until) - 1000
  await update(study, digest, nextIma(), { signedBy: consortium })
  study.clock.wall = Date.parse(until)
  const late = { signedBy: consortium, replaces: referenceDigest(nextIma()) }
  await assert.rejects(update(study, digest, nextIma("late"), late), { code: "not-permitted", message: /delegation ended/ })
  study.clock.wall = Date.parse(until) - 500
  await study.withdraw(digest, consortium)
  await assert.rejects(update(study, digest, nextIma("late"), late), { code: /policy-/ })
})

test("a delegate changes what was delegated, and nothing else of the document", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(delegated(study))
  const beyond = async (reference: Reference, subject: RegExp): Promise<void> =>
    assert.rejects(update(study, digest, reference), { code: "not-permitted", message: subject })
  const { boot, ima } = references
  await beyond({ ...ima, violationClasses: { all: ["/"] } }, /violationClasses/)
  await beyond({ ...ima, buffers: { ".ima": [digestOf(encodeUtf8("key"))] } }, /buffers/)
  await beyond({ ...ima, imaPolicy: { ...ima.imaPolicy, replaceable: ima.imaPolicy.replaceable === "no" ? "yes" : "no" } }, /imaPolicy/)
  await beyond({ ...boot, secureBoot: "any" === boot.secureBoot ? "disabled" : "any" }, /secureBoot/)
  await beyond({ ...boot, quirks: [...boot.quirks, "another"] }, /quirks/)
  await beyond({ ...boot, startupLocality: boot.startupLocality === "any" ? 3 : "any" }, /startupLocality/)
  await beyond(inRegister(boot, 0), /register 0/)
  await beyond(inRegister(boot, 7), /register 7/)
  await update(study, digest, inRegister(boot, 4))
})

test("what a policy could not name, an update cannot either", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(delegated(study))
  await assert.rejects(update(study, digest, { ...nextIma(), expires: "2026-01-01T00:00:00Z" }), { code: "invalid-reference" })
})

/** One more good digest for the first event of a register. */
function inRegister(boot: BootReference, pcr: number): BootReference {
  const registers = boot.registers.map((register) => {
    if (register.pcr !== pcr || !("events" in register)) return register
    const added = { type: "EV_SEPARATOR", digests: ["ab".repeat(32)], description: "" }
    return { pcr, events: [...register.events, added] }
  })
  return { ...boot, registers }
}

test("the document before is good for the overlap, then no machine of it gets a key", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(delegated(study))
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  await update(study, digest, onlyNext)
  study.clock.advance(599)
  const grant = await study.claim(agent)
  assert.equal(grant.policy, digest)

  const later = await TestStudy.create(parts)
  const again = await later.agree(delegated(later))
  const other = await makeAgent()
  await later.enrol(other)
  await later.queue(again)
  await update(later, again, onlyNext)
  later.clock.advance(600)
  await assert.rejects(later.claim(other), (error: RefusedError) => error.code === "not-acceptable")
})

test("a lease of a machine that meets only the document before ends at the first renewal after the overlap", async () => {
  const study = await TestStudy.create(parts)
  const { digest, agent, grant, run } = await study.running(delegated(study, { ima: { ...ofIma, overlapSeconds: 40 } }))
  await update(study, digest, onlyNext)
  study.clock.advance(30)
  await study.renew(agent, grant.lease.id)
  study.clock.advance(30)
  await assert.rejects(study.renew(agent, grant.lease.id), { code: "not-acceptable" })
  const view = await study.call(routes.getRun, study.as(vendor), { params: { run } })
  assert.equal(view.state, "ended")
  assert.match(view.reason ?? "", /renewal refused: ima-/)
})

test("a lease of a machine that meets the new document too goes on: its whole list is shown once more", async () => {
  const study = await TestStudy.create(parts)
  const { digest, agent, grant } = await study.running(delegated(study, { ima: { ...ofIma, overlapSeconds: 0 } }))
  const before = await study.challenge(agent, "host-1", grant.lease.id)
  assert.ok(before.imaFrom > 0)
  await update(study, digest, nextIma())
  study.clock.advance(30)
  const after = await study.challenge(agent, "host-1", grant.lease.id)
  assert.equal(after.imaFrom, 0)
  await study.renew(agent, grant.lease.id)
  const next = await study.challenge(agent, "host-1", grant.lease.id)
  assert.ok(next.imaFrom > 0)
})

test("taken back, by its delegate or an owner, it counts no more, for good, and what stood before stands", async () => {
  for (const party of [vendor, clinic]) {
    const study = await TestStudy.create(parts)
    const machine = nextMachine()
    const digest = await study.agree(withMachine(delegated(study), machine))
    const agent = await makeAgent()
    await study.enrol(agent, "host-2", machine)
    await study.queue(digest)
    const shown = await update(study, digest, nextIma())
    await assert.rejects(takeBack(study, digest, shown, consortium), { code: "not-permitted" })
    await assert.rejects(takeBack(study, digest, { ...shown, update: digest }, party), { code: "not-found" })
    const withdrawn = await takeBack(study, digest, shown, party)
    assert.equal(withdrawn.withdrawn?.by, party.name)
    assert.deepEqual(await takeBack(study, digest, shown, clinic), withdrawn)
    await assert.rejects(study.claim(agent, "host-2", machine), { code: "not-acceptable" })
    await assert.rejects(update(study, digest, nextIma()), { code: "wrong-state", message: /taken back/ })
    assert.equal(study.receipts.filter(({ kind }) => kind === "reference-update-withdrawn").length, 1)
    await update(study, digest, nextIma("once more"))
    await study.claim(agent, "host-2", machine)
  }
})

test("of many updates at once only the newest two count", async () => {
  const study = await TestStudy.create(parts)
  const machine = nextMachine()
  const digest = await study.agree(withMachine(delegated(study), machine))
  const first = nextIma("first")
  const second = { ...references.ima, name: "second" }
  const third = { ...references.ima, name: "third" }
  await update(study, digest, first)
  await update(study, digest, second, { replaces: referenceDigest(first) })
  const agent = await makeAgent()
  await study.enrol(agent, "host-2", machine)
  await study.queue(digest)
  await update(study, digest, third, { replaces: referenceDigest(second) })
  await assert.rejects(study.claim(agent, "host-2", machine), { code: "not-acceptable" })
  const view = await study.call(routes.getPolicy, study.as(clinic), { params: { digest } })
  assert.deepEqual(view.acceptedReferences[1]?.references, [referenceDigest(third), referenceDigest(second)])
})

test("a place is updated 32 times at most", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(delegated(study))
  let replaces = referenceDigest(references.ima)
  for (let count = 0; count < 32; count++) {
    const next = { ...references.ima, name: `number ${count}` }
    await update(study, digest, next, { replaces })
    replaces = referenceDigest(next)
  }
  await assert.rejects(update(study, digest, { ...references.ima, name: "more" }, { replaces }), { code: "limit-exceeded" })
})

test("updates stay over the manager's restart", async () => {
  const study = await TestStudy.create(parts)
  const digest = await study.agree(delegated(study))
  const shown = await update(study, digest, nextIma())
  study.restart()
  const view = await study.call(routes.getPolicy, study.as(clinic), { params: { digest } })
  assert.deepEqual(view.referenceUpdates, [shown])
})
