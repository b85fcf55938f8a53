import { constants } from "node:fs"
import { open } from "node:fs/promises"
import { concatBytes } from "../bytes/compare.ts"
import { MalformedError } from "../bytes/error.ts"
import { parseJson } from "../bytes/json.ts"
import { parseUtf8 } from "../bytes/text.ts"
import { viewOf } from "../bytes/view.ts"
import type { Metrics, MetricType } from "../policy/document.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { checkMetrics, metricsSizeBytes, roundMetrics } from "../protocol/metrics.ts"

/** One line of metrics as it leaves the machine: numbers under the names of the policy's schema. */
export type MetricLine = Readonly<Record<string, number>>

/** Why a line of the job did not leave. Only the counts are ever told. */
export type DropReason = "malformed" | "schema" | "range" | "rate" | "bytes"

/**
 * Lets through what the policy's schema allows, line by line, and counts the rest: missing or unknown names, text, NaN, numbers out of range, lines above the
 * rate or the byte cap. Numbers are rounded and written anew in canonical form, so that neither spelling nor spare digits carry anything.
 */
export class MetricsFilter {
  readonly dropped: Readonly<Record<DropReason, number>>
  readonly #dropped: Record<DropReason, number> = { malformed: 0, schema: 0, range: 0, rate: 0, bytes: 0 }
  readonly #rules: Metrics
  #sentBytes = 0
  /** Times in seconds at which lines left within the last minute. */
  #recent: number[] = []

  constructor(rules: Metrics) {
    this.#rules = rules
    this.dropped = this.#dropped
  }

  /** `now` is seconds on a monotonic clock. Undefined where the line is dropped. */
  accept(line: Uint8Array, now: number): MetricLine | undefined {
    const values = this.#parse(line)
    if (typeof values === "string") return this.#drop(values)
    const size = metricsSizeBytes(values)
    if (this.#sentBytes + size > this.#rules.maxBytes) return this.#drop("bytes")
    this.#recent = this.#recent.filter((time) => now - time < 60)
    if (this.#recent.length >= this.#rules.maxPerMinute) return this.#drop("rate")
    this.#recent.push(now)
    this.#sentBytes += size
    return values
  }

  /** Counts a line that was never read whole. */
  dropUnread(): void {
    this.#dropped.malformed++
  }

  #parse(line: Uint8Array): MetricLine | DropReason {
    let parsed
    try {
      parsed = parseJson(parseUtf8(line), { maxBytes: maxLineBytes, maxDepth: 1 })
    } catch (error) {
      if (error instanceof MalformedError) return "malformed"
      throw error
    }
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return "malformed"
    const { schema } = this.#rules
    if (!Object.values(parsed).every((value) => typeof value === "number")) return "schema"
    const values = roundMetrics(schema, parsed as MetricLine)
    try {
      checkMetrics(schema, values)
    } catch (error) {
      if (error instanceof ProtocolError) return "schema"
      throw error
    }
    return Object.entries(values).every(([name, value]) => isInRange(value, schema[name])) ? values : "range"
  }

  #drop(reason: DropReason): undefined {
    this.#dropped[reason]++
    return undefined
  }
}

/**
 * Follows the file to which a job writes its metrics as JSON lines. The job owns the file and may put anything in its place: links are not followed, and what
 * is not a plain file is not read.
 */
export class MetricsFollower {
  readonly #path: string
  readonly #filter: MetricsFilter
  #offset = 0
  #rest = new Uint8Array()
  #skipping = false

  constructor(path: string, filter: MetricsFilter) {
    this.#path = path
    this.#filter = filter
  }

  /** The lines written since the last call that may leave. With `atEnd`, a last line without a line feed counts too. */
  async poll(now: number, atEnd = false): Promise<MetricLine[]> {
    const lines = this.#split(await this.#read())
    if (atEnd && this.#rest.length > 0 && !this.#skipping) lines.push(this.#rest)
    return lines.map((line) => this.#filter.accept(line, now)).filter((line) => line !== undefined)
  }

  async #read(): Promise<Uint8Array> {
    let file
    try {
      file = await open(this.#path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    } catch {
      return new Uint8Array() // Not there yet, or a link.
    }
    try {
      if (!(await file.stat()).isFile()) return new Uint8Array()
      const buffer = new Uint8Array(readBytes)
      const { bytesRead } = await file.read(buffer, 0, readBytes, this.#offset)
      this.#offset += bytesRead
      return viewOf(buffer, 0, bytesRead)
    } finally {
      await file.close()
    }
  }

  #split(bytes: Uint8Array): Uint8Array[] {
    const lines: Uint8Array[] = []
    const pending = concatBytes(this.#rest, bytes)
    let start = 0
    for (let end = pending.indexOf(lineFeed); end >= 0; end = pending.indexOf(lineFeed, start)) {
      if (this.#skipping) this.#filter.dropUnread()
      else if (end > start) lines.push(viewOf(pending, start, end - start))
      this.#skipping = false
      start = end + 1
    }
    const left = pending.length - start
    if (left > maxLineBytes) this.#skipping = true
    this.#rest = this.#skipping ? new Uint8Array() : new Uint8Array(viewOf(pending, start, left))
    return lines
  }
}

function isInRange(value: number, type: MetricType | undefined): boolean {
  return Math.abs(value) <= (type === "int" ? maxInteger : maxFloat)
}

/** A line of numbers is short; a longer one is none. */
const maxLineBytes = 4096
/** Steps and counts of a run stay far below; every larger range would only carry more. */
const maxInteger = 2 ** 31 - 1
const maxFloat = 1e9
/** Per call of `poll`, which comes every second. */
const readBytes = 256 * 1024
const lineFeed = 0x0a
