import { createHash, randomBytes } from "node:crypto"
import { createReadStream } from "node:fs"
import { mkdir, open, readdir, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import { z } from "zod"
import { AlreadyExistsError, createFileDurably, fromSystemError, readFileBounded, syncFolder } from "../bytes/durable.ts"
import { MalformedError } from "../bytes/error.ts"
import { encodeHex } from "../bytes/text.ts"
import { ProtocolError } from "../protocol/errors.ts"
import { parseMessage } from "../protocol/wire.ts"
import { BlobFolder } from "./blobs.ts"
import { folderPart, managerCollateralFolder, membersPath } from "./folder.ts"
import type { SqliteJournal } from "./sqlite-journal.ts"

/**
 * A manager's folder at one moment, in a folder of its own: the database as one transaction left it, the ciphertext that it speaks of, and the files beside it, with a list of all of them and
 * their digests. It opens nothing and holds what the folder holds: a vault key that lies in a file lies in the backup too.
 */

const manifestName = "backup.json"
const maxManifestBytes = 1 << 28

/** Files that a manager's folder may have, and nothing that leads elsewhere. */
const filePath = z.string().regex(/^(?:manager\.db|manager\.json|vault\.json|members|collateral\/[A-Za-z0-9_-][A-Za-z0-9._-]*|blobs\/[0-9a-f]{64})$/)

const manifestSchema = z.strictObject({
  perun: z.literal(1),
  kind: z.literal("manager-backup"),
  /** When the database was copied. */
  at: z.iso.datetime(),
  /** Entries of the log, as the database counts them. */
  receipts: z.int().min(0),
  files: z.array(z.strictObject({ path: filePath, bytes: z.int().min(0), sha256: z.string().regex(/^[0-9a-f]{64}$/) })),
})

type BackupFile = z.output<typeof manifestSchema>["files"][number]

export interface BackupSummary {
  /** UTC. */
  readonly at: string
  /** Entries of the manager's log. */
  readonly receipts: number
  readonly blobs: number
  readonly bytes: number
}

/**
 * Makes a backup of a folder into one that must not exist: all of it or nothing. `journal` is the folder's own, open; its manager may go on meanwhile, for ciphertext is there before a row
 * speaks of it, and is never changed.
 * @throws {AlreadyExistsError}; {UnavailableError} `disk-full`, `permission-denied`; {ProtocolError} `wrong-digest` for ciphertext that the disk has changed
 */
export async function makeBackup(folder: string, out: string, journal: SqliteJournal, now: Date): Promise<BackupSummary> {
  return whole(out, async (building) => {
    const files: BackupFile[] = []
    const receipts = await journal.copyTo(join(building, "manager.db"))
    files.push({ path: "manager.db", ...(await measured(join(building, "manager.db"))) })
    for (const [path, from] of await sourcesOf(folder)) {
      const copied = await copy(from, join(building, path))
      if (path.startsWith("blobs/") && path !== `blobs/${copied.sha256}`)
        throw new ProtocolError("wrong-digest", `the blob on disk is ${copied.sha256}: the disk changed it; put it back from an older backup`, {
          path: from,
        })
      files.push({ path, ...copied })
    }
    const manifest = { perun: 1, kind: "manager-backup", at: now.toISOString(), receipts, files } as const
    await createFileDurably(join(building, manifestName), `${JSON.stringify(manifest)}\n`)
    return summaryOf(manifest)
  })
}

/**
 * Makes a manager's folder, which must not exist, out of a backup whose every file is as it was written.
 * @throws {MalformedError} no backup, or `corrupt` naming the file that is not as it was written; {AlreadyExistsError}; {UnavailableError}
 */
export async function restoreBackup(backup: string, folder: string): Promise<BackupSummary> {
  const manifest = await readManifest(backup)
  return whole(folder, async (building) => {
    await BlobFolder.create(folderPart(building, "blobs"))
    for (const { path, bytes, sha256 } of manifest.files) {
      const found = await copy(join(backup, path), join(building, path))
      if (found.sha256 !== sha256 || found.bytes !== bytes)
        throw new MalformedError("malformed", "not as the backup was written", { path: join(backup, path) })
    }
    return summaryOf(manifest)
  })
}

/** What a backup says of itself. @throws {MalformedError}; {UnavailableError} */
export async function describeBackup(backup: string): Promise<BackupSummary> {
  return summaryOf(await readManifest(backup))
}

/**
 * Holds every file of a backup against its list.
 * @throws {MalformedError} naming the file that is not as it was written; {UnavailableError}
 */
export async function checkBackup(backup: string): Promise<BackupSummary> {
  const manifest = await readManifest(backup)
  for (const { path, bytes, sha256 } of manifest.files) {
    const found = await hashed(join(backup, path)).catch((error: unknown) => {
      throw fromSystemError(error, join(backup, path))
    })
    if (found.sha256 !== sha256 || found.bytes !== bytes)
      throw new MalformedError("malformed", "not as the backup was written", { path: join(backup, path) })
  }
  return summaryOf(manifest)
}

/** Name of the newest backup that `manager serve --backups` finished in a folder. @throws {UnavailableError} */
export async function newestBackup(folder: string): Promise<string | undefined> {
  try {
    return (await readdir(folder))
      .filter((name) => finishedBackup.test(name))
      .toSorted()
      .at(-1)
  } catch (error) {
    throw fromSystemError(error, folder)
  }
}

/** `20261126T152000Z` */
export const finishedBackup = /^\d{8}T\d{6}Z$/

async function readManifest(backup: string): Promise<z.output<typeof manifestSchema>> {
  const manifest = parseMessage(manifestSchema, await readFileBounded(join(backup, manifestName), maxManifestBytes), maxManifestBytes)
  const paths = new Set(manifest.files.map(({ path }) => path))
  const missing = ["manager.db", "manager.json", "vault.json"].filter((path) => !paths.has(path))
  if (missing.length > 0 || paths.size !== manifest.files.length)
    throw new MalformedError("malformed", missing.length > 0 ? `lacks ${missing.join(", ")}` : "names a file twice", {
      path: join(backup, manifestName),
    })
  return manifest
}

function summaryOf({ at, receipts, files }: z.output<typeof manifestSchema>): BackupSummary {
  return {
    at,
    receipts,
    blobs: files.filter(({ path }) => path.startsWith("blobs/")).length,
    bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
  }
}

/** Path in the backup and where each file comes from, the database left out. */
async function sourcesOf(folder: string): Promise<readonly (readonly [string, string])[]> {
  const listed = async (part: string, path: string, rule: RegExp): Promise<readonly (readonly [string, string])[]> =>
    (await namesIn(path)).filter((name) => rule.test(name)).map((name) => [`${part}/${name}`, join(path, name)] as const)
  return [
    ["manager.json", folderPart(folder, "configuration")],
    ["vault.json", folderPart(folder, "vault")],
    ["members", membersPath(folder)],
    ...(await listed("collateral", managerCollateralFolder(folder), /^[A-Za-z0-9_-][A-Za-z0-9._-]*\.json$/)),
    ...(await listed("blobs", folderPart(folder, "blobs"), /^[0-9a-f]{64}$/)),
  ]
}

/** Empty for a folder that is not there. */
async function namesIn(path: string): Promise<readonly string[]> {
  try {
    return (await readdir(path)).toSorted()
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return []
    throw fromSystemError(error, path)
  }
}

/** Builds a folder beside its place and moves it there when it is whole and on the disk. */
async function whole<T>(folder: string, build: (building: string) => Promise<T>): Promise<T> {
  const building = `${folder}.${encodeHex(new Uint8Array(randomBytes(8)))}.new`
  try {
    if ((await namesIn(folder)).length > 0)
      throw new AlreadyExistsError("already-exists", "there is something already; nothing was changed", { path: folder })
    await mkdir(building, { recursive: true, mode: 0o700 })
    const result = await build(building)
    await syncFolder(building)
    await rename(building, folder)
    await syncFolder(dirname(folder))
    return result
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOTEMPTY" || error.code === "EEXIST" || error.code === "ENOTDIR"))
      throw new AlreadyExistsError("already-exists", "there is something already; nothing was changed", { path: folder, cause: error })
    throw fromSystemError(error, folder)
  } finally {
    await rm(building, { recursive: true, force: true })
  }
}

/** Copies a file that must not be there yet, durably, for the owner alone. */
async function copy(from: string, to: string): Promise<Pick<BackupFile, "bytes" | "sha256">> {
  await mkdir(dirname(to), { recursive: true, mode: 0o700 })
  const hash = createHash("sha256")
  let bytes = 0
  try {
    const file = await open(to, "wx", 0o600)
    try {
      for await (const chunk of createReadStream(from, { highWaterMark: 1 << 20 })) {
        const part = chunk as Uint8Array
        hash.update(part)
        bytes += part.length
        await file.writeFile(part)
      }
      await file.sync()
    } finally {
      await file.close()
    }
  } catch (error) {
    throw fromSystemError(error, from)
  }
  return { bytes, sha256: encodeHex(new Uint8Array(hash.digest())) }
}

async function hashed(path: string): Promise<Pick<BackupFile, "bytes" | "sha256">> {
  const hash = createHash("sha256")
  let bytes = 0
  for await (const chunk of createReadStream(path)) {
    hash.update(chunk as Uint8Array)
    bytes += (chunk as Uint8Array).length
  }
  return { bytes, sha256: hash.digest("hex") }
}

async function measured(path: string): Promise<Pick<BackupFile, "bytes" | "sha256">> {
  const found = await hashed(path)
  const file = await open(path, "r+")
  try {
    await file.sync()
  } finally {
    await file.close()
  }
  return found
}
