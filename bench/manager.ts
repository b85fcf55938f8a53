import { createHash, verify } from "node:crypto"
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Digest, digestOf } from "../src/bytes/digest.ts"
import { encodeUtf8, parseBase64 } from "../src/bytes/text.ts"
import { parseTpmSignature } from "../src/evidence/tpm/format.ts"
import { publicKeyOf } from "../src/evidence/tpm/keys.ts"
import { parseSizedPublicArea } from "../src/evidence/tpm/public-area.ts"
import { captureReferences, LaboratoryAuthority, LaboratoryMachine } from "../src/manager/machine.testing.ts"
import { SqliteJournal } from "../src/manager/sqlite-journal.ts"
import { type AgentKeys, makeAgent, makeParts, TestStudy } from "../src/manager/study.testing.ts"
import type { Policy } from "../src/policy/document.ts"
import { type Challenge, type ClaimGrant, claimGrantSchema, challengeSchema } from "../src/protocol/messages.ts"
import { parseMessage } from "../src/protocol/wire.ts"
import { routes } from "../src/protocol/routes.ts"
import type { BenchRow } from "./row.ts"

const bootEventCount = 24
const imaLines = 2000
const claimCount = 200
const renewalCount = 1500
const warmUp = 20

/**
 * First claims and renewals of one manager on its own SQLite file, every step synced, the machine's evidence signed by software keys: challenge and answer, without sockets, each against the least that
 * any verifier must do with the same bytes. The time is the manager's alone: what the host does in between (quote, request) does not count.
 */
export async function benchManager(): Promise<readonly BenchRow[]> {
  const folder = mkdtempSync(join(tmpdir(), "perun-bench-manager-"))
  try {
    const bench = await ManagerBench.create(folder)
    return [...(await bench.claims()), ...(await bench.renewals())]
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

interface BenchStudy {
  readonly study: TestStudy
  readonly machine: LaboratoryMachine
  readonly digest: Digest
}

/** A machine with as many boot events and IMA lines as a real one, and a study on a real disk whose policy it meets. */
export async function makeStudy(folder: string, { lines = imaLines, change = (policy: Policy): Policy => policy } = {}): Promise<BenchStudy> {
  const authority = new LaboratoryAuthority()
  const { machine, files } = makeMachine(authority, lines)
  const parts = { ...(await makeParts()), authority, machine, references: captureReferences(machine, "none", files) }
  const study = await TestStudy.create(parts)
  await toDisk(study, folder)
  const policy = study.policy()
  const { train } = policy.jobs
  if (train === undefined) throw new TypeError("internal: the study has its job")
  const digest = await study.agree(change({ ...policy, jobs: { train: { ...train, maxRuns: 10_000 } } }))
  return { study, machine, digest }
}

/** A machine in one boot; the same but for its keys each time. */
export function makeMachine(authority: LaboratoryAuthority, lines: number) {
  const machine = new LaboratoryMachine(authority, "", undefined, bootEventCount - 14)
  const files = Array.from({ length: lines - 3 }, (_, place) => {
    const path = `/usr/lib/module-${place}.so`
    const content = encodeUtf8(`content of ${place}`)
    machine.measure(path, content)
    return { path, digest: digestOf(content) }
  })
  return { machine, files }
}

/** From memory to a file, for good. */
async function toDisk(study: TestStudy, folder: string): Promise<void> {
  const { head, rows, log, nodes } = study.journal
  if (head === undefined) throw new TypeError("internal: the study has a store")
  const journal = SqliteJournal.create(join(folder, "manager.db"))
  journal.commit({ head, put: [...rows.values()], remove: [], append: log, nodes })
  Object.assign(study, { journal })
  study.restart()
}

/** Median and 99th percentile, ms. */
export function percentiles(milliseconds: readonly number[]): { readonly p50: number; readonly p99: number } {
  const sorted = milliseconds.toSorted((a, b) => a - b)
  const at = (part: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99) }
}

class ManagerBench {
  readonly #study: TestStudy
  readonly #machine: LaboratoryMachine
  readonly #policy: Digest
  readonly #folder: string
  #agent: AgentKeys | undefined
  #lease: string | undefined

  private constructor({ study, machine, digest }: BenchStudy, folder: string) {
    this.#study = study
    this.#machine = machine
    this.#policy = digest
    this.#folder = folder
  }

  static async create(folder: string): Promise<ManagerBench> {
    return new ManagerBench(await makeStudy(folder), folder)
  }

  async claims(): Promise<readonly BenchRow[]> {
    const study = this.#study
    const agent = await makeAgent()
    this.#agent = agent
    await study.enrol(agent)
    const times: number[] = []
    let least = Number.NaN
    for (let round = 0; round < claimCount + warmUp; round++) {
      study.address = addressOf(round)
      await study.queue(this.#policy)
      const asked = await this.#timed("POST", "/v1/challenges", JSON.stringify({ purpose: "claim", host: "host-1" }))
      const challenge = parseMessage(challengeSchema, asked.body)
      const body = JSON.stringify(study.evidence(challenge, agent, this.#machine))
      const granted = await this.#timed("POST", "/v1/claims", body)
      const grant: ClaimGrant = parseMessage(claimGrantSchema, granted.body)
      this.#lease = grant.lease.id
      if (round >= warmUp) times.push(asked.milliseconds + granted.milliseconds)
      if (round === claimCount + warmUp - 1) least = this.#least(body)
      else await study.call(routes.finishRun, agent, { params: { run: grant.run }, body: { status: "failed", reason: "job-failed" } })
    }
    return rowsOf(`first claims, durable: quote, ${bootEventCount} boot events, ${imaLines} IMA lines`, times, least, ">= 100/s")
  }

  async renewals(): Promise<readonly BenchRow[]> {
    const [study, agent, lease] = [this.#study, this.#agent, this.#lease]
    if (agent === undefined || lease === undefined) throw new TypeError("internal: no lease to renew")
    const times: number[] = []
    let least = Number.NaN
    for (let round = 0; round < renewalCount + warmUp; round++) {
      const asked = await this.#timed("POST", "/v1/challenges", JSON.stringify({ purpose: "renew", host: "host-1", lease }))
      const challenge: Challenge = parseMessage(challengeSchema, asked.body)
      const body = JSON.stringify(study.evidence(challenge, agent, this.#machine))
      const renewed = await this.#timed("POST", `/v1/leases/${lease}/renew`, body)
      if (round >= warmUp) times.push(asked.milliseconds + renewed.milliseconds)
      if (round === renewalCount + warmUp - 1) least = this.#least(body)
    }
    return rowsOf("renewals, durable: quote and new lines only", times, least, ">= 500/s, p99 < 50 ms")
  }

  async #timed(method: string, path: string, body: string): Promise<{ readonly body: Uint8Array; readonly milliseconds: number }> {
    const started = performance.now()
    const response = await this.#study.fetch(method, path, this.#agent ?? {}, body)
    const bytes = new Uint8Array(await response.arrayBuffer())
    const milliseconds = performance.now() - started
    if (!response.ok) throw new Error(`${path}: ${response.status} ${Buffer.from(bytes).toString()}`)
    return { body: bytes, milliseconds }
  }

  /** Milliseconds for reading the JSON, one signature check, one hash over the bytes, and 4 KiB written and synced on the same disk: the median of many. */
  #least(body: string): number {
    const { bundle } = JSON.parse(body) as {
      bundle: { tpm: { quote: string; signature: string; akPublic: string; eventLog?: string; ima: { list: string } } }
    }
    const { quote, signature, akPublic, eventLog = "", ima } = bundle.tpm
    const key = publicKeyOf(parseSizedPublicArea(parseBase64(akPublic)))
    const parsed = parseTpmSignature(parseBase64(signature))
    const file = openSync(join(this.#folder, "least"), "w")
    const page = new Uint8Array(4096)
    const times = Array.from({ length: 100 }, () => {
      const started = performance.now()
      const tpm = (JSON.parse(body) as { bundle: { tpm: object } }).bundle.tpm
      for (const text of Object.values(tpm)) if (typeof text === "string") createHash("sha256").update(parseBase64(text)).digest()
      createHash("sha256").update(parseBase64(ima.list)).digest()
      if ("signature" in parsed) verify("sha256", parseBase64(quote), key, parsed.signature)
      if (eventLog !== "") createHash("sha256").update(parseBase64(eventLog)).digest()
      writeSync(file, page, 0, page.length, 0)
      fsyncSync(file)
      return performance.now() - started
    })
    closeSync(file)
    return percentiles(times).p50
  }
}

function rowsOf(name: string, times: readonly number[], least: number, goal: string): readonly BenchRow[] {
  const sum = times.reduce((all, one) => all + one, 0)
  const { p50, p99 } = percentiles(times)
  const against = "JSON, one signature, one hash, 4 KiB synced"
  return [
    { name, value: (times.length * 1000) / sum, unit: "/s", ratio: sum / times.length / least, against: `the time for ${against}`, goal },
    { name: `${name.split(",")[0] ?? name}: median`, value: p50, unit: "ms" },
    { name: `${name.split(",")[0] ?? name}: 99th percentile`, value: p99, unit: "ms" },
  ]
}

/** Each host behind an address of its own: what one network may ask for is limited. */
function addressOf(number: number): string {
  return `10.${(number >> 16) & 0xff}.${(number >> 8) & 0xff}.${number & 0xff}`
}
