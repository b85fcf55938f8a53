import type { Command } from "commander"
import { fetchOutput } from "../../client/fetch-output.ts"
import { signStatement } from "../../pki/statement.ts"
import type { OutputView } from "../../protocol/messages.ts"
import { routes } from "../../protocol/routes.ts"
import { voteDigest } from "../../protocol/statements.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { UsageError } from "../exit.ts"
import { interruptSignal } from "../interrupt.ts"
import { formatBytes, type Cell, type Output } from "../output.ts"

export function register(command: Command, output: Output): void {
  withManagerOption(command.command("list"))
    .option("--run <run>", "only outputs of this run")
    .description("sealed outputs of the policies that name you, and whose votes they wait for")
    .action(async (options: ManagerOption & { run?: string }) => {
      const query = options.run === undefined ? {} : { run: options.run }
      const { outputs } = await withManager(options, output, (connection) => connection.call(routes.listOutputs, { query }))
      output.result({ ok: true, outputs }, () =>
        output.table(["output", "name", "kind", "size", "state", "for", "voted", "missing", "run"], outputs.map(rowOf)),
      )
    })
  withManagerOption(command.command("vote"))
    .argument("<output>", "output, as output list prints it")
    .description("sign your vote for the release of this output, exactly as sealed")
    .action(async (id: string, options: ManagerOption) => {
      const view = await withManager(options, output, async (connection, identity) => {
        const { outputs } = await connection.call(routes.listOutputs, { query: {} })
        const waiting = outputs.find(({ output: other }) => other === id)
        if (waiting === undefined) throw new UsageError(`no output ${id} among those of your policies`)
        const signature = signStatement("vote", voteDigest(waiting), identity.privateKey)
        return connection.call(routes.voteOutput, { params: { output: id }, body: { signature } })
      })
      output.result({ ok: true, ...view }, () =>
        output.line(
          view.missing.length === 0
            ? `voted; all votes are there: ${view.to.join(", ")} may fetch it`
            : `voted; still missing: ${view.missing.join(", ")}`,
          "good",
        ),
      )
    })
  withManagerOption(command.command("fetch"))
    .argument("<output>", "output, as output list prints it")
    .requiredOption("--out <folder>", "where its files go; must not exist, or be empty")
    .description("fetch a released output that is for you, and open it")
    .action(async (id: string, options: ManagerOption & { out: string }) => {
      const progress = output.progress()
      using interrupt = interruptSignal()
      const fetched = await withManager(options, output, (connection, identity) =>
        fetchOutput(connection, {
          output: id,
          identity: identity.recipientIdentity,
          destination: options.out,
          signal: interrupt.signal,
          onProgress: (done, total) => progress.update("fetching", done, total),
        }),
      ).finally(() => progress.end())
      const bytes = fetched.files.reduce((sum, file) => sum + file.sizeBytes, 0)
      if (fetched.output.laboratory) output.warn(`${insecureLaboratory}: this output was made on a machine whose TPM chains to a laboratory root`)
      output.result({ ok: true, output: id, files: fetched.files.length, bytes, folder: options.out, laboratory: fetched.output.laboratory }, () =>
        output.line(`opened ${fetched.files.length} files (${formatBytes(bytes)}) into ${options.out}`, "good"),
      )
    })
}

function rowOf(view: OutputView): readonly Cell[] {
  const state: Cell = {
    text: view.laboratory ? `${view.state} (${insecureLaboratory})` : view.state,
    tone: view.state === "released" ? "good" : view.state === "locked" ? "bad" : "plain",
  }
  return [
    view.output,
    view.name,
    view.kind,
    formatBytes(view.sizeBytes),
    state,
    view.to.join(", "),
    view.votes.join(", "),
    view.missing.join(", "),
    view.run,
  ]
}
