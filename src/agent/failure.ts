/**
 * What may be said about a failed job: never text or values of the job, for they may hold data. The exception is a word of a fixed list; the line
 * is a line that exists in the code artifact. Both are chosen by the job's code, so that each failed run can carry a few bits out; `maxRuns` bounds how often.
 */
export interface Failure {
  /** Name of a built-in Python exception, or `other`. */
  readonly exception: string
  /** Innermost line of the code artifact that the traceback names; undefined where it names none. */
  readonly line: number | undefined
}

/**
 * Reads the last Python traceback of a job's stderr. `lineCounts`: lines of each file of the code artifact by its path inside the sandbox.
 * Undefined where there is no traceback.
 */
export function describeFailure(stderrTail: Uint8Array, lineCounts: ReadonlyMap<string, number>): Failure | undefined {
  const text = Buffer.from(stderrTail).toString("latin1")
  const start = text.lastIndexOf(tracebackStart)
  if (start < 0) return undefined
  let line: number | undefined
  for (const row of text.substring(start + tracebackStart.length).split("\n")) {
    const frame = /^ {2}File "([^"]*)", line ([0-9]{1,7}), in /.exec(row)
    if (frame !== null) {
      const number = Number(frame[2])
      if (number >= 1 && number <= (lineCounts.get(frame[1] ?? "") ?? 0)) line = number
      continue
    }
    const last = /^([A-Za-z_][A-Za-z0-9_.]*)(?::|$)/.exec(row)
    if (last !== null) {
      const name = last[1] ?? ""
      return { exception: knownExceptions.has(name) ? name : "other", line }
    }
  }
  return { exception: "other", line }
}

/** One line of plain words for a run's record. */
export function failureText(exitCode: number | null, failure: Failure | undefined): string {
  const parts = [exitCode === null ? "the job was ended by a signal" : `the job ended with exit code ${exitCode}`]
  if (failure !== undefined) parts.push(failure.exception === "other" ? "exception of its own kind" : failure.exception)
  if (failure?.line !== undefined) parts.push(`line ${failure.line} of its code`)
  return parts.join(", ")
}

const tracebackStart = "Traceback (most recent call last):\n"

/** Built-in exceptions of Python 3.11 that a program raises by mistake. */
const knownExceptions: ReadonlySet<string> = new Set([
  "ArithmeticError",
  "AssertionError",
  "AttributeError",
  "EOFError",
  "FileExistsError",
  "FileNotFoundError",
  "FloatingPointError",
  "ImportError",
  "IndexError",
  "IsADirectoryError",
  "KeyError",
  "KeyboardInterrupt",
  "MemoryError",
  "ModuleNotFoundError",
  "NameError",
  "NotADirectoryError",
  "NotImplementedError",
  "OSError",
  "OverflowError",
  "PermissionError",
  "RecursionError",
  "RuntimeError",
  "StopIteration",
  "SyntaxError",
  "TimeoutError",
  "TypeError",
  "UnboundLocalError",
  "UnicodeDecodeError",
  "UnicodeEncodeError",
  "ValueError",
  "ZeroDivisionError",
])
