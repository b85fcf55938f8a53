import assert from "node:assert/strict"
import { noSandbox } from "./testing/sandbox-possible.testing.ts"
import { readdirSync, readFileSync } from "node:fs"
import { chmod, copyFile, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises"
import { performance } from "node:perf_hooks"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import type { Digest } from "../bytes/digest.ts"
import { encodeBase64, encodeUtf8 } from "../bytes/text.ts"
import type { Job } from "../policy/document.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import type { MetricValues, OutputRequest, RunReport } from "../protocol/messages.ts"
import { artifactFolder, blobFileName, blobFolder } from "../sealing/blobs.ts"
import { manifestSigner, parseSignedManifest, type SignedManifest } from "../sealing/manifest.ts"
import { openArtifact } from "../sealing/open-artifact.ts"
import { challengeSession, openReleasedKeys, verifyGrant } from "./claim.ts"
import { AgentError } from "./error.ts"
import type { AgentEvent, LogFact } from "./log.ts"
import { executeRun, type RunExchange } from "./run.ts"
import { tpmSession } from "./testing/fake-manager.ts"
import { makeChallenge, makeGrant, makeParty, makeStudy, type Study } from "./testing/study.ts"

/** Writes a safetensors file with one tensor. */
const saveModel = `
import json, struct
def save(path, value=1.0):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    open(path, "wb").write(struct.pack("<Q", len(header)) + header + struct.pack("<f", value))
`

describe("executeRun()", { skip: noSandbox, concurrency: 1 }, () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp("/tmp/perun-run-")
    await chmod(folder, 0o711)
  })
  after(async () => rm(folder, { recursive: true }))

  interface Ran {
    readonly study: Study
    readonly report: RunReport | undefined
    readonly error: unknown
    readonly outputs: OutputRequest[]
    readonly metrics: MetricValues[]
    readonly events: AgentEvent[]
    readonly facts: (event: AgentEvent) => Readonly<Record<string, LogFact>> | undefined
    readonly blobs: string
    readonly scratch: string
  }

  interface Scene {
    readonly program: string
    readonly job?: Partial<Job>
    /** Values that the manager draws, by name. */
    readonly secrets?: Readonly<Record<string, string>>
    readonly exchange?: (exchange: RunExchange) => RunExchange
    /** Called with what ends the lease once the job runs. */
    readonly during?: (loseLease: () => void) => void
  }

  async function run(name: string, { program, job, exchange: change, during, secrets = {} }: Scene): Promise<Ran> {
    const place = join(folder, name)
    const blobs = join(place, "blobs")
    const scratch = join(place, "scratch")
    await mkdir(blobs, { recursive: true })
    const made = Object.fromEntries(Object.keys(secrets).map((secret) => [secret, { made: { bytes: 16, as: "hex", per: "run" } } as const]))
    const study = await makeStudy(place, program, job, made)
    const hpke = await generateHpkeKeyPair()
    const challenge = makeChallenge(study.policy)
    const session = tpmSession(challengeSession(challenge, { hpkeKey: encodeBase64(hpke.publicKey), tlsKey: challenge.policy }))
    const values = Object.fromEntries(Object.entries(secrets).map(([secret, text]) => [secret, { value: encodeBase64(encodeUtf8(text)) }]))
    const answer = await makeGrant(study, challenge, session, hpke.publicKey, values)
    const grant = verifyGrant(answer, challenge, {
      session,
      manager: { description: { key: study.manager.key, time: null, vault: { kind: "key-file" } } },
    })
    const outputs: OutputRequest[] = []
    const metrics: MetricValues[] = []
    const events: AgentEvent[] = []
    const factsOf = new Map<AgentEvent, Readonly<Record<string, LogFact>>>()
    const lease = new AbortController()
    const exchange: RunExchange = {
      async getBlob(digest, path) {
        for (const input of Object.values(study.inputs)) {
          await using reader = await artifactFolder(input.folder, input.signed.manifest)
            .open(digest)
            .catch(() => undefined)
          if (reader !== undefined) return copyFile(await blobPath(input.folder, input.signed, digest), path)
        }
      },
      putBlob: (digest, path) => copyFile(path, join(blobs, blobFileName(digest))),
      reportOutput: async (output) => void outputs.push(output),
      reportMetrics: async (values) => void metrics.push(values),
    }
    const world = {
      exchange: change === undefined ? exchange : change(exchange),
      log: (event: AgentEvent, facts: Readonly<Record<string, LogFact>> = {}): void => {
        events.push(event)
        factsOf.set(event, facts)
        if (event === "job-started") during?.(() => lease.abort(new AgentError("lease-lost", "test")))
      },
      scratchBase: scratch,
      signer: manifestSigner(makeParty().privateKey),
      now: () => performance.now() / 1000,
    }
    let report: RunReport | undefined
    let error: unknown
    try {
      report = await executeRun(grant, await openReleasedKeys(grant, hpke.privateKey), world, lease.signal)
    } catch (caught) {
      error = caught
    }
    assert.deepEqual(await readdir(join(scratch, "scratch")), [], "scratch is not wiped")
    assert.ok(!(await readFile("/proc/self/mountinfo", "utf8")).includes(place), "scratch is still mounted")
    return { study, report, error, outputs, metrics, events, facts: (event) => factsOf.get(event), blobs, scratch }
  }

  async function blobPath(artifact: string, { manifest }: SignedManifest, digest: Digest): Promise<string> {
    const number = manifest.shards.findIndex((shard) => shard.digest === digest)
    return join(artifact, number < 0 ? "index.json.age" : `shard-${String(number).padStart(4, "0")}.tar.age`)
  }

  test("gives secrets to a program that knows nothing of them, in environment, file and argument, and to nobody who reads command lines", async () => {
    const program = `${saveModel}
import os, sys, time, glob
assert os.environ["API_TOKEN"] == "s3cret-t0ken", "environment"
assert open("/run/secrets/key").read() == "s3cret-key", "file"
assert sys.argv[1:] == ["--password", "s3cret-w0rd", "PASSWORD-"], "argument"
try:
    open("/run/secrets/key", "w")
    raise SystemExit("the file can be written")
except OSError:
    pass
lines = [open(path).read() for path in glob.glob("/proc/[0-9]*/cmdline")]
assert not any("t0ken" in line or "s3cret-key" in line for line in lines), "command lines inside"
time.sleep(1)
save(os.environ["SM_MODEL_DIR"] + "/model.safetensors", 1)
`
    const job: Partial<Job> = {
      run: ["python3", "train.py", "--password", "PASSWORD", "PASSWORD-"],
      secrets: { token: { environment: "API_TOKEN" }, key: { file: "/run/secrets/key" }, word: { argument: "PASSWORD" } },
    }
    const lines: string[] = []
    const during = (): void => {
      for (const pid of readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)))
        try {
          lines.push(readFileSync(`/proc/${pid}/cmdline`, "latin1"))
        } catch {
          // It ended meanwhile.
        }
    }
    const secrets = { token: "s3cret-t0ken", key: "s3cret-key", word: "s3cret-w0rd" }
    const { report, events, facts } = await run("secrets", { program, job, secrets, during: () => setTimeout(during, 500) })
    assert.equal(report?.status, "succeeded", JSON.stringify(report))
    assert.ok(
      lines.some((line) => line.includes("bwrap")),
      "the sandbox was seen",
    )
    assert.ok(!lines.some((line) => line.includes("s3cret-t0ken") || line.includes("s3cret-key")))
    assert.doesNotMatch(JSON.stringify(events.map((event) => facts(event))), /s3cret/)
  })

  test("opens inputs, runs the program, passes metrics on and seals the output to the vault's key", async () => {
    const program = `${saveModel}
import os
rows = open(os.environ["SM_CHANNEL_RECORDS"] + "/table.csv").read().count("\\n")
with open(os.environ["PERUN_METRICS"], "a") as file:
    file.write('{"epoch": 1, "loss": 0.123456}\\n{"epoch": 2, "patient": 7}\\n')
save(os.environ["SM_MODEL_DIR"] + "/model.safetensors", rows)
os.chmod(os.environ["SM_MODEL_DIR"] + "/model.safetensors", 0o6777)
`
    const { report, outputs, metrics, study, blobs, events } = await run("good", { program })
    assert.deepEqual(
      { ...report, wallSeconds: (report?.wallSeconds ?? 1) % 10 },
      { status: "succeeded", rowsPerInput: { records: 3 }, wallSeconds: 0 },
    )
    assert.deepEqual(metrics, [{ epoch: 1, loss: 0.1235 }])
    assert.deepEqual(
      outputs.map(({ name }) => name),
      ["model"],
    )
    const signed = parseSignedManifest(JSON.stringify(outputs[0]?.manifest))
    assert.equal(signed.manifest.kind, "output")
    const destination = join(folder, "opened")
    await openArtifact({ signed, blobs: blobFolder(blobs), identity: study.outputIdentity, destination })
    assert.deepEqual(await readdir(destination), ["model.safetensors"])
    assert.equal((await stat(join(destination, "model.safetensors"))).mode & 0o7777, 0o644, "no program leaves as one")
    assert.equal(events.at(-1), "scratch-wiped")
  })

  test("tells of a failed program no more than that it failed, and its time in large steps", async () => {
    const programs = [
      "import sys\nprint('Smith', file=sys.stderr)\n{}['Smith, 47']\n",
      "import sys\nsys.exit(47)\n",
      "import os\nos.kill(os.getpid(), 9)\n",
    ]
    for (const [index, program] of programs.entries()) {
      const { report, outputs, facts } = await run(`fails-${index}`, { program })
      assert.deepEqual(report, { status: "failed", reason: "job-failed", rowsPerInput: { records: 3 }, wallSeconds: 10 })
      assert.deepEqual(facts("job-ended"), { reason: "exit", seconds: 10 })
      assert.deepEqual(outputs, [])
    }
  })

  test("tells the readers of its logs whether a signal ended a program", async () => {
    const logs = { to: ["vendor"], release: { require: "all" }, maxBytes: 2000 } as const
    const failed = await run("exit-error", { program: "import sys\nsys.exit(47)\n", job: { logs } })
    assert.partialDeepStrictEqual(failed.report, { reason: "job-failed", exit: "error" })
    const killed = await run("exit-signal", { program: "import os\nos.kill(os.getpid(), 9)\n", job: { logs } })
    assert.partialDeepStrictEqual(killed.report, { reason: "job-failed", exit: "signal" })
  })

  test("lets logs leave only where the policy says so, sealed and cut", async () => {
    const program = "import sys\nprint('x' * 5000)\nprint('error', file=sys.stderr)\nsys.exit(3)\n"
    const logs = { to: ["vendor"], release: { require: "all" }, maxBytes: 2000 } as const
    const { report, outputs, study, blobs } = await run("logs", { program, job: { logs } })
    assert.equal(report?.status, "failed")
    assert.deepEqual(
      outputs.map(({ name }) => name),
      ["logs"],
    )
    const signed = parseSignedManifest(JSON.stringify(outputs[0]?.manifest))
    assert.equal(signed.manifest.kind, "log")
    const destination = join(folder, "opened-logs")
    await openArtifact({ signed, blobs: blobFolder(blobs), identity: study.outputIdentity, destination })
    assert.equal((await readFile(join(destination, "stdout.txt"))).length, 1000)
    assert.equal(await readFile(join(destination, "stderr.txt"), "utf8"), "error\n")
  })

  test("seals nothing when an output is missing or in another format", async () => {
    const missing = await run("missing", { program: "pass\n" })
    assert.equal(reasonOf(missing.report), "output-missing")
    const pickle = await run("pickle", { program: "open('/opt/ml/model/model.pt', 'w').write('x')\n" })
    assert.equal(reasonOf(pickle.report), "output-format")
    const link = await run("link", { program: "import os\nos.symlink('/etc/passwd', '/opt/ml/model/model.json')\n" })
    assert.equal(reasonOf(link.report), "output-kind")
    assert.deepEqual([missing.outputs, pickle.outputs, link.outputs], [[], [], []])
  })

  test("ends a job at its wall clock and says so", async () => {
    const { report } = await run("slow", {
      program: "import time\ntime.sleep(60)\n",
      job: { resources: { gpus: 0, memoryBytes: 1e9, wallSeconds: 1 } },
    })
    assert.equal(reasonOf(report), "wall-clock")
  })

  test("stops the job and wipes scratch when the lease ends", async () => {
    const started = performance.now()
    const { report, error, outputs } = await run("lease", {
      program: "import time\ntime.sleep(60)\n",
      during: (loseLease) => setTimeout(loseLease, 300),
    })
    assert.equal(report, undefined)
    assert.ok(error instanceof AgentError && error.code === "lease-lost")
    assert.deepEqual(outputs, [])
    assert.ok(performance.now() - started < 20_000)
  })

  test("runs on without metrics while the manager is away", async () => {
    const program = `${saveModel}\nopen("/opt/ml/output/metrics.jsonl", "w").write('{"epoch": 1, "loss": 1}\\n')\nsave("/opt/ml/model/model.safetensors")\n`
    const { report } = await run("away", {
      program,
      exchange: (exchange) => ({ ...exchange, reportMetrics: async () => Promise.reject(new AgentError("refused", "away")) }),
    })
    assert.equal(report?.status, "succeeded")
  })

  test("reports a blob that is not what was sealed, and runs nothing", async () => {
    const { report, events } = await run("corrupt", {
      program: "pass\n",
      exchange: (exchange) => ({
        ...exchange,
        async getBlob(digest, path, sizeBytes, signal) {
          await exchange.getBlob(digest, path, sizeBytes, signal)
          const bytes = await readFile(path)
          bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
          await rm(path)
          await writeFile(path, bytes)
        },
      }),
    })
    assert.equal(reasonOf(report), "inputs")
    assert.ok(!events.includes("job-started"))
  })

  test("repeats no message of the system, which might name a patient's file", async () => {
    const { report } = await run("internal", {
      program: "pass\n",
      exchange: (exchange) => ({ ...exchange, getBlob: async () => Promise.reject(new Error("ENOENT: Smith.csv")) }),
    })
    assert.equal(reasonOf(report), "inputs")
  })

  test("refuses a job whose paths lie over the machine's own", async () => {
    const { report, events } = await run("paths", { program: "pass\n", job: { inputs: { records: "/opt/ml/output", trainer: "/opt/ml/code" } } })
    assert.equal(reasonOf(report), "machine")
    assert.ok(!events.includes("job-started"))
  })
})

function reasonOf(report: RunReport | undefined): string | undefined {
  return report?.status === "failed" ? report.reason : undefined
}
