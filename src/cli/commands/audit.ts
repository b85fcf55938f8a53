import type { Command } from "commander"
import type { Receipt, ShownReceipt, SignedReceipt } from "../../protocol/messages.ts"
import { noReceipts, type ReceiptHead, verifyReceipts } from "../../protocol/receipts.ts"
import { routes } from "../../protocol/routes.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import type { Cell, Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  withManagerOption(command.command("list"))
    .option("--kind <kind>", "only receipts of this kind, e.g. key-released")
    .description(
      "what happened in your policies, from the manager's receipts; the whole signed list is verified first, links of others' receipts too",
    )
    .action(async (options: ManagerOption & { kind?: string }) => {
      const receipts = await withManager(options, output, async (connection) => {
        const { logKey, instance } = connection.description
        const all: ShownReceipt[] = []
        let head: ReceiptHead = noReceipts
        for (;;) {
          const page = await connection.call(routes.listReceipts, { query: { from: String(head.count) } })
          head = verifyReceipts(page.receipts, { logKey, manager: instance }, head)
          all.push(...page.receipts)
          if (page.receipts.length === 0 || head.count >= page.total) return all
        }
      })
      const own = receipts.filter((shown): shown is SignedReceipt => shown.receipt !== undefined)
      const listed = own.filter(({ receipt }) => options.kind === undefined || receipt.kind === options.kind)
      const others = receipts.length - own.length
      output.result({ ok: true, verified: receipts.length, others, receipts: listed }, () => {
        output.table(
          ["", "at", "what", "by", "concerns", "on"],
          listed.map(({ link, receipt }) => rowOf(link.index, receipt)),
        )
        output.line()
        output.line(`${receipts.length} receipts, each signed by the manager's log key and linked to the one before`, "good")
        if (others > 0) output.line(`${others} of them do not concern you: their links were verified, what they say is not shown`)
      })
    })
}

function rowOf(index: number, receipt: Receipt): readonly Cell[] {
  const { at, kind, by, byKey, host, policy, run, output, artifacts, evidence, code, laboratory } = receipt
  const refused = kind === "release-refused"
  const concerns = [host, artifacts?.join(", "), output, run ?? policy].filter((part) => part !== undefined).join(" ")
  const grounds = [code, evidence === undefined ? undefined : `evidence ${evidence}`, laboratory === true ? insecureLaboratory : undefined]
  return [
    index,
    at,
    { text: kind, tone: refused ? "bad" : "plain" },
    by ?? byKey ?? "",
    concerns,
    grounds.filter((part) => part !== undefined).join(" "),
  ]
}
