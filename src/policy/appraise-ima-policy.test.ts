import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import type { ImaEntry } from "../evidence/ima/claims.ts"
import { imaPolicyFindings, imaPolicyReferenceFindings, measuredFindings } from "./appraise-ima-policy.ts"
import { claims, hexOf, imaEntry, imaReference, imaRules, named } from "./fixtures.testing.ts"
import type { ImaPolicyReference } from "./reference.ts"

const aggregate = imaEntry(0, "boot_aggregate", "aggregate")
const load = imaEntry(1, "/root/etc/ima/policy", imaRules)
const other = imaEntry(2, "/init", "init")

function codes(entries: readonly ImaEntry[], change: Partial<ImaPolicyReference> = {}, uncertified: readonly ImaEntry[] = []): readonly string[] {
  const ima = { ...claims.ima, entries, uncertified }
  return imaPolicyFindings(claims.boot, ima, { ...imaReference.imaPolicy, ...change }, "sealed").map(({ code }) => code)
}

test("imaPolicyFindings() accepts a load right behind boot_aggregate", () => {
  assert.deepEqual(codes([aggregate, load, other]), [])
  assert.deepEqual(codes([aggregate, load]), [])
})

const wrongLists: readonly (readonly [string, readonly ImaEntry[]])[] = [
  ["no load", [aggregate, other]],
  ["nothing behind boot_aggregate", [aggregate]],
  ["nothing at all", []],
  ["a load behind another file, as root could have it listed under another policy", [aggregate, other, load]],
  ["a load in the place of boot_aggregate", [load, aggregate, other]],
  ["another policy first, and the right file read later", [aggregate, imaEntry(1, "/root/etc/ima/policy", "weak"), load]],
  ["the right file under another name", [aggregate, { ...load, name: encodeUtf8("/mnt/policy") }]],
  ["the right file under a name that holds the path", [aggregate, { ...load, name: encodeUtf8("/root/etc/ima/policy\n") }]],
  ["a violation of that name", [aggregate, { ...load, violation: true }]],
  ["a violation before it", [aggregate, { ...other, violation: true }, load]],
  ["a buffer of that name", [aggregate, { ...load, buffer: encodeUtf8(imaRules) }]],
  ["the digits under another algorithm", [aggregate, { ...load, hashAlgorithm: "sha512" }]],
  ["the digest of an fs-verity descriptor", [aggregate, { ...load, verity: true }]],
]

for (const [what, entries] of wrongLists)
  test(`imaPolicyFindings() refuses ${what}`, () => {
    assert.deepEqual(codes(entries), ["ima-policy-missing"])
  })

test("imaPolicyFindings() does not count a load that no quote certifies", () => {
  assert.deepEqual(codes([aggregate], {}, [load]), ["ima-policy-missing"])
})

test("imaPolicyFindings() lets only what the reference names stand before the load", () => {
  const before = [
    { name: "/init", digest: named("init") },
    { name: ".ima", digest: named("key") },
  ]
  const key: ImaEntry = { ...imaEntry(3, ".ima", "key"), buffer: encodeUtf8("key") }
  assert.deepEqual(codes([aggregate, other, key, load], { before }), [])
  assert.deepEqual(codes([aggregate, load], { before }), [])
  for (const stranger of [
    imaEntry(2, "/init", "changed"),
    imaEntry(2, "/sbin/init", "init"),
    { ...other, violation: true },
    { ...other, hashAlgorithm: "sha512" },
  ])
    assert.deepEqual(codes([aggregate, stranger, load], { before }), ["ima-policy-missing"])
  assert.deepEqual(codes([aggregate, other, key], { before }), ["ima-policy-missing"])
})

test("imaPolicyFindings() says what stands in the load's place", () => {
  const [found] = imaPolicyFindings(claims.boot, { ...claims.ima, entries: [aggregate, other] }, imaReference.imaPolicy, "sealed")
  assert.deepEqual([found?.subject, found?.found], ["/root/etc/ima/policy", `entry 2, /init, ${named("init")}`])
  assert.ok(found?.expected.startsWith(named(imaRules)))
})

test("imaPolicyFindings() does not ask a renewal that sends new entries only for the load", () => {
  const ima = { ...claims.ima, entries: [other], firstIndex: 2 }
  assert.deepEqual(imaPolicyFindings(claims.boot, ima, imaReference.imaPolicy, "sealed"), [])
})

function measured(texts: readonly string[], loadOptions: readonly string[] = []): readonly string[] {
  return measuredFindings({ commandLines: texts.map((text) => ({ pcr: 12, text })), loadOptions }).map(({ code }) => code)
}

test("measuredFindings() wants each measured command line to have policies listed", () => {
  for (const text of [
    "ima_policy=tcb",
    "quiet ima-policy=tcb",
    'ima_policy="tcb critical_data"',
    "ima_policy=appraise_tcb|tcb",
    "ima_policy=secure_boot ima_policy=tcb",
  ])
    assert.deepEqual(measured([text]), [], text)
  for (const text of [
    "",
    "quiet",
    "ima_policy",
    "ima_policy=",
    "ima_policy=TCB",
    "ima_policy=appraise_tcb",
    "ima_policy=tcb,critical_data",
    "ima_tcb",
    "ima_tcb ima_policy=tcb",
  ])
    assert.deepEqual(measured([text]), ["ima-policy-unmeasured"], text)
  for (const text of ["-- ima_policy=tcb", '"x ima_policy=tcb"', "x.ima_policy=tcb"])
    assert.deepEqual(measured([text]), ["ima-policy-unmeasured"], text)
  assert.deepEqual(measured(["ima_policy=tcb", "quiet"]), ["ima-policy-unmeasured"])
  assert.deepEqual(measured([]), ["ima-policy-unmeasured"])
  assert.deepEqual(measured(["ima_policy=tcb"], [hexOf("another line")]), ["ima-policy-unmeasured"])
})

test("imaPolicyReferenceFindings() judges rules and whether they last", () => {
  const judge = (change: Partial<ImaPolicyReference>): readonly string[] =>
    imaPolicyReferenceFindings({ ...imaReference.imaPolicy, ...change }, "administered").map(({ code }) => code)
  assert.deepEqual(judge({}), [])
  assert.deepEqual(judge({ replaceable: "yes" }), ["ima-policy-replaceable"])
  assert.deepEqual(judge({ rules: imaRules.replace("measure func=KEY_CHECK\n", "dont_measure\n") }), ["ima-policy-weak", "ima-policy-weak"])
  const verityDisk = { rules: `${imaRules}dont_measure func=FILE_CHECK fsuuid=1\n` }
  assert.deepEqual(judge(verityDisk), ["ima-policy-weak"])
  assert.deepEqual(imaPolicyReferenceFindings({ ...imaReference.imaPolicy, ...verityDisk }, "sealed"), [])
})
