import { digestOf } from "../bytes/digest.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import type { BootClaims } from "../evidence/eventlog/claims.ts"
import { printable } from "./findings.ts"
import type { Appliance, BootReference, ImaReference, RegisterReference } from "./reference.ts"

export interface ReferenceTimes {
  readonly name: string
  /** UTC, `YYYY-MM-DDThh:mm:ssZ`. */
  readonly created: string
  readonly expires: string
}

export interface BootCapture extends ReferenceTimes {
  readonly appliance: "none" | Appliance
  /** Registers to leave open, with the reason; 1, 3 and 5 only. */
  readonly open?: ReadonlyMap<number, string>
}

/**
 * Makes a boot reference of a machine's own boot, whose log the caller has verified against a quote. It says what this machine is, not that it is good:
 * that is for whoever signs a policy with it.
 */
export function captureBootReference(claims: BootClaims, capture: BootCapture): BootReference {
  if (claims.bank !== "sha256") throw new TypeError("only a boot judged in bank sha256 can be a reference")
  const last = Math.max(9, ...claims.events.map(({ pcr }) => pcr))
  const registers = Array.from({ length: last + 1 }, (_, pcr): RegisterReference | undefined => {
    const reason = capture.open?.get(pcr)
    if (reason !== undefined) return { pcr, any: reason }
    const events = claims.events.filter((event) => event.pcr === pcr)
    if (pcr > 9 && events.length === 0) return undefined
    return {
      pcr,
      events: events.map(({ type, digest, description }) => ({ type: printable(type), digests: [digest], description: printable(description) })),
    }
  })
  return {
    perun: 1,
    kind: "boot",
    name: capture.name,
    created: capture.created,
    expires: capture.expires,
    bank: "sha256",
    startupLocality: localityOf(claims.startupLocality),
    secureBoot: claims.secureBoot === "unknown" ? "any" : claims.secureBoot,
    quirks: claims.quirks,
    registers: registers.filter((register) => register !== undefined),
    commandLines: claims.commandLines,
    appliance: capture.appliance,
  }
}

export interface ImaCapture extends ReferenceTimes {
  /** Path and digest (`sha256:…`) of every file that may be run or read; a digest may come with several paths. */
  readonly files: Iterable<{ readonly path: string; readonly digest: string }>
  readonly imaPolicy: ImaReference["imaPolicy"]
  readonly buffers?: ImaReference["buffers"]
  readonly violationClasses?: ImaReference["violationClasses"]
}

/** Makes an IMA reference of a list of files, as an image's build has it. */
export function captureImaReference(capture: ImaCapture): ImaReference {
  const files = new Map<string, Set<string>>()
  const { imaPolicy } = capture
  // The policy file is itself measured when it is loaded.
  for (const { path, digest } of [...capture.files, { path: imaPolicy.path, digest: digestOf(encodeUtf8(imaPolicy.rules)) }]) {
    const paths = files.get(digest)
    if (paths === undefined) files.set(digest, new Set([path]))
    else paths.add(path)
  }
  return {
    perun: 1,
    kind: "ima",
    name: capture.name,
    created: capture.created,
    expires: capture.expires,
    files: Object.fromEntries([...files].map(([digest, paths]) => [digest, [...paths].toSorted()] as const).toSorted(([a], [b]) => (a < b ? -1 : 1))),
    imaPolicy,
    buffers: capture.buffers ?? {},
    violationClasses: capture.violationClasses ?? {},
  }
}

function localityOf(value: number): 0 | 3 | 4 {
  if (value === 0 || value === 3 || value === 4) return value
  throw new TypeError(`startup locality ${value} does not exist`)
}
