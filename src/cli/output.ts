import { stripVTControlCharacters, styleText } from "node:util"

/** How a cell or line is meant; colours are only chosen here. */
export type Tone = "plain" | "good" | "bad" | "warn" | "dim" | "strong"

/** A table cell: text, or text with a tone. */
export type Cell = string | number | { readonly text: string; readonly tone: Tone }

export interface Progress {
  /** Shows a step's state. `total` 0 means unknown. */
  update(label: string, done: number, total: number): void
  /** Ends the bar of the present step. */
  end(): void
}

/**
 * All that a command prints goes through here: text with colour on a terminal, plain lines in a log, JSON lines with `--json`.
 * Text of other parties passes `printable` on its way, so that no file name can steer the terminal.
 */
export class Output {
  readonly json: boolean
  readonly #out: NodeJS.WriteStream
  readonly #err: NodeJS.WriteStream
  #barWidth = 0

  constructor(options: { readonly json: boolean; readonly out?: NodeJS.WriteStream; readonly err?: NodeJS.WriteStream }) {
    this.json = options.json
    this.#out = options.out ?? process.stdout
    this.#err = options.err ?? process.stderr
  }

  /** A line for people; nothing with `--json`. */
  line(text = "", tone: Tone = "plain"): void {
    if (this.json) return
    this.#clearBar()
    this.#out.write(`${this.#paint(printable(text), tone)}\n`)
  }

  /** A heading with an empty line before it. */
  heading(text: string): void {
    this.line()
    this.line(text, "strong")
  }

  /** A line on standard error in every mode but `--json`, where it becomes an event. */
  warn(text: string): void {
    if (this.json) return this.event({ event: "warning", message: text })
    this.#clearBar()
    this.#err.write(`${this.#paint(printable(text), "warn", this.#err)}\n`)
  }

  /** One JSON object on one line; nothing without `--json`. */
  event(value: unknown): void {
    if (this.json) this.#out.write(`${JSON.stringify(value)}\n`)
  }

  /** The result of a command: one JSON line, or what `human` prints. */
  result(value: unknown, human: () => void): void {
    if (this.json) this.event(value)
    else human()
  }

  /** Raw bytes or text of a document to standard output, in every mode. */
  raw(text: string): void {
    this.#out.write(text)
  }

  /** Columns are wrapped to a terminal's width only; in a pipe or log every cell stays whole, to be searched and copied. */
  table(headers: readonly string[], rows: ReadonlyArray<readonly Cell[]>): void {
    if (this.json) return
    this.#clearBar()
    for (const line of layoutTable(headers, rows, this.#out.isTTY ? (this.#out.columns ?? 120) : Infinity, (text, tone) => this.#paint(text, tone)))
      this.#out.write(`${line}\n`)
  }

  /** Progress of long work: a bar on a terminal, a line per tenth (or every 10 s) in a log, events with `--json`. Goes to standard error. */
  progress(): Progress {
    let shownTenth = -1
    let shownLabel = ""
    let shownAt = 0
    return {
      update: (label, done, total) => {
        const tenth = total > 0 ? Math.floor((done / total) * 10) : -1
        if (this.#err.isTTY && !this.json) return this.#bar(label, done, total)
        const now = performance.now()
        if (label === shownLabel && tenth === shownTenth && now - shownAt < 10_000) return
        shownTenth = tenth
        shownLabel = label
        shownAt = now
        if (this.json) this.event({ event: "progress", step: label, done, total })
        else this.#err.write(total > 0 ? `${label}: ${Math.floor((done / total) * 100)} %\n` : `${label} ...\n`)
      },
      end: () => this.#clearBar(),
    }
  }

  #bar(label: string, done: number, total: number): void {
    const columns = Math.max(40, this.#err.columns ?? 80)
    const width = 28
    const filled = total > 0 ? Math.min(width, Math.round((done / total) * width)) : 0
    const bar = total > 0 ? `${"█".repeat(filled)}${"░".repeat(width - filled)} ${String(Math.floor((done / total) * 100)).padStart(3)} %` : "…"
    const text = `${bar} ${label}`.slice(0, columns - 1)
    this.#err.write(`\r\u001b[K${text}`)
    this.#barWidth = text.length
  }

  #clearBar(): void {
    if (this.#barWidth === 0) return
    this.#barWidth = 0
    this.#err.write("\r\u001b[K")
  }

  #paint(text: string, tone: Tone, stream: NodeJS.WriteStream = this.#out): string {
    const format = toneFormats[tone]
    return format === undefined ? text : styleText([...format], text, { stream })
  }
}

const toneFormats = {
  plain: undefined,
  good: ["green"],
  bad: ["red"],
  warn: ["yellow"],
  dim: ["dim"],
  strong: ["bold"],
} as const

/** Text from other parties without control characters, so that it cannot move the cursor or fake a line. */
export function printable(text: string): string {
  // Node's own pattern leaves the ends of private sequences, such as those that firmware sends, as text.
  return stripVTControlCharacters(text.replace(controlSequence, "")).replace(
    /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g,
    "\ufffd",
  )
}

/** ECMA-48, 5.4: CSI, parameters, intermediates, final byte. */
const controlSequence = /\u001b\[[0-?]*[ -/]*[@-~]/g

/** Bytes as people write them: 1 KB = 1000 bytes. */
export function formatBytes(count: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"]
  let value = count
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`
}

function layoutTable(
  headers: readonly string[],
  rows: ReadonlyArray<readonly Cell[]>,
  width: number,
  paint: (text: string, tone: Tone) => string,
): string[] {
  const texts = rows.map((row) =>
    row.map((cell) =>
      typeof cell === "object" ? { text: printable(cell.text), tone: cell.tone } : { text: printable(String(cell)), tone: "plain" as const },
    ),
  )
  const natural = headers.map((header, column) => Math.max(header.length, ...texts.map((row) => row[column]?.text.length ?? 0)))
  const widths = fitWidths(natural, width - (headers.length - 1) * 2)
  const lines: string[] = []
  lines.push(
    paint(
      headers
        .map((header, column) => pad(header, widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
      "strong",
    ),
  )
  for (const row of texts) {
    const wrapped = row.map((cell, column) => wrap(cell.text, widths[column] ?? 1))
    const height = Math.max(1, ...wrapped.map((cell) => cell.length))
    for (let index = 0; index < height; index++) {
      lines.push(
        row
          .map((cell, column) => {
            const padded = pad(wrapped[column]?.[index] ?? "", widths[column] ?? 0)
            return cell.tone === "plain" ? padded : paint(padded, cell.tone)
          })
          .join("  ")
          .trimEnd(),
      )
    }
  }
  return lines
}

/** Shrinks the widest columns until all fit; those that are equally wide share what is too much. */
function fitWidths(natural: readonly number[], available: number): number[] {
  const widths = [...natural]
  const narrowest = 12
  for (;;) {
    const excess = widths.reduce((sum, width) => sum + width, 0) - available
    const widest = Math.max(...widths)
    if (excess <= 0 || widest <= narrowest) return widths
    const second = Math.max(narrowest, ...widths.filter((width) => width < widest))
    const column = widths.indexOf(widest)
    const share = Math.ceil(excess / widths.filter((width) => width === widest).length)
    widths[column] = Math.max(second, widest - share, narrowest)
    if (widths[column] === widest) widths[column] = widest - 1
  }
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ""
  for (const word of text.split(" ")) {
    let rest = word
    if (line !== "" && line.length + 1 + rest.length <= width) {
      line += ` ${rest}`
      continue
    }
    if (line !== "") lines.push(line)
    while (rest.length > width) {
      lines.push(rest.substring(0, width))
      rest = rest.substring(width)
    }
    line = rest
  }
  lines.push(line)
  return lines
}

function pad(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - text.length))
}
