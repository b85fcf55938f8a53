import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { encodeHex } from "../bytes/text.ts"
import { signCheckpoint } from "../log/checkpoint.ts"
import { CompactRange, inclusionProof, leafHash, nodeHash } from "../log/merkle.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import type { ProvenReceipt, Receipt } from "./messages.ts"
import { logKeyOf, logOrigin, receiptDigest, receiptLeaf, shownDigest, verifyProvenReceipt } from "./receipts.ts"

const { privateKey } = generateKeyPairSync("ed25519")
const instance = "0".repeat(32)
const log = logKeyOf({ instance, logKey: sshPublicKeyText(privateKey) })
const receipts: readonly Receipt[] = Array.from({ length: 5 }, (_, index) => ({
  salt: String(index).padStart(32, "0"),
  at: "2026-11-22T12:00:00Z",
  kind: "run-queued",
}))

const leaves = receipts.map((receipt, index) => leafHash(receiptLeaf(index, receiptDigest(receipt))))
const range = CompactRange.empty()
for (const leaf of leaves) range.append(leaf)
const head = { origin: logOrigin(instance), size: range.size, root: range.root() }

function subtree(height: number, index: number): Uint8Array {
  if (height === 0) return leaves[index] ?? new Uint8Array()
  return nodeHash(subtree(height - 1, 2 * index), subtree(height - 1, 2 * index + 1))
}

function proven(index: number, change: Partial<ProvenReceipt> = {}): ProvenReceipt {
  const [receipt] = receipts.slice(index, index + 1)
  assert.ok(receipt)
  const proof = inclusionProof(index, range.size, subtree).map(encodeHex)
  return { perun: 1, index, receipt, proof, checkpoint: signCheckpoint(head, privateKey, log.publicKey), ...change }
}

test("verifyProvenReceipt() takes each receipt of the log at its place", () => {
  for (const index of receipts.keys()) assert.equal(verifyProvenReceipt(proven(index), log).size, 5)
})

test("verifyProvenReceipt() refuses another receipt, place, proof, log or signer", () => {
  const other = generateKeyPairSync("ed25519").privateKey
  const otherKey = logKeyOf({ instance, logKey: sshPublicKeyText(other) })
  const [first] = receipts
  assert.ok(first)
  for (const [what, changed, code] of [
    ["another receipt", proven(1, { receipt: first }), "wrong-proof"],
    ["another salt", proven(1, { receipt: { ...first, salt: "e".repeat(32) } }), "wrong-proof"],
    ["another place", proven(1, { index: 2 }), "wrong-proof"],
    ["a place behind the end", proven(1, { index: 5 }), "wrong-proof"],
    ["another proof", proven(1, { proof: proven(2).proof }), "wrong-proof"],
    [
      "another log's checkpoint",
      proven(1, { checkpoint: signCheckpoint({ ...head, origin: logOrigin("1".repeat(32)) }, privateKey, log.publicKey) }),
      "wrong-checkpoint",
    ],
    ["another signer", proven(1, { checkpoint: signCheckpoint(head, other, otherKey.publicKey) }), "wrong-checkpoint"],
    [
      "another tree",
      proven(1, { checkpoint: signCheckpoint({ ...head, root: leafHash(Uint8Array.of(1)) }, privateKey, log.publicKey) }),
      "wrong-proof",
    ],
    ["another size", proven(1, { checkpoint: signCheckpoint({ ...head, size: 9 }, privateKey, log.publicKey) }), "wrong-proof"],
  ] as const)
    assert.throws(() => verifyProvenReceipt(changed, log), { code }, what)
})

test("shownDigest() refuses a content that its leaf does not name", () => {
  const [first, second] = receipts
  assert.ok(first && second)
  const digest = receiptDigest(first)
  assert.equal(shownDigest(0, { digest, receipt: first }), digest)
  assert.equal(shownDigest(0, { digest }), digest)
  assert.throws(() => shownDigest(0, { digest, receipt: second }), { code: "wrong-receipts" })
})

test("logKeyOf() takes an Ed25519 key alone", () => {
  const logKey =
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU="
  assert.throws(() => logKeyOf({ instance, logKey }), { code: "wrong-manager" })
})
