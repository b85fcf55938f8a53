import { join } from "node:path"
import * as z from "zod"
import { readFileBounded, writeFileDurably } from "../bytes/durable.ts"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { parseJson } from "../bytes/json.ts"
import type { ManagerConnection } from "../client/connection.ts"
import { followLog, nothingSeen } from "../protocol/follow-log.ts"
import { type SignedCheckpoint, verifyCheckpoint } from "../log/checkpoint.ts"
import { LogError } from "../log/errors.ts"
import { encodeNote, maxNoteBytes } from "../log/note.ts"
import { logKeyOf } from "../protocol/receipts.ts"
import { idSchema, keyTextSchema, timeSchema } from "../protocol/wire.ts"
import { RefusedError } from "./exit.ts"
import { homeFolder } from "./home.ts"

/** Whose log it is. An instance keeps its key and its log for ever. */
type LogOwner = Pick<ManagerConnection["description"], "key" | "logKey" | "instance">

/** The checkpoint of a manager's log that this home saw last, as the manager signed it. */
export interface SeenCheckpoint {
  readonly checkpoint: SignedCheckpoint
  readonly at: string
}

const fileSchema = z.strictObject({
  perun: z.literal(1),
  checkpoints: z
    .array(z.strictObject({ key: keyTextSchema, instance: idSchema, checkpoint: z.string().max(maxNoteBytes), at: timeSchema }))
    .max(1000),
})

type Entries = z.infer<typeof fileSchema>["checkpoints"]

export function checkpointsFile(): string {
  return join(homeFolder(), "checkpoints.json")
}

/**
 * The checkpoint that this home saw last; `undefined` when it never looked.
 * @throws {RefusedError} when under this key another instance was seen; {MalformedError}; {LogError} `wrong-checkpoint` where the file was changed
 */
export async function loadSeen(owner: LogOwner): Promise<SeenCheckpoint | undefined> {
  const seen = (await loadEntries()).find(({ key }) => key === owner.key)
  if (seen === undefined) return undefined
  if (seen.instance !== owner.instance)
    throw new RefusedError(
      `the manager was instance ${seen.instance} on ${seen.at} and is ${owner.instance} now: another log stands in the old one's place (${checkpointsFile()})`,
    )
  return { checkpoint: verifyCheckpoint(seen.checkpoint, logKeyOf(owner)), at: seen.at }
}

/**
 * Holds a manager's log against what this home saw of it before, and remembers it, durably. One that another command has moved on meanwhile stays.
 * @throws {LogError} `older-tree`, `forked`, `wrong-checkpoint`, with where the older checkpoint is kept
 */
export async function followOwnLog(
  connection: ManagerConnection,
): Promise<{ readonly head: SignedCheckpoint; readonly seen: SeenCheckpoint | undefined }> {
  const { description } = connection
  const seen = await loadSeen(description)
  const head = await followLog(connection, seen?.checkpoint ?? nothingSeen).catch((cause: unknown) => {
    if (!(cause instanceof LogError) || seen === undefined) throw cause
    throw new LogError(cause.code, `${cause.message} (seen on ${seen.at}; the manager's signature over that is in ${checkpointsFile()}: keep it)`, {
      cause,
    })
  })
  await save(description, head)
  return { head, seen }
}

async function save({ key, instance }: LogOwner, { size, note }: SignedCheckpoint): Promise<void> {
  const entries = await loadEntries()
  const before = entries.find((entry) => entry.key === key)
  const text = encodeNote(note)
  if (before !== undefined && (before.checkpoint === text || sizeIn(before.checkpoint) > size)) return
  const others = entries.filter((entry) => entry.key !== key)
  const file = { perun: 1, checkpoints: [...others, { key, instance, checkpoint: text, at: new Date().toISOString() }] }
  await writeFileDurably(checkpointsFile(), `${JSON.stringify(file, null, 2)}\n`)
}

function sizeIn(checkpoint: string): number {
  return Number(checkpoint.split("\n")[1])
}

async function loadEntries(): Promise<Entries> {
  let bytes: Uint8Array
  try {
    bytes = await readFileBounded(checkpointsFile(), maxBytes)
  } catch (error) {
    if (error instanceof UnavailableError && error.code === "unavailable") return []
    throw error
  }
  const result = fileSchema.safeParse(parseJson(bytes, { maxBytes }))
  if (result.success) return result.data.checkpoints
  throw new MalformedError("malformed", "not the checkpoints of managers' logs that Perun keeps", { path: checkpointsFile() })
}

const maxBytes = 1 << 24
