import { type Command, InvalidArgumentError } from "commander"
import { X509Certificate } from "node:crypto"
import { readFileBounded } from "../../bytes/durable.ts"
import { MalformedError } from "../../bytes/error.ts"
import { parseUtf8 } from "../../bytes/text.ts"
import { parseIdentityCard } from "../../client/identity.ts"
import type { HostTpm } from "../../evidence/tpm/client/host-tpm.ts"
import type { TpmLocation } from "../../evidence/tpm/client/transport.ts"
import { admitMembers, loadMembers, type Member, parseMembers } from "../../manager/members.ts"
import { serveLocked, serveManager } from "../../manager/server.ts"
import { membersPath } from "../../manager/folder.ts"
import { initManager, vaultOfFolder } from "../../manager/state.ts"
import type { WitnessSource } from "../../manager/witnesses.ts"
import { encodeVerifierKey } from "../../log/note.ts"
import { vaultWords } from "../../policy/manager-vault.ts"
import { evidenceKinds } from "../../evidence/kinds.ts"
import type { TeeSource } from "../../evidence/tee/collectors/collect.ts"
import { openOwnTee } from "../../manager/own-tee.ts"
import { timeWords } from "../../policy/manager-time.ts"
import { demandOperation } from "../../protocol/manager-attestation.ts"
import { connectVerified, verifyManager, type ManagerTrust, type VerifiedManager } from "../../protocol/manager-connection.ts"
import { routes } from "../../protocol/routes.ts"
import { createTlsIdentity } from "../../protocol/tls.ts"
import { parseSshPublicKey } from "../../pki/ssh-key.ts"
import type { BackupPlan } from "../../manager/backup-schedule.ts"
import { registerBackup } from "./manager-backup.ts"
import { registerDoctor } from "./manager-doctor.ts"
import { registerVault, sayLocked, unlockedOrInterrupted } from "./manager-vault.ts"
import { registerManagerUnit } from "./unit.ts"
import { openWatch, type WatchWords, withWatchOptions } from "./manager-watch.ts"
import { registerVerify } from "./manager-verify.ts"
import { loadAccept } from "../accept-file.ts"
import { insecureLaboratory, parseManagerUrl, unattestedManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { loadPolicyFile } from "../policy-file.ts"
import { chosenManager, demandPinnedResultKey, trustManager } from "../home.ts"
import { UsageError } from "../exit.ts"
import { interruptSignal } from "../interrupt.ts"
import type { Output } from "../output.ts"
import { parseSecurityContact } from "../../manager/security-txt.ts"
import { parseListen } from "../listen-address.ts"
import { type TimeWords, timeSourceOf } from "../time-words.ts"
import { parseTpmLocation } from "../tpm-location.ts"
import { chosenVault, defineStoreCounter, foundOpeners, openTpm, sayVault, type VaultWords, withVaultOptions } from "../vault-words.ts"
import { parseTeeSource } from "../tee-source.ts"
import { witnessSourceArgument } from "../witness-words.ts"

export function register(command: Command, output: Output): void {
  withVaultOptions(command.command("init"))
    .argument("<folder>", "folder of the manager; must not exist")
    .option(
      "--laboratory-root <file>",
      "root certificate (PEM) of laboratory TPMs and TEEs that may enrol: INSECURE LABORATORY; again for each",
      (text, before: string[]) => [...before, text],
      [],
    )
    .option("--member <key>", `who may propose policies: ${keyForms}; again for each`, (text, before: string[]) => [...before, text], [])
    .option(
      "--counter",
      "bind the store to a counter in the TPM that its vault key is sealed to (or in --counter-tpm): one that is put back to an earlier state does not start",
    )
    .option("--counter-tpm <where>", "the same, in this TPM, whatever keeps the vault key", parseTpmLocation)
    .description("make a manager's state: its keys, vault, store and the list of its members")
    .action(async (folder: string, options: InitWords) => {
      const members = await membersOf(options.member)
      const laboratoryRoots = []
      for (const path of options.laboratoryRoot) laboratoryRoots.push(certificateBytes(await readFileBounded(path, 65_536), path))
      await using chosen = await chosenVault(options)
      await using counter = await counterTpm(options, chosen.tpm)
      const { device } = counter
      const made = await initManager({
        folder,
        laboratoryRoots,
        members,
        vault: chosen.vault,
        ...(device === undefined ? {} : { defineCounter: async (authValue) => defineStoreCounter(device, authValue) }),
      })
      output.result({ ok: true, folder, ...made, members: members.length, counter: device !== undefined }, () => {
        output.line(`made ${folder}`, "good")
        output.line(`key       ${made.key} (what policies and perun manager trust name)`)
        output.line(`instance  ${made.instance}`)
        sayMembers(members.length, folder, output)
        sayVault(made.vault, output)
        if (device !== undefined) output.line(`counter   in ${device.name}: without it, or behind it, this manager does not start`)
      })
    })
  withWatchOptions(command.command("serve"))
    .argument("<folder>", "folder that perun manager init made")
    .option("--listen <host:port>", "address to listen on", "127.0.0.1:7443")
    .option("--tpm <where>", "TPM that the vault key is sealed to (default: /dev/tpmrm0)", parseTpmLocation)
    .option(
      "--accept-set-back",
      "go on with a store that is older than the TPM's counter it is bound to; nothing is released under the policies that it holds",
    )
    .option("--cap", "extend PCR 15 once the vault key is out of the TPM: until the next boot nothing opens it again, not even a second start")
    .option(
      "--tee <source>",
      "the TEE that this manager runs in and proves itself by: tsm (TDX, SEV-SNP), gramine (SGX), azure (a confidential VM of Azure), or a TD's guest agent at http://HOST:PORT or unix:PATH",
      parseTeeSource,
    )
    .option(
      "--collateral <file>",
      "what the processor's maker says of the platform (perun collateral fetch --out), sent with the evidence; read again for every proof",
    )
    .option(
      "--time-source <url>",
      "time-stamping authority (RFC 3161) that the clock is held against, at the start and every quarter of an hour; while it is not borne out nothing is granted",
    )
    .option("--time-root <file>", "root certificates (PEM) that the authority must chain to")
    .option(
      "--witness <url=key>",
      "witness (C2SP tlog-witness) that is asked to cosign the log, as perun witness show prints it; again for each. Policies may demand that enough of them have seen every release",
      witnessSourceArgument,
      [] as readonly WitnessSource[],
    )
    .option(
      "--security-contact <address>",
      "whom to tell of faults, mailto:… or https://…, shown to anybody at /.well-known/security.txt",
      securityContactArgument,
    )
    .option("--backups <folder>", "make backups there while the manager runs, each in a folder of its own; it holds what the manager's folder holds")
    .option("--backup-every <hours>", "how often, 1 to 720 (default: 24)", parseCount(720))
    .option("--backup-keep <number>", "how many are kept, 1 to 1000 (default: 7)", parseCount(1000))
    .description("run the manager until Ctrl-C or SIGTERM")
    .action(async (folder: string, options: ServeWords) => {
      if (options.collateral !== undefined && options.tee === undefined) throw new UsageError("--collateral goes with --tee")
      const timeSource = await timeSourceOf(options)
      const { host, port } = parseListen(options.listen)
      const file = await vaultOfFolder(folder)
      await using found = await foundOpeners(file, options)
      await using watch = await openWatch(options, output)
      using interrupt = interruptSignal()
      const served = {
        folder,
        host,
        port,
        ...found.openers,
        ...(options.securityContact === undefined ? {} : { securityContact: options.securityContact }),
        acceptSetBack: options.acceptSetBack === true,
        ...(watch.observer === undefined ? {} : { observer: watch.observer }),
        ...(options.tee === undefined
          ? {}
          : { ownTee: await openOwnTee(options.tee, options.collateral, options.tpm === undefined ? {} : { tpm: options.tpm }) }),
        ...(timeSource === undefined ? {} : { timeSource }),
        witnesses: options.witness,
        ...backupsOf(options),
      }
      await using locked = file.kind === "shares" ? await serveLocked(served) : undefined
      if (locked !== undefined) sayLocked(locked, output)
      const started = locked === undefined ? await serveManager(served) : await unlockedOrInterrupted(locked, interrupt.signal)
      if (started === undefined) return output.line("stopping")
      await using running = started
      watch.started(() => running.state())
      output.result(
        {
          event: "listening",
          url: running.url,
          key: running.description.key,
          instance: running.description.instance,
          vault: running.vault,
          laboratoryRoots: running.laboratoryRoots,
          members: running.members,
          evidence: running.description.evidence,
          time: running.description.time,
          timeProblem: running.timeProblem ?? null,
          metrics: watch.url ?? null,
          witnesses: options.witness.map(({ url, key }) => ({ url, key: encodeVerifierKey(key) })),
        },
        () => {
          output.line(`listening on ${running.url}`, "good")
          output.line(`key       ${running.description.key}`)
          output.line(`instance  ${running.description.instance}`)
          sayMembers(running.members, folder, output)
          sayVault(running.vault, output)
          const { evidence } = running.description
          if (evidence === null) output.line(`${unattestedManager}: this manager proves nothing about itself`, "warn")
          else output.line(`proof     ${evidenceKinds[evidence].name}, for whoever asks`, "good")
          output.line(`time      ${timeWords(running.description.time)}`)
          if (watch.url !== undefined) output.line(`metrics   ${watch.url}/metrics`)
          for (const { url, key } of options.witness) output.line(`witness   ${key.name} at ${url}`)
          if (running.timeProblem !== undefined) output.line(`no machine gets a key: ${running.timeProblem}`, "warn")
          for (const root of running.laboratoryRoots) output.line(`INSECURE LABORATORY: TPMs and TEEs under the root ${root} may enrol`, "warn")
        },
      )
      await new Promise<void>((resolve) => interrupt.signal.addEventListener("abort", () => resolve(), { once: true }))
      output.line("stopping")
    })
  command
    .command("admit")
    .requiredOption("--folder <folder>", "folder that perun manager init made; its manager may be running")
    .argument("<key...>", `whom to admit: ${keyForms}`)
    .description("let keys propose policies; a running manager sees it at once, and who is a member already is not added again")
    .action(async (keys: readonly string[], { folder }: { folder: string }) => {
      const added = await admitMembers(membersPath(folder), await membersOf(keys))
      const members = await loadMembers(membersPath(folder))
      output.result({ ok: true, folder, added, members: members.length }, () => {
        for (const { key, comment } of added) output.line(`admitted ${key} ${comment}`.trimEnd(), "good")
        if (added.length === 0) output.line("nothing to do: all of them are members already")
        sayMembers(members.length, folder, output)
      })
    })
  command
    .command("members")
    .requiredOption("--folder <folder>", "folder that perun manager init made")
    .description("whose keys may propose policies; to end a membership take its line out of the file")
    .action(async ({ folder }: { folder: string }) => {
      const members = await loadMembers(membersPath(folder))
      output.result({ ok: true, folder, file: membersPath(folder), members }, () => {
        output.table(
          ["key", "comment"],
          members.map(({ key, comment }) => [key, comment]),
        )
        sayMembers(members.length, folder, output)
      })
    })
  command
    .command("trust")
    .argument("<url>", "address, e.g. https://manager.example:7443")
    .argument("[key]", "the manager's key, ssh-ed25519 …, as its operator and the other parties know it")
    .option("--policy <file>", "policy whose demands on its manager are pinned: it must prove itself, and its key is learnt from the proof")
    .option("--accept <file>", "the same demands as JSON, one alternative of a policy's manager.accept or a list, before there is a policy")
    .option("--replace", "put this manager in the place of another one that is pinned for the address")
    .description("pin a manager on this machine and make it the default; from then on another one at this address is refused")
    .action(async (url: string, text: string | undefined, options: TrustWords) => {
      const trust = await trustOf(text, options)
      const manager = await verifyManager(parseManagerUrl(url), trust, createTlsIdentity("perun client"), { now: new Date() })
      await demandPolicyOperation(options.policy, manager)
      const { key, instance, evidence, resultKey } = manager.description
      await trustManager({ url, key, resultKey, ...(trust.accept === undefined ? {} : { accept: trust.accept }) }, options.replace === true)
      output.result({ ok: true, url, key, instance, evidence, attested: attestedFacts(manager) }, () => {
        output.line(`pinned ${url}`, "good")
        if (trust.accept !== undefined) output.line(`key            ${key}`)
        sayProof(manager, output)
      })
    })
  registerVerify(command, output)
  registerBackup(command, output)
  registerVault(command, output)
  registerDoctor(command, output)
  registerManagerUnit(command, output)
  withManagerOption(command.command("status"))
    .description("what the pinned manager says about itself, and what it proved")
    .action(async (options: ManagerOption) => {
      const pin = await chosenManager(options.manager)
      const tls = createTlsIdentity("perun client")
      const manager = await verifyManager(new URL(pin.url), pin, tls, { now: new Date() })
      const { description } = manager
      demandPinnedResultKey(pin, description)
      using transport = connectVerified(manager, tls)
      const health = await transport.call(routes.health, {})
      const members = health.ok ? health.members : 0
      output.result({ ok: true, url: pin.url, ...description, attested: attestedFacts(manager), members }, () => {
        output.line(`address        ${pin.url}`)
        output.line(`instance       ${description.instance}`)
        output.line(`key            ${description.key}`)
        output.line(`TLS key        ${description.tlsKey}`)
        output.line(`log key        ${description.logKey}`)
        output.line(`result key     ${description.resultKey}`)
        output.line(`configuration  ${description.configuration}`)
        output.line(`time           ${timeWords(description.time)}`)
        output.line(`vault key      ${vaultWords(description.vault)}`)
        output.line(`members        ${members}${members === 0 ? `: ${noMembers(undefined)}` : ""}`, members === 0 ? "warn" : "plain")
        sayProof(manager, output)
      })
    })
}

interface InitWords extends VaultWords {
  readonly laboratoryRoot: readonly string[]
  readonly member: readonly string[]
  readonly counter?: true
  readonly counterTpm?: TpmLocation
}

interface CounterTpm extends AsyncDisposable {
  readonly device: HostTpm | undefined
}

/** The TPM for a store's counter: that of the vault, or another one. @throws {UsageError}; {UnavailableError} */
async function counterTpm({ counter, counterTpm: location }: InitWords, vaultTpm: HostTpm | undefined): Promise<CounterTpm> {
  if (location !== undefined) {
    if (vaultTpm !== undefined) throw new UsageError("the vault key's TPM keeps the counter too: take --counter-tpm away and give --counter")
    const device = await openTpm(location)
    return { device, [Symbol.asyncDispose]: async () => device[Symbol.asyncDispose]() }
  }
  if (counter === true && vaultTpm === undefined)
    throw new UsageError("--counter is for a vault key in a TPM (--tpm); with another vault say where the TPM is: --counter-tpm")
  return { device: counter === true ? vaultTpm : undefined, [Symbol.asyncDispose]: async () => undefined }
}

interface TrustWords {
  readonly policy?: string
  readonly accept?: string
  readonly replace?: true
}

/** What a manager is known by: its key, the demands on its proof, or both. */
async function trustOf(keyText: string | undefined, { policy: policyFile, accept: acceptFile }: TrustWords): Promise<ManagerTrust> {
  const key = keyText === undefined ? undefined : parseSshPublicKey(keyText).text
  if (policyFile !== undefined && acceptFile !== undefined) throw new UsageError("--policy brings the demands itself: take --accept away")
  if (acceptFile !== undefined) return { accept: await loadAccept(acceptFile), ...(key === undefined ? {} : { key }) }
  if (policyFile === undefined) {
    if (key === undefined) throw new UsageError("say what the manager is known by: its KEY, or --policy FILE or --accept FILE with the demands on it")
    return { key }
  }
  const { manager } = (await loadPolicyFile(policyFile)).policy
  if ("accept" in manager) return { accept: manager.accept, ...(key === undefined ? {} : { key }) }
  const { key: named } = manager.insecureUnattested
  if (key !== undefined && key !== named) throw new UsageError(`the policy names the manager ${named}, not ${key}`)
  return { key: named }
}

/** The demands of a policy on its manager's clock, which a pin does not hold; every command that sends something holds them again. */
async function demandPolicyOperation(policyFile: string | undefined, { description }: VerifiedManager): Promise<void> {
  if (policyFile === undefined) return
  const { manager } = (await loadPolicyFile(policyFile)).policy
  if ("accept" in manager) demandOperation(manager, description)
}

function attestedFacts({ accepted }: VerifiedManager): { readonly tee: string; readonly insecureLaboratory: boolean } | null {
  return accepted === undefined ? null : { tee: accepted.kind, insecureLaboratory: accepted.insecureLaboratory }
}

function sayProof({ accepted }: VerifiedManager, output: Output): void {
  if (accepted === undefined) {
    output.line(`${unattestedManager}: it proves nothing about itself; its operator could read what is deposited there`, "warn")
    return
  }
  const name = evidenceKinds[accepted.kind].name
  output.line(`proof          ${name}, fresh, over its keys and configuration; it meets demand ${accepted.alternative + 1} of those pinned`, "good")
  if (accepted.insecureLaboratory) output.line(`${insecureLaboratory}: its TEE chains to a laboratory root, whose holder can imitate it`, "warn")
}

interface ServeWords extends WatchWords, TimeWords {
  readonly listen: string
  readonly tpm?: TpmLocation
  readonly cap?: true
  readonly acceptSetBack?: true
  readonly tee?: TeeSource
  readonly collateral?: string
  readonly witness: readonly WitnessSource[]
  readonly securityContact?: string
  readonly backups?: string
  readonly backupEvery?: number
  readonly backupKeep?: number
}

function backupsOf({ backups: folder, backupEvery, backupKeep }: ServeWords): { readonly backups?: BackupPlan } {
  if (folder === undefined && (backupEvery ?? backupKeep) !== undefined) throw new UsageError("--backup-every and --backup-keep go with --backups")
  return folder === undefined ? {} : { backups: { folder, everyMilliseconds: (backupEvery ?? 24) * 3_600_000, keep: backupKeep ?? 7 } }
}

function securityContactArgument(text: string): string {
  try {
    return parseSecurityContact(text)
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : "no contact")
  }
}

function parseCount(max: number): (text: string) => number {
  return (text) => {
    const count = /^[1-9][0-9]{0,3}$/.test(text) ? Number(text) : 0
    if (count < 1 || count > max) throw new InvalidArgumentError(`expected a number from 1 to ${max}`)
    return count
  }
}

const keyForms = "file of a public key or an identity.json, or the key itself as 'ssh-ed25519 AAAA…'"

/** Keys as people give them: a key's text, a file with one or more of them, or an identity card. */
async function membersOf(given: readonly string[]): Promise<readonly Member[]> {
  const members: Member[] = []
  for (const text of given) {
    if (/^(?:ssh|ecdsa|sk)-\S+ /.test(text)) members.push(...parseMembers(text, "key"))
    else members.push(...parseKeyFile(await readFileBounded(text, 65_536), text))
  }
  return members
}

function parseKeyFile(bytes: Uint8Array, path: string): readonly Member[] {
  const text = parseUtf8(bytes, path)
  if (text.trimStart().startsWith("{")) {
    const { key, name } = parseIdentityCard(bytes)
    return [{ key: parseSshPublicKey(key).text, comment: name }]
  }
  const members = parseMembers(text, path)
  if (members.length === 0) throw new MalformedError("malformed", "holds no public key", { path })
  return members
}

function sayMembers(count: number, folder: string, output: Output): void {
  output.line(`members   ${count}${count === 0 ? `: ${noMembers(folder)}` : ` (${membersPath(folder)})`}`, count === 0 ? "warn" : "plain")
}

/** What an operator has to know and do; the folder is known only on the manager's own machine. */
function noMembers(folder: string | undefined): string {
  const file = folder === undefined ? "the file members in its folder" : membersPath(folder)
  return `nobody can propose a policy; put public keys into ${file}, one a line, or: perun manager admit --folder ${folder ?? "FOLDER"} KEY`
}

function certificateBytes(file: Uint8Array, path: string): Uint8Array {
  try {
    return new Uint8Array(new X509Certificate(file).raw)
  } catch (cause) {
    throw new MalformedError("malformed", "not a certificate", { path, cause })
  }
}
