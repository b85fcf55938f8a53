import type { Receipt, SignedReceipt } from "../protocol/messages.ts"
import { receiptDigest, signReceipt } from "../protocol/receipts.ts"
import type { ManagerContext } from "./context.ts"
import type { Store, Transaction } from "./store.ts"

/** What a receipt says, without its place in the list. */
export type ReceiptFacts = Omit<Receipt, "perun" | "index" | "previous" | "at" | "manager">

/** Adds a signed receipt to the list, in the same step as what it is about, so that neither is there without the other. */
export function appendReceipt(context: ManagerContext, tx: Transaction, facts: ReceiptFacts): void {
  const index = tx.count("receipts")
  const last = index === 0 ? undefined : tx.get("receipts", receiptKey(index - 1))
  if (index > 0 && last === undefined) throw new TypeError(`internal: receipt ${index - 1} is missing`)
  const receipt: Receipt = {
    perun: 1,
    index,
    previous: last === undefined ? null : receiptDigest(last.receipt),
    at: context.time.nowText(),
    manager: context.description.instance,
    ...facts,
  }
  tx.put("receipts", receiptKey(index), signReceipt(receipt, context.keys.identityKey))
}

/** Receipts from an index on, at most `limit`. */
export function listReceipts(store: Store, from: number, limit: number): { readonly receipts: SignedReceipt[]; readonly total: number } {
  const total = store.count("receipts")
  const receipts: SignedReceipt[] = []
  for (let index = from; index < total && receipts.length < limit; index++) {
    const receipt = store.get("receipts", receiptKey(index))
    if (receipt !== undefined) receipts.push(receipt)
  }
  return { receipts, total }
}

function receiptKey(index: number): string {
  return String(index)
}
