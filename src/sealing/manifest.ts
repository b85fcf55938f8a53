import type { KeyObject } from "node:crypto"
import * as z from "zod"
import { digestOfJson, isDigest } from "../bytes/digest.ts"
import type { Digest } from "../bytes/digest.ts"
import { MalformedError } from "../bytes/error.ts"
import { parseJson } from "../bytes/json.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { signStatement, statementSignatureSchema, verifyStatement } from "../pki/statement.ts"
import type { StatementSignature } from "../pki/statement.ts"
import { SealingError } from "./errors.ts"
import { recipientKind } from "./keys.ts"

/** What an artifact is to a policy. `log` and `output` are what a run gives back. */
export const artifactKinds = ["dataset", "code", "model", "mock", "output", "log"] as const
export type ArtifactKind = (typeof artifactKinds)[number]

/** Most shards of one artifact: 25 TB at 256 MB. */
export const maxShards = 100_000
/** Most files of one artifact: the index is held in memory. */
export const maxFiles = 1_000_000
/** Largest manifest document, for 100,000 shards of about 130 bytes. */
export const maxManifestBytes = 16_000_000

const digest = z.string().refine(isDigest, "not a digest")
const size = z.int().min(0)

const sealedBlob = z.strictObject({
  /** SHA-256 of the ciphertext, its name as a blob. */
  digest,
  sizeBytes: size,
})

/** The public description of a sealed artifact. It names no file. */
export const artifactManifestSchema = z.strictObject({
  perun: z.literal(1),
  kind: z.enum(artifactKinds),
  /** Canonical SSH text of the owner's key, which must have signed. */
  owner: z.string().max(2048),
  name: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,63}$/),
  /** Public age recipient of the artifact: what the shards are sealed to. */
  recipient: z.string().max(4096),
  shards: z.array(sealedBlob).max(maxShards),
  index: z.strictObject({
    ...sealedBlob.shape,
    /** SHA-256 of the index in clear; the index holds 32 random bytes, so that file names cannot be guessed from this. */
    saltedDigest: digest,
  }),
  files: z.strictObject({ count: z.int().min(0).max(maxFiles), bytes: size }),
  created: z.iso.datetime().optional(),
})

export type ArtifactManifest = z.infer<typeof artifactManifestSchema>

export const signedManifestSchema = z.strictObject({ manifest: artifactManifestSchema, signature: statementSignatureSchema })

/** A manifest and its owner's signature (statement purpose `manifest`). Signature not verified yet: `verifyManifest`. */
export type SignedManifest = z.infer<typeof signedManifestSchema>

/** The digest that policies and statements name. */
export function manifestDigest(manifest: ArtifactManifest): Digest {
  return digestOfJson(manifest)
}

/** Who signs a manifest: an identity key, or anything else that makes a statement signature (an SSH agent). */
export interface ManifestSigner {
  /** Canonical SSH text of the key. */
  readonly owner: string
  sign(digest: Digest): StatementSignature | Promise<StatementSignature>
}

/** A signer over an Ed25519 private key. */
export function manifestSigner(privateKey: KeyObject): ManifestSigner {
  return { owner: sshPublicKeyText(privateKey), sign: (digest) => signStatement("manifest", digest, privateKey) }
}

export interface ManifestExpectation {
  /** The digest that a policy names. */
  readonly digest?: Digest | undefined
  /** The owner's keys that a policy names, canonical SSH text. */
  readonly owners?: readonly string[] | undefined
}

/**
 * Verifies the owner's signature and, where given, that this is the expected manifest of an expected owner.
 * @throws {SealingError} `wrong-manifest`
 */
export function verifyManifest(signed: SignedManifest, expected: ManifestExpectation = {}): ArtifactManifest {
  const { manifest, signature } = signed
  const found = manifestDigest(manifest)
  if (expected.digest !== undefined && expected.digest !== found) {
    throw new SealingError("wrong-manifest", `the manifest is ${found}, expected ${expected.digest}`, { path: "manifest" })
  }
  let signer: string
  try {
    signer = verifyStatement("manifest", found, signature)
  } catch (cause) {
    throw new SealingError("wrong-manifest", "the manifest's signature does not verify", { path: "signature", cause })
  }
  if (signer !== manifest.owner) throw new SealingError("wrong-manifest", "the manifest is not signed by its owner", { path: "signature.key" })
  if (expected.owners !== undefined && !expected.owners.includes(signer)) {
    throw new SealingError("wrong-manifest", "the manifest's owner is not the one expected", { path: "manifest.owner" })
  }
  recipientKind(manifest.recipient)
  return manifest
}

/**
 * Parses a signed manifest document (JSON); its signature is not verified here.
 * @throws {MalformedError} for JSON or fields of another form
 */
export function parseSignedManifest(input: Uint8Array | string): SignedManifest {
  const parsed = signedManifestSchema.safeParse(parseJson(input, { maxBytes: maxManifestBytes }))
  if (!parsed.success) throw malformedBy(parsed.error)
  return parsed.data
}

/** The first complaint of a schema as an error of ours. */
export function malformedBy(error: z.ZodError): MalformedError {
  const issue = error.issues[0]
  const code = issue?.code === "unrecognized_keys" ? "unknown-field" : "malformed"
  return new MalformedError(code, issue?.message ?? "of another form", { path: issue?.path.join(".") ?? "", cause: error })
}
