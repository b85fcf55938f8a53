import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { checkPolicy } from "./check.ts"
import { diffPolicies } from "./diff.ts"
import { artifactOwners, inputOwners, type Job, parsePolicyValue, type Policy } from "./document.ts"
import { explainPolicy, explanationText, policySights } from "./explain.ts"
import { named, now, policy, references } from "./fixtures.testing.ts"
import { demandFits, secretCommitment, type SecretUse, useWords } from "./secrets.ts"

const train = policy.jobs["train"]
assert.ok(train)
const token = { owner: "consortium", commitment: named("token") } as const
const seed = { made: { bytes: 16, as: "hex", per: "run" } } as const

function withSecrets(secrets: unknown, uses: unknown, job: Partial<Job> = {}): Policy {
  return parsePolicyValue({ ...policy, secrets, jobs: { train: { ...train, ...job, secrets: uses } } })
}

function found(document: Policy): readonly string[] {
  return checkPolicy(document, { time: now, references }).map(({ code, field }) => `${code} ${field}`)
}

/** Of one who brings nothing else, so that no vote is missing where the secret alone is looked at. */
const own = { owner: "vendor", commitment: named("token") } as const

test("checkPolicy() finds nothing wrong with secrets in the environment, in files and as arguments", () => {
  const run = [...train.run, "--password", "PASSWORD"]
  const secrets = { token: own, key: { owner: "vendor", commitment: named("key") }, word: { owner: "vendor", commitment: named("word") }, seed }
  const uses = {
    token: { environment: "API_TOKEN" },
    key: { file: "/run/secrets/key" },
    word: { argument: "PASSWORD" },
    seed: { file: "/opt/ml/seed" },
  }
  assert.deepEqual(found(withSecrets(secrets, uses, { run })), [])
})

const at = "jobs.train.secrets.token"
const wrong: readonly (readonly [string, SecretUse, Partial<Job>, readonly string[]])[] = [
  ["a loader's variable", { environment: "LD_PRELOAD" }, {}, [`dangerous-environment ${at}.environment`]],
  ["an interpreter's variable", { environment: "PYTHONPATH" }, {}, [`dangerous-environment ${at}.environment`]],
  ["a variable that tells where the model goes", { environment: "SM_MODEL_DIR" }, {}, [`dangerous-environment ${at}.environment`]],
  ["the agent's own variable", { environment: "PERUN_METRICS" }, {}, [`dangerous-environment ${at}.environment`]],
  ["a variable that is set already", { environment: "SEED" }, { environment: { SEED: "1" } }, [`duplicate ${at}.environment`]],
  ["a file of the system", { file: "/etc/ld.so.preload" }, {}, [`wrong-path ${at}.file`]],
  ["a file below /run that is no secret's", { file: "/run/user/key" }, {}, [`wrong-path ${at}.file`]],
  ["the folder of secrets itself", { file: "/run/secrets" }, {}, [`wrong-path ${at}.file`]],
  ["a way out of the folder of secrets", { file: "/run/secrets/.." }, {}, [`wrong-path ${at}.file`]],
  ["a file among the code", { file: "/opt/ml/code/train.py" }, {}, [`wrong-path ${at}.file`]],
  ["an argument that the job does not have", { argument: "PASSWORD" }, {}, [`wrong-value ${at}.argument`]],
  ["part of an argument", { argument: "PASS" }, { run: [...train.run, "PASSWORD"] }, [`wrong-value ${at}.argument`]],
  ["the program", { argument: "python3" }, { run: ["python3", "python3"] }, [`wrong-program ${at}.argument`]],
]

for (const [what, use, job, expected] of wrong)
  test(`checkPolicy() refuses a secret that stands for ${what}`, () => {
    assert.deepEqual(found(withSecrets({ token: own }, { token: use }, job)), expected)
  })

test("checkPolicy() refuses secrets that nobody uses, nobody declared or nobody brings, and one commitment for two", () => {
  const use = { environment: "API_TOKEN" }
  assert.deepEqual(found(withSecrets({ token: own, seed }, { token: use })), ["wrong-value secrets.seed"])
  assert.deepEqual(found(withSecrets({}, { token: use })), ["unknown-name jobs.train.secrets.token"])
  assert.deepEqual(found(withSecrets({ token: { ...own, owner: "nobody" } }, { token: use }))[0], "unknown-name secrets.token.owner")
  const twice = withSecrets({ token: own, other: own }, { token: use, other: { environment: "OTHER" } })
  assert.deepEqual(found(twice), ["wrong-value secrets.other.commitment"])
  const both = { token: { environment: "TOKEN" }, seed: { environment: "TOKEN" } }
  assert.deepEqual(found(withSecrets({ token: own, seed }, both)), ["duplicate jobs.train.secrets.seed.environment"])
})

test("a policy's form refuses secrets that are drawn and brought, too short, or told", () => {
  const use = { token: { environment: "API_TOKEN" } }
  for (const secret of [
    { ...own, ...seed },
    { owner: "vendor", value: "hunter2" },
    { made: { bytes: 15, as: "hex", per: "run" } },
    { made: { bytes: 16, as: "text", per: "run" } },
    { made: { bytes: 16, as: "hex" } },
  ])
    assert.throws(() => withSecrets({ token: secret }, use), { code: "invalid-policy" }, JSON.stringify(secret))
  for (const token of [{}, { environment: "A", file: "/opt/x" }, { environment: "no name" }])
    assert.throws(() => withSecrets({ token: own }, { token }), { code: "invalid-policy" }, JSON.stringify(token))
})

test("who brings a secret must sign, and votes on what is made with it", () => {
  const brought = withSecrets({ token }, { token: { environment: "API_TOKEN" } })
  assert.ok(inputOwners(brought, brought.jobs["train"] ?? train).includes("consortium"))
  assert.ok(artifactOwners(brought).includes("consortium"))
  assert.ok(!artifactOwners(policy).includes("consortium"), "only the secret makes it one")
  const codes = new Set(found({ ...brought, approval: { require: "all", of: ["clinic-a", "clinic-b", "vendor"] } }))
  assert.deepEqual([...codes].sort(), ["approval-without-owner approval", "release-without-owner jobs.train.outputs.model.release"])
})

test("policySights() and explainPolicy() say who brings a secret, that nobody else sees it, and who can", () => {
  const brought = withSecrets({ token, seed }, { token: { environment: "API_TOKEN" }, seed: { file: "/run/secrets/seed" } })
  const sights = policySights(brought)
  const of = (party: string, thing: string): readonly string[] =>
    sights.flatMap((row) => (row.party === party && row.thing === thing ? [row.sight] : []))
  assert.deepEqual(of("consortium", "secret token"), ["owns"])
  assert.deepEqual(of("vendor", "secret token"), ["never"])
  assert.deepEqual(of("vendor", "secret seed"), ["never"])
  assert.deepEqual(of("manager's operator", "secret token"), of("manager's operator", "artifact trainer"))
  const machine = sights.filter(({ thing }) => thing === "artifact trainer").filter(({ party }) => !Object.hasOwn(policy.stakeholders, party))
  for (const { party, sight } of machine) assert.ok(of(party, "secret token").includes(sight), party)
  const text = explanationText(explainPolicy(brought))
  assert.match(text, /secret token, in the environment as API_TOKEN/)
  assert.match(text, /secret seed, in the file \/run\/secrets\/seed/)
})

test("diffPolicies() says what another value, owner or use of a secret means", () => {
  const before = withSecrets({ token }, { token: { environment: "API_TOKEN" } })
  const words = (after: Policy): string => JSON.stringify(diffPolicies(before, after))
  assert.match(words(withSecrets({ token: { ...token, commitment: named("other") } }, { token: { environment: "API_TOKEN" } })), /has another value/)
  assert.match(words(withSecrets({ token: { ...token, owner: "vendor" } }, { token: { environment: "API_TOKEN" } })), /another party brings/)
  assert.match(words(withSecrets({ token }, { token: { environment: "TOKEN" } })), /is given other secrets, or otherwise/)
  assert.match(
    words(withSecrets({ token, seed }, { token: { environment: "API_TOKEN" }, seed: { environment: "SEED" } })),
    /the secret seed is added/,
  )
})

test("secretCommitment() binds salt and value", () => {
  const secret = { salt: "1".repeat(64), value: encodeUtf8("value") }
  const all = [secret, { ...secret, salt: "2".repeat(64) }, { ...secret, value: encodeUtf8("valuf") }, { ...secret, value: encodeUtf8("value ") }]
  assert.equal(new Set(all.map(secretCommitment)).size, all.length)
})

test("demandFits() refuses what the environment, an argument or a file cannot hold", () => {
  const file = { file: "/run/secrets/x" }
  const environment = { environment: "X" }
  demandFits("x", new Uint8Array(65_536), [file])
  demandFits("x", new Uint8Array(4096).fill(65), [environment])
  for (const [value, uses, code] of [
    [new Uint8Array(65_537), [file], "malformed"],
    [new Uint8Array(0), [file], "malformed"],
    [new Uint8Array(4097).fill(65), [file, environment], "too-large"],
    [encodeUtf8("a\0b"), [environment], "malformed"],
    [Uint8Array.of(0xff), [{ argument: "X" }], "malformed"],
  ] as const)
    assert.throws(() => demandFits("x", value, uses), { code }, `${value.length}`)
  assert.match(useWords({ argument: "X" }), /argument X/)
})
