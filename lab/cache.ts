import { mkdir, mkdtemp, readdir, rename, rm, stat, utimes } from "node:fs/promises"
import { homedir } from "node:os"
import { join } from "node:path"
import { whereFree, withFileLock } from "../src/bytes/file-lock.ts"

/** Where images, the laboratory CA and probe results are kept: `$PERUN_CACHE`, else `~/.cache/perun/lab`. */
export function cacheFolder(): string {
  const { PERUN_CACHE: given, XDG_CACHE_HOME: xdg } = process.env
  if (given !== undefined && given !== "") return given
  return join(xdg !== undefined && xdg !== "" ? xdg : join(homedir(), ".cache"), "perun", "lab")
}

/**
 * Gives the folder `<cache>/<name>`, made by `make` in a temporary folder and moved into place as a whole if it is not there yet. One maker at a time,
 * also between processes; what an interrupted one left is removed by the next.
 */
export async function cachedFolder(name: string, make: (folder: string) => Promise<void>, onWait?: () => void): Promise<string> {
  const final = join(cacheFolder(), name)
  await withLock(
    name,
    async () => {
      if (await exists(final)) return markUsed(final)
      await removeLeftovers(name)
      const temporary = await mkdtemp(`${final}.tmp-`)
      try {
        await make(temporary)
        // Somebody who emptied the cache meanwhile took the lock's file with it; what another maker put there is as good.
        await rename(temporary, final).catch(async (error: unknown) => {
          if (!(await exists(final))) throw error
        })
      } finally {
        await rm(temporary, { recursive: true, force: true })
      }
    },
    onWait,
  )
  return final
}

/**
 * Removes the folders whose names start with `prefix` that no `cachedFolder` gave out for so long. Both hold the folder's lock, so that what is given out is
 * there. Lock files stay: somebody may wait at one.
 */
export async function pruneUnused(prefix: string, unusedDays: number): Promise<void> {
  const limit = Date.now() - unusedDays * 86_400_000
  for (const entry of await readdir(cacheFolder(), { withFileTypes: true })) {
    // A maker's temporary folder is its own, and its lock may be held for minutes.
    if (!entry.isDirectory() || !entry.name.startsWith(prefix) || entry.name.includes(".tmp-")) continue
    const folder = join(cacheFolder(), entry.name)
    if (await usedSince(folder, limit)) continue
    await withLock(entry.name, async () => {
      if (!(await usedSince(folder, limit))) await rm(folder, { recursive: true, force: true })
    })
  }
}

/** The time of the last use is the folder's own. */
async function markUsed(folder: string): Promise<void> {
  const now = new Date()
  await utimes(folder, now, now)
}

/** True also for a folder that is gone. */
async function usedSince(folder: string, limitMs: number): Promise<boolean> {
  return await stat(folder).then(
    ({ mtimeMs }) => mtimeMs >= limitMs,
    () => true,
  )
}

/** Runs `work` while holding a lock of this name among all processes of this cache. */
export async function withLock<T>(name: string, work: () => Promise<T>, onWait?: () => void): Promise<T> {
  await mkdir(cacheFolder(), { recursive: true })
  return withFileLock(lockPath(name), work, onWait)
}

export async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}

/** Removes what makers that were interrupted left: of `name`, whose lock is held here, and of every other name that nobody is making now. */
async function removeLeftovers(name: string): Promise<void> {
  for (const entry of await readdir(cacheFolder())) {
    const owner = /^(.+)\.tmp-[^.]+$/.exec(entry)?.[1]
    const remove = (): Promise<void> => rm(join(cacheFolder(), entry), { recursive: true, force: true })
    if (owner === name) await remove()
    else if (owner !== undefined) await whereFree(lockPath(owner), remove)
  }
}

function lockPath(name: string): string {
  return join(cacheFolder(), `${name}.lock`)
}
