import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { test } from "node:test"
import { encodeUtf8, parseUtf8 } from "../bytes/text.ts"
import { signCheckpoint, type SignedCheckpoint, verifyCheckpoint } from "../log/checkpoint.ts"
import { CompactRange, leafHash } from "../log/merkle.ts"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import { encodeAuditExport, exportPrefix, verifyAuditExport } from "./audit-export.ts"
import type { Receipt, ShownReceipt } from "./messages.ts"
import { logKeyOf, logOrigin, receiptDigest, receiptLeaf } from "./receipts.ts"

const instance = "0".repeat(32)
const { privateKey } = generateKeyPairSync("ed25519")
const log = logKeyOf({ instance, logKey: sshPublicKeyText(privateKey) })

const receipts: readonly ShownReceipt[] = Array.from({ length: 9 }, (_, n) => {
  const receipt: Receipt = { salt: String(n).repeat(32), at: "2026-11-27T12:00:00.000Z", kind: "policy-signed", by: "clinic" }
  const digest = receiptDigest(receipt)
  // Every third one concerns somebody else.
  return n % 3 === 2 ? { digest } : { digest, receipt }
})

function headOf(count: number, shown = receipts): SignedCheckpoint {
  const range = CompactRange.empty()
  for (const { digest } of shown.slice(0, count)) range.append(leafHash(receiptLeaf(range.size, digest)))
  const text = signCheckpoint({ origin: logOrigin(instance), size: range.size, root: range.root() }, privateKey, log.publicKey)
  return verifyCheckpoint(encodeUtf8(text), log)
}

const made = new Date("2026-11-27T13:00:00Z")
const file = encodeAuditExport({ head: headOf(9), receipts }, made)
const lines = parseUtf8(file, "export").trimEnd().split("\n")
const fileOf = (changed: readonly string[]): Uint8Array => encodeUtf8(changed.map((line) => `${line}\n`).join(""))

test("an export is verified by the log's key alone, and gives what was put in", () => {
  assert.ok(parseUtf8(file, "export").startsWith(exportPrefix))
  const { head, receipts: found } = verifyAuditExport(file, log)
  assert.equal(head.size, 9)
  assert.deepEqual(found, receipts)
  const none = encodeAuditExport({ head: headOf(0), receipts: [] }, made)
  assert.equal(verifyAuditExport(none, log).receipts.length, 0)
})

test("a line that is changed, left out, doubled, swapped or added is refused", () => {
  const [header = "", ...rest] = lines
  for (let n = 0; n < rest.length; n++) {
    const at = (change: (line: string) => readonly string[]): Uint8Array =>
      fileOf([header, ...rest.flatMap((line, place) => (place === n ? change(line) : [line]))])
    const refused = { code: "wrong-receipts" }
    assert.throws(
      () =>
        verifyAuditExport(
          at(() => []),
          log,
        ),
      refused,
    )
    assert.throws(
      () =>
        verifyAuditExport(
          at((line) => [line, line]),
          log,
        ),
      refused,
    )
    assert.throws(
      () =>
        verifyAuditExport(
          at((line) => [line.replace(/"digest":"sha256:./, '"digest":"sha256:g')]),
          log,
        ),
      { code: "malformed" },
    )
    assert.throws(
      () =>
        verifyAuditExport(
          at((line) => [line.replace(/"digest":"sha256:(.)/, (_, hex) => `"digest":"sha256:${hex === "0" ? 1 : 0}`)]),
          log,
        ),
      refused,
    )
    if (rest[n]?.includes("receipt") === true)
      assert.throws(
        () =>
          verifyAuditExport(
            at((line) => [line.replace("clinic", "vendor")]),
            log,
          ),
        refused,
      )
  }
  assert.throws(() => verifyAuditExport(fileOf([header, ...rest.toReversed()]), log), { code: "wrong-receipts" })
})

test("a log of 300,000 receipts is exported and verified", () => {
  const [first] = receipts
  assert.ok(first)
  const many = Array.from({ length: 300_000 }, () => ({ digest: first.digest }))
  const large = encodeAuditExport({ head: headOf(many.length, many), receipts: many }, made)
  assert.equal(verifyAuditExport(large, log).receipts.length, many.length)
})

test("another manager's log, another signer and a file that is no export are refused", () => {
  const other = generateKeyPairSync("ed25519").privateKey
  assert.throws(() => verifyAuditExport(file, logKeyOf({ instance, logKey: sshPublicKeyText(other) })), { code: "wrong-checkpoint" })
  assert.throws(() => verifyAuditExport(file, logKeyOf({ instance: "1".repeat(32), logKey: sshPublicKeyText(privateKey) })), {
    code: "wrong-checkpoint",
  })
  assert.throws(() => verifyAuditExport(new Uint8Array(0), log), { code: "truncated" })
  assert.throws(() => verifyAuditExport(fileOf([(lines[0] ?? "").replace("audit-export", "other"), ...lines.slice(1)]), log), { code: "malformed" })
  for (const at of [1, 10, 200, file.length - 1])
    assert.throws(() => verifyAuditExport(file.subarray(0, file.length - at), log), { code: /^(?:truncated|wrong-receipts)$/ })
})

test("an export must go on from what was seen before", () => {
  for (let size = 0; size <= 9; size++) assert.equal(verifyAuditExport(file, log, headOf(size)).head.size, 9)
  const longer = [...receipts, ...receipts]
  assert.throws(() => verifyAuditExport(file, log, headOf(10, longer)), { code: "older-tree" })
  const others = receipts.toReversed()
  for (const size of [1, 4, 8, 9]) assert.throws(() => verifyAuditExport(file, log, headOf(size, others)), { code: "forked" })
})
