import assert from "node:assert/strict"
import { existsSync, readFileSync, readdirSync } from "node:fs"
import { join, resolve } from "node:path"
import { test } from "node:test"
import { bytesEqual } from "../../bytes/compare.ts"
import { encodeHex, parseHex } from "../../bytes/text.ts"
import type { HostBundle } from "../bundle.ts"
import { Genuine } from "../genuine.ts"
import type { ClockInfo, TpmIdentity } from "../tpm/claims.ts"
import { tpmNameText } from "../tpm/keys.ts"
import { encodeSizedPublicArea } from "../tpm/public-area.ts"
import { makeEccKey, makeQuote, makeRsaKey } from "../tpm/software-tpm.testing.ts"
import { bootSessionChange, checkSameBoot } from "./boot-session.ts"
import { LabMachine } from "./machine.testing.ts"
import { hostPcrs, previousHost, verifyHost } from "./verify.ts"
import type { HostExpectation } from "./verify.ts"

const extraData = new Uint8Array(32).fill(9)
const expectation: HostExpectation = { extraData, requiredPcrs: hostPcrs, quirks: [], identity: "unproved", previous: "none" }

function identityOf(machine: LabMachine): TpmIdentity {
  const digest = `sha256:${"ab".repeat(32)}` as const
  return {
    endorsementKey: digest,
    root: digest,
    rootKind: "laboratory",
    description: "",
    attestationKeyName: tpmNameText(machine.key.area),
  }
}

function refuses(code: string, bundle: HostBundle, change: Partial<HostExpectation> = {}): void {
  assert.throws(() => verifyHost(bundle, { ...expectation, ...change }), { code })
}

test("verifyHost() joins quote, boot log and IMA list, and recomputes every register", () => {
  const machine = new LabMachine()
  machine.measure("/usr/bin/node")
  const genuine = verifyHost(machine.quote(extraData), { ...expectation, identity: identityOf(machine) })
  assert.ok(genuine instanceof Genuine)
  const { quote, boot, ima, identity } = genuine.claims
  assert.deepEqual(identity, identityOf(machine))
  assert.deepEqual([...(quote.pcrs.get("sha256")?.keys() ?? [])], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14])
  assert.equal(quote.pcrs.get("sha256")?.get(14), "00".repeat(32))
  assert.equal(quote.keyName, tpmNameText(machine.key.area))
  assert.equal(boot.secureBoot, "disabled")
  assert.equal(boot.pcrs.get(4), quote.pcrs.get("sha256")?.get(4))
  assert.equal(boot.pcrs.has(10), false)
  assert.deepEqual(
    ima.entries.map(({ name }) => new TextDecoder().decode(name)),
    ["boot_aggregate", "/usr/bin/node"],
  )
  assert.equal(ima.certifiedCount, 2)
  assert.deepEqual(ima.uncertified, [])
  assert.ok(ima.bootAggregate !== undefined)
})

test("verifyHost() takes every register of a PC's TPM into the quote's digest, the last one too", () => {
  const pcrs = [...hostPcrs.pcrs, 23]
  const { quote } = verifyHost(new LabMachine().quote(extraData, { pcrs }), { ...expectation, requiredPcrs: { bank: "sha256", pcrs } }).claims
  assert.equal(quote.pcrs.get("sha256")?.get(23), "00".repeat(32))
})

test("verifyHost() without an identity says so by leaving it out", () => {
  assert.equal("identity" in verifyHost(new LabMachine().quote(extraData), expectation).claims, false)
})

test("verifyHost() starts PCR 0 at the startup locality", () => {
  assert.equal(verifyHost(new LabMachine({ startupLocality: 3 }).quote(extraData), expectation).claims.boot.startupLocality, 3)
})

test("verifyHost() reads over banks of the log that it cannot compute", () => {
  assert.equal(verifyHost(new LabMachine({ hasForeignBank: true }).quote(extraData), expectation).claims.ima.certifiedCount, 1)
})

test("verifyHost() refuses a quote by another key than the enrolled one", () => {
  refuses("wrong-binding", new LabMachine().quote(extraData), { identity: identityOf(new LabMachine()) })
})

test("verifyHost() refuses a key without the attributes of an attestation key", () => {
  const machine = new LabMachine()
  const attributes = new Set([...machine.key.area.attributes].filter((name) => name !== "restricted"))
  refuses("wrong-key", { ...machine.quote(extraData), akPublic: encodeSizedPublicArea({ ...machine.key.area, attributes }) })
})

test("verifyHost() refuses another nonce, signature, key and selection", () => {
  const machine = new LabMachine()
  const bundle = machine.quote(extraData)
  refuses("wrong-nonce", bundle, { extraData: new Uint8Array(32) })
  refuses("wrong-signature", { ...bundle, akPublic: new LabMachine().quote(extraData).akPublic })
  refuses("wrong-signature", { ...bundle, quote: machine.quote(new Uint8Array(32)).quote })
  refuses("wrong-selection", machine.quote(extraData, { pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }))
  refuses("wrong-selection", machine.quote(extraData, { pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15] }))
})

test("verifyHost() says wrong-nonce before it looks at the logs", () => {
  refuses("wrong-nonce", { ...new LabMachine().quote(extraData), eventLog: new Uint8Array(0) }, { extraData: new Uint8Array(32) })
})

test("verifyHost() refuses logs of another boot and registers that no log explains", () => {
  const machine = new LabMachine()
  const bundle = machine.quote(extraData)
  refuses("pcr-mismatch", { ...bundle, eventLog: new LabMachine({ kernel: "other" }).eventLog })
  const other = new LabMachine()
  other.measure("/bin/other")
  refuses("pcr-mismatch", { ...other.quote(extraData), ima: { from: 0, list: machine.imaList() } })
  for (const pcr of [4, 8, 10, 14]) {
    const silent = new LabMachine()
    silent.extendSilently(pcr)
    refuses("pcr-mismatch", silent.quote(extraData))
  }
  refuses("missing-piece", withoutLog(bundle))
  refuses("pcr-mismatch", { ...bundle, ima: { from: 0, list: new Uint8Array(0) } })
})

function withoutLog(bundle: HostBundle): HostBundle {
  const { eventLog: _, ...rest } = bundle
  return rest
}

test("verifyHost() runs the checks of the boot log, not only its replay", () => {
  // The digests still lead to the quoted registers, but one event is called something else.
  const machine = new LabMachine()
  const bundle = machine.quote(extraData)
  const log = encodeHex(machine.eventLog)
  const renamed = log.replace("0700000001000080", "0700000007000080")
  assert.notEqual(renamed, log)
  assert.throws(() => verifyHost({ ...bundle, eventLog: parseHex(renamed) }, expectation), { name: "EvidenceError" })
  verifyHost(bundle, expectation)
})

test("verifyHost() runs the checks of the IMA list, not only its replay: boot_aggregate must be that of the quoted registers", () => {
  const machine = new LabMachine()
  const liar = new LabMachine()
  // Both boots are equal, so only a wrong aggregate as first entry tells the lists apart.
  liar.measure("boot_aggregate", "00".repeat(32))
  verifyHost(machine.quote(extraData), expectation)
  class WrongAggregate extends LabMachine {
    override measure(name: string, digest?: string): void {
      super.measure(name, name === "boot_aggregate" ? "11".repeat(32) : digest)
    }
  }
  refuses("log-mismatch", new WrongAggregate().quote(extraData))
})

test("verifyHost() keeps what the list leads the register by apart, and wants it certified next time", () => {
  const machine = new LabMachine()
  machine.measure("/bin/a")
  machine.log("/bin/b")
  const first = verifyHost(machine.quote(extraData), expectation)
  assert.equal(first.claims.ima.certifiedCount, 2)
  assert.equal(first.claims.ima.uncertified.length, 1)
  const previous = previousHost(first.claims)
  refuses("log-incomplete", machine.quote(extraData), { previous })
})

test("verifyHost() goes on from the last quote of the same boot with new lines only, without the boot log", () => {
  const machine = new LabMachine()
  machine.measure("/bin/a")
  const first = verifyHost(machine.quote(extraData), expectation).claims
  const previous = previousHost(first)
  const again = verifyHost(withoutLog(machine.quote(extraData, { from: 2 })), { ...expectation, previous }).claims
  assert.equal(again.ima.entries.length, 0)
  assert.equal(again.ima.certifiedCount, 2)
  assert.deepEqual(again.boot, first.boot)
  machine.measure("/bin/b")
  machine.clock = { ...machine.clock, clock: 61_000n }
  const next = verifyHost(withoutLog(machine.quote(extraData, { from: 2 })), { ...expectation, previous }).claims
  assert.deepEqual([next.ima.firstIndex, next.ima.entries.length, next.ima.certifiedCount], [2, 1, 3])
  const whole = verifyHost(machine.quote(extraData), { ...expectation, previous }).claims
  assert.deepEqual(whole.ima.state, next.ima.state)
  assert.equal(whole.ima.entries.length, 3)
})

test("verifyHost() refuses a continuation with a gap, a changed past, or an index without a past", () => {
  const machine = new LabMachine()
  machine.measure("/bin/a")
  const previous = previousHost(verifyHost(machine.quote(extraData), expectation).claims)
  machine.measure("/bin/b")
  machine.measure("/bin/c")
  refuses("pcr-mismatch", { ...machine.quote(extraData), ima: { from: 2, list: machine.imaList(3) } }, { previous })
  refuses("log-incomplete", { ...machine.quote(extraData), ima: { from: 1, list: machine.imaList(2) } }, { previous })
  refuses("pcr-mismatch", machine.quote(extraData, { from: 2 }))
  const renamed = new LabMachine()
  renamed.measure("/bin/x")
  renamed.measure("/bin/b")
  refuses("log-mismatch", renamed.quote(extraData), { previous })
})

test("verifyHost() refuses a boot log of another boot as the past's register values", () => {
  const machine = new LabMachine()
  const previous = previousHost(verifyHost(machine.quote(extraData), expectation).claims)
  const other = new LabMachine({ kernel: "other" })
  const otherPast = previousHost(verifyHost(other.quote(extraData), expectation).claims)
  refuses("pcr-mismatch", withoutLog(machine.quote(extraData, { from: 1 })), { previous: { ...previous, boot: otherPast.boot } })
})

for (const [what, change] of [
  ["a reset", { resetCount: 8 }],
  ["a restart", { restartCount: 1 }],
  ["a clock that went back", { clock: 59_999n }],
] as const) {
  test(`verifyHost() refuses a continuation over ${what}`, () => {
    const machine = new LabMachine()
    const previous = previousHost(verifyHost(machine.quote(extraData), expectation).claims)
    machine.clock = { ...machine.clock, ...change }
    refuses("wrong-binding", machine.quote(extraData), { previous })
    verifyHost(machine.quote(extraData), expectation)
  })
}

test("verifyHost() goes on with fewer registers than before, but not with more", () => {
  const machine = new LabMachine()
  const fewer = { bank: "sha256", pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }
  const previous = previousHost(verifyHost(machine.quote(extraData), expectation).claims)
  const next = withoutLog(machine.quote(extraData, { pcrs: fewer.pcrs, from: 1 }))
  assert.equal(
    verifyHost(next, { ...expectation, requiredPcrs: fewer, previous })
      .claims.quote.pcrs.get("sha256")
      ?.has(14),
    false,
  )
  const started = verifyHost(machine.quote(extraData, { pcrs: fewer.pcrs }), { ...expectation, requiredPcrs: fewer }).claims
  refuses("pcr-mismatch", withoutLog(machine.quote(extraData, { from: 1 })), { previous: previousHost(started) })
})

test("verifyHost() takes the required registers in any order", () => {
  const requiredPcrs = { bank: "sha256", pcrs: hostPcrs.pcrs.toReversed() }
  assert.equal(verifyHost(new LabMachine().quote(extraData), { ...expectation, requiredPcrs }).claims.ima.certifiedCount, 1)
})

test("verifyHost() accepts unlogged ExitBootServices events in front of a boot log only", () => {
  const machine = new LabMachine()
  const quirks = ["unlogged-exit-boot-services"] as const
  const previous = previousHost(verifyHost(machine.quote(extraData), { ...expectation, quirks }).claims)
  for (const text of ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"]) machine.extendSilently(5, text)
  refuses("pcr-mismatch", withoutLog(machine.quote(extraData, { from: 1 })), { previous, quirks })
})

test("verifyHost() refuses a signature over SHA-1", () => {
  const sha1 = "sha1"
  for (const key of [makeEccKey({ scheme: { scheme: "ecdsa", hash: sha1 } }), makeRsaKey({ scheme: { scheme: "rsassa", hash: sha1 } })]) {
    const values = new Map(hostPcrs.pcrs.map((pcr) => [pcr, "00".repeat(32)]))
    const { attest, signature } = makeQuote(key, { extraData, hash: sha1, pcrs: new Map([["sha256", values]]) })
    refuses("weak-algorithm", { ...new LabMachine().quote(extraData), quote: attest, signature, akPublic: encodeSizedPublicArea(key.area) })
  }
})

test("verifyHost() gives an unsafe clock as a claim", () => {
  const machine = new LabMachine()
  machine.clock = { ...machine.clock, safe: false }
  assert.equal(verifyHost(machine.quote(extraData), expectation).claims.quote.clockInfo.safe, false)
})

test("verifyHost() judges the required bank and no weak one", () => {
  const pcrs = hostPcrs.pcrs
  const machine = new LabMachine({ banks: ["sha256", "sha384"] })
  const strong = verifyHost(machine.quote(extraData, { bank: "sha384" }), { ...expectation, requiredPcrs: { bank: "sha384", pcrs } })
  assert.equal(strong.claims.boot.bank, "sha384")
  refuses("wrong-selection", machine.quote(extraData), { requiredPcrs: { bank: "sha384", pcrs } })
  const bundle = machine.quote(extraData)
  for (const bank of ["sha1", "sm3_256"]) assert.throws(() => verifyHost(bundle, { ...expectation, requiredPcrs: { bank, pcrs } }), TypeError)
  for (const pcr of [0, 9, 10])
    assert.throws(
      () => verifyHost(bundle, { ...expectation, requiredPcrs: { bank: "sha256", pcrs: pcrs.filter((other) => other !== pcr) } }),
      TypeError,
    )
})

test("verifyHost() takes padded SHA-1 only when told, also when it goes on", () => {
  const machine = new LabMachine({ padsSha1: true })
  const bundle = machine.quote(extraData)
  refuses("pcr-mismatch", bundle)
  const first = verifyHost(bundle, { ...expectation, insecureAllowPaddedSha1: true })
  assert.equal(first.claims.ima.extendRule, "padded-sha1")
  const previous = previousHost(first.claims)
  machine.measure("/bin/a")
  const next = machine.quote(extraData, { from: 1 })
  assert.equal(verifyHost(next, { ...expectation, previous, insecureAllowPaddedSha1: true }).claims.ima.certifiedCount, 2)
  refuses("pcr-mismatch", next, { previous })
  const plain = new LabMachine()
  assert.equal(verifyHost(plain.quote(extraData), { ...expectation, insecureAllowPaddedSha1: true }).claims.ima.extendRule, "per-bank")
})

test("verifyHost() reads lists with SHA-256 template digests when told", () => {
  const bundle = new LabMachine({ imaHeaderHash: "sha256" }).quote(extraData)
  assert.equal(verifyHost(bundle, { ...expectation, imaHeaderHash: "sha256" }).claims.ima.certifiedCount, 1)
  assert.throws(() => verifyHost(bundle, expectation), { name: "MalformedError" })
})

test("verifyHost() hands quirks and command lines to the judge of the boot log", () => {
  const bundle = new LabMachine({ exit: "omitted" }).quote(extraData)
  refuses("log-incomplete", bundle)
  const quirks = ["no-exit-boot-services"] as const
  assert.deepEqual(verifyHost(bundle, { ...expectation, quirks }).claims.boot.quirks, quirks)
  const unlogged = new LabMachine({ exit: "measured-only" }).quote(extraData)
  refuses("pcr-mismatch", unlogged)
  refuses("pcr-mismatch", unlogged, { quirks })
  const allowed = ["unlogged-exit-boot-services"] as const
  assert.deepEqual(verifyHost(unlogged, { ...expectation, quirks: allowed }).claims.boot.quirks, allowed)
  assert.deepEqual(verifyHost(new LabMachine().quote(extraData), { ...expectation, quirks: allowed }).claims.boot.quirks, [])
  const commandLine = "root=/dev/dm-0 lockdown=confidentiality"
  const booted = new LabMachine({ commandLine }).quote(extraData)
  assert.deepEqual(verifyHost(booted, expectation).claims.boot.commandLines, [])
  const { boot } = verifyHost(booted, { ...expectation, commandLineCandidates: ["other", commandLine] }).claims
  assert.deepEqual(boot.commandLines, [{ pcr: 9, text: commandLine }])
})

test("bootSessionChange() counts modulo 2^32, as masked counters need it", () => {
  const clock: ClockInfo = { clock: 0n, resetCount: 0xffffffff, restartCount: 5, safe: true }
  assert.deepEqual(bootSessionChange(clock, { ...clock, resetCount: 0, restartCount: 4 }), { resets: 1, restarts: 0xffffffff })
  assert.deepEqual(bootSessionChange(clock, clock), { resets: 0, restarts: 0 })
  checkSameBoot(clock, clock)
  checkSameBoot(clock, { ...clock, clock: 1n })
})

// Booted machines.

const vectors = join(process.env["PERUN_VECTORS"] ?? resolve(import.meta.dirname, "../../../../shared/vectors"), "host")

interface VectorFacts {
  readonly expect: "accept" | "reject"
  readonly nonce: string
  readonly claims?: { readonly imaEntries: number; readonly imaViolations: number; readonly firstFilesHex: readonly string[] }
}

for (const folder of existsSync(vectors) ? readdirSync(vectors) : ["all cases"]) {
  test(`verifyHost() judges ${folder} as it must be`, { skip: existsSync(vectors) ? false : "skipped: no vectors" }, () => {
    const file = (name: string): Uint8Array => new Uint8Array(readFileSync(join(vectors, folder, name)))
    const facts = JSON.parse(new TextDecoder().decode(file("expected.json"))) as VectorFacts
    const bundle: HostBundle = {
      quote: file("quote.msg"),
      signature: file("quote.sig"),
      akPublic: file("ak.tpm2b-public"),
      eventLog: file("eventlog.bin"),
      ima: { from: 0, list: file("ima.bin") },
    }
    const judged = (): ReturnType<typeof verifyHost> => verifyHost(bundle, { ...expectation, extraData: parseHex(facts.nonce) })
    if (facts.expect === "reject") return assert.throws(judged, (error: Error) => ["EvidenceError", "MalformedError"].includes(error.name))
    const { ima } = judged().claims
    assert.equal(ima.violations, facts.claims?.imaViolations)
    assert.equal(ima.entries.length + ima.uncertified.length, facts.claims?.imaEntries)
    facts.claims?.firstFilesHex.forEach((name, index) => assert.ok(bytesEqual(ima.entries[index]?.name ?? new Uint8Array(0), parseHex(name))))
  })
}
