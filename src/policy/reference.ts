import { z } from "zod"
import type { Digest } from "../bytes/digest.ts"
import { digestOfJson } from "../bytes/digest.ts"
import { parseJson } from "../bytes/json.ts"
import { PolicyError } from "./errors.ts"
import { problemsOfIssues } from "./issues.ts"
import { nowhere } from "./source.ts"
import { utcTime } from "./time.ts"

/** What a good machine looks like. A policy names such a document by its digest; it is submitted with the policy. */
export type Reference = BootReference | ImaReference

/** The measured boot of a good machine, event by event. */
export interface BootReference {
  readonly perun: 1
  readonly kind: "boot"
  /** Name for people, e.g. `perun-small 2026-11-22`. */
  readonly name: string
  /** UTC times, `YYYY-MM-DDThh:mm:ssZ`. After `expires` the document fits no machine. */
  readonly created: string
  readonly expires: string
  readonly bank: "sha256"
  /** Locality that the firmware was started from, as in PCR 0's start value. */
  readonly startupLocality: "any" | 0 | 3 | 4
  readonly secureBoot: "any" | "enabled" | "disabled"
  /** Faults of the firmware that are accepted, by name. */
  readonly quirks: readonly string[]
  /** Every register that boot events may extend, ascending, 0 to 9 at least. An event in a register that is not here is refused. */
  readonly registers: readonly RegisterReference[]
  /** Kernel command lines exactly as measured, in order. */
  readonly commandLines: readonly { readonly pcr: number; readonly text: string }[]
  /** What the image's builder states of the system behind these measurements; `none` where it is no appliance. Level `sealed` demands each fact. */
  readonly appliance: "none" | Appliance
}

/** `any`, with a reason, for a register that holds what differs per machine or per boot: 1, 3 and 5 only, or the kernel itself could be anything. */
export type RegisterReference = { readonly pcr: number; readonly events: readonly ReferenceEvent[] } | { readonly pcr: number; readonly any: string }

/** One event at its place in its register. */
export interface ReferenceEvent {
  /** TCG name of the event's type: for people, because no hash covers it. */
  readonly type: string
  /** Digests that are good at this place, lower-case hexadecimal, at least one. */
  readonly digests: readonly string[]
  /** For people: what it is, e.g. a device path or a variable's name. */
  readonly description: string
}

/** Facts about the measured system that only its builder can state. Each is bound to the machine by the measurements of its command line and root. */
export interface Appliance {
  /** Every disk that programs come from, each verified by dm-verity from the kernel on. */
  readonly verity: readonly VerityDisk[]
  /** Ways for a person to get in: console login, SSH, debug shell in root or initrd. */
  readonly login: "none" | "possible"
  /** Who may open the TPM. `agent`: only the agent's own user, so that no other process can have a quote made. */
  readonly tpmAccess: "agent" | "others"
  readonly ptrace: "off" | "on"
  readonly swap: "off" | "on"
  readonly coreDumps: "off" | "on"
  readonly suspend: "off" | "on"
  readonly kexec: "off" | "on"
  /** Whether the file system that programs come from can change: only the verity root holds programs, everything writable is mounted noexec. */
  readonly programs: "verity-root-only" | "elsewhere-too"
}

export interface VerityDisk {
  /** The parameter in which the image's loader finds the root hash, as it is written, e.g. `roothash`; a hash in any other proves nothing. */
  readonly parameter: string
  /** Root hash of the dm-verity tree (SHA-256), lower-case hexadecimal. */
  readonly rootHash: string
}

/** What a good machine may read and run, by digest. */
export interface ImaReference {
  readonly perun: 1
  readonly kind: "ima"
  readonly name: string
  readonly created: string
  readonly expires: string
  /** File digest (`sha256:…`, `sha384:…` or `sha512:…`, never weaker) to the paths where the image has it. Paths are for people; only the digest is judged. */
  readonly files: Readonly<Record<string, readonly string[]>>
  readonly imaPolicy: ImaPolicyReference
  /** Measured buffers (template ima-buf: keys, critical data, kexec command line) by name, to their good digests `sha256:…`. */
  readonly buffers: Readonly<Record<string, readonly string[]>>
  /** Path classes for violations: name to path prefixes, each ending in `/`, or whole paths. A policy may allow a class by name. */
  readonly violationClasses: Readonly<Record<string, readonly string[]>>
}

/** The IMA policy file that the initrd loads by path, which the kernel therefore measures (POLICY_CHECK): exactly this content must have been loaded. */
export interface ImaPolicyReference {
  /** Name under which the kernel lists it: the path as the initrd sees it, e.g. `/root/etc/ima/policy`. */
  readonly path: string
  /** The file's whole text. */
  readonly rules: string
  /** Entries that the kernel lists before it, besides boot_aggregate: of the initrd, by name and digest (`sha256:…`). Usually none. */
  readonly before: readonly { readonly name: string; readonly digest: string }[]
  /** Whether the kernel takes another policy afterwards (CONFIG_IMA_WRITE_POLICY): stated by the image's builder. */
  readonly replaceable: "no" | "yes"
}

/** Reference documents by digest, as `referencesByDigest` makes it: the key is the computed digest, never a stated one. */
export type References = ReadonlyMap<Digest, Reference>

/**
 * Parses a reference document (JSON).
 * @throws {MalformedError} `malformed`, `duplicate`, `too-large`
 * @throws {PolicyError} `invalid-reference` with every problem found
 */
export function parseReference(bytes: Uint8Array): Reference {
  return parseReferenceValue(parseJson(bytes, { maxBytes: maxReferenceBytes }))
}

/**
 * The same for a value that a strict parser has already read. The caller has capped its size.
 * @throws {PolicyError} `invalid-reference`
 */
export function parseReferenceValue(value: unknown): Reference {
  const result = referenceSchema.safeParse(value)
  if (!result.success) throw new PolicyError("invalid-reference", problemsOfIssues(result.error.issues, value, nowhere))
  return result.data
}

/** The document's name: SHA-256 of its RFC 8785 form. */
export function referenceDigest(reference: Reference): Digest {
  return digestOfJson(reference)
}

export function referencesByDigest(references: readonly Reference[]): References {
  return new Map(references.map((reference) => [referenceDigest(reference), reference]))
}

/** 100,000 files of an image with a whole Python tree have some 15 MB. */
export const maxReferenceBytes = 32 * 1024 * 1024

const maxEvents = 4096
const maxList = 65_536
const maxFiles = 1_000_000
const text = z.string().max(16_384)
const line = text.regex(/^[^\p{C}\p{Zl}\p{Zp}]*$/u, "expected one line of visible text")
const name = line.min(1).max(256)
const hex256 = z.string().regex(/^[0-9a-f]{64}$/, "expected 64 lower-case hexadecimal digits")
const fileDigest = z
  .string()
  .regex(
    /^(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$/,
    "expected sha256:, sha384: or sha512: and lower-case hexadecimal digits",
  )
/** Firmware to boot loader (0 to 7), and the kernel with its command line and initrd (4, 8, 9). */
const everyBootRegister = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] as const
/** Host configuration, add-in cards' configuration, boot manager's configuration. TCG PC Client Platform Firmware Profile, table of PCR usage. */
const machineRegisters: readonly number[] = [1, 3, 5]
/** Debug and application registers, which any program may set back to zero: nothing may rest on them. */
const resettable: readonly number[] = [16, 23]
const pcr = z
  .int()
  .min(0)
  .max(23)
  .refine((index) => !resettable.includes(index), "registers 16 and 23 can be reset by any program")
const onOff = z.enum(["off", "on"])

const register = z.union([
  z.strictObject({
    pcr,
    events: z.array(z.strictObject({ type: name, digests: z.array(hex256).min(1).max(64), description: line })).max(maxEvents),
  }),
  z.strictObject({
    pcr: pcr.refine((index) => machineRegisters.includes(index), "only registers 1, 3 and 5 hold what differs per machine"),
    any: line.min(1),
  }),
])

const bootReferenceSchema = z.strictObject({
  perun: z.literal(1),
  kind: z.literal("boot"),
  name,
  created: utcTime,
  expires: utcTime,
  bank: z.literal("sha256"),
  startupLocality: z.union([z.literal("any"), z.literal(0), z.literal(3), z.literal(4)]),
  secureBoot: z.enum(["any", "enabled", "disabled"]),
  quirks: z.array(name).max(64),
  registers: z
    .array(register)
    .min(1)
    .max(24)
    .refine(
      (registers) => registers.every(({ pcr }, index) => index === 0 || pcr > (registers[index - 1]?.pcr ?? pcr)),
      "registers must ascend, each once",
    )
    .refine(
      (registers) => everyBootRegister.every((index) => registers.some(({ pcr }) => pcr === index)),
      "each of the registers 0 to 9 must be stated",
    ),
  commandLines: z.array(z.strictObject({ pcr, text })).max(16),
  appliance: z.union([
    z.literal("none"),
    z.strictObject({
      verity: z
        .array(z.strictObject({ parameter: z.string().regex(/^[a-z][a-z0-9._-]{0,63}$/, "expected a parameter's name"), rootHash: hex256 }))
        .min(1)
        .max(16),
      login: z.enum(["none", "possible"]),
      tpmAccess: z.enum(["agent", "others"]),
      ptrace: onOff,
      swap: onOff,
      coreDumps: onOff,
      suspend: onOff,
      kexec: onOff,
      programs: z.enum(["verity-root-only", "elsewhere-too"]),
    }),
  ]),
})

const imaReferenceSchema = z.strictObject({
  perun: z.literal(1),
  kind: z.literal("ima"),
  name,
  created: utcTime,
  expires: utcTime,
  files: z.record(fileDigest, z.array(text).max(maxList)).refine((files) => Object.keys(files).length <= maxFiles, `at most ${maxFiles} files`),
  imaPolicy: z.strictObject({
    path: line.startsWith("/"),
    rules: z
      .string()
      .min(1)
      .max(65_536)
      .regex(/^[\x20-\x7e\t\n]*$/, "expected printable ASCII, tabs and line ends"),
    before: z.array(z.strictObject({ name: line.min(1), digest: fileDigest })).max(maxEvents),
    replaceable: z.enum(["no", "yes"]),
  }),
  buffers: z.record(text, z.array(fileDigest).min(1).max(maxList)),
  violationClasses: z.record(name, z.array(line.startsWith("/")).min(1).max(maxList)),
})

/** The form of a reference document, for messages and the OpenAPI document. */
export const referenceSchema: z.ZodType<Reference> = z.discriminatedUnion("kind", [bootReferenceSchema, imaReferenceSchema])
