import assert from "node:assert/strict"
import { type ChildProcess, spawn } from "node:child_process"
import { readdir } from "node:fs/promises"
import { resolve } from "node:path"
import { createInterface } from "node:readline"

/** For tests: the real commands as child processes. */

const main = resolve(import.meta.dirname, "main.ts")
const nodeOptions = ["--disable-warning=ExperimentalWarning"]

export interface Ended {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

export type Environment = Readonly<Record<string, string>>

/** Starts a command with pipes for its output; nothing stands on its standard input. */
export function startCommand(args: readonly string[], environment: Environment): ChildProcess {
  return spawn(process.execPath, [...nodeOptions, main, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1", ...environment },
  })
}

export async function endOf(child: ChildProcess): Promise<Ended> {
  let stdout = ""
  let stderr = ""
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text))
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text))
  const status = await new Promise<number | null>((done) => child.on("close", done))
  return { status, stdout, stderr }
}

export async function runCommand(args: readonly string[], environment: Environment): Promise<Ended> {
  return endOf(startCommand(args, environment))
}

/** Runs a command that must end with this status; a failure brings one line on standard error, besides warnings, or one event with `--json`. */
export async function demandStatus(args: readonly string[], status: number, environment: Environment): Promise<Ended> {
  const ended = await runCommand(args, environment)
  assert.equal(ended.status, status, `perun ${args.join(" ")}: status ${ended.status}, expected ${status}\n${ended.stderr}${ended.stdout}`)
  const lines = ended.stderr
    .split("\n")
    .filter((line) => line !== "" && !/^(UNATTESTED MANAGER|INSECURE LABORATORY|\S.*(: \d+ %| \.\.\.)$)/.test(line))
  const json = args.includes("--json")
  assert.equal(lines.length, ended.status === 0 || json ? 0 : 1, `perun ${args.join(" ")}: ${ended.stderr}`)
  if (ended.status !== 0 && !json) assert.match(ended.stderr, /^perun: [^\n]+$/m)
  if (ended.status !== 0 && json) assert.equal(lastEvent(ended.stdout)["ok"], false)
  assert.doesNotMatch(ended.stderr + ended.stdout, /internal:|\n\s+at [^\n]*:\d+:\d+/)
  return ended
}

export function eventsOf(stdout: string): readonly Readonly<Record<string, unknown>>[] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
}

export function lastEvent(stdout: string): Readonly<Record<string, unknown>> {
  const last = eventsOf(stdout).at(-1)
  assert.ok(last !== undefined)
  return last
}

/** Ends a process that was started here and waits for it. */
export async function end(child: ChildProcess, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((done) => child.once("exit", done))
  child.kill(signal)
  await ended
}

/** `perun manager serve` in a process of its own, with further `words`, once it listens. */
export async function serveFolder(
  folder: string,
  listen = "127.0.0.1:0",
  words: readonly string[] = [],
): Promise<{ readonly server: ChildProcess; readonly url: string }> {
  const server = spawn(process.execPath, [...nodeOptions, main, "manager", "serve", folder, "--listen", listen, "--json", ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  })
  for await (const line of createInterface({ input: server.stdout })) {
    const event = JSON.parse(line) as { event?: string; url?: string }
    if (event.event === "listening" && event.url !== undefined) return { server, url: event.url }
  }
  throw new Error("the manager did not start")
}

export async function filesBelow(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  return entries.filter((entry) => entry.isFile()).map((entry) => `${entry.parentPath}/${entry.name}`.substring(folder.length + 1))
}
