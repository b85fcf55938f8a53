import { type Command, InvalidArgumentError } from "commander"
import { existsSync } from "node:fs"
import { readFileBounded } from "../bytes/durable.ts"
import { parseIdentityCard } from "../client/identity.ts"
import { readGramineSealingKey } from "../evidence/tee/collectors/gramine-sealing.ts"
import { HostTpm } from "../evidence/tpm/client/host-tpm.ts"
import type { TpmLocation } from "../evidence/tpm/client/transport.ts"
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
  return { vault: { kind: "tpm", sealer: hostTpmSealer(device, { cap: false }) }, [Symbol.asyncDispose]: async () => device[Symbol.asyncDispose]() }
}

function holdingNothing(vault: VaultPlan): ChosenVault {
  return { vault, [Symbol.asyncDispose]: async () => undefined }
}

export interface FoundOpeners extends AsyncDisposable {
  readonly openers: VaultOpeners
}

/** What opens a vault on this machine; nothing does for one that custodians unlock. @throws {UnavailableError} */
export async function foundOpeners(file: VaultFile, { tpm, cap }: { readonly tpm?: TpmLocation; readonly cap?: true }): Promise<FoundOpeners> {
  if (file.kind === "tpm") {
    const device = await openTpm(tpm)
    return { openers: { sealer: hostTpmSealer(device, { cap: cap === true }) }, [Symbol.asyncDispose]: async () => device[Symbol.asyncDispose]() }
  }
  const openers = file.kind === "tee-sealing" ? { sealingDevice: sealingDevice(file.to) } : {}
  return { openers, [Symbol.asyncDispose]: async () => undefined }
}

async function openTpm(location: TpmLocation | undefined): Promise<HostTpm> {
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
