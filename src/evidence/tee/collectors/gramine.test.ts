import assert from "node:assert/strict"
import { test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../../../lab/devices/dcap/authority.ts"
import { makeSgxQuote } from "../../../../lab/devices/dcap/device.ts"
import { encodeUtf8 } from "../../../bytes/text.ts"
import type { DeviceFiles } from "./device-files.ts"
import { collectGramineQuote } from "./gramine.ts"

const intel = makeLabAuthority({ keys: makeLabKeys() })
const reportData = new Uint8Array(64).fill(0x9a)
const folder = "/dev/attestation"

/** Gramine's files; `others` says how often another thread asks in between. */
function fake({ type = "dcap", others = 0, quote = makeSgxQuote.bind(undefined, intel) as (data: Uint8Array) => Uint8Array } = {}): DeviceFiles & {
  readonly asked: string[]
} {
  let written: Uint8Array = new Uint8Array(64)
  let left = others
  const asked: string[] = []
  const missing = async (): Promise<never> => {
    throw Object.assign(new Error("ENOENT"), { code: "ENOENT" })
  }
  return {
    asked,
    makeFolder: missing,
    removeFolder: missing,
    write: async (path, bytes) => {
      asked.push(path)
      written = left-- > 0 ? new Uint8Array(64) : bytes
    },
    read: async (path) => (path.endsWith("/attestation_type") ? encodeUtf8(`${type}\n`) : path.endsWith("/quote") ? quote(written) : missing()),
  }
}

test("collectGramineQuote() gives a quote over the report data", async () => {
  const files = fake()
  assert.deepEqual(await collectGramineQuote(reportData, folder, files).then((quote) => quote.slice(368, 432)), reportData)
  assert.deepEqual(files.asked, ["/dev/attestation/user_report_data"])
})

test("collectGramineQuote() asks again when another thread asked in between, and gives up in the end", async () => {
  const files = fake({ others: 2 })
  await collectGramineQuote(reportData, folder, files)
  assert.equal(files.asked.length, 3)
  await assert.rejects(collectGramineQuote(reportData, folder, fake({ others: 5 })), { name: "UnavailableError", code: "unavailable" })
})

test("collectGramineQuote() says unsupported outside Gramine and without DCAP", async () => {
  await assert.rejects(collectGramineQuote(reportData, "/no/such/device"), { name: "UnavailableError", code: "unsupported" })
  for (const type of ["none", "epid"]) await assert.rejects(collectGramineQuote(reportData, folder, fake({ type })), { code: "unsupported" })
})

test("collectGramineQuote() lets only our errors out of what comes, and takes 64 bytes", async () => {
  await assert.rejects(collectGramineQuote(reportData, folder, fake({ quote: () => new Uint8Array(100) })), {
    code: /^(truncated|unsupported|malformed)$/,
  })
  await assert.rejects(collectGramineQuote(reportData, folder, fake({ quote: () => new Uint8Array(70_000) })), { code: "unavailable" })
  await assert.rejects(collectGramineQuote(new Uint8Array(32), folder, fake()), TypeError)
})
