import { parseHex } from "../bytes/text.ts"
import { bytesEqual } from "../bytes/compare.ts"
import { type SignedCheckpoint, verifyCheckpoint } from "../log/checkpoint.ts"
import { LogError } from "../log/errors.ts"
import { CompactRange, emptyRoot, leafHash, type TreeHead, verifyConsistency } from "../log/merkle.ts"
import { ProtocolError } from "./errors.ts"
import type { ManagerDescription, ShownReceipt } from "./messages.ts"
import { ProblemError } from "./problem.ts"
import { logKeyOf, receiptLeaf, shownDigest } from "./receipts.ts"
import { type RequestQuery, type ResponseBody, type Route, routes } from "./routes.ts"

/** A connection to a manager, as far as its log is read. */
export interface LogConnection {
  readonly description: Pick<ManagerDescription, "instance" | "logKey">
  call<R extends Route>(route: R, options: { readonly query?: RequestQuery<R> }): Promise<ResponseBody<R>>
}

/** What a client that never looked knows of a log. */
export const nothingSeen: TreeHead = { size: 0, root: emptyRoot }

/** The log of a manager, from its first receipt to the head of a checkpoint that the manager signed. */
export interface VerifiedReceipts {
  readonly receipts: readonly ShownReceipt[]
  readonly head: SignedCheckpoint
}

/**
 * The log's present checkpoint, held against the tree that was seen before: it must go on from it. A manager whose database was put back, or that shows each party another log, does not
 * get past a client that remembers.
 * @throws {LogError} `wrong-checkpoint`, `older-tree`, `forked`; {MalformedError}
 */
export async function followLog(connection: LogConnection, seen: TreeHead): Promise<SignedCheckpoint> {
  if (seen.size === 0) return ask(connection, 0)
  try {
    return await ask(connection, seen.size, seen)
  } catch (error) {
    // There is no proof from a tree that the log never had. How long it is now is told by its own signature.
    if (!(error instanceof ProblemError) || error.code !== "wrong-proof") throw error
    const { size } = await ask(connection, 0)
    if (size >= seen.size) throw error
    throw new LogError("older-tree", `the log has ${size} entries, ${seen.size} were seen before: it was cut or set back`, { cause: error })
  }
}

async function ask(connection: LogConnection, from: number, seen?: TreeHead): Promise<SignedCheckpoint> {
  const { checkpoint, consistency } = await connection.call(routes.getLog, { query: { from: String(from) } })
  const head = verifyCheckpoint(checkpoint, logKeyOf(connection.description))
  if (seen === undefined) return head
  try {
    verifyConsistency(
      seen,
      head,
      consistency.map((hash) => parseHex(hash, "consistency")),
    )
    return head
  } catch (cause) {
    if (!(cause instanceof LogError)) throw cause
    throw new LogError(
      "forked",
      `the log of ${head.size} entries does not go on from the ${seen.size} that were seen before: another history stands in its place`,
      { cause },
    )
  }
}

/**
 * All receipts, each leaf computed here and held against the root of a checkpoint that the manager signed, and that against the tree that was seen before.
 * @throws as followLog; {ProtocolError} `wrong-receipts`
 */
export async function fetchReceipts(connection: LogConnection, seen: TreeHead = nothingSeen): Promise<VerifiedReceipts> {
  const head = await followLog(connection, seen)
  const receipts: ShownReceipt[] = []
  const range = CompactRange.empty()
  while (range.size < head.size) {
    const page = await connection.call(routes.listReceipts, { query: { from: String(range.size) } })
    if (page.from !== range.size || page.receipts.length === 0)
      throw new ProtocolError("wrong-receipts", `asked for receipts from ${range.size} on, got ${page.receipts.length} from ${page.from} on`)
    for (const shown of page.receipts) {
      if (range.size === head.size) break
      range.append(leafHash(receiptLeaf(range.size, shownDigest(range.size, shown))))
      receipts.push(shown)
    }
  }
  if (!bytesEqual(range.root(), head.root))
    throw new ProtocolError("wrong-receipts", "the receipts are not those of the log whose checkpoint the manager signed")
  return { receipts, head }
}
