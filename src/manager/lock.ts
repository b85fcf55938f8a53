import { PerunError } from "../bytes/error.ts"
import { encodeBase64 } from "../bytes/text.ts"
import { encodeTeeEvidence } from "../evidence/tee/format.ts"
import { verifyStatement } from "../pki/statement.ts"
import type { Custodian, ManagerVault } from "../policy/manager-vault.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { generateHpkeKeyPair, openMessage, type HpkeKeyPair } from "../protocol/hpke.ts"
import {
  demandShare,
  lockReportData,
  unlockContext,
  unlockDigest,
  type LockAnswer,
  type LockDescription,
  type SharePlace,
  type UnlockAnswer,
  type UnlockRequest,
} from "../protocol/manager-lock.ts"
import { createTlsIdentity, type TlsIdentity } from "../protocol/tls.ts"
import { NetworkBudget } from "./network-budget.ts"
import { collectFairly, type OwnTee } from "./own-tee.ts"
import { rebuild } from "./shares.ts"
import type { LockedFolder } from "./state.ts"

/** What unlocks a vault: opens the store with the key, or throws. The key is wiped when it returns. */
export type Unlock = (key: Uint8Array, custodians: readonly Custodian[]) => Promise<void>

export interface LockOptions {
  readonly folder: Pick<LockedFolder, "file" | "configuration">
  readonly ownTee: OwnTee | undefined
  /** Vault that the key is moved into once it is there. */
  readonly becomes: ManagerVault | null
  readonly monotonic: () => number
  readonly unlock: Unlock
}

/**
 * A manager that waits for its vault key. Everything that it is known by lives for this start only: the TLS key, the key that shares are sealed to, the shares
 * themselves. A restart begins anew.
 */
export class VaultLock {
  readonly tls: TlsIdentity
  readonly #options: LockOptions
  readonly #shareKeys: HpkeKeyPair
  readonly #budgets: Readonly<Record<"attestations" | "shares", NetworkBudget>>
  /** By the custodian's key. */
  readonly #shares = new Map<string, Uint8Array>()
  /** One share at a time: two that come at once must not both see themselves as the last. */
  #turn: Promise<unknown> = Promise.resolve()
  #isUnlocked = false

  private constructor(options: LockOptions, shareKeys: HpkeKeyPair) {
    this.#options = options
    this.#shareKeys = shareKeys
    this.tls = createTlsIdentity("perun manager, locked")
    this.#budgets = {
      attestations: new NetworkBudget(options.monotonic, asksPerNetwork),
      shares: new NetworkBudget(options.monotonic, sharesPerNetwork),
    }
  }

  static async create(options: LockOptions): Promise<VaultLock> {
    return new VaultLock(options, await generateHpkeKeyPair())
  }

  get isUnlocked(): boolean {
    return this.#isUnlocked
  }

  get description(): LockDescription {
    const { folder, becomes } = this.#options
    const { instance, shares } = folder.file
    return {
      perun: 1,
      purpose: "manager-locked",
      instance,
      configuration: folder.configuration,
      tlsKey: this.tls.tlsKey,
      shareKey: encodeBase64(this.#shareKeys.publicKey),
      shares,
      present: this.#shares.size,
      becomes,
    }
  }

  /** What it is, under evidence over the asker's nonce. @throws {ProtocolError} `too-many-requests`; {UnavailableError} the device does not answer */
  async show(nonce: string, address: string | undefined): Promise<LockAnswer> {
    const { ownTee, folder } = this.#options
    this.#budgets.attestations.spend(address)
    const lock = this.description
    const evidence = ownTee === undefined ? null : encodeTeeEvidence(await collectFairly(ownTee, address, lockReportData(lock, nonce)))
    return { perun: 1, lock, sealedShares: folder.file.sealedShares, evidence }
  }

  /**
   * Takes a custodian's share; with the last that is needed, unlocks. A share that came before counts once.
   * @throws {ProtocolError} `not-permitted` for who is no custodian, `wrong-message`, `wrong-share`, `too-many-requests`, `wrong-state` once it is unlocked; {PkiError}
   * `wrong-signature`; what `unlock` throws: then all shares are forgotten
   */
  async take(request: UnlockRequest, address: string | undefined): Promise<UnlockAnswer> {
    this.#budgets.shares.spend(address)
    const place = this.#placeOf(request.custodian)
    this.#verify(request, place)
    const turn = this.#turn.then(async () => this.#count(request, place))
    this.#turn = turn.catch(() => undefined)
    return turn
  }

  /** Forgets every share. */
  forget(): void {
    for (const share of this.#shares.values()) share.fill(0)
    this.#shares.clear()
  }

  #placeOf(custodian: string): SharePlace {
    const place = this.#options.folder.file.shares.custodians.find(({ key }) => key === custodian)
    if (place === undefined)
      throw new ProtocolError("not-permitted", `${custodian} is no custodian of this manager's vault key`, { path: "custodian" })
    return place
  }

  #verify({ share, signature }: UnlockRequest, { name, key }: SharePlace): void {
    try {
      const signer = verifyStatement("unlock", unlockDigest(this.description, key, share), signature)
      if (signer === key) return
    } catch (cause) {
      if (!(cause instanceof PerunError)) throw cause
      throw new ProtocolError("not-permitted", `the share of ${name} is not signed for this start of this manager`, { path: "signature", cause })
    }
    throw new ProtocolError("not-permitted", `the share of ${name} is signed by another key`, { path: "signature" })
  }

  async #count({ share: sealed }: UnlockRequest, place: SharePlace): Promise<UnlockAnswer> {
    const { shares } = this.#options.folder.file
    if (this.#isUnlocked) throw new ProtocolError("wrong-state", "this manager is unlocked already; connect again")
    const share = await openMessage(this.#shareKeys.privateKey, unlockContext(this.description, place.key), sealed)
    demandShare(shares.set, place, share)
    this.#shares.get(place.key)?.fill(0)
    this.#shares.set(place.key, share)
    const present = this.#shares.size
    if (present >= shares.threshold) await this.#open()
    return { present, threshold: shares.threshold, unlocked: this.#isUnlocked }
  }

  async #open(): Promise<void> {
    const { folder, unlock } = this.#options
    const custodians = folder.file.shares.custodians.filter(({ key }) => this.#shares.has(key)).map(({ name, key }) => ({ name, key }))
    try {
      const key = await rebuild([...this.#shares.values()])
      try {
        await unlock(key, custodians)
      } finally {
        key.fill(0)
      }
      this.#isUnlocked = true
    } finally {
      this.forget()
    }
  }
}

/** A quote costs the machine some 10 ms; a custodian asks a few times. */
const asksPerNetwork = { most: 120, windowMilliseconds: 120_000 } as const
/** Each costs a signature's verification, and a decapsulation where that is good. */
const sharesPerNetwork = { most: 120, windowMilliseconds: 120_000 } as const
