import { fork } from "node:child_process"
import { createPrivateKey } from "node:crypto"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { Agent, request as httpsRequest } from "node:https"
import { setTimeout as sleep } from "node:timers/promises"
import { parseBase64 } from "../src/bytes/text.ts"
import { sessionDigest } from "../src/evidence/bundle.ts"
import { tpmNameText } from "../src/evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../src/evidence/tpm/public-area.ts"
import { LaboratoryAuthority, type LaboratoryMachine } from "../src/manager/machine.testing.ts"
import { challengeSchema } from "../src/protocol/messages.ts"
import { createTlsIdentity, type TlsIdentity } from "../src/protocol/tls.ts"
import { parseMessage } from "../src/protocol/wire.ts"
import { makeMachine, percentiles } from "./manager.ts"
import type { BenchRow } from "./row.ts"

const hosts = Number(process.env["PERUN_BENCH_HOSTS"] ?? 10_000)
const periodMilliseconds = 60_000
const rounds = 2

/** What the manager's process tells once it listens. */
export interface FleetReady {
  readonly url: string
  readonly manager: string
  readonly akPem: string
  readonly akPublic: string
  readonly hpkeKey: string
}
export interface FleetWords {
  readonly tlsKeys: readonly string[]
}
/** IMA lines of each machine: a renewal sends new ones only. */
export const fleetLines = 10

/**
 * One manager in a process of its own, on its own SQLite file, and as many hosts as a large farm has, each with a TLS key and connection of its own, on loopback: each renews its lease once a minute. All of them answer
 * by the keys of one software TPM. The first round, in which connections are made and machines are judged from their first line, does not count.
 */
export async function benchFleet(): Promise<readonly BenchRow[]> {
  const identities = Array.from({ length: hosts }, (_, number) => createTlsIdentity(`host ${number}`))
  const child = fork(new URL("./fleet-manager.ts", import.meta.url), {
    execArgv: ["--disable-warning=ExperimentalWarning"],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  })
  try {
    child.send({ tlsKeys: identities.map(({ tlsKey }) => tlsKey) } satisfies FleetWords)
    const gone = once(child, "exit").then(() => {
      throw new Error("the manager's process ended")
    })
    const [ready] = (await Promise.race([once(child, "message"), gone])) as [FleetReady]
    gone.catch(() => undefined)
    const fleet = identities.map((identity, number) => new FleetHost(ready, identity, number))
    const times: number[] = []
    let [missed, cpu, wall, ownCpu] = [0, 0, 0, 0]
    for (let round = 0; round < rounds; round++) {
      const [cpuBefore, ownBefore, started] = [cpuSeconds(child.pid), process.cpuUsage(), performance.now()]
      const results = await Promise.all(
        fleet.map(async (host, number) => {
          // Spread over the period, as leases that began at different times are.
          await sleep((number * periodMilliseconds) / hosts)
          return host.renew()
        }),
      )
      await sleep(Math.max(0, periodMilliseconds - (performance.now() - started)))
      if (round === 0) continue
      wall += (performance.now() - started) / 1000
      cpu += cpuSeconds(child.pid) - cpuBefore
      const own = process.cpuUsage(ownBefore)
      ownCpu += (own.user + own.system) / 1e6
      for (const milliseconds of results)
        if (milliseconds === undefined) missed++
        else times.push(milliseconds)
    }
    const { p50, p99 } = percentiles(times)
    const name = `${hosts.toLocaleString("en")} hosts renew every 60 s on loopback`
    return [
      {
        name: `${name}: the manager's processor time`,
        value: (100 * cpu) / wall,
        unit: "% of one core",
        ratio: cpu / ownCpu,
        against: "that of all hosts together",
      },
      { name: `${name}: renewals that failed, of ${times.length + missed}`, value: missed, unit: "" },
      { name: `${name}: median`, value: p50, unit: "ms" },
      { name: `${name}: 99th percentile`, value: p99, unit: "ms" },
    ]
  } finally {
    child.kill("SIGKILL")
  }
}

/** User and system time of a process so far; proc(5), fields 14 and 15 of `stat`, in hundredths of a second. */
function cpuSeconds(pid: number | undefined): number {
  const [, rest = ""] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")
  const fields = rest.split(" ")
  return (Number(fields[11]) + Number(fields[12])) / 100
}

class FleetHost {
  readonly #ready: FleetReady
  readonly #identity: TlsIdentity
  readonly #number: number
  readonly #agent: Agent

  constructor(ready: FleetReady, identity: TlsIdentity, number: number) {
    this.#ready = ready
    this.#identity = identity
    this.#number = number
    // Each from an address of its own: what one network may ask for is limited.
    const localAddress = `127.1.${Math.floor(number / 250)}.${(number % 250) + 1}`
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: 1,
      key: identity.privateKeyPem,
      cert: identity.certificatePem,
      rejectUnauthorized: false,
      minVersion: "TLSv1.3",
      localAddress,
    })
  }

  /** Milliseconds that it took; undefined where it failed. */
  async renew(): Promise<number | undefined> {
    const lease = leaseOf(this.#number)
    const host = `host-${this.#number}`
    const started = performance.now()
    const asked = await this.#post("/v1/challenges", { purpose: "renew", host, lease })
    if (asked === undefined) return undefined
    const challenge = parseMessage(challengeSchema, asked)
    const { nonce, manager, policy, job, run } = challenge
    const session = sessionDigest({
      purpose: "renew",
      version: 1,
      manager,
      nonce,
      hpkeKey: this.#ready.hpkeKey,
      tlsKey: this.#identity.tlsKey,
      akName: akName(this.#ready),
      deviceEvidence: [],
      policy,
      job,
      run,
      lease,
    })
    const bundle = machineOf(this.#ready).bundle(session, { from: challenge.imaFrom, withBootLog: challenge.imaFrom === 0 })
    const renewed = await this.#post(`/v1/leases/${lease}/renew`, { challenge: challenge.challenge, hpkeKey: this.#ready.hpkeKey, bundle })
    return renewed === undefined ? undefined : performance.now() - started
  }

  async #post(path: string, message: object): Promise<Uint8Array | undefined> {
    const body = JSON.stringify(message)
    const url = new URL(path, this.#ready.url)
    return new Promise((resolve) => {
      const headers = { "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) }
      const request = httpsRequest(url, { method: "POST", agent: this.#agent, headers }, (response) => {
        const parts: Buffer[] = []
        response.on("data", (part: Buffer) => parts.push(part))
        response.on("error", () => resolve(undefined))
        response.on("end", () => {
          if (response.statusCode !== 200)
            console.error(`host ${this.#number}: ${path}: ${response.statusCode} ${Buffer.concat(parts).toString().slice(0, 300)}`)
          resolve(response.statusCode === 200 ? new Uint8Array(Buffer.concat(parts)) : undefined)
        })
      })
      request.on("error", (error) => {
        console.error(`host ${this.#number}: ${error.message}`)
        resolve(undefined)
      })
      request.end(body)
    })
  }
}

/** Name of a host's lease, as both processes have it. */
export function leaseOf(number: number): string {
  return number.toString(16).padStart(32, "0")
}

let machine: LaboratoryMachine | undefined

/** The one machine whose keys all hosts have. */
function machineOf({ akPem, akPublic }: FleetReady): LaboratoryMachine {
  if (machine !== undefined) return machine
  machine = makeMachine(new LaboratoryAuthority(), fleetLines).machine
  Object.assign(machine, { ak: { privateKey: createPrivateKey(akPem), area: parseSizedPublicArea(parseBase64(akPublic)) } })
  return machine
}

function akName({ akPublic }: FleetReady): string {
  return tpmNameText(parseSizedPublicArea(parseBase64(akPublic)))
}
