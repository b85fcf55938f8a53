import { PerunError } from "../bytes/error.ts"
import { PolicyError } from "../policy/errors.ts"
import type { Problem, ProblemCode } from "../policy/problem.ts"
import { printable } from "./output.ts"
import type { ProblemError } from "../protocol/problem.ts"

/** What a program that calls ours can rely on. */
export const exitStatuses = {
  accepted: 0,
  bug: 1,
  usage: 2,
  refused: 10,
  unsupported: 20,
  malformed: 30,
  unavailable: 40,
  localResource: 50,
  interrupted: 130,
} as const

export type ExitStatus = (typeof exitStatuses)[keyof typeof exitStatuses]

/** The command line asks for something that cannot be meant. */
export class UsageError extends PerunError<"usage"> {
  constructor(message: string) {
    super("usage", message)
  }
}

/** Ctrl-C or SIGTERM ended the command; what was done so far is kept. */
export class InterruptedError extends PerunError<"interrupted"> {
  constructor(message = "interrupted") {
    super("interrupted", message)
  }
}

/** Something was judged and not accepted; the findings were printed already or stand in `lines`. */
export class RefusedError extends PerunError<"refused"> {
  readonly lines: readonly string[]
  /** What the last event for programs tells besides, where a command's result is a refusal. */
  readonly members: Readonly<Record<string, unknown>>
  constructor(message: string, lines: readonly string[] = [], members: Readonly<Record<string, unknown>> = {}) {
    super("refused", message)
    this.lines = lines
    this.members = members
  }
}

/** A policy has problems, which were listed. Malformed when its very form is wrong, else refused. */
export class InvalidPolicyError extends PerunError<"invalid-policy" | "malformed"> {
  constructor(file: string, problems: readonly Problem[]) {
    const inForm = problems.some(({ code }) => formCodes.has(code))
    super(inForm ? "malformed" : "invalid-policy", `${file} has ${problems.length} ${problems.length === 1 ? "problem" : "problems"}`)
  }
}

const formCodes: ReadonlySet<ProblemCode> = new Set([
  "too-large",
  "malformed",
  "duplicate",
  "unknown-field",
  "missing-field",
  "not-filled-in",
  "wrong-type",
  "wrong-value",
])

/**
 * Codes whose status is not `refused`, which is the rule: a room's error says that input is not genuine or not acceptable.
 * `exit.test.ts` holds this table against the rooms' own tables of codes.
 */
const statusOfCode: ReadonlyMap<string, ExitStatus> = new Map<string, ExitStatus>([
  ["usage", exitStatuses.usage],
  // The destination of a command is taken: another has to be named.
  ["already-exists", exitStatuses.usage],
  ["not-empty", exitStatuses.usage],
  ["interrupted", exitStatuses.interrupted],
  ["unsupported", exitStatuses.unsupported],
  ["build-failed", exitStatuses.unsupported],
  ["truncated", exitStatuses.malformed],
  ["trailing-bytes", exitStatuses.malformed],
  ["trailing-data", exitStatuses.malformed],
  ["too-large", exitStatuses.malformed],
  ["malformed", exitStatuses.malformed],
  ["duplicate", exitStatuses.malformed],
  ["unknown-field", exitStatuses.malformed],
  ["invalid-reference", exitStatuses.malformed],
  ["unavailable", exitStatuses.unavailable],
  ["timeout", exitStatuses.unavailable],
  ["missing", exitStatuses.unavailable],
  ["source-changed", exitStatuses.unavailable],
  ["too-many-requests", exitStatuses.unavailable],
  ["time-unchecked", exitStatuses.unavailable],
  ["not-ready", exitStatuses.unavailable],
  ["internal", exitStatuses.unavailable],
  ["lockout", exitStatuses.unavailable],
  ["no-resources", exitStatuses.unavailable],
  ["busy", exitStatuses.unavailable],
  ["not-started", exitStatuses.unavailable],
  ["failure", exitStatuses.unavailable],
  ["machine-ended", exitStatuses.unavailable],
  ["console-timeout", exitStatuses.unavailable],
  ["disk-full", exitStatuses.localResource],
  ["permission-denied", exitStatuses.localResource],
  ["port-in-use", exitStatuses.localResource],
  ["configuration", exitStatuses.localResource],
  ["sandbox-unavailable", exitStatuses.localResource],
  ["scratch-unavailable", exitStatuses.localResource],
  ["missing-packages", exitStatuses.localResource],
  ["program-failed", exitStatuses.localResource],
])

export function exitStatus(error: unknown): ExitStatus {
  if (isProblem(error)) return statusOfProblem(error)
  if (error instanceof PolicyError && error.problems.some(({ code }) => formCodes.has(code))) return exitStatuses.malformed
  if (error instanceof PerunError) return statusOfCode.get(error.code) ?? exitStatuses.refused
  switch (systemCode(error)) {
    case "ENOSPC":
    case "EDQUOT":
    case "EACCES":
    case "EPERM":
    case "EROFS":
    case "EADDRINUSE":
    case "EMFILE":
      return exitStatuses.localResource
    case "ENOENT":
    case "EISDIR":
    case "ENOTDIR":
    case "ECONNREFUSED":
    case "ECONNRESET":
    case "ENOTFOUND":
    case "ETIMEDOUT":
    case "EHOSTUNREACH":
      return exitStatuses.unavailable
    default:
      return exitStatuses.bug
  }
}

/** What a manager answered: its full disk is not ours, and its words choose no status of ours that says something about this machine. */
function statusOfProblem({ code, status }: ProblemError): ExitStatus {
  if (status >= 500) return exitStatuses.unavailable
  const known = statusOfCode.get(code) ?? exitStatuses.refused
  return statusesOfAnswers.has(known) ? known : exitStatuses.refused
}

const statusesOfAnswers: ReadonlySet<ExitStatus> = new Set([exitStatuses.unsupported, exitStatuses.malformed, exitStatuses.unavailable])

/** By name: the class comes with every schema of the protocol, which a command that fails before it talks need not load. */
function isProblem(error: unknown): error is ProblemError {
  return error instanceof PerunError && error.name === "ProblemError" && "status" in error
}

/** One line for people, the stable code, and further lines where an error brings some (findings of a refusal). */
export function messageOf(error: unknown): { readonly code: string; readonly message: string; readonly lines: readonly string[] } {
  const lines =
    error instanceof PerunError && "lines" in error && Array.isArray(error.lines) ? error.lines.map((line) => printable(String(line))) : []
  if (error instanceof PerunError) return { code: error.code, message: oneLine(error.message), lines }
  const system = systemCode(error)
  if (error instanceof Error && system !== undefined) return { code: system.toLowerCase(), message: oneLine(error.message), lines }
  return {
    code: "bug",
    message: `internal: ${oneLine(error instanceof Error ? error.message : String(error))} (this is a bug; set PERUN_DEBUG=1 to see where)`,
    lines,
  }
}

function systemCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" && /^E[A-Z]+$/.test(error.code) ? error.code : undefined
}

function oneLine(text: string): string {
  // Messages may hold words of whoever answered, before it was known who that is.
  return printable(text.replace(/\s*\n\s*/g, "; "))
}
