import { encodeHex } from "../bytes/text.ts"
import type { Receipt, ReceiptLink, ShownReceipt, SignedReceipt } from "../protocol/messages.ts"
import { linkDigest, receiptDigest, signReceipt } from "../protocol/receipts.ts"
import { hostSight, policiesOf } from "./admission.ts"
import type { ManagerContext, StakeholderCaller } from "./context.ts"
import type { Transaction } from "./store.ts"

/** What a receipt says. */
export type ReceiptFacts = Omit<Receipt, "salt" | "at">

/** What a receipt is made with. */
export interface ReceiptWriter {
  readonly randomBytes: (length: number) => Uint8Array
  readonly time: Pick<ManagerContext["time"], "nowText">
  readonly description: Pick<ManagerContext["description"], "instance">
  readonly keys: Pick<ManagerContext["keys"], "identityKey">
}

/** What concerns whoever may read receipts at all, for it is about everything that lies here. */
const forEverybody: ReadonlySet<Receipt["kind"]> = new Set(["vault-unlocked", "vault-rotated"])

/** Adds a signed receipt to the list, in the same step as what it is about, so that neither is there without the other. */
export function appendReceipt(context: ReceiptWriter, tx: Transaction, facts: ReceiptFacts): void {
  const index = tx.count("receipts")
  const last = index === 0 ? undefined : tx.get("receipts", receiptKey(index - 1))
  if (index > 0 && last === undefined) throw new TypeError(`internal: receipt ${index - 1} is missing`)
  const receipt: Receipt = { salt: encodeHex(context.randomBytes(16)), at: context.time.nowText(), ...facts }
  const link: ReceiptLink = {
    perun: 1,
    index,
    previous: last === undefined ? null : linkDigest(last.link),
    manager: context.description.instance,
    receipt: receiptDigest(receipt),
  }
  tx.put("receipts", receiptKey(index), signReceipt(link, receipt, context.keys.identityKey))
}

/**
 * Receipts from an index on, at most `limit`: what concerns a policy that names the caller, or a host that it sees; of all others the signed link alone,
 * which says no more than that there is a receipt at this place.
 */
export function listReceipts(
  context: ManagerContext,
  caller: StakeholderCaller,
  from: number,
  limit: number,
): { readonly receipts: ShownReceipt[]; readonly total: number } {
  const { store } = context
  const total = store.count("receipts")
  const policies = new Set(policiesOf(context, store, caller).map(({ digest }) => digest))
  const seesHost = hostSight(context, store, caller)
  const isShown = ({ kind, policy, host }: Receipt): boolean => {
    if (forEverybody.has(kind)) return true
    if (policy !== undefined) return policies.has(policy)
    const record = host === undefined ? undefined : store.get("hosts", host)
    return record !== undefined && seesHost(record)
  }
  const receipts: ShownReceipt[] = []
  for (let index = from; index < total && receipts.length < limit; index++) {
    const signed: SignedReceipt | undefined = store.get("receipts", receiptKey(index))
    if (signed === undefined) throw new TypeError(`internal: receipt ${index} is missing`)
    const { link, signature } = signed
    receipts.push(isShown(signed.receipt) ? signed : { link, signature })
  }
  return { receipts, total }
}

function receiptKey(index: number): string {
  return String(index)
}
