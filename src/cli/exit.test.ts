import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { closeSync, existsSync, openSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import type { LabErrorCode } from "../../lab/error.ts"
import { agentCodes } from "../agent/error.ts"
import { MalformedError, type MalformedCode, PerunError, UnavailableError } from "../bytes/error.ts"
import { evidenceCodes } from "../evidence/errors.ts"
import { logCodes } from "../log/errors.ts"
import { tpmCodes } from "../evidence/tpm/client/errors.ts"
import { pkiCodes } from "../pki/errors.ts"
import { policyCodes, PolicyError } from "../policy/errors.ts"
import { type Problem, type ProblemCode, problemCodes } from "../policy/problem.ts"
import { successionCodes } from "../policy/successors.ts"
import { protocolCodes } from "../protocol/errors.ts"
import { ProblemError } from "../protocol/problem.ts"
import { sealingCodes } from "../sealing/errors.ts"
import { exitStatus, exitStatuses, InterruptedError, InvalidPolicyError, messageOf, RefusedError, UsageError } from "./exit.ts"

class AnyError extends PerunError {}

/** Per room, the codes whose status is not `refused`: a new code that should not be refused, or one that went, has to be put here on purpose. */
const rooms: Readonly<Record<string, { readonly codes: object; readonly exceptions: Readonly<Record<string, number>> }>> = {
  pki: { codes: pkiCodes, exceptions: { unsupported: 20 } },
  evidence: { codes: evidenceCodes, exceptions: { unsupported: 20 } },
  tpm: {
    codes: tpmCodes,
    exceptions: { lockout: 40, "no-resources": 40, busy: 40, "not-started": 40, failure: 40, unsupported: 20 },
  },
  policy: { codes: policyCodes, exceptions: { "invalid-reference": 30 } },
  succession: { codes: successionCodes, exceptions: {} },
  protocol: {
    codes: protocolCodes,
    exceptions: { "already-exists": 2, "time-unchecked": 40, "not-ready": 40, "too-many-requests": 40, internal: 40 },
  },
  log: { codes: logCodes, exceptions: {} },
  sealing: {
    codes: sealingCodes,
    exceptions: {
      truncated: 30,
      "trailing-data": 30,
      missing: 40,
      "source-changed": 40,
      "not-empty": 2,
      "too-large": 30,
      unsupported: 20,
      malformed: 30,
    },
  },
  agent: { codes: agentCodes, exceptions: { configuration: 50, "sandbox-unavailable": 50, "scratch-unavailable": 50 } },
  lab: {
    codes: {
      "program-failed": "",
      "missing-packages": "",
      "machine-ended": "",
      "console-timeout": "",
      "build-failed": "",
      busy: "",
      "not-refused": "",
      "not-granted": "",
    } satisfies Record<LabErrorCode, string>,
    exceptions: { "program-failed": 50, "missing-packages": 50, "machine-ended": 40, "console-timeout": 40, "build-failed": 20, busy: 40 },
  },
  malformed: {
    codes: {
      truncated: "",
      "trailing-bytes": "",
      "too-large": "",
      malformed: "",
      duplicate: "",
      "unknown-field": "",
    } satisfies Record<MalformedCode, string>,
    exceptions: { truncated: 30, "trailing-bytes": 30, "too-large": 30, malformed: 30, duplicate: 30, "unknown-field": 30 },
  },
  unavailable: {
    codes: {
      unavailable: "",
      timeout: "",
      unsupported: "",
      "disk-full": "",
      "permission-denied": "",
      "port-in-use": "",
    } satisfies Record<UnavailableError["code"], string>,
    exceptions: { unavailable: 40, timeout: 40, unsupported: 20, "disk-full": 50, "permission-denied": 50, "port-in-use": 50 },
  },
}

for (const [room, { codes, exceptions }] of Object.entries(rooms)) {
  test(`exitStatus() of every code of ${room} is the one meant`, () => {
    const found = Object.keys(codes)
      .map((code) => [code, exitStatus(new AnyError(code, "x"))] as const)
      .filter(([, status]) => status !== exitStatuses.refused)
    assert.deepEqual(Object.fromEntries(found), exceptions)
  })
}

test("exitStatus() of the program's own errors", () => {
  assert.equal(exitStatus(new UsageError("x")), 2)
  assert.equal(exitStatus(new RefusedError("x")), 10)
  assert.equal(exitStatus(new InterruptedError()), 130)
  assert.equal(exitStatus(new MalformedError("truncated", "x")), 30)
  assert.equal(exitStatus(new UnavailableError("port-in-use", "x")), 50)
  assert.equal(exitStatus(new TypeError("x")), 1)
  assert.equal(exitStatus("x"), 1)
})

test("exitStatus() of a document's problems is malformed exactly for problems of form", () => {
  const form = Object.keys(problemCodes).filter((code) => exitStatus(new InvalidPolicyError("f", [problem(code as ProblemCode)])) === 30)
  assert.deepEqual(form, ["too-large", "malformed", "duplicate", "unknown-field", "missing-field", "not-filled-in", "wrong-type", "wrong-value"])
  for (const code of Object.keys(problemCodes) as ProblemCode[])
    assert.equal(exitStatus(new PolicyError("invalid-policy", [problem(code)])), form.includes(code) ? 30 : 10, code)
  assert.equal(exitStatus(new InvalidPolicyError("f", [problem("expired"), problem("duplicate")])), 30)
})

test("exitStatus() of a manager's answer says nothing about this machine", () => {
  const answers = [
    ["wrong-signature", 403, 10],
    ["unsupported", 403, 20],
    ["malformed", 400, 30],
    ["too-many-requests", 429, 40],
    ["disk-full", 507, 40],
    ["port-in-use", 503, 40],
    ["internal", 500, 40],
    ["store-changed", 500, 40],
    ["already-exists", 409, 10],
    ["disk-full", 403, 10],
    // Words that no manager sends.
    ["usage", 403, 10],
    ["interrupted", 403, 10],
    ["configuration", 400, 10],
  ] as const
  for (const [code, status, expected] of answers) {
    const error = new ProblemError({ type: "about:blank", title: code, status, code, detail: "x" }, undefined)
    assert.equal(exitStatus(error), expected, `${code} ${status}`)
  }
})

test("exitStatus() of system errors", () => {
  const expected: Readonly<Record<string, number>> = {
    ENOSPC: 50,
    EACCES: 50,
    EROFS: 50,
    EADDRINUSE: 50,
    EMFILE: 50,
    ENOENT: 40,
    ECONNREFUSED: 40,
    ETIMEDOUT: 40,
    EINVAL: 1,
  }
  for (const [code, status] of Object.entries(expected)) assert.equal(exitStatus(Object.assign(new Error("x"), { code })), status, code)
})

test("messageOf() lets nothing through that steers a terminal", () => {
  const { message, lines } = messageOf(new RefusedError("a\u001b[2Kb\r\u0007c", ["\u001b]0;x\u0007y"]))
  for (const text of [message, ...lines]) assert.doesNotMatch(text, /[\u0000-\u001f]/)
})

test("messageOf() gives one line", () => {
  assert.equal(messageOf(new UsageError("a\n  b")).message.includes("\n"), false)
  assert.equal(messageOf(new Error("a\nb")).code, "bug")
  assert.deepEqual(messageOf(new RefusedError("x", ["one"])).lines, ["one"])
})

function problem(code: ProblemCode): Problem {
  return { code, field: "f", line: 0, column: 0, message: "m", fix: "x" }
}

test(
  "a full disk behind standard output is one line and the status of a local resource",
  { skip: existsSync("/dev/full") ? false : "needs /dev/full" },
  () => {
    using full = openFull()
    const main = join(import.meta.dirname, "main.ts")
    const args = ["--disable-warning=ExperimentalWarning", main, "completion", "bash"]
    const { status, stderr } = spawnSync(process.execPath, args, { stdio: ["ignore", full.fd, "pipe"], encoding: "utf8" })
    assert.equal(status, exitStatuses.localResource)
    assert.match(stderr, /^perun: [^\n]+\n$/)
  },
)

function openFull(): Disposable & { readonly fd: number } {
  const fd = openSync("/dev/full", "w")
  return { fd, [Symbol.dispose]: () => closeSync(fd) }
}
