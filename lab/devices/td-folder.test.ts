import assert from "node:assert/strict"
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { verifyTdxQuote } from "../../src/evidence/tdx/verify.ts"
import { certificateFingerprint } from "../../src/pki/certificate.ts"
import { makeTdxQuote } from "./dcap/device.ts"
import { openTdFolder, tdFiles } from "./td-folder.ts"

const base = await mkdtemp(join(tmpdir(), "perun-td-folder-"))
after(() => rm(base, { recursive: true, force: true }))

test("openTdFolder() keeps root and keys over a restart, readable by their owner alone", async () => {
  const folder = join(base, "td")
  const before = await openTdFolder(folder)
  const pinned = await readFile(join(folder, tdFiles.root), "utf8")
  const again = await openTdFolder(folder)
  assert.equal(certificateFingerprint(again.root.certificate), certificateFingerprint(before.root.certificate))
  assert.equal(await readFile(join(folder, tdFiles.root), "utf8"), pinned)
  assert.equal((await stat(join(folder, tdFiles.device))).mode & 0o777, 0o600)
})

test("openTdFolder() gives a device whose quotes verify under the root of before, with collateral as of now", async () => {
  const folder = join(base, "verified")
  const { root } = await openTdFolder(folder)
  const again = await openTdFolder(folder)
  const reportData = new Uint8Array(64).fill(7)
  const quote = makeTdxQuote(again, reportData, { body: "1.5", version: 5 })
  const { claims } = verifyTdxQuote({ quote, collateral: again.tdxCollateral }, { roots: [root], reportData, time: Date.now() })
  assert.equal(claims.dcap.tcb.status, "UpToDate")
})

test("openTdFolder() shares one device among those who start at once", async () => {
  const opened = await Promise.all([1, 2, 3, 4].map(async () => openTdFolder(join(base, "raced"))))
  assert.equal(new Set(opened.map(({ root }) => certificateFingerprint(root.certificate))).size, 1)
})

test("openTdFolder() refuses a file that is no device, and leaves it", async () => {
  const folder = join(base, "broken")
  await openTdFolder(folder)
  await writeFile(join(folder, tdFiles.device), '{"perun":1}')
  await assert.rejects(openTdFolder(folder), { code: "malformed", path: join(folder, tdFiles.device) })
  assert.equal(await readFile(join(folder, tdFiles.device), "utf8"), '{"perun":1}')
})
