import type { Command } from "commander"
import { Decrypter } from "age-encryption"
import { MalformedError } from "../../bytes/error.ts"
import type { TpmLocation } from "../../evidence/tpm/client/transport.ts"
import type { TeeSource } from "../../evidence/tee/collectors/collect.ts"
import { openOwnTee } from "../../manager/own-tee.ts"
import { rotateVault } from "../../manager/rotate-vault.ts"
import { type LockedManager, type RunningManager, serveLocked } from "../../manager/server.ts"
import { randomBytes, vaultOfFolder } from "../../manager/state.ts"
import { evidenceKinds } from "../../evidence/kinds.ts"
import { vaultWords } from "../../policy/manager-vault.ts"
import type { AttestedManager } from "../../policy/document.ts"
import { demandVault } from "../../protocol/manager-attestation.ts"
import { vaultOfShares } from "../../protocol/manager-lock.ts"
import { createTlsIdentity } from "../../protocol/tls.ts"
import { handInShare, lookAtLock, type FoundLock } from "../../protocol/unlock.ts"
import { loadAccept } from "../accept-file.ts"
import { demandConsent } from "../confirm.ts"
import { insecureLaboratory, parseManagerUrl, unattestedManager } from "../connect.ts"
import { RefusedError, UsageError } from "../exit.ts"
import { homeIdentity, loadManagerPins } from "../home.ts"
import { interruptSignal } from "../interrupt.ts"
import { parseListen } from "../listen-address.ts"
import type { Output } from "../output.ts"
import { loadPolicyFile } from "../policy-file.ts"
import { parseTeeSource } from "../tee-source.ts"
import { parseTpmLocation } from "../tpm-location.ts"
import { chosenVault, foundOpeners, sayVault, type VaultWords, withVaultOptions } from "../vault-words.ts"

export function registerVault(command: Command, output: Output): void {
  registerUnlock(command, output)
  registerRotate(command, output)
}

interface UnlockWords {
  readonly policy?: string
  readonly accept?: string
  readonly insecureUnattested?: true
  readonly move?: true
  readonly yes?: true
}

function registerUnlock(command: Command, output: Output): void {
  command
    .command("unlock")
    .argument("<url>", "address of the locked manager")
    .option("--policy <file>", "policy whose demands on its manager it must meet (default: what is pinned for the address)")
    .option("--accept <file>", "the same demands as JSON")
    .option("--insecure-unattested", "give the share to a manager that proves nothing: whoever answers at the address gets it")
    .option("--move", "also where the manager's operator then has the key moved into another vault, which is shown")
    .option("--yes", "hand the share in without being asked, for scripts")
    .description("as a custodian, hand in your share of a manager's vault key, to a manager that was started and has proved what it is")
    .action(async (address: string, words: UnlockWords) => {
      const url = parseManagerUrl(address)
      const identity = await homeIdentity()
      const demands = await demandsOf(address, words)
      const tls = createTlsIdentity("perun custodian")
      const found = await lookAtLock(url, { accept: demands?.accept, custodian: identity.key }, tls, { now: new Date() })
      showLock(address, found, output)
      const { becomes } = found.lock
      if (demands !== undefined) demandVault(demands, becomes ?? vaultOfShares(found.lock.shares))
      if (becomes !== null && words.move !== true)
        throw new RefusedError(
          `the manager's operator then has the key moved, and it is ${vaultWords(becomes)}; if the custodians agreed on that, add --move`,
        )
      await demandConsent(words.yes, "Hand in your share?")
      const share = await openShare(found.sealedShare, identity.recipientIdentity)
      try {
        const { present, threshold, unlocked } = await handInShare(url, found, share, identity.privateKey, tls)
        output.result({ ok: true, present, threshold, unlocked }, () =>
          output.line(unlocked ? "the manager is unlocked" : `your share is there: ${present} of the ${threshold} that it takes`, "good"),
        )
      } finally {
        share.fill(0)
      }
    })
}

/** What is demanded of the manager; undefined where nothing is. */
async function demandsOf(address: string, { policy, accept, insecureUnattested }: UnlockWords): Promise<AttestedManager | undefined> {
  if ([policy, accept, insecureUnattested].filter((word) => word !== undefined).length > 1)
    throw new UsageError("one of --policy, --accept and --insecure-unattested says what the manager must prove")
  if (insecureUnattested === true) return undefined
  if (accept !== undefined) return { accept: await loadAccept(accept) }
  if (policy !== undefined) {
    const { manager } = (await loadPolicyFile(policy)).policy
    if ("accept" in manager) return manager
    throw new UsageError(
      "the policy asks no proof of its manager (insecureUnattested); a locked one cannot show its key either: --insecure-unattested",
    )
  }
  const pin = (await loadManagerPins()).find(({ url }) => url === address)
  if (pin?.accept !== undefined) return { accept: pin.accept }
  throw new UsageError(
    pin === undefined
      ? `the manager ${address} is not pinned here: say what it must prove, --policy FILE or --accept FILE`
      : `${address} is pinned by its key alone, which a locked manager cannot show: --policy FILE, --accept FILE or --insecure-unattested`,
  )
}

function showLock(address: string, { lock, accepted, place }: FoundLock, output: Output): void {
  const { instance, configuration, shares, present, becomes } = lock
  const custodians = shares.custodians.map(({ name }) => name)
  const proof = accepted === undefined ? null : { tee: accepted.kind, insecureLaboratory: accepted.insecureLaboratory }
  output.event({ event: "to-unlock", address, instance, configuration, threshold: shares.threshold, custodians, present, becomes, attested: proof })
  if (output.json) return
  output.line(`As ${place.name} you unlock`, "strong")
  output.line(`manager        ${address}, instance ${instance}`)
  output.line(`configuration  ${configuration}`)
  output.line(`custodians     ${shares.threshold} of ${custodians.join(", ")}; ${present} have handed in their shares`)
  if (becomes !== null) output.line(`then           its operator has the key moved: ${vaultWords(becomes)}`, "warn")
  if (accepted === undefined) output.line(`${unattestedManager}: it proves nothing; whoever runs what answers there gets your share`, "warn")
  else
    output.line(
      `proof          ${evidenceKinds[accepted.kind].name}, fresh, over the key of this start; it meets demand ${accepted.alternative + 1}`,
      "good",
    )
  if (accepted?.insecureLaboratory === true)
    output.line(`${insecureLaboratory}: its TEE chains to a laboratory root, whose holder can imitate it`, "warn")
}

async function openShare(sealed: Uint8Array, identity: string): Promise<Uint8Array> {
  const decrypter = new Decrypter()
  decrypter.addIdentity(identity)
  try {
    return new Uint8Array(await decrypter.decrypt(sealed))
  } catch (cause) {
    throw new MalformedError("malformed", "the sealed share does not open with this home's identity", { path: "sealedShares", cause })
  }
}

interface RotateWords extends VaultWords {
  readonly oldTpm?: TpmLocation
  readonly listen: string
  readonly tee?: TeeSource
  readonly collateral?: string
}

function registerRotate(command: Command, output: Output): void {
  withVaultOptions(command.command("rotate-vault"))
    .argument("<folder>", "folder that perun manager init made; its manager must not be running")
    .option("--old-tpm <where>", "TPM that the present vault key is sealed to (default: /dev/tpmrm0)", parseTpmLocation)
    .option("--listen <host:port>", "where custodians of the present key find it", "127.0.0.1:7443")
    .option("--tee <source>", "the TEE by which it proves itself to them", parseTeeSource)
    .option("--collateral <file>", "what vouches for the platform")
    .description("give a manager's folder a new vault key, kept as the options say: everything is sealed anew; the old key opens nothing any more")
    .action(async (folder: string, words: RotateWords) => {
      const file = await vaultOfFolder(folder)
      await using chosen = await chosenVault(words)
      const rotated = file.kind === "shares" ? await throughCustodians(folder, words, chosen.vault, output) : await atOnce()
      output.result({ ok: true, folder, ...rotated }, () => {
        output.line(`the vault key of ${folder} is a new one`, "good")
        sayVault(rotated.to, output)
      })

      async function atOnce(): Promise<Rotated> {
        await using openers = await foundOpeners(file, words.oldTpm === undefined ? {} : { tpm: words.oldTpm })
        const { from, to, key } = await rotateVault(folder, chosen.vault, openers.openers, randomBytes)
        key.fill(0)
        return { from, to }
      }
    })
}

type Rotated = Pick<Awaited<ReturnType<typeof rotateVault>>, "from" | "to">

async function throughCustodians(folder: string, words: RotateWords, becomes: Parameters<typeof rotateVault>[1], output: Output): Promise<Rotated> {
  const { tee, collateral, tpm } = words
  const ownTee = tee === undefined ? {} : { ownTee: await openOwnTee(tee, collateral, tpm === undefined ? {} : { tpm }) }
  using interrupt = interruptSignal()
  await using locked = await serveLocked({ folder, ...parseListen(words.listen), ...ownTee, becomes })
  sayLocked(locked, output)
  const running = await unlockedOrInterrupted(locked, interrupt.signal)
  interrupt.signal.throwIfAborted()
  if (running === undefined) throw new TypeError("internal: neither unlocked nor interrupted")
  const { threshold, custodians } = locked.lock.shares
  return { from: { kind: "shares", threshold, custodians: custodians.map(({ name, key }) => ({ name, key })) }, to: running.vault }
}

export function sayLocked({ url, lock }: LockedManager, output: Output): void {
  const { shares, instance } = lock
  const custodians = shares.custodians.map(({ name }) => name)
  output.result({ event: "locked", url, instance, threshold: shares.threshold, custodians }, () => {
    output.line(`locked, at ${url}: ${shares.threshold} of ${custodians.join(", ")} have to unlock it (perun manager unlock ${url})`, "warn")
    output.line(`instance  ${instance}`)
  })
}

/** Undefined when Ctrl-C or SIGTERM comes first. */
export async function unlockedOrInterrupted({ unlocked }: LockedManager, signal: AbortSignal): Promise<RunningManager | undefined> {
  if (signal.aborted) return undefined
  const interrupted = new Promise<undefined>((resolve) => signal.addEventListener("abort", () => resolve(undefined), { once: true }))
  return await Promise.race([unlocked, interrupted])
}
