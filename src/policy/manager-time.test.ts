import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { checkPolicy } from "./check.ts"
import { diffPolicies } from "./diff.ts"
import type { Policy } from "./document.ts"
import { parsePolicy } from "./parse.ts"
import { explainPolicy, explanationText } from "./explain.ts"
import { named, now, policy, references, tdxDemand } from "./fixtures.testing.ts"
import { type CheckedTime, timeDifferences } from "./manager-time.ts"

const demanded: CheckedTime = { roots: [named("root"), named("second root")], maxDifferenceSeconds: 60, holdSeconds: 3600 }

test("timeDifferences() wants a clock that is checked, each root among those named, and no wider bounds", () => {
  assert.deepEqual(timeDifferences(demanded, demanded), [])
  assert.deepEqual(timeDifferences({ roots: [named("second root")], maxDifferenceSeconds: 1, holdSeconds: 1 }, demanded), [])
  const lines = (found: CheckedTime | null): string => timeDifferences(found, demanded).join("\n")
  assert.match(lines(null), /^time: found the host's clock alone, expected a clock that is checked under sha256:/)
  // Its stamps may come from either, so a trusted one beside it does not help.
  assert.match(
    lines({ ...demanded, roots: [named("root"), named("other")] }),
    new RegExp(`^time\\.roots: found ${named("other")}, expected .*${named("root")}`),
  )
  assert.equal(lines({ ...demanded, maxDifferenceSeconds: 61 }), "time.maxDifferenceSeconds: found 61, expected at most 60")
  assert.equal(lines({ ...demanded, holdSeconds: 3601 }), "time.holdSeconds: found 3601, expected at most 3600")
  assert.equal(timeDifferences({ roots: [named("other")], maxDifferenceSeconds: 61, holdSeconds: 3601 }, demanded).length, 3)
})

const attested = (time?: unknown): Policy =>
  parsePolicy(encodeUtf8(JSON.stringify({ ...policy, manager: { accept: [{ tdx: tdxDemand }], ...(time === undefined ? {} : { time }) } })), "json")
    .policy

test("parsePolicy() takes a demand on the manager's clock whole or not at all", () => {
  assert.deepEqual(attested(demanded).manager, { accept: [{ tdx: tdxDemand }], time: demanded })
  assert.ok(!("time" in attested().manager))
  for (const time of [
    null,
    "checked",
    {},
    { ...demanded, roots: [] },
    { ...demanded, roots: ["sha256:00"] },
    { ...demanded, maxDifferenceSeconds: 0 },
    { ...demanded, maxDifferenceSeconds: 3601 },
    { ...demanded, holdSeconds: 86_401 },
    { ...demanded, holdSeconds: 1.5 },
    { ...demanded, more: 1 },
    { roots: demanded.roots, holdSeconds: 1 },
  ])
    assert.throws(() => attested(time), { code: "invalid-policy" }, JSON.stringify(time))
  const keyed = { ...policy, manager: { ...policy.manager, time: demanded } }
  assert.throws(() => parsePolicy(encodeUtf8(JSON.stringify(keyed)), "json"), { code: "invalid-policy" })
})

test("checkPolicy() refuses a root of time that is named twice", () => {
  const found = (of: Policy): readonly string[] => checkPolicy(of, { time: now, references }).map(({ code, field }) => `${code} ${field}`)
  assert.deepEqual(found(attested(demanded)), [])
  assert.deepEqual(found(attested({ ...demanded, roots: [named("root"), named("root")] })), ["duplicate manager.time.roots.1"])
})

test("explainPolicy() says who checks the manager's clock, or that nobody has to", () => {
  assert.match(explanationText(explainPolicy(policy)), /^time as the manager says, which proves nothing$/m)
  assert.match(explanationText(explainPolicy(attested())), /^time from a clock that this policy has nobody check/m)
  assert.match(
    explanationText(explainPolicy(attested(demanded))),
    /^time checked by a time-stamping authority under sha256:.* at most 60 s apart, a stamp counts 3600 s$/m,
  )
})

test("diffPolicies() says that other demands are made on the manager's clock", () => {
  const [change, ...more] = diffPolicies(attested(), attested(demanded)).fields
  assert.equal(change?.words, "other demands on who checks the manager's clock")
  assert.deepEqual(more, [])
})
