import { digestOfJson, type Digest } from "../bytes/digest.ts"
import { canonicalJsonBytes } from "../bytes/json.ts"
import { parseHex } from "../bytes/text.ts"
import { type SignedCheckpoint, verifyCheckpoint } from "../log/checkpoint.ts"
import { leafHash, verifyInclusion } from "../log/merkle.ts"
import type { NoteKey } from "../log/note.ts"
import { parseSshPublicKey } from "../pki/ssh-key.ts"
import { ProtocolError } from "./errors.ts"
import type { ManagerDescription, ProvenReceipt, Receipt, ShownReceipt } from "./messages.ts"

/**
 * Receipts are the entries of the manager's log. A leaf names the digest of what happened, and no more: what happened is shown to those whom it concerns, the leaves to everybody who may
 * see the log, so that whoever sees a part can still check that nothing was taken out or changed.
 */

/** Digest of what happened; its salt keeps it from being guessed. */
export function receiptDigest(receipt: Receipt): Digest {
  return digestOfJson(receipt)
}

/** The bytes of a leaf of the Merkle tree. */
export function receiptLeaf(index: number, receipt: Digest): Uint8Array {
  return canonicalJsonBytes({ perun: 1, index, receipt })
}

/** The origin line of a manager's log. */
export function logOrigin(instance: string): string {
  return `perun/manager/${instance}`
}

/** The key by which a manager signs its log's checkpoints. @throws {ProtocolError} `wrong-manager` where it is no Ed25519 key */
export function logKeyOf({ instance, logKey }: Pick<ManagerDescription, "instance" | "logKey">): NoteKey {
  const { type, key } = parseSshPublicKey(logKey)
  if (type !== "ssh-ed25519") throw new ProtocolError("wrong-manager", `a log key of type ${type}`, { path: "description.logKey" })
  const publicKey = new Uint8Array(key.export({ format: "der", type: "spki" })).slice(-32)
  return { name: logOrigin(instance), type: 1, publicKey }
}

/** Digest of a shown receipt: of its content where that is shown, and then the one stated is the same. @throws {ProtocolError} `wrong-receipts` */
export function shownDigest(index: number, { digest, receipt }: ShownReceipt): Digest {
  if (receipt !== undefined && receiptDigest(receipt) !== digest)
    throw new ProtocolError("wrong-receipts", `receipt ${index} is not what its leaf names`)
  return digest
}

/**
 * Verifies a receipt with its proof, which needs nothing but the log's key: it stands at its place in a log whose checkpoint the manager has signed.
 * @throws {LogError} `wrong-checkpoint`, `wrong-proof`; {MalformedError}
 */
export function verifyProvenReceipt({ index, receipt, proof, checkpoint }: ProvenReceipt, log: NoteKey): SignedCheckpoint {
  const verified = verifyCheckpoint(checkpoint, log)
  const { size, root } = verified
  const leaf = leafHash(receiptLeaf(index, receiptDigest(receipt)))
  verifyInclusion({ index, size, leaf, proof: proof.map((hash) => parseHex(hash, "proof")), root })
  return verified
}
