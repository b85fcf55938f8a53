import { readFile } from "node:fs/promises"
import { encodeHex } from "../../src/bytes/text.ts"
import { loadOptionsDigest } from "../../src/evidence/eventlog/contents.ts"
import { captureImaReference, type ReferenceTimes } from "../../src/policy/capture.ts"
import type { BootReference, ImaReference } from "../../src/policy/reference.ts"
import type { Image } from "../image/build.ts"
import { measuredCommandLine } from "../image/command-line.ts"
import { memoryMiB } from "../image/recipe.ts"
import { digestOfFile } from "../image/tree.ts"
import type { OnProgress } from "../progress.ts"
import { authenticodeDigest, kernelAsQemuLoadsIt } from "./kernel-digest.ts"
import { type BootProbe, probeBoot } from "./probe.ts"

export interface ReferenceOptions extends ReferenceTimes {
  /** Memory of the machines, which the measured kernel depends on; default is the image's. */
  readonly memoryMiB?: number
  readonly onProgress?: OnProgress
}

export interface References {
  readonly boot: BootReference
  readonly ima: ImaReference
}

/** Reference values of an image: computed from what it was built of, with the firmware's part from one probe boot that is kept in the cache. */
export async function buildReferences(image: Image, options: ReferenceOptions): Promise<References> {
  const probe = await probeBoot({ kernel: image.kernel, bootTree: image.bootTree }, options.onProgress)
  return { boot: await bootReference(image, probe, options), ima: imaReference(image, probe, options) }
}

/** The measured boot of an image, event by event. */
export async function bootReference(image: Image, probe: BootProbe, options: ReferenceOptions): Promise<BootReference> {
  const line = measuredCommandLine(image.commandLine)
  const initrd = new Uint8Array(await readFile(image.initrd))
  const boot = { memoryMiB: options.memoryMiB ?? memoryMiB[image.kind], initrdBytes: initrd.length }
  const digests = {
    kernel: authenticodeDigest(kernelAsQemuLoadsIt(new Uint8Array(await readFile(image.kernel)), boot)),
    "command-line": encodeHex(loadOptionsDigest(line, "sha256")),
    initrd: (await digestOfFile(image.initrd)).slice("sha256:".length),
  }
  const events = probe.events.map((event) => (event.varies === undefined ? event : { ...event, digest: digests[event.varies] }))
  return {
    perun: 1,
    kind: "boot",
    name: options.name,
    created: options.created,
    expires: options.expires,
    bank: "sha256",
    startupLocality: probe.startupLocality === 3 || probe.startupLocality === 4 ? probe.startupLocality : 0,
    secureBoot: probe.secureBoot === "unknown" ? "any" : probe.secureBoot,
    quirks: [],
    registers: bootRegisters.map((pcr) => ({
      pcr,
      events: events.filter((event) => event.pcr === pcr).map(({ type, digest, description }) => ({ type, digests: [digest], description })),
    })),
    commandLines: [{ pcr: 9, text: line }],
    appliance: image.appliance,
  }
}

/**
 * What an image may run and, where no verity tree covers it, read. Of a sealed image's disks IMA measures programs only: dm-verity checks every other file
 * against the measured command line.
 */
export function imaReference(image: Image, probe: BootProbe, times: ReferenceTimes): ImaReference {
  return captureImaReference({
    name: times.name,
    created: times.created,
    expires: times.expires,
    files: image.files.filter((file) => image.level === "administered" || file.program),
    imaPolicy: image.imaPolicy,
    buffers: probe.buffers,
  })
}

const bootRegisters = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
