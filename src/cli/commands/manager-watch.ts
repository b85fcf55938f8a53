import { type Command, Option } from "commander"
import { ManagerMetrics, serveMetrics } from "../../manager/metrics.ts"
import type { ManagerState } from "../../manager/manager.ts"
import { type ManagerObserver, observers } from "../../manager/observe.ts"
import { type LogLevel, logLevels, openOperatorLog } from "../../manager/operator-log.ts"
import { standardObserver } from "../../manager/state.ts"
import { UsageError } from "../exit.ts"
import { parseListen } from "../listen-address.ts"
import type { Output } from "../output.ts"
import { version } from "../program.ts"

export interface WatchWords {
  readonly log?: string
  readonly logLevel?: LogLevel
  readonly metrics?: string
}

/** How an operator watches a manager. */
export function withWatchOptions(command: Command): Command {
  return command
    .option(
      "--log <file>",
      "write what happens there as JSON lines, - for standard error; SIGHUP opens the file anew (default: warnings on standard error, as text)",
    )
    .addOption(new Option("--log-level <level>", "from which level on (default: info); debug tells of every call").choices(logLevels))
    .option("--metrics <host:port>", "serve /metrics (Prometheus), /healthz and /readyz there without TLS: for the operator's own machines only")
}

export interface Watch extends AsyncDisposable {
  /** Undefined where nothing was asked for. */
  readonly observer: ManagerObserver | undefined
  /** Where the metrics are, `http://…`; undefined where nobody asked for them. */
  readonly url: string | undefined
  /** The manager is there; until then it counts as locked. */
  started(state: () => ManagerState): void
}

/** @throws {UsageError}; {UnavailableError} for a log that cannot be written, or an address that is taken */
export async function openWatch({ log: to, logLevel, metrics: address }: WatchWords, output: Output): Promise<Watch> {
  if (to === undefined && logLevel !== undefined) throw new UsageError("--log-level goes with --log")
  await using parts = new AsyncDisposableStack()
  const log = to === undefined ? undefined : parts.use(openOperatorLog({ to, level: logLevel ?? "info", complain: (line) => console.error(line) }))
  if (log !== undefined) {
    const reopen = (): void => log.reopen()
    process.on("SIGHUP", reopen)
    parts.defer(() => void process.off("SIGHUP", reopen))
  }
  const metrics = address === undefined ? undefined : new ManagerMetrics(version)
  const served =
    metrics === undefined || address === undefined ? undefined : parts.use(await serveMetrics(metrics, parseListen(address, "--metrics")))
  if (served !== undefined && !/^http:\/\/(?:127\.|\[::1\]|localhost:)/.test(served.url))
    output.warn(`${served.url}/metrics is open to everybody who reaches it: what happens here, though not to whom`)
  const kept = parts.move()
  return {
    observer:
      log === undefined && metrics === undefined
        ? undefined
        : observers(log ?? standardObserver, ...(metrics === undefined ? [] : [metrics.observer])),
    url: served?.url,
    started: (state) => metrics?.watch(state),
    [Symbol.asyncDispose]: async () => kept.disposeAsync(),
  }
}
