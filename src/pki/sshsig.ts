import { bytesEqual, concatBytes } from "../bytes/compare.ts"
import { MalformedError } from "../bytes/error.ts"
import { readAll } from "../bytes/reader.ts"
import type { ByteReader } from "../bytes/reader.ts"
import { encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { ByteWriter } from "../bytes/writer.ts"
import { PkiError } from "./errors.ts"
import { hash, verifySignature } from "./signatures.ts"
import { parseSshKeyBlob, readSshString, readSshText, writeSshString } from "./ssh-key.ts"
import type { SshPublicKey } from "./ssh-key.ts"

/** What `ssh-keygen -Y sign` makes. PROTOCOL.sshsig of OpenSSH, version 1. */
export interface SshSignature {
  readonly key: SshPublicKey
  readonly namespace: string
  readonly hashAlgorithm: "sha256" | "sha512"
  /** Wire form of the signature: type, value and, for `sk-` keys, flags and counter. */
  readonly signature: Uint8Array
}

const magic = encodeUtf8("SSHSIG")
const version = 1
/** Armored text of the largest key kinds stays under 1 KiB. */
const maxTextLength = 8192

/**
 * Reads an armored SSH signature, or the bare base64 of one.
 * @throws {MalformedError} for any other form
 * @throws {PkiError} `unsupported` for other versions, key types or hashes
 */
export function parseSshSignature(text: string): SshSignature {
  if (text.length > maxTextLength) throw new MalformedError("too-large", `signature text of ${text.length} characters`, { path: "sshsig" })
  return readAll("sshsig", parseBase64(unarmor(text), "sshsig"), readSshSignature)
}

/**
 * Returns only when `signature` was made over `message` in `namespace` by the key inside it; whose key that is, the caller must ask.
 * @throws {PkiError} `wrong-purpose` (other namespace), `wrong-signature`, `wrong-key`
 */
export function verifySshSignature(signature: SshSignature, namespace: string, message: Uint8Array): void {
  if (signature.namespace !== namespace)
    throw new PkiError("wrong-purpose", `namespace ${JSON.stringify(signature.namespace)}, expected ${namespace}`, { path: "sshsig.namespace" })
  const signed = new ByteWriter().bytes(magic)
  writeSshString(signed, encodeUtf8(namespace))
  writeSshString(signed, new Uint8Array(0))
  writeSshString(signed, encodeUtf8(signature.hashAlgorithm))
  writeSshString(signed, hash(signature.hashAlgorithm, message))
  readAll("sshsig.signature", signature.signature, (reader) => verifyInner(reader, signature.key, signed.take()))
}

function unarmor(text: string): string {
  if (!text.startsWith("-----")) return text
  const match = /^-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n-----END SSH SIGNATURE-----\n?$/.exec(text.replaceAll("\r\n", "\n"))
  if (match?.[1] === undefined) throw new MalformedError("malformed", "not an armored ssh signature", { path: "sshsig" })
  return match[1].replaceAll("\n", "")
}

function readSshSignature(reader: ByteReader): SshSignature {
  if (!bytesEqual(reader.bytes(magic.length, "magic"), magic)) throw reader.error("malformed", "magic", "not SSHSIG")
  const found = reader.u32be("version")
  if (found !== version) throw new PkiError("unsupported", `version ${found}`, { path: "sshsig.version" })
  const key = parseSshKeyBlob(readSshString(reader, "publickey"))
  const namespace = readSshText(reader, "namespace")
  if (readSshString(reader, "reserved").length !== 0) throw reader.error("malformed", "reserved", "not empty")
  const hashAlgorithm = readSshText(reader, "hash_algorithm")
  if (hashAlgorithm !== "sha256" && hashAlgorithm !== "sha512")
    throw new PkiError("unsupported", `hash ${JSON.stringify(hashAlgorithm)}`, { path: "sshsig.hash_algorithm" })
  return { key, namespace, hashAlgorithm, signature: readSshString(reader, "signature") }
}

function verifyInner(reader: ByteReader, key: SshPublicKey, signed: Uint8Array): void {
  const type = readSshText(reader, "type")
  if (type !== key.type) throw new PkiError("wrong-key", `signature of type ${JSON.stringify(type)} by a key of type ${key.type}`, { path: "sshsig" })
  const value = readSshString(reader, "value")
  switch (key.type) {
    case "ssh-ed25519":
      return verifySignature("ed25519", key.key, signed, value)
    case "ecdsa-sha2-nistp256":
      return verifySignature(
        "ecdsa-sha256",
        key.key,
        signed,
        readAll("sshsig.value", value, (inner) => readRawEcdsa(inner, 32)),
        { ecdsa: "raw" },
      )
    case "ecdsa-sha2-nistp384":
      return verifySignature(
        "ecdsa-sha384",
        key.key,
        signed,
        readAll("sshsig.value", value, (inner) => readRawEcdsa(inner, 48)),
        { ecdsa: "raw" },
      )
    case "sk-ssh-ed25519@openssh.com":
      return verifySignature("ed25519", key.key, readSecurityKeyMessage(reader, key.application ?? "", signed), value)
  }
}

/** Bit of the FIDO flags byte: the user touched the device. */
const userPresent = 0x01

/** What the FIDO device signed: SHA-256(application) ‖ flags ‖ counter ‖ SHA-256(message). PROTOCOL.u2f of OpenSSH. */
function readSecurityKeyMessage(reader: ByteReader, application: string, signed: Uint8Array): Uint8Array {
  const flags = reader.u8("flags")
  const counter = reader.u32be("counter")
  if ((flags & userPresent) === 0) throw new PkiError("wrong-signature", "made without the user's presence", { path: "sshsig.flags" })
  const middle = new ByteWriter().u8(flags).u32be(counter).take()
  return concatBytes(hash("sha256", encodeUtf8(application)), middle, hash("sha256", signed))
}

/** r and s as SSH mpints (RFC 4251 section 5), given back as r ‖ s of fixed width. */
function readRawEcdsa(reader: ByteReader, size: number): Uint8Array {
  return concatBytes(readPositiveMpint(reader, "r", size), readPositiveMpint(reader, "s", size))
}

function readPositiveMpint(reader: ByteReader, field: string, size: number): Uint8Array {
  const bytes = readSshString(reader, field)
  const [first, second] = bytes
  if (first === undefined || first >= 0x80) throw reader.error("malformed", field, "not a positive number")
  const hasSignByte = first === 0
  // RFC 4251: the shortest form only, so a zero byte may stand in front of a set high bit and nowhere else.
  if (hasSignByte && (second === undefined || second < 0x80)) throw reader.error("malformed", field, "not in shortest form")
  return readAll(`sshsig.${field}`, bytes, (inner) => {
    if (hasSignByte) inner.u8("sign")
    const digits = inner.rest("digits")
    if (digits.length > size) throw inner.error("malformed", field, "larger than the curve's order")
    return concatBytes(new Uint8Array(size - digits.length), digits)
  })
}
