import { PerunError } from "../bytes/error.ts"

/** Why a witness does not cosign, with the HTTP status that C2SP tlog-witness gives each. The meaning of each code stands here once. */
export const witnessCodes = {
  "unknown-log": "the witness follows no log of this origin",
  "unknown-signer": "the checkpoint is not signed by the log's key",
  "wrong-order": "the older tree that the request names is larger than the checkpoint's",
  "other-size": "the witness has seen another size than the request goes on from: smaller or larger, or the same with another root",
  "wrong-consistency": "the proof does not lead from the tree that the witness has seen to the checkpoint's",
} as const satisfies Record<string, string>

export type WitnessCode = keyof typeof witnessCodes

export class WitnessError extends PerunError<WitnessCode> {
  /** With `other-size`: leaves of the tree that the witness cosigned last. */
  readonly size: number | undefined

  constructor(code: WitnessCode, message: string, size?: number) {
    super(code, message)
    this.size = size
  }
}

export const statusOfWitness: Readonly<Record<WitnessCode, number>> = {
  "unknown-log": 404,
  "unknown-signer": 403,
  "wrong-order": 400,
  "other-size": 409,
  "wrong-consistency": 422,
}

/** Media type of a 409's body, a decimal number and a newline. */
export const sizeMediaType = "text/x.tlog.size"
