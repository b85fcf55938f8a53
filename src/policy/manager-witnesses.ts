import { z } from "zod"
import { MalformedError } from "../bytes/error.ts"
import { encodeBase64 } from "../bytes/text.ts"
import type { WitnessDemand } from "../log/checkpoint.ts"
import { parseVerifierKey } from "../log/note.ts"

/** Who must have seen a manager's log before it gives anything out: witnesses (C2SP tlog-witness), each of which cosigns one history only. */
export interface ManagerWitnesses {
  /** Keys of witnesses, `name+id+base64`, as `perun witness show` prints them. */
  readonly keys: readonly string[]
  /** How many of them must have cosigned. */
  readonly atLeast: number
  /** Oldest that a cosignature may be. */
  readonly maxAgeSeconds: number
}

const key = z.string().max(512).refine(isWitnessKey, { error: "expected the key of a witness, name+id+base64 (perun witness show)" })

/** More witnesses nobody waits for. */
const maxWitnesses = 16

export const managerWitnessesSchema: z.ZodType<ManagerWitnesses> = z
  .strictObject({
    keys: z.array(key).min(1).max(maxWitnesses),
    atLeast: z.int().min(1).max(maxWitnesses),
    maxAgeSeconds: z.int().min(5).max(86_400),
  })
  .refine(({ keys, atLeast }) => atLeast <= keys.length, { error: "more witnesses are demanded than are named", path: ["atLeast"] })
  .refine(({ keys }) => areDistinct(keys), { error: "a witness stands twice, under one name or two", path: ["keys"] })

function isWitnessKey(text: string): boolean {
  try {
    return parseVerifierKey(text).type === 4
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error
    return false
  }
}

/** One key under two names would count twice. */
function areDistinct(keys: readonly string[]): boolean {
  return !keys.every(isWitnessKey) || new Set(keys.map((text) => encodeBase64(parseVerifierKey(text).publicKey))).size === keys.length
}

/** A policy's demand with its keys read. */
export function witnessDemandOf({ keys, ...counts }: ManagerWitnesses): WitnessDemand {
  return { witnesses: keys.map((text) => parseVerifierKey(text)), ...counts }
}

/** Who sees the log, in one line for people. */
export function witnessesWords(witnesses: ManagerWitnesses | undefined): string {
  if (witnesses === undefined) return "nobody outside has to: a manager that was set back is found by those who remember more of it, not by machines"
  const { keys, atLeast, maxAgeSeconds } = witnesses
  const names = keys.map((text) => parseVerifierKey(text).name).join(", ")
  return `${atLeast} of ${names} must have cosigned it, each release too, at most ${maxAgeSeconds} s ago: a manager that was set back, or runs twice, gives nothing out`
}
