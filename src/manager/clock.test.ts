import assert from "node:assert/strict"
import { readdir, readFile } from "node:fs/promises"
import { test } from "node:test"

/** Where the host's clock may be read: the clock itself, and the making of a new folder. */
const readers: Readonly<Record<string, number>> = { "clock.ts": 1, "state.ts": 2 }

test("the manager asks ManagerTime for the time, never the host", async () => {
  const found: Record<string, number> = {}
  for (const name of (await readdir(import.meta.dirname)).filter((file) => /^[a-z-]+\.ts$/.test(file))) {
    const text = await readFile(`${import.meta.dirname}/${name}`, "utf8")
    const { length } = [...text.matchAll(/\bDate\.now\b|\bnew Date\(\)|\bTemporal\.Now\b/g)]
    if (length > 0) found[name] = length
  }
  assert.deepEqual(found, readers)
})
