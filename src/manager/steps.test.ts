/** Every durable step of a study, failing once before and once after it took effect. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { UnavailableError } from "../bytes/error.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { routes } from "../protocol/routes.ts"
import { recordSchemas, type Table } from "./records.ts"
import { type AgentKeys, makeAgent, makeParts, TestStudy } from "./study.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, records, trainer } = parts
const tables = Object.keys(recordSchemas) as Table[]

interface Progress {
  digest: `sha256:${string}`
  agent: AgentKeys
  run: string
  lease: string
  output: string
}

/** The whole of a study, step by step; each may be taken again after it failed. */
const steps: readonly (readonly [string, (study: TestStudy, made: Progress) => Promise<void>])[] = [
  ["submit", async (study, made) => void (made.digest = await study.submit(study.policy()))],
  ["sign: vendor", async (study, { digest }) => void (await study.sign(digest, vendor))],
  ["sign: clinic", async (study, { digest }) => void (await study.sign(digest, clinic))],
  ["sign: consortium", async (study, { digest }) => void (await study.sign(digest, consortium))],
  ["deposit: records", async (study, { digest }) => void (await study.deposit(digest, "records", clinic, records))],
  ["deposit: trainer", async (study, { digest }) => void (await study.deposit(digest, "trainer", vendor, trainer))],
  ["enrol", async (study, { agent }) => study.enrol(agent)],
  ["queue", async (study, made) => void (made.run = await study.queue(made.digest))],
  ["claim", async (study, made) => void (made.lease = (await study.claim(made.agent)).lease.id)],
  ["renew", async (study, { agent, lease }) => void (await study.renew(agent, lease))],
  ["output", async (study, made) => void (made.output = await study.makeOutput(made.agent, made.run))],
  ["finish", async (study, { agent, run }) => void (await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } }))],
  ["vote: clinic", async (study, { output }) => study.vote(output, clinic)],
  ["vote: consortium", async (study, { output }) => study.vote(output, consortium)],
  ["release", async (study, { output }) => void (await study.call(routes.getOutputPackage, study.as(consortium), { params: { output } }))],
  ["queue another", async (study, made) => void (made.run = await study.queue(made.digest))],
  ["cancel it", async (study, { run }) => void (await study.call(routes.cancelRun, study.as(vendor), { params: { run }, body: {} }))],
  ["queue a third", async (study, made) => void (made.run = await study.queue(made.digest))],
  ["claim it", async (study, made) => void (made.lease = (await study.claim(made.agent)).lease.id)],
  [
    "let its lease run out",
    async (study) => {
      study.clock.advance(3600)
      study.manager.tick()
    },
  ],
  ["retire the host", async (study) => void (await study.call(routes.retireHost, study.as(clinic), { params: { host: "host-1" }, body: {} }))],
  ["withdraw", async (study, { digest }) => void (await study.withdraw(digest, clinic))],
]

type Mode = "before" | "after"

/** What the store holds, without what chance and the moment put there. */
function contentOf(study: TestStudy): readonly string[] {
  return tables.flatMap((table) => study.store.list(table).map((record) => `${table} ${parseUtf8(canonicalJsonBytes(record), table)}`)).toSorted()
}

/** Runs all steps; the commit of number `failing` fails. Gives the receipts' kinds, the number of commits, and which step it failed. */
async function story(failing = 0, mode: Mode = "before"): Promise<{ kinds: readonly string[]; commits: number; failed: string | undefined }> {
  const study = await TestStudy.create(parts)
  const { journal } = study
  const commit = journal.commit.bind(journal)
  let commits = 0
  journal.commit = (entry) => {
    if (++commits === failing) journal.failNext = mode
    commit(entry)
  }
  const made: Progress = { digest: "sha256:", agent: await makeAgent(), run: "", lease: "", output: "" }
  let failed: string | undefined
  for (const [name, take] of steps) {
    const was = commits
    const before = contentOf(study)
    try {
      await take(study, made)
      if (failing > was && failing <= commits) failed = name
    } catch (error) {
      assert.equal(mode, "before", `${name}: ${String(error)}`)
      const isFull = error instanceof UnavailableError || (error instanceof Error && "code" in error && error.code === "disk-full")
      assert.ok(isFull, `${name}: ${String(error)}`)
      failed = name
      if (failing === was + 1) assert.deepEqual(contentOf(study), before, `${name} failed and left something behind`)
      await take(study, made)
    }
    // What is in memory is what the medium holds.
    if (failed !== name) continue
    const now = contentOf(study)
    study.restart()
    assert.deepEqual(contentOf(study), now, `${name}: another state after a start`)
  }
  return { kinds: study.receipts.map(({ kind }) => kind), commits, failed }
}

const unbroken = await story()

test("the story writes at every step", () => {
  assert.ok(unbroken.commits >= steps.length, `${unbroken.commits} commits`)
  for (const kind of ["policy-activated", "key-released", "lease-renewed", "output-released", "lease-ended", "policy-withdrawn", "host-retired"])
    assert.ok(unbroken.kinds.includes(kind), kind)
})

for (const mode of ["before", "after"] as const)
  for (let failing = 1; failing <= unbroken.commits; failing++)
    test(`commit ${failing} fails ${mode} it took effect: the step is taken again or was taken, and nothing is lost or done twice`, async () => {
      const { kinds, failed } = await story(failing, mode)
      assert.ok(failed !== undefined)
      assert.deepEqual(kinds, unbroken.kinds, failed)
    })
