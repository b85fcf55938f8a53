import { createPublicKey, generateKeyPairSync, randomBytes as nodeRandomBytes } from "node:crypto"
import { mkdir, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import { AlreadyExistsError, createFileDurably, fromSystemError, readFileBounded, syncFolder } from "../bytes/durable.ts"
import { digestOf } from "../bytes/digest.ts"
import { encodeBase64, encodeHex, parseBase64 } from "../bytes/text.ts"
import { withCachedCollateral } from "../evidence/collateral/cache.ts"
import { teeRootsFor } from "../evidence/tee/roots.ts"
import { parseCertificate } from "../pki/certificate.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { generateHpkeKeyPair } from "../protocol/hpke.ts"
import { createTlsIdentity, type TlsIdentity } from "../protocol/tls.ts"
import { base64Schema, parseMessage } from "../protocol/wire.ts"
import { z } from "zod"
import { BlobFolder } from "./blobs.ts"
import { systemClock } from "./clock.ts"
import { EvidenceJudge, type EvidenceJudgeOptions } from "./evidence-judge.ts"
import { createManager, keysKey, type Manager } from "./manager.ts"
import { encodeMembers, type Member, MembersFile } from "./members.ts"
import { SqliteJournal } from "./sqlite-journal.ts"
import type { OwnTee } from "./own-tee.ts"
import type { TimeSource } from "./time-check.ts"
import { Store } from "./store.ts"
import { createVault, loadVault, type TpmSealer, type VaultKind } from "./vault.ts"

/**
 * A manager's folder: `manager.json` (configuration), `vault.json` (vault key, mode 0600), `manager.db` (store, sealed rows), `blobs/`, `members` (keys
 * that may propose policies), `collateral/` (what vouches for the processors of machines; may be missing). `initManager` makes it, `openManager` loads it; neither does the other's work.
 */
const files = {
  configuration: "manager.json",
  vault: "vault.json",
  database: "manager.db",
  blobs: "blobs",
  members: "members",
  collateral: "collateral",
} as const

/** Where a manager looks for what vouches for the processors of machines that send only their quotes. */
export function managerCollateralFolder(folder: string): string {
  return join(folder, files.collateral)
}

/** The members file of a manager's folder. */
export function membersPath(folder: string): string {
  return join(folder, files.members)
}

const configurationSchema = z.strictObject({
  perun: z.literal(1),
  /** Root certificates (DER) of laboratory TPMs and TEEs that may enrol: INSECURE LABORATORY. Policies decide whether they accept them. */
  laboratoryRoots: z.array(base64Schema(8192)).max(64),
})
const maxConfigurationBytes = 1_048_576

export interface InitOptions {
  readonly folder: string
  /** DER. */
  readonly laboratoryRoots: readonly Uint8Array[]
  /** Who may propose policies from the start. */
  readonly members?: readonly Member[]
  /** Seals the vault key to a TPM; without it the key lies in a plain file. */
  readonly sealer?: TpmSealer
}

export interface InitializedManager {
  /** Key that policies pin, `ssh-ed25519 base64`. */
  readonly key: string
  readonly instance: string
  readonly vault: VaultKind
}

/**
 * Makes a manager's folder, which must not exist: all of it or nothing.
 * @throws {AlreadyExistsError}; {UnavailableError} `disk-full`, `permission-denied`; {MalformedError}, {PkiError} for a root that is no certificate
 */
export async function initManager(options: InitOptions): Promise<InitializedManager> {
  for (const root of options.laboratoryRoots) parseCertificate(root)
  const { folder } = options
  const building = `${folder}.${encodeHex(random(8))}.new`
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

async function fillFolder(folder: string, { laboratoryRoots, members = [], sealer }: InitOptions): Promise<InitializedManager> {
  const configuration = { perun: 1, laboratoryRoots: laboratoryRoots.map((root) => encodeBase64(root)) }
  await createFileDurably(join(folder, files.configuration), `${JSON.stringify(configuration, null, 2)}\n`)
  await createFileDurably(membersPath(folder), encodeMembers(members))
  const vault = await createVault(join(folder, files.vault), random, sealer)
  await BlobFolder.create(join(folder, files.blobs))
  const { privateKey } = generateKeyPairSync("ed25519")
  const tls = createTlsIdentity("perun manager")
  const deposit = await generateHpkeKeyPair()
  const instance = encodeHex(random(16))
  using store = Store.create({ journal: SqliteJournal.create(join(folder, files.database)), vaultKey: vault.key, randomBytes: random }, Date.now())
  store.transact(new Date(), (tx) => {
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
  return { key: sshPublicKeyText(createPublicKey(privateKey)), instance, vault: vault.kind }
}

export interface OpenedManager extends Disposable {
  readonly manager: Manager
  readonly tls: TlsIdentity
  readonly vault: VaultKind
  /** INSECURE LABORATORY roots that may enrol, by fingerprint. */
  readonly laboratoryRoots: readonly string[]
  readonly members: MembersFile
}

/** What a manager finds around it besides its folder. */
export interface ManagerWorld {
  /** Where the vault key is sealed to a TPM. */
  readonly sealer?: TpmSealer
  /** The TEE that the manager runs in; without one it is an UNATTESTED MANAGER. */
  readonly ownTee?: OwnTee
  /** Who checks the host's clock; without one it is believed. */
  readonly timeSource?: TimeSource
}

/**
 * Loads a manager's folder; never creates anything.
 * @throws {UnavailableError} for a folder that is not there or that another manager uses; {ProtocolError} `store-changed`; {MalformedError}
 */
export async function openManager(folder: string, { sealer, ownTee, timeSource }: ManagerWorld = {}): Promise<OpenedManager> {
  const text = await readFileBounded(join(folder, files.configuration), maxConfigurationBytes)
  const configuration = parseMessage(configurationSchema, text, maxConfigurationBytes)
  const roots = configuration.laboratoryRoots.map((root, index) => parseBase64(root, `laboratoryRoots.${index}`))
  const members = MembersFile.load(membersPath(folder), (line) => console.error(line))
  const vault = await loadVault(join(folder, files.vault), sealer)
  // Opening takes the folder's lock, so only one manager ever clears unfinished uploads.
  const journal = SqliteJournal.open(join(folder, files.database))
  try {
    const store = Store.open({ journal, vaultKey: vault.key, randomBytes: random })
    const keys = store.get("keys", keysKey)
    if (keys === undefined) throw new ProtocolError("store-changed", "the store holds no manager keys", { path: folder })
    const blobs = await BlobFolder.open(join(folder, files.blobs))
    const judge = new EvidenceJudge({ laboratoryRoots: roots, randomBytes: random, vouch: voucherIn(join(folder, files.collateral)) })
    const manager = createManager({
      store,
      blobs,
      clock: systemClock,
      randomBytes: random,
      judge,
      members,
      ...(ownTee === undefined ? {} : { ownTee }),
      ...(timeSource === undefined ? {} : { timeSource }),
      warn: (line) => console.error(line),
      vault: vault.kind,
      configuration: { ...configuration, ...(timeSource === undefined ? {} : { timeSource: timeSource.url }) },
    })
    return {
      manager,
      tls: { privateKeyPem: keys.tlsKey, certificatePem: keys.tlsCertificate, tlsKey: keys.tlsKeyDigest },
      vault: vault.kind,
      laboratoryRoots: roots.map((root) => digestOf(root)),
      members,
      [Symbol.dispose]: () => store[Symbol.dispose](),
    }
  } catch (error) {
    journal.close()
    throw error
  }
}

function voucherIn(folder: string): EvidenceJudgeOptions["vouch"] {
  return (evidence, laboratoryRoots, time) =>
    withCachedCollateral(folder, evidence, { roots: (known) => teeRootsFor(known, laboratoryRoots), time: time.getTime() })
}

function random(length: number): Uint8Array {
  return new Uint8Array(nodeRandomBytes(length))
}
