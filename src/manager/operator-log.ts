import { closeSync, openSync, writeSync } from "node:fs"
import { pino } from "pino"
import { fromSystemError } from "../bytes/durable.ts"
import { encodeUtf8 } from "../bytes/text.ts"
import { sshKeyFingerprint } from "../pki/ssh-key.ts"
import type { ManagerObserver } from "./observe.ts"

/**
 * The operator's log: a JSON object a line (`level`, `time`, `event`, and what belongs to the event). `call`: a call was answered; `receipt`: something happened for ever;
 * `fault`: the manager's own trouble; `warning`, `note`: a line for people.
 */

export const logLevels = ["debug", "info", "warn", "error"] as const
export type LogLevel = (typeof logLevels)[number]

export interface OperatorLogOptions {
  /** Path of a file that is appended to, or `-` for standard error. */
  readonly to: string
  /** `debug` tells of every call; `info` of those that were refused, and of every receipt. */
  readonly level: LogLevel
  /** Hears that the log itself cannot be written, once until it can again. */
  readonly complain: (line: string) => void
}

export interface OperatorLog extends ManagerObserver, Disposable {
  /** Opens the file anew, after it was moved away (logrotate). */
  reopen(): void
}

/** What waits for a disk that is full; what comes beyond it is lost, and said to be. */
const mostWaitingBytes = 1_048_576

/** @throws {UnavailableError} for a file that cannot be written */
export function openOperatorLog({ to, level, complain }: OperatorLogOptions): OperatorLog {
  const out = new LogFile(to, complain)
  const logger = pino(
    { base: null, level, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) }, messageKey: "message" },
    out,
  )
  return {
    called: ({ id, route, method, status, code, milliseconds, party, tlsKey }) => {
      const facts = {
        event: "call",
        id,
        route,
        method,
        status,
        ...(code === undefined ? {} : { code }),
        ms: Math.round(milliseconds * 10) / 10,
        ...(party === undefined ? {} : { party: sshKeyFingerprint(party) }),
        ...(tlsKey === undefined ? {} : { tlsKey }),
      }
      logger[status >= 500 ? "warn" : status >= 400 ? "info" : "debug"](facts)
    },
    recorded: ({ receipts }) => {
      for (const receipt of receipts) logger.info({ event: "receipt", ...receipt })
    },
    failed: (fault) => logger.error({ event: "fault", ...fault }),
    warned: (line) => logger.warn({ event: "warning" }, line),
    said: (line) => logger.info({ event: "note" }, line),
    reopen: () => out.reopen(),
    [Symbol.dispose]: () => out[Symbol.dispose](),
  }
}

/** A file that lines are appended to, at once: what was logged before a crash is what led to it. What it does not take waits, up to a bound, for the next line. */
class LogFile implements Disposable {
  readonly #path: string
  readonly #complain: (line: string) => void
  #fd: number
  #waiting: Uint8Array[] = []
  #waitingBytes = 0
  #lost = 0
  #isComplaining = false

  constructor(to: string, complain: (line: string) => void) {
    this.#path = to
    this.#complain = complain
    this.#fd = this.#isFile ? openToAppend(to) : process.stderr.fd
  }

  write(line: string): void {
    const bytes = encodeUtf8(line)
    if (this.#waitingBytes + bytes.length > mostWaitingBytes) this.#lost++
    else {
      this.#waiting.push(bytes)
      this.#waitingBytes += bytes.length
    }
    this.#flush()
  }

  reopen(): void {
    if (!this.#isFile) return
    try {
      const fd = openToAppend(this.#path)
      closeSync(this.#fd)
      this.#fd = fd
    } catch (error) {
      this.#trouble(error)
    }
    this.#flush()
  }

  [Symbol.dispose](): void {
    this.#flush()
    if (this.#isFile) closeSync(this.#fd)
  }

  get #isFile(): boolean {
    return this.#path !== "-"
  }

  #flush(): void {
    try {
      for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
        const written = writeSync(this.#fd, first)
        this.#waitingBytes -= written
        if (written < first.length) this.#waiting[0] = first.subarray(written)
        else this.#waiting.shift()
      }
    } catch (error) {
      return this.#trouble(error)
    }
    if (!this.#isComplaining) return
    this.#isComplaining = false
    this.#complain(`the log is written again; ${this.#lost} lines are lost`)
    this.#lost = 0
  }

  #trouble(error: unknown): void {
    if (this.#isComplaining) return
    this.#isComplaining = true
    const words = error instanceof Error ? error.message : String(error)
    this.#complain(`the log ${this.#isFile ? this.#path : "on standard error"} cannot be written: ${words}; the manager goes on`)
  }
}

function openToAppend(path: string): number {
  try {
    return openSync(path, "a", 0o640)
  } catch (error) {
    throw fromSystemError(error, path)
  }
}
