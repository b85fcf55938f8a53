import assert from "node:assert/strict"
import { mkdtempSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { z } from "zod"
import { digestOf } from "../bytes/digest.ts"
import { encodeBase64, encodeHex, encodeUtf8, parseBase64 } from "../bytes/text.ts"
import type { Policy } from "../policy/document.ts"
import { type SaltedSecret, secretCommitment } from "../policy/secrets.ts"
import { sealMessage } from "../protocol/hpke.ts"
import { receiptKindSchema } from "../protocol/messages.ts"
import { isProblemCode } from "../protocol/problem.ts"
import { routes } from "../protocol/routes.ts"
import { digestSchema, idSchema } from "../protocol/wire.ts"
import { ManagerMetrics } from "./metrics.ts"
import { observers } from "./observe.ts"
import { openOperatorLog } from "./operator-log.ts"
import { leastFreeBytes, notReadyReasons } from "./readiness.ts"
import { makeAgent, makeParts, TestStudy } from "./study.testing.ts"
import { LaboratoryTimeSource } from "./time-authority.testing.ts"

const parts = await makeParts()
const { clinic, vendor, consortium, records, trainer } = parts
const folder = mkdtempSync(join(tmpdir(), "perun-log-"))
process.once("exit", () => rmSync(folder, { recursive: true, force: true }))

const code = z.string().refine(isProblemCode)
const common = { level: z.enum(["debug", "info", "warn", "error"]), time: z.iso.datetime() } as const
/** All that a line may say: no free text but in warnings and notes, which are ours. */
const lineSchema = z.discriminatedUnion("event", [
  z.strictObject({
    ...common,
    event: z.literal("call"),
    id: z.string().regex(/^[0-9a-f]{16}$/),
    route: z.enum(["unknown", ...Object.keys(routes)]),
    method: z.enum(["GET", "HEAD", "POST", "PUT"]),
    status: z.int().min(200).max(599),
    code: code.optional(),
    ms: z.number().min(0),
    party: z
      .string()
      .regex(/^SHA256:[A-Za-z0-9+/]{43}$/)
      .optional(),
    tlsKey: digestSchema.optional(),
  }),
  z.strictObject({
    ...common,
    event: z.literal("receipt"),
    index: z.int().min(0),
    kind: receiptKindSchema,
    policy: digestSchema.optional(),
    run: idSchema.optional(),
    host: z.literal("host-1").optional(),
    code: z.string().max(64).optional(),
  }),
  z.strictObject({ ...common, event: z.literal("fault"), id: z.string(), code, words: z.string() }),
  z.strictObject({ ...common, event: z.literal("warning"), message: z.string() }),
  z.strictObject({ ...common, event: z.literal("note"), message: z.string() }),
])
type Line = z.output<typeof lineSchema>

function linesOf(path: string): readonly Line[] {
  return readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => lineSchema.parse(JSON.parse(line)))
}

const token: SaltedSecret = { salt: "5".repeat(64), value: encodeUtf8("t0ken-of-the-vendor") }

function policyWithSecret(study: TestStudy): Policy {
  const policy = study.policy()
  const train = policy.jobs["train"]
  assert.ok(train)
  return {
    ...policy,
    secrets: { token: { owner: "vendor", commitment: secretCommitment(token) } },
    jobs: { train: { ...train, secrets: { token: { environment: "API_TOKEN" } } } },
  }
}

test("a whole study leaves no secret in the operator's log nor in the metrics, and no word of a party's", async () => {
  const study = await TestStudy.create(parts)
  const path = join(folder, "study.log")
  using log = openOperatorLog({ to: path, level: "debug", complain: assert.fail })
  const metrics = new ManagerMetrics("1.2.3")
  study.observer = observers(log, metrics.observer)
  study.restart()
  metrics.watch(() => study.manager.state())

  const digest = await study.submit(policyWithSecret(study))
  for (const party of [vendor, clinic, consortium]) await study.sign(digest, party)
  const { depositKey, instance } = study.manager.description
  const context = { purpose: "secret", policy: digest, secret: "token", commitment: secretCommitment(token), manager: instance } as const
  const plaintext = encodeUtf8(JSON.stringify({ salt: token.salt, value: encodeBase64(token.value) }))
  const sealedValue = await sealMessage(parseBase64(depositKey), context, plaintext)
  await study.call(routes.depositSecret, study.as(vendor), { params: { digest }, body: { secret: "token", sealedValue } })
  await study.deposit(digest, "records", clinic, records)
  await study.deposit(digest, "trainer", vendor, trainer)
  const agent = await makeAgent()
  await study.enrol(agent)
  const run = await study.queue(digest)
  const grant = await study.claim(agent)
  const released = await study.openReleased(agent, grant)
  await study.renew(agent, grant.lease.id)
  const output = await study.makeOutput(agent, run)
  await study.call(routes.finishRun, agent, { params: { run }, body: { status: "succeeded" } })
  await study.vote(output, clinic)
  await study.vote(output, consortium)
  await study.call(routes.getOutputPackage, study.as(consortium), { params: { output } })
  const runKey = study.store.get("runKeys", run)
  await study.withdraw(digest, clinic)
  await assert.rejects(study.queue(digest), { code: "policy-withdrawn" })
  const header = study.as(clinic).header ?? ""
  await study.fetch("GET", `/v1/${encodeURIComponent("s3cret in the address")}`, { header })

  const lines = linesOf(path)
  const kinds = new Set(lines.flatMap((line) => (line.event === "receipt" ? [line.kind] : [])))
  for (const kind of ["secret-deposited", "key-released", "lease-renewed", "output-released", "policy-withdrawn"] as const)
    assert.ok(kinds.has(kind), `${kind} was not logged`)
  // Every receipt of the log, in its order.
  const logged = lines.flatMap((line) => (line.event === "receipt" ? [[line.index, line.kind]] : []))
  assert.deepEqual(
    logged,
    study.receipts.map(({ kind }, index) => [index, kind]),
  )
  const refused = lines.find((line) => line.event === "call" && line.code === "policy-withdrawn")
  assert.ok(refused?.event === "call" && refused.route === "queueRun" && refused.party !== undefined && refused.status === 403)

  const keys = study.store.get("keys", "manager")
  assert.ok(keys)
  const secrets: readonly (string | Uint8Array)[] = [
    study.vaultKey,
    records.identity,
    trainer.identity,
    token.value,
    token.salt,
    keys.depositPrivateKey,
    ...[keys.identityKey, keys.resultKey].map((pem) => pem.split("\n")[1] ?? ""),
    JSON.stringify(released).slice(10, 80),
    agent.hpke.privateKey,
    header,
    clinic.recipientIdentity,
    "s3cret",
    runKey?.identity ?? "",
    // Names that parties gave.
    '"records"',
    '"trainer"',
    '"clinic"',
    '"model"',
    '"a test"',
  ]
  const text = `${readFileSync(path, "utf8")}\n${await metrics.text()}`
  for (const secret of secrets) {
    assert.ok(secret.length > 0)
    const forms = typeof secret === "string" ? [secret] : [encodeHex(secret), encodeBase64(secret), Buffer.from(secret).toString("latin1")]
    for (const form of forms) assert.equal(text.includes(form), false, `found ${form.slice(0, 12)}…`)
  }
})

test("a fault is logged with its place and the number that its caller got, and without its words", async () => {
  const study = await TestStudy.create(parts)
  const path = join(folder, "fault.log")
  using log = openOperatorLog({ to: path, level: "info", complain: assert.fail })
  study.observer = log
  study.restart()
  const digest = await study.agree()
  study.whileJudging = async () => {
    throw new Error("AGE-SECRET-KEY-1QQQ", { cause: new RangeError("AGE-SECRET-KEY-2QQQ") })
  }
  const agent = await makeAgent()
  await study.enrol(agent)
  await study.queue(digest)
  const challenge = await study.challenge(agent)
  const response = await study.fetch("POST", routes.claimRun.path, agent, JSON.stringify(study.evidence(challenge, agent)))
  assert.equal(response.status, 500)
  const fault = linesOf(path).find((line) => line.event === "fault")
  assert.ok(fault?.event === "fault")
  assert.equal(fault.id, response.headers.get("x-request-id"))
  assert.match(fault.words, /^Error at .*operator-log\.test\.ts:\d+:\d+.*; caused by RangeError at /)
  assert.doesNotMatch(readFileSync(path, "utf8"), /AGE-SECRET/)
  assert.doesNotMatch(await response.text(), /AGE-SECRET/)
})

test("what the disk said is for the operator, not for the caller", async () => {
  const study = await TestStudy.create(parts)
  const path = join(folder, "disk.log")
  using log = openOperatorLog({ to: path, level: "info", complain: assert.fail })
  study.observer = log
  study.restart()
  study.journal.failNext = "before"
  await assert.rejects(study.submit(study.policy()), { code: "disk-full" })
  const [fault] = linesOf(path)
  assert.ok(fault?.event === "fault" && fault.code === "disk-full" && fault.words === "full")
})

test("no caller can make a series: every label is a word of this program", async () => {
  const study = await TestStudy.create(parts)
  const metrics = new ManagerMetrics("1.2.3")
  study.observer = metrics.observer
  study.restart()
  metrics.watch(() => study.manager.state())
  const series = async (): Promise<ReadonlySet<string>> =>
    new Set(
      (await metrics.text())
        .split("\n")
        .filter((line) => line.startsWith("perun_"))
        .map((line) => line.replace(/ [^ ]+$/, "")),
    )
  const strange = async (n: number): Promise<void> => {
    for (const method of ["GET", "POST", "PUT", "DELETE", `VERB${n}`]) await study.fetch(method, `/v1/${n}/x${n}?a=${n}`, { header: `${n}` })
    await study.fetch("GET", `/v1/runs/${String(n).padStart(32, "0")}`, study.as(clinic))
    await study.fetch("GET", `/v1/policies/${digestOf(encodeUtf8(String(n)))}`, study.as(clinic))
  }
  await strange(0)
  const before = await series()
  for (let n = 1; n < 20; n++) await strange(n)
  assert.deepEqual(
    [...(await series())].filter((each) => !before.has(each)),
    [],
  )
  for (const each of before) {
    for (const [, label = "", value = ""] of each.matchAll(/([a-z_]+)="([^"]*)"/g)) {
      const isKnown =
        (label === "route" && (value === "unknown" || Object.hasOwn(routes, value))) ||
        (label === "code" && (value === "ok" || isProblemCode(value))) ||
        (label === "reason" && Object.hasOwn(notReadyReasons, value)) ||
        (label === "state" && /^[a-z]+$/.test(value)) ||
        (label === "le" && /^(?:[0-9.]+|\+Inf)$/.test(value)) ||
        ["version", "node"].includes(label)
      assert.ok(isKnown, each)
    }
  }
})

test("the metrics count what the manager holds", async () => {
  const study = await TestStudy.create(parts)
  const metrics = new ManagerMetrics("1.2.3")
  study.observer = metrics.observer
  study.restart()
  const has = async (...lines: readonly string[]): Promise<void> => {
    const text = (await metrics.text()).split("\n")
    for (const line of lines)
      assert.ok(text.includes(line), `${line}\n${text.filter((each) => each.startsWith(line.split(" ")[0] ?? "")).join("\n")}`)
  }
  await has("perun_locked 1", "perun_ready 0")
  assert.deepEqual(metrics.notReady(), ["locked"])
  assert.doesNotMatch(await metrics.text(), /^perun_(?:members|log_entries|disk_free_bytes|runs)[ {]/m)
  metrics.watch(() => study.manager.state())
  await has("perun_locked 0", "perun_ready 1", 'perun_policies{state="active"} 0')
  const { digest } = await study.running()
  await has(
    'perun_policies{state="active"} 1',
    'perun_runs{state="running"} 1',
    'perun_hosts{state="enrolled"} 1',
    "perun_leases_running 1",
    "perun_members 3",
    'perun_receipts_total{kind="key-released"} 1',
    'perun_http_requests_total{route="claimRun",code="ok"} 1',
    `perun_log_entries ${study.store.logSize}`,
  )
  await study.withdraw(digest, vendor)
  await has('perun_policies{state="withdrawn"} 1', 'perun_policies{state="active"} 0', "perun_leases_running 0", 'perun_runs{state="ended"} 1')
})

test("a manager that cannot do its work says so, and why", async () => {
  const study = await TestStudy.create(parts)
  const start = study.clock.wall
  study.timeSource = new LaboratoryTimeSource(() => start + study.clock.monotonic)
  study.restart()
  const notReady = async (): Promise<string> => {
    const response = await study.fetch("GET", routes.ready.path, {})
    if (response.status === 200) return ""
    const problem = (await response.json()) as { code: string; detail: string }
    assert.deepEqual([response.status, problem.code], [503, "not-ready"])
    return problem.detail.replaceAll(/:[^;]*/g, "")
  }
  assert.equal(await notReady(), "time-unchecked")
  await study.manager.checkTime()
  assert.equal(await notReady(), "")
  study.freeBytes = leastFreeBytes - 1
  assert.equal(await notReady(), "disk-nearly-full")
  study.clock.wall += 61_000
  assert.equal(await notReady(), "time-unchecked; disk-nearly-full")
  study.clock.wall -= 61_000
  study.freeBytes = leastFreeBytes
  assert.equal(await notReady(), "")
  study.journal.failNext = "after"
  study.journal.isBlind = true
  await assert.rejects(study.submit(study.policy()), { code: "unavailable" })
  assert.equal(await notReady(), "store-broken")
  assert.deepEqual(study.manager.state().notReady, ["store-broken"])
})

test("the log is opened anew where its file was moved away, and is for its owner and group alone", () => {
  const path = join(folder, "moved.log")
  using log = openOperatorLog({ to: path, level: "warn", complain: assert.fail })
  log.warned("before")
  log.said("not from this level on")
  assert.equal(statSync(path).mode & 0o777, 0o640)
  renameSync(path, `${path}.1`)
  log.warned("still there")
  log.reopen()
  log.warned("after")
  const words = (file: string): readonly string[] => linesOf(file).flatMap((line) => (line.event === "warning" ? [line.message] : []))
  assert.deepEqual([words(`${path}.1`), words(path)], [["before", "still there"], ["after"]])
})

test("a log that cannot be written is told once and does not end the manager", () => {
  const told: string[] = []
  using log = openOperatorLog({ to: "/dev/full", level: "info", complain: (line) => told.push(line) })
  for (let n = 0; n < 10; n++) log.warned("x".repeat(1000))
  assert.equal(told.length, 1)
  assert.match(told[0] ?? "", /^the log \/dev\/full cannot be written: ENOSPC/)
  const path = join(folder, "later.log")
  symlinkSync("/dev/full", path)
  using later = openOperatorLog({ to: path, level: "info", complain: (line) => told.push(line) })
  later.warned("kept")
  for (let n = 0; n < 12; n++) later.warned("x".repeat(100_000))
  assert.equal(told.length, 2)
  rmSync(path)
  later.reopen()
  assert.match(told[2] ?? "", /^the log is written again; 2 lines are lost$/)
  const [first, ...rest] = linesOf(path)
  assert.ok(first?.event === "warning" && first.message === "kept")
  assert.equal(rest.length, 10)
  assert.throws(() => openOperatorLog({ to: join(folder, "none", "x.log"), level: "info", complain: assert.fail }), { code: "unavailable" })
})
