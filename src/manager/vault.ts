import { z } from "zod"
import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { readFileBounded } from "../bytes/durable.ts"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import { parseSshPublicKey } from "../pki/ssh-key.ts"
import { sealingIdentities, type ManagerVault } from "../policy/manager-vault.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { maxCustodians, minThreshold } from "../policy/manager-vault.ts"
import { shareSetSchema, vaultOfShares } from "../protocol/manager-lock.ts"
import { base64Schema, idSchema, parseMessage } from "../protocol/wire.ts"
import { shareOut, type ShareHolder } from "./shares.ts"
import { unwrapVaultKey, wrapVaultKey, type SealingDevice } from "./tee-sealer.ts"

/** Seals 32 bytes so that only this machine, in the state that the sealer chose, opens them again. The TPM's side lives in evidence/tpm. */
export interface TpmSealer {
  seal(secret: Uint8Array): Promise<Uint8Array>
  /** @throws UnavailableError when the TPM is silent or refuses */
  unseal(sealed: Uint8Array): Promise<Uint8Array>
}

/** How a new vault key is to be kept. */
export type VaultPlan =
  | { readonly kind: "key-file" }
  | { readonly kind: "tpm"; readonly sealer: TpmSealer }
  | { readonly kind: "tee-sealing"; readonly device: SealingDevice }
  | { readonly kind: "shares"; readonly threshold: number; readonly holders: readonly ShareHolder[] }

/** What opens a vault; each kind needs one of them, a key file none. */
export interface VaultOpeners {
  readonly sealer?: TpmSealer
  readonly sealingDevice?: SealingDevice
  /** The key itself, rebuilt from its custodians' shares. */
  readonly rebuiltKey?: Uint8Array
  /** The key itself, just drawn. */
  readonly freshKey?: Uint8Array
}

/** Content of `vault.json`. */
const vaultFileSchema = z.discriminatedUnion("kind", [
  z.strictObject({ perun: z.literal(1), kind: z.literal("key-file"), key: base64Schema(32) }),
  z.strictObject({ perun: z.literal(1), kind: z.literal("tpm"), sealed: base64Schema(16_384) }),
  z.strictObject({
    perun: z.literal(1),
    kind: z.literal("tee-sealing"),
    to: z.enum(sealingIdentities),
    instance: idSchema,
    salt: base64Schema(32),
    wrapped: base64Schema(64),
  }),
  z.strictObject({
    perun: z.literal(1),
    kind: z.literal("shares"),
    instance: idSchema,
    shares: shareSetSchema,
    /** In the order of the custodians: an age file with the share. */
    sealedShares: z.array(base64Schema(16_384)).min(minThreshold).max(maxCustodians),
  }),
])
export type VaultFile = z.output<typeof vaultFileSchema>
export type SharedVaultFile = VaultFile & { readonly kind: "shares" }
/** 16 shares, each with an age header of 2.5 kB. */
const maxFileBytes = 524_288

/** A vault key with the file that keeps it. */
export interface NewVault {
  readonly file: VaultFile
  /** 32 bytes; secret. Whoever asked for it wipes it. */
  readonly key: Uint8Array
}

/**
 * Draws a vault key and makes the file that keeps it; writes nothing.
 * @throws {UnavailableError}; {MalformedError}, {ProtocolError} for custodians that cannot be; whatever the plan's device throws
 */
export async function makeVault(plan: VaultPlan, instance: string, randomBytes: (length: number) => Uint8Array): Promise<NewVault> {
  const key = randomBytes(32)
  return { key, file: await keep(key, plan, instance, randomBytes) }
}

async function keep(key: Uint8Array, plan: VaultPlan, instance: string, randomBytes: (length: number) => Uint8Array): Promise<VaultFile> {
  switch (plan.kind) {
    case "key-file":
      return { perun: 1, kind: "key-file", key: encodeBase64(key) }
    case "tpm":
      return { perun: 1, kind: "tpm", sealed: encodeBase64(await plan.sealer.seal(key)) }
    case "tee-sealing": {
      const { device } = plan
      return { perun: 1, kind: "tee-sealing", to: device.to, instance, ...(await wrapVaultKey(key, device, instance, randomBytes)) }
    }
    case "shares":
      return { perun: 1, kind: "shares", instance, ...(await shareOut(key, plan.holders, plan.threshold, randomBytes)) }
  }
}

/** Text of `vault.json`. */
export function encodeVaultFile(file: VaultFile): string {
  return `${JSON.stringify(file)}\n`
}

/**
 * @throws {UnavailableError} when the file is not there
 * @throws {MalformedError} for a file of another form
 */
export async function loadVaultFile(path: string): Promise<VaultFile> {
  const file = parseMessage(vaultFileSchema, await readFileBounded(path, maxFileBytes), maxFileBytes)
  if (file.kind === "shares" && file.sealedShares.length !== file.shares.custodians.length)
    throw new ProtocolError("store-changed", `${file.sealedShares.length} shares for ${file.shares.custodians.length} custodians`, { path })
  return file
}

/** Names a vault file; the store holds it, so that a file that was changed is found. */
export function vaultDigest(file: VaultFile): Digest {
  return digestOfJson(file)
}

/**
 * The vault key. 32 bytes; whoever asked for it wipes it.
 * @throws {UnavailableError} the TPM or the enclave's device is not there
 * @throws {ProtocolError} `wrong-state` where it takes something that was not given; `store-changed` when what was opened is no vault key
 */
export async function openVault(file: VaultFile, { sealer, sealingDevice, rebuiltKey, freshKey }: VaultOpeners): Promise<Uint8Array> {
  const key = await opened()
  if (key.length !== 32) throw new ProtocolError("store-changed", `vault key of ${key.length} bytes, expected 32`)
  return key

  async function opened(): Promise<Uint8Array> {
    if (freshKey !== undefined) return freshKey.slice()
    switch (file.kind) {
      case "key-file":
        return parseBase64(file.key, "key")
      case "tpm":
        return given(sealer, "the vault key is sealed to a TPM, and none was given").unseal(parseBase64(file.sealed, "sealed"))
      case "tee-sealing": {
        const device = given(sealingDevice, "the vault key is sealed to an SGX enclave, and this is none")
        if (device.to !== file.to) throw new ProtocolError("wrong-state", `the vault key is sealed to ${file.to}, the key given is of ${device.to}`)
        return unwrapVaultKey(file, device)
      }
      case "shares":
        return given(rebuiltKey, "the vault key is shared among custodians, who have to unlock the manager (perun manager unlock)").slice()
    }
  }
}

function given<T>(opener: T | undefined, message: string): T {
  if (opener === undefined) throw new ProtocolError("wrong-state", message)
  return opener
}

/** What the manager will say of a vault that is made so. */
export function vaultOfPlan(plan: VaultPlan): ManagerVault {
  switch (plan.kind) {
    case "key-file":
    case "tpm":
      return { kind: plan.kind }
    case "tee-sealing":
      return { kind: plan.kind, to: plan.device.to }
    case "shares":
      return {
        kind: plan.kind,
        threshold: plan.threshold,
        custodians: plan.holders.map(({ name, key }) => ({ name, key: parseSshPublicKey(key).text })),
      }
  }
}

/** What the manager says of its vault. */
export function describeVault(file: VaultFile): ManagerVault {
  switch (file.kind) {
    case "key-file":
    case "tpm":
      return { kind: file.kind }
    case "tee-sealing":
      return { kind: "tee-sealing", to: file.to }
    case "shares":
      return vaultOfShares(file.shares)
  }
}

/** The vault's part of the manager's configuration: all that is public, so that evidence over the configuration's digest covers the set of shares. */
export function vaultConfiguration(file: VaultFile): unknown {
  return file.kind === "shares" ? { kind: file.kind, shares: file.shares } : describeVault(file)
}
