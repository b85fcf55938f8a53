import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../lab/devices/dcap/device.ts"
import { labTdRequirement, tdOfProgram } from "../../lab/devices/td.ts"
import { digestOf } from "../bytes/digest.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { sessionDigest } from "../evidence/bundle.ts"
import { sessionReportData } from "../evidence/report-data.ts"
import { encodeTeeEvidence } from "../evidence/tee/format.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { generateHpkeKeyPair, openMessage, sealMessage } from "./hpke.ts"
import { managerReportData, verifyManagerAttestation } from "./manager-attestation.ts"
import { certificateReportData } from "./manager-certificate.ts"
import { signManagerDescription } from "./manager-description.ts"
import {
  demandShare,
  type LockAnswer,
  type LockDescription,
  lockDescriptionSchema,
  lockReportData,
  shareCommitment,
  unlockContext,
  unlockDigest,
  verifyLock,
} from "./manager-lock.ts"
import type { ManagerDescription } from "./messages.ts"
import { createTlsIdentity } from "./tls.ts"

const authority = makeLabAuthority({ keys: makeLabKeys(), time: Date.now() })
const measure = (letter: string) => ({ runtime: letter.repeat(96), source: "b".repeat(96), packages: "c".repeat(96) })
const accept = [{ tdx: labTdRequirement(measure("a"), authority.root) }]
const nonce = "17".repeat(32)
const tls = createTlsIdentity("locked")
const { privateKey } = generateKeyPairSync("ed25519")
const key = sshPublicKeyText(privateKey)
const otherKey = sshPublicKeyText(generateKeyPairSync("ed25519").privateKey)
const share = new Uint8Array(33).fill(9)
const set = "5".repeat(32)

const place = (name: string, of: string, value = share) => {
  const place = { name, key: of, recipient: `age1${name}`, salt: "6".repeat(32) }
  return { ...place, commitment: shareCommitment(set, place, value) }
}
const lock: LockDescription = {
  perun: 1,
  purpose: "manager-locked",
  instance: "1".repeat(32),
  configuration: digestOf(new Uint8Array(1)),
  tlsKey: tls.tlsKey,
  shareKey: encodeBase64(new Uint8Array(1216)),
  shares: { set, threshold: 2, custodians: [place("a", key), place("b", otherKey)] },
  present: 0,
  becomes: null,
}

function answer(changes: { readonly lock?: LockDescription; readonly reportData?: Uint8Array; readonly program?: string } = {}): LockAnswer {
  const { mrTd, rtmrs } = tdOfProgram(measure(changes.program ?? "a"))
  const quote = makeTdxQuote(authority, changes.reportData ?? lockReportData(lock, nonce), {
    version: 5,
    body: "1.5",
    report: { mrTd, rtmrs: [...rtmrs] },
  })
  const evidence = encodeTeeEvidence({ kind: "tdx", quote, collateral: authority.tdxCollateral })
  return { perun: 1, lock: changes.lock ?? lock, sealedShares: ["AAAA", "AAAA"], evidence }
}

const expectation = { accept, nonce, peerTlsKey: tls.tlsKey, time: Date.now() }

test("verifyLock() accepts a locked manager whose TEE covers all that it says", () => {
  const { lock: found, accepted } = verifyLock(answer(), expectation)
  assert.deepEqual(found, lock)
  assert.equal(accepted?.kind, "tdx")
})

const changed: Partial<LockDescription> = {
  instance: "2".repeat(32),
  configuration: digestOf(new Uint8Array(2)),
  shareKey: encodeBase64(new Uint8Array(1216).fill(1)),
  shares: { ...lock.shares, custodians: [place("a", key), place("b", otherKey, new Uint8Array(33))] },
  present: 1,
  becomes: { kind: "key-file" },
}
for (const [field, value] of Object.entries(changed))
  test(`verifyLock() refuses ${field} that the evidence does not cover`, () => {
    assert.throws(() => verifyLock(answer({ lock: { ...lock, [field]: value } as LockDescription }), expectation), { code: "wrong-nonce" })
  })

test("verifyLock() refuses a connection that ends elsewhere, another nonce and another TLS key", () => {
  const { tlsKey } = createTlsIdentity("thief")
  assert.throws(() => verifyLock(answer(), { ...expectation, peerTlsKey: tlsKey }), { code: "wrong-tls-key" })
  assert.throws(() => verifyLock(answer({ lock: { ...lock, tlsKey } }), { ...expectation, peerTlsKey: tlsKey }), { code: "wrong-nonce" })
  assert.throws(() => verifyLock(answer(), { ...expectation, nonce: "18".repeat(32) }), { code: "wrong-nonce" })
})

test("verifyLock() refuses a manager that is not accepted, or that proves nothing, unless nothing is demanded", () => {
  assert.throws(() => verifyLock(answer({ program: "d" }), expectation), { code: "wrong-manager", message: /MRTD: found d{96}/ })
  const silent = { ...answer(), evidence: null }
  assert.throws(() => verifyLock(silent, expectation), { code: "wrong-manager", path: "evidence" })
  assert.equal(verifyLock(silent, { ...expectation, accept: undefined }).accepted, undefined)
})

const description: ManagerDescription = {
  perun: 1,
  instance: lock.instance,
  key,
  tlsKey: tls.tlsKey,
  depositKey: lock.shareKey,
  logKey: key,
  resultKey: "AAAA",
  configuration: lock.configuration,
  vault: {
    kind: "shares",
    threshold: 2,
    custodians: [
      { name: "a", key },
      { name: "b", key: otherKey },
    ],
  },
  evidence: "tdx",
  time: null,
}

test("verifyLock() refuses evidence of an unlocked manager, of its certificate and of a machine's claim", () => {
  const session = { purpose: "claim", version: 1, manager: lock.instance, nonce, hpkeKey: lock.shareKey, tlsKey: tls.tlsKey } as const
  const claim = sessionDigest({ ...session, akName: "", deviceEvidence: [], policy: null, job: null, run: null, lease: null })
  const times = { notBefore: 0, notAfter: 1000 }
  for (const reportData of [managerReportData(description, nonce), certificateReportData(description, times), sessionReportData(claim)])
    assert.throws(() => verifyLock(answer({ reportData }), expectation), { code: "wrong-nonce" })
  // Even one that says of itself, as a manager, word for word what a locked one says.
  const alike = managerReportData(lock as unknown as ManagerDescription, nonce)
  assert.throws(() => verifyLock(answer({ reportData: alike }), expectation), { code: "wrong-nonce" })
})

test("verifyManagerAttestation() refuses evidence of a locked manager", () => {
  const { evidence } = answer()
  assert.ok(evidence !== null)
  const attestation = { perun: 1, manager: signManagerDescription(description, privateKey), evidence } as const
  assert.throws(() => verifyManagerAttestation(attestation, expectation), { code: "wrong-nonce" })
  const alike = answer({ reportData: lockReportData(description as unknown as LockDescription, nonce) }).evidence
  assert.ok(alike !== null)
  assert.throws(() => verifyManagerAttestation({ ...attestation, evidence: alike }, expectation), { code: "wrong-nonce" })
})

test("lockDescriptionSchema refuses a threshold above the custodians, and a custodian twice", () => {
  assert.ok(lockDescriptionSchema.safeParse(lock).success)
  const custodians = lock.shares.custodians
  const twice = (part: object) => ({ ...lock, shares: { ...lock.shares, custodians: [custodians[0], { ...place("b", otherKey), ...part }] } })
  for (const wrong of [{ ...lock, shares: { ...lock.shares, threshold: 3 } }, twice({ name: "a" }), twice({ key }), twice({ recipient: "age1a" })])
    assert.ok(!lockDescriptionSchema.safeParse(wrong).success)
})

test("demandShare() wants exactly the share that was committed to, of this set, for this custodian", () => {
  const own = place("a", key)
  demandShare(set, own, share)
  assert.throws(() => demandShare(set, own, new Uint8Array(33)), { code: "wrong-share", message: /made for a / })
  assert.throws(() => demandShare("7".repeat(32), own, share), { code: "wrong-share" })
  assert.throws(() => demandShare(set, { ...own, key: otherKey }, share), { code: "wrong-share" })
  assert.throws(() => demandShare(set, { ...own, salt: "7".repeat(32) }, share), { code: "wrong-share" })
  const short = share.slice(0, 32)
  assert.throws(() => demandShare(set, place("a", key, short), short), { code: "wrong-share" })
})

test("a share that is sealed for one start opens for no other, and for no other custodian or set", async () => {
  const pair = await generateHpkeKeyPair()
  const context = unlockContext(lock, key)
  const sealed = await sealMessage(pair.publicKey, context, share)
  assert.deepEqual(await openMessage(pair.privateKey, context, sealed), share)
  for (const other of [
    unlockContext({ ...lock, tlsKey: createTlsIdentity("next").tlsKey }, key),
    unlockContext({ ...lock, instance: "2".repeat(32) }, key),
    unlockContext({ ...lock, shares: { ...lock.shares, set: "7".repeat(32) } }, key),
    unlockContext(lock, otherKey),
    { purpose: "release", session: "", policy: "", run: "" } as const,
  ])
    await assert.rejects(openMessage(pair.privateKey, other, sealed), { code: "wrong-message" })
})

test("unlockDigest() covers instance, set, both keys of the start, the custodian and the sealed share", () => {
  const sealed = { enc: "AAAA", ciphertext: "AAAA" }
  const others = [
    unlockDigest({ ...lock, instance: "2".repeat(32) }, key, sealed),
    unlockDigest({ ...lock, shares: { ...lock.shares, set: "7".repeat(32) } }, key, sealed),
    unlockDigest({ ...lock, tlsKey: createTlsIdentity("next").tlsKey }, key, sealed),
    unlockDigest({ ...lock, shareKey: encodeBase64(new Uint8Array(1216).fill(1)) }, key, sealed),
    unlockDigest(lock, otherKey, sealed),
    unlockDigest(lock, key, { ...sealed, ciphertext: "AAAB" }),
  ]
  assert.equal(new Set([unlockDigest(lock, key, sealed), ...others]).size, 7)
  // Others may hand in shares meanwhile.
  assert.equal(unlockDigest({ ...lock, present: 1 }, key, sealed), unlockDigest(lock, key, sealed))
})
