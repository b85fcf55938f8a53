import assert from "node:assert/strict"
import { test } from "node:test"
import { collectTee } from "../../src/evidence/tee/collectors/collect.ts"
import { teeRootsFor } from "../../src/evidence/tee/roots.ts"
import { parseVouchers, withVouchers } from "../../src/evidence/tee/vouchers.ts"
import { verifyTee } from "../../src/evidence/tee/verify.ts"
import { appraiseTee } from "../../src/policy/appraise-tee.ts"
import type { TeeRequirement } from "../../src/policy/tee.ts"
import type { Launch } from "../machine/launch.ts"
import { AmdAuthority, makeRsaKey } from "./amd-authority.ts"
import { SnpDevice } from "./amd-snp.ts"
import { smallLaunch } from "./launch.testing.ts"
import { SnpProcessor } from "./snp-processor.ts"

const [ark, ask] = await Promise.all([makeRsaKey(), makeRsaKey()])
const processor = new SnpProcessor(new SnpDevice(new AmdAuthority("Milan", { ark, ask, asvk: ask })))
const launch = smallLaunch()
const reportData = new Uint8Array(64).fill(3)

async function refusals(of: Launch, accept: TeeRequirement): Promise<readonly string[]> {
  const report = await collectTee("tsm", reportData, { files: processor.filesOf(of) })
  const evidence = withVouchers(report, parseVouchers("snp", processor.collateral))
  const roots = teeRootsFor(evidence, [processor.rootFingerprint])
  const genuine = verifyTee(evidence, { reportData, roots, time: Date.now(), ccelQuirks: [] })
  return appraiseTee(genuine, [accept]).findings.flatMap(({ effect, code, subject }) => (effect === "refusal" ? [`${code} ${subject}`] : []))
}

test("a SEV-SNP device reports the launch digest of what its machine starts from, and a policy made of the same bytes accepts it", async () => {
  assert.deepEqual(await refusals(launch, processor.requirementOf(launch)), [])
})

test("a SEV-SNP device of another launch is refused by its measurement", async () => {
  const expected = ["tee-measurement-differs MEASUREMENT"]
  assert.deepEqual(await refusals({ ...launch, commandLine: "init=/bin/sh" }, processor.requirementOf(launch)), expected)
  assert.deepEqual(await refusals({ ...launch, initrd: new Uint8Array(5000) }, processor.requirementOf(launch)), expected)
})
