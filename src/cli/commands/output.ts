import type { Command } from "commander"
import { fetchOutput } from "../../client/fetch-output.ts"
import { type Ballot, castVote, fetchBallot } from "../../client/vote.ts"
import type { OutputView } from "../../protocol/messages.ts"
import { routes } from "../../protocol/routes.ts"
import { demandConsent } from "../confirm.ts"
import { loadCheckFindings, showChecks } from "../check-file.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
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
  withManagerOption(command.command("show"))
    .argument("<output>", "output, as output list prints it")
    .description("show what a vote for this output would be about, held against the policy, and what checkers checked; nothing is signed")
    .action(async (id: string, options: ManagerOption) => {
      const ballot = await withManager(options, output, (connection) => fetchBallot(connection, id))
      showBallot(ballot, output, "A vote of")
    })
  withManagerOption(command.command("vote"))
    .argument("<output>", "output, as output list prints it")
    .option("--report <file>", "of a checker: what it checked, as JSON; its vote counts with it only")
    .option("--yes", "sign without being asked, for scripts")
    .description("show what the release of this output means, ask, and sign your vote for exactly that")
    .action(async (id: string, options: ManagerOption & { report?: string; yes?: true }) => {
      const findings = options.report === undefined ? undefined : await loadCheckFindings(options.report)
      const view = await withManager(options, output, async (connection, identity) => {
        const ballot = await fetchBallot(connection, id)
        showBallot(ballot, output)
        await demandConsent(options.yes, "Sign this vote?")
        return castVote(connection, ballot, identity.privateKey, findings)
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

/** Everything that the vote's signature covers, and whom the policy gives it to. */
function showBallot({ output: view, to, policy, host, voter, policySigned }: Ballot, output: Output, opening: "As" | "A vote of" = "As"): void {
  const { name, job, run, sizeBytes, ciphertext, evidence, laboratory, votes, missing } = view
  output.event({ event: "ballot", ...view, to, study: policy.study, host, voter, policySigned })
  const needed = missing.includes(voter) || votes.includes(voter)
  output.line(opening === "As" ? `As ${voter} you vote for the release of` : `A vote of ${voter} would be for the release of`, "strong")
  output.line(`output      ${name} of job ${job}`)
  output.line(`goes to     ${to.join(", ")}`)
  output.line(`size        ${formatBytes(sizeBytes)} of ciphertext`)
  output.line(`ciphertext  ${ciphertext}`)
  output.line(`policy      ${policy.study}, ${view.policy}${policySigned ? ", which you signed" : ""}`, policySigned ? "plain" : "warn")
  output.line(`run         ${run}`)
  output.line(`machine     ${host}, by the evidence ${evidence}`)
  if (laboratory) output.line(`            ${insecureLaboratory}: its TPM chains to a laboratory root`, "warn")
  output.line(`votes       ${votes.join(", ") || "nobody"}; still missing: ${missing.join(", ") || "nobody"}`)
  showChecks(view.checks, output)
  if (!policySigned) output.line("you have not signed this policy", "warn")
  if (!needed) output.line("the release does not wait for your vote", "warn")
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
