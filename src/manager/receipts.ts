import { encodeHex } from "../bytes/text.ts"
import type { LogCheckpoint, ProvenReceipt, Receipt, ShownReceipt } from "../protocol/messages.ts"
import { receiptDigest } from "../protocol/receipts.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { hostSight, policiesOf } from "./admission.ts"
import type { ManagerContext, StakeholderCaller } from "./context.ts"
import type { Transaction } from "./store.ts"

/** What a receipt says. */
export type ReceiptFacts = Omit<Receipt, "salt" | "at">

/** What a receipt is made with. */
export interface ReceiptWriter {
  readonly randomBytes: (length: number) => Uint8Array
  readonly time: Pick<ManagerContext["time"], "nowText">
}

/** What concerns whoever may read receipts at all, for it is about everything that lies here. */
const forEverybody: ReadonlySet<Receipt["kind"]> = new Set(["vault-unlocked", "vault-rotated", "store-set-back"])

/** Adds a receipt to the log, in the same step as what it is about, so that neither is there without the other. */
export function appendReceipt({ randomBytes, time }: ReceiptWriter, tx: Transaction, facts: ReceiptFacts): void {
  tx.append({ salt: encodeHex(randomBytes(16)), at: time.nowText(), ...facts })
}

/**
 * Receipts from an index on, at most `limit`: what concerns a policy that names the caller, or a host that it sees; of all others the digest alone, which says no more than that there
 * is a receipt at this place.
 */
export function listReceipts(
  context: ManagerContext,
  caller: StakeholderCaller,
  from: number,
  limit: number,
): { readonly from: number; readonly receipts: ShownReceipt[]; readonly total: number } {
  const { store } = context
  const isShown = sightOf(context, caller)
  const receipts = store.logEntries(from, from + limit).map((receipt): ShownReceipt => {
    const digest = receiptDigest(receipt)
    return isShown(receipt) ? { digest, receipt } : { digest }
  })
  return { from, receipts, total: store.logHead.size }
}

/** Which receipts a caller sees. */
function sightOf(context: ManagerContext, caller: StakeholderCaller): (receipt: Receipt) => boolean {
  const { store } = context
  const policies = new Set(policiesOf(context, store, caller).map(({ digest }) => digest))
  const seesHost = hostSight(context, store, caller)
  return ({ kind, policy, host }) => {
    if (forEverybody.has(kind)) return true
    if (policy !== undefined) return policies.has(policy)
    const record = host === undefined ? undefined : store.get("hosts", host)
    return record !== undefined && seesHost(record)
  }
}

/**
 * A receipt that concerns the caller, with what anybody needs to verify it.
 * @throws {ProtocolError} `not-found`, also for one that does not concern it
 */
export function proveReceipt(context: ManagerContext, caller: StakeholderCaller, index: number): ProvenReceipt {
  const { store } = context
  const [receipt] = store.logEntries(index, index + 1)
  if (receipt === undefined || !sightOf(context, caller)(receipt))
    throw new ProtocolError("not-found", "there is no receipt at this place that concerns the caller")
  return { perun: 1, index, receipt, proof: store.logInclusion(index).map(encodeHex), checkpoint: context.log.checkpoint() }
}

/** @throws {LogError} `wrong-proof` for a size that the log never had */
export function readLog(context: ManagerContext, from: number): LogCheckpoint {
  const consistency = context.store.logConsistency(from).map(encodeHex)
  return { checkpoint: context.log.checkpoint(), consistency }
}
