import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { AzureVm } from "../../lab/devices/azure-vm.testing.ts"
import { certifyPlatform, labPlatform, labTime, makeLabAuthority, makeLabKeys, type LabAuthority } from "../../lab/devices/dcap/authority.ts"
import { makeSgxQuote, makeTdxQuote, type TdxKnobs } from "../../lab/devices/dcap/device.ts"
import { Genuine } from "../evidence/genuine.ts"
import type { HostClaims } from "../evidence/host/claims.ts"
import type { MachineClaims } from "../evidence/machine/claims.ts"
import type { TeeEvidence } from "../evidence/tee/format.ts"
import { teeRootsFor } from "../evidence/tee/roots.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { type GenuineTee, verifyTee } from "../evidence/tee/verify.ts"
import { endorsementKeyDigest } from "../evidence/tpm/endorsements.ts"
import { certificateFingerprint } from "../pki/certificate.ts"
import { appraise, GrantedDecision, type Decision, type PreviousDecision } from "./appraise.ts"
import type { Machine } from "./document.ts"
import { policyDigest } from "./document.ts"
import { claims, enclaveMachine, guestedMachine, hostMachine, named, now, onMachine, references, tdxDemand } from "./fixtures.testing.ts"
import type { TdxRequirement } from "./tee.ts"

const authority = makeLabAuthority({ keys: makeLabKeys() })
const root = certificateFingerprint(authority.root.certificate)
const reportData = new Uint8Array(64).fill(7)
const mrTd = "aa".repeat(48)

function genuine(evidence: TeeEvidence): GenuineTee {
  return verifyTee(evidence, { reportData, roots: teeRootsFor(evidence, [root]), time: labTime, ccelQuirks: [] })
}

function td(report: NonNullable<TdxKnobs["report"]> = {}, by: LabAuthority = authority): GenuineTee {
  const quote = makeTdxQuote(by, reportData, { version: 5, body: "1.5", report: { mrTd, ...report } })
  return genuine({ kind: "tdx", quote, collateral: by.tdxCollateral })
}

const demand: TdxRequirement = { ...tdxDemand, laboratoryRoots: [root] }
const alone: Machine = { ...enclaveMachine, accept: [{ tdx: demand }] }
const guested: Machine = guestedMachine([{ tdx: demand }])

function judge(evidence: Omit<MachineClaims, "session">, machine: Machine, previous?: PreviousDecision["session"]): Decision {
  const policy = onMachine(machine)
  const before = previous === undefined ? {} : { previous: { policy: policyDigest(policy), job: "train", session: previous } }
  return appraise(Genuine.afterVerification({ session: named("session"), ...evidence }), { policy, job: "train", references, time: now, ...before })
}

function refusals({ findings }: Decision): readonly string[] {
  return findings.filter(({ effect }) => effect === "refusal").map(({ code, subject }) => `${code} ${subject}`)
}

function granted(decision: Decision): GrantedDecision {
  assert.deepEqual(refusals(decision), [])
  assert.ok(decision instanceof GrantedDecision)
  return decision
}

test("appraise() grants a TEE that meets an alternative, and names its laboratory", () => {
  const decision = granted(judge({ tee: td() }, alone))
  assert.deepEqual([decision.level, decision.insecureLaboratory, decision.laboratoryRoots], ["enclave", true, [root]])
  assert.deepEqual(decision.pieces, [{ kind: "tdx", laboratoryRoot: root, requirement: { tdx: demand }, upToDate: true }])
  assert.deepEqual(
    decision.findings.map(({ code }) => code),
    ["insecure-laboratory"],
  )
  assert.equal(decision.session.host, undefined)
  assert.deepEqual(
    [decision.session.tee?.kind, decision.session.tee?.platform, decision.session.tee?.measurements["MRTD"]],
    ["tdx", labPlatform.ppid, mrTd],
  )
})

test("appraise() grants a TEE with the guest inside it only where both meet their demands", () => {
  const decision = granted(judge({ tee: td(), host: claims }, guested))
  assert.deepEqual(
    decision.pieces.map(({ kind }) => kind),
    ["tpm", "tdx"],
  )
  assert.ok(decision.session.host && decision.session.tee)
  assert.deepEqual(refusals(judge({ tee: td({ mrTd: "bb".repeat(48) }), host: claims }, guested)), ["tee-measurement-differs MRTD"])
  const { identity: _identity, ...anonymous } = claims
  assert.deepEqual(refusals(judge({ tee: td(), host: anonymous }, guested)), ["identity-missing TPM"])
})

test("appraise() judges a guest as deep as a sealed host", () => {
  const loose: HostClaims = {
    ...claims,
    boot: { ...claims.boot, commandLines: claims.boot.commandLines.map((line) => ({ ...line, text: `${line.text} debug_shell` })) },
  }
  const inside = refusals(judge({ tee: td(), host: loose }, guested))
  assert.deepEqual(inside, refusals(judge({ host: loose }, hostMachine())))
  assert.ok(inside.length > 0)
})

test("appraise() refuses a piece that is not there", () => {
  assert.deepEqual(refusals(judge({}, alone)), ["piece-missing TEE"])
  assert.deepEqual(refusals(judge({ host: claims }, guested)), ["piece-missing TEE"])
  assert.deepEqual(refusals(judge({ tee: td() }, guested)), ["piece-missing TPM"])
  assert.deepEqual(refusals(judge({}, hostMachine())), ["piece-missing TPM"])
})

test("appraise() refuses a piece that nobody judges", () => {
  assert.deepEqual(refusals(judge({ tee: td(), host: claims }, alone)), ["piece-not-asked-for TPM"])
  assert.deepEqual(refusals(judge({ tee: td(), host: claims }, hostMachine())), ["piece-not-asked-for TEE"])
})

test("appraise() takes a laboratory's TEE only where the alternative lists its root", () => {
  assert.deepEqual(refusals(judge({ tee: td() }, { ...enclaveMachine, accept: [{ tdx: tdxDemand }] })), [`laboratory-root-not-accepted TEE root`])
})

test("appraise() pins a lease to the TEE that it was given to, measurement by measurement", () => {
  const any: Machine = {
    ...enclaveMachine,
    accept: [{ tdx: { ...demand, mrTd: "any", rtmrs: { ...demand.rtmrs, "1": ["a1".repeat(48)] } } }, { sgx: anySgx() }],
  }
  const first = granted(judge({ tee: td() }, any)).session
  granted(judge({ tee: td() }, any, first))
  // What software extends while it runs is policy's to judge, not the pin's.
  granted(judge({ tee: td({ rtmrs: ["a0".repeat(48), "a1".repeat(48), "a2".repeat(48), "ff".repeat(48)] }) }, any, first))
  assert.deepEqual(refusals(judge({ tee: td({ mrTd: "bb".repeat(48) }) }, any, first)), ["boot-session-changed MRTD"])
  for (const [at, change] of [
    [0, ["ff".repeat(48), "a1".repeat(48), "a2".repeat(48), "00".repeat(48)]],
    [2, ["a0".repeat(48), "a1".repeat(48), "ff".repeat(48), "00".repeat(48)]],
  ] as const)
    assert.deepEqual(refusals(judge({ tee: td({ rtmrs: [...change] }) }, any, first)), [`boot-session-changed RTMR${at}`])
  const other = certifyPlatform(authority, "99".repeat(16))
  assert.deepEqual(refusals(judge({ tee: td({}, other) }, any, first)), ["boot-session-changed platform"])
  const enclave = genuine({ kind: "sgx", quote: makeSgxQuote(authority, reportData), collateral: authority.sgxCollateral })
  assert.ok(refusals(judge({ tee: enclave }, any, first)).includes("boot-session-changed TEE"))
})

test("appraise() pins every measurement of an enclave", () => {
  const any: Machine = { ...enclaveMachine, accept: [{ sgx: anySgx() }] }
  const enclave = (report: object = {}): GenuineTee =>
    genuine({ kind: "sgx", quote: makeSgxQuote(authority, reportData, { report }), collateral: authority.sgxCollateral })
  const first = granted(judge({ tee: enclave() }, any)).session
  assert.deepEqual(refusals(judge({ tee: enclave({ mrEnclave: "77".repeat(32) }) }, any, first)), ["boot-session-changed MRENCLAVE"])
  assert.deepEqual(refusals(judge({ tee: enclave({ mrSigner: "77".repeat(32) }) }, any, first)), ["boot-session-changed MRSIGNER"])
})

function anySgx(): NonNullable<Extract<(typeof enclaveMachine.accept)[number], { sgx: unknown }>["sgx"]> {
  const { debug, tcb, platforms, laboratoryRoots } = demand
  return { mrEnclave: "any", mrSigner: "any", isvProdId: "any", isvSvn: 0, configId: "any", debug, tcb, platforms, laboratoryRoots }
}

test("appraise() refuses a renewal whose lease rests on another kind of machine", () => {
  const { session } = granted(judge({ host: claims }, hostMachine()))
  assert.deepEqual(refusals(judge({ tee: td() }, alone, session)), ["boot-session-changed TEE"])
  const { session: ofTee } = granted(judge({ tee: td() }, alone))
  assert.deepEqual(
    refusals(judge({ host: claims }, hostMachine(), ofTee)),
    ["boot-session-changed TPM", "ima-boot-aggregate-missing boot_aggregate"].slice(0, 1),
  )
})

test("appraise() takes as the guest's TPM of a confidential VM of Azure the paravisor's own alone", () => {
  const machine = new AzureVm(authority)
  const endorsementKey = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey
  const own = endorsementKeyDigest(endorsementKey)
  const bound = sessionReportData(new Uint8Array(32).fill(7))
  const show = (runtime: { readonly endorsementKey?: typeof endorsementKey }): GenuineTee => {
    const evidence = machine.evidence(bound, { runtime })
    return verifyTee(evidence, { reportData: bound, roots: teeRootsFor(evidence, [root]), time: labTime, ccelQuirks: [] })
  }
  const { identity } = claims
  const { guest } = guestedMachine()
  assert.ok(identity !== undefined && guest !== "none")
  const host: HostClaims = { ...claims, identity: { ...identity, endorsementKey: own } }
  const accept = [{ azure: machine.requirement }]
  const vm: Machine = { level: "enclave", accept, guest: { ...guest, tpm: { ...guest.tpm, endorsementKeys: [own, named("elsewhere")] } } }
  granted(judge({ tee: show({ endorsementKey }), host }, vm))
  const elsewhere: HostClaims = { ...claims, identity: { ...identity, endorsementKey: named("elsewhere") } }
  assert.deepEqual(refusals(judge({ tee: show({ endorsementKey }), host: elsewhere }, vm)), ["endorsement-key-not-listed HCLEkPub"])
  assert.deepEqual(refusals(judge({ tee: show({}), host }, vm)), ["endorsement-key-not-listed HCLEkPub"])
})
