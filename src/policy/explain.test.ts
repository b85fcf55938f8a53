import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import { tallyApprovals } from "./approval.ts"
import { checkPolicy } from "./check.ts"
import { diffPolicies, differenceText } from "./diff.ts"
import type { Level, HostMachine, Policy } from "./document.ts"
import { policyDigest } from "./document.ts"
import { parsePolicy } from "./parse.ts"
import { PolicyError } from "./errors.ts"
import type { Problem } from "./problem.ts"
import { explainPolicy, explanationText, policySights, policyWarnings, tallyText } from "./explain.ts"
import { bootReference, imaReference, keyText, hostMachine, named, now, policy, tdxDemand } from "./fixtures.testing.ts"
import { policyTemplate } from "./init.ts"
import { referenceDigest } from "./reference.ts"

const train = policy.jobs["train"]
const machine = hostMachine()
assert.ok(train !== undefined && machine !== undefined)

function withMachine(change: Partial<HostMachine>): Policy {
  return { ...policy, machines: { "gpu-host": { ...machine, ...change } as HostMachine } }
}

function withTrain(change: Partial<typeof train>): Policy {
  return { ...policy, jobs: { train: { ...train, ...change } as NonNullable<typeof train> } }
}

function sight(study: Policy, party: string, thing: string): readonly string[] {
  return policySights(study)
    .filter((row) => row.party === party && row.thing === thing)
    .flatMap((row) => [row.sight, row.words])
}

test("policySights() has one row for each party and each thing", () => {
  const rows = policySights(policy)
  for (const party of Object.keys(policy.stakeholders))
    for (const thing of ["artifact records-a", "artifact records-b", "artifact trainer", "output train.model", "logs train", "metrics train"])
      assert.equal(rows.filter((row) => row.party === party && row.thing === thing).length, 1, `${party} ${thing}`)
})

test("policySights() shows an artifact to its owner only", () => {
  assert.deepEqual(sight(policy, "clinic-a", "artifact records-a"), ["owns", "owns it"])
  for (const party of ["clinic-b", "vendor", "consortium"]) assert.deepEqual(sight(policy, party, "artifact records-a"), ["never", "never"])
})

test("policySights() says what the manager's operator can read", () => {
  assert.deepEqual(sight(policy, "manager's operator", "artifact records-a"), ["can-read", "can read it: UNATTESTED MANAGER"])
})

test("policySights() says of administered hosts what the design asks for, in these words", () => {
  const administered = withMachine({ level: "administered" })
  assert.deepEqual(sight(administered, "administrators of gpu-host", "artifact records-a"), ["can-read", "they can read everything while a job runs"])
  assert.deepEqual(sight(policy, "administrators of gpu-host", "artifact records-a"), ["never", "never, unless they open the machine's case"])
  assert.ok(explanationText(explainPolicy(administered)).includes("the host's administrators: they can read everything while a job runs"))
})

test("policySights() speaks of a host only where one of its jobs takes the artifact", () => {
  assert.deepEqual(sight(withTrain({ inputs: { trainer: "/opt/ml/code" } }), "administrators of gpu-host", "artifact records-a"), [])
  assert.deepEqual(sight({ ...policy, machines: {} }, "administrators of gpu-host", "artifact records-a"), [])
})

test("policySights() shows outputs and logs after whose vote", () => {
  assert.deepEqual(sight(policy, "consortium", "output train.model"), [
    "after-vote",
    "after the vote of all of clinic-a, clinic-b (derived from records-a, records-b, trainer)",
  ])
  assert.deepEqual(sight(policy, "vendor", "output train.model"), ["never", "never"])
  assert.deepEqual(sight(policy, "vendor", "logs train"), [
    "after-vote",
    "after the vote of all of clinic-a, clinic-b, vendor (derived from records-a, records-b, trainer)",
  ])
  const model = train.outputs["model"]
  assert.ok(model !== undefined)
  const open = withTrain({ outputs: { model: { ...model, release: "none", waive: ["clinic-a", "clinic-b", "vendor"] } } })
  assert.deepEqual(sight(open, "consortium", "output train.model"), ["sees", "gets it without a vote (derived from records-a, records-b, trainer)"])
})

test("policySights() shows live numbers with their limits", () => {
  assert.deepEqual(sight(policy, "vendor", "metrics train"), [
    "sees",
    "sees live, without a vote: epoch (a whole number), loss (a number with 4 digits behind the point); at most 600 reports a minute and 100000 bytes a run",
  ])
  assert.deepEqual(sight(policy, "clinic-a", "metrics train"), ["never", "never"])
  const silent = withTrain({ metrics: "none", logs: "none" })
  assert.deepEqual(sight(silent, "vendor", "metrics train"), [])
  assert.deepEqual(sight(silent, "vendor", "logs train"), [])
})

test("policyWarnings() cries out what weakens the whole", () => {
  assert.deepEqual(
    policyWarnings(policy).map((line) => line.split(":")[0]),
    ["UNATTESTED MANAGER"],
  )
  const laboratory = withMachine({ tpm: { ...machine.tpm, laboratoryRoots: [named("lab")] } })
  const lines = policyWarnings(laboratory)
  assert.deepEqual(
    lines.map((line) => line.split(":")[0]),
    ["UNATTESTED MANAGER", "INSECURE LABORATORY"],
  )
  assert.ok(lines[1]?.includes("gpu-host"))
  const text = explanationText(explainPolicy(laboratory))
  assert.ok(text.startsWith("!! UNATTESTED MANAGER") && text.includes("\n!! INSECURE LABORATORY"))
})

test("explainPolicy() names waivers, and consent to live numbers by signing", () => {
  const { waivers } = explainPolicy(policy)
  assert.deepEqual(waivers, [
    { party: "vendor", thing: "output train.model", words: "gives up its vote by signing this policy" },
    ...["clinic-a", "clinic-b", "vendor"].map((party) => ({
      party,
      thing: "metrics train",
      words: "consents to live numbers for vendor by signing this policy",
    })),
  ])
  const logs = train.logs
  assert.ok(logs !== "none")
  assert.deepEqual(explainPolicy(withTrain({ metrics: "none", outputs: {}, logs: { ...logs, waive: ["vendor"] } })).waivers, [
    { party: "vendor", thing: "logs train", words: "gives up its vote by signing this policy" },
  ])
  const plain = withTrain({ metrics: "none", outputs: {}, logs: "none" })
  assert.deepEqual(explainPolicy(plain).waivers, [])
  assert.ok(explanationText(explainPolicy(plain)).includes("What a signature gives up\n  nothing\n"))
  assert.ok(explanationText(explainPolicy(policy)).includes("  vendor: output train.model: gives up its vote"))
})

test("explainPolicy() says for each level what it protects from and what not", () => {
  for (const level of ["administered", "sealed"] as const satisfies readonly Level[]) {
    const explanation = explainPolicy(withMachine({ level }))
    const [row] = explanation.machines
    assert.ok(row !== undefined)
    assert.deepEqual([row.machine, row.level], ["gpu-host", level])
    const text = explanationText(explanation)
    assert.ok(text.includes(`  gpu-host: level ${level}; trusts ${row.trusts}`))
    for (const line of row.covers) assert.ok(text.includes(`    protects from: ${line}`))
    for (const line of row.leaves) assert.ok(text.includes(`    does not protect from: ${line}`))
    assert.equal(
      row.covers.some((line) => line.includes("administrators")),
      level === "sealed",
    )
    assert.equal(
      row.leaves.some((line) => line.includes("administrators")),
      level === "administered",
    )
  }
})

test("explanationText() names the document and whose signature is missing", () => {
  const text = explanationText(explainPolicy(policy, tallyApprovals(policy, [])))
  for (const part of [policy.study, policy.purpose, policyDigest(policy), policy.expires, "supersedes none"]) assert.ok(text.includes(part), part)
  assert.ok(
    text.includes("needed: all of clinic-a, clinic-b, vendor, consortium\n  signed:  nobody\n  missing: clinic-a, clinic-b, vendor, consortium\n"),
  )
  assert.ok(text.endsWith("not complete: nothing is released\n"))
  assert.ok(!explanationText(explainPolicy(policy)).includes("signed:"))
  assert.equal(
    tallyText({ satisfied: true, signed: ["a"], missing: [], withdrawn: ["b"] }),
    "  signed:  a\n  missing: nobody\n  withdrawn, for good: b\n  complete",
  )
})

test("diffPolicies() finds nothing between equal policies", () => {
  const difference = diffPolicies(policy, structuredClone(policy))
  assert.deepEqual(difference, { sights: [], consequences: [], fields: [] })
  assert.equal(differenceText(difference), "the policies are equal\n")
})

test("diffPolicies() says who gains and who loses sight of what", () => {
  const logs = train.logs
  assert.ok(logs !== "none")
  const wider = withTrain({ logs: { ...logs, to: ["consortium"] } })
  const words = "after the vote of all of clinic-a, clinic-b, vendor (derived from records-a, records-b, trainer)"
  assert.deepEqual(diffPolicies(policy, wider).sights, [
    { party: "vendor", thing: "logs train", effect: "loses", before: words, after: "never" },
    { party: "consortium", thing: "logs train", effect: "gains", before: "never", after: words },
  ])
  const looser = diffPolicies(policy, withTrain({ logs: { ...logs, release: { require: "all", of: ["vendor"] } } })).sights
  assert.deepEqual(
    looser.map(({ party, effect }) => [party, effect]),
    [["vendor", "other"]],
  )
  const administered = diffPolicies(policy, withMachine({ level: "administered" })).sights
  assert.deepEqual(
    administered.map(({ party, thing, effect }) => [party, thing, effect]),
    ["artifact records-a", "artifact records-b", "artifact trainer", "output train.model", "logs train", "metrics train"].map((thing) => [
      "administrators of gpu-host",
      thing,
      "gains",
    ]),
  )
})

test("diffPolicies() ranks owning over reading, and reading over reading after a vote", () => {
  const records = { kind: "dataset", manifest: named("records-a") } as const
  const given = diffPolicies(policy, { ...policy, artifacts: { ...policy.artifacts, "records-a": { ...records, owner: "clinic-b" } } }).sights
  assert.deepEqual(
    given.filter(({ thing }) => thing === "artifact records-a").map(({ party, effect }) => [party, effect]),
    [["clinic-a", "loses"], ["clinic-b", "gains"]], // prettier-ignore
  )
  const model = train.outputs["model"]
  assert.ok(model !== undefined)
  const free = withTrain({ outputs: { model: { ...model, release: "none" as const, waive: ["clinic-a", "clinic-b", "vendor"] } } })
  const effects = (a: Policy, b: Policy): readonly string[] =>
    diffPolicies(a, b)
      .sights.filter(({ party }) => party === "consortium")
      .map(({ effect }) => effect)
  assert.deepEqual([effects(policy, free), effects(free, policy)], [["gains"], ["loses"]])
})

test("diffPolicies() shows new and dropped things only to those who see them", () => {
  const silent = withTrain({ metrics: "none" })
  assert.deepEqual(
    diffPolicies(silent, policy).sights.map(({ party, effect, before }) => [party, effect, before]),
    [
      ["vendor", "gains", "not there"],
      ["manager's operator", "gains", "not there"],
    ],
  )
  assert.deepEqual(
    diffPolicies(policy, silent).sights.map(({ party, effect, after }) => [party, effect, after]),
    [
      ["vendor", "loses", "not there"],
      ["manager's operator", "loses", "not there"],
    ],
  )
})

const changes: readonly (readonly [string, Policy, string, string])[] = [
  ["study", { ...policy, study: "other" }, "study", "this is another study"],
  ["purpose", { ...policy, purpose: "x" }, "purpose", "the stated purpose changes"],
  ["expiry", { ...policy, expires: "2028-01-01T00:00:00Z" }, "expires", "keys are released until another time"],
  ["predecessor", { ...policy, supersedes: named("x") }, "supersedes", "another policy is replaced"],
  ["approval", { ...policy, approval: { require: "all", of: ["vendor"] } }, "approval.of", "other signatures make the policy active"],
  [
    "manager",
    { ...policy, manager: { insecureUnattested: { key: keyText("vendor") } } },
    "manager.insecureUnattested.key",
    "another manager holds the keys",
  ],
  ["level", withMachine({ level: "administered" }), "machines.gpu-host.level", "machine gpu-host is trusted to another depth"],
  [
    "TPMs",
    withMachine({ tpm: { ...machine.tpm, endorsementKeys: [named("x")] } }),
    "machines.gpu-host.tpm.endorsementKeys",
    "other physical machines count as gpu-host",
  ],
  [
    "roots",
    withMachine({ tpm: { ...machine.tpm, laboratoryRoots: [named("x")] } }),
    "machines.gpu-host.tpm.laboratoryRoots",
    "other laboratory roots are accepted for gpu-host: INSECURE LABORATORY",
  ],
  ["clock", withMachine({ tpm: { ...machine.tpm, clock: "any" } }), "machines.gpu-host.tpm.clock", "the demands on machine gpu-host are changed"],
  [
    "boot",
    withMachine({ boot: { reference: named("x") } }),
    "machines.gpu-host.boot.reference",
    "gpu-host must boot otherwise: compare the references",
  ],
  [
    "IMA",
    withMachine({ ima: { ...machine.ima, reference: named("x") } }),
    "machines.gpu-host.ima.reference",
    "gpu-host may run other programs: compare the references",
  ],
  ["machine of a job", withTrain({ machine: "other" }), "jobs.train.machine", "job train runs on another machine"],
  ["program", withTrain({ run: ["sh"] }), "jobs.train.run", "job train starts another program or other arguments"],
  ["environment", withTrain({ environment: { EPOCHS: "41" } }), "jobs.train.environment.EPOCHS", "job train runs with other settings"],
  [
    "inputs",
    withTrain({ inputs: { ...train.inputs, trainer: "/opt/x" } }),
    "jobs.train.inputs.trainer",
    "job train uses other artifacts, or elsewhere",
  ],
  ["outputs", withTrain({ outputs: {} }), "jobs.train.outputs.model", "what leaves job train, to whom or after which votes changes"],
  ["metrics", withTrain({ metrics: "none" }), "jobs.train.metrics", "the live numbers of job train change"],
  ["logs", withTrain({ logs: "none" }), "jobs.train.logs", "the logs of job train, to whom or after which votes change"],
  ["runs", withTrain({ maxRuns: 4 }), "jobs.train.maxRuns", "job train may run another number of times"],
  ["resources", withTrain({ resources: { ...train.resources, gpus: 1 } }), "jobs.train.resources.gpus", "job train has other limits"],
  ["lease", withTrain({ lease: { seconds: 61 } }), "jobs.train.lease.seconds", "job train is stopped after another time without fresh proof"],
]

for (const [what, after, field, words] of changes)
  test(`diffPolicies() says what a change of ${what} means`, () => {
    assert.deepEqual(
      diffPolicies(policy, after).fields.map((change) => [change.field, change.words]),
      [[field, words]],
    )
  })

test("diffPolicies() says what added and removed parties, artifacts and jobs mean", () => {
  const vendor = policy.stakeholders["vendor"]
  const trainer = policy.artifacts["trainer"]
  assert.ok(vendor !== undefined && trainer !== undefined)
  const more: Policy = {
    ...policy,
    stakeholders: { ...policy.stakeholders, extra: { ...vendor, keys: [keyText("stranger")] } },
    artifacts: { ...policy.artifacts, extra: { ...trainer, manifest: named("extra") } },
    machines: { ...policy.machines, extra: machine },
    jobs: { ...policy.jobs, extra: train },
  }
  const words = (a: Policy, b: Policy): readonly string[] => diffPolicies(a, b).fields.map((change) => `${change.effect}: ${change.words}`)
  assert.deepEqual(words(policy, more), [
    "added: extra is a new party",
    "added: extra is added; its key is used only if its owner signs this policy",
    "added: the demands on machine extra are added",
    "added: job extra is added",
  ])
  assert.deepEqual(words(more, policy), [
    "removed: extra is no longer a party",
    "removed: extra is removed; its key is used only if its owner signs this policy",
    "removed: the demands on machine extra are removed",
    "removed: job extra is removed",
  ])
  const changedVendor = (change: object): Policy => ({ ...policy, stakeholders: { ...policy.stakeholders, vendor: { ...vendor, ...change } } })
  assert.deepEqual(words(policy, changedVendor({ keys: ["k"], recipients: ["r"], roles: ["model"] })), [
    "changed: other keys may sign and vote for vendor",
    "changed: results for vendor are sealed to other recipients, who can open them",
    "changed: vendor may own other kinds of artifacts",
  ])
  const changedTrainer = (change: object): Policy => ({ ...policy, artifacts: { ...policy.artifacts, trainer: { ...trainer, ...change } } })
  assert.deepEqual(words(policy, changedTrainer({ manifest: named("x"), owner: "clinic-a", kind: "model" })), [
    "changed: trainer is changed; its key is used only if its owner signs this policy",
    "changed: trainer has another owner",
    "changed: trainer has other content",
  ])
})

test("differenceText() shows both sides", () => {
  const text = differenceText(diffPolicies(policy, withTrain({ maxRuns: 4, metrics: "none" })))
  assert.ok(text.includes("  jobs.train.maxRuns: 3 -> 4\n    job train may run another number of times"))
  assert.match(text, /\bvendor +loses\b/)
  const quiet = differenceText(diffPolicies(policy, { ...policy, expires: "2028-01-01T00:00:00Z" }))
  assert.ok(quiet.startsWith("Who sees what\nnobody sees more or less\n\nWhat it means\n  keys are released longer"))
  const added = differenceText(diffPolicies(withTrain({ outputs: {} }), policy))
  assert.ok(added.includes("jobs.train.outputs.model: not there -> {"))
  assert.ok(differenceText(diffPolicies(policy, withTrain({ outputs: {} }))).includes("} -> not there"))
})

test("diffPolicies() throws on what JSON does not have", () => {
  assert.throws(() => diffPolicies(policy, { ...policy, purpose: Symbol.iterator as never }), TypeError)
})

const draft = {
  study: "trial",
  purpose: 'Train: one "model" # of both',
  stakeholders: [
    { name: "clinic-a", key: keyText("clinic-a"), roles: ["data"] },
    { name: "vendor", key: keyText("vendor"), recipient: "age1vendor", roles: ["code"] },
    { name: "consortium", key: keyText("consortium"), recipient: "age1pqconsortium", roles: ["consumer"] },
  ],
  managerKey: keyText("manager"),
  artifacts: [
    { name: "records-a", kind: "dataset", owner: "clinic-a", manifest: named("a") },
    { name: "trainer", kind: "code", owner: "vendor", manifest: named("t") },
  ],
  machine: {
    level: "sealed",
    endorsementKeys: [named("ek")],
    bootReference: referenceDigest(bootReference),
    imaReference: referenceDigest(imaReference),
  },
  run: ["python3", "/opt/ml/code/trainer/train.py"],
  expires: "2027-06-01T00:00:00Z",
} as const

test("policyTemplate() makes a draft that stands when everything is known", () => {
  const { policy: made, locate } = parsePolicy(encodeUtf8(policyTemplate(draft)), "yaml")
  assert.deepEqual(checkPolicy(made, { time: now, locate }), [])
  assert.equal(made.purpose, draft.purpose)
  assert.deepEqual(made.jobs["train"]?.inputs, { "records-a": "/opt/ml/input/records-a", trainer: "/opt/ml/code/trainer" })
  assert.deepEqual(made.jobs["train"]?.outputs["model"]?.release, { require: "all", of: ["clinic-a", "vendor"] })
  assert.deepEqual(made.jobs["train"]?.outputs["model"]?.to, ["consortium"])
  assert.equal(made.supersedes, "none")
  assert.equal(made.machines["gpu-host"]?.level, "sealed")
})

test("policyTemplate() takes what is given over what is usual", () => {
  const machine = { ...draft.machine, name: "server", level: "administered", laboratoryRoots: [named("lab")] } as const
  const text = policyTemplate({
    ...draft,
    machine,
    supersedes: named("old"),
    stakeholders: draft.stakeholders.filter(({ name }) => name !== "vendor"),
  })
  assert.ok(text.includes("metrics: none"))
  const full = parsePolicy(encodeUtf8(policyTemplate({ ...draft, machine, supersedes: named("old") })), "yaml").policy
  assert.deepEqual(
    [full.supersedes, full.machines["server"]?.level, hostMachine(full, "server").tpm.laboratoryRoots],
    [named("old"), "administered", [named("lab")]],
  )
  assert.equal(full.jobs["train"]?.machine, "server")
})

test("policyTemplate() leaves what is not known to be filled in, and the check says of each place what belongs there and who prints it", () => {
  const problemsOf = (text: string): readonly Problem[] => {
    try {
      parsePolicy(encodeUtf8(text), "yaml")
      return []
    } catch (error) {
      assert.ok(error instanceof PolicyError)
      return error.problems
    }
  }
  const clinic = { name: "clinic-a", key: keyText("clinic-a"), roles: ["data"] } as const
  const lines = problemsOf(policyTemplate({ study: "trial", stakeholders: [clinic] }))
  assert.deepEqual(
    lines.map(({ field }) => field),
    [
      "purpose",
      "manager.insecureUnattested.key",
      "artifacts.FILL-IN",
      "artifacts.FILL-IN.kind",
      "artifacts.FILL-IN.owner",
      "artifacts.FILL-IN.manifest",
      "machines.gpu-host.tpm.endorsementKeys.0",
      "machines.gpu-host.boot.reference",
      "machines.gpu-host.ima.reference",
      "jobs.train.run.0",
      "jobs.train.inputs.FILL-IN",
      "jobs.train.outputs.model.to.0",
      "jobs.train.outputs.model.release.of.0",
      "expires",
    ],
  )
  for (const { code, line, message, fix, field } of [...lines, ...problemsOf(policyTemplate({ study: "trial", stakeholders: [] }))]) {
    assert.equal(code, "not-filled-in", field)
    assert.ok(line > 0, field)
    assert.notEqual(message, "still to be filled in: something that only the parties know", `${field} has advice of its own`)
    assert.notEqual(fix, "")
  }
  const fixOf = (field: string): string | undefined => lines.find((problem) => problem.field === field)?.fix
  assert.match(fixOf("machines.gpu-host.boot.reference") ?? "", /perun reference build/)
  assert.match(fixOf("manager.insecureUnattested.key") ?? "", /perun manager status/)
})

test("a policy whose manager must prove itself shows no UNATTESTED MANAGER, and says who could imitate it", () => {
  const attested = { ...policy, manager: { accept: [{ tdx: tdxDemand }] } }
  const operator = (of: Policy): readonly string[] =>
    policySights(of).flatMap(({ party, thing, words }) => (party.includes("manager") && thing.startsWith("artifact") ? [`${party}: ${words}`] : []))
  assert.ok(!policyWarnings(attested).some((line) => /manager/i.test(line)))
  assert.deepEqual(
    [...new Set(operator(attested))],
    ["manager's operator: never, unless they can read its disk, where its vault key may lie: this policy does not say where it must not"],
  )
  const laboratory = { ...policy, manager: { accept: [{ tdx: { ...tdxDemand, laboratoryRoots: [named("lab")] } }] } }
  assert.match(policyWarnings(laboratory)[0] ?? "", /^INSECURE LABORATORY: the manager/)
  assert.deepEqual([...new Set(operator(laboratory))].slice(1), [
    "holder of the manager's laboratory root: can read it by imitating the manager: INSECURE LABORATORY",
  ])
})

test("policyTemplate() of a manager that proves itself demands its proof, and does not name it by its key", () => {
  const text = policyTemplate({ ...draft, managerAccept: [{ tdx: tdxDemand }] })
  assert.deepEqual(parsePolicy(encodeUtf8(text), "yaml").policy.manager, { accept: [{ tdx: tdxDemand }] })
})
