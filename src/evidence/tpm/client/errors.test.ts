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

test("explainResponseCode() has an answer for every number of 16 bits", () => {
  for (let code = 1; code < 0x10000; code++) assert.ok(explainResponseCode(code).name.startsWith("TPM_RC"))
})

test("responseError() keeps the response code", () => {
  const error = responseError("Quote", 0x921)
  assert.equal(error.code, "lockout")
  assert.equal(error.responseCode, 0x921)
})
