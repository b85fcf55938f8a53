import assert from "node:assert/strict"
import { test } from "node:test"
import type { HostLevel, HostMachine, Policy } from "./document.ts"
import { explainPolicy, explanationText, policySights, policyWarnings } from "./explain.ts"
import { hostMachine, named, policy } from "./fixtures.testing.ts"

const train = policy.jobs["train"]
const machine = hostMachine()
assert.ok(train !== undefined && machine !== undefined)

function withMachine(change: Partial<HostMachine>): Policy {
  return { ...policy, machines: { "gpu-host": { ...machine, ...change } as HostMachine } }
}

function withTrain(change: Partial<typeof train>): Policy {
  return { ...policy, jobs: { train: { ...train, ...change } as NonNullable<typeof train> } }
}

const things = ["artifact records-a", "output train.model", "logs train", "metrics train"]

function readers(study: Policy, thing: string): readonly string[] {
  return policySights(study).flatMap((row) => (row.thing === thing && row.sight === "can-read" ? [row.party] : []))
}

test("policySights() says of everything, not of artifacts only, who can read it without being named", () => {
  const laboratory = { tpm: { ...machine.tpm, laboratoryRoots: [named("lab")] } }
  for (const thing of things) {
    assert.deepEqual(readers(policy, thing), ["manager's operator"], thing)
    assert.deepEqual(readers(withMachine({ level: "administered" }), thing), ["manager's operator", "administrators of gpu-host"], thing)
    assert.deepEqual(readers(withMachine(laboratory), thing), ["manager's operator", "holder of the laboratory root"], thing)
  }
})

test("explainPolicy() says for each job what it reads, and everything that it gives out, to whom, when and how often", () => {
  assert.deepEqual(explainPolicy(policy).jobs, [
    {
      job: "train",
      machine: "gpu-host",
      limits: "at most 3 runs of 3600 seconds each, with no graphics card",
      runs: "python3 train.py --epochs 40",
      reads: ["records-a, dataset of clinic-a", "records-b, dataset of clinic-b", "trainer, code of vendor"],
      gives: [
        "output model: a model of at most 50000000 bytes to consortium, after the vote of all of clinic-a, clinic-b",
        "metrics while it runs: to vendor, without a vote: epoch (a whole number), loss (a number with 4 digits behind the point); " +
          "at most 600 reports a minute and 100000 bytes a run",
        "logs, whatever the program writes, of at most 100000 bytes to vendor, after the vote of all of clinic-a, clinic-b, vendor",
        "nothing else: the program has no network",
      ],
    },
  ])
  const [silent] = explainPolicy(withTrain({ metrics: "none", logs: "none", outputs: {}, resources: { ...train.resources, gpus: 2 } })).jobs
  assert.deepEqual(silent?.gives, ["no metrics", "no logs", "nothing else: the program has no network"])
  assert.ok(silent.limits.endsWith("graphics cards (2), which prove nothing about themselves"))
  const model = train.outputs["model"]
  assert.ok(model !== undefined)
  const open = withTrain({ outputs: { model: { ...model, release: "none", waive: ["clinic-a", "clinic-b", "vendor"] } } })
  assert.equal(explainPolicy(open).jobs[0]?.gives[0], "output model: a model of at most 50000000 bytes to consortium, without a vote")
})

test("explainPolicy() tells what is proved by measurement from what the image's builder only states", () => {
  const rowOf = (level: HostLevel): { readonly proved: string; readonly stated: string } => {
    const [row] = explainPolicy(withMachine({ level })).machines
    assert.ok(row !== undefined)
    return { proved: row.proved.join("\n"), stated: row.stated.join("\n") }
  }
  const sealed = rowOf("sealed")
  for (const fact of [
    "log in",
    "TPM speak",
    "debugger",
    "swap",
    "core dumps",
    "suspend",
    "another kernel",
    "second IMA policy",
    "verified disks only",
  ]) {
    assert.ok(sealed.stated.includes(fact), fact)
    assert.ok(!sealed.proved.includes(fact), fact)
  }
  for (const fact of ["endorsement key", "kernel command line", "root hashes", "locked down", "IMA reference"]) {
    assert.ok(sealed.proved.includes(fact), fact)
    assert.ok(!sealed.stated.includes(fact), fact)
  }
  const administered = rowOf("administered")
  assert.ok(!administered.proved.includes("root hashes") && !administered.proved.includes("locked down") && !administered.stated.includes("log in"))
  assert.ok(administered.proved.includes("IMA reference") && administered.stated.includes("second IMA policy"))
})

test("explanationText() writes jobs, grounds of trust, and what can be taken back", () => {
  const explanation = explainPolicy(policy)
  const text = explanationText(explanation)
  const [job] = explanation.jobs
  const [row] = explanation.machines
  assert.ok(job !== undefined && row !== undefined)
  assert.ok(text.includes(`\nWhat the jobs do\n  train on gpu-host: ${job.limits}\n    runs: ${job.runs}\n`))
  for (const line of job.reads) assert.ok(text.includes(`\n    reads: ${line}\n`))
  for (const line of job.gives) assert.ok(text.includes(`\n    gives out: ${line}\n`))
  for (const line of row.proved) assert.ok(text.includes(`\n    proved by measurement: ${line}\n`))
  for (const line of row.stated) assert.ok(text.includes(`\n    only stated by the image's builder: ${line}\n`))
  assert.match(text, /\nWhat can be taken back\n.*withdraw alone.*\n.*cannot be called back/)
})

test("policyWarnings() says that a laboratory's outputs may be used too", () => {
  const [, line] = policyWarnings(withMachine({ tpm: { ...machine.tpm, laboratoryRoots: [named("lab")] } }))
  assert.ok(line?.startsWith("INSECURE LABORATORY: machine gpu-host") && line.includes("may take what such machines made"))
})
