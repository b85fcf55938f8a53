/** Runs every benchmark and prints a table; each ratio was taken within this run. `--json` prints the rows as JSON. Arguments name the ones to run. */
import { cpus } from "node:os"
import { Output } from "../src/cli/output.ts"
import { benchDcap } from "./dcap.ts"
import { benchFleet } from "./fleet.ts"
import { benchHost } from "./host.ts"
import { benchIma } from "./ima.ts"
import { benchManager } from "./manager.ts"
import { benchLog } from "./log.ts"
import { benchSealing } from "./sealing.ts"
import { benchSnp } from "./snp.ts"
import type { BenchRow } from "./row.ts"

const benchmarks: Readonly<Record<string, () => Promise<readonly BenchRow[]>>> = {
  sealing: benchSealing,
  ima: benchIma,
  host: benchHost,
  dcap: benchDcap,
  snp: benchSnp,
  log: benchLog,
  manager: benchManager,
  fleet: benchFleet,
}

const json = process.argv.includes("--json")
const asked = process.argv.slice(2).filter((word) => !word.startsWith("-"))
const unknown = asked.filter((name) => !Object.hasOwn(benchmarks, name))
const output = new Output({ json })
if (unknown.length > 0) {
  process.stderr.write(`bench: no benchmark ${unknown.join(", ")}; there are ${Object.keys(benchmarks).join(", ")}\n`)
  process.exitCode = 2
} else {
  output.line(
    `${cpus()[0]?.model ?? "unknown processor"}, ${cpus().length} processors, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`,
  )
  const rows: BenchRow[] = []
  for (const [name, run] of Object.entries(benchmarks)) if (asked.length === 0 || asked.includes(name)) rows.push(...(await run()))
  output.event({ rows })
  output.table(
    ["what", "value", "ratio", "against", "goal"],
    rows.map(({ name, value, unit, ratio, against, goal }) => [
      name,
      `${formatNumber(value)} ${unit}`,
      ratio === undefined ? "" : `${ratio.toFixed(2)}x`,
      against ?? "",
      goal ?? "",
    ]),
  )
}

function formatNumber(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toPrecision(3)
}
