import * as z from "zod"
import { sha256 } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { canonicalJsonBytes, parseJson } from "../bytes/json.ts"
import { parseBase64 } from "../bytes/text.ts"

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
  /** Name of the attestation key, lower-case hexadecimal. */
  readonly akName: string
  /** Digests of inner pieces of evidence (GPU, nested TPM), in the order in which they stand in the bundle. */
  readonly deviceEvidence: readonly Digest[]
  readonly policy: Digest | null
  readonly job: string | null
  readonly run: string | null
  readonly lease: string | null
}

/** SHA-256 over the RFC 8785 form of the session: 32 bytes, the extraData of the quote (or report data of a TEE). */
export function sessionDigest(fields: SessionFields): Uint8Array {
  // Written out, so that a member that a caller adds does not slip in and one that is left out does not pass.
  const { purpose, version, manager, nonce, hpkeKey, tlsKey, akName, deviceEvidence, policy, job, run, lease } = fields
  return sha256(canonicalJsonBytes({ purpose, version, manager, nonce, hpkeKey, tlsKey, akName, deviceEvidence, policy, job, run, lease }))
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
  const [issue] = parsed.error.issues
  const path = ["bundle", ...(issue?.path ?? [])].join(".")
  const code = issue?.code === "unrecognized_keys" ? "unknown-field" : issue?.code === "too_big" ? "too-large" : "malformed"
  throw new MalformedError(code, issue?.message.toLowerCase() ?? "not a bundle", { path, cause: parsed.error })
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
