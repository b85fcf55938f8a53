import type { KeyObject } from "node:crypto"
import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { PerunError } from "../bytes/error.ts"
import { signStatement, verifyStatement } from "../pki/statement.ts"
import { ProtocolError } from "./errors.ts"
import type { Receipt, SignedReceipt } from "./messages.ts"

/** Digest of a receipt: what the next one names as `previous`, and what is signed (statement purpose `receipt`). */
export function receiptDigest(receipt: Receipt): Digest {
  return digestOfJson(receipt)
}

export function signReceipt(receipt: Receipt, logKey: KeyObject): SignedReceipt {
  return { receipt, signature: signStatement("receipt", receiptDigest(receipt), logKey) }
}

/** How far a list of receipts is known: what a client remembers between two looks. */
export interface ReceiptHead {
  /** Number of receipts seen. */
  readonly count: number
  /** Digest of the last one; null when none was seen. */
  readonly last: Digest | null
}

export const noReceipts: ReceiptHead = { count: 0, last: null }

/**
 * Checks that receipts go on where `head` ends, each linked to the one before and signed by the manager's log key, and returns the new head. A list that
 * was cut or rewritten below a head that the client remembers does not fit it.
 * @throws {ProtocolError} `wrong-receipts`
 */
export function verifyReceipts(
  receipts: readonly SignedReceipt[],
  expected: { readonly logKey: string; readonly manager: string },
  head: ReceiptHead,
): ReceiptHead {
  let { count, last } = head
  for (const { receipt, signature } of receipts) {
    if (receipt.manager !== expected.manager) throw wrong(count, `is of manager ${receipt.manager}`)
    if (receipt.index !== count) throw wrong(count, `has index ${receipt.index}`)
    if (receipt.previous !== last) throw wrong(count, "does not follow the one before it")
    if (signature.key !== expected.logKey) throw wrong(count, "is signed by another key")
    const digest = receiptDigest(receipt)
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
