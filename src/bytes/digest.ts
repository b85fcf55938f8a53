import { createHash } from "node:crypto"
import { canonicalJsonBytes } from "./json.ts"
import { MalformedError } from "./error.ts"
import { encodeHex } from "./text.ts"

/** A SHA-256 digest as text: `sha256:` and 64 lower-case hexadecimal digits. The name of every content-addressed thing. */
export type Digest = `sha256:${string}`

const digestForm = /^sha256:[0-9a-f]{64}$/

export function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(bytes).digest())
}

export function digestOf(bytes: Uint8Array): Digest {
  return `sha256:${encodeHex(sha256(bytes))}`
}

/** Digest of the RFC 8785 canonical form of a document. */
export function digestOfJson(value: unknown): Digest {
  return digestOf(canonicalJsonBytes(value))
}

export function isDigest(text: unknown): text is Digest {
  return typeof text === "string" && digestForm.test(text)
}

/** @throws {MalformedError} `malformed` */
export function parseDigest(text: string, path = "digest"): Digest {
  if (!isDigest(text)) throw new MalformedError("malformed", `not "sha256:" and 64 lower-case hexadecimal digits`, { path })
  return text
}
