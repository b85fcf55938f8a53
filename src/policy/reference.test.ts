import assert from "node:assert/strict"
import { test } from "node:test"
import { MalformedError } from "../bytes/error.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { captureBootReference, captureImaReference } from "./capture.ts"
import { PolicyError } from "./errors.ts"
import { bootEvent, bootReference, claims, hexOf, imaReference, named } from "./fixtures.testing.ts"
import { diffReferences } from "./reference-diff.ts"
import type { BootReference, RegisterReference } from "./reference.ts"
import { parseReference, parseReferenceValue, referenceDigest, referencesByDigest } from "./reference.ts"

function found(value: unknown): readonly string[] {
  try {
    parseReferenceValue(value)
    return []
  } catch (error) {
    assert.ok(error instanceof PolicyError)
    assert.equal(error.code, "invalid-reference")
    return error.problems.map(({ code, field }) => `${code} ${field}`)
  }
}

test("parseReference() reads what was written, and its digest names it", () => {
  for (const reference of [bootReference, imaReference]) {
    const parsed = parseReference(encodeUtf8(JSON.stringify(reference)))
    assert.deepEqual(parsed, reference)
    assert.equal(referenceDigest(parsed), referenceDigest(reference))
  }
  assert.throws(
    () => parseReference(encodeUtf8('{"kind":"boot","kind":"ima"}')),
    (error) => error instanceof MalformedError && error.code === "duplicate",
  )
})

test("referencesByDigest() computes the key", () => {
  assert.deepEqual([...referencesByDigest([bootReference, imaReference]).keys()], [referenceDigest(bootReference), referenceDigest(imaReference)])
})

test("parseReference() refuses any field left out or unknown", () => {
  for (const reference of [bootReference, imaReference]) {
    for (const field of Object.keys(reference)) {
      const rest: Record<string, unknown> = { ...reference }
      delete rest[field]
      assert.notDeepEqual(found(rest), [], field)
    }
    assert.deepEqual(found({ ...reference, unknown: 1 }), ["unknown-field unknown"])
  }
  for (const fact of Object.keys(bootReference.appliance)) {
    const facts: Record<string, unknown> = { ...Object(bootReference.appliance) }
    delete facts[fact]
    assert.deepEqual(found({ ...bootReference, appliance: facts }), [`missing-field appliance.${fact}`])
  }
})

function registers(change: (register: RegisterReference) => unknown): object {
  return { ...bootReference, registers: bootReference.registers.map(change).filter((register) => register !== undefined) }
}

function imaPolicyWith(change: object): object {
  return { ...imaReference, imaPolicy: { ...imaReference.imaPolicy, ...change } }
}

const event = { type: "EV_TEST", digests: [hexOf("x")], description: "" }
const wrongBoot: readonly (readonly [string, object, readonly string[]])[] = [
  ["another version", { ...bootReference, perun: 2 }, ["wrong-value perun"]],
  ["a weaker bank", { ...bootReference, bank: "sha1" }, ["wrong-value bank"]],
  ["an impossible locality", { ...bootReference, startupLocality: 1 }, ["wrong-value startupLocality"]],
  ["Secure Boot unknown", { ...bootReference, secureBoot: "unknown" }, ["wrong-value secureBoot"]],
  ["no time of expiry", { ...bootReference, expires: "never" }, ["wrong-value expires"]],
  ["no time of creation", { ...bootReference, created: "2026-11-01" }, ["wrong-value created"]],
  ["no name", { ...bootReference, name: "" }, ["wrong-value name"]],
  ["a name with an escape", { ...bootReference, name: "\u001b[2J" }, ["wrong-value name"]],
  ["a register left out", registers((register) => (register.pcr === 4 ? undefined : register)), ["wrong-value registers"]],
  [
    "a register twice",
    registers((register) => (register.pcr === 4 ? { ...register, pcr: 3 } : register)),
    ["wrong-value registers", "wrong-value registers"],
  ],
  ["registers out of order", { ...bootReference, registers: bootReference.registers.toReversed() }, ["wrong-value registers"]],
  [
    "an open register of the kernel's",
    registers((register) => (register.pcr === 4 ? { pcr: 4, any: "x" } : register)),
    ["wrong-value registers.4.pcr"],
  ],
  [
    "an open register without a reason",
    registers((register) => (register.pcr === 1 ? { pcr: 1, any: "" } : register)),
    ["wrong-value registers.1.any"],
  ],
  [
    "a register that does not exist",
    { ...bootReference, registers: [...bootReference.registers, { pcr: 24, events: [] }] },
    ["too-large registers.10.pcr"],
  ],
  [
    "an event without a digest",
    registers((register) => (register.pcr === 0 ? { pcr: 0, events: [{ ...event, digests: [] }] } : register)),
    ["wrong-value registers.0.events.0.digests"],
  ],
  [
    "a digest of another length",
    registers((register) => (register.pcr === 0 ? { pcr: 0, events: [{ ...event, digests: ["00"] }] } : register)),
    ["wrong-value registers.0.events.0.digests.0"],
  ],
  ["a fact of another word", { ...bootReference, appliance: { ...Object(bootReference.appliance), swap: "none" } }, ["wrong-value appliance.swap"]],
  [
    "a root hash of another length",
    { ...bootReference, appliance: { ...Object(bootReference.appliance), verity: [{ parameter: "roothash", rootHash: "00" }] } },
    ["wrong-value appliance.verity.0.rootHash"],
  ],
  [
    "a root hash in what is no parameter",
    { ...bootReference, appliance: { ...Object(bootReference.appliance), verity: [{ parameter: "root hash", rootHash: hexOf("x") }] } },
    ["wrong-value appliance.verity.0.parameter"],
  ],
  ...[16, 23].map((pcr): readonly [string, object, readonly string[]] => [
    `register ${pcr}`,
    { ...bootReference, registers: [...bootReference.registers, { pcr, events: [] }] },
    [`wrong-value registers.${bootReference.registers.length}.pcr`],
  ]),
  ["no verified disk", { ...bootReference, appliance: { ...Object(bootReference.appliance), verity: [] } }, ["wrong-value appliance.verity"]],
]

for (const [what, value, expected] of wrongBoot)
  test(`parseReference() refuses a boot reference with ${what}`, () => {
    assert.deepEqual(found(value), expected)
  })

test("parseReference() accepts open registers 1, 3 and 5, and registers above 9", () => {
  const open = registers((register) => ([1, 3, 5].includes(register.pcr) ? { pcr: register.pcr, any: "differs" } : register)) as BootReference
  assert.deepEqual(found(open), [])
  assert.deepEqual(found({ ...open, registers: [...open.registers, { pcr: 14, events: [event] }, { pcr: 22, events: [] }] }), [])
})

test("parseReference() accepts every word that a reference may state", () => {
  for (const secureBoot of ["any", "enabled", "disabled"]) assert.deepEqual(found({ ...bootReference, secureBoot }), [])
  for (const startupLocality of ["any", 0, 3, 4]) assert.deepEqual(found({ ...bootReference, startupLocality }), [])
  const facts = {
    login: "possible",
    tpmAccess: "others",
    ptrace: "on",
    swap: "on",
    coreDumps: "on",
    suspend: "on",
    kexec: "on",
    programs: "elsewhere-too",
  }
  for (const [fact, word] of Object.entries(facts))
    assert.deepEqual(found({ ...bootReference, appliance: { ...Object(bootReference.appliance), [fact]: word } }), [], fact)
  assert.deepEqual(found(imaPolicyWith({ replaceable: "yes" })), [])
})

test("parseReference() takes as many events and paths as it may have, and no more", () => {
  const withEvents = (count: number): object =>
    registers((register) => (register.pcr === 0 ? { pcr: 0, events: Array(count).fill(event) } : register))
  assert.deepEqual(found(withEvents(4096)), [])
  assert.deepEqual(found(withEvents(4097)), ["too-large registers.0.events"])
  const withPaths = (count: number): object => ({ ...imaReference, files: { [named("x")]: Array(count).fill("/x") } })
  assert.deepEqual(found(withPaths(65_536)), [])
  assert.deepEqual(found(withPaths(65_537)), [`too-large files.${named("x")}`])
})

const hexDigits = (count: number): string => "0a".repeat(count / 2)
test("parseReference() knows digests of files by algorithm and length", () => {
  const filesOf = (digest: string): readonly string[] => found({ ...imaReference, files: { [digest]: ["/x"] } })
  const good = [`sha256:${hexDigits(64)}`, `sha384:${hexDigits(96)}`, `sha512:${hexDigits(128)}`]
  for (const digest of good) {
    assert.deepEqual(filesOf(digest), [])
    for (const bad of [`x${digest}`, `${digest}0`, `${digest}00`, digest.slice(0, -2), digest.toUpperCase(), digest.replaceAll("a", "g")])
      assert.deepEqual(filesOf(bad), [`wrong-value files.${bad}`], bad)
  }
  const eventOf = (digest: string): readonly string[] =>
    found(registers((register) => (register.pcr === 0 ? { pcr: 0, events: [{ ...event, digests: [digest] }] } : register)))
  for (const bad of [`00${hexDigits(64)}`, `${hexDigits(64)}00`, hexDigits(64).toUpperCase()])
    assert.deepEqual(eventOf(bad), ["wrong-value registers.0.events.0.digests.0"])
})

const wrongIma: readonly (readonly [string, object, readonly string[]])[] = [
  ["IMA rules with a NUL", imaPolicyWith({ rules: "measure\0" }), ["wrong-value imaPolicy.rules"]],
  ["IMA rules with a carriage return", imaPolicyWith({ rules: "measure\r\n" }), ["wrong-value imaPolicy.rules"]],
  ["no IMA rules", imaPolicyWith({ rules: "" }), ["wrong-value imaPolicy.rules"]],
  ["an IMA policy without a path", imaPolicyWith({ path: "policy" }), ["wrong-value imaPolicy.path"]],
  ["an IMA policy that may be replaced or not", imaPolicyWith({ replaceable: "any" }), ["wrong-value imaPolicy.replaceable"]],
  ["an earlier entry without digest", imaPolicyWith({ before: [{ name: "/x", digest: "x" }] }), ["wrong-value imaPolicy.before.0.digest"]],
  ["a SHA-1 digest", { ...imaReference, files: { [`sha1:${"0".repeat(40)}`]: ["/x"] } }, [`wrong-value files.sha1:${"0".repeat(40)}`]],
  ["a digest of another length", { ...imaReference, files: { "sha256:00": ["/x"] } }, ["wrong-value files.sha256:00"]],
  [
    "a sha512 digest of the length of sha256",
    { ...imaReference, files: { [`sha512:${hexOf("x")}`]: [] } },
    [`wrong-value files.sha512:${hexOf("x")}`],
  ],
  ["paths that are no list", { ...imaReference, files: { [named("x")]: "/x" } }, [`wrong-type files.${named("x")}`]],
  ["a buffer without digest", { ...imaReference, buffers: { x: [] } }, ["wrong-value buffers.x"]],
  ["a relative path class", { ...imaReference, violationClasses: { x: ["var/"] } }, ["wrong-value violationClasses.x.0"]],
  ["an empty path class", { ...imaReference, violationClasses: { x: [] } }, ["wrong-value violationClasses.x"]],
]

for (const [what, value, expected] of wrongIma)
  test(`parseReference() refuses an IMA reference with ${what}`, () => {
    assert.deepEqual(found(value), expected)
  })

test("parseReference() refuses other kinds, and what is no document", () => {
  assert.deepEqual(found({ ...bootReference, kind: "gpu" }), ["wrong-value kind"])
  assert.deepEqual(found([]), ["wrong-type "])
})

const times = { name: "captured", created: "2026-11-01T00:00:00Z", expires: "2027-06-01T00:00:00Z" }

test("captureBootReference() states the boot that it was given", () => {
  const reference = captureBootReference(claims.boot, { ...times, appliance: bootReference.appliance, open: new Map([[1, "holds the boot order"]]) })
  assert.deepEqual(reference, { ...bootReference, name: "captured" })
  assert.deepEqual(found(reference), [])
})

test("captureBootReference() states registers above 9 only where something was measured", () => {
  const boot = {
    ...claims.boot,
    events: [...claims.boot.events, bootEvent(14, "mok")],
    secureBoot: "unknown",
    startupLocality: 3,
    quirks: ["q"],
  } as const
  const reference = captureBootReference(boot, { ...times, appliance: "none" })
  assert.deepEqual(
    reference.registers.map(({ pcr }) => pcr),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14],
  )
  assert.deepEqual([reference.secureBoot, reference.startupLocality, reference.quirks], ["any", 3, ["q"]])
  assert.equal(captureBootReference({ ...boot, startupLocality: 4 }, { ...times, appliance: "none" }).startupLocality, 4)
})

test("captureBootReference() states registers 0 to 9 also where nothing was measured", () => {
  const reference = captureBootReference({ ...claims.boot, events: [] }, { ...times, appliance: "none" })
  assert.deepEqual(
    reference.registers,
    Array.from({ length: 10 }, (_, pcr) => ({ pcr, events: [] })),
  )
})

test("captureBootReference() makes machine text printable", () => {
  const boot = { ...claims.boot, events: [{ ...bootEvent(0, "x"), type: "0x\u001b", description: "a\nb" }] }
  const [register] = captureBootReference(boot, { ...times, appliance: "none" }).registers
  assert.deepEqual(register, { pcr: 0, events: [{ type: "0x\\x1b", digests: [hexOf("x")], description: "a\\x0ab" }] })
})

test("captureBootReference() refuses a boot of another bank or locality", () => {
  assert.throws(() => captureBootReference({ ...claims.boot, bank: "sha1" }, { ...times, appliance: "none" }), TypeError)
  assert.throws(() => captureBootReference({ ...claims.boot, startupLocality: 1 }, { ...times, appliance: "none" }), TypeError)
})

test("captureImaReference() joins paths by digest, in order, the IMA policy among them", () => {
  const files = [
    { path: "/b", digest: named("same") },
    { path: "/a", digest: named("same") },
    { path: "/a", digest: named("same") },
    { path: "/c", digest: named("other") },
  ]
  const { imaPolicy } = imaReference
  const reference = captureImaReference({ ...times, files, imaPolicy })
  assert.deepEqual(reference.files, { [named("same")]: ["/a", "/b"], [named("other")]: ["/c"], [named(imaPolicy.rules)]: [imaPolicy.path] })
  const backwards = captureImaReference({ ...times, files: files.toReversed(), imaPolicy })
  for (const { files: sorted } of [reference, backwards]) assert.deepEqual(Object.keys(sorted), Object.keys(sorted).toSorted())
  assert.deepEqual([reference.buffers, reference.violationClasses, reference.imaPolicy], [{}, {}, imaPolicy])
  assert.deepEqual(found(reference), [])
  const more = captureImaReference({ ...times, files: [], imaPolicy, buffers: { x: [named("b")] }, violationClasses: { l: ["/l/"] } })
  assert.deepEqual([more.buffers, more.violationClasses], [{ x: [named("b")] }, { l: ["/l/"] }])
})

test("diffReferences() names every entry that differs, and nothing else", () => {
  assert.deepEqual(diffReferences(bootReference, bootReference), [])
  assert.deepEqual(diffReferences(imaReference, imaReference), [])
  const kernel = registers((register) => (register.pcr === 4 ? { pcr: 4, events: [event] } : register)) as BootReference
  assert.deepEqual(
    diffReferences(bootReference, { ...kernel, secureBoot: "enabled" }).map(({ subject }) => subject),
    ["secureBoot", "register 4, event 0", "register 4, event 1", "register 4, event 2"],
  )
  assert.deepEqual(diffReferences(kernel, registers((register) => (register.pcr === 4 ? { pcr: 4, events: [] } : register)) as BootReference), [
    { subject: "register 4, event 0", before: `EV_TEST ${hexOf("x")}`, after: undefined },
  ])
  const open = registers((register) => (register.pcr === 1 ? { pcr: 1, any: "other" } : register)) as BootReference
  assert.deepEqual(diffReferences(bootReference, open), [{ subject: "register 1", before: "any: holds the boot order", after: "any: other" }])
})

test("diffReferences() shows files by path", () => {
  const changed = { ...imaReference, files: { ...imaReference.files, [named("node 2")]: ["/usr/lib/perun/node", "/new"] } }
  assert.deepEqual(diffReferences(imaReference, changed), [
    { subject: "/new", before: undefined, after: named("node 2") },
    { subject: "/usr/lib/perun/node", before: named("node"), after: [named("node"), named("node 2")].toSorted().join(" or ") },
  ])
  const strange = { ...imaReference, files: { ...imaReference.files, [named("x")]: ["/a\u001b"] } }
  assert.equal(diffReferences(imaReference, strange)[0]?.subject, "/a\\x1b")
  assert.deepEqual(diffReferences(imaReference, { ...imaReference, buffers: {} }), [
    { subject: "buffers", before: JSON.stringify(imaReference.buffers), after: "{}" },
  ])
  assert.deepEqual(diffReferences(imaReference, bootReference), [{ subject: "kind", before: "ima", after: "boot" }])
})
