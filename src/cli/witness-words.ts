import { type Command, InvalidArgumentError } from "commander"
import { demandWitnessed, type SignedCheckpoint } from "../log/checkpoint.ts"
import { MalformedError } from "../bytes/error.ts"
import { type NoteKey, parseVerifierKey } from "../log/note.ts"
import { parseWitnessSource, type WitnessSource } from "../manager/witnesses.ts"
import { UsageError } from "./exit.ts"

/** `--witness KEY`: the key of a witness, as `perun witness show` prints it. Again for each. */
export function witnessKeyArgument(text: string, before: readonly NoteKey[]): readonly NoteKey[] {
  const key = asArgument(() => parseVerifierKey(text, "witness"))
  if (key.type !== 4) throw new InvalidArgumentError("not the key of a witness (perun witness show)")
  return [...before, key]
}

/** `--witness URL=KEY`: a witness that a manager asks. Again for each. */
export function witnessSourceArgument(text: string, before: readonly WitnessSource[]): readonly WitnessSource[] {
  return [...before, asArgument(() => parseWitnessSource(text))]
}

function asArgument<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error
    throw new InvalidArgumentError(error.message)
  }
}

/** What somebody who reads a log demands of its witnesses. */
export interface WitnessWords {
  readonly witness: readonly NoteKey[]
  readonly witnesses?: number
  readonly witnessAge: number
}

/** A cosignature older than this says little about now. */
const defaultAgeSeconds = 300

export function withWitnessOptions(command: Command): Command {
  return command
    .option(
      "--witness <key>",
      "the log's checkpoint must be cosigned by this witness (perun witness show); again for each",
      witnessKeyArgument,
      [] as readonly NoteKey[],
    )
    .option("--witnesses <number>", "how many of them must have cosigned it (default: all)", (text) => parseNumber(text, 16))
    .option("--witness-age <seconds>", "oldest that a cosignature may be", (text) => parseNumber(text, 31_536_000), defaultAgeSeconds)
}

/**
 * Demands what the words do, if they name witnesses. Gives the names of those who were demanded.
 * @throws {UsageError}; {LogError} `not-witnessed`
 */
export function demandWitnessWords(checkpoint: SignedCheckpoint, { witness, witnesses, witnessAge }: WitnessWords, now: Date): readonly string[] {
  if (witness.length === 0) {
    if (witnesses !== undefined) throw new UsageError("--witnesses goes with --witness KEY")
    return []
  }
  const atLeast = witnesses ?? witness.length
  if (atLeast > witness.length) throw new UsageError(`--witnesses ${atLeast}: only ${witness.length} are named`)
  if (new Set(witness.map(({ publicKey }) => publicKey.join())).size < witness.length) throw new UsageError("a witness is named twice")
  demandWitnessed(checkpoint, { witnesses: witness, atLeast, maxAgeSeconds: witnessAge }, now.getTime() / 1000)
  return witness.map(({ name }) => name)
}

function parseNumber(text: string, max: number): number {
  const number = /^[1-9][0-9]{0,8}$/.test(text) ? Number(text) : 0
  if (number < 1 || number > max) throw new InvalidArgumentError(`expected a number from 1 to ${max}`)
  return number
}
