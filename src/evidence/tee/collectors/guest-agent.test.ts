import assert from "node:assert/strict"
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { after, test } from "node:test"
import { makeLabAuthority, makeLabKeys } from "../../../../lab/devices/dcap/authority.ts"
import { makeTdxQuote } from "../../../../lab/devices/dcap/device.ts"
import { encodeHex, encodeUtf8, parseHex } from "../../../bytes/text.ts"
import { collectTee } from "./collect.ts"
import { collectGuestAgentQuote } from "./guest-agent.ts"

const intel = makeLabAuthority({ keys: makeLabKeys() })
const reportData = new Uint8Array(64).fill(7)
const quoteOver = (data: Uint8Array): string => encodeHex(makeTdxQuote(intel, data))

/** An agent that answers as it is told, with the report data that it was asked for. */
let answer: (response: ServerResponse, asked: Uint8Array) => void = (response) => response.end()
const server = createServer((request, response) => {
  const { searchParams } = new URL(request.url ?? "/", "http://agent")
  answer(response, parseHex(searchParams.get("report_data") ?? ""))
})
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
after(() => {
  server.closeAllConnections()
  server.close()
})
const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}` as const
const json = (value: unknown) => (response: ServerResponse) => void response.end(JSON.stringify(value))
const unavailable = { name: "UnavailableError", code: "unavailable" } as const

test("collectGuestAgentQuote() gives the quote over what was asked, with its event log where there is one", async () => {
  const text = quoteOver(reportData)
  const [quote, eventLog] = [parseHex(text), encodeUtf8("[]")]
  answer = (response, asked) => {
    assert.deepEqual(asked, reportData)
    json({ quote: text, event_log: "[]", more: 1 })(response)
  }
  assert.deepEqual(await collectGuestAgentQuote(address, reportData), { quote, eventLog })
  assert.deepEqual(await collectTee(address, reportData), { kind: "tdx", quote, eventLog })
  answer = json({ quote: text.toUpperCase(), event_log: "" })
  assert.deepEqual(await collectTee(address, reportData), { kind: "tdx", quote })
})

test("collectGuestAgentQuote() refuses a quote over other data, and what is no quote", async () => {
  answer = json({ quote: quoteOver(new Uint8Array(64)) })
  await assert.rejects(collectGuestAgentQuote(address, reportData), { ...unavailable, message: /over other data/ })
  for (const wrong of [{}, { quote: 1 }, { quote: "00" }, { quote: "0" }, [], { quote: "00".repeat(40_000) }]) {
    answer = json(wrong)
    await assert.rejects(collectGuestAgentQuote(address, reportData), unavailable, JSON.stringify(wrong).substring(0, 40))
  }
  answer = (response) => response.writeHead(500).end(JSON.stringify({ quote: quoteOver(reportData) }))
  await assert.rejects(collectGuestAgentQuote(address, reportData), { ...unavailable, message: /status 500/ })
  await assert.rejects(collectGuestAgentQuote(address, new Uint8Array(32)), TypeError)
})

test("collectGuestAgentQuote() bounds the answer and the time it waits", async () => {
  let sent = 0
  answer = (response) => {
    const piece = new Uint8Array(1_048_576).fill(0x20)
    // Never ends by itself: whoever reads must end it.
    const more = (): void => void response.write(piece, (error) => (error ? undefined : setImmediate(more)))
    sent++
    more()
  }
  await assert.rejects(collectGuestAgentQuote(address, reportData, { timeoutMilliseconds: 20_000 }), unavailable)
  assert.equal(sent, 3)
  answer = () => undefined
  await assert.rejects(collectGuestAgentQuote(address, reportData, { timeoutMilliseconds: 50 }), { name: "UnavailableError", code: "timeout" })
})

test("collectTee() says unsupported on a machine that is no TEE", async () => {
  for (const source of ["tsm", "gramine", "azure"] as const)
    await assert.rejects(collectTee(source, reportData), { name: "UnavailableError", code: "unsupported" })
})
