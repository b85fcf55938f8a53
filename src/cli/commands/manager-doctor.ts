import type { Command } from "commander"
import { examineManager, type FindingState } from "../../manager/doctor.ts"
import { RefusedError } from "../exit.ts"
import type { Output, Tone } from "../output.ts"
import { type TimeWords, timeSourceOf } from "../time-words.ts"

interface DoctorWords extends TimeWords {
  readonly backups?: string
}

const tones: Readonly<Record<FindingState, Tone>> = { good: "good", note: "plain", warn: "warn", bad: "bad" }

export function registerDoctor(command: Command, output: Output): void {
  command
    .command("doctor")
    .argument("<folder>", "folder that perun manager init made; its manager may be running")
    .option("--backups <folder>", "where manager serve --backups puts them: the newest is read and held against its list")
    .option("--time-source <url>", "time-stamping authority (RFC 3161) to hold the clock against")
    .option("--time-root <file>", "root certificates (PEM) that the authority must chain to")
    .description(
      "look at a manager's state and machine and change nothing: what is well, what is weak, what to mend; status 10 where something is to be mended",
    )
    .action(async (folder: string, words: DoctorWords) => {
      const timeSource = await timeSourceOf(words)
      const { backups } = words
      const findings = await examineManager(folder, {
        ...(backups === undefined ? {} : { backups }),
        ...(timeSource === undefined ? {} : { timeSource }),
      })
      output.table(
        ["check", "state", "found", "what to do"],
        findings.map(({ check, state, found, advice }) => [check, { text: state, tone: tones[state] }, found, advice]),
      )
      const count = (state: FindingState): number => findings.filter((finding) => finding.state === state).length
      const summary = `${count("bad")} to be mended, ${count("warn")} weak, ${findings.length} looked at`
      if (count("bad") > 0) throw new RefusedError(summary, [], { folder, findings })
      output.result({ ok: true, folder, findings }, () => output.line(summary, count("warn") > 0 ? "warn" : "good"))
    })
}
