import { mkdir, readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { fromSystemError } from "../bytes/durable.ts"
import { PerunError } from "../bytes/error.ts"
import { type BackupSummary, finishedBackup, newestBackup } from "./backup.ts"

export interface BackupPlan {
  /** Folder in which each backup gets a folder of its own, named by its time. */
  readonly folder: string
  readonly everyMilliseconds: number
  /** How many are kept; older ones are removed once a newer one is whole. */
  readonly keep: number
}

export interface BackupWork {
  readonly make: (out: string, now: Date) => Promise<BackupSummary>
  readonly now: () => Date
  /** One line for the operator. */
  readonly say: (line: string) => void
}

/** Backups of a running manager, one at a time. One that fails is told and tried again at the next turn; it never ends the manager. */
export class BackupSchedule {
  readonly #plan: BackupPlan
  readonly #work: BackupWork
  /** Milliseconds since 1970; undefined before the first look at what is there. */
  #nextAt: number | undefined
  #running: Promise<void> | undefined

  constructor(plan: BackupPlan, work: BackupWork) {
    this.#plan = plan
    this.#work = work
  }

  /** Called now and then; begins a backup when one is due. */
  tick(): void {
    if (this.#running !== undefined) return
    if (this.#nextAt !== undefined && this.#work.now().getTime() < this.#nextAt) return
    this.#running = this.#turn().finally(() => (this.#running = undefined))
  }

  /** Resolves when none is running. */
  async idle(): Promise<void> {
    await this.#running
  }

  async #turn(): Promise<void> {
    const { folder, everyMilliseconds } = this.#plan
    const { make, say } = this.#work
    try {
      if (this.#nextAt === undefined) {
        const newest = await this.#prepare()
        this.#nextAt = newest === undefined ? 0 : newest + everyMilliseconds
        if (this.#work.now().getTime() < this.#nextAt) return
      }
      const now = this.#work.now()
      this.#nextAt = now.getTime() + everyMilliseconds
      const out = join(folder, nameOf(now))
      const { receipts, blobs, bytes } = await make(out, now)
      say(`backup ${out}: ${receipts} receipts, ${blobs} blobs, ${bytes} bytes`)
      await this.#removeOld()
    } catch (error) {
      this.#nextAt = this.#work.now().getTime() + Math.min(everyMilliseconds, retryMilliseconds)
      const words = error instanceof PerunError ? `${error.message} [${error.code}]` : String(error)
      say(`no backup was made in ${folder}: ${words}; it is tried again`)
    }
  }

  /** Makes the folder and clears what a killed manager left; gives the time of the newest backup. */
  async #prepare(): Promise<number | undefined> {
    const { folder } = this.#plan
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      const names = await readdir(folder)
      for (const name of names.filter((name) => unfinished.test(name))) await rm(join(folder, name), { recursive: true, force: true })
      const newest = await newestBackup(folder)
      return newest === undefined ? undefined : timeOf(newest)
    } catch (error) {
      throw fromSystemError(error, folder)
    }
  }

  async #removeOld(): Promise<void> {
    const { folder, keep } = this.#plan
    const names = (await readdir(folder)).filter((name) => finishedBackup.test(name)).toSorted()
    for (const name of names.slice(0, Math.max(0, names.length - keep))) await rm(join(folder, name), { recursive: true, force: true })
  }
}

/** After a failure, e.g. of a disk that is full for a while. */
const retryMilliseconds = 600_000

const unfinished = /^\d{8}T\d{6}Z\.[0-9a-f]{16}\.new$/

/** `20261126T152000Z` */
function nameOf(time: Date): string {
  return time.toISOString().replaceAll(/[-:]|\.\d+/g, "")
}

function timeOf(name: string): number {
  return Date.parse(name.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"))
}
