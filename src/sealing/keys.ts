import { generateHybridIdentity, generateX25519Identity, identityToRecipient } from "age-encryption"
import { SealingError } from "./errors.ts"

/**
 * Kinds of age keys: `hybrid` is ML-KEM-768 with X25519 (age 1.3 and later, the default), `x25519` is for older programs.
 * The two never stand together in one file: its secrecy would be that of the weaker.
 */
export type RecipientKind = "hybrid" | "x25519"

interface KindForm {
  readonly recipient: RegExp
  readonly identity: RegExp
  readonly generate: () => Promise<string>
}

// Lengths from the Bech32 form: 32 or 1216 bytes of recipient, 32 bytes of identity, six characters of checksum.
const kinds: Readonly<Record<RecipientKind, KindForm>> = {
  hybrid: {
    recipient: /^age1pq1[02-9ac-hj-np-z]{1952}$/,
    identity: /^AGE-SECRET-KEY-PQ-1[02-9AC-HJ-NP-Z]{58}$/,
    generate: generateHybridIdentity,
  },
  x25519: { recipient: /^age1[02-9ac-hj-np-z]{58}$/, identity: /^AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}$/, generate: generateX25519Identity },
}

/** A fresh age identity, `AGE-SECRET-KEY-PQ-1…` or `AGE-SECRET-KEY-1…`. Secret. */
export async function generateAgeIdentity(kind: RecipientKind = "hybrid"): Promise<string> {
  return kinds[kind].generate()
}

/**
 * The public recipient of an identity, `age1pq1…` or `age1…`.
 * @throws {SealingError} `malformed`
 */
export async function recipientOf(identity: string): Promise<string> {
  identityKind(identity)
  try {
    return await identityToRecipient(identity)
  } catch {
    // The library's message quotes the identity, a secret: no cause.
    throw new SealingError("malformed", "not an age identity")
  }
}

/** @throws {SealingError} `malformed` for what is neither a hybrid nor an X25519 recipient */
export function recipientKind(recipient: string): RecipientKind {
  if (kinds.hybrid.recipient.test(recipient)) return "hybrid"
  if (kinds.x25519.recipient.test(recipient)) return "x25519"
  throw new SealingError("malformed", `not an age recipient: ${recipient.substring(0, 16)}…`)
}

/** @throws {SealingError} `malformed` for what is neither a hybrid nor an X25519 identity */
export function identityKind(identity: string): RecipientKind {
  if (kinds.hybrid.identity.test(identity)) return "hybrid"
  if (kinds.x25519.identity.test(identity)) return "x25519"
  throw new SealingError("malformed", "not an age identity")
}
