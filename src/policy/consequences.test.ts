import assert from "node:assert/strict"
import { test } from "node:test"
import fc from "fast-check"
import { canonicalJson } from "../bytes/json.ts"
import { consequencesOf } from "./consequences.ts"
import { diffPolicies, differenceText } from "./diff.ts"
import { type Approval, type Job, type Policy, policySchema } from "./document.ts"
import { hostMachine, keyText, named, policy } from "./fixtures.testing.ts"

const { train } = policy.jobs
assert.ok(train?.outputs["model"])
const { model } = train.outputs

function withTrain(change: Partial<Job>): Policy {
  return { ...policy, jobs: { ...policy.jobs, train: { ...(train as Job), ...change } } }
}

test("consequencesOf() says whose signature is no longer needed, now needed, and who may object", () => {
  const consortium = { require: "all", of: ["clinic-a", "clinic-b", "vendor"] } satisfies Approval
  const without: Policy = { ...policy, approval: consortium }
  assert.deepEqual(consequencesOf(policy, without), ["a policy of this study no longer needs the signature of consortium"])
  assert.deepEqual(consequencesOf(without, policy), ["a policy of this study now needs the signature of consortium"])
  const vetoed: Policy = { ...policy, approval: { veto: ["consortium"], of: consortium } }
  assert.deepEqual(consequencesOf(without, vetoed), ["consortium can now object to a policy of this study"])
  assert.deepEqual(consequencesOf(vetoed, without), ["consortium can no longer object to a policy of this study"])
})

test("consequencesOf() never says that an owner can be done without, whatever the expression", () => {
  assert.deepEqual(consequencesOf(policy, { ...policy, approval: { atLeast: 1, of: ["clinic-a", "consortium"] } }), [
    "a policy of this study no longer needs the signature of consortium",
  ])
})

test("consequencesOf() says which machine may now run which job", () => {
  const machine = (keys: readonly ReturnType<typeof named>[]): Policy => {
    const name = train.machine
    const host = hostMachine()
    return { ...policy, machines: { ...policy.machines, [name]: { ...host, tpm: { ...host.tpm, endorsementKeys: keys } } } }
  }
  const one = machine([named("host a")])
  const two = machine([named("host a"), named("host b")])
  const words = `the machine with the endorsement key ${named("host b")}, as ${train.machine},`
  assert.deepEqual(consequencesOf(one, two), [`${words} may now run train`])
  assert.deepEqual(consequencesOf(two, one), [`${words} may no longer run train`])
})

test("consequencesOf() says that keys go to another manager, and that it proves nothing", () => {
  const other: Policy = { ...policy, manager: { insecureUnattested: { key: keyText("stranger") } } }
  const [line] = consequencesOf(policy, other)
  assert.ok(line?.includes(keyText("stranger")), line)
})

test("consequencesOf() says whose vote an output no longer waits for, how often a job runs, and until when", () => {
  const waived = withTrain({ outputs: { model: { ...model, waive: ["clinic-a"], release: { require: "all", of: ["clinic-b", "vendor"] } } } })
  assert.ok(consequencesOf(policy, waived).includes("output train.model now leaves without the vote of clinic-a"))
  assert.ok(consequencesOf(waived, policy).includes("output train.model no longer leaves without the vote of clinic-a"))
  assert.deepEqual(consequencesOf(policy, withTrain({ maxRuns: train.maxRuns + 1 })), [
    `job train may run ${train.maxRuns + 1} times, before ${train.maxRuns}`,
  ])
  const [longer] = consequencesOf(policy, { ...policy, expires: "2029-01-01T00:00:00Z" })
  assert.match(longer ?? "", /^keys are released longer: until 2029/)
})

test("diffPolicies() is empty for equal policies only, and its text names every field that differs", () => {
  const leaves: [string[], unknown][] = []
  const walk = (value: unknown, path: string[]): void => {
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      for (const [key, inner] of Object.entries(value)) walk(inner, [...path, key])
    else leaves.push([path, value])
  }
  walk(policy, [])
  const changed = (path: readonly string[], value: unknown): Policy => {
    const copy = structuredClone(policy)
    const [last = ""] = path.slice(-1)
    const parent = path.slice(0, -1).reduce<Record<string, unknown>>((at, key) => at[key] as Record<string, unknown>, copy as never)
    parent[last] = value
    return copy
  }
  const values = fc.oneof(
    fc.integer({ min: 0, max: 100_000 }),
    fc.constantFrom(...["clinic-a", "vendor", "any", "none", "safe", "sealed", "administered", "2029-01-01T00:00:00Z", "/opt/other"]),
    fc.string().map(named),
    fc.constantFrom<unknown>(...[["clinic-a"], ["vendor", "clinic-b"], ["data"], [named("host b")], ["python3", "other.py"], [keyText("stranger")]]),
  )
  let judged = 0
  fc.assert(
    fc.property(fc.constantFrom(...leaves), values, ([path], value) => {
      const other = changed(path, value)
      if (!policySchema.safeParse(other).success) return
      judged++
      const isEqual = canonicalJson(other as never) === canonicalJson(policy as never)
      const { fields } = diffPolicies(policy, other)
      assert.equal(fields.length === 0, isEqual)
      assert.equal(differenceText(diffPolicies(policy, other)).includes(path.join(".")), !isEqual)
    }),
    { seed: 31, numRuns: 3000 },
  )
  assert.ok(judged > 300, String(judged))
})
