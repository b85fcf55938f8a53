import { join } from "node:path"
import * as z from "zod"
import { readFileBounded, writeFileDurably } from "../bytes/durable.ts"
import { MalformedError, UnavailableError } from "../bytes/error.ts"
import { parseJson } from "../bytes/json.ts"
import { noReceipts, type ReceiptHead } from "../protocol/receipts.ts"
import { digestSchema, idSchema, keyTextSchema, timeSchema } from "../protocol/wire.ts"
import { RefusedError } from "./exit.ts"
import { homeFolder } from "./home.ts"

/** Whose list of receipts it is. An instance keeps its key and its list for ever. */
export interface ListOwner {
  /** Identity key of the manager. */
  readonly key: string
  readonly instance: string
}

/** The head of a manager's list as it was seen last: number of receipts and digest of the newest, to which all of them are chained. */
export interface SeenHead extends ReceiptHead {
  readonly at: string
}

const headsSchema = z.strictObject({
  perun: z.literal(1),
  heads: z.array(z.strictObject({ key: keyTextSchema, instance: idSchema, count: z.int().min(1), last: digestSchema, at: timeSchema })).max(1000),
})

type Heads = z.infer<typeof headsSchema>["heads"]

export function auditHeadsFile(): string {
  return join(homeFolder(), "audit-heads.json")
}

/**
 * The head that this home saw last in the list of a manager; `undefined` when it never looked.
 * @throws {RefusedError} when under this key another instance was seen; {MalformedError}
 */
export async function loadSeenHead({ key, instance }: ListOwner): Promise<SeenHead | undefined> {
  const seen = (await loadHeads()).find((head) => head.key === key)
  if (seen === undefined) return undefined
  if (seen.instance !== instance)
    throw new RefusedError(
      `the manager was instance ${seen.instance} on ${seen.at} and is ${instance} now: another list stands in the old one's place (${auditHeadsFile()})`,
    )
  return { count: seen.count, last: seen.last, at: seen.at }
}

/** Remembers a verified head, durably; one that another command has moved on meanwhile stays. */
export async function saveSeenHead({ key, instance }: ListOwner, { count, last }: ReceiptHead, at: string): Promise<void> {
  const heads = await loadHeads()
  if (last === null || count < (heads.find((head) => head.key === key) ?? noReceipts).count) return
  const others = heads.filter((head) => head.key !== key)
  await writeFileDurably(auditHeadsFile(), `${JSON.stringify({ perun: 1, heads: [...others, { key, instance, count, last, at }] }, null, 2)}\n`)
}

async function loadHeads(): Promise<Heads> {
  let bytes: Uint8Array
  try {
    bytes = await readFileBounded(auditHeadsFile(), maxBytes)
  } catch (error) {
    if (error instanceof UnavailableError && error.code === "unavailable") return []
    throw error
  }
  const result = headsSchema.safeParse(parseJson(bytes, { maxBytes }))
  if (result.success) return result.data.heads
  throw new MalformedError("malformed", "not the heads of lists of receipts that perun audit list keeps", { path: auditHeadsFile() })
}

const maxBytes = 1 << 20
