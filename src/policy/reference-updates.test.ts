import assert from "node:assert/strict"
import { test } from "node:test"
import { checkPolicy } from "./check.ts"
import { consequencesOf } from "./consequences.ts"
import { diffPolicies } from "./diff.ts"
import type { BootUpdates, HostMachine, Policy, ReferenceUpdates } from "./document.ts"
import { explainPolicy, explanationText } from "./explain.ts"
import { bootReference, commandLine, hexOf, imaReference, named, policy } from "./fixtures.testing.ts"
import type { BootReference } from "./reference.ts"
import { acceptedReferences, beyondScope, referencePlace, updateDigest } from "./reference-updates.ts"

const until = "2027-01-01T00:00:00Z"
const ofIma: ReferenceUpdates = { by: "vendor", until, overlapSeconds: 60 }
const ofBoot: BootUpdates = { ...ofIma, registers: [4, 9] }

function delegated({ boot = ofBoot, ima = ofIma }: { boot?: BootUpdates; ima?: ReferenceUpdates } = {}): Policy {
  const host = policy.machines["gpu-host"] as HostMachine
  return { ...policy, machines: { "gpu-host": { ...host, boot: { ...host.boot, updates: boot }, ima: { ...host.ima, updates: ima } } } }
}

test("the newest document, and for the overlap the one before; never a third", () => {
  const place = { reference: named("own"), updates: ofIma }
  const [one, two] = [named("one"), named("two")]
  assert.deepEqual(acceptedReferences(place, [], 0), [named("own")])
  assert.deepEqual(acceptedReferences(place, [{ reference: one, at: 1000 }], 60_999), [one, named("own")])
  assert.deepEqual(acceptedReferences(place, [{ reference: one, at: 1000 }], 61_000), [one])
  const both = [
    { reference: one, at: 1000 },
    { reference: two, at: 1001 },
  ]
  assert.deepEqual(acceptedReferences(place, both, 1002), [two, one])
  assert.deepEqual(acceptedReferences({ ...place, updates: { ...ofIma, overlapSeconds: 0 } }, both, 1001), [two])
})

test("what a delegate signs names policy, place, and both documents: each of them changes it", () => {
  const facts = { policy: named("policy"), machine: "gpu-host", piece: "ima", replaces: named("before"), reference: named("after") } as const
  const digests = [
    facts,
    { ...facts, policy: named("other") },
    { ...facts, machine: "other" },
    { ...facts, piece: "boot" as const },
    { ...facts, replaces: named("other") },
    { ...facts, reference: named("other") },
  ].map(updateDigest)
  assert.equal(new Set(digests).size, digests.length)
})

test("a boot update is within its registers: their events, command lines, and the root hashes in these", () => {
  const registers = bootReference.registers.map((register) =>
    register.pcr === 4 ? { pcr: 4, events: [{ type: "EV", digests: [hexOf("next kernel")], description: "" }] } : register,
  )
  const next: BootReference = { ...bootReference, name: "next", created: "2026-12-01T00:00:00Z", expires: "2027-12-01T00:00:00Z", registers }
  assert.deepEqual(beyondScope(bootReference, next, ofBoot), [])
  assert.match(beyondScope(bootReference, next, { ...ofBoot, registers: [9] }).join(), /register 4/)
  const { appliance } = bootReference
  assert.ok(appliance !== "none")
  const rooted: BootReference = {
    ...bootReference,
    commandLines: [{ pcr: 9, text: commandLine.replace(/roothash=[0-9a-f]+/, `roothash=${hexOf("next root")}`) }],
    appliance: { ...appliance, verity: [{ parameter: "roothash", rootHash: hexOf("next root") }] },
  }
  assert.deepEqual(beyondScope(bootReference, rooted, ofBoot), [])
  assert.match(beyondScope(bootReference, rooted, { ...ofBoot, registers: [4] }).join(), /commandLines|appliance/)
  for (const change of [{ login: "possible" }, { tpmAccess: "others" }, { verity: [...appliance.verity, ...appliance.verity] }] as const)
    assert.match(beyondScope(bootReference, { ...bootReference, appliance: { ...appliance, ...change } }, ofBoot).join(), /appliance/)
  assert.match(beyondScope(bootReference, { ...bootReference, appliance: "none" }, ofBoot).join(), /appliance/)
  // An event that is demanded one by one cannot become a register that holds anything.
  const open = bootReference.registers.map((register) => (register.pcr === 5 ? { pcr: 5, any: "differs" } : register))
  assert.match(beyondScope(bootReference, { ...bootReference, registers: open }, { ...ofBoot, registers: [4, 5, 9] }).join(), /register 5/)
  assert.notDeepEqual(beyondScope(bootReference, { ...bootReference, registers: registers.filter(({ pcr }) => pcr !== 4) }, ofBoot), [])
})

test("an IMA update is files; another kind of document is none", () => {
  assert.deepEqual(beyondScope(imaReference, { ...imaReference, files: { [named("new")]: ["/new"] } }, ofIma), [])
  assert.deepEqual(beyondScope(imaReference, bootReference, ofIma), ["kind"])
})

test("a place is found in a host and in the guest of a TEE, and nowhere else", () => {
  assert.equal(referencePlace(delegated(), "gpu-host", "ima")?.updates?.by, "vendor")
  assert.equal(referencePlace(policy, "gpu-host", "ima")?.updates, undefined)
  assert.equal(referencePlace(policy, "other", "ima"), undefined)
})

test("check: the delegate is a party, and no program", () => {
  assert.deepEqual(checkPolicy(delegated()), [])
  const [unknown] = checkPolicy(delegated({ ima: { ...ofIma, by: "nobody" } }))
  assert.equal(unknown?.field, "machines.gpu-host.ima.updates.by")
  const checker = delegated({ boot: { ...ofBoot, by: "consortium" } })
  const roles = {
    ...checker,
    stakeholders: { ...checker.stakeholders, consortium: { keys: checker.stakeholders["consortium"]?.keys ?? [], roles: ["checker" as const] } },
  }
  assert.ok(checkPolicy(roles).some(({ field, code }) => field === "machines.gpu-host.boot.updates.by" && code === "wrong-role"))
  const [twice] = checkPolicy(delegated({ boot: { ...ofBoot, registers: [4, 4] } }))
  assert.match(twice?.field ?? "", /boot\.updates\.registers/)
})

test("explain and diff say who may change what alone, and until when", () => {
  const text = explanationText(explainPolicy(delegated()))
  assert.match(text, /delegated: vendor may alone change what gpu-host must boot, in registers 4, 9, until 2027-01-01T00:00:00Z/)
  assert.match(text, /delegated: vendor may alone change which files gpu-host may run and read, until/)
  assert.doesNotMatch(explanationText(explainPolicy(policy)), /delegated:/)
  const given = consequencesOf(policy, delegated())
  assert.ok(
    given.some(
      (line) => line.startsWith("vendor may alone change what gpu-host must boot") && line.endsWith("without a new signature of anybody else"),
    ),
  )
  assert.ok(consequencesOf(delegated(), policy).some((line) => line.startsWith("no longer: vendor may alone change")))
  assert.ok(
    consequencesOf(delegated(), delegated({ ima: { ...ofIma, by: "clinic-a" } })).some((line) =>
      /clinic-a may alone change .*; before vendor/.test(line),
    ),
  )
  const words = diffPolicies(policy, delegated()).fields.map(({ words: one }) => one)
  assert.ok(words.includes("who may update what gpu-host must boot, and in what, changes"))
})
