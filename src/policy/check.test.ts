import assert from "node:assert/strict"
import { test } from "node:test"
import { stringify } from "yaml"
import { encodeUtf8 } from "../bytes/text.ts"
import type { CheckContext } from "./check.ts"
import { checkPolicy } from "./check.ts"
import type { Policy, Role } from "./document.ts"
import { parsePolicyValue } from "./document.ts"
import { parsePolicy } from "./parse.ts"
import {
  bootReference,
  commandLine,
  derivation,
  imaReference,
  keyText,
  hostMachine,
  named,
  now,
  policy,
  references,
  tdxDemand,
} from "./fixtures.testing.ts"
import type { BootReference, ImaReference } from "./reference.ts"
import { referenceDigest, referencesByDigest } from "./reference.ts"

/** The good policy with one value put elsewhere; still of the right form. */
function changed(path: string, value: unknown): Policy {
  const copy: Record<string, unknown> = structuredClone({ ...policy })
  const steps = path.split("/")
  let at: Record<string, unknown> = copy
  for (const step of steps.slice(0, -1)) at = at[step] as Record<string, unknown>
  const last = steps.at(-1) ?? ""
  if (value === undefined) delete at[last]
  else at[last] = value
  return parsePolicyValue(copy)
}

function found(document: Policy, context: CheckContext = {}): readonly string[] {
  return checkPolicy(document, context).map(({ code, field }) => `${code} ${field}`)
}

test("checkPolicy() refuses a demand on the manager's TEE that pins no measurement, and values that stand twice", () => {
  const demanding = (change: object): readonly string[] => found(changed("manager", { accept: [{ tdx: { ...tdxDemand, ...change } }] }))
  assert.deepEqual(demanding({}), [])
  assert.deepEqual(demanding({ mrTd: "any" }), ["wrong-value manager.accept.0.tdx"])
  assert.deepEqual(demanding({ mrTd: "any", rtmrs: { ...tdxDemand.rtmrs, "1": ["bb".repeat(48)] } }), [])
  assert.deepEqual(demanding({ mrTd: ["aa".repeat(48), "aa".repeat(48)] }), ["duplicate manager.accept.0.tdx.mrTd.1"])
})

test("checkPolicy() finds nothing wrong with a right policy", () => {
  assert.deepEqual(found(policy, { time: now, references }), [])
})

/** Which role may own which kind of artifact. */
const mayOwn = { dataset: ["data"], code: ["code"], model: ["model"], mock: ["data", "code", "model"] } as const
for (const [kind, owning] of Object.entries(mayOwn))
  test(`checkPolicy() lets only ${owning.join(" or ")} own a ${kind}`, () => {
    for (const role of ["data", "code", "model", "consumer", "auditor", "checker"] as const) {
      const trainer = { ...policy.artifacts["trainer"], kind } as const
      const vendor = { ...policy.stakeholders["vendor"], roles: [role] }
      const document = parsePolicyValue({
        ...policy,
        artifacts: { ...policy.artifacts, trainer },
        stakeholders: { ...policy.stakeholders, vendor },
      })
      assert.equal(
        !found(document).includes("wrong-role artifacts.trainer.owner"),
        owning.some((one) => one === role),
        role,
      )
    }
  })

test("checkPolicy() lets a checker be nothing else", () => {
  const withRoles = (...held: readonly Role[]): readonly string[] => {
    const program = { keys: [keyText("stranger")], roles: held }
    return found({ ...policy, stakeholders: { ...policy.stakeholders, program } })
  }
  assert.deepEqual(withRoles("checker"), [])
  assert.deepEqual(withRoles("checker", "auditor"), ["wrong-value stakeholders.program.roles"])
})

const train = "jobs/train"
const model = "jobs/train/outputs/model"
const wrong: readonly (readonly [string, string, unknown, readonly string[]])[] = [
  ["no machine", "machines", {}, ["missing-field machines", "unknown-name jobs.train.machine"]],
  ["no job", "jobs", {}, ["missing-field jobs"]],
  ["an owner without the role for a dataset", "stakeholders/clinic-a/roles", ["code"], ["wrong-role artifacts.records-a.owner"]],
  [
    "an owner without the role for code",
    "stakeholders/vendor/roles",
    ["data", "model", "consumer", "auditor"],
    ["wrong-role artifacts.trainer.owner"],
  ],
  ["an owner without the role for a model", "artifacts/trainer/kind", "model", ["wrong-role artifacts.trainer.owner"]],
  ["one manifest twice", "artifacts/records-b/manifest", named("records-a"), ["same-artifact-twice artifacts.records-b.manifest"]],
  ["an unknown machine", `${train}/machine`, "other", ["unknown-name jobs.train.machine"]],
  ["a machine named like a property of every object", `${train}/machine`, "to-string", ["unknown-name jobs.train.machine"]],
  ["an unknown artifact", `${train}/inputs/other`, "/opt/ml/x", ["unknown-name jobs.train.inputs.other"]],
  ["two stakeholders with one key", "stakeholders/clinic-b/keys", [keyText("clinic-a")], ["shared-key stakeholders.clinic-b.keys.0"]],
  ["a stakeholder with the manager's key", "stakeholders/clinic-b/keys", [keyText("manager")], ["shared-key stakeholders.clinic-b.keys.0"]],
  ["a key twice", "stakeholders/vendor/keys", [keyText("vendor"), keyText("vendor")], ["duplicate stakeholders.vendor.keys.1"]],
  ["a role twice", "stakeholders/vendor/roles", ["code", "code"], ["duplicate stakeholders.vendor.roles.1"]],
  ["a recipient twice", "stakeholders/vendor/recipients", ["age1a", "age1a"], ["duplicate stakeholders.vendor.recipients.1"]],
  ["a key that is none", "stakeholders/vendor/keys", ["ssh-ed25519 AAAA"], ["wrong-value stakeholders.vendor.keys.0"]],
  ["a manager's key that is none", "manager/insecureUnattested/key", "ssh-ed25519 AAAA", ["wrong-value manager.insecureUnattested.key"]],
  ["a TPM twice", "machines/gpu-host/tpm/endorsementKeys", [named("ek"), named("ek")], ["duplicate machines.gpu-host.tpm.endorsementKeys.1"]],
  ["a root twice", "machines/gpu-host/tpm/laboratoryRoots", [named("r"), named("r")], ["duplicate machines.gpu-host.tpm.laboratoryRoots.1"]],
  ["an output to an unknown party", `${model}/to`, ["nobody"], ["unknown-name jobs.train.outputs.model.to.0"]],
  ["an output to a party twice", `${model}/to`, ["consortium", "consortium"], ["duplicate jobs.train.outputs.model.to.1"]],
  ["an output to a party without recipient", `${model}/to`, ["consortium", "clinic-a"], ["missing-recipient jobs.train.outputs.model.to.1"]],
  ["logs to a party without recipient", `${train}/logs/to`, ["clinic-a"], ["missing-recipient jobs.train.logs.to.0"]],
  ["logs to an unknown party", `${train}/logs/to`, ["nobody"], ["unknown-name jobs.train.logs.to.0"]],
  ["metrics to an unknown party", `${train}/metrics/to`, ["nobody"], ["unknown-name jobs.train.metrics.to.0"]],
  ["metrics without a number", `${train}/metrics/schema`, {}, ["missing-field jobs.train.metrics.schema"]],
  ["an output named logs", `${train}/outputs/logs`, { ...modelOutput(), path: "/opt/ml/l" }, ["wrong-value jobs.train.outputs.logs"]],
  ["an owner's vote left out", `${model}/waive`, undefined, ["release-without-owner jobs.train.outputs.model.release"]],
  [
    "a quorum for a release",
    `${model}/release`,
    { atLeast: 1, of: ["clinic-a", "clinic-b"] },
    twice("release-without-owner jobs.train.outputs.model.release"),
  ],
  ["a release without votes", `${model}/release`, "none", twice("release-without-owner jobs.train.outputs.model.release")],
  [
    "a veto in place of a vote",
    `${model}/release`,
    { veto: ["clinic-b"], of: { require: "all", of: ["clinic-a"] } },
    ["release-without-owner jobs.train.outputs.model.release"],
  ],
  [
    "a release that nobody reaches",
    `${model}/release`,
    { atLeast: 3, of: ["clinic-a", "clinic-b"] },
    ["never-satisfied jobs.train.outputs.model.release"],
  ],
  [
    "a vote of an unknown party",
    `${model}/release`,
    { require: "all", of: ["clinic-a", "clinic-b", "x"] },
    ["unknown-name jobs.train.outputs.model.release.of.2"],
  ],
  [
    "a vote named twice",
    `${model}/release`,
    { require: "all", of: ["clinic-a", "clinic-b", "clinic-a"] },
    ["duplicate jobs.train.outputs.model.release.of.2"],
  ],
  ["a waiver of one who owns nothing", `${model}/waive`, ["vendor", "consortium"], ["wrong-waiver jobs.train.outputs.model.waive.1"]],
  ["a waiver twice", `${model}/waive`, ["vendor", "vendor"], ["duplicate jobs.train.outputs.model.waive.1"]],
  [
    "logs without an owner's vote",
    `${train}/logs/release`,
    { require: "all", of: ["clinic-a", "vendor"] },
    ["release-without-owner jobs.train.logs.release"],
  ],
  ["an approval without an owner", "approval", { require: "all", of: ["clinic-a", "vendor"] }, ["approval-without-owner approval"]],
  [
    "an approval by quorum",
    "approval",
    { atLeast: 3, of: ["clinic-a", "clinic-b", "vendor", "consortium"] },
    Array.from({ length: 3 }, () => "approval-without-owner approval"),
  ],
  ["an approval that nobody reaches", "approval", { atLeast: 4, of: ["clinic-a", "clinic-b", "vendor"] }, ["never-satisfied approval"]],
  [
    "an approval of an unknown party",
    "approval",
    { require: "all", of: ["clinic-a", "clinic-b", "vendor", { atLeast: 1, of: ["x", "consortium"] }] },
    ["unknown-name approval.of.3.of.0"],
  ],
  ["an unknown veto", "approval", { veto: ["x"], of: { require: "all" } }, ["unknown-name approval.veto.0"]],
  [
    "a veto over an unknown party",
    "approval",
    { veto: ["vendor"], of: { require: "all", of: ["clinic-a", "clinic-b", "vendor", "x"] } },
    ["unknown-name approval.of.of.3"],
  ],
  ["a dangerous variable", `${train}/environment/LD_PRELOAD`, "/x.so", ["dangerous-environment jobs.train.environment.LD_PRELOAD"]],
  ["a relative path", `${train}/inputs/trainer`, "opt/code", ["wrong-path jobs.train.inputs.trainer"]],
  ["a system folder", `${model}/path`, "/usr/share/x", ["wrong-path jobs.train.outputs.model.path"]],
  ["an input inside another", `${train}/inputs/records-b`, "/opt/ml/input/a/b", ["wrong-path jobs.train.inputs.records-b"]],
  ["an input around another", `${train}/inputs/records-b`, "/opt/ml/input", ["wrong-path jobs.train.inputs.records-b"]],
  ["an output inside an input", `${model}/path`, "/opt/ml/code/out", ["wrong-path jobs.train.outputs.model.path"]],
  ["one folder for two", `${model}/path`, "/opt/ml/code", ["wrong-path jobs.train.outputs.model.path"]],
  ["a program by relative path", `${train}/run`, ["./train"], ["wrong-program jobs.train.run.0"]],
  ["a program by a path with dots", `${train}/run`, ["/usr/../x"], ["wrong-program jobs.train.run.0"]],
  ["a program that is an option", `${train}/run`, ["-c"], ["wrong-program jobs.train.run.0"]],
  ["a program without a name", `${train}/run`, [""], ["wrong-program jobs.train.run.0"]],
  ["a program with a command line in it", `${train}/run`, ["python3 train.py"], ["wrong-program jobs.train.run.0"]],
]

for (const [what, path, value, expected] of wrong)
  test(`checkPolicy() refuses ${what}`, () => {
    assert.deepEqual(found(changed(path, value)), expected)
  })

const right: readonly (readonly [string, string, unknown])[] = [
  ["every owner waiving its vote", model, { ...modelOutput(), release: "none", waive: ["clinic-a", "clinic-b", "vendor"] }],
  ["an approval with a quorum of others", "approval", { require: "all", of: ["clinic-a", "clinic-b", "vendor", { atLeast: 1, of: ["consortium"] }] }],
  ["a veto over the signatures of all", "approval", { veto: ["consortium"], of: { require: "all" } }],
  ["a mock by any owner", "artifacts/trainer/kind", "mock"],
  ["a program by absolute path", "jobs/train/run", ["/usr/bin/python3.11"]],
  ["a path that only begins like another", "jobs/train/inputs/records-b", "/opt/ml/input/a2"],
  ["no metrics and no logs", "jobs/train/metrics", "none"],
  ["no logs", "jobs/train/logs", "none"],
  ["no environment", "jobs/train/environment", undefined],
]

for (const [what, path, value] of right)
  test(`checkPolicy() accepts ${what}`, () => {
    assert.deepEqual(found(changed(path, value)), [])
  })

test("checkPolicy() names first what other problems follow from", () => {
  assert.equal(found(changed("stakeholders", {}))[0], "missing-field stakeholders")
  assert.equal(found(changed("artifacts", {}))[0], "missing-field artifacts")
  const orphaned = found(changed("artifacts/trainer/owner", "nobody"))
  assert.equal(orphaned[0], "unknown-name artifacts.trainer.owner")
  assert.ok(orphaned.includes("approval-without-owner approval"))
})

test("checkPolicy() refuses a job without input", () => {
  const job = { ...policy.jobs["train"], inputs: {}, outputs: {}, logs: "none" }
  assert.deepEqual(found(changed("jobs/train", job)), ["missing-field jobs.train.inputs"])
})

test("checkPolicy() refuses a manager's key of another type", () => {
  const ecdsa =
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU="
  assert.deepEqual(found(changed("manager/insecureUnattested/key", ecdsa)), ["wrong-value manager.insecureUnattested.key"])
  assert.deepEqual(found(changed("stakeholders/vendor/keys", [ecdsa])), [])
})

test("checkPolicy() refuses what has expired, from the very second", () => {
  const at = (time: string): readonly string[] => found(policy, { time: new Date(time) })
  assert.deepEqual(at("2027-05-31T23:59:59.999Z"), [])
  assert.deepEqual(at("2027-06-01T00:00:00Z"), ["expired expires"])
  assert.deepEqual(found(policy, {}), [])
})

function withReferences(boot: BootReference, ima: ImaReference, level: "administered" | "sealed" = "sealed", violations: unknown = "deny"): Policy {
  const machine = policy.machines["gpu-host"]
  return changed("machines/gpu-host", {
    ...machine,
    level,
    boot: { reference: referenceDigest(boot) },
    ima: { reference: referenceDigest(ima), violations },
  })
}

test("checkPolicy() refuses references that are missing, of another kind, expired or not named", () => {
  assert.deepEqual(found(policy, { references: new Map() }), [
    "missing-reference machines.gpu-host.boot.reference",
    "missing-reference machines.gpu-host.ima.reference",
  ])
  const swapped = changed("machines/gpu-host/boot/reference", referenceDigest(imaReference))
  assert.deepEqual(found(swapped, { references: referencesByDigest([imaReference]) }), ["wrong-reference machines.gpu-host.boot.reference"])
  const old = { ...imaReference, expires: "2026-11-30T00:00:00Z" }
  const withOld = withReferences(bootReference, old)
  assert.deepEqual(found(withOld, { references: referencesByDigest([bootReference, old]), time: now }), ["expired machines.gpu-host.ima.reference"])
  assert.deepEqual(found(withOld, { references: referencesByDigest([bootReference, old]) }), [])
  assert.deepEqual(found(policy, { references: referencesByDigest([bootReference, imaReference, old]) }), ["unused-reference machines"])
})

test("checkPolicy() refuses references that no machine could meet at its level, before anybody signs", () => {
  const boot = "wrong-reference machines.gpu-host.boot.reference"
  const ima = "wrong-reference machines.gpu-host.ima.reference"
  const line = (text: string): BootReference => ({ ...bootReference, commandLines: [{ pcr: 9, text }] })
  const policyOf = (change: Partial<ImaReference["imaPolicy"]>): ImaReference => ({
    ...imaReference,
    imaPolicy: { ...imaReference.imaPolicy, ...change },
  })
  const cases: readonly (readonly [BootReference, ImaReference, readonly string[], readonly string[]])[] = [
    // The parameter of a root hash is unknown where no facts name it.
    [{ ...bootReference, appliance: "none" }, imaReference, [boot, boot], []],
    [line(`${commandLine} init=/bin/sh`), imaReference, [boot], []],
    [line(commandLine.replace(" ima_policy=tcb", "")), imaReference, [boot], [boot]],
    [{ ...bootReference, commandLines: [] }, imaReference, [boot, boot], [boot]],
    [bootReference, policyOf({ replaceable: "yes" }), [ima], [ima]],
    [bootReference, policyOf({ rules: imaReference.imaPolicy.rules.replace("measure func=KEY_CHECK\n", "") }), [ima], [ima]],
  ]
  for (const [bootGiven, imaGiven, sealed, administered] of cases) {
    const given = referencesByDigest([bootGiven, imaGiven])
    assert.deepEqual(found(withReferences(bootGiven, imaGiven), { references: given }), sealed)
    assert.deepEqual(found(withReferences(bootGiven, imaGiven, "administered"), { references: given }), administered)
  }
})

test("checkPolicy() refuses a path class that the reference does not have", () => {
  const allowing = (name: string): Policy => withReferences(bootReference, imaReference, "sealed", { allow: [name] })
  assert.deepEqual(found(allowing("logs"), { references }), [])
  assert.deepEqual(found(allowing("caches"), { references }), ["unknown-name machines.gpu-host.ima.violations.allow.0"])
  const bootOnly = referencesByDigest([bootReference])
  assert.deepEqual(found(allowing("logs"), { references: bootOnly }), ["missing-reference machines.gpu-host.ima.reference"])
})

test("checkPolicy() refuses an input whose origins cannot sign", () => {
  const origin = (key: string): CheckContext => ({
    derivations: new Map([[named("records-a"), derivation({ origins: [{ name: "old", keys: [key] }] })]]),
  })
  assert.deepEqual(found(policy, origin(keyText("stranger"))), ["approval-without-owner jobs.train.inputs"])
  assert.deepEqual(found(policy, origin(keyText("consortium"))), [])
  const two = [{ name: "old", keys: [keyText("stranger"), keyText("vendor")] }]
  assert.deepEqual(found(policy, { derivations: new Map([[named("records-a"), derivation({ origins: two })]]) }), [])
})

test("checkPolicy() refuses what a laboratory made, unless the job's machine accepts that laboratory's root", () => {
  const derivations = new Map([[named("records-a"), derivation({ laboratoryRoots: [named("lab"), named("second lab")] })]])
  const problem = "laboratory-artifact jobs.train.inputs.records-a"
  assert.deepEqual(found(policy, { derivations }), [problem, problem])
  const accepting = (roots: readonly string[]): Policy => changed("machines/gpu-host/tpm/laboratoryRoots", roots)
  assert.deepEqual(found(accepting([named("lab")]), { derivations }), [problem])
  assert.deepEqual(found(accepting([named("lab"), named("second lab")]), { derivations }), [])
  const otherMachine = {
    ...hostMachine(),
    tpm: { ...hostMachine().tpm, laboratoryRoots: [named("lab"), named("second lab")] },
  }
  assert.deepEqual(found(changed("machines/other", otherMachine), { derivations }), [problem, problem])
  assert.deepEqual(found(policy, { derivations: new Map([[named("another"), derivation({ laboratoryRoots: [named("lab")] })]]) }), [])
})

test("checkPolicy() says where in the text, what is wrong and what to do", () => {
  const spoiled = changed("jobs/train/machine", "other")
  const { locate } = parsePolicy(encodeUtf8(stringify(spoiled)), "yaml")
  const [problem] = checkPolicy(spoiled, { locate })
  const line = stringify(spoiled)
    .split("\n")
    .findIndex((text) => text.includes("machine: other"))
  assert.deepEqual([problem?.line, problem?.column], [line + 1, 5])
  assert.ok((problem?.message ?? "") !== "" && (problem?.fix ?? "") !== "")
})

function modelOutput(): object {
  return { ...policy.jobs["train"]?.outputs["model"] }
}

function twice(line: string): readonly string[] {
  return [line, line]
}
