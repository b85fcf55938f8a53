import type { KeyObject } from "node:crypto"
import * as z from "zod"
import type { Digest } from "../bytes/digest.ts"
import { parseDigest } from "../bytes/digest.ts"
import { encodeBase64, encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { PkiError } from "./errors.ts"
import { signBytes, verifySignature } from "./signatures.ts"
import { parseSshPublicKey, sshPublicKeyText } from "./ssh-key.ts"
import { parseSshSignature, verifySshSignature } from "./sshsig.ts"

/**
 * A statement is what a person or a program signs: the UTF-8 text `perun <purpose> <digest>`, without a newline. The purpose keeps a signature made for
 * one thing from being used for another; the digest names a document by its canonical form.
 */
export const statementPurposes = [
  "policy",
  "manifest",
  "session",
  "vote",
  "withdraw",
  "receipt",
  "manager",
  "enrol",
  "job",
  "check",
  "unlock",
  "reference",
] as const

export type StatementPurpose = (typeof statementPurposes)[number]

/** A detached signature over a statement; strict form, for use inside documents and messages. */
export const statementSignatureSchema = z.strictObject({
  /** Canonical SSH text of the signing key, without a comment. */
  key: z.string().max(2048),
  /** `ed25519`: base64 of the raw 64 bytes over the text. `sshsig`: armored or base64 SSHSIG, namespace `perun-<purpose>`, over the same bytes. */
  format: z.enum(["ed25519", "sshsig"]),
  signature: z.string().max(8192),
})

export type StatementSignature = Readonly<z.infer<typeof statementSignatureSchema>>

/** The exact bytes that are signed. @throws {MalformedError} `malformed` when `digest` has not the digest form */
export function statementBytes(purpose: StatementPurpose, digest: Digest): Uint8Array {
  return encodeUtf8(`perun ${purpose} ${parseDigest(digest)}`)
}

/** Namespace for `ssh-keygen -Y sign -n`. */
export function sshNamespace(purpose: StatementPurpose): string {
  return `perun-${purpose}`
}

/** Signs with an Ed25519 identity key. */
export function signStatement(purpose: StatementPurpose, digest: Digest, privateKey: KeyObject): StatementSignature {
  const signature = signBytes("ed25519", privateKey, statementBytes(purpose, digest))
  return { key: sshPublicKeyText(privateKey), format: "ed25519", signature: encodeBase64(signature) }
}

/** Makes a statement signature out of what `ssh-keygen -Y sign` printed. @throws as parseSshSignature */
export function statementSignatureOfSshSignature(armored: string): StatementSignature {
  return { key: parseSshSignature(armored).key.text, format: "sshsig", signature: armored }
}

/**
 * Returns the canonical text of the key that made the signature. Whether that key may sign this is the caller's question.
 * @throws {PkiError} `wrong-signature`, `wrong-key` (key text not canonical, of another kind, or not the one inside the signature), `wrong-purpose`, `unsupported`
 * @throws {MalformedError} for text of another form
 */
export function verifyStatement(purpose: StatementPurpose, digest: Digest, signature: StatementSignature): string {
  const signer = parseSshPublicKey(signature.key)
  if (signer.text !== signature.key) throw new PkiError("wrong-key", "key text is not canonical", { path: "signature.key" })
  const message = statementBytes(purpose, digest)
  switch (signature.format) {
    case "ed25519":
      if (signer.type !== "ssh-ed25519") throw new PkiError("wrong-key", `a ${signer.type} key signs as sshsig only`, { path: "signature.key" })
      verifySignature("ed25519", signer.key, message, parseBase64(signature.signature, "signature.signature"))
      return signer.text
    case "sshsig": {
      const inner = parseSshSignature(signature.signature)
      if (inner.key.text !== signer.text) throw new PkiError("wrong-key", "the signature holds another key", { path: "signature.key" })
      verifySshSignature(inner, sshNamespace(purpose), message)
      return signer.text
    }
  }
}
