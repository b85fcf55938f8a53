/**
 * Boots a laboratory machine with a TPM and a laboratory's TDX device for real, lets its guest ask the device, and holds quote and event log against the policy's demands
 * and against what firmware and kernel measured into the TPM. INSECURE LABORATORY.
 *
 *     node lab/smoke-confidential.ts
 */
import { randomBytes } from "node:crypto"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as z from "zod"
import { parseJson } from "../src/bytes/json.ts"
import { encodeHex, encodeUtf8, parseHex } from "../src/bytes/text.ts"
import { parseDcapCollateral } from "../src/evidence/dcap/endorsements.ts"
import { parseEventLog } from "../src/evidence/eventlog/format.ts"
import type { TeeEvidence } from "../src/evidence/tee/format.ts"
import { teeRootsFor } from "../src/evidence/tee/roots.ts"
import { verifyTee } from "../src/evidence/tee/verify.ts"
import { hash } from "../src/pki/signatures.ts"
import { appraiseTee } from "../src/policy/appraise-tee.ts"
import type { TeeRequirement } from "../src/policy/tee.ts"
import type { MeasuredEvent } from "./devices/measured-events.ts"
import { tdEvents } from "./devices/td-launch.ts"
import { TdxProcessor } from "./devices/tdx-processor.ts"
import { buildBase } from "./image/base.ts"
import { encodeInitrd, guestFile, withFolders } from "./image/initrd.ts"
import { listTree } from "./image/tree.ts"
import type { Bootable } from "./machine/boot.ts"
import { startConfidentialMachine, teeUrlForGuests } from "./machine/confidential-machine.ts"
import { type Launch, launchOfImage } from "./machine/launch.ts"
import { shownBytes } from "./machine/shown.ts"
import { manufactureTpm } from "./machine/tpm.ts"
import { missingPackages } from "./setup.ts"

const commandLine = "console=ttyS0 quiet loglevel=1 panic=-1 no_timer_check"
const bootSeconds = 180
/** Events that a TPM has in another form, or not at all: there the firmware's volumes are measured where they lie in memory. */
const onlyInTds: ReadonlySet<string> = new Set(["EV_EFI_HANDOFF_TABLES2", "EV_EFI_PLATFORM_FIRMWARE_BLOB2", "EV_PLATFORM_CONFIG_FLAGS"])

let passed = 0
let failed = 0

function check(name: string, good: boolean, detail = ""): void {
  if (good) passed++
  else failed++
  console.log(`${good ? "ok    " : "FAILED"} ${name}${good || detail === "" ? "" : `: ${detail}`}`)
}

const missing = await missingPackages()
if (missing.length > 0) {
  console.log(`install first: ${missing.map(({ name }) => name).join(" ")}`)
  process.exit(50)
}
const folder = await mkdtemp(join(tmpdir(), "perun-smoke-tee-"))
try {
  const image = await probeImage()
  const processor = new TdxProcessor()
  const launch = await launchOfImage(image)
  const demands = processor.requirementOf(launch)
  const reportData = new Uint8Array(randomBytes(64))
  const started = performance.now()
  const shown = await boot(processor, image, reportData)
  console.log(`       booted, asked and off after ${((performance.now() - started) / 1000).toFixed(1)} s`)

  const answer = z.object({ quote: z.string(), event_log: z.string() }).parse(parseJson(shown.answer, { maxBytes: 1 << 20 }))
  const evidence: TeeEvidence = {
    kind: "tdx",
    quote: parseHex(answer.quote),
    eventLog: encodeUtf8(answer.event_log),
    collateral: parseDcapCollateral(processor.collateral),
  }
  const genuine = verifyTee(evidence, {
    ...{ reportData, time: Date.now(), ccelQuirks: [] },
    roots: teeRootsFor(evidence, [processor.rootFingerprint]),
  })
  const refused = (accept: TeeRequirement): readonly string[] =>
    appraiseTee(genuine, [accept]).findings.flatMap(({ effect, subject }) => (effect === "refusal" ? [subject] : []))
  check("the quote is genuine, over the report data that the guest was given", genuine.kind === "tdx" && genuine.tee.claims.isReportDataChecked)
  check("it meets what the policy computed before the boot", refused(demands).length === 0, refused(demands).join(", "))
  check("it meets what was computed from QEMU's own files", refused(shown.requirement).length === 0, refused(shown.requirement).join(", "))

  const measured = parseEventLog(shown.events).events.map(({ digests }) => encodeHex(digests.get("sha256") ?? new Uint8Array(0)))
  const inTpm = (of: Launch): readonly MeasuredEvent[] => tdEvents(of).filter(({ type }) => !onlyInTds.has(type))
  const absent = (of: Launch): readonly MeasuredEvent[] =>
    inTpm(of).filter(({ data, hashed }) => !measured.includes(encodeHex(hash("sha256", hashed ?? data))))
  const lacking = absent(launch).map(({ type }) => type)
  check(`firmware and kernel measured the same ${inTpm(launch).length} things into the TPM`, lacking.length === 0, lacking.join(", "))
  const otherLine = { ...launch, commandLine: `${launch.commandLine} init=/bin/sh` }
  check("of another command line they measured all but that", absent(otherLine).length === 1)

  const changed = processor.requirementOf(otherLine)
  check("a machine with another command line is refused by RTMR2", refused(changed).join() === "RTMR2", refused(changed).join(", "))
  const elsewhere = processor.another("ff".repeat(16)).requirementOf(launch)
  check("a machine on another processor is refused by its PPID", refused(elsewhere).join() === "PPID", refused(elsewhere).join(", "))
} finally {
  await rm(folder, { recursive: true, force: true })
}
console.log(`${passed} passed, ${failed} failed. INSECURE LABORATORY`)
process.exitCode = failed === 0 ? 0 : 10

/** The small image's kernel with a ram disk that asks, and nothing else. */
async function probeImage(): Promise<Bootable> {
  const base = await buildBase("small", process.execPath, ({ step }) => console.log(`       ${step}`))
  const modules = (await listTree(join(base.bootTree, "modules"))).filter(({ kind, path }) => kind === "file" && !path.includes("dm-"))
  const initrd = encodeInitrd(
    withFolders([
      ["bin/busybox", await readFile(join(base.bootTree, "bin/busybox")), 0o755],
      ...(await Promise.all(
        modules.map(async ({ path }) => [`modules/${path}`, await readFile(join(base.bootTree, "modules", path)), 0o644] as const),
      )),
      ["tee-url", encodeUtf8(teeUrlForGuests), 0o644],
      ["init", await readFile(guestFile("tee-init")), 0o755],
    ]),
  )
  await writeFile(join(folder, "initrd.img"), initrd)
  return { kind: "small", kernel: base.kernel, initrd: join(folder, "initrd.img"), commandLine, disks: [] }
}

interface Shown {
  readonly answer: Uint8Array
  readonly events: Uint8Array
  readonly requirement: TeeRequirement
}

async function boot(processor: TdxProcessor, image: Bootable, reportData: Uint8Array): Promise<Shown> {
  const tpm = await manufactureTpm(join(folder, "tpm"))
  await using confidential = await startConfidentialMachine({
    ...{ processor, image, tpm, network: "none" },
    folder: join(folder, "machine"),
    configuration: `${encodeHex(reportData)}\n`,
  })
  const { machine, requirement } = confidential
  await machine.waitForConsole("perun-probe: end events", { timeoutSeconds: bootSeconds })
  const text = await machine.consoleText()
  return { answer: shownBytes(text, "answer"), events: shownBytes(text, "events"), requirement }
}
