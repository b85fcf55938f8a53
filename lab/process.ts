import { spawn } from "node:child_process"
import { LabError } from "./error.ts"

export interface ProgramOptions {
  readonly cwd?: string
  /** Added to this process's environment. */
  readonly environment?: Readonly<Record<string, string>>
  readonly input?: Uint8Array | string
  /** Called with each line of stderr, for progress. */
  readonly onLine?: (line: string) => void
}

/**
 * Runs a program to its end and gives its standard output. The program ends when this process does, however this process ends.
 * @throws {LabError} `program-failed` with the program's last words
 */
export async function runProgram(program: string, programArguments: readonly string[], options: ProgramOptions = {}): Promise<string> {
  const child = spawn(...dyingWithUs(program, programArguments), {
    cwd: options.cwd,
    env: { ...process.env, LC_ALL: "C", ...options.environment },
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  })
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const output: string[] = []
  const complaints: string[] = []
  child.stdout?.setEncoding("utf8").on("data", (text: string) => output.push(text))
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaints.push(text)
    if (complaints.length > 200) complaints.splice(0, 100)
    for (const line of text.split("\n")) if (line !== "") options.onLine?.(line)
  })
  child.stdin?.on("error", () => undefined) // A program that reads no input may close it; its exit status tells.
  child.stdin?.end(options.input)
  child.on("error", (cause) => reject(new LabError("program-failed", `cannot start ${program}: ${cause.message}`, { cause })))
  child.on("close", (code, signal) => {
    if (code === 0) return resolve(output.join(""))
    const tail = complaints.join("").trimEnd().split("\n").slice(-6).join("; ")
    reject(new LabError("program-failed", `${program} ended with ${code === null ? signal : `status ${code}`}: ${tail}`))
  })
  return await promise
}

/** Command and arguments that make the kernel end the program when the thread that starts it ends, also by SIGKILL. setpriv is part of every Debian. */
export function dyingWithUs(program: string, programArguments: readonly string[]): [string, string[]] {
  return ["setpriv", ["--pdeathsig", "KILL", "--", program, ...programArguments]]
}
