import * as z from "zod"
import { digestOf, digestOfJson, sha256 } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { canonicalJsonBytes, parseJson } from "../bytes/json.ts"
import { parseBase64 } from "../bytes/text.ts"
import { EvidenceError } from "./errors.ts"
import { sessionReportData } from "./report-data.ts"
import { decodeTeeEvidence, teeEvidenceSchema } from "./tee/format.ts"
import { maxTeeEvidenceBytes } from "./tee/hardware.ts"
import type { TeeEvidence } from "./tee/format.ts"

/** What binds evidence to one conversation: everything in it is known to the verifier itself, nothing is taken from the host. */
export interface SessionFields {
  readonly purpose: "claim" | "renew" | "enrol"
  readonly version: 1
  /** Instance of the manager. */
  readonly manager: string
  /** The manager's challenge, lower-case hexadecimal. */
  readonly nonce: string
  /** The agent's HPKE public key, base64. */
  readonly hpkeKey: string
  /** SHA-256 of the SubjectPublicKeyInfo of the agent's TLS key, as the manager saw it on the connection. */
  readonly tlsKey: Digest
  /** Name of the attestation key, lower-case hexadecimal; null for a machine without a TPM. */
  readonly akName: string | null
  /** Digests of inner pieces of evidence (GPU, nested TPM), in the order in which they stand in the bundle. */
  readonly deviceEvidence: readonly Digest[]
  readonly policy: Digest | null
  readonly job: string | null
  readonly run: string | null
  readonly lease: string | null
}

/** SHA-256 over the RFC 8785 form of the session: 32 bytes, the extraData of the quote (or report data of a TEE). */
export function sessionDigest(fields: SessionFields): Uint8Array {
  return sha256(canonicalJsonBytes(sessionMembers(fields)))
}

/**
 * The nonce of a TPM quote inside a TEE's evidence: 32 bytes, known before the quote is made. It differs from every session digest, so that a quote made as an inner
 * piece never passes as one that stands alone, nor the other way round.
 */
export function innerNonce(fields: SessionFields): Uint8Array {
  return sha256(canonicalJsonBytes({ ...sessionMembers(fields), deviceEvidence: [], piece: "tpm" }))
}

/** What the evidence of a machine that enrols with its TEE is over: whose manager's nonce it answers, and the TLS key that then speaks for it. */
export function enrolmentFields({ manager, nonce, tlsKey }: Pick<SessionFields, "manager" | "nonce" | "tlsKey">): SessionFields {
  const nothing = { akName: null, deviceEvidence: [], policy: null, job: null, run: null, lease: null } as const
  return { purpose: "enrol", version: 1, manager, nonce, hpkeKey: "", tlsKey, ...nothing }
}

/** Written out, so that a member that a caller adds does not slip in and one that is left out does not pass. */
function sessionMembers(fields: SessionFields): SessionFields {
  const { purpose, version, manager, nonce, hpkeKey, tlsKey, akName, deviceEvidence, policy, job, run, lease } = fields
  return { purpose, version, manager, nonce, hpkeKey, tlsKey, akName, deviceEvidence, policy, job, run, lease }
}

/** Evidence of one host, decoded; nothing in it is verified. */
export interface HostBundle {
  /** TPMS_ATTEST. */
  readonly quote: Uint8Array
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array
  /** TPM2B_PUBLIC. */
  readonly akPublic: Uint8Array
  /** UEFI log as the firmware wrote it; left out of a renewal. */
  readonly eventLog?: Uint8Array
  readonly ima: {
    /** Index of the first entry in `list`. */
    readonly from: number
    /** Binary measurement list from that entry on. */
    readonly list: Uint8Array
  }
}

/** A TPMS_ATTEST over all banks stays under 300 bytes, an RSA-4096 signature under 600, a public area under 700. */
export const maxQuoteBytes = 4096
/** Firmware reserves 64 KiB; servers with many option ROMs have more. */
export const maxEventLogBytes = 1_048_576
/** Some 400,000 entries; a machine that measures more wants a new boot. */
export const maxImaListBytes = 67_108_864
/** All parts in base64, with room for names. */
const maxBundleTextBytes = Math.ceil(((maxImaListBytes + maxEventLogBytes + 3 * maxQuoteBytes) * 4) / 3) + 65_536

const base64Text = (maxBytes: number): z.ZodString => z.string().max(Math.ceil(maxBytes / 3) * 4)

/** The bundle as JSON; every byte string is canonical padded base64. */
export const hostBundleSchema = z.strictObject({
  perun: z.literal(1),
  tpm: z.strictObject({
    quote: base64Text(maxQuoteBytes),
    signature: base64Text(maxQuoteBytes),
    akPublic: base64Text(maxQuoteBytes),
    eventLog: base64Text(maxEventLogBytes).optional(),
    ima: z.strictObject({ from: z.int().min(0).max(0xffffffff), list: base64Text(maxImaListBytes) }),
  }),
})

export type HostBundleDocument = z.infer<typeof hostBundleSchema>

/**
 * Reads a bundle from JSON text.
 * @throws {MalformedError} `malformed`, `duplicate`, `unknown-field`, `too-large`
 */
export function parseHostBundle(text: Uint8Array | string): HostBundle {
  const parsed = hostBundleSchema.safeParse(parseJson(text, { maxBytes: maxBundleTextBytes }))
  if (parsed.success) return decodeHostBundle(parsed.data)
  throw notABundle(parsed.error)
}

function notABundle(cause: z.ZodError): MalformedError {
  const [issue] = cause.issues
  const path = ["bundle", ...(issue?.path ?? [])].join(".")
  const code = issue?.code === "unrecognized_keys" ? "unknown-field" : issue?.code === "too_big" ? "too-large" : "malformed"
  return new MalformedError(code, issue?.message.toLowerCase() ?? "not a bundle", { path, cause })
}

/** Decodes the byte strings of a bundle document. @throws {MalformedError} `malformed` */
export function decodeHostBundle({ tpm }: HostBundleDocument): HostBundle {
  return {
    quote: parseBase64(tpm.quote, "bundle.tpm.quote"),
    signature: parseBase64(tpm.signature, "bundle.tpm.signature"),
    akPublic: parseBase64(tpm.akPublic, "bundle.tpm.akPublic"),
    ...(tpm.eventLog === undefined ? {} : { eventLog: parseBase64(tpm.eventLog, "bundle.tpm.eventLog") }),
    ima: { from: tpm.ima.from, list: parseBase64(tpm.ima.list, "bundle.tpm.ima.list") },
  }
}

/** Evidence of one machine, decoded; nothing in it is verified. Which pieces there must be, `bindPieces` is told. */
export interface MachineBundle {
  readonly tpm?: HostBundle
  readonly tee?: TeeEvidence
}

/** The bundle as JSON. A host without a TEE sends what `hostBundleSchema` takes. */
export const machineBundleSchema = z.strictObject({
  perun: z.literal(1),
  tpm: hostBundleSchema.shape.tpm.exactOptional(),
  tee: teeEvidenceSchema.exactOptional(),
})

export type MachineBundleDocument = z.infer<typeof machineBundleSchema>

/**
 * Reads a machine's bundle from JSON text.
 * @throws {MalformedError} `malformed`, `duplicate`, `unknown-field`, `too-large`, and what TEE evidence throws
 */
export function parseMachineBundle(text: Uint8Array | string): MachineBundle {
  const parsed = machineBundleSchema.safeParse(parseJson(text, { maxBytes: maxBundleTextBytes + maxTeeEvidenceBytes }))
  if (parsed.success) return decodeMachineBundle(parsed.data)
  throw notABundle(parsed.error)
}

/** Decodes the byte strings of a bundle document. @throws {MalformedError} */
export function decodeMachineBundle({ tpm, tee }: MachineBundleDocument): MachineBundle {
  return {
    ...(tpm === undefined ? {} : { tpm: decodeHostBundle({ perun: 1, tpm }) }),
    ...(tee === undefined ? {} : { tee: decodeTeeEvidence(tee) }),
  }
}

/** What a machine must show: its TPM, its TEE, or the TEE with the TPM of the guest inside it. */
export type DemandedPieces = "tpm" | "tee" | "tee-with-tpm"

/** What each piece of a bundle must carry. */
export type BoundPieces =
  | { readonly pieces: "tpm"; readonly tpm: BoundTpm }
  | { readonly pieces: "tee"; readonly tee: BoundTee }
  | { readonly pieces: "tee-with-tpm"; readonly tpm: BoundTpm; readonly tee: BoundTee }

export interface BoundTpm {
  readonly bundle: HostBundle
  /** 32 bytes that the quote must carry. */
  readonly extraData: Uint8Array
}

export interface BoundTee {
  readonly evidence: TeeEvidence
  /** 64 bytes that the report must carry. */
  readonly reportData: Uint8Array
}

/**
 * Demands exactly these pieces and says what each must carry for this session. The TEE's report covers the TPM's piece by digest and the name of its attestation key, and
 * the quote carries the session's inner nonce: a piece of another machine, or of another session, does not fit. Nothing is verified here; `verifyTee` and `verifyHost`
 * must be given what this returns.
 * @throws {EvidenceError} `missing-piece`, `surplus-piece`
 */
export function bindPieces(bundle: MachineBundle, demanded: DemandedPieces, session: Omit<SessionFields, "deviceEvidence">): BoundPieces {
  if ((session.akName === null) !== (demanded === "tee"))
    throw new TypeError("a session names an attestation key where a TPM is demanded, and only there")
  const fields: SessionFields = { ...session, deviceEvidence: [] }
  switch (demanded) {
    case "tpm":
      refusePiece(bundle.tee, "tee")
      return { pieces: demanded, tpm: { bundle: demandPiece(bundle.tpm, "tpm"), extraData: sessionDigest(fields) } }
    case "tee":
      refusePiece(bundle.tpm, "tpm")
      return { pieces: demanded, tee: { evidence: demandPiece(bundle.tee, "tee"), reportData: sessionReportData(sessionDigest(fields)) } }
    case "tee-with-tpm": {
      const tpm = demandPiece(bundle.tpm, "tpm")
      const outer = sessionDigest({ ...fields, deviceEvidence: [tpmPieceDigest(tpm)] })
      return {
        pieces: demanded,
        tpm: { bundle: tpm, extraData: innerNonce(fields) },
        tee: { evidence: demandPiece(bundle.tee, "tee"), reportData: sessionReportData(outer) },
      }
    }
  }
}

/** Digest of a TPM's piece over every byte of it, as `deviceEvidence` of the session names it. Parts go in by their digests: lists are long. */
export function tpmPieceDigest({ quote, signature, akPublic, eventLog, ima }: HostBundle): Digest {
  return digestOfJson({
    piece: "tpm",
    quote: digestOf(quote),
    signature: digestOf(signature),
    akPublic: digestOf(akPublic),
    eventLog: eventLog === undefined ? null : digestOf(eventLog),
    ima: { from: ima.from, list: digestOf(ima.list) },
  })
}

function demandPiece<T>(piece: T | undefined, name: string): T {
  if (piece === undefined) throw new EvidenceError("missing-piece", "the machine must show it and did not", { path: `bundle.${name}` })
  return piece
}

function refusePiece(piece: unknown, name: string): void {
  if (piece !== undefined) throw new EvidenceError("surplus-piece", "the machine shows what nobody asked for", { path: `bundle.${name}` })
}
