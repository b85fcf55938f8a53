/**
 * The short laboratory run of CI: builds the small image, boots a machine that proves itself and trains, and one with a changed byte that must be refused; then the same
 * of machines that carry a TEE device.
 * Prints a line per step; exit 0 only when all went as it must.
 *
 *     node lab/scenarios/ci.ts
 */
import { mkdir, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { messageOf } from "../../src/cli/exit.ts"
import { Output } from "../../src/cli/output.ts"
import { buildImage } from "../image/build.ts"
import { tamperImage } from "../image/tamper.ts"
import { labCa } from "../machine/tpm.ts"
import { imageReferences } from "../reference/image-references.ts"
import { setUpLab } from "../setup.ts"
import { TdxProcessor } from "../devices/tdx-processor.ts"
import { prepareAttacks } from "./attacks.ts"
import { tryEnclaves } from "./enclaves.ts"
import { makeParties, sealAll, tamperedProgram } from "./demo-study.ts"
import { startNewManager } from "./manager-process.ts"
import type { TrialResult } from "./watch-machines.ts"

const output = new Output({ json: false })
const folder = await mkdtemp(join(tmpdir(), "perun-ci-"))
const started = performance.now()
const stop = new AbortController()
try {
  await setUpLab({ say: (line) => output.line(line), confirm: async () => true })
  const progress = output.progress()
  const onProgress = ({ step, done, total }: { readonly step: string; readonly done: number; readonly total: number }): void =>
    progress.update(step, done, total)
  const sealedImage = await buildImage({ kind: "small", level: "sealed", onProgress })
  const administered = await buildImage({ kind: "small", level: "administered", onProgress })
  const images = {
    sealed: sealedImage,
    administered,
    tampered: await tamperImage(sealedImage, { path: tamperedProgram }),
    references: { sealed: await imageReferences(sealedImage, onProgress), administered: await imageReferences(administered, onProgress) },
  }
  progress.end()
  output.line(`images and reference values: ${seconds()}`)
  const ca = await labCa()
  const processor = new TdxProcessor()
  await using manager = await startNewManager(join(folder, "manager"), [ca.rootDer, processor.authority.root.certificate.der])
  await mkdir(join(folder, "parties"))
  const parties = await makeParties(join(folder, "parties"), manager)
  const sealed = await sealAll(parties, folder, output)
  const setting = {
    ...{ manager, clinic: parties.clinicA, vendor: parties.vendor, folder },
    expires: new Date(Date.now() + 86_400_000).toISOString().replace(/\.\d+Z$/, "Z"),
    manifests: { records: sealed.recordsA, trainer: sealed.smallTrainer },
    folders: { records: "records-a", trainer: "trainer-js" },
    laboratoryRoot: ca.fingerprint,
    signal: stop.signal,
    onJudged: (result: TrialResult) => output.line(`${result.host}: ${result.outcome} after ${result.seconds.toFixed(0)} s`),
  }
  const attacks = await prepareAttacks({ ...setting, images, only: ["modified-binary"] })
  for (const { attack, code, found, expected } of await attacks.boot()) output.line(`${attack}: ${code}: found ${found}, expected ${expected}`)
  output.line(`hosts are done: ${seconds()}`)
  const enclaves = await tryEnclaves({ ...setting, processor, images: { ...images, references: images.references.sealed } })
  for (const { machine, codes } of enclaves.refused) output.line(`${machine}: refused, ${codes.join(", ")}`)
  for (const party of Object.values(parties)) party.leave()
  output.line(`done: machines by TPM, by TEE and by both proved themselves and trained, changed ones were refused: ${seconds()}`, "good")
} catch (error) {
  const { message, lines } = messageOf(error)
  output.line(`failed: ${message}`, "bad")
  for (const line of lines) output.line(`  ${line}`)
  process.exitCode = 1
} finally {
  stop.abort()
  await rm(folder, { recursive: true, force: true })
}

function seconds(): string {
  return `${((performance.now() - started) / 1000).toFixed(0)} s`
}
