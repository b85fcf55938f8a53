import type { KeyObject } from "node:crypto"
import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { signStatement, verifyStatement } from "../pki/statement.ts"
import { ProtocolError } from "./errors.ts"
import type { Receipt, ReceiptLink, ShownReceipt, SignedReceipt } from "./messages.ts"

/**
 * Receipts are a list of signed links, each of which names the one before it and the digest of what happened. What happened is shown to those whom it
 * concerns; the links to everybody who may see the list, so that whoever sees a part can still check that nothing was taken out or changed.
 */

/** Digest of what happened; its salt keeps it from being guessed. */
export function receiptDigest(receipt: Receipt): Digest {
  return digestOfJson(receipt)
}

/** Digest of a link: what the next one names as `previous`, and what is signed (statement purpose `receipt`). */
export function linkDigest(link: ReceiptLink): Digest {
  return digestOfJson(link)
}

export function signReceipt(link: ReceiptLink, receipt: Receipt, logKey: KeyObject): SignedReceipt {
  return { link, receipt, signature: signStatement("receipt", linkDigest(link), logKey) }
}

/** How far a list of receipts is known: what a client remembers between two looks. */
export interface ReceiptHead {
  /** Number of receipts seen. */
  readonly count: number
  /** Digest of the last link; null when none was seen. */
  readonly last: Digest | null
}

export const noReceipts: ReceiptHead = { count: 0, last: null }

/**
 * Checks that receipts go on where `head` ends, each linked to the one before and signed by the manager's log key, and returns the new head. Those that
 * are not shown are checked as links. A list that was cut or rewritten below a head that the client remembers does not fit it.
 * @throws {ProtocolError} `wrong-receipts`
 */
export function verifyReceipts(
  receipts: readonly ShownReceipt[],
  expected: { readonly logKey: string; readonly manager: string },
  head: ReceiptHead,
): ReceiptHead {
  let { count, last } = head
  for (const { link, receipt, signature } of receipts) {
    if (link.manager !== expected.manager) throw wrong(count, `is of manager ${link.manager}`)
    if (link.index !== count) throw wrong(count, `has index ${link.index}`)
    if (link.previous !== last) throw wrong(count, "does not follow the one before it")
    if (receipt !== undefined && receiptDigest(receipt) !== link.receipt) throw wrong(count, "is not what its link names")
    if (signature.key !== expected.logKey) throw wrong(count, "is signed by another key")
    const digest = linkDigest(link)
    try {
      verifyStatement("receipt", digest, signature)
    } catch (cause) {
      if (!(cause instanceof PerunError)) throw cause
      throw wrong(count, "is not signed by the manager", cause)
    }
    last = digest
    count++
  }
  return { count, last }
}

function wrong(index: number, what: string, cause?: unknown): ProtocolError {
  return new ProtocolError("wrong-receipts", `receipt ${index} ${what}`, { cause })
}
