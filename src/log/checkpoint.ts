import type { KeyObject } from "node:crypto"
import { concatBytes } from "../bytes/compare.ts"
import { MalformedError } from "../bytes/error.ts"
import { ByteReader } from "../bytes/reader.ts"
import { encodeBase64, encodeUtf8, parseBase64 } from "../bytes/text.ts"
import { ByteWriter } from "../bytes/writer.ts"
import { signBytes } from "../pki/signatures.ts"
import { LogError } from "./errors.ts"
import { hashBytes, type TreeHead } from "./merkle.ts"
import {
  encodeNote,
  type Note,
  type NoteKey,
  noteKeyId,
  type NoteSignature,
  parseNote,
  signaturesOf,
  signNote,
  verifyBy,
  verifyNote,
} from "./note.ts"

/** Checkpoints (C2SP tlog-checkpoint): a note that says of a log how many leaves it has and what its root is; and cosignatures of witnesses on it (tlog-cosignature, Ed25519). */

export interface Checkpoint extends TreeHead {
  /** Which log it is of. */
  readonly origin: string
}

/** A checkpoint that its log has signed, with the note that says so. */
export interface SignedCheckpoint extends Checkpoint {
  readonly note: Note
}

/** The signed text. Logs of ours add no extension lines. */
export function checkpointText({ origin, size, root }: Checkpoint): string {
  return `${origin}\n${size}\n${encodeBase64(root)}\n`
}

/** A checkpoint by the log's own key, whose name is the origin. */
export function signCheckpoint(checkpoint: Checkpoint, privateKey: KeyObject, publicKey: Uint8Array): string {
  const text = checkpointText(checkpoint)
  return encodeNote({ text, signatures: [signNote(text, checkpoint.origin, privateKey, publicKey)] })
}

/** What a note says as a checkpoint; nothing is verified. @throws {MalformedError} */
export function parseCheckpoint(input: string | Uint8Array): SignedCheckpoint {
  const note = parseNote(input)
  const [origin = "", size = "", root = "", ...extensions] = note.text.split("\n").slice(0, -1)
  const malformed = (message: string): MalformedError => new MalformedError("malformed", message, { path: "checkpoint" })
  if (origin === "" || extensions.includes("")) throw malformed("a line is empty")
  const count = /^(?:0|[1-9][0-9]{0,15})$/.test(size) ? Number(size) : Number.NaN
  if (!(count <= 2 ** 52)) throw malformed("the second line is no number of leaves")
  const bytes = parseBase64(root, "checkpoint")
  if (bytes.length !== hashBytes) throw malformed("the third line is no root hash")
  return { origin, size: count, root: bytes, note }
}

/** A checkpoint of this log, signed by its key. @throws {MalformedError}; {LogError} `wrong-checkpoint` */
export function verifyCheckpoint(input: string | Uint8Array, log: NoteKey): SignedCheckpoint {
  const checkpoint = parseCheckpoint(input)
  if (checkpoint.origin !== log.name)
    throw new LogError("wrong-checkpoint", `found a checkpoint of ${checkpoint.origin}, expected one of ${log.name}`)
  verifyNote(checkpoint.note, log)
  return checkpoint
}

// --- witnesses ------------------------------------------------------------------------------------------------------------------------------------

/** A witness's signature that, at this time (seconds since 1970), this was the largest tree of the log that it had seen, and that it goes on from all it had seen before. */
export function cosign(text: string, witness: Omit<NoteKey, "type">, privateKey: KeyObject, seconds: number): NoteSignature {
  const signature = signBytes("ed25519", privateKey, cosignedMessage(text, seconds))
  return {
    name: witness.name,
    keyId: noteKeyId({ ...witness, type: 4 }),
    signature: concatBytes(new ByteWriter().u64be(BigInt(seconds)).take(), signature),
  }
}

/**
 * Times (seconds since 1970) at which a witness cosigned this note, latest last; empty where it did not.
 * @throws {LogError} `wrong-checkpoint` for a signature that says it is this witness's and is not; {MalformedError}
 */
export function cosignedAt({ text, signatures }: Note, witness: NoteKey): readonly number[] {
  if (witness.type !== 4) throw new TypeError("the key is not that of a witness")
  const times = signaturesOf(signatures, witness).map(({ signature }) => {
    const reader = new ByteReader("cosignature", signature)
    const time = reader.u64be("timestamp")
    const value = reader.bytes(64, "signature")
    reader.finish()
    if (time > BigInt(latestSeconds)) throw new LogError("wrong-checkpoint", `the cosignature of ${witness.name} is of no time`)
    verifyBy(witness, cosignedMessage(text, Number(time)), value)
    return Number(time)
  })
  return times.toSorted((a, b) => a - b)
}

function cosignedMessage(text: string, seconds: number): Uint8Array {
  return encodeUtf8(`cosignature/v1\ntime ${seconds}\n${text}`)
}

/** The end of the year 9999. */
const latestSeconds = 253_402_300_799

/** What somebody demands of a log's witnesses. */
export interface WitnessDemand {
  /** Each of another operator. */
  readonly witnesses: readonly NoteKey[]
  /** How many of them must have cosigned. */
  readonly atLeast: number
  readonly maxAgeSeconds: number
}

/**
 * Demands that enough witnesses have cosigned a checkpoint lately. A witness counts once, by its latest cosignature; a cosignature from more than a minute ahead does not count.
 * @throws {LogError} `not-witnessed`
 */
export function demandWitnessed({ note }: Pick<SignedCheckpoint, "note">, demand: WitnessDemand, nowSeconds: number): void {
  const keys = new Set(demand.witnesses.map(({ publicKey }) => encodeBase64(publicKey)))
  if (keys.size !== demand.witnesses.length) throw new TypeError("a witness is named twice")
  const fresh = demand.witnesses.filter((witness) => {
    const latest = cosignedAt(note, witness).at(-1)
    return latest !== undefined && latest <= nowSeconds + clockSkewSeconds && nowSeconds - latest <= demand.maxAgeSeconds
  })
  if (fresh.length < demand.atLeast)
    throw new LogError(
      "not-witnessed",
      `${fresh.length} of ${demand.witnesses.length} witnesses have cosigned it in the last ${demand.maxAgeSeconds} s, ${demand.atLeast} are demanded`,
    )
}

const clockSkewSeconds = 60

// --- what a witness is asked (C2SP tlog-witness, add-checkpoint) ------------------------------------------------------------------------------------

export interface WitnessRequest {
  /** Size of the tree that the witness cosigned last. */
  readonly oldSize: number
  readonly proof: readonly Uint8Array[]
  /** The checkpoint, as text. */
  readonly checkpoint: string
}

/** As the specification has it. */
const maxProofLines = 63

export function encodeWitnessRequest({ oldSize, proof, checkpoint }: WitnessRequest): string {
  return `old ${oldSize}\n${proof.map((hash) => `${encodeBase64(hash)}\n`).join("")}\n${checkpoint}`
}

/** @throws {MalformedError} */
export function parseWitnessRequest(text: string): WitnessRequest {
  const malformed = (message: string): MalformedError => new MalformedError("malformed", message, { path: "request" })
  const split = text.indexOf("\n\n")
  if (split < 0) throw malformed("no empty line before the checkpoint")
  const [first = "", ...lines] = text.substring(0, split).split("\n")
  const [, size] = /^old (0|[1-9][0-9]{0,15})$/.exec(first) ?? []
  if (size === undefined || Number(size) > 2 ** 52) throw malformed("the first line is not the size of an older tree")
  if (lines.length > maxProofLines) throw malformed(`a proof of ${lines.length} hashes`)
  const proof = lines.map((line) => parseBase64(line, "request"))
  if (proof.some((hash) => hash.length !== hashBytes)) throw malformed("a line is no hash")
  return { oldSize: Number(size), proof, checkpoint: text.substring(split + 2) }
}
