import type { Command } from "commander"
import type { ManagerConnection } from "../../client/connection.ts"
import { fetchReceipts, type VerifiedReceipts } from "../../client/receipts.ts"
import { ProtocolError } from "../../protocol/errors.ts"
import type { Receipt, SignedReceipt } from "../../protocol/messages.ts"
import { noReceipts } from "../../protocol/receipts.ts"
import { auditHeadsFile, loadSeenHead, saveSeenHead, type SeenHead } from "../audit-heads.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import type { Cell, Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  withManagerOption(command.command("list"))
    .option("--kind <kind>", "only receipts of this kind, e.g. key-released")
    .description(
      "what happened in your policies, from the manager's receipts; the whole signed list is verified first, links of others' receipts too",
    )
    .action(async (options: ManagerOption & { kind?: string }) => {
      const { receipts, head, seen } = await withManager(options, output, (connection) => receiptsSinceSeen(connection))
      const own = receipts.filter((shown): shown is SignedReceipt => shown.receipt !== undefined)
      const listed = own.filter(({ receipt }) => options.kind === undefined || receipt.kind === options.kind)
      const others = receipts.length - own.length
      output.result({ ok: true, verified: receipts.length, others, head, receipts: listed }, () => {
        output.table(
          ["", "at", "what", "by", "concerns", "on"],
          listed.map(({ link, receipt }) => rowOf(link.index, receipt)),
        )
        output.line()
        output.line(`${receipts.length} receipts, each signed by the manager's log key and linked to the one before`, "good")
        if (seen !== undefined) output.line(`among them, unchanged, the ${seen.count} that were there on ${seen.at}`, "good")
        if (others > 0) output.line(`${others} of them do not concern you: their links were verified, what they say is not shown`)
      })
    })
}

/** All receipts, held against the head that this home saw last; the new head is kept for the next time. */
async function receiptsSinceSeen(connection: ManagerConnection): Promise<VerifiedReceipts & { readonly seen: SeenHead | undefined }> {
  const { description } = connection
  const seen = await loadSeenHead(description)
  const verified = await fetchReceipts(connection, seen ?? noReceipts).catch((cause: unknown) => {
    if (!(cause instanceof ProtocolError) || seen === undefined) throw cause
    throw new ProtocolError(cause.code, `${cause.message} (seen on ${seen.at}, kept in ${auditHeadsFile()})`, { cause })
  })
  await saveSeenHead(description, verified.head, new Date().toISOString())
  return { ...verified, seen }
}

function rowOf(index: number, receipt: Receipt): readonly Cell[] {
  const { at, kind, by, byKey, host, policy, run, output, artifacts, evidence, code, laboratory, report } = receipt
  const refused = kind === "release-refused"
  const concerns = [host, artifacts?.join(", "), output, run ?? policy].filter((part) => part !== undefined).join(" ")
  const grounds = [
    code,
    evidence === undefined ? undefined : `evidence ${evidence}`,
    laboratory === true ? insecureLaboratory : undefined,
    report === undefined ? undefined : `report ${report}`,
  ]
  return [
    index,
    at,
    { text: kind, tone: refused ? "bad" : "plain" },
    by ?? byKey ?? "",
    concerns,
    grounds.filter((part) => part !== undefined).join(" "),
  ]
}
