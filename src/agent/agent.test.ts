import assert from "node:assert/strict"
import { noSandbox } from "./testing/sandbox-possible.testing.ts"
import { chmod, mkdtemp, rm } from "node:fs/promises"
import { performance } from "node:perf_hooks"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { makeLabAuthority } from "../../lab/devices/dcap/authority.ts"
import { labTdRequirement } from "../../lab/devices/td.ts"
import { encodeBase64 } from "../bytes/text.ts"
import type { Job } from "../policy/document.ts"
import { HostAgent, type Outcome } from "./agent.ts"
import { challengeSession } from "./claim.ts"
import type { Attester } from "./evidence/attest.ts"
import { logLine, type AgentEvent, type LogFact } from "./log.ts"
import { FakeManager, tpmSession } from "./testing/fake-manager.ts"
import { makeChallenge, makeParty, makeStudy } from "./testing/study.ts"

const goodProgram = `
import json, struct
header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
open("/opt/ml/model/model.safetensors", "wb").write(struct.pack("<Q", len(header)) + header + b"abcd")
`
const longProgram = "import time\ntime.sleep(60)\n"

interface LoggedEvent {
  readonly event: AgentEvent
  readonly facts: Readonly<Record<string, LogFact>>
}

/** An agent on a machine whose TPM signs nothing, and whose pauses are short. */
class TestAgent {
  readonly events: LoggedEvent[] = []
  readonly pauses: number[] = []
  readonly quoted: string[] = []
  readonly pieces: string[] = []
  readonly enrolledAs: { readonly manager: string; readonly tlsKey: string }[] = []
  readonly stop = new AbortController()
  readonly #agent: HostAgent

  constructor(manager: FakeManager, scratch: string, managerKey = manager.study.manager.key) {
    const attester: Attester = {
      enrol: async (host, as) => {
        this.enrolledAs.push(as)
        manager.enrolled = true
        const digest = as.tlsKey
        const identity = { endorsementKey: digest, root: digest, rootKind: "laboratory", description: "test", attestationKeyName: "000b" } as const
        return { host, identity, enrolledAt: "2026-01-01T00:00:00Z", retired: false }
      },
      attest: async ({ session: open, pieces, imaFrom, withBootLog }) => {
        const session = tpmSession(open)
        this.quoted.push(encodeBase64(session))
        this.pieces.push(pieces)
        const eventLog = withBootLog ? { eventLog: "AAAA" } : {}
        const tpm = { quote: "AAAA", signature: "AAAA", akPublic: "AAAA", ...eventLog, ima: { from: imaFrom, list: "AAAA" } }
        return { bundle: { perun: 1, tpm }, session }
      },
    }
    this.#agent = new HostAgent(
      { perun: 1, host: "host", manager: { url: manager.url, key: managerKey }, once: true, scratch },
      {
        attester,
        log: (event, facts = {}) => this.events.push({ event, facts }),
        clock: {
          now: () => performance.now() / 1000,
          sleep: async (seconds, signal) => {
            this.pauses.push(seconds)
            // Pauses of the claim loop pass at once; those of a lease, which has others running, in real time.
            const isLease = this.events.some(({ event }) => event === "claim-granted")
            await sleep(isLease ? seconds * 1000 : 1, undefined, { signal }).catch(() => undefined)
          },
        },
        random: () => 0,
      },
      this.stop.signal,
    )
  }

  work(): Promise<Outcome | undefined> {
    return this.#agent.work()
  }

  names(): AgentEvent[] {
    return this.events.map(({ event }) => event)
  }

  facts(event: AgentEvent): Readonly<Record<string, LogFact>> {
    return this.events.find((logged) => logged.event === event)?.facts ?? {}
  }
}

describe("HostAgent", { skip: noSandbox, concurrency: 1 }, () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp("/tmp/perun-agent-")
    await chmod(folder, 0o711)
  })
  after(async () => rm(folder, { recursive: true }))

  async function scene(
    name: string,
    program: string,
    act: (manager: FakeManager, agent: TestAgent) => Promise<void>,
    options: { readonly job?: Partial<Job>; readonly managerKey?: string } = {},
  ): Promise<void> {
    const study = await makeStudy(join(folder, name), program, options.job)
    await using manager = await FakeManager.start(study)
    const agent = new TestAgent(manager, join(folder, name, "scratch"), options.managerKey)
    try {
      await act(manager, agent)
    } finally {
      agent.stop.abort()
    }
  }

  test("enrols when the manager does not know it, claims, runs and reports", async () => {
    await scene("whole", goodProgram, async (manager, agent) => {
      assert.equal(await agent.work(), "succeeded")
      const expected = ["manager-verified", "enrolled", "claim-granted", "input-opened", "input-opened", "job-started", "job-ended", "output-sealed"]
      assert.deepEqual(agent.names(), [...expected, "scratch-wiped", "run-finished"])
      const [report] = manager.bodies.get("POST /v1/runs/*/finish") ?? []
      assert.partialDeepStrictEqual(report, { status: "succeeded", rowsPerInput: { records: 3 } })
      assert.equal(manager.count("POST /v1/runs/*/outputs"), 1)
    })
  })

  test("proves itself over the session of the challenge and its own keys", async () => {
    await scene("session", goodProgram, async (manager, agent) => {
      await agent.work()
      const [claim] = (manager.bodies.get("POST /v1/claims") ?? []) as { readonly hpkeKey: string; readonly bundle: { readonly tpm: object } }[]
      assert.ok(claim)
      assert.ok("eventLog" in claim.bundle.tpm)
      assert.equal(agent.quoted.length, 1)
      const other = tpmSession(challengeSession(makeChallenge(manager.study.policy), { hpkeKey: claim.hpkeKey, tlsKey: `sha256:${"0".repeat(64)}` }))
      assert.notEqual(agent.quoted[0], encodeBase64(other))
    })
  })

  test("waits as long as the manager says when there is nothing to do", async () => {
    await scene("idle", goodProgram, async (manager, agent) => {
      manager.enrolled = true
      let asked = 0
      manager.misbehave = (call) => (call === "POST /v1/challenges" && asked++ < 2 ? { status: 204, retryAfter: 17 } : undefined)
      assert.equal(await agent.work(), "succeeded")
      assert.deepEqual(agent.pauses.slice(0, 2), [17, 17])
      assert.equal(agent.names().filter((event) => event === "waiting").length, 2)
    })
  })

  test("says what the manager refused, and runs nothing", async () => {
    await scene("refused", goodProgram, async (manager, agent) => {
      manager.misbehave = (call) => (call === "POST /v1/claims" ? { status: 403, code: "not-acceptable" } : undefined)
      assert.equal(await agent.work(), "refused")
      assert.equal(agent.facts("claim-refused")["code"], "not-acceptable")
      assert.ok(!agent.names().includes("claim-granted"))
    })
  })

  test("asks again when another host was faster or the challenge grew old", async () => {
    for (const code of ["wrong-state", "challenge-expired", "challenge-unknown", "lease-ended"]) {
      await scene(`late-${code}`, goodProgram, async (manager, agent) => {
        let claims = 0
        manager.misbehave = (call) => (call === "POST /v1/claims" && claims++ === 0 ? { status: 409, code } : undefined)
        assert.equal(await agent.work(), "succeeded")
        assert.ok(!agent.names().includes("claim-refused"))
      })
    }
  })

  test("sends a claim whose answer was lost again, under the same challenge", async () => {
    await scene("lost-grant", goodProgram, async (manager, agent) => {
      manager.enrolled = true
      let claims = 0
      manager.misbehave = (call) => (call === "POST /v1/claims" && claims++ < 2 ? { status: 503, code: "unavailable" } : undefined)
      assert.equal(await agent.work(), "succeeded")
      assert.deepEqual([manager.count("POST /v1/claims"), manager.count("POST /v1/challenges"), agent.quoted.length], [3, 1, 1])
    })
  })

  test("takes a refused report for the end of the run", async () => {
    await scene("late-report", goodProgram, async (manager, agent) => {
      manager.misbehave = (call) => (call === "POST /v1/runs/*/finish" ? { status: 403, code: "lease-ended" } : undefined)
      assert.equal(await agent.work(), "stopped")
      assert.equal(agent.facts("run-finished")["reason"], "lease-ended")
      assert.ok(!agent.names().includes("claim-refused"))
    })
  })

  test("refuses a grant that the stakeholders did not sign", async () => {
    await scene("unsigned", goodProgram, async (manager, agent) => {
      manager.changeGrant = (grant) => ({ ...grant, approvals: [] })
      assert.equal(await agent.work(), "refused")
      assert.equal(agent.facts("claim-refused")["code"], "wrong-approval")
      assert.ok(!agent.names().includes("job-started"))
    })
  })

  test("says nothing to a manager of another key", async () => {
    await scene(
      "imposter",
      goodProgram,
      async (manager, agent) => {
        await assert.rejects(agent.work(), { code: "wrong-manager" })
        assert.deepEqual(manager.calls, ["GET /v1/manager"])
      },
      { managerKey: makeParty().key },
    )
  })

  test("tries again with growing pauses while the manager is away", async () => {
    await scene("away", goodProgram, async (manager, agent) => {
      let asked = 0
      manager.misbehave = (call) => (call === "POST /v1/challenges" && asked++ < 3 ? { status: 503, code: "unavailable" } : undefined)
      assert.equal(await agent.work(), "succeeded")
      assert.deepEqual(agent.pauses.slice(0, 3), [0.5, 1, 2])
    })
  })

  test("renews the lease with a new quote and without the boot log", async () => {
    const program = `import time\ntime.sleep(1.5)\n${goodProgram}`
    await scene("renew", program, async (manager, agent) => {
      manager.changeGrant = (grant) => ({ ...grant, lease: { id: makeChallenge(manager.study.policy).lease, seconds: 2 } })
      assert.equal(await agent.work(), "succeeded")
      const [renewal] = (manager.bodies.get("POST /v1/leases/*/renew") ?? []) as { readonly bundle: { readonly tpm: object } }[]
      assert.ok(renewal && !("eventLog" in renewal.bundle.tpm))
      assert.equal(new Set(agent.quoted).size, 2)
      assert.ok(agent.names().includes("lease-renewed"))
    })
  })

  test("enrols with the manager that it verified, and shows what is asked for", async () => {
    await scene("pieces", goodProgram, async (manager, agent) => {
      assert.equal(await agent.work(), "succeeded")
      assert.deepEqual([agent.pieces, agent.enrolledAs.map((as) => as.manager)], [["tpm"], [makeChallenge(manager.study.policy).manager]])
    })
  })

  test("answers no challenge of another manager", async () => {
    await scene("other-manager", goodProgram, async (manager, agent) => {
      manager.changeChallenge = (challenge) => ({ ...challenge, manager: "8".repeat(32) })
      assert.equal(await agent.work(), "refused")
      assert.deepEqual([agent.quoted, manager.count("POST /v1/claims")], [[], 0])
    })
  })

  test("renews with the pieces that the policy demands, or not at all", async () => {
    await scene("weaker-renewal", longProgram, async (manager, agent) => {
      manager.changeGrant = (grant) => ({ ...grant, lease: { id: makeChallenge(manager.study.policy).lease, seconds: 1 } })
      manager.changeChallenge = (challenge) => (challenge.purpose === "renew" ? { ...challenge, pieces: "tee" } : challenge)
      assert.equal(await agent.work(), "stopped")
      assert.match(String(agent.facts("lease-lost")["message"]), /wrong-grant/)
      assert.equal(manager.count("POST /v1/leases/*/renew"), 0)
    })
  })

  test("stops the job when the renewal is refused", async () => {
    await scene("revoked", longProgram, async (manager, agent) => {
      manager.changeGrant = (grant) => ({ ...grant, lease: { id: makeChallenge(manager.study.policy).lease, seconds: 2 } })
      manager.misbehave = (call) => (call === "POST /v1/leases/*/renew" ? { status: 403, code: "policy-withdrawn" } : undefined)
      assert.equal(await agent.work(), "stopped")
      assert.deepEqual(agent.names().slice(-3), ["lease-lost", "scratch-wiped", "run-finished"])
      assert.match(String(agent.facts("lease-lost")["message"]), /policy-withdrawn/)
      assert.equal(manager.count("POST /v1/runs/*/finish"), 0)
    })
  })

  test("stops the job by its own clock when the manager is away for longer than the lease", async () => {
    await scene("silent", longProgram, async (manager, agent) => {
      manager.changeGrant = (grant) => ({ ...grant, lease: { id: makeChallenge(manager.study.policy).lease, seconds: 2 } })
      manager.misbehave = () => (agent.names().includes("job-started") ? { status: 503, code: "unavailable" } : undefined)
      const started = performance.now()
      assert.equal(await agent.work(), "stopped")
      assert.ok(performance.now() - started < 10_000)
      assert.ok(agent.names().includes("lease-trouble"))
      assert.equal(agent.facts("lease-lost")["code"], "lease-lost")
    })
  })

  test("stops the job and wipes scratch when it is told to end", async () => {
    await scene("told", longProgram, async (_, agent) => {
      const work = agent.work()
      while (!agent.names().includes("job-started")) await sleep(20)
      agent.stop.abort()
      assert.equal(await work, "stopped")
      assert.ok(agent.names().includes("scratch-wiped"))
    })
  })
})

test("HostAgent refuses a grant under a policy that demands proof, from a manager that it knows by its key alone", async () => {
  const folder = await mkdtemp("/tmp/perun-agent-")
  await using _ = { [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) }
  const program = { runtime: "a".repeat(96), source: "b".repeat(96), packages: "c".repeat(96) }
  const accept = [{ tdx: labTdRequirement(program, makeLabAuthority().root) }]
  const study = await makeStudy(folder, goodProgram)
  await using manager = await FakeManager.start({ ...study, policy: { ...study.policy, manager: { accept } } })
  const agent = new TestAgent(manager, join(folder, "scratch"))
  assert.equal(await agent.work(), "refused")
  // The grant came, whole and signed by everybody; nothing was done with it.
  assert.equal(manager.count("POST /v1/claims"), 1)
  assert.deepEqual(agent.names(), ["manager-verified", "enrolled", "claim-refused"])
  assert.equal(agent.facts("claim-refused")["code"], "wrong-manager")
  assert.match(String(agent.facts("claim-refused")["message"]), /pinned by its key alone/)
})

test("logLine() keeps an event on one line whatever its facts hold", () => {
  assert.equal(
    logLine("trouble", { message: "a\nperun-agent: run-finished {}" }),
    'perun-agent: trouble {"message":"a\\nperun-agent: run-finished {}"}\n',
  )
  assert.equal(logLine("started"), "perun-agent: started {}\n")
})
