import { CommanderError } from "commander"
import { exitStatus, InterruptedError, messageOf, RefusedError } from "./exit.ts"
import { wasInterrupted } from "./interrupt.ts"
import { Output } from "./output.ts"
import { buildProgram } from "./program.ts"

/**
 * Runs one command line. Only the group that is asked for is loaded, so that start-up stays short.
 * @param args without interpreter and script
 * @returns the exit status, see `exit.ts`
 */
export async function main(args: readonly string[]): Promise<number> {
  const json = args.includes("--json")
  const output = new Output({ json })
  try {
    const program = await buildProgram(args, output)
    await program.parseAsync([...args], { from: "user" })
    return typeof process.exitCode === "number" ? process.exitCode : 0
  } catch (caught) {
    const error = wasInterrupted() ? new InterruptedError() : caught
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0
      if (json) output.event({ ok: false, code: "usage", message: error.message.replace(/^error: /, "") })
      return 2
    }
    const status = exitStatus(error)
    const { code, message, lines } = messageOf(error)
    const members = error instanceof RefusedError ? error.members : {}
    if (json) output.event({ ...members, ok: false, code, message, ...(lines.length > 0 ? { details: lines } : {}) })
    else {
      process.stderr.write(`perun: ${message}\n`)
      for (const line of lines) process.stderr.write(`  ${line}\n`)
    }
    if (status === 1 && process.env["PERUN_DEBUG"] !== undefined && error instanceof Error) process.stderr.write(`${error.stack ?? ""}\n`)
    return status
  }
}

if (import.meta.main) {
  let interrupted = 0
  process.on("SIGINT", () => {
    // The first Ctrl-C lets open work clean up through its own listeners; a second one ends at once.
    interrupted++
    if (interrupted > 1 || process.listenerCount("SIGINT") === 1) {
      process.stderr.write("perun: interrupted\n")
      process.exit(130)
    }
  })
  process.on("unhandledRejection", (error) => {
    process.stderr.write(`perun: ${messageOf(error).message}\n`)
    process.exit(exitStatus(error))
  })
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0)
    // The disk that the output goes to is full, and the like.
    process.stderr.write(`perun: standard output: ${messageOf(error).message}\n`)
    process.exit(exitStatus(error))
  })
  process.exitCode = await main(process.argv.slice(2))
  if (process.exitCode !== 0 && interrupted > 0) process.exitCode = exitStatus(new InterruptedError())
}
