import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client"
import { listenOn } from "../bytes/listen.ts"
import type { ManagerState } from "./manager.ts"
import type { ManagerObserver } from "./observe.ts"
import { type NotReadyReason, notReadyReasons } from "./readiness.ts"

/**
 * Metrics in Prometheus' text format. Every label has a fixed set of values (names of routes, codes, kinds and states from this program; names of witnesses from its
 * command line), so that no caller can make a series, and no series says who takes part in what.
 */
export class ManagerMetrics {
  readonly #registry = new Registry()
  readonly #requests: Counter<"route" | "code">
  readonly #requestSeconds: Histogram<"route">
  readonly #stepSeconds: Histogram
  readonly #receipts: Counter<"kind">
  readonly #faults: Counter<"code">
  readonly #warnings: Counter
  readonly #gauges = new Map<string, Gauge>()
  #state: (() => ManagerState) | undefined

  constructor(version: string) {
    const registers = [this.#registry]
    // Of the process: CPU, memory, event loop, garbage collection, open files.
    collectDefaultMetrics({ register: this.#registry })
    this.#requests = new Counter({
      registers,
      name: "perun_http_requests_total",
      help: "Calls answered, by route and problem code (ok where there was none).",
      labelNames: ["route", "code"],
    })
    this.#requestSeconds = new Histogram({
      registers,
      name: "perun_http_request_duration_seconds",
      help: "Time to an answer, by route.",
      labelNames: ["route"],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
    })
    this.#stepSeconds = new Histogram({
      registers,
      name: "perun_store_commit_duration_seconds",
      help: "Time to make a step durable.",
      buckets: [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1],
    })
    this.#receipts = new Counter({
      registers,
      name: "perun_receipts_total",
      help: "Receipts written since the start, by kind.",
      labelNames: ["kind"],
    })
    this.#faults = new Counter({ registers, name: "perun_faults_total", help: "The manager's own trouble, by code.", labelNames: ["code"] })
    this.#warnings = new Counter({ registers, name: "perun_warnings_total", help: "Warnings in the operator's log." })
    const info = new Gauge({ registers, name: "perun_build_info", help: "Always 1.", labelNames: ["version", "node"] })
    info.set({ version, node: process.version }, 1)
    for (const { name, help, label } of stateGauges)
      this.#gauges.set(name, new Gauge({ registers, name, help, ...(label === undefined ? {} : { labelNames: [label] }) }))
  }

  /** From now on what there is comes from here; before, the manager counts as locked. */
  watch(state: () => ManagerState): void {
    this.#state = state
  }

  get observer(): ManagerObserver {
    return {
      called: ({ route, code, milliseconds }) => {
        this.#requests.inc({ route, code: code ?? "ok" })
        this.#requestSeconds.observe({ route }, milliseconds / 1000)
      },
      recorded: ({ receipts, milliseconds }) => {
        this.#stepSeconds.observe(milliseconds / 1000)
        for (const { kind } of receipts) this.#receipts.inc({ kind })
      },
      failed: ({ code }) => this.#faults.inc({ code }),
      warned: () => this.#warnings.inc(),
      said: () => undefined,
    }
  }

  /** The text of a scrape. */
  async text(): Promise<string> {
    this.#look()
    return this.#registry.metrics()
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  /** Why the manager cannot do its work; empty for one that is ready. */
  notReady(): readonly string[] {
    return this.#state === undefined ? ["locked"] : this.#state().notReady
  }

  /** One look at the manager for all gauges of a scrape. */
  #look(): void {
    const state = this.#state?.()
    for (const { name, label, read } of stateGauges) {
      const gauge = this.#gauges.get(name)
      gauge?.reset()
      // What is not known is not 0.
      if (label === undefined) gauge?.remove()
      for (const [value, count] of read(state)) {
        if (label === undefined) gauge?.set(count)
        else gauge?.set({ [label]: value }, count)
      }
    }
  }
}

/** What is shown of a manager's state; undefined while it is locked. Without a label there is one value at most. */
interface StateGauge {
  readonly name: string
  readonly help: string
  readonly label?: string
  read(state: ManagerState | undefined): readonly (readonly [string, number])[]
}

const stateGauges: readonly StateGauge[] = [
  {
    name: "perun_locked",
    help: "1 while the vault is locked and custodians have to unlock it.",
    read: (state) => [["", state === undefined ? 1 : 0]],
  },
  { name: "perun_ready", help: "1 while the manager can do its work.", read: (state) => [["", state?.notReady.length === 0 ? 1 : 0]] },
  {
    name: "perun_not_ready",
    help: "1 for each reason why the manager cannot do its work.",
    label: "reason",
    read: (state) =>
      state === undefined
        ? []
        : Object.keys(notReadyReasons).map((reason) => [reason, state.notReady.includes(reason as NotReadyReason) ? 1 : 0] as const),
  },
  one("perun_log_entries", "Entries of the transparency log.", ({ logEntries }) => logEntries),
  one("perun_leases_running", "Leases that are running.", ({ runningLeases }) => runningLeases),
  one("perun_members", "Keys that may propose policies.", ({ members }) => members),
  one("perun_disk_free_bytes", "Bytes free on the manager's disk.", ({ diskFree }) => diskFree),
  { name: "perun_runs", help: "Runs, by state.", label: "state", read: (state) => Object.entries(state?.runs ?? {}) },
  { name: "perun_policies", help: "Policies, by state.", label: "state", read: (state) => Object.entries(state?.policies ?? {}) },
  { name: "perun_hosts", help: "Hosts, by state.", label: "state", read: (state) => Object.entries(state?.hosts ?? {}) },
  {
    name: "perun_witness_entries",
    help: "Entries of the log that a witness has cosigned since the start; 0 where none.",
    label: "witness",
    read: (state) => (state?.witnesses ?? []).map(({ name, size }) => [name, size ?? 0] as const),
  },
]

function one(name: string, help: string, value: (state: ManagerState) => number | undefined): StateGauge {
  return {
    name,
    help,
    read: (state) => {
      const found = state === undefined ? undefined : value(state)
      return found === undefined ? [] : [["", found]]
    },
  }
}

export interface RunningMetrics extends AsyncDisposable {
  /** Where it listens, `http://host:port`. */
  readonly url: string
}

/**
 * Serves `/metrics`, `/healthz` and `/readyz` without TLS and without asking who calls: for an address that only the operator's own machines reach.
 * @throws {UnavailableError} `port-in-use`, `permission-denied`, `unavailable`
 */
export async function serveMetrics(
  metrics: ManagerMetrics,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<RunningMetrics> {
  const server = createServer((request, response) => {
    answer(metrics, request, response).catch(() => {
      response.destroy()
    })
  })
  await listenOn(server, { host, port })
  const address = server.address() as AddressInfo
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${address.port}`,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    },
  }
}

async function answer(metrics: ManagerMetrics, { method, url = "" }: IncomingMessage, response: ServerResponse): Promise<void> {
  const send = (status: number, text: string, contentType = "text/plain; charset=utf-8"): void => {
    response.writeHead(status, { "content-type": contentType, "cache-control": "no-store" }).end(method === "HEAD" ? "" : text)
  }
  if (method !== "GET" && method !== "HEAD") return send(405, "GET only\n")
  const [path] = url.split("?")
  if (path === "/metrics") return send(200, await metrics.text(), metrics.contentType)
  if (path === "/healthz") return send(200, "ok\n")
  if (path !== "/readyz") return send(404, "there is /metrics, /healthz and /readyz\n")
  const reasons = metrics.notReady()
  return reasons.length === 0 ? send(200, "ok\n") : send(503, `${reasons.join("\n")}\n`)
}
