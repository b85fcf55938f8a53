import { createFileDurably, readFileBounded } from "../bytes/durable.ts"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { base64Schema, parseMessage } from "../protocol/wire.ts"
import { z } from "zod"

/** Seals 32 bytes so that only this machine, in the state that the sealer chose, opens them again. The TPM's side lives in evidence/tpm. */
export interface TpmSealer {
  seal(secret: Uint8Array): Promise<Uint8Array>
  /** @throws UnavailableError when the TPM is silent or refuses */
  unseal(sealed: Uint8Array): Promise<Uint8Array>
}

export type VaultKind = "tpm" | "key-file"

export interface Vault {
  readonly kind: VaultKind
  /** 32 bytes; secret. */
  readonly key: Uint8Array
}

const vaultFileSchema = z.discriminatedUnion("kind", [
  z.strictObject({ perun: z.literal(1), kind: z.literal("key-file"), key: base64Schema(32) }),
  z.strictObject({ perun: z.literal(1), kind: z.literal("tpm"), sealed: base64Schema(16_384) }),
])
const maxFileBytes = 65_536

/** What `manager init` and `manager serve` print about the vault key, plainly. */
export const vaultWords: Readonly<Record<VaultKind, string>> = {
  tpm: "the vault key is sealed to this machine's TPM",
  "key-file": "the vault key lies in a plain file: whoever reads this machine's disk as root reads every key that is deposited here",
}

/**
 * Makes a vault key and writes it to a file that must not exist (mode 0600): sealed to the TPM when there is one, else as it is.
 * @throws {AlreadyExistsError}; UnavailableError
 */
export async function createVault(path: string, randomBytes: (length: number) => Uint8Array, sealer: TpmSealer | undefined): Promise<Vault> {
  const key = randomBytes(32)
  const file =
    sealer === undefined
      ? { perun: 1, kind: "key-file", key: encodeBase64(key) }
      : { perun: 1, kind: "tpm", sealed: encodeBase64(await sealer.seal(key)) }
  await createFileDurably(path, `${JSON.stringify(file)}\n`, { mode: 0o600 })
  return { kind: sealer === undefined ? "key-file" : "tpm", key }
}

/**
 * @throws {UnavailableError} when the file or the TPM is not there
 * @throws {MalformedError} for a file of another form
 * @throws {ProtocolError} `store-changed` when what was unsealed is no vault key
 */
export async function loadVault(path: string, sealer: TpmSealer | undefined): Promise<Vault> {
  const file = parseMessage(vaultFileSchema, await readFileBounded(path, maxFileBytes), maxFileBytes)
  const key = file.kind === "key-file" ? parseBase64(file.key, "key") : await unsealWith(sealer, parseBase64(file.sealed, "sealed"))
  if (key.length !== 32) throw new ProtocolError("store-changed", `vault key of ${key.length} bytes, expected 32`, { path })
  return { kind: file.kind, key }
}

async function unsealWith(sealer: TpmSealer | undefined, sealed: Uint8Array): Promise<Uint8Array> {
  if (sealer === undefined) throw new ProtocolError("wrong-state", "the vault key is sealed to a TPM, and none was given")
  return sealer.unseal(sealed)
}
