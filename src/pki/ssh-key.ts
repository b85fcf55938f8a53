import { createHash, type KeyObject } from "node:crypto"
import { ByteReader, readAll } from "../bytes/reader.ts"
import { MalformedError } from "../bytes/error.ts"
import { encodeBase64, encodeUtf8, parseBase64, parseBase64Url, parseUtf8 } from "../bytes/text.ts"
import { ByteWriter } from "../bytes/writer.ts"
import { PkiError } from "./errors.ts"
import { ecPublicKey, ed25519PublicKey } from "./signatures.ts"

/** Key types that may sign for a person. RSA is left out: nobody needs a second padding rule here. */
export type SshKeyType = "ssh-ed25519" | "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "sk-ssh-ed25519@openssh.com"

export interface SshPublicKey {
  readonly type: SshKeyType
  /** Canonical text `type base64` without a comment: what keys are compared by. */
  readonly text: string
  /** The wire form, RFC 4253 section 6.6 and PROTOCOL.u2f. */
  readonly blob: Uint8Array
  readonly key: KeyObject
  /** FIDO application, e.g. `ssh:`; only for `sk-` keys. */
  readonly application?: string
}

/** Longest key text with comment that is read; real ones are under 400 characters. */
const maxTextLength = 2048

/**
 * Reads one line of an SSH public key file: `type base64 [comment]`.
 * @throws {MalformedError} `malformed`, `too-large`, `truncated`, `trailing-bytes`
 * @throws {PkiError} `unsupported` for other key types, `wrong-key` for a point off the curve
 */
export function parseSshPublicKey(text: string): SshPublicKey {
  if (text.length > maxTextLength) throw new MalformedError("too-large", `key text of ${text.length} characters`, { path: "ssh-key" })
  const match = /^([a-z0-9@.-]+) ([A-Za-z0-9+/=]+)(?: [^\r\n\0]*)?\n?$/.exec(text)
  const [, type, base64] = match ?? []
  if (type === undefined || base64 === undefined) throw new MalformedError("malformed", `not "type base64 [comment]"`, { path: "ssh-key" })
  const key = parseSshKeyBlob(parseBase64(base64, "ssh-key"))
  if (key.type !== type) throw new MalformedError("malformed", "type in front differs from the type inside", { path: "ssh-key" })
  return key
}

/**
 * Reads the wire form of a public key.
 * @throws as parseSshPublicKey
 */
export function parseSshKeyBlob(blob: Uint8Array): SshPublicKey {
  return readAll("ssh-key", blob, (reader) => {
    const type = readSshText(reader, "type")
    switch (type) {
      case "ssh-ed25519":
        return describe(type, blob, readEd25519(reader))
      case "sk-ssh-ed25519@openssh.com": {
        const key = readEd25519(reader)
        return { ...describe(type, blob, key), application: readSshText(reader, "application") }
      }
      case "ecdsa-sha2-nistp256":
        return describe(type, blob, readEcPoint(reader, "nistp256"))
      case "ecdsa-sha2-nistp384":
        return describe(type, blob, readEcPoint(reader, "nistp384"))
      default:
        throw new PkiError("unsupported", `ssh key type ${JSON.stringify(type)}`, { path: "ssh-key.type" })
    }
  })
}

/** Canonical text `ssh-ed25519 AAAA…` of an Ed25519 key, public or private. */
export function sshPublicKeyText(key: KeyObject): string {
  const { crv, x } = key.export({ format: "jwk" })
  if (crv !== "Ed25519" || x === undefined) throw new TypeError("only Ed25519 keys are written as identity keys")
  const blob = new ByteWriter()
  writeSshString(blob, encodeUtf8("ssh-ed25519"))
  writeSshString(blob, parseBase64Url(x))
  return `ssh-ed25519 ${encodeBase64(blob.take())}`
}

/** What a key's text is called by in short, as `ssh-keygen -l` prints it: `SHA256:` and base64 without padding. @throws as parseSshPublicKey */
export function sshKeyFingerprint(text: string): string {
  return `SHA256:${createHash("sha256").update(parseSshPublicKey(text).blob).digest("base64").replace(/=+$/, "")}`
}

/** Longest `string` inside a key or signature. */
const maxStringBytes = 1024

/** Reads an SSH `string` (RFC 4251 section 5) as bytes. */
export function readSshString(reader: ByteReader, field: string): Uint8Array {
  return reader.boundedBytes(reader.u32be(`${field} length`), maxStringBytes, field)
}

/** Reads an SSH `string` as UTF-8. */
export function readSshText(reader: ByteReader, field: string): string {
  return parseUtf8(readSshString(reader, field), field)
}

export function writeSshString(writer: ByteWriter, value: Uint8Array): void {
  writer.u32be(value.length).bytes(value)
}

function describe(type: SshKeyType, blob: Uint8Array, key: KeyObject): SshPublicKey {
  return { type, blob, key, text: `${type} ${encodeBase64(blob)}` }
}

function readEd25519(reader: ByteReader): KeyObject {
  const raw = readSshString(reader, "public key")
  if (raw.length !== 32) throw reader.error("malformed", "public key", `${raw.length} bytes, expected 32`)
  return ed25519PublicKey(raw)
}

const curves = { nistp256: { name: "P-256", size: 32 }, nistp384: { name: "P-384", size: 48 } } as const

function readEcPoint(reader: ByteReader, curve: keyof typeof curves): KeyObject {
  const { name, size } = curves[curve]
  const named = readSshText(reader, "curve")
  if (named !== curve) throw reader.error("malformed", "curve", `${JSON.stringify(named)}, expected ${curve}`)
  const point = readSshString(reader, "point")
  return readAll("ssh-key.point", point, (inner) => {
    // Only the uncompressed form, so that one key has one text.
    if (inner.u8("form") !== 4) throw inner.error("malformed", "form", "not an uncompressed point")
    return ecPublicKey(name, inner.bytes(size, "x"), inner.bytes(size, "y"))
  })
}
