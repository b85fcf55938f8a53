import assert from "node:assert/strict"
import { test } from "node:test"
import type { Digest } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import type { BootClaims } from "../evidence/eventlog/claims.ts"
import { Genuine } from "../evidence/genuine.ts"
import type { HostClaims } from "../evidence/host/claims.ts"
import type { ImaClaims, ImaEntry } from "../evidence/ima/claims.ts"
import type { ClockInfo } from "../evidence/tpm/claims.ts"
import { appraise, GrantedDecision } from "./appraise.ts"
import type { AppraisalRequest, Decision, PreviousDecision } from "./appraise.ts"
import type { HostMachine, Policy } from "./document.ts"
import { policyDigest } from "./document.ts"
import type { Finding } from "./findings.ts"
import { finding, findingCodes, findingText, printable, printableBytes } from "./findings.ts"
import {
  bootEvent,
  bootReference,
  claims,
  commandLine,
  hexOf,
  hostMachine,
  imaEntry,
  imaReference,
  named,
  now,
  policy,
  references,
  verityRootHash,
} from "./fixtures.testing.ts"
import type { BootReference, ImaReference, Reference } from "./reference.ts"
import { referenceDigest, referencesByDigest } from "./reference.ts"

const request: AppraisalRequest = { policy, job: "train", references, time: now }

function judge(host: HostClaims, over: Partial<AppraisalRequest> = {}): Decision {
  return appraise(Genuine.afterVerification({ session: named("session"), host }), { ...request, ...over })
}

function codesOf(decision: Decision): readonly string[] {
  return decision.findings.map(({ code }) => code)
}

/** Refused for exactly these reasons. */
function refuses(host: HostClaims, codes: readonly string[], over: Partial<AppraisalRequest> = {}): readonly Finding[] {
  const decision = judge(host, over)
  assert.deepEqual(codesOf(decision), codes)
  assert.equal(decision.outcome, "refused")
  return decision.findings
}

function grants(host: HostClaims, over: Partial<AppraisalRequest> = {}): GrantedDecision {
  const decision = judge(host, over)
  assert.deepEqual(codesOf(decision), [])
  assert.ok(decision instanceof GrantedDecision)
  return decision
}

function withBoot(change: Partial<BootClaims>): HostClaims {
  return { ...claims, boot: { ...claims.boot, ...change } }
}

function withIma(change: Partial<ImaClaims>): HostClaims {
  return { ...claims, ima: { ...claims.ima, ...change } }
}

function withClock(change: Partial<ClockInfo>): HostClaims {
  return { ...claims, quote: { ...claims.quote, clockInfo: { ...claims.quote.clockInfo, ...change } } }
}

function withEntry(entry: Partial<ImaEntry>): HostClaims {
  const added = { ...imaEntry(3, "/usr/lib/perun/node", "node"), ...entry }
  return withIma({ entries: [...claims.ima.entries, added], certifiedCount: 4, uncertified: [] })
}

/** A study whose machine names these references. */
function study(boot: BootReference, ima: ImaReference, change: Partial<HostMachine> = {}): Partial<AppraisalRequest> {
  const machine = hostMachine()
  const required: HostMachine = {
    ...machine,
    boot: { reference: referenceDigest(boot) },
    ima: { ...machine.ima, reference: referenceDigest(ima) },
    ...change,
  }
  return { policy: { ...policy, machines: { "gpu-host": required } }, references: referencesByDigest([boot, ima]) }
}

function tpm(change: Partial<HostMachine["tpm"]>): Partial<AppraisalRequest> {
  const machine = hostMachine()
  return { policy: { ...policy, machines: { "gpu-host": { ...machine, tpm: { ...machine.tpm, ...change } } } } }
}

test("appraise() grants a machine that meets everything, and says what the grant rests on", () => {
  const decision = grants(claims)
  assert.equal(decision.outcome, "granted")
  assert.equal(decision.policy, policyDigest(policy))
  assert.deepEqual([decision.job, decision.machine, decision.level, decision.insecureLaboratory], ["train", "gpu-host", "sealed", false])
  assert.deepEqual(decision.session.host, {
    endorsementKey: named("ek"),
    attestationKeyName: hexOf("ak"),
    resetCount: 7,
    restartCount: 0,
    clock: "1000",
    ima: { certifiedCount: 3, mustCertify: 4 },
  })
  assert.ok(Object.isFrozen(decision))
})

test("a granted decision cannot be made by anyone else", () => {
  const { outcome, ...facts } = grants(claims)
  assert.equal(outcome, "granted")
  // @ts-expect-error the proof is not exported
  assert.throws(() => new GrantedDecision(Symbol("made by appraise"), facts), TypeError)
})

test("appraise() refuses a job or machine that the policy does not have", () => {
  refuses(claims, ["job-not-in-policy"], { job: "serve" })
  refuses(claims, ["job-not-in-policy"], { job: "constructor" })
  refuses(claims, ["job-not-in-policy"], { policy: { ...policy, machines: {} } })
  const decision = judge(claims, { job: "serve" })
  assert.deepEqual([decision.policy, decision.job], [policyDigest(policy), "serve"])
})

test("appraise() refuses an expired policy, from the very second, and an unreadable time", () => {
  const late: Policy = { ...policy, expires: "2026-12-01T00:00:00Z" }
  refuses(claims, ["policy-expired"], { policy: late })
  grants(claims, { policy: late, time: new Date("2026-11-30T23:59:59.999Z") })
  refuses(claims, ["policy-expired"], { policy: { ...policy, expires: "whenever" } })
})

test("appraise() refuses missing, foreign and expired references", () => {
  refuses(claims, ["reference-missing", "reference-missing"], { references: new Map() })
  refuses(claims, ["reference-missing"], { references: referencesByDigest([imaReference]) })
  refuses(claims, ["reference-missing"], { references: referencesByDigest([bootReference]) })
  const swapped = new Map<Digest, Reference>([
    [referenceDigest(bootReference), imaReference],
    [referenceDigest(imaReference), bootReference],
  ])
  const found = (findings: readonly Finding[]): readonly string[] => findings.map((one) => one.found)
  assert.deepEqual(found(refuses(claims, ["reference-missing", "reference-missing"], { references: swapped })), ["ima", "boot"])
  assert.deepEqual(found(refuses(claims, ["reference-missing", "reference-missing"], { references: new Map() })), ["nothing", "nothing"])
  const [boot, ima] = [
    { ...bootReference, expires: "2026-12-01T00:00:00Z" },
    { ...imaReference, expires: "2026-12-01T00:00:00Z" },
  ]
  refuses(claims, ["reference-expired"], study(boot, imaReference))
  refuses(claims, ["reference-expired"], study(bootReference, ima))
  grants(claims, { ...study(boot, ima), time: new Date("2026-11-30T23:59:59Z") })
})

test("appraise() refuses a quote whose key is tied to no endorsement", () => {
  const { identity, ...anonymous } = claims
  assert.ok(identity !== undefined)
  refuses(anonymous, ["identity-missing"])
})

test("appraise() refuses a genuine TPM that the policy does not list (relay)", () => {
  assert.ok(claims.identity !== undefined)
  const [found] = refuses({ ...claims, identity: { ...claims.identity, endorsementKey: named("other ek") } }, ["endorsement-key-not-listed"])
  assert.deepEqual([found?.found, found?.expected, found?.subject], [named("other ek"), named("ek"), "IFX SLB9670"])
  grants(claims, tpm({ endorsementKeys: [named("other ek"), named("ek")] }))
})

test("appraise() accepts a laboratory root only where the policy pins it, and taints what comes of it", () => {
  assert.ok(claims.identity !== undefined)
  const laboratory: HostClaims = { ...claims, identity: { ...claims.identity, root: named("lab"), rootKind: "laboratory" } }
  const [none] = refuses(laboratory, ["laboratory-root-not-accepted"])
  assert.deepEqual([none?.found, none?.expected], [named("lab"), "no laboratory root"])
  const [another] = refuses(laboratory, ["laboratory-root-not-accepted"], tpm({ laboratoryRoots: [named("another lab")] }))
  assert.equal(another?.expected, named("another lab"))
  const decision = judge(laboratory, tpm({ laboratoryRoots: [named("lab")] }))
  assert.deepEqual(codesOf(decision), ["insecure-laboratory"])
  assert.ok(decision instanceof GrantedDecision)
  assert.equal(decision.insecureLaboratory, true)
  assert.ok(findingCodes["insecure-laboratory"].meaning.startsWith("INSECURE LABORATORY"))
  assert.equal(grants(claims, tpm({ laboratoryRoots: [named("lab")] })).insecureLaboratory, false)
})

test("appraise() holds the startup locality against policy and reference", () => {
  grants(claims, tpm({ startupLocality: 0 }))
  refuses(claims, ["startup-locality-differs"], tpm({ startupLocality: 3 }))
  refuses(withBoot({ startupLocality: 3 }), ["startup-locality-differs"])
  refuses(withBoot({ startupLocality: 3 }), ["startup-locality-differs", "startup-locality-differs"], tpm({ startupLocality: 4 }))
  grants(withBoot({ startupLocality: 3 }), study({ ...bootReference, startupLocality: "any" }, imaReference))
})

test("appraise() refuses a clock that is not safe, unless the policy says any", () => {
  refuses(withClock({ safe: false }), ["clock-not-safe"])
  grants(withClock({ safe: false }), tpm({ clock: "any" }))
})

test("appraise() refuses SHA-1 anywhere", () => {
  refuses({ ...claims, quote: { ...claims.quote, usesSha1: true } }, ["weak-hash"])
})

test("appraise() refuses a quote that leaves out a register of the reference, or quotes another bank", () => {
  const quoting = (bank: string, pcrs: readonly number[]): HostClaims => ({ ...claims, quote: { ...claims.quote, selection: [{ bank, pcrs }] } })
  const all = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  for (const pcr of all) {
    const [found] = refuses(
      quoting(
        "sha256",
        all.filter((other) => other !== pcr),
      ),
      ["register-not-quoted"],
    )
    assert.equal(found?.subject, `register ${pcr}`)
  }
  refuses(
    quoting("sha1", all),
    all.map(() => "register-not-quoted"),
  )
  refuses(withBoot({ bank: "sha384" }), ["wrong-bank"])
})

test("appraise() holds Secure Boot against the reference", () => {
  refuses(withBoot({ secureBoot: "enabled" }), ["secure-boot-differs"])
  refuses(withBoot({ secureBoot: "unknown" }), ["secure-boot-differs"])
  grants(withBoot({ secureBoot: "enabled" }), study({ ...bootReference, secureBoot: "any" }, imaReference))
})

test("appraise() accepts a firmware fault only where the reference names it", () => {
  const faulty = withBoot({ quirks: ["ebs-missing", "other"] })
  const both = refuses(faulty, ["boot-quirk-not-accepted", "boot-quirk-not-accepted"])
  assert.deepEqual([both[0]?.found, both[1]?.found, both[0]?.expected], ["ebs-missing", "other", "none"])
  const [, one] = refuses(
    faulty,
    ["boot-quirk-accepted", "boot-quirk-not-accepted"],
    study({ ...bootReference, quirks: ["ebs-missing"] }, imaReference),
  )
  assert.equal(one?.expected, "ebs-missing")
  const decision = judge(faulty, study({ ...bootReference, quirks: ["ebs-missing", "other"] }, imaReference))
  assert.deepEqual([decision.outcome, codesOf(decision)], ["granted", ["boot-quirk-accepted", "boot-quirk-accepted"]])
})

test("appraise() refuses firmware in debug mode at level sealed, even where the reference names it", () => {
  const reference = { ...bootReference, quirks: ["debug-mode"] }
  const debugged = withBoot({ quirks: ["debug-mode"] })
  refuses(debugged, ["boot-quirk-accepted", "boot-quirk-not-accepted"], study(reference, imaReference))
  assert.equal(judge(debugged, study(reference, imaReference, { level: "administered" })).outcome, "granted")
})

test("appraise() lets a machine differ in an open register only", () => {
  const events = claims.boot.events.map((event) => (event.pcr === 1 ? { ...event, digest: hexOf("other order") } : event))
  grants(withBoot({ events }))
  for (const [at, event] of claims.boot.events.entries()) {
    if (event.pcr === 1) continue
    const other = claims.boot.events.map((known, index) => (index === at ? { ...known, digest: hexOf("other") } : known))
    const [found] = refuses(withBoot({ events: other }), ["boot-event-differs"])
    assert.equal(found?.subject, `register ${event.pcr}, log record ${event.index}, EV_TEST (${event.description})`)
    assert.equal(found?.found, hexOf("other"))
    assert.ok(found?.expected.startsWith(event.digest))
  }
})

test("appraise() finds each event that is missing", () => {
  for (const [at, event] of claims.boot.events.entries()) {
    if (event.pcr === 1) continue
    const events = claims.boot.events.filter((_, index) => index !== at)
    const [found] = refuses(withBoot({ events }), ["boot-event-missing"])
    assert.equal(found?.expected, event.digest)
    assert.ok(found.subject.startsWith(`register ${event.pcr}, event `), found.subject)
  }
})

test("appraise() finds an event added at any place, and one measured twice", () => {
  for (let at = 0; at <= claims.boot.events.length; at++) {
    const [found] = refuses(withBoot({ events: claims.boot.events.toSpliced(at, 0, bootEvent(4, "rootkit")) }), ["boot-event-unexpected"])
    assert.equal(found?.found, hexOf("rootkit"))
  }
  refuses(withBoot({ events: [...claims.boot.events, bootEvent(9, "initrd")] }), ["boot-event-unexpected"])
  refuses(withBoot({ events: [...claims.boot.events, bootEvent(8, "grub command")] }), ["boot-event-unexpected"])
})

test("appraise() finds an event in a register of which the reference says nothing", () => {
  refuses(withBoot({ events: [...claims.boot.events, bootEvent(14, "machine owner key")] }), ["boot-register-unexpected"])
})

test("appraise() refuses events in another order", () => {
  const swapped = claims.boot.events.map((event) => {
    if (event.pcr !== 9) return event
    return { ...event, digest: event.digest === hexOf("initrd") ? hexOf("command line") : hexOf("initrd") }
  })
  const decision = judge(withBoot({ events: swapped }))
  assert.equal(decision.outcome, "refused")
  assert.ok(decision.findings.every(({ code }) => code.startsWith("boot-event-")))
})

test("appraise() finds several differences in one register apart", () => {
  const events = [
    ...claims.boot.events.filter(({ pcr }) => pcr !== 4),
    ...["x", "calling", "kernel", "y", "z"].map((content) => bootEvent(4, content)),
  ]
  const findings = refuses(withBoot({ events }), ["boot-event-unexpected", "boot-event-missing", "boot-event-unexpected", "boot-event-unexpected"])
  assert.deepEqual(
    findings.map(({ found, expected }) => [found, expected]),
    [
      [hexOf("x"), "no event here"],
      ["no such event", hexOf("separator")],
      [hexOf("y"), "no event here"],
      [hexOf("z"), "no event here"],
    ],
  )
  const other = [...claims.boot.events.filter(({ pcr }) => pcr !== 4), ...["calling", "p", "q"].map((content) => bootEvent(4, content))]
  refuses(withBoot({ events: other }), ["boot-event-differs", "boot-event-differs"])
  refuses(withBoot({ events: other.filter(({ pcr }) => pcr !== 4) }), ["boot-event-missing", "boot-event-missing", "boot-event-missing"])
})

test("appraise() prefers the nearest place where log and reference meet again", () => {
  const reference = (contents: readonly string[]): BootReference => ({
    ...bootReference,
    registers: bootReference.registers.map((register) =>
      register.pcr === 4
        ? { pcr: 4, events: contents.map((content) => ({ type: "EV_TEST", digests: [hexOf(content)], description: "" })) }
        : register,
    ),
  })
  const log = (contents: readonly string[]): HostClaims =>
    withBoot({ events: [...claims.boot.events.filter(({ pcr }) => pcr !== 4), ...contents.map((content) => bootEvent(4, content))] })
  refuses(log(["b", "a", "c"]), ["boot-event-missing", "boot-event-unexpected"], study(reference(["a", "b", "c"]), imaReference))
  refuses(log(["x", "y", "a", "b"]), ["boot-event-unexpected", "boot-event-unexpected"], study(reference(["a", "b"]), imaReference))
  refuses(log(["c", "a"]), ["boot-event-unexpected", "boot-event-missing", "boot-event-missing"], study(reference(["a", "b", "c"]), imaReference))
})

test("appraise() accepts each alternative of an event", () => {
  const either: BootReference = {
    ...bootReference,
    registers: bootReference.registers.map((register) =>
      register.pcr === 0 ? { pcr: 0, events: [{ type: "EV_TEST", digests: [hexOf("a"), hexOf("b")], description: "" }] } : register,
    ),
  }
  const log = (content: string): HostClaims => withBoot({ events: [...claims.boot.events.filter(({ pcr }) => pcr !== 0), bootEvent(0, content)] })
  for (const content of ["a", "b"]) grants(log(content), study(either, imaReference))
  const [found] = refuses(log("c"), ["boot-event-differs"], study(either, imaReference))
  assert.ok(found?.expected.startsWith(`${hexOf("a")} or ${hexOf("b")}`))
})

function withCommandLine(text: string): readonly [HostClaims, Partial<AppraisalRequest>] {
  const commandLines = [{ pcr: 9, text }]
  return [withBoot({ commandLines }), study({ ...bootReference, commandLines }, imaReference)]
}

test("appraise() demands the exact command lines", () => {
  refuses(withBoot({ commandLines: [{ pcr: 9, text: `${commandLine} ` }] }), ["command-line-differs"])
  refuses(withBoot({ commandLines: [{ pcr: 8, text: commandLine }], loadOptions: [] }), ["command-line-differs"])
  refuses(withBoot({ commandLines: [...claims.boot.commandLines, ...claims.boot.commandLines] }), ["command-line-differs"])
  const codes = ["command-line-differs", "command-line-not-measured", "ima-policy-unmeasured"]
  const none = refuses(withBoot({ commandLines: [] }), codes)
  assert.ok(none[0]?.found.includes(hexOf("command line")))
  const unlogged = refuses(withBoot({ commandLines: [], loadOptions: [] }), codes)
  assert.equal(unlogged[0]?.found, "none")
})

test("appraise() judges every command line at level sealed, even where the reference has it, and not at level administered", () => {
  const wrong: readonly (readonly [string, readonly string[]])[] = [
    [commandLine.replace(verityRootHash, hexOf("other")), ["verity-root-not-measured"]],
    [commandLine.replace("lockdown=confidentiality ", ""), ["lockdown-not-confidentiality"]],
    [`${commandLine} init=/bin/sh`, ["unknown-boot-parameter"]],
    [`${commandLine} ${"x".repeat(2047)}`, ["command-line-unreadable"]],
  ]
  for (const [text, expected] of wrong) {
    const [host, over] = withCommandLine(text)
    refuses(host, expected, over)
    const reference = { ...bootReference, commandLines: [{ pcr: 9, text }] }
    assert.equal(grants(host, study(reference, imaReference, { level: "administered" })).level, "administered")
  }
  const commandLines = [...claims.boot.commandLines, { pcr: 8, text: "ima_policy=tcb" }]
  refuses(
    withBoot({ commandLines }),
    [
      "lockdown-not-confidentiality",
      "module-signatures-not-enforced",
      ...twice("iommu-not-strict"),
      ...twice("iommu-not-strict"),
      "verity-root-not-measured",
    ],
    study({ ...bootReference, commandLines }, imaReference),
  )
})

test("appraise() wants the text of every measured command line", () => {
  const none = { ...bootReference, commandLines: [] }
  refuses(withBoot({ commandLines: [], loadOptions: [] }), ["command-line-not-measured", "ima-policy-unmeasured"], study(none, imaReference))
  refuses(withBoot({ commandLines: [], loadOptions: [] }), ["ima-policy-unmeasured"], study(none, imaReference, { level: "administered" }))
  // A good line that nobody boots with, beside one of which only the digest is known.
  const commandLines = [{ pcr: 8, text: commandLine }]
  const decoy = study({ ...bootReference, commandLines }, imaReference)
  const [found] = refuses(withBoot({ commandLines }), ["command-line-not-measured", "ima-policy-unmeasured"], decoy)
  assert.ok(found?.found.includes(hexOf("command line")))
  grants(withBoot({ commandLines, loadOptions: [] }), decoy)
})

test("appraise() refuses a ram disk that the command line names and nothing measured, at level sealed", () => {
  const [host, over] = withCommandLine(`${commandLine} initrd=initrd`)
  grants(host, over)
  const unmeasured = { ...host, boot: { ...host.boot, initrds: [] } }
  refuses(unmeasured, ["initrd-not-measured"], over)
  grants(withBoot({ initrds: [] }))
})

function twice(code: string): readonly string[] {
  return [code, code]
}

const facts: readonly (readonly [string, string, string])[] = [
  ["login", "possible", "login-possible"],
  ["tpmAccess", "others", "tpm-open-to-others"],
  ["ptrace", "on", "ptrace-possible"],
  ["swap", "on", "swap-possible"],
  ["coreDumps", "on", "core-dumps-possible"],
  ["suspend", "on", "suspend-possible"],
  ["kexec", "on", "kexec-possible"],
  ["programs", "elsewhere-too", "programs-outside-root"],
]

for (const [fact, value, code] of facts)
  test(`appraise() refuses the appliance fact ${fact}: ${value} at level sealed only`, () => {
    const reference: BootReference = { ...bootReference, appliance: Object({ ...Object(bootReference.appliance), [fact]: value }) }
    const [found] = refuses(claims, [code], study(reference, imaReference))
    assert.equal(found?.found, value)
    grants(claims, study(reference, imaReference, { level: "administered" }))
  })

test("appraise() refuses level sealed without appliance facts", () => {
  refuses(claims, ["unknown-boot-parameter", "appliance-not-stated"], study({ ...bootReference, appliance: "none" }, imaReference))
  grants(claims, study({ ...bootReference, appliance: "none" }, imaReference, { level: "administered" }))
})

test("appraise() names every unknown file, certified or not", () => {
  const [found] = refuses(withEntry({ name: encodeUtf8("/tmp/evil\n\\\u00e9"), digest: hexOf("evil") }), ["ima-unknown-file"])
  assert.equal(found?.subject, "entry 3, /tmp/evil\\x0a\\\\\\xc3\\xa9")
  assert.deepEqual([found?.found, found?.expected], [named("evil"), "a file of the reference"])
  const entries = [...claims.ima.entries, imaEntry(3, "/x", "x"), imaEntry(4, "/y", "y")]
  refuses(withIma({ entries, certifiedCount: 5, uncertified: [imaEntry(5, "/z", "z")] }), [
    "ima-unknown-file",
    "ima-unknown-file",
    "ima-unknown-file",
  ])
})

test("appraise() says what a changed file should be", () => {
  const [found] = refuses(withEntry({ digest: hexOf("patched node") }), ["ima-unknown-file"])
  assert.deepEqual([found?.found, found?.expected], [named("patched node"), named("node")])
  const two = { ...imaReference, files: { ...imaReference.files, [named("node 2")]: ["/usr/lib/perun/node"] } }
  const [either] = refuses(withEntry({ digest: hexOf("patched node") }), ["ima-unknown-file"], study(bootReference, two))
  assert.equal(either?.expected, `${named("node")} or ${named("node 2")}`)
})

test("appraise() judges by content, not by name", () => {
  grants(withEntry({ name: encodeUtf8("/somewhere/else") }))
})

test("appraise() binds a digest to its algorithm and to what it is over", () => {
  refuses(withEntry({ hashAlgorithm: "sha384" }), ["ima-unknown-file"])
  refuses(withEntry({ hashAlgorithm: "sha512" }), ["ima-unknown-file"])
  refuses(withEntry({ verity: true }), ["ima-unknown-file"])
  const long = { ...imaReference, files: { ...imaReference.files, [`sha384:${"ab".repeat(48)}`]: ["/x"], [`sha512:${"ab".repeat(64)}`]: ["/y"] } }
  grants(withEntry({ hashAlgorithm: "sha384", digest: "ab".repeat(48) }), study(bootReference, long))
  grants(withEntry({ hashAlgorithm: "sha512", digest: "ab".repeat(64) }), study(bootReference, long))
})

test("appraise() refuses a hash weaker than SHA-256", () => {
  for (const hashAlgorithm of ["sha1", "md5", "sha224", "", "sm3"]) refuses(withEntry({ hashAlgorithm }), ["ima-weak-hash"])
})

test("appraise() refuses a violation, unless the policy allows its path class by name", () => {
  const violating = (name: string): HostClaims => withEntry({ name: encodeUtf8(name), digest: "0".repeat(64), violation: true })
  const allowing = study(bootReference, imaReference, { ima: { reference: referenceDigest(imaReference), violations: { allow: ["logs"] } } })
  const [found] = refuses(violating("/var/log/messages"), ["ima-violation"])
  assert.equal(found?.expected, "none")
  for (const name of ["/var/log/messages", "/var/log/a/b", "/var/log/", "/run/one", "/var/log/..a"]) grants(violating(name), allowing)
  for (const name of ["/var/logs", "/var/log", "/run/one/two", "/run/on", "x/var/log/y", "/var/log/../../usr/bin/x", "/var/log/..", ""]) {
    const [refused] = refuses(violating(name), ["ima-violation"], allowing)
    assert.equal(refused?.expected, "only in logs")
  }
  const unknown = study(bootReference, imaReference, { ima: { reference: referenceDigest(imaReference), violations: { allow: ["constructor"] } } })
  refuses(violating("/var/log/messages"), ["ima-violation"], unknown)
})

test("appraise() does not let a violation stand for a known file", () => {
  refuses(withEntry({ violation: true }), ["ima-violation"])
})

test("appraise() refuses a measured buffer that the reference does not have", () => {
  const buffer = encodeUtf8("anything")
  grants(withEntry({ name: encodeUtf8(".ima"), digest: hexOf("key"), buffer }))
  const [found] = refuses(withEntry({ name: encodeUtf8(".ima"), digest: hexOf("other key"), buffer }), ["ima-unknown-buffer"])
  assert.equal(found?.expected, named("key"))
  const [unknown] = refuses(withEntry({ name: encodeUtf8("constructor"), digest: hexOf("key"), buffer }), ["ima-unknown-buffer"])
  assert.equal(unknown?.expected, "no such buffer")
  refuses(withEntry({ name: encodeUtf8("kexec-cmdline"), digest: hexOf("node"), buffer }), ["ima-unknown-buffer"])
})

test("appraise() skips boot_aggregate only as the recomputed first entry", () => {
  refuses(withEntry({ name: encodeUtf8("boot_aggregate"), digest: hexOf("aggregate") }), ["ima-unknown-file"])
  const { bootAggregate, ...rest } = claims.ima
  assert.ok(bootAggregate !== undefined)
  refuses({ ...claims, ima: rest }, ["ima-boot-aggregate-missing", "ima-unknown-file"])
})

test("appraise() refuses entries in another register than 10", () => {
  refuses(withEntry({ pcr: 11 }), ["ima-wrong-register"])
  const [first, ...others] = claims.ima.entries
  assert.ok(first !== undefined)
  refuses(withIma({ entries: [{ ...first, pcr: 11 }, ...others] }), ["ima-wrong-register"])
})

test("appraise() refuses padded SHA-1", () => {
  refuses(withIma({ extendRule: "padded-sha1" }), ["ima-weak-extend"])
})

test("appraise() judges the IMA policy at both levels", () => {
  const [aggregate, load, ...others] = claims.ima.entries
  assert.ok(aggregate !== undefined && load !== undefined)
  const late = withIma({ entries: [aggregate, ...others, load] })
  const weak = { ...imaReference, imaPolicy: { ...imaReference.imaPolicy, replaceable: "yes" } } as const
  for (const level of ["sealed", "administered"] as const) {
    refuses(late, ["ima-policy-missing"], study(bootReference, imaReference, { level }))
    refuses(claims, ["ima-policy-replaceable"], study(bootReference, weak, { level }))
    const text = commandLine.replace(" ima_policy=tcb", "")
    refuses(
      withBoot({ commandLines: [{ pcr: 9, text }] }),
      ["ima-policy-unmeasured"],
      study({ ...bootReference, commandLines: [{ pcr: 9, text }] }, imaReference, { level }),
    )
  }
})

test("appraise() wants the whole list at a claim", () => {
  const tail = { entries: claims.ima.entries.filter(({ index }) => index > 0), firstIndex: 1 }
  refuses(withIma(tail), ["ima-list-incomplete"])
  // Without boot_aggregate both are said: nothing before this evidence stands for it.
  const { bootAggregate: _gone, ...rest } = withIma(tail).ima
  refuses({ ...claims, ima: rest }, ["ima-list-incomplete", "ima-boot-aggregate-missing"])
  refuses(withIma({ certifiedCount: 4 }), ["ima-list-incomplete"])
})

function previous(change: Partial<NonNullable<PreviousDecision["session"]["host"]>> = {}): PreviousDecision {
  const { session } = grants(claims)
  assert.ok(session.host)
  return { policy: policyDigest(policy), job: "train", session: { host: { ...session.host, ...change } } }
}

/** The next evidence of the same boot: only new entries, the former tail among them. */
const { bootAggregate: _judgedEarlier, ...renewedIma } = { ...claims.ima, entries: [imaEntry(3, "/usr/lib/perun/node", "node")], firstIndex: 3 }
const renewed: HostClaims = { ...withClock({ clock: 2000n }), ima: { ...renewedIma, certifiedCount: 4, uncertified: [] } }

test("appraise() renews on the new entries alone, and carries the state on", () => {
  const decision = grants(renewed, { previous: previous() })
  assert.deepEqual(decision.session.host?.ima, { certifiedCount: 4, mustCertify: 4 })
  assert.equal(decision.session.host?.clock, "2000")
  grants({ ...renewed, ima: { ...renewed.ima, entries: [], firstIndex: 4 } }, { previous: previous({ ima: { certifiedCount: 4, mustCertify: 4 } }) })
})

test("appraise() renews on the whole list too, and then judges all of it", () => {
  grants(
    { ...claims, ima: { ...claims.ima, entries: [...claims.ima.entries, imaEntry(3, "/n", "node")], certifiedCount: 4, uncertified: [] } },
    { previous: previous() },
  )
  const { bootAggregate: _gone, ...rest } = withEntry({}).ima
  refuses({ ...claims, ima: rest }, ["ima-boot-aggregate-missing", "ima-unknown-file"], { previous: previous() })
  const without = claims.ima.entries.map((entry) => (entry.index === 1 ? imaEntry(1, "/init", "init") : entry))
  refuses(withIma({ entries: [...without, imaEntry(3, "/n", "node")], certifiedCount: 4, uncertified: [] }), ["ima-policy-missing"], {
    previous: previous(),
  })
})

test("appraise() refuses a renewal that skips entries or leaves the former tail uncertified", () => {
  refuses({ ...renewed, ima: { ...renewed.ima, entries: [], firstIndex: 4 } }, ["ima-list-incomplete"], { previous: previous() })
  refuses({ ...renewed, ima: { ...renewed.ima, entries: [], certifiedCount: 3 } }, ["ima-tail-not-certified"], { previous: previous() })
})

test("appraise() refuses a renewal with an unknown file among the new entries", () => {
  refuses({ ...renewed, ima: { ...renewed.ima, entries: [imaEntry(3, "/tmp/x", "x")] } }, ["ima-unknown-file"], { previous: previous() })
})

test("appraise() pins a lease to one boot of one TPM", () => {
  for (const change of [
    { endorsementKey: named("other") },
    { attestationKeyName: hexOf("other") },
    { resetCount: 6 },
    { restartCount: 1 },
    { clock: "2001" },
  ])
    refuses(renewed, ["boot-session-changed"], { previous: previous(change) })
  grants(renewed, { previous: previous({ clock: "2000" }) })
  const { identity, ...anonymous } = renewed
  assert.ok(identity !== undefined)
  const gone = refuses(anonymous, ["identity-missing", "boot-session-changed", "boot-session-changed"], { previous: previous() })
  assert.deepEqual([gone[1]?.found, gone[1]?.expected], ["none", named("ek")])
  const [reset] = refuses(renewed, ["boot-session-changed"], { previous: previous({ resetCount: 6 }) })
  assert.deepEqual([reset?.subject, reset?.found, reset?.expected], ["reset count", "7", "6"])
})

test("appraise() takes no previous decision of another policy or job", () => {
  assert.throws(() => judge(renewed, { previous: { ...previous(), policy: named("other") } }), TypeError)
  assert.throws(() => judge(renewed, { previous: { ...previous(), job: "other" } }), TypeError)
})

test("a previous decision survives storage as JSON", () => {
  const stored: unknown = JSON.parse(JSON.stringify(previous()))
  assert.deepEqual(stored, previous())
})

test("appraise() reports every finding, not just the first", () => {
  assert.ok(claims.identity !== undefined)
  const bad: HostClaims = {
    ...withEntry({ digest: hexOf("evil") }),
    quote: { ...claims.quote, usesSha1: true, clockInfo: { ...claims.quote.clockInfo, safe: false } },
    boot: { ...claims.boot, secureBoot: "enabled" },
    identity: { ...claims.identity, endorsementKey: named("x"), rootKind: "laboratory" },
  }
  const codes = [
    "endorsement-key-not-listed",
    "laboratory-root-not-accepted",
    "clock-not-safe",
    "weak-hash",
    "secure-boot-differs",
    "ima-unknown-file",
  ]
  refuses(bad, codes)
})

test("finding() takes effect and advice from the table, and findingText() says it in one line", () => {
  const found = finding("ima-unknown-file", "entry 3", "a", "b")
  assert.deepEqual(found, {
    code: "ima-unknown-file",
    effect: "refusal",
    subject: "entry 3",
    found: "a",
    expected: "b",
    advice: findingCodes["ima-unknown-file"].advice,
  })
  assert.equal(
    findingText(found),
    `ima-unknown-file: entry 3: ${findingCodes["ima-unknown-file"].meaning}; found a, expected b; ${findingCodes["ima-unknown-file"].advice}`,
  )
  assert.ok(findingText({ ...found, subject: "" }).startsWith(`ima-unknown-file: ${findingCodes["ima-unknown-file"].meaning}`))
})

test("only a laboratory and a fault that the reference names are notes: everything else refuses", () => {
  const notes = Object.entries(findingCodes).flatMap(([code, { effect }]) => (effect === "note" ? [code] : []))
  assert.deepEqual(notes, ["reference-updated", "insecure-laboratory", "boot-quirk-accepted"])
  for (const { meaning, advice } of Object.values(findingCodes)) assert.ok(meaning.length > 0 && advice.length > 0)
})

test("printable() gives one safe text per input", () => {
  assert.equal(printable("a b~"), "a b~")
  assert.equal(printable("\u001b[2J\u007f\\"), "\\x1b[2J\\x7f\\\\")
  assert.equal(printableBytes(new Uint8Array([0xff, 0x20, 0x1f])), "\\xff \\x1f")
  assert.notEqual(printable("\\x0a"), printable("\n"))
})
