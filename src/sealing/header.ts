import { createHmac, hkdfSync, randomBytes } from "node:crypto"
import { Decrypter, Encrypter } from "age-encryption"
import { bytesEqual, concatBytes } from "../bytes/compare.ts"
import { encodeUtf8, parseBase64, parseUtf8 } from "../bytes/text.ts"
import { viewOf } from "../bytes/view.ts"
import { SealingError } from "./errors.ts"
import { identityKind, recipientKind } from "./keys.ts"

/** A stanza of an age header: `-> kind arguments`, then its body. age format v1, "Recipient stanza". */
export interface AgeStanza {
  readonly kind: string
  readonly arguments: readonly string[]
  readonly body: Uint8Array
}

/** The textual header of an age file, up to and with the line feed after its MAC. */
export interface AgeHeader {
  /** The exact bytes. */
  readonly bytes: Uint8Array
  readonly stanzas: readonly AgeStanza[]
  /** HMAC-SHA-256 over the bytes up to `---`, 32 bytes; not yet verified. */
  readonly mac: Uint8Array
}

/** Largest header that is read: room for about 40 hybrid recipients; the format itself has no limit. */
export const maxHeaderBytes = 65_536

/** Length of an age file key in bytes. */
export const fileKeyBytes = 16

/**
 * Parses the header at the start of an age file; bytes behind it are not looked at. Stanzas of unknown kinds (grease) are allowed.
 * Narrower than the format: at most 64 KiB, no armor.
 * @throws {SealingError} `malformed`, `truncated`, `too-large`, and `unsupported` for passphrases and for post-quantum beside classical stanzas
 */
export function parseAgeHeader(start: Uint8Array): AgeHeader {
  const lines = new HeaderLines(start)
  if (lines.next() !== "age-encryption.org/v1") throw new SealingError("malformed", "not an age file of format v1", { path: "header" })
  const stanzas: AgeStanza[] = []
  for (;;) {
    const line = lines.next()
    if (line.startsWith("-> ")) {
      stanzas.push(readStanza(line.substring(3), lines))
      continue
    }
    if (!line.startsWith("--- ")) throw malformed("expected a stanza or the MAC")
    if (stanzas.length === 0) throw malformed("no recipient stanza")
    refuseMixedKinds(stanzas)
    const mac = parseBase64NoPad(line.substring(4))
    if (mac.length !== 32) throw malformed("the MAC is not 32 bytes")
    return { bytes: lines.taken(), stanzas, mac }
  }
}

/** A fresh file key: 16 random bytes, secret, for one file only. */
export function generateFileKey(): Uint8Array {
  return new Uint8Array(randomBytes(fileKeyBytes))
}

/**
 * The header that gives `fileKey` to `recipients`, all of one kind.
 * @throws {SealingError} `malformed` for a bad recipient, `unsupported` for recipients of different kinds
 */
export async function encodeAgeHeader(fileKey: Uint8Array, recipients: readonly string[]): Promise<Uint8Array> {
  if (fileKey.length !== fileKeyBytes) throw new TypeError(`file key of ${fileKey.length} bytes, must be ${fileKeyBytes}`)
  const kinds = new Set(recipients.map(recipientKind))
  if (kinds.size === 0) throw new TypeError("no recipient")
  if (kinds.size > 1) throw new SealingError("unsupported", "hybrid and X25519 recipients in one file")
  const encrypter = new Encrypter()
  // The library makes the file key itself and hands it to each recipient. This first one puts ours in its place, so that payload and rewrapped headers
  // share it; the MAC check below fails should the library ever hand out a copy.
  encrypter.addRecipient({
    wrapFileKey(key) {
      key.set(fileKey)
      return []
    },
  })
  const { bytes, mac } = parseAgeHeader(await encryptNothing(encrypter, recipients))
  if (!bytesEqual(mac, headerMac(fileKey, bytes))) throw new Error("internal: the age library did not use the given file key")
  return bytes
}

/**
 * Unwraps the file key and verifies the header's MAC.
 * @throws {SealingError} `wrong-key` when no stanza is for the identity, `corrupt` for a wrong MAC, `malformed` for a damaged stanza
 */
export async function openAgeHeader(header: AgeHeader, identity: string): Promise<Uint8Array> {
  const decrypter = new Decrypter()
  let matched = true
  addIdentity(decrypter, identity)
  // Asked only after the real identity found no stanza of its own.
  decrypter.addIdentity({
    unwrapFileKey() {
      matched = false
      return null
    },
  })
  let fileKey: Uint8Array
  try {
    fileKey = await decrypter.decryptHeader(header.bytes)
  } catch (cause) {
    if (!matched) throw new SealingError("wrong-key", "no stanza of the header is for this identity", { path: "header", cause })
    throw new SealingError("corrupt", "the header does not verify", { path: "header", cause })
  }
  if (fileKey.length !== fileKeyBytes || !bytesEqual(header.mac, headerMac(fileKey, header.bytes))) {
    throw new SealingError("corrupt", "the header's MAC is wrong", { path: "header" })
  }
  return fileKey
}

/**
 * A new header for the same payload: opens `header` with `identity` and gives its file key to `recipients`. The payload behind it stays untouched.
 * @throws {SealingError} as `openAgeHeader` and `encodeAgeHeader`
 */
export async function rewrapHeader(header: Uint8Array, identity: string, recipients: readonly string[]): Promise<Uint8Array> {
  const fileKey = await openAgeHeader(parseAgeHeader(header), identity)
  try {
    return await encodeAgeHeader(fileKey, recipients)
  } finally {
    fileKey.fill(0)
  }
}

/**
 * The key of the payload's STREAM: HKDF-SHA-256 of the file key, salted with the nonce that the payload starts with. age format v1, "Payload".
 * `nonce` is 16 bytes; the result 32, secret.
 */
export function derivePayloadKey(fileKey: Uint8Array, nonce: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", fileKey, nonce, "payload", 32))
}

/** HMAC over the header up to and with `---`, under HKDF-SHA-256(file key, no salt, "header"). age format v1, "Header MAC". */
function headerMac(fileKey: Uint8Array, header: Uint8Array): Uint8Array {
  // 43 characters of base64, a space before them and a line feed behind them.
  const signed = viewOf(header, 0, header.length - 45)
  const key = new Uint8Array(hkdfSync("sha256", fileKey, new Uint8Array(0), "header", 32))
  return new Uint8Array(createHmac("sha256", key).update(signed).digest())
}

function addIdentity(decrypter: Decrypter, identity: string): void {
  identityKind(identity)
  try {
    decrypter.addIdentity(identity)
  } catch {
    // The library's message quotes the identity, a secret: no cause.
    throw new SealingError("malformed", "not an age identity")
  }
}

async function encryptNothing(encrypter: Encrypter, recipients: readonly string[]): Promise<Uint8Array> {
  try {
    for (const recipient of recipients) encrypter.addRecipient(recipient)
    return await encrypter.encrypt(new Uint8Array(0))
  } catch (cause) {
    throw new SealingError("malformed", "an age recipient is not valid", { cause })
  }
}

function readStanza(line: string, lines: HeaderLines): AgeStanza {
  const words = line.split(" ")
  const [kind, ...rest] = words
  if (kind === undefined || !words.every((word) => visible.test(word))) throw malformed("bad argument line of a stanza")
  const body: Uint8Array[] = []
  for (;;) {
    const text = lines.next()
    if (text.length > 64) throw malformed("a body line is longer than 64 characters")
    body.push(parseBase64NoPad(text))
    // A body ends with a line shorter than 64 characters, which may be empty.
    if (text.length < 64) return { kind, arguments: rest, body: concatBytes(...body) }
  }
}

/** Post-quantum secrecy is lost when the same file key also stands in a classical stanza. age 1.3 refuses the mixture when it encrypts. */
function refuseMixedKinds(stanzas: readonly AgeStanza[]): void {
  if (stanzas.some(({ kind }) => kind === "scrypt")) {
    throw new SealingError("unsupported", "files under a passphrase are not handled", { path: "header" })
  }
  const isMixed = stanzas.some(({ kind }) => postQuantum.has(kind)) && stanzas.some(({ kind }) => classical.has(kind))
  if (isMixed) throw new SealingError("unsupported", "post-quantum and classical stanzas in one file", { path: "header" })
}

function parseBase64NoPad(text: string): Uint8Array {
  if (text.includes("=")) throw malformed("base64 with padding")
  try {
    return parseBase64(text + "=".repeat((4 - (text.length % 4)) % 4), "header")
  } catch (cause) {
    throw new SealingError("malformed", "not canonical base64", { path: "header", cause })
  }
}

function malformed(message: string): SealingError {
  return new SealingError("malformed", message, { path: "header" })
}

/** The lines of a header, up to the size limit. */
class HeaderLines {
  readonly #bytes: Uint8Array
  #offset = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  next(): string {
    const end = this.#bytes.indexOf(lineFeed, this.#offset)
    if (end >= maxHeaderBytes || (end < 0 && this.#bytes.length > maxHeaderBytes)) {
      throw new SealingError("too-large", `header of more than ${maxHeaderBytes} bytes`, { path: "header" })
    }
    if (end < 0) throw new SealingError("truncated", "the header has no end", { path: "header" })
    const line = viewOf(this.#bytes, this.#offset, end - this.#offset)
    if (!line.every((byte) => byte >= 0x20 && byte <= 0x7e)) throw malformed("a line holds other than ASCII")
    this.#offset = end + 1
    return parseUtf8(line)
  }

  /** A copy of everything up to here. */
  taken(): Uint8Array {
    return new Uint8Array(viewOf(this.#bytes, 0, this.#offset))
  }
}

const lineFeed = 0x0a
const visible = /^[\x21-\x7e]+$/
const postQuantum: ReadonlySet<string> = new Set(["mlkem768x25519", "mlkem768p256tag"])
const classical: ReadonlySet<string> = new Set(["X25519", "ssh-ed25519", "ssh-rsa", "p256tag", "piv-p256"])

/** The first bytes of every age file, for telling one from other files. */
export const ageMagic: Uint8Array = encodeUtf8("age-encryption.org/v1\n")
