import { type Command, InvalidArgumentError } from "commander"
import { randomInt } from "node:crypto"
import { existsSync } from "node:fs"
import { readFileBounded } from "../bytes/durable.ts"
import { parseIdentityCard } from "../client/identity.ts"
import { readGramineSealingKey } from "../evidence/tee/collectors/gramine-sealing.ts"
import { TpmError } from "../evidence/tpm/client/errors.ts"
import { HostTpm } from "../evidence/tpm/client/host-tpm.ts"
import type { CounterBinding } from "../evidence/tpm/client/nv-counter.ts"
import type { TpmLocation } from "../evidence/tpm/client/transport.ts"
import type { OpenCounter } from "../manager/store-counter.ts"
import type { SealingDevice } from "../manager/tee-sealer.ts"
import { hostTpmSealer } from "../manager/tpm-sealer.ts"
import type { VaultFile, VaultOpeners, VaultPlan } from "../manager/vault.ts"
import { type ManagerVault, type SealingIdentity, sealingIdentities, vaultWords } from "../policy/manager-vault.ts"
import { UsageError } from "./exit.ts"
import type { Output } from "./output.ts"
import { parseTpmLocation } from "./tpm-location.ts"

/** How a vault key is to be kept, as words of a command line. */
export interface VaultWords {
  readonly tpm?: TpmLocation
  readonly keyFile?: true
  readonly share: readonly string[]
  readonly threshold?: number
  readonly sealing?: SealingIdentity
}

export function withVaultOptions(command: Command): Command {
  return command
    .option(
      "--tpm <where>",
      "seal the vault key to this TPM: device, unix:PATH or tcp:HOST:PORT (default: /dev/tpmrm0 where there is one)",
      parseTpmLocation,
    )
    .option("--key-file", "keep the vault key in a plain file, also where there is a TPM")
    .option(
      "--share <card>",
      "share the vault key among custodians, who unlock the manager after every start: identity.json of one; again for each (2 to 16)",
      (text: string, before: readonly string[]) => [...before, text],
      [],
    )
    .option("--threshold <number>", "how many custodians unlock it together", parseThreshold)
    .option(
      "--sealing <identity>",
      "wrap the vault key under this SGX enclave's sealing key (Gramine): mrenclave, or mrsigner for every enclave of its signer",
      parseSealing,
    )
}

/** A vault to be made, and what is held open for it. */
export interface ChosenVault extends AsyncDisposable {
  readonly vault: VaultPlan
  /** The TPM that it is sealed to. */
  readonly tpm?: HostTpm
}

/** What the words say: shares, an enclave's key, a TPM, or a file; without any of them the kernel's TPM where there is one. @throws {UsageError}; {MalformedError}; {UnavailableError} */
export async function chosenVault(words: VaultWords): Promise<ChosenVault> {
  const { share, threshold, sealing, keyFile, tpm } = words
  const chosen = Object.entries({
    "--share": share.length > 0,
    "--sealing": sealing !== undefined,
    "--key-file": keyFile === true,
    "--tpm": tpm !== undefined,
  })
    .filter(([, isThere]) => isThere)
    .map(([name]) => name)
  if (chosen.length > 1) throw new UsageError(`${chosen.join(" and ")} do not go together: there is one vault key`)
  if (share.length > 0 !== (threshold !== undefined)) throw new UsageError("--share and --threshold go together")
  if (threshold !== undefined) {
    const cards = await Promise.all(share.map(async (card) => parseIdentityCard(await readFileBounded(card, 65_536))))
    return holdingNothing({ kind: "shares", threshold, holders: cards.map(({ name, key, recipient }) => ({ name, key, recipient })) })
  }
  if (sealing !== undefined) return holdingNothing({ kind: "tee-sealing", device: sealingDevice(sealing) })
  if (keyFile === true || (tpm === undefined && !existsSync("/dev/tpmrm0"))) return holdingNothing({ kind: "key-file" })
  const device = await openTpm(tpm)
  return {
    vault: { kind: "tpm", sealer: hostTpmSealer(device, { cap: false }) },
    tpm: device,
    [Symbol.asyncDispose]: async () => device[Symbol.asyncDispose](),
  }
}

function holdingNothing(vault: VaultPlan): ChosenVault {
  return { vault, [Symbol.asyncDispose]: async () => undefined }
}

export interface FoundOpeners extends AsyncDisposable {
  readonly openers: VaultOpeners & { readonly openCounter: OpenCounter }
}

/** What opens a vault on this machine, and the counter that its store may be bound to; nothing opens one that custodians unlock. @throws {UnavailableError} */
export async function foundOpeners(file: VaultFile, { tpm, cap }: { readonly tpm?: TpmLocation; readonly cap?: true }): Promise<FoundOpeners> {
  let device = file.kind === "tpm" ? await openTpm(tpm) : undefined
  // Only the store tells whether it is bound to a counter; a machine without a TPM is asked for none otherwise.
  const found = async (): Promise<HostTpm> => (device ??= await openTpm(tpm))
  const openCounter: OpenCounter = (binding) => ({
    read: async () => (await found()).readCounter(binding),
    increment: async () => (await found()).incrementCounter(binding),
  })
  const openers = {
    ...(device === undefined ? {} : { sealer: hostTpmSealer(device, { cap: cap === true }) }),
    ...(file.kind === "tee-sealing" ? { sealingDevice: sealingDevice(file.to) } : {}),
    openCounter,
  }
  return { openers, [Symbol.asyncDispose]: async () => device?.[Symbol.asyncDispose]() }
}

/** First of the indexes that counters are defined under, one of 65,536 by chance, in the range that TCG leaves to the TPM's owner. */
const firstCounterIndex = 0x01a00000
/** Tries to find one that is free. */
const counterTries = 8

/** Defines a counter in a TPM that is open already, or in one that is opened for it. @throws {TpmError}; {UnavailableError} */
export async function defineStoreCounter(
  device: HostTpm,
  authValue: Uint8Array,
): Promise<{ readonly binding: CounterBinding; readonly value: number }> {
  for (let tries = 1; ; tries++) {
    try {
      const binding = await device.defineCounter(firstCounterIndex + randomInt(65_536), authValue)
      return { binding, value: await device.readCounter(binding) }
    } catch (error) {
      if (!(error instanceof TpmError) || error.responseCode !== nvDefined || tries === counterTries) throw error
    }
  }
}

/** TPM_RC_NV_DEFINED */
const nvDefined = 0x14c

export async function openTpm(location: TpmLocation | undefined): Promise<HostTpm> {
  return location === undefined ? HostTpm.open() : HostTpm.open(location)
}

function sealingDevice(to: SealingIdentity): SealingDevice {
  return { to, readKey: async () => readGramineSealingKey(to) }
}

export function sayVault(vault: ManagerVault, output: Output): void {
  const isOpen = vault.kind === "key-file" || (vault.kind === "tee-sealing" && vault.to === "mrsigner")
  output.line(`vault key ${vaultWords(vault)}`, isOpen ? "warn" : "plain")
}

function parseThreshold(text: string): number {
  if (!/^[0-9]{1,2}$/.test(text)) throw new InvalidArgumentError("expected a number of custodians")
  return Number(text)
}

function parseSealing(text: string): SealingIdentity {
  const found = sealingIdentities.find((known) => known === text)
  if (found === undefined) throw new InvalidArgumentError(`must be one of ${sealingIdentities.join(", ")}`)
  return found
}
