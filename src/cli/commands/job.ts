import type { Command } from "commander"
import type { RefusalView, RunEvent, RunView } from "../../protocol/messages.ts"
import { routes } from "../../protocol/routes.ts"
import { insecureLaboratory, withManager, withManagerOption, type ManagerOption } from "../connect.ts"
import { createFileDurably } from "../../bytes/durable.ts"
import { ProtocolError } from "../../protocol/errors.ts"
import { RefusedError } from "../exit.ts"
import { interruptSignal } from "../interrupt.ts"
import type { Cell, Output, Tone } from "../output.ts"
import { policyNamed } from "../policy-file.ts"
import { drawResultNonce, resultKeyOf, showResult } from "../result-file.ts"

export function register(command: Command, output: Output): void {
  withManagerOption(command.command("start"))
    .argument("<policy>", "digest or file of an active policy")
    .argument("<job>", "name of the job in the policy")
    .description("queue a run of a job; the first machine that proves itself takes it")
    .action(async (policy: string, job: string, options: ManagerOption) => {
      const digest = await policyNamed(policy)
      const { run } = await withManager(options, output, (connection) => connection.call(routes.queueRun, { params: { digest, job }, body: {} }))
      output.result({ ok: true, run }, () => output.line(`queued run ${run}; follow it with: perun job watch ${run}`, "good"))
    })
  withManagerOption(command.command("list"))
    .option("--policy <policy>", "only runs of this policy (digest or file)")
    .description("runs of the policies that name you")
    .action(async (options: ManagerOption & { policy?: string }) => {
      const query = options.policy === undefined ? {} : { policy: await policyNamed(options.policy) }
      const { runs } = await withManager(options, output, (connection) => connection.call(routes.listRuns, { query }))
      output.result({ ok: true, runs }, () => output.table(runColumns, runs.map(rowOf)))
    })
  withManagerOption(command.command("show"))
    .argument("<run>", "run, as job start and job list print it")
    .description("one run: where it is, and every refusal of it that is on record, with its findings")
    .action(async (run: string, options: ManagerOption) => {
      const view = await withManager(options, output, (connection) => connection.call(routes.getRun, { params: { run } }))
      output.result({ ok: true, ...view }, () => {
        output.table(runColumns, [rowOf(view)])
        for (const refusal of view.refusals) showRefusal(refusal, output)
      })
    })
  withManagerOption(command.command("watch"))
    .argument("<run>", "run, as job start and job list print it")
    .description("follow a run until it ends: states, refusals, leases, metrics that you may see")
    .action(async (run: string, options: ManagerOption) => {
      using interrupt = interruptSignal()
      const view = await withManager(options, output, async (connection) => {
        try {
          for await (const event of connection.transport.events(routes.watchRun, { params: { run }, signal: interrupt.signal })) {
            output.event(event)
            showEvent(event, output)
          }
        } finally {
          // Ctrl-C is no fault of the stream that it broke off.
          interrupt.signal.throwIfAborted()
        }
        return connection.call(routes.getRun, { params: { run } })
      })
      output.event({ ok: view.state === "succeeded", ...view })
      if (view.state !== "succeeded") throw new RefusedError(`the run ${view.state}${view.reason === undefined ? "" : `: ${view.reason}`}`)
    })
  withManagerOption(command.command("result"))
    .argument("<run>", "run whose machine is asked about")
    .option("--audience <name>", "whom the result is for: a URL or name that its reader expects", "perun")
    .option("--nonce <text>", "what its reader drew: 8 to 88 letters of base64, base64url or hexadecimal (default: a fresh one)")
    .option("--out <file>", "write the signed result (JWT) for others to this file, which must not exist")
    .option("--key-out <file>", "write the manager's result key (PEM) to this file, which must not exist")
    .description(
      "what the manager found of the run's machine, signed for others: an EAT Attestation Result; exit 0 unless the machine is contraindicated",
    )
    .action(async (run: string, options: ResultOptions) => {
      const { audience, nonce = drawResultNonce() } = options
      const { token, resultKey, policy } = await withManager(options, output, async (connection) => {
        const { policy } = await connection.call(routes.getRun, { params: { run } })
        const { result } = await connection.call(routes.getAttestationResult, { params: { run }, query: { nonce, audience } })
        return { token: result, resultKey: resultKeyOf(connection.description.resultKey), policy }
      })
      const { verifyAttestationResult } = await import("../../protocol/attestation-result.ts")
      const result = await verifyAttestationResult(token, { key: resultKey, nonce, audience, time: Date.now(), policy })
      if (result.run !== run) throw new ProtocolError("wrong-result", `it is of run ${result.run}`, { path: "perun_run" })
      if (options.out !== undefined) await createFileDurably(options.out, `${token}\n`)
      if (options.keyOut !== undefined) await createFileDurably(options.keyOut, String(resultKey.export({ format: "pem", type: "spki" })))
      showResult(result, { token }, output)
    })
  withManagerOption(command.command("cancel"))
    .argument("<run>", "run to end")
    .description("cancel a run; a running job is stopped when its lease ends")
    .action(async (run: string, options: ManagerOption) => {
      const view = await withManager(options, output, (connection) => connection.call(routes.cancelRun, { params: { run }, body: {} }))
      output.result({ ok: true, ...view }, () => output.line(`run ${run} is ${view.state}`))
    })
}

interface ResultOptions extends ManagerOption {
  readonly audience: string
  readonly nonce?: string
  readonly out?: string
  readonly keyOut?: string
}

/** One line per event; refusals bring a line per finding. */
export function showEvent(event: RunEvent, output: Output): void {
  const at = event.at.slice(11, 19)
  switch (event.kind) {
    case "state":
      return output.line(
        `${at}  ${event.state}${event.host === undefined ? "" : ` on ${event.host}`}${event.reason === undefined ? "" : `: ${event.reason}`}`,
        toneOfState(event.state),
      )
    case "refused":
      return showRefusal({ ...event.refusal, at: event.at }, output)
    case "renewed":
      return output.line(`${at}  lease renewed for ${event.seconds} s`, "dim")
    case "metrics":
      return output.line(
        `${at}  ${Object.entries(event.values)
          .map(([name, value]) => `${name} ${value}`)
          .join("  ")}`,
      )
    case "output":
      return output.line(`${at}  output ${event.name} is sealed and waits for its votes: ${event.output}`)
  }
}

function showRefusal(refusal: RefusalView, output: Output): void {
  output.line(`${refusal.at.slice(11, 19)}  refused ${refusal.host}: ${refusal.code}`, "bad")
  for (const { code, subject, found, expected } of refusal.findings.slice(0, shownFindings))
    output.line(`          ${code} ${subject}: found ${found}, expected ${expected}`, "bad")
  showMore(refusal, output)
}

function showMore({ findings, moreFindings }: RefusalView, output: Output): void {
  const more = findings.length - shownFindings + moreFindings
  if (more > 0)
    output.line(`          and ${more} more findings; the first ${findings.length} with --json, up to 100 on the machine's console`, "bad")
}

/** A machine with another image has hundreds; the first ones tell. */
const shownFindings = 10

const runColumns = ["run", "job", "state", "host", "queued", "ended", "reason"]

function rowOf(run: RunView): readonly Cell[] {
  const state: Cell = { text: run.laboratory ? `${run.state} (${insecureLaboratory})` : run.state, tone: toneOfState(run.state) }
  return [run.run, run.job, state, run.host ?? "", run.queuedAt, run.endedAt ?? "", run.reason ?? ""]
}

function toneOfState(state: RunView["state"]): Tone {
  switch (state) {
    case "succeeded":
      return "good"
    case "failed":
    case "ended":
      return "bad"
    case "cancelled":
      return "warn"
    case "queued":
    case "running":
      return "plain"
  }
}
