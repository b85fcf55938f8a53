import assert from "node:assert/strict"
import { test } from "node:test"
import { encodeUtf8 } from "../bytes/text.ts"
import type { Job, Policy } from "../policy/document.ts"
import { AgentError, type AgentCode } from "./error.ts"
import { conventionFiles, jobUser, planWorkload, type WorkloadFolders } from "./workload.ts"

const job: Job = {
  machine: "gpu-host",
  runtime: "measured-root",
  run: ["python3", "train.py"],
  inputs: { "records-a": "/opt/ml/input/data/a", trainer: "/opt/ml/code" },
  outputs: { model: { path: "/opt/ml/model", kind: "model", maxBytes: 1, to: ["c"], release: { require: "all" } } },
  metrics: "none",
  logs: "none",
  environment: { OMP_NUM_THREADS: "1" },
  maxRuns: 1,
  network: "none",
  resources: { gpus: 0, memoryBytes: 1, wallSeconds: 1 },
  lease: { seconds: 60 },
}
const policy: Policy = {
  perun: 1,
  study: "s",
  purpose: "p",
  stakeholders: {},
  manager: { insecureUnattested: { key: "ssh-ed25519 AAAA" } },
  artifacts: {
    "records-a": { kind: "dataset", owner: "a", manifest: `sha256:${"0".repeat(64)}` },
    trainer: { kind: "code", owner: "b", manifest: `sha256:${"1".repeat(64)}` },
  },
  machines: {},
  jobs: { train: job },
  approval: { require: "all" },
  expires: "2030-01-01T00:00:00Z",
  supersedes: "none",
}
const folders: WorkloadFolders = {
  inputs: { "records-a": "/s/in/records-a", trainer: "/s/in/trainer" },
  outputs: { model: "/s/out/model" },
  loose: "/s/loose",
  temporary: "/s/tmp",
  sharedMemory: "/s/shm",
  conventions: "/s/etc",
  secretFiles: { key: "/s/secrets/key" },
}

function refuses(code: AgentCode, changes: Partial<Job>, given?: ReadonlyMap<string, Uint8Array>): void {
  assert.throws(
    () => planWorkload(policy, { ...job, ...changes }, folders, given),
    (error) => error instanceof AgentError && error.code === code,
  )
}

test("planWorkload() binds inputs for reading and outputs for writing at the policy's paths", () => {
  const plan = planWorkload(policy, job, folders)
  assert.ok(plan.inputs.some(({ source, target }) => source === "/s/in/records-a" && target === "/opt/ml/input/data/a"))
  assert.ok(plan.inputs.some(({ source, target }) => source === "/s/in/trainer" && target === "/opt/ml/code"))
  assert.deepEqual(
    plan.outputs.map(({ target }) => target),
    ["/opt/ml/model", "/opt/ml/output", "/tmp", "/dev/shm"],
  )
  assert.equal(plan.workingDirectory, "/opt/ml/code")
  assert.deepEqual(plan.command, ["python3", "train.py"])
  assert.equal(plan.user, jobUser)
})

test("planWorkload() gives the environment that training programs look for, and the policy's", () => {
  const { environment } = planWorkload(policy, job, folders)
  assert.equal(environment["SM_CHANNEL_RECORDS_A"], "/opt/ml/input/data/a")
  assert.equal(environment["SM_MODEL_DIR"], "/opt/ml/model")
  assert.equal(environment["SM_CHANNELS"], '["records-a"]')
  assert.equal(environment["PERUN_METRICS"], "/opt/ml/output/metrics.jsonl")
  assert.equal(environment["OMP_NUM_THREADS"], "1")
})

const secrets = new Map(["token", "key", "password"].map((name) => [name, encodeUtf8(`value of ${name}`)]))
const withSecrets: Job = {
  ...job,
  run: ["python3", "train.py", "--password", "PASSWORD-HERE", "PASSWORD-HERE-TOO"],
  secrets: { token: { environment: "API_TOKEN" }, key: { file: "/run/secrets/key" }, password: { argument: "PASSWORD-HERE" } },
}

test("planWorkload() gives secrets in the environment, as a file and in the place of an argument that is exactly the text", () => {
  const plan = planWorkload(policy, withSecrets, folders, secrets)
  assert.equal(plan.environment["API_TOKEN"], "value of token")
  assert.ok(plan.inputs.some(({ source, target }) => source === "/s/secrets/key" && target === "/run/secrets/key"))
  assert.deepEqual(plan.command, ["python3", "train.py", "--password", "value of password", "PASSWORD-HERE-TOO"])
  for (const text of ["value of token", "value of key"]) assert.ok(!JSON.stringify(plan.command).includes(text))
})

test("planWorkload() gives no secret under a name that loads code, over other files, or that it has no value for", () => {
  refuses("wrong-policy", { secrets: { token: { environment: "LD_PRELOAD" } } }, secrets)
  refuses("wrong-policy", { secrets: { token: { environment: "SM_MODEL_DIR" } } }, secrets)
  refuses("sandbox-paths", { secrets: { key: { file: "/etc/ld.so.preload" } } }, secrets)
  refuses("sandbox-paths", { secrets: { key: { file: "/opt/ml/code/train.py" } } }, secrets)
  refuses("wrong-grant", { secrets: { missing: { environment: "API_TOKEN" } } }, secrets)
})

test("planWorkload() starts without one code artifact in /tmp", () => {
  assert.equal(planWorkload(policy, { ...job, inputs: { "records-a": "/opt/ml/input/data/a" } }, folders).workingDirectory, "/tmp")
})

test("planWorkload() refuses paths over the machine's own files and over each other", () => {
  for (const path of [
    "/usr/bin",
    "/etc/ld.so.cache",
    "/tmp",
    "/",
    "/dev/shm",
    "/proc/self",
    "opt/ml",
    "/opt/../etc",
    "/opt/ml/",
    "/opt//ml",
    "/opt/perun",
  ])
    refuses("sandbox-paths", { inputs: { trainer: path } })
  refuses("sandbox-paths", { inputs: { trainer: "/opt/ml" } })
  refuses("sandbox-paths", { inputs: { trainer: "/opt/ml/code", "records-a": "/opt/ml/code/data" } })
  refuses("sandbox-paths", { inputs: { trainer: "/opt/ml/code", "records-a": "/opt/ml/code" } })
  refuses("sandbox-paths", { inputs: { trainer: "/opt/ml/model/code" } })
  refuses("sandbox-paths", { inputs: { trainer: "/opt/ml/output" } })
})

test("planWorkload() refuses what it cannot give", () => {
  refuses("sandbox-unavailable", { resources: { gpus: 1, memoryBytes: 1, wallSeconds: 1 } })
  refuses("wrong-grant", { inputs: { unopened: "/opt/ml/code" } })
})

test("conventionFiles() names the job's user", () => {
  assert.match(conventionFiles()["passwd"] ?? "", new RegExp(`^job:x:${jobUser.uid}:${jobUser.gid}:`))
})
