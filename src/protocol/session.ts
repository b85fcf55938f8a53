import type { KeyObject } from "node:crypto"
import { z } from "zod"
import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { encodeBase64, encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { signStatement, statementSignatureSchema, verifyStatement, type StatementSignature } from "../pki/statement.ts"
import { ProtocolError } from "./errors.ts"
import { digestSchema, idSchema, parseMessage, timeSchema } from "./wire.ts"

/** Header that says for whom a TLS connection speaks: `Perun-Session: base64(JSON {statement, signature})`. */
export const sessionHeader = "Perun-Session"

/** Longest header in characters; an SSHSIG of a hardware key stays below 2 KiB. */
const maxHeaderLength = 16_384
/** A session key lives in one program for one sitting. */
export const maxSessionSeconds = 86_400

const sessionStatementSchema = z.strictObject({
  perun: z.literal(1),
  /** Instance of the manager. */
  manager: idSchema,
  /** SHA-256 of the SubjectPublicKeyInfo of the client's TLS certificate. */
  tlsKey: digestSchema,
  notAfter: timeSchema,
})
const signedSessionSchema = z.strictObject({ statement: sessionStatementSchema, signature: statementSignatureSchema })

export type SessionStatement = z.output<typeof sessionStatementSchema>
export type SignedSession = z.output<typeof signedSessionSchema>

/** What an identity signs (purpose `session`) to make a TLS key speak for it. */
export function sessionDigest(statement: SessionStatement): Digest {
  return digestOfJson(statement)
}

/** Header value for an identity whose key is at hand; for hardware keys sign `sessionDigest` elsewhere and use `encodeSessionHeader`. */
export function makeSessionHeader(statement: SessionStatement, privateKey: KeyObject): string {
  return encodeSessionHeader(statement, signStatement("session", sessionDigest(statement), privateKey))
}

export function encodeSessionHeader(statement: SessionStatement, signature: StatementSignature): string {
  return encodeBase64(encodeUtf8(JSON.stringify({ statement, signature })))
}

/**
 * Verifies the header of a call and returns the canonical text of the identity's key.
 * @throws {ProtocolError} `unauthenticated` without header, `wrong-session` for a statement that is expired, lasts too long, or was made for another
 * manager or TLS key, or whose signature is wrong
 */
export function verifySessionHeader(
  header: string | undefined,
  expected: { readonly manager: string; readonly peerTlsKey: Digest; readonly now: Date },
): string {
  if (header === undefined) throw new ProtocolError("unauthenticated", `no ${sessionHeader} header`)
  const { statement, signature } = parseSessionHeader(header)
  if (statement.manager !== expected.manager) throw wrong("manager", `made for manager ${statement.manager}, this is ${expected.manager}`)
  if (statement.tlsKey !== expected.peerTlsKey) throw wrong("tlsKey", `made for TLS key ${statement.tlsKey}, found ${expected.peerTlsKey}`)
  const remainingMilliseconds = Date.parse(statement.notAfter) - expected.now.getTime()
  if (remainingMilliseconds <= 0) throw wrong("notAfter", `ended at ${statement.notAfter}, now is ${expected.now.toISOString()}`)
  if (remainingMilliseconds > maxSessionSeconds * 1000) throw wrong("notAfter", `lasts until ${statement.notAfter}, at most 24 hours are allowed`)
  try {
    return verifyStatement("session", sessionDigest(statement), signature)
  } catch (cause) {
    if (!(cause instanceof PerunError)) throw cause
    throw new ProtocolError("wrong-session", "signature does not verify", { path: "signature", cause })
  }
}

function parseSessionHeader(header: string): SignedSession {
  if (header.length > maxHeaderLength) throw wrong("", `header of ${header.length} characters, at most ${maxHeaderLength} are allowed`)
  try {
    return parseMessage(signedSessionSchema, parseBase64(header, sessionHeader), maxHeaderLength)
  } catch (cause) {
    if (!(cause instanceof PerunError)) throw cause
    throw new ProtocolError("wrong-session", "header cannot be read", { path: cause.path, cause })
  }
}

function wrong(path: string, message: string): ProtocolError {
  return new ProtocolError("wrong-session", message, { path })
}
