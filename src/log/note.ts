import type { KeyObject } from "node:crypto"
import { bytesEqual, concatBytes } from "../bytes/compare.ts"
import { sha256 } from "../bytes/digest.ts"
import { MalformedError, PerunError } from "../bytes/error.ts"
import { encodeBase64, encodeHex, encodeUtf8, parseBase64, parseHex, parseUtf8 } from "../bytes/text.ts"
import { ed25519PublicKey, signBytes, verifySignature } from "../pki/signatures.ts"
import { LogError } from "./errors.ts"

/** Signed notes (C2SP signed-note): a text, an empty line, and lines that each hold one key's signature over the text. Bytes ⇄ record, and Ed25519. */

/** Signature types: 1 Ed25519 over the text; 4 timestamped cosignature of a witness (tlog-cosignature). */
export type NoteKeyType = 1 | 4

/** A key that may sign notes, as a verifier is told of it. */
export interface NoteKey {
  readonly name: string
  readonly type: NoteKeyType
  /** Ed25519, 32 bytes. */
  readonly publicKey: Uint8Array
}

export interface NoteSignature {
  readonly name: string
  /** Four bytes that, with the name, say which key it is. */
  readonly keyId: Uint8Array
  readonly signature: Uint8Array
}

export interface Note {
  /** With the newline at its end. */
  readonly text: string
  readonly signatures: readonly NoteSignature[]
}

export const maxNoteBytes = 65_536
/** The specification demands 16. */
const maxSignatures = 64

/** First four bytes of SHA-256(name ‖ newline ‖ type ‖ public key). */
export function noteKeyId({ name, type, publicKey }: NoteKey): Uint8Array {
  return sha256(concatBytes(encodeUtf8(`${name}\n`), Uint8Array.of(type), publicKey)).slice(0, 4)
}

/** The text form of a key: `name+id+base64(type ‖ public key)`. */
export function encodeVerifierKey(key: NoteKey): string {
  return `${key.name}+${encodeHex(noteKeyId(key))}+${encodeBase64(concatBytes(Uint8Array.of(key.type), key.publicKey))}`
}

/** @throws {MalformedError} */
export function parseVerifierKey(text: string, path = "key"): NoteKey {
  const malformed = (message: string): MalformedError => new MalformedError("malformed", message, { path })
  const [name = "", id = "", key = "", ...rest] = text.split("+")
  // Base64 has a plus of its own.
  const bytes = parseBase64([key, ...rest].join("+"), path)
  const type = bytes[0]
  if (!isKeyName(name)) throw malformed("a key's name is not empty and has neither space nor plus")
  if ((type !== 1 && type !== 4) || bytes.length !== 33) throw malformed("not an Ed25519 key (type 1), nor that of a witness (type 4)")
  const parsed: NoteKey = { name, type, publicKey: bytes.slice(1) }
  if (!/^[0-9a-f]{8}$/.test(id) || !bytesEqual(parseHex(id, path), noteKeyId(parsed))) throw malformed("the key's id is not that of its name and key")
  return parsed
}

/** The text form of a note. @throws {MalformedError} for a text that no note may have */
export function encodeNote({ text, signatures }: Note): string {
  demandText(text)
  return `${text}\n${signatures.map(encodeSignatureLine).join("")}`
}

/** One line, with its newline. */
export function encodeSignatureLine({ name, keyId, signature }: NoteSignature): string {
  return `— ${name} ${encodeBase64(concatBytes(keyId, signature))}\n`
}

/** Reads a note; no signature is verified. @throws {MalformedError} */
export function parseNote(input: string | Uint8Array): Note {
  const whole = typeof input === "string" ? input : parseUtf8(input, "note")
  if (encodeUtf8(whole).length > maxNoteBytes) throw new MalformedError("too-large", `a note has at most ${maxNoteBytes} bytes`, { path: "note" })
  const split = whole.lastIndexOf("\n\n")
  if (split < 0) throw new MalformedError("malformed", "no empty line stands between text and signatures", { path: "note" })
  const text = whole.substring(0, split + 1)
  demandText(text)
  const signatures = parseSignatureLines(whole.substring(split + 2))
  if (signatures.length === 0) throw new MalformedError("malformed", "nobody has signed it", { path: "note" })
  return { text, signatures }
}

/** Signature lines, as a note ends and as a witness answers. @throws {MalformedError} */
export function parseSignatureLines(text: string): readonly NoteSignature[] {
  if (text !== "" && !text.endsWith("\n")) throw new MalformedError("truncated", "the last line has no end", { path: "note" })
  const lines = text.split("\n").slice(0, -1)
  if (lines.length > maxSignatures) throw new MalformedError("too-large", `${lines.length} signatures, at most ${maxSignatures}`, { path: "note" })
  return lines.map((line) => {
    const [dash, name = "", base64 = "", ...rest] = line.split(" ")
    if (dash !== "—" || rest.length > 0 || !isKeyName(name)) throw new MalformedError("malformed", "not a line of a signature", { path: "note" })
    const bytes = parseBase64(base64, "note")
    if (bytes.length < 5) throw new MalformedError("truncated", "a signature is at least five bytes", { path: "note" })
    return { name, keyId: bytes.slice(0, 4), signature: bytes.slice(4) }
  })
}

/** Signs a text as a log signs its checkpoints: type 1. */
export function signNote(text: string, name: string, privateKey: KeyObject, publicKey: Uint8Array): NoteSignature {
  demandText(text)
  return { name, keyId: noteKeyId({ name, type: 1, publicKey }), signature: signBytes("ed25519", privateKey, encodeUtf8(text)) }
}

/**
 * The signature of this key that a note has. Those of others are ignored, as the specification demands.
 * @throws {LogError} `wrong-checkpoint` where there is none, or one that is wrong
 */
export function verifyNote({ text, signatures }: Note, key: NoteKey): void {
  const own = signaturesOf(signatures, key)
  if (own.length === 0) throw new LogError("wrong-checkpoint", `no signature of ${key.name}`)
  for (const { signature } of own) verifyBy(key, encodeUtf8(text), signature)
}

/** Signatures that say they are this key's. */
export function signaturesOf(signatures: readonly NoteSignature[], key: NoteKey): readonly NoteSignature[] {
  const id = noteKeyId(key)
  return signatures.filter(({ name, keyId }) => name === key.name && bytesEqual(keyId, id))
}

/** @throws {LogError} `wrong-checkpoint` */
export function verifyBy({ name, publicKey }: NoteKey, message: Uint8Array, signature: Uint8Array): void {
  try {
    verifySignature("ed25519", ed25519PublicKey(publicKey), message, signature)
  } catch (cause) {
    if (!(cause instanceof PerunError)) throw cause
    throw new LogError("wrong-checkpoint", `the signature of ${name} is wrong`, { cause })
  }
}

function demandText(text: string): void {
  const malformed = (message: string): MalformedError => new MalformedError("malformed", message, { path: "note" })
  if (!text.endsWith("\n")) throw malformed("the text does not end with a newline")
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[\u0000-\u0009\u000b-\u001f]/.test(text)) throw malformed("the text has a control character")
}

/** Not empty, without spaces of any kind and plus. */
export function isKeyName(name: string): boolean {
  return /^[^\s+\p{Z}\p{C}]{1,256}$/u.test(name)
}
