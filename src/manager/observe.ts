import type { Digest } from "../bytes/digest.ts"
import { PerunError, UnavailableError } from "../bytes/error.ts"
import type { Receipt } from "../protocol/messages.ts"
import { type ProblemCode, isProblemCode, problemOfError } from "../protocol/problem.ts"
import type { RouteName } from "../protocol/routes.ts"

/**
 * What a manager tells those who watch over it. The manager's operator is no party: it learns what happened, to which policy (by digest), run and host, and how it
 * ended; never a value, what a document says, a name that a party gave to a thing of its own, or what was found on a machine.
 */
export interface ManagerObserver {
  /** A call was answered; of a stream or a download, its first byte. */
  called(call: ObservedCall): void
  /** A step is on the disk. */
  recorded(step: ObservedStep): void
  /** The manager is at fault, or its disk or device: `call` has the answer. */
  failed(fault: ObservedFault): void
  /** A line that the operator should read. */
  warned(line: string): void
  /** A line about what goes its way. */
  said(line: string): void
}

export interface ObservedCall {
  /** Drawn by the manager; the answer's `x-request-id`. */
  readonly id: string
  readonly route: RouteName | "unknown"
  readonly method: string
  readonly status: number
  /** Of the problem document; undefined where there was none. */
  readonly code: ProblemCode | undefined
  readonly milliseconds: number
  /** Key of the party that called, `ssh-… base64`; undefined for a host or a stranger. */
  readonly party: string | undefined
  /** Digest of the TLS key that the caller showed. */
  readonly tlsKey: Digest | undefined
}

export interface ObservedStep {
  readonly milliseconds: number
  readonly receipts: readonly ObservedReceipt[]
}

/** Of a receipt, what is told. */
export interface ObservedReceipt extends Pick<Receipt, "kind" | "policy" | "run" | "host" | "code"> {
  /** Place in the log. */
  readonly index: number
}

export interface ObservedFault {
  readonly id: string
  readonly code: ProblemCode
  /** What may be said of it: of an error of ours its words, of any other its kind and where it was thrown, for its words might hold a secret. */
  readonly words: string
}

/** Tells each of them. */
export function observers(...all: readonly ManagerObserver[]): ManagerObserver {
  return {
    called: (call) => all.forEach((each) => each.called(call)),
    recorded: (step) => all.forEach((each) => each.recorded(step)),
    failed: (fault) => all.forEach((each) => each.failed(fault)),
    warned: (line) => all.forEach((each) => each.warned(line)),
    said: (line) => all.forEach((each) => each.said(line)),
  }
}

/** What an operator reads who has not asked for more: warnings and faults, as lines of text. */
export function plainObserver(say: (line: string) => void): ManagerObserver {
  return {
    called: () => undefined,
    recorded: () => undefined,
    failed: ({ id, code, words }) => say(`${code}: ${words} (request ${id})`),
    warned: say,
    said: say,
  }
}

export const silentObserver: ManagerObserver = plainObserver(() => undefined)

export function observedReceipt({ kind, policy, run, host, code }: Receipt, index: number): ObservedReceipt {
  return {
    index,
    kind,
    ...(policy === undefined ? {} : { policy }),
    ...(run === undefined ? {} : { run }),
    ...(host === undefined ? {} : { host }),
    ...(code === undefined ? {} : { code }),
  }
}

/** What an operator has to hear of an error; undefined for one that is the caller's affair. */
export function faultOf(error: unknown, id: string): ObservedFault | undefined {
  const { code } = problemOfError(error)
  if (error instanceof UnavailableError) return { id, code: knownCode(code), words: error.message }
  if (error instanceof PerunError) return knownCode(code) === "store-changed" ? { id, code: "store-changed", words: error.message } : undefined
  return { id, code: "internal", words: placeOf(error) }
}

/** A code of errors that may cross the wire; any other is the manager's fault, and no label. */
export function knownCode(code: string): ProblemCode {
  return isProblemCode(code) ? code : "internal"
}

/** Longest chain of causes that is told. */
const mostCauses = 4

/** Kind of an error and of what caused it, and the lines of code that it came through. */
function placeOf(error: unknown): string {
  const told: string[] = []
  for (let each = error; each instanceof Error && told.length < mostCauses; each = each.cause) {
    const frames = (each.stack ?? "").split("\n").filter((line) => /^ {4}at /.test(line))
    told.push([each.constructor.name, ...frames.slice(0, 12).map((line) => line.trim())].join(" "))
  }
  return told.length === 0 ? `a thrown ${typeof error}` : told.join("; caused by ")
}
