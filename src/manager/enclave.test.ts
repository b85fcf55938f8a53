import assert from "node:assert/strict"
import { test } from "node:test"
import { AzureVm, type AzureKnobs } from "../../lab/devices/azure-vm.testing.ts"
import { certifyPlatform, labPlatform, makeLabAuthority, makeLabKeys, type LabAuthority } from "../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { digestOf, type Digest } from "../bytes/digest.ts"
import { enrolmentFields, innerNonce, sessionDigest, type MachineBundleDocument, type SessionFields } from "../evidence/bundle.ts"
import { decodeHostBundle, tpmPieceDigest } from "../evidence/bundle.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { encodeTeeEvidence, type TeeEvidenceDocument } from "../evidence/tee/format.ts"
import { certificateFingerprint } from "../pki/certificate.ts"
import type { EnclaveMachine, Policy } from "../policy/document.ts"
import { bootReference, commandLine, hostMachine, tdxDemand } from "../policy/fixtures.testing.ts"
import type { Challenge, ClaimGrant, HostView } from "../protocol/messages.ts"
import { routes } from "../protocol/routes.ts"
import { refuseTaken } from "./enrolments.ts"
import type { HostRecord } from "./records.ts"
import { captureReferences, LaboratoryMachine } from "./machine.testing.ts"
import { type AgentKeys, makeAgent, makeParts, makeParty, TestStudy } from "./study.testing.ts"

/** Machines of level `enclave`, on a laboratory's TDX device. INSECURE LABORATORY. */

const parts = await makeParts()
const { clinic, vendor } = parts
const intel = makeLabAuthority({ keys: makeLabKeys(), time: Date.parse("2026-11-22T12:00:00Z") })
const root = certificateFingerprint(intel.root.certificate)
const mrTd = "aa".repeat(48)
const enclave: EnclaveMachine = { level: "enclave", accept: [{ tdx: { ...tdxDemand, laboratoryRoots: [root] } }], guest: "none" }

async function newStudy(): Promise<TestStudy> {
  const study = await TestStudy.create(parts)
  study.moreRoots = [intel.root.certificate.der]
  study.restart()
  return study
}

function enclavePolicy(study: TestStudy, machine: EnclaveMachine = enclave, change: Partial<Policy> = {}): Policy {
  return study.policy({ machines: { host: machine }, ...change })
}

/** A TD with its agent. */
class TdHost {
  readonly keys: AgentKeys
  readonly authority: LabAuthority
  mrTd = mrTd

  constructor(keys: AgentKeys, authority = intel) {
    this.keys = keys
    this.authority = authority
  }

  static async make(authority?: LabAuthority): Promise<TdHost> {
    return new TdHost(await makeAgent(), authority)
  }

  quote(fields: SessionFields, report: object = {}): TeeEvidenceDocument {
    const quote = makeTdxQuote(this.authority, sessionReportData(sessionDigest(fields)), {
      version: 5,
      body: "1.5",
      report: { mrTd: this.mrTd, ...report },
    })
    return encodeTeeEvidence({ kind: "tdx", quote, collateral: this.authority.tdxCollateral })
  }

  async enrol(study: TestStudy, host = "td-1"): Promise<HostView> {
    const begun = await study.call(routes.beginEnrolment, this.keys, { body: { host, piece: "tee" } })
    assert.ok("nonce" in begun)
    const fields = enrolmentFields({ manager: begun.manager, nonce: begun.nonce, tlsKey: this.keys.tlsKey })
    return study.call(routes.answerEnrolment, this.keys, { params: { enrolment: begun.enrolment }, body: { evidence: this.quote(fields) } })
  }

  fields(challenge: Challenge, akName: string | null = null): SessionFields {
    const { purpose, nonce, manager, policy, job, run, lease } = challenge
    const hpkeKey = encodeBase64(this.keys.hpke.publicKey)
    return { purpose, version: 1, manager, nonce, hpkeKey, tlsKey: this.keys.tlsKey, akName, deviceEvidence: [], policy, job, run, lease }
  }

  evidence(challenge: Challenge): { challenge: string; hpkeKey: string; bundle: MachineBundleDocument } {
    const bundle = { perun: 1, tee: this.quote(this.fields(challenge)) } as const
    return { challenge: challenge.challenge, hpkeKey: encodeBase64(this.keys.hpke.publicKey), bundle }
  }

  async claim(study: TestStudy, host = "td-1"): Promise<ClaimGrant> {
    return study.call(routes.claimRun, this.keys, { body: this.evidence(await study.challenge(this.keys, host)) })
  }

  async renew(study: TestStudy, lease: string, host = "td-1"): Promise<{ seconds: number }> {
    const challenge = await study.challenge(this.keys, host, lease)
    return study.call(routes.renewLease, this.keys, { params: { lease }, body: this.evidence(challenge) })
  }
}

async function running(): Promise<{ study: TestStudy; td: TdHost; grant: ClaimGrant; run: string; digest: Digest }> {
  const study = await newStudy()
  const digest = await study.agree(enclavePolicy(study))
  const td = await TdHost.make()
  await td.enrol(study)
  const run = await study.queue(digest)
  return { study, td, grant: await td.claim(study), run, digest }
}

test("a TD enrols by its own evidence, is given the keys of a run of level enclave, and renews", async () => {
  const { study, td, grant, run } = await running()
  assert.deepEqual(await study.openGrant(td.keys, grant), { records: parts.records.identity, trainer: parts.trainer.identity })
  for (let count = 0; count < 3; count++) {
    study.clock.advance(50)
    assert.deepEqual(await td.renew(study, grant.lease.id), { seconds: 60 })
  }
  const view = await study.call(routes.getRun, study.as(clinic), { params: { run } })
  assert.deepEqual([view.state, view.host, view.laboratory], ["running", "td-1", true])
  const { hosts } = await study.call(routes.listHosts, study.as(clinic), {})
  assert.partialDeepStrictEqual(hosts, [{ host: "td-1", identity: { tee: "tdx", platform: labPlatform.ppid, root, rootKind: "laboratory" } }])
  const lease = study.store.get("leases", grant.lease.id)
  assert.deepEqual([lease?.boot, lease?.tee?.measurements["MRTD"], lease?.laboratoryRoots], [undefined, mrTd, [root]])
  const { submodules } = study.store.get("appraisals", run) ?? assert.fail("no record")
  assert.deepEqual(Object.keys(submodules), ["tdx"])
  assert.deepEqual([submodules["tdx"]?.status, submodules["tdx"]?.laboratory, submodules["tdx"]?.vector.hardware], ["warning", true, 32])
})

test("after the manager's restart a TD renews as the TD that it was, and not as another", async () => {
  const { study, td, grant } = await running()
  study.restart()
  assert.deepEqual(await td.renew(study, grant.lease.id), { seconds: 60 })
  study.restart()
  const challenge = await study.challenge(td.keys, "td-1", grant.lease.id)
  const changed = td.quote(td.fields(challenge), { rtmrs: ["ff".repeat(48), "a1".repeat(48), "a2".repeat(48), "00".repeat(48)] })
  const body = { ...td.evidence(challenge), bundle: { perun: 1, tee: changed } as const }
  await assert.rejects(study.call(routes.renewLease, td.keys, { params: { lease: grant.lease.id }, body }), /boot-session-changed: RTMR0/)
})

test("a TD that is not what the policy lists is refused by name, with its laboratory marked", async () => {
  const study = await newStudy()
  const digest = await study.agree(enclavePolicy(study))
  const td = await TdHost.make()
  td.mrTd = "bb".repeat(48)
  await td.enrol(study)
  const run = await study.queue(digest)
  await assert.rejects(td.claim(study), /tee-measurement-differs: MRTD/)
  assert.equal(study.store.get("appraisals", run)?.submodules["tdx"]?.status, "contraindicated")
  const { receipts } = await study.call(routes.listReceipts, study.as(clinic))
  const refused = receipts.find(({ receipt }) => receipt?.kind === "release-refused")?.receipt
  assert.ok(refused !== undefined && "laboratory" in refused && refused.laboratory === true)
})

test("a TD's evidence counts for the session that it was made for alone", async () => {
  const study = await newStudy()
  const digest = await study.agree(enclavePolicy(study))
  const [td, thief] = [await TdHost.make(), await TdHost.make()]
  await td.enrol(study)
  const run = await study.queue(digest)
  const wrong = async (change: (fields: SessionFields) => SessionFields): Promise<void> => {
    const challenge = await study.challenge(td.keys, "td-1")
    const bundle = { perun: 1, tee: td.quote(change(td.fields(challenge))) } as const
    await assert.rejects(study.call(routes.claimRun, td.keys, { body: { ...td.evidence(challenge), bundle } }), { code: "wrong-nonce" })
  }
  const old = await study.challenge(td.keys, "td-1")
  await wrong((fields) => ({ ...fields, nonce: old.nonce }))
  await wrong((fields) => ({ ...fields, tlsKey: thief.keys.tlsKey }))
  await wrong((fields) => ({ ...fields, hpkeKey: encodeBase64(thief.keys.hpke.publicKey) }))
  await wrong((fields) => ({ ...fields, purpose: "enrol" }))
  await wrong((fields) => ({ ...fields, akName: "000b" }))
  const { vector, findings } = study.store.get("appraisals", run)?.submodules["tdx"] ?? assert.fail("no record")
  assert.deepEqual([new Set(Object.values(vector)), findings], [new Set([99]), ["wrong-nonce"]])
})

test("pieces are exactly those that the policy demands", async () => {
  const study = await newStudy()
  const td = await TdHost.make()
  await td.enrol(study)
  await study.queue(await study.agree(enclavePolicy(study)))
  const challenge = await study.challenge(td.keys, "td-1")
  assert.equal(challenge.pieces, "tee")
  const { tpm } = parts.machine.bundle(sessionDigest(td.fields(challenge)))
  const surplus = { ...td.evidence(challenge), bundle: { perun: 1, tpm, tee: td.quote(td.fields(challenge)) } as const }
  await assert.rejects(study.call(routes.claimRun, td.keys, { body: surplus }), { code: "surplus-piece" })
  const next = await study.challenge(td.keys, "td-1")
  await assert.rejects(study.call(routes.claimRun, td.keys, { body: { ...td.evidence(next), bundle: { perun: 1, tpm } } }), { code: "surplus-piece" })
  const empty = await study.challenge(td.keys, "td-1")
  await assert.rejects(study.call(routes.claimRun, td.keys, { body: { ...td.evidence(empty), bundle: { perun: 1 } } }), { code: "missing-piece" })
})

test("a machine is offered only runs whose evidence it can show", async () => {
  const study = await newStudy()
  const [td, host] = [await TdHost.make(), await makeAgent()]
  await td.enrol(study)
  await study.enrol(host)
  const ofHosts = await study.queue(await study.agree(study.policy({ study: "hosts" })))
  const none = await study.fetch("POST", "/v1/challenges", td.keys, JSON.stringify({ purpose: "claim", host: "td-1" }))
  assert.equal(none.status, 204)
  const ofEnclaves = await study.queue(await study.agree(enclavePolicy(study, enclave, { study: "enclaves" })))
  const [tee, tpm] = [await study.challenge(td.keys, "td-1"), await study.challenge(host)]
  assert.deepEqual([tee.run, tee.pieces, tpm.run, tpm.pieces], [ofEnclaves, "tee", ofHosts, "tpm"])
})

test("a machine of another processor does not take the place of the one that enrolled", async () => {
  const study = await newStudy()
  const td = await TdHost.make()
  const other = new TdHost(td.keys, certifyPlatform(intel, "99".repeat(16)))
  await study.queue(await study.agree(enclavePolicy(study)))
  await td.enrol(study)
  await assert.rejects(other.claim(study), { code: "wrong-binding" })
  await assert.rejects(other.enrol(study), { code: "already-exists" })
})

test("nor does one that says it is that processor under another laboratory's root", async () => {
  const study = await newStudy()
  const forger = makeLabAuthority({ keys: makeLabKeys(), time: Date.parse("2026-11-22T12:00:00Z") })
  study.moreRoots = [intel.root.certificate.der, forger.root.certificate.der]
  study.restart()
  const both = [root, certificateFingerprint(forger.root.certificate)]
  const machine: EnclaveMachine = { ...enclave, accept: [{ tdx: { ...tdxDemand, laboratoryRoots: both } }] }
  const td = await TdHost.make()
  await study.queue(await study.agree(enclavePolicy(study, machine)))
  await td.enrol(study)
  await assert.rejects(new TdHost(td.keys, forger).claim(study), { code: "wrong-binding", message: /root/ })
})

test("an enrolment's evidence must be over its own nonce and TLS key", async () => {
  const study = await newStudy()
  const [td, thief] = [await TdHost.make(), await TdHost.make()]
  const begin = async (): Promise<{ enrolment: string; nonce: string; manager: string }> => {
    const begun = await study.call(routes.beginEnrolment, td.keys, { body: { host: "td-1", piece: "tee" } })
    assert.ok("nonce" in begun)
    return begun
  }
  const refused = async (facts: (begun: { nonce: string; manager: string }) => { nonce: string; manager: string; tlsKey: Digest }): Promise<void> => {
    const begun = await begin()
    const body = { evidence: td.quote(enrolmentFields(facts(begun))) }
    await assert.rejects(study.call(routes.answerEnrolment, td.keys, { params: { enrolment: begun.enrolment }, body }), { code: "wrong-nonce" })
  }
  const { tlsKey } = td.keys
  await refused((begun) => ({ ...begun, tlsKey: thief.keys.tlsKey }))
  await refused((begun) => ({ ...begun, nonce: "00".repeat(32), tlsKey }))
  await refused((begun) => ({ ...begun, manager: "00".repeat(16), tlsKey }))
  const { enrolment } = await begin()
  await assert.rejects(study.call(routes.answerEnrolment, td.keys, { params: { enrolment }, body: { secret: "AAAA" } }), { code: "wrong-answer" })
  await assert.rejects(study.call(routes.answerEnrolment, td.keys, { params: { enrolment }, body: { secret: "AAAA" } }), { code: "not-found" })
  const tpm = await study.call(routes.beginEnrolment, td.keys, { body: parts.machine.enrolmentRequest("td-1") })
  const evidence = td.quote(enrolmentFields({ nonce: "00".repeat(32), manager: study.manager.description.instance, tlsKey }))
  await assert.rejects(study.call(routes.answerEnrolment, td.keys, { params: { enrolment: tpm.enrolment }, body: { evidence } }), {
    code: "wrong-answer",
  })
  assert.equal(study.store.count("hosts"), 0)
})

test("a laboratory's TEE enrols only where the operator named that laboratory", async () => {
  const study = await TestStudy.create(parts)
  await assert.rejects((await TdHost.make()).enrol(study), { code: "wrong-chain" })
})

test("a processor has many names, but not without end; retiring one retires them all, for good", async () => {
  const { study, td, run } = await running()
  await (await TdHost.make()).enrol(study, "td-2")
  await (await TdHost.make(certifyPlatform(intel, "99".repeat(16)))).enrol(study, "elsewhere")
  await td.enrol(study)
  assert.equal(study.store.count("hosts"), 3)
  await study.call(routes.retireHost, study.as(vendor), { params: { host: "td-2" }, body: {} })
  assert.deepEqual(
    study.store
      .list("hosts")
      .map(({ host, retired }) => [host, retired])
      .toSorted(),
    [
      ["elsewhere", false],
      ["td-1", true],
      ["td-2", true],
    ],
  )
  const view = await study.call(routes.getRun, study.as(clinic), { params: { run } })
  assert.deepEqual([view.state, view.reason], ["ended", "host td-1 was retired"])
  await assert.rejects((await TdHost.make()).enrol(study, "td-3"), /processor was retired/)
  await assert.rejects((await TdHost.make()).enrol(study, "td-1"), /retired host/)
})

test("a policy that allows any processor makes no machine its parties' own: they neither see what others name nor retire what never ran for them", async () => {
  const study = await newStudy()
  const only = (platforms: "any" | readonly string[]): EnclaveMachine => ({
    ...enclave,
    accept: [{ tdx: { ...tdxDemand, platforms, laboratoryRoots: [root] } }],
  })
  await study.agree(enclavePolicy(study, only([labPlatform.ppid])))
  const [named, free] = [await TdHost.make(), await TdHost.make(certifyPlatform(intel, "99".repeat(16)))]
  await named.enrol(study, "named")
  await free.enrol(study, "free")

  const other = await makeParty("other")
  study.members.add(other.key)
  const hostsOf = async (): Promise<readonly string[]> => (await study.call(routes.listHosts, study.as(other), {})).hosts.map(({ host }) => host)
  const retire = async (host: string): Promise<HostView> => study.call(routes.retireHost, study.as(other), { params: { host }, body: {} })
  const { stakeholders } = study.policy()
  const parties = { ...stakeholders, consortium: { ...stakeholders["consortium"], keys: [other.key] } } as Policy["stakeholders"]
  const digest = await study.submit(enclavePolicy(study, only("any"), { study: "other", stakeholders: parties }))
  assert.deepEqual(await hostsOf(), ["free"])
  for (const party of [clinic, vendor, other]) await study.sign(digest, party)
  assert.deepEqual(await hostsOf(), ["free"])
  await assert.rejects(retire("named"), { code: "not-found" })
  await assert.rejects(retire("free"), { code: "not-permitted" })

  await study.deposit(digest, "records", clinic, parts.records)
  await study.deposit(digest, "trainer", vendor, parts.trainer)
  await study.queue(digest)
  await named.claim(study, "named")
  assert.deepEqual((await hostsOf()).toSorted(), ["free", "named"], "a machine that works for them is theirs to see, and to stop")
  assert.equal((await retire("named")).retired, true)
})

test("of one processor 64 names are kept", async () => {
  const study = await newStudy()
  const td = await TdHost.make()
  await td.enrol(study)
  const [record] = study.store.list("hosts")
  assert.ok(record !== undefined && !("akPublic" in record))
  const fill = (from: number, to: number, platform: string | null): void =>
    study.store.transact(new Date(study.clock.wall), (tx) => {
      for (let index = from; index < to; index++)
        tx.put("hosts", `other-${index}`, { ...record, host: `other-${index}`, identity: { ...record.identity, platform } as typeof record.identity })
    })
  const { platform } = record.identity as { platform: string }
  fill(0, 62, platform)
  await td.enrol(study, "last")
  await assert.rejects(td.enrol(study, "one-too-many"), { code: "limit-exceeded" })
  await td.enrol(study)
  await (await TdHost.make(certifyPlatform(intel, "99".repeat(16)))).enrol(study, "another-processor")
})

/** A guest that level `sealed` takes. */
const guestMachine = new LaboratoryMachine(parts.authority, "", `/vmlinuz ${commandLine}`)
const guestParts = { ...parts, machine: guestMachine, references: captureReferences(guestMachine, bootReference.appliance) }

/** A study on a TD whose guest proves itself by a TPM, and its agent. */
async function guested(): Promise<{ study: TestStudy; agent: AgentKeys; run: string; td: TdHost }> {
  const study = await TestStudy.create(guestParts)
  study.moreRoots = [intel.root.certificate.der]
  study.restart()
  const { level: _level, ...guest } = hostMachine(study.policy(), "host")
  const agent = await makeAgent()
  await study.enrol(agent)
  const run = await study.queue(await study.agree(enclavePolicy(study, { ...enclave, guest })))
  return { study, agent, run, td: new TdHost(agent) }
}

function insideOf(
  td: TdHost,
  challenge: Challenge,
  report: object = {},
  withBootLog = true,
): { challenge: string; hpkeKey: string; bundle: MachineBundleDocument } {
  const fields = td.fields(challenge, guestMachine.akName)
  const inner = guestMachine.bundle(innerNonce(fields), { from: challenge.imaFrom, withBootLog })
  const tee = td.quote({ ...fields, deviceEvidence: [tpmPieceDigest(decodeHostBundle(inner))] }, report)
  return { challenge: challenge.challenge, hpkeKey: encodeBase64(td.keys.hpke.publicKey), bundle: { ...inner, tee } }
}

test("a TD with a TPM inside it is one machine: the TPM enrols, the TD covers it, both are judged, at renewals too", async () => {
  const { study, agent, run, td } = await guested()
  const challenge = await study.challenge(agent)
  assert.equal(challenge.pieces, "tee-with-tpm")
  const grant = await study.call(routes.claimRun, agent, { body: insideOf(td, challenge) })
  assert.deepEqual(await study.openGrant(agent, grant), { records: parts.records.identity, trainer: parts.trainer.identity })
  const params = { lease: grant.lease.id }
  const renewal = await study.challenge(agent, "host-1", grant.lease.id)
  assert.ok(renewal.imaFrom > 0)
  assert.deepEqual(await study.call(routes.renewLease, agent, { params, body: insideOf(td, renewal, {}, false) }), { seconds: 60 })
  study.restart()
  // The manager has kept the boot log that the claim came with; what the TD covers is the piece as it was sent, without one.
  const afterRestart = await study.challenge(agent, "host-1", grant.lease.id)
  assert.equal(afterRestart.imaFrom, 0)
  assert.deepEqual(await study.call(routes.renewLease, agent, { params, body: insideOf(td, afterRestart, {}, false) }), { seconds: 60 })
  const { boot, tee, laboratoryRoots } = study.store.get("leases", grant.lease.id) ?? assert.fail("no lease")
  assert.deepEqual([boot?.endorsementKey, tee?.kind], [guestMachine.endorsementKey, "tdx"])
  assert.deepEqual(new Set(laboratoryRoots), new Set([root, digestOf(parts.authority.root)]))
  const { submodules } = study.store.get("appraisals", run) ?? assert.fail("no record")
  assert.deepEqual(Object.keys(submodules).toSorted(), ["tdx", "tpm"])
  assert.deepEqual([submodules["tpm"]?.vector["file-system"], submodules["tdx"]?.laboratory], [2, true])
  const last = await study.challenge(agent, "host-1", grant.lease.id)
  await assert.rejects(
    study.call(routes.renewLease, agent, { params, body: insideOf(td, last, { rtmrs: ["ff", "a1", "a2", "00"].map((byte) => byte.repeat(48)) }) }),
    /boot-session-changed: RTMR0/,
  )
})

test("a guest is refused for its TD, and for what runs inside it", async () => {
  const { study, agent, run, td } = await guested()
  const refused = async (message: RegExp, report: object = {}): Promise<void> => {
    const body = insideOf(td, await study.challenge(agent), report)
    await assert.rejects(study.call(routes.claimRun, agent, { body }), message)
  }
  await refused(/tee-measurement-differs: MRTD/, { mrTd: "bb".repeat(48) })
  const { tpm, tdx } = study.store.get("appraisals", run)?.submodules ?? assert.fail("no record")
  assert.deepEqual([tpm?.status, tdx?.status], ["warning", "contraindicated"])
  const other = new LaboratoryMachine(parts.authority, "", `/vmlinuz ${commandLine} debug`)
  const second = await makeAgent()
  await study.enrol(second, "host-2", other)
  const challenge = await study.challenge(second, "host-2")
  const host = new TdHost(second)
  const fields = host.fields(challenge, other.akName)
  const inner = other.bundle(innerNonce(fields))
  const bundle = { ...inner, tee: host.quote({ ...fields, deviceEvidence: [tpmPieceDigest(decodeHostBundle(inner))] }) }
  await assert.rejects(
    study.call(routes.claimRun, second, { body: { challenge: challenge.challenge, hpkeKey: encodeBase64(second.hpke.publicKey), bundle } }),
    {
      code: "not-acceptable",
    },
  )
  const view = await study.call(routes.getRun, study.as(clinic), { params: { run } })
  const codes = view.refusals.at(-1)?.findings.map(({ code }) => code) ?? []
  assert.ok(codes.includes("endorsement-key-not-listed") && codes.includes("command-line-differs"), codes.join())
})

test("a TD that covers another TPM's piece, or none, is not one machine with this TPM", async () => {
  const { study, agent, td } = await guested()
  const attempt = async (make: (fields: SessionFields) => MachineBundleDocument, code: string): Promise<void> => {
    const challenge = await study.challenge(agent)
    const fields = td.fields(challenge, guestMachine.akName)
    const body = { challenge: challenge.challenge, hpkeKey: encodeBase64(agent.hpke.publicKey), bundle: make(fields) }
    await assert.rejects(study.call(routes.claimRun, agent, { body }), { code })
  }
  const inner = (fields: SessionFields): ReturnType<typeof guestMachine.bundle> => guestMachine.bundle(innerNonce(fields))
  await attempt((fields) => ({ ...inner(fields), tee: td.quote(fields) }), "wrong-nonce")
  await attempt((fields) => {
    const [mine, foreign] = [inner(fields), inner(fields)]
    return { ...mine, tee: td.quote({ ...fields, deviceEvidence: [tpmPieceDigest(decodeHostBundle(foreign))] }) }
  }, "wrong-nonce")
  await attempt((fields) => {
    const outer = guestMachine.bundle(sessionDigest(fields))
    return { ...outer, tee: td.quote({ ...fields, deviceEvidence: [tpmPieceDigest(decodeHostBundle(outer))] }) }
  }, "wrong-nonce")
  await attempt((fields) => inner(fields), "missing-piece")
  await attempt((fields) => ({ perun: 1, tee: td.quote(fields) }), "missing-piece")
})

test("refuseTaken() keeps 1024 machines that do not say which they are, and cannot tell one that was retired", () => {
  const identity = { tee: "snp", platform: null, root, rootKind: "laboratory", description: "" } as const
  const record = (index: number): HostRecord => ({ host: `host-${index}`, identity, enrolledAt: "2026-01-01T00:00:00Z", retired: index === 0 })
  const records = Array.from({ length: 1024 }, (_, index) => record(index))
  refuseTaken(records.slice(1), "new", identity)
  assert.throws(() => refuseTaken(records, "new", identity), { code: "limit-exceeded" })
  refuseTaken(records, "host-1", identity)
  refuseTaken(records, "new", { ...identity, tee: "tdx" })
  assert.throws(() => refuseTaken(records, "host-0", identity), { code: "already-exists" })
  assert.throws(() => refuseTaken(records, "host-1", { ...identity, root: digestOf(new Uint8Array(1)) }), { code: "already-exists" })
})

/** A machine that is a confidential VM of Azure over TDX, with its agent: what it shows is made by the paravisor's virtual TPM. */
class AzureHost extends TdHost {
  readonly vm: AzureVm
  knobs: AzureKnobs = {}

  constructor(keys: AgentKeys, vm = new AzureVm(intel)) {
    super(keys)
    this.vm = vm
  }

  override quote(fields: SessionFields): TeeEvidenceDocument {
    return encodeTeeEvidence(this.vm.evidence(sessionReportData(sessionDigest(fields)), this.knobs))
  }
}

test("a confidential VM of Azure enrols, is given the keys of a run and renews, by paravisor and registers; a changed register ends it", async () => {
  const study = await newStudy()
  const vm = new AzureHost(await makeAgent())
  const digest = await study.agree(enclavePolicy(study, { level: "enclave", accept: [{ azure: vm.vm.requirement }], guest: "none" }))
  const view = await vm.enrol(study, "azure-1")
  assert.partialDeepStrictEqual(view, { identity: { tee: "azure-vtpm", platform: labPlatform.ppid, root, rootKind: "laboratory" } })
  const run = await study.queue(digest)
  const grant = await vm.claim(study, "azure-1")
  assert.deepEqual(await study.openGrant(vm.keys, grant), { records: parts.records.identity, trainer: parts.trainer.identity })
  study.clock.advance(50)
  assert.deepEqual(await vm.renew(study, grant.lease.id, "azure-1"), { seconds: 60 })
  const { submodules } = study.store.get("appraisals", run) ?? assert.fail("no record")
  assert.deepEqual(Object.keys(submodules), ["azure-vtpm"])
  study.restart()
  assert.deepEqual(await vm.renew(study, grant.lease.id, "azure-1"), { seconds: 60 })
  vm.knobs = { pcrs: { "11": "dd".repeat(32) } }
  await assert.rejects(vm.renew(study, grant.lease.id, "azure-1"), /PCR11/)
  assert.equal((await study.call(routes.getRun, study.as(clinic), { params: { run } })).state, "ended")
})

test("a confidential VM of Azure that is another, booted otherwise or only a TD is refused by name", async () => {
  const study = await newStudy()
  const good = new AzureHost(await makeAgent())
  const digest = await study.agree(enclavePolicy(study, { level: "enclave", accept: [{ azure: good.vm.requirement }], guest: "none" }))
  await study.queue(digest)
  const claims = async (host: TdHost, name: string, refusal: RegExp): Promise<void> => {
    await host.enrol(study, name)
    await assert.rejects(host.claim(study, name), refusal)
  }
  await claims(new AzureHost(await makeAgent()), "another-vtpm", /tee-platform-not-listed/)
  const changed = new AzureHost(await makeAgent(), good.vm)
  changed.knobs = { pcrs: { "4": "ee".repeat(32) } }
  await claims(changed, "other-boot", /tee-measurement-differs: PCR4/)
  const shorter = new AzureHost(await makeAgent(), good.vm)
  shorter.knobs = { pcrs: { "7": undefined } }
  await claims(shorter, "no-pcr7", /PCR7/)
  const insecure = new AzureHost(await makeAgent(), good.vm)
  insecure.knobs = { runtime: { vmConfiguration: { "secure-boot": false } } }
  await claims(insecure, "no-secure-boot", /tee-setting-differs/)
  const bare = await TdHost.make()
  await bare.enrol(study, "bare-td")
  await assert.rejects(bare.claim(study, "bare-td"), /tee-kind-not-accepted/)
})
