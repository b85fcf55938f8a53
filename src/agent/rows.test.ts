import assert from "node:assert/strict"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { countRows } from "./rows.ts"

async function rowsOf(files: Readonly<Record<string, string>>): Promise<number | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "perun-rows-"))
  try {
    await mkdir(join(folder, "more"))
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text)
    return await countRows(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

test("countRows() counts records without headers, over all tables", async () => {
  assert.equal(await rowsOf({ "a.csv": "x,y\n1,2\n3,4\n", "more/b.csv": "x,y\r\n1,2\r\n\r\n5,6", "readme.txt": "a\nb\n" }), 4)
})

test("countRows() takes a line break between quotes as part of its record", async () => {
  assert.equal(await rowsOf({ "a.csv": 'x,y\n1,"two\nlines ""q"" "\n3,4\n' }), 2)
})

test("countRows() counts nothing in an empty table, and says nothing where there is none", async () => {
  assert.equal(await rowsOf({ "a.csv": "" }), 0)
  assert.equal(await rowsOf({ "a.csv": "x,y\n" }), 0)
  assert.equal(await rowsOf({ "data.npz": "x\ny\n" }), undefined)
})
