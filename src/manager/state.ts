import { createPublicKey, generateKeyPairSync, randomBytes as nodeRandomBytes } from "node:crypto"
import { statfsSync } from "node:fs"
import { mkdir, rename, rm } from "node:fs/promises"
import { dirname } from "node:path"
import { AlreadyExistsError, createFileDurably, fromSystemError, readFileBounded, syncFolder } from "../bytes/durable.ts"
import { digestOf, digestOfJson, type Digest } from "../bytes/digest.ts"
import { encodeBase64, encodeHex, parseBase64 } from "../bytes/text.ts"
import { withCachedCollateral } from "../evidence/collateral/cache.ts"
import type { CounterBinding } from "../evidence/tpm/client/nv-counter.ts"
import { teeRootsFor } from "../evidence/tee/roots.ts"
import { parseCertificate } from "../pki/certificate.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import type { Custodian, ManagerVault } from "../policy/manager-vault.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import { createTlsIdentity, type TlsIdentity } from "../protocol/tls.ts"
import { base64Schema, parseMessage } from "../protocol/wire.ts"
import { z } from "zod"
import { type BackupSummary, makeBackup } from "./backup.ts"
import { BlobFolder } from "./blobs.ts"
import { systemClock } from "./clock.ts"
import { EvidenceJudge, type EvidenceJudgeOptions } from "./evidence-judge.ts"
import { folderPart, managerCollateralFolder, membersPath } from "./folder.ts"
import { createManager, keysKey, vaultKeyOfRecord, type Manager } from "./manager.ts"
import { encodeMembers, type Member, MembersFile } from "./members.ts"
import { type ManagerObserver, plainObserver } from "./observe.ts"
import { openJournal } from "./rotate-vault.ts"
import { SqliteJournal } from "./sqlite-journal.ts"
import type { OwnTee } from "./own-tee.ts"
import type { TimeSource } from "./time-check.ts"
import { Store } from "./store.ts"
import { counterKey, counterRecord, type OpenCounter } from "./store-counter.ts"
import type { WitnessSource } from "./witnesses.ts"
import {
  describeVault,
  encodeVaultFile,
  loadVaultFile,
  makeVault,
  openVault,
  vaultConfiguration,
  vaultDigest,
  type SharedVaultFile,
  type VaultFile,
  type VaultOpeners,
  type VaultPlan,
} from "./vault.ts"

/** Content of `manager.json`. */
export const configurationSchema = z.strictObject({
  perun: z.literal(1),
  /** Root certificates (DER) of laboratory TPMs and TEEs that may enrol: INSECURE LABORATORY. Policies decide whether they accept them. */
  laboratoryRoots: z.array(base64Schema(8192)).max(64),
})
export const maxConfigurationBytes = 1_048_576

export interface InitOptions {
  readonly folder: string
  /** DER. */
  readonly laboratoryRoots: readonly Uint8Array[]
  /** Who may propose policies from the start. */
  readonly members?: readonly Member[]
  /** How the vault key is kept. */
  readonly vault: VaultPlan
  /** Defines the counter that the store is bound to, over a secret of its own; left out: it is bound to none. */
  readonly defineCounter?: (authValue: Uint8Array) => Promise<{ readonly binding: CounterBinding; readonly value: number }>
}

export interface InitializedManager {
  /** Key that policies pin, `ssh-ed25519 base64`. */
  readonly key: string
  readonly instance: string
  readonly vault: ManagerVault
}

/**
 * Makes a manager's folder, which must not exist: all of it or nothing.
 * @throws {AlreadyExistsError}; {UnavailableError} `disk-full`, `permission-denied`; {MalformedError}, {PkiError} for a root that is no certificate
 */
export async function initManager(options: InitOptions): Promise<InitializedManager> {
  for (const root of options.laboratoryRoots) parseCertificate(root)
  const { folder } = options
  const building = `${folder}.${encodeHex(randomBytes(8))}.new`
  try {
    await mkdir(building, { recursive: true, mode: 0o700 })
    const result = await fillFolder(building, options)
    await rename(building, folder)
    await syncFolder(dirname(folder))
    return result
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOTEMPTY" || error.code === "EEXIST" || error.code === "ENOTDIR"))
      throw new AlreadyExistsError("already-exists", "there is something already; nothing was changed", { path: folder, cause: error })
    throw fromSystemError(error, folder)
  } finally {
    await rm(building, { recursive: true, force: true })
  }
}

async function fillFolder(folder: string, { laboratoryRoots, members = [], vault: plan, defineCounter }: InitOptions): Promise<InitializedManager> {
  const configuration = { perun: 1, laboratoryRoots: laboratoryRoots.map((root) => encodeBase64(root)) }
  await createFileDurably(folderPart(folder, "configuration"), `${JSON.stringify(configuration, null, 2)}\n`)
  await createFileDurably(membersPath(folder), encodeMembers(members))
  const instance = encodeHex(randomBytes(16))
  const { file, key } = await makeVault(plan, instance, randomBytes)
  try {
    await createFileDurably(folderPart(folder, "vault"), encodeVaultFile(file), { mode: 0o600 })
    await BlobFolder.create(folderPart(folder, "blobs"))
    const { privateKey } = generateKeyPairSync("ed25519")
    const tls = createTlsIdentity("perun manager")
    const deposit = await generateHpkeKeyPair()
    const counter = await defineCounter?.(randomBytes(32))
    using store = Store.create({ journal: SqliteJournal.create(folderPart(folder, "database")), vaultKey: key, randomBytes }, Date.now())
    store.transact(new Date(), (tx) => {
      tx.put("vault", vaultKeyOfRecord, { digest: vaultDigest(file) })
      if (counter !== undefined) tx.put("counters", counterKey, counterRecord(counter.binding, counter.value))
      tx.put("keys", keysKey, {
        instance,
        identityKey: String(privateKey.export({ format: "pem", type: "pkcs8" })),
        tlsKey: tls.privateKeyPem,
        tlsCertificate: tls.certificatePem,
        tlsKeyDigest: tls.tlsKey,
        depositPrivateKey: encodeBase64(deposit.privateKey),
        depositPublicKey: encodeBase64(deposit.publicKey),
        resultKey: String(generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey.export({ format: "pem", type: "pkcs8" })),
      })
    })
    return { key: sshPublicKeyText(createPublicKey(privateKey)), instance, vault: describeVault(file) }
  } finally {
    key.fill(0)
  }
}

export interface OpenedManager extends Disposable {
  readonly manager: Manager
  readonly tls: TlsIdentity
  readonly vault: ManagerVault
  /** INSECURE LABORATORY roots that may enrol, by fingerprint. */
  readonly laboratoryRoots: readonly string[]
  readonly members: MembersFile
  /** Makes a backup into a folder that must not exist, while the manager goes on. @throws as makeBackup */
  backUp(out: string, now: Date): Promise<BackupSummary>
}

/** What a manager finds around it besides its folder. */
export interface ManagerWorld extends VaultOpeners {
  /** The TEE that the manager runs in; without one it is an UNATTESTED MANAGER. */
  readonly ownTee?: OwnTee
  /** Who checks the host's clock; without one it is believed. */
  readonly timeSource?: TimeSource
  /** Who is asked to cosign the log. */
  readonly witnesses?: readonly WitnessSource[]
  /** Hears what the operator should know; without one it goes to standard error as lines of text. */
  readonly observer?: ManagerObserver
  /** Whom to tell of faults; shown to anybody. */
  readonly securityContact?: string
  /** Opens the counter in a TPM that the store may be bound to. */
  readonly openCounter?: OpenCounter
  /** Goes on with a store that is older than its counter; see StoreCounter.open. */
  readonly acceptSetBack?: boolean
  /** Whose shares the vault key was rebuilt from. */
  readonly unlockedBy?: readonly Custodian[]
}

/** Standard error, for an operator who has named no other place. */
export const standardObserver: ManagerObserver = plainObserver((line) => console.error(line))

/** Bytes that this process may still write on the disk of a folder; undefined where the file system does not say. */
function freeBytesOf(folder: string): number | undefined {
  try {
    const { bavail, bsize } = statfsSync(folder)
    return bavail * bsize
  } catch {
    return undefined
  }
}

/**
 * Loads a manager's folder; never creates anything, but ends a rotation of the vault that was broken off.
 * @throws {UnavailableError} for a folder that is not there or that another manager uses; {ProtocolError} `store-changed`, `wrong-state` for a vault that
 * custodians have to unlock; {MalformedError}
 */
export async function openManager(folder: string, world: ManagerWorld = {}): Promise<OpenedManager> {
  const { ownTee, timeSource, unlockedBy, witnesses, observer = standardObserver } = world
  const configuration = await loadConfiguration(folder)
  const roots = configuration.laboratoryRoots.map((root, index) => parseBase64(root, `laboratoryRoots.${index}`))
  const members = MembersFile.load(membersPath(folder), (line) => observer.warned(line))
  // Opening takes the folder's lock, so only one manager ever clears unfinished uploads.
  const journal = await openJournal(folder)
  try {
    const vaultFile = await loadVaultFile(folderPart(folder, "vault"))
    const store = await openStore(journal, vaultFile, world)
    const keys = store.get("keys", keysKey)
    if (keys === undefined) throw new ProtocolError("store-changed", "the store holds no manager keys", { path: folder })
    if (store.get("vault", vaultKeyOfRecord)?.digest !== vaultDigest(vaultFile))
      throw new ProtocolError("store-changed", "vault.json is not the one that the store was sealed with", { path: folder })
    const blobs = await BlobFolder.open(folderPart(folder, "blobs"))
    const judge = new EvidenceJudge({ laboratoryRoots: roots, randomBytes, vouch: voucherIn(managerCollateralFolder(folder)) })
    const manager = createManager({
      store,
      blobs,
      clock: systemClock,
      randomBytes,
      judge,
      members,
      ...(ownTee === undefined ? {} : { ownTee }),
      ...(timeSource === undefined ? {} : { timeSource }),
      ...(unlockedBy === undefined ? {} : { unlockedBy }),
      ...(witnesses === undefined ? {} : { witnesses }),
      ...(world.securityContact === undefined ? {} : { securityContact: world.securityContact }),
      observer,
      freeBytes: () => freeBytesOf(folder),
      vault: describeVault(vaultFile),
      configuration: wholeConfiguration(configuration, vaultFile, timeSource),
    })
    await manager.openCounter(world.openCounter, world.acceptSetBack === true)
    return {
      manager,
      tls: { privateKeyPem: keys.tlsKey, certificatePem: keys.tlsCertificate, tlsKey: keys.tlsKeyDigest },
      vault: describeVault(vaultFile),
      laboratoryRoots: roots.map((root) => digestOf(root)),
      members,
      backUp: async (out, now) => makeBackup(folder, out, journal, now),
      [Symbol.dispose]: () => store[Symbol.dispose](),
    }
  } catch (error) {
    journal.close()
    throw error
  }
}

/** How a folder's vault key is kept, from its vault file. @throws as loadVaultFile */
export async function vaultOfFolder(folder: string): Promise<VaultFile> {
  return loadVaultFile(folderPart(folder, "vault"))
}

/** A folder whose vault is shared, with what a locked manager says of it; holds the folder's lock until it is disposed. */
export interface LockedFolder extends Disposable {
  readonly file: SharedVaultFile
  /** Digest of the configuration that the manager has once it is unlocked. */
  readonly configuration: Digest
}

/** @throws {ProtocolError} `wrong-state` for a vault that needs no custodians; as openManager */
export async function openLockedFolder(folder: string, { timeSource }: Pick<ManagerWorld, "timeSource"> = {}): Promise<LockedFolder> {
  const configuration = await loadConfiguration(folder)
  const journal = await openJournal(folder)
  try {
    const file = await loadVaultFile(folderPart(folder, "vault"))
    if (file.kind !== "shares") throw new ProtocolError("wrong-state", "this manager's vault key is not shared among custodians", { path: folder })
    return {
      file,
      configuration: digestOfJson(wholeConfiguration(configuration, file, timeSource)),
      [Symbol.dispose]: () => journal.close(),
    }
  } catch (error) {
    journal.close()
    throw error
  }
}

async function loadConfiguration(folder: string): Promise<z.output<typeof configurationSchema>> {
  const text = await readFileBounded(folderPart(folder, "configuration"), maxConfigurationBytes)
  return parseMessage(configurationSchema, text, maxConfigurationBytes)
}

/** What the description's `configuration` is the digest of. */
function wholeConfiguration(configuration: object, vaultFile: VaultFile, timeSource: TimeSource | undefined): unknown {
  return { ...configuration, vault: vaultConfiguration(vaultFile), ...(timeSource === undefined ? {} : { timeSource: timeSource.url }) }
}

async function openStore(journal: SqliteJournal, vaultFile: VaultFile, openers: VaultOpeners): Promise<Store> {
  const key = await openVault(vaultFile, openers)
  try {
    return Store.open({ journal, vaultKey: key, randomBytes })
  } finally {
    key.fill(0)
  }
}

function voucherIn(folder: string): EvidenceJudgeOptions["vouch"] {
  return (evidence, laboratoryRoots, time) =>
    withCachedCollateral(folder, evidence, { roots: (known) => teeRootsFor(known, laboratoryRoots), time: time.getTime() })
}

export function randomBytes(length: number): Uint8Array {
  return new Uint8Array(nodeRandomBytes(length))
}
