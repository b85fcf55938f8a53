import type { Command } from "commander"
import type { Receipt, SignedReceipt } from "../../protocol/messages.ts"
import { noReceipts, type ReceiptHead, verifyReceipts } from "../../protocol/receipts.ts"
import { routes } from "../../protocol/routes.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import type { Cell, Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  withManagerOption(command.command("list"))
    .option("--kind <kind>", "only receipts of this kind, e.g. key-released")
    .description("what happened, from the manager's receipts: each signed and linked to the one before; all of them are verified first")
    .action(async (options: ManagerOption & { kind?: string }) => {
      const receipts = await withManager(options, output, async (connection) => {
        const { logKey, instance } = connection.description
        const all: SignedReceipt[] = []
        let head: ReceiptHead = noReceipts
        for (;;) {
          const page = await connection.call(routes.listReceipts, { query: { from: String(head.count) } })
          head = verifyReceipts(page.receipts, { logKey, manager: instance }, head)
          all.push(...page.receipts)
          if (page.receipts.length === 0 || head.count >= page.total) return all
        }
      })
      const shown = receipts.filter(({ receipt }) => options.kind === undefined || receipt.kind === options.kind)
      output.result({ ok: true, verified: receipts.length, receipts: shown }, () => {
        output.table(
          ["", "at", "what", "by", "concerns", "on"],
          shown.map(({ receipt }) => rowOf(receipt)),
        )
        output.line()
        output.line(`${receipts.length} receipts, each signed by the manager's log key and linked to the one before`, "good")
      })
    })
}

function rowOf(receipt: Receipt): readonly Cell[] {
  const { index, at, kind, by, host, policy, run, output, artifacts, evidence, code, laboratory } = receipt
  const refused = kind === "release-refused"
  const concerns = [host, artifacts?.join(", "), output, run ?? policy].filter((part) => part !== undefined).join(" ")
  const grounds = [code, evidence === undefined ? undefined : `evidence ${evidence}`, laboratory === true ? insecureLaboratory : undefined]
  return [index, at, { text: kind, tone: refused ? "bad" : "plain" }, by ?? "", concerns, grounds.filter((part) => part !== undefined).join(" ")]
}
