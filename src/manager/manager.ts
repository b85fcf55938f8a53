import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto"
import { encodeBase64, parseBase64 } from "../bytes/text.ts"
import { digestOfJson } from "../bytes/digest.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import type { Custodian, ManagerVault } from "../policy/manager-vault.ts"
import { signManagerDescription } from "../protocol/manager-description.ts"
import { type ManagerDescription, runStateSchema } from "../protocol/messages.ts"
import { logKeyOf } from "../protocol/receipts.ts"
import { createApp, type ManagerApp } from "./api.ts"
import type { BlobFolder } from "./blobs.ts"
import { BodyRoom } from "./body-room.ts"
import { ChallengeBook } from "./challenges.ts"
import { ManagerTime, type Clock } from "./clock.ts"
import { transact, type ManagerContext, type MemberKeys } from "./context.ts"
import { DocumentCache } from "./documents.ts"
import { EnrolmentBook } from "./enrolments.ts"
import { eraseWhatEnded } from "./erasure.ts"
import type { MachineJudge } from "./judge.ts"
import { expireLeases, LeaseMemory, restoreLeases } from "./leases.ts"
import { PublishedLog } from "./log.ts"
import { NetworkBudget } from "./network-budget.ts"
import { type ManagerObserver, observedReceipt, silentObserver } from "./observe.ts"
import { certifyManager, type OwnCertificate, type OwnTee } from "./own-tee.ts"
import { activateAfterNotice } from "./policies.ts"
import { type NotReadyReason, Readiness } from "./readiness.ts"
import { appendReceipt } from "./receipts.ts"
import type { KeysRecord, RecordOf, RunRecord, Table } from "./records.ts"
import type { Store } from "./store.ts"
import { type OpenCounter, StoreCounter } from "./store-counter.ts"
import { TimeCheck, type TimeSource } from "./time-check.ts"
import { Watchers } from "./watchers.ts"
import { type WitnessSource, Witnesses } from "./witnesses.ts"

export interface ManagerOptions {
  readonly store: Store
  readonly blobs: BlobFolder
  readonly clock: Clock
  readonly randomBytes: (length: number) => Uint8Array
  readonly judge: MachineJudge
  /** What the description says of the vault. */
  readonly vault: ManagerVault
  /** Whose shares just unlocked the vault; a receipt says so. */
  readonly unlockedBy?: readonly Custodian[]
  readonly members: MemberKeys
  readonly ownTee?: OwnTee
  /** Who checks the host's clock; without one it is believed. */
  readonly timeSource?: TimeSource
  /** Who is asked to cosign the log. */
  readonly witnesses?: readonly WitnessSource[]
  /** Hears what the operator should know. */
  readonly observer?: ManagerObserver
  /** Bytes free on the manager's disk; undefined where nobody knows. */
  readonly freeBytes?: () => number | undefined
  /** Whom to tell of faults; shown to anybody. */
  readonly securityContact?: string
  /** What the description's `configuration` is the digest of. */
  readonly configuration: unknown
}

/** A manager as a function of requests, and the work that time brings. */
export interface Manager {
  readonly app: ManagerApp
  readonly description: ManagerDescription
  /** Ends leases whose time is over, and destroys keys of policies that ended; called about once a second. */
  tick(): void
  /** Asks the time-stamping authority when it is time to; called at start and about once a second. Never fails for a silent one. */
  checkTime(): Promise<void>
  /**
   * Holds the store against the counter that it is bound to; before anything else, and before a call is answered.
   * @throws as StoreCounter.open
   */
  openCounter(open: OpenCounter | undefined, acceptSetBack: boolean): Promise<void>
  /** For a manager that stops. */
  stop(): Promise<void>
  /** Lets the witnesses see how far the log is, when it is time to; called at start and about once a second. Never fails for a silent one. */
  showWitnesses(): Promise<void>
  /** What there is now, for those who watch. */
  state(): ManagerState
  /** Why nothing is granted now; undefined where the clock is borne out, or nobody checks it. */
  timeProblem(): string | undefined
  /** A certificate with evidence over this TLS key, as certifyManager gives it. */
  certify(tlsPrivateKey: KeyObject): Promise<OwnCertificate | undefined>
}

/**
 * Puts a manager together over an opened store that `createManagerState` filled.
 * @throws {TypeError} for a store without keys
 */
export function createManager(options: ManagerOptions): Manager {
  const { store, blobs, clock, randomBytes, judge, members, ownTee } = options
  const keys = store.get("keys", keysKey)
  if (keys === undefined) throw new TypeError("internal: the store holds no manager keys")
  const identityKey = createPrivateKey(keys.identityKey)
  const { timeSource, observer = silentObserver, freeBytes = () => undefined } = options
  const warn = (line: string): void => observer.warned(line)
  const timeCheck = timeSource === undefined ? undefined : new TimeCheck(timeSource, clock, randomBytes, warn)
  const description = describe(keys, options, timeCheck)
  const time = new ManagerTime(clock, () => store.recordedMilliseconds, timeCheck)
  const monotonic = (): number => time.monotonicMilliseconds()
  const log = new PublishedLog(store, logKeyOf(description), identityKey)
  const witnesses = new Witnesses(options.witnesses ?? [], { store, log, time, warn })
  const context: ManagerContext = {
    store,
    time,
    randomBytes,
    keys: { identityKey, resultKey: createPrivateKey(keys.resultKey), depositPrivateKey: parseBase64(keys.depositPrivateKey) },
    description,
    signedDescription: signManagerDescription(description, identityKey),
    log,
    witnesses,
    counter: undefined,
    blobs,
    documents: new DocumentCache(),
    judge,
    watchers: new Watchers(),
    observer,
    securityContact: options.securityContact,
    readiness: new Readiness(store, time, freeBytes),
    challenges: new ChallengeBook(monotonic, randomBytes),
    enrolments: new EnrolmentBook(monotonic),
    leases: new LeaseMemory(),
    members,
    ownTee,
    budgets: {
      claims: new NetworkBudget(monotonic, claimsPerNetwork),
      looks: new NetworkBudget(monotonic, looksPerNetwork),
      enrolments: new NetworkBudget(monotonic, enrolmentsPerNetwork),
      attestations: new NetworkBudget(monotonic, attestationsPerNetwork),
      bodies: new NetworkBudget(monotonic, bodyBytesPerNetwork),
    },
    bodyRooms: { open: new BodyRoom(openBodies), known: new BodyRoom(knownBodies) },
  }
  store.observe(({ receipts, firstIndex, milliseconds }) => {
    context.counter?.recorded(receipts)
    observer.recorded({ milliseconds, receipts: receipts.map((receipt, place) => observedReceipt(receipt, firstIndex + place)) })
  })
  restoreLeases(context)
  const { unlockedBy } = options
  if (unlockedBy !== undefined)
    transact(context, (tx) => appendReceipt(context, tx, { kind: "vault-unlocked", vault: options.vault.kind, custodians: [...unlockedBy] }))
  return {
    app: createApp(context),
    description,
    tick() {
      expireLeases(context)
      activateAfterNotice(context)
      eraseWhatEnded(context)
      context.counter?.tick()
    },
    async openCounter(open, acceptSetBack) {
      context.counter = await StoreCounter.open(context, open, acceptSetBack)
    },
    stop: async () => context.counter?.stop(),
    checkTime: async () => timeCheck?.tick(),
    showWitnesses: async () => witnesses.show(),
    state: () => stateOf(context),
    timeProblem: () => time.problem(),
    certify: async (tlsPrivateKey) => certifyManager(context, tlsPrivateKey),
  }
}

/** Counts of what a manager holds. */
export interface ManagerState {
  readonly notReady: readonly NotReadyReason[]
  readonly logEntries: number
  readonly runningLeases: number
  readonly runs: Readonly<Record<RunRecord["state"], number>>
  readonly policies: Readonly<Record<"proposed" | "active" | "superseded" | "withdrawn", number>>
  readonly hosts: Readonly<Record<"enrolled" | "retired", number>>
  readonly members: number
  /** Bytes; undefined where nobody knows. */
  readonly diskFree: number | undefined
  /** Of each witness, how far it has cosigned the log for this process; undefined where it has not yet. */
  readonly witnesses: readonly { readonly name: string; readonly size: number | undefined }[]
}

function stateOf({ store, readiness, members, witnesses }: ManagerContext): ManagerState {
  const notReady = readiness.reasons()
  const isBroken = notReady.includes("store-broken")
  const list = <T extends Table>(table: T): readonly RecordOf<T>[] => (isBroken ? [] : store.list(table))
  const withdrawn = new Set(list("withdrawals").map(({ policy }) => policy))
  return {
    notReady,
    logEntries: store.logSize,
    runningLeases: list("leases").filter(({ ended }) => ended === undefined).length,
    runs: tally(
      runStateSchema.options,
      list("runs").map(({ state }) => state),
    ),
    policies: tally(
      ["proposed", "active", "superseded", "withdrawn"],
      list("policies").map(({ digest, state }) => (withdrawn.has(digest) ? "withdrawn" : state)),
    ),
    hosts: tally(
      ["enrolled", "retired"],
      list("hosts").map(({ retired }) => (retired ? "retired" : "enrolled")),
    ),
    members: members.size,
    diskFree: readiness.freeBytes(),
    witnesses: witnesses.states.map(({ name, size }) => ({ name, size })),
  }
}

function tally<Word extends string>(words: readonly Word[], found: readonly Word[]): Record<Word, number> {
  return Object.fromEntries(words.map((word) => [word, found.filter((each) => each === word).length])) as Record<Word, number>
}

/** A farm behind one address that starts all at once waits a little; an agent asks again by itself. */
const claimsPerNetwork = { most: 128, windowMilliseconds: 120_000 } as const
/** Whether there is work, asked by anyone under any name: a hundred idle hosts behind one address ask every two seconds. */
const looksPerNetwork = { most: 6000, windowMilliseconds: 120_000 } as const
/** An enrolment costs the manager a certificate chain and a credential. */
const enrolmentsPerNetwork = { most: 32, windowMilliseconds: 120_000 } as const
/** Bytes of bodies that hosts without a lease may send: reading 32 MB of JSON takes the manager seconds. A claim has a few MB. */
const bodyBytesPerNetwork = { most: 268_435_456, windowMilliseconds: 120_000 } as const
/** Two of the largest bodies, or some twenty claims, from one network at once. */
const openBodies = { allBytes: 268_435_456, networkBytes: 73_400_320 } as const
/** Of parties and of hosts with a lease, who are known by their keys. */
const knownBodies = { allBytes: 536_870_912, networkBytes: 167_772_160 } as const

/** A quote costs the machine some 10 ms; every client asks once per connection, every agent once per start. */
const attestationsPerNetwork = { most: 600, windowMilliseconds: 120_000 } as const

/** Key of the one record in table `keys`. */
export const keysKey = "manager"

/** Key of the one record in table `vault`. */
export const vaultKeyOfRecord = "vault"

function describe(keys: KeysRecord, { vault, configuration, ownTee }: ManagerOptions, timeCheck: TimeCheck | undefined): ManagerDescription {
  const key = sshPublicKeyText(createPrivateKey(keys.identityKey))
  return {
    perun: 1,
    instance: keys.instance,
    key,
    tlsKey: keys.tlsKeyDigest,
    depositKey: keys.depositPublicKey,
    logKey: key,
    resultKey: encodeBase64(spkiOf(createPrivateKey(keys.resultKey))),
    configuration: digestOfJson(configuration),
    vault,
    evidence: ownTee?.kind ?? null,
    time: timeCheck?.description ?? null,
  }
}

function spkiOf(privateKey: KeyObject): Uint8Array {
  return new Uint8Array(createPublicKey(privateKey).export({ format: "der", type: "spki" }))
}
