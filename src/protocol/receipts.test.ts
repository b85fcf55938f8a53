import assert from "node:assert/strict"
import { generateKeyPairSync, type KeyObject } from "node:crypto"
import { test } from "node:test"
import { sshPublicKeyText } from "../pki/ssh-key.ts"
import type { Receipt, ReceiptLink, ShownReceipt } from "./messages.ts"
import { linkDigest, noReceipts, receiptDigest, signReceipt, verifyReceipts } from "./receipts.ts"

const { privateKey } = generateKeyPairSync("ed25519")
const other = generateKeyPairSync("ed25519").privateKey
const manager = "0".repeat(32)
const expected = { logKey: sshPublicKeyText(privateKey), manager }

/** A list as a manager signs it, with one link changed before it is signed: what only the manager itself could do. */
function listOf(length: number, change: (link: ReceiptLink) => Partial<ReceiptLink> = () => ({}), key: KeyObject = privateKey): ShownReceipt[] {
  const list: ShownReceipt[] = []
  for (let index = 0; index < length; index++) {
    const receipt: Receipt = { salt: String(index).padStart(32, "0"), at: "2026-11-22T12:00:00Z", kind: "run-queued" }
    const before = list.at(-1)
    const previous = before === undefined ? null : linkDigest(before.link)
    const link: ReceiptLink = { perun: 1, index, previous, manager, receipt: receiptDigest(receipt) }
    list.push(signReceipt({ ...link, ...change(link) }, receipt, key))
  }
  return list
}

function withHoles(list: readonly ShownReceipt[]): ShownReceipt[] {
  return list.map(({ link, signature }) => ({ link, signature }))
}

test("verifyReceipts() gives the same head whatever of the list is shown, and goes on from it", () => {
  const list = listOf(4)
  const head = verifyReceipts(list, expected, noReceipts)
  assert.equal(head.count, 4)
  assert.deepEqual(verifyReceipts(withHoles(list), expected, noReceipts), head)
  const half = verifyReceipts(withHoles(list.slice(0, 2)), expected, noReceipts)
  assert.deepEqual(verifyReceipts(list.slice(2), expected, half), head)
})

test("verifyReceipts() refuses what the manager signed, but does not fit: also where nothing of it is shown", () => {
  const elsewhere = receiptDigest({ salt: "f".repeat(32), at: "2026-11-22T12:00:00Z", kind: "run-queued" })
  const spoiled: Readonly<Record<string, ShownReceipt[]>> = {
    "a link that names another before it": listOf(3, ({ index }) => (index === 2 ? { previous: elsewhere } : {})),
    "a second beginning": listOf(3, ({ index }) => (index === 1 ? { previous: null } : {})),
    "a number left out": listOf(3, ({ index }) => (index === 2 ? { index: 3 } : {})),
    "another manager's": listOf(3, ({ index }) => (index === 1 ? { manager: "1".repeat(32) } : {})),
    "another key": listOf(3, () => ({}), other),
    "one cut out": listOf(3).toSpliced(1, 1),
  }
  for (const [what, list] of Object.entries(spoiled))
    for (const shown of [list, withHoles(list)]) assert.throws(() => verifyReceipts(shown, expected, noReceipts), { code: "wrong-receipts" }, what)
})

test("verifyReceipts() refuses a content that its link does not name, and a signature of another link", () => {
  const [first, second] = listOf(2)
  assert.ok(first?.receipt && second?.receipt)
  const spoiled = [
    [{ ...first, receipt: { ...first.receipt, salt: "e".repeat(32) } }],
    [{ ...first, receipt: second.receipt }],
    [{ ...first, signature: second.signature }],
  ]
  for (const list of spoiled) assert.throws(() => verifyReceipts(list, expected, noReceipts), { code: "wrong-receipts" })
})
