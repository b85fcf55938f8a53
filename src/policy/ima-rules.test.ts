import assert from "node:assert/strict"
import { test } from "node:test"
import { imaRules } from "./fixtures.testing.ts"
import { imaRuleFaults } from "./ima-rules.ts"

test("imaRuleFaults() finds nothing in a policy that lists all that must be", () => {
  for (const level of ["sealed", "administered"] as const) {
    assert.deepEqual(imaRuleFaults(imaRules, level), [])
    assert.deepEqual(imaRuleFaults(`# words\n\n \t\n${imaRules.replaceAll(" ", " \t ")}`, level), [])
  }
})

for (const rule of imaRules.trim().split("\n"))
  test(`imaRuleFaults() misses ${rule}`, () => {
    const [fault, ...others] = imaRuleFaults(imaRules.replace(`${rule}\n`, ""), "sealed")
    assert.deepEqual([fault?.rule, others], [undefined, []])
    assert.ok(fault?.expected.startsWith(rule))
    for (const other of [`# ${rule}`, `dont_audit ${rule}`, `${rule} uid=1000`, `${rule} fowner=0`, rule.replace("measure", "appraise")])
      assert.deepEqual(
        imaRuleFaults(imaRules.replace(rule, other), "sealed").map((one) => one.rule),
        [undefined],
        other,
      )
  })

test("imaRuleFaults() accepts the usual restrictions of programs and of reading, in any order and with a template", () => {
  const usual = imaRules
    .replace("func=BPRM_CHECK", "mask=MAY_EXEC func=BPRM_CHECK")
    .replace("func=MMAP_CHECK", "func=MMAP_CHECK mask=MAY_EXEC template=ima-sig")
    .replace("func=FILE_CHECK", "func=FILE_CHECK euid=0 mask=^MAY_READ")
    .replace("func=KEY_CHECK", "func=KEY_CHECK template=ima-buf")
  assert.deepEqual(imaRuleFaults(usual, "administered"), [])
})

test("imaRuleFaults() wants reading to be listed for root by effective identity, and where a file is opened for writing too", () => {
  for (const condition of ["mask=MAY_READ euid=0", "mask=^MAY_READ uid=0", "mask=^MAY_WRITE euid=0", "fsname=ext4"])
    assert.deepEqual(imaRuleFaults(imaRules.replace("func=FILE_CHECK", `func=FILE_CHECK ${condition}`), "sealed"), [
      { rule: undefined, expected: "measure func=FILE_CHECK mask=^MAY_READ euid=0" },
    ])
})

const leftOut: readonly (readonly [string, boolean, boolean])[] = [
  ["dont_measure func=FILE_CHECK fsmagic=0x9fa0", true, true],
  ["dont_measure fsmagic=0x01021994 func=FILE_CHECK", true, true],
  ["dont_measure func=FILE_CHECK fsuuid=70657275-6e00-4000-8000-000000000001", true, false],
  ["dont_measure func=FILE_CHECK fsmagic=0xef53", false, false],
  ["dont_measure func=FILE_CHECK fsmagic=", false, false],
  ["dont_measure func=FILE_CHECK", false, false],
  ["dont_measure func=FILE_CHECK xsmagic=0x9fa0", false, false],
  ["dont_measure fsmagic=0x01021994", false, false],
  ["dont_measure func=BPRM_CHECK fsmagic=0x01021994", false, false],
  ["dont_measure func=FILE_CHECK func=BPRM_CHECK fsmagic=0x01021994", false, false],
  ["dont_measure func=FILE_CHECK uid=0", false, false],
  ["dont_measure obj_type=var_log_t", false, false],
  ["dont_measure", false, false],
  ["measure func=FILE_CHECK uid=0 pcr=11", false, false],
  ["measure func=FILE_CHECK uid=1000", true, true],
  ["appraise func=POLICY_CHECK appraise_type=imasig", true, true],
  ["dont_appraise fsmagic=0x01021994", true, true],
  ["audit func=BPRM_CHECK", true, true],
  ["dont_hash func=FILE_CHECK", true, true],
  ["hash func=FILE_CHECK", true, true],
  ["dont_audit fsmagic=0x9fa0", true, true],
  ["#measure func=BPRM_CHECK", true, true],
  ["measure# func=BPRM_CHECK", false, false],
  ["dont_measure func=FILE_CHECK fsmagic=0x9fa0 fsmagic=0xef53", false, false],
  ["dont_measure func=FILE_CHECK fsmagic=0x9fa0 uid=0", false, false],
  ["dont_measure func=FILE_CHECK fsuuid=70657275-6e00-4000-8000-000000000001 uid=0", false, false],
  ["Measure func=BPRM_CHECK", false, false],
  ["unknown", false, false],
]

for (const [rule, sealed, administered] of leftOut)
  test(`imaRuleFaults() judges ${rule}`, () => {
    for (const [level, isGood] of [
      ["sealed", sealed],
      ["administered", administered],
    ] as const)
      for (const text of [`${rule}\n${imaRules}`, `${imaRules}${rule}`])
        assert.deepEqual(
          imaRuleFaults(text, level).map((fault) => fault.rule),
          isGood ? [] : [rule],
          level,
        )
  })

/** Linux include/uapi/linux/magic.h. */
const ownFileSystems = {
  procfs: 0x9fa0,
  sysfs: 0x62656572,
  debugfs: 0x64626720,
  tracefs: 0x74726163,
  tmpfs: 0x01021994,
  ramfs: 0x858458f6,
  devpts: 0x1cd1,
  securityfs: 0x73636673,
  selinuxfs: 0xf97cff8c,
  smackfs: 0x43415d53,
  cgroup: 0x27e0eb,
  cgroup2: 0x63677270,
  nsfs: 0x6e736673,
  efivarfs: 0xde5e81e4,
  binfmt_misc: 0x42494e4d,
}

for (const [name, magic] of Object.entries(ownFileSystems))
  test(`imaRuleFaults() lets reading on ${name} be left out, and on no other file system`, () => {
    const faults = (number: number): number =>
      imaRuleFaults(`dont_measure func=FILE_CHECK fsmagic=0x${number.toString(16)}\n${imaRules}`, "administered").length
    assert.deepEqual([faults(magic - 1), faults(magic), faults(magic + 1)], [1, 0, 1])
  })

test("imaRuleFaults() takes each form of a demanded rule", () => {
  for (const form of ["func=FILE_CHECK mask=^MAY_READ", "func=FILE_CHECK mask=^MAY_READ euid=0", "func=FILE_CHECK"])
    assert.deepEqual(imaRuleFaults(imaRules.replace("func=FILE_CHECK", form), "administered"), [], form)
})
