import assert from "node:assert/strict"
import { test } from "node:test"
import { explainResponseCode, responseError } from "./errors.ts"

/** Codes as TPMs and the Linux resource manager send them. */
const cases: readonly (readonly [code: number, name: string, word: string, about: string, passing: boolean])[] = [
  [0x100, "TPM_RC_INITIALIZE", "not-started", "", false],
  [0x101, "TPM_RC_FAILURE", "failure", "", false],
  [0x143, "TPM_RC_COMMAND_CODE", "unsupported", "", false],
  [0xb0143, "TPM_RC_COMMAND_CODE", "unsupported", "", false],
  [0x128, "TPM_RC_PCR_CHANGED", "policy-failed", "", false],
  [0x154, "TPM_RC_NO_RESULT", "failure", "", false],
  [0x901, "TPM_RC_CONTEXT_GAP", "busy", "", true],
  [0x902, "TPM_RC_OBJECT_MEMORY", "no-resources", "", false],
  [0x903, "TPM_RC_SESSION_MEMORY", "no-resources", "", false],
  [0x908, "TPM_RC_YIELDED", "busy", "", true],
  [0x90a, "TPM_RC_TESTING", "busy", "", true],
  [0x910, "TPM_RC_REFERENCE_H0", "no-such-handle", "", false],
  [0x920, "TPM_RC_NV_RATE", "busy", "", true],
  [0x921, "TPM_RC_LOCKOUT", "lockout", "", false],
  [0x922, "TPM_RC_RETRY", "busy", "", true],
  [0x923, "TPM_RC_NV_UNAVAILABLE", "busy", "", true],
  [0x98e, "TPM_RC_AUTH_FAIL", "auth-failed", "session 1", false],
  [0x9a2, "TPM_RC_BAD_AUTH", "auth-failed", "session 1", false],
  [0x99d, "TPM_RC_POLICY_FAIL", "policy-failed", "session 1", false],
  [0x18b, "TPM_RC_HANDLE", "no-such-handle", "handle 1", false],
  [0x1df, "TPM_RC_INTEGRITY", "wrong-credential", "parameter 1", false],
  [0x2c4, "TPM_RC_VALUE", "refused", "parameter 2", false],
  [0x2c3, "TPM_RC_HASH", "unsupported", "parameter 2", false],
  [0x08b, "TPM_RC_HANDLE", "no-such-handle", "", false],
  [0x17f, "TPM_RC 0x17f", "refused", "", false],
  [0x0bf, "TPM_RC 0x0bf", "refused", "", false],
  [0x01e, "TPM_RC_BAD_TAG", "refused", "", false],
]

for (const [code, name, word, about, passing] of cases) {
  test(`explainResponseCode() names 0x${code.toString(16)}`, () => {
    const explained = explainResponseCode(code)
    assert.equal(explained.code, word)
    assert.equal(explained.about, about)
    assert.equal(explained.passing, passing)
    assert.equal(explained.name, name)
  })
}

/** TPM 2.0 Library Part 2, table 16, by what is to be done: number and name. */
const formatZero: Readonly<Record<string, string>> = {
  refused:
    "0x01e BAD_TAG, 0x103 SEQUENCE, 0x120 EXCLUSIVE, 0x127 PCR, 0x142 COMMAND_SIZE, 0x144 AUTHSIZE, 0x146 NV_RANGE, 0x147 NV_SIZE, 0x148 NV_LOCKED, 0x14c NV_DEFINED, 0x150 BAD_CONTEXT, 0x152 PARENT, 0x155 SENSITIVE, 0x907 LOCALITY",
  "not-started": "0x100 INITIALIZE",
  failure: "0x101 FAILURE, 0x12d UPGRADE, 0x130 REBOOT, 0x153 NEEDS_TEST, 0x154 NO_RESULT",
  unsupported: "0x119 DISABLED, 0x143 COMMAND_CODE",
  "auth-failed": "0x124 AUTH_TYPE, 0x125 AUTH_MISSING, 0x12f AUTH_UNAVAILABLE, 0x145 AUTH_CONTEXT, 0x149 NV_AUTHORIZATION",
  "policy-failed": "0x126 POLICY, 0x128 PCR_CHANGED, 0x151 CPHASH",
  "no-resources":
    "0x12e TOO_MANY_CONTEXTS, 0x14b NV_SPACE, 0x902 OBJECT_MEMORY, 0x903 SESSION_MEMORY, 0x904 MEMORY, 0x905 SESSION_HANDLES, 0x906 OBJECT_HANDLES",
  "no-such-handle":
    "0x14a NV_UNINITIALIZED, 0x910 REFERENCE_H0, 0x911 REFERENCE_H1, 0x912 REFERENCE_H2, 0x918 REFERENCE_S0, 0x919 REFERENCE_S1, 0x91a REFERENCE_S2",
  busy: "0x901 CONTEXT_GAP, 0x908 YIELDED, 0x909 CANCELED, 0x90a TESTING, 0x920 NV_RATE, 0x922 RETRY, 0x923 NV_UNAVAILABLE",
  lockout: "0x921 LOCKOUT",
}
const formatOne: Readonly<Record<string, string>> = {
  unsupported:
    "0x01 ASYMMETRIC, 0x03 HASH, 0x07 KEY_SIZE, 0x08 MGF, 0x09 MODE, 0x0c KDF, 0x12 SCHEME, 0x16 SYMMETRIC, 0x21 RESERVED_BITS, 0x26 CURVE",
  refused:
    "0x02 ATTRIBUTES, 0x04 VALUE, 0x05 HIERARCHY, 0x0a TYPE, 0x0d RANGE, 0x15 SIZE, 0x17 TAG, 0x18 SELECTOR, 0x1a INSUFFICIENT, 0x1b SIGNATURE, 0x1c KEY, 0x20 TICKET, 0x27 ECC_POINT",
  "no-such-handle": "0x0b HANDLE",
  "auth-failed": "0x0e AUTH_FAIL, 0x0f NONCE, 0x10 PP, 0x22 BAD_AUTH",
  "policy-failed": "0x1d POLICY_FAIL, 0x23 EXPIRED, 0x24 POLICY_CC",
  "wrong-credential": "0x1f INTEGRITY, 0x25 BINDING",
}

for (const [table, offset] of [
  [formatZero, 0],
  [formatOne, 0x80],
] as const)
  // prettier-ignore
  for (const [code, names] of Object.entries(table))
    test(`explainResponseCode() knows the ${offset === 0 ? "plain" : "placed"} numbers of ${code}`, () => {
      for (const row of names.split(", ")) {
        const [number = "", name = ""] = row.split(" ")
        const explained = explainResponseCode(Number(number) + offset)
        assert.deepEqual([explained.name, explained.code], [`TPM_RC_${name}`, code], row)
      }
    })

test("explainResponseCode() has an answer for every number of 16 bits", () => {
  for (let code = 1; code < 0x10000; code++) assert.ok(explainResponseCode(code).name.startsWith("TPM_RC"))
})

test("responseError() keeps the response code", () => {
  const error = responseError("Quote", 0x921)
  assert.equal(error.code, "lockout")
  assert.equal(error.responseCode, 0x921)
})
