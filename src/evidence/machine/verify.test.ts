import assert from "node:assert/strict"
import { test } from "node:test"
import { labTime, makeLabAuthority, makeLabKeys } from "../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../lab/devices/dcap/device.ts"
import { digestOf } from "../../bytes/digest.ts"
import { encodeBase64, encodeHex, encodeUtf8 } from "../../bytes/text.ts"
import { certificateFingerprint } from "../../pki/certificate.ts"
import { bindPieces, innerNonce, maxEventLogBytes, maxImaListBytes, parseMachineBundle, sessionDigest, tpmPieceDigest } from "../bundle.ts"
import type { DemandedPieces, HostBundle, MachineBundle, SessionFields } from "../bundle.ts"
import { LabMachine } from "../host/machine.testing.ts"
import { hostPcrs } from "../host/verify.ts"
import { sessionReportData } from "../report-data.ts"
import { encodeTeeEvidence } from "../tee/format.ts"
import { maxTeeEvidenceBytes } from "../tee/hardware.ts"
import type { TeeEvidence } from "../tee/format.ts"
import { teeRootsFor } from "../tee/roots.ts"
import { tpmNameText } from "../tpm/keys.ts"
import type { MachineClaims } from "./claims.ts"
import { verifyMachine } from "./verify.ts"
import type { MachineExpectation } from "./verify.ts"

const authority = makeLabAuthority({ keys: makeLabKeys() })
const root = certificateFingerprint(authority.root.certificate)
const digest = digestOf(encodeUtf8("x"))

/** A guest in a TD with a TPM of its own, and the session that it proves itself in. */
interface Guest {
  readonly machine: LabMachine
  readonly session: SessionFields
}

function guest(change: Partial<SessionFields> = {}): Guest {
  const machine = new LabMachine()
  const session: SessionFields = {
    purpose: "claim",
    version: 1,
    manager: "00".repeat(16),
    nonce: "11".repeat(32),
    hpkeKey: "AAAA",
    tlsKey: digest,
    akName: tpmNameText(machine.key.area),
    deviceEvidence: [],
    policy: digest,
    job: "train",
    run: "22".repeat(16),
    lease: "33".repeat(16),
    ...change,
  }
  return { machine, session }
}

function quoteTd(fields: SessionFields): TeeEvidence {
  const quote = makeTdxQuote(authority, sessionReportData(sessionDigest(fields)), { version: 5, body: "1.5" })
  return { kind: "tdx", quote, collateral: authority.tdxCollateral }
}

/** What an honest guest sends. */
function bundleOf({ machine, session }: Guest): { readonly tpm: HostBundle; readonly tee: TeeEvidence } {
  const tpm = machine.quote(innerNonce(session))
  return { tpm, tee: quoteTd({ ...session, deviceEvidence: [tpmPieceDigest(tpm)] }) }
}

function verify(bundle: MachineBundle, session: SessionFields, demanded: DemandedPieces): MachineClaims {
  return verifyMachine(bundle, expectationOf(session, demanded)).claims
}

function expectationOf(session: SessionFields, demanded: DemandedPieces): MachineExpectation {
  const identity = {
    endorsementKey: digest,
    root: digest,
    rootKind: "laboratory",
    description: "",
    attestationKeyName: session.akName ?? "",
  } as const
  return {
    demanded,
    session,
    host: { requiredPcrs: hostPcrs, quirks: [], identity, previous: "none" },
    tee: (evidence) => ({ roots: teeRootsFor(evidence, [root]), time: labTime, ccelQuirks: [] }),
  }
}

test("a TEE with its guest's TPM, a TEE alone and a host as before are taken", () => {
  const bundle = bundleOf(one)
  const both = verify(bundle, one.session, "tee-with-tpm")
  assert.equal(both.session, text(sessionDigest({ ...one.session, deviceEvidence: [tpmPieceDigest(bundle.tpm)] })))
  assert.equal(both.tee?.kind, "tdx")
  assert.equal(both.host?.identity?.attestationKeyName, one.session.akName)
  const { session } = guest({ akName: null })
  const alone = verify({ tee: quoteTd(session) }, session, "tee")
  assert.deepEqual([alone.session, alone.tee?.kind, alone.host], [text(sessionDigest(session)), "tdx", undefined])
  const host = verify({ tpm: one.machine.quote(sessionDigest(one.session)) }, one.session, "tpm")
  assert.deepEqual([host.session, host.tee, host.host?.boot.pcrs.size], [text(sessionDigest(one.session)), undefined, both.host?.boot.pcrs.size])
})

const one = guest()
const other = guest()
const [good, foreign] = [bundleOf(one), bundleOf(other)]

test("a piece that was stripped is refused", () => {
  assert.throws(() => verify({ tee: good.tee }, one.session, "tee-with-tpm"), { code: "missing-piece", path: "bundle.tpm" })
  assert.throws(() => verify({ tpm: good.tpm }, one.session, "tee-with-tpm"), { code: "missing-piece", path: "bundle.tee" })
  assert.throws(() => verify({ tpm: good.tpm }, { ...one.session, akName: null }, "tee"), { code: "surplus-piece", path: "bundle.tpm" })
  for (const demanded of ["tpm", "tee"] as const) {
    const session = demanded === "tpm" ? one.session : { ...one.session, akName: null }
    assert.throws(() => verify({}, session, demanded), { code: "missing-piece", path: `bundle.${demanded}` })
  }
})

test("a piece that nobody asked for is refused", () => {
  const tpm = one.machine.quote(sessionDigest(one.session))
  assert.throws(() => verify({ tpm, tee: good.tee }, one.session, "tpm"), { code: "surplus-piece", path: "bundle.tee" })
  const session = { ...one.session, akName: null }
  assert.throws(() => verify({ tpm, tee: quoteTd(session) }, session, "tee"), { code: "surplus-piece", path: "bundle.tpm" })
})

test("pieces of two machines do not fit together, though each is genuine and of the same session but for the key", () => {
  assert.throws(() => verify({ tee: good.tee, tpm: foreign.tpm }, one.session, "tee-with-tpm"), { code: "wrong-nonce" })
  assert.throws(() => verify({ tee: foreign.tee, tpm: good.tpm }, one.session, "tee-with-tpm"), { code: "wrong-nonce" })
  assert.throws(() => verify(foreign, one.session, "tee-with-tpm"), { code: "wrong-nonce" })
})

test("a TD that vouches for a foreign TPM's quote is refused by the enrolled key", () => {
  const tpm = other.machine.quote(innerNonce(one.session))
  const tee = quoteTd({ ...one.session, deviceEvidence: [tpmPieceDigest(tpm)] })
  assert.throws(() => verify({ tpm, tee }, one.session, "tee-with-tpm"), { code: "wrong-binding", path: "akPublic" })
})

test("a quote over another inner nonce is refused, though the TD covers it", () => {
  const tpm = one.machine.quote(innerNonce({ ...one.session, nonce: "12".repeat(32) }))
  const tee = quoteTd({ ...one.session, deviceEvidence: [tpmPieceDigest(tpm)] })
  assert.throws(() => verify({ tpm, tee }, one.session, "tee-with-tpm"), { code: "wrong-nonce" })
})

test("a quote made inside a TD does not pass for a host's, nor a host's for one made inside a TD", () => {
  assert.throws(() => verify({ tpm: good.tpm }, one.session, "tpm"), { code: "wrong-nonce" })
  const tpm = one.machine.quote(sessionDigest(one.session))
  const tee = quoteTd({ ...one.session, deviceEvidence: [tpmPieceDigest(tpm)] })
  assert.throws(() => verify({ tpm, tee }, one.session, "tee-with-tpm"), { code: "wrong-nonce" })
})

test("a TD that does not cover its TPM is refused, with the name of the key or without", () => {
  for (const fields of [one.session, { ...one.session, akName: null, deviceEvidence: [tpmPieceDigest(good.tpm)] }])
    assert.throws(() => verify({ tpm: good.tpm, tee: quoteTd(fields) }, one.session, "tee-with-tpm"), { code: "wrong-nonce" })
})

const changes: Partial<SessionFields>[] = [
  { purpose: "renew" },
  { manager: "01".repeat(16) },
  { nonce: "12".repeat(32) },
  { hpkeKey: "AAAB" },
  { tlsKey: digestOf(encodeUtf8("y")) },
  { akName: "000c" },
  { policy: null },
  { job: "other" },
  { run: null },
  { lease: null },
]
for (const change of changes) {
  test(`innerNonce() and both pieces depend on ${Object.keys(change).join()}`, () => {
    const changed = { ...one.session, ...change }
    assert.notDeepEqual(innerNonce(changed), innerNonce(one.session))
    assert.throws(() => verify(good, changed, "tee-with-tpm"), { code: "wrong-nonce" })
  })
}

test("innerNonce() does not depend on the evidence that is made over it, and leaves foreign members out", () => {
  assert.deepEqual(innerNonce({ ...one.session, deviceEvidence: [digest] }), innerNonce(one.session))
  assert.deepEqual(innerNonce({ ...one.session, extra: 1 } as SessionFields), innerNonce(one.session))
})

test("tpmPieceDigest() depends on every part", () => {
  const bytes = Uint8Array.of(1)
  const { eventLog: _, ...withoutLog } = good.tpm
  const parts: HostBundle[] = [
    { ...good.tpm, quote: bytes },
    { ...good.tpm, signature: bytes },
    { ...good.tpm, akPublic: bytes },
    { ...good.tpm, eventLog: bytes },
    withoutLog,
    { ...withoutLog, eventLog: new Uint8Array(0) },
    { ...good.tpm, ima: { ...good.tpm.ima, from: 1 } },
    { ...good.tpm, ima: { ...good.tpm.ima, list: bytes } },
  ]
  assert.equal(new Set([good.tpm, ...parts].map(tpmPieceDigest)).size, parts.length + 1)
})

test("bindPieces() wants the name of a key where a TPM is demanded, and only there", () => {
  for (const demanded of ["tpm", "tee-with-tpm"] as const)
    assert.throws(() => bindPieces(good, demanded, { ...one.session, akName: null }), TypeError)
  assert.throws(() => bindPieces({ tee: good.tee }, "tee", one.session), TypeError)
})

const base64 = encodeBase64(Uint8Array.of(1, 2, 3))
const tpm = { quote: base64, signature: base64, akPublic: base64, ima: { from: 0, list: base64 } }
const tee = encodeTeeEvidence({ kind: "tdx", quote: Uint8Array.of(4) })

test("parseMachineBundle() decodes the pieces that are there", () => {
  const piece = { quote: Uint8Array.of(1, 2, 3), signature: Uint8Array.of(1, 2, 3), akPublic: Uint8Array.of(1, 2, 3) }
  const host: HostBundle = { ...piece, ima: { from: 0, list: Uint8Array.of(1, 2, 3) } }
  const evidence: TeeEvidence = { kind: "tdx", quote: Uint8Array.of(4) }
  assert.deepEqual(parseMachineBundle(JSON.stringify({ perun: 1, tpm })), { tpm: host })
  assert.deepEqual(parseMachineBundle(JSON.stringify({ perun: 1, tee })), { tee: evidence })
  assert.deepEqual(parseMachineBundle(JSON.stringify({ perun: 1, tpm, tee })), { tpm: host, tee: evidence })
})

test("parseMachineBundle() refuses doubled pieces, lists of pieces, unknown ones and loose base64", () => {
  const text = JSON.stringify({ perun: 1, tpm, tee })
  const refuses = (code: string, changed: unknown): void => {
    assert.throws(() => parseMachineBundle(typeof changed === "string" ? changed : JSON.stringify(changed)), { code })
  }
  refuses("duplicate", text.replace(/\}$/, `,"tee":${JSON.stringify(tee)}}`))
  refuses("duplicate", text.replace(/\}$/, `,"tpm":${JSON.stringify(tpm)}}`))
  refuses("malformed", { perun: 1, tpm, tee: [tee, tee] })
  refuses("malformed", { perun: 1, tpm: [tpm], tee })
  refuses("malformed", { perun: 2, tpm, tee })
  refuses("malformed", { perun: 1, tpm, tee: null })
  refuses("malformed", { perun: 1, tpm, tee: { ...tee, kind: "cca" } })
  refuses("malformed", { perun: 1, tpm, tee: { ...tee, quote: "AQID\n" } })
  refuses("unknown-field", { perun: 1, tpm, tee, gpu: {} })
  refuses("unknown-field", { perun: 1, tpm, tee: { ...tee, report: base64 } })
})

test("innerNonce() and tpmPieceDigest() are SHA-256 over these canonical forms", () => {
  const { akName, manager, nonce, run, lease } = one.session
  const inner =
    `{"akName":"${akName ?? ""}","deviceEvidence":[],"hpkeKey":"AAAA","job":"train","lease":"${lease ?? ""}","manager":"${manager}",` +
    `"nonce":"${nonce}","piece":"tpm","policy":"${digest}","purpose":"claim","run":"${run ?? ""}","tlsKey":"${digest}","version":1}`
  assert.equal(`sha256:${encodeHex(innerNonce(one.session))}`, digestOf(encodeUtf8(inner)))
  const part = Uint8Array.of(1, 2, 3)
  const of = digestOf(part)
  const piece = `{"akPublic":"${of}","eventLog":null,"ima":{"from":4,"list":"${of}"},"piece":"tpm","quote":"${of}","signature":"${of}"}`
  assert.equal(tpmPieceDigest({ quote: part, signature: part, akPublic: part, ima: { from: 4, list: part } }), digestOf(encodeUtf8(piece)))
})

test("parseMachineBundle() takes a TEE's piece beside a TPM's of the greatest size, and no more than both", () => {
  const list = encodeBase64(new Uint8Array(maxImaListBytes))
  const eventLog = encodeBase64(new Uint8Array(maxEventLogBytes))
  const large = { perun: 1, tpm: { ...tpm, eventLog, ima: { from: 0, list } }, tee: { ...tee, eventLog } }
  const text = JSON.stringify(large)
  assert.equal(parseMachineBundle(text).tpm?.ima.list.length, maxImaListBytes)
  assert.throws(() => parseMachineBundle(text + " ".repeat(maxTeeEvidenceBytes)), { code: "too-large" })
})

function text(bytes: Uint8Array): string {
  return `sha256:${encodeHex(bytes)}`
}

test("verifyMachine() judges a piece that comes without its boot log by the one that is known, and believes the piece's own first", () => {
  const [machine, stranger] = [guest(), guest()]
  const { eventLog, ...piece } = machine.machine.quote(innerNonce(machine.session))
  const bundle = { tpm: piece, tee: quoteTd({ ...machine.session, deviceEvidence: [tpmPieceDigest(piece)] }) }
  const expectation = { ...expectationOf(machine.session, "tee-with-tpm"), ...(eventLog === undefined ? {} : { knownBootLog: eventLog }) }
  assert.throws(() => verify(bundle, machine.session, "tee-with-tpm"), { code: "missing-piece", path: "eventLog" })
  assert.ok(verifyMachine(bundle, expectation).claims.host)
  const whole = bundleOf(machine)
  assert.ok(verifyMachine(whole, { ...expectation, knownBootLog: Uint8Array.of(1) }).claims.host)
  assert.throws(() => verifyMachine(bundleOf(stranger), expectation), { code: "wrong-nonce" })
})

test("verifyMachine() wants to be told how each demanded piece is judged", () => {
  const { host: _host, ...withoutHost } = expectationOf(one.session, "tee-with-tpm")
  assert.throws(() => verifyMachine(good, withoutHost), TypeError)
  const { tee: _tee, ...withoutTee } = expectationOf(one.session, "tee-with-tpm")
  assert.throws(() => verifyMachine(good, withoutTee), TypeError)
})
