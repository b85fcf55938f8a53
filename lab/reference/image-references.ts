import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { digestOfJson } from "../../src/bytes/digest.ts"
import { encodeHex } from "../../src/bytes/text.ts"
import { loadOptionsDigest } from "../../src/evidence/eventlog/contents.ts"
import { captureImaReference, type ReferenceTimes } from "../../src/policy/capture.ts"
import { type BootReference, type ImaReference, parseReference } from "../../src/policy/reference.ts"
import { cachedFolder } from "../cache.ts"
import type { Image } from "../image/build.ts"
import { measuredCommandLine } from "../image/command-line.ts"
import { memoryMiB } from "../image/recipe.ts"
import { digestOfFile } from "../image/tree.ts"
import type { OnProgress } from "../progress.ts"
import { authenticodeDigest, kernelAsQemuLoadsIt } from "./kernel-digest.ts"
import { type BootProbe, probeBoot } from "./probe.ts"

/** Reference values of an image. */
export interface ImageReferences {
  readonly boot: BootReference
  readonly ima: ImaReference
}

/**
 * Computes the reference values of an image from what it was built of, with the firmware's part from one probe boot. Kept in the cache, so that the same
 * image has the same documents, and a policy that names them stays good.
 */
export async function imageReferences(image: Image, onProgress?: OnProgress): Promise<ImageReferences> {
  const probe = await probeBoot({ kernel: image.kernel, bootTree: image.bootTree, memoryMiB: memoryMiB[image.kind] }, onProgress)
  const key = digestOfJson({ version: 2, image: image.digest, disks: image.disks.map(({ rootHash }) => rootHash), level: image.level, probe })
  const folder = await cachedFolder(`references-${key.slice("sha256:".length, "sha256:".length + 16)}`, async (temporary) => {
    const now = Date.now()
    const times = {
      name: `perun-${image.kind} ${image.level} ${image.digest.slice("sha256:".length, "sha256:".length + 12)}`,
      created: utcSeconds(now),
      expires: utcSeconds(now + validDays * 86_400_000),
    }
    await writeFile(join(temporary, "boot.json"), JSON.stringify(await bootReference(image, probe, times)))
    await writeFile(join(temporary, "ima.json"), JSON.stringify(imaReference(image, probe, times)))
  })
  const boot = parseReference(new Uint8Array(await readFile(join(folder, "boot.json"))))
  const ima = parseReference(new Uint8Array(await readFile(join(folder, "ima.json"))))
  if (boot.kind !== "boot" || ima.kind !== "ima") throw new Error("internal: cached references of the wrong kind")
  return { boot, ima }
}

function utcSeconds(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace(/\.\d+Z$/, "Z")
}

/** The measured boot of an image, event by event. */
export async function bootReference(image: Image, probe: BootProbe, times: ReferenceTimes): Promise<BootReference> {
  const line = measuredCommandLine(image.commandLine)
  const initrd = new Uint8Array(await readFile(image.initrd))
  const boot = { memoryMiB: memoryMiB[image.kind], initrdBytes: initrd.length }
  const digests = {
    kernel: authenticodeDigest(kernelAsQemuLoadsIt(new Uint8Array(await readFile(image.kernel)), boot)),
    "command-line": encodeHex(loadOptionsDigest(line, "sha256")),
    initrd: (await digestOfFile(image.initrd)).slice("sha256:".length),
  }
  const events = probe.events.map((event) => (event.varies === undefined ? event : { ...event, digest: digests[event.varies] }))
  return {
    perun: 1,
    kind: "boot",
    name: times.name,
    created: times.created,
    expires: times.expires,
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
    // The measured initrd runs nothing that the kernel lists before it loads the policy.
    imaPolicy: { ...image.imaPolicy, before: [], replaceable: probe.replaceable },
    buffers: probe.buffers,
  })
}

const bootRegisters = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

/** How long a reference is good; a machine's software should not be older. */
const validDays = 365
