import type { KeyObject } from "node:crypto"
import type { Digest } from "../bytes/digest.ts"
import { encodeHex } from "../bytes/text.ts"
import type { ManagerDescription, SignedManagerDescription } from "../protocol/messages.ts"
import type { BlobFolder } from "./blobs.ts"
import type { BodyRoom } from "./body-room.ts"
import type { ChallengeBook } from "./challenges.ts"
import type { ManagerTime } from "./clock.ts"
import type { DocumentCache } from "./documents.ts"
import type { EnrolmentBook } from "./enrolments.ts"
import type { MachineJudge } from "./judge.ts"
import type { LeaseMemory } from "./leases.ts"
import type { PublishedLog } from "./log.ts"
import type { NetworkBudget } from "./network-budget.ts"
import type { ManagerObserver } from "./observe.ts"
import type { OwnTee } from "./own-tee.ts"
import type { Readiness } from "./readiness.ts"
import type { Store, Transaction } from "./store.ts"
import type { StoreCounter } from "./store-counter.ts"
import type { Watchers } from "./watchers.ts"
import type { Witnesses } from "./witnesses.ts"

/** Keys of the manager in the form they are used in. */
export interface ManagerKeys {
  /** Ed25519; signs description and receipts. */
  readonly identityKey: KeyObject
  /** P-384; signs attestation results. */
  readonly resultKey: KeyObject
  /** X-Wing seed. */
  readonly depositPrivateKey: Uint8Array
}

/** What every part of the manager works with; made once by `createManager`. */
export interface ManagerContext {
  readonly store: Store
  readonly time: ManagerTime
  readonly randomBytes: (length: number) => Uint8Array
  readonly keys: ManagerKeys
  readonly description: ManagerDescription
  readonly signedDescription: SignedManagerDescription
  readonly log: PublishedLog
  readonly witnesses: Witnesses
  /** Whether nobody put the store back; set as the manager starts. Undefined where the store is bound to no counter. */
  counter: StoreCounter | undefined
  readonly blobs: BlobFolder
  readonly documents: DocumentCache
  readonly judge: MachineJudge
  readonly watchers: Watchers
  readonly observer: ManagerObserver
  readonly readiness: Readiness
  /** Whom to tell of faults, where the operator said so; an address of RFC 9116. */
  readonly securityContact: string | undefined
  readonly challenges: ChallengeBook
  readonly enrolments: EnrolmentBook
  readonly leases: LeaseMemory
  /** Keys whose owners may propose policies, as the operator's file has them now. */
  readonly members: MemberKeys
  /** The manager's own TEE; undefined for an UNATTESTED MANAGER. */
  readonly ownTee: OwnTee | undefined
  readonly budgets: Readonly<Record<"claims" | "looks" | "enrolments" | "attestations" | "bodies", NetworkBudget>>
  /** Bodies that anyone may send, and those of parties and of hosts with a lease; the first cannot crowd out the second. */
  readonly bodyRooms: { readonly open: BodyRoom; readonly known: BodyRoom }
}

export type MemberKeys = Pick<ReadonlySet<string>, "has" | "size">

/** Reads of a step or outside of one. */
export type Reader = Pick<Transaction, "get" | "list">

/** Runs one step at the manager's present time and wakes those who watch runs. */
export function transact<R>(context: ManagerContext, step: (transaction: Transaction) => R): R {
  const result = context.store.transact(context.time.now(), step)
  context.watchers.wake()
  return result
}

/** 16 random bytes in hexadecimal: the form of every identifier that the manager draws. */
export function newId(context: ManagerContext): string {
  return encodeHex(context.randomBytes(16))
}

/** Key of a record that belongs to two things. Digests, names and identifiers hold no space. */
export function pairKey(first: string, second: string): string {
  return `${first} ${second}`
}

/** A stakeholder who calls, known by the canonical text of its key. */
export interface StakeholderCaller {
  readonly kind: "stakeholder"
  readonly key: string
  readonly tlsKey: Digest
}

/** A host that calls, known by its TLS key alone; what it may do follows from what that key has proved. */
export interface HostCaller {
  readonly kind: "host"
  readonly tlsKey: Digest
  /** IP address that the connection comes from; undefined where it is gone already. */
  readonly address: string | undefined
}
