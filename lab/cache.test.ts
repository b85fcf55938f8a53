import assert from "node:assert/strict"
import { mkdtemp, mkdir, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { cachedFolder, cacheFolder, pruneUnused, withLock } from "./cache.ts"

const given = process.env.PERUN_CACHE
before(async () => {
  process.env.PERUN_CACHE = await mkdtemp(join(tmpdir(), "perun-cache-"))
})
after(async () => {
  await rm(cacheFolder(), { recursive: true })
  if (given === undefined) delete process.env.PERUN_CACHE
  else process.env.PERUN_CACHE = given
})

test("cachedFolder() makes a folder once, also when two ask at the same time", async () => {
  let made = 0
  const make = async (folder: string): Promise<void> => {
    made++
    await writeFile(join(folder, "content"), "x")
  }
  const [a, b] = await Promise.all([cachedFolder("once", make), cachedFolder("once", make)])
  assert.equal(a, b)
  assert.equal(made, 1)
  assert.equal(await readFile(join(a, "content"), "utf8"), "x")
})

test("cachedFolder() leaves nothing of a maker that failed, and clears what a killed one left", async () => {
  await assert.rejects(
    cachedFolder("fails", () => Promise.reject(new Error("cut"))),
    /cut/,
  )
  assert.deepEqual(
    (await readdir(cacheFolder())).filter((name) => name.startsWith("fails") && !name.endsWith(".lock")),
    [],
  )
  await mkdir(join(cacheFolder(), "fails.tmp-abc"))
  const folder = await cachedFolder("fails", (temporary) => writeFile(join(temporary, "content"), "y"))
  assert.deepEqual(await readdir(folder), ["content"])
  assert.ok(!(await readdir(cacheFolder())).includes("fails.tmp-abc"))
})

test("pruneUnused() removes what was not asked for in time, and nothing else", async () => {
  const old = new Date(Date.now() - 15 * 86_400_000)
  for (const name of ["app-used", "app-unused", "other-unused"]) await utimes(await cachedFolder(name, async () => {}), old, old)
  await cachedFolder("app-used", () => Promise.reject(new Error("made twice")))
  await mkdir(join(cacheFolder(), "app-making.tmp-abc"))
  await utimes(join(cacheFolder(), "app-making.tmp-abc"), old, old)
  await pruneUnused("app-", 14)
  const left = (await readdir(cacheFolder())).filter((name) => !name.endsWith(".lock"))
  assert.ok(!left.includes("app-unused"))
  for (const name of ["app-used", "other-unused", "app-making.tmp-abc"]) assert.ok(left.includes(name), name)
})

test("cachedFolder() clears what was left under other names too, but not where somebody is at work", async () => {
  for (const name of ["old-name.tmp-abc", "busy.tmp-abc"]) await mkdir(join(cacheFolder(), name))
  await withLock("busy", () => cachedFolder("new-name", async () => undefined))
  const names = await readdir(cacheFolder())
  assert.deepEqual([names.includes("old-name.tmp-abc"), names.includes("busy.tmp-abc")], [false, true])
})

test("withLock() lets one in at a time", async () => {
  let inside = 0
  let most = 0
  let waits = 0
  const work = async (): Promise<void> => {
    inside++
    most = Math.max(most, inside)
    await new Promise((resolve) => setTimeout(resolve, 30))
    inside--
  }
  await Promise.all(Array.from({ length: 3 }, () => withLock("one", work, () => waits++)))
  assert.equal(most, 1)
  assert.ok(waits >= 1)
})
