import { createInterface } from "node:readline"
import { InterruptedError, RefusedError, UsageError } from "./exit.ts"

/**
 * Asks at the terminal; without one, only --yes agrees.
 * @throws {InterruptedError} for Ctrl-C
 */
export async function confirm(yes: boolean | undefined, question = "Go on?"): Promise<boolean> {
  if (yes === true) return true
  return process.stdin.isTTY ? await ask(question) : false
}

/**
 * Lets only go on who agrees to what was shown: at the terminal, or by --yes where nobody can be asked.
 * @throws {UsageError} without terminal and --yes; {RefusedError} for a no; {InterruptedError} for Ctrl-C
 */
export async function demandConsent(yes: boolean | undefined, question: string): Promise<void> {
  if (yes === true) return
  if (!process.stdin.isTTY) throw new UsageError("nobody can be asked here: read what is above, then add --yes if you mean it; nothing was signed")
  if (!(await ask(question))) throw new RefusedError("you did not agree; nothing was signed")
}

/** End of input is a no. */
async function ask(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  terminal.on("SIGINT", () => {
    process.stderr.write("\n")
    reject(new InterruptedError("interrupted; nothing was done"))
  })
  terminal.on("close", () => resolve(""))
  terminal.question(`${question} [y/N] `, resolve)
  try {
    return /^y(es)?$/i.test((await promise).trim())
  } finally {
    terminal.close()
  }
}
