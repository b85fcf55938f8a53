import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto"
import { concatBytes } from "../bytes/compare.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { readAll } from "../bytes/reader.ts"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import type { SealingIdentity } from "../policy/manager-vault.ts"
import { ProtocolError } from "../protocol/errors.ts"

/** A sealing key that the processor gives to this enclave, and to those that `to` names besides, on this machine alone. */
export interface SealingDevice {
  readonly to: SealingIdentity
  /** 16 bytes. @throws {UnavailableError} */
  readKey(): Promise<Uint8Array>
}

/** A vault key wrapped under a sealing key. */
export interface WrappedKey {
  /** Base64 of 32 random bytes. */
  readonly salt: string
  /** Base64 of nonce (12) ‖ ciphertext (32) ‖ tag (16). */
  readonly wrapped: string
}

/** @throws {UnavailableError} the device does not answer */
export async function wrapVaultKey(
  key: Uint8Array,
  device: SealingDevice,
  instance: string,
  randomBytes: (length: number) => Uint8Array,
): Promise<WrappedKey> {
  const salt = randomBytes(32)
  const nonce = randomBytes(12)
  const cipher = createCipheriv("aes-256-gcm", await wrappingKey(device, instance, salt), nonce).setAAD(contextOf(device.to, instance))
  return { salt: encodeBase64(salt), wrapped: encodeBase64(concatBytes(nonce, cipher.update(key), cipher.final(), cipher.getAuthTag())) }
}

/** @throws {ProtocolError} `store-changed` for another enclave, another machine, or a changed file; {UnavailableError}; {MalformedError} */
export async function unwrapVaultKey(file: WrappedKey & { readonly instance: string }, device: SealingDevice): Promise<Uint8Array> {
  const { nonce, ciphertext, tag } = readAll("wrapped", parseBase64(file.wrapped, "wrapped"), (reader) => ({
    nonce: reader.bytes(12, "nonce"),
    ciphertext: reader.bytes(32, "ciphertext"),
    tag: reader.bytes(16, "tag"),
  }))
  const key = await wrappingKey(device, file.instance, parseBase64(file.salt, "salt"))
  const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 }).setAAD(contextOf(device.to, file.instance))
  decipher.setAuthTag(tag)
  try {
    return concatBytes(decipher.update(ciphertext), decipher.final())
  } catch (cause) {
    throw new ProtocolError(
      "store-changed",
      `the vault key does not open: it was sealed on another machine, by an enclave of another ${device.to.toUpperCase()}, or changed`,
      {
        cause,
      },
    )
  }
}

/** HKDF-SHA256 (RFC 5869) of the sealing key, which Gramine's documentation warns against using for anything directly. */
async function wrappingKey(device: SealingDevice, instance: string, salt: Uint8Array): Promise<Uint8Array> {
  const sealingKey = await device.readKey()
  try {
    return new Uint8Array(hkdfSync("sha256", sealingKey, salt, `perun vault ${device.to} ${instance} v1`, 32))
  } finally {
    sealingKey.fill(0)
  }
}

function contextOf(to: SealingIdentity, instance: string): Uint8Array {
  return canonicalJsonBytes({ vault: 1, kind: "tee-sealing", to, instance })
}
