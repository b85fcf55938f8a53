import { createReadStream } from "node:fs"
import { walk } from "./scratch.ts"

/**
 * Data rows of an opened data set, counted by the agent for the run's record: the records of all `.csv` files less one header line each (RFC 4180: a line
 * break between quotes does not end a record; empty lines are no records). Undefined where the data set holds no such file.
 */
export async function countRows(folder: string): Promise<number | undefined> {
  const tables = (await walk(folder)).filter(({ kind, path }) => kind === "file" && path.endsWith(".csv"))
  if (tables.length === 0) return undefined
  let rows = 0
  for (const { path } of tables) rows += Math.max(0, (await countRecords(path)) - 1)
  return rows
}

async function countRecords(path: string): Promise<number> {
  let records = 0
  let quoted = false
  let hasContent = false
  for await (const chunk of createReadStream(path) as AsyncIterable<Uint8Array>) {
    for (const byte of chunk) {
      if (byte === quote) quoted = !quoted
      if ((byte === lineFeed || byte === carriageReturn) && !quoted) {
        if (hasContent) records++
        hasContent = false
      } else hasContent = true
    }
  }
  return hasContent ? records + 1 : records
}

const quote = 0x22
const lineFeed = 0x0a
const carriageReturn = 0x0d
