import { createPrivateKey } from "node:crypto"
import { UnavailableError } from "../bytes/error.ts"
import type { Custodian, ManagerVault } from "../policy/manager-vault.ts"
import type { LockDescription } from "../protocol/manager-lock.ts"
import type { ManagerDescription } from "../protocol/messages.ts"
import { certificatePem } from "../protocol/tls.ts"
import { type BackupPlan, BackupSchedule } from "./backup-schedule.ts"
import { CertificateKeeper } from "./certificate-keeper.ts"
import { systemClock } from "./clock.ts"
import { createLockedApp } from "./locked-app.ts"
import { VaultLock } from "./lock.ts"
import type { ManagerState } from "./manager.ts"
import type { ManagerObserver } from "./observe.ts"
import { rotateVault } from "./rotate-vault.ts"
import { type LockedFolder, type ManagerWorld, openLockedFolder, openManager, type OpenedManager, randomBytes, standardObserver } from "./state.ts"
import { TlsFront } from "./tls-front.ts"
import { vaultOfPlan, type VaultPlan } from "./vault.ts"

export interface ServeOptions extends ManagerWorld {
  /** Folder that `initManager` made. */
  readonly folder: string
  /** Address to listen on, e.g. `127.0.0.1`. */
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** Makes backups while it runs. */
  readonly backups?: BackupPlan
}

export interface RunningManager extends AsyncDisposable {
  /** Where it listens, `https://host:port`. */
  readonly url: string
  readonly description: ManagerDescription
  readonly vault: ManagerVault
  readonly laboratoryRoots: readonly string[]
  /** Number of members as the manager starts. */
  readonly members: number
  /** Why nothing is granted as the manager starts; undefined where its clock is borne out, or nobody checks it. */
  readonly timeProblem: string | undefined
  /** What there is now, for those who watch. */
  state(): ManagerState
  /** Stops taking calls, ends the open ones and closes the store. */
  stop(): Promise<void>
}

/** Ends of leases are seen at this grain. */
const tickMilliseconds = 1000
/** How often witnesses see that the log has grown, when nothing that needs them happens. */
const ticksPerShowing = 5

/**
 * Starts a manager: TLS 1.3 only, every client asked for a certificate. Resolves once it listens.
 * @throws {UnavailableError} `port-in-use`, `permission-denied`, `unavailable`; and what `openManager` throws
 */
export async function serveManager(options: ServeOptions): Promise<RunningManager> {
  const opened = await openManager(options.folder, options)
  try {
    return await run(opened, options)
  } catch (error) {
    opened[Symbol.dispose]()
    throw error
  }
}

/** `front`: where a locked manager listened; it becomes this one's. */
async function run(
  opened: OpenedManager,
  address: Pick<ServeOptions, "host" | "port" | "backups" | "observer">,
  front?: TlsFront,
): Promise<RunningManager> {
  const { manager, tls } = opened
  const { observer = standardObserver } = address
  await manager.checkTime()
  void manager.showWitnesses()
  const timeProblem = manager.timeProblem()
  const tlsKey = createPrivateKey(tls.privateKeyPem)
  const keeper = new CertificateKeeper(
    async () => manager.certify(tlsKey),
    (line) => observer.warned(line),
  )
  const first = await keeper.renew()
  const certificate = first === undefined ? tls.certificatePem : certificatePem(first)
  const face = { tls, fetch: manager.app.fetch }
  const listening = front ?? (await TlsFront.listen(face, certificate, address))
  if (front !== undefined) front.turn(face, certificate)
  const say = (line: string): void => observer.said(line)
  const backups =
    address.backups === undefined
      ? undefined
      : new BackupSchedule(address.backups, {
          make: async (out, now) => opened.backUp(out, now),
          now: () => new Date(systemClock.wallMilliseconds()),
          say,
        })
  let ticks = 0
  const timer = setInterval(() => {
    tick(opened, observer)
    backups?.tick()
    void manager.checkTime()
    if (++ticks % ticksPerShowing === 0) void manager.showWitnesses()
    void keeper.tick((renewed) => listening.renewCertificate(certificatePem(renewed)))
  }, tickMilliseconds)
  const stop = async (): Promise<void> => {
    clearInterval(timer)
    await listening.stop()
    await backups?.idle()
    await manager.stop()
    opened[Symbol.dispose]()
  }
  return {
    url: listening.url,
    description: manager.description,
    vault: opened.vault,
    laboratoryRoots: opened.laboratoryRoots,
    members: opened.members.size,
    timeProblem,
    state: () => manager.state(),
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

/** A disk that is full for a while must not end the manager; what reads a lease judges its time by itself. */
function tick({ manager, members }: OpenedManager, observer: ManagerObserver): void {
  // So that the operator hears of a broken file when it was saved, not when somebody calls.
  members.refresh()
  try {
    manager.tick()
  } catch (error) {
    if (!(error instanceof UnavailableError)) throw error
    observer.warned(`leases cannot be ended in the store: ${error.message}`)
  }
}

export interface ServeLockedOptions extends ServeOptions {
  /** Moves the vault key into another vault as soon as it is there. */
  readonly becomes?: VaultPlan
}

/** A manager that waits for its custodians. */
export interface LockedManager extends AsyncDisposable {
  readonly url: string
  readonly lock: LockDescription
  /** Resolves when enough custodians have unlocked it: the manager, at the same address. Never rejects; shares that do not open the store are forgotten, and it stays locked. */
  readonly unlocked: Promise<RunningManager>
}

/**
 * Starts a manager whose vault key is shared: locked, until its custodians have handed in their shares; then it goes on as the manager that it is, at the same address.
 * @throws {UnavailableError}; {ProtocolError} `wrong-state` for a vault that is not shared; as openLockedFolder
 */
export async function serveLocked(options: ServeLockedOptions): Promise<LockedManager> {
  let folder: LockedFolder | undefined = await openLockedFolder(options.folder, options)
  let running: RunningManager | undefined
  const { promise: unlocked, resolve } = Promise.withResolvers<RunningManager>()
  try {
    const { becomes, ownTee } = options
    const lock = await VaultLock.create({
      folder,
      ownTee,
      becomes: becomes === undefined ? null : vaultOfPlan(becomes),
      monotonic: () => systemClock.monotonicMilliseconds(),
      unlock: async (key, custodians) => {
        folder?.[Symbol.dispose]()
        folder = undefined
        try {
          running = await openUnlocked(options, key, custodians, front)
        } catch (error) {
          folder = await openLockedFolder(options.folder, options)
          throw error
        }
        resolve(running)
      },
    })
    const front: TlsFront = await TlsFront.listen(
      { tls: lock.tls, fetch: createLockedApp(lock, { observer: options.observer ?? standardObserver, randomBytes }).fetch },
      lock.tls.certificatePem,
      options,
    )
    return {
      url: front.url,
      get lock() {
        return lock.description
      },
      unlocked,
      async [Symbol.asyncDispose]() {
        lock.forget()
        if (running !== undefined) return running.stop()
        await front.stop()
        folder?.[Symbol.dispose]()
      },
    }
  } catch (error) {
    folder?.[Symbol.dispose]()
    throw error
  }
}

async function openUnlocked(
  options: ServeLockedOptions,
  key: Uint8Array,
  custodians: readonly Custodian[],
  front: TlsFront,
): Promise<RunningManager> {
  const { becomes, folder, ...world } = options
  const opened = await openKept()
  try {
    return await run(opened, options, front)
  } catch (error) {
    opened[Symbol.dispose]()
    throw error
  }

  async function openKept(): Promise<OpenedManager> {
    const unlocked = { ...world, unlockedBy: custodians }
    if (becomes === undefined) return openManager(folder, { ...unlocked, rebuiltKey: key })
    // The new key is at hand whatever keeps it from now on.
    const { key: fresh } = await rotateVault(folder, becomes, { rebuiltKey: key }, randomBytes)
    try {
      return await openManager(folder, { ...unlocked, freshKey: fresh })
    } finally {
      fresh.fill(0)
    }
  }
}
