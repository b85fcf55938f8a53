import { DatabaseSync } from "node:sqlite"
import { setTimeout as sleep } from "node:timers/promises"
import { UnavailableError } from "./error.ts"

/**
 * Runs `work` while holding the lock file `path` among all processes of this machine; waits for whoever holds it and calls `onWait` once if it must. The lock
 * is SQLite's on the file, so it ends with its holder whatever happens to it. The file stays: somebody may wait at it.
 * @throws what `work` throws; {UnavailableError} when the file cannot be made
 */
export async function withFileLock<T>(path: string, work: () => Promise<T>, onWait?: () => void): Promise<T> {
  const database = openLock(path)
  try {
    for (let waited = false; !tryLock(database); waited = true) {
      if (!waited) onWait?.()
      await sleep(pollMilliseconds)
    }
    return await work()
  } finally {
    database.close()
  }
}

/** Runs `work` under the lock if nobody has it. @throws as `withFileLock` */
export async function whereFree(path: string, work: () => Promise<void>): Promise<void> {
  const database = openLock(path)
  try {
    if (tryLock(database)) await work()
  } finally {
    database.close()
  }
}

function openLock(path: string): DatabaseSync {
  try {
    return new DatabaseSync(path, { timeout: 0 })
  } catch (cause) {
    throw new UnavailableError("unavailable", "the lock file cannot be opened", { path, cause })
  }
}

function tryLock(database: DatabaseSync): boolean {
  try {
    database.exec("BEGIN EXCLUSIVE")
    return true
  } catch (error) {
    if (error instanceof Error && "errcode" in error && (error.errcode === sqliteBusy || error.errcode === sqliteBusyRecovery)) return false
    throw error
  }
}

const pollMilliseconds = 50
/** SQLite result codes; https://sqlite.org/rescode.html */
const sqliteBusy = 5
const sqliteBusyRecovery = 261
