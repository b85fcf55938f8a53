import { bytesEqual } from "../bytes/compare.ts"
import { cosign, parseCheckpoint, parseWitnessRequest } from "../log/checkpoint.ts"
import { LogError } from "../log/errors.ts"
import { verifyConsistency } from "../log/merkle.ts"
import { encodeSignatureLine, verifyNote } from "../log/note.ts"
import { WitnessError } from "./errors.ts"
import type { WitnessState } from "./state.ts"

/**
 * Judges a request to cosign a checkpoint as C2SP tlog-witness has it (add-checkpoint), writes down that its tree is seen, and only then signs: what was cosigned once can never be
 * contradicted, whatever interrupts it. Gives the cosignature.
 * @throws {WitnessError}; {MalformedError}; {UnavailableError} where the state cannot be written: nothing was signed then
 */
export function addCheckpoint(state: WitnessState, body: string, nowSeconds: number): Cosigned {
  const { oldSize, proof, checkpoint: text } = parseWitnessRequest(body)
  const checkpoint = parseCheckpoint(text)
  const log = state.log(checkpoint.origin)
  if (log === undefined) throw new WitnessError("unknown-log", `this witness follows no log ${checkpoint.origin}`)
  asked("unknown-signer", () => verifyNote(checkpoint.note, log.key))
  if (oldSize > checkpoint.size)
    throw new WitnessError("wrong-order", `the request goes from ${oldSize} entries to ${checkpoint.size}, and a log does not become shorter`)
  state.advance(log.key.name, checkpoint, (seen) => {
    const size = seen?.size ?? 0
    if (oldSize !== size) throw new WitnessError("other-size", `the request goes on from ${oldSize} entries, this witness has seen ${size}`, size)
    if (seen === undefined || seen.size === 0) {
      // From nothing every tree goes on.
      if (proof.length > 0) throw new WitnessError("wrong-consistency", "a proof from an empty tree is empty")
      return
    }
    if (seen.size === checkpoint.size) {
      if (!bytesEqual(seen.root, checkpoint.root))
        throw new WitnessError("other-size", `another tree of ${seen.size} entries was cosigned before: the log has two histories`, seen.size)
      if (proof.length > 0) throw new WitnessError("wrong-consistency", "a proof between equal trees is empty")
      return
    }
    asked("wrong-consistency", () => verifyConsistency(seen, checkpoint, proof))
  })
  const { origin, size, note } = checkpoint
  return { origin, size, line: encodeSignatureLine(cosign(note.text, state.key, state.privateKey, nowSeconds)) }
}

export interface Cosigned {
  readonly origin: string
  /** Leaves of the tree. */
  readonly size: number
  /** The cosignature, as a line of a note. */
  readonly line: string
}

function asked(code: "unknown-signer" | "wrong-consistency", verify: () => void): void {
  try {
    verify()
  } catch (cause) {
    if (!(cause instanceof LogError)) throw cause
    throw new WitnessError(code, cause.message)
  }
}
