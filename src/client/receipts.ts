import { ProtocolError } from "../protocol/errors.ts"
import { noReceipts, type ReceiptHead, verifyReceipts } from "../protocol/receipts.ts"
import { type ResponseBody, routes } from "../protocol/routes.ts"
import type { ManagerConnection } from "./connection.ts"

/** A list of receipts that was verified from its first one to its head. */
export interface VerifiedReceipts {
  readonly receipts: ResponseBody<typeof routes.listReceipts>["receipts"]
  readonly head: ReceiptHead
}

/**
 * Fetches all receipts, verifies every link, and holds them against a head that was seen before: the list must still hold it in its place. A manager whose
 * database was rolled back, or that shows each party another list, does not get past a client that remembers.
 * @throws {ProtocolError} `wrong-receipts`
 */
export async function fetchReceipts(connection: Pick<ManagerConnection, "call" | "description">, seen: ReceiptHead): Promise<VerifiedReceipts> {
  const { logKey, instance } = connection.description
  const expected = { logKey, manager: instance }
  const receipts: VerifiedReceipts["receipts"] = []
  let head = noReceipts
  for (;;) {
    const page = await connection.call(routes.listReceipts, { query: { from: String(head.count) } })
    const known = seen.count - head.count
    head = verifyReceipts(
      page.receipts.filter((_, index) => index < known),
      expected,
      head,
    )
    if (head.count === seen.count && head.last !== seen.last)
      throw new ProtocolError(
        "wrong-receipts",
        `receipt ${seen.count - 1} is another one than before: found ${head.last ?? "none"}, seen was ${seen.last ?? "none"}; the list was forked or rewritten`,
      )
    head = verifyReceipts(
      page.receipts.filter((_, index) => index >= known),
      expected,
      head,
    )
    receipts.push(...page.receipts)
    if (page.receipts.length > 0 && head.count < page.total) continue
    if (head.count < seen.count)
      throw new ProtocolError("wrong-receipts", `the list has ${head.count} receipts, ${seen.count} were seen before: it was cut or rolled back`)
    return { receipts, head }
  }
}
