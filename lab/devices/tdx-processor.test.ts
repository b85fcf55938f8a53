import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { parseDcapCollateral } from "../../src/evidence/dcap/endorsements.ts"
import { storeCollateral, withCachedCollateral } from "../../src/evidence/collateral/cache.ts"
import { collectTee } from "../../src/evidence/tee/collectors/collect.ts"
import type { TeeEvidence } from "../../src/evidence/tee/format.ts"
import { teeRootsFor } from "../../src/evidence/tee/roots.ts"
import { verifyTee } from "../../src/evidence/tee/verify.ts"
import { appraiseTee } from "../../src/policy/appraise-tee.ts"
import { teeRequirementSchema, type TeeRequirement } from "../../src/policy/tee.ts"
import type { Launch } from "../machine/launch.ts"
import { smallLaunch } from "./launch.testing.ts"
import { TdxProcessor } from "./tdx-processor.ts"

const folder = await mkdtemp(join(tmpdir(), "perun-td-"))
after(async () => rm(folder, { recursive: true, force: true }))
const processor = new TdxProcessor()
const launch = smallLaunch()
const reportData = new Uint8Array(64).fill(9)
let sockets = 0

async function quoteOf(of: Launch, by = processor): Promise<TeeEvidence> {
  const socket = join(folder, `device-${sockets++}`)
  await using _device = await by.start(of, socket)
  return await collectTee(`unix:${socket}`, reportData)
}

function refusals(evidence: TeeEvidence, accept: TeeRequirement): readonly string[] {
  const whole =
    evidence.kind === "tdx" && evidence.collateral === undefined ? { ...evidence, collateral: parseDcapCollateral(processor.collateral) } : evidence
  const roots = teeRootsFor(whole, [processor.rootFingerprint])
  const genuine = verifyTee(whole, { reportData, roots, time: Date.now(), ccelQuirks: [] })
  return appraiseTee(genuine, [accept]).findings.flatMap(({ effect, code, subject }) => (effect === "refusal" ? [`${code} ${subject}`] : []))
}

test("a device quotes what its machine starts from, with the log, and a policy made of the same bytes accepts it", async () => {
  const evidence = await quoteOf(launch)
  const accept = processor.requirementOf(launch)
  assert.ok(evidence.kind === "tdx" && evidence.eventLog !== undefined)
  assert.deepEqual(refusals(evidence, accept), [])
  assert.deepEqual(teeRequirementSchema.parse(accept), accept)
})

test("a device of another launch is refused by the register that differs", async () => {
  const accept = processor.requirementOf(launch)
  const refusedBy = async (change: Partial<Launch>): Promise<readonly string[]> => refusals(await quoteOf({ ...launch, ...change }), accept)
  assert.deepEqual(await refusedBy({ commandLine: "init=/bin/sh" }), ["tee-measurement-differs RTMR2"])
  assert.deepEqual(await refusedBy({ firmwareCode: new Uint8Array(8192) }), ["tee-measurement-differs MRTD"])
  assert.deepEqual(await refusedBy({ processors: 1 }), ["tee-measurement-differs RTMR0"])
})

test("a quote without its log is refused, and a log of another launch is not genuine", async () => {
  const evidence = await quoteOf(launch)
  const foreign = await quoteOf({ ...launch, commandLine: "init=/bin/sh" })
  assert.ok(evidence.kind === "tdx" && foreign.kind === "tdx" && foreign.eventLog !== undefined)
  const { eventLog: _withheld, ...bare } = evidence
  assert.deepEqual(refusals(bare, processor.requirementOf(launch)), ["tee-log-missing CC event log"])
  assert.throws(() => refusals({ ...evidence, eventLog: foreign.eventLog as Uint8Array }, processor.requirementOf(launch)), { code: "pcr-mismatch" })
})

test("TdxProcessor.another() has the same collateral and root, and is refused by its PPID alone", async () => {
  const other = processor.another("ab".repeat(16))
  assert.equal(other.collateral, processor.collateral)
  assert.equal(other.rootPem, processor.rootPem)
  const evidence = await quoteOf(launch, other)
  assert.deepEqual(refusals(evidence, processor.requirementOf(launch)), [`tee-platform-not-listed PPID`])
  assert.deepEqual(refusals(evidence, other.requirementOf(launch)), [])
})

test("a manager's cache takes the processor's collateral once, and has it for every machine's quote", async () => {
  const judge = { roots: (of: TeeEvidence) => teeRootsFor(of, [processor.rootFingerprint]), time: Date.now() }
  const first = await quoteOf(launch)
  assert.ok(first.kind === "tdx")
  const cache = join(folder, "collateral")
  await storeCollateral(cache, { ...first, collateral: parseDcapCollateral(processor.collateral) }, judge)
  const later = await withCachedCollateral(cache, await quoteOf({ ...launch, memoryMiB: 1024 }, processor.another("cd".repeat(16))), judge)
  assert.ok(later.kind === "tdx" && later.collateral !== undefined)
})

test("a device answers nothing but GetQuote with 64 bytes of report data", async () => {
  const socketPath = join(folder, "strict")
  await using _device = await processor.start(launch, socketPath)
  const status = async (path: string): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      request({ socketPath, path }, (response) => resolve(response.resume().statusCode))
        .on("error", reject)
        .end()
    })
  assert.equal(await status(`/GetQuote?report_data=${"00".repeat(64)}`), 200)
  for (const path of [
    "/",
    "/GetQuote",
    `/GetQuote?report_data=${"00".repeat(63)}`,
    `/GetQuote?report_data=${"0G".repeat(64)}`,
    `/Info?report_data=${"00".repeat(64)}`,
  ])
    assert.equal(await status(path), 400, path)
})
