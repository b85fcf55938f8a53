import { readFile, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { digestOfJson } from "../../src/bytes/digest.ts"
import { encodeHex } from "../../src/bytes/text.ts"
import type { BootClaims, BootEvent } from "../../src/evidence/eventlog/claims.ts"
import { linuxTagOf, loadOptionsDigest } from "../../src/evidence/eventlog/contents.ts"
import { parseEventLog } from "../../src/evidence/eventlog/format.ts"
import { replayEventLog } from "../../src/evidence/eventlog/replay.ts"
import { verifyEventLog } from "../../src/evidence/eventlog/verify.ts"
import { parseImaList, readImaEntry } from "../../src/evidence/ima/format.ts"
import { cachedFolder } from "../cache.ts"
import { LabError } from "../error.ts"
import { measuredCommandLine } from "../image/command-line.ts"
import { encodeInitrd, guestFile, withFolders } from "../image/initrd.ts"
import { digestOfFile } from "../image/tree.ts"
import { bootMachine } from "../machine/boot.ts"
import { findFirmware } from "../machine/firmware.ts"
import { shownBytes } from "../machine/shown.ts"
import { manufactureTpm } from "../machine/tpm.ts"
import { runProgram } from "../process.ts"
import type { OnProgress } from "../progress.ts"
import { authenticodeDigest, kernelAsQemuLoadsIt } from "./kernel-digest.ts"

/** What every boot of this firmware and kernel under this QEMU measures, whatever is booted with it. */
export interface BootProbe {
  /** Events of PCRs 0 to 9 in the log's order; those that differ from image to image are named by `varies` and have the probe's digest. */
  readonly events: readonly ProbedEvent[]
  readonly startupLocality: number
  readonly secureBoot: BootClaims["secureBoot"]
  /** Measured keys: IMA buffer name to digests `sha256:…`. */
  readonly buffers: Readonly<Record<string, readonly string[]>>
  /** Whether the kernel took a second IMA policy. */
  readonly replaceable: "no" | "yes"
}

export interface ProbedEvent extends Pick<BootEvent, "pcr" | "type" | "digest" | "description"> {
  readonly varies?: "kernel" | "command-line" | "initrd"
}

/** What the probe boots: a kernel, and the tree of its boot packages for busybox. */
export interface ProbedKernel {
  readonly kernel: string
  readonly bootTree: string
  /** The firmware measures volumes where it has put them in memory, so that what it measures differs between sizes of memory. */
  readonly memoryMiB: number
}

/**
 * Boots a machine once per firmware, QEMU, kernel and size of memory to see what they measure, and holds our computation of the measured kernel, command line and initrd
 * against it.
 * @throws {LabError} `build-failed` where the computation does not fit this QEMU
 */
export async function probeBoot(probed: ProbedKernel, onProgress?: OnProgress): Promise<BootProbe> {
  const firmware = await findFirmware()
  const script = await readFile(guestFile("probe-init"))
  const policy = await readFile(guestFile("ima-policy.sealed"))
  const key = digestOfJson({
    version: 3,
    memoryMiB: probed.memoryMiB,
    code: await digestOfFile(firmware.code),
    variables: await digestOfFile(firmware.variables),
    qemu: (await runProgram("qemu-system-x86_64", ["--version"])).split("\n")[0] ?? "",
    kernel: await digestOfFile(probed.kernel),
    script: script.toString("utf8"),
    policy: policy.toString("utf8"),
    commandLine: probeCommandLine,
  })
  const folder = await cachedFolder(`boot-${key.slice("sha256:".length, "sha256:".length + 16)}`, async (temporary) => {
    onProgress?.({ step: "seeing what the firmware measures", done: 0, total: 1 })
    const initrd = encodeInitrd(
      withFolders([
        ["bin/busybox", await readFile(join(probed.bootTree, "bin/busybox")), 0o755],
        ["ima-policy", policy, 0o644],
        ["init", script, 0o755],
      ]),
    )
    await writeFile(join(temporary, "initrd.img"), initrd)
    const logs = await bootProbe(temporary, probed, join(temporary, "initrd.img"))
    const kernel = new Uint8Array(await readFile(probed.kernel))
    const expected = {
      kernel: authenticodeDigest(kernelAsQemuLoadsIt(kernel, { memoryMiB: probed.memoryMiB, initrdBytes: initrd.length })),
      commandLine: encodeHex(loadOptionsDigest(measuredCommandLine(probeCommandLine), "sha256")),
      initrd: (await digestOfFile(join(temporary, "initrd.img"))).slice("sha256:".length),
    }
    await writeFile(join(temporary, "probe.json"), JSON.stringify({ ...judgeProbe(logs.events, logs.ima, expected), replaceable: logs.replaceable }))
    await writeFile(join(temporary, "events.bin"), logs.events)
    onProgress?.({ step: "the firmware's measurements are known", done: 1, total: 1 })
  })
  // Written above into a folder that was moved into place as a whole.
  return JSON.parse(await readFile(join(folder, "probe.json"), "utf8")) as BootProbe
}

/** Digests that the probe's own kernel, command line and initrd must have, lower-case hexadecimal. */
export interface ExpectedDigests {
  readonly kernel: string
  readonly commandLine: string
  readonly initrd: string
}

/** @throws {LabError} `build-failed` where an expected digest is not in the log, or not in its place */
export function judgeProbe(eventLog: Uint8Array, imaList: Uint8Array, expected: ExpectedDigests): Omit<BootProbe, "replaceable"> {
  const log = parseEventLog(eventLog)
  const registers = replayEventLog(log, "sha256").registers
  // The probe has no quote: what it would say is what the log leads to.
  const quotedPcrs = new Map([...registers].filter(([pcr]) => pcr <= 9).map(([pcr, value]) => [pcr, encodeHex(value)] as const))
  const { claims } = verifyEventLog(eventLog, { bank: "sha256", quotedPcrs })
  const tags = new Map(log.events.map((event) => [event.index, linuxTagOf(event)] as const))
  const found = new Set<string>()
  const events = claims.events.map(({ index, pcr, type, digest, description }): ProbedEvent => {
    const event = { pcr, type, digest, description }
    const varies = variesOf(pcr, digest, tags.get(index), expected)
    if (varies === undefined) return event
    found.add(varies)
    return { ...event, varies, description: descriptions[varies] }
  })
  for (const part of ["kernel", "command-line", "initrd"])
    if (!found.has(part)) throw new LabError("build-failed", `this QEMU or firmware measures the ${part} in a way that is not known here`)
  const buffers: Record<string, string[]> = {}
  for (const record of parseImaList(imaList)) {
    const entry = readImaEntry(record)
    if (entry.buffer !== undefined) (buffers[Buffer.from(entry.name).toString("utf8")] ??= []).push(`${entry.hashAlgorithm}:${entry.digest}`)
  }
  return { events, startupLocality: claims.startupLocality, secureBoot: claims.secureBoot, buffers }
}

function variesOf(pcr: number, digest: string, tag: ReturnType<typeof linuxTagOf>, expected: ExpectedDigests): ProbedEvent["varies"] {
  if (pcr === 4 && digest === expected.kernel) return "kernel"
  if (pcr === 9 && tag === "load-options" && digest === expected.commandLine) return "command-line"
  if (pcr === 9 && tag === "initrd" && digest === expected.initrd) return "initrd"
  return undefined
}

async function bootProbe(
  folder: string,
  { kernel, memoryMiB }: ProbedKernel,
  initrd: string,
): Promise<{ readonly events: Uint8Array; readonly ima: Uint8Array; readonly replaceable: BootProbe["replaceable"] }> {
  const tpm = await manufactureTpm(join(folder, "tpm"))
  try {
    await using machine = await bootMachine({
      image: { kind: "small", kernel, initrd, commandLine: probeCommandLine, disks: [] },
      tpm,
      folder: join(folder, "machine"),
      memoryMiB,
      network: "none",
    })
    await machine.waitForConsole("perun-probe: end replaceable", { timeoutSeconds: probeTimeoutSeconds })
    const text = await machine.consoleText()
    const replaceable = new TextDecoder().decode(shownBytes(text, "replaceable")).trim() === "no" ? "no" : "yes"
    return { events: shownBytes(text, "events"), ima: shownBytes(text, "ima"), replaceable }
  } finally {
    await rm(join(folder, "tpm"), { recursive: true, force: true })
    await rm(join(folder, "machine"), { recursive: true, force: true })
  }
}

const descriptions = { kernel: "Linux kernel", "command-line": "kernel command line", initrd: "initial ram disk" } as const
const probeCommandLine = "console=ttyS0 quiet loglevel=1 panic=-1 no_timer_check ima_policy=tcb ima_hash=sha256 ima_template=ima-ng"
const probeTimeoutSeconds = 180
