import assert from "node:assert/strict"
import { test } from "node:test"
import { concatBytes } from "../../bytes/compare.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../bytes/text.ts"
import { hash } from "../../pki/signatures.ts"
import { testParserLaws } from "../testing/parser-laws.ts"
import { bootRegisters, goodBoot, makeLog, quotedBy } from "./log-builder.testing.ts"
import { certifiedText, parseUserspaceLog } from "./userspace.ts"
import { verifyEventLog } from "./verify.ts"

interface Input {
  readonly pcr?: number
  readonly text?: string
  readonly hashed?: string
  readonly bank?: "sha1" | "sha256"
}

function record({ pcr = 11, text = "enter-initrd", hashed = text, bank = "sha256" }: Input): Uint8Array {
  const digests = [{ hashAlg: bank, digest: encodeHex(hash(bank, encodeUtf8(hashed))) }]
  const content = { eventType: "phase", string: text, bootId: "b0", timestamp: 1 }
  return encodeUtf8(`\u001e${JSON.stringify({ pcr, digests, content_type: "systemd", content })}\n`)
}

const log = concatBytes(record({}), record({ text: "leave-initrd" }))

testParserLaws({
  name: "parseUserspaceLog",
  parse: parseUserspaceLog,
  samples: [log],
  wholePrefixes: () => [0, record({}).length],
  fuzzRuns: 1500,
})

test("parseUserspaceLog() reads every record", () => {
  const [first, second] = parseUserspaceLog(log)
  assert.deepEqual([first?.pcr, first?.eventType, first?.text, second?.text], [11, "phase", "enter-initrd", "leave-initrd"]) // prettier-ignore
  assert.deepEqual(parseUserspaceLog(new Uint8Array(0)), [])
})

test("parseUserspaceLog() reads records without type and text", () => {
  const digests = [{ hashAlg: "sha256", digest: "00".repeat(32) }]
  const [event] = parseUserspaceLog(encodeUtf8(`\u001e${JSON.stringify({ pcr: 11, digests, content_type: "systemd", content: {} })}\n`))
  assert.deepEqual([event?.eventType, event?.text], ["", ""])
})

test("parseUserspaceLog() takes a log of the greatest size", () => {
  const [line] = Buffer.from(record({})).toString().split("\n")
  const bytes = encodeUtf8(`${(line ?? "").padEnd(4 * 1024 * 1024 - 1, " ")}\n`)
  assert.equal(bytes.length, 4 * 1024 * 1024)
  assert.equal(parseUserspaceLog(bytes).length, 1)
})

const changed = (from: string, to: string): Uint8Array => encodeUtf8(Buffer.from(record({})).toString().replace(from, to))
const wrong: readonly (readonly [string, Uint8Array, string])[] = [
  ["text in front", concatBytes(encodeUtf8("x"), log), "malformed"],
  ["a record without end", record({}).slice(0, -1), "truncated"],
  ["a register that does not exist", record({ pcr: 24 }), "malformed"],
  ["another content type", changed("systemd", "other"), "malformed"],
  ["no digest", changed(/"digests":\[.*?\]/.exec(Buffer.from(record({})).toString())?.[0] ?? "", '"digests":[]'), "malformed"],
  ["a digest of another size", changed('"digest":"', '"digest":"00'), "malformed"],
  ["a bank twice", changed('"digests":[', `"digests":[{"hashAlg":"sha256","digest":"${"00".repeat(32)}"},`), "duplicate"],
  ["a key twice", changed('"pcr":11', '"pcr":11,"pcr":12'), "duplicate"],
  ["too much", new Uint8Array(4 * 1024 * 1024 + 1), "too-large"],
]
for (const [what, bytes, code] of wrong)
  test(`parseUserspaceLog() refuses ${what}`, () => {
    assert.throws(() => parseUserspaceLog(bytes), { code })
  })

test("certifiedText() gives the text only where the digest is over it", () => {
  const [right] = parseUserspaceLog(record({}))
  const [secret] = parseUserspaceLog(record({ text: "cryptsetup:volume", hashed: "key" }))
  assert.ok(right !== undefined && secret !== undefined)
  assert.equal(certifiedText(right, "sha256"), "enter-initrd")
  assert.equal(certifiedText(right, "sha1"), "")
  assert.equal(certifiedText(secret, "sha256"), "")
})

const boot = makeLog(goodBoot())
const extend = (value: string, text: string): string => encodeHex(hash("sha256", parseHex(value), hash("sha256", encodeUtf8(text))))
const after = extend(extend("00".repeat(32), "enter-initrd"), "leave-initrd")
const quotedPcrs = (pcr: number, value: string): ReadonlyMap<number, string> => new Map([...quotedBy(boot, "sha256", bootRegisters), [pcr, value]])

test("verifyEventLog() explains systemd's registers with its log, apart from the boot", () => {
  const { claims } = verifyEventLog(boot, { bank: "sha256", quotedPcrs: quotedPcrs(11, after), userspaceLog: log })
  assert.deepEqual(
    claims.userspace?.map(({ index, pcr, type, description, certified }) => [index, pcr, type, description, certified]),
    [
      [0, 11, "phase", "enter-initrd", true],
      [1, 11, "phase", "leave-initrd", true],
    ],
  )
  assert.equal(claims.userspace?.[0]?.digest, encodeHex(hash("sha256", encodeUtf8("enter-initrd"))))
  assert.ok(claims.events.every((event) => event.pcr !== 11))
  const secret = record({ text: "cryptsetup:volume", hashed: "key" })
  const uncertified = verifyEventLog(boot, { bank: "sha256", quotedPcrs: quotedPcrs(11, extend("00".repeat(32), "key")), userspaceLog: secret })
  assert.deepEqual([uncertified.claims.userspace?.[0]?.certified, uncertified.claims.userspace?.[0]?.description], [false, ""])
  assert.throws(() => verifyEventLog(boot, { bank: "sha256", quotedPcrs: quotedPcrs(11, after) }), { code: "log-incomplete" })
  assert.throws(() => verifyEventLog(boot, { bank: "sha256", quotedPcrs: quotedPcrs(11, after), userspaceLog: record({}) }), { code: "pcr-mismatch" })
})

test("verifyEventLog() takes a log of user space for systemd's registers only, and only for quoted ones", () => {
  for (const pcr of [0, 4, 7, 8, 9, 14]) {
    const value = extend(quotedBy(boot, "sha256", bootRegisters).get(pcr) ?? "", "enter-initrd")
    assert.throws(() => verifyEventLog(boot, { bank: "sha256", quotedPcrs: quotedPcrs(pcr, value), userspaceLog: record({ pcr }) }), {
      code: "log-order",
    })
  }
  for (const pcr of [12, 13, 15])
    verifyEventLog(boot, { bank: "sha256", quotedPcrs: quotedPcrs(pcr, extend("00".repeat(32), "enter-initrd")), userspaceLog: record({ pcr }) })
  const { claims } = verifyEventLog(boot, { bank: "sha256", quotedPcrs: quotedBy(boot, "sha256", bootRegisters), userspaceLog: log })
  assert.equal(claims.userspace, undefined)
  const sha1Only = { bank: "sha256", quotedPcrs: quotedPcrs(11, "00".repeat(32)), userspaceLog: record({ bank: "sha1" }) } as const
  assert.throws(() => verifyEventLog(boot, sha1Only), { code: "log-incomplete" })
})
