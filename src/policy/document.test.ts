import assert from "node:assert/strict"
import { test } from "node:test"
import { stringify } from "yaml"
import { digestOfJson } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { canonicalJson } from "../bytes/json.ts"
import { artifactOwners, inputOwners, maxPolicyBytes, own, parsePolicyValue, policyDigest, referencedDigests } from "./document.ts"
import { parsePolicy } from "./parse.ts"
import type { Approval, Job } from "./document.ts"
import { PolicyError } from "./errors.ts"
import type { Problem } from "./problem.ts"
import { problemText } from "./problem.ts"
import { bootReference, imaReference, policy } from "./fixtures.testing.ts"
import { referenceDigest } from "./reference.ts"

function problemsOf(act: () => unknown): readonly Problem[] {
  try {
    act()
  } catch (error) {
    if (error instanceof PolicyError) {
      assert.equal(error.code, "invalid-policy")
      return error.problems
    }
    throw error
  }
  return []
}

/** The problems of the good policy with one value put elsewhere; `undefined` removes the field. */
function spoiled(path: string, value: unknown): readonly string[] {
  const copy: Record<string, unknown> = structuredClone({ ...policy })
  const steps = path.split("/")
  let at: Record<string, unknown> = copy
  for (const step of steps.filter((_, index) => index < steps.length - 1)) at = at[step] as Record<string, unknown>
  const last = steps.at(-1) ?? ""
  if (value === undefined) delete at[last]
  else at[last] = value
  return problemsOf(() => parsePolicyValue(copy)).map(({ code, field }) => `${code} ${field}`)
}

test("parsePolicy() reads JSON and YAML of one policy as the same document", () => {
  const json = parsePolicy(encodeUtf8(JSON.stringify(policy)), "json")
  const yaml = parsePolicy(encodeUtf8(stringify(policy, { aliasDuplicateObjects: false })), "yaml")
  assert.deepEqual(json.policy, policy)
  assert.deepEqual(yaml.policy, policy)
  assert.equal(json.digest, policyDigest(policy))
  assert.equal(yaml.digest, json.digest)
})

test("policyDigest() depends on every value and not on the order of keys", () => {
  const reversed = Object.fromEntries(Object.entries(policy).toReversed())
  assert.equal(policyDigest(parsePolicyValue(reversed)), policyDigest(policy))
  assert.notEqual(policyDigest({ ...policy, purpose: `${policy.purpose} ` }), policyDigest(policy))
})

test("parsePolicy() keeps nothing that the text does not say", () => {
  assert.equal(canonicalJson(parsePolicyValue(structuredClone(policy))), canonicalJson(policy))
})

test("parsePolicy() names line, column and field of each problem", () => {
  const text = "perun: 1\nstudy: x\njobs:\n  train:\n    machine: gpu\n    colour: red\n"
  const problems = problemsOf(() => parsePolicy(encodeUtf8(text), "yaml"))
  const unknown = problems.find(({ code }) => code === "unknown-field")
  assert.deepEqual([unknown?.field, unknown?.line, unknown?.column], ["jobs.train.colour", 6, 5])
  const missing = problems.find(({ field }) => field === "jobs.train.run")
  assert.deepEqual([missing?.code, missing?.line, missing?.column], ["missing-field", 4, 3])
  const json = problemsOf(() => parsePolicy(encodeUtf8('{\n  "perun": 2\n}'), "json")).find(({ field }) => field === "perun")
  assert.deepEqual([json?.code, json?.line, json?.column], ["wrong-value", 2, 3])
})

test("parsePolicyValue() has no place to name, and problemText() then names none", () => {
  const [problem] = problemsOf(() => parsePolicyValue({ ...policy, perun: 2 }))
  assert.ok(problem !== undefined)
  assert.deepEqual([problem.line, problem.column], [0, 0])
  assert.ok(problemText(problem).startsWith("perun: "))
  assert.ok(problemText({ ...problem, line: 3, column: 4 }).startsWith("line 3, column 4: perun: "))
  assert.ok(!problemText({ ...problem, field: "" }).startsWith(":"))
  assert.equal(
    problemText({ ...problem, field: "a\u001b", message: "b\u202e\u2028c\u00e9", fix: "d" }),
    "a\\u{1b}: b\\u{202e}\\u{2028}c\u00e9; d [wrong-value]",
  )
})

test("parsePolicy() refuses a document over the size limit before it reads it", () => {
  const padding = " ".repeat(maxPolicyBytes)
  const problems = problemsOf(() => parsePolicy(encodeUtf8(JSON.stringify(policy) + padding), "json"))
  assert.deepEqual(
    problems.map(({ code }) => code),
    ["too-large"],
  )
})

test("parsePolicy() refuses every field left out", () => {
  const optional = new Set(["recipients", "environment", "waive"])
  const paths: string[] = []
  const walk = (value: object, path: readonly string[]): void => {
    for (const [key, member] of Object.entries(value)) {
      const isName = ["stakeholders", "artifacts", "machines", "jobs", "inputs", "outputs", "schema", "environment"].includes(path.at(-1) ?? "")
      if (!isName && !optional.has(key) && key !== "of") paths.push([...path, key].join("/"))
      if (typeof member === "object" && member !== null && !Array.isArray(member) && !["approval", "release", "environment"].includes(key))
        walk(member as object, [...path, key])
    }
  }
  walk(policy, [])
  assert.ok(paths.length > 60, `${paths.length} fields`)
  for (const path of paths) assert.deepEqual(spoiled(path, undefined), [`missing-field ${path.replaceAll("/", ".")}`], path)
})

test("parsePolicy() refuses a field that it does not know, at every place", () => {
  const places = [
    "",
    "stakeholders/vendor",
    "manager",
    "manager/insecureUnattested",
    "artifacts/trainer",
    "machines/gpu-host",
    "machines/gpu-host/tpm",
  ]
  const more = ["machines/gpu-host/boot", "machines/gpu-host/ima", "jobs/train", "jobs/train/outputs/model", "jobs/train/metrics", "jobs/train/logs"]
  const rest = ["jobs/train/resources", "jobs/train/lease", "jobs/train/outputs/model/release", "approval", "jobs/train/metrics/schema/loss"]
  for (const place of [...places, ...more, ...rest]) {
    const path = place === "" ? "unknown" : `${place}/unknown`
    assert.deepEqual(spoiled(path, 1), [`unknown-field ${path.replaceAll("/", ".")}`], path)
  }
})

const wrong: readonly (readonly [string, unknown, string?])[] = [
  ["perun", 2],
  ["perun", "1"],
  ["study", "Breast"],
  ["study", "x".repeat(64)],
  ["study", "constructor"],
  ["study", ""],
  ["study", "1study"],
  ["study", "study\n"],
  ["study", 5, "wrong-type"],
  ["purpose", ""],
  ["purpose", "two\nlines"],
  ["purpose", "\u009b31m"],
  ["purpose", "a\u202eb"],
  ["purpose", "a\u2028b"],
  ["purpose", "a\u2029b"],
  ["purpose", "FILL-IN", "not-filled-in"],
  ["purpose", "x".repeat(4097), "too-large"],
  ["stakeholders/vendor/keys", [], "wrong-value"],
  ["stakeholders/vendor/recipients", []],
  ["stakeholders/vendor/recipients/0", "ssh-ed25519 AAAA"],
  ["stakeholders/vendor/recipients/0", "xage1abc"],
  ["stakeholders/vendor/recipients/0", "age1abc "],
  ["stakeholders/vendor/roles", []],
  ["stakeholders/vendor/roles/0", "owner"],
  ["stakeholders/vendor/keys/0", "ssh-rsa AAAA"],
  ["stakeholders/vendor/keys/0", "ssh-ed25519 AAAA comment"],
  ["stakeholders/vendor/keys/0", " ssh-ed25519 AAAA"],
  ["stakeholders/vendor/keys/0", `ssh-ed25519 ${"A".repeat(8192)}`, "too-large"],
  ["stakeholders/vendor/keys/0", `ssh-ed25519 ${"A".repeat(8181)}`, "too-large"],
  ["manager/insecureUnattested/key", "sha256:00"],
  ["artifacts/trainer/kind", "tool"],
  ["artifacts/trainer/manifest", "sha256:00"],
  ["artifacts/trainer/manifest", `sha256:${"A".repeat(64)}`],
  ["artifacts/trainer/owner", "Vendor"],
  ["machines/gpu-host/level", "trusted"],
  ["machines/gpu-host/tpm/endorsementKeys", []],
  ["machines/gpu-host/tpm/endorsementKeys", "any", "wrong-type"],
  ["machines/gpu-host/tpm/endorsementKeys/0", "any"],
  ["machines/gpu-host/tpm/laboratoryRoots", "any", "wrong-type"],
  ["machines/gpu-host/tpm/startupLocality", 1],
  ["machines/gpu-host/tpm/startupLocality", "0"],
  ["machines/gpu-host/tpm/clock", "unsafe"],
  ["machines/gpu-host/boot/reference", "any"],
  ["machines/gpu-host/ima/reference", "any"],
  ["machines/gpu-host/ima/violations", "allow"],
  ["jobs/train/machine", "-"],
  ["jobs/train/runtime", "host"],
  ["jobs/train/run", []],
  ["jobs/train/run", "python3", "wrong-type"],
  ["jobs/train/run/0", "a\0b"],
  ["jobs/train/run/0", "a\u001bb"],
  ["jobs/train/run/0", "a\u2028b"],
  ["jobs/train/run/0", "FILL-IN", "not-filled-in"],
  ["stakeholders/vendor/keys/0", "FILL-IN", "not-filled-in"],
  ["jobs/train/network", "any"],
  ["jobs/train/maxRuns", 0],
  ["jobs/train/maxRuns", 1.5, "wrong-type"],
  ["jobs/train/maxRuns", 1_000_001, "too-large"],
  ["jobs/train/resources/gpus", -1],
  ["jobs/train/resources/gpus", 65, "too-large"],
  ["jobs/train/resources/memoryBytes", 0],
  ["jobs/train/resources/wallSeconds", 0],
  ["jobs/train/lease/seconds", 4],
  ["jobs/train/lease/seconds", 3601, "too-large"],
  ["jobs/train/metrics", "all"],
  ["jobs/train/metrics/to", []],
  ["jobs/train/metrics/maxBytes", 0],
  ["jobs/train/metrics/maxPerMinute", 0],
  ["jobs/train/metrics/maxPerMinute", 60_001, "too-large"],
  ["jobs/train/metrics/schema/loss", "float"],
  ["jobs/train/metrics/schema/loss/float", 10, "too-large"],
  ["jobs/train/metrics/schema/loss/float", -1],
  ["jobs/train/logs", "all"],
  ["jobs/train/logs/to", []],
  ["jobs/train/logs/maxBytes", 0],
  ["jobs/train/logs/waive", []],
  ["jobs/train/outputs/model/kind", "file"],
  ["jobs/train/outputs/model/path", ""],
  ["jobs/train/outputs/model/maxBytes", 0],
  ["jobs/train/outputs/model/to", []],
  ["jobs/train/outputs/model/waive", []],
  ["jobs/train/outputs/model/release", "any"],
  ["approval", "all"],
  ["approval/require", "any"],
  ["approval/of", []],
  ["expires", "2027-06-01"],
  ["expires", "2027-06-01T00:00:00+01:00"],
  ["expires", "2027-02-30T00:00:00Z"],
  ["expires", "2027-06-01T25:00:00Z"],
  ["expires", "2027-06-01T00:00:00Zx"],
  ["supersedes", "any"],
]

for (const [path, value, code = "wrong-value"] of wrong)
  test(`parsePolicy() refuses ${shown(value)} as ${path}`, () => {
    assert.deepEqual(spoiled(path, value), [`${code} ${path.replaceAll("/", ".")}`])
  })

const right: readonly (readonly [string, unknown])[] = [
  ["study", "x".repeat(63)],
  ["purpose", "x".repeat(4096)],
  ["machines/gpu-host/tpm/startupLocality", 0],
  ["machines/gpu-host/tpm/startupLocality", 3],
  ["machines/gpu-host/tpm/startupLocality", 4],
  ["machines/gpu-host/tpm/clock", "any"],
  ["machines/gpu-host/level", "administered"],
  ["machines/gpu-host/ima/violations", { allow: ["logs"] }],
  ["jobs/train/maxRuns", 1],
  ["jobs/train/maxRuns", 1_000_000],
  ["jobs/train/resources/gpus", 64],
  ["jobs/train/lease/seconds", 5],
  ["jobs/train/lease/seconds", 3600],
  ["jobs/train/metrics", "none"],
  ["jobs/train/metrics/schema/loss/float", 0],
  ["jobs/train/metrics/schema/loss/float", 9],
  ["jobs/train/metrics/maxPerMinute", 60_000],
  ["jobs/train/logs", "none"],
  ["jobs/train/outputs/model/release", "none"],
  ["jobs/train/environment", undefined],
  ["jobs/train/run/1", ""],
  ["jobs/train/run/1", "a\n\tb \u00e9\u4e2d"],
  ["purpose", "Gr\u00fc\u00dfe \u4e2d"],
  ["approval", { atLeast: 2, of: ["vendor", { require: "all", of: ["clinic-a", "clinic-b"] }] }],
  ["approval", { veto: ["clinic-a"], of: { require: "all" } }],
  ["approval", { atLeast: 256, of: Array(256).fill("vendor") }],
  ["supersedes", policyDigest(policy)],
]

for (const [path, value] of right)
  test(`parsePolicy() accepts ${shown(value)} as ${path}`, () => {
    assert.deepEqual(spoiled(path, value), [])
  })

test("parsePolicy() refuses names and variables of another form, and too many of them", () => {
  const artifact = policy.artifacts["trainer"]
  assert.deepEqual(spoiled("artifacts/Trainer", artifact), ["wrong-value artifacts.Trainer"])
  assert.deepEqual(spoiled("jobs/train/environment/A-B", "x"), ["wrong-value jobs.train.environment.A-B"])
  assert.deepEqual(spoiled("jobs/train/metrics/schema/1st", "int"), ["wrong-value jobs.train.metrics.schema.1st"])
  const many = (count: number): object => Object.fromEntries(Array.from({ length: count }, (_, index) => [`a${index}`, artifact]))
  assert.deepEqual(spoiled("artifacts", many(256)), [])
  assert.deepEqual(spoiled("artifacts", many(257)), ["wrong-value artifacts"])
})

test("parsePolicy() says where a nested approval is wrong", () => {
  const approval = { atLeast: 1, of: ["clinic-a", { require: "all", off: ["vendor"] }] }
  assert.deepEqual(spoiled("approval", approval), ["unknown-field approval.of.1.off"])
  assert.deepEqual(spoiled("approval", { atLeast: 0, of: ["vendor"] }), ["wrong-value approval.atLeast"])
  assert.deepEqual(spoiled("approval", { atLeast: 257, of: ["vendor"] }), ["too-large approval.atLeast"])
  assert.deepEqual(spoiled("approval", { atLeast: 1, of: [] }), ["wrong-value approval.of"])
  assert.deepEqual(spoiled("approval", { atLeast: 1, of: Array(257).fill("vendor") }), ["too-large approval.of"])
  assert.deepEqual(spoiled("approval", { veto: [], of: { require: "all" } }), ["wrong-value approval.veto"])
})

test("parsePolicy() refuses levels without a verifier by name, and does not complain about their shape", () => {
  assert.deepEqual(spoiled("machines/gpu-host", { level: "confidential", tdx: {} }), ["level-unsupported machines.gpu-host.level"])
  assert.deepEqual(spoiled("machines/gpu-host/level", "confidential"), ["level-unsupported machines.gpu-host.level"])
  const text = stringify({ ...policy, machines: { cloud: { level: "confidential" } }, purpose: 5 })
  const problems = problemsOf(() => parsePolicy(encodeUtf8(text), "yaml"))
  assert.deepEqual(
    problems.map(({ code, field }) => [code, field]),
    [
      ["level-unsupported", "machines.cloud.level"],
      ["wrong-type", "purpose"],
    ],
  )
  assert.ok((problems[0]?.line ?? 0) > 1)
})

test("parsePolicy() hides the complaints about an unsupported machine by its place, whatever the machine is called", () => {
  assert.deepEqual(spoiled("machines", { "level-one": { level: "confidential" } }), ["level-unsupported machines.level-one.level"])
})

test("parsePolicy() keeps other complaints beside a mark", () => {
  const text = stringify({ ...policy, study: "FILL-IN", purpose: 5 })
  const problems = problemsOf(() => parsePolicy(encodeUtf8(text), "yaml"))
  assert.ok(problems.some(({ field }) => field === "study"))
  assert.ok(problems.some(({ code, field }) => code === "wrong-type" && field === "purpose"))
})

test("parsePolicy() keeps complaints about a machine whose name begins like that of an unsupported one", () => {
  const machines = { cloud: { level: "confidential" }, "cloud-2": { level: "sealed" } }
  const found = spoiled("machines", machines)
  assert.ok(found.includes("missing-field machines.cloud-2.tpm"))
  assert.ok(!found.some((line) => line.includes("machines.cloud.tpm")))
})

test("parsePolicy() refuses what is no policy at all", () => {
  for (const text of ["[]", "null", "3", '"x"'])
    assert.deepEqual(
      problemsOf(() => parsePolicy(encodeUtf8(text), "json")).map(({ code, field }) => `${code} ${field}`),
      ["wrong-type "],
      text,
    )
})

test("PolicyError counts the problems behind the first", () => {
  assert.throws(
    () => parsePolicyValue({}),
    (error) => error instanceof PolicyError && error.problems.length === 11 && error.message.includes("(and 10 more)"),
  )
  assert.throws(
    () => parsePolicyValue({ ...policy, perun: 2 }),
    (error) => error instanceof PolicyError && !error.message.includes("more)"),
  )
  assert.equal(new PolicyError("invalid-policy", []).message, "the policy document has problems, all of them listed")
})

test("own() finds members only, never what the prototype has", () => {
  assert.equal(own<unknown>({ a: 1 }, "a"), 1)
  assert.equal(own<unknown>({}, "constructor"), undefined)
  assert.equal(own<unknown>({}, "b"), undefined)
})

test("inputOwners() and artifactOwners() name each owner once", () => {
  const job = policy.jobs["train"] as Job
  assert.deepEqual(inputOwners(policy, job), ["clinic-a", "clinic-b", "vendor"])
  const shared = {
    ...policy,
    artifacts: { ...policy.artifacts, "records-b": { kind: "dataset", owner: "clinic-a", manifest: referenceDigest(bootReference) } },
  } as const
  assert.deepEqual(inputOwners(shared, job), ["clinic-a", "vendor"])
  assert.deepEqual(artifactOwners(shared), ["clinic-a", "vendor"])
  assert.deepEqual(inputOwners(policy, { ...job, inputs: { nothing: "/x" } }), [])
})

test("referencedDigests() names both references of every machine, each once", () => {
  const machine = policy.machines["gpu-host"]
  assert.ok(machine !== undefined)
  const digests = referencedDigests({ ...policy, machines: { one: machine, two: machine } })
  assert.deepEqual(digests, [referenceDigest(bootReference), referenceDigest(imaReference)])
})

/** A value in a test's name: no character that steers a terminal or ends a line for who reads the report. */
function shown(value: unknown): string {
  const text = (JSON.stringify(value) ?? "undefined").substring(0, 60)
  return text.replace(/[^\u0020-\u007e]/g, (character) => `U+${character.charCodeAt(0).toString(16).padStart(4, "0")}`)
}

test("parsePolicyValue() refuses an approval of more parts than anybody reads, however nested", () => {
  const nested = (depth: number): Approval =>
    depth === 0 ? { require: "any", of: ["clinic-a"] } : { atLeast: 2, of: [nested(depth - 1), nested(depth - 1), "vendor"] }
  assert.equal(parsePolicyValue({ ...policy, approval: nested(7) }).study, policy.study)
  assert.throws(() => parsePolicyValue({ ...policy, approval: nested(9) }), { code: "invalid-policy" })
  const { train } = policy.jobs
  const logs = { to: ["vendor"], maxBytes: 1, release: nested(9) }
  assert.throws(() => parsePolicyValue({ ...policy, jobs: { train: { ...train, logs } } }), { code: "invalid-policy" })
})

test("what parsePolicyValue() gives cannot be changed, so the digest that is kept of it stays right", () => {
  const parsed = parsePolicyValue(JSON.parse(JSON.stringify(policy)))
  const digest = policyDigest(parsed)
  assert.equal(digest, digestOfJson(parsed))
  const everything = (value: object): readonly object[] => [
    value,
    ...Object.values(value).flatMap((member: unknown) => (typeof member === "object" && member !== null ? everything(member) : [])),
  ]
  for (const part of everything(parsed)) assert.ok(Object.isFrozen(part))
  assert.throws(() => Object.assign(parsed, { purpose: "other" }), TypeError)
  assert.equal(policyDigest(parsed), digest)
  // One that was put together by hand is digested each time.
  const copy = { ...parsed }
  assert.equal(policyDigest(copy), digest)
  Object.assign(copy, { purpose: "other" })
  assert.notEqual(policyDigest(copy), digest)
})
