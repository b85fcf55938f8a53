import { z } from "zod"
import { bytesEqual } from "../bytes/compare.ts"
import { MalformedError } from "../bytes/error.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { type SignedCheckpoint, verifyCheckpoint } from "../log/checkpoint.ts"
import { LogError } from "../log/errors.ts"
import { CompactRange, leafHash } from "../log/merkle.ts"
import { encodeNote, maxNoteBytes, type NoteKey } from "../log/note.ts"
import { ProtocolError } from "./errors.ts"
import type { VerifiedReceipts } from "./follow-log.ts"
import { type ShownReceipt, shownReceiptSchema } from "./messages.ts"
import { receiptLeaf, shownDigest } from "./receipts.ts"
import { maxMessageBytes, parseMessage } from "./wire.ts"

/**
 * A manager's whole log in one file, as one party sees it: a first line with the checkpoint that the manager signed, then a line for every receipt, `{"digest":…,"receipt":…}`, of what does not
 * concern the party the digest alone. It needs no manager to be verified: the tree is built anew from the lines.
 */
const headerSchema = z.strictObject({
  perun: z.literal(1),
  kind: z.literal("audit-export"),
  /** When it was made, by the clock of whoever made it; proves nothing. */
  exportedAt: z.iso.datetime(),
  checkpoint: z.string().max(maxNoteBytes),
})

/** First bytes of every export, by which it is told from other files. */
export const exportPrefix = '{"perun":1,"kind":"audit-export",'
/** A million receipts take some 600 MB. */
export const maxExportBytes = 2 ** 31 - 1

export function encodeAuditExport({ head, receipts }: VerifiedReceipts, exportedAt: Date): Uint8Array {
  const header = { perun: 1, kind: "audit-export", exportedAt: exportedAt.toISOString(), checkpoint: encodeNote(head.note) } as const
  const lines = [header, ...receipts].map((line) => encodeUtf8(`${JSON.stringify(line)}\n`))
  // A million parts are no arguments of one call.
  const file = new Uint8Array(lines.reduce((size, line) => size + line.length, 0))
  let at = 0
  for (const line of lines) {
    file.set(line, at)
    at += line.length
  }
  return file
}

/**
 * Verifies an export with the log's key alone: its lines are all receipts of a log whose checkpoint the manager signed, in their order, none changed, none left out.
 * `earlier`: a checkpoint of before, of which the log must be the continuation.
 * @throws {MalformedError}; {ProtocolError} `wrong-receipts`; {LogError} `wrong-checkpoint`, `older-tree`, `forked`
 */
export function verifyAuditExport(file: Uint8Array, log: NoteKey, earlier?: SignedCheckpoint): VerifiedReceipts {
  const lines = linesOf(file)
  const [first] = lines.next().value ?? []
  if (first === undefined) throw new MalformedError("truncated", "the export is empty")
  const head = verifyCheckpoint(parseMessage(headerSchema, first, maxMessageBytes).checkpoint, log)
  if (earlier !== undefined && earlier.size > head.size)
    throw new LogError("older-tree", `the export has ${head.size} entries, ${earlier.size} were seen before`)
  const range = CompactRange.empty()
  const receipts: ShownReceipt[] = []
  const compare = (): void => {
    if (earlier?.size === range.size && !bytesEqual(range.root(), earlier.root))
      throw new LogError(
        "forked",
        `the export does not go on from the ${earlier.size} entries that were seen before: another history stands in its place`,
      )
  }
  compare()
  for (const [line, number] of lines) {
    if (range.size === head.size)
      throw new ProtocolError("wrong-receipts", `line ${number}: the checkpoint is of ${head.size} receipts, here are more`)
    const shown = parseMessage(shownReceiptSchema, line, maxMessageBytes)
    range.append(leafHash(receiptLeaf(range.size, shownDigest(range.size, shown))))
    receipts.push(shown)
    compare()
  }
  if (range.size !== head.size || !bytesEqual(range.root(), head.root))
    throw new ProtocolError("wrong-receipts", "the receipts are not those of the log whose checkpoint the manager signed")
  return { receipts, head }
}

/** Lines with their numbers, from 1; each must end. */
function* linesOf(file: Uint8Array): Generator<readonly [Uint8Array, number], undefined> {
  let number = 1
  for (let from = 0; from < file.length; number++) {
    const end = file.indexOf(0x0a, from)
    if (end < 0) throw new MalformedError("truncated", `line ${number} does not end`)
    yield [file.subarray(from, end), number]
    from = end + 1
  }
  return undefined
}
