/** Tells what happens: one event a line, for the machine's console and whoever waits on it. Never holds a secret, a metric or a word of the job. */
export type AgentLog = (event: AgentEvent, facts?: Readonly<Record<string, LogFact>>) => void

export type LogFact = string | number | boolean | readonly string[]

/** In the order in which a run goes through them. */
export type AgentEvent =
  | "started"
  | "manager-verified"
  | "enrolled"
  | "waiting"
  | "claim-granted"
  | "claim-refused"
  | "input-opened"
  | "job-started"
  | "lease-renewed"
  | "lease-trouble"
  | "lease-lost"
  | "job-ended"
  | "output-sealed"
  | "run-finished"
  | "scratch-wiped"
  | "trouble"
  | "stopped"

/** `perun-agent: <event> {"fact":…}`; facts in JSON, so that no text can break out of its line. */
export function logLine(event: AgentEvent, facts: Readonly<Record<string, LogFact>> = {}): string {
  return `perun-agent: ${event} ${JSON.stringify(facts)}\n`
}
